//! What all sessions report, and what each may use therefore. Pure: time comes in, shares go out.
//!
//! **What a session can use** is not told but seen: who uses what it has is taken to want all it may get; who stays below
//! is given some more than it uses, and the others get the rest. It is measured against the least that it was given in the
//! last [`GRACE`], because a sender on a long path is late in using more: the news takes a round trip, its answer another.
//! In its first [`START`] a session counts as wanting all. A pause of one report is not believed; two are.
//!
//! **What is left** after that goes to all by their weights, so that a lone slow session may speed up at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use haul_proto::control::RatePolicy;
use haul_proto::units::Rate;

use super::caps::{Cap, CapKey, Caps};
use super::fair_share::{Flow, max_min};
use super::lease::{Report, Share};
use super::schedule::LocalTime;

/// Of its share a session must use this part to be taken to want more. The wire is measured by estimate at a receiver.
const USING: f64 = 0.85;

/// A session that uses less is left this much more than it uses: less than 1 / [`USING`] would be used up at once, and
/// be taken for a wish for more.
const HEADROOM: f64 = 1.2;

/// Nobody is left less than this: an idle session must be able to show that it wants to go on.
const LEAST: f64 = 1e6;

/// No share is less, whatever the cap and however many are under it: a rate of zero would never move again.
const LEAST_SHARE: u64 = 1000;

/// From a larger share until it must be used: a while, and some round trips, in which the sender feels its way up.
const GRACE: Duration = Duration::from_millis(1200);
const GRACE_ROUND_TRIPS: u32 = 8;
/// Paths that are longer, or said to be, do not count as such.
const LONGEST_RTT: Duration = Duration::from_millis(600);

/// From the first report until a session must use its share: the data begins after some round trips.
const START: Duration = Duration::from_secs(4);

/// A share that has changed by less than this part is not told.
const CHANGE: f64 = 0.01;

/// The same share is told again after this: a datagram may have found no room.
const REPEAT: Duration = Duration::from_secs(1);

/// Shares kept per session to look back at; older ones are merged.
const MAX_HISTORY: usize = 64;

/// Names a session.
pub(crate) type SessionId = u64;

/// The sessions.
#[derive(Debug)]
pub(crate) struct Ledger {
    caps: Caps,
    members: BTreeMap<SessionId, Member>,
    next: SessionId,
}

#[derive(Debug)]
struct Member {
    user: String,
    /// The first and the last report; none while the client has made no offer.
    told: Option<Told>,
    /// Shares given and since when, bits per second, the oldest first.
    given: VecDeque<(Instant, f64)>,
    said: Option<(Instant, Share)>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    first: Instant,
    report: Report,
    /// The larger of the last two rates.
    rate: f64,
}

/// Policies of a user's sessions. Among users each counts once, by the highest of them: who opens many sessions must not
/// get more than who opens one.
#[derive(Debug, Default)]
struct User {
    sum: f64,
    highest: f64,
}

impl User {
    fn weight(&self, policy: RatePolicy) -> f64 {
        policy.share() / self.sum.max(f64::MIN_POSITIVE) * self.highest
    }
}

impl Ledger {
    pub(crate) const fn new(caps: Caps) -> Self {
        Self { caps, members: BTreeMap::new(), next: 0 }
    }

    /// Whether sessions of this user have to do with shares at all.
    pub(crate) fn concerns(&self, user: &str) -> bool {
        self.caps.concern(user)
    }

    /// A session has started.
    pub(crate) fn join(&mut self, user: &str) -> SessionId {
        self.next += 1;
        let (told, given, said) = (None, VecDeque::new(), None);
        self.members.insert(self.next, Member { user: user.to_owned(), told, given, said });
        self.next
    }

    /// A session is over. Returns whether others may get its share.
    pub(crate) fn leave(&mut self, id: SessionId) -> bool {
        self.members.remove(&id).is_some_and(|member| member.told.is_some())
    }

