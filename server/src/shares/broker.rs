//! The end of all leases in `hauld`: hears the workers, has the [`ledger`](super::ledger) reckon, tells the workers.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UnixDatagram;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, debug, warn};

use super::caps::Caps;
use super::lease::{MAX_MESSAGE_BYTES, Report, decode, encode};
use super::ledger::{Ledger, SessionId};
use super::schedule::LocalTime;

/// The shares are reckoned anew at least so often while there are sessions.
pub(crate) const ROUND: Duration = Duration::from_millis(100);

/// From one reckoning to the next at least: sessions that come in a crowd are reckoned together.
const CROWD: Duration = Duration::from_millis(20);

/// From one report of a worker until the next is read: a worker gone mad wastes its own time only.
const BREATH: Duration = Duration::from_millis(10);

/// Shares the caps out.
#[derive(Debug)]
pub(crate) struct Broker {
    state: Mutex<State>,
    /// Somebody waits for an answer, or has left something behind.
    hurry: Notify,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    sockets: HashMap<SessionId, Arc<UnixDatagram>>,
}

/// The place of a session; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    broker: Arc<Broker>,
    id: SessionId,
    listener: JoinHandle<()>,
}

impl Broker {
    pub(crate) fn new(caps: Caps) -> Self {
        let state = State { ledger: Ledger::new(caps), sockets: HashMap::new() };
        Self { state: Mutex::new(state), hurry: Notify::new() }
    }

    /// Whether sessions of this user have to do with shares at all.
    pub(crate) fn concerns(&self, user: &str) -> bool {
        self.state().ledger.concerns(user)
    }

    /// Takes a session in; `socket` is this end of its lease.
    ///
    /// # Errors
    /// If the socket cannot be waited for.
    pub(crate) fn join(self: &Arc<Self>, user: &str, socket: StdUnixDatagram) -> io::Result<Membership> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UnixDatagram::from_std(socket)?);
        let id = {
            let mut state = self.state();
            let id = state.ledger.join(user);
            state.sockets.insert(id, Arc::clone(&socket));
            id
        };
        let listening = Arc::clone(self).listen(id, socket).in_current_span();
        Ok(Membership { broker: Arc::clone(self), id, listener: tokio::spawn(listening) })
    }

    /// Hears one worker until it is gone.
    async fn listen(self: Arc<Self>, id: SessionId, socket: Arc<UnixDatagram>) {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let mut warned = false;
        loop {
            let count = match socket.recv(&mut buffer).await {
                Ok(count) => count,
                Err(error) => return debug!(%error, "the lease of a worker ended"),
            };
            match decode::<Report>(buffer.get(..count).unwrap_or_default()) {
                Ok(report) => {
                    if self.state().ledger.handle_report(id, Instant::now(), report) {
                        self.hurry.notify_one();
                    }
                }
                Err(error) if !warned => {
                    warned = true;
                    warn!(%error, "reports of a worker are passed over");
                }
                Err(_) => {}
            }
            sleep(BREATH).await;
        }
    }

    /// Shares out until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            // The first session is heard of by its report.
            let round = if self.state().sockets.is_empty() { Duration::MAX } else { ROUND };
            let _ = timeout(round, self.hurry.notified()).await;
            self.share_out();
            sleep(CROWD).await;
        }
    }

    fn share_out(&self) {
        let mut state = self.state();
        if state.sockets.is_empty() {
            return;
        }
        let news = state.ledger.share_out(Instant::now(), LocalTime::now());
        for (id, share) in news {
            let Some(socket) = state.sockets.get(&id) else { continue };
            if let Err(error) = socket.try_send(&encode(&share)) {
                debug!(%error, "a share was not told");
            }
        }
    }

    /// A panic elsewhere leaves a table that is still a table.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.listener.abort();
        let mut state = self.broker.state();
        state.sockets.remove(&self.id);
        if state.ledger.leave(self.id) {
            self.broker.hurry.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use haul_proto::control::{Direction, RatePolicy};
    use haul_proto::units::Rate;

    use super::super::caps::SharedCaps;
    use super::super::lease::Lease;
    use super::*;

    fn report(rate: Option<u64>) -> Report {
        let (direction, policy) = (Direction::Upload, RatePolicy::Fair);
        Report { direction, policy, target: None, rate: rate.map(Rate::from_bps), rtt_ms: None }
    }

    fn rate(lease: &Lease) -> Option<u64> {
        lease.next_share().unwrap().rate.map(Rate::bps)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn workers_get_shares_at_once_and_those_who_leave_leave_theirs_behind() {
        let caps = SharedCaps { both: Some(Rate::from_bps(80_000_000)), ..SharedCaps::default() };
        let broker = Arc::new(Broker::new(Caps::new(caps, std::iter::empty(), Vec::new())));
        let running = tokio::spawn(Arc::clone(&broker).run());
        let join = |user| {
            let (ours, theirs) = StdUnixDatagram::pair().unwrap();
            (broker.join(user, ours).unwrap(), Lease::new(theirs), StdUnixDatagram::unbound().unwrap())
        };
        let (_first, one, _) = join("alice");
        let (second, two, _) = join("bob");
        let told = tokio::task::spawn_blocking(move || {
            assert_eq!(one.first_share(&report(None)).unwrap().rate, Some(Rate::from_bps(80_000_000)));
            let share = two.first_share(&report(None)).unwrap();
            assert_eq!(share.rate, Some(Rate::from_bps(40_000_000)));
            assert!(share.reason.unwrap().contains("80 Mbit/s"));
            while rate(&one) != Some(40_000_000) {}
            one
        });
        let one = told.await.unwrap();
        drop(second);
        let told = tokio::task::spawn_blocking(move || while rate(&one) != Some(80_000_000) {});
        told.await.unwrap();
        running.abort();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nonsense_of_a_worker_is_passed_over() {
        let caps = SharedCaps { both: Some(Rate::from_bps(1_000_000)), ..SharedCaps::default() };
        let broker = Arc::new(Broker::new(Caps::new(caps, std::iter::empty(), Vec::new())));
        let running = tokio::spawn(Arc::clone(&broker).run());
        let (ours, theirs) = StdUnixDatagram::pair().unwrap();
        let _member = broker.join("alice", ours).unwrap();
        let told = tokio::task::spawn_blocking(move || {
            for nonsense in [&b""[..], b"\xff", b"{}", &[b'['; 4000]] {
                theirs.send(nonsense).unwrap();
            }
            Lease::new(theirs).first_share(&report(Some(5))).unwrap().rate
        });
        assert_eq!(told.await.unwrap(), Some(Rate::from_bps(1_000_000)));
        running.abort();
    }
}
