//! Sealed datagrams from memory to memory as fast as one thread at each end can: the most that any program
//! which encrypts UDP with AES-128-GCM can reach here.
//!
//! It knows nothing of haul's protocol: no acks, no pacing, no loss repair, no files. One `sendmsg` hands 64 KiB
//! to the kernel (`UDP_SEGMENT`), one `recvmsg` takes as much (`UDP_GRO`); each datagram has a header of its own
//! that is authenticated, and a tag of its own.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, recvmsg, sendmsg, setsockopt, sockopt,
};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::machine::CoreTime;
use super::report::Figures;

/// Clear bytes before the sealed ones, as haul's header has; the first eight are the packet number.
pub(super) const HEADER_BYTES: usize = 16;
/// AES-GCM's tag.
pub(super) const TAG_BYTES: usize = 16;
/// What one call may hand to the kernel: the longest UDP payload over IPv4.
const BATCH_BYTES: usize = 65_507;
/// A received train is at most this long.
const TRAIN_BYTES: usize = 65_536;
/// Asked for, as haul does; the kernel caps it at `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Silence after the last datagram that ends the receiver.
const SILENCE: Duration = Duration::from_millis(100);
/// Both ends know it; what it is does not matter.
const KEY: [u8; 16] = [0x42; 16];

/// The two ends of a blast, connected to each other.
#[derive(Debug)]
pub(super) struct Ends {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Ends {
    /// Two sockets on the loopback device.
    ///
    /// # Errors
    /// When the system gives no sockets.
    pub(super) fn on_loopback() -> io::Result<Self> {
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        let receiver = UdpSocket::bind("127.0.0.1:0")?;
        Self::connect(sender, receiver)
    }

    /// Connects two bound sockets, which may be in different network namespaces.
    ///
    /// # Errors
    /// When there is no way between them, or the kernel lacks UDP offloads (before 5.0).
    pub(super) fn connect(sender: UdpSocket, receiver: UdpSocket) -> io::Result<Self> {
        let (from, to): (SocketAddr, SocketAddr) = (sender.local_addr()?, receiver.local_addr()?);
        sender.connect(to)?;
        receiver.connect(from)?;
        setsockopt(&receiver, sockopt::UdpGroSegment, &true)?;
        setsockopt(&receiver, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
        receiver.set_read_timeout(Some(SILENCE))?;
        Ok(Self { sender, receiver })
    }
}

/// What a blast did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blasted {
    /// Plaintext that arrived and authenticated, in bits per second.
    pub(super) rate: f64,
    /// Datagrams that were sent and never opened, as a share.
    pub(super) lost: f64,
    /// Share of one core that the sending thread used.
    pub(super) sender_cpu: f64,
    /// Share of one core that the receiving thread used.
    pub(super) receiver_cpu: f64,
    /// Cores that others used meanwhile.
    pub(super) other_cores: f64,
}

impl Blasted {
    /// As the figures of one run.
    #[must_use]
    pub(super) fn figures(&self) -> Figures {
        Figures::from([
            ("rate_gbit", self.rate / 1e9),
            ("lost_share", self.lost),
            ("sender_cpu_cores", self.sender_cpu),
            ("receiver_cpu_cores", self.receiver_cpu),
            ("other_cores", self.other_cores),
        ])
    }
}

/// Sends datagrams of `datagram_bytes` (UDP payload) for `duration`, one thread at each end.
///
/// # Errors
/// When a socket fails.
///
/// # Panics
/// When `datagram_bytes` has no room for header, tag and a byte.
pub(super) fn blast(ends: &Ends, datagram_bytes: usize, duration: Duration) -> io::Result<Blasted> {
    assert!(datagram_bytes > HEADER_BYTES + TAG_BYTES && datagram_bytes <= BATCH_BYTES);
    let machine = CoreTime::now();
    let (start, over) = (Barrier::new(2), AtomicBool::new(false));
    let (sent, opened) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&ends.receiver, &start, &over));
        let sent = send(&ends.sender, datagram_bytes, duration, &start);
        over.store(true, Ordering::Release);
        (sent, receiver.join().expect("the receiving thread does not panic"))
    });
    let (sent, opened) = (sent?, opened?);
    let elapsed = opened.last.saturating_duration_since(sent.begun).as_secs_f64().max(1e-9);
    let others = machine.until_now().busy - sent.cpu.as_secs_f64() - opened.cpu.as_secs_f64();
    let plaintext_bits = (datagram_bytes - HEADER_BYTES - TAG_BYTES) as f64 * 8.0;
    Ok(Blasted {
        rate: opened.datagrams as f64 * plaintext_bits / elapsed,
        lost: 1.0 - opened.datagrams as f64 / sent.datagrams.max(1) as f64,
        sender_cpu: sent.cpu.as_secs_f64() / elapsed,
        receiver_cpu: opened.cpu.as_secs_f64() / elapsed,
        other_cores: others / elapsed,
    })
}

