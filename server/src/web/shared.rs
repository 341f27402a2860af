//! What is behind a shared link: a file, or a folder and all below it, read with the rights of the user who shares it, and
//! only there. The same address is a page for people and the file itself for programs.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use haul_http_fallback::web::body::{Body, Counted};
use haul_http_fallback::web::listing::Listing;
use haul_http_fallback::web::pages::folder::Folder;
use haul_http_fallback::web::pages::share::{File, password};
use haul_http_fallback::web::percent::{decode, encode_path};
use haul_http_fallback::web::service::About;
use haul_http_fallback::web::shares::{Claim, Part, Share};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::{Method, Response, StatusCode};
use ring::hmac;
use tracing::info;
use zeroize::Zeroizing;

use super::proxy::{Answer, Ask, ask};
use super::reply::{self, Refusal, wants_html};
use super::site::{Visit, cookie, decoded, now};
use crate::config::UserEntry;
use crate::front::Front;
use crate::password::Passwords;

/// A password that was right is not asked for again for so long, seconds.
const OPEN_FOR: u64 = 3600;

/// What shared links keep that need not survive a restart.
pub(crate) struct Doors {
    /// Seals the cookies of those who knew a password.
    key: hmac::Key,
    passwords: OnceLock<Passwords>,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").finish_non_exhaustive()
    }
}

impl Doors {
    pub(crate) fn new() -> std::io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
            .map_err(|_| std::io::Error::other("the system has no random numbers"))?;
        Ok(Self { key, passwords: OnceLock::new() })
    }

    fn seal(&self, id: &str, until: u64) -> String {
        let tag = hmac::sign(&self.key, format!("{id} {until}").as_bytes());
        let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{until}.{digits}")
    }

    fn opens(&self, id: &str, cookie: &str, now: u64) -> bool {
        let Some((until, digits)) = cookie.split_once('.') else { return false };
        let Ok(until) = until.parse::<u64>() else { return false };
        let expected = self.seal(id, until);
        let equal = expected.split_once('.').is_some_and(|(_, tag)| {
            // Digests of both: their comparison tells nothing by its time.
            ring::digest::digest(&ring::digest::SHA256, tag.as_bytes()).as_ref()
                == ring::digest::digest(&ring::digest::SHA256, digits.as_bytes()).as_ref()
        });
        equal && now < until
    }
}

