//! The rate settings of a running session, in its worker: what the client wishes, what the configuration allows each
//! session, and the share of `hauld`. [`Terms`] decides, [`Keeper`] acts: it tells the sending end, whether that is here
//! or with the client.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use haul_io::{Command, Waker};
use haul_proto::control::{Ceiling, Direction, RateGrant, RateTerms, ServerMessage};
use haul_proto::stats::Snapshot;
use haul_proto::units::Rate;
use tracing::{debug, warn};

use super::lease::{Lease, LeaseError, Report, Share};
use crate::speaker::Speaker;

/// The client hears of shares at most this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// From one wish of the client until the next is heard: one that floods waits for itself.
const BREATH: Duration = Duration::from_millis(20);

/// What waits to be heard; then those wait that can, and the others' words are lost.
pub(crate) const WAITING: usize = 16;

/// What the thread of the terms hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The client wants other settings.
    Wish(RateTerms),
    /// The share has changed.
    Share(Share),
    /// How far it is by then.
    Progress(Instant, Snapshot),
}

/// What is in force, and why.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    direction: Direction,
    wish: RateTerms,
    /// The most the configuration allows a session.
    session_most: Option<Rate>,
    share: Share,
}

impl Terms {
    pub(crate) fn new(direction: Direction, wish: RateTerms, session_most: Option<Rate>) -> Self {
        Self { direction, wish, session_most, share: Share::default() }
    }

    /// Gets the first share; to be called before anything is granted.
    ///
    /// # Errors
    /// If `hauld` does not answer.
    pub(crate) fn begin(&mut self, lease: &Lease) -> Result<(), LeaseError> {
        self.share = lease.first_share(&self.report(None))?;
        Ok(())
    }

    /// The most the session may use now.
    pub(crate) fn ceiling(&self) -> Option<Ceiling> {
        let own = self.session_most.map(|rate| Ceiling {
            rate,
            reason: format!("the server limits each transfer of this user to {} Mbit/s", mbit(rate)),
        });
        let shared = self.share.rate.map(|rate| Ceiling { rate, reason: self.reason(rate) });
        own.into_iter().chain(shared).min_by_key(|ceiling| ceiling.rate)
    }

    fn reason(&self, rate: Rate) -> String {
        let reason = self.share.reason.clone().unwrap_or_else(|| "the server limits the rate".to_owned());
        if self.share.cap.is_some_and(|cap| rate < cap) {
            format!("{reason}; {} of it are left for this one now", mbit(rate))
        } else {
            reason
        }
    }

    fn granted(&self) -> RateGrant {
        self.wish.granted(self.ceiling().as_ref())
    }

    fn handle_wish(&mut self, wish: RateTerms) -> RateGrant {
        let stopped = wish.target_rate == Some(Rate::ZERO);
        self.wish = if stopped { RateTerms { target_rate: self.wish.target_rate, ..wish } } else { wish };
        let mut grant = self.granted();
        if stopped {
            grant
                .changes
                .push("a target rate of zero would stop the transfer; the former one stays".to_owned());
        }
        grant
    }

    /// Shares come and go with other sessions and are not worth a word each time; a cap that changes is.
    fn handle_share(&mut self, share: Share) -> RateGrant {
        let cap_changed = share.cap != self.share.cap;
        self.share = share;
        let changes = match &self.share.reason {
            _ if !cap_changed => Vec::new(),
            Some(reason) => vec![reason.clone()],
            None => vec!["the server limits the rate no longer".to_owned()],
        };
        RateGrant { changes, ..self.granted() }
    }

    const fn report(&self, rate: Option<Rate>) -> Report {
        let (policy, target) = (self.wish.policy, self.wish.target_rate);
        Report { direction: self.direction, policy, target, rate, rtt_ms: None }
    }
}

fn mbit(rate: Rate) -> f64 {
    // Two digits behind the point: shares are no round numbers.
    (rate.bps() as f64 / 1e4).round() / 1e2
}

/// Keeps the terms of a session up to date, on a thread that ends with the process.
pub(crate) struct Keeper {
    pub(crate) terms: Terms,
    pub(crate) lease: Option<Lease>,
    pub(crate) speaker: Speaker,
    pub(crate) commands: Sender<Command>,
    pub(crate) waker: Waker,
}

