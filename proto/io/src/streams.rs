//! Stream carriers: sealed datagrams on byte streams, each as two bytes of length (big-endian) and then the datagram.
//! A stream is a socket of this machine whose other end somebody joins to a TLS connection or to the SSH channel. Not
//! here: TLS, SSH, and which carrier is used.
//!
//! What waits in a stream delays reports and pings too, so no more than one batch waits here for each, and the next one
//! goes to whichever has room.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

use haul_proto::constants::MAX_STREAM_DATAGRAM;
use haul_proto::ladder::Rung;
use socket2::SockRef;

/// Most streams of one session.
pub const MAX_STREAMS: usize = 32;

/// Bytes that are taken from a stream at once.
const READ_BYTES: usize = 256 << 10;

/// What may wait in each socket: enough that both ends need not be woken for each batch, and soon gone.
const SOCKET_BYTES: usize = 256 << 10;

/// Unsent bytes that the kernel may keep of a TCP connection that carries a stream.
const TCP_UNSENT: u32 = 128 << 10;

const LENGTH_BYTES: usize = 2;

/// Keeps what waits in a TCP connection short: a report must not queue behind megabytes. Without it the connection works
/// all the same.
pub fn bound_unsent(connection: &impl std::os::fd::AsFd) {
    let _ = SockRef::from(connection).set_tcp_notsent_lowat(TCP_UNSENT);
}

/// A pair of sockets for a stream: one end for the protocol thread, the other for whoever carries the bytes on.
///
/// # Errors
/// If the system has no more sockets.
pub fn pair() -> std::io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    for socket in [&one, &other] {
        // Smaller buffers cost speed, never correctness.
        let _ = SockRef::from(socket).set_send_buffer_size(SOCKET_BYTES);
        socket.set_nonblocking(true)?;
    }
    Ok((one, other))
}

/// One stream.
#[derive(Debug)]
struct Stream {
    socket: UnixStream,
    number: u16,
    kind: Rung,
    inbox: Vec<u8>,
    /// Bytes of the inbox that hold something.
    filled: usize,
    outbox: Vec<u8>,
    written: usize,
}

/// The streams of a session.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    all: Vec<Stream>,
    next_number: u16,
    /// Where the search for room begins, so that all are used.
    turn: usize,
}

/// Why a stream is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// The other end is closed, or failed.
    Gone,
    /// What came is no datagram.
    Garbage,
}

/// A stream that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) number: u16,
    pub(crate) kind: Rung,
}

impl Streams {
    /// Adds a stream. Beyond the limit it is dropped, which closes it.
    pub(crate) fn add(&mut self, socket: UnixStream, kind: Rung) {
        if self.all.len() >= MAX_STREAMS || socket.set_nonblocking(true).is_err() {
            return;
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let (inbox, outbox) = (vec![0; READ_BYTES], Vec::new());
        self.all.push(Stream { socket, number, kind, inbox, filled: 0, outbox, written: 0 });
    }

    pub(crate) fn count(&self, kind: Rung) -> usize {
        self.all.iter().filter(|stream| stream.kind == kind).count()
    }

    /// A stream with room for a batch, by its number. `kind` is preferred; without one of it none is taken.
    pub(crate) fn with_room(&mut self, kind: Rung) -> Option<u16> {
        let count = self.all.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Some(stream) = self.all.get_mut(at)
                && stream.kind == kind
                && stream.flush() == Ok(true)
            {
                self.turn = at + 1;
                return Some(stream.number);
            }
        }
        None
    }

    /// Hands datagrams to a stream, which [`Self::with_room`] has named.
    pub(crate) fn send(&mut self, number: u16, segment: usize, bytes: &[u8]) {
        let Some(stream) = self.all.iter_mut().find(|stream| stream.number == number) else { return };
        for datagram in bytes.chunks(segment.max(1)) {
            // Datagrams are shorter than 64 KiB: the sealer makes them so.
            let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
            stream.outbox.extend_from_slice(&length.to_be_bytes());
            stream.outbox.extend_from_slice(datagram);
        }
        // A stream that breaks here is found broken by the next read.
        let _ = stream.flush();
    }

