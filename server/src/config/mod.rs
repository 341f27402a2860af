//! The configuration: read, checked as a whole, printed with the origin of each value. Serving it is not done here.

mod check;
mod parse;
mod settings;
mod single_user;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haul_proto::dscp::Dscp;
use haul_proto::units::Rate;
use nix::unistd::Uid;

pub use parse::Problem;
use parse::{FilledTable, Origin};
pub use settings::sample;
use settings::{SETTINGS, Section, Value};

use crate::error::ServerError;
use crate::policy::{Permissions, PortRange};
use crate::shares::caps::{Caps, Schedule, SharedCaps};
use crate::shares::schedule::Window;

/// Longest configuration file, in bytes: several ten thousand users.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// What the server serves, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// Host key and the like.
    pub state_dir: PathBuf,
    /// Addresses for SSH.
    pub ssh_listen: Vec<SocketAddr>,
    /// Keys of authorities whose certificates let users in.
    pub trusted_ca_keys: Option<PathBuf>,
    /// Keys and certificates that let nobody in.
    pub revoked_keys: Option<PathBuf>,
    /// A certificate of the host key.
    pub host_certificate: Option<PathBuf>,
    /// UDP ports of the sessions.
    pub udp_ports: PortRange,
    /// What all that the server sends carries; none is what the client asks for.
    pub dscp: Option<Dscp>,
    /// HTTPS: pages, and the carrier where UDP is blocked.
    pub https: HttpsConfig,
    /// What all sessions may use together.
    pub limits: SharedCaps,
    /// Other limits at some times.
    pub schedules: Vec<Schedule>,
    /// Who may log in.
    pub users: Vec<Arc<UserEntry>>,
    tables: Vec<FilledTable>,
    /// The file, or the single-user mode.
    origin: String,
}

/// The section about HTTPS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpsConfig {
    /// Addresses for TLS.
    pub listen: Vec<SocketAddr>,
    /// Addresses without TLS.
    pub plain_listen: Vec<SocketAddr>,
    /// The proxy that clients reach instead.
    pub public: Option<String>,
    /// How browsers reach the pages; none is by the name that the client knows.
    pub url: Option<String>,
    /// Certificate and key; none makes them.
    pub files: Option<(PathBuf, PathBuf)>,
}

/// A user as configured.
#[derive(Clone, PartialEq, Eq)]
pub struct UserEntry {
    /// Login name.
    pub name: String,
    /// The only folder the user can reach.
    pub docroot: PathBuf,
    /// The file with the public keys; none if the user has other ways in.
    pub authorized_keys: Option<PathBuf>,
    /// The argon2id hash of the password; none if none opens.
    pub password: Option<String>,
    /// Whom a certificate must be for.
    pub principals: Vec<String>,
    /// What the user may do.
    pub permissions: Permissions,
    /// What the user's sessions may use together.
    pub caps: SharedCaps,
    /// The most each of them may use.
    pub max_session_rate: Option<Rate>,
    /// The program that is asked about each of them.
    pub authorize: Option<PathBuf>,
    /// The system account of the worker, when the server runs as root.
    pub account: Option<String>,
}

