//! What a user may ask for while the data moves: rate settings, by key or by a line of JSON. Pure: text in, wish out.
//! Not here: reading the terminal, and what the server makes of the wish.

use haul_proto::control::{RatePolicy, RateTerms};
use haul_proto::units::Rate;
use serde::{Deserialize, Deserializer};

use crate::human;

/// A key changes the target rate by a tenth.
const STEP_UP: f64 = 1.1;
const STEP_DOWN: f64 = 0.9;

/// Keys do not lower the target rate below this: the way back up would be long.
const LEAST_STEP: Rate = Rate::from_bps(100_000);

/// The keys, for people.
pub(crate) const KEYS: &str = "keys: + and - change the target rate by a tenth, u lifts it; h, f, l take policy high, fair, low; x fixed";

/// A change of the rate settings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct RateChange {
    target: Option<Target>,
    minimum: Option<Option<Rate>>,
    policy: Option<RatePolicy>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    To(Option<Rate>),
    Up,
    Down,
}

/// A line of standard input with `--json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, deserialize_with = "present")]
    set_rate: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    set_min_rate: Option<Option<String>>,
    #[serde(default)]
    set_policy: Option<RatePolicy>,
}

/// Tells `null` from what is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

impl RateChange {
    /// What a key asks for; none if it has no meaning.
    pub(crate) fn of_key(key: u8) -> Option<Self> {
        let target = |target| Self { target: Some(target), ..Self::default() };
        let policy = |policy| Self { policy: Some(policy), ..Self::default() };
        Some(match key {
            b'+' | b'=' => target(Target::Up),
            b'-' | b'_' => target(Target::Down),
            b'u' => target(Target::To(None)),
            b'h' => policy(RatePolicy::High),
            b'f' => policy(RatePolicy::Fair),
            b'l' => policy(RatePolicy::Low),
            b'x' => policy(RatePolicy::Fixed),
            _ => return None,
        })
    }

    /// What a line of JSON asks for.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn of_line(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| {
            format!(
                "a line on standard input is no command: {error}; write for example {{\"set_rate\":\"200m\"}}"
            )
        })?;
        let change = Self {
            target: line.set_rate.map(rate).transpose()?.map(Target::To),
            minimum: line.set_min_rate.map(rate).transpose()?,
            policy: line.set_policy,
        };
        if change == Self::default() {
            return Err(
                "a line on standard input asks for nothing; known are set_rate, set_min_rate, set_policy"
                    .to_owned(),
            );
        }
        Ok(change)
    }

    /// What a driver asks for; what is absent stays as it is.
    pub(crate) fn of_driver(
        target: Option<Rate>,
        minimum: Option<Option<Rate>>,
        policy: Option<RatePolicy>,
    ) -> Self {
        Self { target: target.map(|rate| Target::To(Some(rate))), minimum, policy }
    }

    /// The wish that follows from `wish`, of which `granted` is in force while the data moves at `actual`.
    ///
    /// # Errors
    /// A sentence that says why it cannot be.
    pub(crate) fn apply(
        self,
        wish: RateTerms,
        granted: RateTerms,
        actual: Rate,
    ) -> Result<RateTerms, String> {
        let target_rate = match self.target {
            None => wish.target_rate,
            Some(Target::To(rate)) => rate,
            Some(Target::Up) => Some(
                wish.target_rate
                    .ok_or("no target rate is set, so none keeps the rate down")?
                    .scaled(STEP_UP)
                    .max(LEAST_STEP),
            ),
            // From what is in force, or the key would seem dead while the server allows less than was wished for.
            Some(Target::Down) => {
                let from = granted.target_rate.or(wish.target_rate).unwrap_or(actual);
                Some(from.scaled(STEP_DOWN).max(LEAST_STEP))
            }
        };
        let min_rate = self.minimum.unwrap_or(wish.min_rate);
        let policy = self.policy.unwrap_or(wish.policy);
        if policy == RatePolicy::Fixed && target_rate.is_none() {
            return Err("policy fixed needs a target rate; set one first".to_owned());
        }
        if let (Some(minimum), Some(target)) = (min_rate, target_rate)
            && minimum > target
        {
            let (minimum, target) = (human::rate(minimum), human::rate(target));
            return Err(format!("the minimum rate {minimum} would be above the target rate {target}"));
        }
        Ok(RateTerms { policy, target_rate, min_rate })
    }
}