    /// Takes what has come, at most once from each stream, and hands on each datagram with the kind of its stream.
    /// Returns whether there may be more at once.
    pub(crate) fn receive<E>(
        &mut self,
        lost: &mut Vec<Lost>,
        mut handle: impl FnMut(Rung, &mut [u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut more = false;
        let mut at = 0;
        while let Some(stream) = self.all.get_mut(at) {
            match stream.receive(&mut handle)? {
                Ok(full) => {
                    more |= full;
                    at += 1;
                }
                Err(broken) => {
                    if broken == Broken::Garbage {
                        tracing::warn!(
                            stream = stream.number,
                            "what came on a stream is no datagram; it is closed"
                        );
                    }
                    let stream = self.all.swap_remove(at);
                    lost.push(Lost { number: stream.number, kind: stream.kind });
                }
            }
        }
        Ok(more)
    }

    /// What to wait for: each socket, and whether something waits to be written there.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.all.iter().map(|stream| (stream.socket.as_fd(), !stream.outbox.is_empty()))
    }
}

impl Stream {
    /// Writes what waits. `true` if nothing waits any more.
    fn flush(&mut self) -> Result<bool, Broken> {
        while let Some(rest) = self.outbox.get(self.written..).filter(|rest| !rest.is_empty()) {
            match (&self.socket).write(rest) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken::Gone),
            }
        }
        self.outbox.clear();
        self.written = 0;
        Ok(true)
    }

    fn receive<E>(
        &mut self,
        handle: &mut impl FnMut(Rung, &mut [u8]) -> Result<(), E>,
    ) -> Result<Result<bool, Broken>, E> {
        let room = self.inbox.get_mut(self.filled..).unwrap_or_default();
        let (count, size) = match (&self.socket).read(room) {
            Ok(0) => return Ok(Err(Broken::Gone)),
            Ok(count) => (count, room.len()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(Ok(false));
            }
            Err(_) => return Ok(Err(Broken::Gone)),
        };
        self.filled += count;
        let mut taken = 0;
        loop {
            let rest = self.inbox.get_mut(taken..self.filled).unwrap_or_default();
            let Some((head, rest)) = rest.split_first_chunk_mut::<LENGTH_BYTES>() else { break };
            let length = usize::from(u16::from_be_bytes(*head));
            if length == 0 || length > MAX_STREAM_DATAGRAM {
                return Ok(Err(Broken::Garbage));
            }
            let Some(datagram) = rest.get_mut(..length) else { break };
            handle(self.kind, datagram)?;
            taken += LENGTH_BYTES + length;
        }
        self.inbox.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        Ok(Ok(count == size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(streams: &mut Streams) -> (Vec<Vec<u8>>, Vec<Lost>) {
        let (mut got, mut lost) = (Vec::new(), Vec::new());
        let more = |datagram: &mut [u8], got: &mut Vec<Vec<u8>>| got.push(datagram.to_vec());
        while streams
            .receive(&mut lost, |_, datagram| {
                more(datagram, &mut got);
                Ok::<(), ()>(())
            })
            .unwrap()
        {}
        (got, lost)
    }

    #[test]
    fn batches_arrive_as_the_datagrams_they_were_made_of_over_several_streams() {
        let (mut here, mut there) = (Streams::default(), Streams::default());
        for _ in 0..3 {
            let (one, other) = pair().unwrap();
            here.add(one, Rung::Https);
            there.add(other, Rung::Https);
        }
        let mut sent = Vec::new();
        let mut used = Vec::new();
        let mut got = Vec::new();
        for round in 0..200u8 {
            let Some(number) = here.with_room(Rung::Https) else { break };
            used.push(number);
            let batch = vec![round; 64_960];
            here.send(number, 16_240, &batch);
            sent.extend(batch.chunks(16_240).map(<[u8]>::to_vec));
            let (more, lost) = receive(&mut there);
            assert_eq!(lost, []);
            got.extend(more);
        }
        while got.len() < sent.len() {
            here.with_room(Rung::Https);
            got.extend(receive(&mut there).0);
        }
        sent.sort();
        got.sort();
        assert!(got == sent);
        assert!((0..3).all(|number| used.contains(&number)), "all are used");
    }

    #[test]
    fn a_stream_that_is_not_taken_from_is_full_after_a_bounded_amount_and_others_are_not_held_up() {
        let mut here = Streams::default();
        let (stuck, _kept) = pair().unwrap();
        let (free, mut reader) = pair().unwrap();
        here.add(stuck, Rung::Https);
        here.add(free, Rung::Https);
        let mut counts = [0; 2];
        for _ in 0..200 {
            let number = here.with_room(Rung::Https).expect("one of them has room");
            counts[usize::from(number)] += 1;
            here.send(number, 16_240, &[1; 64_960]);
            while let Ok(1..) = reader.read(&mut [0; 1 << 17]) {}
        }
        assert!(counts[0] < 20 && counts[1] > 150, "{counts:?}");
    }

    #[test]
    fn garbage_and_a_closed_end_cost_the_stream_and_nothing_else() {
        for (bytes, close) in [(&[0, 0, 1][..], false), (&[0xff, 0xff, 1][..], false), (&[][..], true)] {
            let mut streams = Streams::default();
            let (one, mut other) = pair().unwrap();
            streams.add(one, Rung::Ssh);
            other.write_all(bytes).unwrap();
            let _kept = (!close).then_some(other);
            let (got, lost) = receive(&mut streams);
            assert_eq!((got.len(), lost.len(), streams.count(Rung::Ssh)), (0, 1, 0));
        }
    }
}
