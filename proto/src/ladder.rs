//! Which carrier a client uses, and when it changes: UDP, then TLS, then the SSH channel. Pure: what is heard and which
//! streams are open comes in, what to do goes out. The server follows its client by itself.
//!
//! UDP is favoured. At the start it has a head start, during which a blocked one costs less than a second; silence in
//! the middle of a transfer is taken for a block after some round trips and a moment more; while a stream is in use, UDP
//! is asked from time to time whether it carries again, and taken up once it has answered several times.

use std::time::Duration;

/// A carrier, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// UDP.
    Udp,
    /// TLS connections to the server's HTTPS port.
    Https,
    /// The channel of the SSH connection.
    Ssh,
}

impl Rung {
    /// Its name in options, logs and statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Https => "https",
            Self::Ssh => "ssh",
        }
    }
}

/// What may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// See [`Rung::Udp`].
    pub udp: bool,
    /// See [`Rung::Https`].
    pub https: bool,
    /// See [`Rung::Ssh`].
    pub ssh: bool,
}

impl Allowed {
    /// Whether this carrier is among them.
    #[must_use]
    pub const fn has(self, rung: Rung) -> bool {
        match rung {
            Rung::Udp => self.udp,
            Rung::Https => self.https,
            Rung::Ssh => self.ssh,
        }
    }

    /// The best of them.
    #[must_use]
    pub fn first(self) -> Option<Rung> {
        [Rung::Udp, Rung::Https, Rung::Ssh].into_iter().find(|&rung| self.has(rung))
    }
}

/// Why the carrier changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the first choice.
    Chosen,
    /// No datagram has ever come over UDP.
    UdpBlocked,
    /// The network said that UDP is rejected.
    UdpRejected,
    /// UDP worked and then fell silent for so long.
    UdpSilent(Duration),
    /// The streams in use broke.
    StreamLost,
    /// TLS connections could be opened after all.
    HttpsOpen,
    /// UDP carries again.
    UdpBack,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chosen => f.write_str("it is the first choice"),
            Self::UdpBlocked => f.write_str("nothing comes over UDP"),
            Self::UdpRejected => f.write_str("UDP is rejected"),
            Self::UdpSilent(silent) => {
                write!(f, "UDP was working until {:.1} s ago", silent.as_secs_f64())
            }
            Self::StreamLost => f.write_str("the connections broke"),
            Self::HttpsOpen => f.write_str("TLS connections are open after all"),
            Self::UdpBack => f.write_str("UDP works again"),
        }
    }
}

/// What the loop shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Open streams of this kind, and tell with [`Ladder::on_open`] or [`Ladder::on_failed`].
    Open(Rung),
    /// Send on this carrier from now on.
    Take(Rung, Reason),
    /// Send a probe over UDP.
    Probe,
}

/// What the loop knows at a moment.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// When something was last heard on UDP.
    pub udp_heard: Option<Duration>,
    /// When it was last shown that datagrams arrive on UDP in both directions.
    pub udp_echo: Option<Duration>,
    /// The network, or this host, has said that UDP does not go.
    pub udp_rejected: bool,
    /// Round-trip time, if it is known.
    pub rtt: Option<Duration>,
}

/// Head start of UDP before streams are opened, and the least time before one is taken instead.
const HEAD_START: Duration = Duration::from_millis(250);
const FIRST_PATIENCE: Duration = Duration::from_millis(500);

/// Silence beyond a round trip after which streams are opened to be at hand, and after which one is taken.
const ALERT: Duration = Duration::from_millis(750);
const VERDICT: Duration = Duration::from_millis(1500);

/// Time between the attempts to return to UDP, at first and at most: doubled when a return did not last.
const FIRST_RETURN: Duration = Duration::from_secs(2);
const LAST_RETURN: Duration = Duration::from_secs(60);
/// A return that lasted this long was right.
const LASTING: Duration = Duration::from_secs(30);

/// Probes of one attempt, the time between them, and how many answers make UDP usable.
const PROBES: u32 = 6;
const PROBE_INTERVAL: Duration = Duration::from_millis(150);
const ANSWERS: u32 = 3;

/// Streams that are being opened for so long, and two round trips, are not waited for if there is another kind: a port
/// that swallows everything answers nothing.
const OPENING_PATIENCE: Duration = Duration::from_millis(1500);

/// Failed attempts to open streams of one kind after which it is left alone.
const MAX_FAILURES: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    Closed,
    Opening,
    Open,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    state: Streams,
    failures: u32,
    retry_at: Duration,
    /// When the last opening began.
    since: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    sent: u32,
    next: Duration,
    answers: u32,
    last_answer: Option<Duration>,
}

