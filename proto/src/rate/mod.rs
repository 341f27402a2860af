//! Rate control: how fast to send, and how much may be under way. Not here: packets, timers.

mod fair;
mod fixed;
#[cfg(test)]
mod lab;
mod path;

use std::time::Duration;

use crate::control::RatePolicy;
use crate::units::Rate;

/// What the user and the server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateConfig {
    /// How the rate is chosen.
    pub policy: RatePolicy,
    /// Upper bound, or with [`RatePolicy::Fixed`] the rate itself.
    pub target: Option<Rate>,
    /// Congestion does not push the rate below this.
    pub minimum: Option<Rate>,
}

/// What one report says about the path.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathSample {
    /// Time at the sender.
    pub now: Duration,
    /// Time at the receiver, unwrapped.
    pub receiver_clock: Duration,
    /// Bytes the receiver has got since the session began.
    pub received_bytes: u64,
    /// Round-trip time, if the report yields one.
    pub rtt: Option<Duration>,
    /// Least one-way delay in the interval, seconds, up to a constant.
    pub delay_min: f64,
    /// Largest one-way delay in the interval.
    pub delay_max: f64,
    /// Bytes that arrived in trains, without the first packet of each.
    pub train_bytes: u64,
    /// Time that these took to arrive.
    pub train_time: Duration,
    /// Report interval in use.
    pub interval: Duration,
    /// Packets that arrived by this report.
    pub arrived_packets: u64,
    /// Packets that were declared lost by this report, those of outages apart.
    pub lost_packets: u64,
    /// Whether the sender had less to send than it was allowed to.
    pub idle: bool,
}

/// Shares of a bottleneck go with the square of the weight: high 2, fair 1, low 1/10.
fn weight(policy: RatePolicy) -> f64 {
    policy.share().sqrt()
}

/// The controller of one session.
#[derive(Debug)]
pub enum RateController {
    /// Constant rate.
    Fixed(fixed::Fixed),
    /// Delay-bounded rate.
    Fair(Box<fair::Fair>),
}

impl RateController {
    /// A controller for what was agreed on. [`RatePolicy::Fixed`] without a target acts as fair.
    #[must_use]
    pub fn new(now: Duration, config: RateConfig) -> Self {
        match (config.policy, config.target) {
            (RatePolicy::Fixed, Some(target)) => Self::Fixed(fixed::Fixed::new(target)),
            _ => Self::Fair(Box::new(fair::Fair::new(now, weight(config.policy), config))),
        }
    }

    /// Takes other settings in the middle of a transfer. What has been learnt of the path is kept; a change between
    /// fixed and adaptive starts from the round-trip time and rate that are known.
    pub fn set_config(&mut self, config: RateConfig) {
        let fixed = config.target.filter(|_| config.policy == RatePolicy::Fixed);
        let weight = weight(config.policy);
        match (&mut *self, fixed) {
            (Self::Fixed(controller), Some(target)) => controller.set_target(target),
            (Self::Fair(controller), None) => controller.set_config(weight, config),
            (Self::Fixed(controller), None) => {
                let (now, rtt, rate) = controller.known();
                *self = Self::Fair(Box::new(fair::Fair::going_on(now, weight, config, rtt, rate)));
            }
            (Self::Fair(controller), Some(target)) => {
                *self = Self::Fixed(fixed::Fixed::going_on(
                    target,
                    controller.path().known_base_rtt().unwrap_or_default(),
                ));
            }
        }
    }

    /// Takes what a report says.
    pub fn on_report(&mut self, sample: &PathSample) {
        match self {
            Self::Fixed(fixed) => fixed.on_report(sample),
            Self::Fair(fair) => fair.on_report(sample),
        }
    }

    /// No report has come for much longer than one should take.
    pub fn on_silence(&mut self) {
        match self {
            Self::Fixed(_) => {}
            Self::Fair(fair) => fair.on_silence(),
        }
    }

    /// Rate at which to send.
    #[must_use]
    pub fn rate(&self) -> Rate {
        match self {
            Self::Fixed(fixed) => fixed.rate(),
            Self::Fair(fair) => fair.rate(),
        }
    }

    /// Share of the usual burst that may leave at once: less where queues are short.
    #[must_use]
    pub const fn burst_share(&self) -> f64 {
        match self {
            Self::Fixed(_) => 1.0,
            Self::Fair(fair) => fair.burst_share(),
        }
    }

