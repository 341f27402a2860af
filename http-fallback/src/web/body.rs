//! Bodies of answers: short ones at once, long ones piece by piece from a blocking source.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Sleep, sleep};

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Nothing.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What a source gives, `length` bytes in all. The source may block: it works on a thread for such work, one piece ahead
/// of the peer, and holds no thread while the peer is slow. An error cuts the answer, so that it is not taken for whole.
#[must_use]
pub fn pulled<S: Source>(source: S, length: u64) -> Body {
    Pulled { state: State::Idle(source), left: length }.boxed_unsync()
}

/// Gives a body piece by piece.
pub trait Source: Send + Unpin + 'static {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// If what was announced cannot be given.
    fn next(&mut self) -> io::Result<Option<Bytes>>;
}

struct Pulled<S> {
    state: State<S>,
    left: u64,
}

enum State<S> {
    Idle(S),
    Busy(JoinHandle<(S, io::Result<Option<Bytes>>)>),
    Done,
}

fn start<S: Source>(mut source: S) -> State<S> {
    State::Busy(spawn_blocking(move || {
        let piece = source.next();
        (source, piece)
    }))
}

impl<S: Source> hyper::body::Body for Pulled<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Idle(source) => self.state = start(source),
                State::Busy(mut work) => {
                    let Poll::Ready(done) = Pin::new(&mut work).poll(context) else {
                        self.state = State::Busy(work);
                        return Poll::Pending;
                    };
                    let (source, piece) = done.map_err(io::Error::other)?;
                    return Poll::Ready(match piece {
                        Ok(Some(bytes)) => {
                            self.left = self.left.saturating_sub(bytes.len() as u64);
                            self.state = start(source);
                            Some(Ok(Frame::data(bytes)))
                        }
                        Ok(None) if self.left > 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                        Ok(None) => None,
                        Err(error) => Some(Err(error)),
                    });
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The next data of a body, trailers passed over; `None` at its end.
pub async fn next_data<B>(body: &mut B) -> Option<Result<Bytes, B::Error>>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    loop {
        match std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Reads a short body whole; `None` if it is longer than `limit`.
///
/// # Errors
/// If the peer breaks off.
pub async fn read_short<B>(mut body: B, limit: usize) -> Result<Option<Vec<u8>>, B::Error>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let mut bytes = Vec::new();
    while let Some(data) = next_data(&mut body).await {
        let data = data?;
        if bytes.len() + data.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

/// For bodies that are passed on: counts what has left and tells at the end.
pub struct Counted<F: FnMut(u64) + Send + Unpin + 'static> {
    inner: Body,
    count: F,
}

impl<F: FnMut(u64) + Send + Unpin + 'static> Counted<F> {
    /// `count` is called with the bytes of each piece as it leaves.
    #[must_use]
    pub fn boxed(inner: Body, count: F) -> Body {
        Self { inner, count }.boxed_unsync()
    }
}

impl<F: FnMut(u64) + Send + Unpin + 'static> hyper::body::Body for Counted<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            (self.count)(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body that must keep coming: a peer that sends less than [`LEAST_BYTES`] in [`WINDOW`] is given up.
pub struct Paced<B> {
    inner: B,
    window: Pin<Box<Sleep>>,
    received: u64,
}

/// See [`Paced`]: 1 KiB/s over a minute.
const WINDOW: Duration = Duration::from_secs(60);
const LEAST_BYTES: u64 = 60 << 10;

impl<B> Paced<B> {
    /// From now on.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self { inner, window: Box::pin(sleep(WINDOW)), received: 0 }
    }
}

impl<B> hyper::body::Body for Paced<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        while self.window.as_mut().poll(context).is_ready() {
            if self.received < LEAST_BYTES {
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
            self.received = 0;
            self.window.as_mut().reset(Instant::now() + WINDOW);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
