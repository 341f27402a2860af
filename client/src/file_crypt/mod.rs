//! Encryption of files at rest: what lies on a disk can be read with the password only, and not be changed unnoticed.
//! `FILE-CRYPT.md` beside this crate's manifest describes the format, so that another program can read it.
//!
//! `format` has the bytes, `keys` makes keys of passwords, `local` turns files on this machine into one another, and
//! `command` is how a user asks for it.

pub(crate) mod command;
pub mod format;
pub mod keys;
pub mod local;

/// What the names of encrypted files end in. ascp's `.aspera-env` is another format.
pub const SUFFIX: &str = ".haul-crypt";