    /// Rate at which packets arrived of late, by the receiver's reports: UDP payload.
    #[must_use]
    pub fn delivery_rate(&self) -> Rate {
        match self {
            Self::Fixed(fixed) => fixed.path().delivery_rate(),
            Self::Fair(fair) => fair.path().delivery_rate(),
        }
    }

    /// How long packets wait in the path's queues.
    #[must_use]
    pub fn queue_delay(&self) -> Duration {
        match self {
            Self::Fixed(fixed) => fixed.path().queue_delay(),
            Self::Fair(fair) => fair.path().queue_delay(),
        }
    }

    /// Least round-trip time of late; none before the first sample.
    #[must_use]
    pub fn base_rtt(&self) -> Option<Duration> {
        match self {
            Self::Fixed(fixed) => fixed.path().known_base_rtt(),
            Self::Fair(fair) => fair.path().known_base_rtt(),
        }
    }

    /// Whether it is the target that keeps the rate from rising.
    #[must_use]
    pub fn is_at_target(&self) -> bool {
        match self {
            Self::Fixed(fixed) => fixed.is_at_target(),
            Self::Fair(fair) => fair.is_at_target(),
        }
    }

    /// Bytes that may be under way.
    #[must_use]
    pub fn window(&self) -> u64 {
        match self {
            Self::Fixed(fixed) => fixed.window(),
            Self::Fair(fair) => fair.window(),
        }
    }

    /// Name of the present phase, for statistics.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Fixed(_) => "fixed",
            Self::Fair(fair) => fair.phase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mbit(rate: u64) -> Rate {
        Rate::from_bps(rate * 1_000_000)
    }

    fn config(policy: RatePolicy, target: Option<u64>) -> RateConfig {
        RateConfig { policy, target: target.map(mbit), minimum: None }
    }

    /// Reports of an empty path of 50 ms that carries `rate`, for a second from `from` on.
    fn report(controller: &mut RateController, from: Duration, received: &mut u64) {
        for step in 1..=100 {
            let now = from + Duration::from_millis(step * 10);
            *received += controller.rate().bytes_in(Duration::from_millis(10));
            controller.on_report(&PathSample {
                now,
                receiver_clock: now,
                received_bytes: *received,
                rtt: Some(Duration::from_millis(50)),
                interval: Duration::from_millis(10),
                arrived_packets: 50,
                ..PathSample::default()
            });
        }
    }

    #[test]
    fn a_new_target_holds_at_once_and_a_higher_one_is_reached_soon() {
        let mut controller = RateController::new(Duration::ZERO, config(RatePolicy::Fair, Some(40)));
        let mut received = 0;
        (0..3).for_each(|n| report(&mut controller, Duration::from_secs(n), &mut received));
        assert_eq!(controller.rate(), mbit(40));
        controller.set_config(config(RatePolicy::Low, Some(10)));
        assert_eq!(controller.rate(), mbit(10), "lower at once");
        report(&mut controller, Duration::from_secs(3), &mut received);
        controller.set_config(config(RatePolicy::High, Some(80)));
        report(&mut controller, Duration::from_secs(4), &mut received);
        assert_eq!(controller.rate(), mbit(80), "eightfold within 20 round trips");
        controller.set_config(config(RatePolicy::Fair, None));
        report(&mut controller, Duration::from_secs(5), &mut received);
        assert!(controller.rate() > mbit(100), "{:?}", controller.rate());
    }

    #[test]
    fn a_change_between_fixed_and_adaptive_goes_on_from_what_is_known() {
        let mut controller = RateController::new(Duration::ZERO, config(RatePolicy::Fixed, Some(50)));
        let mut received = 0;
        report(&mut controller, Duration::ZERO, &mut received);
        controller.set_config(config(RatePolicy::Fair, Some(50)));
        assert!(controller.rate() >= mbit(20) && controller.rate() <= mbit(50), "{:?}", controller.rate());
        report(&mut controller, Duration::from_secs(1), &mut received);
        assert_eq!(controller.rate(), mbit(50));
        controller.set_config(config(RatePolicy::Fixed, Some(30)));
        assert_eq!((controller.rate(), controller.phase()), (mbit(30), "fixed"));
        assert!(controller.window() >= mbit(30).bytes_in(Duration::from_millis(200)));
        controller.set_config(config(RatePolicy::Fixed, Some(60)));
        assert_eq!(controller.rate(), mbit(60));
        controller.set_config(config(RatePolicy::Fixed, None));
        assert_ne!(controller.phase(), "fixed", "fixed without a target acts as fair");
    }
}
