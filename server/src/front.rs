//! What all connections of one server share: configuration, SSH settings, limits. The permits here give back on drop
//! what the admission granted.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use haul_proto::control::{HttpsEndpoint, SecretHalf};
use ring::rand::{SecureRandom as _, SystemRandom};

use tokio::sync::watch;

use zeroize::Zeroizing;

use crate::admission::{Admission, Ending, NotAdmitted};
use crate::auth::{self, Denied, Trust};
use crate::config::{Config, UserEntry};
use crate::doors::Doors;
use crate::password::Passwords;
use crate::shares::broker::Broker;
use crate::web::site::Web;

/// How the front works, apart from what an operator sets.
#[derive(Debug, Clone)]
pub struct Options {
    /// A peer that has not logged in by then is dropped.
    pub login_deadline: Duration,
    /// The program that is started as `session --policy-on-stdin`.
    pub worker_program: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        // The running binary even if the file on disk has been replaced meanwhile: client and server of one socketpair
        // must be of one version.
        let own = PathBuf::from("/proc/self/exe");
        let worker_program = if own.exists() { own } else { std::env::current_exe().unwrap_or(own) };
        Self { login_deadline: Duration::from_secs(30), worker_program }
    }
}

/// How clients reach HTTPS, and what it shows.
#[derive(Debug, Clone)]
pub(crate) struct HttpsFace {
    pub(crate) port: u16,
    pub(crate) fingerprint: [u8; 32],
}

/// The shared state.
pub(crate) struct Front {
    pub(crate) config: Config,
    pub(crate) options: Options,
    pub(crate) ssh: Arc<russh::server::Config>,
    /// Shares out the caps that sessions have together.
    pub(crate) broker: Arc<Broker>,
    /// Where connections of HTTPS find their sessions.
    pub(crate) doors: Arc<Doors>,
    https: Option<HttpsFace>,
    /// What the pages for browsers keep.
    pub(crate) web: Web,
    /// Whose certificates count, and what is revoked.
    pub(crate) trust: Arc<Trust>,
    /// None if no user has a password: then there is no such way in.
    passwords: Option<Passwords>,
    admission: Mutex<Admission>,
    /// Connections of HTTPS are counted apart, so that neither door can be blocked by a crowd at the other. Penalties
    /// are common, and kept in the one for SSH.
    https_admission: Mutex<Admission>,
    random: SystemRandom,
}

impl Front {
    pub(crate) fn new(
        config: Config,
        options: Options,
        ssh: russh::server::Config,
        web: Web,
        https: Option<HttpsFace>,
    ) -> Self {
        let (admission, random) = (Mutex::default(), SystemRandom::new());
        let https_admission = Mutex::new(Admission::for_https());
        let broker = Arc::new(Broker::new(config.caps()));
        let doors = Arc::default();
        let trust = Arc::new(Trust::new(&config));
        let passwords = config.users.iter().find_map(|user| user.password.clone()).map(Passwords::new);
        let ssh = Arc::new(ssh);
        Self {
            config,
            options,
            ssh,
            broker,
            doors,
            https,
            web,
            trust,
            passwords,
            admission,
            https_admission,
            random,
        }
    }

    /// What a new session tells its client about TLS connections; none if there can be none.
    pub(crate) fn https_endpoint(&self) -> Option<HttpsEndpoint> {
        let face = self.https.as_ref()?;
        let mut token = [0; 32];
        self.random.fill(&mut token).ok()?;
        Some(HttpsEndpoint {
            port: face.port,
            certificate_sha256: SecretHalf::new(face.fingerprint),
            token: SecretHalf::new(token),
            proxy: self.config.https.public.clone(),
        })
    }

    pub(crate) fn user(&self, name: &str) -> Option<Arc<UserEntry>> {
        self.config.users.iter().find(|user| user.name == name).cloned()
    }

