//! What leaves next: challenges and frames, path MTU probes, then data in batches of equal datagrams that one GSO call
//! can send. Sealing happens in the caller's buffer; nothing is allocated per packet.

use std::time::Duration;

use super::Sender;
use crate::constants::{
    BASE_DATAGRAM, DATA_HEADER_BYTES, DATA_OVERHEAD, FIRST_FLIGHT_PACKETS, HEADER_BYTES, IP_OVERHEAD,
    PLAINTEXT_ALIGN, SHORT_PATH, SOCKET_BUFFER_MIN, TAG_BYTES,
};
use crate::link::{Transmit, Way};
use crate::loss::{Cargo, Path, Piece};
use crate::stats::Limiter;
use crate::wire::frame::Frame;
use crate::wire::packet::{DataHeader, Object, PacketType};

impl Sender {
    /// The next datagrams, sealed into `buffer`, which is cleared first; `None` if nothing may go now.
    pub fn poll_transmit(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        // What held at the last call has held until now.
        let (limiter, since) = self.limiter;
        if !self.latest.complete {
            self.limits.add(limiter, now.saturating_sub(since));
        }
        self.limiter = (Limiter::Network, now);
        let transmit = self.poll_next(now, buffer);
        if transmit.is_some() {
            // A stream that takes no more is the network, as long as it does.
            let streaming = self.link.way() == Way::Stream;
            self.limiter.0 = if streaming { Limiter::Network } else { Limiter::SenderCpu };
        }
        transmit
    }

    fn poll_next(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        self.paced_until = None;
        if let Some(transmit) = self.poll_frames(now, buffer) {
            return Some(transmit);
        }
        self.link.destination()?;
        if self.latest.complete {
            return None;
        }
        if let Some(transmit) = self.poll_mtu_probe(now, buffer) {
            return Some(transmit);
        }
        if self.probes_due > 0 {
            self.probes_due -= 1;
            if let Some(transmit) = self.poll_repair_probe(now, buffer) {
                return Some(transmit);
            }
        }
        self.poll_data(now, buffer)
    }

