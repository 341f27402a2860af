//! One pattern of `-E` and `-N`, matched against a path of the transfer. Not here: the order of rules.
//!
//! | in the pattern | fits |
//! |---|---|
//! | `*` | any characters but `/`, and not a dot at the start of a name |
//! | `?`, `[abc]`, `[a-z]`, `[!abc]`, `[^abc]`, `[[:digit:]]` | one such character, with the same two exceptions |
//! | `/**` | nothing, or `/` and anything after it; at the end of a pattern it is never nothing |
//! | `\x` | `x` itself |
//! | `/` at the start | the path from the root of what is sent; otherwise its last names |
//! | `/` at the end | folders only |
//! | `*` at the end | files and folders |
//! | anything else at the end | files only |
//!
//! The time that a match takes grows with the product of both lengths, whatever the pattern.

use std::ops::RangeInclusive;

/// A character, or a byte that is no part of one (those lie above all characters).
pub(super) type Unit = u32;

/// What follows the last Unicode character.
const BYTES: Unit = 0x11_0000;

const SLASH: Unit = b'/' as Unit;

#[derive(Debug, Clone)]
enum Token {
    One(Unit),
    Any,
    Class {
        negated: bool,
        members: Vec<Member>,
    },
    Star,
    /// The slash of `/**`.
    DeepSlash,
    /// What may follow that slash.
    DeepRest,
}

#[derive(Debug, Clone)]
enum Member {
    Range(RangeInclusive<Unit>),
    /// A class of POSIX, by name.
    Named(fn(char) -> bool),
}

impl Member {
    fn holds(&self, unit: Unit) -> bool {
        match self {
            Self::Range(range) => range.contains(&unit),
            Self::Named(holds) => char::from_u32(unit).is_some_and(holds),
        }
    }
}

/// A pattern, ready to be matched.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
    anchored: bool,
    files: bool,
    folders: bool,
}

/// A path of the transfer as patterns see it: it begins with `/` and does not end with one.
pub(super) fn units(path: &[u8]) -> Vec<Unit> {
    let mut units = Vec::with_capacity(path.len() + 1);
    units.push(SLASH);
    units.extend(characters(path));
    units
}

fn characters(bytes: &[u8]) -> Vec<Unit> {
    let chunks = bytes.utf8_chunks();
    chunks
        .flat_map(|chunk| {
            let invalid = chunk.invalid().iter().map(|&byte| BYTES + Unit::from(byte));
            chunk.valid().chars().map(Unit::from).chain(invalid)
        })
        .collect()
}

impl Pattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let only_folders = text.len() > 1 && text.ends_with(b"/") && !text.ends_with(b"\\/");
        let body = if only_folders { text.get(..text.len() - 1).unwrap_or_default() } else { text };
        let tokens = tokens(&characters(body))?;
        if body.is_empty() || body == b"/" {
            return Err("it names nothing");
        }
        let both = matches!(tokens.last(), Some(Token::Star | Token::DeepRest));
        let anchored = body.starts_with(b"/");
        Ok(Self { tokens, anchored, files: !only_folders, folders: only_folders || both })
    }

    /// Whether a file, or a folder, of this path fits.
    pub(super) fn fits(&self, path: &[Unit], folder: bool) -> bool {
        let kind = if folder { self.folders } else { self.files };
        kind && self.run(path).last() == Some(&true)
    }

    /// Whether something below the folder of this path may fit an anchored pattern. What `/**` stands for does not count.
    pub(super) fn leads_through(&self, path: &[Unit]) -> bool {
        if !self.anchored {
            return false;
        }
        let ways = self.run(path);
        let deep = self.tokens.iter().position(|token| matches!(token, Token::DeepSlash));
        let ends = self.tokens.iter().zip(ways).take(deep.map_or(usize::MAX, |deep| deep + 1));
        ends.into_iter().any(|(token, way)| way && matches!(token, Token::One(SLASH) | Token::DeepSlash))
    }

    /// Follows all ways of matching at once. A way is the number of tokens that are behind it.
    fn run(&self, path: &[Unit]) -> Vec<bool> {
        let mut ways = vec![false; self.tokens.len() + 1];
        let mut next = ways.clone();
        if self.anchored {
            self.enter(&mut ways, 0);
        }
        let mut previous = 0;
        for &unit in path {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate() {
                if ways.get(at) == Some(&true) {
                    self.step(&mut next, at, token, (previous, unit));
                }
            }
            std::mem::swap(&mut ways, &mut next);
            if !self.anchored && unit == SLASH {
                self.enter(&mut ways, 0);
            }
            previous = unit;
        }
        ways
    }

    /// A way that comes to a token which may stand for nothing also goes on behind it.
    fn enter(&self, ways: &mut [bool], mut at: usize) {
        while let Some(way) = ways.get_mut(at) {
            *way = true;
            at += match self.tokens.get(at) {
                Some(Token::Star | Token::DeepRest) => 1,
                // With what follows its slash. At the end of a pattern it stands for something.
                Some(Token::DeepSlash) if at + 2 < self.tokens.len() => 2,
                _ => return,
            };
        }
    }

    fn step(&self, next: &mut [bool], at: usize, token: &Token, (previous, unit): (Unit, Unit)) {
        let hidden = unit == Unit::from(b'.') && previous == SLASH;
        let wild = unit != SLASH && !hidden;
        let to = match token {
            Token::One(wanted) if *wanted == unit => at + 1,
            Token::Any if wild => at + 1,
            Token::Class { negated, members } if wild => {
                if members.iter().any(|member| member.holds(unit)) == *negated {
                    return;
                }
                at + 1
            }
            Token::Star if wild => at,
            Token::DeepSlash if unit == SLASH => at + 1,
            Token::DeepRest => at,
            _ => return,
        };
        self.enter(next, to);
    }
}

