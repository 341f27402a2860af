//! What a run of `haul` shall do, with every default resolved: the command line, `ssh_config`, and this machine.
//!
//! It looks at local paths to refuse hopeless runs before anything is dialled. Not here: any connection.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haul_proto::control::{Cipher, Digest, Overwrite, PathText, RatePolicy, RateTerms, ResumeCheck};
use haul_proto::dscp::Dscp;
use haul_proto::units::Rate;

use crate::agent::AgentChoice;
use crate::cli::{Cli, Manner};
use crate::error::ClientError;
use crate::local;
use crate::plan::{Environment, Peer, Plan};
use crate::sources::{self, Wanted};
use crate::ssh_config::{self, HostSettings};

/// The SSH port of haul and of Aspera's servers; 22 is left to the system's own sshd.
pub const DEFAULT_SSH_PORT: u16 = 33001;

/// What ascp takes without `-P`.
const ASCP_SSH_PORT: u16 = 22;

/// What goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// From this machine to the server.
    Upload {
        /// Files and folders here; each of them exists.
        sources: Vec<PathBuf>,
        /// Where to, below the docroot; empty is the docroot.
        destination: PathText,
    },
    /// From the server to this machine.
    Download {
        /// Files and folders below the docroot.
        sources: Vec<PathText>,
        /// Where to here.
        destination: PathBuf,
    },
}

/// One transfer, resolved.
#[derive(Debug, Clone)]
pub struct TransferRequest {
    /// What the command line means; what stands below is resolved from it on this machine.
    pub plan: Plan,
    /// What goes where.
    pub direction: Route,
    /// What of the sources is sent, and where it lands.
    pub wanted: Wanted,
    /// The account on the server.
    pub user: String,
    /// The host as typed, for messages.
    pub host: String,
    /// The name or address to dial: `HostName` of ssh_config, else `host`.
    pub host_name: String,
    /// TCP port of the server's SSH.
    pub ssh_port: u16,
    /// UDP port wished for; none leaves it to the server.
    pub udp_port: Option<u16>,
    /// Keys for the login.
    pub identities: Identities,
    /// The file of `-F`, for a program that dials in our place.
    pub ssh_config: Option<PathBuf>,
    /// Files with host keys, and what to do with unknown ones.
    pub host_keys: HostKeyPolicy,
    /// Target rate; none means: find the capacity of the path.
    pub target_rate: Option<Rate>,
    /// Rate below which congestion does not push the sender; none means zero.
    pub min_rate: Option<Rate>,
    /// DSCP of what is sent, and asked of the server.
    pub dscp: Option<Dscp>,
    /// How the path is shared.
    pub policy: RatePolicy,
    /// The destination is a folder that is made if it is missing.
    pub create_destination: bool,
    /// Keep modification and access times.
    pub preserve_times: bool,
    /// Ciphers to offer, best first; never empty.
    pub ciphers: Vec<Cipher>,
    /// Digest over each file.
    pub digest: Digest,
    /// What happens to files that stand at the destination.
    pub overwrite: Overwrite,
    /// How unfinished files are continued.
    pub resume: ResumeCheck,
    /// How long to wait for the first datagram of the server.
    pub udp_timeout: Duration,
    /// How the run is shown.
    pub presentation: Presentation,
    /// Remarks made while resolving, for `-v`.
    pub remarks: Vec<String>,
}

/// Keys for the login, in the order they are tried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identities {
    /// Files of `-i`: tried first, and an error if they cannot be used.
    pub explicit: Vec<PathBuf>,
    /// `IdentityFile` of ssh_config, else the usual names in `~/.ssh`; those that cannot be used are passed over.
    pub fallback: Vec<PathBuf>,
    /// `CertificateFile` of ssh_config; a certificate beside a key file is found without it.
    pub certificates: Vec<PathBuf>,
    /// `IdentityAgent` of ssh_config.
    pub agent: AgentChoice,
    /// `IdentitiesOnly`: of the agent's keys only those named by a file.
    pub only: bool,
}

/// Where host keys are on record, and what happens to unknown ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostKeyPolicy {
    /// Files to read; new keys are added to the first. Empty if there is no home directory.
    pub files: Vec<PathBuf>,
    /// The one that was named on the command line.
    pub named: Option<PathBuf>,
    /// Refuse hosts without a key on record.
    pub strict: bool,
}

