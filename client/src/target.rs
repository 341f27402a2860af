//! Reads one operand of the command line: a local path, or `[user@]host:path` on the other side.
//!
//! Names are bytes and stay bytes. Not here: whether a path exists, and which operand is source or destination.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use haul_proto::control::PathText;

use crate::sanitize;

/// Schemes that `ascp` knows and that are no host names.
const SCHEMES: [&[u8]; 5] = [b"file", b"stdio", b"stdio-tar", b"faux", b"s3"];

/// One operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path on this machine.
    Local(PathBuf),
    /// A path on the other side.
    Remote(RemoteTarget),
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
    #[error("`{text}`: URIs of this scheme are not supported")]
    Scheme {
        /// The operand, escaped.
        text: String,
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
    if SCHEMES.contains(&authority) && path.starts_with(b"//") {
        return Err(TargetError::Scheme { text: sanitize::bytes(bytes) });
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
