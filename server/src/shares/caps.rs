//! Which caps hold for a session at a moment, and in which words. Pure.

use haul_proto::control::Direction;
use haul_proto::units::Rate;

use super::schedule::{LocalTime, Window};

/// Caps that sessions share: of both directions together, and of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharedCaps {
    /// Uploads and downloads together.
    pub both: Option<Rate>,
    /// What clients send.
    pub uploads: Option<Rate>,
    /// What the server sends.
    pub downloads: Option<Rate>,
}

/// Other caps at some times; of two that hold, the lower one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub(crate) window: Window,
    /// Whose; none is the whole server.
    pub(crate) user: Option<String>,
    pub(crate) caps: SharedCaps,
}

/// Whose sessions share a cap, and in which direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CapKey {
    user: Option<String>,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Both,
    Uploads,
    Downloads,
}

/// A cap that holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cap {
    pub(crate) key: CapKey,
    pub(crate) rate: Rate,
    /// It is the time of day that makes it so low.
    scheduled: bool,
}

/// All caps of the configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caps {
    server: SharedCaps,
    users: Vec<(String, SharedCaps)>,
    schedules: Vec<Schedule>,
}

impl SharedCaps {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    const fn of(&self, way: Way) -> Option<Rate> {
        match way {
            Way::Both => self.both,
            Way::Uploads => self.uploads,
            Way::Downloads => self.downloads,
        }
    }
}

impl Caps {
    pub(crate) fn new(
        server: SharedCaps,
        users: impl Iterator<Item = (String, SharedCaps)>,
        schedules: Vec<Schedule>,
    ) -> Self {
        Self { server, users: users.filter(|(_, caps)| !caps.is_empty()).collect(), schedules }
    }

    /// Whether a session of this user can ever be under a cap.
    pub(crate) fn concern(&self, user: &str) -> bool {
        let of_user = self.users.iter().any(|(name, _)| name == user);
        let at_times = |schedule: &Schedule| schedule.user.as_deref().is_none_or(|name| name == user);
        of_user || !self.server.is_empty() || self.schedules.iter().any(at_times)
    }

    /// The caps that a session of this user and direction is under now.
    pub(crate) fn over(&self, user: &str, direction: Direction, now: LocalTime) -> Vec<Cap> {
        let way = match direction {
            Direction::Upload => Way::Uploads,
            Direction::Download => Way::Downloads,
        };
        let of_user = self.users.iter().find(|(name, _)| name == user).map(|(_, caps)| *caps);
        let mut caps = Vec::new();
        for (owner, always) in [(None, self.server), (Some(user), of_user.unwrap_or_default())] {
            caps.extend([Way::Both, way].into_iter().filter_map(|way| self.cap(owner, always, way, now)));
        }
        caps
    }

    fn cap(&self, owner: Option<&str>, always: SharedCaps, way: Way, now: LocalTime) -> Option<Cap> {
        let holds = |schedule: &&Schedule| schedule.user.as_deref() == owner && schedule.window.holds(now);
        let at_times = self.schedules.iter().filter(holds).filter_map(|schedule| schedule.caps.of(way)).min();
        let always = always.of(way);
        let scheduled = at_times.is_some_and(|rate| always.is_none_or(|always| rate < always));
        let rate = at_times.into_iter().chain(always).min()?;
        let key = CapKey { user: owner.map(str::to_owned), way };
        Some(Cap { key, rate, scheduled })
    }
}

impl Cap {
    /// The sentence for the user.
    pub(crate) fn reason(&self) -> String {
        let what = match self.key.way {
            Way::Both => "transfers",
            Way::Uploads => "uploads",
            Way::Downloads => "downloads",
        };
        let whose = if self.key.user.is_some() { " of this user" } else { "" };
        let when = if self.scheduled { " at this time of day" } else { "" };
        format!(
            "the server limits all {what}{whose} together to {} Mbit/s{when}",
            self.rate.bps() as f64 / 1e6
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{Days, TimeOfDay};
    use super::*;

    fn mbit(rate: u64) -> Option<Rate> {
        Some(Rate::from_bps(rate * 1_000_000))
    }

    fn both(rate: u64) -> SharedCaps {
        SharedCaps { both: mbit(rate), ..SharedCaps::default() }
    }

    fn office_hours(user: Option<&str>, caps: SharedCaps) -> Schedule {
        let window = Window {
            days: Days::parse("mon-fri").unwrap(),
            from: TimeOfDay::parse("08:00").unwrap(),
            to: TimeOfDay::parse("18:00").unwrap(),
        };
        Schedule { window, user: user.map(str::to_owned), caps }
    }

    const NOON: LocalTime = LocalTime { weekday: 0, minute: 720 };
    const NIGHT: LocalTime = LocalTime { weekday: 0, minute: 1300 };

    fn words(caps: &Caps, user: &str, direction: Direction, now: LocalTime) -> Vec<String> {
        let words = |cap: &Cap| cap.reason().replace("the server limits all ", "").replace(" Mbit/s", "");
        caps.over(user, direction, now).iter().map(words).collect()
    }

    #[test]
    fn a_session_is_under_the_caps_of_its_server_user_direction_and_hour() {
        let server = SharedCaps { both: mbit(500), uploads: mbit(100), downloads: None };
        let schedules = vec![
            office_hours(None, both(200)),
            office_hours(None, both(700)),
            office_hours(Some("bob"), SharedCaps { downloads: mbit(20), ..SharedCaps::default() }),
        ];
        let caps = Caps::new(server, [("alice".to_owned(), both(80))].into_iter(), schedules);
        use Direction::{Download, Upload};
        for (row, (user, direction, now, expected)) in [
            ("bob", Upload, NIGHT, &["transfers together to 500", "uploads together to 100"][..]),
            ("bob", Download, NIGHT, &["transfers together to 500"]),
            (
                "bob",
                Download,
                NOON,
                &[
                    "transfers together to 200 at this time of day",
                    "downloads of this user together to 20 at this time of day",
                ],
            ),
            (
                "alice",
                Download,
                NOON,
                &["transfers together to 200 at this time of day", "transfers of this user together to 80"],
            ),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(words(&caps, user, direction, now), expected, "row {row}");
        }
    }

    #[test]
    fn only_those_who_can_be_under_a_cap_are_concerned() {
        let caps = |server, schedules| {
            Caps::new(
                server,
                [("alice".to_owned(), both(1)), ("eve".to_owned(), SharedCaps::default())].into_iter(),
                schedules,
            )
        };
        let none = caps(SharedCaps::default(), Vec::new());
        assert_eq!(["alice", "bob", "eve"].map(|user| none.concern(user)), [true, false, false]);
        let bobs = caps(SharedCaps::default(), vec![office_hours(Some("bob"), both(1))]);
        assert_eq!(["alice", "bob", "eve"].map(|user| bobs.concern(user)), [true, true, false]);
        assert!(caps(both(9), Vec::new()).concern("eve"));
        assert!(caps(SharedCaps::default(), vec![office_hours(None, both(1))]).concern("eve"));
    }
}
