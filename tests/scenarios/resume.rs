//! Files that are there already, or in part: skipped, continued, replaced; never taken for what they are not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use haul_tests::harness::{Outcome, Pair, ServerOptions, WAYS, Way, wait_until};
use haul_tests::tree::{assert_no_partials, assert_same, make_file, make_small_files, partials};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kill::bytes_moved;

const MIB: u64 = 1 << 20;

fn pair() -> Pair {
    Pair::start(ServerOptions::default())
}

fn number(outcome: &Outcome, field: &str) -> u64 {
    outcome.done()[field].as_u64().unwrap_or_else(|| panic!("{field}\n{}", outcome.story()))
}

#[track_caller]
fn copy(pair: &Pair, way: Way, source: &str, name: &str, options: &[&str]) -> Outcome {
    let outcome = pair.copy(way, &[source], name).args(options).run();
    outcome.assert_success();
    outcome
}

/// Lets a transfer of `file` come to at least `bytes` and kills its worker. Returns what had been stored by then.
fn break_off(pair: &Pair, way: Way, bytes: u64, options: &[&str]) -> u64 {
    let mut client = pair.copy(way, &["file"], "arrived").arg("--no-retry").args(options).spawn();
    client.wait_for("progress", |client| bytes_moved(client) > bytes);
    for worker in pair.server.workers() {
        kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
    }
    let stored = bytes_moved(&client);
    let outcome = client.wait();
    assert_ne!(outcome.code(), Some(0), "{}", outcome.story());
    assert!(!pair.to(way).join("arrived").exists(), "a half file bears its final name");
    stored
}

