//! The protocol thread: one machine, its carriers, one disk. It reads the clock once a turn and waits in `ppoll` for the
//! sockets, the waker, or the machine's next deadline. Not here: rules of the protocol.

use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver as Inbox, TryRecvError};
use std::time::{Duration, Instant};

use haul_proto::control::{Cancel, Outcome, StoredFiles, Trouble};
use haul_proto::ladder::{Ladder, Reason, Rung, Step, View};
use haul_proto::link::{Link, Transmit, Way};
use haul_proto::loss::Path;
use haul_proto::rate::RateConfig;
use haul_proto::stats::{Sample, Snapshot};
use haul_proto::units::Rate;
use haul_proto::verdict::Verdicts;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::carrier::{Sent, UdpCarrier};
use crate::disk::DiskError;
use crate::streams::{Lost, Streams};
use crate::waker::Waker;

/// Batches sent before the socket is looked at again.
const BATCHES_A_TURN: usize = 8;

/// Calls that take arrivals before anything is sent.
const RECEIVES_A_TURN: usize = 8;

/// A sender that the pacer will wake so soon lets reports wait until then: being woken for each costs more than all the
/// rest (measured at 1 Gbit/s).
const PACED_PAUSE: Duration = Duration::from_millis(1);

/// Progress is told this often.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);

/// The ladder is asked this often: it counts in tenths of a second.
const CLIMB_INTERVAL: Duration = Duration::from_millis(10);

/// After this long with the network saying "unreachable" and no answer, UDP is taken as rejected.
const REJECTED_AFTER: Duration = Duration::from_millis(800);

/// What the control conversation tells the protocol thread.
#[derive(Debug)]
pub enum Command {
    /// The peer said how the transfer ended.
    PeerOutcome(Outcome),
    /// The peer gave up.
    PeerCancelled(Cancel),
    /// The receiving peer told what it has stored.
    PeerStored(StoredFiles),
    /// The control channel is gone.
    PeerGone,
    /// Other rate settings are in force.
    SetRate(RateConfig),
    /// A stream of this kind is open.
    AddStream(UnixStream, Rung),
    /// No stream of this kind could be opened.
    StreamFailed(Rung, String),
    /// What the peer needs of the next files.
    Verdicts(Verdicts),
    /// The user wants to stop.
    Interrupt,
}

/// How a transfer ended in good order.
#[derive(Debug)]
pub struct Ending {
    /// What was stored and what failed, as the receiver saw it.
    pub outcome: Outcome,
    /// The last progress.
    pub snapshot: Snapshot,
    /// Files that this end has stored, by their numbers.
    pub stored: Vec<Range<u64>>,
}

/// Why a transfer did not end in good order.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] haul_proto::Error),
    /// The disk cannot go on.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No datagram of the peer ever arrived.
    #[error("no datagram of the peer arrived within {:.1} s", waited.as_secs_f64())]
    UdpSilent {
        /// For how long.
        waited: Duration,
        /// Whether the network said that the port is unreachable.
        rejected: bool,
        /// The error with which this host itself refused to send.
        local: Option<nix::errno::Errno>,
    },
    /// The data plane worked and then fell silent.
    #[error("no datagram of the peer for {} s; the transfer had been working until then", silent.as_secs())]
    PeerSilent {
        /// For how long.
        silent: Duration,
    },
    /// The peer gave up.
    #[error("{}", .0.message)]
    Cancelled(Cancel),
    /// Neither UDP nor any other carrier works.
    #[error("no carrier works: {0}")]
    NoCarrier(String),
    /// The control channel is gone.
    #[error("the control connection was lost")]
    PeerGone,
    /// The user stopped the transfer.
    #[error("interrupted")]
    Interrupted,
    /// This host cannot wait for its own descriptors.
    #[error("cannot wait for the network: {0}")]
    Wait(nix::errno::Errno),
}

impl DriveError {
    /// Kind of trouble, for the peer and for the exit status.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::Protocol(_) => Trouble::Protocol,
            Self::Disk(error) => error.trouble,
            Self::UdpSilent { .. } | Self::NoCarrier(_) => Trouble::UdpSilent,
            Self::PeerSilent { .. } | Self::PeerGone => Trouble::PeerLost,
            Self::Cancelled(cancel) => cancel.trouble,
            Self::Interrupted => Trouble::Interrupted,
            Self::Wait(_) => Trouble::Internal,
        }
    }
}

