//! Browsers: signing in, files, uploads and shared links over HTTPS, with curl as the plain client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use haul_tests::harness::{Client, Outcome, Server, ServerOptions, USER, children_of, wait_until};
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
    // A key for sessions only makes none.
    let keys = visit.server.directory().join("authorized_keys");
    let public = fs::read_to_string(&keys).unwrap();
    fs::write(&keys, format!("command=\"haul-session\" {public}")).unwrap();
    let refused = visit.ssh(&["link", "--host", "localhost"]);
    assert!(!refused.status.success() && refused.stdout.is_empty());
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

/// The headers of every tus request, and those of this one.
fn tus<'a>(method: &'a str, headers: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["-X", method, "-H", "Tus-Resumable: 1.0.0"];
    for header in headers {
        all.extend(["-H", header]);
    }
    all
}

#[test]
fn an_upload_goes_on_after_a_restart_and_replaces_nothing_unasked() {
    if !needed("browser uploads") {
        return;
    }
    let mut visit = Visit::start();
    let source = visit.server.directory().join("source");
    make_file(&source, 9 * MIB, 4);
    let content = fs::read(&source).unwrap();
    let create = |visit: &Visit, metadata: &str| {
        let metadata = format!("Upload-Metadata: {metadata}");
        let url = visit.url("/upload/");
        let mut arguments = tus("POST", &["Upload-Length: 9437184", &metadata]);
        arguments.extend(["-D", "-", "--http1.1", &url]);
        String::from_utf8(visit.body(&arguments)).unwrap()
    };
    let name = "filename ZmlsZSDDvC5iaW4="; // "file ü.bin"
    let created = create(&visit, name);
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    let place = created.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim().to_owned();
    let send = |visit: &Visit, from: usize, to: usize| {
        let part = visit.server.directory().join("part");
        fs::write(&part, &content[from..to]).unwrap();
        let (offset, data) = (format!("Upload-Offset: {from}"), format!("@{}", part.display()));
        let url = visit.url(&place);
        let mut arguments = tus("PATCH", &[&offset, "Content-Type: application/offset+octet-stream"]);
        arguments.extend(["--data-binary", &data, &url]);
        visit.status(&arguments)
    };
    assert_eq!(send(&visit, 0, 4_000_000), "204");
    assert!(!visit.page("/files/").contains(".haul-"), "what is under way is in no listing");
    visit.server.kill();
    visit.server.restart();
    let url = visit.url(&place);
    let mut ask = tus("HEAD", &[]);
    ask.extend(["-I", "--http1.1", &url]);
    let told = String::from_utf8(visit.body(&ask)).unwrap();
    assert!(told.contains("upload-offset: 4000000"), "the session and the upload are still there: {told}");
    assert_eq!(send(&visit, 3_000_000, 4_000_000), "409", "another place");
    assert_eq!(send(&visit, 4_000_000, content.len()), "204");
    assert!(equal(&visit.server.docroot().join("file ü.bin"), &content));
    assert!(create(&visit, name).starts_with("HTTP/1.1 409"), "the user is asked");
    assert!(create(&visit, "filename Li4vZXZpbA==").starts_with("HTTP/1.1 400"), "../evil");
    let form = format!("file=@{};filename=file ü.bin", source.display());
    assert_eq!(visit.status(&["-F", "existing=rename", "-F", &form, &visit.url("/files/")]), "303");
    assert!(equal(&visit.server.docroot().join("file ü (2).bin"), &content));
    assert_eq!(visit.status(&["-d", "name=new folder", &visit.url("/folder/")]), "303");
    assert!(visit.server.docroot().join("new folder").is_dir());
    let left: Vec<_> =
        fs::read_dir(visit.server.docroot()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_shared_link_opens_what_is_shared_so_often_and_nothing_else() {
    if !needed("shared links") {
        return;
    }
    let mut visit = Visit::start();
    let file = visit.put("data/reads.fastq", 3 * MIB);
    visit.put("secret", 10);
    let content = fs::read(&file).unwrap();
    let share = |visit: &Visit, words: &[&str]| {
        let output = visit.ssh(&[&["share", "--host", "localhost"], words].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let stranger = |url: &str, arguments: &[&str]| {
        let output =
            Command::new("curl").args(["-sk", "-w", "%{http_code}"]).args(arguments).arg(url).output();
        let mut bytes = output.unwrap().stdout;
        let status = bytes.split_off(bytes.len() - 3);
        (String::from_utf8(status).unwrap(), bytes)
    };
    let link = share(&visit, &["data/reads.fastq", "--count", "2", "--expires", "1h"]);
    let link = link.trim();
    assert!(link.ends_with("/reads.fastq"), "{link}");
    let page = stranger(link, &["-H", "Accept: text/html"]);
    assert!(String::from_utf8(page.1).unwrap().contains("Downloads left"), "a page does not count");
    // Three parts make one download.
    for range in ["0-999999", "1000000-1999999", "2000000-"] {
        assert_eq!(stranger(link, &["-r", range]).0, "206", "{range}");
    }
    let state = visit.server.state_dir().join("web-shares.json");
    let stored = || fs::read_to_string(&state).is_ok_and(|text| text.contains("\"sent\": 3145728"));
    assert!(wait_until(Duration::from_secs(5), stored), "the whole download is on record");
    visit.server.kill();
    visit.server.restart();
    assert_eq!(stranger(link, &[]), ("200".to_owned(), content.clone()));
    assert_eq!(stranger(link, &[]).0, "410", "once too often");
    let folder = share(&visit, &["data", "--password"]);
    let mut lines = folder.lines();
    let (link, password) = (lines.next().unwrap(), lines.next().unwrap().strip_prefix("password: ").unwrap());
    assert_eq!(stranger(link, &[]).0, "401");
    assert_eq!(stranger(link, &["-u", ":wrong"]).0, "401");
    let user = format!(":{password}");
    let inside = format!("{link}reads.fastq");
    assert_eq!(stranger(&inside, &["-u", &user]), ("200".to_owned(), content));
    for path in ["../secret", "%2e%2e/secret", "x/../../secret"] {
        assert_eq!(stranger(&format!("{link}{path}"), &["-u", &user, "--path-as-is"]).0, "404", "{path}");
    }
    assert_ne!(stranger(&inside, &["-u", &user, "-X", "DELETE"]).0, "204");
    let listed = String::from_utf8(visit.ssh(&["shares"]).stdout).unwrap();
    assert!(listed.contains("2 of 2 downloads") && listed.contains("/data/"), "{listed}");
    let id = listed.lines().find(|line| line.ends_with("/data/")).unwrap().split_whitespace().next().unwrap();
    assert!(visit.ssh(&["unshare", id]).status.success());
    assert_eq!(stranger(&inside, &["-u", &user]).0, "410");
    assert!(!visit.ssh(&["share", "../secret"]).status.success());
}

/// Runs `haul COMMAND`, with the server's port, key and known host.
fn haul(server: &Server, command: &str, words: &[&str]) -> Outcome {
    let known_hosts = server.known_hosts();
    let login = Client::alone()
        .arg(command)
        .args(["-F", "none", "-P", &server.port().to_string(), "-i"])
        .arg(server.key())
        .arg("--known-hosts")
        .arg(known_hosts);
    login.args(words).run()
}

#[test]
fn haul_makes_lists_and_ends_links() {
    if !needed("links made by haul") {
        return;
    }
    let visit = Visit { server: server() };
    let server = &visit.server;
    let file = visit.put("it's a run.bam", MIB);
    let at = server.destination("");
    let host = at.trim_end_matches(':');
    let made = haul(server, "link", &[host]);
    let link = made.assert_success().stdout.trim().to_owned();
    assert!(link.starts_with(&format!("https://127.0.0.1:{}/", server.https_port())), "{link}");
    assert!(made.stderr.contains("the server says: Open it within"), "{}", made.stderr);
    assert_eq!(visit.status(&["-X", "POST", &link]), "303");
    assert_eq!(visit.status(&["-X", "POST", &link]), "410");
    let path = server.destination("it's a run.bam");
    let shared = haul(server, "share", &[&path, "--expires", "1h", "--count", "2", "--password"]);
    let lines: Vec<&str> = shared.assert_success().stdout.lines().collect();
    let [link, password] = lines.as_slice() else { panic!("{lines:?}") };
    let password = format!(":{}", password.strip_prefix("password: ").unwrap());
    assert_eq!(visit.status(&[link]), "401");
    assert!(equal(&file, &visit.body(&["-u", &password, link])));
    // The stock ssh as the one that dials; the host is said as before.
    let ssh = ["--ssh-command", "ssh -o BatchMode=yes -o IdentitiesOnly=yes", host];
    let listed = haul(server, "shares", &ssh).assert_success().stdout.clone();
    assert!(listed.contains("1 of 2 downloads") && listed.contains("password  /it"), "{listed}");
    let id = listed.split_whitespace().next().unwrap();
    let ended = haul(server, "unshare", &[&ssh[..], &[id]].concat());
    assert!(ended.assert_success().stderr.contains("open nothing any more"), "{}", ended.stderr);
    assert_eq!(visit.status(&["-u", &password, link]), "410");
    let again = haul(server, "unshare", &[host, id]);
    assert!(again.assert_code(1).stderr.contains("no share"), "{}", again.stderr);
    let outside = haul(server, "share", &[&server.destination("../secret")]);
    assert!(outside.assert_code(1).stdout.is_empty(), "{}", outside.stdout);
}
