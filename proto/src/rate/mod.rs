//! Rate control: how fast to send, and how much may be under way. Not here: packets, timers.

mod fair;
mod fixed;

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
    /// Report interval in use.
    pub interval: Duration,
    /// Packets that arrived by this report.
    pub arrived_packets: u64,
    /// Packets that were declared lost by this report.
    pub lost_packets: u64,
    /// Whether the sender had less to send than it was allowed to.
    pub idle: bool,
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
            // Shares of a bottleneck go with the square of the weight: high 2, fair 1, low 1/10.
            (RatePolicy::High, _) => Self::Fair(Box::new(fair::Fair::new(now, 2f64.sqrt(), config))),
            (RatePolicy::Low, _) => Self::Fair(Box::new(fair::Fair::new(now, 0.1f64.sqrt(), config))),
            (RatePolicy::Fair | RatePolicy::Fixed, _) => {
                Self::Fair(Box::new(fair::Fair::new(now, 1.0, config)))
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
