//! Commands that a user runs over SSH to get links for browsers: the SSH key is the credential. What the words mean is
//! read here; no shell is involved.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tracing::info;

use crate::config::UserEntry;
use crate::front::Front;

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
        matches!(words.first().map(String::as_str), Some("link")).then_some(Self { words })
    }

    /// Its name, for the log.
    pub(crate) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Does it.
    pub(crate) fn run(&self, front: &Front, user: &UserEntry, local: Option<SocketAddr>) -> Said {
        let result = match self.name() {
            "link" => link(front, user, local, self.words.get(1..).unwrap_or_default()),
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
    fn only_our_own_commands_are_taken() {
        assert!(Command::parse(b"link --host example.org").is_some());
        for other in [&b"ls"[..], b"", b"\xff", b"linked", b"scp -t x", b"; link"] {
            assert_eq!(Command::parse(other), None);
        }
    }
}
