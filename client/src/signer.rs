//! Signs for certificates in the two ways that the SSH library does not: with a private key at hand and the hash that
//! was agreed (its own call takes SHA-1 for RSA), and with an agent that holds the key but not its certificate.

use std::sync::Arc;

use russh::SendError;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{HashAlg, PrivateKey, PublicKey};
use russh::{AgentAuthError, Signer};
use tokio::net::UnixStream;

/// Signs with a private key of a file.
pub(crate) struct FileSigner(pub(crate) Arc<PrivateKey>);

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("the connection is gone")]
    Gone(#[from] SendError),
    #[error("the key cannot sign: {0}")]
    Key(String),
}

impl Signer for FileSigner {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let failed = |error: &dyn std::fmt::Display| SignError::Key(error.to_string());
        let signature: Signature = match self.0.key_data() {
            KeypairData::Rsa(pair) => (pair, hash).try_sign(&to_sign).map_err(|error| failed(&error))?,
            other => other.try_sign(&to_sign).map_err(|error| failed(&error))?,
        };
        // The library sends what was to be signed with the signature behind it, as a string (RFC 4252, section 7).
        let signature = signature.encode_vec().map_err(|error| failed(&error))?;
        signature.encode(&mut to_sign).map_err(|error| failed(&error))?;
        Ok(to_sign)
    }
}

/// Has an agent sign with the plain key of a certificate.
pub(crate) struct PlainKey<'a>(pub(crate) &'a mut AgentClient<UnixStream>);

impl Signer for PlainKey<'_> {
    type Error = AgentAuthError;

    async fn auth_sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, AgentAuthError> {
        let key = match identity {
            AgentIdentity::Certificate { certificate, .. } => {
                PublicKey::new(certificate.public_key().clone(), "")
            }
            AgentIdentity::PublicKey { key, .. } => key.clone(),
        };
        self.0.auth_sign(&AgentIdentity::from(key), hash, to_sign).await
    }
}
