//! Rate settings: wished for by the client, granted by the server, at the start and in the middle of a transfer. Pure.
//! Not here: how a rate is kept.

use serde::{Deserialize, Serialize};

use super::message::RatePolicy;
use crate::rate::RateConfig;
use crate::units::Rate;

/// The rate settings of a session, all of them: what is absent is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateTerms {
    /// How the rate is chosen.
    #[serde(default)]
    pub policy: RatePolicy,
    /// Target rate; none means: find the capacity of the path.
    #[serde(default)]
    pub target_rate: Option<Rate>,
    /// Rate below which congestion does not push the sender.
    #[serde(default)]
    pub min_rate: Option<Rate>,
}

/// The rate settings that the server grants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateGrant {
    /// Rate policy granted.
    #[serde(default)]
    pub policy: RatePolicy,
    /// Target rate granted; none means unlimited.
    #[serde(default)]
    pub target_rate: Option<Rate>,
    /// Minimum rate granted.
    #[serde(default)]
    pub min_rate: Option<Rate>,
    /// What the server changed in the wish and why, one sentence each, for the user.
    #[serde(default)]
    pub changes: Vec<String>,
}

/// The most that the server allows a session at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    /// The most.
    pub rate: Rate,
    /// Why, as a sentence for the user.
    pub reason: String,
}

impl RateTerms {
    /// What the server grants of this wish.
    #[must_use]
    pub fn granted(self, ceiling: Option<&Ceiling>) -> RateGrant {
        let mut changes = Vec::new();
        let target_rate = clip_target(self.target_rate, ceiling, &mut changes);
        let min_rate = self.min_rate.map(|rate| match target_rate.filter(|&target| rate > target) {
            Some(target) => {
                let mbit = target.bps() as f64 / 1e6;
                changes.push(format!("the minimum rate is lowered to the target rate, {mbit} Mbit/s"));
                target
            }
            None => rate,
        });
        let policy = match (self.policy, target_rate) {
            (RatePolicy::Fixed, None) => {
                changes.push("policy fixed needs a target rate (-l); fair is used".to_owned());
                RatePolicy::Fair
            }
            (policy, _) => policy,
        };
        RateGrant { policy, target_rate, min_rate, changes }
    }
}

impl RateGrant {
    /// The settings without the words.
    #[must_use]
    pub const fn terms(&self) -> RateTerms {
        RateTerms { policy: self.policy, target_rate: self.target_rate, min_rate: self.min_rate }
    }

    /// The settings as far as they do not exceed a wish. A server may lower what was wished for, not raise or swap it;
    /// and what it says may have crossed a newer wish.
    #[must_use]
    pub fn held_to(&self, wish: RateTerms) -> RateTerms {
        let got = self.target_rate.filter(|&rate| rate > Rate::ZERO);
        let target_rate = match (got, wish.target_rate) {
            (Some(got), Some(wish)) => Some(got.min(wish)),
            (got, wish) => got.or(wish),
        };
        let min_rate = self.min_rate.and_then(|got| wish.min_rate.map(|wish| got.min(wish)));
        let policy = if self.policy == RatePolicy::Fair { RatePolicy::Fair } else { wish.policy };
        RateTerms { policy, target_rate, min_rate }
    }
}

impl From<RateTerms> for RateConfig {
    fn from(terms: RateTerms) -> Self {
        Self { policy: terms.policy, target: terms.target_rate, minimum: terms.min_rate }
    }
}

