//! A TCP stream that fails once the login deadline has passed. The SSH library has no such limit: its inactivity timer
//! starts anew at each packet, and a disconnect is not sent before the key exchange is done.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A stream with a deadline, until the flag is set.
pub(crate) struct DeadlineStream {
    inner: TcpStream,
    deadline: Pin<Box<Sleep>>,
    /// Set when the peer has logged in.
    logged_in: Arc<AtomicBool>,
}

impl DeadlineStream {
    pub(crate) fn new(inner: TcpStream, time: Duration, logged_in: Arc<AtomicBool>) -> Self {
        Self { inner, deadline: Box::pin(sleep(time)), logged_in }
    }

    /// Both directions ask: a peer that does not read must not last longer than one that does not write.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.logged_in.load(Ordering::Relaxed) || self.deadline.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no login in time"))
    }
}

impl AsyncRead for DeadlineStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
