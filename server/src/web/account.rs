//! Signing in and out.

use haul_http_fallback::web::body::Body;
use haul_http_fallback::web::pages::sign_in::{self, SignIn};
use haul_http_fallback::web::percent::Query;
use hyper::{Response, StatusCode};
use tracing::info;
use zeroize::Zeroizing;

use super::reply::{self, Refusal};
use super::site::{COOKIE_NAME, Visit, cookie, now, session_cookie};
use crate::logging::shown;

const STALE_LINK: &str =
    "Links for signing in work once and for a few minutes. Make a new one with `haul link`.";

/// Where to go after signing in: only pages of ours.
pub(super) fn safe_next(next: &str) -> &str {
    let ours = ["/files/", "/zip/"].iter().any(|area| next.starts_with(area));
    if ours && !next.contains(['\\', '\r', '\n']) { next } else { "/files/" }
}

pub(super) fn sign_in_page(visit: &Visit) -> Response<Body> {
    if visit.user.is_some() {
        return reply::see_other("/files/");
    }
    let query = Query::parse(&visit.query);
    ask_name(visit, None, "", query.text("next").unwrap_or_default())
}

/// The page to sign in on, with where to go afterwards.
fn ask_name(visit: &Visit, note: Option<&str>, user: &str, next: &str) -> Response<Body> {
    let port = visit.front.config.ssh_listen.first().map(std::net::SocketAddr::port);
    let host = visit.host();
    let page = SignIn {
        next: safe_next(next),
        note,
        user,
        host: &host,
        port: port.filter(|port| *port != 33001),
        passwords: visit.front.takes_passwords(),
    };
    let status = if note.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    reply::page(status, page.html())
}

/// A source that has guessed wrong waits, on open connections too.
pub(super) fn welcome(visit: &Visit) -> Result<(), Refusal> {
    if visit.front.must_wait(visit.peer()) {
        return Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many wrong attempts",
            "Too many attempts from your address were wrong. Wait a minute, then try again.",
        ));
    }
    Ok(())
}

/// By password. The answer is the same whatever was wrong, and late for who guesses.
pub(super) async fn sign_in(mut visit: Visit) -> Result<Response<Body>, Refusal> {
    if !visit.front.takes_passwords() {
        return Err(Refusal::not_found());
    }
    welcome(&visit)?;
    let form = visit.form().await?;
    let name = form.text("user").unwrap_or_default();
    let password = Zeroizing::new(form.text("password").unwrap_or_default().to_owned());
    match visit.front.check_password(name, password, visit.peer()).await {
        Ok(user) => visit.begin(&user.name, form.text("next").unwrap_or_default()),
        Err(reason) => {
            visit.caller.place.on_refused();
            // A fixed form for log watchers, as for SSH.
            info!(source = %visit.peer(), user = ?shown(name), %reason, "login failed");
            let next = form.text("next").unwrap_or_default();
            Ok(ask_name(&visit, Some("Name and password do not fit together."), name, next))
        }
    }
}

pub(super) fn link_page(visit: &Visit, token: &str) -> Result<Response<Body>, Refusal> {
    match visit.front.web.links().user(token, now()) {
        Some(user) => Ok(reply::page(StatusCode::OK, sign_in::link(user))),
        None => Err(stale()),
    }
}

pub(super) fn redeem_link(visit: &Visit, token: &str) -> Result<Response<Body>, Refusal> {
    let user = visit.front.web.links().redeem(token, now());
    match user.filter(|user| visit.front.user(user).is_some()) {
        Some(user) => visit.begin(&user, "/files/"),
        None => {
            visit.caller.place.on_refused();
            info!(source = %visit.peer(), "login failed, no such link");
            Err(stale())
        }
    }
}

fn stale() -> Refusal {
    Refusal::new(StatusCode::GONE, "This link is used up", STALE_LINK)
}

pub(super) fn sign_out(visit: &Visit) -> Response<Body> {
    if let Some(token) = cookie(&visit.headers, COOKIE_NAME)
        && let Err(error) = visit.front.web.sessions().end(&token, now())
    {
        tracing::error!(%error, "sessions cannot be stored");
    }
    let mut response = reply::see_other("/signin");
    reply::set_cookie(&mut response, &session_cookie(None));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_to_our_own_pages_only() {
        for (next, leads) in [
            ("/files/a/b", "/files/a/b"),
            ("/zip/a", "/zip/a"),
            ("//evil.example/", "/files/"),
            ("https://evil.example/", "/files/"),
            ("/files/\r\nSet-Cookie: a", "/files/"),
            ("/signout", "/files/"),
            ("", "/files/"),
        ] {
            assert_eq!(safe_next(next), leads);
        }
    }
}