    /// A worker reports. Returns whether it waits for an answer.
    pub(crate) fn handle_report(&mut self, id: SessionId, now: Instant, report: Report) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        let rate = report.rate.map_or(0.0, |rate| rate.bps() as f64);
        let before = member.told;
        let last = before.and_then(|told| told.report.rate).map_or(0.0, |rate| rate.bps() as f64);
        let first = before.map_or(now, |told| told.first);
        member.told = Some(Told { first, report, rate: rate.max(last) });
        // Changes of a wish wait for the next round: nobody makes the others reckon at will.
        before.is_none()
    }

    /// What the sessions of each user ask for by their policies.
    fn users(&self) -> BTreeMap<String, User> {
        let mut users = BTreeMap::new();
        for member in self.members.values() {
            if let Some(told) = member.told {
                let user: &mut User = users.entry(member.user.clone()).or_default();
                let share = told.report.policy.share();
                user.sum += share;
                user.highest = user.highest.max(share);
            }
        }
        users
    }

    /// Shares everything out anew; what is worth telling, to whom.
    pub(crate) fn share_out(&mut self, now: Instant, clock: LocalTime) -> Vec<(SessionId, Share)> {
        let mut table = Table::default();
        let mut entries = Vec::new();
        let users = self.users();
        for (&id, member) in &mut self.members {
            let Some(told) = member.told else { continue };
            let caps = self.caps.over(&member.user, told.report.direction, clock);
            let target = told.report.target.map_or(f64::INFINITY, |rate| rate.bps() as f64);
            let flow = Flow {
                weight: users.get(&member.user).map_or(1.0, |user| user.weight(told.report.policy)),
                demand: member.demand(now, &told).min(target),
                caps: caps.iter().map(|cap| table.place(cap)).collect(),
            };
            entries.push((id, flow, target, caps));
        }
        let flows: Vec<Flow> = entries.iter().map(|(_, flow, ..)| flow.clone()).collect();
        let targets: Vec<f64> = entries.iter().map(|(_, _, target, _)| *target).collect();
        let rates = table.share_out(&flows, &targets);
        let mut news = Vec::new();
        for ((id, _, _, caps), rate) in entries.into_iter().zip(rates) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            news.extend(member.give(now, rate, &caps).map(|share| (id, share)));
        }
        news
    }
}

impl Member {
    /// What it can use, bits per second.
    fn demand(&mut self, now: Instant, told: &Told) -> f64 {
        let rtt = Duration::from_millis(told.report.rtt_ms.unwrap_or(0).into()).min(LONGEST_RTT);
        let grace = GRACE + rtt * GRACE_ROUND_TRIPS;
        // The last one that is older than the grace was in force when it began.
        while self.given.get(1).is_some_and(|(since, _)| now.saturating_duration_since(*since) >= grace) {
            self.given.pop_front();
        }
        let least = self.given.iter().map(|(_, rate)| *rate).fold(f64::INFINITY, f64::min);
        let starting = now.saturating_duration_since(told.first) < START;
        if starting || told.rate >= USING * least { f64::INFINITY } else { (told.rate * HEADROOM).max(LEAST) }
    }

    /// Takes note of its share; what is to be said about it, if anything.
    fn give(&mut self, now: Instant, rate: f64, caps: &[Cap]) -> Option<Share> {
        let last = self.given.back().map(|(_, rate)| *rate);
        if last != Some(rate) {
            if self.given.len() >= MAX_HISTORY {
                self.given.pop_front();
            }
            self.given.push_back((now, rate));
        }
        let tightest = caps.iter().min_by_key(|cap| cap.rate);
        let share = Share {
            // Whole bits, rounded down: the sum must not exceed the cap.
            rate: rate.is_finite().then(|| Rate::from_bps((rate as u64).max(LEAST_SHARE))),
            cap: tightest.map(|cap| cap.rate),
            reason: tightest.map(Cap::reason),
        };
        let due = match &self.said {
            None => true,
            Some((at, said)) => differs(said, &share) || now.saturating_duration_since(*at) >= REPEAT,
        };
        if due {
            self.said = Some((now, share.clone()));
        }
        due.then_some(share)
    }
}

