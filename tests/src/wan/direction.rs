//! One thread per direction: reads packets from one TUN device, asks the link model, writes to the other.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use super::link::{Link, Packet};

/// Packets read before releases get their turn.
const READ_BATCH: usize = 32;
/// A wake-up serves everything due within this time; a thread wake-up per packet costs more than the error.
const COALESCE: Duration = Duration::from_micros(20);
/// The scheduling priority asked for, so that the programs under test cannot delay the emulator.
const REALTIME_PRIORITY: &str = "5";

/// What a direction's thread shares with its owner.
struct Shared {
    link: Mutex<Link>,
    wake: EventFd,
    stop: AtomicBool,
}

/// A running direction; stops and joins on drop.
pub(super) struct Direction {
    shared: Arc<Shared>,
    epoch: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Direction {
    /// Starts forwarding from one device to the other.
    pub(super) fn start(
        name: &str,
        link: Link,
        from: Arc<File>,
        to: Arc<File>,
        mtu: usize,
    ) -> std::io::Result<Self> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let shared = Arc::new(Shared { link: Mutex::new(link), wake, stop: AtomicBool::new(false) });
        let epoch = Instant::now();
        let forwarder = Forwarder { shared: Arc::clone(&shared), epoch, from, to, mtu };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || forwarder.run())?;
        Ok(Self { shared, epoch, thread: Some(thread) })
    }

    /// Works on the model at the present time, then lets the thread look again.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut Link, u64) -> T) -> T {
        let mut link = lock(&self.shared.link);
        let result = work(&mut link, nanos_since(self.epoch));
        drop(link);
        let _ = self.shared.wake.write(1);
        result
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Forwarder {
    shared: Arc<Shared>,
    epoch: Instant,
    from: Arc<File>,
    to: Arc<File>,
    mtu: usize,
}

impl Forwarder {
    fn run(&self) {
        sharpen_timing();
        while !self.shared.stop.load(Ordering::Acquire) {
            let mut link = lock(&self.shared.link);
            self.deliver(&mut link);
            let drained = self.receive(&mut link);
            let deadline = link.next_deadline();
            drop(link);
            if drained {
                self.wait(deadline);
            }
        }
    }

    /// Writes everything that has arrived at the far end.
    fn deliver(&self, link: &mut Link) {
        let mut now = nanos_since(self.epoch);
        while let Some(packet) = link.poll_delivery(now) {
            if (&*self.to).write(packet.bytes()).is_err() {
                link.counters.write_errors += 1;
            }
            link.recycle(packet);
            now = nanos_since(self.epoch);
        }
    }

    /// Reads waiting packets; true when there are no more.
    fn receive(&self, link: &mut Link) -> bool {
        for _ in 0..READ_BATCH {
            let mut buffer = link.take_buffer(self.mtu);
            match (&*self.from).read(&mut buffer) {
                Ok(len) => link.offer(nanos_since(self.epoch), Packet { buffer, len }),
                Err(error) => {
                    link.recycle(Packet { buffer, len: 0 });
                    return error.kind() != ErrorKind::Interrupted;
                }
            }
        }
        false
    }

    /// Sleeps until the deadline, a packet, or a change of the model.
    fn wait(&self, deadline: Option<u64>) {
        let left =
            deadline.map(|at| Duration::from_nanos(at.saturating_sub(nanos_since(self.epoch))).max(COALESCE));
        let mut fds = [
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        let _ = ppoll(&mut fds, left.map(TimeSpec::from_duration), None);
        if fds[1].any().unwrap_or(false) {
            let _ = self.shared.wake.read();
        }
    }
}

/// Asks for exact timers and, where permitted, a real-time priority. Both are best effort.
fn sharpen_timing() {
    let _ = nix::sys::prctl::set_timerslack(1);
    let thread = nix::unistd::gettid().to_string();
    let _ = std::process::Command::new("chrt")
        .args(["--fifo", "--reset-on-fork", "--pid", REALTIME_PRIORITY, &thread])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
}

fn nanos_since(epoch: Instant) -> u64 {
    epoch.elapsed().as_nanos() as u64
}

fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}
