//! Workers of the pages: one for a user who has requests, started when needed, ended when idle, each with the user's
//! rights. A worker that crashes takes its own requests along and is started anew by the next one.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use haul_http_fallback::web::handover;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::config::UserEntry;
use crate::logging::FILTER_VARIABLE;
use crate::policy::{Account, Permissions, PolicyError, PortRange, SessionPolicy, random_session_name};

/// A worker without requests is kept for so long.
const IDLE: Duration = Duration::from_secs(60);

/// From the end of its socket until an idle worker is killed. It has nothing to do.
const KILL_AFTER: Duration = Duration::from_secs(15);

/// Requests of one user under way, uploads and downloads included.
const MAX_REQUESTS: usize = 256;

/// How long a request waits for its turn among them.
const TURN: Duration = Duration::from_secs(10);

/// The workers.
#[derive(Debug)]
pub(crate) struct Pool {
    program: PathBuf,
    workers: Mutex<HashMap<String, Arc<Worker>>>,
}

#[derive(Debug)]
struct Worker {
    control: StdUnixStream,
    requests: Arc<Semaphore>,
    /// When a request began or ended last.
    used: Mutex<Instant>,
}

/// A connection to a worker; keeps the worker from being idle while it lives.
#[derive(Debug)]
pub(crate) struct Lent {
    worker: Arc<Worker>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.worker.touch();
    }
}

impl Pool {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program, workers: Mutex::default() }
    }

    /// A connection for one request of this user.
    pub(crate) async fn connect(self: &Arc<Self>, user: &UserEntry) -> io::Result<(UnixStream, Lent)> {
        let mut failure = None;
        // The second try is for a worker that has just ended.
        for _ in 0..2 {
            let worker = self.worker(user)?;
            let turn = timeout(TURN, Arc::clone(&worker.requests).acquire_owned()).await;
            let permit = turn
                .map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, "too many requests of this user"))?
                .map_err(io::Error::other)?;
            worker.touch();
            match handover::connect(&worker.control) {
                Ok(stream) => {
                    return Ok((UnixStream::from_std(stream)?, Lent { worker, _permit: permit }));
                }
                Err(error) => {
                    self.forget(&user.name, &worker);
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }

    fn worker(self: &Arc<Self>, user: &UserEntry) -> io::Result<Arc<Worker>> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(&user.name) {
            return Ok(Arc::clone(worker));
        }
        let (child, control) = launch(&self.program, user)?;
        info!(user = user.name, worker = child.id(), "worker of the pages started");
        let worker = Arc::new(Worker {
            control,
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            used: Mutex::new(Instant::now()),
        });
        tokio::spawn(attend(Arc::downgrade(self), user.name.clone(), Arc::downgrade(&worker), child));
        workers.insert(user.name.clone(), Arc::clone(&worker));
        Ok(worker)
    }

    fn forget(&self, user: &str, worker: &Arc<Worker>) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if workers.get(user).is_some_and(|found| Arc::ptr_eq(found, worker)) {
            workers.remove(user);
        }
    }
}

impl Worker {
    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When it will have been idle for long enough; none while it has requests.
    fn idle_at(&self) -> Option<Instant> {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        (self.requests.available_permits() == MAX_REQUESTS).then_some(used + IDLE)
    }
}

/// Ends a worker that is idle, and reaps it in any case.
async fn attend(pool: Weak<Pool>, user: String, worker: Weak<Worker>, mut child: Child) {
    loop {
        // Gone from the pool, it gets no new requests; when the last has ended nothing holds its socket.
        let Some(held) = worker.upgrade() else { break };
        let now = Instant::now();
        let look_at = match held.idle_at() {
            Some(at) if at <= now => {
                if let Some(pool) = pool.upgrade() {
                    pool.forget(&user, &held);
                }
                now + Duration::from_secs(1)
            }
            Some(at) => at,
            None => now + IDLE,
        };
        drop(held);
        tokio::select! {
            status = child.wait() => {
                warn!(user, status = ?status.ok(), "worker of the pages ended unasked");
                if let (Some(pool), Some(held)) = (pool.upgrade(), worker.upgrade()) {
                    pool.forget(&user, &held);
                }
                return;
            }
            () = sleep_until(look_at) => {}
        }
    }
    match timeout(KILL_AFTER, child.wait()).await {
        Ok(status) => debug!(user, status = ?status.ok(), "worker of the pages ended"),
        Err(_) => {
            warn!(user, "worker of the pages does not end, killed");
            // It is reaped here; an error means that it is gone already.
            let _ = child.kill().await;
        }
    }
}

fn launch(program: &PathBuf, user: &UserEntry) -> io::Result<(Child, StdUnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    let mut command = Command::new(program);
    command.arg0("hauld").arg("web").env_clear().kill_on_drop(true);
    for name in [FILTER_VARIABLE, "RUST_LOG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::inherit());
    let child = command.spawn()?;
    drop(command);
    let policy = policy(user).and_then(|policy| policy.encode()).map_err(io::Error::other)?;
    // At most 64 KiB, which a new socket takes at once.
    io::Write::write_all(&mut &ours, &policy)?;
    Ok((child, ours))
}

/// What the worker may do; of what a session has, only the files concern it.
fn policy(user: &UserEntry) -> Result<SessionPolicy, PolicyError> {
    // Where a program decides about each transfer, nobody is to pass by it with a browser.
    let permissions = if user.authorize.is_some() { Permissions::default() } else { user.permissions };
    Ok(SessionPolicy {
        session: random_session_name()?,
        user: user.name.clone(),
        peer: "browsers".to_owned(),
        docroot: user.docroot.clone(),
        permissions,
        max_session_rate: None,
        leased: false,
        dscp: None,
        https: None,
        udp_ports: PortRange::DEFAULT,
        udp_bind: None,
        authorize: None,
        account: user.account.clone().map(|name| Account { name }),
    })
}
