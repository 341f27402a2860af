//! What browsers reach: finds out who asks, refuses what other sites have their visitors send, and calls the part that
//! answers. Every answer carries the headers of [`reply::harden`].

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body as RequestBody;
use axum::extract::State;
use haul_http_fallback::listen::Caller;
use haul_http_fallback::web::assets;
use haul_http_fallback::web::body::{self, Body, read_short};
use haul_http_fallback::web::percent::{Query, decode};
use haul_http_fallback::web::sessions::{ABSOLUTE, LINK_LIFE, Links, Sessions};
use haul_http_fallback::web::shares::Shares;
use haul_http_fallback::web::store::Store;
use hyper::header::{COOKIE, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};
use tracing::{debug, info};

use super::pool::Pool;
use super::reply::{self, Refusal, wants_html};
use super::shared::Doors;
use super::{account, files, shared};
use crate::config::{Config, UserEntry};
use crate::error::ServerError;
use crate::front::{Front, Options};

/// The cookie of a session. The prefix makes browsers insist on TLS, this host and all paths.
pub(super) const COOKIE_NAME: &str = "__Host-haul";

/// A form comes at once.
const FORM_DEADLINE: Duration = Duration::from_secs(10);

/// Longest form that is read.
const MAX_FORM: usize = 16 << 10;

/// What the pages keep between requests. It belongs to the front, whose SSH side makes links.
#[derive(Debug)]
pub(crate) struct Web {
    pub(super) pool: Arc<Pool>,
    sessions: Mutex<Sessions>,
    links: Mutex<Links>,
    shares: Mutex<Shares>,
    pub(super) doors: Doors,
}

impl Web {
    /// With what the state directory has kept.
    pub(crate) fn open(config: &Config, options: &Options) -> Result<Self, ServerError> {
        let store = Store::new(&config.state_dir, "web-sessions.json");
        let path = store.path().to_owned();
        let sessions = Sessions::load(store, now()).map_err(|error| ServerError::StateDir {
            path: path.clone(),
            reason: format!("who is signed in cannot be read: {error}"),
        })?;
        let store = Store::new(&config.state_dir, "web-shares.json");
        let path = store.path().to_owned();
        let shares = Shares::load(store, now()).map_err(|error| ServerError::StateDir {
            path: path.clone(),
            reason: format!("what is shared cannot be read: {error}"),
        })?;
        Ok(Self {
            pool: Arc::new(Pool::new(options.worker_program.clone())),
            sessions: Mutex::new(sessions),
            links: Mutex::default(),
            shares: Mutex::new(shares),
            doors: Doors::new().map_err(ServerError::Runtime)?,
        })
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A one-time link for a user: its path and how many minutes it lives.
    pub(crate) fn make_link(&self, user: &str) -> std::io::Result<(String, u64)> {
        let token = self.links().make(user, now())?;
        Ok((format!("/link/{token}"), LINK_LIFE / 60))
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The pages as a router.
pub(crate) fn router(front: Arc<Front>) -> Router {
    Router::new().fallback(handle).with_state(front)
}

/// A request with what is known of who sent it.
pub(super) struct Visit {
    pub(super) front: Arc<Front>,
    pub(super) caller: Caller,
    pub(super) method: Method,
    /// Still encoded, with its leading slash.
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    /// Behind a lock only so that a visit can be shared between tasks.
    pub(super) body: Mutex<RequestBody>,
    /// Who is signed in.
    pub(super) user: Option<Arc<UserEntry>>,
}

async fn handle(State(front): State<Arc<Front>>, request: Request<RequestBody>) -> Response<RequestBody> {
    let (mut parts, body) = request.into_parts();
    let Some(caller) = parts.extensions.remove::<Caller>() else {
        return Response::new(RequestBody::from("no caller"));
    };
    // HTTP/2 names the host in the address of the request.
    if let (None, Some(authority)) = (parts.headers.get(HOST), parts.uri.authority()) {
        let host = HeaderValue::from_str(authority.as_str()).unwrap_or(HeaderValue::from_static("host"));
        parts.headers.insert(HOST, host);
    }
    let tls = caller.tls;
    let html = wants_html(&parts.headers);
    let visit = Visit {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        user: signed_in(&front, &parts.headers),
        headers: parts.headers,
        front,
        caller,
        body: Mutex::new(body),
    };
    if visit.user.is_some() {
        visit.caller.place.on_login();
    }
    let name = visit.user.as_ref().map(|user| user.name.clone());
    let mut response = route(visit).await.unwrap_or_else(|refusal| {
        debug!(status = refusal.status.as_u16(), reason = refusal.message, "request refused");
        refusal.response(html, name.as_deref())
    });
    reply::harden(&mut response, tls);
    response.map(RequestBody::new)
}

async fn route(visit: Visit) -> Result<Response<Body>, Refusal> {
    let path = visit.path.clone();
    let (area, rest) =
        path.trim_start_matches('/').split_once('/').unwrap_or_else(|| (path.trim_matches('/'), ""));
    let safe = matches!(visit.method, Method::GET | Method::HEAD);
    if !safe && !is_own_page(&visit.headers) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "This came from another site",
            "A page of another site tried to do something here in your name. It was refused.",
        ));
    }
    match (area, safe) {
        ("", true) => Ok(reply::see_other("/files/")),
        ("assets", true) => asset(rest, &visit.headers),
        ("robots.txt", true) => Ok(Response::new(body::full("User-agent: *\nDisallow: /\n"))),
        ("signin", true) => Ok(account::sign_in_page(&visit)),
        ("signin", false) => account::sign_in(visit).await,
        ("link", true) => account::link_page(&visit, rest),
        ("link", false) => account::redeem_link(&visit, rest),
        ("signout", false) => Ok(account::sign_out(&visit)),
        ("s", _) => shared::serve(visit, rest).await,
        ("files" | "zip" | "upload" | "folder", _) => files::serve(visit, area, rest).await,
        _ => Err(Refusal::not_found()),
    }
}

