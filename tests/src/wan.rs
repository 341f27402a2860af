//! A wide-area network between two network namespaces, in user space.
//!
//! Each namespace has one TUN device; the emulator carries IP packets between the two through a link
//! model per direction (`wan/link.rs`): rate, queue, delay, loss, bursts, reordering, duplicates, jitter,
//! corruption, and switches that can be thrown while packets are on their way. It needs no kernel
//! modules besides `tun`, works for TCP as for UDP, and counts what it did, so that a test compares with
//! the truth. It needs root. It never touches the interfaces of the host's own namespace.
//!
//! ```no_run
//! # use haul_tests::wan::{Wan, WanConfig};
//! # use std::time::Duration;
//! let config = WanConfig { rate: Some(200_000_000), rtt: Duration::from_millis(100), loss: 0.01, ..WanConfig::default() };
//! let wan = Wan::start(config)?;
//! let status = wan.command_in_a("ping").args(["-c", "3", "10.77.0.2"]).status();
//! println!("{}", wan.stats());
//! # Ok::<(), haul_tests::wan::WanError>(())
//! ```

mod counters;
mod direction;
mod link;
mod namespace;
pub mod quantity;
mod tun;

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub use counters::Counters;
pub use link::{Burst, LinkConfig};

use direction::Direction;
use link::Link;
use namespace::Namespace;

/// Name of the TUN device in both namespaces.
pub const DEVICE: &str = "wan0";
/// Packets the kernel may hold for the emulator: 10 ms and more of an unpaced burst.
const DEVICE_QUEUE_PACKETS: u32 = 10_000;
const A4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const FAR4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// Settings of a path; both directions are alike but for the `_back` values.
#[derive(Debug, Clone)]
pub struct WanConfig {
    /// Bottleneck rate in bits per second, counted on IP packets; none is unlimited.
    pub rate: Option<u64>,
    /// Another rate from B to A (an asymmetric line).
    pub rate_back: Option<u64>,
    /// Round-trip time; each direction delays by half of it.
    pub rtt: Duration,
    /// A longer round-trip time of what goes to or comes from B's second address, 10.77.0.3.
    pub far_rtt: Option<Duration>,
    /// Independent loss probability, in each direction.
    pub loss: f64,
    /// Another loss probability from B to A.
    pub loss_back: Option<f64>,
    /// Burst loss, in each direction.
    pub burst: Option<Burst>,
    /// Drop-tail queue in bytes; none is one bandwidth-delay product, at least 64 KiB.
    pub queue_bytes: Option<u64>,
    /// Share of packets that are held back so that later ones overtake.
    pub reorder: f64,
    /// Shortest and longest time they are held back.
    pub reorder_hold: (Duration, Duration),
    /// Share of packets delivered twice.
    pub duplicate: f64,
    /// Largest extra delay; it wanders slowly (at most 20 ms) and keeps the order.
    pub jitter: Duration,
    /// Share of UDP packets whose payload arrives changed although the checksum is right.
    pub corrupt: f64,
    /// Packets larger than this vanish silently.
    pub path_mtu: Option<usize>,
    /// MTU of both devices.
    pub mtu: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// Names of the two namespaces; none chooses unique ones.
    pub names: Option<(String, String)>,
}

impl Default for WanConfig {
    fn default() -> Self {
        Self {
            rate: None,
            rate_back: None,
            rtt: Duration::ZERO,
            far_rtt: None,
            loss: 0.0,
            loss_back: None,
            burst: None,
            queue_bytes: None,
            reorder: 0.0,
            reorder_hold: (Duration::from_millis(2), Duration::from_millis(10)),
            duplicate: 0.0,
            jitter: Duration::ZERO,
            corrupt: 0.0,
            path_mtu: None,
            mtu: 1500,
            seed: 1,
            names: None,
        }
    }
}

impl WanConfig {
    fn forward(&self) -> LinkConfig {
        LinkConfig {
            rate: self.rate,
            delay: self.rtt / 2,
            far: self.far_rtt.map(|rtt| (FAR4, rtt.saturating_sub(self.rtt) / 2)),
            queue_bytes: self.queue_bytes,
            loss: self.loss,
            burst: self.burst,
            reorder: self.reorder,
            reorder_hold: self.reorder_hold,
            duplicate: self.duplicate,
            jitter: self.jitter,
            corrupt: self.corrupt,
            path_mtu: self.path_mtu,
        }
    }

