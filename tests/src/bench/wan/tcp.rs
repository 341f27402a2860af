//! One plain TCP flow under a congestion control of choice, from memory to memory.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::track::Track;
use crate::wan::Wan;

/// How often the end of the flow is looked for, and how often what has arrived is noted.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const BLOCK_BYTES: usize = 128 << 10;

/// Sends from A to B until `stop`; what had arrived when.
pub(super) fn flow(wan: &Wan, congestion: &str, stop: &AtomicBool) -> Result<Track, String> {
    let (sender, receiver) =
        connect(wan, congestion).map_err(|why| format!("TCP with {congestion}: {why}"))?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, stop));
        let track = receive(receiver, stop);
        sending.join().expect("the sending thread does not panic")?;
        track
    })
}

fn connect(wan: &Wan, congestion: &str) -> Result<(TcpStream, TcpStream), String> {
    let listener = wan.enter_b(|| TcpListener::bind((wan.address_b(), 0)));
    let listener = listener.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let to = listener.local_addr().map_err(|error| error.to_string())?;
    let sender = wan.enter_a(|| dial(to, congestion));
    let sender = sender.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let (receiver, _) = listener.accept().map_err(|error| error.to_string())?;
    sender.set_write_timeout(Some(LOOK_EVERY)).map_err(|error| error.to_string())?;
    receiver.set_read_timeout(Some(LOOK_EVERY)).map_err(|error| error.to_string())?;
    Ok((sender, receiver))
}

fn dial(to: SocketAddr, congestion: &str) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_tcp_congestion(congestion.as_bytes())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

fn send(mut socket: TcpStream, stop: &AtomicBool) -> Result<(), String> {
    let block = vec![0x5a; BLOCK_BYTES];
    while !stop.load(Ordering::Acquire) {
        match socket.write(&block) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(format!("send over TCP: {error}")),
        }
    }
    Ok(())
}

fn receive(mut socket: TcpStream, stop: &AtomicBool) -> Result<Track, String> {
    let mut block = vec![0; BLOCK_BYTES];
    let (mut track, mut bytes) = (Track::default(), 0);
    let mut noted = Instant::now();
    while !stop.load(Ordering::Acquire) {
        match socket.read(&mut block) {
            Ok(0) => break,
            Ok(count) => bytes += count as u64,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(format!("receive over TCP: {error}")),
        }
        if noted.elapsed() >= LOOK_EVERY {
            noted = Instant::now();
            track.note(noted, bytes);
        }
    }
    Ok(track)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
