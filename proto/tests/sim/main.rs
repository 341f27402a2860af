//! Whole transfers between the two machines under a simulated clock, over a simulated link with seeded faults.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub,
    reason = "a test binary: it may fail loudly"
)]

mod claims;
mod link;
mod pair;
mod random;
mod verdicts;
