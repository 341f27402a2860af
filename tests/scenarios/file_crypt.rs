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
