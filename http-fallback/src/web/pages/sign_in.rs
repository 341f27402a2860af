//! Signing in: by password, or by a one-time link that a click of a button uses up, so that programs that only look at
//! links do not.

use super::super::html::escape;
use super::{icon, page};

/// The page for those who are not signed in.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignIn<'a> {
    /// Where to go afterwards.
    pub next: &'a str,
    /// What went wrong before.
    pub note: Option<&'a str>,
    /// The name that was given before.
    pub user: &'a str,
    /// The host's name for the command that makes a link.
    pub host: &'a str,
    /// Its port of SSH, unless it is the usual one.
    pub port: Option<u16>,
    /// Some users have passwords.
    pub passwords: bool,
}

impl SignIn<'_> {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let note = self
            .note
            .map_or_else(String::new, |note| format!(r#"<p class="note" role="alert">{}</p>"#, escape(note)));
        let form = if self.passwords { self.form() } else { String::new() };
        let content = format!(
            r#"<section class="card narrow">
<div class="mark">{mark}</div>
<h1>Sign in</h1>
<p>Files on this server, for those who have an account.</p>
{note}{form}
<p>With your SSH key: run this where your key is, and open the link that it prints.</p>
<pre>ssh -p {port} {user}@{host} link</pre>
</section>"#,
            mark = icon("key"),
            host = escape(self.host),
            user = if self.user.is_empty() { "name".to_owned() } else { escape(self.user) },
            port = self.port.unwrap_or(33001),
        );
        page("Sign in", None, &content)
    }

    fn form(&self) -> String {
        format!(
            r#"<form method="post" action="/signin">
<input type="hidden" name="next" value="{}">
<label for="user">Name</label>
<input id="user" name="user" value="{}" autocomplete="username" autocapitalize="none" spellcheck="false" required maxlength="64">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="1024">
<button class="primary wide">Sign in</button>
</form>
<hr>"#,
            escape(self.next),
            escape(self.user)
        )
    }
}

/// The page behind a one-time link.
#[must_use]
pub fn link(user: &str) -> String {
    let content = format!(
        r#"<section class="card narrow">
<div class="mark">{}</div>
<h1>Sign in as {user}</h1>
<p>This link works once, in this browser, for a few minutes after it was made.</p>
<form method="post"><button class="primary wide" autofocus>Sign in</button></form>
</section>"#,
        icon("key"),
        user = escape(user)
    );
    page("Sign in", None, &content)
}
