//! Whole-system tests of haul: a WAN emulator, a harness for the real `hauld` and `haul`, and file trees.
//!
//! Nothing here is shipped. The scenarios in `scenarios/` use this crate; it holds no unit tests of the
//! product and never links the product's crates, so that only what a user can reach is tested.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test equipment: a broken assumption must stop the test loudly and say why"
)]

pub mod bench;
pub mod harness;
pub mod require;
pub mod rng;
pub mod schema;
pub mod tree;
pub mod wan;