    fn backward(&self) -> LinkConfig {
        LinkConfig {
            rate: self.rate_back.or(self.rate),
            loss: self.loss_back.unwrap_or(self.loss),
            ..self.forward()
        }
    }
}

/// Why the emulator could not start.
#[derive(Debug)]
pub enum WanError {
    /// A system call or program start failed.
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program ran and failed.
    Command {
        /// What was tried.
        what: String,
        /// What the program said.
        message: String,
    },
    /// A namespace of that name is there already.
    NamespaceExists(String),
}

impl fmt::Display for WanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Command { what, message } => write!(f, "{what}: {message}"),
            Self::NamespaceExists(name) => {
                write!(f, "namespace {name} exists already; choose another name or run: ip netns del {name}")
            }
        }
    }
}

impl std::error::Error for WanError {}

/// One of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From A to B.
    AToB,
    /// From B to A.
    BToA,
}

/// Counters of both directions.
#[derive(Debug, Clone)]
pub struct WanStats {
    /// From A to B.
    pub a_to_b: Counters,
    /// From B to A.
    pub b_to_a: Counters,
}

impl fmt::Display for WanStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "A->B: {}\nB->A: {}", self.a_to_b, self.b_to_a)
    }
}

/// A running emulator; dropping it stops the path and removes both namespaces.
pub struct Wan {
    a_to_b: Direction,
    b_to_a: Direction,
    a: Namespace,
    b: Namespace,
}

impl Wan {
    /// Makes the namespaces and starts forwarding. Removes what dead emulators left behind first.
    ///
    /// # Errors
    /// Without root, `ip`, or `/dev/net/tun`.
    pub fn start(config: WanConfig) -> Result<Self, WanError> {
        namespace::remove_stale();
        let (name_a, name_b) = config.names.clone().unwrap_or_else(namespace::unique_names);
        let (a, device_a) = end(&name_a, config.mtu, A4, A6)?;
        let (b, device_b) = end(&name_b, config.mtu, B4, B6)?;
        if config.far_rtt.is_some() {
            b.ip_batch(&format!("addr add {FAR4}/24 dev {DEVICE}\n"))?;
        }
        let forward = Link::new(config.forward(), config.seed);
        let backward = Link::new(config.backward(), config.seed.wrapping_add(0x5eed));
        let start = |name, link, from: &Arc<File>, to: &Arc<File>| {
            Direction::start(name, link, Arc::clone(from), Arc::clone(to), config.mtu)
                .map_err(|source| WanError::Io { what: "start a forwarding thread".to_owned(), source })
        };
        let a_to_b = start("wan-a-to-b", forward, &device_a, &device_b)?;
        let b_to_a = start("wan-b-to-a", backward, &device_b, &device_a)?;
        Ok(Self { a_to_b, b_to_a, a, b })
    }

    /// Name of namespace A.
    #[must_use]
    pub fn a(&self) -> &str {
        self.a.name()
    }

    /// Name of namespace B.
    #[must_use]
    pub fn b(&self) -> &str {
        self.b.name()
    }

    /// IPv4 address of A: 10.77.0.1.
    #[must_use]
    pub fn address_a(&self) -> IpAddr {
        A4.into()
    }

    /// IPv4 address of B: 10.77.0.2.
    #[must_use]
    pub fn address_b(&self) -> IpAddr {
        B4.into()
    }

    /// B's second IPv4 address, which takes longer to reach: 10.77.0.3. In use if the settings have a `far_rtt`.
    #[must_use]
    pub fn address_far(&self) -> IpAddr {
        FAR4.into()
    }

    /// IPv6 address of A: fd77::1.
    #[must_use]
    pub fn address6_a(&self) -> IpAddr {
        A6.into()
    }

    /// IPv6 address of B: fd77::2.
    #[must_use]
    pub fn address6_b(&self) -> IpAddr {
        B6.into()
    }

    /// A command that will run `program` in A. `ip netns exec` replaces itself, so the process id is
    /// the program's.
    #[must_use]
    pub fn command_in_a(&self, program: &str) -> Command {
        command_in(self.a(), program)
    }

    /// A command that will run `program` in B.
    #[must_use]
    pub fn command_in_b(&self, program: &str) -> Command {
        command_in(self.b(), program)
    }

    /// Runs `work` on a thread in A and waits for it; sockets it opens stay in A wherever they are used.
    ///
    /// # Errors
    /// When the namespace has gone.
    pub fn enter_a<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, WanError> {
        self.a.enter(work)
    }