/// One end of a transfer: a machine with its disk.
pub trait End {
    /// Takes a datagram.
    ///
    /// # Errors
    /// If the session must end.
    fn handle_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), DriveError>;
    /// Takes a datagram from a stream.
    ///
    /// # Errors
    /// If the session must end.
    fn handle_stream_datagram(&mut self, now: Duration, datagram: &mut [u8]) -> Result<(), DriveError>;
    /// Sends on this way from now on.
    fn set_way(&mut self, now: Duration, way: Way);
    /// What the next datagrams will be carried by.
    fn set_path(&mut self, path: Path);
    /// A path is gone, with all that was under way on it.
    fn on_path_lost(&mut self, path: Path);
    /// A datagram that asks over UDP whether it carries again.
    fn poll_udp_probe(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit>;
    /// Acts on due timers.
    fn handle_timeout(&mut self, now: Duration);
    /// Moves requests to the disk and completions back. Returns whether anything moved.
    ///
    /// # Errors
    /// If the disk cannot go on.
    fn exchange_disk(&mut self) -> Result<bool, DriveError>;
    /// The peer tells what it needs of the next files.
    ///
    /// # Errors
    /// If it cannot be so.
    fn handle_verdicts(&mut self, line: &Verdicts) -> Result<(), DriveError>;
    /// What this end needs of the next files, for the peer.
    fn poll_verdicts(&mut self) -> Option<Verdicts>;
    /// A datagram of this size cannot leave this host.
    fn handle_too_big(&mut self, now: Duration, size: u16);
    /// Other rate settings are in force; only a sending end has to do with them.
    fn set_rate(&mut self, now: Duration, config: RateConfig);
    /// The next datagrams.
    fn poll_transmit(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit>;
    /// When to come back.
    fn poll_timeout(&self) -> Duration;
    /// Until when nothing but the pacer holds this end, if so.
    fn paced_until(&self) -> Option<Duration>;
    /// The result, once this end knows it by itself.
    fn poll_outcome(&self) -> Option<Outcome>;
    /// Whether it is for the peer to say how the transfer ended.
    fn takes_outcome(&self) -> bool;
    /// The receiving peer has stored these files.
    fn handle_stored(&mut self, _stored: &StoredFiles) {}
    /// Files that this end has stored, by their numbers.
    fn stored(&self) -> Vec<Range<u64>> {
        Vec::new()
    }
    /// The transfer has ended so: does what is left to be done about the sources, and adds what of it failed.
    fn settle(&mut self, _outcome: &mut Outcome) {}
    /// Last datagrams before the end.
    fn farewell(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit>;
    /// Progress.
    fn snapshot(&self) -> Snapshot;
    /// What the sending end has newly told about path and rate.
    fn poll_sample(&mut self) -> Option<Sample>;
    /// The path.
    fn link(&self) -> &Link;
}

/// What a running transfer tells, several times a second.
#[derive(Debug, Clone)]
pub enum News {
    /// How far it is.
    Progress(Snapshot),
    /// What the sender knows about path and rate, whichever end this is.
    Sample(Sample),
    /// Streams of this kind are wanted; [`Command::AddStream`] or [`Command::StreamFailed`] answers.
    Open(Rung),
    /// Another carrier is in use, and why.
    Carrier(Rung, Reason),
}

/// Takes lines of verdicts to the peer. One that has no room gives the line back, and is asked again soon.
pub struct Outlet(Box<dyn FnMut(Verdicts) -> Result<(), Verdicts> + Send>);

impl Outlet {
    /// Through this function.
    pub fn new(tell: impl FnMut(Verdicts) -> Result<(), Verdicts> + Send + 'static) -> Self {
        Self(Box::new(tell))
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlet(..)")
    }
}

/// What a transfer is driven with.
#[derive(Debug)]
pub struct Drive {
    /// The UDP socket; none if UDP is not to be used.
    pub carrier: Option<UdpCarrier>,
    /// Decides about carriers; none at a server, which follows its client.
    pub ladder: Option<Ladder>,
    /// Streams, once there are any.
    pub streams: StreamSet,
    /// Words from the control conversation.
    pub commands: Inbox<Command>,
    /// Wakes this thread when a command or a disk completion has come.
    pub waker: Waker,
    /// How long to wait for the peer's first datagram.
    pub udp_timeout: Duration,
    /// Where verdicts go.
    pub outlet: Outlet,
}

/// Now, on the clock that machines are driven by.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Time since a moment shortly before the clock was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        // Not from zero, so that "long ago" can be expressed.
        self.0.elapsed() + Duration::from_secs(3600)
    }
}

