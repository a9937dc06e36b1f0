//! Encrypted connections between our processes, and who is at their other end.
//!
//! TLS 1.3 only, with certificates from files that are read anew when they change: a connection lives
//! with those it was made with, the next one takes the new ones.

mod client;
mod files;
mod peer;
mod server;
mod trouble;

pub use client::{ClientTls, ClientTlsArgs, Dialer, check_client_files, dialer};
pub use files::{FileWatch, TlsError};
pub use peer::{ConnectionInfo, PeerCertificate, UnreadableCertificate, WorkloadName};
pub use server::{ClientCertificates, Connection, ServerTls, ServerTlsArgs, incoming};
pub use trouble::Trouble;
pub(crate) use trouble::Troubles;