    /// Runs `work` on a thread in B and waits for it.
    ///
    /// # Errors
    /// When the namespace has gone.
    pub fn enter_b<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, WanError> {
        self.b.enter(work)
    }

    /// Throws away all UDP packets as they enter the path, in both directions.
    pub fn set_drop_udp(&self, on: bool) {
        self.both(|link, _| link.drop_udp = on);
    }

    /// Throws away all UDP packets of one direction.
    pub fn set_drop_udp_way(&self, way: Way, on: bool) {
        self.way(way).change(|link, _| link.drop_udp = on);
    }

    /// Throws away everything, also what is on its way already.
    pub fn set_blackout(&self, on: bool) {
        self.both(|link, _| link.blackout = on);
    }

    /// Throws away everything in one direction.
    pub fn set_blackout_way(&self, way: Way, on: bool) {
        self.way(way).change(|link, _| link.blackout = on);
    }

    /// Changes the rate of both directions, also for what waits in the queue.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.both(|link, now| link.set_rate(now, rate));
    }

    /// Changes the rate of one direction.
    pub fn set_rate_way(&self, way: Way, rate: Option<u64>) {
        self.way(way).change(|link, now| link.set_rate(now, rate));
    }

    /// Changes the round-trip time for packets that have not left the bottleneck yet. A shorter one lets
    /// them overtake, as a route change does. An automatic queue limit follows.
    pub fn set_rtt(&self, rtt: Duration) {
        self.both(|link, now| link.set_delay(now, rtt / 2));
    }

    /// Changes the independent loss of both directions.
    pub fn set_loss(&self, loss: f64) {
        self.both(|link, now| link.set_loss(now, loss));
    }

    /// Changes the size above which packets vanish.
    pub fn set_path_mtu(&self, path_mtu: Option<usize>) {
        self.both(|link, _| link.set_path_mtu(path_mtu));
    }

    /// Counters up to now.
    #[must_use]
    pub fn stats(&self) -> WanStats {
        let read = |direction: &Direction, from: &Namespace| {
            let mut counters = direction.change(|link, _| link.counters.clone());
            counters.overrun = from.enter(kernel_drops).unwrap_or(0);
            counters
        };
        WanStats { a_to_b: read(&self.a_to_b, &self.a), b_to_a: read(&self.b_to_a, &self.b) }
    }

    /// Sets all counters but `overrun` (the kernel's) to zero, to measure a phase.
    pub fn reset_stats(&self) {
        self.both(|link, _| link.counters = Counters::default());
    }

    fn way(&self, way: Way) -> &Direction {
        match way {
            Way::AToB => &self.a_to_b,
            Way::BToA => &self.b_to_a,
        }
    }

    fn both(&self, work: impl Fn(&mut Link, u64)) {
        self.a_to_b.change(&work);
        self.b_to_a.change(&work);
    }
}

/// A command that will run `program` in the named namespace.
#[must_use]
pub fn command_in(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// Runs `work` on a thread of the named namespace and waits for it; sockets it opens stay there.
///
/// # Errors
/// When there is no such namespace.
pub fn enter<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T, WanError> {
    namespace::enter(namespace, work)
}

/// Makes one end: namespace, device, addresses.
fn end(name: &str, mtu: usize, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<(Namespace, Arc<File>), WanError> {
    let namespace = Namespace::create(name)?;
    let device = namespace
        .enter(|| tun::open(DEVICE))?
        .map_err(|source| WanError::Io { what: "open /dev/net/tun".to_owned(), source })?;
    namespace.ip_batch(&format!(
        "link set {DEVICE} mtu {mtu} txqueuelen {DEVICE_QUEUE_PACKETS} addrgenmode none\n\
         addr add {v4}/24 dev {DEVICE}\n\
         link set {DEVICE} up\n"
    ))?;
    // A host without IPv6 still has the rest of the path.
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        namespace.ip_batch(&format!("addr add {v6}/64 dev {DEVICE} nodad\n"))?;
    }
    Ok((namespace, Arc::new(device)))
}

/// Packets the kernel dropped on their way into the device of the calling thread's namespace.
fn kernel_drops() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let row = table.lines().find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'));
    // Eight receive columns, then bytes, packets, errors, drops of transmission.
    row.and_then(|row| row.split_whitespace().nth(11)?.parse().ok()).unwrap_or(0)
}
