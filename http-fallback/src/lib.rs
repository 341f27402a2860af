//! HTTPS at both ends of haul: the listener with its certificate, and the carrier that brings the same sealed datagrams
//! over TLS where UDP is blocked.
//!
//! [`listen`] accepts connections, holds them to deadlines and hands requests to a router: the carrier's path and whatever
//! pages there are. [`identity`] is the certificate that it shows. Not here: who may log in, keys of sessions, and what
//! the datagrams say. [`web`] is what browsers see.

pub mod carrier;
pub mod dial;
pub mod identity;
pub mod listen;
pub mod web;

/// TCP port of the HTTPS listener unless configured otherwise.
pub const DEFAULT_PORT: u16 = 8443;
