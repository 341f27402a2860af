//! Asks the installed OpenSSH client what its configuration means for a host (`ssh -G`), which is the only one to know
//! `Match`. Not here: the ordinary reading of `ssh_config`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::agent::AgentChoice;
use crate::ssh_config::{HostSettings, Query, port};

/// The answer of `ssh -G`, or why there is none.
pub(crate) fn ask(query: &Query<'_>, file: Option<&Path>) -> Result<HostSettings, String> {
    let mut command = Command::new("ssh");
    command.arg("-G").stdin(Stdio::null()).stderr(Stdio::null());
    if let Some(file) = file {
        command.arg("-F").arg(file);
    }
    if let Some(user) = query.user {
        command.args(["-l", user]);
    }
    if let Some(port) = query.port {
        command.args(["-p", &port.to_string()]);
    }
    // The host comes from the command line; `--` keeps it from being read as an option.
    let output =
        command.arg("--").arg(query.host).output().map_err(|error| format!("cannot run ssh: {error}"))?;
    if !output.status.success() {
        return Err(format!("ssh -G ended with {}", output.status));
    }
    Ok(read(&String::from_utf8_lossy(&output.stdout), query))
}

/// Reads the lines that `ssh -G` prints: a lower-case keyword, a blank, the value.
fn read(text: &str, query: &Query<'_>) -> HostSettings {
    let mut settings = HostSettings::default();
    let path = |text: &str| match (text.strip_prefix("~/"), query.home) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(text),
    };
    for (keyword, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        match keyword {
            "hostname" => settings.host_name = Some(value.to_owned()),
            "user" => settings.user = Some(value.to_owned()),
            "port" => settings.port = port(value).ok(),
            "identityfile" => settings.identity_files.push(path(value)),
            "identityagent" => {
                settings.agent = match value {
                    "none" => AgentChoice::Off,
                    "SSH_AUTH_SOCK" => AgentChoice::Environment,
                    value => AgentChoice::Socket(path(value)),
                }
            }
            "certificatefile" => settings.certificate_files.push(path(value)),
            "proxyjump" | "proxycommand" if value != "none" => settings.proxy = Some(value.to_owned()),
            "identitiesonly" => settings.identities_only = value == "yes",
            "userknownhostsfile" => settings.known_hosts = value.split_whitespace().map(path).collect(),
            "stricthostkeychecking" => settings.strict_host_key = matches!(value, "yes" | "true"),
            _ => {}
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh_config;

    /// host, configuration. Every one is also answered by OpenSSH itself.
    const CONFIGS: [(&str, &str); 14] = [
        (
            "web",
            "Host web\n HostName web.example.org\n Port 2222\n User alice\n IdentityFile /k/a\n IdentityFile /k/b\n",
        ),
        ("web1", "Host web*\n Port 1\nHost *\n Port 2\n User bob\n"),
        ("web1", "Host !web1 web*\n Port 1\nHost *\n Port 2\n"),
        ("db", "Host a b db\nUser=x\nport = 7\n"),
        ("h", "User \"a b\"\nHostName %h.lan\n"),
        ("h", "UserKnownHostsFile /a /b\nStrictHostKeyChecking yes\nIdentitiesOnly yes\n"),
        ("h", "StrictHostKeyChecking accept-new\nStrictHostKeyChecking yes\n"),
        ("h", "Host x\n Port 5\nHost ?\n Port 6\n"),
        ("h", "Match host h\n Port 9\nHost *\n Port 10\n User z\n"),
        ("h", "Match host other\n Port 9\nHost *\n User z\n"),
        ("web", "Host nobody\nUser n\nMatch originalhost web\nUser m\nHostName 10.0.0.7\n"),
        ("h", "Include @DIR@/inc\nPort 12\n"),
        ("a", "Host a\nInclude @DIR@/inc\nPort 12\n"),
        ("h", "identityfile /one # remark\nIdentityFile /two\nIdentityFile /one\n"),
    ];

    #[test]
    fn our_reader_agrees_with_openssh() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("inc"), "User inner\nHost zz\nPort 3\n").unwrap();
        let home = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap();
        for (n, (host, text)) in CONFIGS.iter().enumerate() {
            let file = folder.path().join(format!("config{n}"));
            std::fs::write(&file, text.replace("@DIR@", folder.path().to_str().unwrap())).unwrap();
            let query = Query {
                host,
                user: None,
                port: None,
                local_user: &home.name,
                home: Some(home.dir.as_path()),
            };
            let ours = ssh_config::read_file(&file, &query).unwrap();
            let theirs = ask(&query, Some(&file)).expect("OpenSSH's client is needed for this test");
            assert_eq!(ours.host_name.as_deref().unwrap_or(host), theirs.host_name.unwrap(), "row {n}");
            assert_eq!(ours.user.as_deref().unwrap_or(&home.name), theirs.user.unwrap(), "row {n}");
            assert_eq!(ours.port.unwrap_or(22), theirs.port.unwrap(), "row {n}");
            assert_eq!(ours.strict_host_key, theirs.strict_host_key, "row {n}");
            assert_eq!(ours.identities_only, theirs.identities_only, "row {n}");
            if !ours.identity_files.is_empty() {
                assert_eq!(ours.identity_files, theirs.identity_files, "row {n}");
            }
            if !ours.known_hosts.is_empty() {
                assert_eq!(ours.known_hosts, theirs.known_hosts, "row {n}");
            }
        }
    }

    #[test]
    fn match_is_answered_and_its_silence_about_the_port_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        for (n, (text, port)) in [
            ("Match host h\n User m\n", None),
            ("Match host h\n Port 22\n", Some(22)),
            ("Host h\n Port 22\nMatch host h\n User m\n", Some(22)),
            ("Match host h\n Port 2200\n", Some(2200)),
        ]
        .into_iter()
        .enumerate()
        {
            std::fs::write(&file, text).unwrap();
            let query = Query { host: "h", user: None, port: None, local_user: "me", home: None };
            assert_eq!(ssh_config::read_file(&file, &query).unwrap().port, port, "row {n}");
        }
    }
}
