//! What a link did to its packets, as the truth that tests compare the product's claims with.

use std::fmt;
use std::time::Duration;

/// Buckets of the queueing-delay histogram, one millisecond each; the last holds all longer ones.
const BUCKETS: usize = 1024;

/// Counters of one direction. Bytes count whole IP packets.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Packets that came in from the sending end.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets handed to the receiving end, duplicates included.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets refused because the queue of the bottleneck was full.
    pub dropped_by_queue: u64,
    /// Packets lost behind the bottleneck, by independent or burst loss.
    pub lost: u64,
    /// Packets thrown away by a switch: UDP off, blackout, or larger than the path MTU.
    pub blocked: u64,
    /// Packets delivered twice.
    pub duplicated: u64,
    /// Packets held back so that later ones could overtake.
    pub reordered: u64,
    /// Packets with a changed payload that still pass the UDP checksum.
    pub corrupted: u64,
    /// Packets that the receiving device refused: a fault of the emulator, not of the modelled path.
    pub write_errors: u64,
    /// Packets the kernel threw away because the emulator did not read the sending device fast enough.
    pub overrun: u64,
    /// Largest number of bytes seen in the queue.
    pub queue_bytes_max: u64,
    queue_bytes_sum: u128,
    queue_samples: u64,
    /// Longest wait in the queue before serialisation.
    pub queue_delay_max: Duration,
    queue_delay_sum_ns: u128,
    queue_delay_samples: u64,
    queue_delay_histogram: Box<[u64; BUCKETS]>,
    /// Worst delay of a release behind its planned time: the emulator's own error.
    pub late_max: Duration,
    late_sum_ns: u128,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            dropped_by_queue: 0,
            lost: 0,
            blocked: 0,
            duplicated: 0,
            reordered: 0,
            corrupted: 0,
            write_errors: 0,
            overrun: 0,
            queue_bytes_max: 0,
            queue_bytes_sum: 0,
            queue_samples: 0,
            queue_delay_max: Duration::ZERO,
            queue_delay_sum_ns: 0,
            queue_delay_samples: 0,
            queue_delay_histogram: Box::new([0; BUCKETS]),
            late_max: Duration::ZERO,
            late_sum_ns: 0,
        }
    }
}

impl Counters {
    /// Mean number of queued bytes, seen by arriving packets.
    #[must_use]
    pub fn queue_bytes_mean(&self) -> u64 {
        (self.queue_bytes_sum / u128::from(self.queue_samples.max(1))) as u64
    }

    /// Mean wait in the queue over all packets that passed it.
    #[must_use]
    pub fn queue_delay_mean(&self) -> Duration {
        Duration::from_nanos((self.queue_delay_sum_ns / u128::from(self.queue_delay_samples.max(1))) as u64)
    }

    /// The wait in the queue that `share` (0.0..1.0) of the packets did not exceed, to the millisecond.
    #[must_use]
    pub fn queue_delay_percentile(&self, share: f64) -> Duration {
        let wanted = (self.queue_delay_samples as f64 * share) as u64;
        let mut seen = 0;
        for (bucket, count) in self.queue_delay_histogram.iter().enumerate() {
            seen += count;
            if seen > wanted {
                return Duration::from_millis(bucket as u64);
            }
        }
        self.queue_delay_max
    }

    /// Mean lateness of releases: the emulator's own error.
    #[must_use]
    pub fn late_mean(&self) -> Duration {
        Duration::from_nanos((self.late_sum_ns / u128::from(self.packets_out.max(1))) as u64)
    }

    pub(super) fn on_queue_bytes(&mut self, bytes: u64) {
        self.queue_bytes_max = self.queue_bytes_max.max(bytes);
        self.queue_bytes_sum += u128::from(bytes);
        self.queue_samples += 1;
    }

    pub(super) fn on_queue_delay(&mut self, nanos: u64) {
        self.queue_delay_max = self.queue_delay_max.max(Duration::from_nanos(nanos));
        self.queue_delay_sum_ns += u128::from(nanos);
        self.queue_delay_samples += 1;
        let bucket = ((nanos / 1_000_000) as usize).min(BUCKETS - 1);
        self.queue_delay_histogram[bucket] += 1;
    }

    pub(super) fn on_late(&mut self, nanos: u64) {
        self.late_max = self.late_max.max(Duration::from_nanos(nanos));
        self.late_sum_ns += u128::from(nanos);
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {} packets {} bytes, out {} packets {} bytes, queue drops {}, lost {}, blocked {}, duplicated {}, \
             reordered {}, corrupted {}, write errors {}, overrun {}; queue bytes mean {} max {}, queue delay mean \
             {:.2} p50 {} p95 {} max {:.2} ms; emulator late mean {:.0} max {:.0} us",
            self.packets_in,
            self.bytes_in,
            self.packets_out,
            self.bytes_out,
            self.dropped_by_queue,
            self.lost,
            self.blocked,
            self.duplicated,
            self.reordered,
            self.corrupted,
            self.write_errors,
            self.overrun,
            self.queue_bytes_mean(),
            self.queue_bytes_max,
            self.queue_delay_mean().as_secs_f64() * 1e3,
            self.queue_delay_percentile(0.5).as_millis(),
            self.queue_delay_percentile(0.95).as_millis(),
            self.queue_delay_max.as_secs_f64() * 1e3,
            self.late_mean().as_secs_f64() * 1e6,
            self.late_max.as_secs_f64() * 1e6,
        )
    }
}
