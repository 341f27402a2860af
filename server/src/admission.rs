//! How many connections and sessions there may be, and which sources have to wait after failed logins. Pure: time and
//! chance come in as arguments, a verdict goes out. All tables are bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use thiserror::Error;

/// The limits in force.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    /// Connections that have not logged in yet.
    pub(crate) unauthenticated: usize,
    /// From here on new connections are dropped by chance, so that a flood does not lock everybody out.
    pub(crate) early_drop_from: usize,
    /// Of one source; 64 lets an automation start 50 transfers at once, and stays below the early drop.
    pub(crate) unauthenticated_per_source: usize,
    pub(crate) sessions: usize,
    pub(crate) sessions_per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            unauthenticated: 200,
            early_drop_from: 100,
            unauthenticated_per_source: 64,
            sessions: 600,
            sessions_per_user: 64,
        }
    }
}

/// Sources with a penalty that are remembered; beyond it new ones go free (as OpenSSH's `overflow:permissive`).
const MAX_PENALTIES: usize = 65_536;

/// A source is refused once its penalties reach this, and until they have run out.
const PENALTY_ENFORCED: Duration = Duration::from_secs(15);

/// Penalties do not grow beyond this.
const PENALTY_MAX: Duration = Duration::from_secs(600);

/// Why a connection or session is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum NotAdmitted {
    #[error("too many connections")]
    Connections,
    #[error("too many connections before login")]
    Unauthenticated,
    #[error("too many connections before login from this source")]
    Source,
    #[error("this source failed to log in too often")]
    Penalty,
    #[error("too many sessions")]
    Sessions,
    #[error("too many sessions of this user")]
    SessionsOfUser,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    LoggedIn,
    /// Tried and was refused.
    Refused,
    /// Never tried.
    Silent,
    /// Was still trying when time was up.
    Overdue,
    /// Needed no login: a visitor of HTTPS.
    Anonymous,
}