fn touch(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

#[test]
fn a_tree_that_is_there_is_skipped() {
    let pair = pair();
    for way in WAYS {
        let root = pair.from(way).join("tree");
        make_small_files(&root, 300, 0, 20_000, 1);
        make_file(&root.join("large"), 9 * MIB, 2);
        for (options, level) in
            [(&["-p"][..], "-k1"), (&["-p"], "-k2"), (&["-p"], "-k3"), (&[], "-k1"), (&[], "-k2")]
        {
            let name = format!("there{level}{}", options.len());
            let options = [options, &[level]].concat();
            copy(&pair, way, "tree", &name, &options);
            fs::create_dir(pair.to(way).join(format!("again-{name}"))).unwrap();
            if way == Way::Up {
                pair.server.hand_over(&pair.to(way).join(format!("again-{name}")));
            }
            // Into the folder that is there, so that the names meet.
            let there = pair.to(way).join(&name);
            fs::rename(&there, pair.to(way).join(format!("again-{name}/tree"))).unwrap();
            let again = copy(&pair, way, "tree", &format!("again-{name}"), &options);
            let row = format!("{way:?} {options:?}\n{}", again.story());
            assert_eq!((number(&again, "skipped"), number(&again, "files")), (301, 0), "{row}");
            assert_same(&root, &pair.to(way).join(format!("again-{name}/tree")));
        }
        let all = copy(&pair, way, "tree", "again-there-k21", &["-p", "-k0"]);
        assert_eq!((number(&all, "skipped"), number(&all, "files")), (0, 301), "{}", all.story());
    }
}

#[test]
fn files_that_are_there_stay_or_go_as_overwrite_says() {
    let pair = pair();
    for way in WAYS {
        let file = pair.from(way).join("f");
        make_file(&file, 5000, 1);
        touch(&file, 1_000_000);
        // option, time of what is there, its size, replaced
        for (row, (option, seconds, size, replaced)) in [
            ("never", 1, 10, false),
            ("always", 1_000_000, 5000, true),
            ("diff", 1_000_000, 5000, false),
            ("diff", 2_000_000, 5000, true),
            ("diff", 2_000_000, 4999, true),
            ("older", 999_999, 5000, true),
            ("older", 1_000_001, 4000, false),
            ("diff+older", 1_000_001, 4000, false),
            ("diff+older", 999_999, 4000, true),
        ]
        .into_iter()
        .enumerate()
        {
            let there = pair.to(way).join(format!("there-{row}"));
            make_file(&there, size, 2);
            touch(&there, seconds);
            if way == Way::Up {
                pair.server.hand_over(&there);
            }
            let before = fs::read(&there).unwrap();
            let outcome = copy(&pair, way, "f", &format!("there-{row}"), &["--overwrite", option]);
            let row = format!("{way:?} row {row} {option}\n{}", outcome.story());
            let expected = if replaced { fs::read(&file).unwrap() } else { before };
            assert!(fs::read(&there).unwrap() == expected, "{row}");
            assert_eq!(number(&outcome, "skipped"), u64::from(!replaced), "{row}");
        }
        assert_no_partials(&pair.to(way));
    }
}

#[test]
fn a_transfer_that_broke_off_goes_on_where_it_was() {
    for (way, level) in WAYS.into_iter().flat_map(|way| ["-k1", "-k2", "-k3"].map(|level| (way, level))) {
        let pair = pair();
        let source = pair.from(way).join("file");
        make_file(&source, 64 * MIB + 77, 1);
        let mut least = 0;
        for break_at in [20 * MIB, 45 * MIB] {
            let stored = break_off(&pair, way, break_at, &["-l", "200m", level]);
            // Two percent and 16 MiB may be sent again.
            least = (stored - stored / 50).saturating_sub(16 * MIB).max(least);
        }
        assert_eq!(partials(&pair.to(way)).len(), 2, "{:?}", partials(&pair.to(way)));
        let outcome = copy(&pair, way, "file", "arrived", &[level]);
        assert_same(&source, &pair.to(way).join("arrived"));
        assert_no_partials(&pair.to(way));
        let resumed = number(&outcome, "resumed_bytes");
        assert!(resumed >= least && least > 25 * MIB, "{resumed}, expected {least}\n{}", outcome.story());
    }
}

#[test]
fn an_interrupted_transfer_loses_nothing() {
    for way in WAYS {
        let pair = pair();
        make_file(&pair.from(way).join("file"), 32 * MIB, 1);
        let mut client = pair.copy(way, &["file"], "arrived").args(["-l", "100m"]).spawn();
        client.wait_for("progress", |client| bytes_moved(client) > 10 * MIB);
        client.signal(Signal::SIGINT);
        let stored = {
            let outcome = client.wait();
            outcome.assert_code(130);
            number(&outcome, "bytes")
        };
        assert!(wait_until(Duration::from_secs(10), || pair.server.workers().is_empty()));
        let outcome = copy(&pair, way, "file", "arrived", &[]);
        assert!(number(&outcome, "resumed_bytes") >= stored, "{stored}\n{}", outcome.story());
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
        assert_no_partials(&pair.to(way));
    }
}

#[test]
fn a_source_that_has_changed_is_sent_anew() {
    for way in WAYS {
        let pair = pair();
        let source = pair.from(way).join("file");
        make_file(&source, 32 * MIB, 1);
        break_off(&pair, way, 12 * MIB, &["-l", "100m"]);
        make_file(&source, 32 * MIB, 2);
        touch(&source, 1_000_000);
        let outcome = copy(&pair, way, "file", "arrived", &[]);
        assert_eq!(number(&outcome, "resumed_bytes"), 0, "{}", outcome.story());
        assert_same(&source, &pair.to(way).join("arrived"));
        assert_no_partials(&pair.to(way));
        // The same once more, but in secret: size and time are as before.
        fs::remove_file(pair.to(way).join("arrived")).unwrap();
        break_off(&pair, way, 12 * MIB, &["-l", "100m"]);
        let file = File::options().write(true).open(&source).unwrap();
        file.write_all_at(b"altered", 1000).unwrap();
        touch(&source, 1_000_000);
        let outcome = copy(&pair, way, "file", "arrived", &[]);
        assert_same(&source, &pair.to(way).join("arrived"));
        assert_eq!((number(&outcome, "files"), number(&outcome, "failed")), (1, 0), "{}", outcome.story());
        assert_no_partials(&pair.to(way));
    }
}

#[test]
fn what_is_there_is_read_again_at_level_3() {
    let pair = pair();
    make_file(&pair.here().join("file"), 32 * MIB, 1);
    break_off(&pair, Way::Up, 20 * MIB, &["-l", "100m"]);
    let docroot = pair.to(Way::Up);
    let partial =
        partials(&docroot).into_iter().find(|path| path.extension().is_some_and(|end| end == "part"));
    File::options()
        .write(true)
        .open(docroot.join(partial.unwrap()))
        .unwrap()
        .write_all_at(b"rot", 70_000)
        .unwrap();
    copy(&pair, Way::Up, "file", "arrived", &["-k3"]);
    assert_same(&pair.here().join("file"), &docroot.join("arrived"));
    assert_no_partials(&docroot);
}

#[test]
fn two_transfers_into_one_file_do_not_mix() {
    for way in WAYS {
        let pair = pair();
        make_file(&pair.from(way).join("file"), 16 * MIB, 1);
        let mut first = pair.copy(way, &["file"], "arrived").args(["-l", "40m"]).spawn();
        first.wait_for("progress", |client| bytes_moved(client) > MIB);
        let second = pair.copy(way, &["file"], "arrived").run();
        second.assert_code(1);
        assert!(second.stderr.contains("another transfer"), "{}", second.story());
        first.wait().assert_success();
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
        assert_no_partials(&pair.to(way));
    }
}

#[test]
fn what_a_killed_worker_leaves_of_small_files_is_used_up() {
    let pair = pair();
    let root = pair.here().join("tree");
    make_small_files(&root, 3000, 1, 9000, 5);
    let docroot = pair.to(Way::Up);
    fs::create_dir(docroot.join("into")).unwrap();
    pair.server.hand_over(&docroot.join("into"));
    for files in [300, 900, 1500, 2100] {
        let mut client =
            pair.copy(Way::Up, &["tree"], "into").args(["-p", "--no-retry", "-l", "100m"]).spawn();
        client.wait_for("progress", |client| {
            client.events().iter().any(|event| event["files"].as_u64() > Some(files))
        });
        for worker in pair.server.workers() {
            kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
        }
        drop(client);
    }
    let outcome = copy(&pair, Way::Up, "tree", "into", &["-p"]);
    assert!(number(&outcome, "skipped") >= 2100, "{}", outcome.story());
    assert_same(&root, &docroot.join("into/tree"));
    assert_no_partials(&docroot);
}

#[test]
fn small_files_that_only_look_alike_are_sent_again_together() {
    let pair = pair();
    for way in WAYS {
        let (source, there) = (pair.from(way).join("tree"), pair.to(way).join("into/tree"));
        make_small_files(&source, 20, 900, 900, 1);
        make_small_files(&there, 20, 900, 900, 2);
        for file in fs::read_dir(there.join("0000")).unwrap() {
            touch(&file.unwrap().path(), 1_000_000);
        }
        if way == Way::Up {
            pair.server.hand_over(&pair.server.docroot());
        }
        let outcome = copy(&pair, way, "tree", "into", &[]);
        assert_eq!(number(&outcome, "files"), 20, "{}", outcome.story());
        assert_same(&source, &there);
        assert_no_partials(&pair.to(way));
    }
}
