//! The sending machine: takes content blocks and reports, gives sealed datagrams.
//!
//! Inputs are `handle_*`, outputs `poll_*`; after any input, poll until nothing comes. Loss is declared by the
//! [ledger](crate::loss) alone. Repair goes before new data, the manifest before content. When everything has been sent
//! and loss is likely, what is under way is sent once more rather than leaving the path idle (tail replay).

mod content;
mod manifest;
mod sampling;
mod transmit;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::Error;
use crate::constants::{
    BASE_DATAGRAM, HELLO_INTERVAL, INITIAL_CREDIT, MANIFEST_WINDOW, PING_INTERVAL, REPORT_INTERVAL_MAX,
    REPORT_INTERVAL_MIN, REPORT_INTERVAL_UNKNOWN, REPORT_PATIENCE, STREAM_DATAGRAM, TAIL_REPLAY_BYTES,
    TAIL_REPLAY_SHARE,
};
use crate::link::{Link, LinkConfig, Transmit, Way};
use crate::loss::{Cargo, Ledger, Path, Piece};
use crate::manifest::{Record, TreeCheck};
use crate::mtu::MtuSearch;
use crate::pacer::Pacer;
use crate::rate::{PathSample, RateConfig, RateController};
use crate::rtt::Rtt;
use crate::stats::{Limiter, Limits, Snapshot};
use crate::units::Rate;
use crate::verdict::{Decision, Verdicts, VerdictsIn};
use crate::wire::Reader;
use crate::wire::frame::Frame;
use crate::wire::packet::{Object, PacketType};
use crate::wire::report::Report;
use content::ContentOut;
use manifest::ManifestOut;
use sampling::Sampling;

/// What a sender starts from.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// The sealed path.
    pub link: LinkConfig,
    /// Rate agreed on.
    pub rate: RateConfig,
    /// The receiver tells what it needs of each file.
    pub verdicts: bool,
}

/// Pongs that wait to be sent; a peer that asks faster is answered less often.
const MAX_PENDING_PONGS: usize = 8;

/// Rate on a stream without a target: more than any processor makes.
const STREAM_RATE: Rate = Rate::from_bps(400_000_000_000);

/// Targets below this are kept with small datagrams: two of [`STREAM_DATAGRAM`] would be a burst of a quarter of a second.
const STREAM_SLOW: Rate = Rate::from_bps(20_000_000);

/// After the return to UDP, what is under way on streams is waited for so long before the path is judged: most of it. The
/// rest makes the path look faster for a round trip, as a burst does.
const LEFTOVER_PATIENCE: Duration = Duration::from_millis(300);

/// Counters of a sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Datagrams sent.
    pub packets: u64,
    /// Datagrams reported as arrived, late ones included.
    pub arrived_packets: u64,
    /// Datagrams declared lost, less those that arrived late.
    pub lost_packets: u64,
    /// Content and manifest bytes sent more than once.
    pub retransmitted_bytes: u64,
    /// Of these, bytes of tail replay.
    pub replayed_bytes: u64,
    /// Bytes of all datagrams, headers of IP and UDP included.
    pub wire_bytes: u64,
    /// Datagram size in use.
    pub datagram: u16,
}

/// The sending machine of one session.
#[derive(Debug)]
pub struct Sender {
    link: Link,
    ledger: Ledger,
    rtt: Rtt,
    /// What the next packets will be carried by, for the ledger.
    path: Path,
    rate_config: RateConfig,
    rate: RateController,
    pacer: Pacer,
    mtu: MtuSearch,
    manifest: ManifestOut,
    tree: TreeCheck,
    verdicts: Option<VerdictsIn>,
    content: ContentOut,
    resend: VecDeque<Piece>,
    replay: VecDeque<Piece>,
    next_replay: Duration,
    pongs: VecDeque<u64>,
    credit: u64,
    manifest_credit: u64,
    latest: Report,
    clock: Option<Unwrapped>,
    last_report: Duration,
    last_progress: Duration,
    last_timeout: Duration,
    timeouts: u32,
    probes_due: u32,
    silence_marked: Duration,
    /// When the way in use was taken, and the first packet number on it.
    way_since: (Duration, u64),
    next_ping: Duration,
    ping_token: u64,
    idle: bool,
    /// When the pacer lets the next batch go, if that is what holds the sender.
    paced_until: Option<Duration>,
    /// What holds the sender back, and since when.
    limiter: (Limiter, Duration),
    limits: Limits,
    stats: SenderStats,
    sampling: Sampling,
}