struct SentAll {
    begun: Instant,
    datagrams: u64,
    cpu: Duration,
}

struct OpenedAll {
    last: Instant,
    datagrams: u64,
    cpu: Duration,
}

fn send(socket: &UdpSocket, datagram: usize, duration: Duration, start: &Barrier) -> io::Result<SentAll> {
    let key = key();
    let segment = u16::try_from(datagram).expect("a datagram is shorter than 64 KiB");
    let mut batch = vec![0x5a; BATCH_BYTES / datagram * datagram];
    let mut number = 0_u64;
    start.wait();
    let (begun, cpu) = (Instant::now(), thread_cpu());
    while begun.elapsed() < duration {
        for datagram in batch.chunks_exact_mut(datagram) {
            seal(&key, number, datagram);
            number += 1;
        }
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let vector = [IoSlice::new(&batch)];
        match sendmsg(socket.as_raw_fd(), &vector, &control, MsgFlags::empty(), None::<&()>) {
            // A full device queue: these datagrams are lost, as on any path.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(SentAll { begun, datagrams: number, cpu: thread_cpu().saturating_sub(cpu) })
}

fn receive(socket: &UdpSocket, start: &Barrier, over: &AtomicBool) -> io::Result<OpenedAll> {
    let key = key();
    let mut train = vec![0; TRAIN_BYTES];
    let mut control = nix::cmsg_space!(i32);
    start.wait();
    let cpu = thread_cpu();
    let mut opened = OpenedAll { last: Instant::now(), datagrams: 0, cpu: Duration::ZERO };
    loop {
        let mut vector = [IoSliceMut::new(&mut train)];
        let message: Result<RecvMsg<'_, '_, ()>, Errno> =
            recvmsg(socket.as_raw_fd(), &mut vector, Some(&mut control), MsgFlags::empty());
        let (length, datagram) = match message {
            Ok(message) => (message.bytes, stride(&message)?),
            Err(Errno::EAGAIN) if over.load(Ordering::Acquire) => break,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let count = train[..length].chunks_mut(datagram).filter_map(|bytes| open(&key, bytes)).count();
        opened.datagrams += count as u64;
        opened.last = Instant::now();
    }
    opened.cpu = thread_cpu().saturating_sub(cpu);
    Ok(opened)
}

/// Length of the datagrams of a train.
fn stride(message: &RecvMsg<'_, '_, ()>) -> io::Result<usize> {
    let stride = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
        _ => None,
    });
    Ok(stride.unwrap_or(message.bytes).max(1))
}

fn seal(key: &LessSafeKey, number: u64, datagram: &mut [u8]) {
    let (header, rest) = datagram.split_at_mut(HEADER_BYTES);
    header[..8].copy_from_slice(&number.to_be_bytes());
    let (sealed, tag_place) = rest.split_at_mut(rest.len() - TAG_BYTES);
    let tag = key
        .seal_in_place_separate_tag(nonce(number), Aad::from(&*header), sealed)
        .expect("a datagram is far below the limit of AES-GCM");
    tag_place.copy_from_slice(tag.as_ref());
}

/// Plaintext bytes; none when it does not authenticate.
fn open(key: &LessSafeKey, datagram: &mut [u8]) -> Option<usize> {
    let (header, sealed) = datagram.split_at_mut_checked(HEADER_BYTES)?;
    let number = u64::from_be_bytes(header[..8].try_into().expect("eight bytes"));
    key.open_in_place(nonce(number), Aad::from(&*header), sealed).ok().map(|plaintext| plaintext.len())
}

fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY).expect("the key has 16 bytes"))
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Time that the calling thread has spent on a core.
fn thread_cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Duration::ZERO };
    let micros = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum::<i64>();
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_open_only_unchanged() {
        let mut datagram = vec![7; 1440];
        seal(&key(), 9, &mut datagram);
        let mut forged = datagram.clone();
        forged[3] ^= 1;
        assert_eq!(open(&key(), &mut forged), None);
        assert_eq!(open(&key(), &mut datagram), Some(1408));
        assert_eq!(open(&key(), &mut [0; 5]), None);
    }

    #[test]
    fn what_is_blasted_arrives() {
        let ends = Ends::on_loopback().unwrap();
        let blasted = blast(&ends, 1440, Duration::from_millis(50)).unwrap();
        assert!(blasted.rate > 0.0 && (0.0..1.0).contains(&blasted.lost), "{blasted:?}");
    }
}
