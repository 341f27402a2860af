//! What ascp calls a failure: its number and its words, which the programs that call ascp look for.
//!
//! Not here: haul's own words (`error`), which are always shown too because they say more.

use std::borrow::Cow;

use haul_proto::control::Trouble;

use crate::error::ClientError;

/// A failure in ascp's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AscpError {
    /// The `Code` of the management port and of ascp's log.
    pub(crate) code: u8,
    /// What stands after `Session Stop  (Error: `.
    pub(crate) words: Cow<'static, str>,
}

impl AscpError {
    const fn new(code: u8, words: &'static str) -> Self {
        Self { code, words: Cow::Borrowed(words) }
    }

    /// With haul's words where ascp has none of its own.
    fn own(code: u8, error: &ClientError) -> Self {
        Self { code, words: error.to_string().into() }
    }

    /// What ascp calls this error.
    pub(crate) fn of(error: &ClientError) -> Self {
        match error {
            ClientError::Usage { .. } => Self::own(8, error),
            ClientError::Config { .. } => Self::own(50, error),
            ClientError::LocalPath { message, .. } => Self::of_path(message, error),
            ClientError::Disk { .. } => Self::new(36, "Disk write failed (client)"),
            ClientError::UnknownHost { .. } => Self::new(14, "Target address not available"),
            ClientError::Connect { .. } => Self::new(12, "failed to open connection to remote host"),
            ClientError::Handshake { .. } | ClientError::NotHaul { .. } => Self::own(12, error),
            ClientError::HostKey(_) => Self::own(51, error),
            ClientError::KnownHosts { .. } => Self::own(51, error),
            ClientError::KeyFile { .. } => Self::own(19, error),
            ClientError::Login { .. } => Self::new(19, "failed to authenticate"),
            ClientError::ConnectionLost { .. } => Self::own(16, error),
            ClientError::Trouble { trouble, .. } => Self::of_trouble(*trouble, || error.to_string()),
            ClientError::Interrupted => Self::new(28, "user aborted session"),
            ClientError::Internal { .. } => Self::own(11, error),
        }
    }

    fn of_path(message: &str, error: &ClientError) -> Self {
        match message {
            "no such file or folder" => Self::new(4, "No such file or directory"),
            "permission denied" => Self::new(5, "Permission denied"),
            "not a folder" | "a part of the path is not a folder" => Self::new(6, "Not a directory"),
            "no such folder" => Self::new(3, "Destination directory does not exist"),
            _ => Self::own(2, error),
        }
    }

    /// What ascp calls this kind of trouble, or one of the server's; `own` are haul's words.
    pub(crate) fn of_trouble(trouble: Trouble, own: impl FnOnce() -> String) -> Self {
        let code = match trouble {
            Trouble::Protocol | Trouble::Incompatible => 1,
            Trouble::NotFound => return Self::new(4, "Server aborted session: No such file or directory"),
            Trouble::PermissionDenied => return Self::new(5, "Server aborted session: Permission denied"),
            Trouble::OutsideDocroot => 41,
            Trouble::WrongKind => 6,
            Trouble::DiskFull => return Self::new(25, "Disk write failed (no space left)"),
            Trouble::Disk => return Self::new(36, "Disk write failed"),
            Trouble::SourceChanged | Trouble::DigestMismatch | Trouble::Other => 2,
            Trouble::UdpPort => 31,
            Trouble::UdpSilent => {
                return Self::new(15, "Client unable to connect to server (check UDP port and firewall)");
            }
            Trouble::PeerLost => 16,
            Trouble::Interrupted => return Self::new(28, "user aborted session"),
            Trouble::Limit => 34,
            Trouble::Internal => 11,
            Trouble::Busy => 64,
        };
        Self { code, words: own().into() }
    }

    /// Some of the files failed.
    pub(crate) const fn some_files() -> Self {
        Self::new(27, "Some files failed to transfer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Reach, udp_silent};

    #[test]
    fn failures_have_the_words_and_numbers_that_programs_look_for() {
        let login = ClientError::Login {
            user: "u".to_owned(),
            host: "h".to_owned(),
            tried: Vec::new(),
            server_word: None,
        };
        let connect =
            ClientError::Connect { host: "h".to_owned(), port: 22, reason: Reach::TimedOut, source: None };
        let silent = udp_silent("192.0.2.1:33001".parse().unwrap(), std::time::Duration::ZERO, false, None);
        for (error, code, words) in [
            (login, 19, "failed to authenticate"),
            (connect, 12, "failed to open connection to remot"),
            (silent, 15, "check UDP port and firewall"),
            (ClientError::trouble(Trouble::NotFound, "x"), 4, "No such file or directory"),
            (ClientError::trouble(Trouble::Disk, "x"), 36, "Disk write "),
            (ClientError::trouble(Trouble::Limit, "too many sessions"), 34, "too many sessions"),
            (ClientError::Interrupted, 28, "aborted"),
            (ClientError::usage("bad", ""), 8, "bad"),
        ] {
            let found = AscpError::of(&error);
            assert_eq!(found.code, code, "{error}");
            assert!(found.words.contains(words), "{}", found.words);
        }
    }
}
