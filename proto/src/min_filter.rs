//! Minimum over a sliding window of time, in constant amortised time. Use with negated values for a maximum.

use std::collections::VecDeque;
use std::time::Duration;

/// Candidates kept: a peer that sends reports without end must not fill the memory. Honest ones need a tenth.
const MOST_CANDIDATES: usize = 16_384;

/// Minimum of the values of the last `window`.
#[derive(Debug, Clone)]
pub(crate) struct MinFilter {
    window: Duration,
    /// Candidates: times rise, values rise.
    candidates: VecDeque<(Duration, f64)>,
}

impl MinFilter {
    /// An empty filter.
    #[must_use]
    pub(crate) const fn new(window: Duration) -> Self {
        Self { window, candidates: VecDeque::new() }
    }

    /// Changes the window; takes effect with the next value.
    pub(crate) const fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Takes a value.
    pub(crate) fn insert(&mut self, now: Duration, value: f64) {
        while self.candidates.back().is_some_and(|&(_, candidate)| candidate >= value) {
            self.candidates.pop_back();
        }
        self.candidates.push_back((now, value));
        if self.candidates.len() > MOST_CANDIDATES {
            self.candidates.pop_front();
        }
        while self.candidates.front().is_some_and(|&(at, _)| now.saturating_sub(at) > self.window) {
            self.candidates.pop_front();
        }
    }

    /// The minimum; none before the first value.
    #[must_use]
    pub(crate) fn minimum(&self) -> Option<f64> {
        self.candidates.front().map(|&(_, value)| value)
    }
}
