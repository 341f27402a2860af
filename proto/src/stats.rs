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

impl Limiter {
    /// All of them; their places here are their codes on the wire.
    pub const ALL: [Self; 7] = [
        Self::Network,
        Self::TargetRate,
        Self::SenderDisk,
        Self::SenderCpu,
        Self::ReceiverDisk,
        Self::ReceiverCpu,
        Self::PeerCredit,
    ];

    /// Its name in statistics and summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::TargetRate => "target_rate",
            Self::SenderDisk => "sender_disk",
            Self::SenderCpu => "sender_cpu",
            Self::ReceiverDisk => "receiver_disk",
            Self::ReceiverCpu => "receiver_cpu",
            Self::PeerCredit => "peer_credit",
        }
    }
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
    /// Together with other times.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            network: self.network.saturating_add(other.network),
            target_rate: self.target_rate.saturating_add(other.target_rate),
            sender_disk: self.sender_disk.saturating_add(other.sender_disk),
            sender_cpu: self.sender_cpu.saturating_add(other.sender_cpu),
            receiver_disk: self.receiver_disk.saturating_add(other.receiver_disk),
            receiver_cpu: self.receiver_cpu.saturating_add(other.receiver_cpu),
            peer_credit: self.peer_credit.saturating_add(other.peer_credit),
        }
    }

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

    /// How long this one held, nanoseconds.
    #[must_use]
    pub const fn of(&self, limiter: Limiter) -> u64 {
        match limiter {
            Limiter::Network => self.network,
            Limiter::TargetRate => self.target_rate,
            Limiter::SenderDisk => self.sender_disk,
            Limiter::SenderCpu => self.sender_cpu,
            Limiter::ReceiverDisk => self.receiver_disk,
            Limiter::ReceiverCpu => self.receiver_cpu,
            Limiter::PeerCredit => self.peer_credit,
        }
    }

    /// The one that has held longest since `earlier`.
    #[must_use]
    pub fn longest_since(&self, earlier: &Self) -> Limiter {
        let grown = |limiter: &Limiter| self.of(*limiter).saturating_sub(earlier.of(*limiter));
        Limiter::ALL.into_iter().max_by_key(grown).unwrap_or(Limiter::Network)
    }

    /// Name and share of each limiter that held at all, the largest first. Shares add up to 1.
    #[must_use]
    pub fn shares(&self) -> Vec<(&'static str, f64)> {
        let mut all: Vec<_> =
            Limiter::ALL.iter().map(|&limiter| (limiter.name(), self.of(limiter))).collect();
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
    /// Of these, bytes that were there before.
    pub bytes_held: u64,
    /// Content bytes in all; none while the sender still walks its tree.
    pub bytes_total: Option<u64>,
    /// Files finished, those that were there before included.
    pub files_done: u64,
    /// Files finished without those.
    pub files_stored: u64,
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
    /// Bytes of all datagrams sent, headers of IP and UDP included; a receiver adds what it missed by estimate.
    pub wire_bytes: u64,
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

/// What the sender knows about path and rate at a moment. Taken ten times a second, and told to the receiver, so that both
/// sides show the same numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Time since the first data packet left.
    pub at: Duration,
    /// Content bytes that the receiver has stored.
    pub bytes_done: u64,
    /// Rate at which packets leave while nothing else holds the sender, IP and UDP headers counted.
    pub pacing: Rate,
    /// Rate at which packets arrived of late, by the receiver's reports, without IP and UDP headers.
    pub delivery: Rate,
    /// Target rate agreed on.
    pub target: Option<Rate>,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Least round-trip time of late.
    pub base_rtt: Option<Duration>,
    /// How long packets wait in the path's queues.
    pub queue: Duration,
    /// Packets reported as arrived, late ones included.
    pub arrived_packets: u64,
    /// Packets declared lost, less those that arrived late. It never falls.
    pub lost_packets: u64,
    /// Content and manifest bytes sent more than once.
    pub retransmitted_bytes: u64,
    /// What has held the sender back most of the time since the last sample.
    pub limiter: Limiter,
    /// The rate controller's own word for what it is doing: 1 to 16 letters `a` to `z` and `_`.
    pub state: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_limiter_is_that_of_the_interval_not_of_all_time() {
        let mut limits = Limits::default();
        limits.add(Limiter::Network, Duration::from_secs(100));
        let earlier = limits;
        limits.add(Limiter::Network, Duration::from_millis(40));
        limits.add(Limiter::SenderDisk, Duration::from_millis(60));
        assert_eq!(limits.longest_since(&earlier), Limiter::SenderDisk);
        assert_eq!(limits.longest_since(&Limits::default()), Limiter::Network);
    }

    #[test]
    fn every_limiter_has_its_own_place_and_name() {
        for (place, limiter) in Limiter::ALL.into_iter().enumerate() {
            let mut limits = Limits::default();
            limits.add(limiter, Duration::from_nanos(7));
            assert_eq!((limiter as usize, limits.of(limiter)), (place, 7));
            assert_eq!(limits.shares(), [(limiter.name(), 1.0)]);
        }
    }
}
