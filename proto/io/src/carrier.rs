//! The UDP carrier: sends batches with segmentation offload, receives trains with receive offload. Not here: pacing,
//! what the datagrams are.
//!
//! Offload is what makes a fast sender possible: one call hands 64 KiB to the kernel, and one call takes 64 KiB back
//! (measured: 24 times the rate of single calls). Where the network card or kernel cannot, quinn-udp notices, and the
//! batch goes out datagram by datagram.
//!
//! quinn-udp writes the whole traffic class of each datagram, with ECN and without DSCP, whatever the socket's option
//! says. So marked datagrams are sent here.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use haul_proto::dscp::Dscp;
use haul_proto::link::Transmit;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

/// A received train is at most this long; a shorter buffer would lose data without a word.
const TRAIN_BYTES: usize = 65_536;

/// Trains taken with one call.
const TRAINS: usize = 4;

/// Socket buffers asked for; the kernel caps them at `net.core.rmem_max` and `wmem_max`.
const RECEIVE_BUFFER: usize = 8 << 20;
/// A receive buffer below this, bytes, is worth a word: it holds 2 ms of 4 Gbit/s.
const SMALL_BUFFER: usize = 1 << 20;
/// A larger send buffer would only hide a queue in this host.
const SEND_BUFFER: usize = 1 << 20;

/// What became of a batch handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took it.
    Taken,
    /// The kernel has no room: try again when the socket is writable.
    Full,
    /// The datagrams are too large for the way out.
    TooBig,
    /// The kernel refused it; the datagrams count as lost.
    Refused(Errno),
}

/// What one call took from the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// UDP payload bytes.
    pub bytes: u64,
    /// Whether there may be more at once.
    pub more: bool,
}

/// A UDP socket of one session.
#[derive(Debug)]
pub struct UdpCarrier {
    socket: UdpSocket,
    state: UdpSocketState,
    connected: bool,
    dscp: Dscp,
    /// Most datagrams one call may send.
    segments: usize,
    source: Option<IpAddr>,
    buffers: Vec<u8>,
    /// ECONNREFUSED and the like, told by ICMP and therefore only a hint.
    unreachable: u64,
    refused: Option<Errno>,
}