fn tokens(mut text: &[Unit]) -> Result<Vec<Token>, &'static str> {
    const STAR: Unit = b'*' as Unit;
    const ANY: Unit = b'?' as Unit;
    const OPEN: Unit = b'[' as Unit;
    const QUOTE: Unit = b'\\' as Unit;
    let mut tokens = Vec::new();
    loop {
        text = match *text {
            [] => return Ok(tokens),
            [SLASH, STAR, STAR, ref rest @ ..] => {
                tokens.extend([Token::DeepSlash, Token::DeepRest]);
                rest
            }
            [STAR, ref rest @ ..] => {
                tokens.push(Token::Star);
                rest
            }
            [ANY, ref rest @ ..] => {
                tokens.push(Token::Any);
                rest
            }
            [OPEN, ref rest @ ..] => {
                let (class, rest) = class(rest)?;
                tokens.push(class);
                rest
            }
            [QUOTE] => return Err("it ends with a `\\` that quotes nothing"),
            [QUOTE, unit, ref rest @ ..] | [unit, ref rest @ ..] => {
                tokens.push(Token::One(unit));
                rest
            }
        };
    }
}

/// The class whose opening bracket has been read, and what follows it.
fn class(mut text: &[Unit]) -> Result<(Token, &[Unit]), &'static str> {
    const UNCLOSED: &str = "a `[` in it is not closed; `\\[` stands for the bracket itself";
    const CLOSE: Unit = b']' as Unit;
    const DASH: Unit = b'-' as Unit;
    let negated = matches!(text.first(), Some(&unit) if unit == Unit::from(b'^') || unit == Unit::from(b'!'));
    text = text.get(usize::from(negated)..).unwrap_or_default();
    let mut members = Vec::new();
    loop {
        let (from, rest) = match text {
            [CLOSE, rest @ ..] if !members.is_empty() => {
                return Ok((Token::Class { negated, members }, rest));
            }
            _ if named(text).is_some() => {
                let (member, rest) = named(text).ok_or(UNCLOSED)?;
                members.push(member?);
                text = rest;
                continue;
            }
            _ => member_unit(text).ok_or(UNCLOSED)?,
        };
        text = rest;
        let to = match text {
            [DASH, rest @ ..] if !matches!(rest, [CLOSE, ..]) => {
                let (to, rest) = member_unit(rest).ok_or(UNCLOSED)?;
                text = rest;
                to
            }
            _ => from,
        };
        members.push(Member::Range(from..=to));
    }
}

/// One character of a class, quoted or not.
fn member_unit(text: &[Unit]) -> Option<(Unit, &[Unit])> {
    match text {
        [quote, unit, rest @ ..] if *quote == Unit::from(b'\\') => Some((*unit, rest)),
        [unit, rest @ ..] => Some((*unit, rest)),
        [] => None,
    }
}