/// How the run is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Presentation {
    /// No progress, no summary.
    pub quiet: bool,
    /// JSON objects on stdout.
    pub json: bool,
    /// File for the statistics.
    pub stats_file: Option<PathBuf>,
    /// How much the log tells: 0 warnings, 1 events, 2 decisions, 3 packets.
    pub verbosity: u8,
    /// Folder of the log; none logs to stderr.
    pub log_directory: Option<PathBuf>,
    /// A log of this size is set aside and a new one begun; zero never.
    pub max_log_bytes: u64,
    /// Whose manners the output has.
    pub manner: Manner,
}

impl TransferRequest {
    /// The rate settings wished for.
    #[must_use]
    pub const fn rate(&self) -> RateTerms {
        RateTerms { policy: self.policy, target_rate: self.target_rate, min_rate: self.min_rate }
    }
}

impl Presentation {
    /// As the command line says.
    #[must_use]
    pub fn of(cli: &Cli) -> Self {
        let output = &cli.output;
        let log = output.log.as_ref().filter(|log| log.directory.as_os_str() != "-");
        // Who asks for a log wants something in it; ascp's debug levels begin where its verbosity ends.
        let debug = if output.debug == 0 { 0 } else { output.debug.saturating_add(1) };
        let verbosity = output.verbose.max(debug).max(u8::from(output.log.is_some()));
        Self {
            quiet: output.quiet,
            json: output.json,
            stats_file: output.stats.clone(),
            verbosity,
            log_directory: log.map(|log| log.directory.clone()),
            max_log_bytes: log.map_or(0, |log| log.max_bytes),
            manner: cli.manner,
        }
    }
}

/// Resolves a command line on this machine.
///
/// # Errors
/// If the line makes no transfer, ssh_config cannot be read, or a local path cannot be used.
pub fn resolve(cli: Cli) -> Result<TransferRequest, ClientError> {
    let plan = Plan::of(&cli, Environment::of_process())?;
    if let Some(option) = plan.not_yet().first() {
        let remedy = match plan.file_crypt {
            Some(_) => "until then: haul encrypt before the transfer, haul decrypt after it",
            None => "leave it out if the result without it is what you want",
        };
        return Err(ClientError::usage(
            format!(
                "{option}: understood, but this version cannot do it yet, and without it the result would differ"
            ),
            remedy,
        ));
    }
    if plan.management.is_some_and(|management| management.keepalive && management.port.is_none()) {
        return Err(ClientError::usage(
            "--keepalive waits for sources from a program, and none is named",
            "name its port with -M, or leave --keepalive out",
        ));
    }
    let home = home_directory();
    let ssh = ssh_settings(&cli, &plan.peer, home.as_deref())?;
    refuse_detour(&plan, &ssh)?;
    let (direction, wanted) = sources::of(&plan)?;
    check_local(&direction, &wanted, plan.selection.create_destination)?;
    let user = plan.peer.user.clone().or_else(|| ssh.user.clone()).or_else(local_user);
    let user = user.ok_or_else(|| {
        ClientError::usage("no account to log in to: this user has no name here", "write user@host:path")
    })?;
    let mut remarks = ssh.remarks.clone();
    remarks.extend(plan.ignored.iter().map(|one| format!("{} has no effect: {}", one.option, one.reason)));
    let rates = plan.rates;
    Ok(TransferRequest {
        direction,
        wanted,
        user,
        host_name: ssh.host_name.clone().unwrap_or_else(|| plan.peer.host.clone()),
        host: plan.peer.host.clone(),
        ssh_port: ssh_port(&plan, &ssh),
        udp_port: plan.peer.udp_port,
        identities: identities(&cli, &ssh, home.as_deref()),
        ssh_config: cli.connection.ssh_config.clone(),
        host_keys: host_keys(&cli, &ssh, home.as_deref()),
        target_rate: rates.target,
        min_rate: rates.minimum,
        dscp: rates.dscp,
        policy: rates.policy,
        create_destination: plan.selection.create_destination,
        preserve_times: plan.attributes.modification_time || plan.attributes.access_time,
        ciphers: rates.cipher.map_or_else(preferred_ciphers, |cipher| vec![cipher]),
        digest: rates.digest,
        overwrite: plan.resume.overwrite.into(),
        resume: plan.resume.level.into(),
        udp_timeout: Duration::from_secs_f64(cli.connection.udp_timeout),
        presentation: Presentation::of(&cli),
        remarks,
        plan,
    })
}

