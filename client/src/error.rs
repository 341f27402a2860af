//! Everything that ends a run of `haul` other than success, and what to do about it.
//!
//! Not here: printing, which `run_cli` does once.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use haul_proto::control::{Cancel, Refusal, Trouble};

use crate::exit_status::{ExitStatus, trouble_status};
use crate::sanitize;

/// What ended a run. `Display` says what failed, on what; [`ClientError::remedy`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The command line cannot be understood.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// The corrected command or the option to use.
        remedy: String,
    },
    /// A configuration file cannot be used.
    #[error("{}: {message}", location(.path, *.line))]
    Config {
        /// The file.
        path: PathBuf,
        /// The line, if one is to blame.
        line: Option<usize>,
        /// What is wrong with it.
        message: String,
    },
    /// A path on this machine cannot be used.
    #[error("{message}: {}", sanitize::path(.path))]
    LocalPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        message: &'static str,
        /// What to do.
        remedy: &'static str,
        /// The system's word, where it said one.
        #[source]
        source: Option<io::Error>,
    },
    /// Reading or writing a disk of this machine failed.
    #[error("{doing} {}", sanitize::path(.path))]
    Disk {
        /// The path.
        path: PathBuf,
        /// What was tried, as "cannot write".
        doing: &'static str,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The name of the server has no address.
    #[error("host not found: {host}")]
    UnknownHost {
        /// The name.
        host: String,
        /// The resolver's word.
        #[source]
        source: Option<io::Error>,
    },
    /// No TCP connection to the server.
    #[error("cannot connect to {host}, TCP port {port}: {}", reach_words(*.reason))]
    Connect {
        /// The host as typed.
        host: String,
        /// The TCP port.
        port: u16,
        /// Why.
        reason: Reach,
        /// The system's word.
        #[source]
        source: Option<io::Error>,
    },
    /// TCP stands, SSH does not.
    #[error("{host}, TCP port {port}: SSH handshake failed: {message}")]
    Handshake {
        /// The host as typed.
        host: String,
        /// The TCP port.
        port: u16,
        /// What failed.
        message: String,
        /// The SSH library's word.
        #[source]
        source: Option<Box<russh::Error>>,
    },
    /// The server's host key cannot be trusted.
    #[error("{0}")]
    HostKey(Box<HostKeyTrouble>),
    /// A `known_hosts` file cannot be read or written.
    #[error("cannot {doing} the known hosts in {}", sanitize::path(.path))]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// "read" or "write".
        doing: &'static str,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A key file given on the command line cannot be used.
    #[error("cannot use the key {}: {message}", sanitize::path(.path))]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// The server accepted none of the keys.
    #[error("authentication failed: permission denied for {user}@{host}{}", tried_words(.tried, .server_word))]
    Login {
        /// The account.
        user: String,
        /// The host as typed.
        host: String,
        /// Every key that was tried: kind, fingerprint, where it came from.
        tried: Vec<String>,
        /// What the server said, if it said more than no.
        server_word: Option<String>,
    },
    /// SSH works, the subsystem is not there.
    #[error("the server at {host}, port {port}, runs SSH but not haul")]
    NotHaul {
        /// The host as typed.
        host: String,
        /// The TCP port.
        port: u16,
        /// What the server wrote, if anything.
        said: Option<String>,
    },
    /// An established connection is gone.
    #[error("connection to {host} lost: {reason}")]
    ConnectionLost {
        /// The host as typed.
        host: String,
        /// What is known about why.
        reason: String,
    },
    /// The server or the protocol named a trouble.
    #[error("{message}")]
    Trouble {
        /// Its kind, from which the exit status follows.
        trouble: Trouble,
        /// What failed, on what.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// A user interrupted the run.
    #[error("interrupted")]
    Interrupted,
    /// A defect of this program.
    #[error("internal error: {message}")]
    Internal {
        /// What did not hold.
        message: String,
    },
}

/// Why TCP did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nobody listens.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No route.
    Unreachable,
    /// Something else; the source says what.
    Other,
}

