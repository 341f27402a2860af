//! Sites where everything goes through a proxy, and servers behind one.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use haul_tests::harness::{Pair, ServerOptions, WAYS, Way, wait_until};
use haul_tests::require::require;
use haul_tests::tree::{assert_same, make_file};

const MIB: u64 = 1 << 20;
/// `me:secret`.
const LOGIN: &str = "Basic bWU6c2VjcmV0";

/// A proxy that knows CONNECT, and one name with its password.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&proxy.asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let asked = Arc::clone(&asked);
                thread::spawn(move || connect(stream, &asked));
            }
        });
        proxy
    }

    fn asked(&self, port: u16) -> usize {
        let wanted = format!("127.0.0.1:{port}");
        self.asked.lock().unwrap().iter().filter(|place| **place == wanted).count()
    }
}

fn connect(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let place = head.split(' ').nth(1).unwrap_or_default().to_owned();
    if !head.contains(LOGIN) {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    }
    asked.lock().unwrap().push(place.clone());
    let mut server = TcpStream::connect(place)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut one, mut other) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut one, &mut other);
        let _ = other.shutdown(std::net::Shutdown::Write);
    });
    io::copy(&mut server, &mut client)?;
    client.shutdown(std::net::Shutdown::Write)
}

#[test]
fn everything_goes_through_a_proxy_that_wants_a_password() {
    let proxy = Proxy::start();
    let pair = Pair::start(ServerOptions { https: true, ..ServerOptions::default() });
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 5 * MIB, 1);
        let option = format!("http://me@{}", proxy.address);
        let client = pair.copy(way, &["file"], "arrived").args(["--proxy", &option]);
        let outcome = client.env("HAUL_PROXY_PASSWORD", "secret").run();
        outcome.assert_success();
        assert_eq!(outcome.done()["carrier"], "https", "no UDP through a proxy");
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
    }
    assert_eq!((proxy.asked(pair.server.port()), proxy.asked(pair.server.https_port())), (2, 8));
    let wrong = pair.copy(Way::Up, &["file"], "x").args([
        "--no-retry",
        "--proxy",
        &format!("http://me:no@{}", proxy.address),
    ]);
    let outcome = wrong.run();
    assert!(outcome.code() != Some(0) && outcome.story().contains("407"), "{}", outcome.story());
    assert!(outcome.story().contains("HAUL_PROXY_PASSWORD"), "{}", outcome.story());
}

#[test]
fn the_proxy_of_the_environment_is_for_tls_alone_and_not_for_excepted_hosts() {
    let proxy = Proxy::start();
    let pair = Pair::start(ServerOptions { https: true, ..ServerOptions::default() });
    make_file(&pair.from(Way::Up).join("file"), MIB, 1);
    let url = format!("http://me:secret@{}", proxy.address);
    let copy = |except: &str| {
        let client = pair.copy(Way::Up, &["file"], "arrived").args(["--carrier", "https"]);
        client.env("HTTPS_PROXY", &url).env("NO_PROXY", except).run().assert_success();
        (proxy.asked(pair.server.port()), proxy.asked(pair.server.https_port()))
    };
    assert_eq!(copy("localhost,127.0.0.1"), (0, 0));
    assert_eq!(copy("example.org"), (0, 4));
}

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_behind_nginx_is_reached_by_the_name_and_certificate_of_nginx() {
    if !require("nginx before hauld", &["nginx", "openssl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    shell(&format!(
        "cd {}; openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca; \
         openssl req -newkey rsa:2048 -nodes -keyout key -out csr -subj /CN=x; \
         printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext; \
         openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -out pem -days 2 -extfile ext",
        folder.path().display()
    ));
    let pair = Pair::start(ServerOptions {
        https: true,
        https_lines: "public = \"localhost\"".to_owned(),
        ..ServerOptions::default()
    });
    // Free now; nobody else takes ports of this range at once.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "daemon off; master_process off; pid {}; error_log {}; events {{ }} http {{ access_log {}; server {{ \
         listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; location / {{ \
         proxy_pass https://127.0.0.1:{}; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
         proxy_set_header Connection upgrade; proxy_read_timeout 300s; }} }} }}",
        at("pid"),
        at("error.log"),
        at("access.log"),
        at("pem"),
        at("key"),
        pair.server.https_port()
    );
    fs::write(folder.path().join("conf"), config).unwrap();
    let nginx = Command::new("nginx").args(["-c", &at("conf")]).stderr(Stdio::null()).spawn().unwrap();
    let _nginx = Nginx(nginx);
    assert!(wait_until(Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).is_ok()));
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 5 * MIB, 1);
        let options = ["--carrier", "https", "-t", &port.to_string()];
        let trusting = pair.copy(way, &["file"], "arrived").args(options).env("SSL_CERT_FILE", at("ca.pem"));
        trusting.run().assert_success();
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
        let outcome = pair
            .copy(way, &["file"], "no")
            .args(options)
            .arg("--no-retry")
            .env("SSL_CERT_FILE", at("pem"))
            .run();
        assert!(outcome.code() != Some(0) && outcome.story().contains("certificate"), "{}", outcome.story());
    }
}
