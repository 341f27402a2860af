//! What is sent arrives: equal, where it belongs, under every option, over loopback.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use haul_tests::harness::{Client, Outcome, Pair, Running, ServerOptions, WAYS, Way};
use haul_tests::require::require;
use haul_tests::tree::{
    Also, assert_no_partials, assert_same, assert_same_also, make_file, make_nested, make_odd_names,
    make_small_files,
};

const MIB: u64 = 1 << 20;

fn pair() -> Pair {
    Pair::start(ServerOptions::default())
}

/// Runs it and looks at what must be true of every success.
#[track_caller]
fn succeed(client: &Client) -> Outcome {
    let outcome = client.run();
    outcome.assert_success();
    assert!(outcome.stderr.is_empty(), "a success says nothing on stderr\n{}", outcome.story());
    assert_eq!(outcome.done()["ok"], true, "{}", outcome.story());
    outcome
}

/// Copies one file of this size to `name` and compares it.
#[track_caller]
fn one_file(pair: &Pair, way: Way, size: u64, name: &str, options: &[&str]) -> Outcome {
    let source = format!("{name}-source");
    make_file(&pair.from(way).join(&source), size, size + name.len() as u64);
    let outcome = succeed(&pair.copy(way, &[&source], name).args(options));
    assert_same(&pair.from(way).join(&source), &pair.to(way).join(name));
    assert_no_partials(&pair.to(way));
    outcome
}

#[test]
fn a_file_arrives_equal_and_the_last_json_line_tells_how() {
    let pair = pair();
    for way in WAYS {
        let outcome = one_file(&pair, way, 64 * MIB + 12_345, "big", &[]);
        let done = outcome.done();
        assert_eq!(done["bytes"], 64 * MIB + 12_345, "{done}");
        assert_eq!((&done["files"], &done["failed"]), (&1.into(), &0.into()), "{done}");
        assert_eq!(done["carrier"], "udp", "{done}");
        let seconds = done["seconds"].as_f64().unwrap();
        assert!(seconds > 0.0 && seconds <= outcome.elapsed.as_secs_f64(), "{done}");
        let rtt = done["rtt_ms"].as_f64().unwrap();
        assert!(rtt > 0.0 && rtt < 1000.0, "{done}");
        assert!(done["lost_packets"].is_u64() && done["retransmitted_bytes"].is_u64(), "{done}");
    }
}

#[test]
fn without_json_stdout_is_one_line_for_people() {
    let pair = pair();
    make_file(&pair.here().join("file"), 3 * MIB, 1);
    let client = pair.server.client().arg(pair.here().join("file")).arg(pair.server.destination("file"));
    let outcome = client.run();
    outcome.assert_success();
    let line = outcome.stdout.trim_end();
    assert!(line.starts_with("1 file, 3.00 MiB in ") && line.contains(", udp"), "{}", outcome.story());
    assert!(!line.contains('\n') && outcome.stderr.is_empty(), "{}", outcome.story());
    let quiet = client.arg("-q").run();
    quiet.assert_success();
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{}", quiet.story());
}

#[test]
fn an_empty_file_arrives() {
    let pair = pair();
    for way in WAYS {
        let outcome = one_file(&pair, way, 0, "empty", &[]);
        assert_eq!((&outcome.done()["files"], &outcome.done()["bytes"]), (&1.into(), &0.into()));
    }
}

#[test]
fn sizes_around_the_edges_of_blocks_and_packets_arrive_equal() {
    let pair = pair();
    for way in WAYS {
        let root = pair.from(way).join("edges");
        for size in [1, 39, 40, 1023, MIB - 41, MIB - 40, MIB - 39, MIB - 1, MIB, MIB + 1, 3 * MIB] {
            make_file(&root.join(size.to_string()), size, size);
        }
        succeed(&pair.copy(way, &["edges"], "arrived"));
        assert_same(&root, &pair.to(way).join("arrived"));
    }
}

#[test]
fn trees_arrive_with_all_their_odd_names_and_empty_folders() {
    let pair = pair();
    for way in WAYS {
        let root = pair.from(way).join("tree");
        make_odd_names(&root, 7);
        make_nested(&root.join("deep"), 60, 8);
        succeed(&pair.copy(way, &["tree"], "arrived"));
        assert_same(&root, &pair.to(way).join("arrived"));
        assert_no_partials(&pair.to(way));
    }
}

#[test]
fn a_file_whose_name_is_no_utf_8_can_be_named_on_the_command_line() {
    let pair = pair();
    for way in WAYS {
        let name = Path::new(OsStr::from_bytes(b"new\nline-\xff\xfe"));
        make_file(&pair.from(way).join(name), 5000, 3);
        succeed(&pair.copy(way, &[name], ""));
        assert_same(&pair.from(way).join(name), &pair.to(way).join(name));
    }
}

