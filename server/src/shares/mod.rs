//! Rate caps that several sessions share: how much each of them may use at a moment.
//!
//! The way of a share:
//!
//! 1. A worker reports a few times a second over its [`lease`]: which way its data goes, what its client wants, and how
//!    fast it is. It reports once before it agrees with its client, and waits for the answer.
//! 2. The [`broker`] in `hauld` keeps the [`ledger`] of all sessions. From the reports follows what each session can use;
//!    from the configuration and the time of day, which [`caps`] hold; and from both, by weighted max-min fairness
//!    ([`fair_share`]), what each may use.
//! 3. The broker tells the workers. A worker that sends obeys at once; one that receives passes it on to its client over
//!    the control conversation ([`terms`]).
//!
//! Who comes or goes makes the broker reckon at once, all else within [`broker::ROUND`]. A worker that loses `hauld`
//! keeps its last share. `hauld` never waits for a worker: what a full socket cannot take is said again in the next round.

pub(crate) mod broker;
pub(crate) mod caps;
mod fair_share;
pub(crate) mod lease;
mod ledger;
pub(crate) mod schedule;
pub(crate) mod terms;
