//! One end of the sealed path between the two data planes: opens and seals datagrams, refuses replays, and knows where
//! the peer is. Not here: what the datagrams say.
//!
//! A server learns the client's address from the first datagram that authenticates. Unless SSH came from the same IP
//! address, it sends there at most three times what it got from there, until a ping has been answered (RFC 9000 section
//! 8). Later the client may move (NAT rebinding, roaming): a datagram that authenticates, has the largest number so far
//! and comes from elsewhere makes the server ping that address; it moves there when the pong comes back from it. Until
//! then data goes to the old address, so a forged source can draw at most one ping per datagram of the peer's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ring::hmac;

use crate::Error;
use crate::constants::{
    BASE_DATAGRAM, FORGERY_LIMIT, HEADER_BYTES, PLAINTEXT_ALIGN, SILENCE_LIMIT, TAG_BYTES,
};
use crate::control::SecretHalf;
use crate::crypto::{Opener, Sealer, Seat, SessionSecret};
use crate::replay::ReplayWindow;
use crate::wire::frame::Frame;
use crate::wire::packet::{Header, PacketType};

/// What may be sent to an address that has not answered, in multiples of what came from it (RFC 9000 section 8.1).
const UNPROVEN_FACTOR: u64 = 3;

/// Token of pings that ask whether datagrams arrive in both directions; the sender's count from 1, path tokens are random.
pub(crate) const ECHO_TOKEN: u64 = 1 << 63;

/// A challenge to an unproven address is repeated after this, as long as datagrams come from there.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(50);

/// What both ends of a session agreed on.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Which end this is.
    pub seat: Seat,
    /// Connection id of the agreement.
    pub connection_id: u64,
    /// Source of the keys.
    pub secret: SessionSecret,
    /// Where the peer is; none for a server, which learns it.
    pub peer: Option<SocketAddr>,
    /// An IP address that the peer is known to have, because it logged in from there.
    pub proven: Option<IpAddr>,
    /// Randomness for path challenges that only this end knows. The keys of the session would not do: the peer, whose
    /// word about its address is being tested, knows them too.
    pub challenge_key: SecretHalf,
}

/// What datagrams travel on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// UDP: may lose and reorder, has to be paced, and limits the size.
    #[default]
    Udp,
    /// Byte streams, TLS or the SSH channel: lossless as long as they live, and paced by their back-pressure.
    Stream,
}

/// Datagrams to be sent, back to back in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// What on.
    pub way: Way,
    /// Where to, on UDP.
    pub to: SocketAddr,
    /// Bytes in the buffer.
    pub length: usize,
    /// Length of each datagram but the last, which may be shorter.
    pub segment: usize,
}

/// Counters of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams that authenticated and were new.
    pub received: u64,
    /// Their UDP payload bytes.
    pub received_bytes: u64,
    /// Datagrams that were none of ours: foreign, altered or replayed. They draw no answer.
    pub rejected: u64,
}

/// One end of the sealed path.
#[derive(Debug)]
pub struct Link {
    connection_id: u64,
    seat: Seat,
    sealer: Sealer,
    opener: Opener,
    replay: ReplayWindow,
    secret: SessionSecret,
    peer: Option<SocketAddr>,
    proven: Option<IpAddr>,
    /// What is sent on.
    way: Way,
    /// The peer has moved to another way since this was last asked.
    moved: bool,
    /// When something was last heard on UDP, and when it was last shown that datagrams arrive there in both directions.
    udp_heard: Option<Duration>,
    udp_echo: Option<Duration>,
    /// Bytes that may still go to a peer whose address is not proven.
    allowance: Option<u64>,
    challenge_key: hmac::Key,
    challenged: Option<(SocketAddr, u64)>,
    challenges: u64,
    challenge_due: bool,
    next_challenge: Duration,
    started: Duration,
    last_heard: Option<Duration>,
    forgeries: u64,
    stats: LinkStats,
}

