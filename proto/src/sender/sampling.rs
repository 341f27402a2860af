//! What the sender tells about itself ten times a second: taken with each PING and sent along with it, so that it costs
//! neither a timer nor a datagram of its own.

use std::time::Duration;

use super::Sender;
use crate::stats::{Limits, Sample};
use crate::units::Rate;

/// What samples are relative to, and the one that waits to be shown.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    /// When the first data packet left.
    pub(super) began: Option<Duration>,
    pub(super) target: Option<Rate>,
    /// Values of the latest sample.
    lost: u64,
    limits: Limits,
    pending: Option<Sample>,
}

impl Sampling {
    pub(super) fn new(target: Option<Rate>) -> Self {
        Self { target, ..Self::default() }
    }
}

impl Sender {
    /// The latest sample, if it has not been taken yet.
    pub const fn poll_sample(&mut self) -> Option<Sample> {
        self.sampling.pending.take()
    }

    /// Takes a sample; none before the path has answered, when there is nothing to tell.
    pub(super) fn sample(&mut self, now: Duration) -> Option<Sample> {
        let began = self.sampling.began?;
        let rtt = self.rtt.sampled()?;
        let limiter = self.limits.longest_since(&self.sampling.limits);
        self.sampling.limits = self.limits;
        // A packet that arrives after all is taken back from the losses to come, so that a sum stays a sum.
        self.sampling.lost = self.sampling.lost.max(self.stats().lost_packets);
        let heard = now.saturating_sub(self.last_report) <= self.silence_patience();
        let sample = Sample {
            at: whole_micros(now.saturating_sub(began)),
            bytes_done: self.latest.stored,
            pacing: self.rate.rate(),
            delivery: if heard { self.rate.delivery_rate() } else { Rate::ZERO },
            target: self.sampling.target,
            rtt: whole_micros(rtt),
            base_rtt: self.rate.base_rtt().map(whole_micros),
            queue: whole_micros(self.rate.queue_delay()),
            arrived_packets: self.stats.arrived_packets,
            lost_packets: self.sampling.lost,
            retransmitted_bytes: self.stats.retransmitted_bytes,
            limiter,
            state: self.rate.phase().to_owned(),
        };
        self.sampling.pending = Some(sample.clone());
        Some(sample)
    }
}

/// As much as the wire carries, so that both ends have the same numbers.
fn whole_micros(time: Duration) -> Duration {
    Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::control::{Cipher, SecretHalf};
    use crate::crypto::{Seat, SessionSecret};
    use crate::link::{Link, LinkConfig};
    use crate::rate::RateConfig;
    use crate::receiver::{Receiver, ReceiverConfig};
    use crate::sender::SenderConfig;
    use crate::stats::Limiter;
    use crate::wire::frame::Frame;

    fn link(seat: Seat) -> LinkConfig {
        let half = SecretHalf::new([1; 32]);
        let secret = SessionSecret::new(Cipher::Aes128Gcm, "s", &half, &half);
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], 9)));
        LinkConfig { seat, connection_id: 1, secret, peer, proven: None, challenge_key: half }
    }

    fn stats(number: u64) -> Frame {
        Frame::Stats(Sample {
            at: Duration::from_millis(number),
            bytes_done: number,
            pacing: Rate::ZERO,
            delivery: Rate::ZERO,
            target: None,
            rtt: Duration::ZERO,
            base_rtt: None,
            queue: Duration::ZERO,
            arrived_packets: 0,
            lost_packets: 0,
            retransmitted_bytes: 0,
            limiter: Limiter::Network,
            state: "x".to_owned(),
        })
    }

    #[test]
    fn a_sender_that_floods_the_receiver_with_samples_is_heard_forty_times_a_second() {
        let ms = Duration::from_millis;
        let mut receiver = Receiver::new(
            ms(0),
            &ReceiverConfig {
                link: link(Seat::Client),
                socket_buffer: 0,
                features: Vec::new(),
                verdicts: false,
            },
        );
        let mut peer = Link::new(ms(0), &link(Seat::Server));
        let (mut taken, from) = (0, SocketAddr::from(([127, 0, 0, 1], 9)));
        for n in 0..1000 {
            let mut buffer = Vec::new();
            peer.seal_frames(&mut buffer, &[stats(n)], None).unwrap();
            receiver.handle_datagram(ms(n), from, &mut buffer).unwrap();
            taken += u32::from(receiver.poll_sample().is_some());
        }
        assert_eq!(taken, 40);
    }

    #[test]
    fn a_receiver_that_sends_a_sender_s_statistics_is_refused() {
        let config = SenderConfig { link: link(Seat::Client), rate: RateConfig::default(), verdicts: false };
        let mut sender = Sender::new(Duration::ZERO, &config);
        let mut buffer = Vec::new();
        Link::new(Duration::ZERO, &link(Seat::Server)).seal_frames(&mut buffer, &[stats(1)], None).unwrap();
        let from = SocketAddr::from(([127, 0, 0, 1], 9));
        assert!(sender.handle_datagram(Duration::ZERO, from, &mut buffer).is_err());
        assert_eq!(sender.poll_sample(), None);
    }
}
