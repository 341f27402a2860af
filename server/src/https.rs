//! HTTPS of the server: its certificate, its listeners, and who is admitted. What requests mean is not decided here.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use haul_http_fallback::carrier;
use haul_http_fallback::identity::Identity;
use haul_http_fallback::listen::{self, Gate, Place, Service};
use nix::sys::utsname::uname;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::admission::Ending;
use crate::config::{Config, HttpsConfig};
use crate::doors::Doors;
use crate::error::ServerError;
use crate::front::{Front, HttpsFace};
use crate::web::site;
use crate::{listener, private_file};

/// Its name in the state directory: certificate and key that the server has made for itself.
const FILE_NAME: &str = "https.pem";

/// Longest file with a certificate chain or a key, bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Listening sockets and what they show.
///
/// The default has none: no HTTPS.
#[derive(Debug, Default)]
pub struct Https {
    listeners: Vec<TcpListener>,
    plain_listeners: Vec<TcpListener>,
    identity: Option<Identity>,
}

impl Https {
    /// Opens what the configuration asks for.
    ///
    /// # Errors
    /// If the certificate cannot be used, or an address that was asked for cannot be listened on.
    pub fn open(config: &Config) -> Result<Self, ServerError> {
        let listeners = bind_all(&config.https.listen, config.https_by_default(), "https")?;
        let plain_listeners = bind_all(&config.https.plain_listen, false, "http")?;
        let identity = if listeners.is_empty() {
            None
        } else {
            let identity = identity(config)?;
            info!(sha256 = identity.fingerprint_text(), "https certificate");
            Some(identity)
        };
        Ok(Self { listeners, plain_listeners, identity })
    }

    /// What clients are told about it: the first address that is not for this machine alone, else the first.
    pub(crate) fn face(&self) -> Option<HttpsFace> {
        let addresses = || self.listeners.iter().filter_map(|listener| listener.local_addr().ok());
        let open = addresses().find(|address| !address.ip().is_loopback());
        let port = open.or_else(|| addresses().next())?.port();
        Some(HttpsFace { port, fingerprint: *self.identity.as_ref()?.fingerprint() })
    }

    /// Serves until `shutdown` turns true.
    pub(crate) async fn run(self, front: Arc<Front>, shutdown: watch::Receiver<bool>) {
        let doors: Arc<Doors> = Arc::clone(&front.doors);
        let router = site::router(Arc::clone(&front)).merge(carrier::router(doors));
        let gate: Arc<dyn Gate> = Arc::new(FrontGate(front));
        let mut loops = JoinSet::new();
        let all = self.listeners.into_iter().map(|listener| (listener, self.identity.clone()));
        for (listener, identity) in all.chain(self.plain_listeners.into_iter().map(|plain| (plain, None))) {
            let service = Service { router: router.clone(), gate: Arc::clone(&gate), identity };
            loops.spawn(listen::serve(listener, service, shutdown.clone()));
        }
        while loops.join_next().await.is_some() {}
    }
}

