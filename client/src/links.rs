//! `haul link`, `share`, `shares` and `unshare` as a user types them: commands that hauld runs over SSH to make links for
//! browsers. Not here: what the server makes of them, and dialling (`ssh`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{self, Manner};
use crate::config::{self, Presentation, TransferRequest};
use crate::error::ClientError;
use crate::exit_status::ExitStatus;
use crate::progress::Presenter;
use crate::ssh::{self, ChannelEvent, Service};
use crate::target::{self, RemoteTarget, Target};
use crate::{Signals, conclude, logging, sanitize};

/// What a server may answer, on either stream.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The status of a shell that does not know a command.
const UNKNOWN_COMMAND: u32 = 127;

const EXAMPLES: &str = "\
Exit status: 0 done, 1 the server refused, 2 wrong command line, 3 no connection or no hauld, 4 login failed, \
130 interrupted. A file named like the command is sent as ./NAME.";

#[derive(Debug, Parser)]
#[command(name = "haul", disable_help_subcommand = true)]
enum Deed {
    /// Prints a link that signs in once to the server's pages for browsers, as the user of the SSH login
    #[command(after_help = EXAMPLES)]
    Link {
        #[command(flatten)]
        way: Way,
        /// The server
        #[arg(value_name = "[USER@]HOST")]
        server: OsString,
    },
    /// Prints a link to a file or folder on the server, for people without an account
    #[command(after_help = EXAMPLES)]
    Share {
        #[command(flatten)]
        way: Way,
        /// The file or folder; a folder with all below it, for reading
        #[arg(value_name = "[USER@]HOST:PATH")]
        path: OsString,
        /// When the link ends by itself: 30m, 12h, 7d, 2w
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// How many downloads the link is good for
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// With a password, which the server makes and haul prints
        #[arg(long)]
        password: bool,
    },
    /// Lists what the user shares on the server
    #[command(after_help = EXAMPLES)]
    Shares {
        #[command(flatten)]
        way: Way,
        /// The server
        #[arg(value_name = "[USER@]HOST")]
        server: OsString,
    },
    /// Ends shares
    #[command(after_help = EXAMPLES)]
    Unshare {
        #[command(flatten)]
        way: Way,
        /// The server
        #[arg(value_name = "[USER@]HOST")]
        server: OsString,
        /// What to end, as `haul shares` lists it
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

/// How to reach the server: options of transfers, with the same meaning.
#[derive(Debug, clap::Args)]
struct Way {
    /// TCP port of SSH [default: ssh_config's, else 33001]
    #[arg(short = 'P', value_name = "PORT")]
    port: Option<String>,
    /// Key file for the login, also several times
    #[arg(short = 'i', value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// File with host keys
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Refuse hosts without a key on record
    #[arg(long)]
    strict_host_key: bool,
    /// ssh_config to read; none reads none
    #[arg(short = 'F', value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// Log in with this program, such as ssh
    #[arg(long, value_name = "COMMAND")]
    ssh_command: Option<OsString>,
    /// Log more, up to three times
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Way {
    /// These options as a transfer's command line has them.
    fn arguments(&self) -> Vec<OsString> {
        let mut all = vec![OsString::from("haul")];
        let mut push = |option: &str, value: &OsStr| all.extend([option.into(), value.to_owned()]);
        if let Some(port) = &self.port {
            push("-P", port.as_ref());
        }
        for file in &self.identity {
            push("-i", file.as_ref());
        }
        for (option, file) in [("--known-hosts", &self.known_hosts), ("-F", &self.ssh_config)] {
            if let Some(file) = file {
                push(option, file.as_ref());
            }
        }
        if let Some(command) = &self.ssh_command {
            push("--ssh-command", command);
        }
        all.extend(self.strict_host_key.then(|| "--strict-host-key".into()));
        all.extend((0..self.verbose).map(|_| "-v".into()));
        all
    }

    /// The login at a server, with all that configuration adds. What it would transfer is never looked at.
    fn request(&self, server: &RemoteTarget) -> Result<TransferRequest, ClientError> {
        let user = server.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
        let mut arguments = self.arguments();
        arguments.extend(["--".into(), "/".into(), format!("{user}{host}:.").into()]);
        match cli::parse(&arguments)? {
            cli::Asked::Transfer(cli) => config::resolve(*cli),
            other => Err(ClientError::Internal { message: format!("no login: {other:?}") }),
        }
    }
}

/// Runs the command if this command line is one; the first argument is the program's name.
pub(crate) fn run(args: &[OsString]) -> Option<ExitCode> {
    if !is_ours(args) {
        return None;
    }
    let mut presenter = Presenter::new(&Presentation::default());
    let deed = match Deed::try_parse_from(args) {
        Ok(deed) => deed,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Some(crate::print(&error.render().to_string()));
        }
        Err(error) => {
            return Some(conclude(&mut presenter, Err(cli::usage_error(&error, Manner::Haul))));
        }
    };
    let said = deed.understood().and_then(|(request, command)| talk(&request, &command, &mut presenter));
    Some(match said {
        Ok(said) => said.show(&mut presenter),
        Err(error) => conclude(&mut presenter, Err(error)),
    })
}

/// Whether the command line is one of these. With a remote operand it is a transfer of a file of that name, but for
/// `share`, which has one itself.
fn is_ours(args: &[OsString]) -> bool {
    let Some(([program, word], rest)) = args.split_first_chunk::<2>() else { return false };
    let remote = || rest.iter().any(|word| matches!(target::parse(word), Ok(Target::Remote(_))));
    let ours = match word.as_bytes() {
        b"share" => true,
        b"link" | b"shares" | b"unshare" => !remote(),
        _ => false,
    };
    ours && Manner::of(Some(program)) == Manner::Haul
}

impl Deed {
    /// The login, and the words for the server.
    fn understood(&self) -> Result<(TransferRequest, String), ClientError> {
        let (way, server, mut words, told) = match self {
            Self::Link { way, server } => (way, named(server)?, vec!["link"], true),
            Self::Shares { way, server } => (way, named(server)?, vec!["shares"], false),
            Self::Unshare { way, server, ids } => {
                let words = std::iter::once("unshare").chain(ids.iter().map(String::as_str));
                (way, named(server)?, words.collect(), false)
            }
            Self::Share { way, path, .. } => (way, with_path(path)?, vec!["share"], true),
        };
        if let Self::Unshare { ids, .. } = self
            && let Some(id) = ids.iter().find(|id| !id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        {
            return Err(ClientError::usage(
                format!("`{}` is no id of a share", sanitize::text(id)),
                "haul shares lists them",
            ));
        }
        let path = on_server(&server)?;
        let count =
            if let Self::Share { count: Some(count), .. } = self { count.to_string() } else { String::new() };
        if let Self::Share { expires, password, .. } = self {
            words.push(&path);
            words.extend(expires.iter().flat_map(|time| ["--expires", time]));
            words.extend((!count.is_empty()).then_some(["--count", &count]).into_iter().flatten());
            words.extend(password.then_some("--password"));
        }
        let request = way.request(&server)?;
        // Browsers know nothing of ssh_config's other names, nor of the scope of a link-local address.
        if told && !request.host_name.contains('%') {
            words.extend(["--host", &request.host_name]);
        }
        let words: Vec<String> = words.into_iter().map(quoted).collect();
        Ok((request, words.join(" ")))
    }
}

/// The path of an operand in a form that the server does not take for an option.
fn on_server(server: &RemoteTarget) -> Result<String, ClientError> {
    let path = std::str::from_utf8(server.path.as_bytes()).map_err(|_| {
        ClientError::usage("the path is no UTF-8, and a link cannot name it", "share the folder it lies in")
    })?;
    Ok(if path.starts_with('-') { format!("/{path}") } else { path.to_owned() })
}

/// `[user@]host`.
fn named(operand: &OsStr) -> Result<RemoteTarget, ClientError> {
    let mut whole = operand.to_owned();
    whole.push(":");
    match target::parse(&whole) {
        Ok(Target::Remote(server)) if server.path.as_bytes().is_empty() => Ok(server),
        _ => Err(ClientError::usage(
            format!("`{}` names no server", sanitize::bytes(operand.as_bytes())),
            "write [user@]host; an IPv6 address in brackets, and the port with -P",
        )),
    }
}

/// `[user@]host:PATH`.
fn with_path(operand: &OsStr) -> Result<RemoteTarget, ClientError> {
    match target::parse(operand) {
        Ok(Target::Remote(server)) if !server.path.as_bytes().is_empty() => Ok(server),
        _ => Err(ClientError::usage(
            format!(
                "`{}` names nothing on a server that could be shared",
                sanitize::bytes(operand.as_bytes())
            ),
            "write haul share [user@]host:PATH; all of the user's files are host:/, and a file named share is sent as ./share",
        )),
    }
}

/// A word as the server reads it back, and any shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What the server said.
#[derive(Debug, Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
    status: Option<u32>,
}

impl Said {
    fn take(&mut self, event: ChannelEvent) {
        let (stream, bytes) = match event {
            ChannelEvent::Data(bytes) => (&mut self.out, bytes),
            ChannelEvent::Stderr(bytes) => (&mut self.err, bytes),
            ChannelEvent::ExitStatus(status) => return self.status = Some(status),
            ChannelEvent::ExitSignal(_) | ChannelEvent::Closed => return,
        };
        let left = MAX_ANSWER_BYTES.saturating_sub(stream.len());
        stream.extend(bytes.into_iter().take(left));
    }

    /// Shows it, line by line and harmless for terminals.
    fn show(mut self, presenter: &mut Presenter) -> ExitCode {
        let lines = self.out.strip_suffix(b"\n").unwrap_or(&self.out).split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty()).map(|line| sanitize::bytes(line) + "\n");
        let printed = crate::print(&lines.collect::<String>());
        self.err.push(b'\n');
        presenter.server_words(&self.err);
        if self.status == Some(0) { printed } else { ExitStatus::Failed.into() }
    }
}

/// Runs a command at the server, on a runtime of its own.
fn talk(request: &TransferRequest, command: &str, presenter: &mut Presenter) -> Result<Said, ClientError> {
    logging::start(&request.presentation)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| ClientError::Internal { message: format!("cannot start tokio: {error}") })?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            said = converse(request, command, presenter) => said,
            () = signals.next() => Err(ClientError::Interrupted),
        }
    });
    runtime.shutdown_timeout(crate::SHUTDOWN_TIMEOUT);
    result
}

