//! The files that belong to the pages, in the program itself. Their address holds their digest, so that a browser keeps
//! them for ever and a new version is seen at once.

use std::sync::OnceLock;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use hyper::{Response, StatusCode};
use ring::digest::{SHA256, digest};

use super::body::{self, Body};

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/app.js");
const ICON: &str = include_str!("assets/icon.svg");

/// A part of all addresses of assets.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let digest = digest(&SHA256, [STYLE, SCRIPT, ICON].concat().as_bytes());
        digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    })
}

/// The asset at `/assets/{version}/{name}`; an old version gets the present one, which will do until the page is loaded
/// again.
#[must_use]
pub fn serve(name: &str, known: Option<&str>) -> Option<Response<Body>> {
    let (kind, text) = match name {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "app.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return None,
    };
    let etag = format!("\"{}\"", version());
    let builder = Response::builder()
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, "public, max-age=31536000, immutable")
        .header(ETAG, &etag);
    let response = if known == Some(etag.as_str()) {
        builder.status(StatusCode::NOT_MODIFIED).body(body::empty())
    } else {
        builder.body(body::full(text))
    };
    response.ok()
}
