//! Hands a request to the worker of a user. Only headers that concern files pass, in either direction: the worker hears no
//! cookie and no token, and cannot set any.

use std::io;
use std::sync::Arc;

use axum::body::Body as RequestBody;
use haul_http_fallback::web::body::{Body, Counted, Paced, read_short};
use haul_http_fallback::web::service::{BASE, Fault, KIND, kind};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::pool::{Lent, Pool};
use super::reply::Refusal;
use crate::config::UserEntry;

/// Longest answer that is read here and not passed on.
const MAX_ANSWER: usize = 8 << 20;

const TO_WORKER: [HeaderName; 8] = [
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    CONTENT_TYPE,
    CONTENT_LENGTH,
    HeaderName::from_static("tus-resumable"),
];
const TO_CLIENT: [HeaderName; 8] = [
    CONTENT_LENGTH,
    CONTENT_RANGE,
    ACCEPT_RANGES,
    ETAG,
    LAST_MODIFIED,
    CONTENT_TYPE,
    CONTENT_DISPOSITION,
    HeaderName::from_static("haul-name"),
];

/// An answer of the worker.
pub(crate) enum Answer {
    /// To be passed on as it is.
    Content(Response<Body>),
    /// JSON of the kind that was asked for.
    Data(Vec<u8>),
    /// The worker refused.
    Fault(Refusal),
}

/// What is asked of a worker.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Path and query, encoded.
    pub(crate) path: String,
    /// The folder, encoded, that the request may not leave.
    pub(crate) base: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: RequestBody,
}

/// Asks the worker of `user`.
pub(crate) async fn ask(pool: &Arc<Pool>, user: &UserEntry, ask: Ask<'_>) -> Answer {
    match send(pool, user, ask).await {
        Ok((response, lent)) => sort(response, lent).await,
        Err(error) => {
            debug!(user = user.name, %error, "worker of the pages does not answer");
            Answer::Fault(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Your files cannot be reached",
                "The part of the server that has your files does not answer. Try again in a moment; if it stays so, tell \
                 the operator of this server.",
            ))
        }
    }
}

async fn send(pool: &Arc<Pool>, user: &UserEntry, ask: Ask<'_>) -> io::Result<(Response<Incoming>, Lent)> {
    let (stream, lent) = pool.connect(user).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the response: whoever drops that drops the connection.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "conversation with a worker broken off");
        }
    });
    let mut request = Request::new(Paced::new(ask.body));
    *request.method_mut() = ask.method;
    *request.uri_mut() = ask.path.parse().map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("worker"));
    copy(ask.headers, headers, &TO_WORKER, "upload-");
    if let Some(base) = ask.base {
        headers.insert(BASE, HeaderValue::from_str(base).map_err(io::Error::other)?);
    }
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok((response, lent))
}

/// Passes content on, and reads what is meant for us.
async fn sort(response: Response<Incoming>, lent: Lent) -> Answer {
    let (parts, incoming) = response.into_parts();
    let is = |wanted: &str| parts.headers.get(KIND).is_some_and(|found| found == wanted);
    if is(kind::CONTENT) || is(kind::UPLOAD) {
        let body = incoming.map_err(io::Error::other).boxed_unsync();
        let mut passed = Response::new(Counted::boxed(body, move |_| {
            // The worker is not idle as long as somebody reads.
            let _ = &lent;
        }));
        *passed.status_mut() = parts.status;
        copy(
            &parts.headers,
            passed.headers_mut(),
            &TO_CLIENT,
            if is(kind::UPLOAD) { "upload-" } else { "-" },
        );
        if is(kind::UPLOAD) {
            copy(&parts.headers, passed.headers_mut(), &[hyper::header::LOCATION], "tus-");
        } else {
            let caching = HeaderValue::from_static("private, no-cache, no-transform");
            passed.headers_mut().insert(CACHE_CONTROL, caching);
        }
        return Answer::Content(passed);
    }
    let Ok(Some(bytes)) = read_short(incoming, MAX_ANSWER).await else {
        return Answer::Fault(Refusal::internal("the answer about your files was cut short"));
    };
    if parts.status.is_success() && (is(kind::LISTING) || is(kind::ABOUT)) {
        return Answer::Data(bytes);
    }
    let message = serde_json::from_slice::<Fault>(&bytes).map_or_else(
        |_| "the part of the server that has your files failed".to_owned(),
        |fault| fault.message,
    );
    Answer::Fault(Refusal::new(parts.status, title(parts.status), message))
}

fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::FORBIDDEN => "This is not allowed",
        StatusCode::CONFLICT => "This does not fit",
        StatusCode::LOCKED => "Somebody else is at it",
        StatusCode::INSUFFICIENT_STORAGE => "The disk is full",
        StatusCode::UNPROCESSABLE_ENTITY => "This is too much at once",
        _ => "This did not work",
    }
}

/// Copies the headers named, and those that begin so.
fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName], prefix: &str) {
    for (name, value) in from {
        if names.contains(name) || name.as_str().starts_with(prefix) {
            to.insert(name.clone(), value.clone());
        }
    }
}
