//! What the front decides about a session and tells its worker before the worker reads a byte from the network.
//! The form on the descriptor: four bytes of length (big-endian), then JSON. Both ends are the same binary.

use std::io::{self, Read};
use std::net::IpAddr;
use std::path::PathBuf;

use haul_proto::control::HttpsEndpoint;
use haul_proto::dscp::Dscp;
use haul_proto::units::Rate;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest policy that is read, in bytes. Paths are the only long things in it.
const MAX_POLICY_BYTES: usize = 64 << 10;

/// What a user may do below the docroot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Permissions {
    /// Download.
    pub read: bool,
    /// Upload.
    pub write: bool,
    /// See names.
    pub list: bool,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, list: true };
}

/// UDP ports a session may open. `0` as both means: one that the system picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
}

impl PortRange {
    /// What is used when nothing is said.
    pub const DEFAULT: Self = Self { first: 33001, last: 33100 };
}

/// The system account a worker becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name in the account database.
    pub name: String,
}

/// All a worker has to know about its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPolicy {
    /// Identifies the session in both logs: 16 hexadecimal digits.
    pub session: String,
    /// Who logged in.
    pub user: String,
    /// Where from: address and port.
    pub peer: String,
    /// The only folder the session may touch.
    pub docroot: PathBuf,
    /// What it may do there.
    pub permissions: Permissions,
    /// The most it may send or ask for, whatever its share of caps is.
    pub max_session_rate: Option<Rate>,
    /// It is under caps that sessions share: standard output is its lease on them.
    pub leased: bool,
    /// What it sends carries this, whatever the client asks for.
    pub dscp: Option<Dscp>,
    /// TLS connections may be joined to it: with the policy comes a socket over which they are handed over.
    #[serde(default)]
    pub https: Option<HttpsEndpoint>,
    /// UDP ports it may open.
    pub udp_ports: PortRange,
    /// The local address the client reached, so that datagrams come from the address it asked.
    pub udp_bind: Option<IpAddr>,
    /// The program that is asked about each transfer.
    pub authorize: Option<PathBuf>,
    /// The account to become; none keeps the account of the process.
    pub account: Option<Account>,
}

/// Why there is no policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The descriptor ended or failed.
    #[error("the front is gone")]
    Read(#[source] io::Error),
    /// Beyond the limit.
    #[error("a policy of {found} bytes, at most {MAX_POLICY_BYTES} expected")]
    TooLong {
        /// Bytes announced, or made.
        found: usize,
    },
    /// No JSON, or not this one.
    #[error("the policy is malformed")]
    Malformed(#[source] serde_json::Error),
    /// No randomness for a session name.
    #[error("the system has no random numbers")]
    Random,
}

impl SessionPolicy {
    /// The policy as it goes over the descriptor.
    ///
    /// # Errors
    /// If a path is not UTF-8, or the whole too long.
    pub fn encode(&self) -> Result<Vec<u8>, PolicyError> {
        let json = serde_json::to_vec(self).map_err(PolicyError::Malformed)?;
        let length = u32::try_from(json.len())
            .ok()
            .filter(|_| json.len() <= MAX_POLICY_BYTES)
            .ok_or(PolicyError::TooLong { found: json.len() })?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&json);
        Ok(bytes)
    }

    /// Reads a policy and not a byte more: what follows belongs to the control conversation. `input` must not buffer.
    ///
    /// # Errors
    /// If the input ends early, announces too much, or holds something else.
    pub fn read_from(input: &mut impl Read) -> Result<Self, PolicyError> {
        let mut length = [0; 4];
        input.read_exact(&mut length).map_err(PolicyError::Read)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLong { found: length });
        }
        let mut json = vec![0; length];
        input.read_exact(&mut json).map_err(PolicyError::Read)?;
        serde_json::from_slice(&json).map_err(PolicyError::Malformed)
    }
}

/// A fresh name for a session: 16 random hexadecimal digits.
///
/// # Errors
/// If the system has no randomness.
pub fn random_session_name() -> Result<String, PolicyError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PolicyError::Random)?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> SessionPolicy {
        SessionPolicy {
            session: random_session_name().unwrap(),
            user: "alice".to_owned(),
            peer: "192.0.2.7:4711".to_owned(),
            docroot: PathBuf::from("/srv/alice"),
            permissions: Permissions { read: true, write: false, list: true },
            max_session_rate: Some(Rate::from_bps(1_000_000_000)),
            leased: true,
            dscp: Dscp::parse("CS1").ok(),
            https: None,
            udp_ports: PortRange::DEFAULT,
            udp_bind: Some(IpAddr::from([192, 0, 2, 1])),
            authorize: Some("/etc/haul/authorize".into()),
            account: Some(Account { name: "alice".to_owned() }),
        }
    }

    #[test]
    fn a_policy_is_read_to_its_last_byte_and_no_further() {
        let policy = policy();
        let mut bytes = policy.encode().unwrap();
        bytes.extend_from_slice(b"{\"type\":\"offer\"}\n");
        let mut input = bytes.as_slice();
        assert_eq!(SessionPolicy::read_from(&mut input).unwrap(), policy);
        assert_eq!(input, b"{\"type\":\"offer\"}\n");
    }

    #[test]
    fn a_wrong_policy_is_refused() {
        let huge = [0xff; 8];
        assert!(matches!(SessionPolicy::read_from(&mut huge.as_slice()), Err(PolicyError::TooLong { .. })));
        let cut = policy().encode().unwrap();
        let cut = cut.get(..cut.len() - 1).unwrap();
        assert!(matches!(SessionPolicy::read_from(&mut &*cut), Err(PolicyError::Read(_))));
        assert!(matches!(
            SessionPolicy::read_from(&mut [0, 0, 0, 2, b'{', b'}'].as_slice()),
            Err(PolicyError::Malformed(_))
        ));
    }

    #[test]
    fn session_names_are_sixteen_digits_and_differ() {
        let (one, two) = (random_session_name().unwrap(), random_session_name().unwrap());
        assert_eq!(one.len(), 16);
        assert_ne!(one, two);
    }
}
