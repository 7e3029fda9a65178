//! A stream whose peer must take what is written to it, or at least a part of it, within a time.
//!
//! The system gives up on a peer that acknowledges nothing; one that goes on acknowledging and reads nothing would hold its
//! connection, and the answer that waits in it, for as long as it likes. Streams that have their own rules for slow
//! readers are let off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// `inner`, written to with limited patience.
pub(crate) struct Patient<T> {
    inner: T,
    limit: Duration,
    /// Whether whoever writes has rules of its own.
    is_let_off: Arc<AtomicBool>,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T, limit: Duration, is_let_off: Arc<AtomicBool>) -> Self {
        Self { inner, limit, is_let_off, waiting: None }
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner
    }

    /// Passes on what a write came to, unless it has waited too long.
    fn judge<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() || self.is_let_off.load(Ordering::Relaxed) {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        waiting.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn pair() -> (Patient<DuplexStream>, DuplexStream, Arc<AtomicBool>) {
        let (ours, theirs) = duplex(16);
        let is_let_off = Arc::new(AtomicBool::new(false));
        (Patient::new(ours, LIMIT, is_let_off.clone()), theirs, is_let_off)
    }

    /// HTTP-69
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_on_after_the_time_and_not_before() {
        let (mut ours, _theirs, _) = pair();
        let begun = Instant::now();
        let error = ours.write_all(&[0; 17]).await.expect_err("nobody reads");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
    }

    /// HTTP-69
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_now_and_then_is_waited_for() {
        let (mut ours, mut theirs, _) = pair();
        let reading = async {
            for _ in 0..4 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 16]).await.expect("there is more");
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(&[0; 64]), reading);
        written.expect("it took longer than the limit, but never so long at a time");
    }

    /// HTTP-69
    #[tokio::test(start_paused = true)]
    async fn a_stream_with_rules_of_its_own_is_let_off() {
        let (mut ours, _theirs, is_let_off) = pair();
        is_let_off.store(true, Ordering::Relaxed);
        let written = tokio::time::timeout(LIMIT * 3, ours.write_all(&[0; 17])).await;
        assert!(written.is_err(), "still waiting");
    }
}
