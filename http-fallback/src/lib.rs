//! The TLS carrier of haul: the same sealed datagrams over HTTPS when UDP is blocked.
//!
//! This crate holds what both ends must agree on before the carrier itself is written: how the server announces the
//! fallback inside the control conversation. The carrier, the web pages and browser downloads come with their own
//! change; nothing here opens a socket yet.

use serde::{Deserialize, Serialize};

pub mod web;

/// Where the fallback is and how its certificate is recognised, learnt over SSH, so that no certificate authority is
/// needed and nobody in the middle fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackEndpoint {
    /// TCP port of the HTTPS listener; 8443 unless configured otherwise.
    pub port: u16,
    /// SHA-256 of the server's certificate in DER form, as 64 hexadecimal digits.
    pub certificate_sha256: String,
    /// One-time token that ties a TLS connection to the session: 64 hexadecimal digits.
    pub token: String,
}

/// TCP port of the HTTPS listener unless configured otherwise.
pub const DEFAULT_PORT: u16 = 8443;
