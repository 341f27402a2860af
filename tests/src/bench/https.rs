//! An nginx of our own with a certificate of its own: TLS 1.3 with AES-128-GCM, downloads and uploads (PUT).

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::BenchError;
use super::bed::Place;
use super::command::end_family;
use super::machine::find_program;
use super::ssh::{free_port, missing};
use crate::harness::wait_until;

/// As OpenSSL writes it.
pub(super) const CIPHER: &str = "TLS_AES_128_GCM_SHA256";

/// A running nginx; killed on drop.
#[derive(Debug)]
pub(super) struct Https {
    nginx: Child,
    address: IpAddr,
    port: u16,
    certificate: PathBuf,
}

impl Https {
    /// Starts it with its files in `directory`; it serves `root`.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(directory: &Path, root: &Path, place: Option<&Place>) -> Result<Self, BenchError> {
        let at = |name: &str| directory.join(name);
        let program = find_program("nginx").ok_or_else(|| missing("nginx"))?;
        fs::create_dir_all(directory).map_err(BenchError::io("make a folder for nginx"))?;
        let address = Place::address_of(place);
        make_certificate(&at("key.pem"), &at("cert.pem"), address)?;
        let port = free_port()?;
        fs::write(at("nginx.conf"), config(directory, root, address, port))
            .map_err(BenchError::io("write nginx.conf"))?;
        let mut command = Place::far_command(place, &program);
        command.arg("-c").arg(at("nginx.conf")).arg("-e").arg(at("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let nginx = command.spawn().map_err(BenchError::io("start nginx"))?;
        let started = Self { nginx, address, port, certificate: at("cert.pem") };
        if wait_until(Duration::from_secs(10), || Place::answers(place, port)) {
            return Ok(started);
        }
        let why = fs::read_to_string(at("error.log")).unwrap_or_default();
        Err(BenchError::Environment { what: "start nginx".to_owned(), why })
    }

    /// Process id of the master.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.nginx.id()
    }

    /// Address of a file below the root.
    #[must_use]
    pub(super) fn url(&self, name: &str) -> String {
        format!("https://{}:{}/{name}", self.address, self.port)
    }

    /// What clients trust.
    #[must_use]
    pub(super) fn certificate(&self) -> &Path {
        &self.certificate
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        end_family(self.nginx.id(), true);
        let _ = self.nginx.wait();
    }
}

fn make_certificate(key: &Path, certificate: &Path, address: IpAddr) -> Result<(), BenchError> {
    let program = find_program("openssl").ok_or_else(|| missing("openssl"))?;
    let mut command = Command::new(program);
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    let name = format!("subjectAltName=IP:{address}");
    command.args(["-subj", "/CN=bench", "-addext", &name, "-keyout"]).arg(key);
    let output = command.arg("-out").arg(certificate).stdin(Stdio::null()).output();
    let output = output.map_err(BenchError::io("start openssl"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BenchError::Environment { what: "openssl req".to_owned(), why })
}

/// One worker, since there is one connection. The body of an upload lies on the same file system and is
/// renamed, not copied.
fn config(directory: &Path, root: &Path, address: IpAddr, port: u16) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let temporary = root.join("nginx-body").display().to_string();
    format!(
        "user root;\ndaemon off;\nworker_processes 1;\npid {pid};\nevents {{ worker_connections 64; }}\nhttp {{\n\
         access_log off;\nsendfile on;\ntcp_nopush on;\nclient_max_body_size 0;\nclient_body_buffer_size 1m;\n\
         client_body_temp_path {temporary};\nproxy_temp_path {other};\nfastcgi_temp_path {other};\n\
         uwsgi_temp_path {other};\nscgi_temp_path {other};\nserver {{\nlisten {address}:{port} ssl;\n\
         ssl_certificate {certificate};\nssl_certificate_key {key};\nssl_protocols TLSv1.3;\n\
         ssl_conf_command Ciphersuites {CIPHER};\nroot {root};\ndav_methods PUT;\n}}\n}}\n",
        pid = at("nginx.pid"),
        other = at("other"),
        certificate = at("cert.pem"),
        key = at("key.pem"),
        root = root.display(),
    )
}
