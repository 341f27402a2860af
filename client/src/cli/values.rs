//! Reads the values of options into types. `ascp`'s drivers send `"-O 33001"` as one argument, so leading blanks of a
//! value never count.
//!
//! Not here: what the values mean together (`plan`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{
    EnumValueParser, OsStringValueParser, PossibleValue, StringValueParser, TypedValueParser,
};
use clap::{Arg, Command, ValueEnum};
use haul_proto::control::ResumeCheck;
use haul_proto::dscp::Dscp;
use haul_proto::units::Rate;
use serde::Serialize;

/// A rate as typed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RateWish {
    /// So many bits per second; zero lifts a minimum.
    Bits(Rate),
    /// A share of what the path can carry, as `50%` or `50p`.
    Percent(f64),
}

/// `-k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeLevel {
    /// 0: start over.
    StartOver,
    /// 1: size and time tell whether the file is the same.
    Attributes,
    /// 2: as 1, and the digest of the whole file is compared at its end.
    Digest,
    /// 3: what is there is read again first.
    Reread,
}

impl From<ResumeLevel> for ResumeCheck {
    fn from(level: ResumeLevel) -> Self {
        match level {
            ResumeLevel::StartOver => Self::None,
            ResumeLevel::Attributes => Self::Attributes,
            ResumeLevel::Digest => Self::Digest,
            ResumeLevel::Reread => Self::Reread,
        }
    }
}

/// `-@`: the bytes of a single file that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ByteRange {
    /// The first one.
    pub first: u64,
    /// The last one; none means to the end.
    pub last: Option<u64>,
}

/// `-C`: this session does one part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SessionShare {
    /// Which of the parts, from 1.
    pub node: u32,
    /// How many there are.
    pub count: u32,
}

/// `-L`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlace {
    /// The folder; `-` is the terminal.
    pub directory: PathBuf,
    /// Where the file is set aside and a new one begun.
    pub max_bytes: u64,
}

/// `-o NAME=VALUE`, the old form of some long options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldOption {
    /// In lower case.
    pub name: String,
    /// As typed.
    pub value: String,
}

/// ascp's log is set aside at this size.
const LOG_BYTES: u64 = 10_000_000;

/// Cuts the blanks before a value.
#[derive(Debug, Clone)]
pub(super) struct Trimmed<P>(P);

impl<P: TypedValueParser> TypedValueParser for Trimmed<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        self.0.parse_ref(command, argument, OsStr::from_bytes(value.as_bytes().trim_ascii_start()))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// One of several words.
pub(super) fn word<T: ValueEnum + Clone + Send + Sync + 'static>() -> Trimmed<EnumValueParser<T>> {
    Trimmed(EnumValueParser::new())
}

fn text_that<
    T: Clone + Send + Sync + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
>(
    read: impl Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
) -> impl TypedValueParser<Value = T> {
    StringValueParser::new().try_map(move |text| read(text.trim()))
}

pub(super) fn port() -> impl TypedValueParser<Value = u16> {
    text_that(|text| match text.parse::<u16>() {
        Ok(0) | Err(_) => Err("expected a port, 1 to 65535"),
        Ok(port) => Ok(port),
    })
}

pub(super) fn rate() -> impl TypedValueParser<Value = RateWish> {
    text_that(|text| match text.strip_suffix(['%', 'p', 'P']) {
        Some(number) => percent(number).ok_or_else(|| format!("`{text}` is no percentage, 1% to 100%")),
        None => Rate::parse(text).map(RateWish::Bits).map_err(|error| error.to_string()),
    })
}

pub(super) fn min_rate() -> impl TypedValueParser<Value = RateWish> {
    let zero = |text: &str| text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']).parse::<f64>() == Ok(0.0);
    text_that(move |text| match text.strip_suffix(['%', 'p', 'P']) {
        _ if zero(text) => Ok(RateWish::Bits(Rate::ZERO)),
        Some(number) => percent(number).ok_or_else(|| format!("`{text}` is no percentage, 1% to 100%")),
        None => Rate::parse(text).map(RateWish::Bits).map_err(|error| error.to_string()),
    })
}

fn percent(number: &str) -> Option<RateWish> {
    let percent = number.trim().parse().ok()?;
    (0.0 < percent && percent <= 100.0).then_some(RateWish::Percent(percent))
}

pub(super) fn dscp() -> impl TypedValueParser<Value = Dscp> {
    text_that(Dscp::parse)
}

pub(super) fn seconds() -> impl TypedValueParser<Value = f64> {
    text_that(|text| match text.parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, 0.1 to 600"),
    })
}

