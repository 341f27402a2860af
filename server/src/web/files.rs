//! The files of who is signed in: folders as pages, content passed on, uploads handed over.

use std::sync::{Arc, PoisonError};

use haul_http_fallback::web::body::Body;
use haul_http_fallback::web::listing::Listing;
use haul_http_fallback::web::pages::folder::Folder;
use haul_http_fallback::web::percent::{encode_name, encode_path};
use hyper::{Method, Response, StatusCode};

use super::proxy::{Answer, Ask, ask};
use super::reply::{self, Refusal, wants_html};
use super::site::{Visit, decoded};
use crate::config::UserEntry;

/// Answers a request below `/files/`, `/zip/`, `/upload/` or `/folder/`.
pub(super) async fn serve(visit: Visit, area: &str, rest: &str) -> Result<Response<Body>, Refusal> {
    let Some(user) = visit.user.clone() else { return strangers(&visit) };
    let path = decoded(rest);
    let folder_form = area == "folder" || (area == "files" && visit.method == Method::POST);
    let query = if visit.query.is_empty() { String::new() } else { format!("?{}", visit.query) };
    let request = Ask {
        method: visit.method.clone(),
        path: format!("/{area}/{}{query}", encode_path(&path)),
        base: None,
        headers: &visit.headers,
        body: visit.body.into_inner().unwrap_or_else(PoisonError::into_inner),
    };
    match ask(&visit.front.web.pool, &user, request).await {
        Answer::Content(response) if folder_form && response.status().is_success() => Ok(reply::see_other(
            &format!("/files/{}{}", encode_path(&path), if path.is_empty() { "" } else { "/" }),
        )),
        Answer::Content(response) => Ok(response),
        Answer::Data(json) => page(&user, rest, &path, &json),
        Answer::Fault(refusal) => Err(refusal),
    }
}

/// People are led to the page for signing in and back; programs are told.
fn strangers(visit: &Visit) -> Result<Response<Body>, Refusal> {
    if wants_html(&visit.headers) && visit.method == Method::GET {
        let query = if visit.query.is_empty() { String::new() } else { format!("?{}", visit.query) };
        let next = encode_name(format!("{}{query}", visit.path).as_bytes());
        return Ok(reply::see_other(&format!("/signin?next={next}")));
    }
    Err(Refusal::new(
        StatusCode::UNAUTHORIZED,
        "You are not signed in",
        "Sign in first; an upload that was under way goes on afterwards.",
    ))
}

fn page(user: &Arc<UserEntry>, rest: &str, path: &[u8], json: &[u8]) -> Result<Response<Body>, Refusal> {
    // With its slash the addresses in the page are right.
    if !rest.is_empty() && !rest.ends_with('/') {
        return Ok(reply::see_other(&format!("/files/{}/", encode_path(path))));
    }
    let listing: Listing = serde_json::from_slice(json)
        .map_err(|_| Refusal::internal("the listing of the folder cannot be read"))?;
    let archive = format!("/zip/{}", encode_path(path));
    let folder = Folder {
        base: "/files/",
        top: "Files",
        path,
        listing: &listing,
        user: Some(&user.name),
        writable: user.permissions.write,
        readable: user.permissions.read,
        archive: &archive,
        note: None,
    };
    Ok(reply::page(StatusCode::OK, folder.html()))
}