/// What `--explain` prints: the plan, with what this machine's ssh_config adds.
///
/// # Errors
/// If the line has no meaning, or ssh_config cannot be read.
pub fn explain(cli: &Cli, environment: Environment) -> Result<String, ClientError> {
    let plan = Plan::of(cli, environment)?;
    let ssh = ssh_settings(cli, &plan.peer, home_directory().as_deref())?;
    let mut meaning = serde_json::to_value(&plan)
        .map_err(|error| ClientError::Internal { message: format!("cannot explain: {error}") })?;
    if let Some(fields) = meaning.as_object_mut() {
        fields.insert("ssh_port".to_owned(), ssh_port(&plan, &ssh).into());
        let host_name = ssh.host_name.as_ref().unwrap_or(&plan.peer.host);
        fields.insert("host_name".to_owned(), host_name.as_str().into());
        let user = plan.peer.user.clone().or_else(|| ssh.user.clone()).or_else(local_user);
        fields.insert("user".to_owned(), user.into());
        fields.insert("not_yet".to_owned(), plan.not_yet().into());
    }
    Ok(format!("{meaning:#}\n"))
}

fn ssh_port(plan: &Plan, ssh: &HostSettings) -> u16 {
    let usual = match plan.manner {
        Manner::Haul => DEFAULT_SSH_PORT,
        Manner::Ascp => ASCP_SSH_PORT,
    };
    plan.peer.ssh_port.or(ssh.port).unwrap_or(usual)
}

fn ssh_settings(cli: &Cli, peer: &Peer, home: Option<&Path>) -> Result<HostSettings, ClientError> {
    let query = ssh_config::Query {
        host: &peer.host,
        user: peer.user.as_deref(),
        port: peer.ssh_port,
        local_user: &local_user().unwrap_or_default(),
        home,
    };
    match &cli.connection.ssh_config {
        Some(path) if path.as_os_str() == "none" => Ok(HostSettings::default()),
        Some(path) => ssh_config::read_file(path, &query),
        None => ssh_config::read_defaults(&query),
    }
}

/// A host behind another one is reached by a program that knows the way, not by us.
fn refuse_detour(plan: &Plan, ssh: &HostSettings) -> Result<(), ClientError> {
    match &ssh.proxy {
        Some(way) if plan.login.ssh_command.is_none() => Err(ClientError::usage(
            format!("ssh_config reaches {} by way of {}", plan.peer.host, crate::sanitize::text(way)),
            "add --ssh-command ssh to log in that way (the data still goes straight to the host), or -F none to dial directly",
        )),
        _ => Ok(()),
    }
}

fn identities(cli: &Cli, ssh: &HostSettings, home: Option<&Path>) -> Identities {
    let usual = || {
        let folder = home.map(|home| home.join(".ssh"));
        let names = ["id_ed25519", "id_ecdsa", "id_rsa"];
        folder.map_or_else(Vec::new, |folder| names.iter().map(|name| folder.join(name)).collect())
    };
    let fallback = if ssh.identity_files.is_empty() { usual() } else { ssh.identity_files.clone() };
    Identities {
        explicit: cli.connection.identity.clone(),
        fallback,
        certificates: ssh.certificate_files.clone(),
        agent: ssh.agent.clone(),
        only: ssh.identities_only,
    }
}

fn host_keys(cli: &Cli, ssh: &HostSettings, home: Option<&Path>) -> HostKeyPolicy {
    let connection = &cli.connection;
    let strict = !connection.ignore_host_key && (connection.strict_host_key || ssh.strict_host_key);
    let named = connection.known_hosts.clone();
    if let Some(file) = &named {
        return HostKeyPolicy { files: vec![file.clone()], named, strict };
    }
    let mut files = ssh.known_hosts.clone();
    if files.is_empty() {
        files.extend(home.map(|home| home.join(".ssh/known_hosts")));
    }
    // Read only: new keys go to the first file.
    files.push(PathBuf::from("/etc/ssh/ssh_known_hosts"));
    HostKeyPolicy { files, named, strict }
}

/// AES first where the processor computes it, ChaCha20 first elsewhere.
fn preferred_ciphers() -> Vec<Cipher> {
    if processor_has_aes() {
        vec![Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::Chacha20Poly1305]
    } else {
        vec![Cipher::Chacha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm]
    }
}

fn processor_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

fn check_local(direction: &Route, wanted: &Wanted, create: bool) -> Result<(), ClientError> {
    let links = wanted.selection.symbolic_links;
    match direction {
        // What a list names may be missing in part: that is told at the end.
        Route::Upload { .. } if wanted.listed => Ok(()),
        Route::Upload { sources, .. } => {
            sources.iter().try_for_each(|source| local::check_source(source, links))
        }
        Route::Download { sources, destination } => {
            local::check_destination(destination, sources.len() > 1 || wanted.needs_folder(), create)
        }
    }
}

