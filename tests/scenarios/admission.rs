//! Who may transfer, and when: many at once queue, and a program of the administrator's decides.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use haul_tests::harness::{Outcome, Pair, ServerOptions};
use haul_tests::tree::{assert_same, make_file};

/// Uploads of one automation.
const STARTS: usize = 50;

#[test]
fn fifty_starts_at_once_queue_for_three_ports_and_none_is_refused() {
    let pair = Pair::start(ServerOptions { udp_ports: 3, ..ServerOptions::default() });
    make_file(&pair.here().join("f"), 100_000, 1);
    let client = |n: usize| {
        pair.server.client().arg(pair.here().join("f")).arg(pair.server.destination(&format!("f{n}")))
    };
    let running: Vec<_> = (0..STARTS).map(|n| client(n).spawn()).collect();
    for (n, running) in running.into_iter().enumerate() {
        running.wait().assert_success();
        assert_same(&pair.here().join("f"), &pair.server.docroot().join(format!("f{n}")));
    }
}

/// A program where every account may run it.
fn program(folder: &Path, script: &str) -> String {
    let path = folder.join("authorize");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn asked(script: &str) -> (Pair, tempfile::TempDir) {
    let folder = haul_tests::harness::scratch();
    let user_lines = format!("authorize = {:?}", program(folder.path(), script));
    let pair = Pair::start(ServerOptions { user_lines, ..ServerOptions::default() });
    make_file(&pair.here().join("f"), 2_000_000, 1);
    (pair, folder)
}

fn upload(pair: &Pair, options: &[&str], name: &str) -> Outcome {
    let client = pair.server.client().arg("--json").args(options);
    client.arg(pair.here().join("f")).arg(pair.server.destination(name)).run()
}

#[test]
fn a_program_that_is_shown_the_token_allows_refuses_and_sets_the_rate() {
    let script = r#"request=$(cat)
case $request in
    *'"direction":"upload"'*'"destination":"in/'*'"token":"good"'*) echo '{"max_rate":"40m"}' ;;
    *'"token":"good"'*) echo '{"allow":false,"message":"this token is for the folder in"}' ;;
    *) exit 1 ;;
esac"#;
    let (pair, _folder) = asked(script);
    fs::create_dir(pair.server.docroot().join("in")).unwrap();
    pair.server.hand_over(&pair.server.docroot());
    let outcome = upload(&pair, &["-W", "good"], "in/f");
    outcome.assert_success();
    assert_same(&pair.here().join("f"), &pair.server.docroot().join("in/f"));
    let mut stats = outcome.events_with("event", "stats").map(|stats| stats["target_bps"].as_u64());
    assert_eq!(stats.next(), Some(Some(40_000_000)), "the answer's rate is in force\n{}", outcome.story());
    upload(&pair, &["-W", "good"], "out").assert_refused(5, &["this token is for the folder in"]);
    for options in [&["-W", "bad"][..], &[]] {
        upload(&pair, options, "in/g").assert_refused(5, &["this transfer is not permitted"]);
    }
    assert!(!pair.server.docroot().join("in/g").exists() && !pair.server.docroot().join("out").exists());
    assert!(!pair.server.log().contains("good"), "tokens are not logged\n{}", pair.server.log());
}

#[test]
fn without_an_answer_nothing_is_allowed() {
    let (pair, folder) = asked("echo maybe");
    upload(&pair, &[], "f").assert_refused(5, &["could not find out"]);
    fs::remove_file(folder.path().join("authorize")).unwrap();
    upload(&pair, &[], "f").assert_refused(5, &["could not find out"]);
    assert!(!pair.server.docroot().join("f").exists());
}
