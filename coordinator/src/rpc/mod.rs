//! The gRPC services: convert, ask the loop, convert.

mod control;
mod documents;
mod named;
mod tend;
mod work;

use std::sync::Arc;

use tonic::{Request, Status};

pub(crate) use control::ControlService;
pub(crate) use work::WorkService;

use crate::access::Identity;
use crate::control::{NotReady, Refused};

/// Size of a document's pieces, in bytes.
const PIECE: usize = 1024 * 1024;

impl From<NotReady> for Status {
    fn from(error: NotReady) -> Self {
        let mut status = Self::unavailable(error.to_string());
        if let NotReady::Behind(Some(leader)) = &error
            && let Ok(leader) = leader.parse()
        {
            status.metadata_mut().insert(coord_proto::net::LEADER, leader);
        }
        status
    }
}

impl From<Refused> for Status {
    fn from(error: Refused) -> Self {
        match error {
            Refused::Unknown => Self::not_found(error.to_string()),
            Refused::Crowded(_) => Self::resource_exhausted(error.to_string()),
            Refused::NotTheirs(_) => Self::permission_denied(error.to_string()),
        }
    }
}

/// Who makes a call that was let through. Without the check nobody is known, and nothing is done.
fn caller<T>(request: &Request<T>) -> Result<Arc<Identity>, Status> {
    let known = request.extensions().get::<Arc<Identity>>().cloned();
    known.ok_or_else(|| Status::permission_denied("nobody has checked who calls"))
}

/// A document as a stream of pieces.
fn pieces(document: Vec<u8>) -> Pieces {
    let chunks: Vec<_> =
        document.chunks(PIECE).map(|data| Ok(coord_proto::wire::Chunk { data: data.to_vec() })).collect();
    Box::pin(tokio_stream::iter(chunks))
}

/// A stream of a document's pieces.
type Pieces =
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<coord_proto::wire::Chunk, Status>> + Send>>;
