//! A stream that gives up on a peer who does not read: without it, a client that asks for a large answer and never
//! takes it would hold a connection, and a place among those allowed, for ever. (Requests that do not come are the
//! server's own matter: heads and bodies have their time-outs.)

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose writes fail once the peer has taken nothing for a while.
#[derive(Debug)]
pub(crate) struct WriteStall<S> {
    inner: S,
    patience: Duration,
    /// Runs out while a write waits.
    deadline: Pin<Box<Sleep>>,
    is_waiting: bool,
    stalled: IntCounter,
}

impl<S> WriteStall<S> {
    /// Wraps `inner`; `stalled` counts streams given up.
    pub(crate) fn new(inner: S, patience: Duration, stalled: IntCounter) -> Self {
        let deadline = Box::pin(tokio::time::sleep(patience));
        Self { inner, patience, deadline, is_waiting: false, stalled }
    }

    /// Passes on what a write said, and fails in place of waiting longer than allowed.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            let deadline = Instant::now() + self.patience;
            self.deadline.as_mut().reset(deadline);
        }
        ready!(self.deadline.as_mut().poll(cx));
        self.stalled.inc();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteStall<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteStall<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.watch(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("n", "n").unwrap()
    }

    fn paused() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up() {
        paused().block_on(async {
            let (near, far) = tokio::io::duplex(16);
            let stalled = counter();
            let mut stream = WriteStall::new(near, Duration::from_secs(60), stalled.clone());
            let begun = Instant::now();
            let error = stream.write_all(&[0; 64]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!((begun.elapsed().as_secs(), stalled.get()), (60, 1));
            drop(far);
        });
    }

    #[test]
    fn a_slow_peer_is_waited_for() {
        paused().block_on(async {
            let (near, mut far) = tokio::io::duplex(16);
            let stalled = counter();
            let mut stream = WriteStall::new(near, Duration::from_secs(60), stalled.clone());
            let reader = async {
                for _ in 0..4 {
                    tokio::time::sleep(Duration::from_secs(50)).await;
                    far.read_exact(&mut [0; 16]).await.unwrap();
                }
            };
            let (written, ()) = tokio::join!(stream.write_all(&[0; 64]), reader);
            assert!(written.is_ok());
            assert_eq!(stalled.get(), 0);
        });
    }
}