/// `[:name:]` at the start of `text`.
fn named(text: &[Unit]) -> Option<(Result<Member, &'static str>, &[Unit])> {
    let rest = text.strip_prefix(&[Unit::from(b'['), Unit::from(b':')])?;
    let end = rest.windows(2).position(|pair| pair == [Unit::from(b':'), Unit::from(b']')])?;
    let name: String = rest.get(..end)?.iter().filter_map(|&unit| char::from_u32(unit)).collect();
    let holds: fn(char) -> bool = match name.as_str() {
        "alnum" => char::is_alphanumeric,
        "alpha" => char::is_alphabetic,
        "blank" => |c| c == ' ' || c == '\t',
        "cntrl" => char::is_control,
        "digit" => |c| c.is_ascii_digit(),
        "graph" => |c| !c.is_control() && !c.is_whitespace(),
        "lower" => char::is_lowercase,
        "print" => |c| !c.is_control(),
        "punct" => |c| c.is_ascii_punctuation(),
        "space" => char::is_whitespace,
        "upper" => char::is_uppercase,
        "xdigit" => |c| c.is_ascii_hexdigit(),
        _ => return Some((Err("it holds a class `[:...:]` of an unknown name"), &[])),
    };
    Some((Ok(Member::Named(holds)), rest.get(end + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path with a slash at its end is a folder.
    fn fits(pattern: &str, path: &str) -> bool {
        let (path, folder) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        Pattern::parse(pattern.as_bytes()).unwrap().fits(&units(path.as_bytes()), folder)
    }

    #[test]
    fn patterns_fit_what_the_manual_of_ascp_says() {
        // pattern, what fits, what does not
        let table: &[(&str, &[&str], &[&str])] = &[
            ("abc/def/xyz", &["abc/def/xyz", "top/abc/def/xyz"], &["abc/def", "xabc/def/xyz"]),
            (r"abc\?", &["abc?"], &[r"abc\?", "abc/D", "abcD"]),
            ("abc*f", &["abcdef", "abc.f"], &["abc/f", "abcefg"]),
            ("abc??", &["abcde", "abc.z"], &["abcdef", "abc/d", "abc/."]),
            ("[abc]def", &["adef", "cdef"], &["abcdef", "ade"]),
            ("[^abc]def", &["zdef", "2def"], &["bdef", "/def", "x/.def"]),
            ("[!abc]def", &["zdef", "2def"], &["cdef", "x/.def"]),
            ("[[:lower:]]def", &["cdef", "ydef"], &["Adef", "2def", ".def"]),
            ("a/**/f", &["a/f", "a/.z/f", "a/d/e/f"], &["a/d/f/", "za/d/f"]),
            ("abc*", &["abc/", "abcfile", "abc"], &["xabc"]),
            ("abc/*/", &["abc/dir/"], &["abc/file"]),
            ("file", &["file", "deep/file"], &["file/"]),
            ("/abc/def", &["abc/def"], &["xyz/abc/def", "abc/def/"]),
            ("/**", &["a", "a/", ".a/b", "a/.b/"], &[]),
            ("/**/", &["a/", ".a/b/"], &["a", "a/b"]),
            ("a/**", &["a/b", "a/.b/c/", "x/a/b"], &["a", "a/", "ab/c"]),
            ("*", &["a", "a/", "x/y"], &[".a", "x/.y"]),
            (".*", &[".a", "x/.y/"], &["a"]),
            ("*.tmp", &["a.tmp", "d/b.tmp", ".tmp"], &["a.tmp/", "a.tmp.x", ".a.tmp"]),
            ("[]a-c-]", &["]", "b", "-"], &["d"]),
            (r"[\]x]", &["]", "x"], &[r"\"]),
            ("?", &["é", "文"], &["ab"]),
            ("[а-я]*", &["привет"], &["hello"]),
        ];
        for (pattern, yes, no) in table {
            yes.iter().for_each(|path| assert!(fits(pattern, path), "{pattern} fits {path}"));
            no.iter().for_each(|path| assert!(!fits(pattern, path), "{pattern} does not fit {path}"));
        }
    }

    #[test]
    fn names_that_are_no_text_are_matched_byte_by_byte() {
        let pattern = Pattern::parse(b"a\xff?").unwrap();
        assert!(pattern.fits(&units(b"a\xff\xfe"), false));
        assert!(!pattern.fits(&units("aÿx".as_bytes()), false));
    }

    #[test]
    fn an_anchored_pattern_leads_through_the_folders_above() {
        let leads = |pattern: &str, path: &str| {
            Pattern::parse(pattern.as_bytes()).unwrap().leads_through(&units(path.as_bytes()))
        };
        for path in ["a", "a/b"] {
            assert!(leads("/a/b/c", path), "{path}");
            assert!(leads("/a/b/**/c/d", path), "{path}");
        }
        assert!(!leads("/a/b/**/c/d", "a/b/c"));
        assert!(!leads("/a/b/c", "a/b/c") && !leads("/a/b/c", "b") && !leads("a/b/c", "a"));
        assert!(leads("/a*/c", "abc") && !leads("/a*/c", "b"));
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["", "/", "[abc", "[", "[]", r"a\", "[[:nothing:]]"] {
            assert!(Pattern::parse(pattern.as_bytes()).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_its_length_times_that_of_the_path() {
        let pattern = Pattern::parse("*a".repeat(500).as_bytes()).unwrap();
        assert!(!pattern.fits(&units("a".repeat(499).as_bytes()), false));
        assert!(pattern.fits(&units("a".repeat(500).as_bytes()), false));
    }
}
