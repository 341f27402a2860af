//! Anti-replay window over packet numbers (RFC 6479 in spirit): each number is accepted once. Nothing else is here.

use crate::constants::REPLAY_WINDOW;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize + 1;

/// Remembers the packet numbers of the last [`REPLAY_WINDOW`].
#[derive(Debug, Clone)]
pub(crate) struct ReplayWindow {
    words: Box<[u64]>,
    /// One beyond the largest number seen.
    next: u64,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { words: vec![0; WORDS].into_boxed_slice(), next: 0 }
    }
}

impl ReplayWindow {
    /// Whether `number` could still be accepted. Call before opening, so that replays cost no cryptography.
    #[must_use]
    pub(crate) fn is_new(&self, number: u64) -> bool {
        if number >= self.next {
            return true;
        }
        if self.next - number > REPLAY_WINDOW {
            return false;
        }
        self.word(number).is_some_and(|word| word & (1 << (number % 64)) == 0)
    }

    /// Accepts `number`. Call only after the packet has authenticated. Returns whether it is the largest so far.
    pub(crate) fn accept(&mut self, number: u64) -> bool {
        let largest = number >= self.next;
        if largest {
            self.clear_between(self.next, number);
            self.next = number.saturating_add(1);
        }
        let at = Self::slot(number);
        if let Some(word) = self.words.get_mut(at) {
            *word |= 1 << (number % 64);
        }
        largest
    }

    /// Wipes the words that the window moves onto.
    fn clear_between(&mut self, from: u64, to: u64) {
        let first = if from == 0 { 0 } else { (from - 1) / 64 + 1 };
        let last = to / 64;
        if last.saturating_sub(first) >= WORDS as u64 {
            self.words.fill(0);
            return;
        }
        for word in first..=last {
            if let Some(word) = self.words.get_mut((word % WORDS as u64) as usize) {
                *word = 0;
            }
        }
    }

    fn word(&self, number: u64) -> Option<u64> {
        self.words.get(Self::slot(number)).copied()
    }

    const fn slot(number: u64) -> usize {
        ((number / 64) % WORDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_accepted_once_and_old_ones_never() {
        const W: u64 = REPLAY_WINDOW;
        let mut window = ReplayWindow::default();
        let table = [
            (0, true),
            (1, true),
            (1, false),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (W, true),
            (W - 1, true),
            (W - 1, false),
            (W + 1, true),
            (2, true),
            (2, false),
            (W + 16, true),
            (3, false),
            (W + 16, false),
            (W * 4, true),
            (W * 4 - 1, true),
            (W * 4 - W + 1, true),
            (W * 4 - W, false),
            (u64::MAX - 1, true),
            (10, false),
        ];
        for (row, (number, expected)) in table.into_iter().enumerate() {
            let new = window.is_new(number);
            assert_eq!(new, expected, "row {row}: {number}");
            if new {
                window.accept(number);
            }
        }
    }

    #[test]
    fn agrees_with_a_set_over_random_numbers() {
        let mut window = ReplayWindow::default();
        let mut seen = std::collections::HashSet::new();
        let (mut state, mut base) = (7u64, 0u64);
        for _ in 0..300_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let roll = state >> 33;
            base += roll % 7;
            let number = (base + (roll >> 8) % 3000).saturating_sub((roll >> 16) % 2000);
            let new = window.is_new(number);
            assert_eq!(new, !seen.contains(&number));
            if new {
                window.accept(number);
                seen.insert(number);
            }
        }
    }
}
