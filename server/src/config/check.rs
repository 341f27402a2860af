//! Looks whether a configuration fits the system: accounts, folders, key files, ports. Changes nothing.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::{Uid, User};

use super::parse::{FilledTable, Origin, Problem};
use super::settings::Section;
use super::{Config, UserEntry, schedule, user};
use crate::auth::Trust;
use crate::https;
use crate::privileges;
use crate::shares::schedule::LocalTime;
use crate::trusted_file;

/// Everything that does not fit, in the order of the file.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut found = Found { problems: Vec::new() };
    let tables = || config.tables.iter().filter(|table| table.section == Section::User);
    if config.users.is_empty() {
        found.wrong(None, "no [[user]]", "nobody could log in; write at least one");
    }
    if config.ssh_listen.is_empty() {
        found.wrong(None, "`listen` in [ssh] is empty", "nobody could connect; write at least one address");
    }
    if (1..1024).contains(&config.udp_ports.first) {
        found.warn(None, "`ports` in [udp]", "sessions never run as root and may not open ports below 1024");
    }
    let mut names = HashMap::new();
    for table in tables() {
        let entry = user(table);
        if let Some(first) = names.insert(entry.name.clone(), table.line) {
            let line = first.map_or_else(String::new, |line| format!(" (first in line {line})"));
            found.wrong(
                line_of(table, "name"),
                &format!("duplicate user `{}`{line}", entry.name),
                "keep one of them",
            );
        }
        check_user(&mut found, table, &entry);
        check_ways_in(&mut found, config, table, &entry);
    }
    check_trust(&mut found, config);
    check_https(&mut found, config);
    check_schedules(&mut found, config);
    found.problems.sort_by_key(|problem| problem.line);
    found.problems
}

/// Certificate and key belong together, and must be usable.
fn check_https(found: &mut Found, config: &Config) {
    let Some(table) = config.tables.iter().find(|table| table.section == Section::Https) else { return };
    match (table.cell("certificate"), table.cell("key")) {
        (Some(_), None) => {
            found.wrong(
                line_of(table, "certificate"),
                "`certificate` in [https] without `key`",
                "name its `key`",
            );
        }
        (None, Some(_)) => {
            found.wrong(
                line_of(table, "key"),
                "`key` in [https] without `certificate`",
                "name its `certificate`",
            );
        }
        _ => {}
    }
    if let Some(Err(error)) = https::identity_from_files(&config.https) {
        found.wrong(line_of(table, "certificate"), "[https]", &error);
    }
}

/// Schedules that cannot mean anything, and a system that does not know its time.
fn check_schedules(found: &mut Found, config: &Config) {
    for table in config.tables.iter().filter(|table| table.section == Section::Schedule) {
        let Some(schedule) = schedule(table) else { continue };
        if schedule.window.is_empty() {
            found.wrong(
                line_of(table, "to"),
                "`from` and `to` in [[schedule]] are the same",
                "write \"00:00\" and \"24:00\" for the whole day",
            );
        }
        if schedule.caps.is_empty() {
            let advice = "write max_rate, max_rate_in or max_rate_out";
            found.wrong(table.line, "a [[schedule]] without a rate", advice);
        }
        if let Some(name) = schedule.user.filter(|name| config.users.iter().all(|user| user.name != *name)) {
            let advice = "name one, or leave `user` out for all of the server";
            found.wrong(line_of(table, "user"), &format!("no [[user]] `{name}`"), advice);
        }
    }
    if let (false, Some(trouble)) = (config.schedules.is_empty(), LocalTime::trouble()) {
        let what = format!("[[schedule]]: the time zone is not known, UTC is used: {trouble}");
        found.warn(None, &what, "set /etc/localtime or TZ");
    }
}

