//! Round-trip time: smoothed and varying part after RFC 6298, and the minimum of the last 30 s. Not here: policy.

use std::time::Duration;

use crate::constants::INITIAL_RTT;
use crate::min_filter::MinFilter;

/// How long the minimum is remembered.
const MIN_WINDOW: Duration = Duration::from_secs(30);

/// RTT estimator of one path.
#[derive(Debug, Clone)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    minimum: MinFilter,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { smoothed: None, variation: Duration::ZERO, minimum: MinFilter::new(MIN_WINDOW) }
    }
}

impl Rtt {
    /// Takes a sample.
    pub(crate) fn on_sample(&mut self, now: Duration, sample: Duration) {
        self.minimum.insert(now, sample.as_secs_f64());
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// Smoothed RTT; none before the first sample.
    #[must_use]
    pub(crate) const fn sampled(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Smoothed RTT, or [`INITIAL_RTT`].
    #[must_use]
    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL_RTT)
    }

    /// Least RTT of the last 30 s, or [`INITIAL_RTT`].
    #[must_use]
    pub(crate) fn minimum(&self) -> Duration {
        self.minimum.minimum().map_or(INITIAL_RTT, Duration::from_secs_f64)
    }

    /// A time within which an answer is nearly certain (RFC 6298: smoothed + 4 x variation).
    #[must_use]
    pub(crate) fn patience(&self) -> Duration {
        match self.smoothed {
            None => INITIAL_RTT * 3,
            Some(smoothed) => smoothed + (self.variation * 4).max(Duration::from_millis(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6298_and_forgets_an_old_minimum() {
        let ms = Duration::from_millis;
        let mut rtt = Rtt::default();
        assert_eq!(rtt.smoothed(), INITIAL_RTT);
        rtt.on_sample(ms(0), ms(80));
        assert_eq!((rtt.smoothed(), rtt.patience()), (ms(80), ms(240)));
        rtt.on_sample(ms(100), ms(160));
        assert_eq!(rtt.smoothed(), ms(90));
        assert_eq!(rtt.minimum(), ms(80));
        rtt.on_sample(ms(31_000), ms(120));
        assert_eq!(rtt.minimum(), ms(120));
    }
}
