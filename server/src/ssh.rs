//! The SSH side of a connection: who may log in, and which of the many things SSH can ask for are granted, which is
//! one: a haul session. All else is refused, with an answer. Callbacks run inside the task that serves the connection,
//! so nothing slow is done in them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use russh::keys::{Certificate, HashAlg, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use tokio::sync::mpsc;
use tracing::{Instrument as _, Span, debug, info, warn};
use zeroize::Zeroizing;

use crate::auth::{Attempt, Credential, Denied, Grant};
use crate::config::UserEntry;
use crate::front::Front;
use crate::logging::shown;
use crate::policy::{Account, SessionPolicy};
use crate::ssh_settings;
use crate::web::command::Command;
use crate::worker::WorkerStart;

/// The subsystem that is a haul session.
pub const SUBSYSTEM: &str = "haul";

/// The command that is a haul session too, for clients that cannot ask for a subsystem.
const COMMAND: &[u8] = b"haul-session";

/// Keys a peer may ask about before it signs. The library counts refusals only.
const MAX_KEY_PROBES: u32 = 20;

/// Channels over the life of a connection; one is used.
const MAX_CHANNELS: u32 = 4;

/// Requests on a channel. Each is copied into the channel's queue of [`CHANNEL_QUEUE`] places, and a full queue would
/// stop the whole connection, so this must be lower.
const MAX_REQUESTS: u32 = 24;
pub(crate) const CHANNEL_QUEUE: usize = 32;

/// Smallest packet a peer may insist on; smaller ones would make us send a packet for every few bytes.
const MIN_PACKET_BYTES: usize = 1024;

/// Stream number of standard error (RFC 4254, section 5.2).
pub(crate) const STDERR: u32 = 1;

const NO_SHELL: &str = "hauld: this account is for file transfer with `haul` only; no shell here\r\n";
const ONE_SESSION: &str = "hauld: one session per connection; connect again for another\r\n";

/// What a handler knows about its connection, and tells the task that owns it.
pub(crate) struct Connection {
    pub(crate) id: String,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    /// Lifts the login deadline.
    pub(crate) logged_in: Arc<AtomicBool>,
    /// A login was tried and refused.
    pub(crate) tried: Arc<AtomicBool>,
    /// Where sessions are started.
    pub(crate) starts: mpsc::Sender<WorkerStart>,
}

/// A channel that has not become a session yet. The library waits for room in its queue, so an unread channel is only
/// kept while little can be in it.
struct Waiting {
    channel: Channel<Msg>,
    requests: u32,
}

/// Answers the peer.
pub(crate) struct Handler {
    front: Arc<Front>,
    connection: Connection,
    span: Span,
    /// Set with the answer that lets the peer in.
    user: Option<Arc<UserEntry>>,
    grant: Grant,
    probes: u32,
    channels: u32,
    /// The connection has had its session.
    started: bool,
    waiting: HashMap<ChannelId, Waiting>,
}

impl Handler {
    pub(crate) fn new(front: Arc<Front>, connection: Connection, span: Span) -> Self {
        Self {
            front,
            connection,
            span,
            user: None,
            grant: Grant::SessionsOnly,
            probes: 0,
            channels: 0,
            started: false,
            waiting: HashMap::new(),
        }
    }

    fn peer(&self) -> IpAddr {
        self.connection.peer.ip().to_canonical()
    }

    /// The method is not offered; it may be sent all the same.
    fn refuse_method(&self, user: &str, method: &str) -> Auth {
        self.span.in_scope(|| info!(user = ?shown(user), method, "login refused, method not offered"));
        self.connection.tried.store(true, Ordering::Relaxed);
        Auth::reject()
    }

    /// Checks a key or certificate. `what` is how the log names it.
    async fn check(&mut self, user: &str, credential: Credential, what: &str) -> Auth {
        let attempt = Attempt { credential, peer: self.peer(), now: SystemTime::now() };
        match self.front.check_key(user, attempt).await {
            Ok(grant) => {
                self.grant = grant;
                Auth::Accept
            }
            Err(reason) => self.refuse_login(user, what, &reason),
        }
    }

    fn refuse_login(&self, user: &str, what: &str, reason: &Denied) -> Auth {
        self.span.in_scope(|| info!(user = ?shown(user), key = what, %reason, "login refused"));
        self.connection.tried.store(true, Ordering::Relaxed);
        Auth::reject()
    }

