//! What the server can fail of, the exit code of each, and what to do about it. Nothing is printed here.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::{Problem, sample};
use crate::policy::PolicyError;
use crate::privileges::PrivilegeError;

/// Why the server does not run.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {}", .path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The configuration is read and found wrong.
    #[error("{} problem(s) in {origin}", .problems.len())]
    Config {
        /// The file, or the single-user mode.
        origin: String,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// Root must say what to serve.
    #[error("started as root without a configuration; nothing is served by default")]
    RootWithoutConfig,
    /// The single-user mode needs an entry in the account database.
    #[error("no account with a home folder found for uid {uid}")]
    NoOwnAccount {
        /// Who runs the server.
        uid: u32,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}: {reason}", .path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The host key cannot be used.
    #[error("cannot use the host key {}: {reason}", .path.display())]
    HostKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate of the host key cannot be used.
    #[error("cannot use the host certificate {}: {reason}", .path.display())]
    HostCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No hash of a password.
    #[error(transparent)]
    Password(#[from] crate::password::PasswordError),
    /// The password cannot be read.
    #[error("cannot read the password: {0}")]
    ReadPassword(String),
    /// The certificate for HTTPS cannot be used.
    #[error("cannot use the certificate for HTTPS: {reason}")]
    Certificate {
        /// What is wrong with which file.
        reason: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The rights of the session could not be put in place.
    #[error("cannot take the rights of the session")]
    Privileges(#[from] PrivilegeError),
    /// The policy of the session could not be read.
    #[error("cannot read the policy of the session")]
    Policy(#[from] PolicyError),
    /// The system refuses threads, timers or signals.
    #[error("cannot start the server")]
    Runtime(#[source] io::Error),
    /// The demonstration did not work.
    #[error("the demonstration failed while {step}: {reason}")]
    Demo {
        /// What was being done.
        step: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl ServerError {
    /// The exit code of the process. 2 is what the command line parser uses for a wrong usage.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::RootWithoutConfig
            | Self::NoOwnAccount { .. } => 3,
            Self::StateDir { .. }
            | Self::HostKey { .. }
            | Self::HostCertificate { .. }
            | Self::Certificate { .. } => 4,
            Self::Listen { .. } => 5,
            Self::Privileges(_) => 6,
            Self::Policy(_) => 7,
            Self::Runtime(_) | Self::Output(_) => 8,
            Self::Demo { .. } | Self::Password(_) | Self::ReadPassword(_) => 1,
        }
    }

    /// The message with its causes on one line; for a configuration one line for each problem.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if let Self::Config { origin, problems } = self {
            return problems.iter().map(|problem| format!("{origin}: {problem}")).collect();
        }
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(&format!(": {error}"));
            cause = error.source();
        }
        vec![line]
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::RootWithoutConfig => Some(format!(
                "write for example these lines to /etc/haul/hauld.toml and start with --config /etc/haul/hauld.toml:\n\n{}",
                sample()
            )),
            Self::NoOwnAccount { .. } => Some("start with --config FILE instead".to_owned()),
            Self::StateDir { .. } => Some(
                "name another directory with `state_dir`, or give this one to the server's user, mode 0700"
                    .to_owned(),
            ),
            Self::HostKey { path, .. } => Some(format!(
                "repair it with `chmod 600 {0}`, or move it away to have a new one made; clients will then see a changed host key",
                path.display()
            )),
            Self::HostCertificate { .. } => Some(
                "sign the .pub of the host key in the state directory: ssh-keygen -s CA -h -I NAME -n HOSTNAME FILE.pub"
                    .to_owned(),
            ),
            Self::Certificate { .. } => Some(
                "name a `certificate` and its `key` in [https], or move the file away to have a new one made"
                    .to_owned(),
            ),
            Self::Listen { source, .. } => listen_remedy(source),
            Self::Privileges(error) => Some(error.remedy().to_owned()),
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::Policy(_)
            | Self::Runtime(_)
            | Self::Demo { .. }
            | Self::Password(_)
            | Self::ReadPassword(_)
            | Self::Output(_) => None,
        }
    }
}

fn listen_remedy(source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            Some("another program listens there; stop it, or change `listen` in the configuration".to_owned())
        }
        io::ErrorKind::PermissionDenied => {
            Some("ports below 1024 need root; change `listen` in the configuration".to_owned())
        }
        io::ErrorKind::AddrNotAvailable => {
            Some("this machine does not have that address; change `listen` in the configuration".to_owned())
        }
        _ => None,
    }
}
