//! A worker's streams: connections that the front hands over, and datagrams between the lines of the control
//! conversation. Each becomes a socket of the protocol thread. Not here: which of them is used.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::mpsc::Sender;
use std::thread;

use haul_io::{Command, Waker, handover, streams};
use haul_proto::control::mark_frames;
use haul_proto::ladder::Rung;
use tracing::debug;

use crate::speaker::Speaker;

/// Bytes of datagrams that are put between lines at once: a line waits no longer than that.
const FRAME_BYTES: usize = 32 << 10;

/// Takes connections from the front until it closes its end.
pub(crate) fn take_handed(door: UnixDatagram, commands: Sender<Command>, waker: Waker) {
    thread::spawn(move || {
        // An empty message is the end of nothing here: datagram sockets have no end but an error.
        while let Ok((count, descriptor)) = handover::receive(&door, &mut [0]) {
            if let Some(descriptor) = descriptor {
                if commands.send(Command::AddStream(UnixStream::from(descriptor), Rung::Https)).is_err() {
                    return;
                }
                waker.wake();
            } else if count == 0 {
                return;
            }
        }
    });
}

/// Opens the stream between the lines. What comes is written to the socket that is returned.
pub(crate) fn between_lines(
    speaker: Speaker,
    commands: &Sender<Command>,
    waker: &Waker,
) -> io::Result<UnixStream> {
    let (theirs, ours) = streams::pair()?;
    ours.set_nonblocking(false)?;
    let mut from_drive = ours.try_clone()?;
    // Fails only if nobody drives any more.
    let _ = commands.send(Command::AddStream(theirs, Rung::Ssh));
    waker.wake();
    thread::spawn(move || {
        let mut buffer = vec![0; FRAME_BYTES];
        let (mut filled, mut marked) = (0, Vec::new());
        loop {
            let Some(room) = buffer.get_mut(filled..) else { return };
            let Ok(count @ 1..) = from_drive.read(room) else { return };
            filled += count;
            marked.clear();
            let taken = mark_frames(buffer.get(..filled).unwrap_or_default(), &mut marked);
            if !marked.is_empty() && speaker.say_bytes(&marked).is_err() {
                return;
            }
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
    });
    Ok(ours)
}

/// Passes on what came between lines. A protocol thread that has ended takes nothing any more.
pub(crate) fn pass_frames(stream: Option<&UnixStream>, frames: &[u8]) {
    if let Some(mut stream) = stream.filter(|_| !frames.is_empty())
        && let Err(error) = stream.write_all(frames)
    {
        debug!(%error, "datagrams between lines are not taken");
    }
}