/// The streams of a running transfer, and what has become of them.
#[derive(Debug)]
pub struct StreamSet {
    streams: Streams,
    lost: Vec<Lost>,
    /// The kind that the peer was last heard on.
    heard_on: Rung,
    /// Why streams could not be opened.
    failures: Vec<String>,
}

impl Default for StreamSet {
    fn default() -> Self {
        Self { streams: Streams::default(), lost: Vec::new(), heard_on: Rung::Https, failures: Vec::new() }
    }
}

/// Reasons that are kept for the last word.
const MAX_FAILURES: usize = 4;

impl Drive {
    /// Runs the transfer to its end. `observe` hears how it goes several times a second.
    ///
    /// # Errors
    /// [`DriveError`] if it does not end in good order.
    pub fn run(
        mut self,
        clock: Clock,
        end: &mut dyn End,
        observe: &mut dyn FnMut(News),
    ) -> Result<Ending, DriveError> {
        // Late wake-ups of 50 us are as much as a packet train; ask the kernel for its best.
        let _ = nix::sys::prctl::set_timerslack(1);
        let mut buffer = Vec::with_capacity(70_000);
        let mut unsent: Option<Transmit> = None;
        let start = clock.now();
        let receive_buffer = self.carrier.as_ref().map_or(0, UdpCarrier::receive_buffer);
        let mut gathering = Gathering::new(start, receive_buffer);
        let mut progress = Progress { told: start, bytes: 0, rate: None };
        let mut told = None;
        let mut next_climb = start;
        self.begin(start, end);
        let mut unsaid = None;
        loop {
            let mut busy = self.take_arrivals(clock, end, &mut gathering)?;
            busy |= end.exchange_disk()?;
            self.tell_verdicts(end, &mut unsaid);
            let now = clock.now();
            if let Some(outcome) = self.take_commands(now, end)? {
                return Ok(self.finish(now, end, &mut buffer, outcome));
            }
            if now >= next_climb {
                next_climb = now + CLIMB_INTERVAL;
                self.climb(now, end, &mut buffer, &mut unsent, observe);
            }
            self.tell_carrier(end, &mut told, observe);
            end.handle_timeout(now);
            busy |= self.send(clock, end, &mut buffer, &mut unsent);
            busy |= end.exchange_disk()?;
            if let Some(outcome) = end.poll_outcome() {
                return Ok(self.finish(now, end, &mut buffer, outcome));
            }
            self.check_alive(now, start, end)?;
            progress.tell(now, end, observe);
            if let Some(sample) = end.poll_sample() {
                observe(News::Sample(sample));
            }
            if !busy {
                let until = end.poll_timeout().min(progress.told + SNAPSHOT_INTERVAL);
                let now = clock.now();
                let until = self.ladder.as_ref().map_or(until, |ladder| until.min(ladder.poll_timeout(now)));
                let pause =
                    end.paced_until().filter(|_| unsent.is_none()).map(|paced| paced.saturating_sub(now));
                if let Some(pause) = pause.filter(|&pause| pause <= PACED_PAUSE) {
                    std::thread::sleep(pause);
                    continue;
                }
                gathering.pause();
                self.wait(until.saturating_sub(now), unsent.is_some())?;
            }
        }
    }

    /// A client that is not to use UDP starts on a stream.
    fn begin(&self, now: Duration, end: &mut dyn End) {
        if self.ladder.as_ref().is_some_and(|ladder| ladder.rung() != Rung::Udp) {
            end.set_way(now, Way::Stream);
        }
    }

    /// The carrier in use.
    fn rung(&self, end: &dyn End) -> Rung {
        match (&self.ladder, end.link().way()) {
            (Some(ladder), _) => ladder.rung(),
            (None, Way::Udp) => Rung::Udp,
            (None, Way::Stream) => self.streams.heard_on,
        }
    }

    /// A server tells when it has followed its client to another carrier.
    fn tell_carrier(&self, end: &dyn End, told: &mut Option<Rung>, observe: &mut dyn FnMut(News)) {
        if self.ladder.is_none() && end.link().is_established() {
            let rung = self.rung(end);
            if told.replace(rung) != Some(rung) {
                observe(News::Carrier(rung, Reason::Chosen));
            }
        }
    }