#[test]
fn five_thousand_files_arrive_equal() {
    let pair = pair();
    let (up, down) = (pair.here().join("tree"), pair.here().join("back"));
    make_small_files(&up, 4900, 0, 20_000, 9);
    make_nested(&up.join("deep"), 100, 10);
    make_odd_names(&up.join("odd"), 11);
    let outcome = succeed(&pair.copy(Way::Up, &["tree"], "there"));
    assert_eq!(outcome.done()["files"], 4900 + 100 + 29, "{}", outcome.done());
    assert_same(&up, &pair.server.docroot().join("there"));
    succeed(&pair.copy(Way::Down, &["there"], "back"));
    assert_same(&up, &down);
    assert_no_partials(pair.here());
    assert_no_partials(&pair.server.docroot());
}

/// Options, sources, destination, and where the first source ends up below the target folder.
type Landing = (&'static [&'static str], &'static [&'static str], &'static str, &'static str);

#[test]
fn sources_land_where_ascp_puts_them() {
    let rows: [Landing; 16] = [
        (&[], &["f"], "", "f"),
        (&[], &["f"], "dir", "dir/f"),
        (&[], &["f"], "dir/", "dir/f"),
        (&[], &["f"], "new", "new"),
        (&[], &["f"], "dir/new", "dir/new"),
        (&[], &["f"], "old", "old"),
        (&["-d"], &["f"], "made", "made/f"),
        (&["-d"], &["f"], "dir2", "dir2/f"),
        (&["-d"], &["f"], "a/b/c", "a/b/c/f"),
        (&[], &["sub/g"], "dir", "dir/g"),
        (&[], &["tree"], "dir", "dir/tree"),
        (&[], &["tree"], "renamed", "renamed"),
        (&["-d"], &["tree"], "made2", "made2/tree"),
        (&[], &["f", "sub/g", "tree"], "dir3", "dir3/f"),
        (&["-d"], &["f", "sub/g", "tree"], "made3", "made3/f"),
        (&["-d"], &["tree", "f"], "made4/deep", "made4/deep/tree"),
    ];
    let pair = pair();
    for way in WAYS {
        let (from, to) = (pair.from(way).join(format!("{way:?}")), pair.to(way));
        make_file(&from.join("f"), 10_000, 1);
        make_file(&from.join("sub/g"), 20_000, 2);
        make_odd_names(&from.join("tree"), 3);
        for (row, (options, sources, destination, landed)) in rows.into_iter().enumerate() {
            let target = to.join(format!("landing-{row}"));
            for folder in ["dir", "dir2", "dir3"] {
                fs::create_dir_all(target.join(folder)).unwrap();
            }
            make_file(&target.join("old"), 12_345, 4);
            if way == Way::Up {
                pair.server.hand_over(&target);
            }
            let below: Vec<String> = sources.iter().map(|source| format!("{way:?}/{source}")).collect();
            succeed(&pair.copy(way, &below, &format!("landing-{row}/{destination}")).args(options));
            assert_same(&from.join(sources[0]), &target.join(landed));
            let folder = target.join(landed).parent().unwrap().to_owned();
            for source in &sources[1..] {
                assert_same(&from.join(source), &folder.join(Path::new(source).file_name().unwrap()));
            }
            assert_no_partials(&target);
        }
    }
}

#[test]
fn an_existing_tree_is_updated_in_place() {
    let pair = pair();
    for way in WAYS {
        let root = pair.from(way).join("tree");
        make_small_files(&root, 40, 0, 9000, 1);
        succeed(&pair.copy(way, &["tree"], ""));
        make_small_files(&root, 40, 0, 9000, 2);
        succeed(&pair.copy(way, &["tree"], ""));
        assert_same(&root, &pair.to(way).join("tree"));
        assert_no_partials(&pair.to(way));
        fs::remove_dir_all(root).unwrap();
        fs::remove_dir_all(pair.to(way).join("tree")).unwrap();
    }
}

#[test]
fn p_keeps_times_and_without_it_files_are_new() {
    let pair = pair();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for way in WAYS {
        let root = pair.from(way).join("dated");
        make_small_files(&root, 20, 0, 5000, 4);
        for n in 0..20 {
            let path = root.join("0000").join(format!("file-{n:06}"));
            let times = FileTimes::new().set_modified(long_ago + Duration::from_nanos(n * 1_000_000_007));
            File::options().write(true).open(path).unwrap().set_times(times).unwrap();
        }
        succeed(&pair.copy(way, &["dated"], "kept").arg("-p"));
        assert_same_also(&root, &pair.to(way).join("kept"), Also { mtimes: true, modes: false });
        succeed(&pair.copy(way, &["dated"], "new"));
        assert_same(&root, &pair.to(way).join("new"));
        let modified = fs::metadata(pair.to(way).join("new/0000/file-000003")).unwrap().modified().unwrap();
        assert!(modified.elapsed().unwrap() < Duration::from_secs(600));
    }
}

