//! Browsers: signing in, files, uploads and shared links over HTTPS, with curl as the plain client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use haul_tests::harness::{Server, ServerOptions, USER, children_of};
use haul_tests::require::require;
use haul_tests::tree::make_file;

const MIB: u64 = 1 << 20;

fn server() -> Server {
    Server::start(ServerOptions { https: true, ..ServerOptions::default() })
}

/// A server with somebody who has signed in by a link.
struct Visit {
    server: Server,
}

impl Visit {
    fn start() -> Self {
        let visit = Self { server: server() };
        let link = visit.ssh(&["link", "--host", "localhost"]);
        assert!(link.status.success(), "{link:?}");
        let link = String::from_utf8(link.stdout).unwrap();
        assert_eq!(visit.status(&["-X", "POST", link.trim()]), "303");
        visit
    }

    /// Runs a command over the stock SSH client.
    fn ssh(&self, words: &[&str]) -> Output {
        let server = &self.server;
        Command::new("ssh")
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-F", "none", "-p"])
            .arg(server.port().to_string())
            .arg("-i")
            .arg(server.key())
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", server.known_hosts().display()))
            .arg(format!("{USER}@127.0.0.1"))
            .args(words)
            .output()
            .unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.https_port())
    }

    fn jar(&self) -> PathBuf {
        self.server.directory().join("cookies")
    }

    fn curl(&self, arguments: &[&str]) -> Output {
        let jar = self.jar();
        Command::new("curl")
            .args(["-sk", "-b"])
            .arg(&jar)
            .arg("-c")
            .arg(&jar)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn status(&self, arguments: &[&str]) -> String {
        let all: Vec<&str> =
            ["-o", "/dev/null", "-w", "%{http_code}"].iter().chain(arguments).copied().collect();
        String::from_utf8(self.curl(&all).stdout).unwrap()
    }

    fn body(&self, arguments: &[&str]) -> Vec<u8> {
        self.curl(arguments).stdout
    }

    /// A folder's page as people get it.
    fn page(&self, path: &str) -> String {
        String::from_utf8(self.body(&["-H", "Accept: text/html", &self.url(path)])).unwrap()
    }

    /// A path in the docroot, in the hands of the user.
    fn put(&self, name: &str, size: u64) -> PathBuf {
        let path = self.server.docroot().join(name);
        make_file(&path, size, size);
        self.server.hand_over(&path);
        path
    }
}

fn needed(test: &str) -> bool {
    require(test, &["curl", "ssh"])
}

fn equal(path: &Path, bytes: &[u8]) -> bool {
    fs::read(path).unwrap() == bytes
}

#[test]
fn a_link_signs_in_once_and_nobody_without_it() {
    if !needed("browser links") {
        return;
    }
    let visit = Visit::start();
    let plain = |url: &str| {
        let output =
            Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", url]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!(plain(&visit.url("/files/")), "401");
    let link = String::from_utf8(visit.ssh(&["link", "--host", "localhost"]).stdout).unwrap();
    // Programs that look at a link do not use it up.
    assert_eq!((plain(link.trim()), plain(link.trim())), ("200".to_owned(), "200".to_owned()));
    assert_eq!(visit.status(&["-X", "POST", "-H", "Sec-Fetch-Site: cross-site", link.trim()]), "403");
    assert_eq!(visit.status(&["-X", "POST", link.trim()]), "303");
    assert_eq!(visit.status(&["-X", "POST", link.trim()]), "410");
    assert!(visit.page("/files/").contains("This folder is empty"));
    assert_eq!(visit.status(&["-X", "POST", &visit.url("/signout")]), "303");
    assert_eq!(visit.status(&[&visit.url("/files/")]), "401");
}

#[test]
fn files_come_whole_in_parts_and_as_an_archive_from_a_process_of_the_user() {
    if !needed("browser downloads") {
        return;
    }
    let visit = Visit::start();
    let big = visit.put("runs/sample ü#1.bam", 20 * MIB + 7);
    let url = visit.url("/files/runs/sample%20%C3%BC%231.bam");
    assert!(equal(&big, &visit.body(&[&url])));
    assert!(equal(&big, &visit.body(&["--http1.1", &url])));
    let content = fs::read(&big).unwrap();
    assert_eq!(visit.body(&["-r", "20971520-", &url]), content[20_971_520..]);
    assert_eq!(visit.status(&["-r", "20971527-", &url]), "416");
    let head = String::from_utf8(visit.body(&["-I", "--http1.1", &url])).unwrap().to_lowercase();
    assert!(head.contains("content-length: 20971527") && head.contains("attachment"), "{head}");
    assert!(head.contains("nosniff") && head.contains("sandbox"), "{head}");
    assert!(visit.page("/files/runs/").contains("sample ü#1.bam"));
    let archive = visit.body(&[&visit.url("/zip/runs")]);
    assert!(archive.starts_with(b"PK\x03\x04") && archive.len() > content.len());
    for path in ["/files/../../etc/passwd", "/files/%2e%2e/%2e%2e/etc/passwd", "/files/runs/%00"] {
        assert_eq!(visit.status(&["--path-as-is", &visit.url(path)]), "404", "{path}");
    }
    let workers = children_of(visit.server.pid(), "web");
    assert_eq!(workers.len(), 1);
    let status = fs::read_to_string(format!("/proc/{}/status", workers[0])).unwrap();
    let uid = |text: &str| text.lines().find(|line| line.starts_with("Uid:")).map(str::to_owned);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert!(!nix::unistd::geteuid().is_root() || uid(&status) != uid(&own), "{status}");
}