    /// Remembers who is in, or that nobody is.
    fn conclude(&mut self, user: &str, what: &str, verdict: Auth) -> Auth {
        self.user = if verdict == Auth::Accept { self.front.user(user) } else { None };
        if let Some(user) = &self.user {
            self.span.in_scope(|| info!(user = user.name, key = what, "login"));
        }
        verdict
    }

    /// Counts a request on a channel that waits for its purpose; too many end the channel. `false` if it is gone.
    fn count_request(&mut self, id: ChannelId, session: &mut Session) -> Result<bool, russh::Error> {
        let Some(waiting) = self.waiting.get_mut(&id) else { return Ok(false) };
        waiting.requests += 1;
        if waiting.requests <= MAX_REQUESTS {
            return Ok(true);
        }
        self.drop_channel(id, "too many requests", session)?;
        Ok(false)
    }

    fn drop_channel(
        &mut self,
        id: ChannelId,
        reason: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.waiting.remove(&id).is_some() {
            self.span.in_scope(|| debug!(reason, "channel closed"));
            session.close(id)?;
        }
        Ok(())
    }

    /// Grants the request, then ends the channel with a line for people.
    fn turn_away(&mut self, id: ChannelId, text: &str, session: &mut Session) -> Result<(), russh::Error> {
        self.waiting.remove(&id);
        session.channel_success(id)?;
        session.extended_data(id, STDERR, text.as_bytes().to_vec())?;
        session.exit_status_request(id, 1)?;
        session.eof(id)?;
        session.close(id)
    }

    /// Refuses a request and leaves the channel as it is.
    fn refuse(&mut self, id: ChannelId, what: &str, session: &mut Session) -> Result<(), russh::Error> {
        self.count_request(id, session)?;
        self.span.in_scope(|| debug!(what, "request refused"));
        session.channel_failure(id)
    }

    /// Makes the channel a haul session.
    async fn start(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let (Some(user), Some(waiting)) = (self.user.clone(), self.waiting.get(&id)) else {
            return session.channel_failure(id);
        };
        // The session's own `max_packet_size` is ours, not the peer's.
        if waiting.channel.writable_packet_size().await < MIN_PACKET_BYTES {
            return self.turn_away(
                id,
                "hauld: packets and a window of at least 1024 bytes are needed\r\n",
                session,
            );
        }
        // A second one would wait unread behind the first.
        if self.started {
            return self.turn_away(id, ONE_SESSION, session);
        }
        let permit = match self.front.admit_session(&user.name) {
            Ok(permit) => permit,
            Err(reason) => {
                self.span.in_scope(|| warn!(user = user.name, %reason, "session refused"));
                return self.turn_away(id, &format!("hauld: {reason}; try again later\r\n"), session);
            }
        };
        let Ok(place) = self.connection.starts.clone().try_reserve_owned() else {
            return self.turn_away(id, ONE_SESSION, session);
        };
        let Some(waiting) = self.waiting.remove(&id) else { return session.channel_failure(id) };
        session.channel_success(id)?;
        self.started = true;
        place.send(WorkerStart { channel: waiting.channel, policy: self.policy(&user), permit });
        Ok(())
    }

    /// Runs a command of the pages. It takes moments, and nothing else is on this connection.
    async fn run(
        &mut self,
        id: ChannelId,
        command: &Command,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(user) = self.user.clone().filter(|_| self.waiting.remove(&id).is_some()) else {
            return session.channel_failure(id);
        };
        let said = command.run(&self.front, &user, self.connection.local).instrument(self.span.clone()).await;
        session.channel_success(id)?;
        session.extended_data(id, STDERR, said.err.into_bytes())?;
        session.data(id, said.out.into_bytes())?;
        session.exit_status_request(id, u32::from(!said.ok))?;
        session.eof(id)?;
        session.close(id)
    }