impl UdpCarrier {
    /// A server's socket: the first free port of `ports` at `address`, or at any address of its family.
    ///
    /// # Errors
    /// The last error if no port can be bound.
    pub fn bind(address: Option<IpAddr>, ports: RangeInclusive<u16>) -> io::Result<Self> {
        let mut last = io::Error::from(ErrorKind::InvalidInput);
        let address = address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        for port in ports {
            match open(SocketAddr::new(address, port)) {
                Ok(socket) => return Self::new(socket, false),
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && !address.is_unspecified() => {
                    return Self::bind(Some(unspecified(address)), port..=port);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A client's socket, connected to the server.
    ///
    /// # Errors
    /// If the socket cannot be made or there is no route.
    pub fn connect(peer: SocketAddr) -> io::Result<Self> {
        let socket = open(SocketAddr::new(unspecified(peer.ip()), 0))?;
        socket.connect(peer)?;
        Self::new(socket, true)
    }

    fn new(socket: UdpSocket, connected: bool) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // Failing to enlarge a buffer costs speed, never correctness.
        let _ = state.set_recv_buffer_size((&socket).into(), RECEIVE_BUFFER);
        let _ = state.set_send_buffer_size((&socket).into(), SEND_BUFFER);
        // The kernel reports twice the room for data, the rest being for its book-keeping (socket(7)).
        let granted = state.recv_buffer_size((&socket).into()).unwrap_or(0) / 2;
        if granted < SMALL_BUFFER {
            tracing::info!(
                bytes = granted,
                "the kernel keeps the receive buffer small: net.core.rmem_max = {RECEIVE_BUFFER} spares fast transfers losses"
            );
        }
        Ok(Self {
            socket,
            state,
            connected,
            dscp: Dscp::BEST_EFFORT,
            segments: usize::MAX,
            source: None,
            buffers: vec![0; TRAIN_BYTES * TRAINS],
            unreachable: 0,
            refused: None,
        })
    }

    /// Bytes that should wait in the socket at most, arrived but not yet taken; 0 if the kernel does not tell its size.
    #[must_use]
    pub fn receive_buffer(&self) -> u64 {
        // Half of the room for data, which is half of what the kernel reports: filled further, what arrives has left the
        // cache before it is opened.
        self.state.recv_buffer_size((&self.socket).into()).map_or(0, |bytes| bytes as u64 / 4)
    }

    /// Marks all that is sent from now on.
    pub const fn set_dscp(&mut self, dscp: Dscp) {
        self.dscp = dscp;
    }

    /// The local port.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Hands a batch to the kernel.
    pub fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> Sent {
        let most = self.state.max_gso_segments().min(self.segments).max(1) * transmit.segment;
        let mut outcome = Sent::Taken;
        for chunk in bytes.chunks(most.max(1)) {
            outcome = self.send_chunk(transmit, chunk);
            if outcome != Sent::Taken {
                break;
            }
        }
        outcome
    }

    fn send_chunk(&mut self, transmit: &Transmit, bytes: &[u8]) -> Sent {
        let message = quinn_udp::Transmit {
            destination: transmit.to,
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > transmit.segment).then_some(transmit.segment),
            src_ip: self.source,
        };
        let sent = if self.dscp == Dscp::BEST_EFFORT {
            self.state.try_send((&self.socket).into(), &message)
        } else {
            send_marked(&self.socket, &message, self.dscp)
        };
        let Err(error) = sent else {
            return Sent::Taken;
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN | Errno::ENOBUFS) => Sent::Full,
            Some(Errno::EMSGSIZE) => Sent::TooBig,
            Some(errno @ (Errno::EIO | Errno::EINVAL)) if message.segment_size.is_some() => {
                // The same bytes again, one by one.
                self.segments = 1;
                tracing::info!(%errno, "segmentation offload is not available");
                self.send(transmit, bytes)
            }
            Some(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                self.unreachable += 1;
                Sent::Taken
            }
            Some(errno) => {
                self.refused = Some(errno);
                Sent::Refused(errno)
            }
            None => Sent::Full,
        }
    }

    /// Takes what has arrived, at most one call's worth, and hands on each datagram.
    ///
    /// # Errors
    /// The error of `handle`. Errors of the socket are hints from the network and are counted.
    pub fn receive<E>(
        &mut self,
        mut handle: impl FnMut(SocketAddr, &mut [u8]) -> Result<(), E>,
    ) -> Result<Received, E> {
        let mut metas = [RecvMeta::default(); TRAINS];
        let count = {
            let mut trains = self.buffers.chunks_mut(TRAIN_BYTES);
            let mut slices: [IoSliceMut<'_>; TRAINS] =
                std::array::from_fn(|_| IoSliceMut::new(trains.next().unwrap_or_default()));
            match self.state.recv((&self.socket).into(), &mut slices, &mut metas) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock && error.kind() != ErrorKind::Interrupted {
                        self.unreachable += 1;
                    }
                    return Ok(Received { bytes: 0, more: false });
                }
            }
        };
        let mut bytes = 0;
        for (train, meta) in self.buffers.chunks_mut(TRAIN_BYTES).zip(&metas).take(count) {
            if !self.connected {
                // Answer from the address that was asked, whichever of this host's it is.
                self.source = meta.dst_ip;
            }
            let from = normalized(meta.addr);
            let Some(train) = train.get_mut(..meta.len) else {
                continue;
            };
            for datagram in train.chunks_mut(meta.stride.max(1)) {
                handle(from, datagram)?;
            }
            bytes += meta.len as u64;
        }
        Ok(Received { bytes, more: count == TRAINS })
    }

    /// How often the network said that the peer cannot be reached.
    #[must_use]
    pub const fn unreachable(&self) -> u64 {
        self.unreachable
    }

    /// The last error with which this host itself refused to send.
    #[must_use]
    pub const fn refused(&self) -> Option<Errno> {
        self.refused
    }

    /// The descriptor to wait on.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends as quinn-udp does, with DSCP in place of ECN.
fn send_marked(socket: &UdpSocket, message: &quinn_udp::Transmit<'_>, dscp: Dscp) -> io::Result<()> {
    let (class, wide_class) = (dscp.traffic_class(), i32::from(dscp.traffic_class()));
    let segment = u16::try_from(message.segment_size.unwrap_or_default()).unwrap_or(u16::MAX);
    let (v4, v6) = (message.src_ip.and_then(packet_info_v4), message.src_ip.and_then(packet_info_v6));
    // A socket for both families sends to IPv4 as ::ffff:a.b.c.d, and the kernel reads the options of IPv4 then.
    let mut controls = vec![if message.destination.ip().to_canonical().is_ipv4() {
        ControlMessage::Ipv4Tos(&class)
    } else {
        ControlMessage::Ipv6TClass(&wide_class)
    }];
    controls.extend(message.segment_size.map(|_| ControlMessage::UdpGsoSegments(&segment)));
    controls.extend(v4.as_ref().map(ControlMessage::Ipv4PacketInfo));
    controls.extend(v6.as_ref().map(ControlMessage::Ipv6PacketInfo));
    let to = SockaddrStorage::from(message.destination);
    let contents = [IoSlice::new(message.contents)];
    loop {
        match sendmsg(socket.as_raw_fd(), &contents, &controls, MsgFlags::empty(), Some(&to)) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// The source address of IPv4, as the kernel takes it.
const fn packet_info_v4(source: IpAddr) -> Option<libc::in_pktinfo> {
    let IpAddr::V4(address) = source else { return None };
    let none = libc::in_addr { s_addr: 0 };
    let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
    Some(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: none })
}

/// The source address of IPv6.
const fn packet_info_v6(source: IpAddr) -> Option<libc::in6_pktinfo> {
    let IpAddr::V6(address) = source else { return None };
    Some(libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: address.octets() }, ipi6_ifindex: 0 })
}