impl Keeper {
    /// Starts; what is heard goes to `inbox`, whose other end is `heard`.
    pub(crate) fn start(self, heard: &SyncSender<Heard>, inbox: Receiver<Heard>) {
        let lease = self.lease.map(Arc::new);
        if let Some(lease) = lease.clone() {
            let heard = heard.clone();
            thread::spawn(move || listen(&lease, &heard));
        }
        let Self { terms, speaker, commands, waker, .. } = self;
        let last = terms.granted().terms();
        let work = Work {
            terms,
            lease,
            speaker,
            commands,
            waker,
            last,
            untold: None,
            told: None,
            measured: None,
            rtt: None,
        };
        thread::spawn(move || work.run(&inbox));
    }
}

/// Waits for shares until the session ends.
fn listen(lease: &Lease, heard: &SyncSender<Heard>) {
    loop {
        match lease.next_share() {
            Ok(share) => {
                if heard.send(Heard::Share(share)).is_err() {
                    return;
                }
            }
            Err(error @ LeaseError::Malformed(_)) => warn!(%error, "a share is passed over"),
            Err(error @ LeaseError::Socket(_)) => return warn!(%error, "the share stays as it is"),
        }
    }
}

struct Work {
    terms: Terms,
    lease: Option<Arc<Lease>>,
    speaker: Speaker,
    commands: Sender<Command>,
    waker: Waker,
    /// In force here.
    last: RateTerms,
    /// What the client has not heard yet, and when it heard something.
    untold: Option<RateGrant>,
    told: Option<Instant>,
    measured: Option<(Instant, u64, Option<Rate>)>,
    rtt: Option<Duration>,
}

impl Work {
    fn run(mut self, inbox: &Receiver<Heard>) {
        loop {
            let wait = self
                .untold
                .is_some()
                .then(|| self.told.map_or(Duration::ZERO, |told| TELL_EVERY.saturating_sub(told.elapsed())));
            let heard = match wait {
                None => inbox.recv().map_err(|mpsc::RecvError| RecvTimeoutError::Disconnected),
                Some(wait) => inbox.recv_timeout(wait),
            };
            match heard {
                Ok(Heard::Wish(wish)) => self.take_wish(wish),
                Ok(Heard::Share(share)) => self.take_share(share),
                Ok(Heard::Progress(at, snapshot)) => self.measure(at, &snapshot),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tell();
        }
    }

    fn take_wish(&mut self, wish: RateTerms) {
        let grant = self.terms.handle_wish(wish);
        debug!(?wish, changes = ?grant.changes, "other rate settings");
        self.put_in_force(grant.terms());
        // An answer is due, whatever is in force.
        self.untold = Some(grant);
        self.told = None;
        self.report();
        thread::sleep(BREATH);
    }

    fn take_share(&mut self, share: Share) {
        debug!(?share, "share");
        let grant = self.terms.handle_share(share);
        let news = grant.terms() != self.last || !grant.changes.is_empty();
        self.put_in_force(grant.terms());
        if news {
            let mut changes = self.untold.take().map_or_else(Vec::new, |untold| untold.changes);
            changes.extend(grant.changes);
            self.untold = Some(RateGrant { changes, ..grant });
        }
    }

    fn put_in_force(&mut self, terms: RateTerms) {
        if terms != self.last {
            self.last = terms;
            // If the receiver is gone the transfer has ended.
            let _ = self.commands.send(Command::SetRate(terms.into()));
            self.waker.wake();
        }
    }

    fn measure(&mut self, at: Instant, snapshot: &Snapshot) {
        let bytes = snapshot.wire_bytes;
        let rate = self.measured.map(|(since, before, _)| {
            let seconds = at.saturating_duration_since(since).as_secs_f64().max(1e-3);
            Rate::from_bytes_per_second(bytes.saturating_sub(before) as f64 / seconds)
        });
        self.measured = Some((at, bytes, rate));
        self.rtt = snapshot.rtt;
        self.report();
    }

    fn report(&self) {
        if let Some(lease) = &self.lease {
            let rtt_ms = self.rtt.map(|rtt| u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX));
            let rate = self.measured.and_then(|(_, _, rate)| rate);
            lease.report(&Report { rtt_ms, ..self.terms.report(rate) });
        }
    }