/// Whether a session should hear of it.
fn differs(said: &Share, share: &Share) -> bool {
    let close = match (said.rate, share.rate) {
        (Some(said), Some(rate)) => {
            said.bps().abs_diff(rate.bps()) as f64 <= CHANGE * said.bps().min(rate.bps()) as f64
        }
        (said, rate) => said == rate,
    };
    !close || (said.cap, &said.reason) != (share.cap, &share.reason)
}

/// The caps in force, each once.
#[derive(Default)]
struct Table {
    places: BTreeMap<CapKey, usize>,
    rates: Vec<f64>,
}

impl Table {
    fn place(&mut self, cap: &Cap) -> usize {
        let rates = &mut self.rates;
        *self.places.entry(cap.key.clone()).or_insert_with(|| {
            rates.push(cap.rate.bps() as f64);
            rates.len() - 1
        })
    }

    /// What each can use, then what is left.
    fn share_out(&self, flows: &[Flow], targets: &[f64]) -> Vec<f64> {
        let first = max_min(flows, &self.rates);
        let mut left = self.rates.clone();
        for (flow, rate) in flows.iter().zip(&first) {
            for &cap in &flow.caps {
                if let Some(room) = left.get_mut(cap) {
                    *room = (*room - rate).max(0.0);
                }
            }
        }
        let wanting: Vec<Flow> = flows
            .iter()
            .zip(targets)
            .zip(&first)
            .map(|((flow, target), rate)| Flow {
                demand: if rate.is_finite() { (target - rate).max(0.0) } else { 0.0 },
                ..flow.clone()
            })
            .collect();
        first.iter().zip(max_min(&wanting, &left)).map(|(rate, more)| rate + more).collect()
    }
}

#[cfg(test)]
mod tests {
    use haul_proto::control::{Direction, RatePolicy};

    use super::super::caps::SharedCaps;
    use super::*;

    const NOON: LocalTime = LocalTime { weekday: 0, minute: 720 };

    fn mbit(rate: f64) -> Rate {
        Rate::from_bps((rate * 1e6) as u64)
    }

    /// A ledger with sessions that use what they get up to a limit of theirs, reporting five times a second.
    struct Scene {
        ledger: Ledger,
        now: Instant,
        sessions: Vec<Session>,
        rtt_ms: Option<u32>,
    }

    struct Session {
        id: SessionId,
        direction: Direction,
        policy: RatePolicy,
        can: f64,
        share: f64,
    }

    impl Scene {
        fn new(server: SharedCaps, users: &[(&str, f64)]) -> Self {
            let users = users.iter().map(|(name, rate)| {
                ((*name).to_owned(), SharedCaps { both: Some(mbit(*rate)), ..SharedCaps::default() })
            });
            let ledger = Ledger::new(Caps::new(server, users, Vec::new()));
            Self { ledger, now: Instant::now(), sessions: Vec::new(), rtt_ms: None }
        }

        fn join(&mut self, user: &str, direction: Direction, policy: RatePolicy, can: f64) {
            let id = self.ledger.join(user);
            self.sessions.push(Session { id, direction, policy, can, share: 0.0 });
            self.round(None);
        }

        fn round(&mut self, rates: Option<()>) {
            for session in &self.sessions {
                let rate = rates.map(|()| mbit(session.share.min(session.can)));
                let Session { direction, policy, .. } = *session;
                self.ledger.handle_report(
                    session.id,
                    self.now,
                    Report { direction, policy, target: None, rate, rtt_ms: self.rtt_ms },
                );
            }
            for (id, share) in self.ledger.share_out(self.now, NOON) {
                let session = self.sessions.iter_mut().find(|session| session.id == id).unwrap();
                session.share = share.rate.map_or(f64::INFINITY, |rate| rate.bps() as f64 / 1e6);
            }
        }

