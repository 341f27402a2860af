//! Sends tracing's events to stderr or to a file. Other libraries are heard from warnings on only: the SSH library's
//! finer words are long and not written with secrets in mind.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

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
            let path = directory.join("haul.log");
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
            let file = file.map_err(|error| local_error(&path, error))?;
            builder.with_writer(Mutex::new(file)).try_init()
        }
    };
    Ok(())
}