    fn poll_frames(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let number = self.link.next_number();
        if let Some(transmit) = self.link.poll_challenge(buffer) {
            // Challenges go over UDP, whatever else is in use.
            self.enter(number, now, Cargo::Frames, transmit.length, Path::Udp);
            return Some(transmit);
        }
        let ping = now >= self.next_ping;
        if self.link.destination().is_none() {
            if ping {
                self.next_ping = now + self.ping_interval();
            }
            return None;
        }
        if !ping && self.pongs.is_empty() {
            return None;
        }
        let mut frames: Vec<Frame> = self.pongs.drain(..).map(|token| Frame::Pong { token }).collect();
        if ping {
            self.next_ping = now + self.ping_interval();
            self.ping_token += 1;
            let srtt =
                self.rtt.sampled().map_or(0, |rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1));
            frames.push(Frame::Ping { token: self.ping_token, srtt_us: srtt });
            frames.extend(self.sample(now).map(Frame::Stats));
        }
        // The first datagrams are padded to the size that the path must carry, so that a path that cannot is noticed.
        let size = (!self.link.is_established()).then_some(BASE_DATAGRAM);
        let transmit = self.link.seal_frames(buffer, &frames, size)?;
        self.enter(number, now, Cargo::Frames, transmit.length, self.path);
        Some(transmit)
    }

    fn poll_mtu_probe(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        if self.link.allowance() < u64::MAX || self.link.way() == Way::Stream {
            return None;
        }
        self.rtt.sampled()?;
        let size = self.mtu.poll_probe(now)?;
        let number = self.link.next_number();
        let transmit = self.link.seal_frames(buffer, &[], Some(size))?;
        self.enter(number, now, Cargo::Probe, transmit.length, self.path);
        Some(transmit)
    }

    /// Sends the oldest piece of unknown fate again, whatever window and pacer say.
    fn poll_repair_probe(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let to = self.link.destination()?;
        if self.link.allowance() < u64::from(BASE_DATAGRAM) {
            return None;
        }
        let skip = usize::from(self.probes_due == 0);
        let piece = self.ledger.unsettled().nth(skip)?;
        let most = u64::from(BASE_DATAGRAM) - DATA_OVERHEAD as u64;
        let range = self.first_unacked(piece).unwrap_or_else(|| piece.range());
        let length = (range.end - range.start).min(most) as u16;
        let piece = Piece { offset: range.start, length, ..piece };
        self.stats.retransmitted_bytes += u64::from(piece.length);
        let length = self.build(now, buffer, piece)?;
        self.pacer.on_sent(length as u64);
        Some(Transmit { way: self.link.way(), to, length, segment: length })
    }

    fn poll_data(&mut self, now: Duration, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let to = self.link.destination()?;
        self.plan_replay(now);
        let datagram = self.datagram();
        let host_window = self.host_window();
        let window = self.window(host_window, datagram);
        self.set_pace(now);
        let batch = self.pacer.batch_bytes();
        let allowance = self.link.allowance();
        if self.ledger.in_flight() + u64::from(datagram) > window
            || self.ledger.len() >= self.link.max_unsettled()
            || allowance < u64::from(datagram)
        {
            if window == host_window {
                self.limiter.0 = Limiter::ReceiverCpu;
            }
            return None;
        }
        if !self.pacer.may_send(now) {
            if self.rate.is_at_target() || self.link.way() == Way::Stream {
                self.limiter.0 = Limiter::TargetRate;
            }
            self.paced_until = Some(self.pacer.ready_at());
            return None;
        }
        let most = usize::from(datagram) - DATA_OVERHEAD;
        let segment = usize::from(datagram);
        let batch = batch.min(allowance) as usize;
        let mut packets = 0;
        while buffer.len() + segment <= batch
            && self.ledger.in_flight() + u64::from(datagram) <= window
            && (self.link.is_established() || self.stats.packets < FIRST_FLIGHT_PACKETS)
        {
            let Some(piece) = self.next_piece(now, most as u64) else {
                self.idle |= buffer.is_empty();
                break;
            };
            let Some(length) = self.build(now, buffer, piece) else {
                break;
            };
            packets += 1;
            if length < segment {
                break;
            }
        }
        let length = buffer.len();
        if length == 0 {
            self.limiter.0 = self.why_idle();
            return None;
        }
        self.sampling.began.get_or_insert(now);
        self.pacer.on_sent(length as u64 + packets * IP_OVERHEAD);
        Some(Transmit { way: self.link.way(), to, length, segment: segment.min(length) })
    }

    /// What may be under way. Two datagrams always: a window below one would stop a slow flow for ever. On a stream it is
    /// back-pressure that says when there is no more room.
    fn window(&self, host_window: u64, datagram: u16) -> u64 {
        match self.link.way() {
            Way::Stream => u64::MAX,
            Way::Udp => self.rate.window().min(host_window).max(2 * u64::from(datagram)),
        }
    }

    /// Why there is nothing to send although more might go.
    fn why_idle(&self) -> Limiter {
        if self.content.is_waiting_for_credit(self.credit) {
            if self.latest.disk_behind { Limiter::ReceiverDisk } else { Limiter::PeerCredit }
        } else if self.content.all_sent() && self.manifest.all_sent() {
            // The last packets are under way, or have arrived and are being stored.
            if self.ledger.in_flight() > 0 { Limiter::Network } else { Limiter::ReceiverDisk }
        } else {
            Limiter::SenderDisk
        }
    }

    /// What may be under way without overflowing the receiver's socket buffer while its process waits for a CPU. On a long
    /// path most of it is in the network, and cannot be held back in time.
    fn host_window(&self) -> u64 {
        let rtt = self.rtt.minimum();
        if self.latest.buffer == 0 || rtt > SHORT_PATH {
            return u64::MAX;
        }
        self.latest.buffer.max(SOCKET_BUFFER_MIN).saturating_add(self.rate.rate().bytes_in(rtt))
    }

    /// Repair, then manifest, then new content, then tail replay.
    fn next_piece(&mut self, now: Duration, most: u64) -> Option<Piece> {
        let piece = |object, range: std::ops::Range<u64>| Piece {
            object,
            offset: range.start,
            length: (range.end - range.start) as u16,
        };
        if let Some(repair) = self.next_repair(most) {
            return Some(repair);
        }
        if let Some(range) = self.manifest.next_piece(most, self.manifest_credit) {
            return Some(piece(Object::Manifest, range));
        }
        self.content.next_piece(now, most, self.credit).map(|range| piece(Object::Content, range))
    }

    fn next_repair(&mut self, most: u64) -> Option<Piece> {
        loop {
            let (piece, from_replay) = match self.resend.pop_front() {
                Some(piece) => (piece, false),
                None => (self.replay.pop_front()?, true),
            };
            let Some(gap) = self.first_unacked(piece) else {
                continue;
            };
            let end = gap.end.min(gap.start + most);
            if end < piece.range().end {
                let rest = Piece { offset: end, length: (piece.range().end - end) as u16, ..piece };
                let queue = if from_replay { &mut self.replay } else { &mut self.resend };
                queue.push_front(rest);
            }
            let length = (end - gap.start) as u16;
            self.stats.retransmitted_bytes += u64::from(length);
            return Some(Piece { offset: gap.start, length, ..piece });
        }
    }

    fn first_unacked(&self, piece: Piece) -> Option<std::ops::Range<u64>> {
        match piece.object {
            Object::Manifest => self.manifest.first_unacked(&piece.range()),
            Object::Content => self.content.first_unacked(&piece.range()),
        }
    }

    /// Appends one sealed DATA datagram; its length. `None`, with nothing appended, if the content is not in memory.
    fn build(&mut self, now: Duration, buffer: &mut Vec<u8>, piece: Piece) -> Option<usize> {
        let start = buffer.len();
        let content = usize::from(piece.length);
        let length =
            HEADER_BYTES + (DATA_HEADER_BYTES + content).next_multiple_of(PLAINTEXT_ALIGN) + TAG_BYTES;
        let header = DataHeader {
            sent_us: now.as_micros() as u32,
            floor: self.ledger.floor() as u32,
            object: piece.object,
            offset: piece.offset,
            length: piece.length,
        };
        buffer.extend_from_slice(&self.link.header(PacketType::Data).encode());
        buffer.extend_from_slice(&header.encode());
        let copied = match piece.object {
            Object::Manifest => self.manifest.append(piece.offset, content, buffer),
            Object::Content => self.content.append(piece.offset, content, buffer),
        };
        if !copied {
            buffer.truncate(start);
            return None;
        }
        buffer.resize(start + length, 0);
        let datagram = buffer.get_mut(start..)?;
        let number = self.link.seal(datagram);
        self.enter(number, now, Cargo::Piece(piece), length, self.path);
        Some(length)
    }

    pub(super) fn enter(&mut self, number: u64, now: Duration, cargo: Cargo, length: usize, path: Path) {
        if self.ledger.in_flight() == 0 {
            self.last_progress = now;
        }
        self.ledger.on_sent(number, now, cargo, length as u16, path);
        self.stats.packets += 1;
        self.stats.wire_bytes += length as u64 + IP_OVERHEAD;
    }
}
