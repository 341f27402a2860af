//! The worker of the pages of one user: takes its policy and its rights as the worker of a session does, then serves
//! requests for files over the socket that is its standard input.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use haul_http_fallback::web::service::{self, Files};
use haul_io::disk::Docroot;
use tracing::{error, info, info_span};

use crate::error::ServerError;
use crate::policy::SessionPolicy;
use crate::privileges::{become_account, keep_own_account};

/// Threads that may wait for the disk.
const DISK_THREADS: usize = 32;

/// Threads that converse.
const THREADS: usize = 2;

/// Runs the worker to its end.
pub(crate) fn run() -> ExitCode {
    match prepare() {
        Ok((policy, control)) => {
            let _span = info_span!("pages", session = policy.session, user = ?policy.user).entered();
            match serve(&policy, control) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &ServerError) -> ExitCode {
    error!(reason = error.lines().join("; "), "pages of a user not served");
    ExitCode::from(error.exit_code())
}

/// Policy, then rights; nothing of a browser is read before.
fn prepare() -> Result<(SessionPolicy, OwnedFd), ServerError> {
    let control = io::stdin().as_fd().try_clone_to_owned().map_err(ServerError::Runtime)?;
    let mut input = File::from(control);
    let policy = SessionPolicy::read_from(&mut input)?;
    match &policy.account {
        Some(account) => become_account(&account.name)?,
        None => keep_own_account()?,
    }
    Ok((policy, input.into()))
}

fn serve(policy: &SessionPolicy, control: OwnedFd) -> Result<(), ServerError> {
    let docroot = Docroot::open(&policy.docroot).map_err(|error| {
        ServerError::Runtime(io::Error::other(format!("the docroot cannot be used: {error}")))
    })?;
    let files = Files {
        docroot,
        read: policy.permissions.read,
        write: policy.permissions.write,
        list: policy.permissions.list,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(DISK_THREADS)
        .enable_all()
        .build()
        .map_err(ServerError::Runtime)?;
    info!("pages started");
    let result = runtime.block_on(service::serve(control, files)).map_err(ServerError::Runtime);
    runtime.shutdown_background();
    info!("pages ended");
    result
}
