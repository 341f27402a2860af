//! The one place where haul does I/O for both ends of a session.
//!
//! Each end runs one protocol thread ([`drive`]): it owns the machine of [`haul_proto`] and the [carrier], reads the
//! clock once a turn, and never blocks but in `ppoll`. Disk work is done by the threads of [`disk`], which wake the
//! protocol thread through an event descriptor. Nothing here decides what is sent or what a packet means.

pub mod carrier;
pub mod disk;
pub mod drive;
mod ends;
pub mod handover;
pub mod streams;
mod waker;

pub use drive::{Command, DriveError, Ending, News, Outlet};
pub use ends::{ReceiveEnd, SendEnd};
pub use waker::Waker;
