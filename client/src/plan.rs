//! The meaning of a command line: every option as a typed value, with the defaults of the manner in which the program
//! was called. Pure: from the line and the environment, without a look at this machine.
//!
//! Not here: `ssh_config`, home directories and local paths (`config`), and what becomes of the values.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haul_proto::control::{Cipher, Digest, PathText, RatePolicy};
use haul_proto::dscp::Dscp;
use haul_proto::units::Rate;
use serde::{Serialize, Serializer};

use crate::cli::names::{FileChecksum, FileCrypt, Keep, ManifestKind, Overwrite, SymbolicLinks};
use crate::cli::values::{ByteRange, ResumeLevel, SessionShare};
use crate::cli::{Cli, Manner};
use crate::error::ClientError;
use crate::operands::{self, LocalEnd, Operands, PlannedRoute, Sources};

mod build;
pub mod environment;
mod not_yet;
mod notes;

pub use environment::{Environment, Secret};
pub use notes::Ignored;

/// What a command line means.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The name the program was called by.
    pub manner: Manner,
    /// Who is dialled.
    #[serde(flatten)]
    pub peer: Peer,
    /// What goes where.
    #[serde(flatten)]
    pub route: PlannedRoute,
    /// How fast.
    #[serde(flatten)]
    pub rates: Rates,
    /// Which files, and where they land.
    pub selection: Selection,
    /// What happens to files that are there.
    pub resume: Resume,
    /// What is kept of a file besides its content.
    pub attributes: Attributes,
    /// What happens before and after.
    pub around: Around,
    /// The list of transferred files; none if there shall be none.
    pub manifest: Option<FileManifest>,
    /// Encryption of the files themselves.
    pub file_crypt: Option<FileCrypt>,
    /// What carries the data.
    pub carrier: CarrierPlan,
    /// How to log in.
    pub login: LoginPlan,
    /// What the application behind the transfer says.
    pub application: Application,
    /// The program that steers the run.
    pub management: Option<Management>,
    /// The environment.
    pub environment: Environment,
    /// Only show what would be done.
    pub dry_run: bool,
    /// What has no effect, and why.
    pub ignored: Vec<Ignored>,
}

/// Who is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Peer {
    /// As typed.
    pub host: String,
    /// As typed; none means that configuration or the local account decides.
    pub user: Option<String>,
    /// `-P`.
    pub ssh_port: Option<u16>,
    /// `-O`.
    pub udp_port: Option<u16>,
    /// `-6`.
    pub ipv6_only: bool,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// How the path is shared.
    pub policy: RatePolicy,
    /// None means the capacity of the path.
    #[serde(rename = "target_rate_bps")]
    pub target: Option<Rate>,
    /// None means zero.
    #[serde(rename = "min_rate_bps")]
    pub minimum: Option<Rate>,
    /// DSCP of the datagrams.
    pub dscp: Option<Dscp>,
    /// The only cipher that may be used; none means the best of those that both sides have.
    pub cipher: Option<Cipher>,
    /// Digest over each file.
    pub digest: Digest,
}

/// Which files, and where they land.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// The destination is a folder that is made if it is missing.
    pub create_destination: bool,
    /// The tree below this path is kept at the destination.
    pub src_base: Option<PathText>,
    /// Patterns in the order of the line; the first that matches decides.
    pub filters: Vec<FilterRule>,
    /// Leave out files changed after this time.
    pub exclude_newer_than: Option<Moment>,
    /// Leave out files changed before this time.
    pub exclude_older_than: Option<Moment>,
    /// What becomes of symbolic links.
    pub symbolic_links: SymbolicLinks,
    /// Devices, pipes and sockets are left out without a word.
    pub skip_special_files: bool,
    /// Only these bytes of a single file.
    pub byte_range: Option<ByteRange>,
    /// Which part of the work this session has.
    pub session_share: Option<SessionShare>,
    /// Count the files first; none leaves it to the program.
    pub precalculate: Option<bool>,
}

/// A pattern that leaves out or takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterRule {
    /// `-E`.
    Exclude(PathText),
    /// `-N`.
    Include(PathText),
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// So many seconds after 1970 began.
    SinceEpoch(u64),
    /// So many seconds before the transfer.
    SecondsAgo(u64),
}

/// What happens to files that are there, and to interrupted ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resume {
    /// `-k`.
    pub level: ResumeLevel,
    /// `--overwrite`.
    pub overwrite: Overwrite,
    /// Files are renamed before they are overwritten.
    pub save_before_overwrite: bool,
    /// Name of incomplete files: their name and this.
    #[serde(serialize_with = "as_text")]
    pub partial_file_suffix: Option<OsString>,
    /// Try again after network troubles.
    pub retry: bool,
    /// Give up after so long without progress.
    pub retry_timeout: Option<Duration>,
}

/// What is kept of a file besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Attributes {
    /// Time of the last change.
    pub modification_time: bool,
    /// Time of the last access.
    pub access_time: bool,
    /// The sources' access time stays as it is.
    pub source_access_time: bool,
    /// Owner.
    pub owner: bool,
    /// Group.
    pub group: bool,
    /// Access control lists here.
    pub acls: Keep,
    /// Extended attributes here.
    pub xattrs: Keep,
    /// Access control lists at the server.
    pub remote_acls: Keep,
    /// Extended attributes at the server.
    pub remote_xattrs: Keep,
}