/// The receiver's wrapping clocks, unwrapped.
#[derive(Debug, Clone, Copy)]
struct Unwrapped {
    raw: u32,
    time: Duration,
    /// First delay told; later ones are told relative to it.
    delay_zero: i32,
}

impl Sender {
    /// A sender with nothing to send yet.
    #[must_use]
    pub fn new(now: Duration, config: &SenderConfig) -> Self {
        Self {
            link: Link::new(now, &config.link),
            ledger: Ledger::default(),
            rtt: Rtt::default(),
            path: Path::Udp,
            rate_config: config.rate,
            rate: RateController::new(now, config.rate),
            pacer: Pacer::new(now),
            mtu: MtuSearch::default(),
            manifest: ManifestOut::default(),
            tree: TreeCheck::default(),
            verdicts: config.verdicts.then(VerdictsIn::default),
            content: ContentOut::default(),
            resend: VecDeque::new(),
            replay: VecDeque::new(),
            next_replay: Duration::ZERO,
            pongs: VecDeque::new(),
            credit: INITIAL_CREDIT,
            manifest_credit: MANIFEST_WINDOW,
            latest: Report::default(),
            clock: None,
            last_report: now,
            last_progress: now,
            last_timeout: now,
            timeouts: 0,
            probes_due: 0,
            silence_marked: now,
            way_since: (now, 0),
            next_ping: now,
            ping_token: 0,
            idle: false,
            paced_until: None,
            limiter: (Limiter::Network, now),
            limits: Limits::default(),
            stats: SenderStats::default(),
            sampling: Sampling::new(config.rate.target),
        }
    }

    /// Takes other rate settings in the middle of the transfer.
    pub fn set_rate(&mut self, now: Duration, config: RateConfig) {
        self.rate.set_config(config);
        self.rate_config = config;
        self.sampling.target = config.target;
        self.set_pace(now);
    }

    /// Sends on this way from now on. The client decides; a server follows it by itself.
    pub fn set_way(&mut self, now: Duration, way: Way) {
        if self.link.way() != way {
            self.link.set_way(way);
            self.on_way_changed(now);
        }
    }

    /// What the next datagrams will be carried by.
    pub const fn set_path(&mut self, path: Path) {
        self.path = path;
    }

    /// A path is gone, with all that was under way on it.
    pub fn on_path_lost(&mut self, path: Path) {
        self.ledger.close(path);
    }

    /// A datagram that asks over UDP whether it carries again, while a stream is in use.
    pub fn poll_udp_probe(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        let number = self.link.next_number();
        let transmit = self.link.seal_probe(buffer)?;
        self.enter(number, now, Cargo::Probe, transmit.length, Path::Udp);
        Some(transmit)
    }

    /// What was learnt of one way is of no use on the other: UDP starts as at first, and what streams make of delay and
    /// loss never reaches its controller.
    fn on_way_changed(&mut self, now: Duration) {
        if self.link.way() == Way::Stream {
            self.ledger.close(Path::Udp);
        }
        self.rtt = Rtt::default();
        self.rate = RateController::new(now, self.rate_config);
        self.clock = None;
        self.mtu.fall_back(now);
        self.timeouts = 0;
        self.probes_due = 0;
        self.last_timeout = now;
        self.last_progress = now;
        self.silence_marked = now;
        self.replay.clear();
        self.next_ping = now;
        self.way_since = (now, self.link.next_number());
        self.set_pace(now);
    }

    /// Tells the pacer what holds on the way in use. Streams are paced by their back-pressure, and by the target only.
    fn set_pace(&mut self, now: Duration) {
        match self.link.way() {
            Way::Udp => {
                self.pacer.set_rate(now, self.rate.rate(), self.mtu.current(), self.rate.burst_share());
            }
            Way::Stream => {
                let rate = self.rate_config.target.unwrap_or(STREAM_RATE);
                self.pacer.set_rate(now, rate, self.datagram(), 1.0);
            }
        }
    }

    /// Size of the datagrams that carry content now. On a stream, where the rate allows it to, a record is filled.
    fn datagram(&self) -> u16 {
        match (self.link.way(), self.rate_config.target) {
            (Way::Udp, _) => self.mtu.current(),
            (Way::Stream, Some(target)) if target < STREAM_SLOW => BASE_DATAGRAM,
            (Way::Stream, _) => STREAM_DATAGRAM,
        }
    }

    /// Adds a manifest record. [`Record::End`] is the last.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] never comes from the peer here: it means that the records do not hold together.
    pub fn handle_record(&mut self, record: &Record) -> Result<(), Error> {
        self.tree.handle_record(record)?;
        self.manifest.push(record);
        match (record, &mut self.verdicts) {
            (Record::File { size, .. }, Some(verdicts)) => verdicts.on_file(*size),
            (Record::End { .. }, Some(verdicts)) => verdicts.on_end(),
            _ => {}
        }
        Ok(())
    }

