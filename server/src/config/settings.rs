//! The one table of settings: name, section, kind, default, example and help of each. Parser, sample file and printed
//! configuration follow from it. Values are read here; what they mean together is checked elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use haul_proto::dscp::Dscp;
use haul_proto::units::Rate;
use toml::de::DeValue;

use crate::password;
use crate::policy::{Permissions, PortRange};
use crate::shares::schedule::{Days, TimeOfDay};

/// Where a setting stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Top,
    Ssh,
    Udp,
    Https,
    Limits,
    User,
    Schedule,
}

impl Section {
    pub(crate) const ALL: [Self; 7] =
        [Self::Top, Self::Ssh, Self::Udp, Self::Https, Self::Limits, Self::User, Self::Schedule];

    /// Its name in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::Ssh => "ssh",
            Self::Udp => "udp",
            Self::Https => "https",
            Self::Limits => "limits",
            Self::User => "user",
            Self::Schedule => "schedule",
        }
    }

    /// Its heading in the file, for messages.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Top => "the top level",
            Self::Ssh => "[ssh]",
            Self::Udp => "[udp]",
            Self::Https => "[https]",
            Self::Limits => "[limits]",
            Self::User => "[[user]]",
            Self::Schedule => "[[schedule]]",
        }
    }

    /// Whether there may be several.
    pub(crate) const fn is_list(self) -> bool {
        matches!(self, Self::User | Self::Schedule)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| !section.name().is_empty() && section.name() == name)
    }
}

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Path,
    Addresses,
    Ports,
    Name,
    Names,
    Password,
    Permissions,
    Rate,
    Dscp,
    Days,
    TimeOfDay,
    Url,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) section: Section,
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    /// As it would stand in the file; without one the setting is required or, if optional, absent.
    pub(crate) default: Option<&'static str>,
    pub(crate) required: bool,
    pub(crate) example: &'static str,
    pub(crate) help: &'static str,
}

macro_rules! setting {
    ($section:ident $key:literal $kind:ident, $default:expr, $required:literal, $example:literal, $help:literal) => {
        Setting {
            section: Section::$section,
            key: $key,
            kind: Kind::$kind,
            default: $default,
            required: $required,
            example: $example,
            help: $help,
        }
    };
}