/// Opens every address. One that nobody asked for is left out if it cannot be had.
fn bind_all(addresses: &[SocketAddr], by_default: bool, what: &str) -> Result<Vec<TcpListener>, ServerError> {
    let mut listeners = Vec::new();
    for address in addresses {
        match listener::bind(*address) {
            Ok(listener) => {
                let address = listener.local_addr().map_err(ServerError::Runtime)?;
                info!(%address, "listening for {what}");
                listeners.push(listener);
            }
            Err(ServerError::Listen { address, source }) if by_default => {
                warn!(%address, error = %source, "not listening for {what}; set `listen` in [https]");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

/// The certificate of the files, if any are named.
pub(crate) fn identity_from_files(config: &HttpsConfig) -> Option<Result<Identity, String>> {
    let (certificate, key) = config.files.as_ref()?;
    let read = |path: &Path| {
        let fail = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        let length = std::fs::metadata(path).map_err(fail)?.len();
        if length > MAX_PEM_BYTES {
            return Err(format!("{} is longer than {MAX_PEM_BYTES} bytes", path.display()));
        }
        std::fs::read(path).map_err(fail)
    };
    let load = || {
        Identity::from_pem(&read(certificate)?, &read(key)?)
            .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))
    };
    Some(load())
}

fn identity(config: &Config) -> Result<Identity, ServerError> {
    if let Some(identity) = identity_from_files(&config.https) {
        return identity.map_err(|reason| ServerError::Certificate { reason });
    }
    let path = config.state_dir.join(FILE_NAME);
    let failed =
        |reason: String| ServerError::Certificate { reason: format!("{}: {reason}", path.display()) };
    private_file::prepare(&config.state_dir)
        .map_err(|reason| ServerError::StateDir { path: config.state_dir.clone(), reason })?;
    let text = if let Some(text) = private_file::read(&path).map_err(failed)? {
        text
    } else {
        let made = Identity::make_pem(names(&config.https)).map_err(|error| failed(error.to_string()))?;
        private_file::create(&config.state_dir, &path, &made).map_err(failed)?;
        private_file::read(&path).map_err(failed)?.ok_or_else(|| failed("it vanished".to_owned()))?
    };
    Identity::from_pem(text.as_bytes(), text.as_bytes()).map_err(|error| failed(error.to_string()))
}

/// What the server may be called.
fn names(config: &HttpsConfig) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if let Some(node) = uname().ok().and_then(|system| system.nodename().to_str().map(str::to_owned)) {
        let sane = !node.is_empty() && node.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        names.extend(sane.then_some(node).filter(|node| node != "localhost"));
    }
    let own = config.listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    names.extend(own.map(|ip| ip.to_string()));
    names
}

/// The front's admission, for HTTPS.
struct FrontGate(Arc<Front>);

impl Gate for FrontGate {
    fn admit(&self, peer: IpAddr) -> Result<Arc<dyn Place>, String> {
        self.0.admit_https(peer).map_err(|reason| reason.to_string())?;
        Ok(Arc::new(FrontPlace {
            front: Arc::clone(&self.0),
            peer,
            logged_in: OnceLock::new(),
            refusals: AtomicU8::new(0),
        }))
    }
}

/// The place of one connection.
struct FrontPlace {
    front: Arc<Front>,
    peer: IpAddr,
    logged_in: OnceLock<()>,
    refusals: AtomicU8,
}

impl Place for FrontPlace {
    fn on_login(&self) {
        if self.logged_in.set(()).is_ok() {
            self.front.handle_https_login(self.peer);
        }
    }

    fn is_known(&self) -> bool {
        self.logged_in.get().is_some()
    }

    fn on_refused(&self) {
        // Each counts, also on one connection: there they cost the least.
        if self.refusals.fetch_add(1, Ordering::Relaxed) < u8::MAX {
            self.front.punish(Instant::now(), self.peer, Ending::Refused);
        }
    }
}

impl Drop for FrontPlace {
    fn drop(&mut self) {
        self.front.handle_https_end(self.peer, self.logged_in.get().is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(state_dir: &Path, https: &str) -> Config {
        Config::parse(&format!("state_dir = {state_dir:?}\n[https]\n{https}"), "test".to_owned()).unwrap()
    }

    #[test]
    fn a_certificate_is_made_once_and_kept_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("state"), "");
        let (first, second) = (identity(&config).unwrap(), identity(&config).unwrap());
        assert_eq!(first.fingerprint(), second.fingerprint());
        let path = config.state_dir.join(FILE_NAME);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(identity(&config).unwrap_err().lines()[0].contains("0644"));
    }

    #[test]
    fn certificate_and_key_of_files_are_taken_or_told_to_be_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let pem = Identity::make_pem(vec!["x.example".to_owned()]).unwrap();
        let path = folder.path().join("all.pem");
        std::fs::write(&path, &pem).unwrap();
        let both = format!("certificate = {path:?}\nkey = {path:?}\n");
        let taken = identity(&config(folder.path(), &both)).unwrap();
        assert_eq!(
            taken.fingerprint(),
            Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap().fingerprint()
        );
        let problems = |https: &str| -> Vec<String> {
            config(folder.path(), https).check().iter().map(ToString::to_string).collect()
        };
        let half = problems(&format!("certificate = {path:?}\n"));
        assert!(half.iter().any(|problem| problem.contains("without `key`, line 3")), "{half:?}");
        let missing = problems("certificate = \"/nonexistent\"\nkey = \"/nonexistent\"\n");
        assert!(missing.iter().any(|problem| problem.contains("cannot read /nonexistent")), "{missing:?}");
    }
}
