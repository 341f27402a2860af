//! What a server shows of itself in TLS: certificate and key. Not here: files.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// What the listener can speak, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// There is no certificate in the text.
    #[error("no certificate in PEM form: {0}")]
    Certificate(PemError),
    /// There is no private key in the text.
    #[error("no private key in PEM form: {0}")]
    Key(PemError),
    /// They do not fit together, or are of a kind that is not supported.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// A new one cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate with its key, ready to serve.
#[derive(Debug, Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    fingerprint: [u8; 32],
}

impl Identity {
    /// Takes the chain and the key from the text of PEM files, which may be one and the same.
    ///
    /// # Errors
    /// If they are missing or do not fit together.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(IdentityError::Certificate)?;
        let first = chain.first().ok_or(IdentityError::Certificate(PemError::NoItemsFound))?;
        let hash = digest(&SHA256, first);
        let fingerprint = hash.as_ref().first_chunk().copied().unwrap_or_default();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(IdentityError::Key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(Self { config: Arc::new(config), fingerprint })
    }

    /// A new certificate that vouches for itself, and its key, as one PEM text. haul's own clients know it by the
    /// fingerprint that they learn over SSH; browsers will ask their users.
    ///
    /// # Errors
    /// If one of `names`, host names and IP addresses, cannot stand in a certificate.
    pub fn make_pem(names: Vec<String>) -> Result<String, IdentityError> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "hauld");
        let certificate = params.self_signed(&key)?;
        Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
    }

    /// SHA-256 of the certificate in DER form.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The fingerprint as browsers and `openssl x509 -fingerprint` print it, without colons and in lower case.
    #[must_use]
    pub fn fingerprint_text(&self) -> String {
        self.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_certificate_serves_and_keeps_its_fingerprint() {
        let pem = Identity::make_pem(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let one = Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
        let two = Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap();
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_eq!(one.fingerprint_text().len(), 64);
        let other = Identity::make_pem(vec!["localhost".to_owned()]).unwrap();
        assert!(matches!(
            Identity::from_pem(pem.as_bytes(), other.as_bytes()),
            Err(IdentityError::Unusable(_))
        ));
        assert!(matches!(Identity::from_pem(b"", pem.as_bytes()), Err(IdentityError::Certificate(_))));
        assert!(matches!(Identity::from_pem(pem.as_bytes(), b"x"), Err(IdentityError::Key(_))));
    }
}
