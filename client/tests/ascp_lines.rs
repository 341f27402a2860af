//! Every published command line of ascp that is on record means here what it means there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: a broken assumption must fail loudly")]

use std::ffi::OsString;

use haul_client::cli::{self, Asked};
use haul_client::plan::{Environment, Plan};
use serde_json::Value;

const LINES: &str = include_str!("ascp-lines.txt");

/// Splits as a POSIX shell does, as far as the lines need it: quotes, backslashes, and braces with commas.
fn split(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut inside, mut quote) = (String::new(), false, None);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (None, '\'' | '"') => (quote, inside) = (Some(c), true),
            (None, '\\') => word.extend(rest.next()),
            (None, c) if c.is_whitespace() => {
                if inside || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                inside = false;
            }
            (_, c) => word.push(c),
        }
    }
    if inside || !word.is_empty() {
        words.push(word);
    }
    words.iter().flat_map(|word| braces(word)).collect()
}

fn braces(word: &str) -> Vec<String> {
    let parts = word.split_once('{').and_then(|(before, rest)| {
        let (choices, after) = rest.split_once('}')?;
        Some(choices.split(',').map(|choice| format!("{before}{choice}{after}")).collect())
    });
    parts.unwrap_or_else(|| vec![word.to_owned()])
}

/// Whether the program's name is ascp's decides about defaults only; `~` is left as it is.
fn meaning(line: &str) -> Value {
    let args: Vec<OsString> = split(line).into_iter().map(OsString::from).collect();
    match cli::parse(&args).unwrap_or_else(|error| panic!("{line}\n{error}\n{:?}", error.remedy())) {
        Asked::Transfer(cli) => {
            let plan = Plan::of(&cli, Environment::default());
            let plan = plan.unwrap_or_else(|error| panic!("{line}\n{error}\n{:?}", error.remedy()));
            serde_json::to_value(&plan).unwrap()
        }
        Asked::Text(text) => serde_json::json!({ "text": !text.is_empty() }),
        other => panic!("{line}\n{other:?}"),
    }
}

fn field<'a>(meaning: &'a Value, name: &str) -> &'a Value {
    name.split('.').fold(meaning, |value, part| value.get(part).unwrap_or(&Value::Null))
}

/// Lines that mean something else than the record says, one paragraph each.
fn differences() -> (usize, Vec<String>) {
    let mut lines = LINES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut count, mut wrong) = (0, Vec::new());
    while let Some(line) = lines.next() {
        let expected: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let meaning = meaning(line);
        for (name, expected) in expected.as_object().unwrap() {
            let found = match name.as_str() {
                "ignored" => {
                    let options = field(&meaning, name).as_array().unwrap().iter();
                    options.map(|one| one["option"].clone()).collect()
                }
                name => field(&meaning, name).clone(),
            };
            if found != *expected {
                wrong.push(format!("{line}\n  {name}: expected {expected}, found {found}"));
            }
        }
        count += 1;
    }
    (count, wrong)
}

#[test]
fn every_published_line_means_what_it_means_to_ascp() {
    let (count, wrong) = differences();
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 114, "{count} lines");
}

