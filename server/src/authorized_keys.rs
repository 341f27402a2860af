//! Reads `authorized_keys` as OpenSSH writes it. A line that is not understood wholly is refused with a warning, since
//! an option left out could widen what a key may do; the other lines stay good. It opens no file and knows no clock.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};

use crate::auth::Grant;
use crate::source_pattern::SourceList;

/// Longest line that is read, in bytes: an RSA key of 16,384 bits with options takes a quarter of it.
const MAX_LINE_BYTES: usize = 16 << 10;

/// RSA keys below this are within reach of factoring (NIST SP 800-131A).
const MIN_RSA_BITS: u32 = 2048;

/// Local time of an expiry may be as far east as this: UTC+14.
const EARLIEST_ZONE: Duration = Duration::from_secs(14 * 3600);

/// Options about things that are never granted here, so that forbidding or allowing them changes nothing.
const NEVER_GRANTED: &[&str] = &[
    "restrict",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-user-rc",
    "no-x11-forwarding",
    "agent-forwarding",
    "port-forwarding",
    "pty",
    "user-rc",
    "x11-forwarding",
    "permitlisten",
    "permitopen",
    "tunnel",
];

/// A key and when it may be used.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizedKey {
    key: KeyData,
    /// Where it stands, for the log.
    pub(crate) line: usize,
    /// It does not log in itself: it signs certificates that do.
    authority: bool,
    limits: Limits,
}

/// A line that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignored {
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// Whether a listed key opens the door now and from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fits,
    WrongSource,
    Expired,
}

impl AuthorizedKey {
    /// Whether the line lets this key in.
    pub(crate) fn is(&self, key: &PublicKey) -> bool {
        !self.authority && self.key == *key.key_data()
    }

    /// Whether the line trusts certificates that this key has signed.
    pub(crate) fn is_authority(&self, key: &KeyData) -> bool {
        self.authority && self.key == *key
    }

    /// Whether the line is about certificates.
    pub(crate) const fn signs(&self) -> bool {
        self.authority
    }

    /// The same line in a file that holds nothing but authorities.
    pub(crate) fn into_authority(self) -> Self {
        Self { authority: true, ..self }
    }

    /// Whom certificates of this authority must be for; none if the line does not say.
    pub(crate) fn principals(&self) -> Option<&[String]> {
        self.limits.principals.as_deref()
    }

    /// What a login by this line is good for.
    pub(crate) const fn grant(&self) -> Grant {
        if self.limits.sessions_only { Grant::SessionsOnly } else { Grant::All }
    }

    pub(crate) fn judge(&self, peer: IpAddr, now: SystemTime) -> Verdict {
        if self.limits.expires.is_some_and(|expires| now >= expires) {
            return Verdict::Expired;
        }
        match &self.limits.from {
            Some(list) if !list.contains(peer) => Verdict::WrongSource,
            _ => Verdict::Fits,
        }
    }
}

/// Reads a file's content.
pub(crate) fn parse(content: &[u8]) -> (Vec<AuthorizedKey>, Vec<Ignored>) {
    let (mut keys, mut ignored) = (Vec::new(), Vec::new());
    for (at, bytes) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = at + 1;
        // A comment may be in any encoding; all that counts is ASCII.
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_matches([' ', '\t', '\r']);
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match parse_line(text, line) {
            Ok(key) => keys.push(key),
            Err(reason) => ignored.push(Ignored { line, reason }),
        }
    }
    (keys, ignored)
}

fn parse_line(text: &str, line: usize) -> Result<AuthorizedKey, String> {
    if text.len() > MAX_LINE_BYTES {
        return Err(format!("longer than {MAX_LINE_BYTES} bytes"));
    }
    let mut limits = Limits::default();
    let mut rest = text;
    if !is_key_type(first_word(text)) {
        let (options, behind) = split_options(text)?;
        for option in &options {
            limits.take(option)?;
        }
        rest = behind;
    }
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let (kind, blob) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !is_key_type(kind) {
        return Err("no key found".to_owned());
    }
    let key = PublicKey::from_openssh(&format!("{kind} {blob}"))
        .map_err(|error| format!("the {kind} key cannot be read: {error}"))?;
    check_strength(&key)?;
    if limits.principals.is_some() && !limits.authority {
        return Err("principals= means nothing without cert-authority".to_owned());
    }
    Ok(AuthorizedKey { key: key.key_data().clone(), line, authority: limits.authority, limits })
}