    /// Whether anybody can log in with a password.
    pub(crate) const fn takes_passwords(&self) -> bool {
        self.passwords.is_some()
    }

    /// The one check of a name and a password, for SSH and the browser: slow for guessers, the same for unknown names.
    /// Whoever calls it sees to it that a source that fails is held back, as the admission does for SSH.
    pub(crate) async fn check_password(
        &self,
        name: &str,
        password: Zeroizing<String>,
        peer: IpAddr,
    ) -> Result<Arc<UserEntry>, Denied> {
        let passwords = self.passwords.as_ref().ok_or(Denied::NoPassword)?;
        let user = self.user(name);
        let hash = user.as_ref().and_then(|user| user.password.as_deref());
        passwords.check(name, hash, password, || !self.must_wait(peer)).await?;
        user.ok_or(Denied::UnknownUser)
    }

    /// Whether a source is penalised at present.
    pub(crate) fn must_wait(&self, peer: IpAddr) -> bool {
        self.admission().check_penalty(Instant::now(), peer).is_err()
    }

    /// Who may log in with what.
    pub(crate) async fn check_key(&self, name: &str, attempt: auth::Attempt) -> Result<auth::Grant, Denied> {
        auth::check(self.user(name), Arc::clone(&self.trust), attempt).await
    }

    /// Admits a connection, or says why not.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<ConnectionPermit, NotAdmitted> {
        self.admission().handle_connection(Instant::now(), peer, self.chance())?;
        Ok(ConnectionPermit { front: Arc::clone(self), peer, ending: Ending::Silent })
    }

    fn chance(&self) -> f64 {
        let mut bytes = [0; 4];
        // Without randomness every connection looks unlucky, which only matters in a flood.
        self.random.fill(&mut bytes).map_or(0.0, |()| f64::from(u32::from_be_bytes(bytes)) / 4_294_967_296.0)
    }

    /// Admits a connection of HTTPS, or says why not. If admitted, [`Self::handle_https_end`] must follow.
    pub(crate) fn admit_https(&self, peer: IpAddr) -> Result<(), NotAdmitted> {
        self.admission().check_penalty(Instant::now(), peer)?;
        self.https_admission().handle_connection(Instant::now(), peer, self.chance())
    }

    pub(crate) fn handle_https_login(&self, peer: IpAddr) {
        self.https_admission().handle_login(peer);
    }

    pub(crate) fn handle_https_end(&self, peer: IpAddr, logged_in: bool) {
        let ending = if logged_in { Ending::LoggedIn } else { Ending::Anonymous };
        self.https_admission().handle_end(Instant::now(), peer, ending);
    }

    /// Remembers what a source did wrong.
    pub(crate) fn punish(&self, now: Instant, peer: IpAddr, ending: Ending) {
        self.admission().handle_misdeed(now, peer, ending);
    }

    pub(crate) fn handle_login(&self, peer: IpAddr) {
        self.admission().handle_login(peer);
    }

    /// Admits a session of a user, or says why not.
    pub(crate) fn admit_session(self: &Arc<Self>, user: &str) -> Result<SessionPermit, NotAdmitted> {
        self.admission().handle_session(user)?;
        Ok(SessionPermit { front: Arc::clone(self), user: user.to_owned() })
    }

    /// A panic elsewhere leaves counts that are still counts.
    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn https_admission(&self) -> MutexGuard<'_, Admission> {
        self.https_admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection.
pub(crate) struct ConnectionPermit {
    front: Arc<Front>,
    peer: IpAddr,
    /// To be set before it is dropped.
    pub(crate) ending: Ending,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.front.admission().handle_end(Instant::now(), self.peer, self.ending);
    }
}

/// The place of one session.
pub(crate) struct SessionPermit {
    front: Arc<Front>,
    user: String,
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.front.admission().handle_session_end(&self.user);
    }
}

/// Returns when the server is to stop; never if nobody can stop it any more.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
