//! How far a flow was at which moment, and rates from that.

use std::time::Instant;

/// Bytes that had arrived, by time.
#[derive(Debug, Default)]
pub(super) struct Track(Vec<(Instant, u64)>);

impl Track {
    /// Adds a later moment.
    pub(super) fn note(&mut self, at: Instant, bytes: u64) {
        self.0.push((at, bytes));
    }

    /// Mean rate between the first and the last note within a time, bits per second; none of less than two.
    pub(super) fn rate(&self, from: Instant, to: Instant) -> Option<f64> {
        let mut within = self.0.iter().filter(|(at, _)| (from..=to).contains(at));
        let (first, last) = (within.next()?, within.next_back()?);
        Some((last.1 - first.1) as f64 * 8.0 / (last.0 - first.0).as_secs_f64())
    }
}

/// Jain's index of fairness of two rates: 1 when they are equal, 0.5 when one has everything.
pub(super) fn jain(one: f64, other: f64) -> f64 {
    (one + other).powi(2) / (2.0 * (one * one + other * other))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_those_within_a_time() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut track = Track::default();
        for (ms, bytes) in [(0, 0), (1000, 5000), (1500, 5500), (2000, 6000), (3000, 9000)] {
            track.note(at(ms), bytes);
        }
        assert_eq!(track.rate(at(900), at(2100)), Some(8000.0));
        assert_eq!(track.rate(at(2500), at(5000)), None);
    }

    #[test]
    fn the_index_is_one_for_equals() {
        assert!((jain(3.0, 3.0) - 1.0).abs() < 1e-9 && (jain(3.0, 0.0) - 0.5).abs() < 1e-9);
    }
}
