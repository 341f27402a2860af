//! Whole-system scenarios of haul.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests: a broken assumption must fail loudly; the lints know #[test] functions, not their helpers"
)]

mod admission;
mod after;
mod ascp;
mod carriers;
mod emulator;
mod file_crypt;
mod graph;
mod hostile;
mod https;
mod identities;
mod json;
mod kill;
mod logins;
mod management;
mod openssh;
mod proxies;
mod rates;
mod refusals;
mod resume;
mod retry;
mod selection;
mod send_errors;
mod sparse;
mod stats;
mod transfer;
mod wan;
mod web;
