//! The exit statuses of `haul`: part of its interface, because scripts depend on them.
//!
//! Not here: what went wrong in words (`error`).

use haul_proto::control::Trouble;

use crate::cli::Manner;

/// How a run ended, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Every file arrived whole.
    Success = 0,
    /// Some files failed, or a defect of the program.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// No connection, no haul on the other side, or the connection was lost.
    Connection = 3,
    /// Login failed, or the server's host key is not trusted.
    Login = 4,
    /// A path cannot be used: missing, not permitted, outside the docroot, wrong kind.
    Path = 5,
    /// A disk is full or fails.
    Disk = 6,
    /// No data passes over UDP.
    Udp = 7,
    /// Interrupted by the user.
    Interrupted = 130,
}

/// The text about exit statuses in `--help`.
pub const EXIT_STATUS_HELP: &str = "\
Exit status:
    0  every file arrived whole
    1  some files failed, or a defect of haul
    2  wrong command line or configuration
    3  no connection to the server, no haul on it, or the connection was lost
    4  login failed, or the server's host key is unknown, changed or revoked
    5  a path cannot be used: missing, not permitted, outside the docroot, wrong kind
    6  a disk is full or fails
    7  no data passes over UDP
  130  interrupted
As ascp: 0 if every file arrived whole, else 1.";

impl ExitStatus {
    /// What the process ends with: ascp knows success and failure only, and its drivers expect no more.
    #[must_use]
    pub fn in_manner(self, manner: Manner) -> std::process::ExitCode {
        match (manner, self) {
            (Manner::Haul, status) => status.into(),
            (Manner::Ascp, Self::Success) => Self::Success.into(),
            (Manner::Ascp, _) => Self::Failed.into(),
        }
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// The exit status that a kind of trouble gives.
#[must_use]
pub const fn trouble_status(trouble: Trouble) -> ExitStatus {
    match trouble {
        Trouble::Protocol | Trouble::Incompatible | Trouble::PeerLost | Trouble::Limit => {
            ExitStatus::Connection
        }
        Trouble::NotFound | Trouble::PermissionDenied | Trouble::OutsideDocroot | Trouble::WrongKind => {
            ExitStatus::Path
        }
        Trouble::DiskFull | Trouble::Disk => ExitStatus::Disk,
        Trouble::SourceChanged
        | Trouble::DigestMismatch
        | Trouble::Busy
        | Trouble::Internal
        | Trouble::Other => ExitStatus::Failed,
        Trouble::UdpPort | Trouble::UdpSilent => ExitStatus::Udp,
        Trouble::Interrupted => ExitStatus::Interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_give_the_documented_status() {
        for (trouble, status) in [
            (Trouble::NotFound, 5),
            (Trouble::OutsideDocroot, 5),
            (Trouble::DiskFull, 6),
            (Trouble::UdpSilent, 7),
            (Trouble::UdpPort, 7),
            (Trouble::PeerLost, 3),
            (Trouble::Interrupted, 130),
            (Trouble::DigestMismatch, 1),
        ] {
            assert_eq!(trouble_status(trouble) as u8, status, "{trouble:?}");
            let documented =
                EXIT_STATUS_HELP.lines().any(|line| line.trim_start().starts_with(&status.to_string()));
            assert!(documented, "{status} is not in the help");
        }
    }
}
