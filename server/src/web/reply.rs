//! Answers: pages for people, JSON for programs, and the headers that all of them carry.

use haul_http_fallback::web::body::{self, Body};
use haul_http_fallback::web::pages::failure;
use haul_http_fallback::web::service::Fault;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, SET_COOKIE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};

/// Nothing but what comes from here; no script or style inside a page; no frames around it.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                           form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What a user has stored is never part of our pages.
const CONTENT_POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

/// A year. Not for sub-domains: they are not ours.
const HSTS: &str = "max-age=31536000";

/// A request that cannot be met: for people and programs.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, title: &'static str, message: impl Into<String>) -> Self {
        Self { status, title, message: message.into() }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "There is nothing here",
            "The address leads nowhere. It may have been mistyped, or what was there is gone.",
        )
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The server failed",
            format!("{message}. Try again; if it stays so, tell the operator of this server."),
        )
    }

    /// In the form that the client reads.
    pub(crate) fn response(self, html: bool, user: Option<&str>) -> Response<Body> {
        if html {
            return page(self.status, failure(self.status.as_u16(), self.title, &self.message, user));
        }
        let fault = Fault { message: self.message };
        let bytes = serde_json::to_vec(&fault).unwrap_or_default();
        with_type(self.status, "application/json", bytes)
    }
}

/// Whether the client is a browser that shows pages.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains("text/html"))
}

pub(crate) fn page(status: StatusCode, html: String) -> Response<Body> {
    with_type(status, "text/html; charset=utf-8", html.into_bytes())
}

fn with_type(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Sends the browser on with a GET.
pub(crate) fn see_other(address: &str) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let address = HeaderValue::from_str(address).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, address);
    response
}

pub(crate) fn set_cookie(response: &mut Response<Body>, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}

/// The headers that every answer carries.
pub(crate) fn harden(response: &mut Response<Body>, tls: bool) {
    let is_page =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/"));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, if is_page { PAGE_POLICY } else { CONTENT_POLICY });
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(X_FRAME_OPTIONS, "DENY");
    // Not `no-referrer`: forms of our own pages would then come with the origin `null`.
    set(REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if tls {
        set(STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
