//! The worker's side of the pages: HTTP over the connections that the front hands over, with the files of one user
//! behind it. It knows the docroot and what the user may do, and nothing of cookies, links, tokens or addresses.
//!
//! The front has authenticated the user and says with [`BASE`] when a request may only see one folder. Answers are files,
//! archives, and JSON for the front to make pages of.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use haul_io::disk::browse::EntryKind;
use haul_io::disk::{DiskError, Docroot};
use haul_proto::control::Trouble;
use hyper::body::Incoming;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{debug, info};

use super::body::{self, Body};
use super::disposition::{attachment, safe_name};
use super::listing::{self, View};
use super::percent::{Query, decode, encode_path};
use super::zip::{Plan, ZipError};
use super::{download, form, handover, upload};

/// Header by which the front confines a request to a folder, which may then only be read: a percent-encoded path.
pub const BASE: &str = "haul-base";

/// Header that tells the front what an answer is.
pub const KIND: &str = "haul-kind";

/// Values of [`KIND`].
pub mod kind {
    /// A [`Listing`](super::listing::Listing).
    pub const LISTING: &str = "listing";
    /// Content, to be passed on.
    pub const CONTENT: &str = "content";
    /// A [`Fault`](super::Fault).
    pub const FAULT: &str = "fault";
    /// An [`About`](super::About).
    pub const ABOUT: &str = "about";
    /// An answer of an upload, to be passed on.
    pub const UPLOAD: &str = "upload";
}

/// The front takes its connections up at once; one that stays silent is left over from a crash.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// After the front has gone, requests under way have this long.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Connections taken from the front that wait for a task.
const WAITING: usize = 64;

/// The files of one user and what may be done with them.
#[derive(Debug, Clone)]
pub struct Files {
    /// Where they are.
    pub docroot: Docroot,
    /// Download.
    pub read: bool,
    /// Upload.
    pub write: bool,
    /// See names.
    pub list: bool,
}

/// Why a request failed, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What failed and what to do.
    pub message: String,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// It is a folder.
    pub folder: bool,
    /// Bytes of a file.
    pub size: u64,
    /// The last name of the path, percent-encoded; empty for the docroot.
    pub name: String,
    /// The whole path without needless parts, percent-encoded.
    pub path: String,
    /// The user may read it, and if it is a folder see what is in it.
    pub readable: bool,
}

/// A request that cannot be met.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn forbidden(what: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            format!("your account may not {what} here; ask the operator of this server"),
        )
    }

    fn response(self) -> Response<Body> {
        json(self.status, kind::FAULT, &Fault { message: self.message })
    }
}

impl From<DiskError> for Refused {
    fn from(error: DiskError) -> Self {
        let status = match error.trouble {
            Trouble::NotFound | Trouble::OutsideDocroot => StatusCode::NOT_FOUND,
            Trouble::PermissionDenied => StatusCode::FORBIDDEN,
            Trouble::WrongKind => StatusCode::CONFLICT,
            Trouble::PeerLost => StatusCode::LOCKED,
            Trouble::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Trouble::Limit => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ZipError> for Refused {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Disk(error) => error.into(),
            ZipError::TooLarge => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("{error}; download folders in it one by one, or use the haul client"),
            ),
        }
    }
}

/// Serves until the front has gone and the last requests are through.
///
/// # Errors
/// If the control socket fails.
pub async fn serve(control: OwnedFd, files: Files) -> io::Result<()> {
    let (sender, mut connections) = mpsc::channel(WAITING);
    // Waits on a thread of its own; it ends with the front, and the process with it.
    std::thread::spawn(move || {
        while let Ok(Some(connection)) = handover::accept(&control) {
            if sender.blocking_send(connection).is_err() {
                return;
            }
        }
    });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            connection = connections.recv() => match connection {
                Some(connection) => {
                    let stream = UnixStream::from_std(connection)?;
                    tasks.spawn(converse(stream, files.clone()));
                }
                None => break,
            }
        }
    }
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_REQUESTS, ended).await.is_err() {
        info!(requests = tasks.len(), "requests dropped at the end");
    }
    Ok(())
}