/// Whole seconds, also none.
pub(super) fn whole_seconds() -> impl TypedValueParser<Value = Duration> {
    text_that(|text| text.parse().map(Duration::from_secs).map_err(|_| "expected whole seconds"))
}

/// A point in time: seconds since 1970, or, if negative, seconds back from now.
pub(super) fn moment() -> impl TypedValueParser<Value = i64> {
    text_that(|text| {
        text.parse::<i64>().map_err(|_| "expected seconds since 1970, or a negative number: so long ago")
    })
}

/// A number of bytes; K and M count 1024 and 1024 x 1024.
pub(super) fn size() -> impl TypedValueParser<Value = u64> {
    text_that(|text| {
        let (number, unit) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (text.get(..at), 1 << 10),
            Some((at, 'm' | 'M')) => (text.get(..at), 1 << 20),
            Some((at, 'g' | 'G')) => (text.get(..at), 1 << 30),
            _ => (Some(text), 1_u64),
        };
        let number = number.and_then(|number| number.parse::<u64>().ok());
        number.and_then(|number| number.checked_mul(unit)).ok_or("expected bytes, as 65536, 64K or 1M")
    })
}

pub(super) fn resume_level() -> impl TypedValueParser<Value = ResumeLevel> {
    text_that(|text| match text {
        "0" => Ok(ResumeLevel::StartOver),
        "1" => Ok(ResumeLevel::Attributes),
        "2" => Ok(ResumeLevel::Digest),
        "3" => Ok(ResumeLevel::Reread),
        _ => Err("expected 0, 1, 2 or 3"),
    })
}

pub(super) fn byte_range() -> impl TypedValueParser<Value = ByteRange> {
    text_that(|text| {
        let wrong = "expected FIRST:LAST, two numbers of bytes counted from 0";
        let (first, last) = text.split_once(':').ok_or(wrong)?;
        let first = first.trim().parse::<u64>().map_err(|_| wrong)?;
        let last = match last.trim() {
            "" => None,
            last => Some(last.parse::<u64>().map_err(|_| wrong)?),
        };
        if last.is_some_and(|last| last < first) { Err(wrong) } else { Ok(ByteRange { first, last }) }
    })
}

pub(super) fn session_share() -> impl TypedValueParser<Value = SessionShare> {
    text_that(|text| {
        let numbers = text.split_once(':').and_then(|(node, count)| {
            let share = SessionShare { node: node.trim().parse().ok()?, count: count.trim().parse().ok()? };
            (1..=share.count).contains(&share.node).then_some(share)
        });
        numbers.filter(|share| share.count <= 128).ok_or("expected NODE:COUNT, as 1:4, at most 128")
    })
}

/// A folder, with a size after a colon as `ascp` has it.
pub(super) fn log_place() -> impl TypedValueParser<Value = LogPlace> {
    path().try_map(|path| {
        let bytes = path.as_os_str().as_bytes();
        let sized = bytes.iter().rposition(|&byte| byte == b':').and_then(|colon| {
            let megabytes = std::str::from_utf8(bytes.get(colon + 1..)?).ok()?.parse::<u64>().ok()?;
            Some((bytes.get(..colon)?, megabytes))
        });
        match sized {
            None => Ok(LogPlace { directory: path, max_bytes: LOG_BYTES }),
            Some((b"", _)) | Some((_, 0)) => Err("expected DIR or DIR:MEGABYTES"),
            Some((directory, megabytes)) => Ok(LogPlace {
                directory: PathBuf::from(OsStr::from_bytes(directory)),
                max_bytes: megabytes.saturating_mul(1_000_000),
            }),
        }
    })
}

pub(super) fn old_option() -> impl TypedValueParser<Value = OldOption> {
    text_that(|text| match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(OldOption { name: name.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
        }
        _ => Err("expected NAME=VALUE"),
    })
}

pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| {
        let trimmed = text.as_bytes().trim_ascii_start();
        if trimmed.is_empty() {
            Err("expected a path")
        } else {
            Ok(PathBuf::from(OsString::from_vec(trimmed.to_vec())))
        }
    })
}

/// Any text, as bytes; blanks before it do not count.
pub(super) fn text() -> impl TypedValueParser<Value = OsString> {
    Trimmed(OsStringValueParser::new())
}

/// Text that has to be UTF-8.
pub(super) fn words() -> impl TypedValueParser<Value = String> {
    Trimmed(StringValueParser::new())
}

/// Stdout is taken: it has the summary, or with `--json` the same rows.
pub(super) fn stats_file() -> impl TypedValueParser<Value = PathBuf> {
    path().try_map(|path| match path.as_os_str() == "-" {
        true => Err("expected a file; --json writes the same to stdout"),
        false => Ok(path),
    })
}
