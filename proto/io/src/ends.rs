//! The two ends of a transfer, each a machine of the core joined to its disk.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use haul_proto::control::{Outcome, SentCounters, StoredFiles};
use haul_proto::link::{Link, Transmit, Way};
use haul_proto::loss::Path;
use haul_proto::range_set::RangeSet;
use haul_proto::rate::RateConfig;
use haul_proto::receiver::{Receiver, note_failure};
use haul_proto::sender::Sender;
use haul_proto::stats::{Sample, Snapshot};
use haul_proto::verdict::Verdicts;

use crate::disk::{Sink, Source, SourceEvent};
use crate::drive::{DriveError, End};

/// The sending end.
#[derive(Debug)]
pub struct SendEnd {
    sender: Sender,
    source: Source,
    /// Files that the other side has stored.
    stored: RangeSet,
}

impl SendEnd {
    /// Joins a sender to what it sends.
    #[must_use]
    pub const fn new(sender: Sender, source: Source) -> Self {
        Self { sender, source, stored: RangeSet::new() }
    }

    /// What was sent, for the other side's summary.
    #[must_use]
    pub fn counters(&self) -> SentCounters {
        let Snapshot { packets, lost_packets, retransmitted_bytes, limits, .. } = self.sender.snapshot();
        SentCounters { packets, lost_packets, retransmitted_bytes, limits }
    }
}

impl End for SendEnd {
    fn handle_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), DriveError> {
        Ok(self.sender.handle_datagram(now, from, datagram)?)
    }

    fn handle_stream_datagram(&mut self, now: Duration, datagram: &mut [u8]) -> Result<(), DriveError> {
        Ok(self.sender.handle_stream_datagram(now, datagram)?)
    }

    fn set_way(&mut self, now: Duration, way: Way) {
        self.sender.set_way(now, way);
    }

    fn set_path(&mut self, path: Path) {
        self.sender.set_path(path);
    }

    fn on_path_lost(&mut self, path: Path) {
        self.sender.on_path_lost(path);
    }

    fn poll_udp_probe(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.sender.poll_udp_probe(now, buffer)
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.sender.handle_timeout(now);
    }

    fn exchange_disk(&mut self) -> Result<bool, DriveError> {
        let mut moved = false;
        while self.sender.wants_records() {
            let Some(record) = self.source.poll_record() else {
                break;
            };
            self.sender.handle_record(&record)?;
            moved = true;
        }
        while let Some(decision) = self.sender.poll_decision() {
            self.source.decide(decision);
        }
        while let Some((_, buffer)) = self.sender.poll_read() {
            if self.source.request(buffer.unwrap_or_default()) {
                self.sender.on_read_without_wait();
                // What lies in memory is fetched when it can be sent, not before.
                break;
            }
        }
        while let Some(event) = self.source.poll_block()? {
            match event {
                SourceEvent::Block { block, data } => self.sender.handle_block(block, data),
                SourceEvent::End { blocks } => self.sender.handle_content_end(blocks),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn handle_verdicts(&mut self, line: &Verdicts) -> Result<(), DriveError> {
        Ok(self.sender.handle_verdicts(line)?)
    }

    fn poll_verdicts(&mut self) -> Option<Verdicts> {
        None
    }

    fn handle_too_big(&mut self, now: Duration, size: u16) {
        self.sender.handle_too_big(now, size);
    }

    fn set_rate(&mut self, now: Duration, config: RateConfig) {
        self.sender.set_rate(now, config);
    }

    fn poll_transmit(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.sender.poll_transmit(now, buffer)
    }

    fn poll_timeout(&self) -> Duration {
        self.sender.poll_timeout()
    }

    fn paced_until(&self) -> Option<Duration> {
        self.sender.paced_until()
    }

    fn poll_outcome(&self) -> Option<Outcome> {
        // Only the receiver knows; it tells over the control conversation.
        None
    }

    fn takes_outcome(&self) -> bool {
        true
    }

    fn farewell(&mut self, _now: Duration, _buffer: &mut Vec<u8>) -> Option<Transmit> {
        None
    }

    fn handle_stored(&mut self, stored: &StoredFiles) {
        stored.add_to(&mut self.stored);
    }

    fn settle(&mut self, outcome: &mut Outcome) {
        let settled = self.source.settle(&self.stored);
        if settled.files > 0 || !settled.failures.is_empty() {
            tracing::info!(
                files = settled.files,
                failed = settled.failures.len(),
                "sources removed or moved"
            );
        }
        settled.failures.into_iter().for_each(|failure| note_failure(outcome, failure));
    }

    fn snapshot(&self) -> Snapshot {
        self.sender.snapshot()
    }

    fn poll_sample(&mut self) -> Option<Sample> {
        self.sender.poll_sample()
    }

    fn link(&self) -> &Link {
        self.sender.link()
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct ReceiveEnd {
    receiver: Receiver,
    sink: Sink,
}

impl ReceiveEnd {
    /// Joins a receiver to where it stores.
    #[must_use]
    pub const fn new(receiver: Receiver, sink: Sink) -> Self {
        Self { receiver, sink }
    }
}

impl End for ReceiveEnd {
    fn handle_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), DriveError> {
        Ok(self.receiver.handle_datagram(now, from, datagram)?)
    }

    fn handle_stream_datagram(&mut self, now: Duration, datagram: &mut [u8]) -> Result<(), DriveError> {
        Ok(self.receiver.handle_stream_datagram(now, datagram)?)
    }

    fn set_way(&mut self, _now: Duration, way: Way) {
        self.receiver.set_way(way);
    }

    fn set_path(&mut self, _path: Path) {}

    // What a receiver sends is said again in the next report.
    fn on_path_lost(&mut self, _path: Path) {}

    fn poll_udp_probe(&mut self, _now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.receiver.poll_udp_probe(buffer)
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn exchange_disk(&mut self) -> Result<bool, DriveError> {
        let mut moved = false;
        while let Some(request) = self.receiver.poll_disk() {
            self.sink.submit(request);
        }
        while let Some(done) = self.sink.poll()? {
            self.receiver.handle_disk(done)?;
            moved = true;
        }
        Ok(moved)
    }

    fn handle_verdicts(&mut self, _line: &Verdicts) -> Result<(), DriveError> {
        Err(haul_proto::Error::PeerMisbehaved("the sender told what it needs").into())
    }

    fn poll_verdicts(&mut self) -> Option<Verdicts> {
        self.receiver.poll_verdicts()
    }

    fn handle_too_big(&mut self, _now: Duration, size: u16) {
        tracing::warn!(size, "this host cannot send datagrams of the size that every path must carry");
    }

    fn set_rate(&mut self, _now: Duration, _config: RateConfig) {}

    fn poll_transmit(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.receiver.poll_transmit(now, buffer)
    }

    fn poll_timeout(&self) -> Duration {
        self.receiver.poll_timeout()
    }

    fn paced_until(&self) -> Option<Duration> {
        None
    }

    fn poll_outcome(&self) -> Option<Outcome> {
        self.receiver.is_complete().then(|| self.receiver.outcome().clone())
    }

    fn takes_outcome(&self) -> bool {
        // Whether all has arrived is for this end to say.
        false
    }

    fn stored(&self) -> Vec<Range<u64>> {
        self.sink.stored()
    }

    fn farewell(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.receiver.farewell(now, buffer)
    }

    fn snapshot(&self) -> Snapshot {
        self.receiver.snapshot()
    }

    fn poll_sample(&mut self) -> Option<Sample> {
        self.receiver.poll_sample()
    }

    fn link(&self) -> &Link {
        self.receiver.link()
    }
}
