//! The receiving machine: takes datagrams, gives disk requests and reports.
//!
//! Content goes from the datagram straight to its place in a block, whatever the order of arrival; a block that is
//! complete goes to the disk; the disk's answers give credit back to the sender. The receiver declares no loss: it only
//! tells what it has.

mod content;
pub(crate) mod feedback;
mod manifest;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::Error;
use crate::constants::{
    BASE_DATAGRAM, BLOCK_BYTES, ECHO_INTERVAL, HELLO_INTERVAL, IP_OVERHEAD, LOOKS_TOGETHER,
    STATS_INTERVAL_MIN,
};
use crate::control::{Failure, Feature, MAX_REPORTED_FAILURES, Outcome, PathText};
use crate::disk::{BlockWrite, DiskDone, DiskRequest, EntryFailure, Looked};
use crate::link::{ECHO_TOKEN, Link, LinkConfig, Transmit, Way};
use crate::stats::{Sample, Snapshot};
use crate::verdict::{Verdict, Verdicts};
use crate::wire::Reader;
use crate::wire::frame::Frame;
use crate::wire::packet::{DataHeader, Object, PacketType};
use crate::wire::report::Report;
use content::ContentIn;
use feedback::Feedback;
use manifest::{ManifestIn, Step};

/// What a receiver starts from.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The sealed path.
    pub link: LinkConfig,
    /// Bytes that may wait in this host's socket buffer, arrived but not yet taken; 0 if unknown.
    pub socket_buffer: u64,
    /// The sender waits for verdicts.
    pub verdicts: bool,
    /// What was agreed on beyond the first programs.
    pub features: Vec<Feature>,
}

/// The receiving machine of one session.
#[derive(Debug)]
pub struct Receiver {
    link: Link,
    socket_buffer: u64,
    feedback: Feedback,
    manifest: ManifestIn,
    content: ContentIn,
    requests: VecDeque<DiskRequest>,
    /// Reports and pongs that wait to be sent, one datagram each.
    outgoing: VecDeque<Vec<Frame>>,
    /// Blocks known to the layout that have been checked for completeness since they were settled.
    settled: u64,
    requested: u64,
    answered: u64,
    finish_requested: bool,
    complete: bool,
    next_hello: Duration,
    delivered_mark: (Duration, u64),
    stored: u64,
    /// Bytes that need not be sent because they are there.
    held: u64,
    outcome: Outcome,
    /// The sender's latest word about itself, and when another is taken.
    sample: Option<Sample>,
    next_sample: Duration,
}

/// Outgoing datagrams that may wait; older ones are dropped, as the network would.
const MAX_OUTGOING: usize = 64;