    fn tell(&mut self) {
        let due = self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if !due {
            return;
        }
        let Some(grant) = self.untold.take() else { return };
        self.told = Some(Instant::now());
        let message = ServerMessage::Rate(grant);
        if !self.speaker.try_say(&message)
            && let ServerMessage::Rate(grant) = message
        {
            self.untold = Some(grant);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use haul_proto::control::RatePolicy;

    use super::*;

    fn rate(mbit: u64) -> Option<Rate> {
        Some(Rate::from_bps(mbit * 1_000_000))
    }

    fn share(rate: Option<Rate>, cap: Option<Rate>) -> Share {
        let reason = cap.map(|cap| format!("all together to {} Mbit/s", cap.bps() / 1_000_000));
        Share { rate, cap, reason }
    }

    fn wish(target: Option<Rate>) -> RateTerms {
        RateTerms { policy: RatePolicy::Fair, target_rate: target, min_rate: None }
    }

    /// A keeper at work: its ears, what it commands, and what its client hears.
    fn keeper() -> (SyncSender<Heard>, Receiver<Command>, BufReader<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (commands, commanded) = mpsc::channel();
        let (heard, inbox) = mpsc::sync_channel(WAITING);
        let terms = Terms::new(Direction::Download, wish(None), None);
        let speaker = Speaker::new(File::from(OwnedFd::from(ours)));
        let waker = Waker::new().unwrap();
        Keeper { terms, lease: None, speaker, commands, waker }.start(&heard, inbox);
        (heard, commanded, BufReader::new(theirs))
    }

    fn targets(commanded: &Receiver<Command>) -> Vec<Option<Rate>> {
        let target = |command| match command {
            Command::SetRate(config) => config.target,
            other => panic!("{other:?}"),
        };
        commanded.iter().map(target).collect()
    }

    fn told(lines: BufReader<UnixStream>) -> Vec<RateGrant> {
        let grant = |line: String| match serde_json::from_str(&line).unwrap() {
            ServerMessage::Rate(grant) => grant,
            other => panic!("{other:?}"),
        };
        lines.lines().map(|line| grant(line.unwrap())).collect()
    }

    #[test]
    fn shares_hold_at_once_and_the_client_hears_of_the_last_one_soon() {
        let (heard, commanded, lines) = keeper();
        for rate_now in 1..=50 {
            heard.send(Heard::Share(share(rate(rate_now), rate(80)))).unwrap();
        }
        // No news is no message.
        heard.send(Heard::Share(share(rate(50), rate(80)))).unwrap();
        thread::sleep(TELL_EVERY * 2);
        drop(heard);
        assert_eq!(targets(&commanded), (1..=50).map(rate).collect::<Vec<_>>());
        let told = told(lines);
        assert!((1..=5).contains(&told.len()), "{told:?}");
        assert_eq!(told.last().unwrap().target_rate, rate(50));
        let words: usize = told.iter().map(|grant| grant.changes.len()).sum();
        assert_eq!(words, 1, "the cap is told once: {told:?}");
    }

    #[test]
    fn a_flood_of_wishes_waits_for_itself_and_each_is_answered() {
        let (heard, commanded, lines) = keeper();
        let begun = Instant::now();
        for n in 0..30 {
            heard.send(Heard::Wish(wish(rate(1 + n % 2)))).unwrap();
        }
        drop(heard);
        assert_eq!(targets(&commanded).len(), 30);
        assert!(begun.elapsed() >= BREATH * 29, "{:?}", begun.elapsed());
        assert_eq!(told(lines).len(), 30);
    }

    #[test]
    fn the_lowest_of_wish_session_limit_and_share_holds_and_says_why() {
        let mut terms = Terms::new(Direction::Upload, wish(rate(200)), rate(100));
        let grant = terms.granted();
        assert_eq!(grant.target_rate, rate(100));
        assert!(grant.changes[0].contains("each transfer of this user to 100 Mbit/s"), "{grant:?}");
        let grant = terms.handle_share(share(rate(80), rate(80)));
        assert_eq!(
            (grant.target_rate, &grant.changes[..]),
            (rate(80), &["all together to 80 Mbit/s".to_owned()][..])
        );
        let grant = terms.handle_share(share(rate(40), rate(80)));
        assert_eq!((grant.target_rate, grant.changes.len()), (rate(40), 0), "shares come without words");
        let grant = terms.handle_wish(wish(rate(60)));
        assert_eq!(grant.target_rate, rate(40));
        assert!(grant.changes[0].contains("80 Mbit/s; 40 of it are left for this one"), "{grant:?}");
        let grant = terms.handle_wish(wish(rate(20)));
        assert_eq!((grant.target_rate, grant.changes.len()), (rate(20), 0));
        let grant = terms.handle_wish(wish(Some(Rate::ZERO)));
        assert_eq!(grant.target_rate, rate(20), "zero changes nothing");
        assert!(grant.changes[0].contains("zero"));
        let grant = terms.handle_share(share(None, None));
        assert_eq!(grant.target_rate, rate(20));
        assert!(grant.changes[0].contains("no longer"), "{grant:?}");
        assert_eq!(terms.handle_wish(wish(None)).target_rate, rate(100));
    }
}