/// Why a host key cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyTrouble {
    /// Another key is on record.
    #[error(
        "the host key of {host} has changed: expected {expected} ({}), found {found}",
        location(.path, Some(*.line))
    )]
    Changed {
        /// The name as it stands in `known_hosts`.
        host: String,
        /// Kind and fingerprint on record.
        expected: String,
        /// Kind and fingerprint presented.
        found: String,
        /// The file with the record.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// The key is marked as stolen.
    #[error("the host key of {host} is revoked: {found} ({})", location(.path, Some(*.line)))]
    Revoked {
        /// The name as it stands in `known_hosts`.
        host: String,
        /// Kind and fingerprint presented.
        found: String,
        /// The file with the record.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// Not the key that was asked for.
    #[error("the host key of {host} is not the one asked for: expected {expected}, found {found}")]
    WrongFingerprint {
        /// The name as it stands in `known_hosts`.
        host: String,
        /// The fingerprint asked for.
        expected: String,
        /// Kind and fingerprint presented.
        found: String,
    },
    /// A certificate of a trusted authority that does not vouch for this host.
    #[error("the host certificate of {host} cannot be trusted: {reason}")]
    Certificate {
        /// The name as it stands in `known_hosts`.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No key is on record and new ones are not accepted.
    #[error("the host key of {host} is unknown: {found}")]
    Unknown {
        /// The name as it would stand in `known_hosts`.
        host: String,
        /// Kind and fingerprint presented.
        found: String,
        /// The file it would be added to.
        path: PathBuf,
    },
}

impl ClientError {
    /// A mistake on the command line.
    pub fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), remedy: remedy.into() }
    }

    /// A trouble without a remedy of its own.
    pub fn trouble(trouble: Trouble, message: impl Into<String>) -> Self {
        Self::Trouble { trouble, message: message.into(), remedy: trouble_remedy(trouble).to_owned() }
    }

    /// The exit status this error gives.
    #[must_use]
    pub const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Usage { .. } | Self::Config { .. } => ExitStatus::Usage,
            Self::LocalPath { .. } => ExitStatus::Path,
            Self::Disk { .. } => ExitStatus::Disk,
            Self::UnknownHost { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::NotHaul { .. }
            | Self::ConnectionLost { .. } => ExitStatus::Connection,
            Self::HostKey(_) | Self::KnownHosts { .. } | Self::KeyFile { .. } | Self::Login { .. } => {
                ExitStatus::Login
            }
            Self::Trouble { trouble, .. } => trouble_status(*trouble),
            Self::Interrupted => ExitStatus::Interrupted,
            Self::Internal { .. } => ExitStatus::Failed,
        }
    }

    /// What the user can do about it; none if nothing is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let remedy = match self {
            Self::Usage { remedy, .. } | Self::KeyFile { remedy, .. } | Self::Trouble { remedy, .. } => {
                remedy.clone()
            }
            Self::Config { path, .. } => {
                format!("correct {}, or pass by it with -F none", sanitize::path(path))
            }
            Self::LocalPath { remedy, .. } => (*remedy).to_owned(),
            Self::Disk { .. } => "check the disk and its free space".to_owned(),
            Self::UnknownHost { .. } => "check the spelling, or give the address".to_owned(),
            Self::Connect { port, reason, .. } => reach_remedy(*reason, *port),
            Self::Handshake { port, .. } => {
                format!("is TCP port {port} the SSH port of hauld? another port is given with -P")
            }
            Self::HostKey(trouble) => trouble.remedy(),
            Self::KnownHosts { .. } => {
                "mend the file's permissions, or name another with --known-hosts".to_owned()
            }
            Self::Login { user, tried, .. } => login_remedy(user, tried),
            Self::NotHaul { .. } => "install hauld's subsystem there, or check -P".to_owned(),
            Self::ConnectionLost { .. } => "run the command again".to_owned(),
            Self::Interrupted => String::new(),
            Self::Internal { .. } => {
                "this is a defect of haul; please report it with the output of -vv".to_owned()
            }
        };
        (!remedy.is_empty()).then_some(remedy)
    }
}

impl HostKeyTrouble {
    fn remedy(&self) -> String {
        match self {
            Self::Changed { host, path, .. } => format!(
                "someone may be listening in; if the server really has a new key: ssh-keygen -R '{host}' -f {}",
                sanitize::path(path)
            ),
            Self::Revoked { .. } => {
                "do not connect; ask the server's administrator for its new key".to_owned()
            }
            Self::WrongFingerprint { .. } => {
                "someone may be listening in; compare --check-sshfp with what the server's administrator says"
                    .to_owned()
            }
            Self::Certificate { .. } => {
                "ask the server's administrator for a new certificate of its host key".to_owned()
            }
            Self::Unknown { path, .. } => format!(
                "compare the fingerprint with the server's, then add its key to {} or leave out --strict-host-key",
                sanitize::path(path)
            ),
        }
    }
}

impl From<Refusal> for ClientError {
    fn from(refusal: Refusal) -> Self {
        let own = trouble_remedy(refusal.trouble);
        let remedy = if refusal.remedy.is_empty() { own.to_owned() } else { sanitize::text(&refusal.remedy) };
        Self::Trouble { trouble: refusal.trouble, message: sanitize::text(&refusal.message), remedy }
    }
}

impl From<Cancel> for ClientError {
    fn from(cancel: Cancel) -> Self {
        Self::trouble(cancel.trouble, sanitize::text(&cancel.message))
    }
}

