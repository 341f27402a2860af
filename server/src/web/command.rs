//! Commands that a user runs over SSH to get links for browsers: the SSH key is the credential. What the words mean is
//! read here; no shell is involved.

use std::fmt::Write as _;
use std::net::SocketAddr;

use haul_http_fallback::web::date::Moment;
use haul_http_fallback::web::percent::{decode, encode_path};
use haul_http_fallback::web::service::About;
use haul_http_fallback::web::shares::Wish;
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::info;
use zeroize::Zeroizing;

use super::proxy::{Answer, Ask, ask};
use super::site::now;
use crate::config::UserEntry;
use crate::front::Front;
use crate::password;

/// Words of a command, and characters of one.
const MAX_WORDS: usize = 32;
const MAX_BYTES: usize = 8 << 10;

/// A command that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    words: Vec<String>,
}

/// What a command says: on standard output, on standard error, and whether it worked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) ok: bool,
}

impl Command {
    /// Reads a command; `None` if it is none of ours.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let words = words(std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_BYTES)?)?;
        matches!(words.first().map(String::as_str), Some("link" | "share" | "shares" | "unshare"))
            .then_some(Self { words })
    }

    /// Its name, for the log.
    pub(crate) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Does it.
    pub(crate) async fn run(&self, front: &Front, user: &UserEntry, local: Option<SocketAddr>) -> Said {
        let words = self.words.get(1..).unwrap_or_default();
        let result = match self.name() {
            "link" => link(front, user, local, words),
            "share" => share(front, user, local, words).await,
            "shares" => Ok(shares(front, user)),
            "unshare" => unshare(front, user, words),
            _ => Err("no such command".to_owned()),
        };
        result.unwrap_or_else(|message| Said { err: format!("hauld: {message}\n"), ..Said::default() })
    }
}

fn link(
    front: &Front,
    user: &UserEntry,
    local: Option<SocketAddr>,
    words: &[String],
) -> Result<Said, String> {
    let mut host = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--host" => host = words.next().map(String::as_str),
            other => {
                return Err(format!(
                    "`{}` is not understood; usage: link [--host NAME]",
                    other.escape_debug()
                ));
            }
        }
    }
    let origin = origin(front, local, host)?;
    let (path, minutes) = front.web.make_link(&user.name).map_err(|error| error.to_string())?;
    info!(user = user.name, "browser link made");
    let mut said = Said { ok: true, ..Said::default() };
    let _ = writeln!(said.out, "{origin}{path}");
    let _ = writeln!(said.err, "Open it within {minutes} minutes. It signs in once, as {}.", user.name);
    Ok(said)
}

const SHARE_USAGE: &str = "usage: share PATH [--expires 7d] [--count N] [--password] [--host NAME]";

/// Shares a file or folder that the user can read.
/// A hash takes 64 MiB: so many at a time.
static HASHING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

async fn share(
    front: &Front,
    user: &UserEntry,
    local: Option<SocketAddr>,
    words: &[String],
) -> Result<Said, String> {
    let (mut path, mut host, mut with_password) = (None, None, false);
    let mut wish = Wish { user: user.name.clone(), ..Wish::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value; {SHARE_USAGE}"));
        match word.as_str() {
            "--expires" => wish.lifetime = Some(lifetime(value()?)?),
            "--count" => {
                let count = value()?.parse().ok().filter(|count| *count > 0);
                wish.count = Some(count.ok_or("--count needs a number from 1")?);
            }
            "--password" => with_password = true,
            "--host" => host = Some(value()?.as_str()),
            other if path.is_none() && !other.starts_with("--") => path = Some(other),
            other => return Err(format!("`{}` is not understood; {SHARE_USAGE}", other.escape_debug())),
        }
    }
    let path = path.ok_or(SHARE_USAGE)?;
    let origin = origin(front, local, host)?;
    let about = look(front, user, path).await?;
    (wish.path, wish.folder) = (about.path, about.folder);
    let password = with_password.then(new_password).transpose()?;
    if let Some(password) = password.clone() {
        let _turn = HASHING.acquire().await.map_err(|error| error.to_string())?;
        let hashed = tokio::task::spawn_blocking(move || password::hash(password.as_bytes())).await;
        wish.password = Some(hashed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?);
    }
    let ends = wish.lifetime.map(|life| Moment::new(i64::try_from(now() + life).unwrap_or(i64::MAX)).short());
    let times = wish.count;
    let (token, id) = front.web.shares().make(wish, now()).map_err(|error| error.to_string())?;
    info!(user = user.name, share = id, folder = about.folder, "shared");
    let name = if about.folder { "" } else { about.name.as_str() };
    let mut said = Said { ok: true, ..Said::default() };
    let _ = writeln!(said.out, "{origin}/s/{token}/{name}");
    if let Some(password) = password {
        let _ = writeln!(said.out, "password: {}", password.as_str());
    }
    let until = ends.map_or_else(|| "until you end it".to_owned(), |ends| format!("until {ends} UTC"));
    let often = times.map_or_else(String::new, |times| format!(", for {times} download(s)"));
    let _ = writeln!(said.err, "Shared as {id} {until}{often}. End it with: unshare {id}");
    Ok(said)
}