async fn converse(
    request: &TransferRequest,
    command: &str,
    presenter: &mut Presenter,
) -> Result<Said, ClientError> {
    let mut connection = ssh::open(request, &Service::Command(command.to_owned()), presenter).await?;
    let mut said = Said::default();
    loop {
        match connection.recv().await {
            Ok(ChannelEvent::Closed) => break,
            Ok(event) => said.take(event),
            Err(_) if said.status.is_some() => break,
            Err(error) => return Err(error),
        }
    }
    let lost = connection.lost();
    connection.disconnect().await;
    match said.status {
        None => Err(lost),
        Some(UNKNOWN_COMMAND) => {
            Err(ClientError::NotHaul { host: request.host.clone(), port: request.ssh_port, said: None })
        }
        Some(_) => Ok(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn transfers_are_not_taken_for_these_commands() {
        for (n, (words, ours)) in [
            (&["haul", "link", "alice@server"][..], true),
            (&["haul", "link", "[2001:db8::1]", "-P", "22"], true),
            (&["haul", "share", "server:a b"], true),
            (&["haul", "shares", "--help"], true),
            (&["haul", "unshare", "server", "1a2b"], true),
            (&["haul", "link", "server:"], false),
            (&["haul", "shares", "a", "server:in"], false),
            (&["haul", "./share", "server:in"], false),
            (&["ascp", "share", "server:in"], false),
            (&["haul", "-P", "22", "share", "server:in"], false),
            (&["haul"], false),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(is_ours(&line(words)), ours, "row {n}: {words:?}");
        }
    }

    fn understood(words: &[&str]) -> Result<(TransferRequest, String), ClientError> {
        Deed::try_parse_from(line(words)).unwrap().understood()
    }

    #[test]
    fn words_reach_the_server_as_they_were_meant() {
        for (n, (words, command)) in [
            (&["haul", "link", "-F", "none", "u@h"][..], "link --host h"),
            (&["haul", "shares", "-F", "none", "u@[::1]"], "shares"),
            (&["haul", "unshare", "-F", "none", "h", "1a", "2b"], "unshare 1a 2b"),
            (
                &["haul", "share", "-F", "none", "h:it's; $x", "--expires", "7d", "--count=3", "--password"],
                r"share 'it'\''s; $x' --expires 7d --count 3 --password --host h",
            ),
            (&["haul", "share", "-F", "none", "[::1]:--host"], "share /--host --host ::1"),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(understood(words).unwrap().1, command, "row {n}");
        }
        let request = understood(&["haul", "link", "-F", "none", "-P", "22", "-i", "k", "u@h"]).unwrap().0;
        assert_eq!((request.user.as_str(), request.ssh_port), ("u", 22));
        assert_eq!(request.identities.explicit, [PathBuf::from("k")]);
    }

    #[test]
    fn what_names_no_server_or_share_is_refused_before_dialling() {
        for (words, message) in [
            (&["haul", "link", "a/b"][..], "names no server"),
            (&["haul", "share", "h:"], "names nothing"),
            (&["haul", "share", "h"], "names nothing"),
            (&["haul", "unshare", "h", "a;b"], "no id"),
            (&["haul", "link", "-P", "x", "h"], "x"),
        ] {
            let error = understood(words).unwrap_err();
            assert_eq!(error.exit_status(), ExitStatus::Usage, "{words:?}");
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn an_endless_answer_is_cut() {
        let mut said = Said::default();
        for _ in 0..40 {
            said.take(ChannelEvent::Data(vec![b'x'; 32 << 10]));
        }
        assert_eq!(said.out.len(), MAX_ANSWER_BYTES);
    }
}