impl Ending {
    /// OpenSSH's values: authfail, noauth, grace-exceeded.
    const fn penalty(self) -> Duration {
        Duration::from_secs(match self {
            Self::LoggedIn | Self::Anonymous => 0,
            Self::Refused => 5,
            Self::Silent => 1,
            Self::Overdue => 10,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Penalty {
    until: Instant,
    enforced: bool,
}

/// The state.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    limits: Limits,
    connections: usize,
    unauthenticated: usize,
    unauthenticated_by_source: HashMap<IpAddr, usize>,
    sessions: usize,
    sessions_by_user: HashMap<String, usize>,
    penalties: HashMap<IpAddr, Penalty>,
}

impl Admission {
    /// For HTTPS: a session may open several connections, and a browser asks before it logs in.
    pub(crate) fn for_https() -> Self {
        let limits = Limits {
            connections: 4000,
            unauthenticated: 1000,
            early_drop_from: 500,
            unauthenticated_per_source: 64,
            ..Limits::default()
        };
        Self { limits, ..Self::default() }
    }

    /// Whether a source has to wait.
    pub(crate) fn check_penalty(&self, now: Instant, peer: IpAddr) -> Result<(), NotAdmitted> {
        let penalty = self.penalties.get(&source(peer));
        if penalty.is_some_and(|penalty| penalty.enforced && now < penalty.until) {
            return Err(NotAdmitted::Penalty);
        }
        Ok(())
    }

    /// A source did something wrong elsewhere.
    pub(crate) fn handle_misdeed(&mut self, now: Instant, peer: IpAddr, ending: Ending) {
        self.punish(now, source(peer), ending.penalty());
    }

    /// A connection arrived; `chance` is random in 0..1. If admitted, [`Self::handle_end`] must follow.
    pub(crate) fn handle_connection(
        &mut self,
        now: Instant,
        peer: IpAddr,
        chance: f64,
    ) -> Result<(), NotAdmitted> {
        self.check_penalty(now, peer)?;
        let source = source(peer);
        if self.connections >= self.limits.connections {
            return Err(NotAdmitted::Connections);
        }
        let from_source = self.unauthenticated_by_source.get(&source).copied().unwrap_or(0);
        if from_source >= self.limits.unauthenticated_per_source {
            return Err(NotAdmitted::Source);
        }
        if self.unauthenticated >= self.limits.unauthenticated || chance < self.early_drop() {
            return Err(NotAdmitted::Unauthenticated);
        }
        self.connections += 1;
        self.unauthenticated += 1;
        self.unauthenticated_by_source.insert(source, from_source + 1);
        Ok(())
    }

    /// An admitted connection has logged in.
    pub(crate) fn handle_login(&mut self, peer: IpAddr) {
        self.unauthenticated = self.unauthenticated.saturating_sub(1);
        release(&mut self.unauthenticated_by_source, &source(peer));
        self.penalties.remove(&source(peer));
    }

    /// An admitted connection is over.
    pub(crate) fn handle_end(&mut self, now: Instant, peer: IpAddr, ending: Ending) {
        self.connections = self.connections.saturating_sub(1);
        if ending != Ending::LoggedIn {
            self.unauthenticated = self.unauthenticated.saturating_sub(1);
            release(&mut self.unauthenticated_by_source, &source(peer));
            self.punish(now, source(peer), ending.penalty());
        }
    }

    /// A user wants a session. If admitted, [`Self::handle_session_end`] must follow.
    pub(crate) fn handle_session(&mut self, user: &str) -> Result<(), NotAdmitted> {
        if self.sessions >= self.limits.sessions {
            return Err(NotAdmitted::Sessions);
        }
        let of_user = self.sessions_by_user.entry(user.to_owned()).or_default();
        if *of_user >= self.limits.sessions_per_user {
            return Err(NotAdmitted::SessionsOfUser);
        }
        *of_user += 1;
        self.sessions += 1;
        Ok(())
    }

    /// A session is over.
    pub(crate) fn handle_session_end(&mut self, user: &str) {
        self.sessions = self.sessions.saturating_sub(1);
        release(&mut self.sessions_by_user, user);
    }

    /// Grows from zero at the threshold to one at the limit.
    fn early_drop(&self) -> f64 {
        let range = self.limits.unauthenticated.saturating_sub(self.limits.early_drop_from).max(1);
        let above = self.unauthenticated.saturating_sub(self.limits.early_drop_from);
        above as f64 / range as f64
    }

    /// Loopback goes free: it is shared by all local users, who could lock each other out.
    fn punish(&mut self, now: Instant, source: IpAddr, penalty: Duration) {
        if source.is_loopback() {
            return;
        }
        if self.penalties.len() >= MAX_PENALTIES {
            self.penalties.retain(|_, penalty| now < penalty.until);
        }
        if self.penalties.len() >= MAX_PENALTIES && !self.penalties.contains_key(&source) {
            return;
        }
        let entry = self.penalties.entry(source).or_insert(Penalty { until: now, enforced: false });
        if entry.until <= now {
            *entry = Penalty { until: now, enforced: false };
        }
        entry.until = (entry.until + penalty).min(now + PENALTY_MAX);
        entry.enforced |= entry.until.duration_since(now) >= PENALTY_ENFORCED;
    }
}

/// Whoever has an IPv6 network of 64 bits has all its addresses.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

fn release<K, Q>(counts: &mut HashMap<K, usize>, key: &Q)
where
    K: std::borrow::Borrow<Q> + std::hash::Hash + Eq,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn fifty_starts_at_once_from_one_source_are_served() {
        for source in [peer(1), IpAddr::from([127, 0, 0, 1])] {
            let mut admission = Admission::default();
            for n in 0..64 {
                assert_eq!(admission.handle_connection(Instant::now(), source, 0.0), Ok(()), "start {n}");
            }
            assert_eq!(admission.handle_connection(Instant::now(), source, 0.9), Err(NotAdmitted::Source));
        }
    }

    #[test]
    fn a_flood_of_sources_meets_chance_then_the_limit() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        for n in 0..100 {
            assert_eq!(admission.handle_connection(now, peer(n), 0.0), Ok(()), "{n}");
        }
        for n in 100..150 {
            assert_eq!(admission.handle_connection(now, peer(n), 0.999), Ok(()), "{n}");
        }
        assert_eq!(admission.handle_connection(now, peer(200), 0.49), Err(NotAdmitted::Unauthenticated));
        assert_eq!(admission.handle_connection(now, peer(200), 0.51), Ok(()));
        for n in 0..49 {
            assert_eq!(admission.handle_connection(now, IpAddr::from([198, 51, 100, n]), 0.999), Ok(()));
        }
        assert_eq!(admission.handle_connection(now, peer(201), 0.999), Err(NotAdmitted::Unauthenticated));
    }

    #[test]
    fn a_login_frees_its_place_before_login_and_an_end_its_connection() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        for n in 0..1000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            assert_eq!(admission.handle_connection(now, address, 0.0), Ok(()));
            admission.handle_login(address);
        }
        assert_eq!(admission.handle_connection(now, peer(1), 0.9), Err(NotAdmitted::Connections));
        admission.handle_end(now, IpAddr::from([0, 0, 0, 0]), Ending::LoggedIn);
        assert_eq!(admission.handle_connection(now, peer(1), 0.9), Ok(()));
        assert_eq!(admission.unauthenticated_by_source.len(), 1);
    }

    #[test]
    fn failed_logins_add_up_and_run_out() {
        let (mut admission, start) = (Admission::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for n in 0..3 {
            assert_eq!(admission.handle_connection(start, peer(1), 0.0), Ok(()), "{n}");
            admission.handle_end(start, peer(1), Ending::Refused);
        }
        assert_eq!(admission.handle_connection(at(14), peer(1), 0.0), Err(NotAdmitted::Penalty));
        assert_eq!(admission.handle_connection(at(14), peer(2), 0.0), Ok(()));
        assert_eq!(admission.handle_connection(at(16), peer(1), 0.0), Ok(()));
    }

    #[test]
    fn penalties_are_capped_shared_by_a_network_and_spare_loopback() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        let (one, two): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        for _ in 0..1000 {
            admission.handle_end(now, one, Ending::Overdue);
            admission.handle_end(now, "::1".parse().unwrap(), Ending::Overdue);
        }
        assert_eq!(admission.handle_connection(now, two, 0.0), Err(NotAdmitted::Penalty));
        assert_eq!(admission.handle_connection(now, "::1".parse().unwrap(), 0.0), Ok(()));
        assert_eq!(admission.handle_connection(now + PENALTY_MAX, two, 0.0), Ok(()));
    }

    #[test]
    fn the_table_of_penalties_is_bounded() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        for n in 1..70_000_u32 {
            admission.handle_end(now, IpAddr::from((n + (10 << 24)).to_be_bytes()), Ending::Refused);
        }
        assert_eq!(admission.penalties.len(), MAX_PENALTIES);
        admission.handle_end(now + Duration::from_secs(6), peer(1), Ending::Refused);
        assert_eq!(admission.penalties.len(), 1);
    }

    #[test]
    fn sessions_are_limited_by_user_and_in_total() {
        let mut admission = Admission::default();
        for _ in 0..64 {
            assert_eq!(admission.handle_session("alice"), Ok(()));
        }
        assert_eq!(admission.handle_session("alice"), Err(NotAdmitted::SessionsOfUser));
        for n in 0..536 {
            assert_eq!(admission.handle_session(&format!("user{n}")), Ok(()));
        }
        assert_eq!(admission.handle_session("bob"), Err(NotAdmitted::Sessions));
        admission.handle_session_end("alice");
        assert_eq!(admission.handle_session("alice"), Ok(()));
    }
}
