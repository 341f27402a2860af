//! The carrier's path at the server: an HTTP/1.1 upgrade that joins a TLS connection to the worker of a session, if it
//! shows a proof that only the session's client can make. And the pump that both ends move bytes with. What the bytes mean
//! is the worker's business.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, routing::get};
use hyper_util::rt::TokioIo;
use ring::hmac;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::listen::Caller;

/// Path of the upgrade.
pub const PATH: &str = "/haul/v1/session";

/// What is upgraded to.
pub const PROTOCOL: &str = "haul";

/// Names of the request's headers: session, number of the connection in it, and the proof.
pub const SESSION: &str = "haul-session";
/// See [`SESSION`].
pub const NUMBER: &str = "haul-connection";
/// See [`SESSION`].
pub const PROOF: &str = "haul-proof";

/// Connections that one session may open in all, reopened ones included.
pub const MAX_NUMBER: u16 = 1024;

/// Bytes moved at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A closing connection is not waited for any longer.
const GOODBYE: Duration = Duration::from_secs(2);

/// The one-time key of a connection: what the session's secret token makes of its number.
#[must_use]
pub fn proof(token: &[u8], session: &str, number: u16) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, token), &proven(session, number));
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Whether a proof is right, in constant time.
#[must_use]
pub fn is_proof(key: &hmac::Key, session: &str, number: u16, proof: &[u8]) -> bool {
    hmac::verify(key, &proven(session, number), proof).is_ok()
}

fn proven(session: &str, number: u16) -> Vec<u8> {
    [b"haul stream 1", session.as_bytes(), &number.to_be_bytes()].concat()
}

/// The sessions that have workers here.
pub trait Doors: Send + Sync {
    /// Joins a connection to a session. None if there is no such session, the proof is wrong, the number has been used, or
    /// there are too many: a stranger learns no difference.
    fn enter(&self, session: &str, number: u16, proof: &[u8]) -> Option<StdUnixStream>;
}

/// Answers [`PATH`].
pub fn router(doors: Arc<dyn Doors>) -> Router {
    Router::new().route(PATH, get(upgrade)).with_state(doors)
}

async fn upgrade(
    State(doors): State<Arc<dyn Doors>>,
    Extension(caller): Extension<Caller>,
    mut request: Request<Body>,
) -> Response {
    if !asks_for_upgrade(request.headers()) {
        let headers = [(UPGRADE, HeaderValue::from_static(PROTOCOL))];
        return (StatusCode::UPGRADE_REQUIRED, headers, "this is for haul\n").into_response();
    }
    let Some((session, door)) = enter(&*doors, request.headers()) else {
        debug!(peer = %caller.address, "carrier refused");
        // Behind a proxy the address is the proxy's, which has done nothing wrong.
        if !request.headers().contains_key("x-forwarded-for") {
            caller.place.on_refused();
        }
        return (StatusCode::FORBIDDEN, "no such session\n").into_response();
    };
    caller.place.on_login();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                info!(session, peer = %caller.address, "carrier connected");
                let ended = pump(TokioIo::new(stream), door).await;
                debug!(session, peer = %caller.address, ?ended, "carrier disconnected");
            }
            Err(error) => debug!(session, %error, "carrier not upgraded"),
        }
        // The place was taken until here.
        drop(caller);
    });
    let headers =
        [(UPGRADE, HeaderValue::from_static(PROTOCOL)), (CONNECTION, HeaderValue::from_static("upgrade"))];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    text(UPGRADE).eq_ignore_ascii_case(PROTOCOL)
        && text(CONNECTION).split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

fn enter(doors: &dyn Doors, headers: &HeaderMap) -> Option<(String, StdUnixStream)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let session = text(SESSION)?;
    let number = text(NUMBER)?.parse().ok().filter(|&number| number < MAX_NUMBER)?;
    let door = doors.enter(session, number, &from_hex(text(PROOF)?)?)?;
    Some((session.to_owned(), door))
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 bytes of 64 hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Moves bytes both ways until one end closes.
///
/// # Errors
/// If the socket cannot be used here, or a connection breaks.
pub async fn pump<S>(stream: S, socket: StdUnixStream) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    socket.set_nonblocking(true)?;
    let (from_socket, to_socket) = UnixStream::from_std(socket)?.into_split();
    let (from_stream, mut to_stream) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = relay(from_socket, &mut to_stream) => ended,
        ended = relay(from_stream, to_socket) => ended,
    };
    let _ = timeout(GOODBYE, to_stream.shutdown()).await;
    ended
}

/// Each read is written and flushed before the next, so that nothing waits in a buffer that nobody empties.
async fn relay(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_its_token_session_and_number_only() {
        let key = |token: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, token);
        let made = proof(&[7; 32], "0123456789abcdef", 3);
        assert!(is_proof(&key(&[7; 32]), "0123456789abcdef", 3, &made));
        assert!(!is_proof(&key(&[8; 32]), "0123456789abcdef", 3, &made));
        assert!(!is_proof(&key(&[7; 32]), "0123456789abcdee", 3, &made));
        assert!(!is_proof(&key(&[7; 32]), "0123456789abcdef", 4, &made));
        assert!(!is_proof(&key(&[7; 32]), "0123456789abcdef", 3, &made[..31]));
        let text = to_hex(&made);
        assert_eq!(text, "5698017fcc083ff6f48686e3381fc5e67dd34ae81f78f011eed7efc6434b9f1d", "golden vector");
        assert_eq!(from_hex(&text), Some(made));
        assert_eq!(from_hex(&text[1..]), None);
        assert_eq!(from_hex(&format!("+{}", &text[1..])), None);
    }
}