    /// Does what the ladder says.
    fn climb(
        &mut self,
        now: Duration,
        end: &mut dyn End,
        buffer: &mut Vec<u8>,
        unsent: &mut Option<Transmit>,
        observe: &mut dyn FnMut(News),
    ) {
        let Some(ladder) = &mut self.ladder else { return };
        let link = end.link();
        let view = View {
            udp_heard: link.udp_heard(),
            udp_echo: link.udp_echo(),
            // One is enough: hosts send such messages sparingly.
            udp_rejected: self
                .carrier
                .as_ref()
                .is_none_or(|carrier| carrier.unreachable() > 0 || carrier.refused().is_some()),
            rtt: end.snapshot().rtt,
        };
        while let Some(step) = ladder.poll(now, &view) {
            match step {
                Step::Open(rung) => observe(News::Open(rung)),
                Step::Take(rung, reason) => {
                    let way = if rung == Rung::Udp { Way::Udp } else { Way::Stream };
                    end.set_way(now, way);
                    // It was made for the way that is left, and is repaired like all that was under way there.
                    *unsent = None;
                    observe(News::Carrier(rung, reason));
                }
                Step::Probe if unsent.is_none() => {
                    if let (Some(probe), Some(carrier)) = (end.poll_udp_probe(now, buffer), &mut self.carrier)
                    {
                        carrier.send(&probe, buffer.get(..probe.length).unwrap_or_default());
                    }
                }
                Step::Probe => {}
            }
        }
    }

    /// Returns whether there may be more at once.
    fn take_arrivals(
        &mut self,
        clock: Clock,
        end: &mut dyn End,
        gathering: &mut Gathering,
    ) -> Result<bool, DriveError> {
        let more = self.take_from_streams(clock, end)?;
        let Some(carrier) = &mut self.carrier else { return Ok(more) };
        for _ in 0..RECEIVES_A_TURN {
            // Read after the call has returned: an older time would make packets arrive before they were sent, and the
            // least delay, on which rate control rests, would be too small for ever.
            let mut arrived = None;
            let received = carrier.receive(|from, datagram| {
                let now = *arrived.get_or_insert_with(|| clock.now());
                end.handle_datagram(now, from, datagram)
            })?;
            if let Some(now) = arrived {
                gathering.on_arrivals(now, received.bytes);
            }
            if !received.more {
                return Ok(more);
            }
        }
        Ok(true)
    }

    fn take_from_streams(&mut self, clock: Clock, end: &mut dyn End) -> Result<bool, DriveError> {
        let StreamSet { streams, lost, heard_on, .. } = &mut self.streams;
        let more = streams.receive(lost, |kind, datagram| {
            let before = end.link().stats().received;
            end.handle_stream_datagram(clock.now(), datagram)?;
            if end.link().stats().received > before {
                *heard_on = kind;
            }
            Ok::<(), DriveError>(())
        })?;
        let lost = std::mem::take(lost);
        for Lost { number, kind } in &lost {
            tracing::debug!(stream = number, ?kind, "a stream is gone");
            end.on_path_lost(Path::Stream(*number));
        }
        // Told once, however many have gone together.
        for kind in [Rung::Https, Rung::Ssh] {
            let gone = lost.iter().any(|lost| lost.kind == kind) && streams.count(kind) == 0;
            if let Some(ladder) = self.ladder.as_mut().filter(|_| gone) {
                ladder.on_failed(clock.now(), kind);
            }
        }
        Ok(more)
    }

    fn tell_verdicts(&mut self, end: &mut dyn End, unsaid: &mut Option<Verdicts>) {
        while let Some(line) = unsaid.take().or_else(|| end.poll_verdicts()) {
            if let Err(line) = (self.outlet.0)(line) {
                *unsaid = Some(line);
                return;
            }
        }
    }

