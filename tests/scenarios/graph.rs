//! What is linked: one crypto library and no foreign TLS.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Crates that must never be linked: a second crypto library, or C code behind TLS.
const BANNED: [&str; 5] = ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Names in the dependency graph of the workspace on this platform.
fn linked() -> BTreeSet<String> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(rustc.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Other platforms' crates may not have been downloaded.
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    let output = Command::new(cargo).args(arguments).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| used.contains(package["id"].as_str().unwrap()))
        .map(|package| package["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn one_crypto_library_and_no_foreign_tls_is_linked() {
    let linked = linked();
    for name in ["ring", "russh", "tokio", "haul-proto"] {
        assert!(linked.contains(name), "{name} is missing: {linked:?}");
    }
    let found: Vec<&&str> = BANNED.iter().filter(|name| linked.contains(**name)).collect();
    assert!(found.is_empty(), "in the dependency graph: {found:?}; run: cargo tree -i {}", found[0]);
}

#[test]
fn no_platform_s_lock_entry_names_a_banned_crate() {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    for name in BANNED {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name} is in Cargo.lock");
    }
}