        fn run(&mut self, seconds: f64) {
            for _ in 0..(seconds * 5.0) as u32 {
                self.now += Duration::from_millis(200);
                self.round(Some(()));
            }
        }

        #[track_caller]
        fn assert_shares(&self, expected: &[f64]) {
            let shares: Vec<f64> = self.sessions.iter().map(|session| session.share).collect();
            let near =
                |(share, expected): (&f64, &f64)| share == expected || (share / expected - 1.0).abs() < 0.03;
            assert!(shares.iter().zip(expected).all(near), "{shares:?} for {expected:?}");
        }
    }

    use Direction::{Download, Upload};
    use RatePolicy::{Fair, High, Low};

    #[test]
    fn sessions_of_a_user_share_by_weight_from_the_first_moment_to_the_last() {
        let mut scene = Scene::new(SharedCaps::default(), &[("alice", 80.0)]);
        scene.join("alice", Upload, Fair, 1000.0);
        scene.assert_shares(&[80.0]);
        scene.join("alice", Download, Fair, 1000.0);
        scene.assert_shares(&[40.0, 40.0]);
        scene.run(10.0);
        scene.assert_shares(&[40.0, 40.0]);
        scene.join("alice", Upload, High, 1000.0);
        scene.assert_shares(&[20.0, 20.0, 40.0]);
        scene.join("bob", Upload, Fair, 1000.0);
        assert!(scene.sessions[3].share.is_infinite(), "bob is under no cap");
        let gone = scene.sessions.remove(0);
        assert!(scene.ledger.leave(gone.id));
        scene.round(Some(()));
        scene.assert_shares(&[80.0 / 3.0, 160.0 / 3.0, f64::INFINITY]);
        scene.sessions[1].policy = Low;
        scene.run(0.2);
        scene.assert_shares(&[80.0 / 1.1, 8.0 / 1.1, f64::INFINITY]);
    }

    #[test]
    fn what_one_cannot_use_goes_to_the_others_soon_and_comes_back_soon() {
        let mut scene = Scene::new(SharedCaps { both: Some(mbit(100.0)), ..SharedCaps::default() }, &[]);
        scene.join("alice", Upload, Fair, 1000.0);
        scene.join("bob", Download, Fair, 1000.0);
        scene.run(6.0);
        scene.assert_shares(&[50.0, 50.0]);
        scene.sessions[0].can = 10.0;
        scene.run(0.4);
        scene.assert_shares(&[12.0, 88.0]);
        scene.run(5.0);
        scene.assert_shares(&[12.0, 88.0]);
        scene.sessions[0].can = 1000.0;
        scene.run(0.4);
        scene.assert_shares(&[50.0, 50.0]);
        scene.run(5.0);
        scene.assert_shares(&[50.0, 50.0]);
    }

    #[test]
    fn a_slow_session_alone_has_all_and_a_late_one_is_waited_for() {
        let mut scene = Scene::new(SharedCaps::default(), &[("alice", 80.0)]);
        scene.join("alice", Upload, Fair, 5.0);
        scene.run(10.0);
        scene.assert_shares(&[80.0]);
        let mut scene = Scene::new(SharedCaps::default(), &[("alice", 80.0)]);
        scene.join("alice", Upload, Fair, 0.0);
        scene.join("alice", Upload, Fair, 1000.0);
        scene.run(3.0);
        scene.assert_shares(&[40.0, 40.0]);
        scene.run(3.0);
        scene.assert_shares(&[1.0, 79.0]);
    }

    #[test]
    fn many_sessions_of_one_user_get_no_more_than_one_of_another() {
        let mut scene = Scene::new(SharedCaps { both: Some(mbit(100.0)), ..SharedCaps::default() }, &[]);
        (0..4).for_each(|_| scene.join("alice", Download, Fair, 1000.0));
        scene.join("bob", Download, Fair, 1000.0);
        scene.run(6.0);
        scene.assert_shares(&[12.5, 12.5, 12.5, 12.5, 50.0]);
        scene.sessions[0].policy = High;
        scene.run(0.4);
        // Twice the others of its user, and the user twice the other user.
        scene.assert_shares(&[26.7, 13.3, 13.3, 13.3, 33.3]);
    }

