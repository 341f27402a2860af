//! The lexical side of `ssh_config`: lines, quotes, patterns, tokens, and reading a file that is safely owned.
//!
//! Not here: which line applies to which host.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::ClientError;
use crate::sanitize;

/// A configuration larger than this is no configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One line with something in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Lower case.
    pub(crate) keyword: String,
    /// Without their quotes.
    pub(crate) arguments: Vec<String>,
}

impl Line {
    /// The one argument.
    pub(crate) fn one(&self) -> Result<String, String> {
        let missing = || format!("{} has no value", sanitize::text(&self.keyword));
        self.arguments.first().filter(|argument| !argument.is_empty()).cloned().ok_or_else(missing)
    }
}

/// Reads a file; none if it is not there. With `check_owner` it has to belong to this user or root and be writable by
/// nobody else, as OpenSSH asks, because who writes it decides whom we trust.
pub(crate) fn read_checked(path: &Path, check_owner: bool) -> Result<Option<String>, ClientError> {
    let error = |message: String| ClientError::Config { path: path.to_owned(), line: None, message };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(error(format!("cannot read: {cause}"))),
    };
    let metadata = file.metadata().map_err(|cause| error(format!("cannot read: {cause}")))?;
    let owned = [0, nix::unistd::Uid::current().as_raw()].contains(&metadata.uid());
    if check_owner && (!owned || metadata.mode() & 0o022 != 0) {
        return Err(error("bad owner or permissions: only you and root may be able to write it".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| error(format!("cannot read: {cause}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(error(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    // Names that are no UTF-8 cannot be hosts; paths that are none are not usable from here.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Splits a line; none if it is empty or a comment.
pub(crate) fn parse(line: &str) -> Result<Option<Line>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=' || c == '"').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    Ok(Some(Line { keyword: keyword.to_ascii_lowercase(), arguments: arguments(rest)? }))
}

/// Words apart by blanks; double or single quotes keep blanks in, a backslash keeps a quote, `#` begins a comment.
fn arguments(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        match characters.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => {}
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(character) = characters.next() {
            match (quote, character) {
                (Some(open), c) if c == open => quote = None,
                (None, '"' | '\'') => quote = Some(character),
                (None, c) if c.is_whitespace() => break,
                (_, '\\') => {
                    let escapable =
                        |c: &char| matches!(c, '"' | '\'' | '\\') || (quote.is_none() && *c == ' ');
                    word.push(characters.next_if(escapable).unwrap_or('\\'));
                }
                (_, c) => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".to_owned());
        }
        words.push(word);
    }
}

/// Whether a `Host` line names the host: one pattern does and no negated one.
pub(crate) fn host_matches(patterns: &[String], host: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if wildcard(negated.as_bytes(), host.as_bytes()) => return false,
            Some(_) => {}
            None => matched |= wildcard(pattern.as_bytes(), host.as_bytes()),
        }
    }
    matched
}

/// Matches `*` and `?`. Linear in the length of the text for each star, so no pattern can stall us.
pub(crate) fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, from));
                at += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                at += 1;
                from += 1;
            }
            _ => match star {
                // The star takes one byte more, and we try again behind it.
                Some((behind, taken)) => {
                    star = Some((behind, taken + 1));
                    at = behind;
                    from = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

/// The files of an `Include` line, wildcards expanded in the order of their names. Relative ones are in `~/.ssh`, those
/// of the system's file in `/etc/ssh`.
pub(crate) fn included_files(arguments: &[String], home: Option<&Path>, system: bool) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for argument in arguments {
        let path = match (argument.strip_prefix("~/"), home) {
            (Some(below), Some(home)) => home.join(below),
            _ => PathBuf::from(argument),
        };
        let base = if system { Some(PathBuf::from("/etc/ssh")) } else { home.map(|home| home.join(".ssh")) };
        let path = match base {
            Some(base) if path.is_relative() => base.join(path),
            _ => path,
        };
        files.extend(glob(&path));
    }
    files
}

/// Expands wildcards in any part of a path; a path without them stands for itself.
fn glob(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        found = found.iter().flat_map(|folder| matching_entries(folder, text.as_bytes())).collect();
    }
    found
}

fn matching_entries(folder: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let hidden = pattern.starts_with(b".");
    let matching = names.filter(|name| {
        let name = name.as_encoded_bytes();
        (hidden || !name.starts_with(b".")) && wildcard(pattern, name)
    });
    let mut paths: Vec<PathBuf> = matching.map(|name| folder.join(name)).collect();
    paths.sort();
    paths
}

/// Reads yes or no.
pub(crate) fn yes(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("expected yes or no, found `{}`", sanitize::text(text))),
    }
}

/// Replaces `%x` by what `token` says about `x`.
pub(crate) fn expand_tokens<'t>(
    text: &str,
    token: &dyn Fn(char) -> Option<&'t str>,
) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            expanded.push(character);
            continue;
        }
        match characters.next() {
            Some('%') => expanded.push('%'),
            letter => {
                let unknown = || format!("unknown token in `{}`", sanitize::text(text));
                expanded.push_str(letter.and_then(token).ok_or_else(unknown)?);
            }
        }
    }
    Ok(expanded)
}

/// Expands `~/`, `${VARIABLE}` and tokens in a path.
pub(crate) fn expand_path<'t>(
    text: &str,
    home: Option<&Path>,
    token: &dyn Fn(char) -> Option<&'t str>,
) -> Result<PathBuf, String> {
    let text = expand_variables(text)?;
    if let (Some(below), Some(home)) = (text.strip_prefix("~/"), home) {
        return Ok(home.join(expand_tokens(below, token)?));
    }
    expand_tokens(&text, token).map(PathBuf::from)
}

fn expand_variables(text: &str) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').ok_or("`${` is not closed")?;
        let value =
            std::env::var(name).map_err(|_| format!("variable {} is not set", sanitize::text(name)))?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_as_openssh_splits_them() {
        for (n, (line, keyword, arguments)) in [
            ("Host a b", "host", &["a", "b"][..]),
            ("\tPORT = 22 ", "port", &["22"]),
            ("User=me", "user", &["me"]),
            ("IdentityFile \"a b\" # comment", "identityfile", &["a b"]),
            ("IdentityFile a\\ b", "identityfile", &["a b"]),
            ("User 'it is'", "user", &["it is"]),
            ("User a#b", "user", &["a#b"]),
            ("User", "user", &[]),
        ]
        .into_iter()
        .enumerate()
        {
            let line = parse(line).unwrap().unwrap();
            assert_eq!(
                (line.keyword.as_str(), line.arguments.as_slice()),
                (keyword, arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>().as_slice()),
                "row {n}"
            );
        }
        assert_eq!(parse("  # comment"), Ok(None));
        assert!(parse("User \"open").is_err());
    }

    #[test]
    fn wildcards_match_whole_names() {
        for (n, (pattern, text, matches)) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.*.org", "www.example.org", true),
            ("*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("", "x", false),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(wildcard(pattern.as_bytes(), text.as_bytes()), matches, "row {n}");
        }
    }
}
