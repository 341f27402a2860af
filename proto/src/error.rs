//! What can go wrong in the core, split by whose fault it is.

/// Trouble that ends a session. Packets that fail to authenticate are not among it: they are dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The peer sent a control line beyond the cap.
    #[error("the peer's control message is longer than {} bytes", crate::control::MAX_LINE_BYTES)]
    ControlTooLong,
    /// The peer sent a control line that is no message.
    #[error("the peer's control message cannot be read: {0}")]
    ControlMalformed(String),
    /// So many datagrams failed to authenticate that the keys must not be used further.
    #[error("more than 2^36 datagrams failed to authenticate")]
    ForgeryLimit,
    /// The peer broke the protocol inside an authenticated packet or record.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(&'static str),
}