/// Without the hash.
impl fmt::Debug for UserEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, docroot) = (&self.name, &self.docroot);
        f.debug_struct("UserEntry").field("name", name).field("docroot", docroot).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads a configuration file. What stands in it is right by itself afterwards; [`Config::check`] looks at the
    /// system.
    ///
    /// # Errors
    /// If the file cannot be read or holds mistakes.
    pub fn load(path: &Path) -> Result<Self, ServerError> {
        let read = |source| ServerError::ReadConfig { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > MAX_CONFIG_BYTES {
            return Err(read(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "more than 16 MiB")));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path.display().to_string())
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// If it holds mistakes.
    pub fn parse(text: &str, origin: String) -> Result<Self, ServerError> {
        let (mut tables, problems) = parse::parse(text);
        if !problems.is_empty() {
            return Err(ServerError::Config { origin, problems });
        }
        if Uid::effective().is_root() {
            tables.iter_mut().for_each(default_account);
        }
        Ok(Self::from_tables(tables, origin))
    }

    /// Reads the file, or without one makes the configuration that serves one's own account.
    ///
    /// # Errors
    /// As [`Config::load`]; without a file if the process is root or has no home folder.
    pub fn load_or_single_user(path: Option<&Path>) -> Result<Self, ServerError> {
        match path {
            Some(path) => Self::load(path),
            None => single_user::config(),
        }
    }

    /// The caps that sessions share.
    pub(crate) fn caps(&self) -> Caps {
        let users = self.users.iter().map(|user| (user.name.clone(), user.caps));
        Caps::new(self.limits, users, self.schedules.clone())
    }

    /// Looks at the system: accounts, folders, key files.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        check::check(self)
    }

    /// The error for problems found.
    #[must_use]
    pub fn refused_for(&self, problems: Vec<Problem>) -> ServerError {
        ServerError::Config { origin: self.origin.clone(), problems }
    }

    /// Whether the addresses for SSH are a default, which may ask for a protocol the machine does not have.
    #[must_use]
    pub fn listens_by_default(&self) -> bool {
        self.is_default(Section::Ssh)
    }

    /// The same for HTTPS. Then a port that is taken is no reason not to serve at all.
    #[must_use]
    pub fn https_by_default(&self) -> bool {
        self.is_default(Section::Https)
    }

    fn is_default(&self, section: Section) -> bool {
        let listen = self.tables.iter().find(|table| table.section == section).and_then(|t| t.cell("listen"));
        !matches!(listen.map(|cell| cell.origin), Some(Origin::Line(_)))
    }

    fn from_tables(tables: Vec<FilledTable>, origin: String) -> Self {
        let section = |section| tables.iter().find(move |table| table.section == section);
        let udp_ports =
            match section(Section::Udp).and_then(|table| table.cell("ports")).map(|cell| &cell.value) {
                Some(Value::Ports(ports)) => *ports,
                _ => PortRange::DEFAULT,
            };
        let all = |section| tables.iter().filter(move |table| table.section == section);
        Self {
            state_dir: section(Section::Top).map(|table| path(table, "state_dir")).unwrap_or_default(),
            trusted_ca_keys: section(Section::Ssh).and_then(|table| optional_path(table, "trusted_ca_keys")),
            revoked_keys: section(Section::Ssh).and_then(|table| optional_path(table, "revoked_keys")),
            host_certificate: section(Section::Ssh)
                .and_then(|table| optional_path(table, "host_certificate")),
            ssh_listen: section(Section::Ssh).map(|table| addresses(table, "listen")).unwrap_or_default(),
            udp_ports,
            dscp: section(Section::Udp).and_then(dscp),
            https: section(Section::Https).map(https).unwrap_or_default(),
            limits: section(Section::Limits).map(shared_caps).unwrap_or_default(),
            schedules: all(Section::Schedule).filter_map(schedule).collect(),
            users: all(Section::User).map(|table| Arc::new(user(table))).collect(),
            tables,
            origin,
        }
    }
}

/// Started as root, a worker must become somebody: without `account` whoever has the login name.
fn default_account(table: &mut FilledTable) {
    if table.section != Section::User || table.cell("account").is_some() {
        return;
    }
    if let Some(Value::Name(name)) = table.cell("name").map(|cell| cell.value.clone()) {
        table.set("account", Value::Name(name), Origin::UserName);
    }
}