/// Whether a forced command is the session, which is all that is ever granted: then there is nothing to force.
pub(crate) fn is_session_command(command: &str) -> bool {
    let mut words = command.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("haul-session"), None, None) => true,
        (Some(program), Some("session"), None) => program.rsplit('/').next() == Some("hauld"),
        _ => false,
    }
}

fn first_word(text: &str) -> &str {
    text.split([' ', '\t']).next().unwrap_or_default()
}

/// Key types have these beginnings and no option has.
fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| word.starts_with(start))
        && !word.contains('=')
}

/// Whether a key is of a kind and size that is accepted; what is wrong comes back as a phrase.
pub(crate) fn check_strength(key: &PublicKey) -> Result<(), String> {
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(()),
        Algorithm::Rsa { .. } => match key.key_data().rsa() {
            Some(rsa) if rsa.key_size() >= MIN_RSA_BITS => Ok(()),
            Some(rsa) => {
                Err(format!("an RSA key of {} bits, at least {MIN_RSA_BITS} expected", rsa.key_size()))
            }
            None => Err("an RSA key without numbers".to_owned()),
        },
        other => Err(format!("keys of type {other} are not supported; expected Ed25519, ECDSA or RSA")),
    }
}

/// An option as it stands: name in lower case, value without its quotes.
#[derive(Debug, PartialEq, Eq)]
struct KeyOption {
    name: String,
    value: Option<String>,
}

/// Splits the options off: comma-separated, up to the first blank outside quotes. Within quotes only `\"` is special.
fn split_options(text: &str) -> Result<(Vec<KeyOption>, &str), String> {
    let (mut options, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' if quoted && escaped => {
                word.pop();
                word.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => options.push(option(&std::mem::take(&mut word))?),
            ' ' | '\t' if !quoted => {
                options.push(option(&word)?);
                return Ok((options, text.get(at..).unwrap_or_default()));
            }
            _ => word.push(c),
        }
        escaped = quoted && c == '\\' && !escaped;
    }
    Err(if quoted { "a quote is not closed".to_owned() } else { "no key found".to_owned() })
}

fn option(word: &str) -> Result<KeyOption, String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    if name.is_empty() {
        return Err("an empty option".to_owned());
    }
    Ok(KeyOption { name: name.to_ascii_lowercase(), value })
}

/// What options say.
#[derive(Debug, Clone, Default)]
struct Limits {
    from: Option<SourceList>,
    expires: Option<SystemTime>,
    authority: bool,
    principals: Option<Vec<String>>,
    sessions_only: bool,
}

impl Limits {
    fn take(&mut self, option: &KeyOption) -> Result<(), String> {
        match (option.name.as_str(), &option.value) {
            (name, _) if NEVER_GRANTED.contains(&name) => {}
            ("from", Some(value)) if self.from.is_none() => self.from = Some(SourceList::parse(value)?),
            ("expiry-time", Some(value)) if self.expires.is_none() => {
                self.expires = Some(expiry(value).ok_or_else(|| {
                    format!(
                        "`{value}` in expiry-time= is no time; write YYYYMMDD or YYYYMMDDHHMM, with Z for UTC"
                    )
                })?);
            }
            ("cert-authority", None) => self.authority = true,
            ("principals", Some(value)) if self.principals.is_none() => {
                self.principals = Some(principals(value)?);
            }
            ("command", Some(value)) if is_session_command(value) => self.sessions_only = true,
            ("from" | "expiry-time" | "principals", _) => {
                return Err(format!("{} must have one value and stand once", option.name));
            }
            ("command", _) => {
                return Err("command= cannot be honoured: nothing but command=\"haul-session\" is run here"
                    .to_owned());
            }
            ("environment", _) => return Err("environment= is never honoured".to_owned()),
            (name, _) => return Err(format!("unknown option `{}`", crate::logging::shown(name))),
        }
        Ok(())
    }
}

