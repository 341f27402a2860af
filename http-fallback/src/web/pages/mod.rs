//! The pages. Every text that is not ours goes through [`escape`]; nothing here is a script or a style of its own, so that
//! the content security policy can forbid both.

pub mod folder;
pub mod share;
pub mod sign_in;

use super::assets;
use super::html::escape;

/// Drawings that pages refer to by name.
const ICONS: &str = concat!(
    r#"<svg hidden aria-hidden="true">"#,
    r#"<symbol id="i-haul" viewBox="0 0 24 24"><path d="M3 8h11m-4-4 4 4-4 4"/><path d="M21 16H10m4-4-4 4 4 4"/></symbol>"#,
    r#"<symbol id="i-folder" viewBox="0 0 24 24"><path d="M3 7a2 2 0 0 1 2-2h4l2 2.5h8a2 2 0 0 1 2 2V17a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z"/></symbol>"#,
    r#"<symbol id="i-file" viewBox="0 0 24 24"><path d="M14 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2V8z"/><path d="M14 3v5h5"/></symbol>"#,
    r#"<symbol id="i-other" viewBox="0 0 24 24"><circle cx="12" cy="12" r="8.5"/><path d="M6 6l12 12"/></symbol>"#,
    r#"<symbol id="i-down" viewBox="0 0 24 24"><path d="M12 4v11m-5-5 5 5 5-5M5 20h14"/></symbol>"#,
    r#"<symbol id="i-up" viewBox="0 0 24 24"><path d="M12 20V9m-5 5 5-5 5 5M5 4h14"/></symbol>"#,
    r#"<symbol id="i-plus" viewBox="0 0 24 24"><path d="M12 5v14M5 12h14"/></symbol>"#,
    r#"<symbol id="i-key" viewBox="0 0 24 24"><circle cx="8" cy="15" r="4.5"/><path d="M11.2 11.8 20 3m-4 4 3 3"/></symbol>"#,
    r#"<symbol id="i-alert" viewBox="0 0 24 24"><path d="M12 4 2.5 20h19zM12 10v4.5m0 2.8v.2"/></symbol>"#,
    r#"<symbol id="i-search" viewBox="0 0 24 24"><circle cx="11" cy="11" r="6.5"/><path d="m16 16 4.5 4.5"/></symbol>"#,
    r#"</svg>"#
);

/// A drawing.
fn icon(name: &str) -> String {
    format!(r##"<svg class="icon icon-{name}" aria-hidden="true"><use href="#i-{name}"/></svg>"##)
}

/// A whole page. `user` is who is signed in.
fn page(title: &str, user: Option<&str>, content: &str) -> String {
    let version = assets::version();
    let who = user.map_or_else(String::new, |user| {
        format!(
            r#"<div class="who"><span>{}</span><form method="post" action="/signout"><button class="plain">Sign out</button></form></div>"#,
            escape(user)
        )
    });
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<meta name="color-scheme" content="light dark">
<title>{title} · haul</title>
<link rel="stylesheet" href="/assets/{version}/style.css">
<link rel="icon" type="image/svg+xml" href="/assets/{version}/icon.svg">
<script src="/assets/{version}/app.js" defer></script>
</head>
<body>
<a class="skip" href="#main">To the content</a>
{ICONS}
<header class="top"><div><a class="brand" href="/">{logo}haul</a>{who}</div></header>
<main id="main">
{content}
</main>
</body>
</html>
"##,
        title = escape(title),
        logo = icon("haul"),
    )
}

/// What failed and what to do about it.
#[must_use]
pub fn failure(status: u16, title: &str, message: &str, user: Option<&str>) -> String {
    let way_out = match user {
        Some(_) => r#"<p><a class="button wide" href="/files/">To your files</a></p>"#,
        None => "",
    };
    let content = format!(
        r#"<section class="card narrow"><div class="mark bad">{}</div><h1>{}</h1><p>{}</p><p>Status {status}</p>{way_out}</section>"#,
        icon("alert"),
        escape(title),
        escape(message)
    );
    page(title, user, &content)
}