/// A rate, or none for `null` and `"0"`.
fn rate(text: Option<String>) -> Result<Option<Rate>, String> {
    match text.as_deref().map(str::trim) {
        None | Some("0") => Ok(None),
        Some(text) => Rate::parse(text).map(Some).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mbit(rate: u64) -> Option<Rate> {
        Some(Rate::from_bps(rate * 1_000_000))
    }

    fn terms(policy: RatePolicy, target_rate: Option<Rate>, min_rate: Option<Rate>) -> RateTerms {
        RateTerms { policy, target_rate, min_rate }
    }

    #[test]
    fn lines_and_keys_change_what_they_name_and_keep_the_rest() {
        use RatePolicy::{Fair, Fixed, High, Low};
        let line = |text: &str| RateChange::of_line(text.as_bytes()).unwrap();
        let key = |key| RateChange::of_key(key).unwrap();
        let base = terms(Fair, mbit(100), mbit(1));
        for (row, (change, wish)) in [
            (line(r#"{"set_rate":"200m"}"#), terms(Fair, mbit(200), mbit(1))),
            (line(r#"{"set_rate":"200000"}"#), terms(Fair, mbit(200), mbit(1))),
            (line(r#"{"set_rate":null}"#), terms(Fair, None, mbit(1))),
            (line(r#"{"set_rate":"0"}"#), terms(Fair, None, mbit(1))),
            (line(r#"{"set_policy":"low"}"#), terms(Low, mbit(100), mbit(1))),
            (line(r#"{"set_min_rate":"0"}"#), terms(Fair, mbit(100), None)),
            (
                line(r#" {"set_rate":"50m","set_min_rate":"5m","set_policy":"fixed"} "#),
                terms(Fixed, mbit(50), mbit(5)),
            ),
            (key(b'+'), terms(Fair, mbit(110), mbit(1))),
            (key(b'-'), terms(Fair, mbit(90), mbit(1))),
            (key(b'u'), terms(Fair, None, mbit(1))),
            (key(b'h'), terms(High, mbit(100), mbit(1))),
            (key(b'l'), terms(Low, mbit(100), mbit(1))),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(change.apply(base, base, Rate::ZERO), Ok(wish), "row {row}");
        }
        assert_eq!(RateChange::of_key(b'q'), None);
    }

    #[test]
    fn steps_begin_where_the_user_sees_the_rate() {
        use RatePolicy::Fair;
        let key = |key| RateChange::of_key(key).unwrap();
        let (free, wish, granted) =
            (terms(Fair, None, None), terms(Fair, mbit(100), None), terms(Fair, mbit(40), None));
        assert_eq!(key(b'-').apply(wish, granted, Rate::ZERO).unwrap().target_rate, mbit(36));
        assert_eq!(key(b'+').apply(wish, granted, Rate::ZERO).unwrap().target_rate, mbit(110));
        assert_eq!(key(b'-').apply(free, free, mbit(50).unwrap()).unwrap().target_rate, mbit(45));
        assert!(key(b'+').apply(free, free, mbit(50).unwrap()).is_err());
        let tiny = terms(Fair, Some(Rate::from_bps(1)), None);
        assert_eq!(key(b'-').apply(tiny, tiny, Rate::ZERO).unwrap().target_rate, Some(LEAST_STEP));
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (line, word) in [
            ("", "no command"),
            ("fast", "no command"),
            ("{}", "asks for nothing"),
            ("[1]", "no command"),
            (r#"{"set_rate":"fast"}"#, "`fast` is not a rate"),
            (r#"{"set_rate":200}"#, "expected a string"),
            (r#"{"set_speed":"1m"}"#, "set_speed"),
            (r#"{"set_policy":"unfair"}"#, "unfair"),
        ] {
            let said = RateChange::of_line(line.as_bytes()).unwrap_err();
            assert!(said.contains(word), "{line}: {said}");
        }
        let free = RateTerms::default();
        for (line, word) in [
            (r#"{"set_policy":"fixed"}"#, "needs a target rate"),
            (r#"{"set_min_rate":"2m","set_rate":"1m"}"#, "above the target rate"),
        ] {
            let change = RateChange::of_line(line.as_bytes()).unwrap();
            assert!(change.apply(free, free, Rate::ZERO).unwrap_err().contains(word), "{line}");
        }
    }
}
