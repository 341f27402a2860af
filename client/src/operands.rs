//! Sorts the operands of the command line into sources and destination, and shows the command that was probably meant
//! when they make no transfer.
//!
//! Not here: reading a single operand (`target`), and any look at files.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use haul_proto::control::PathText;

use crate::error::ClientError;
use crate::sanitize;
use crate::target::{self, RemoteTarget, Target};

/// What goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// From this machine to the server.
    Upload {
        /// Files and folders here; each of them exists.
        sources: Vec<PathBuf>,
        /// Where to, below the docroot; empty is the docroot.
        destination: PathText,
    },
    /// From the server to this machine.
    Download {
        /// Files and folders below the docroot.
        sources: Vec<PathText>,
        /// Where to here.
        destination: PathBuf,
    },
}

/// Sorts the operands: exactly one side is remote, and all of it on one server.
pub(crate) fn sort(paths: &[OsString]) -> Result<(Route, RemoteTarget), ClientError> {
    let mut targets = Vec::with_capacity(paths.len());
    for operand in paths {
        let target =
            target::parse(operand).map_err(|error| ClientError::usage(error.to_string(), PATH_HELP))?;
        targets.push(target);
    }
    let Some(last) = targets.pop() else {
        return Err(ClientError::usage("no source and no destination given", PATH_HELP));
    };
    if targets.is_empty() {
        return Err(ClientError::usage(
            "one operand given, expected a source and a destination",
            one_operand(&last),
        ));
    }
    match last {
        Target::Remote(remote) => upload(paths, targets, remote),
        Target::Local(destination) => download(paths, targets, destination),
    }
}

const PATH_HELP: &str = "write haul SOURCE... [user@]host:DEST, or haul [user@]host:SOURCE... DEST";

fn upload(
    paths: &[OsString],
    targets: Vec<Target>,
    remote: RemoteTarget,
) -> Result<(Route, RemoteTarget), ClientError> {
    let mut sources = Vec::with_capacity(targets.len());
    for target in targets {
        match target {
            Target::Local(path) => sources.push(path),
            Target::Remote(_) => {
                let through =
                    format!("copy through this machine: haul {} . and then upload", shown_operand(paths, 0));
                return Err(ClientError::usage("both sides are remote, one has to be local", through));
            }
        }
    }
    let destination = remote.path.clone();
    Ok((Route::Upload { sources, destination }, remote))
}

fn download(
    paths: &[OsString],
    targets: Vec<Target>,
    destination: PathBuf,
) -> Result<(Route, RemoteTarget), ClientError> {
    let mut sources = Vec::with_capacity(targets.len());
    let mut server: Option<RemoteTarget> = None;
    for target in targets {
        let Target::Remote(remote) = target else {
            return Err(no_remote_side(paths));
        };
        sources.push(remote.path.clone());
        let first = server.get_or_insert_with(|| remote.clone());
        if (&first.user, &first.host) != (&remote.user, &remote.host) {
            return Err(ClientError::usage(
                format!("the sources are on two servers: {} and {}", first.host, remote.host),
                "run haul once for each server",
            ));
        }
    }
    let server = server.ok_or_else(|| no_remote_side(paths))?;
    Ok((Route::Download { sources, destination }, server))
}

fn one_operand(target: &Target) -> String {
    match target {
        Target::Remote(_) => "to download into the current folder, add `.` as the destination".to_owned(),
        Target::Local(path) => format!("did you mean haul {} host:?", quoted(path.as_os_str().as_bytes())),
    }
}

/// Neither side is remote, or a local path stands among remote sources.
fn no_remote_side(paths: &[OsString]) -> ClientError {
    let any_remote = paths.iter().any(|path| matches!(target::parse(path), Ok(Target::Remote(_))));
    let last = paths.len().saturating_sub(1);
    if any_remote {
        return ClientError::usage("the sources are partly local and partly remote", PATH_HELP);
    }
    let mut command: Vec<String> = (0..last).map(|at| shown_operand(paths, at)).collect();
    let destination = shown_operand(paths, last);
    let likely_host = destination.contains('@') && !destination.contains('/');
    command.push(if likely_host { format!("{destination}:") } else { format!("host:{destination}") });
    ClientError::usage("neither side is remote", format!("did you mean haul {}?", command.join(" ")))
}

fn shown_operand(paths: &[OsString], at: usize) -> String {
    quoted(paths.get(at).map(|path| path.as_bytes()).unwrap_or_default())
}

/// A word for a shell, good enough to be copied for names without quotes.
fn quoted(bytes: &[u8]) -> String {
    let shown = sanitize::bytes(bytes);
    let plain = |c: char| c.is_alphanumeric() || "/._-:@+=,%~[]".contains(c);
    if !shown.is_empty() && shown.chars().all(plain) {
        shown
    } else {
        format!("'{}'", shown.replace('\'', "'\\''"))
    }
}