/// Answers a request below `/s/`: the token, then what is wanted of it.
pub(super) async fn serve(mut visit: Visit, rest: &str) -> Result<Response<Body>, Refusal> {
    let (token, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(share) = visit.front.web.shares().find(token, now()).cloned() else {
        visit.caller.place.on_refused();
        return Err(over("This link leads nowhere", "It has ended, was taken back, or was mistyped."));
    };
    let Some(user) = visit.front.user(&share.user).filter(|user| user.permissions.read) else {
        return Err(over("This link has ended", "Who shared it cannot read it any more."));
    };
    if visit.method == Method::POST {
        return enter(&mut visit, &share, token).await;
    }
    if share.password.is_some() && !is_open(&visit, &share).await {
        return Ok(closed(&visit, StatusCode::UNAUTHORIZED, None));
    }
    // Whoever has the link is known: a long download must not be taken for a stranger's silence.
    visit.caller.place.on_login();
    let base = format!("/s/{token}/");
    let html = wants_html(&visit.headers);
    if share.folder {
        return folder(visit, &user, &share, &base, path, html).await;
    }
    if html && !visit.query.contains("download") {
        return file_page(&visit, &user, &share, &base).await;
    }
    let request = request(&visit, format!("/files/{}", share.path), None);
    let answer = ask(&visit.front.web.pool, &user, request).await;
    counted(&visit.front, &visit, &share, "", answer)
}

fn over(title: &'static str, message: &str) -> Refusal {
    Refusal::new(StatusCode::GONE, title, format!("{message} Ask whoever gave it to you for a new one."))
}

fn request<'a>(visit: &'a Visit, path: String, base: Option<&'a str>) -> Ask<'a> {
    let method = if visit.method == Method::HEAD { Method::HEAD } else { Method::GET };
    Ask { method, path, base, headers: &visit.headers, body: axum::body::Body::empty() }
}

async fn folder(
    visit: Visit,
    user: &Arc<UserEntry>,
    share: &Share,
    base: &str,
    rest: &str,
    html: bool,
) -> Result<Response<Body>, Refusal> {
    let path = decoded(rest);
    let zip = visit.query == "zip";
    let area = if zip { "zip" } else { "files" };
    let query = if zip || visit.query.is_empty() { String::new() } else { format!("?{}", visit.query) };
    // The worker opens the shared folder first and resolves the rest below it, in the kernel.
    let inner = format!("/{area}/{}{query}", encode_path(&path));
    let answer = ask(&visit.front.web.pool, user, request(&visit, inner, Some(&share.path))).await;
    let json = match answer {
        Answer::Data(json) => json,
        answer => {
            return counted(&visit.front, &visit, share, &format!("{area}/{}", encode_path(&path)), answer);
        }
    };
    let slash = if path.is_empty() { "" } else { "/" };
    let here = format!("{base}{}{slash}", encode_path(&path));
    if !html {
        return Ok(reply::see_other(&format!("{here}?zip")));
    }
    if !rest.is_empty() && !rest.ends_with('/') {
        return Ok(reply::see_other(&here));
    }
    let listing: Listing = serde_json::from_slice(&json)
        .map_err(|_| Refusal::internal("the listing of the folder cannot be read"))?;
    let name = decode(share.path.rsplit('/').next().unwrap_or_default());
    let top = haul_http_fallback::web::disposition::safe_name(if name.is_empty() { b"Files" } else { &name });
    let page = Folder {
        base,
        top: &top,
        path: &path,
        listing: &listing,
        user: None,
        writable: false,
        readable: true,
        archive: &format!("{here}?zip"),
        note: None,
    };
    Ok(reply::page(StatusCode::OK, page.html()))
}

async fn file_page(
    visit: &Visit,
    user: &Arc<UserEntry>,
    share: &Share,
    base: &str,
) -> Result<Response<Body>, Refusal> {
    let about = match ask(&visit.front.web.pool, user, request(visit, format!("/about/{}", share.path), None))
        .await
    {
        Answer::Data(json) => serde_json::from_slice::<About>(&json).ok(),
        Answer::Fault(refusal) => return Err(refusal),
        Answer::Content(_) => None,
    };
    let about = about.ok_or_else(|| Refusal::internal("what is shared cannot be looked at"))?;
    let name = decode(&about.name);
    let address = format!("{base}{}?download", about.name);
    let left = share.count.map(|count| count.saturating_sub(share.used));
    let file = File { name: &name, size: about.size, address: &address, expires: share.expires, left };
    Ok(reply::page(StatusCode::OK, file.html()))
}

/// Passes content on if the share allows one more, and counts what leaves.
fn counted(
    front: &Arc<Front>,
    visit: &Visit,
    share: &Share,
    path: &str,
    answer: Answer,
) -> Result<Response<Body>, Refusal> {
    let response = match answer {
        Answer::Content(response) => response,
        Answer::Fault(refusal) => return Err(refusal),
        Answer::Data(_) => return Err(Refusal::not_found()),
    };
    if visit.method == Method::HEAD || !response.status().is_success() {
        return Ok(response);
    }
    let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let length = text(CONTENT_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
    let whole = text(CONTENT_RANGE).and_then(|range| range.rsplit('/').next()?.parse().ok());
    let part = Part {
        address: visit.peer(),
        path: path.to_owned(),
        version: text(ETAG).unwrap_or_default().to_owned(),
        size: whole.unwrap_or(length),
        length,
    };
    let claim = front.web.shares().claim(&share.id, &part, now()).map_err(|error| {
        tracing::error!(%error, "downloads of shared links cannot be counted");
        Refusal::internal("the download could not be counted, so it was not begun")
    })?;
    let Some(claim) = claim else {
        info!(share = share.id, user = share.user, source = %visit.peer(), "shared link used up");
        return Err(over(
            "This link is used up",
            "It was made for a number of downloads, and they have been had.",
        ));
    };
    info!(share = share.id, user = share.user, source = %visit.peer(), bytes = length, "shared download");
    let mut sent = Sent { front: Arc::clone(front), claim, bytes: 0 };
    Ok(response.map(|body| {
        Counted::boxed(body, move |bytes| {
            // As a whole, so that it is dropped with the body.
            let sent = &mut sent;
            sent.bytes += bytes;
        })
    }))
}

/// Settles a part when it has ended, however.
struct Sent {
    front: Arc<Front>,
    claim: Claim,
    bytes: u64,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.front.web.shares().settle(&self.claim, self.bytes, now());
    }
}

fn cookie_name(share: &Share) -> String {
    format!("__Host-haul-{}", share.id)
}

/// Whether who asks has shown the password: by the cookie of the page, or as programs do.
async fn is_open(visit: &Visit, share: &Share) -> bool {
    let doors = &visit.front.web.doors;
    if cookie(&visit.headers, &cookie_name(share)).is_some_and(|value| doors.opens(&share.id, &value, now()))
    {
        return true;
    }
    match basic_password(&visit.headers) {
        Some(password) => knows(visit, share, password).await,
        None => false,
    }
}

fn basic_password(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = Zeroizing::new(String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?);
    text.split_once(':').map(|(_, password)| Zeroizing::new(password.to_owned()))
}

async fn knows(visit: &Visit, share: &Share, password: Zeroizing<String>) -> bool {
    let Some(hash) = share.password.as_deref() else { return true };
    let passwords = visit.front.web.doors.passwords.get_or_init(|| Passwords::new(hash.to_owned()));
    let welcome = || !visit.front.must_wait(visit.peer());
    let right = passwords.check(&share.id, Some(hash), password, welcome).await.is_ok();
    if !right {
        visit.caller.place.on_refused();
        info!(share = share.id, source = %visit.peer(), "login failed");
    }
    right
}

/// The form with the password.
async fn enter(visit: &mut Visit, share: &Share, token: &str) -> Result<Response<Body>, Refusal> {
    super::account::welcome(visit)?;
    let form = visit.form().await?;
    let given = Zeroizing::new(form.text("password").unwrap_or_default().to_owned());
    if !knows(visit, share, given).await {
        return Ok(closed(visit, StatusCode::UNAUTHORIZED, Some("This is not the password.")));
    }
    let name = share.path.rsplit('/').next().filter(|_| !share.folder).unwrap_or_default();
    let mut response = reply::see_other(&format!("/s/{token}/{name}"));
    let seal = visit.front.web.doors.seal(&share.id, now() + OPEN_FOR);
    let cookie =
        format!("{}={seal}; Path=/; Max-Age={OPEN_FOR}; Secure; HttpOnly; SameSite=Lax", cookie_name(share));
    reply::set_cookie(&mut response, &cookie);
    Ok(response)
}

fn closed(visit: &Visit, status: StatusCode, note: Option<&str>) -> Response<Body> {
    if wants_html(&visit.headers) {
        return reply::page(status, password(note));
    }
    let message = "this link has a password; give it with: curl -u :PASSWORD";
    let mut response = Refusal::new(status, "This link has a password", message).response(false, None);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"shared link\""));
    response
}
