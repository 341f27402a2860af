//! Dates as HTTP writes them (RFC 9110, section 5.6.7), as people read them, and as DOS kept them. All in UTC.

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_SECONDS: i64 = 86_400;

/// A moment in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    year: i64,
    month: u8,
    day: u8,
    weekday: usize,
    second_of_day: u32,
}

impl Moment {
    /// From seconds since 1970. Years outside 1 to 9999 are moved to the nearest that HTTP can write.
    #[must_use]
    pub fn new(seconds: i64) -> Self {
        let seconds = seconds.clamp(-62_135_596_800, 253_402_300_799);
        let days = seconds.div_euclid(DAY_SECONDS);
        // After Howard Hinnant, "chrono-compatible low-level date algorithms": years that begin in March.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day_of_year - (153 * month_from_march + 2) / 5 + 1).unwrap_or(1),
            weekday: usize::try_from(days.rem_euclid(7)).unwrap_or(0),
            second_of_day: u32::try_from(seconds.rem_euclid(DAY_SECONDS)).unwrap_or(0),
        }
    }

    const fn clock(self) -> (u32, u32, u32) {
        (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    #[must_use]
    pub fn http(self) -> String {
        let (hour, minute, second) = self.clock();
        let weekday = DAYS.get(self.weekday).unwrap_or(&"Thu");
        let month = MONTHS.get(usize::from(self.month) - 1).unwrap_or(&"Jan");
        format!("{weekday}, {:02} {month} {:04} {hour:02}:{minute:02}:{second:02} GMT", self.day, self.year)
    }

    /// `1994-11-06 08:49`.
    #[must_use]
    pub fn short(self) -> String {
        let (hour, minute, _) = self.clock();
        format!("{:04}-{:02}-{:02} {hour:02}:{minute:02}", self.year, self.month, self.day)
    }

    /// `1994-11-06T08:49:37Z`.
    #[must_use]
    pub fn iso(self) -> String {
        let (hour, minute, second) = self.clock();
        format!("{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", self.year, self.month, self.day)
    }

    /// Date and time of DOS, from 1980 to 2107, two seconds apart.
    #[must_use]
    pub fn dos(self) -> (u16, u16) {
        let (hour, minute, second) = self.clock();
        let Ok(year @ 0..=127) = u16::try_from(self.year - 1980) else {
            return if self.year < 1980 { (0x21, 0) } else { (0xff9f, 0xbf7d) };
        };
        let date = (year << 9) | (u16::from(self.month) << 5) | u16::from(self.day);
        let time = (hour << 11) | (minute << 5) | (second / 2);
        (date, u16::try_from(time).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_rules_say() {
        for (seconds, http, short) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06 08:49"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01 00:00"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT", "1969-12-31 23:59"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "2000-02-29 00:00"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT", "2100-03-01 00:00"),
        ] {
            let moment = Moment::new(seconds);
            assert_eq!((moment.http().as_str(), moment.short().as_str()), (http, short));
        }
        assert_eq!(Moment::new(i64::MAX).http(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert!(Moment::new(i64::MIN).short().starts_with("0001-01-01"));
    }

    #[test]
    fn dos_times_stay_in_their_century() {
        assert_eq!(Moment::new(784_111_777).dos(), ((14 << 9) | (11 << 5) | 6, (8 << 11) | (49 << 5) | 18));
        assert_eq!(Moment::new(0).dos(), (0x21, 0));
        assert_eq!(Moment::new(i64::MAX).dos(), (0xff9f, 0xbf7d));
    }
}
