//! What of the sources is sent and where it lands: lists, targets, bases, filter rules, links. Both ways: in an upload the
//! client selects, in a download the server does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use haul_tests::harness::{Client, Outcome, Pair, ServerOptions, WAYS, Way};

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

/// What is below a folder: folders with a slash at their end, links with what they say.
fn found(root: &Path) -> BTreeSet<String> {
    fn walk(folder: &Path, above: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{above}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.insert(format!("{name}/"));
                walk(&entry.path(), &format!("{name}/"), found);
            } else if kind.is_symlink() {
                found.insert(format!("{name} -> {}", fs::read_link(entry.path()).unwrap().display()));
            } else {
                found.insert(name);
            }
        }
    }
    let mut names = BTreeSet::new();
    walk(root, "", &mut names);
    names
}

#[track_caller]
fn assert_found(root: &Path, expected: &[&str]) {
    assert_eq!(found(root), expected.iter().map(|name| (*name).to_owned()).collect());
}

/// A run whose sources are in a list.
fn listed(pair: &Pair, way: Way, option: &str, lines: &str, destination: &str) -> Client {
    let list = pair.server.directory().join(format!("list-{destination}"));
    fs::write(&list, lines).unwrap();
    let client = pair.server.client().arg("--json").arg(format!("{option}={}", list.display()));
    match way {
        Way::Up => client.in_directory(pair.here()).arg(pair.server.destination(destination)),
        Way::Down => {
            let to = pair.server.destination("");
            let (user, host) = to.trim_end_matches(':').rsplit_once('@').unwrap();
            let host = host.trim_matches(['[', ']']);
            let client = client.args(["--host", host, "--user", user, "--mode=recv"]);
            client.arg(pair.here().join(destination))
        }
    }
}

#[track_caller]
fn succeed(client: &Client) -> Outcome {
    let outcome = client.run();
    outcome.assert_success();
    outcome
}

#[test]
fn rules_leave_out_what_they_say_in_their_order() {
    let pair = pair();
    for way in WAYS {
        write(&pair.from(way), &["run/a.bam", "run/a.tmp", "run/deep/b.bam", "run/deep/c.txt", "run/logs/x"]);
        succeed(&pair.copy(way, &["run"], "one").args(["-E", "*.tmp", "-E", "logs/"]));
        assert_found(&pair.to(way).join("one"), &["a.bam", "deep/", "deep/b.bam", "deep/c.txt"]);
        succeed(&pair.copy(way, &["run"], "two").args(["-N", "*.bam", "-N", "/**/", "-E", "/**"]));
        assert_found(&pair.to(way).join("two"), &["a.bam", "deep/", "deep/b.bam", "logs/"]);
        let outcome = pair.copy(way, &["run"], "three").args(["-E", "[a"]).run();
        assert_eq!(outcome.code(), Some(2), "{}", outcome.story());
    }
}

#[test]
fn files_are_left_out_by_their_age() {
    let pair = pair();
    for way in WAYS {
        write(&pair.from(way), &["age/old", "age/new"]);
        let old = fs::File::options().write(true).open(pair.from(way).join("age/old")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000)).unwrap();
        succeed(&pair.copy(way, &["age"], "newer").args(["--exclude-older-than=1000001"]));
        assert_found(&pair.to(way).join("newer"), &["new"]);
        succeed(&pair.copy(way, &["age"], "older").args(["--exclude-newer-than=-3600"]));
        assert_found(&pair.to(way).join("older"), &["old"]);
    }
}

#[test]
fn sources_of_a_list_land_by_name_or_below_the_base_or_at_their_targets() {
    let pair = pair();
    for way in WAYS {
        write(&pair.from(way), &["a/b/f", "a/b/c/g", "h"]);
        succeed(&listed(&pair, way, "--file-list", "a/b/f\r\na/b/c\n\nh\n", "plain"));
        assert_found(&pair.to(way).join("plain"), &["f", "c/", "c/g", "h"]);
        succeed(&listed(&pair, way, "--file-list", "a/b/f\na/b/c\n", "based").arg("--src-base=a"));
        assert_found(&pair.to(way).join("based"), &["b/", "b/f", "b/c/", "b/c/g"]);
        succeed(&listed(&pair, way, "--file-pair-list", "h\nx/1\na/b/f\nx/2\na/b/c\ny\n", "pairs"));
        assert_found(&pair.to(way).join("pairs"), &["x/", "x/1", "x/2", "y/", "y/g"]);
        assert_eq!(fs::read_to_string(pair.to(way).join("pairs/x/2")).unwrap(), "a/b/f");
        let outside = listed(&pair, way, "--file-list", "h\n", "outside").arg("--src-base=a").run();
        assert!(outside.story().contains("not below the base"), "{}", outside.story());
        let escape = listed(&pair, way, "--file-pair-list", "h\n../up\n", "escape").run();
        assert!(escape.story().contains("must not hold .."), "{}", escape.story());
    }
}