    #[test]
    fn directions_have_caps_of_their_own_and_the_schedule_turns_with_the_clock() {
        let server = SharedCaps { uploads: Some(mbit(30.0)), downloads: Some(mbit(60.0)), both: None };
        let mut scene = Scene::new(server, &[]);
        scene.join("alice", Upload, Fair, 1000.0);
        scene.join("bob", Download, Fair, 1000.0);
        scene.join("bob", Download, Fair, 1000.0);
        scene.assert_shares(&[30.0, 30.0, 30.0]);
        let window = super::super::schedule::Window {
            days: super::super::schedule::Days::parse("mon").unwrap(),
            from: super::super::schedule::TimeOfDay::parse("12:01").unwrap(),
            to: super::super::schedule::TimeOfDay::parse("13:00").unwrap(),
        };
        let caps = SharedCaps { both: Some(mbit(8.0)), ..SharedCaps::default() };
        let schedule = super::super::caps::Schedule { window, user: Some("alice".to_owned()), caps };
        let mut ledger = Ledger::new(Caps::new(server, std::iter::empty(), vec![schedule]));
        let (id, now) = (ledger.join("alice"), Instant::now());
        ledger.handle_report(
            id,
            now,
            Report { direction: Upload, policy: Fair, target: None, rate: None, rtt_ms: None },
        );
        let mut at = |minute| {
            let news = ledger.share_out(now, LocalTime { weekday: 0, minute });
            news.into_iter().map(|(_, share)| (share.rate.unwrap(), share.reason.unwrap())).next()
        };
        assert_eq!(at(720).unwrap().0, mbit(30.0));
        assert_eq!(at(720), None, "told once");
        let (rate, reason) = at(721).unwrap();
        assert_eq!(rate, mbit(8.0));
        assert!(
            reason.contains("of this user") && reason.ends_with("8 Mbit/s at this time of day"),
            "{reason}"
        );
        assert_eq!(at(780).unwrap().0, mbit(30.0));
    }

    #[test]
    fn who_was_given_more_is_given_time_by_the_length_of_the_path() {
        for (rtt_ms, patient) in [(0, false), (300, true), (u32::MAX, true)] {
            let mut scene = Scene::new(SharedCaps::default(), &[("alice", 80.0)]);
            (0..3).for_each(|_| scene.join("alice", Upload, Fair, 1000.0));
            scene.run(6.0);
            let gone = scene.sessions.remove(0);
            scene.ledger.leave(gone.id);
            // The first does not follow from 27 to 40; the second would use all.
            scene.sessions[0].can = 80.0 / 3.0;
            scene.rtt_ms = Some(rtt_ms);
            scene.run(2.0);
            scene.assert_shares(if patient { &[40.0, 40.0] } else { &[32.0, 48.0] });
        }
    }

    #[test]
    fn a_hostile_report_harms_its_own_session_only() {
        let mut scene = Scene::new(SharedCaps::default(), &[("alice", 80.0)]);
        scene.join("alice", Upload, Fair, 1000.0);
        scene.join("alice", Upload, Fair, 1000.0);
        let report = Report {
            direction: Upload,
            policy: Fair,
            target: Some(Rate::ZERO),
            rate: Some(Rate::from_bps(u64::MAX)),
            rtt_ms: Some(u32::MAX),
        };
        let (id, now) = (scene.sessions[0].id, scene.now);
        scene.ledger.handle_report(id, now, report);
        scene.ledger.handle_report(99, now, report);
        let news = scene.ledger.share_out(now, NOON);
        let of = |id| news.iter().find(|(of, _)| *of == id).unwrap().1.rate.unwrap();
        assert_eq!((of(id), of(scene.sessions[1].id)), (Rate::from_bps(LEAST_SHARE), mbit(80.0)));
    }
}
