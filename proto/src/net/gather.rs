//! Writes that wait for company.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often a connection lets other tasks go first before it writes: the head, the body and the end of
/// a call come one after the other, from a task that takes turns with the connection's own.
const TURNS: u8 = 3;
/// Bytes that are gathered at most: what is larger needs no company.
const MOST: usize = 64 * 1024;

/// A connection of whatever kind.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A stream that writes what comes up in the same moment together. HTTP/2 flushes the head, the body and
/// the end of a call as they come, each of which would be a packet of its own that wakes the other side.
#[derive(Debug)]
pub struct Gathered<T> {
    stream: T,
    /// What is to be written, and how much of it is.
    held: Vec<u8>,
    written: usize,
    /// How often it has let others go first since the last flush.
    turns: u8,
}

impl<T> Gathered<T> {
    /// A stream over another one.
    pub fn new(stream: T) -> Self {
        Self { stream, held: Vec::new(), written: 0, turns: 0 }
    }

    /// Takes as much as there is room for.
    fn hold(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MOST.saturating_sub(self.held.len()));
        self.held.extend_from_slice(&bytes[..taken]);
        taken
    }
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.held[self.written..]);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.held.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.len() < MOST { Poll::Ready(Ok(())) } else { self.poll_drain(cx) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        Poll::Ready(Ok(self.hold(buf)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            if self.turns < TURNS {
                self.turns += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.poll_drain(cx))?;
        }
        self.turns = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        Poll::Ready(Ok(bufs.iter().map(|buf| self.hold(buf)).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Counts writes.
    struct Counted<T>(T, usize);

    impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.1 += 1;
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn what_is_written_before_a_flush_ends_goes_in_one_piece() {
        let (near, mut far) = duplex(1024);
        let mut stream = Gathered::new(Counted(near, 0));
        stream.write_all(b"head").await.unwrap();
        // A flush that waits its turns takes along what comes meanwhile.
        let flushes = std::future::poll_fn(|cx| {
            let pending = Pin::new(&mut stream).poll_flush(cx).is_pending();
            Poll::Ready(pending)
        });
        assert!(flushes.await);
        stream.write_all(b"body").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.stream.1, 1);
        let mut read = [0; 8];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"headbody");
    }

    #[tokio::test]
    async fn much_goes_through_a_narrow_stream_unchanged() {
        let (near, mut far) = duplex(1000);
        let sent: Vec<u8> = (0..5 * MOST + 17).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let write = async move {
            let mut stream = Gathered::new(near);
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, count) = tokio::join!(write, far.read_to_end(&mut read));
        assert_eq!(count.unwrap(), expected.len());
        assert!(read == expected);
    }
}