    /// The receiver tells what it needs of the next files.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if that cannot be, or was not agreed on.
    pub fn handle_verdicts(&mut self, line: &Verdicts) -> Result<(), Error> {
        let agreed = Error::PeerMisbehaved("verdicts came that were not agreed on");
        self.verdicts.as_mut().ok_or(agreed)?.handle(line)
    }

    /// What is to be read of the next file.
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.verdicts.as_mut()?.poll()
    }

    /// Whether more records are welcome; if not, the walk should pause.
    #[must_use]
    pub fn wants_records(&self) -> bool {
        !self.manifest.is_full()
    }

    /// The next block to read and a used buffer to read into, if more content should be in memory.
    pub fn poll_read(&mut self) -> Option<(u64, Option<Vec<u8>>)> {
        let block = self.content.poll_read()?;
        Some((block, self.content.spare_buffer()))
    }

    /// A block has been read: exactly the bytes that the layout uses of it. Unknown blocks are ignored.
    pub fn handle_block(&mut self, block: u64, data: Vec<u8>) {
        if !self.content.handle_block(block, data) {
            tracing::warn!(block, "a block came that was not asked for");
        }
    }

    /// The last block asked for was in memory: what it took was this CPU's time, not the disk's.
    pub fn on_read_without_wait(&mut self) {
        if self.limiter.0 == Limiter::SenderDisk {
            self.limiter.0 = Limiter::SenderCpu;
        }
    }

    /// There is no content beyond `blocks` blocks.
    pub fn handle_content_end(&mut self, blocks: u64) {
        self.content.handle_end(blocks);
    }

    /// Takes a datagram from the network; it is opened in place.
    ///
    /// # Errors
    /// [`Error`] if the peer, once authenticated, breaks the protocol. The session must end.
    pub fn handle_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), Error> {
        self.take_datagram(now, Some(from), datagram)
    }

    /// Takes a datagram from a stream; it is opened in place.
    ///
    /// # Errors
    /// As [`Self::handle_datagram`].
    pub fn handle_stream_datagram(&mut self, now: Duration, datagram: &mut [u8]) -> Result<(), Error> {
        self.take_datagram(now, None, datagram)
    }

    fn take_datagram(
        &mut self,
        now: Duration,
        from: Option<SocketAddr>,
        datagram: &mut [u8],
    ) -> Result<(), Error> {
        let Some(opened) = self.link.open(now, from, datagram)? else {
            return Ok(());
        };
        if opened.packet_type == PacketType::Data {
            return Err(Error::PeerMisbehaved("the receiver sent content"));
        }
        let plaintext = opened.plaintext;
        if self.link.take_moved() {
            self.on_way_changed(now);
        }
        let mut reader = Reader::new(plaintext);
        while let Some(frame) = Frame::decode(&mut reader)? {
            match frame {
                Frame::Ping { token, .. } => {
                    // Answers go where the questions came from. A challenge on UDP that is not in use gets none: that
                    // would move the peer there.
                    let here = from.is_some() == (self.link.way() == Way::Udp);
                    if here && self.pongs.len() < MAX_PENDING_PONGS {
                        self.pongs.push_back(token);
                    }
                }
                Frame::Pong { token } => {
                    let moved = self.link.on_pong(from, token);
                    if self.link.take_moved() {
                        self.on_way_changed(now);
                    } else if moved {
                        self.on_moved(now);
                    }
                }
                Frame::Report(report) => self.on_report(now, &report)?,
                Frame::Stats(_) => {
                    return Err(Error::PeerMisbehaved("the receiver sent a sender's statistics"));
                }
            }
        }
        Ok(())
    }

    /// The peer has a new address: what was learnt of the path may be wrong.
    fn on_moved(&mut self, now: Duration) {
        self.mtu.fall_back(now);
        self.rtt = Rtt::default();
    }

    /// Longest time between reports while packets arrive, as the receiver computes it from the RTT we tell.
    fn interval(&self) -> Duration {
        (report_interval(self.rtt.sampled()) * REPORT_PATIENCE).min(REPORT_INTERVAL_MAX)
    }

    fn on_report(&mut self, now: Duration, report: &Report) -> Result<(), Error> {
        let interval = self.interval();
        let outcomes = self
            .ledger
            .on_report(now, report, &self.rtt, interval, self.link.way())
            .ok_or(Error::PeerMisbehaved("a report tells of packets that were never sent"))?;
        let mut sample = PathSample {
            now,
            receiver_clock: Duration::ZERO,
            received_bytes: report.bytes,
            rtt: outcomes.rtt,
            delay_min: 0.0,
            delay_max: 0.0,
            train_bytes: report.train_bytes,
            train_time: Duration::from_micros(report.train_us),
            interval,
            arrived_packets: outcomes.arrived_packets,
            lost_packets: outcomes.lost_packets - outcomes.outage_packets,
            idle: self.idle,
        };
        for (object, range) in &outcomes.arrived {
            match object {
                Object::Manifest => self.manifest.on_arrived(range.clone()),
                Object::Content => self.content.on_arrived(range),
            }
        }
        self.resend.extend(outcomes.lost.iter().copied());
        if outcomes.udp_arrived {
            self.link.on_udp_echo(now);
        }
        self.stats.lost_packets += outcomes.lost_packets;
        self.stats.arrived_packets += outcomes.arrived_packets;
        self.feed_mtu(now);
        if let Some(rtt) = sample.rtt {
            self.rtt.on_sample(now, rtt);
        }
        if sample.arrived_packets > 0 {
            self.last_progress = now;
            self.timeouts = 0;
        }
        self.last_report = now;
        self.take_standing(report);
        self.unwrap_clock(report, &mut sample);
        if report.bytes >= self.latest.bytes && self.tells_of_udp(now, report) {
            self.rate.on_report(&sample);
            self.set_pace(now);
            self.idle = false;
        }
        if report.bytes >= self.latest.bytes {
            let complete = self.latest.complete;
            self.latest = Report { runs: Vec::new(), complete, ..report.clone() };
        }
        Ok(())
    }

    /// Whether rate control may learn from a report: UDP is in use, and what came on streams before is out of the way.
    fn tells_of_udp(&self, now: Duration, report: &Report) -> bool {
        let (since, first) = self.way_since;
        let settled = first == 0 || self.ledger.floor() >= first || now > since + LEFTOVER_PATIENCE;
        self.link.way() == Way::Udp && report.largest >= first && settled
    }

    fn feed_mtu(&mut self, now: Duration) {
        let outcomes = self.ledger.outcomes();
        for &size in &outcomes.probes_arrived {
            self.mtu.on_probe_acked(size);
        }
        for &size in &outcomes.probes_lost {
            self.mtu.on_probe_lost(size);
        }
        if outcomes.arrived_size > BASE_DATAGRAM {
            self.mtu.on_acked(outcomes.arrived_size);
        } else if outcomes.lost_size > BASE_DATAGRAM {
            for _ in 0..outcomes.lost_packets {
                if self.mtu.on_lost(now, outcomes.lost_size, self.rtt.smoothed()) {
                    tracing::warn!("the path swallows large datagrams; back to {BASE_DATAGRAM} bytes");
                }
            }
        }
    }

    /// What only ever grows may be taken from any report, however late.
    fn take_standing(&mut self, report: &Report) {
        self.credit = self.credit.max(report.credit);
        self.manifest_credit = self.manifest_credit.max(report.manifest.saturating_add(MANIFEST_WINDOW));
        self.latest.complete |= report.complete;
    }

    fn unwrap_clock(&mut self, report: &Report, sample: &mut PathSample) {
        let clock = self.clock.get_or_insert(Unwrapped {
            raw: report.clock_us,
            time: Duration::from_secs(1),
            delay_zero: report.delay_min_us,
        });
        let step = report.clock_us.wrapping_sub(clock.raw) as i32;
        if step > 0 {
            clock.time += Duration::from_micros(step.unsigned_abs().into());
            clock.raw = report.clock_us;
        }
        sample.receiver_clock = clock.time;
        let seconds = |delay: i32| f64::from(delay.wrapping_sub(clock.delay_zero)) * 1e-6;
        sample.delay_min = seconds(report.delay_min_us);
        sample.delay_max = seconds(report.delay_max_us);
    }

    /// A datagram of `size` could not be sent because it is too large for the way out of this host.
    pub fn handle_too_big(&mut self, now: Duration, size: u16) {
        self.mtu.on_refused(now, size);
    }

    /// Acts on the timers that are due.
    pub fn handle_timeout(&mut self, now: Duration) {
        if !self.link.is_established() || self.latest.complete {
            return;
        }
        if self.ledger.in_flight() == 0 || self.link.way() == Way::Stream {
            return;
        }
        if now >= self.repair_deadline() {
            self.timeouts += 1;
            self.last_timeout = now;
            self.probes_due = 2;
            if self.timeouts >= 3 {
                self.mtu.fall_back(now);
            }
        }
        if now.saturating_sub(self.last_report.max(self.silence_marked)) > self.silence_patience() {
            self.silence_marked = now;
            self.rate.on_silence();
            self.set_pace(now);
        }
    }

    /// Without a report for so long, the path is taken to be silent.
    fn silence_patience(&self) -> Duration {
        (self.interval() * 2 + self.rtt.smoothed() * 2).max(Duration::from_millis(50))
    }

    /// When the oldest packets are sent again although no report has told of them (RFC 9002 section 6.2 in spirit).
    fn repair_deadline(&self) -> Duration {
        let wait = self.rtt.patience() + self.interval() * 2 + Duration::from_millis(10);
        let wait = (wait * 2u32.pow(self.timeouts.min(6))).min(Duration::from_millis(500).max(wait));
        self.last_progress.max(self.last_timeout) + wait
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) want to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        let mut next = self.next_ping;
        if self.latest.complete {
            return next;
        }
        if let Some(paced) = self.paced_until {
            next = next.min(paced);
        }
        if self.ledger.in_flight() > 0 && self.link.is_established() && self.link.way() == Way::Udp {
            next = next.min(self.repair_deadline());
        }
        if self.replay.is_empty() && self.is_at_tail() {
            next = next.min(self.next_replay.max(self.last_report));
        }
        next
    }

    /// When the pacer lets the next batch go, if nothing but the pacer holds the sender.
    #[must_use]
    pub const fn paced_until(&self) -> Option<Duration> {
        self.paced_until
    }

    /// Whether all has been sent at least once, nothing waits to be repaired, and something is still under way.
    fn is_at_tail(&self) -> bool {
        self.resend.is_empty()
            && self.ledger.in_flight() > 0
            && self.content.all_sent()
            && self.manifest.all_sent()
            && !self.latest.complete
            && self.link.way() == Way::Udp
    }

    /// Fills the replay queue when the path would idle although packets under way are likely to be lost.
    fn plan_replay(&mut self, now: Duration) {
        if !self.replay.is_empty() || now < self.next_replay || !self.is_at_tail() {
            return;
        }
        self.next_replay = now + (self.rtt.smoothed() / 2).max(REPORT_INTERVAL_MIN);
        let loss = self.stats.lost_packets as f64 / self.stats.packets.max(1) as f64;
        let pieces: Vec<Piece> = self.ledger.unsettled().collect();
        let bytes: u64 = pieces.iter().map(|piece| u64::from(piece.length)).sum();
        let budget = ((self.content.cursor() as f64 * TAIL_REPLAY_SHARE) as u64).max(TAIL_REPLAY_BYTES);
        if pieces.len() as f64 * loss >= 0.01 && self.stats.replayed_bytes + bytes <= budget {
            self.stats.replayed_bytes += bytes;
            self.replay.extend(pieces);
        }
    }

    fn ping_interval(&self) -> Duration {
        if self.link.is_established() { PING_INTERVAL } else { HELLO_INTERVAL }
    }

    /// The receiver has stored everything.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.latest.complete
    }

    /// The path and the peer's silence.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Name of the rate controller's phase.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        self.rate.phase()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> SenderStats {
        SenderStats {
            lost_packets: self.stats.lost_packets.saturating_sub(self.ledger.spurious()),
            datagram: self.mtu.current(),
            ..self.stats
        }
    }

    /// How far the transfer is; the rate is for the caller to fill in.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let stats = self.stats();
        let ended = self.tree.is_ended();
        let known = |number: fn(&VerdictsIn) -> u64| self.verdicts.as_ref().map_or(0, number);
        let held = known(|verdicts| verdicts.held_bytes);
        Snapshot {
            bytes_done: self.latest.stored + held,
            bytes_held: held,
            bytes_total: ended.then(|| self.tree.bytes()),
            files_done: self.latest.files + known(|verdicts| verdicts.skipped_files),
            files_stored: self.latest.files,
            files_total: ended.then(|| self.tree.files()),
            rtt: self.rtt.sampled(),
            packets: stats.packets,
            lost_packets: stats.lost_packets,
            retransmitted_bytes: stats.retransmitted_bytes,
            wire_bytes: stats.wire_bytes,
            limits: self.limits,
            ..Snapshot::default()
        }
    }
}

/// Report interval for a round-trip time: an eighth of it within bounds.
#[must_use]
pub fn report_interval(rtt: Option<Duration>) -> Duration {
    rtt.map_or(REPORT_INTERVAL_UNKNOWN, |rtt| (rtt / 8).clamp(REPORT_INTERVAL_MIN, REPORT_INTERVAL_MAX))
}
