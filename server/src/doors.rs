//! The way from HTTPS to the workers: which sessions have one here, who may join a connection to them, and the socket over
//! which each worker is handed its connections. What goes over them is sealed for the worker and its client; the front
//! only moves it.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use haul_http_fallback::carrier;
use haul_io::{handover, streams};
use ring::hmac;
use tracing::debug;

/// The sessions that can be joined, by name.
#[derive(Default)]
pub(crate) struct Doors(Mutex<HashMap<String, Door>>);

struct Door {
    key: hmac::Key,
    /// Numbers of connections that have been shown: each is good once.
    used: HashSet<u16>,
    to_worker: UnixDatagram,
}

/// The door of one session; it closes on drop.
pub(crate) struct Doorkeeper {
    doors: Arc<Doors>,
    session: String,
}

impl Doors {
    /// Opens a door to the worker at the other end of `to_worker`.
    pub(crate) fn open(
        self: &Arc<Self>,
        session: &str,
        token: &[u8; 32],
        to_worker: UnixDatagram,
    ) -> Doorkeeper {
        let key = hmac::Key::new(hmac::HMAC_SHA256, token);
        self.all().insert(session.to_owned(), Door { key, used: HashSet::new(), to_worker });
        Doorkeeper { doors: Arc::clone(self), session: session.to_owned() }
    }

    /// A panic elsewhere leaves doors that are still doors.
    fn all(&self) -> MutexGuard<'_, HashMap<String, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl carrier::Doors for Doors {
    fn enter(&self, session: &str, number: u16, proof: &[u8]) -> Option<UnixStream> {
        let mut all = self.all();
        let door = all.get_mut(session)?;
        if !carrier::is_proof(&door.key, session, number, proof) || !door.used.insert(number) {
            return None;
        }
        let (ours, theirs) = streams::pair().ok()?;
        match handover::send(&door.to_worker, b"s", theirs.as_fd()) {
            Ok(_) => Some(ours),
            Err(error) => {
                debug!(session, %error, "the worker takes no connection");
                None
            }
        }
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        self.doors.all().remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use carrier::Doors as _;

    use super::*;

    #[test]
    fn a_proof_opens_the_door_of_its_session_once_and_never_after_its_end() {
        let doors = Arc::new(Doors::default());
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let keeper = doors.open("s", &[1; 32], ours);
        let right = |number| carrier::proof(&[1; 32], "s", number);
        assert!(doors.enter("s", 0, &carrier::proof(&[2; 32], "s", 0)).is_none(), "another token");
        assert!(doors.enter("t", 0, &right(0)).is_none(), "another session");
        let mut joined = doors.enter("s", 0, &right(0)).unwrap();
        assert!(doors.enter("s", 0, &right(0)).is_none(), "used");
        assert!(doors.enter("s", 1, &right(0)).is_none(), "another number");
        joined.write_all(b"through").unwrap();
        drop(joined);
        let (_, descriptor) = handover::receive(&theirs, &mut [0]).unwrap();
        let mut socket = UnixStream::from(descriptor.unwrap());
        socket.set_nonblocking(false).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(keeper);
        assert!(doors.enter("s", 2, &right(2)).is_none(), "the session has ended");
    }
}
