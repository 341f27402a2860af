//! Sends tracing's events to stderr or to a file. Other libraries are heard from warnings on only: the SSH library's
//! finer words are long and not written with secrets in mind.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::cli::Manner;
use crate::config::{Presentation, local_error};
use crate::error::ClientError;

/// Begins logging. A second call in one process changes nothing.
///
/// # Errors
/// If the log file cannot be opened.
pub(crate) fn start(presentation: &Presentation) -> Result<(), ClientError> {
    let level = match presentation.verbosity {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::new(format!("warn,haul_client={level},haul_io={level},haul_proto={level}"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_timer(SystemTime);
    // A subscriber that a host program set already keeps its place.
    let _ = match &presentation.log_directory {
        None => builder.with_writer(io::stderr).try_init(),
        Some(directory) => {
            let path = directory.join(file_name(presentation.manner));
            set_aside(&path, presentation.max_log_bytes);
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
            let file = file.map_err(|error| local_error(&path, error))?;
            builder.with_writer(Mutex::new(file)).try_init()
        }
    };
    Ok(())
}

/// Programs look for ascp's log under its name.
const fn file_name(manner: Manner) -> &'static str {
    match manner {
        Manner::Haul => "haul.log",
        Manner::Ascp => "aspera-scp-transfer.log",
    }
}

/// Renames a log that has grown too large, in place of the one set aside before. Best effort: a log that cannot be set
/// aside goes on growing.
fn set_aside(path: &Path, max_bytes: u64) {
    let too_large = max_bytes > 0 && std::fs::metadata(path).is_ok_and(|file| file.len() >= max_bytes);
    if too_large {
        let mut old = path.as_os_str().to_owned();
        old.push(".old");
        let _ = std::fs::rename(path, old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_set_aside_when_it_is_too_large_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let (log, old) = (folder.path().join("haul.log"), folder.path().join("haul.log.old"));
        std::fs::write(&log, "0123456789").unwrap();
        set_aside(&log, 11);
        set_aside(&log, 0);
        assert!(log.exists() && !old.exists());
        set_aside(&log, 10);
        assert!(!log.exists());
        assert_eq!(std::fs::read(&old).unwrap(), b"0123456789");
    }
}