    fn take_commands(&mut self, now: Duration, end: &mut dyn End) -> Result<Option<Outcome>, DriveError> {
        loop {
            return match self.commands.try_recv() {
                // All at once: a peer that sends many must not make a queue of them.
                Ok(Command::SetRate(config)) => {
                    end.set_rate(now, config);
                    continue;
                }
                Ok(Command::AddStream(socket, kind)) => {
                    self.streams.streams.add(socket, kind);
                    if let Some(ladder) = &mut self.ladder {
                        ladder.on_open(kind);
                    }
                    continue;
                }
                Ok(Command::StreamFailed(kind, reason)) => {
                    if let Some(ladder) =
                        self.ladder.as_mut().filter(|_| self.streams.streams.count(kind) == 0)
                    {
                        ladder.on_failed(now, kind);
                    }
                    if !self.streams.failures.contains(&reason) {
                        self.streams.failures.truncate(MAX_FAILURES - 1);
                        self.streams.failures.insert(0, reason);
                    }
                    continue;
                }
                Ok(Command::PeerStored(stored)) => {
                    end.handle_stored(&stored);
                    continue;
                }
                Ok(Command::Verdicts(line)) => {
                    end.handle_verdicts(&line)?;
                    continue;
                }
                Ok(Command::PeerOutcome(outcome)) if end.takes_outcome() => Ok(Some(outcome)),
                Ok(Command::PeerOutcome(_)) => {
                    Err(haul_proto::Error::PeerMisbehaved("the sender told how the transfer ended").into())
                }
                Ok(Command::PeerCancelled(cancel)) => Err(DriveError::Cancelled(cancel)),
                Ok(Command::PeerGone) | Err(TryRecvError::Disconnected) => Err(DriveError::PeerGone),
                Ok(Command::Interrupt) => Err(DriveError::Interrupted),
                Err(TryRecvError::Empty) => Ok(None),
            };
        }
    }

    /// Sends what may go. Returns whether there may be more to send at once.
    fn send(
        &mut self,
        clock: Clock,
        end: &mut dyn End,
        buffer: &mut Vec<u8>,
        unsent: &mut Option<Transmit>,
    ) -> bool {
        for _ in 0..BATCHES_A_TURN {
            let now = clock.now();
            let mut stream = 0;
            if end.link().way() == Way::Stream {
                let rung = self.rung(end);
                // What does not fit now is made later: a batch belongs to the stream that carries it.
                let Some(number) = self.streams.streams.with_room(rung) else { return false };
                stream = number;
                end.set_path(Path::Stream(number));
            } else {
                end.set_path(Path::Udp);
            }
            let Some(transmit) = unsent.take().or_else(|| end.poll_transmit(now, buffer)) else {
                return false;
            };
            let bytes = buffer.get(..transmit.length).unwrap_or_default();
            if transmit.way == Way::Stream {
                self.streams.streams.send(stream, transmit.segment, bytes);
                continue;
            }
            let Some(carrier) = &mut self.carrier else { continue };
            match carrier.send(&transmit, bytes) {
                Sent::Taken => {}
                Sent::Full => {
                    *unsent = Some(transmit);
                    return false;
                }
                Sent::TooBig => end.handle_too_big(now, transmit.segment as u16),
                Sent::Refused(errno) => tracing::debug!(%errno, "the kernel refused a batch"),
            }
        }
        true
    }

    fn check_alive(&self, now: Duration, start: Duration, end: &dyn End) -> Result<(), DriveError> {
        let link = end.link();
        if link.is_lost(now) {
            return Err(DriveError::PeerSilent { silent: link.silence(now) });
        }
        let only_udp = self.ladder.as_ref().is_none_or(Ladder::is_exhausted);
        let waited = now.saturating_sub(start);
        if !only_udp {
            return Ok(());
        }
        let (unreachable, local) =
            self.carrier.as_ref().map_or((0, None), |carrier| (carrier.unreachable(), carrier.refused()));
        let on_stream = self.ladder.as_ref().is_some_and(|ladder| ladder.rung() != Rung::Udp);
        if on_stream && self.streams.streams.count(self.rung(end)) == 0 {
            return Err(DriveError::NoCarrier(self.reasons()));
        }
        // One is enough: hosts send such messages sparingly.
        let rejected = unreachable > 0 && waited > REJECTED_AFTER;
        if !link.is_established() && (rejected || waited > self.udp_timeout) {
            if self.streams.failures.is_empty() {
                return Err(DriveError::UdpSilent { waited, rejected, local });
            }
            let udp = if rejected { "UDP is rejected" } else { "nothing comes over UDP" };
            return Err(DriveError::NoCarrier(format!("{udp}; {}", self.reasons())));
        }
        Ok(())
    }

    fn reasons(&self) -> String {
        if self.streams.failures.is_empty() {
            return "the connections broke".to_owned();
        }
        self.streams.failures.join("; ")
    }