fn clip_target(wish: Option<Rate>, ceiling: Option<&Ceiling>, changes: &mut Vec<String>) -> Option<Rate> {
    match (wish, ceiling) {
        (Some(wish), Some(ceiling)) if wish > ceiling.rate => {
            changes.push(ceiling.reason.clone());
            Some(ceiling.rate)
        }
        (None, Some(ceiling)) => Some(ceiling.rate),
        (wish, _) => wish,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ClientMessage, ServerMessage, encode_line};
    use super::*;

    fn rate(mbit: u64) -> Option<Rate> {
        Some(Rate::from_bps(mbit * 1_000_000))
    }

    #[test]
    fn rates_are_clipped_and_every_change_is_told() {
        // wish, minimum, policy, server's most -> target, minimum, policy, changes
        use RatePolicy::{Fair, Fixed};
        let table = [
            (None, None, Fair, None, None, None, Fair, 0),
            (rate(100), None, Fixed, None, rate(100), None, Fixed, 0),
            (rate(100), None, Fixed, rate(50), rate(50), None, Fixed, 1),
            (None, None, Fixed, rate(50), rate(50), None, Fixed, 0),
            (None, None, Fixed, None, None, None, Fair, 1),
            (rate(100), rate(80), Fair, rate(50), rate(50), rate(50), Fair, 2),
        ];
        for (row, (target_rate, min_rate, policy, most, target, minimum, got_policy, changes)) in
            table.into_iter().enumerate()
        {
            let ceiling = most.map(|rate| Ceiling { rate, reason: "so".to_owned() });
            let got = RateTerms { policy, target_rate, min_rate }.granted(ceiling.as_ref());
            let got = (got.target_rate, got.min_rate, got.policy, got.changes.len());
            assert_eq!(got, (target, minimum, got_policy, changes), "row {row}");
        }
    }

    #[test]
    fn a_grant_never_exceeds_the_wish() {
        use RatePolicy::{Fair, Fixed, Low};
        let terms = |policy, target_rate, min_rate| RateTerms { policy, target_rate, min_rate };
        // granted, wished -> held to
        let table = [
            (terms(Fair, rate(40), None), terms(Fair, None, None), terms(Fair, rate(40), None)),
            (terms(Fair, rate(400), None), terms(Fair, rate(50), None), terms(Fair, rate(50), None)),
            (terms(Fair, None, None), terms(Fair, rate(50), None), terms(Fair, rate(50), None)),
            (terms(Fixed, rate(9), rate(9)), terms(Low, rate(50), rate(2)), terms(Low, rate(9), rate(2))),
            (terms(Fair, rate(9), rate(9)), terms(Low, None, None), terms(Fair, rate(9), None)),
            (terms(Fair, rate(0), None), terms(Fair, None, None), terms(Fair, None, None)),
        ];
        for (row, (granted, wish, held)) in table.into_iter().enumerate() {
            let RateTerms { policy, target_rate, min_rate } = granted;
            let grant = RateGrant { policy, target_rate, min_rate, changes: Vec::new() };
            assert_eq!(grant.held_to(wish), held, "row {row}");
        }
    }

    #[test]
    fn the_messages_are_pinned_and_grow() {
        let wish = ClientMessage::SetRate(RateTerms {
            policy: RatePolicy::Low,
            target_rate: Some(Rate::from_bps(200_000_000)),
            min_rate: None,
        });
        let text = r#"{"type":"set_rate","policy":"low","target_rate":200000000,"min_rate":null}"#;
        assert_eq!(encode_line(&wish), format!("{text}\n").as_bytes());
        assert_eq!(serde_json::from_str::<ClientMessage>(text).unwrap(), wish);
        let least = serde_json::from_str(r#"{"type":"set_rate","from":"the future"}"#).unwrap();
        assert_eq!(ClientMessage::SetRate(RateTerms::default()), least);
        let grant = ServerMessage::Rate(RateGrant {
            policy: RatePolicy::Low,
            target_rate: Some(Rate::from_bps(1)),
            min_rate: None,
            changes: vec!["so".into()],
        });
        let text = r#"{"type":"rate","policy":"low","target_rate":1,"min_rate":null,"changes":["so"]}"#;
        assert_eq!(encode_line(&grant), format!("{text}\n").as_bytes());
        assert_eq!(serde_json::from_str::<ServerMessage>(text).unwrap(), grant);
    }
}
