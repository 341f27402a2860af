//! What the SSH library asks us while a connection lives: whether the host key is trusted, and what to do with the
//! server's words. Every channel that the server wants to open is refused.
//!
//! Not here: dialling and logging in (`ssh`, `login`).

use std::time::SystemTime;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, Names};
use tokio::sync::{mpsc, watch};

use crate::error::{ClientError, HostKeyTrouble};
use crate::fingerprint::Fingerprint;
use crate::host_certificate;
use crate::known_hosts::{KnownHosts, Verdict, canonical, describe};
use crate::sanitize;

/// The client's half of the SSH library's callbacks.
pub(crate) struct Handler {
    /// The name or address that was dialled: host keys are on record under it.
    pub(crate) host_name: String,
    /// The TCP port.
    pub(crate) port: u16,
    /// Host keys on record.
    pub(crate) known_hosts: KnownHosts,
    /// Refuse hosts without a key on record.
    pub(crate) strict: bool,
    /// The fingerprint that the key must have; then nothing else counts but that it is not revoked.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Becomes the reason when the connection ends.
    pub(crate) ended: watch::Sender<Option<String>>,
    /// Words for the user: banners, new host keys. Bounded; what does not fit is dropped.
    pub(crate) notes: mpsc::Sender<String>,
    /// The first key exchange is over.
    pub(crate) keys_exchanged: bool,
}

/// What stops the SSH library.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Its own trouble.
    Ssh(russh::Error),
    /// Our refusal.
    Refused(Box<ClientError>),
}

impl From<russh::Error> for Broken {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Handler {
    fn verdict(&self, presented: &PublicKeyOrCertificate) -> Result<(), ClientError> {
        let key = presented.public_key();
        let host = canonical(&self.host_name, self.port);
        let found = describe(&key);
        let mut verdict = self.known_hosts.check(&self.host_name, self.port, &key)?;
        if !matches!(verdict, Verdict::Revoked(_)) {
            if let Some(expected) = &self.fingerprint {
                return if expected.fits(&key) {
                    Ok(())
                } else {
                    let expected = expected.to_string();
                    Err(ClientError::HostKey(Box::new(HostKeyTrouble::WrongFingerprint {
                        host,
                        expected,
                        found,
                    })))
                };
            }
            if let Some(vouched) = self.vouched(presented)? {
                return vouched.map_err(|reason| {
                    ClientError::HostKey(Box::new(HostKeyTrouble::Certificate { host, reason }))
                });
            }
        }
        if verdict == Verdict::Unknown {
            let path = self.known_hosts.writable().unwrap_or_else(|| "known_hosts".as_ref()).to_owned();
            if self.strict {
                return Err(ClientError::HostKey(Box::new(HostKeyTrouble::Unknown { host, found, path })));
            }
            verdict = self.known_hosts.add(&self.host_name, self.port, &key)?;
            if verdict == Verdict::Known {
                self.note(format!(
                    "new host key of {host} accepted: {found}, added to {}",
                    sanitize::path(&path)
                ));
            }
        }
        match verdict {
            Verdict::Known => Ok(()),
            Verdict::Changed(record) => Err(ClientError::HostKey(Box::new(HostKeyTrouble::Changed {
                host,
                expected: record.key,
                found,
                path: record.path,
                line: record.line,
            }))),
            Verdict::Revoked(record) => Err(ClientError::HostKey(Box::new(HostKeyTrouble::Revoked {
                host,
                found,
                path: record.path,
                line: record.line,
            }))),
            Verdict::Unknown => Err(ClientError::Internal {
                message: "a host key that was added is not on record".to_owned(),
            }),
        }
    }

    /// What an authority on record says about a certificate; none if the server presents none, or one of a stranger:
    /// then its plain key decides.
    fn vouched(&self, presented: &PublicKeyOrCertificate) -> Result<Option<Result<(), String>>, ClientError> {
        let Some(certificate) = presented.certificate() else { return Ok(None) };
        let authorities = self.known_hosts.authorities(&self.host_name, self.port)?;
        let trusted = authorities.iter().any(|key| key.key_data() == certificate.signature_key());
        Ok(trusted.then(|| host_certificate::judge(certificate, &self.host_name, SystemTime::now())))
    }

    fn note(&self, note: String) {
        // A server that talks without end fills the queue, not our memory.
        let _ = self.notes.try_send(note);
    }
}

impl client::Handler for Handler {
    type Error = Broken;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Broken> {
        self.verdict(presented).map(|()| true).map_err(|error| Broken::Refused(Box::new(error)))
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &Names,
        _: &mut Session,
    ) -> Result<(), Broken> {
        if !self.keys_exchanged && !names.strict_kex() {
            // Without it a man in the middle can cut the first messages (Terrapin, CVE-2023-48795).
            return Err(Broken::Refused(Box::new(ClientError::Handshake {
                host: self.host_name.clone(),
                port: self.port,
                message:
                    "the server does not support strict key exchange; update its SSH (OpenSSH 9.6, hauld)"
                        .to_owned(),
                source: None,
            })));
        }
        self.keys_exchanged = true;
        tracing::debug!(kex = names.kex.as_ref(), cipher = names.cipher.as_ref(), "ssh keys exchanged");
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Broken> {
        for line in banner.lines().filter(|line| !line.trim().is_empty()).take(20) {
            self.note(sanitize::text(line));
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Broken>) -> Result<(), Broken> {
        let words = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                format!("the server said: {}", sanitize::text(&info.message))
            }
            DisconnectReason::Error(Broken::Ssh(error)) => why(&error),
            DisconnectReason::Error(Broken::Refused(error)) => error.to_string(),
        };
        tracing::debug!(reason = words, "ssh connection ended");
        self.ended.send_replace(Some(words));
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        refused: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Broken> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        refused: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Broken> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        refused: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Broken> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        refused: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Broken> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        refused: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Broken> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        refused: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Broken> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        refused: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Broken> {
        drop(refused);
        Ok(())
    }
}

/// Why the library gave the connection up, in words.
pub(crate) fn why(error: &russh::Error) -> String {
    match error {
        russh::Error::KeepaliveTimeout => "the server has not answered for a minute".to_owned(),
        russh::Error::Disconnect | russh::Error::HUP => "the server closed the connection".to_owned(),
        russh::Error::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_owned()
        }
        russh::Error::NoCommonAlgo { kind, ours, theirs } => {
            format!(
                "no {kind:?} algorithm in common: ours {ours:?}, theirs {}",
                sanitize::text(&format!("{theirs:?}"))
            )
        }
        other => sanitize::text(&other.to_string()),
    }
}
