//! Files encrypted at rest: what comes back after a way over a server is what was, and nothing else is given out.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use haul_tests::harness::{Pair, ServerOptions, WAYS, program};
use haul_tests::tree::{assert_same, make_file};

fn haul(home: &Path, deed: &str, file: &Path, password: Option<&str>) -> Output {
    let mut command = Command::new(program("haul"));
    command.arg(deed).arg(file).env("HOME", home).stdin(Stdio::null());
    for name in ["HAUL_FILE_PASSWORD", "ASPERA_SCP_FILEPASS", "XDG_STATE_HOME"] {
        command.env_remove(name);
    }
    if let Some(password) = password {
        command.env("ASPERA_SCP_FILEPASS", password);
    }
    command.output().unwrap()
}

#[test]
fn an_encrypted_file_comes_back_over_a_server_and_opens_with_its_password_only() {
    let pair = Pair::start(ServerOptions::default());
    let home = pair.here().join("home");
    fs::create_dir(&home).unwrap();
    for (n, way) in WAYS.into_iter().enumerate() {
        let plain = pair.from(way).join(format!("f{n}"));
        make_file(&plain, 3 << 20, 1);
        let sealed = haul(&home, "encrypt", &plain, Some("secret"));
        assert!(sealed.status.success(), "{}", String::from_utf8_lossy(&sealed.stderr));
        let name = format!("f{n}.haul-crypt");
        assert_eq!(
            String::from_utf8_lossy(&sealed.stdout).trim(),
            pair.from(way).join(&name).to_str().unwrap()
        );
        let again = fs::read(pair.from(way).join(&name)).unwrap();
        fs::remove_file(pair.from(way).join(&name)).unwrap();
        assert!(haul(&home, "encrypt", &plain, Some("secret")).status.success());
        assert!(fs::read(pair.from(way).join(&name)).unwrap() == again, "the same source, the same bytes");
        pair.server.hand_over(&pair.server.docroot());
        pair.copy(way, &[&name], "").run().assert_success();
        let arrived = pair.to(way).join(&name);
        let wrong = haul(&home, "decrypt", &arrived, Some("Secret"));
        assert_eq!(wrong.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("the password is wrong"));
        let none = haul(&home, "decrypt", &arrived, None);
        assert_eq!(none.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&none.stderr).contains("HAUL_FILE_PASSWORD"));
        assert!(!pair.to(way).join(format!("f{n}")).exists());
        assert!(haul(&home, "decrypt", &arrived, Some("secret")).status.success());
        assert_same(&plain, &pair.to(way).join(format!("f{n}")));
    }
}

#[test]
fn a_folder_is_encrypted_and_decrypted_whole_and_damage_costs_one_file() {
    let top = haul_tests::harness::scratch();
    let tree = top.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    let names = ["one", "a/two", "a/b/three"];
    for (n, name) in names.iter().enumerate() {
        make_file(&tree.join(name), 70_000 * n as u64, n as u64);
    }
    std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
    assert!(haul(top.path(), "encrypt", &tree, Some("secret")).status.success());
    let plain: Vec<Vec<u8>> = names.iter().map(|name| fs::read(tree.join(name)).unwrap()).collect();
    names.iter().for_each(|name| fs::remove_file(tree.join(name)).unwrap());
    assert!(!tree.join("link.haul-crypt").exists());
    let damaged = tree.join("a/two.haul-crypt");
    let mut bytes = fs::read(&damaged).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let outcome = haul(top.path(), "decrypt", &tree, Some("secret"));
    assert_eq!(outcome.status.code(), Some(1));
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(said.lines().count() == 1 && said.contains("a/two.haul-crypt: it is damaged"), "{said}");
    for (name, content) in names.iter().zip(&plain) {
        let opened = fs::read(tree.join(name)).ok();
        assert!(if *name == "a/two" { opened.is_none() } else { opened.as_ref() == Some(content) }, "{name}");
    }
}
