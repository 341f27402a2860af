//! Scales with ticks at round values. Not here: drawing them.

/// A scale from zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    /// Largest value shown.
    pub(super) end: f64,
    /// From tick to tick.
    pub(super) step: f64,
}

/// Seconds between the ticks of a time axis, beyond those of a decimal scale.
const TIME_STEPS: [f64; 11] =
    [15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0];

impl Axis {
    /// A scale of values up to `largest`, which ends at a tick, with some `ticks` of them.
    pub(super) fn of_values(largest: f64, ticks: f64) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let step = round_step(largest / ticks);
        Self { end: (largest / step - 1e-9).ceil().max(1.0) * step, step }
    }

    /// A scale of seconds that ends where the data does.
    pub(super) fn of_time(end: f64, ticks: f64) -> Self {
        let end = end.max(0.1);
        let step = end / ticks;
        let step = if step <= 10.0 {
            round_step(step)
        } else {
            let usual = TIME_STEPS.into_iter().find(|&usual| usual >= step);
            usual.unwrap_or_else(|| (step / 86_400.0).ceil() * 86_400.0)
        };
        Self { end, step }
    }

    /// The values at which ticks stand.
    pub(super) fn ticks(self) -> impl Iterator<Item = f64> {
        let count = (self.end / self.step + 1e-9) as u32;
        (0..=count).map(move |n| f64::from(n) * self.step)
    }

    /// A tick's value with as many decimals as the step needs.
    pub(super) fn label(self, value: f64) -> String {
        let decimals = (-self.step.log10().floor()).clamp(0.0, 9.0) as usize;
        format!("{value:.decimals$}")
    }

    /// A tick's time: seconds, or hours, minutes and seconds when there are many.
    pub(super) fn time_label(self, value: f64) -> String {
        let whole = (value + 1e-9) as u64;
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        if self.step <= 10.0 && self.end <= 120.0 {
            format!("{} s", self.label(value))
        } else if self.end < 3600.0 {
            format!("{minutes}:{seconds:02}")
        } else {
            format!("{hours}:{minutes:02}:{seconds:02}")
        }
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| least <= digit * power * (1.0 + 1e-9));
    digit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_stand_at_round_values_and_cover_the_data() {
        for (row, (largest, labels)) in [
            (198.3, "0 50 100 150 200"),
            (200.0, "0 50 100 150 200"),
            (201.0, "0 100 200 300"),
            (0.0, "0.0 0.5 1.0"),
            (1.04, "0.0 0.5 1.0 1.5"),
            (0.037, "0.00 0.01 0.02 0.03 0.04"),
            (7.0, "0 2 4 6 8"),
            (9_400.0, "0 5000 10000"),
        ]
        .into_iter()
        .enumerate()
        {
            let axis = Axis::of_values(largest, 4.0);
            let shown: Vec<_> = axis.ticks().map(|tick| axis.label(tick)).collect();
            assert_eq!(shown.join(" "), labels, "row {row}");
            assert!(axis.end >= largest, "row {row}");
        }
    }

    #[test]
    fn time_is_cut_as_clocks_cut_it() {
        for (row, (end, labels)) in [
            (0.4, "0.0 s 0.1 s 0.2 s 0.3 s 0.4 s"),
            (4.3, "0 s 1 s 2 s 3 s 4 s"),
            (43.0, "0 s 10 s 20 s 30 s 40 s"),
            (180.0, "0:00 1:00 2:00 3:00"),
            (1100.0, "0:00 5:00 10:00 15:00"),
            (30_000.0, "0:00:00 2:00:00 4:00:00 6:00:00 8:00:00"),
            (900_000.0, "0:00:00 72:00:00 144:00:00 216:00:00"),
        ]
        .into_iter()
        .enumerate()
        {
            let axis = Axis::of_time(end, 5.0);
            let shown: Vec<_> = axis.ticks().map(|tick| axis.time_label(tick)).collect();
            assert_eq!(shown.join(" "), labels, "row {row}");
            assert!(axis.end >= end && axis.ticks().count() <= 7, "row {row}");
        }
    }
}