fn check_user(found: &mut Found, table: &FilledTable, entry: &UserEntry) {
    let owner = check_account(found, table, entry);
    let docroot = line_of(table, "docroot");
    match std::fs::metadata(&entry.docroot) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => found.wrong(
            docroot,
            &format!("docroot {} is no folder", entry.docroot.display()),
            "name a folder",
        ),
        Err(error) => {
            let what = format!("docroot {} cannot be opened", entry.docroot.display());
            found.wrong(docroot, &what, &format!("{error}"));
        }
    }
    check_authorize(found, table, entry);
    let Some(keys) = &entry.authorized_keys else { return };
    if let Some(owner) = owner
        && let Err(error) = trusted_file::read(keys, owner)
    {
        let what = format!("user `{}` cannot log in with a key", entry.name);
        found.warn(line_of(table, "authorized_keys"), &what, &error.to_string());
    }
}

/// What is asked about transfers decides about them: nobody else may write to it.
fn check_authorize(found: &mut Found, table: &FilledTable, entry: &UserEntry) {
    let Some(program) = &entry.authorize else { return };
    let (line, what) = (line_of(table, "authorize"), format!("authorize {}", program.display()));
    match std::fs::metadata(program) {
        Ok(metadata) if !metadata.is_file() || metadata.mode() & 0o111 == 0 => {
            found.wrong(line, &what, "it is no program that can be run");
        }
        Ok(metadata) if metadata.mode() & 0o022 != 0 => {
            found.wrong(line, &what, "others may write to it; take their right with chmod go-w");
        }
        Ok(_) => {}
        Err(error) => found.wrong(line, &what, &error.to_string()),
    }
}

/// A user whom nothing lets in.
fn check_ways_in(found: &mut Found, config: &Config, table: &FilledTable, entry: &UserEntry) {
    if entry.authorized_keys.is_none() && entry.password.is_none() && config.trusted_ca_keys.is_none() {
        let what = format!("user `{}` has no way to log in", entry.name);
        found.wrong(table.line, &what, "write authorized_keys, password, or trusted_ca_keys in [ssh]");
    }
}

/// Files that hold for all users.
fn check_trust(found: &mut Found, config: &Config) {
    let line =
        |key| config.tables.iter().find(|table| table.section == Section::Ssh).and_then(|t| line_of(t, key));
    let trust = Trust::new(config);
    if let Err(error) = trust.authorities() {
        found.wrong(line("trusted_ca_keys"), "trusted_ca_keys in [ssh]", &error.to_string());
    }
    if let Err(error) = trust.revoked() {
        found.wrong(line("revoked_keys"), "revoked_keys in [ssh]", &error.to_string());
    }
    let holds_passwords = config.users.iter().any(|user| user.password.is_some());
    let mode = std::fs::metadata(&config.origin).map_or(0, |metadata| metadata.mode());
    if holds_passwords && mode & 0o044 != 0 {
        let advice = format!("run: chmod go-r {}", config.origin);
        found.warn(None, "the configuration holds passwords' hashes, and others can read it", &advice);
    }
}

/// The owner that the key file must have, unless the account is wrong.
fn check_account(found: &mut Found, table: &FilledTable, entry: &UserEntry) -> Option<Uid> {
    let own = Uid::effective();
    let Some(name) = &entry.account else { return Some(own) };
    let line = line_of(table, "account");
    let account = match privileges::find(name) {
        Ok(account) => account,
        Err(error) => {
            found.wrong(
                line,
                &format!("user `{}`", entry.name),
                &format!("{error}; name one with `account`"),
            );
            return None;
        }
    };
    if let Err(error) = privileges::refuse_root(name, account.uid, account.gid) {
        found.wrong(
            line,
            &format!("user `{}`", entry.name),
            &format!("{error}; name an ordinary one with `account`"),
        );
        return None;
    }
    if !own.is_root() && account.uid != own {
        let me = User::from_uid(own).ok().flatten().map_or_else(|| own.to_string(), |user| user.name);
        let advice = format!(
            "only root can become `{name}`; start as root, or leave `account` out to serve as `{me}`"
        );
        found.wrong(line, &format!("user `{}`", entry.name), &advice);
        return None;
    }
    Some(account.uid)
}

fn line_of(table: &FilledTable, key: &str) -> Option<usize> {
    match table.cell(key).map(|cell| cell.origin) {
        Some(Origin::Line(line)) => Some(line),
        _ => table.line,
    }
}