#[test]
fn the_rest_of_the_grammar_means_what_it_means_to_ascp() {
    for (line, name, expected) in [
        ("ascp --host=h --mode=recv --user u stdio a:b dest", "sources", r#"["stdio","a:b"]"#),
        ("ascp --host h --mode send -- -x in", "sources", r#"["-x"]"#),
        ("ascp --mode=send --host=h --dest64 --file-list=l ZGVzdC9kaXI", "destination", r#""dest/dir""#),
        ("ascp --source-prefix=/data/ a b h:", "sources", r#"["/data/a","/data/b"]"#),
        ("ascp --source-prefix64=L2RhdGEv h:a h:b .", "sources", r#"["/data/a","/data/b"]"#),
        ("ascp --src-base64 L2RhdGE= a h:", "selection.src_base", r#""/data""#),
        ("ascp --user=me a h:", "user", r#""me""#),
        ("ascp --user=me a you@h:", "user", r#""you""#),
        ("ascp stdio:///?77 h:x", "sources", r#"[{"stdio":{"size":77}}]"#),
        ("ascp h:x stdio-tar://", "destination", r#""tar""#),
        ("ascp file:///a/b h:", "sources", r#"["/a/b"]"#),
        ("ascp -l 1 -l 300m a h:", "target_rate_bps", "300000000"),
        ("ascp -l 1.5g a h:", "target_rate_bps", "1500000000"),
        ("ascp -l 10000 a h:", "target_rate_bps", "10000000"),
        ("ascp -m 0 a h:", "min_rate_bps", "null"),
        ("ascp -QQ a h:", "policy", r#""low""#),
        ("ascp --policy trickle a h:", "policy", r#""low""#),
        ("ascp -c aes256cfb a h:", "cipher", r#""aes-256-gcm""#),
        ("ascp -o Overwrite=Never a h:", "resume.overwrite", r#""never""#),
        ("ascp --overwrite diff+older a h:", "resume.overwrite", r#""diff_older""#),
        ("ascp -o PreCalculateJobSize=yes a h:", "selection.precalculate", "true"),
        ("ascp -k3 -k1 a h:", "resume.level", r#""attributes""#),
        ("ascp a h:", "resume.level", r#""start_over""#),
        ("haul a h:", "resume.level", r#""digest""#),
        ("haul a h:", "resume.retry", "true"),
        ("ascp a h:", "resume.retry", "false"),
        ("ascp --retry a h:", "resume.retry", "true"),
        ("haul --retry --no-retry a h:", "resume.retry", "false"),
        ("ascp -y 0 a h:", "carrier.choice", r#""udp""#),
        ("ascp -yF a h:", "carrier.choice", r#""https""#),
        ("ascp -y1 a h:", "carrier.choice", r#""auto""#),
        ("ascp --proxy http://u:secret@p:3128 a h:", "carrier.proxy", r#""http://u@p:3128""#),
        ("ascp -SSH a h:", "login.ssh_command", r#""ssh""#),
        ("ascp -6 a h:", "ipv6_only", "true"),
        ("ascp --exclude-older-than=-60 a h:", "selection.exclude_older_than", r#"{"seconds_ago":60}"#),
        (
            "ascp --exclude-newer-than 1700000000 a h:",
            "selection.exclude_newer_than",
            r#"{"since_epoch":1700000000}"#,
        ),
        ("ascp --file-manifest=text --file-manifest-path=/m a h:", "manifest.directory", r#""/m""#),
        ("ascp -M 40000 --keepalive --mode=recv --host h .", "management.port", "40000"),
        ("ascp --move-after-transfer=/done a h:", "around.move_after", r#""/done""#),
        ("ascp --preserve-acls=metafile a h:", "attributes.acls", r#""metafile""#),
        ("ascp --symbolic-links copy+force a h:", "selection.symbolic_links", r#""copy_force""#),
        ("ascp -C 2:4 a h:", "selection.session_share.node", "2"),
    ] {
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(*field(&meaning(line), name), expected, "{line}: {name}");
    }
}

#[test]
fn what_has_no_meaning_is_refused_with_a_way_out() {
    for (line, message, remedy) in [
        ("ascp --host h a b", "without the direction", "--mode=send"),
        ("ascp --mode recv a h:", "--mode=recv, but the operands ask for upload", "--mode"),
        ("ascp --mode send h:a .", "--mode=send, but the operands ask for download", "--mode"),
        ("ascp --file-list l a h:", "expected one operand", "leave the sources out"),
        ("ascp --file-list l --mode recv .", "no server", "--host"),
        ("ascp --file-list l", "found 0", ""),
        ("ascp --host -oProxy=x --mode send a b", "", ""),
        ("ascp --host=-oProxy=x --mode send a b", "not a valid host name", "ascp SOURCE"),
        ("ascp --host=h --user=-x --mode send a b", "not a valid user name", "ascp SOURCE"),
        ("ascp --dest64 --host=h --mode send a %%%", "not base64", "base64"),
        ("ascp --tags64 e30x a h:", "holds no JSON", "--tags64"),
        ("ascp -l 50% a h:", "share of the path", "-l 300m"),
        ("ascp -e script a h:", "runs no scripts", "before or after"),
        ("ascp --ws-connect a h:", "control connection is SSH", "-P"),
        ("ascp --no-write a h:", "--no-write", "leave"),
        ("ascp --proxy dnat://p:9091 a h:", "dnat", "HTTP proxy"),
        ("ascp --remove-after-transfer --move-after-transfer=x a h:", "not both", "leave out"),
        ("ascp -o Resume=2 a h:", "resume=2", "PreCalculateJobSize"),
        ("ascp faux:///x?1g h:", "faux", "ascp SOURCE"),
        ("ascp a sftp://h/x", "sftp", ""),
        ("ascp --overwite=always a h:", "--overwite", "--overwrite"),
        ("ascp --file-lst=l a h:", "--file-lst", "--file-list"),
    ] {
        let args: Vec<OsString> = split(line).into_iter().map(OsString::from).collect();
        let result = cli::parse(&args).and_then(|asked| match asked {
            Asked::Transfer(cli) => Plan::of(&cli, Environment::default()),
            other => panic!("{line}: {other:?}"),
        });
        let error = result.err().unwrap_or_else(|| panic!("{line} is accepted"));
        let (said, way_out) = (error.to_string(), error.remedy().unwrap_or_default());
        assert!(said.contains(message), "{line}: {said}");
        assert!(way_out.contains(remedy), "{line}: {way_out}");
    }
}
