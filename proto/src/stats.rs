//! Counters of a running transfer, plain data with units. Not here: printing.

use std::time::Duration;

use crate::units::Rate;

/// How far a transfer is. Made by the data plane a few times a second, shown by the client, logged by the server.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Snapshot {
    /// Content bytes known to be stored (receiver) or acknowledged (sender).
    pub bytes_done: u64,
    /// Content bytes in all; none while the sender still walks its tree.
    pub bytes_total: Option<u64>,
    /// Files finished.
    pub files_done: u64,
    /// Files in all; none while the sender still walks its tree.
    pub files_total: Option<u64>,
    /// Goodput, smoothed over some two seconds.
    pub rate: Rate,
    /// Smoothed round-trip time; none before the first sample.
    pub rtt: Option<Duration>,
    /// Datagrams sent (sender) or seen and missed (receiver).
    pub packets: u64,
    /// Datagrams lost on the way.
    pub lost_packets: u64,
    /// Content bytes sent more than once.
    pub retransmitted_bytes: u64,
}

impl Snapshot {
    /// Share of datagrams that were lost, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { self.lost_packets as f64 / self.packets as f64 }
    }
}
