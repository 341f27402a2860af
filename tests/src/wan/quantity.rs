//! Rates, times and shares as people write them: `200m`, `100ms`, `1%`.

use std::time::Duration;

/// Bits per second: `50m`, `1.5g`, `800k`, `64000`.
#[must_use]
pub fn rate(text: &str) -> Option<u64> {
    let bits = scaled(text)?;
    (bits >= 1.0).then_some(bits as u64)
}

/// Bytes: `64k`, `2m`, `1500`; decimal prefixes.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    scaled(text).map(|bytes| bytes as u64)
}

/// A time: `100ms`, `2s`, `250us`.
#[must_use]
pub fn time(text: &str) -> Option<Duration> {
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix("us") {
        (number, 1e-6)
    } else {
        (text.strip_suffix('s')?, 1.0)
    };
    let seconds = number.parse::<f64>().ok()? * unit;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A share of one: `1%`, `0.01`.
#[must_use]
pub fn share(text: &str) -> Option<f64> {
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&value).then_some(value)
}

fn scaled(text: &str) -> Option<f64> {
    let (number, factor) = match text.chars().last()?.to_ascii_lowercase() {
        'k' => (&text[..text.len() - 1], 1e3),
        'm' => (&text[..text.len() - 1], 1e6),
        'g' => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let value = number.parse::<f64>().ok()? * factor;
    (value.is_finite() && value >= 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!(rate("1.5g"), Some(1_500_000_000));
        assert_eq!(rate("64000"), Some(64_000));
        assert_eq!(rate("0"), None);
        assert_eq!(bytes("64k"), Some(64_000));
        assert_eq!(time("2.5ms"), Some(Duration::from_micros(2500)));
        assert_eq!(time("2"), None);
        assert_eq!(share("1%"), Some(0.01));
        assert_eq!(share("2"), None);
    }
}
