//! The haul protocol as pure computation.
//!
//! # The contract
//!
//! A machine ([`sender::Sender`] or [`receiver::Receiver`]) is driven by a loop outside:
//!
//! 1. give it what has happened: `handle_datagram(now, ..)`, `handle_timeout(now)`, disk completions;
//! 2. then drain it: `poll_transmit(now, ..)` for datagrams, `poll_read` or `poll_disk` for disk requests,
//!    `poll_timeout()` last for the time of the next visit.
//!
//! Time is a [`std::time::Duration`] since an epoch of the caller's choice that never goes back. Nothing in this crate
//! opens a socket, file or thread, reads a clock, or draws randomness; so whole transfers over long, lossy paths run in
//! milliseconds under a simulated clock, and every bug found there is a seed.
//!
//! The wire is described in `PROTOCOL.md` beside this crate.

pub mod constants;
pub mod control;
pub mod crypto;
pub mod disk;
pub mod dscp;
mod error;
pub mod journal;
pub mod ladder;
pub mod layout;
pub mod link;
pub mod loss;
pub mod manifest;
mod min_filter;
mod mtu;
mod pacer;
pub mod range_set;
pub mod rate;
pub mod receiver;
mod replay;
mod rtt;
pub mod sender;
pub mod stats;
pub mod units;
pub mod verdict;
pub mod wire;

pub use error::Error;