/// What the user's worker says about a path.
async fn look(front: &Front, user: &UserEntry, path: &str) -> Result<About, String> {
    let request = Ask {
        method: hyper::Method::GET,
        path: format!("/about/{}", encode_path(path.trim_start_matches('/').as_bytes())),
        base: None,
        headers: &hyper::HeaderMap::new(),
        body: axum::body::Body::empty(),
    };
    let about: About = match ask(&front.web.pool, user, request).await {
        Answer::Data(json) => serde_json::from_slice(&json).map_err(|error| error.to_string())?,
        Answer::Fault(refusal) => return Err(refusal.message),
        Answer::Content(_) => return Err("what the path is could not be found out".to_owned()),
    };
    if about.readable { Ok(about) } else { Err("you may not read this, so you cannot share it".to_owned()) }
}

/// `30m`, `12h`, `7d`, `2w`: seconds.
fn lifetime(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => 0,
    };
    let life = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
    life.filter(|life| (1..=315_360_000).contains(life))
        .ok_or_else(|| "--expires needs a time such as 30m, 12h, 7d or 2w, ten years at most".to_owned())
}

/// Four groups of four letters and digits that are not mistaken for each other: 80 bits.
fn new_password() -> Result<Zeroizing<String>, String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new([0; 16]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| "the system has no random numbers")?;
    let mut password = Zeroizing::new(String::with_capacity(19));
    for (n, byte) in bytes.iter().enumerate() {
        if n > 0 && n % 4 == 0 {
            password.push('-');
        }
        password.push(LETTERS.get(usize::from(byte % 32)).copied().map_or('x', char::from));
    }
    Ok(password)
}

fn shares(front: &Front, user: &UserEntry) -> Said {
    let mut said = Said { ok: true, ..Said::default() };
    let all = front.web.shares();
    for share in all.of(&user.name, now()) {
        let ends = share.expires.map_or_else(
            || "no end".to_owned(),
            |end| format!("until {} UTC", Moment::new(i64::try_from(end).unwrap_or(i64::MAX)).short()),
        );
        let count = share.count.map_or_else(|| "any".to_owned(), |count| count.to_string());
        let password = if share.password.is_some() { ", password" } else { "" };
        let path = String::from_utf8_lossy(&decode(&share.path)).escape_debug().to_string();
        let slash = if share.folder { "/" } else { "" };
        let _ = writeln!(
            said.out,
            "{}  {} of {count} downloads, {ends}{password}  /{path}{slash}",
            share.id, share.used
        );
    }
    if said.out.is_empty() {
        said.err.push_str("You share nothing.\n");
    }
    said
}

fn unshare(front: &Front, user: &UserEntry, words: &[String]) -> Result<Said, String> {
    if words.is_empty() {
        return Err("usage: unshare ID...; `shares` lists them".to_owned());
    }
    for id in words {
        if !front.web.shares().remove(&user.name, id).map_err(|error| error.to_string())? {
            return Err(format!("no share `{}` of yours; `shares` lists them", id.escape_debug()));
        }
        info!(user = user.name, share = id, "share ended");
    }
    Ok(Said { ok: true, err: "Ended; the links open nothing any more.\n".to_owned(), ..Said::default() })
}

/// Scheme, host and port of the pages: as configured, else the host that the client knows and our port.
pub(super) fn origin(front: &Front, local: Option<SocketAddr>, host: Option<&str>) -> Result<String, String> {
    if let Some(url) = &front.config.https.url {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let port =
        front.config.https.listen.first().map(SocketAddr::port).ok_or(
            "this server has no pages for browsers; its operator can set `listen` or `url` in [https]",
        )?;
    let host = match host {
        Some(host) if is_host(host) => host.to_owned(),
        Some(_) => return Err("the name after --host is no host name".to_owned()),
        None => local.map(|local| local.ip().to_canonical().to_string()).unwrap_or_default(),
    };
    let host = if host.contains(':') { format!("[{}]", host.trim_matches(['[', ']'])) } else { host };
    Ok(if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") })
}

fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
}

/// Splits as a shell does: blanks, quotes of both kinds, backslashes. `None` if a quote stays open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(chars.next()?),
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    (words.len() <= MAX_WORDS).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (text, expected) in [
            ("link", &["link"][..]),
            ("share 'a b' --count 3", &["share", "a b", "--count", "3"]),
            (r#"share "a \"b\"" c\ d 'it'\''s'"#, &["share", "a \"b\"", "c d", "it's"]),
            ("  share  '' ", &["share", ""]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        for open in ["share 'a", "share \"a", "share a\\", &"x ".repeat(40)] {
            assert_eq!(words(open), None, "{open}");
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, seconds) in
            [("30m", Some(1800)), ("12h", Some(43_200)), ("7d", Some(604_800)), ("1w", Some(604_800))]
        {
            assert_eq!(lifetime(text).ok(), seconds);
        }
        for bad in ["", "7", "d", "0d", "-1d", "7x", "99999999999d", "7ü"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_our_own_commands_are_taken() {
        assert!(Command::parse(b"link --host example.org").is_some());
        for other in [&b"ls"[..], b"", b"\xff", b"linked", b"scp -t x", b"; link"] {
            assert_eq!(Command::parse(other), None);
        }
    }
}
