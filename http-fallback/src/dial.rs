//! The client's end of the carrier: TLS to the server, through a proxy if there is one, the certificate checked by what
//! was learnt over SSH, and the upgrade.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::carrier::{NUMBER, PATH, PROOF, PROTOCOL, SESSION, proof, to_hex};

/// From the first packet to the end of the upgrade.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longest answer of a proxy.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// Where systems keep the certificates of authorities.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How the server's certificate is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It has this SHA-256.
    Fingerprint([u8; 32]),
    /// An authority that this system trusts vouches for its name: a proxy in front of the server has its own.
    Authorities,
}

/// A proxy that connects with CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name and password for it, already encoded.
    authorization: Option<String>,
}

/// Why a text names no proxy.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BadProxy(&'static str);

impl Proxy {
    /// Reads `[http://][name[:password]@]host[:port]`; the password may come apart.
    ///
    /// # Errors
    /// If it is of another form.
    pub fn parse(text: &str, password: Option<&[u8]>) -> Result<Self, BadProxy> {
        let text = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(BadProxy("a proxy is named as http://[name:password@]host:port")),
            None => text,
        };
        let text = text.trim_end_matches('/');
        let (login, place) =
            text.rsplit_once('@').map_or((None, text), |(login, place)| (Some(login), place));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
                (host, port.parse().map_err(|_| BadProxy("the port of the proxy is no number"))?)
            }
            _ => (place, 3128),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(BadProxy("the proxy has no host"));
        }
        let authorization = login.map(|login| {
            let mut login = decoded(login);
            if let Some(password) = password.filter(|_| !login.contains(&b':')) {
                login.push(b':');
                login.extend_from_slice(password);
            }
            STANDARD.encode(login)
        });
        Ok(Self { host: host.to_owned(), port, authorization })
    }
}

/// Percent-encoding of a URL undone; what is none stands as it is.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// Where a session's streams go.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How the certificate is recognised.
    pub trust: Trust,
    /// The session.
    pub session: String,
    /// Its secret token.
    pub token: [u8; 32],
    /// What connects.
    pub proxy: Option<Proxy>,
}

/// Why there is no stream.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nothing answers there.
    #[error("no connection to {place}: {source}")]
    Connect {
        /// Host and port.
        place: String,
        /// The cause.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{place} does not answer within {} s", DEADLINE.as_secs())]
    Late {
        /// Host and port.
        place: String,
    },
    /// The proxy refuses.
    #[error("the proxy {place} refuses: {answer}")]
    Proxy {
        /// Host and port.
        place: String,
        /// Its first line.
        answer: String,
    },
    /// The TLS handshake failed, or the certificate is another one.
    #[error("no TLS with {place}: {source}")]
    Tls {
        /// Host and port.
        place: String,
        /// The cause.
        source: std::io::Error,
    },
    /// No authorities to check a certificate by.
    #[error("this system has no list of certificate authorities")]
    NoAuthorities,
    /// The HTTP conversation broke.
    #[error("{place} does not speak HTTP: {source}")]
    Http {
        /// Host and port.
        place: String,
        /// The cause.
        source: hyper::Error,
    },
    /// The server, or something before it, refuses the upgrade.
    #[error("{place} answers {status} instead of an upgrade")]
    Refused {
        /// Host and port.
        place: String,
        /// Its status.
        status: StatusCode,
    },
}

/// A connection, ready to carry datagrams.
pub type Stream = TokioIo<Upgraded>;

/// Opens the connection of this number.
///
/// # Errors
/// [`DialError`].
pub async fn connect(target: &Target, number: u16) -> Result<Stream, DialError> {
    let place = place(&target.host, target.port);
    match timeout(DEADLINE, open(target, number, &place)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Late { place }),
    }
}

fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn open(target: &Target, number: u16, place: &str) -> Result<Stream, DialError> {
    let tls = |source| DialError::Tls { place: place.to_owned(), source };
    // Before it is told to a proxy: the name may be the server's word.
    let name = ServerName::try_from(target.host.clone())
        .map_err(|error| tls(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
    let tcp = dial(&target.host, target.port, target.proxy.as_ref()).await?;
    let connector = TlsConnector::from(Arc::new(client_config(&target.trust)?));
    let stream = connector.connect(name, tcp).await.map_err(tls)?;
    let http = |source| DialError::Http { place: place.to_owned(), source };
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(http)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(PATH)
        .header(HOST, place)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, PROTOCOL)
        .header(SESSION, &target.session)
        .header(NUMBER, number)
        .header(PROOF, to_hex(&proof(&target.token, &target.session, number)))
        .body(Empty::new());
    // Nothing here can be no header but a session of other letters, which nobody would answer.
    let Ok(request) = request else {
        return Err(DialError::Refused { place: place.to_owned(), status: StatusCode::BAD_REQUEST });
    };
    let response = sender.send_request(request).await.map_err(http)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(DialError::Refused { place: place.to_owned(), status: response.status() });
    }
    Ok(TokioIo::new(hyper::upgrade::on(response).await.map_err(http)?))
}

/// A TCP connection to a host, through a proxy if there is one.
///
/// # Errors
/// If there is none, or the proxy refuses.
pub async fn dial(host: &str, port: u16, proxy: Option<&Proxy>) -> Result<TcpStream, DialError> {
    let (to_host, to_port) = proxy.map_or((host, port), |proxy| (proxy.host.as_str(), proxy.port));
    let to = place(to_host, to_port);
    let failed = |source| DialError::Connect { place: to.clone(), source };
    let mut stream = TcpStream::connect((to_host, to_port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    haul_io::streams::bound_unsent(&stream);
    let Some(proxy) = proxy else { return Ok(stream) };
    if host.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    }
    let there = place(host, port);
    let login = proxy
        .authorization
        .as_ref()
        .map_or_else(String::new, |login| format!("Proxy-Authorization: Basic {login}\r\n"));
    let request = format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n{login}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the answer belongs to whoever is behind the proxy.
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < MAX_ANSWER_BYTES {
        answer.push(stream.read_u8().await.map_err(failed)?);
    }
    let line = String::from_utf8_lossy(answer.split(|&byte| byte == b'\r').next().unwrap_or_default());
    let status = line.split_ascii_whitespace().nth(1);
    if line.starts_with("HTTP/1.")
        && status.is_some_and(|status| status.len() == 3 && status.starts_with('2'))
    {
        return Ok(stream);
    }
    let answer: String = line.chars().filter(|c| !c.is_control()).take(100).collect();
    Err(DialError::Proxy { place: to, answer })
}

fn client_config(trust: &Trust) -> Result<ClientConfig, DialError> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| DialError::Tls {
            place: "itself".to_owned(),
            source: std::io::Error::other(error),
        })?;
    let mut config = match trust {
        Trust::Fingerprint(sha256) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { sha256: *sha256, provider }))
            .with_no_client_auth(),
        Trust::Authorities => builder.with_root_certificates(authorities()?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What this system trusts; `SSL_CERT_FILE` names another list, as for other programs.
fn authorities() -> Result<RootCertStore, DialError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let mut store = RootCertStore::empty();
    for path in named.into_iter().chain(AUTHORITIES.map(Into::into)) {
        if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
            store.add_parsable_certificates(certificates.filter_map(Result::ok));
            if !store.is_empty() {
                return Ok(store);
            }
        }
    }
    Err(DialError::NoAuthorities)
}

/// Takes the one certificate that the server named over SSH. Names and dates do not matter then.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if digest(&SHA256, certificate).as_ref() == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(
            "the certificate is not the one that the server named over SSH; somebody is in between"
                .to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_in_the_forms_that_people_write() {
        let cases = [
            ("http://proxy.example:8080", "proxy.example", 8080, None),
            ("proxy.example:8080/", "proxy.example", 8080, None),
            ("proxy.example", "proxy.example", 3128, None),
            ("http://[2001:db8::1]:3128", "2001:db8::1", 3128, None),
            ("http://me:se%40cret@p:1", "p", 1, Some("me:se@cret")),
        ];
        for (text, host, port, login) in cases {
            let proxy = Proxy::parse(text, None).unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{text}");
            assert_eq!(proxy.authorization, login.map(|login| STANDARD.encode(login)), "{text}");
        }
        let apart = Proxy::parse("http://me@p:1", Some(b"secret")).unwrap();
        assert_eq!(apart, Proxy::parse("http://me:secret@p:1", None).unwrap());
        for text in ["socks5://p:1", "http://", "p:x", "http://u@:1"] {
            assert!(Proxy::parse(text, None).is_err(), "{text}");
        }
    }
}
