//! Wakes the protocol thread from its `ppoll`: an event descriptor that other threads write to.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Handle that wakes the protocol thread. Clones wake the same thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker that nobody has rung.
    ///
    /// # Errors
    /// If the process may open no further descriptor.
    pub fn new() -> std::io::Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(event)))
    }

    /// Wakes the protocol thread, now or at its next wait.
    pub fn wake(&self) {
        // The only failure is a counter at its limit, and then the thread is awake anyway.
        let _ = self.0.write(1);
    }

    /// Forgets earlier calls of [`wake`](Self::wake).
    pub fn clear(&self) {
        let _ = self.0.read();
    }

    /// The descriptor to wait on.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