    fn finish(&mut self, now: Duration, end: &mut dyn End, buffer: &mut Vec<u8>, outcome: Outcome) -> Ending {
        // Not acknowledged, so said three times; the control conversation says it reliably.
        for _ in 0..3 {
            let Some(transmit) = end.farewell(now, buffer) else {
                break;
            };
            let bytes = buffer.get(..transmit.length).unwrap_or_default();
            match (transmit.way, &mut self.carrier) {
                (Way::Udp, Some(carrier)) => {
                    carrier.send(&transmit, bytes);
                }
                (Way::Udp, None) => {}
                (Way::Stream, _) => {
                    let rung = self.rung(end);
                    if let Some(number) = self.streams.streams.with_room(rung) {
                        self.streams.streams.send(number, transmit.segment, bytes);
                    }
                }
            }
        }
        let mut outcome = outcome;
        end.settle(&mut outcome);
        Ending { outcome, snapshot: end.snapshot(), stored: end.stored() }
    }

    fn wait(&self, time: Duration, for_room: bool) -> Result<(), DriveError> {
        let flags = if for_room { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        // A full device queue (ENOBUFS) leaves the socket writable: look again soon.
        let time = if for_room { time.min(Duration::from_millis(1)) } else { time };
        let mut polled = vec![PollFd::new(self.waker.descriptor(), PollFlags::POLLIN)];
        polled.extend(self.carrier.as_ref().map(|carrier| PollFd::new(carrier.descriptor(), flags)));
        polled.extend(self.streams.streams.descriptors().map(|(socket, waits)| {
            let room = if waits { PollFlags::POLLOUT } else { PollFlags::empty() };
            PollFd::new(socket, PollFlags::POLLIN | room)
        }));
        match ppoll(&mut polled, Some(TimeSpec::from_duration(time.min(Duration::from_secs(1)))), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(DriveError::Wait(errno)),
        }
        if polled.first().is_some_and(|waker| waker.any() == Some(true)) {
            self.waker.clear();
        }
        Ok(())
    }
}

/// Lets fast arrivals gather before they are taken, as a network card does with interrupts. Being woken for each train
/// costs as much as opening it (measured on loopback at 20 Gbit/s).
struct Gathering {
    since: Duration,
    bytes: u64,
    /// What may gather in the socket.
    room: u64,
    /// How long to let it, at the present rate.
    pause: Duration,
}

/// The arrival rate is measured over this time.
const GATHERING_INTERVAL: Duration = Duration::from_millis(1);
/// Shorter pauses save nothing, longer ones would be felt in the round-trip time.
const GATHERING_BOUNDS: (Duration, Duration) = (Duration::from_micros(30), Duration::from_micros(100));

impl Gathering {
    fn new(now: Duration, receive_buffer: u64) -> Self {
        // Four calls' worth at most: what is taken together should still be in the cache.
        let room = (receive_buffer / 4).min(256 << 10);
        Self { since: now, bytes: 0, room, pause: Duration::ZERO }
    }

    fn on_arrivals(&mut self, now: Duration, bytes: u64) {
        self.bytes += bytes;
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= GATHERING_INTERVAL {
            let pause = elapsed.mul_f64(self.room as f64 / self.bytes.max(1) as f64);
            let (least, most) = GATHERING_BOUNDS;
            // A slower stream would come with long gaps anyway.
            self.pause = if pause < least || pause > most * 4 { Duration::ZERO } else { pause.min(most) };
            (self.since, self.bytes) = (now, 0);
        }
    }

    fn pause(&self) {
        if self.pause > Duration::ZERO {
            std::thread::sleep(self.pause);
        }
    }
}

struct Progress {
    told: Duration,
    bytes: u64,
    /// Bytes a second, smoothed over some two seconds: bytes are stored in whole blocks, which would make it jump.
    rate: Option<f64>,
}

impl Progress {
    fn tell(&mut self, now: Duration, end: &dyn End, observe: &mut dyn FnMut(News)) {
        let elapsed = now.saturating_sub(self.told);
        if elapsed < SNAPSHOT_INTERVAL {
            return;
        }
        let mut snapshot = end.snapshot();
        // What was there before was not moved.
        let moved = snapshot.bytes_done.saturating_sub(snapshot.bytes_held);
        let bytes = moved.saturating_sub(self.bytes);
        let sample = bytes as f64 / elapsed.as_secs_f64();
        let rate = self.rate.map_or(sample, |rate| rate + (sample - rate) / 8.0);
        self.rate = Some(rate);
        snapshot.rate = Rate::from_bytes_per_second(rate);
        (self.told, self.bytes) = (now, moved);
        observe(News::Progress(snapshot));
    }
}