/// What happens before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Around {
    /// Remove from the destination what the source does not have.
    pub delete_before: bool,
    /// Remove sources that arrived.
    pub remove_after: bool,
    /// Move sources that arrived here.
    #[serde(serialize_with = "as_text")]
    pub move_after: Option<PathBuf>,
    /// Remove folders of the sources that have become empty.
    pub remove_empty_directories: bool,
    /// Remove the source folder too.
    pub remove_empty_source_directory: bool,
    /// Sources that were skipped count as arrived.
    pub remove_skipped: bool,
}

/// The list of transferred files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileManifest {
    /// Its folder; none means beside the files.
    #[serde(serialize_with = "as_text")]
    pub directory: Option<PathBuf>,
    /// Suffix while the transfer runs.
    #[serde(serialize_with = "as_text")]
    pub in_progress_suffix: Option<OsString>,
    /// Checksum that was asked for.
    pub checksum: Option<FileChecksum>,
}

/// What carries the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CarrierPlan {
    /// What is allowed.
    pub choice: CarrierChoice,
    /// TCP port of the fallback.
    pub port: Option<u16>,
    /// TCP connections of the fallback.
    pub streams: Option<u8>,
    /// HTTP proxy for everything.
    #[serde(serialize_with = "without_password")]
    pub proxy: Option<String>,
    /// HTTP proxy for the fallback.
    #[serde(serialize_with = "without_password")]
    pub fallback_proxy: Option<String>,
    /// Key of this client for TLS.
    #[serde(serialize_with = "as_text")]
    pub tls_key: Option<PathBuf>,
    /// Certificate of this client for TLS.
    #[serde(serialize_with = "as_text")]
    pub tls_certificate: Option<PathBuf>,
}

/// Which carriers may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CarrierChoice {
    /// UDP, and what is left where it does not pass.
    Auto,
    /// UDP and nothing else.
    Udp,
    /// TLS over TCP and nothing else.
    Https,
    /// The SSH connection and nothing else.
    Ssh,
}

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoginPlan {
    /// `-i`.
    pub identities: Vec<PathText>,
    /// Fingerprint that the host key must have.
    pub fingerprint: Option<String>,
    /// Refuse hosts without a key on record.
    pub strict_host_key: bool,
    /// `--ignore-host-key`.
    pub ignore_host_key: bool,
    /// The ssh that dials in haul's place.
    #[serde(serialize_with = "as_text")]
    pub ssh_command: Option<OsString>,
    /// Its arguments.
    pub ssh_arguments: Vec<PathText>,
}

/// What the application behind the transfer says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Application {
    /// Allows the transfer.
    pub token: Option<Secret>,
    /// For the logs.
    pub user_string: Option<String>,
    /// For the logs.
    pub cookie: Option<String>,
    /// JSON.
    pub tags: Option<serde_json::Value>,
}

/// The program that steers the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Management {
    /// The port of this machine where it listens; without one nobody can name the sources.
    pub port: Option<u16>,
    /// The sources come from it.
    pub keepalive: bool,
}

impl Plan {
    /// The meaning of a line.
    ///
    /// # Errors
    /// If the options contradict each other, the operands make no transfer, or something is asked for that haul will not
    /// do.
    pub fn of(cli: &Cli, environment: Environment) -> Result<Self, ClientError> {
        build::plan(cli, environment)
    }

    /// Options that are understood, but whose effect is still missing.
    #[must_use]
    pub fn not_yet(&self) -> Vec<&'static str> {
        not_yet::of(self)
    }

    /// The name of what is transferred: the first source, and how many more there are.
    #[must_use]
    pub fn label(&self) -> String {
        let sources: Vec<PathText> = match &self.route {
            PlannedRoute::Upload { sources: Sources::Named(sources), .. } => {
                sources.iter().map(LocalEnd::text).collect()
            }
            PlannedRoute::Download { sources: Sources::Named(sources), .. } => sources.clone(),
            PlannedRoute::Upload { .. } | PlannedRoute::Download { .. } => Vec::new(),
        };
        let last = |path: &PathText| {
            let name = path.as_bytes().split(|&byte| byte == b'/').rfind(|name| !name.is_empty());
            String::from_utf8_lossy(name.unwrap_or(b"/")).into_owned()
        };
        match sources.as_slice() {
            [] => "list of sources".to_owned(),
            [one] => last(one),
            [first, more @ ..] => format!("{} and {} more", last(first), more.len()),
        }
    }

    /// The name of the program in messages.
    #[must_use]
    pub const fn program(&self) -> &'static str {
        self.manner.program()
    }
}

/// Bytes that are text in all but rare cases; other bytes show as `%XX`.
fn as_text<S: Serializer, T: AsRef<OsStr>>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(&PathText::new(value.as_ref().as_bytes())),
        None => serializer.serialize_none(),
    }
}

/// A proxy without the password that may stand in it.
fn without_password<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = value.as_ref().map(|proxy| match proxy.rsplit_once('@') {
        Some((account, host)) => {
            let scheme_end = account.find("://").map_or(0, |at| at + 3);
            let (scheme, account) = account.split_at(scheme_end);
            let user = account.split(':').next().unwrap_or_default();
            format!("{scheme}{user}@{host}")
        }
        None => proxy.clone(),
    });
    shown.serialize(serializer)
}

fn path_text(path: &Path) -> PathText {
    PathText::new(path.as_os_str().as_bytes())
}