/// The state of one client.
#[derive(Debug)]
pub struct Ladder {
    allowed: Allowed,
    started: Duration,
    rung: Rung,
    since: Duration,
    https: Kind,
    ssh: Kind,
    attempt: Option<Attempt>,
    next_attempt: Duration,
    return_wait: Duration,
}

impl Ladder {
    /// A client that starts now on the best carrier that is allowed; none if nothing is.
    #[must_use]
    pub fn new(now: Duration, allowed: Allowed) -> Option<Self> {
        let closed = Kind { state: Streams::Closed, failures: 0, retry_at: now, since: now };
        Some(Self {
            allowed,
            started: now,
            rung: allowed.first()?,
            since: now,
            https: closed,
            ssh: closed,
            attempt: None,
            next_attempt: now,
            return_wait: FIRST_RETURN,
        })
    }

    /// The carrier in use.
    #[must_use]
    pub const fn rung(&self) -> Rung {
        self.rung
    }

    const fn kind(&mut self, rung: Rung) -> Option<&mut Kind> {
        match rung {
            Rung::Udp => None,
            Rung::Https => Some(&mut self.https),
            Rung::Ssh => Some(&mut self.ssh),
        }
    }

    /// Streams of this kind are open.
    pub const fn on_open(&mut self, rung: Rung) {
        if let Some(kind) = self.kind(rung) {
            kind.state = Streams::Open;
            kind.failures = 0;
        }
    }

    /// Streams of this kind could not be opened, or all of them have broken.
    pub fn on_failed(&mut self, now: Duration, rung: Rung) {
        if let Some(kind) = self.kind(rung) {
            kind.state = Streams::Closed;
            kind.failures += 1;
            kind.retry_at = now + Duration::from_millis(500) * kind.failures.min(4);
        }
    }