/// What helps against a kind of trouble when the peer names no remedy.
const fn trouble_remedy(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Protocol | Trouble::Incompatible => "use the same version of haul on both sides",
        Trouble::NotFound => "paths on the server are relative to its docroot; check the spelling",
        Trouble::PermissionDenied => "ask the server's administrator for access",
        Trouble::OutsideDocroot => "give a path below the docroot, without `..` that leaves it",
        Trouble::WrongKind => "give a destination of the right kind, or use -d to make a folder",
        Trouble::DiskFull => "free some space on the receiving side",
        Trouble::Disk => "check the disk",
        Trouble::SourceChanged => "send the file again when nobody writes to it",
        Trouble::DigestMismatch => "run the command again",
        Trouble::UdpPort => "ask for another UDP port with -O",
        Trouble::UdpSilent => "check that firewalls let the UDP port pass in both directions",
        Trouble::PeerLost => "run the command again",
        Trouble::Limit => "try again later",
        Trouble::Busy => "wait for the other transfer to end",
        Trouble::Interrupted | Trouble::Internal | Trouble::Other => "",
    }
}

const fn reach_words(reason: Reach) -> &'static str {
    match reason {
        Reach::Refused => "connection refused",
        Reach::TimedOut => "timed out",
        Reach::Unreachable => "network unreachable",
        Reach::Other => "connection failed",
    }
}

fn reach_remedy(reason: Reach, port: u16) -> String {
    match reason {
        Reach::Refused => format!("is hauld running on TCP port {port}? another port is given with -P"),
        Reach::TimedOut => format!("TCP port {port}: check the firewalls on the way, and the address"),
        Reach::Unreachable => "check this machine's network".to_owned(),
        Reach::Other => String::new(),
    }
}

fn tried_words(tried: &[String], server_word: &Option<String>) -> String {
    let mut words = match tried {
        [] => "; there was no key to try".to_owned(),
        tried => format!("; keys tried: {}", tried.join(", ")),
    };
    if let Some(word) = server_word {
        words.push_str(&format!("; the server said: {}", sanitize::text(word)));
    }
    words
}

fn login_remedy(user: &str, tried: &[String]) -> String {
    let user = sanitize::text(user);
    if tried.is_empty() {
        "name a key with -i, load one with ssh-add, or make one with ssh-keygen -t ed25519".to_owned()
    } else {
        format!(
            "put one of these public keys into {user}'s authorized_keys there, or name another key with -i"
        )
    }
}

fn location(path: &Path, line: Option<usize>) -> String {
    let path = sanitize::path(path);
    line.map_or_else(|| path.clone(), |line| format!("{path}:{line}"))
}

/// Sorts a failed TCP connect.
#[must_use]
pub fn connect_error(host: &str, port: u16, error: io::Error) -> ClientError {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => Reach::Refused,
        io::ErrorKind::TimedOut => Reach::TimedOut,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Reach::Unreachable,
        _ => Reach::Other,
    };
    ClientError::Connect { host: host.to_owned(), port, reason, source: Some(error) }
}

/// The words for no datagram of the server arriving at all. `rejected`: the network said "unreachable" (ICMP).
/// `local`: this host itself refused to send.
#[must_use]
pub fn udp_silent(
    address: SocketAddr,
    waited: std::time::Duration,
    rejected: bool,
    local: Option<nix::errno::Errno>,
) -> ClientError {
    let (ip, port) = (address.ip(), address.port());
    let seconds = waited.as_secs_f64();
    let (message, remedy) = if let Some(errno) = local {
        (
            format!("this host refuses to send UDP to {ip}, port {port}: {}", errno.desc().to_lowercase()),
            format!("let outgoing UDP to port {port} pass in this host's own packet filter"),
        )
    } else if rejected {
        (
            format!("UDP port {port} of {ip} is rejected on the way (ICMP unreachable) after {seconds:.1} s"),
            format!("a firewall that says no is between: let UDP port {port} pass, not only TCP"),
        )
    } else {
        (
            format!("no answer over UDP from {ip}, port {port}, within {seconds:.1} s"),
            format!(
                "login over TCP works, so the server runs; let UDP port {port} pass in the firewalls of both sides, or \
                 choose another with -O"
            ),
        )
    };
    ClientError::Trouble { trouble: Trouble::UdpSilent, message, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_meaning_and_loses_its_controls() {
        let error = ClientError::from(Refusal {
            trouble: Trouble::DiskFull,
            message: "no space left\x1b[2J".to_owned(),
            remedy: String::new(),
        });
        assert_eq!(error.to_string(), "no space left\\u{1b}[2J");
        assert_eq!(error.exit_status(), ExitStatus::Disk);
        assert_eq!(error.remedy().unwrap(), "free some space on the receiving side");
    }

    #[test]
    fn a_silent_port_is_named() {
        let error =
            udp_silent("192.0.2.1:33001".parse().unwrap(), std::time::Duration::from_secs(5), false, None);
        assert_eq!(error.to_string(), "no answer over UDP from 192.0.2.1, port 33001, within 5.0 s");
        assert_eq!(error.exit_status(), ExitStatus::Udp);
    }
}
