//! Times of day and of the week in which other caps hold, by the server's local time. Pure but for [`LocalTime::now`].
//!
//! A window is compared with what the clock on the wall shows, so it needs no rule for days with 23 or 25 hours: an hour
//! that comes twice is in the window twice, one that is left out is not in it.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What the clock on the wall shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalTime {
    /// 0 is Monday.
    pub(crate) weekday: u8,
    /// Since midnight.
    pub(crate) minute: u16,
}

/// Days of the week, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days(u8);

/// A minute of the day; 24:00 is the end of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeOfDay(u16);

/// A span of the day on some days. One that ends before it begins goes over midnight into the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) days: Days,
    pub(crate) from: TimeOfDay,
    pub(crate) to: TimeOfDay,
}

impl LocalTime {
    /// Now, in the time zone of the system (`TZ`, else `/etc/localtime`), or in UTC if it has none.
    pub(crate) fn now() -> Self {
        Self::at(Timestamp::now(), TimeZone::system())
    }

    fn at(time: Timestamp, zone: TimeZone) -> Self {
        let local = time.to_zoned(zone);
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        Self { weekday: local.weekday().to_monday_zero_offset().unsigned_abs(), minute }
    }

    /// Why the time zone of the system is not known, if so.
    pub(crate) fn trouble() -> Option<String> {
        TimeZone::try_system().err().map(|error| error.to_string())
    }
}

impl Window {
    /// Whether it is open.
    pub(crate) fn holds(self, now: LocalTime) -> bool {
        let (from, to) = (self.from.0, self.to.0);
        let today = self.days.has(now.weekday);
        if from <= to {
            return today && (from..to).contains(&now.minute);
        }
        let yesterday = self.days.has((now.weekday + 6) % 7);
        (today && now.minute >= from) || (yesterday && now.minute < to)
    }

    /// Whether it never opens.
    pub(crate) fn is_empty(self) -> bool {
        self.from == self.to
    }
}

impl Days {
    const fn has(self, weekday: u8) -> bool {
        self.0 & (1 << (weekday % 7)) != 0
    }

    /// Reads names and ranges such as `mon-fri` or `mon,wed,sat-sun`; a range may go over the end of the week.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let day = |name: &str| NAMES.iter().position(|known| name.trim().eq_ignore_ascii_case(known));
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            let count = (last + 7 - first) % 7;
            days |= (0..=count).map(|n| 1 << ((first + n) % 7)).fold(0, |days, day| days | day);
        }
        Some(Self(days))
    }
}

impl TimeOfDay {
    /// Reads `08:00`; `24:00` is the last.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        let number = |digits: &str| {
            let sane = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            sane.then(|| digits.parse::<u16>().ok()).flatten()
        };
        let (hour, minute) = (number(hour)?, number(minute).filter(|&minute| minute < 60)?);
        let of_day = hour.checked_mul(60)?.checked_add(minute)?;
        (of_day <= DAY).then_some(Self(of_day))
    }
}

/// As in the file.
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(&str, &str)> = Vec::new();
        let mut last = None;
        for (day, name) in NAMES.into_iter().enumerate().filter(|(day, _)| self.0 & (1 << day) != 0) {
            match runs.last_mut() {
                Some((_, end)) if last == day.checked_sub(1) => *end = name,
                _ => runs.push((name, name)),
            }
            last = Some(day);
        }
        let text = |(first, last): (&str, &str)| {
            if first == last { first.to_owned() } else { format!("{first}-{last}") }
        };
        f.write_str(&runs.into_iter().map(text).collect::<Vec<_>>().join(","))
    }
}

/// As in the file.
impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &str, from: &str, to: &str) -> Window {
        Window {
            days: Days::parse(days).unwrap(),
            from: TimeOfDay::parse(from).unwrap(),
            to: TimeOfDay::parse(to).unwrap(),
        }
    }

    fn at(day: &str, time: &str) -> LocalTime {
        let weekday = NAMES.iter().position(|name| *name == day).unwrap() as u8;
        LocalTime { weekday, minute: TimeOfDay::parse(time).unwrap().0 }
    }

    #[test]
    fn windows_open_and_close_when_the_wall_clock_says_so() {
        let (office, night, whole) = (
            window("mon-fri", "08:00", "18:00"),
            window("fri", "22:00", "06:00"),
            window("sat-mon", "00:00", "24:00"),
        );
        for (row, (window, time, open)) in [
            (office, at("mon", "07:59"), false),
            (office, at("mon", "08:00"), true),
            (office, at("fri", "17:59"), true),
            (office, at("fri", "18:00"), false),
            (office, at("sat", "12:00"), false),
            (night, at("fri", "21:59"), false),
            (night, at("fri", "22:00"), true),
            (night, at("sat", "05:59"), true),
            (night, at("sat", "06:00"), false),
            (night, at("fri", "05:00"), false),
            (whole, at("sat", "00:00"), true),
            (whole, at("mon", "23:59"), true),
            (whole, at("tue", "00:00"), false),
            (window("sun", "23:00", "01:00"), at("mon", "00:30"), true),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(window.holds(time), open, "row {row}: {window:?} {time:?}");
        }
    }

    #[test]
    fn days_and_times_are_read_and_shown_alike() {
        for (text, shown) in [
            ("mon-fri", "mon-fri"),
            ("Mon, wed ,sat-sun", "mon,wed,sat-sun"),
            ("fri-mon", "mon,fri-sun"),
            ("sun", "sun"),
            ("mon-sun", "mon-sun"),
            ("tue-mon", "mon-sun"),
        ] {
            assert_eq!(Days::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "monday", "mon-", "1-5", "mon;tue"] {
            assert_eq!(Days::parse(text), None, "{text}");
        }
        assert_eq!(TimeOfDay::parse("8:05").unwrap().to_string(), "08:05");
        assert_eq!(TimeOfDay::parse("24:00").unwrap().to_string(), "24:00");
        for text in ["", "8", "24:01", "25:00", "12:60", "-1:00", "+1:00", "08:00:00", "8am"] {
            assert_eq!(TimeOfDay::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_wall_clock_follows_summer_time() {
        // Central European time by rule, so that no zone database is needed.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (row, (utc, day, time)) in [
            ("2026-01-15T08:30:00Z", "thu", "09:30"),
            ("2026-07-15T08:30:00Z", "wed", "10:30"),
            // 29 March 2026: the hour from 02:00 is left out.
            ("2026-03-29T00:59:00Z", "sun", "01:59"),
            ("2026-03-29T01:00:00Z", "sun", "03:00"),
            // 25 October 2026: the hour from 02:00 comes twice.
            ("2026-10-25T00:30:00Z", "sun", "02:30"),
            ("2026-10-25T01:30:00Z", "sun", "02:30"),
            ("2026-12-31T23:30:00Z", "fri", "00:30"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(LocalTime::at(utc.parse().unwrap(), zone.clone()), at(day, time), "row {row}");
        }
    }
}
