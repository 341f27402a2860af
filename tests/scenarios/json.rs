//! What `--json` prints is what `haul --json-schema` says.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use haul_tests::harness::{Client, Outcome, Pair, ServerOptions, WAYS, Way};
use haul_tests::schema::Schema;
use haul_tests::tree::make_file;

/// Every line of a run fits the schema; notes which kinds of events there were.
#[track_caller]
fn check(schema: &Schema, outcome: &Outcome, kinds: &mut BTreeSet<String>) {
    for line in outcome.stdout.lines() {
        let event = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(schema.problem(&event), None, "{line}");
        kinds.insert(event["event"].as_str().unwrap().to_owned());
    }
}

#[test]
fn every_kind_of_event_fits_the_published_schema() {
    let printed = Client::alone().arg("--json-schema").run();
    printed.assert_success();
    let schema = Schema::parse(&printed.stdout);
    let mut kinds = BTreeSet::new();
    let pair = Pair::start(ServerOptions { max_rate: Some("80m".to_owned()), ..ServerOptions::default() });
    for way in WAYS {
        make_file(&pair.from(way).join("tree/file"), 8 << 20, 1);
        symlink("nowhere", pair.from(way).join("tree/dangling-%-\u{1}")).unwrap();
        // More than the server grants, so that it says what it changed.
        let mut running = pair.copy(way, &["tree"], "arrived").args(["-d", "-l", "200m"]).listening().spawn();
        running
            .wait_for("the start", |running| running.events().iter().any(|event| event["event"] == "stats"));
        running.say("no such thing");
        running.say(r#"{"set_policy":"high"}"#);
        check(&schema, &running.wait(), &mut kinds);
    }
    let refused = pair.copy(Way::Down, &["absent"], "x").run();
    check(&schema, &refused, &mut kinds);
    fs::write(pair.here().join("empty"), "").unwrap();
    check(&schema, &pair.copy(Way::Up, &["empty"], "x").run(), &mut kinds);
    check(&schema, &Client::alone().args(["--json", "--no-such-option"]).run(), &mut kinds);
    let all: BTreeSet<String> = schema.definitions().map(str::to_owned).collect();
    assert_eq!(kinds, all, "each kind that is described has been seen, and no other");
}