fn asset(rest: &str, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let name = rest.rsplit('/').next().unwrap_or_default();
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    assets::serve(name, known).ok_or_else(Refusal::not_found)
}

/// Who the cookie says. A user who is not configured any more is nobody.
fn signed_in(front: &Front, headers: &HeaderMap) -> Option<Arc<UserEntry>> {
    let name = front.web.sessions().user(&cookie(headers, COOKIE_NAME)?, now())?;
    front.user(&name)
}

pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then(|| value.to_owned()))
}

/// The cookie of a session that has just begun, or with no token of one that is over.
pub(super) fn session_cookie(token: Option<&str>) -> String {
    let (value, age) = token.map_or(("", 0), |token| (token, ABSOLUTE));
    format!("{COOKIE_NAME}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax")
}

/// Whether a request that changes something comes from our own page. Browsers say where a request comes from; a program
/// that says nothing has no visitor who could be abused.
fn is_own_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    match (text(ORIGIN.as_str()), text(HOST.as_str())) {
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, authority)| authority == host)
        }
        (Some(_), None) => false,
        (None, _) => true,
    }
}

impl Visit {
    /// The address that asks, for logs and limits.
    pub(super) fn peer(&self) -> IpAddr {
        self.caller.address.ip().to_canonical()
    }

    /// The fields of a form.
    pub(super) async fn form(&mut self) -> Result<Query, Refusal> {
        let body = std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner));
        let read = tokio::time::timeout(FORM_DEADLINE, read_short(body, MAX_FORM)).await;
        let bytes = read.ok().and_then(Result::ok).flatten().ok_or_else(|| {
            Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "This is too long",
                "The form was longer than any of ours, or took too long to come.",
            )
        })?;
        Ok(Query::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// The host as the browser knows it, without port.
    pub(super) fn host(&self) -> String {
        let host = self.headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or("host");
        let end = host.rfind(':').filter(|&at| !host.get(at..).unwrap_or_default().contains(']'));
        let host = end.and_then(|at| host.get(..at)).unwrap_or(host);
        let sane = host.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c));
        if sane { host.trim_matches(['[', ']']).to_owned() } else { "host".to_owned() }
    }

    /// Begins a session and sends the browser on.
    pub(super) fn begin(&self, user: &str, next: &str) -> Result<Response<Body>, Refusal> {
        let token = self.front.web.sessions().begin(user, now()).map_err(|error| {
            tracing::error!(%error, "sessions cannot be stored");
            Refusal::internal("your session could not be stored")
        })?;
        self.caller.place.on_login();
        info!(user, source = %self.peer(), "browser login");
        let mut response = reply::see_other(account::safe_next(next));
        reply::set_cookie(&mut response, &session_cookie(Some(&token)));
        Ok(response)
    }
}

/// The decoded path.
pub(super) fn decoded(path: &str) -> Vec<u8> {
    let bytes = decode(path);
    let trimmed: &[u8] = bytes.strip_suffix(b"/").unwrap_or(&bytes);
    trimmed.strip_prefix(b"/").unwrap_or(trimmed).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn other_sites_cannot_act_through_a_browser() {
        for (n, (all, own)) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "https://a:8443"), ("host", "a:8443")], true),
            (&[("origin", "https://a:8444"), ("host", "a:8443")], false),
            (&[("origin", "null"), ("host", "a:8443")], false),
            (&[("origin", "https://evil")], false),
            (&[("host", "a")], true),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(is_own_page(&headers(all)), own, "row {n}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let all = headers(&[("cookie", "a=b; __Host-haul=token; x=__Host-haul=no")]);
        assert_eq!(cookie(&all, COOKIE_NAME).as_deref(), Some("token"));
        assert_eq!(cookie(&headers(&[("cookie", "haul=x")]), COOKIE_NAME), None);
        assert!(session_cookie(Some("t")).contains("Secure; HttpOnly; SameSite=Lax"));
    }
}
