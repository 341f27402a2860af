//! Reads one operand of the command line: a local path, or `[user@]host:path` on the other side.
//!
//! Names are bytes and stay bytes. Not here: whether a path exists, and which operand is source or destination.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use haul_proto::control::PathText;

use crate::sanitize;

/// Schemes that are no host names: those of ascp that haul does not serve, and what people write by habit.
const FOREIGN_SCHEMES: [&[u8]; 14] = [
    b"faux", b"s3", b"gs", b"azu", b"swift", b"udp", b"tcp", b"http", b"https", b"ftp", b"ssh", b"sftp",
    b"scp", b"fasp",
];

/// One operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path on this machine.
    Local(PathBuf),
    /// Standard input or output of this program, or a pipe.
    Stream(Stream),
    /// A path on the other side.
    Remote(RemoteTarget),
}

/// Content that is no file on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// `stdio://`: standard input as a source, standard output as a destination; its length if it was announced.
    Stdio {
        /// In bytes.
        size: Option<u64>,
    },
    /// `stdio:///path`: a named pipe.
    Pipe(PathText),
    /// `stdio-tar://`: several items in one stream.
    Tar,
}

/// A path on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTarget {
    /// The account named before `@`; none means that configuration or the local account decides.
    pub user: Option<String>,
    /// The host as typed, without brackets.
    pub host: String,
    /// The path below the server's docroot; empty means the docroot itself.
    pub path: PathText,
}

/// Why an operand cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The operand is empty.
    #[error("an operand is empty: expected a path or host:path")]
    Empty,
    /// The part before `@` or `:` is no name of a user or host.
    #[error("`{text}` is not a valid {part} name")]
    BadName {
        /// The operand's part, escaped.
        text: String,
        /// "host" or "user".
        part: &'static str,
    },
    /// A URI whose scheme is not supported.
    #[error("`{text}`: haul takes no URIs of this scheme, only file://, stdio:// and stdio-tar://")]
    Scheme {
        /// The operand, escaped.
        text: String,
    },
    /// A URI with a part that is not understood.
    #[error("`{text}`: expected {expected}")]
    Uri {
        /// The operand, escaped.
        text: String,
        /// What is understood.
        expected: &'static str,
    },
}

/// Reads one operand.
///
/// # Errors
/// If it is empty, is a URI, or its user or host part cannot be a name.
pub fn parse(operand: &OsStr) -> Result<Target, TargetError> {
    let bytes = operand.as_bytes();
    if bytes.is_empty() {
        return Err(TargetError::Empty);
    }
    let Some((authority, path)) = split_authority(bytes) else {
        return Ok(Target::Local(PathBuf::from(OsString::from_vec(bytes.to_vec()))));
    };
    if let Some(target) = uri(bytes) {
        return target;
    }
    // A user name may hold an `@` (Windows domains, mail addresses); a host name may not.
    let (user, host) = match authority.iter().rposition(|&byte| byte == b'@') {
        Some(at) => (authority.get(..at), authority.get(at + 1..).unwrap_or_default()),
        None => (None, authority),
    };
    let host = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host);
    let user = user.map(|user| name(user, "user")).transpose()?;
    Ok(Target::Remote(RemoteTarget { user, host: name(host, "host")?, path: PathText::new(path) }))
}

/// Reads an operand that is no `host:path` for sure: a local path, or a URI.
///
/// # Errors
/// If it is empty, or a URI that is not understood.
pub fn parse_local(operand: &OsStr) -> Result<Target, TargetError> {
    let bytes = operand.as_bytes();
    if bytes.is_empty() {
        return Err(TargetError::Empty);
    }
    uri(bytes).unwrap_or_else(|| Ok(Target::Local(PathBuf::from(operand))))
}

