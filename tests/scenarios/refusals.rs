//! What cannot be done is refused: one clear line on stderr, at most one more with the way out, and the
//! documented exit code.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use haul_tests::harness::{Client, Pair, Server, ServerOptions, USER, WAYS, Way, make_key, wait_until};
use haul_tests::require::require;
use haul_tests::tree::{assert_no_partials, assert_same, make_file, partials};

const MIB: u64 = 1 << 20;

fn pair() -> Pair {
    Pair::start(ServerOptions::default())
}

/// A pair with a file `f` on the side that sends.
fn pair_with_file(way: Way) -> Pair {
    let pair = pair();
    make_file(&pair.from(way).join("f"), 10_000, 1);
    pair
}

/// A client that logs in with this key and these known hosts, and uploads `f`.
fn stranger(pair: &Pair, key: &Path, known_hosts: &Path) -> Client {
    let client = Client::alone().arg("-P").arg(pair.server.port().to_string()).arg("-i").arg(key);
    client.arg("--known-hosts").arg(known_hosts).arg(pair.here().join("f")).arg(pair.server.destination(""))
}

/// `SHA256:...` of a key file.
fn fingerprint(key: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(key).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap().to_owned()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_that_is_not_authorized_is_named() {
    let pair = pair_with_file(Way::Up);
    let key = pair.here().join("stranger");
    make_key(&key);
    let outcome = stranger(&pair, &key, &pair.server.known_hosts()).run();
    outcome.assert_refused(4, &["permission denied", USER, &fingerprint(&key), "authorized_keys"]);
    let no_such = pair.here().join("no-such-key");
    stranger(&pair, &no_such, &pair.server.known_hosts()).run().assert_refused(4, &["no-such-key"]);
}

#[test]
fn an_unknown_user_is_refused_as_a_wrong_key_is() {
    let pair = pair_with_file(Way::Up);
    let destination = pair.server.destination("").replace(USER, "mallory");
    let outcome = pair.server.client().arg(pair.here().join("f")).arg(destination).run();
    outcome.assert_refused(4, &["permission denied", "mallory"]);
}

#[test]
fn an_unknown_host_is_named() {
    let pair = pair_with_file(Way::Up);
    let (file, host) = (pair.here().join("f"), "alice@no-such-host.invalid:");
    let client = Client::alone().args(["-F", "none"]);
    client.clone().arg(&file).arg(host).run().assert_refused(3, &["not found", "no-such-host.invalid"]);
    client.arg(host).arg(pair.here()).run().assert_refused(3, &["not found", "no-such-host.invalid"]);
}

#[test]
fn a_port_where_nothing_listens_is_named() {
    let pair = pair_with_file(Way::Up);
    let outcome = Client::alone().args(["-P", "1"]).arg(pair.here().join("f")).arg("alice@127.0.0.1:").run();
    outcome.assert_refused(3, &["refused", "TCP port 1", "-P"]);
}

#[test]
fn a_changed_host_key_is_refused_with_both_fingerprints() {
    let pair = pair_with_file(Way::Up);
    let known_hosts = fs::read_to_string(pair.server.known_hosts()).unwrap();
    let wrong = pair.here().join("wrong");
    make_key(&wrong);
    let public = fs::read_to_string(wrong.with_extension("pub")).unwrap();
    let changed = pair.here().join("changed_hosts");
    fs::write(&changed, format!("[127.0.0.1]:{} {public}", pair.server.port())).unwrap();
    let outcome = stranger(&pair, &pair.server.key(), &changed).run();
    let real = pair.here().join("real.pub");
    fs::write(&real, known_hosts.lines().next().unwrap().split_once(' ').unwrap().1).unwrap();
    outcome.assert_refused(4, &["changed", &fingerprint(&wrong), &fingerprint(&real), "ssh-keygen -R"]);
    assert!(!pair.server.docroot().join("f").exists());
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let client = Client::alone();
    client.clone().args(["--no-such-option", "a", "h:b"]).run().assert_refused(2, &["--no-such-option"]);
    client.clone().args(["-l", "fast", "a", "h:b"]).run().assert_refused(2, &["fast"]);
    client.args(["--polcy", "fair", "a", "h:b"]).run().assert_refused(2, &["--policy"]);
}

#[test]
fn a_missing_source_is_named() {
    for way in WAYS {
        let pair = pair_with_file(way);
        for sources in [&["no/such-file"][..], &["f", "such-file"]] {
            let outcome = pair.copy(way, sources, "").run();
            outcome.assert_refused(5, &["such-file"]);
            assert!(outcome.stderr.to_lowercase().contains("no such file"), "{}", outcome.story());
        }
    }
}

#[test]
fn a_source_that_may_not_be_read_is_named() {
    let pair = pair_with_file(Way::Down);
    let file = pair.server.docroot().join("f");
    set_mode(&file, 0);
    let outcome = pair.copy(Way::Down, &["f"], "arrived").run();
    outcome.assert_refused(5, &["f", "ermission denied"]);
    make_file(&pair.server.docroot().join("closed/f"), 100, 1);
    set_mode(&pair.server.docroot().join("closed"), 0);
    let outcome = pair.copy(Way::Down, &["closed/f"], "arrived").run();
    outcome.assert_refused(5, &["closed", "ermission denied"]);
    assert!(!pair.here().join("arrived").exists());
    set_mode(&pair.server.docroot().join("closed"), 0o755);
}

#[test]
fn an_unreadable_file_in_a_tree_is_named_and_the_others_arrive() {
    let pair = pair();
    for name in ["a", "closed", "z"] {
        make_file(&pair.server.docroot().join("tree").join(name), 1000, 1);
    }
    set_mode(&pair.server.docroot().join("tree/closed"), 0);
    let outcome = pair.copy(Way::Down, &["tree"], "").run();
    outcome.assert_code(1);
    assert!(outcome.stderr.contains("tree/closed: "), "{}", outcome.story());
    assert!(outcome.stderr.contains("permitted"), "{}", outcome.story());
    assert_eq!((&outcome.done()["ok"], &outcome.done()["failed"]), (&false.into(), &1.into()));
    let tree = pair.here().join("tree");
    assert!(tree.join("a").exists() && tree.join("z").exists() && !tree.join("closed").exists());
    assert_no_partials(pair.here());
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    let pair = pair_with_file(Way::Up);
    let folder = pair.server.docroot().join("closed");
    fs::create_dir(&folder).unwrap();
    set_mode(&folder, 0o555);
    for destination in ["closed", "closed/new"] {
        let outcome = pair.copy(Way::Up, &["f"], destination).run();
        outcome.assert_refused(5, &["ermission denied"]);
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn permissions_of_the_configuration_hold() {
    for (way, permissions, word) in
        [(Way::Up, ["read", "list"], "upload"), (Way::Down, ["write", "list"], "download")]
    {
        let permissions = permissions.map(str::to_owned).to_vec();
        let pair = Pair::start(ServerOptions { permissions, ..ServerOptions::default() });
        make_file(&pair.from(way).join("f"), 1000, 1);
        pair.copy(way, &["f"], "").run().assert_refused(5, &["may not", word, "administrator"]);
        assert!(!pair.to(way).join("f").exists());
    }
}

/// A server whose docroot has links to a folder outside, which holds `secret`.
fn pair_with_links() -> (Pair, PathBuf) {
    let pair = pair();
    let outside = pair.server.directory().join("outside");
    make_file(&outside.join("secret"), 1000, 99);
    pair.server.hand_over(&outside);
    let docroot = pair.server.docroot();
    symlink(&outside, docroot.join("absolute")).unwrap();
    symlink("../outside", docroot.join("relative")).unwrap();
    symlink(outside.join("secret"), docroot.join("file")).unwrap();
    make_file(&docroot.join("inner/f"), 1000, 1);
    pair.server.hand_over(&docroot.join("inner"));
    symlink("../../outside", docroot.join("inner/link")).unwrap();
    make_file(&pair.here().join("f"), 10_000, 2);
    (pair, outside)
}

#[test]
fn no_download_leaves_the_docroot() {
    let (pair, _) = pair_with_links();
    for source in [
        "../outside/secret",
        "inner/../../outside/secret",
        "/../outside/secret",
        "absolute/secret",
        "relative/secret",
        "inner/link/secret",
        "file",
        "..",
    ] {
        let outcome = pair.copy(Way::Down, &[source], "arrived").run();
        outcome.assert_refused(5, &["docroot"]);
        assert!(!pair.here().join("arrived").exists(), "{source}\n{}", outcome.story());
    }
}

#[test]
fn no_upload_leaves_the_docroot() {
    let (pair, outside) = pair_with_links();
    for destination in [
        "../outside/new",
        "../outside",
        "inner/../../outside/new",
        "absolute/new",
        "absolute",
        "relative/new",
        "relative/",
        "inner/link/new",
        "..",
    ] {
        for options in [&[][..], &["-d"]] {
            let outcome = pair.copy(Way::Up, &["f"], destination).args(options).run();
            outcome.assert_refused(5, &["docroot"]);
            let names: Vec<_> =
                fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["secret"], "{destination} {options:?}\n{}", outcome.story());
            assert!(!pair.server.directory().join("f").exists(), "{}", outcome.story());
        }
    }
}

#[test]
fn an_upload_onto_a_link_does_not_write_through_it() {
    let (pair, outside) = pair_with_links();
    let before = fs::read(outside.join("secret")).unwrap();
    let outcome = pair.copy(Way::Up, &["f"], "file").run();
    assert!(matches!(outcome.code(), Some(0 | 5)), "{}", outcome.story());
    assert_eq!(fs::read(outside.join("secret")).unwrap(), before, "{}", outcome.story());
    assert_no_partials(&outside);
}

#[test]
fn links_in_a_downloaded_tree_give_nothing_from_outside() {
    let (pair, outside) = pair_with_links();
    let _ = pair.copy(Way::Down, &["inner"], "arrived").run();
    assert_same(&pair.server.docroot().join("inner/f"), &pair.here().join("arrived/f"));
    let link = pair.here().join("arrived/link");
    let followed = link.is_dir() && !link.is_symlink();
    assert!(!followed || !link.join(outside.join("secret").file_name().unwrap()).exists());
}

#[test]
fn an_absolute_path_starts_at_the_docroot() {
    let (pair, _) = pair_with_links();
    pair.copy(Way::Up, &["f"], "/inner/g").run().assert_success();
    assert_same(&pair.here().join("f"), &pair.server.docroot().join("inner/g"));
    pair.copy(Way::Down, &["/inner/g"], "back").run().assert_success();
    assert_same(&pair.here().join("f"), &pair.here().join("back"));
    pair.copy(Way::Down, &["/etc/passwd"], "passwd").run().assert_refused(5, &["/etc/passwd"]);
    pair.copy(Way::Down, &["inner/../inner/g"], "dots").run().assert_success();
}

/// A file system of 8 MiB at this folder, until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        let mount = |command: &mut Command| command.arg(at).status().unwrap().success();
        assert!(mount(Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=777", "none"])));
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_partial_stays() {
    if !require("full disk", &["root", "mount"]) {
        return;
    }
    for way in WAYS {
        let pair = pair();
        make_file(&pair.from(way).join("f"), 24 * MIB, 1);
        let folder = pair.to(way).join("small");
        fs::create_dir(&folder).unwrap();
        let _disk = SmallDisk::mount(&folder);
        let outcome = pair.copy(way, &["f"], "small/").run();
        outcome.assert_refused(6, &["space"]);
        assert_eq!(outcome.done()["ok"], false, "{}", outcome.story());
        let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert!(left.is_empty(), "left: {left:?}\n{}", outcome.story());
        // What fits is still taken.
        make_file(&pair.from(way).join("g"), 2 * MIB, 2);
        pair.copy(way, &["g"], "small/").run().assert_success();
        assert_same(&pair.from(way).join("g"), &folder.join("g"));
    }
}

#[test]
fn a_disk_that_fills_leaves_whole_files_only() {
    if !require("disk that fills", &["root", "mount"]) {
        return;
    }
    for way in WAYS {
        let pair = pair();
        for n in 0..12 {
            make_file(&pair.from(way).join(format!("tree/{n:02}")), MIB, n);
        }
        let folder = pair.to(way).join("small");
        fs::create_dir(&folder).unwrap();
        let _disk = SmallDisk::mount(&folder);
        let outcome = pair.copy(way, &["tree"], "small").run();
        outcome.assert_refused(6, &["space"]);
        let arrived: Vec<_> = fs::read_dir(folder.join("tree")).unwrap().map(Result::unwrap).collect();
        assert!(arrived.len() < 12, "{arrived:?}");
        for entry in arrived {
            assert_same(&pair.from(way).join("tree").join(entry.file_name()), &entry.path());
        }
        assert!(partials(&folder).is_empty(), "{:?}", partials(&folder));
    }
}

#[test]
fn several_sources_into_a_missing_folder_show_the_option() {
    for way in WAYS {
        let pair = pair_with_file(way);
        make_file(&pair.from(way).join("g"), 10, 2);
        pair.copy(way, &["f", "g"], "missing").run().assert_refused(5, &["missing", "-d"]);
        pair.copy(way, &["f"], "missing/").run().assert_refused(5, &["missing", "-d"]);
        pair.copy(way, &["f"], "missing/below").run().assert_refused(5, &["missing", "-d"]);
        assert!(!pair.to(way).join("missing").exists());
        // A file is no folder.
        make_file(&pair.to(way).join("file"), 10, 3);
        pair.copy(way, &["f", "g"], "file").run().assert_refused(5, &["file"]);
        pair.copy(way, &["f"], "file/below").run().assert_refused(5, &["file"]);
    }
}

#[test]
fn a_docroot_that_is_gone_is_said_without_its_path() {
    let pair = pair_with_file(Way::Up);
    let docroot = pair.server.docroot();
    fs::rename(&docroot, docroot.with_extension("away")).unwrap();
    let outcome = pair.copy(Way::Up, &["f"], "").run();
    outcome.assert_refused(5, &["docroot", "administrator"]);
    assert!(!outcome.stderr.contains(docroot.to_str().unwrap()), "{}", outcome.story());
}

#[test]
fn a_server_without_free_udp_ports_lets_sessions_wait_for_one() {
    let pair = pair_with_file(Way::Up);
    let (first, last) = pair.server.udp_ports();
    let taken: Vec<_> =
        (first..=last).map(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap()).collect();
    let waiting = pair.copy(Way::Up, &["f"], "").spawn();
    let begun = wait_until(Duration::from_secs(20), || !pair.server.workers().is_empty());
    assert!(begun, "{}", pair.server.log());
    drop(taken);
    waiting.wait().assert_success();
}

#[test]
fn a_client_without_a_login_learns_nothing_of_the_docroot() {
    let pair = pair_with_file(Way::Down);
    let key = pair.here().join("stranger");
    make_key(&key);
    let ask = |path: &str| {
        let server: &Server = &pair.server;
        let client = Client::alone().arg("-P").arg(server.port().to_string()).arg("-i").arg(&key);
        client
            .arg("--known-hosts")
            .arg(server.known_hosts())
            .arg(server.destination(path))
            .arg(pair.here())
            .run()
    };
    let (there, missing) = (ask("f"), ask("missing"));
    assert_eq!((there.code(), there.stderr), (missing.code(), missing.stderr));
}