async fn converse(stream: UnixStream, files: Files) {
    let service = service_fn(move |request| {
        let files = files.clone();
        async move { Ok::<_, Infallible>(answer(&files, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        debug!(%error, "request broken off");
    }
}

/// Answers one request.
async fn answer(files: &Files, request: Request<Incoming>) -> Response<Body> {
    match route(files, request).await {
        Ok(response) => response,
        Err(refused) => {
            debug!(status = refused.status.as_u16(), reason = refused.message, "request refused");
            refused.response()
        }
    }
}

async fn route(files: &Files, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
    let files = confined(files, &request)?;
    let path = request.uri().path().to_owned();
    let (area, path) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let path = decode(path);
    let head = request.method() == Method::HEAD;
    match (area, request.method()) {
        ("files", &(Method::GET | Method::HEAD)) => {
            blocking(move || browse(&files, &path, &request, head)).await
        }
        ("zip", &(Method::GET | Method::HEAD)) => blocking(move || zip(files, &path, head)).await,
        ("files", &Method::POST) => form::store(files, path, request).await,
        ("folder", &Method::POST) => form::make_folder(files, path, request).await,
        ("upload", _) => upload::serve(files, path, request).await,
        ("about", &Method::GET) => blocking(move || about(&files, &path)).await,
        _ => Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")),
    }
}

/// The files that this request may see.
fn confined(files: &Files, request: &Request<Incoming>) -> Result<Files, Refused> {
    let Some(base) = request.headers().get(BASE) else { return Ok(files.clone()) };
    let base = base.to_str().map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "the base is no path"))?;
    let docroot = files.docroot.below(&decode(base))?;
    Ok(Files { docroot, write: false, ..files.clone() })
}

/// Runs what waits for the disk on a thread for such work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the request failed: {error}")))
    })
}

fn browse(
    files: &Files,
    path: &[u8],
    request: &Request<Incoming>,
    head: bool,
) -> Result<Response<Body>, Refused> {
    match files.docroot.about(path)?.kind {
        EntryKind::Folder if !files.list => Err(Refused::forbidden("list folders")),
        EntryKind::Folder => {
            let view = View::from_query(&Query::parse(request.uri().query().unwrap_or_default()));
            Ok(json(StatusCode::OK, kind::LISTING, &listing::list(&files.docroot, path, view)?))
        }
        EntryKind::File | EntryKind::Other if !files.read => Err(Refused::forbidden("download")),
        EntryKind::File | EntryKind::Other => {
            let file = files.docroot.read_file(path)?;
            Ok(content(download::serve(file, last_name(path), request.headers(), head)))
        }
    }
}

fn zip(files: Files, path: &[u8], head: bool) -> Result<Response<Body>, Refused> {
    if !files.read || !files.list {
        return Err(Refused::forbidden("download folders"));
    }
    let name = match last_name(path) {
        b"" => "files".to_owned(),
        name => safe_name(name),
    };
    let plan = Plan::new(files.docroot, path, &name)?;
    let length = plan.length();
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/zip")
        .header(CONTENT_DISPOSITION, attachment(format!("{name}.zip").as_bytes()))
        .header(CONTENT_LENGTH, length);
    let body = if head { body::empty() } else { body::pulled(plan.archive(), length) };
    Ok(content(response.body(body).expect("no header here comes from outside unescaped")))
}

fn about(files: &Files, path: &[u8]) -> Result<Response<Body>, Refused> {
    let found = files.docroot.about(path)?;
    let folder = found.kind == EntryKind::Folder;
    let parts: Vec<&[u8]> =
        path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "write the path without `..`"));
    }
    let about = About {
        folder,
        size: if folder { 0 } else { found.size },
        name: encode_path(parts.last().copied().unwrap_or_default()),
        path: encode_path(&parts.join(&b'/')),
        readable: files.read && (files.list || !folder) && files.docroot.is_readable(path, found.kind),
    };
    Ok(json(StatusCode::OK, kind::ABOUT, &about))
}

fn last_name(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/').rfind(|part| !part.is_empty()).unwrap_or_default()
}

fn content(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(KIND, hyper::header::HeaderValue::from_static(kind::CONTENT));
    response
}

fn json(status: StatusCode, kind: &'static str, value: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(value).expect("our own plain structures can be written");
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .header(KIND, kind)
        .body(body::full(Bytes::from(bytes)))
        .expect("no header here comes from outside")
}
