//! Reads the part of `ssh_config` that matters here: Host, HostName, User, Port, IdentityFile, IdentitiesOnly,
//! IdentityAgent, CertificateFile, UserKnownHostsFile, StrictHostKeyChecking, ProxyJump, ProxyCommand, Include. The first value found wins, as in OpenSSH.
//!
//! `Match` needs knowledge only OpenSSH has; a configuration with it is answered by `ssh -G` where there is an `ssh`,
//! else its `Match` blocks never apply, and a remark says so. It never runs a command named in a configuration itself.

use std::path::{Path, PathBuf};

use crate::agent::AgentChoice;
use crate::error::ClientError;
use crate::ssh_config_lines::{self as lines, Line};
use crate::{sanitize, ssh_dash_g};

/// Files nested deeper than this are refused; OpenSSH has the same limit.
const MAX_INCLUDE_DEPTH: usize = 16;

/// Whom the settings are for.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The host as typed.
    pub host: &'a str,
    /// The account named on the command line.
    pub user: Option<&'a str>,
    /// The port named on the command line.
    pub port: Option<u16>,
    /// The account of this process.
    pub local_user: &'a str,
    /// Its home directory.
    pub home: Option<&'a Path>,
}

/// What the configuration says about a host. None and empty mean that it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostSettings {
    /// `HostName`: the name to dial.
    pub host_name: Option<String>,
    /// `User`.
    pub user: Option<String>,
    /// `Port`.
    pub port: Option<u16>,
    /// `IdentityFile`, all of them.
    pub identity_files: Vec<PathBuf>,
    /// `IdentitiesOnly yes`.
    pub identities_only: bool,
    /// `IdentityAgent`.
    pub agent: AgentChoice,
    /// `CertificateFile`, all of them.
    pub certificate_files: Vec<PathBuf>,
    /// `ProxyJump` or `ProxyCommand`: the host is not reached directly.
    pub proxy: Option<String>,
    /// `UserKnownHostsFile`.
    pub known_hosts: Vec<PathBuf>,
    /// `StrictHostKeyChecking yes`.
    pub strict_host_key: bool,
    /// What the user should know at `-v`.
    pub remarks: Vec<String>,
}

/// Settings from `~/.ssh/config` and `/etc/ssh/ssh_config`, in this order of precedence.
///
/// # Errors
/// If a file is there but cannot be read, is not safely owned, or has a line that cannot be understood.
pub fn read_defaults(query: &Query<'_>) -> Result<HostSettings, ClientError> {
    let mut reader = Reader::new(query);
    if let Some(home) = query.home {
        reader.read(&home.join(".ssh/config"), Origin::UserDefault)?;
    }
    reader.read(Path::new("/etc/ssh/ssh_config"), Origin::System)?;
    reader.finish(None)
}

/// Settings from one named file only.
///
/// # Errors
/// As [`read_defaults`], and if the file is missing.
pub fn read_file(path: &Path, query: &Query<'_>) -> Result<HostSettings, ClientError> {
    let mut reader = Reader::new(query);
    if !path.exists() {
        let message = "no such file".to_owned();
        return Err(ClientError::Config { path: path.to_owned(), line: None, message });
    }
    reader.read(path, Origin::Named)?;
    reader.finish(Some(path))
}

/// How much a file is trusted, and where its relative includes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// `~/.ssh/config`: has to be owned by the user or root and writable by nobody else.
    UserDefault,
    /// The file of `-F`: the user named it.
    Named,
    /// `/etc/ssh/ssh_config`.
    System,
}

/// Values before their tokens are expanded.
#[derive(Debug, Default)]
struct Raw {
    host_name: Option<String>,
    user: Option<String>,
    port: Option<u16>,
    identity_files: Vec<String>,
    identities_only: Option<bool>,
    agent: Option<String>,
    certificate_files: Vec<String>,
    proxy: Option<String>,
    known_hosts: Option<Vec<String>>,
    strict: Option<String>,
}