struct Found {
    problems: Vec<Problem>,
}

impl Found {
    fn wrong(&mut self, line: Option<usize>, what: &str, advice: &str) {
        self.problems.push(Problem {
            line,
            what: what.to_owned(),
            advice: advice.to_owned(),
            warning: false,
        });
    }

    fn warn(&mut self, line: Option<usize>, what: &str, advice: &str) {
        self.problems.push(Problem { line, what: what.to_owned(), advice: advice.to_owned(), warning: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(users: &str) -> Vec<String> {
        let config = Config::parse(users, "test".to_owned()).unwrap();
        config.check().iter().map(ToString::to_string).collect()
    }

    fn user_lines(name: &str, docroot: &str, account: &str) -> String {
        format!(
            "[[user]]\nname = \"{name}\"\ndocroot = \"{docroot}\"\nauthorized_keys = \"/nonexistent/keys\"\n\
             permissions = [\"read\"]\n{account}\n"
        )
    }

    #[test]
    fn what_does_not_fit_the_system_is_told_with_its_line() {
        assert!(problems("").iter().any(|p| p.contains("no [[user]]")));
        let cases = [
            (user_lines("a", "/nonexistent", ""), "docroot /nonexistent cannot be opened, line 3: "),
            (user_lines("a", "/etc/passwd", ""), "docroot /etc/passwd is no folder, line 3: "),
            (user_lines("a", "/", "account = \"root\""), "user `a`, line 6: the account `root` has uid 0"),
            (
                user_lines("a", "/", "account = \"nosuch.account\""),
                "user `a`, line 6: no account `nosuch.account`",
            ),
            (
                user_lines("a", "/", "") + &user_lines("a", "/", ""),
                "duplicate user `a` (first in line 1), line 8: keep one of them",
            ),
            (format!("[udp]\nports = \"80\"\n{}", user_lines("a", "/", "")), "warning: `ports` in [udp]: "),
            (
                "[[schedule]]\nfrom = \"08:00\"\nto = \"8:00\"\nmax_rate = \"1m\"\n".to_owned(),
                "`from` and `to` in [[schedule]] are the same, line 3: write \"00:00\"",
            ),
            ("\n[[schedule]]\n".to_owned(), "a [[schedule]] without a rate, line 2: write max_rate"),
            (
                "[[schedule]]\nmax_rate = \"1m\"\nuser = \"bob\"\n".to_owned(),
                "no [[user]] `bob`, line 3: name one",
            ),
            (format!("[ssh]\nlisten = []\n{}", user_lines("a", "/", "")), "`listen` in [ssh] is empty"),
        ];
        for (n, (text, expected)) in cases.iter().enumerate() {
            let problems = problems(text);
            assert!(problems.iter().any(|p| p.starts_with(expected)), "row {n}: {problems:#?}");
        }
    }

    #[test]
    fn a_user_without_a_way_in_is_told() {
        let account = if Uid::effective().is_root() { "account = \"nobody\"" } else { "" };
        let lines = user_lines("a", "/", account).replace("authorized_keys = \"/nonexistent/keys\"\n", "");
        let expected = "user `a` has no way to log in, line 1: write authorized_keys, password";
        assert!(problems(&lines)[0].starts_with(expected), "{:?}", problems(&lines));
        let password = "password = \"$argon2id$v=19$m=65536,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";
        assert_eq!(problems(&(lines.clone() + password)), Vec::<String>::new());
        let missing = format!("[ssh]\ntrusted_ca_keys = \"/nonexistent/ca\"\n{lines}");
        assert!(
            problems(&missing)[0].starts_with("trusted_ca_keys in [ssh], line 2: "),
            "{:?}",
            problems(&missing)
        );
    }

    #[test]
    fn a_missing_key_file_is_a_warning() {
        let account = if Uid::effective().is_root() { "account = \"nobody\"" } else { "" };
        let problems = problems(&user_lines("a", "/", account));
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(
            problems[0].starts_with("warning: user `a` cannot log in with a key, line 4: "),
            "{problems:#?}"
        );
    }
}