/// Reads a URI; none if the operand is none.
fn uri(bytes: &[u8]) -> Option<Result<Target, TargetError>> {
    let at = bytes.windows(3).position(|three| three == b"://")?;
    let (scheme, rest) = (bytes.get(..at)?, bytes.get(at + 3..)?);
    let text = || sanitize::bytes(bytes);
    let expected = |expected| Err(TargetError::Uri { text: text(), expected });
    Some(match scheme {
        b"file" => match rest {
            _ if rest.contains(&b'?') => expected("file:///path alone: haul does not follow growing files"),
            [b'/', ..] => Ok(Target::Local(PathBuf::from(OsStr::from_bytes(rest)))),
            _ => expected("file:///path, with three slashes"),
        },
        b"stdio-tar" if matches!(rest, b"" | b"/") => Ok(Target::Stream(Stream::Tar)),
        b"stdio-tar" => expected("stdio-tar:// alone"),
        b"stdio" => match rest.strip_prefix(b"/").unwrap_or(rest) {
            b"" => Ok(Target::Stream(Stream::Stdio { size: None })),
            [b'?', size @ ..] => match std::str::from_utf8(size).ok().and_then(|size| size.parse().ok()) {
                Some(size) => Ok(Target::Stream(Stream::Stdio { size: Some(size) })),
                None => expected("stdio:///?SIZE, in bytes"),
            },
            _ if rest.starts_with(b"/") => Ok(Target::Stream(Stream::Pipe(PathText::new(rest)))),
            _ => expected("stdio://, stdio:///?SIZE or stdio:///path/of/a/pipe"),
        },
        scheme if FOREIGN_SCHEMES.contains(&scheme) => Err(TargetError::Scheme { text: text() }),
        _ => return None,
    })
}

/// A path on this machine that came as bytes.
pub(crate) fn local_path(path: &PathText) -> PathBuf {
    PathBuf::from(OsString::from_vec(path.as_bytes().to_vec()))
}

/// The path of a `file://` URI, and every other operand as it is.
#[must_use]
pub(crate) fn without_scheme(operand: &OsStr) -> &OsStr {
    operand.as_bytes().strip_prefix(b"file://").map_or(operand, OsStr::from_bytes)
}

/// Checks a host name given by `--host`; an IPv6 address may stand in brackets.
///
/// # Errors
/// If it cannot be one.
pub(crate) fn host_name(text: &str) -> Result<String, TargetError> {
    let bare = text.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(text);
    name(bare.as_bytes(), "host")
}

/// Checks a user name given by `--user`.
///
/// # Errors
/// If it cannot be one.
pub(crate) fn user_name(text: &str) -> Result<String, TargetError> {
    name(text.as_bytes(), "user")
}

/// Splits at the colon that ends the host; none if the operand is a local path.
fn split_authority(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bracketed_end(bytes).or_else(|| bytes.iter().position(|&byte| byte == b':'))?;
    let (authority, rest) = bytes.split_at(colon);
    let path = rest.get(1..).unwrap_or_default();
    let drive = authority.len() == 1
        && authority.iter().all(u8::is_ascii_alphabetic)
        && matches!(path.first(), Some(b'/' | b'\\'));
    let local = authority.is_empty() || authority.contains(&b'/') || drive;
    (!local).then_some((authority, path))
}

/// The colon after `[address]` or `user@[address]`, if the operand begins so.
fn bracketed_end(bytes: &[u8]) -> Option<usize> {
    let open = bytes.iter().position(|&byte| byte == b'[')?;
    let before = bytes.get(..open)?;
    if !(before.is_empty() || before.ends_with(b"@")) || before.iter().any(|byte| b"/:".contains(byte)) {
        return None;
    }
    bytes.windows(2).position(|pair| pair == b"]:").map(|at| at + 1)
}