struct Reader<'a> {
    query: &'a Query<'a>,
    raw: Raw,
    match_seen: bool,
    match_sets_port_22: bool,
}

impl<'a> Reader<'a> {
    fn new(query: &'a Query<'a>) -> Self {
        Self { query, raw: Raw::default(), match_seen: false, match_sets_port_22: false }
    }

    fn read(&mut self, path: &Path, origin: Origin) -> Result<(), ClientError> {
        self.read_nested(path, origin, Scope::Applies, 0)
    }

    fn read_nested(
        &mut self,
        path: &Path,
        origin: Origin,
        outer: Scope,
        depth: usize,
    ) -> Result<(), ClientError> {
        if depth > MAX_INCLUDE_DEPTH {
            return Err(config_error(path, None, "files include each other too deeply"));
        }
        let Some(text) = lines::read_checked(path, origin == Origin::UserDefault)? else { return Ok(()) };
        let mut scope = outer;
        for (at, line) in text.lines().enumerate() {
            let line = lines::parse(line).map_err(|message| config_error(path, Some(at + 1), &message))?;
            let Some(line) = line else { continue };
            match line.keyword.as_str() {
                "host" => scope = outer.and(lines::host_matches(&line.arguments, self.query.host)),
                "match" => {
                    self.match_seen = true;
                    scope = Scope::Match;
                }
                "include" => {
                    for file in
                        lines::included_files(&line.arguments, self.query.home, origin == Origin::System)
                    {
                        self.read_nested(&file, origin, scope, depth + 1)?;
                    }
                }
                _ => {
                    self.apply(&line, scope).map_err(|message| config_error(path, Some(at + 1), &message))?
                }
            }
        }
        Ok(())
    }