    fn policy(&self, user: &UserEntry) -> SessionPolicy {
        SessionPolicy {
            session: self.connection.id.clone(),
            user: user.name.clone(),
            peer: self.connection.peer.to_string(),
            docroot: user.docroot.clone(),
            permissions: user.permissions,
            max_session_rate: user.max_session_rate,
            leased: self.front.broker.concerns(&user.name),
            dscp: self.front.config.dscp,
            https: self.front.https_endpoint(),
            udp_ports: self.front.config.udp_ports,
            udp_bind: self.connection.local.and_then(bindable),
            authorize: user.authorize.clone(),
            account: user.account.clone().map(|name| Account { name }),
        }
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// The address to answer from. A link-local one means nothing without its interface, which the policy does not carry.
fn bindable(local: SocketAddr) -> Option<IpAddr> {
    match local.ip() {
        IpAddr::V6(address) if address.is_unicast_link_local() => None,
        address => Some(address.to_canonical()),
    }
}

impl russh::server::Handler for Handler {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, russh::Error> {
        // Every OpenSSH client asks this first, to learn the methods: no attempt.
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        if !self.front.takes_passwords() {
            return Ok(self.refuse_method(user, "password"));
        }
        let password = Zeroizing::new(password.to_owned());
        let verdict = match self.front.check_password(user, password, self.peer()).await {
            Ok(_) => {
                self.grant = Grant::All;
                Auth::Accept
            }
            Err(reason) => {
                let _ = self.refuse_login(user, "password", &reason);
                // Without the list the library would take the method away after one slip of the finger.
                Auth::Reject {
                    proceed_with_methods: Some(ssh_settings::methods(true)),
                    partial_success: false,
                }
            }
        };
        Ok(self.conclude(user, "password", verdict))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        _response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        Ok(self.refuse_method(user, "keyboard-interactive"))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let what = format!(
            "certificate {:?} serial {} of {}",
            shown(certificate.key_id()),
            certificate.serial(),
            certificate.signature_key().fingerprint(HashAlg::Sha256)
        );
        let credential = Credential::Certificate(Box::new(certificate.clone()));
        let verdict = self.check(user, credential, &what).await;
        Ok(self.conclude(user, &what, verdict))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.probes += 1;
        if self.probes > MAX_KEY_PROBES {
            self.span.in_scope(|| info!(user = ?shown(user), "too many keys offered"));
            self.connection.tried.store(true, Ordering::Relaxed);
            return Err(russh::Error::Disconnect);
        }
        let probe = Credential::Probe(offer.public_key.clone(), offer.algorithm.clone());
        Ok(self.check(user, probe, &fingerprint(offer.public_key)).await)
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let what = fingerprint(key.public_key);
        let credential = Credential::Key(key.public_key.clone(), key.algorithm.clone());
        let verdict = self.check(user, credential, &what).await;
        Ok(self.conclude(user, &what, verdict))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), russh::Error> {
        if self.user.is_none() {
            return Err(russh::Error::Inconsistent);
        }
        self.connection.logged_in.store(true, Ordering::Relaxed);
        self.front.handle_login(self.connection.peer.ip());
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels += 1;
        if self.channels > MAX_CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.waiting.insert(channel.id(), Waiting { channel, requests: 0 });
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.waiting.remove(&channel);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        self.drop_channel(channel, "ended before it was a session", session)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        _data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.drop_channel(channel, "data before it was a session", session)
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _code: u32,
        _data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.drop_channel(channel, "data before it was a session", session)
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        _: russh::Sig,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse(channel, "signal", session)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse(channel, "pty", session)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse(channel, "x11", session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse(channel, "env", session)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse(channel, "window-change", session)
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<bool, russh::Error> {
        self.count_request(channel, session)?;
        Ok(false)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if !self.count_request(channel, session)? {
            return session.channel_failure(channel);
        }
        self.span.in_scope(|| info!("shell refused"));
        self.turn_away(channel, NO_SHELL, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if !self.count_request(channel, session)? {
            return session.channel_failure(channel);
        }
        // The bytes never meet a shell.
        if data == COMMAND {
            return self.start(channel, session).await;
        }
        if self.grant == Grant::All
            && let Some(command) = Command::parse(data)
        {
            return self.run(channel, &command, session).await;
        }
        let command = shown(&String::from_utf8_lossy(data));
        self.span.in_scope(|| info!(?command, "command refused"));
        self.turn_away(channel, NO_SHELL, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if !self.count_request(channel, session)? {
            return session.channel_failure(channel);
        }
        if name == SUBSYSTEM {
            return self.start(channel, session).await;
        }
        self.span.in_scope(|| info!(subsystem = ?shown(name), "subsystem refused"));
        session.channel_failure(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_cannot_fill_its_queue_before_it_is_read() {
        assert!((MAX_REQUESTS as usize) < CHANNEL_QUEUE - 2);
    }

    #[test]
    fn datagrams_come_from_the_address_that_was_asked() {
        let ip = |text: &str| bindable(SocketAddr::new(text.parse().unwrap(), 33001));
        assert_eq!(ip("192.0.2.1"), "192.0.2.1".parse().ok());
        assert_eq!(ip("::ffff:192.0.2.1"), "192.0.2.1".parse().ok());
        assert_eq!(ip("2001:db8::1"), "2001:db8::1".parse().ok());
        assert_eq!(ip("fe80::1"), None);
    }
}
