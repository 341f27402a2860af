//! Quantities with units: [`Rate`]. Parsing is here because the server's settings and the client's options share it.
//! Not here: how numbers are shown to people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A data rate in bits per second, as network people count it: 1 Gbit/s is 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Rate(u64);

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a rate; write for example 500m (500 Mbit/s), 1.5g, 800k, or 300000 (Kbit/s)")]
pub struct RateError {
    text: String,
}

impl Rate {
    /// Nothing may be sent.
    pub const ZERO: Self = Self(0);

    /// From bits per second.
    #[must_use]
    pub const fn from_bps(bits_per_second: u64) -> Self {
        Self(bits_per_second)
    }

    /// From bytes per second; values beyond the range are clamped.
    #[must_use]
    pub fn from_bytes_per_second(bytes: f64) -> Self {
        // A float cast saturates, so negative and huge values are safe.
        Self((bytes * 8.0) as u64)
    }

    /// In bits per second.
    #[must_use]
    pub const fn bps(self) -> u64 {
        self.0
    }

    /// In bytes per second.
    #[must_use]
    pub fn bytes_per_second(self) -> f64 {
        self.0 as f64 / 8.0
    }

    /// The time that `bytes` take at this rate; an hour if the rate is zero.
    #[must_use]
    pub fn time_for(self, bytes: u64) -> Duration {
        if self.0 == 0 {
            return Duration::from_secs(3600);
        }
        Duration::from_secs_f64((bytes as f64 * 8.0 / self.0 as f64).min(3600.0))
    }

    /// The whole bytes that pass in `time` at this rate.
    #[must_use]
    pub fn bytes_in(self, time: Duration) -> u64 {
        (self.bytes_per_second() * time.as_secs_f64()) as u64
    }

    /// Multiplied by a factor, clamped to the range.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor) as u64)
    }

    /// Reads a rate as `ascp` does: `G`, `M` and `K` in either case are 10^9, 10^6 and 10^3 bit/s, decimals are
    /// allowed, and a bare number counts Kbit/s.
    ///
    /// # Errors
    /// If the text is not of that form, is zero or negative, or exceeds 10 Tbit/s.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let error = || RateError { text: text.to_owned() };
        let trimmed = text.trim();
        let (number, unit) = match trimmed.char_indices().last() {
            Some((at, 'g' | 'G')) => (trimmed.get(..at), 1e9),
            Some((at, 'm' | 'M')) => (trimmed.get(..at), 1e6),
            Some((at, 'k' | 'K')) => (trimmed.get(..at), 1e3),
            _ => (Some(trimmed), 1e3),
        };
        let number = number.ok_or_else(error)?;
        if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(error());
        }
        let value: f64 = number.parse().map_err(|_| error())?;
        let bits = value * unit;
        if (1.0..=1e13).contains(&bits) { Ok(Self(bits as u64)) } else { Err(error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_ascp_reads_them() {
        for (n, (text, bps)) in [
            ("300m", 300_000_000),
            ("1g", 1_000_000_000),
            ("1G", 1_000_000_000),
            ("500000", 500_000_000),
            ("1.5g", 1_500_000_000),
            ("800k", 800_000),
            (" 10M", 10_000_000),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(Rate::parse(text), Ok(Rate::from_bps(bps)), "row {n}: {text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "m", "-5m", "1e9", "fast", "0", "1.2.3", "99999g", "5 m5", "NaN", "inf"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