    /// Takes a value if it applies and is the first of its kind.
    fn apply(&mut self, line: &Line, scope: Scope) -> Result<(), String> {
        if scope == Scope::Match && line.keyword == "port" {
            self.match_sets_port_22 |= line.arguments.first().is_some_and(|port| port == "22");
        }
        if scope != Scope::Applies {
            return Ok(());
        }
        let raw = &mut self.raw;
        match line.keyword.as_str() {
            "hostname" => keep_first(&mut raw.host_name, line.one()?),
            "user" => keep_first(&mut raw.user, line.one()?),
            "port" => keep_first(&mut raw.port, port(&line.one()?)?),
            "identityfile" => {
                let file = line.one()?;
                if !raw.identity_files.contains(&file) {
                    raw.identity_files.push(file);
                }
            }
            "identityagent" => keep_first(&mut raw.agent, line.one()?),
            "certificatefile" => raw.certificate_files.push(line.one()?),
            // Whichever of the two comes first holds, as in OpenSSH; `none` holds against later ones.
            "proxyjump" | "proxycommand" => {
                keep_first(&mut raw.proxy, line.arguments.first().cloned().unwrap_or_default());
            }
            "identitiesonly" => keep_first(&mut raw.identities_only, lines::yes(&line.one()?)?),
            "userknownhostsfile" => keep_first(&mut raw.known_hosts, line.arguments.clone()),
            "stricthostkeychecking" => keep_first(&mut raw.strict, line.one()?.to_ascii_lowercase()),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, file: Option<&Path>) -> Result<HostSettings, ClientError> {
        let own = self.expanded()?;
        if !self.match_seen {
            return Ok(own);
        }
        let port_22_is_meant = self.match_sets_port_22 || own.port == Some(22);
        match ssh_dash_g::ask(self.query, file) {
            Ok(mut settings) => {
                // `ssh -G` prints its own default, 22, where nothing is set.
                if settings.port == Some(22) && !port_22_is_meant {
                    settings.port = None;
                }
                settings.remarks.push("ssh_config has Match blocks: `ssh -G` was asked".to_owned());
                Ok(settings)
            }
            Err(reason) => {
                let remark = format!("the Match blocks of ssh_config are not applied: {reason}");
                Ok(HostSettings { remarks: own.remarks.iter().cloned().chain([remark]).collect(), ..own })
            }
        }
    }

    /// Expands `~`, `%x` and `${X}` in the values.
    fn expanded(&self) -> Result<HostSettings, ClientError> {
        let typed = self.query.host;
        let host_name = self.raw.host_name.as_deref().map(|name| expand_host(name, typed)).transpose()?;
        let dialled = host_name.clone().unwrap_or_else(|| typed.to_owned());
        let user = self.query.user.map(str::to_owned).or_else(|| self.raw.user.clone());
        let port = self.query.port.or(self.raw.port).unwrap_or(22).to_string();
        let home = self.query.home.map(|home| home.to_string_lossy().into_owned()).unwrap_or_default();
        let remote_user = user.as_deref().unwrap_or(self.query.local_user);
        let uid = nix::unistd::Uid::current().to_string();
        let token = |letter: char| match letter {
            'd' => Some(home.as_str()),
            'h' => Some(dialled.as_str()),
            'n' | 'k' => Some(typed),
            'p' => Some(port.as_str()),
            'r' => Some(remote_user),
            'u' => Some(self.query.local_user),
            'i' => Some(uid.as_str()),
            _ => None,
        };
        let expand = |path: &String| lines::expand_path(path, self.query.home, &token);
        let usable = |path: &&String| !path.eq_ignore_ascii_case("none");
        let files = |paths: &[String]| paths.iter().filter(usable).map(expand).collect::<Result<Vec<_>, _>>();
        let identity_files = files(&self.raw.identity_files).map_err(config_word)?;
        let known_hosts = files(self.raw.known_hosts.as_deref().unwrap_or_default()).map_err(config_word)?;
        Ok(HostSettings {
            host_name,
            user: self.raw.user.clone(),
            port: self.raw.port,
            identity_files,
            identities_only: self.raw.identities_only.unwrap_or_default(),
            agent: agent(self.raw.agent.as_deref(), &expand)?,
            certificate_files: files(&self.raw.certificate_files).map_err(config_word)?,
            proxy: self.raw.proxy.clone().filter(|proxy| !proxy.eq_ignore_ascii_case("none")),
            known_hosts,
            strict_host_key: self.raw.strict.as_deref().is_some_and(|word| matches!(word, "yes" | "true")),
            remarks: self.strict_remark(),
        })
    }

    fn strict_remark(&self) -> Vec<String> {
        let off = self.raw.strict.as_deref().filter(|word| matches!(*word, "no" | "off" | "false"));
        let remark =
            |word| format!("StrictHostKeyChecking {word}: new host keys are accepted, changed ones are not");
        off.map(remark).into_iter().collect()
    }
}

/// The agent that `IdentityAgent` names.
fn agent(
    text: Option<&str>,
    expand: &dyn Fn(&String) -> Result<PathBuf, String>,
) -> Result<AgentChoice, ClientError> {
    match text {
        None | Some("SSH_AUTH_SOCK") => Ok(AgentChoice::Environment),
        Some(text) if text.eq_ignore_ascii_case("none") => Ok(AgentChoice::Off),
        Some(text) => {
            // `$NAME` is the variable itself; `${NAME}` is part of a path.
            let named = text.strip_prefix('$').filter(|name| !name.starts_with('{'));
            match named {
                Some(name) => {
                    Ok(std::env::var_os(name)
                        .map_or(AgentChoice::Off, |path| AgentChoice::Socket(path.into())))
                }
                None => expand(&text.to_owned()).map(AgentChoice::Socket).map_err(config_word),
            }
        }
    }
}

/// Whether the lines of a block apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Applies,
    Passed,
    Match,
}

impl Scope {
    fn and(self, matches: bool) -> Self {
        match self {
            Self::Applies if matches => Self::Applies,
            Self::Applies | Self::Passed => Self::Passed,
            Self::Match => Self::Match,
        }
    }
}

fn keep_first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

/// Reads a port number.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{}` is not a port", sanitize::text(text))),
        Ok(port) => Ok(port),
    }
}

fn expand_host(name: &str, typed: &str) -> Result<String, ClientError> {
    let token = |letter: char| (letter == 'h').then_some(typed);
    lines::expand_tokens(name, &token).map_err(config_word)
}