/// A user or host name that is safe to hand on: no controls, no blanks, and not to be mistaken for an option.
fn name(bytes: &[u8], part: &'static str) -> Result<String, TargetError> {
    let bad = || TargetError::BadName { text: sanitize::bytes(bytes), part };
    let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
    let odd = |c: char| c.is_control() || c.is_whitespace() || "/[]'\"`$;&|<>(){}\\".contains(c);
    let odd_in_user = |c: char| c.is_control() || "'\"`;&|<>(){}$".contains(c);
    let wrong = if part == "host" { text.contains(odd) } else { text.contains(odd_in_user) };
    if text.is_empty() || text.starts_with('-') || wrong { Err(bad()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(user: Option<&str>, host: &str, path: &[u8]) -> Target {
        Target::Remote(RemoteTarget {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            path: PathText::new(path),
        })
    }

    fn local(path: &[u8]) -> Target {
        Target::Local(PathBuf::from(OsString::from_vec(path.to_vec())))
    }

    #[test]
    fn operands_split_as_ascp_splits_them() {
        for (n, (operand, expected)) in [
            (&b"file"[..], local(b"file")),
            (b"./a:b", local(b"./a:b")),
            (b"/data/a:b", local(b"/data/a:b")),
            (b"dir/a@b:c", local(b"dir/a@b:c")),
            (b"C:/data/run1", local(b"C:/data/run1")),
            (b"c:\\data", local(b"c:\\data")),
            (b":x", local(b":x")),
            (b"name\xff", local(b"name\xff")),
            (b"host:", remote(None, "host", b"")),
            (b"host:dir/f", remote(None, "host", b"dir/f")),
            (b"h:data", remote(None, "h", b"data")),
            (b"u@host:/abs", remote(Some("u"), "host", b"/abs")),
            (b"u@corp@host:x", remote(Some("u@corp"), "host", b"x")),
            (b"CORP\\u@host:x", remote(Some("CORP\\u"), "host", b"x")),
            (b"host:user@example.org_X", remote(None, "host", b"user@example.org_X")),
            (b"host:a:b", remote(None, "host", b"a:b")),
            (b"host:\xff\xfe", remote(None, "host", b"\xff\xfe")),
            (b"[2001:db8::1]:/x", remote(None, "2001:db8::1", b"/x")),
            (b"u@[fe80::1%eth0]:", remote(Some("u"), "fe80::1%eth0", b"")),
            (b"10.0.0.1:x", remote(None, "10.0.0.1", b"x")),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(
                parse(OsStr::from_bytes(operand)),
                Ok(expected),
                "row {n}: {}",
                sanitize::bytes(operand)
            );
        }
    }

    #[test]
    fn uris_are_no_hosts() {
        for (n, (operand, expected)) in [
            (&b"file:///data/a b"[..], local(b"/data/a b")),
            (b"stdio://", Target::Stream(Stream::Stdio { size: None })),
            (b"stdio:///", Target::Stream(Stream::Stdio { size: None })),
            (b"stdio:///?4096", Target::Stream(Stream::Stdio { size: Some(4096) })),
            (b"stdio:///tmp/pipe", Target::Stream(Stream::Pipe(PathText::new(*b"/tmp/pipe")))),
            (b"stdio-tar://", Target::Stream(Stream::Tar)),
            (b"h:a://b", remote(None, "h", b"a://b")),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(parse(OsStr::from_bytes(operand)), Ok(expected), "row {n}");
        }
        for operand in
            ["faux:///x?1g", "udp://h:1", "file://x", "file:///x?grow=3", "stdio:///?1g", "sftp://h/x"]
        {
            assert!(parse(OsStr::new(operand)).is_err(), "{operand}");
            assert!(parse_local(OsStr::new(operand)).is_err(), "{operand}");
        }
        assert_eq!(parse_local(OsStr::new("h:b")), Ok(local(b"h:b")));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for operand in [
            &b""[..],
            b"-oProxyCommand=x:y",
            b"@host:x",
            b"u@:x",
            b"ho st:x",
            b"h\xff:x",
            b"stdio://x",
            b"a\nb:x",
        ] {
            assert!(parse(OsStr::from_bytes(operand)).is_err(), "{}", sanitize::bytes(operand));
        }
    }
}