/// Opens a socket. Session sockets are created here and nowhere else.
fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// An address without what varies between datagrams of one peer.
const fn normalized(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(mut v6) => {
            v6.set_flowinfo(0);
            SocketAddr::V6(v6)
        }
    }
}

#[cfg(test)]
mod tests {
    use haul_proto::link::Way;

    use super::*;

    fn receive_all(carrier: &mut UdpCarrier, bytes: usize) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while got.iter().map(Vec::len).sum::<usize>() < bytes && std::time::Instant::now() < deadline {
            carrier
                .receive(|_, datagram| {
                    got.push(datagram.to_vec());
                    Ok::<(), ()>(())
                })
                .unwrap();
        }
        got
    }

    #[test]
    fn a_batch_arrives_as_the_datagrams_it_was_made_of() {
        for local in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let mut server = UdpCarrier::bind(Some(local), 0..=0).unwrap();
            let to = SocketAddr::new(local, server.port().unwrap());
            let mut client = UdpCarrier::connect(to).unwrap();
            let bytes: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
            let transmit = Transmit { way: Way::Udp, to, length: bytes.len(), segment: 1440 };
            assert_eq!(client.send(&transmit, &bytes), Sent::Taken);
            let got = receive_all(&mut server, bytes.len());
            assert_eq!(got.concat(), bytes);
            assert!(got[..41].iter().all(|datagram| datagram.len() == 1440));
        }
    }

    #[test]
    fn a_marked_batch_arrives_over_both_families() {
        // On a wildcard socket IPv4 has the form ::ffff:a.b.c.d.
        let cases = [
            (Ipv4Addr::LOCALHOST.into(), Some(Ipv4Addr::LOCALHOST.into())),
            (Ipv6Addr::LOCALHOST.into(), Some(Ipv6Addr::LOCALHOST.into())),
            (Ipv4Addr::LOCALHOST.into(), None),
        ];
        for (dialled, bound) in cases {
            let mut server = UdpCarrier::bind(bound, 0..=0).unwrap();
            let mut client = UdpCarrier::connect(SocketAddr::new(dialled, server.port().unwrap())).unwrap();
            let bytes: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
            let to = SocketAddr::new(dialled, server.port().unwrap());
            client.set_dscp(Dscp::parse("EF").unwrap());
            let transmit = Transmit { way: Way::Udp, to, length: bytes.len(), segment: 1440 };
            assert_eq!(client.send(&transmit, &bytes), Sent::Taken);
            let mut from = None;
            let mut got = 0;
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while got < bytes.len() && std::time::Instant::now() < deadline {
                let _ = server.receive(|peer, datagram| {
                    (from, got) = (Some(peer), got + datagram.len());
                    Ok::<(), ()>(())
                });
            }
            assert_eq!(got, bytes.len(), "{dialled} {bound:?}");
            // Back, from the address that was asked.
            server.set_dscp(Dscp::parse("CS1").unwrap());
            let back = Transmit { way: Way::Udp, to: from.unwrap(), length: 3000, segment: 1000 };
            assert_eq!(server.send(&back, &bytes[..3000]), Sent::Taken);
            assert_eq!(receive_all(&mut client, 3000).concat(), bytes[..3000], "{dialled} {bound:?}");
        }
    }

    #[test]
    fn the_first_free_port_of_the_range_is_taken() {
        let local = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let first = UdpCarrier::bind(local, 0..=0).unwrap();
        let port = first.port().unwrap();
        assert!(UdpCarrier::bind(local, port..=port).is_err());
        let second = UdpCarrier::bind(local, port..=port.saturating_add(20)).unwrap();
        assert_ne!(second.port().unwrap(), port);
    }

    #[test]
    fn a_datagram_beyond_the_interface_is_refused_as_too_big() {
        let server = UdpCarrier::bind(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0..=0).unwrap();
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), server.port().unwrap());
        let mut client = UdpCarrier::connect(to).unwrap();
        let transmit = Transmit { way: Way::Udp, to, length: 70_000, segment: 70_000 };
        assert_eq!(client.send(&transmit, &[0; 70_000]), Sent::TooBig);
    }
}
