//! Numbers as people read them: bytes in powers of 1024, rates in powers of 1000, times in two units.

use std::time::Duration;

use haul_proto::units::Rate;

/// As "1.00 GiB".
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    scaled(count as f64, 1024.0, &UNITS)
}

/// As "698 Mbit/s".
#[must_use]
pub fn rate(rate: Rate) -> String {
    const UNITS: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    scaled(rate.bps() as f64, 1000.0, &UNITS)
}

/// As "12 s", "3 min 05 s", "2 h 10 min".
#[must_use]
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// Three significant digits with the largest unit that fits.
fn scaled(mut value: f64, step: f64, units: &[&'static str]) -> String {
    let mut unit = "";
    for (at, name) in units.iter().enumerate() {
        unit = name;
        // Rounding must not show 1000 of a unit.
        if value < step - 0.5 || at + 1 == units.len() {
            break;
        }
        value /= step;
    }
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (n, (given, shown)) in [
            (bytes(0), "0 B"),
            (bytes(1023), "1023 B"),
            (bytes(1024), "1.00 KiB"),
            (bytes(1 << 30), "1.00 GiB"),
            (bytes((1 << 30) - 1), "1.00 GiB"),
            (bytes(1_048_064), "1.00 MiB"),
            (bytes(u64::MAX), "16.0 EiB"),
            (rate(Rate::from_bps(698_000_000)), "698 Mbit/s"),
            (rate(Rate::from_bps(5_400_000_000)), "5.40 Gbit/s"),
            (rate(Rate::from_bps(999_600)), "1.00 Mbit/s"),
            (time(Duration::from_secs(12)), "12 s"),
            (time(Duration::from_secs(185)), "3 min 05 s"),
            (time(Duration::from_secs(7800)), "2 h 10 min"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(given, shown, "row {n}");
        }
    }
}
