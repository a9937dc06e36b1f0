//! The wire: generated types and services, and their conversions to and from the domain. The only
//! crate that sees both.

pub mod convert;
pub mod net;
pub mod tls;

/// Generated from the `.proto` files.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod wire {
    tonic::include_proto!("coord.v1");
}