/// The account of this process by its number, as ssh does it; `$USER` may be inherited from another account.
fn local_user() -> Option<String> {
    let account = nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten();
    account.map(|account| account.name).or_else(|| std::env::var("USER").ok()).filter(|name| !name.is_empty())
}

/// `$HOME`, else the home directory of the account.
fn home_directory() -> Option<PathBuf> {
    let variable = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    variable.or_else(|| {
        let account = nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten();
        account.map(|account| account.dir)
    })
}

/// An error about a local path with the system's reason.
pub(crate) fn local_error(path: &Path, error: io::Error) -> ClientError {
    let (message, remedy) = match error.kind() {
        io::ErrorKind::NotFound => ("no such file or folder", "check the spelling"),
        io::ErrorKind::PermissionDenied => {
            ("permission denied", "check the permissions of the file and its folders")
        }
        io::ErrorKind::NotADirectory => ("a part of the path is not a folder", "check the spelling"),
        _ => ("cannot use", ""),
    };
    // Where our words say it, the system's would only repeat them.
    let source = remedy.is_empty().then_some(error);
    ClientError::LocalPath { path: path.to_owned(), message, remedy, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Asked, parse};
    use std::ffi::OsString;

    use haul_proto::control::PathText;

    fn resolved(line: &[&str]) -> Result<TransferRequest, ClientError> {
        let args: Vec<OsString> = ["haul", "-F", "none"].iter().chain(line).map(OsString::from).collect();
        match parse(&args)? {
            Asked::Transfer(cli) => resolve(*cli),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_there_yet_is_refused_with_what_is() {
        let error = resolved(&["--file-crypt=encrypt", "/etc/passwd", "u@h:in"]).unwrap_err();
        assert!(error.to_string().contains("--file-crypt"), "{error}");
        assert!(error.remedy().unwrap().contains("haul encrypt"));
    }

    #[test]
    fn defaults_are_haul_s() {
        let request = resolved(&["/etc/passwd", "u@h:in"]).unwrap();
        assert_eq!((request.ssh_port, request.udp_port), (33001, None));
        assert_eq!((request.user.as_str(), request.host_name.as_str()), ("u", "h"));
        assert_eq!((request.policy, request.digest), (RatePolicy::Fair, Digest::Blake3));
        assert_eq!(request.ciphers.len(), 3);
        let sources = vec![PathBuf::from("/etc/passwd")];
        assert_eq!(request.direction, Route::Upload { sources, destination: PathText::new(*b"in") });
    }

    #[test]
    fn policies_follow_ascp() {
        for (options, policy) in [
            (&["-Q"][..], RatePolicy::Fair),
            (&["-QQ"], RatePolicy::Low),
            (&["-QQ", "--policy", "high"], RatePolicy::High),
            (&["--policy=fixed", "-l", "1g"], RatePolicy::Fixed),
        ] {
            let line: Vec<&str> = options.iter().chain(&["/etc/passwd", "h:"]).copied().collect();
            assert_eq!(resolved(&line).unwrap().policy, policy, "{line:?}");
        }
    }

    #[test]
    fn impossible_operands_show_the_corrected_command() {
        for (n, (line, message, remedy)) in [
            (&[][..], "no source", "haul SOURCE"),
            (&["a"], "one operand", "did you mean haul a host:?"),
            (&["h:a"], "one operand", "add `.`"),
            (&["a", "u@h"], "neither side", "did you mean haul a u@h:?"),
            (&["a b", "c"], "neither side", "did you mean haul 'a b' host:c?"),
            (&["h:a", "k:b"], "both sides", "haul h:a ."),
            (&["h:a", "k:b", "."], "two servers", "once for each"),
            (&["h:a", "b", "."], "partly", "haul SOURCE"),
            (&["--policy", "fixed", "/etc/passwd", "h:"], "needs a rate", "-l"),
            (&["-m", "2g", "-l", "1g", "/etc/passwd", "h:"], "above", "-m"),
            (&["-oProxyCommand:x", "h:"], "-o", ""),
        ]
        .into_iter()
        .enumerate()
        {
            let error = resolved(line).unwrap_err();
            assert_eq!(error.exit_status(), crate::exit_status::ExitStatus::Usage, "row {n}");
            assert!(error.to_string().contains(message), "row {n}: {error}");
            assert!(error.remedy().unwrap_or_default().contains(remedy), "row {n}: {:?}", error.remedy());
        }
    }
}