/// A list of names; an empty one would mean nobody, which is a slip of the pen.
fn principals(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err("an empty name in principals=".to_owned());
    }
    Ok(names)
}

/// `YYYYMMDD[HHMM[SS]][Z]`. Without `Z` it is local time, which this reader does not know: it takes the earliest there
/// is, so that a key may end hours early but never late.
fn expiry(text: &str) -> Option<SystemTime> {
    let (digits, utc) = text.strip_suffix(['Z', 'z']).map_or((text, false), |digits| (digits, true));
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |at: std::ops::Range<usize>| digits.get(at).map_or(Some(0), |part| part.parse::<u64>().ok());
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    if day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let seconds = ((days_before(year, month) + day - 1) * 24 + hour) * 3600 + minute * 60 + second;
    let seconds = Duration::from_secs(seconds);
    SystemTime::UNIX_EPOCH.checked_add(if utc { seconds } else { seconds.saturating_sub(EARLIEST_ZONE) })
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1 January 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
    years + months
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIISvtzhFMLJ1kHKiwHGIr+m5cq9u+0gT+b+OoCRO/i/Z";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINA+Rd7cXdNgedAPoPid29bvuLpxx2O5z4h/357a4V/o";

    fn address() -> IpAddr {
        IpAddr::from([192, 0, 2, 7])
    }

    #[test]
    fn lines_as_people_write_them_are_read_or_refused_whole() {
        let good = [
            "{}",
            "{} alice@example.com",
            "{} a comment with spaces and # signs",
            "  \t{}\r",
            "restrict {}",
            "RESTRICT,No-Pty\t{}",
            "no-port-forwarding,no-X11-forwarding,no-agent-forwarding,no-pty {} c",
            "permitopen=\"192.0.2.1:80\",from=\"192.0.2.*\" {}",
            "from=\"192.0.2.0/24,!192.0.2.8\"   {}",
            "expiry-time=\"29991231\" {}",
            "expiry-time=\"299912312359Z\",restrict {}",
            "command=\"haul-session\" {}",
            "restrict,command=\"/usr/bin/hauld session\" {}",
        ];
        for (n, line) in good.iter().enumerate() {
            let (keys, ignored) = parse(line.replace("{}", ED25519).as_bytes());
            assert_eq!((keys.len(), &ignored), (1, &Vec::new()), "row {n}: {line}");
            assert_eq!(keys[0].judge(address(), SystemTime::now()), Verdict::Fits, "row {n}");
        }
        let bad = [
            ("command=\"echo \\\"a, b\\\" # c\" {}", "command= cannot be honoured"),
            ("command=\"/usr/bin/hauld session --x\" {}", "command= cannot be honoured"),
            ("cert-authority=\"x\" {}", "unknown option"),
            ("principals=\"a,b\" {}", "without cert-authority"),
            ("cert-authority,principals=\"a,\" {}", "an empty name"),
            ("cert-authority,principals=\"a\",principals=\"b\" {}", "must have one value"),
            ("verify-required {}", "unknown option"),
            ("environment=\"A=B\" {}", "environment="),
            ("no-such-option {}", "unknown option `no-such-option`"),
            ("from=\"192.0.2.0/24 {}", "a quote is not closed"),
            ("from {}", "must have one value"),
            ("from=\"10.0.0.0/8\",from=\"11.0.0.0/8\" {}", "must have one value"),
            ("from=\"192.0.2.1/24\" {}", "no network"),
            ("expiry-time=\"20250230\" {}", "no time"),
            ("expiry-time=\"soon\" {}", "no time"),
            ("restrict", "no key found"),
            (",restrict {}", "an empty option"),
            ("ssh-ed25519 AAAA", "cannot be read"),
            (
                "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIISvtzhFMLJ1kHKiwHGIr+m5cq9u+0gT+b+OoCRO/i/Z",
                "cannot be read",
            ),
            ("ssh-ed25519", "cannot be read"),
            ("garbage garbage", "unknown option"),
        ];
        for (n, (line, reason)) in bad.iter().enumerate() {
            let (keys, ignored) = parse(line.replace("{}", ED25519).as_bytes());
            assert!(keys.is_empty(), "row {n}: {line}");
            assert!(ignored[0].reason.contains(reason), "row {n}: {}", ignored[0].reason);
        }
    }

    #[test]
    fn a_bad_line_spoils_no_other_and_is_named() {
        let file = format!("# keys\n\n{ED25519} one\nbogus {ED25519}\n\u{feff}\n{OTHER}");
        let (keys, ignored) = parse(file.as_bytes());
        assert_eq!(keys.iter().map(|key| key.line).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(ignored.iter().map(|line| line.line).collect::<Vec<_>>(), [4, 5]);
        let other = PublicKey::from_openssh(OTHER).unwrap();
        assert!(!keys[0].is(&other) && keys[1].is(&other));
    }

    #[test]
    fn an_authority_does_not_log_in_itself() {
        let key = PublicKey::from_openssh(ED25519).unwrap();
        let (lines, ignored) = parse(format!("cert-authority,principals=\"a, b\" {ED25519}").as_bytes());
        assert!(ignored.is_empty(), "{ignored:?}");
        assert!(!lines[0].is(&key) && lines[0].is_authority(key.key_data()) && lines[0].signs());
        assert_eq!(lines[0].principals().unwrap(), ["a", "b"]);
        let plain = parse(ED25519.as_bytes()).0.remove(0);
        assert!(plain.is(&key) && !plain.is_authority(key.key_data()));
        let all = plain.into_authority();
        assert!(!all.is(&key) && all.is_authority(key.key_data()));
    }

    #[test]
    fn bytes_that_are_no_text_are_a_comment_at_most() {
        let (keys, _) = parse(&[ED25519.as_bytes(), b" caf\xe9 \xff\n\xff\xfe\n"].concat());
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn a_small_rsa_key_is_refused() {
        // 1024 bits, made for this test with ssh-keygen.
        let line = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDc/buz5sauPqtK6Zdu+OTe0zY1vRXYLTTCHn/h+INJIGQur2yiw4gdTOLgnxMBiLas9A1xOi6clOWuG2c3c15eeGlM+FnoMRlcTntyrzvuCwt2AfiEjVG4Hc3RHOQcv6EgyhSvSg3lr0NmcLWY+masZyYs/kQcZkyUY0iWiYYhWQ==";
        let (keys, ignored) = parse(line.as_bytes());
        assert!(keys.is_empty());
        assert!(ignored[0].reason.contains("bits"), "{}", ignored[0].reason);
    }

    #[test]
    fn source_and_expiry_limit_a_key() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let read = |line: &str| parse(line.replace("{}", ED25519).as_bytes()).0.remove(0);
        let key = read("from=\"10.0.0.0/8\" {}");
        assert_eq!(key.judge(address(), at(0)), Verdict::WrongSource);
        let key = read("expiry-time=\"20260101Z\" {}");
        assert_eq!(key.judge(address(), at(1_767_225_599)), Verdict::Fits);
        assert_eq!(key.judge(address(), at(1_767_225_600)), Verdict::Expired);
        let key = read("expiry-time=\"202602282400Z\" {}".replace("2400", "2359").as_str());
        assert_eq!(key.judge(address(), at(1_772_323_140)), Verdict::Expired);
        let local = read("expiry-time=\"20260101\" {}");
        assert_eq!(local.judge(address(), at(1_767_225_600 - 14 * 3600)), Verdict::Expired);
    }
}
