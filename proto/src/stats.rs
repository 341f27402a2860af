//! Counters of a running transfer, plain data with units. Not here: printing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::Rate;

/// What holds a transfer back at a moment, as its sender sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limiter {
    /// Rate control: the path carries no more, or its answer has not come yet.
    Network,
    /// The target rate.
    TargetRate,
    /// Content, or the list of files, has not been read yet.
    SenderDisk,
    /// Nothing but this program's own work.
    SenderCpu,
    /// The receiver gives no credit because its disk is behind.
    ReceiverDisk,
    /// The receiver does not take out of its socket what has arrived.
    ReceiverCpu,
    /// The receiver gives no credit although its disk keeps up: it waits for repairs, or wants no more memory.
    PeerCredit,
}

/// How long each [`Limiter`] held, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// See [`Limiter::Network`].
    pub network: u64,
    /// See [`Limiter::TargetRate`].
    pub target_rate: u64,
    /// See [`Limiter::SenderDisk`].
    pub sender_disk: u64,
    /// See [`Limiter::SenderCpu`].
    pub sender_cpu: u64,
    /// See [`Limiter::ReceiverDisk`].
    pub receiver_disk: u64,
    /// See [`Limiter::ReceiverCpu`].
    pub receiver_cpu: u64,
    /// See [`Limiter::PeerCredit`].
    pub peer_credit: u64,
}

impl Limits {
    /// Adds some time.
    pub const fn add(&mut self, limiter: Limiter, time: Duration) {
        let total = match limiter {
            Limiter::Network => &mut self.network,
            Limiter::TargetRate => &mut self.target_rate,
            Limiter::SenderDisk => &mut self.sender_disk,
            Limiter::SenderCpu => &mut self.sender_cpu,
            Limiter::ReceiverDisk => &mut self.receiver_disk,
            Limiter::ReceiverCpu => &mut self.receiver_cpu,
            Limiter::PeerCredit => &mut self.peer_credit,
        };
        *total = total.saturating_add(time.as_nanos() as u64);
    }

    /// Name and share of each limiter that held at all, the largest first. Shares add up to 1.
    #[must_use]
    pub fn shares(&self) -> Vec<(&'static str, f64)> {
        let mut all = vec![
            ("network", self.network),
            ("target_rate", self.target_rate),
            ("sender_disk", self.sender_disk),
            ("sender_cpu", self.sender_cpu),
            ("receiver_disk", self.receiver_disk),
            ("receiver_cpu", self.receiver_cpu),
            ("peer_credit", self.peer_credit),
        ];
        all.retain(|&(_, time)| time > 0);
        all.sort_by_key(|&(_, time)| std::cmp::Reverse(time));
        let total: f64 = all.iter().map(|&(_, time)| time as f64).sum();
        all.into_iter().map(|(name, time)| (name, time as f64 / total)).collect()
    }
}

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
    /// What held the sender back, and how long; known to the sender only.
    pub limits: Limits,
}

impl Snapshot {
    /// Share of datagrams that were lost, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { self.lost_packets as f64 / self.packets as f64 }
    }
}
