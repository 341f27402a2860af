//! The HTTPS listener with strangers at it: its certificate, what it answers, and that silence costs a place for seconds only.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use haul_tests::harness::{Server, ServerOptions};
use haul_tests::require::require;

fn server() -> Server {
    Server::start(ServerOptions { https: true, ..ServerOptions::default() })
}

#[test]
fn the_listener_shows_the_certificate_that_the_log_names_and_speaks_both_versions_of_http() {
    if !require("https listener", &["curl", "openssl"]) {
        return;
    }
    let server = server();
    let to = format!("127.0.0.1:{}", server.https_port());
    let shown = format!(
        "openssl s_client -connect {to} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
    );
    let shown = Command::new("sh").args(["-c", &shown]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let (_, digits) = shown.trim().split_once('=').unwrap();
    let digits = digits.replace(':', "").to_lowercase();
    assert_eq!(digits.len(), 64);
    assert!(server.log().contains(&digits), "{}", server.log());
    for (version, option) in [("1.1", "--http1.1"), ("2", "--http2")] {
        let output = Command::new("curl")
            .args(["-sk", option, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"])
            .arg(format!("https://{to}/no/such/page"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{version} 404"));
    }
}

#[test]
fn silent_connections_are_bounded_for_a_source_and_end_by_themselves() {
    if !require("silent https connections", &["curl"]) {
        return;
    }
    let server = server();
    let to = ("127.0.0.1", server.https_port());
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(to).unwrap()).collect();
    // Those beyond the limit are closed at once, the others when TLS has not begun in time.
    let mut ended = 0;
    for stream in &crowd {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        ended += usize::from(matches!((&mut &*stream).read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert_eq!(ended, 100);
    let url = format!("https://127.0.0.1:{}/", server.https_port());
    let output =
        Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", &url]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "303");
}

#[test]
fn the_carriers_path_refuses_strangers_without_saying_why() {
    if !require("strangers at the carrier", &["curl"]) {
        return;
    }
    let server = server();
    let url = format!("https://127.0.0.1:{}/haul/v1/session", server.https_port());
    let ask = |headers: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sk", "--http1.1", "-m", "5", "-w", " %{http_code}"]);
        for header in headers {
            command.args(["-H", header]);
        }
        String::from_utf8(command.arg(&url).output().unwrap().stdout).unwrap()
    };
    assert_eq!(ask(&[]), "this is for haul\n 426");
    let upgrade = ["Connection: upgrade", "Upgrade: haul"];
    let (zeros, long) = ("0".repeat(64), "f".repeat(9000));
    let cases = [
        vec![],
        vec!["haul-session: 0123456789abcdef".to_owned()],
        vec![
            "haul-session: 0123456789abcdef".to_owned(),
            format!("haul-proof: {zeros}"),
            "haul-connection: 0".to_owned(),
        ],
        vec![
            "haul-session: x".to_owned(),
            format!("haul-proof: {long}"),
            "haul-connection: 99999".to_owned(),
        ],
    ];
    for case in &cases {
        let headers: Vec<&str> = upgrade.into_iter().chain(case.iter().map(String::as_str)).collect();
        assert_eq!(ask(&headers), "no such session\n 403", "{case:?}");
    }
    assert!(!server.log().contains("carrier connected"));
}
