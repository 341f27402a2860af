//! Which part of a file a request is to get: conditions and ranges of RFC 9110, sections 13 and 14. Pure.

/// What a request says about the version it wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
    /// `Range`.
    pub range: Option<&'a str>,
}

/// What it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Whole,
    /// 206: first and last byte, both included.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// 304: it has this version.
    NotModified,
    /// 412: it wants another version.
    Changed,
    /// 416: no such bytes.
    Unsatisfiable,
}

/// Decides. `etag` is strong and in quotes, `modified` the date in HTTP's form.
#[must_use]
pub fn answer(asked: &Conditions<'_>, etag: &str, modified: &str, size: u64) -> Answer {
    if asked.if_match.is_some_and(|list| !list_holds(list, etag, true)) {
        return Answer::Changed;
    }
    let known = match (asked.if_none_match, asked.if_modified_since) {
        (Some(list), _) => list_holds(list, etag, false),
        // A client echoes what it was told; other dates are not compared.
        (None, Some(date)) => date.trim() == modified,
        (None, None) => false,
    };
    if known {
        return Answer::NotModified;
    }
    let same = asked.if_range.is_none_or(|validator| [etag, modified].contains(&validator.trim()));
    match asked.range {
        Some(range) if same => part(range, size),
        _ => Answer::Whole,
    }
}

fn list_holds(list: &str, etag: &str, strong: bool) -> bool {
    list.split(',').map(str::trim).any(|item| {
        item == "*" || item == etag || (!strong && item.strip_prefix("W/").is_some_and(|item| item == etag))
    })
}

/// One range is served. Several, or what is no range of bytes, may be passed over (section 14.2), which gives the whole.
fn part(range: &str, size: u64) -> Answer {
    let (unit, set) = range.split_once('=').unwrap_or_default();
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Answer::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Answer::Whole };
    let end = size.saturating_sub(1);
    match (number(first), number(last)) {
        (Bound::None, Bound::At(suffix)) => match suffix.min(size) {
            0 => Answer::Unsatisfiable,
            length => Answer::Part { first: size - length, last: end },
        },
        (Bound::At(first), Bound::None) if first < size => Answer::Part { first, last: end },
        (Bound::At(first), Bound::At(last)) if first <= last && first < size => {
            Answer::Part { first, last: last.min(end) }
        }
        (Bound::At(first), Bound::At(last)) if first > last => Answer::Whole,
        (Bound::At(_), Bound::None | Bound::At(_)) => Answer::Unsatisfiable,
        (Bound::None, Bound::None) | (Bound::Bad, _) | (_, Bound::Bad) => Answer::Whole,
    }
}

enum Bound {
    None,
    At(u64),
    Bad,
}

/// A number too large for us is beyond every file.
fn number(text: &str) -> Bound {
    match text {
        "" => Bound::None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Bound::At(digits.parse().unwrap_or(u64::MAX))
        }
        _ => Bound::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"v1\"";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn ranged(range: &str, size: u64) -> Answer {
        answer(&Conditions { range: Some(range), ..Conditions::default() }, ETAG, DATE, size)
    }

    #[test]
    fn ranges_at_every_edge() {
        let part = |first, last| Answer::Part { first, last };
        for (n, (range, size, expected)) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=0-9", 10, part(0, 9)),
            ("bytes=0-10", 10, part(0, 9)),
            ("bytes=9-", 10, part(9, 9)),
            ("bytes=10-", 10, Answer::Unsatisfiable),
            ("bytes=10-20", 10, Answer::Unsatisfiable),
            ("bytes=-1", 10, part(9, 9)),
            ("bytes=-10", 10, part(0, 9)),
            ("bytes=-11", 10, part(0, 9)),
            ("bytes=-0", 10, Answer::Unsatisfiable),
            ("bytes=0-", 0, Answer::Unsatisfiable),
            ("bytes=-5", 0, Answer::Unsatisfiable),
            ("bytes=5-4", 10, Answer::Whole),
            ("bytes=0-1,3-4", 10, Answer::Whole),
            ("bytes=a-b", 10, Answer::Whole),
            ("bytes=+1-2", 10, Answer::Whole),
            ("bytes=-", 10, Answer::Whole),
            ("lines=0-1", 10, Answer::Whole),
            ("", 10, Answer::Whole),
            ("BYTES=0-99999999999999999999999", 10, part(0, 9)),
            ("bytes=99999999999999999999999-", 10, Answer::Unsatisfiable),
            ("bytes=18446744073709551615-18446744073709551615", u64::MAX, Answer::Unsatisfiable),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(ranged(range, size), expected, "row {n}: {range} of {size}");
        }
    }

    #[test]
    fn a_part_is_given_only_of_the_version_that_was_begun() {
        for (validator, expected) in [
            (ETAG, Answer::Part { first: 5, last: 9 }),
            (DATE, Answer::Part { first: 5, last: 9 }),
            ("\"v2\"", Answer::Whole),
            ("W/\"v1\"", Answer::Whole),
            ("Sun, 06 Nov 1994 08:49:38 GMT", Answer::Whole),
        ] {
            let asked =
                Conditions { range: Some("bytes=5-"), if_range: Some(validator), ..Conditions::default() };
            assert_eq!(answer(&asked, ETAG, DATE, 10), expected, "{validator}");
        }
    }

    #[test]
    fn versions_that_are_known_or_not_wanted_are_not_sent() {
        let asked = |if_match, if_none_match| Conditions { if_match, if_none_match, ..Conditions::default() };
        for (if_match, if_none_match, expected) in [
            (None, Some("\"a\", W/\"v1\""), Answer::NotModified),
            (None, Some("*"), Answer::NotModified),
            (None, Some("\"v2\""), Answer::Whole),
            (Some("\"v1\""), None, Answer::Whole),
            (Some("W/\"v1\""), None, Answer::Changed),
            (Some("\"v2\""), None, Answer::Changed),
        ] {
            assert_eq!(answer(&asked(if_match, if_none_match), ETAG, DATE, 10), expected);
        }
        let since = Conditions { if_modified_since: Some(DATE), ..Conditions::default() };
        assert_eq!(answer(&since, ETAG, DATE, 10), Answer::NotModified);
    }
}