impl Receiver {
    /// A receiver that has heard nothing yet.
    #[must_use]
    pub fn new(now: Duration, config: &ReceiverConfig) -> Self {
        Self {
            link: Link::new(now, &config.link),
            socket_buffer: config.socket_buffer,
            feedback: Feedback::new(config.socket_buffer),
            manifest: ManifestIn::new(&config.features, config.verdicts),
            content: ContentIn::default(),
            requests: VecDeque::new(),
            outgoing: VecDeque::new(),
            settled: 0,
            requested: 0,
            answered: 0,
            finish_requested: false,
            complete: false,
            next_hello: now,
            delivered_mark: (now, 0),
            stored: 0,
            held: 0,
            outcome: Outcome::default(),
            sample: None,
            next_sample: now,
        }
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

    /// Sends on this way from now on. The client decides; a server follows it by itself.
    pub const fn set_way(&mut self, way: Way) {
        self.link.set_way(way);
    }

    /// A datagram that asks over UDP whether it carries again, while a stream is in use.
    pub fn poll_udp_probe(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        self.link.seal_probe(buffer)
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
        let (number, size, plaintext) = (opened.number, opened.size, opened.plaintext);
        self.feedback.on_packet(now, number, size);
        match opened.packet_type {
            PacketType::Data => {
                let (header, piece) = DataHeader::decode(plaintext)
                    .ok_or(Error::PeerMisbehaved("a DATA packet is malformed"))?;
                match from {
                    Some(_) => self.feedback.on_data(now, number, size, header.sent_us, header.floor),
                    None => self.feedback.on_floor(number, header.floor),
                }
                match header.object {
                    Object::Manifest => {
                        self.manifest.handle_piece(header.offset, piece)?;
                        self.read_manifest()
                    }
                    Object::Content => self.take_content(header.offset, piece),
                }
            }
            PacketType::Frames => self.take_frames(now, from, plaintext),
        }
    }

    fn take_frames(
        &mut self,
        now: Duration,
        from: Option<SocketAddr>,
        plaintext: &[u8],
    ) -> Result<(), Error> {
        let mut reader = Reader::new(plaintext);
        while let Some(frame) = Frame::decode(&mut reader)? {
            match frame {
                Frame::Ping { token, srtt_us } => {
                    if srtt_us > 0 {
                        self.feedback.set_rtt(Duration::from_micros(srtt_us.into()));
                    }
                    // A challenge on UDP that is not in use gets no answer: that would move the peer there.
                    if from.is_some() == (self.link.way() == Way::Udp) {
                        self.queue(vec![Frame::Pong { token }]);
                    }
                }
                Frame::Pong { token } => {
                    if from.is_some() && token == ECHO_TOKEN {
                        self.link.on_udp_echo(now);
                    }
                    self.link.on_pong(from, token);
                    self.link.take_moved();
                }
                Frame::Report(_) => return Err(Error::PeerMisbehaved("the sender sent a report")),
                Frame::Stats(sample) if now >= self.next_sample => {
                    self.next_sample = now + STATS_INTERVAL_MIN;
                    self.sample = Some(sample);
                }
                Frame::Stats(_) => {}
            }
        }
        Ok(())
    }

    fn queue(&mut self, frames: Vec<Frame>) {
        if self.outgoing.len() >= MAX_OUTGOING {
            self.outgoing.pop_front();
        }
        self.outgoing.push_back(frames);
    }

    /// Reads records as long as there is room for their files. Settling blocks may complete some, which makes room.
    fn read_manifest(&mut self) -> Result<(), Error> {
        loop {
            let (requests, outcome, requested) = (&mut self.requests, &mut self.outcome, &mut self.requested);
            self.manifest.poll_steps(|step| match step {
                Step::Folder(folder) => {
                    *requested += 1;
                    requests.push_back(DiskRequest::Folder(folder));
                }
                Step::Look(file) => match requests.back_mut() {
                    Some(DiskRequest::Look(files)) if files.len() < LOOKS_TOGETHER => files.push(file),
                    _ => {
                        *requested += 1;
                        requests.push_back(DiskRequest::Look(vec![file]));
                    }
                },
                Step::Link(link) => {
                    *requested += 1;
                    requests.push_back(DiskRequest::Link(link));
                }
                Step::Skipped(failure) => note_failure(outcome, failure),
                Step::File | Step::End => {}
            })?;
            let settled = self.manifest.layout().settled_blocks();
            // Blocks that have not been touched yet are looked at when they are.
            for block in self.settled.max(self.content.first())..settled.min(self.content.end()) {
                self.complete_block(block)?;
            }
            self.settled = self.settled.max(settled);
            if !self.manifest.may_go_on() {
                break;
            }
        }
        self.finish_if_done()
    }

    fn take_content(&mut self, offset: u64, piece: &[u8]) -> Result<(), Error> {
        self.content.handle_piece(offset, piece)?;
        let last = offset + piece.len() as u64 - 1;
        for block in offset / BLOCK_BYTES..=last / BLOCK_BYTES {
            self.complete_block(block)?;
        }
        if self.manifest.may_go_on() { self.read_manifest() } else { Ok(()) }
    }

    /// Sends `block` to the disk if all of it has arrived.
    fn complete_block(&mut self, block: u64) -> Result<(), Error> {
        let Some(data) = self.content.take_complete(block, self.manifest.layout()) else {
            return Ok(());
        };
        let pieces = self.manifest.pieces_of(block, &data)?;
        self.requests.push_back(DiskRequest::Block(BlockWrite { block, data, pieces }));
        self.requested += 1;
        self.manifest.forget_below(self.content.first());
        Ok(())
    }

    /// The next request to the disk.
    pub fn poll_disk(&mut self) -> Option<DiskRequest> {
        self.requests.pop_front()
    }

    /// Takes the disk's answer.
    ///
    /// # Errors
    /// [`Error`] if the manifest, now that there is room to read on, turns out to be broken.
    pub fn handle_disk(&mut self, done: DiskDone) -> Result<(), Error> {
        match done {
            DiskDone::Folder => self.manifest.on_folder_done(),
            DiskDone::FolderFailed(failure) => {
                self.manifest.on_folder_done();
                note_failure(&mut self.outcome, failure);
            }
            DiskDone::Looked(files) => return self.take_verdicts(files),
            DiskDone::Block { buffer, stored, finished, found, wrong, failed } => {
                self.content.handle_buffer(buffer);
                self.stored += stored;
                self.outcome.files += finished.len() as u64;
                self.outcome.bytes += finished.iter().sum::<u64>();
                self.outcome.skipped += found.len() as u64;
                self.outcome.skipped_bytes += found.iter().sum::<u64>();
                wrong.into_iter().for_each(|id| self.manifest.on_wrong(id));
                failed.into_iter().for_each(|failure| note_failure(&mut self.outcome, failure));
            }
            DiskDone::Finished => self.complete = true,
        }
        self.answered += 1;
        self.feedback.hurry();
        self.finish_if_done()?;
        if self.manifest.may_go_on() { self.read_manifest() } else { Ok(()) }
    }

    /// What is needed of the next files.
    fn take_verdicts(&mut self, files: Vec<Looked>) -> Result<(), Error> {
        self.answered += 1;
        for Looked { file, verdict, failure } in files {
            let size = file.size;
            match (&verdict, failure) {
                (Verdict::Skip, Some(failure)) => note_failure(&mut self.outcome, failure),
                (Verdict::Skip, None) => {
                    self.outcome.skipped += 1;
                    self.outcome.skipped_bytes += size;
                    self.held += size;
                }
                (Verdict::Part(missing), _) => {
                    let held = size - missing.bytes(size);
                    // All of it may be there without anything of it having been continued.
                    self.outcome.resumed_bytes += if missing.blocks() > 0 { held } else { 0 };
                    self.held += held;
                }
                (Verdict::All, _) => {}
            }
            self.manifest.decide(file, verdict)?;
        }
        // Blocks may be settled now.
        self.read_manifest()
    }

    /// The next line of verdicts to tell the sender.
    pub fn poll_verdicts(&mut self) -> Option<Verdicts> {
        self.manifest.poll_verdicts()
    }

    fn finish_if_done(&mut self) -> Result<(), Error> {
        let all_arrived = self.manifest.tree().is_ended()
            && self.content.first() >= self.manifest.layout().settled_blocks()
            && self.answered == self.requested;
        if all_arrived && !self.finish_requested {
            self.manifest.place_again()?;
        }
        let all_arrived = all_arrived
            && self.manifest.layout().is_finished()
            && self.content.first() >= self.manifest.layout().settled_blocks();
        if all_arrived && !self.finish_requested {
            self.finish_requested = true;
            self.requested += 1;
            self.requests.push_back(DiskRequest::Finish);
        }
        Ok(())
    }

    /// The next datagram, sealed into `buffer`, which is cleared first.
    pub fn poll_transmit(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        if let Some(challenge) = self.link.poll_challenge(buffer) {
            return Some(challenge);
        }
        if !self.link.is_established() {
            if now < self.next_hello {
                return None;
            }
            self.next_hello = now + HELLO_INTERVAL;
            // Padded: a server that does not know our address may answer only three times as much.
            let hello = Frame::Ping { token: 0, srtt_us: 0 };
            return self.link.seal_frames(buffer, &[hello], Some(BASE_DATAGRAM));
        }
        if self.asks_for_echo() && now >= self.next_hello {
            self.next_hello = now + ECHO_INTERVAL;
            self.queue(vec![Frame::Ping { token: ECHO_TOKEN, srtt_us: 0 }]);
        }
        if self.feedback.due().is_some_and(|due| due <= now) {
            self.mark_delivered(now);
            let standing = self.standing();
            for report in self.feedback.build(now, &standing) {
                self.queue(vec![Frame::Report(report)]);
            }
        }
        let frames = self.outgoing.pop_front()?;
        self.link.seal_frames(buffer, &frames, None)
    }

    /// A receiving client sees by itself when what it sends does not arrive, although it hears the server.
    fn asks_for_echo(&self) -> bool {
        self.link.is_client() && self.link.way() == Way::Udp && !self.complete
    }

    /// What a report says beside packet numbers and delays.
    fn standing(&self) -> Report {
        Report {
            complete: self.complete,
            disk_behind: (self.requested - self.answered) * 2 > self.content.pool(),
            packets: self.link.stats().received,
            bytes: self.link.stats().received_bytes,
            credit: self.content.credit(),
            manifest: self.manifest.consumed(),
            stored: self.stored,
            files: self.outcome.files,
            buffer: self.socket_buffer,
            ..Report::default()
        }
    }

    /// Once an RTT: how much arrived in it decides how many blocks may be held.
    fn mark_delivered(&mut self, now: Duration) {
        let Some(rtt) = self.feedback.rtt() else {
            return;
        };
        let (since, bytes) = self.delivered_mark;
        let elapsed = now.saturating_sub(since);
        if elapsed >= rtt {
            let received = self.link.stats().received_bytes;
            let per_rtt = (received - bytes) as f64 * rtt.as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
            self.content.on_delivered(per_rtt as u64);
            self.delivered_mark = (now, received);
        }
    }

    /// When [`poll_transmit`](Self::poll_transmit) wants to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        if self.link.is_established() {
            let due = self.feedback.due().unwrap_or(Duration::MAX);
            if self.asks_for_echo() { due.min(self.next_hello) } else { due }
        } else if self.link.destination().is_some() {
            self.next_hello
        } else {
            Duration::MAX
        }
    }

    /// A last report, whether due or not: the sender may stop repairing.
    pub fn farewell(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        let standing = self.standing();
        let report = self.feedback.build(now, &standing).pop()?;
        self.link.seal_frames(buffer, &[Frame::Report(report)], None)
    }

    /// The sender's latest word about itself, if it has not been taken yet.
    pub const fn poll_sample(&mut self) -> Option<Sample> {
        self.sample.take()
    }

    /// Everything is stored and durable, or has failed for a reason that the outcome tells.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// What was stored and what failed.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The path and the peer's silence.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// How far the transfer is; the rate is for the caller to fill in.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let tree = self.manifest.tree();
        Snapshot {
            bytes_done: self.stored + self.held,
            bytes_held: self.held,
            bytes_total: tree.is_ended().then(|| tree.bytes()),
            files_done: self.outcome.files + self.outcome.skipped,
            files_stored: self.outcome.files,
            files_total: tree.is_ended().then(|| tree.files()),
            rtt: self.feedback.rtt(),
            packets: self.feedback.seen(),
            lost_packets: self.feedback.missing(),
            retransmitted_bytes: self.content.duplicate_bytes(),
            wire_bytes: self.wire_bytes(),
            ..Snapshot::default()
        }
    }

    /// What the sender has sent on the wire, as far as it shows here.
    fn wire_bytes(&self) -> u64 {
        let link = self.link.stats();
        let arrived = link.received_bytes + link.received * IP_OVERHEAD;
        // A sender that skips numbers does not seem faster than one that loses half.
        let missing = (self.feedback.missing() as f64 / link.received.max(1) as f64).min(1.0);
        arrived.saturating_add((arrived as f64 * missing) as u64)
    }
}

/// Longest path and message of a reported failure, bytes: a hundred of them, each byte escaped to six, stay below
/// [`MAX_LINE_BYTES`](crate::control::MAX_LINE_BYTES).
const MAX_FAILURE_BYTES: usize = 700;

/// Counts a failure, and lists it if there is room.
pub fn note_failure(outcome: &mut Outcome, failure: EntryFailure) {
    outcome.failed += 1;
    if outcome.failures.len() < MAX_REPORTED_FAILURES {
        // The end of a path tells more than its start.
        let cut = failure.path.len().saturating_sub(MAX_FAILURE_BYTES);
        let path = failure.path.get(cut..).unwrap_or_default();
        let message = failure.message.chars().take(MAX_FAILURE_BYTES / 4).collect();
        outcome.failures.push(Failure { path: PathText::new(path), trouble: failure.trouble, message });
    }
}