/// All settings, in the order in which they are printed.
pub(crate) const SETTINGS: &[Setting] = &[
    setting!(Top "state_dir" Path, Some(r#""/var/lib/haul""#), false, r#""/var/lib/haul""#, "host key and the like"),
    setting!(Ssh "listen" Addresses, Some(r#"["0.0.0.0:33001", "[::]:33001"]"#), false,
        r#"["0.0.0.0:33001", "[::]:33001"]"#, "addresses for SSH"),
    setting!(Ssh "trusted_ca_keys" Path, None, false, r#""/etc/haul/ca.pub""#,
        "optional; authorities whose certificates let users in"),
    setting!(Ssh "revoked_keys" Path, None, false, r#""/etc/haul/revoked""#,
        "optional; keys, serial numbers and ids that let nobody in"),
    setting!(Ssh "host_certificate" Path, None, false, r#""/etc/haul/host-cert.pub""#,
        "optional; an authority's certificate of the host key"),
    setting!(Udp "ports" Ports, Some(r#""33001-33100""#), false, r#""33001-33100""#,
        "one port or a range; open it in the firewall"),
    setting!(Udp "dscp" Dscp, None, false, r#""CS1""#,
        "optional; on all that the server sends, 0 for none; default: as the client asks"),
    setting!(Https "listen" Addresses, Some(r#"["0.0.0.0:8443", "[::]:8443"]"#), false,
        r#"["0.0.0.0:8443", "[::]:8443"]"#, "addresses for HTTPS; [] for none"),
    setting!(Https "url" Url, None, false, r#""https://files.example.org:8443""#,
        "optional; how browsers reach the pages, for links; default: the name that the client knows"),
    setting!(Https "plain_listen" Addresses, Some("[]"), false, r#"["127.0.0.1:8080"]"#,
        "the same without TLS, for a proxy on this machine"),
    setting!(Https "public" Name, None, false, r#""transfer.example.org""#,
        "optional; a TLS proxy that clients reach instead, on 443, with a certificate of an authority"),
    setting!(Https "certificate" Path, None, false, r#""/etc/haul/https.pem""#,
        "optional, PEM with the chain; default: one is made in state_dir"),
    setting!(Https "key" Path, None, false, r#""/etc/haul/https.key""#, "its private key, PEM"),
    setting!(Limits "max_rate" Rate, None, false, r#""10g""#, "optional; all transfers of the server together"),
    setting!(Limits "max_rate_in" Rate, None, false, r#""5g""#, "optional; of them, all uploads"),
    setting!(Limits "max_rate_out" Rate, None, false, r#""8g""#, "optional; of them, all downloads"),
    setting!(User "name" Name, None, true, r#""alice""#, "login name"),
    setting!(User "docroot" Path, None, true, r#""/srv/alice""#, "the only folder the user can reach"),
    setting!(User "authorized_keys" Path, None, false, r#""/etc/haul/alice.keys""#, "public keys, in OpenSSH's format"),
    setting!(User "password" Password, None, false,
        r#""$argon2id$v=19$m=65536,t=2,p=1$2xUYo8SeOZPyBJ3l4G6L2A$V5W5zZ4mHJ5JgOqHqJqZPqk4yBnNn4CjV0SMLRe7LQs""#,
        "optional; what `hauld password` prints"),
    setting!(User "principals" Names, None, false, r#"["alice", "alice@example.com"]"#,
        "optional; whom certificates must be for, default: `name`"),
    setting!(User "permissions" Permissions, None, true, r#"["read", "write", "list"]"#, "any of read, write, list"),
    setting!(User "max_rate" Rate, None, false, r#""1g""#, "optional; all transfers of the user together"),
    setting!(User "max_rate_in" Rate, None, false, r#""500m""#, "optional; of them, all uploads"),
    setting!(User "max_rate_out" Rate, None, false, r#""800m""#, "optional; of them, all downloads"),
    setting!(User "max_session_rate" Rate, None, false, r#""300m""#, "optional; each transfer of the user"),
    setting!(User "authorize" Path, None, false, r#""/etc/haul/authorize""#,
        "optional; a program that allows or refuses each transfer of the user"),
    setting!(User "account" Name, None, false, r#""alice""#, "optional; the system account of the transfers, default: `name`"),
    setting!(Schedule "days" Days, Some(r#""mon-sun""#), false, r#""mon-fri""#, "names and ranges: mon,wed,sat-sun"),
    setting!(Schedule "from" TimeOfDay, Some(r#""00:00""#), false, r#""08:00""#, "local time of the server"),
    setting!(Schedule "to" TimeOfDay, Some(r#""24:00""#), false, r#""18:00""#, "before `from`: on the next day"),
    setting!(Schedule "user" Name, None, false, r#""alice""#, "optional; whose transfers, default: all of the server"),
    setting!(Schedule "max_rate" Rate, None, false, r#""200m""#, "all of them together; the lowest of several limits holds"),
    setting!(Schedule "max_rate_in" Rate, None, false, r#""100m""#, "optional; of them, all uploads"),
    setting!(Schedule "max_rate_out" Rate, None, false, r#""150m""#, "optional; of them, all downloads"),
];

/// A value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Path(PathBuf),
    Addresses(Vec<SocketAddr>),
    Ports(PortRange),
    Name(String),
    Names(Vec<String>),
    Password(String),
    Permissions(Permissions),
    Rate(Rate),
    Dscp(Dscp),
    Days(Days),
    TimeOfDay(TimeOfDay),
    Url(String),
}

impl Kind {
    /// What the file must hold, for messages.
    pub(crate) const fn expected(self) -> &'static str {
        match self {
            Self::Path => "an absolute path such as \"/srv/alice\"",
            Self::Addresses => "a list of addresses with port such as [\"0.0.0.0:33001\", \"[::]:33001\"]",
            Self::Ports => "a port or a range in quotes such as \"33001\" or \"33001-33100\"",
            Self::Name => "a name such as \"alice\"",
            Self::Names => "a list of names such as [\"alice\", \"staff\"]",
            Self::Password => "a hash that `hauld password` prints: argon2id, neither too weak nor too dear",
            Self::Permissions => "a list of \"read\", \"write\" and \"list\"",
            Self::Rate => "a rate with its unit such as \"1g\" or \"300m\"",
            Self::Dscp => "a DSCP such as \"CS1\", \"AF41\", \"EF\", or a number from 0 to 63",
            Self::Days => "days such as \"mon-fri\" or \"mon,wed,sat-sun\"",
            Self::Url => "an address such as \"https://files.example.org:8443\"",
            Self::TimeOfDay => "a time from \"00:00\" to \"24:00\" such as \"08:00\"",
        }
    }

    /// Reads a value.
    pub(crate) fn read(self, value: &DeValue<'_>) -> Option<Value> {
        match self {
            Self::Path => {
                let path = PathBuf::from(value.as_str()?);
                path.is_absolute().then_some(Value::Path(path))
            }
            Self::Addresses => {
                let texts = texts(value)?;
                let addresses: Result<_, _> = texts.into_iter().map(str::parse).collect();
                addresses.ok().map(Value::Addresses)
            }
            Self::Ports => ports(value.as_str()?).map(Value::Ports),
            Self::Name => name(value.as_str()?).map(Value::Name),
            Self::Names => names(&texts(value)?).map(Value::Names),
            Self::Password => {
                let text = value.as_str()?;
                password::is_usable(text).then(|| Value::Password(text.to_owned()))
            }
            Self::Permissions => permissions(&texts(value)?).map(Value::Permissions),
            Self::Rate => rate(value.as_str()?).map(Value::Rate),
            Self::Dscp => dscp(value).map(Value::Dscp),
            Self::Days => Days::parse(value.as_str()?).map(Value::Days),
            Self::TimeOfDay => TimeOfDay::parse(value.as_str()?).map(Value::TimeOfDay),
            Self::Url => url(value.as_str()?).map(Value::Url),
        }
    }
}

fn texts<'a>(value: &'a DeValue<'_>) -> Option<Vec<&'a str>> {
    value.as_array()?.iter().map(|item| item.get_ref().as_str()).collect()
}

fn ports(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
    // Zero stands alone: it lets the system pick a port.
    let sane = range.first <= range.last && (range.first > 0 || range.last == 0);
    sane.then_some(range)
}

/// Login and account names: what Linux allows, so that nothing in a log or a message needs quoting.
fn name(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let sane = (1..=64).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('-');
    sane.then(|| text.to_owned())
}

/// Principals: what an authority writes into certificates. A comma could not stand in a certificate's list.
fn names(texts: &[&str]) -> Option<Vec<String>> {
    let sane =
        |text: &&str| (1..=128).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c == ',');
    (!texts.is_empty() && texts.iter().all(sane)).then(|| texts.iter().map(|&text| text.to_owned()).collect())
}

fn permissions(texts: &[&str]) -> Option<Permissions> {
    let mut granted = Permissions::default();
    for text in texts {
        match *text {
            "read" => granted.read = true,
            "write" => granted.write = true,
            "list" => granted.list = true,
            _ => return None,
        }
    }
    Some(granted)
}

/// A bare number would count Kbit/s as ascp does, which nobody expects in a file: it needs a unit here.
fn rate(text: &str) -> Option<Rate> {
    text.trim().ends_with(|c: char| c.is_ascii_alphabetic()).then(|| Rate::parse(text).ok()).flatten()
}

/// Scheme, host and perhaps a port; browsers take the pages' cookies over TLS only.
fn url(text: &str) -> Option<String> {
    let host = text.strip_prefix("https://")?.trim_end_matches('/');
    let sane = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    sane.then(|| format!("https://{host}"))
}

/// In quotes or, as a number, without.
fn dscp(value: &DeValue<'_>) -> Option<Dscp> {
    let number = value.as_integer().filter(|number| number.radix() == 10).map(|number| number.as_str());
    Dscp::parse(number.or_else(|| value.as_str())?).ok()
}

/// As in the file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(&quoted(&path.to_string_lossy())),
            Self::Addresses(addresses) => write_list(f, addresses.iter().map(ToString::to_string)),
            Self::Ports(PortRange { first, last }) if first == last => write!(f, "\"{first}\""),
            Self::Ports(PortRange { first, last }) => write!(f, "\"{first}-{last}\""),
            Self::Name(name) => f.write_str(&quoted(name)),
            Self::Names(names) => write_list(f, names.iter().cloned()),
            // What is printed ends in tickets and mails.
            Self::Password(_) => f.write_str(&quoted("not shown")),
            Self::Permissions(granted) => {
                let names = [(granted.read, "read"), (granted.write, "write"), (granted.list, "list")];
                write_list(f, names.into_iter().filter(|(yes, _)| *yes).map(|(_, name)| name.to_owned()))
            }
            Self::Rate(rate) => f.write_str(&quoted(&rate_text(rate.bps()))),
            Self::Dscp(dscp) => f.write_str(&quoted(&dscp.to_string())),
            Self::Days(days) => f.write_str(&quoted(&days.to_string())),
            Self::TimeOfDay(time) => f.write_str(&quoted(&time.to_string())),
            Self::Url(url) => f.write_str(&quoted(url)),
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = String>) -> fmt::Result {
    let items: Vec<String> = items.map(|item| quoted(&item)).collect();
    write!(f, "[{}]", items.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The largest unit that loses nothing.
fn rate_text(bps: u64) -> String {
    let (divisor, unit) = if bps.is_multiple_of(1_000_000_000) {
        (1_000_000_000, "g")
    } else if bps.is_multiple_of(1_000_000) {
        (1_000_000, "m")
    } else {
        (1_000, "k")
    };
    format!("{}{unit}", bps / divisor)
}

/// What a file could look like.
#[must_use]
pub fn sample() -> String {
    let mut text = String::new();
    for section in Section::ALL {
        if section != Section::Top {
            text.push_str(&format!("\n{}\n", section.heading()));
        }
        for setting in SETTINGS.iter().filter(|setting| setting.section == section) {
            let line = format!("{} = {}", setting.key, setting.example);
            text.push_str(&format!("{line:<48} # {}\n", setting.help));
        }
    }
    text
}