#[test]
fn a_missing_source_of_a_list_fails_alone() {
    let pair = pair();
    for way in WAYS {
        write(&pair.from(way), &["there"]);
        let outcome = listed(&pair, way, "--file-list", "absent\nthere\n", "part").run();
        assert_eq!(outcome.code(), Some(1), "{}", outcome.story());
        assert_eq!(outcome.done()["failed"], 1, "{}", outcome.story());
        assert_found(&pair.to(way).join("part"), &["there"]);
    }
}

#[test]
fn a_list_of_many_thousand_names_works_both_ways() {
    let pair = pair();
    for way in WAYS {
        let names: Vec<String> =
            (0..20_000).map(|n| format!("many/folder-of-a-long-name-{}/{n}", n % 100)).collect();
        for n in 0..100 {
            fs::create_dir_all(pair.from(way).join(format!("many/folder-of-a-long-name-{n}"))).unwrap();
        }
        names.iter().for_each(|name| fs::write(pair.from(way).join(name), "").unwrap());
        let list = names.join("\n");
        assert!(way == Way::Up || list.len() > 1 << 19, "more than a message holds");
        let outcome = succeed(&listed(&pair, way, "--file-list", &list, "all").arg("--src-base=many"));
        assert_eq!(outcome.done()["files"], 20_000);
        assert_eq!(found(&pair.to(way).join("all")).len(), 20_100);
    }
}

#[test]
fn links_are_followed_copied_forced_or_skipped() {
    let pair = pair();
    for way in WAYS {
        let root = pair.from(way).join("tree");
        write(&root, &["file", "folder/x"]);
        symlink("file", root.join("link")).unwrap();
        symlink("/etc/passwd", root.join("out")).unwrap();
        symlink("folder", root.join("to-folder")).unwrap();
        let copied =
            ["file", "folder/", "folder/x", "link -> file", "out -> /etc/passwd", "to-folder -> folder"];
        succeed(&pair.copy(way, &["tree"], "copied").arg("--symbolic-links=copy"));
        assert_found(&pair.to(way).join("copied"), &copied);
        succeed(&pair.copy(way, &["tree"], "skipped").arg("--symbolic-links=skip"));
        assert_found(&pair.to(way).join("skipped"), &["file", "folder/", "folder/x"]);
        // A second time: links replace links, and files only by force.
        let to = pair.to(way).join("again/tree");
        write(&to, &["link"]);
        pair.server.hand_over(&pair.to(way).join("again"));
        let outcome = pair.copy(way, &["tree"], "again").arg("--symbolic-links=copy").run();
        assert_eq!((outcome.code(), &outcome.done()["failed"]), (Some(1), &1.into()), "{}", outcome.story());
        succeed(&pair.copy(way, &["tree"], "again").arg("--symbolic-links=copy+force"));
        assert_found(&to, &copied);
        // What a link says is text. Nothing that comes later goes through it.
        fs::remove_file(root.join("to-folder")).unwrap();
        write(&root, &["to-folder/y"]);
        let through = pair.copy(way, &["tree"], "again").arg("--symbolic-links=skip").run();
        assert_ne!(through.code(), Some(0), "{}", through.story());
        assert!(!to.join("folder/y").exists(), "a copied link was followed");
    }
}

#[test]
fn followed_links_out_of_the_docroot_and_loops_fail_alone() {
    let pair = pair();
    let root = pair.from(Way::Down).join("tree");
    write(&root, &["file"]);
    symlink("/etc/passwd", root.join("out")).unwrap();
    symlink(".", root.join("loop")).unwrap();
    let outcome = pair.copy(Way::Down, &["tree"], "got").run();
    assert_eq!((outcome.code(), &outcome.done()["failed"]), (Some(1), &2.into()), "{}", outcome.story());
    assert_found(&pair.to(Way::Down).join("got"), &["file"]);
}
