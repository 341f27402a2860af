//! What happens to the sources after they are stored: they are removed or moved, both ways. What was not stored stays.

use std::fs;
use std::path::Path;

use haul_tests::harness::{Outcome, Pair, ServerOptions, WAYS, Way};

fn pair() -> Pair {
    Pair::start(ServerOptions::default())
}

fn write(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

fn run(pair: &Pair, way: Way, source: &str, options: &[&str]) -> Outcome {
    if way == Way::Down {
        pair.server.hand_over(&pair.server.docroot());
    }
    pair.copy(way, &[source], "arrived").args(["-d"]).args(options).run()
}

#[test]
fn stored_files_are_removed_and_what_failed_stays() {
    let pair = pair();
    for way in WAYS {
        let from = pair.from(way);
        write(&from, &["tree/a", "tree/deep/b", "tree/deep/blocked"]);
        // Where this one should go stands a folder.
        fs::create_dir_all(pair.to(way).join("arrived/tree/deep/blocked")).unwrap();
        pair.server.hand_over(&pair.server.docroot());
        let outcome = run(&pair, way, "tree", &["--remove-after-transfer"]);
        assert_eq!((outcome.code(), &outcome.done()["failed"]), (Some(1), &1.into()), "{}", outcome.story());
        assert!(!from.join("tree/a").exists() && !from.join("tree/deep/b").exists(), "{}", outcome.story());
        assert!(from.join("tree/deep/blocked").exists(), "what was not stored stays");
        assert_eq!(fs::read_to_string(pair.to(way).join("arrived/tree/deep/b")).unwrap(), "tree/deep/b");
    }
}

#[test]
fn empty_folders_are_removed_and_the_named_one_only_if_asked() {
    let pair = pair();
    for way in WAYS {
        let from = pair.from(way);
        for (option, there) in
            [("--remove-empty-directories", true), ("--remove-empty-source-directory", false)]
        {
            // What is there already would be skipped, and stay at the source.
            let _ = fs::remove_dir_all(pair.to(way).join("arrived"));
            write(&from, &["tree/a", "tree/deep/er/b"]);
            let outcome = run(&pair, way, "tree", &["--remove-after-transfer", option]);
            outcome.assert_success();
            assert_eq!(from.join("tree").exists(), there, "{option} {}", outcome.story());
            assert!(!from.join("tree/deep").exists(), "{option} {}", outcome.story());
        }
    }
}

#[test]
fn stored_files_are_moved_and_replace_nothing() {
    let pair = pair();
    for way in WAYS {
        let from = pair.from(way);
        write(&from, &["tree/a", "tree/deep/b", "done/tree/a"]);
        let target = match way {
            Way::Up => from.join("done").display().to_string(),
            Way::Down => "done".to_owned(),
        };
        let outcome = run(&pair, way, "tree", &["--move-after-transfer", &target]);
        assert_eq!(outcome.done()["failed"], 1, "{}", outcome.story());
        assert!(
            outcome.story().contains("a file of its name is in the folder to move to"),
            "{}",
            outcome.story()
        );
        assert_eq!(fs::read_to_string(from.join("done/tree/deep/b")).unwrap(), "tree/deep/b");
        assert_eq!(fs::read_to_string(from.join("done/tree/a")).unwrap(), "done/tree/a");
        assert!(from.join("tree/a").exists() && !from.join("tree/deep/b").exists());
    }
}

#[test]
fn a_user_who_may_only_read_removes_nothing_there() {
    let options =
        ServerOptions { permissions: vec!["read".into(), "list".into()], ..ServerOptions::default() };
    let pair = Pair::start(options);
    write(&pair.from(Way::Down), &["file"]);
    let outcome = run(&pair, Way::Down, "file", &["--remove-after-transfer"]);
    assert_ne!(outcome.code(), Some(0), "{}", outcome.story());
    assert!(outcome.story().contains("may not remove or move"), "{}", outcome.story());
    assert!(pair.from(Way::Down).join("file").exists());
}