/// A datagram that authenticated.
#[derive(Debug)]
pub struct Opened<'a> {
    /// What it carries.
    pub packet_type: PacketType,
    /// Its packet number.
    pub number: u64,
    /// Its UDP payload bytes.
    pub size: u16,
    /// Its plaintext.
    pub plaintext: &'a [u8],
}

impl Link {
    /// A link that has neither sent nor heard anything.
    #[must_use]
    pub fn new(now: Duration, config: &LinkConfig) -> Self {
        Self {
            connection_id: config.connection_id,
            seat: config.seat,
            sealer: config.secret.sealer(config.seat, 0),
            opener: config.secret.opener(config.seat.peer(), 0),
            replay: ReplayWindow::default(),
            secret: config.secret.clone(),
            peer: config.peer,
            proven: config.proven,
            way: Way::Udp,
            moved: false,
            udp_heard: None,
            udp_echo: None,
            allowance: None,
            challenge_key: hmac::Key::new(hmac::HMAC_SHA256, config.challenge_key.as_bytes()),
            challenged: None,
            challenges: 0,
            challenge_due: false,
            next_challenge: now,
            started: now,
            last_heard: None,
            forgeries: 0,
            stats: LinkStats::default(),
        }
    }

    /// Opens a datagram in place; it came over UDP from an address, or on a stream. `None` means: drop it without an
    /// answer.
    ///
    /// # Errors
    /// [`Error::ForgeryLimit`] once so many datagrams failed to authenticate that the key must not be used further.
    pub fn open<'a>(
        &mut self,
        now: Duration,
        from: Option<SocketAddr>,
        datagram: &'a mut [u8],
    ) -> Result<Option<Opened<'a>>, Error> {
        let size = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
        let header = Header::decode(datagram).filter(|header| {
            header.connection_id == self.connection_id
                && header.lane == 0
                && self.replay.is_new(header.number)
        });
        let Some(Header { packet_type, number, .. }) = header else {
            self.stats.rejected += 1;
            return Ok(None);
        };
        let (head, body) = datagram.split_at_mut(HEADER_BYTES);
        let Some(plaintext) = self.opener.open(number, head, body) else {
            self.stats.rejected += 1;
            self.forgeries += 1;
            return if self.forgeries > FORGERY_LIMIT { Err(Error::ForgeryLimit) } else { Ok(None) };
        };
        let largest = self.replay.accept(number);
        self.stats.received += 1;
        self.stats.received_bytes += u64::from(size);
        self.last_heard = Some(now);
        match from {
            Some(from) => {
                self.udp_heard = Some(now);
                self.on_heard_from(now, from, largest);
            }
            None => self.on_heard_on_stream(largest),
        }
        if let Some(allowance) = self.allowance.as_mut().filter(|_| from.is_some() && self.peer == from) {
            *allowance = allowance.saturating_add(UNPROVEN_FACTOR * u64::from(size));
        }
        Ok(Some(Opened { packet_type, number, size, plaintext }))
    }

    /// A stream belongs to the session by its token: the peer is there without further proof, if it is the newest.
    fn on_heard_on_stream(&mut self, largest: bool) {
        if self.seat == Seat::Server && largest && self.way != Way::Stream {
            self.set_way(Way::Stream);
            self.moved = true;
        }
    }

    /// Sends on this way from now on. A server follows its client by itself.
    pub const fn set_way(&mut self, way: Way) {
        self.way = way;
        self.challenged = None;
        self.challenge_due = false;
        if matches!(way, Way::Stream) {
            self.allowance = None;
        }
    }

    /// Whether the peer has moved to another way since this was last asked.
    pub(crate) const fn take_moved(&mut self) -> bool {
        std::mem::replace(&mut self.moved, false)
    }

    fn on_heard_from(&mut self, now: Duration, from: SocketAddr, largest: bool) {
        if self.seat == Seat::Server && self.way == Way::Stream {
            // The client tries whether UDP works again. It moves there by answering.
            if now >= self.next_challenge {
                self.challenge(now, from);
            }
            return;
        }
        let settled = self.peer == Some(from) && (self.allowance.is_none() || now < self.next_challenge);
        if self.seat == Seat::Client || settled || !largest {
            return;
        }
        if self.peer.is_none() {
            self.peer = Some(from);
            if self.proven == Some(from.ip().to_canonical()) {
                return;
            }
            self.allowance = Some(0);
        }
        self.challenge(now, from);
    }

    fn challenge(&mut self, now: Duration, from: SocketAddr) {
        if self.challenged.is_none_or(|(address, _)| address != from) {
            self.challenges += 1;
            self.challenged = Some((from, self.token(self.challenges)));
        }
        self.challenge_due = true;
        self.next_challenge = now + CHALLENGE_INTERVAL;
    }

    fn token(&self, count: u64) -> u64 {
        let tag = hmac::sign(&self.challenge_key, &count.to_be_bytes());
        tag.as_ref().first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
    }

    /// Takes a pong. Returns whether the peer's address changed by it.
    pub fn on_pong(&mut self, from: Option<SocketAddr>, token: u64) -> bool {
        let Some(from) = from.filter(|&from| self.challenged == Some((from, token))) else {
            return false;
        };
        if self.way == Way::Stream {
            self.way = Way::Udp;
            self.moved = true;
        }
        self.challenged = None;
        self.challenge_due = false;
        self.allowance = None;
        self.peer.replace(from) != Some(from)
    }

    /// A challenge to a new address of the peer, if one is due.
    pub fn poll_challenge(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (to, token) = self.challenged.filter(|_| self.challenge_due)?;
        self.challenge_due = false;
        let transmit = self.seal_frames(buffer, &[Frame::Ping { token, srtt_us: 0 }], None)?;
        Some(Transmit { way: Way::Udp, to, ..transmit })
    }

    /// A question on UDP while a stream is in use: whether anything comes back there.
    pub fn seal_probe(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let to = self.peer?;
        let ask = Frame::Ping { token: ECHO_TOKEN, srtt_us: 0 };
        let transmit = self.seal_frames(buffer, &[ask], Some(BASE_DATAGRAM))?;
        Some(Transmit { way: Way::Udp, to, ..transmit })
    }

    /// Datagrams are known to arrive on UDP in both directions.
    pub const fn on_udp_echo(&mut self, now: Duration) {
        self.udp_echo = Some(now);
    }

    /// When it was last shown that datagrams arrive on UDP in both directions.
    #[must_use]
    pub const fn udp_echo(&self) -> Option<Duration> {
        self.udp_echo
    }

    /// When something was last heard on UDP.
    #[must_use]
    pub const fn udp_heard(&self) -> Option<Duration> {
        self.udp_heard
    }

    /// Whether this end dialled.
    #[must_use]
    pub const fn is_client(&self) -> bool {
        matches!(self.seat, Seat::Client)
    }

    /// What is sent on.
    #[must_use]
    pub const fn way(&self) -> Way {
        self.way
    }

    /// Where datagrams go: none while nobody is known to be there.
    #[must_use]
    pub const fn destination(&self) -> Option<SocketAddr> {
        match (self.way, self.peer) {
            (Way::Stream, None) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
            (_, peer) => peer,
        }
    }

    /// Seals frames into one datagram, padded with zeros to `size` if given. `None` while the peer's address is unknown.
    pub fn seal_frames(
        &mut self,
        buffer: &mut Vec<u8>,
        frames: &[Frame],
        size: Option<u16>,
    ) -> Option<Transmit> {
        let to = self.destination()?;
        let start = buffer.len();
        buffer.extend_from_slice(&self.header(PacketType::Frames).encode());
        for frame in frames {
            frame.encode(buffer);
        }
        let plain_len = (buffer.len() - start - HEADER_BYTES).next_multiple_of(PLAINTEXT_ALIGN);
        let least = size.map_or(0, |size| usize::from(size).saturating_sub(HEADER_BYTES + TAG_BYTES));
        let length = HEADER_BYTES + plain_len.max(least) + TAG_BYTES;
        buffer.resize(start + length, 0);
        if let Some(datagram) = buffer.get_mut(start..) {
            self.seal(datagram);
        }
        Some(Transmit { way: self.way, to, length, segment: length })
    }

    /// The clear header of the next datagram.
    #[must_use]
    pub const fn header(&self, packet_type: PacketType) -> Header {
        Header { packet_type, lane: 0, connection_id: self.connection_id, number: self.sealer.next_number() }
    }

    /// Seals one datagram in place and returns its packet number.
    pub fn seal(&mut self, datagram: &mut [u8]) -> u64 {
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.saturating_sub(datagram.len() as u64);
        }
        self.sealer.seal(datagram)
    }

    /// Bytes that may go to the peer now: no bound once its address is proven.
    #[must_use]
    pub fn allowance(&self) -> u64 {
        self.allowance.unwrap_or(u64::MAX)
    }

    /// Packets that may be under way at most.
    #[must_use]
    pub const fn max_unsettled(&self) -> usize {
        self.secret.max_unsettled()
    }

    /// The number that the next datagram will have.
    #[must_use]
    pub const fn next_number(&self) -> u64 {
        self.sealer.next_number()
    }

    /// Where the peer is.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether the peer has been heard.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.last_heard.is_some()
    }

    /// How long the peer has been silent.
    #[must_use]
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_heard.unwrap_or(self.started))
    }

    /// Whether the peer was there and has been silent for too long.
    #[must_use]
    pub fn is_lost(&self, now: Duration) -> bool {
        self.is_established() && self.silence(now) > SILENCE_LIMIT
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> LinkStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Cipher, SecretHalf};

    const NOW: Duration = Duration::from_secs(1);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn pair() -> (Link, Link) {
        let halves = (SecretHalf::new([1; 32]), SecretHalf::new([2; 32]));
        let secret = SessionSecret::new(Cipher::Aes128Gcm, "s", &halves.0, &halves.1);
        let config = |seat, peer| LinkConfig {
            seat,
            connection_id: 7,
            secret: secret.clone(),
            peer,
            proven: Some(address(0).ip()),
            challenge_key: SecretHalf::new([9; 32]),
        };
        (Link::new(NOW, &config(Seat::Client, Some(address(9)))), Link::new(NOW, &config(Seat::Server, None)))
    }

    fn ping(link: &mut Link) -> Vec<u8> {
        let mut buffer = Vec::new();
        link.seal_frames(&mut buffer, &[Frame::Ping { token: 1, srtt_us: 0 }], None).unwrap();
        buffer
    }

    #[test]
    fn a_server_is_silent_until_a_datagram_authenticates() {
        let (mut client, mut server) = pair();
        let mut buffer = Vec::new();
        assert_eq!(server.seal_frames(&mut buffer, &[], None), None);
        let mut noise = vec![0x20; 64];
        assert!(server.open(NOW, Some(address(1)), &mut noise).unwrap().is_none());
        assert_eq!(server.peer(), None);
        let mut hello = ping(&mut client);
        assert!(server.open(NOW, Some(address(1)), &mut hello.clone()).unwrap().is_some());
        assert_eq!(server.peer(), Some(address(1)));
        assert!(server.open(NOW, Some(address(1)), &mut hello).unwrap().is_none(), "replayed");
        assert_eq!(server.stats().rejected, 2);
    }

    #[test]
    fn the_peer_moves_only_when_the_new_address_answers_the_challenge() {
        let (mut client, mut server) = pair();
        server.open(NOW, Some(address(1)), &mut ping(&mut client)).unwrap().unwrap();
        let late = ping(&mut client);
        server.open(NOW, Some(address(2)), &mut ping(&mut client)).unwrap().unwrap();
        assert_eq!(server.peer(), Some(address(1)), "not before the pong");
        let mut buffer = Vec::new();
        let challenge = server.poll_challenge(&mut buffer).unwrap();
        assert_eq!(challenge.to, address(2));
        let token = server.token(1);
        assert_eq!(server.poll_challenge(&mut buffer), None, "one per datagram");
        server.open(NOW, Some(address(3)), &mut late.clone()).unwrap().unwrap();
        assert_eq!(server.poll_challenge(&mut buffer), None, "an older datagram moves nothing");
        assert!(!server.on_pong(Some(address(3)), token), "pong from elsewhere");
        assert!(!server.on_pong(Some(address(2)), token ^ 1), "wrong token");
        assert!(server.on_pong(Some(address(2)), token));
        assert_eq!(server.peer(), Some(address(2)));
    }

    #[test]
    fn an_address_that_ssh_did_not_come_from_gets_three_times_what_it_sent_until_it_answers() {
        let (mut client, mut server) = pair();
        let elsewhere = SocketAddr::from(([127, 0, 0, 9], 1));
        let hello = ping(&mut client);
        server.open(NOW, Some(elsewhere), &mut hello.clone()).unwrap().unwrap();
        assert_eq!(server.allowance(), 3 * hello.len() as u64);
        let mut buffer = Vec::new();
        let challenge = server.poll_challenge(&mut buffer).unwrap();
        assert_eq!(
            (challenge.to, server.allowance()),
            (elsewhere, 3 * hello.len() as u64 - challenge.length as u64)
        );
        server.open(NOW, Some(elsewhere), &mut ping(&mut client)).unwrap().unwrap();
        assert_eq!(server.poll_challenge(&mut buffer), None, "not again at once");
        server.open(NOW + CHALLENGE_INTERVAL, Some(elsewhere), &mut ping(&mut client)).unwrap().unwrap();
        assert!(server.poll_challenge(&mut buffer).is_some(), "but again, should it have been lost");
        let token = server.token(1);
        assert!(!server.on_pong(Some(elsewhere), token), "it is where it was");
        assert_eq!(server.allowance(), u64::MAX);
    }

    #[test]
    fn a_server_follows_its_client_to_a_stream_at_once_and_back_only_by_an_answered_challenge() {
        let (mut client, mut server) = pair();
        server.open(NOW, Some(address(1)), &mut ping(&mut client)).unwrap().unwrap();
        let late = ping(&mut client);
        client.set_way(Way::Stream);
        server.open(NOW, None, &mut ping(&mut client)).unwrap().unwrap();
        assert_eq!((server.way(), server.take_moved()), (Way::Stream, true));
        // What was under way on UDP takes it nowhere, nor does a probe, until the client answers there.
        server.open(NOW, Some(address(1)), &mut late.clone()).unwrap().unwrap();
        assert_eq!((server.way(), server.take_moved()), (Way::Stream, false));
        let mut buffer = Vec::new();
        let challenge = server.poll_challenge(&mut buffer).unwrap();
        assert_eq!((challenge.way, challenge.to), (Way::Udp, address(1)));
        let token = server.token(1);
        assert!(!server.on_pong(None, token), "an answer on the stream says nothing about UDP");
        assert_eq!(server.way(), Way::Stream);
        server.on_pong(Some(address(1)), token);
        assert_eq!((server.way(), server.take_moved()), (Way::Udp, true));
    }

    #[test]
    fn a_server_that_never_heard_udp_answers_on_the_stream() {
        let (mut client, mut server) = pair();
        client.set_way(Way::Stream);
        server.open(NOW, None, &mut ping(&mut client)).unwrap().unwrap();
        let mut buffer = Vec::new();
        assert_eq!(server.seal_frames(&mut buffer, &[], None).unwrap().way, Way::Stream);
        assert_eq!(server.allowance(), u64::MAX);
    }
}