fn user(table: &FilledTable) -> UserEntry {
    let name = |key| match table.cell(key).map(|cell| &cell.value) {
        Some(Value::Name(name)) => Some(name.clone()),
        _ => None,
    };
    let principals = match table.cell("principals").map(|cell| &cell.value) {
        Some(Value::Names(names)) => names.clone(),
        _ => name("name").into_iter().collect(),
    };
    let password = match table.cell("password").map(|cell| &cell.value) {
        Some(Value::Password(hash)) => Some(hash.clone()),
        _ => None,
    };
    UserEntry {
        name: name("name").unwrap_or_default(),
        docroot: path(table, "docroot"),
        authorized_keys: optional_path(table, "authorized_keys"),
        password,
        principals,
        permissions: match table.cell("permissions").map(|cell| &cell.value) {
            Some(Value::Permissions(permissions)) => *permissions,
            _ => Permissions::default(),
        },
        caps: shared_caps(table),
        max_session_rate: rate(table, "max_session_rate"),
        authorize: optional_path(table, "authorize"),
        account: name("account"),
    }
}

fn shared_caps(table: &FilledTable) -> SharedCaps {
    SharedCaps {
        both: rate(table, "max_rate"),
        uploads: rate(table, "max_rate_in"),
        downloads: rate(table, "max_rate_out"),
    }
}

fn schedule(table: &FilledTable) -> Option<Schedule> {
    let time = |key| match table.cell(key)?.value {
        Value::TimeOfDay(time) => Some(time),
        _ => None,
    };
    let Value::Days(days) = table.cell("days")?.value else { return None };
    let user = match table.cell("user").map(|cell| &cell.value) {
        Some(Value::Name(name)) => Some(name.clone()),
        _ => None,
    };
    let window = Window { days, from: time("from")?, to: time("to")? };
    Some(Schedule { window, user, caps: shared_caps(table) })
}

fn rate(table: &FilledTable, key: &str) -> Option<Rate> {
    match table.cell(key)?.value {
        Value::Rate(rate) => Some(rate),
        _ => None,
    }
}

fn dscp(table: &FilledTable) -> Option<Dscp> {
    match table.cell("dscp")?.value {
        Value::Dscp(dscp) => Some(dscp),
        _ => None,
    }
}

fn addresses(table: &FilledTable, key: &str) -> Vec<SocketAddr> {
    match table.cell(key).map(|cell| &cell.value) {
        Some(Value::Addresses(addresses)) => addresses.clone(),
        _ => Vec::new(),
    }
}

fn https(table: &FilledTable) -> HttpsConfig {
    let file = |key| table.cell(key).map(|_| path(table, key));
    HttpsConfig {
        listen: addresses(table, "listen"),
        plain_listen: addresses(table, "plain_listen"),
        public: match table.cell("public").map(|cell| &cell.value) {
            Some(Value::Name(name)) => Some(name.clone()),
            _ => None,
        },
        url: match table.cell("url").map(|cell| &cell.value) {
            Some(Value::Url(url)) => Some(url.clone()),
            _ => None,
        },
        files: file("certificate").zip(file("key")),
    }
}

fn path(table: &FilledTable, key: &str) -> PathBuf {
    optional_path(table, key).unwrap_or_default()
}

fn optional_path(table: &FilledTable, key: &str) -> Option<PathBuf> {
    match table.cell(key).map(|cell| &cell.value) {
        Some(Value::Path(path)) => Some(path.clone()),
        _ => None,
    }
}

/// A configuration file with the origin of each value as a comment.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# effective configuration of hauld {}, from {}",
            env!("CARGO_PKG_VERSION"),
            self.origin
        )?;
        for section in Section::ALL {
            for table in self.tables.iter().filter(|table| table.section == section) {
                if section != Section::Top {
                    writeln!(f, "\n{}", section.heading())?;
                }
                for setting in SETTINGS.iter().filter(|setting| setting.section == section) {
                    let Some(cell) = table.cell(setting.key) else { continue };
                    let line = format!("{} = {}", setting.key, cell.value);
                    writeln!(f, "{line:<48} # {}", cell.origin)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Default => f.write_str("default"),
            Self::SingleUser => f.write_str("single-user mode"),
            Self::UserName => f.write_str("default: the user's name"),
        }
    }
}