    /// Whether nothing is left to try: what is in use does not carry, and there is no other.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let dead = |rung, kind: &Kind| !self.allowed.has(rung) || kind.failures >= MAX_FAILURES;
        dead(Rung::Https, &self.https) && dead(Rung::Ssh, &self.ssh)
    }

    /// When to ask again at the latest.
    #[must_use]
    pub fn poll_timeout(&self, now: Duration) -> Duration {
        now + Duration::from_millis(50)
    }

    /// What to do now; ask again until there is nothing.
    pub fn poll(&mut self, now: Duration, view: &View) -> Option<Step> {
        match self.rung {
            Rung::Udp => self.poll_on_udp(now, view),
            Rung::Https | Rung::Ssh => self.poll_on_stream(now, view),
        }
    }

    fn poll_on_udp(&mut self, now: Duration, view: &View) -> Option<Step> {
        let rtt = view.rtt.unwrap_or_default();
        let (alert, verdict, reason) =
            match (view.udp_heard, view.udp_echo.max(view.udp_heard.map(|_| self.since))) {
                (Some(_), Some(echo)) => {
                    let silent = now.saturating_sub(echo.max(self.since));
                    (silent > ALERT + rtt, silent > VERDICT + rtt, Reason::UdpSilent(silent))
                }
                _ => {
                    let waited = now.saturating_sub(self.started);
                    let rejected = view.udp_rejected;
                    let reason = if rejected { Reason::UdpRejected } else { Reason::UdpBlocked };
                    (rejected || waited > HEAD_START, rejected || waited > FIRST_PATIENCE, reason)
                }
            };
        if alert { self.climb_down(now, rtt, verdict, reason) } else { None }
    }

    /// Opens streams, the better kind first; takes them once it is time.
    fn climb_down(&mut self, now: Duration, rtt: Duration, take: bool, reason: Reason) -> Option<Step> {
        for rung in [Rung::Https, Rung::Ssh] {
            if !self.allowed.has(rung) {
                continue;
            }
            let (ssh, patience) = (self.allowed.ssh, OPENING_PATIENCE + rtt * 2);
            let Some(kind) = self.kind(rung) else { continue };
            match kind.state {
                Streams::Open => return take.then(|| self.take(now, rung, reason)),
                Streams::Opening if rung == Rung::Https && ssh && now > kind.since + patience => {}
                Streams::Opening => return None,
                Streams::Closed if kind.failures >= MAX_FAILURES => {}
                // The first failure counts: whoever blocks UDP and this port will not change his mind in a second.
                Streams::Closed if kind.failures > 0 && rung == Rung::Https && ssh => {}
                Streams::Closed if now < kind.retry_at => return None,
                Streams::Closed => {
                    (kind.state, kind.since) = (Streams::Opening, now);
                    return Some(Step::Open(rung));
                }
            }
        }
        None
    }

    fn take(&mut self, now: Duration, rung: Rung, reason: Reason) -> Step {
        if rung != Rung::Udp && self.rung == Rung::Udp {
            let short = self.since > self.started && now.saturating_sub(self.since) < LASTING;
            self.return_wait = if short { (self.return_wait * 2).min(LAST_RETURN) } else { FIRST_RETURN };
            self.next_attempt = now + self.return_wait;
        }
        self.rung = rung;
        self.since = now;
        self.attempt = None;
        Step::Take(rung, reason)
    }

    fn poll_on_stream(&mut self, now: Duration, view: &View) -> Option<Step> {
        let rung = self.rung;
        if let Some(kind) = self.kind(rung)
            && kind.state != Streams::Open
        {
            if kind.state == Streams::Closed && kind.failures < MAX_FAILURES && now >= kind.retry_at {
                (kind.state, kind.since) = (Streams::Opening, now);
                return Some(Step::Open(rung));
            }
            if kind.failures > 0 && rung == Rung::Https {
                let rtt = view.rtt.unwrap_or_default();
                return self.climb_down(now, rtt, true, Reason::StreamLost);
            }
        }
        if rung == Rung::Ssh && self.https.state == Streams::Open {
            return Some(self.take(now, Rung::Https, Reason::HttpsOpen));
        }
        if !self.allowed.udp {
            return None;
        }
        self.poll_return(now, view)
    }

    fn poll_return(&mut self, now: Duration, view: &View) -> Option<Step> {
        let Some(attempt) = &mut self.attempt else {
            if now >= self.next_attempt {
                self.attempt = Some(Attempt { sent: 0, next: now, answers: 0, last_answer: view.udp_heard });
            }
            return None;
        };
        if view.udp_heard > attempt.last_answer {
            attempt.last_answer = view.udp_heard;
            attempt.answers += 1;
        }
        if attempt.answers >= ANSWERS {
            return Some(self.take(now, Rung::Udp, Reason::UdpBack));
        }
        if now < attempt.next {
            return None;
        }
        if attempt.sent < PROBES {
            attempt.sent += 1;
            attempt.next = now + PROBE_INTERVAL;
            if attempt.sent == PROBES {
                // The last answers need a round trip.
                attempt.next += view.rtt.unwrap_or_default().min(Duration::from_secs(2));
            }
            return Some(Step::Probe);
        }
        self.attempt = None;
        self.next_attempt = now + self.return_wait;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allowed = Allowed { udp: true, https: true, ssh: true };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(3_600_000 + ms)
    }

    const DEAF: View =
        View { udp_heard: None, udp_echo: None, udp_rejected: false, rtt: Some(Duration::from_millis(100)) };

    /// Asks every 10 ms; steps with their times.
    fn run(ladder: &mut Ladder, from: u64, to: u64, view: impl Fn(u64) -> View) -> Vec<(u64, Step)> {
        let mut steps = Vec::new();
        for at in (from..to).step_by(10) {
            while let Some(step) = ladder.poll(ms(at), &view(at)) {
                steps.push((at, step));
                if let Step::Open(rung) = step {
                    ladder.on_open(rung);
                }
            }
        }
        steps
    }

    fn alive(at: u64) -> View {
        View { udp_heard: Some(ms(at)), udp_echo: Some(ms(at)), ..DEAF }
    }

    #[test]
    fn a_blocked_udp_costs_half_a_second_at_the_start_and_a_rejected_one_nothing() {
        let mut ladder = Ladder::new(ms(0), ALL).unwrap();
        let steps = run(&mut ladder, 0, 1000, |_| DEAF);
        assert_eq!(
            steps,
            [(260, Step::Open(Rung::Https)), (510, Step::Take(Rung::Https, Reason::UdpBlocked))]
        );
        let mut ladder = Ladder::new(ms(0), ALL).unwrap();
        let steps = run(&mut ladder, 0, 1000, |_| View { udp_rejected: true, ..DEAF });
        assert_eq!(steps.last(), Some(&(0, Step::Take(Rung::Https, Reason::UdpRejected))));
    }

    #[test]
    fn a_udp_that_works_opens_nothing_and_its_silence_is_noticed_in_two_seconds() {
        let mut ladder = Ladder::new(ms(0), ALL).unwrap();
        assert_eq!(run(&mut ladder, 0, 60_000, alive), []);
        let silent = run(&mut ladder, 60_000, 63_000, |_| alive(60_000));
        let (at, step) = silent.last().unwrap();
        assert!(matches!(step, Step::Take(Rung::Https, Reason::UdpSilent(_))), "{silent:?}");
        assert!((61_600..62_000).contains(at), "{silent:?}");
    }

    #[test]
    fn udp_that_is_heard_but_does_not_carry_what_is_sent_is_left_too() {
        let mut ladder = Ladder::new(ms(0), ALL).unwrap();
        run(&mut ladder, 0, 10_000, alive);
        let steps = run(&mut ladder, 10_000, 13_000, |at| View { udp_echo: Some(ms(10_000)), ..alive(at) });
        assert!(matches!(steps.last(), Some((_, Step::Take(Rung::Https, _)))), "{steps:?}");
    }

    #[test]
    fn udp_is_taken_up_again_after_several_answers_and_later_when_it_does_not_last() {
        let mut ladder = Ladder::new(ms(0), ALL).unwrap();
        run(&mut ladder, 0, 1000, |_| DEAF);
        let deaf = run(&mut ladder, 1000, 5000, |_| DEAF);
        assert!(deaf.iter().all(|(_, step)| *step == Step::Probe) && deaf.len() >= 6, "{deaf:?}");
        // Each probe is answered 100 ms later.
        let answered = |at: u64| View { udp_heard: Some(ms(at / 150 * 150)), ..DEAF };
        let back = run(&mut ladder, 5000, 9000, answered);
        let at = back.iter().position(|(_, step)| *step == Step::Take(Rung::Udp, Reason::UdpBack));
        assert!(at.is_some(), "{back:?}");
        assert_eq!(ladder.rung(), Rung::Https, "no echo: it did not last");
        assert!(ladder.return_wait > FIRST_RETURN);
    }

    #[test]
    fn the_ssh_channel_is_the_last_resort() {
        let mut ladder = Ladder::new(ms(0), ALL).unwrap();
        let mut steps = Vec::new();
        for at in (0..3000).step_by(10) {
            while let Some(step) = ladder.poll(ms(at), &DEAF) {
                steps.push((at, step));
                match step {
                    Step::Open(Rung::Https) => ladder.on_failed(ms(at), Rung::Https),
                    Step::Open(rung) => ladder.on_open(rung),
                    _ => {}
                }
            }
        }
        assert_eq!(steps.first(), Some(&(260, Step::Open(Rung::Https))));
        assert!(steps.contains(&(510, Step::Take(Rung::Ssh, Reason::UdpBlocked))), "{steps:?}");
    }

    #[test]
    fn a_port_that_swallows_everything_is_not_waited_for_but_taken_when_it_opens_after_all() {
        let mut ladder = Ladder::new(ms(0), ALL).unwrap();
        let mut steps = Vec::new();
        for at in (0..5000).step_by(10) {
            if at == 4000 {
                ladder.on_open(Rung::Https);
            }
            while let Some(step) = ladder.poll(ms(at), &DEAF) {
                if step == Step::Open(Rung::Ssh) {
                    ladder.on_open(Rung::Ssh);
                }
                steps.push((at, step));
            }
        }
        steps.retain(|(_, step)| *step != Step::Probe);
        assert_eq!(
            steps,
            [
                (260, Step::Open(Rung::Https)),
                (1970, Step::Open(Rung::Ssh)),
                (1970, Step::Take(Rung::Ssh, Reason::UdpBlocked)),
                (4000, Step::Take(Rung::Https, Reason::HttpsOpen)),
            ]
        );
    }

    #[test]
    fn streams_that_break_are_opened_again_and_a_pinned_carrier_is_kept() {
        let only = Allowed { udp: false, https: true, ssh: false };
        let mut ladder = Ladder::new(ms(0), only).unwrap();
        assert_eq!(ladder.rung(), Rung::Https);
        assert_eq!(run(&mut ladder, 0, 100, |_| DEAF), [(0, Step::Open(Rung::Https))]);
        ladder.on_failed(ms(5000), Rung::Https);
        assert_eq!(run(&mut ladder, 5000, 6000, |_| DEAF), [(5500, Step::Open(Rung::Https))]);
        (0..MAX_FAILURES).for_each(|_| ladder.on_failed(ms(7000), Rung::Https));
        assert!(ladder.is_exhausted());
        assert_eq!(
            Ladder::new(ms(0), Allowed { udp: false, https: false, ssh: false }).map(|l| l.rung()),
            None
        );
    }
}
