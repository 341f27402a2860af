//! Connections for the worker: the front makes a socket pair a request and sends one end over the socket that the worker
//! was started with. Nothing else passes there, and neither side can make the other wait.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// What goes beside a descriptor: a message must hold a byte to be one.
const MARK: u8 = b'c';

/// Makes a connection and gives its other end away over `control`; fails at once if the worker does not take them.
///
/// # Errors
/// If the worker is gone or has too many waiting.
pub fn connect(control: &UnixStream) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let descriptors = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(control, &[IoSlice::new(&[MARK])], &mut message, flags)?;
    ours.set_nonblocking(true)?;
    Ok(ours)
}

/// Waits for the next connection; `None` when the front has ended.
///
/// # Errors
/// If the socket fails.
pub fn accept(control: impl AsFd) -> io::Result<Option<UnixStream>> {
    loop {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut messages = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(&control, &mut [IoSliceMut::new(&mut byte)], &mut messages, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = messages.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptor: Option<OwnedFd> = descriptors.next().and_then(|mut descriptors| descriptors.next());
        if let Some(descriptor) = descriptor {
            let stream = UnixStream::from(descriptor);
            stream.set_nonblocking(true)?;
            return Ok(Some(stream));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn connections_arrive_in_order_and_the_end_is_seen() {
        let (front, worker) = UnixStream::pair().unwrap();
        let mut ours: Vec<UnixStream> = (0..3).map(|_| connect(&front).unwrap()).collect();
        drop(front);
        for (n, stream) in ours.iter_mut().enumerate() {
            let mut theirs = accept(&worker).unwrap().unwrap();
            theirs.set_nonblocking(false).unwrap();
            stream.write_all(&[n as u8]).unwrap();
            let mut byte = [9];
            theirs.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n as u8]);
        }
        assert!(accept(&worker).unwrap().is_none());
    }

    #[test]
    fn a_worker_that_takes_nothing_holds_nobody_up() {
        let (front, _worker) = UnixStream::pair().unwrap();
        let refused = (0..100_000).find_map(|_| connect(&front).err()).unwrap();
        assert!(matches!(refused.raw_os_error(), Some(11 | 24 | 109)), "{refused}");
    }
}
