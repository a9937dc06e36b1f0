//! The gRPC services: convert, ask the loop, convert.

mod control;
mod documents;
mod named;
mod tend;
mod work;

use tonic::Status;

pub(crate) use control::ControlService;
pub(crate) use work::WorkService;

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
        Self::not_found(error.to_string())
    }
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