fn config_word(message: String) -> ClientError {
    ClientError::usage(format!("ssh_config: {message}"), "correct it, or pass by it with -F none")
}

fn config_error(path: &Path, line: Option<usize>, message: &str) -> ClientError {
    ClientError::Config { path: path.to_owned(), line, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, host: &str) -> Result<HostSettings, ClientError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, text.replace("@DIR@", folder.path().to_str().unwrap())).unwrap();
        std::fs::write(folder.path().join("inc1.conf"), "User included\nHost other\nPort 9\n").unwrap();
        let home = Path::new("/home/me");
        read_file(&file, &Query { host, user: None, port: None, local_user: "me", home: Some(home) })
    }

    #[test]
    fn the_first_value_wins_in_blocks_that_match() {
        let text = "Host a* !ab\n  Port 1\n  User x\nHost *\n  Port 2\n  HostName %h.example.org\n";
        for (host, port, user) in [("aa", 1, Some("x")), ("ab", 2, None), ("b", 2, None)] {
            let settings = read(text, host).unwrap();
            assert_eq!((settings.port, settings.user.as_deref()), (Some(port), user), "{host}");
            assert_eq!(settings.host_name.unwrap(), format!("{host}.example.org"));
        }
    }

    #[test]
    fn includes_keep_to_their_block() {
        let text = "Host a\n  Include @DIR@/inc*.conf\nPort 7\nHost *\nUser outer\n";
        let settings = read(text, "a").unwrap();
        assert_eq!((settings.user.as_deref(), settings.port), (Some("included"), Some(7)));
        assert_eq!(read(text, "b").unwrap().user.as_deref(), Some("outer"));
    }

    #[test]
    fn paths_are_expanded() {
        let settings =
            read("IdentityFile ~/.ssh/%h_%r\nIdentityFile \"%d/a b\"\nUserKnownHostsFile none ~/k\n", "h");
        let settings = settings.unwrap();
        assert_eq!(settings.identity_files, ["/home/me/.ssh/h_me", "/home/me/a b"].map(PathBuf::from));
        assert_eq!(settings.known_hosts, [PathBuf::from("/home/me/k")]);
    }

    #[test]
    fn the_agent_certificates_and_ways_round_are_read() {
        let agent = |text: &str| read(text, "h").unwrap().agent;
        assert_eq!(agent(""), AgentChoice::Environment);
        assert_eq!(agent("IdentityAgent none\n"), AgentChoice::Off);
        assert_eq!(agent("IdentityAgent SSH_AUTH_SOCK\n"), AgentChoice::Environment);
        assert_eq!(agent("IdentityAgent ~/%h.sock\n"), AgentChoice::Socket("/home/me/h.sock".into()));
        assert_eq!(agent("IdentityAgent $NO_SUCH_VARIABLE_HERE\n"), AgentChoice::Off);
        let settings = read("CertificateFile ~/a\nCertificateFile /b\nProxyJump one,two\n", "h").unwrap();
        assert_eq!(settings.certificate_files, ["/home/me/a", "/b"].map(PathBuf::from));
        assert_eq!(settings.proxy.as_deref(), Some("one,two"));
        let proxy = |text: &str| read(text, "h").unwrap().proxy;
        assert_eq!(proxy("ProxyCommand ssh -W %h:%p gate\n").as_deref(), Some("ssh"));
        assert_eq!(proxy("ProxyJump none\nProxyCommand nc %h %p\n"), None);
    }

    #[test]
    fn broken_lines_are_named() {
        for (n, text) in [
            "Port many\n",
            "IdentityFile \"open\n",
            "IdentitiesOnly perhaps\n",
            "IdentityFile %Z\n",
            "User\n",
        ]
        .iter()
        .enumerate()
        {
            let error = read(text, "h").unwrap_err();
            assert_eq!(error.exit_status(), crate::exit_status::ExitStatus::Usage, "row {n}: {error}");
        }
    }
}