#[test]
fn every_cipher_and_digest_carries_a_transfer() {
    let pair = pair();
    for way in WAYS {
        for cipher in ["aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"] {
            one_file(&pair, way, 5 * MIB, cipher, &["--cipher", cipher]);
        }
        for digest in ["blake3", "none"] {
            one_file(&pair, way, 5 * MIB, digest, &["--digest", digest]);
        }
    }
}

#[test]
fn ipv6_carries_a_transfer_as_ipv4_does() {
    if !require("IPv6", &["ipv6"]) {
        return;
    }
    let pair = pair();
    make_file(&pair.here().join("up"), 8 * MIB, 1);
    let client = || pair.server.client().arg("--json");
    let outcome = client().arg(pair.here().join("up")).arg(pair.server.destination_at("[::1]", "up")).run();
    outcome.assert_success();
    let address = outcome.events_with("event", "start").next().unwrap()["address"].clone();
    assert!(address.as_str().unwrap().starts_with("[::1]:"), "{address}");
    assert_same(&pair.here().join("up"), &pair.server.docroot().join("up"));
    client()
        .arg(pair.server.destination_at("[::1]", "up"))
        .arg(pair.here().join("down"))
        .run()
        .assert_success();
    assert_same(&pair.here().join("up"), &pair.here().join("down"));
}

#[test]
fn the_wished_udp_port_is_used_and_another_one_is_said_aloud() {
    let pair = pair();
    let (_, last) = pair.server.udp_ports();
    let outcome = one_file(&pair, Way::Up, 1000, "in", &["-O", &last.to_string()]);
    let start = outcome.events_with("event", "start").next().unwrap();
    assert!(start["address"].as_str().unwrap().ends_with(&format!(":{last}")), "{start}");
    let outcome = one_file(&pair, Way::Up, 1000, "out", &["-O", "9"]);
    let notice = outcome.events_with("event", "notice").next().unwrap();
    assert!(notice["message"].as_str().unwrap().contains("UDP port 9"), "{notice}");
}

#[test]
fn target_rate_and_the_user_s_limit_hold() {
    let pair = Pair::start(ServerOptions { max_rate: Some("40m".to_owned()), ..ServerOptions::default() });
    for way in WAYS {
        for options in [&["-l", "20m"][..], &[], &["-l", "1g", "--policy", "fixed"]] {
            let limit = if options.contains(&"20m") { 20e6 } else { 40e6 };
            let name = format!("rate-{}", options.len());
            let outcome = one_file(&pair, way, 5 * MIB, &name, options);
            let seconds = outcome.done()["seconds"].as_f64().unwrap();
            let waited = outcome.done()["limits"]["target_rate"].as_f64().unwrap();
            assert!(waited > 0.5, "{way:?} {options:?}: the rate was the limit {waited} of the time");
            let rate = 5.0 * 8.0 * MIB as f64 / seconds;
            assert!(rate < limit * 1.05, "{way:?} {options:?}: {rate:.0} bit/s");
            assert!(rate > limit * 0.6, "{way:?} {options:?}: {rate:.0} bit/s");
        }
    }
}

#[test]
fn sessions_at_the_same_time_do_not_mix() {
    let pair = pair();
    let start = |n: usize| -> (Way, String, Running) {
        let (way, name) = (WAYS[n % 2], format!("file-{n}"));
        make_file(&pair.from(way).join(&name), 6 * MIB + n as u64, n as u64);
        (way, name.clone(), pair.copy(way, &[&name], "").spawn())
    };
    let running: Vec<_> = (0..10).map(start).collect();
    for (way, name, client) in running {
        client.wait().assert_success();
        assert_same(&pair.from(way).join(&name), &pair.to(way).join(&name));
    }
}

#[test]
fn the_server_runs_without_udp_sockets_between_sessions() {
    let pair = pair();
    let sockets = || super::hostile::udp_sockets(pair.server.udp_ports()).len();
    assert_eq!(sockets(), 0, "before");
    make_file(&pair.here().join("slow"), 4 * MIB, 1);
    let mut client = pair.copy(Way::Up, &["slow"], "").args(["-l", "20m"]).spawn();
    client.wait_for("progress", |client| super::kill::bytes_moved(client) > 0);
    assert_eq!(sockets(), 1, "during");
    client.wait().assert_success();
    let gone = haul_tests::harness::wait_until(Duration::from_secs(10), || sockets() == 0);
    assert!(gone, "{} left after", sockets());
}

#[test]
fn the_whole_docroot_arrives_under_a_new_name() {
    let pair = pair();
    make_small_files(&pair.from(Way::Down).join("docs"), 5, 0, 100, 3);
    make_file(&pair.from(Way::Down).join("one"), 100, 4);
    let to = pair.here().join("whole");
    let client = pair.server.client().args([
        OsStr::new("--json"),
        OsStr::new(&pair.server.destination("")),
        to.as_os_str(),
    ]);
    succeed(&client);
    assert_same(&pair.from(Way::Down), &to);
}
