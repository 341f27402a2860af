//! Dials through a program in place of our own SSH: the stock `ssh` with its jump hosts, hardware keys and host keys.
//! The control conversation runs over its standard input and output (`ssh -s HOST haul`). Host keys, logins and
//! questions are the program's business; what it says on standard error is shown.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use crate::config::TransferRequest;
use crate::error::ClientError;
use crate::ssh::{ChannelEvent, SUBSYSTEM};
use crate::{prompt, sanitize};

/// Events that wait to be taken; a slow reader stops the program, not our memory.
const WAITING: usize = 32;

/// The status that `ssh` ends with when it is `ssh` that failed and not what it ran.
const SSH_FAILED: i32 = 255;

/// How long the end of the program is waited for.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A running `ssh` with the control conversation on it.
pub(crate) struct SshProgram {
    child: Child,
    input: Option<ChildStdin>,
    events: mpsc::Receiver<ChannelEvent>,
    name: String,
    port: u16,
    /// What it said last, for the error.
    words: Vec<u8>,
    /// Something of the conversation has come.
    spoke: bool,
    ended: bool,
}

/// Starts the program.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn start(request: &TransferRequest, command: &OsString) -> Result<SshProgram, ClientError> {
    let mut words = words(command)?.into_iter();
    let program = words.next().ok_or_else(|| usage("it is empty"))?;
    let mut child = Command::new(&program);
    child.args(words).args(arguments(request));
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = sanitize::text(&program.to_string_lossy());
    tracing::debug!(command = ?child.as_std(), "dialling");
    let mut child = child.spawn().map_err(|error| usage(&format!("cannot run {name}: {error}")))?;
    let (sender, events) = mpsc::channel(WAITING);
    let input = child.stdin.take();
    if let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) {
        tokio::spawn(pump(output, sender.clone(), ChannelEvent::Data));
        tokio::spawn(pump(errors, sender, ChannelEvent::Stderr));
    }
    let port = request.ssh_port;
    Ok(SshProgram { child, input, events, name, port, words: Vec::new(), spoke: false, ended: false })
}

/// Where the datagrams go: the host's address as this machine knows it, since the program does not tell.
///
/// # Errors
/// If the name has no address here.
pub(crate) async fn address(request: &TransferRequest) -> Result<SocketAddr, ClientError> {
    let target = (request.host_name.as_str(), request.ssh_port);
    let unknown = |source| ClientError::UnknownHost { host: request.host_name.clone(), source };
    let mut found = tokio::net::lookup_host(target).await.map_err(|error| unknown(Some(error)))?;
    found.next().ok_or_else(|| unknown(None))
}

/// What follows the program's own arguments.
fn arguments(request: &TransferRequest) -> Vec<OsString> {
    let words = &request.plan.login.ssh_arguments;
    let mut arguments: Vec<OsString> =
        words.iter().map(|word| OsString::from_vec(word.as_bytes().to_vec())).collect();
    let mut push = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    if !prompt::possible() {
        // Without a terminal nobody answers: it must fail, not wait.
        push(&["-o", "BatchMode=yes"]);
    }
    if request.host_keys.strict {
        push(&["-o", "StrictHostKeyChecking=yes"]);
    }
    if let Some(file) = &request.host_keys.named {
        push(&["-o", &format!("UserKnownHostsFile=\"{}\"", file.display())]);
    }
    if let Some(file) = &request.ssh_config {
        push(&["-F"]);
        push(&[&file.display().to_string()]);
    }
    push(&["-o", "ClearAllForwardings=yes", "-T", "-p", &request.ssh_port.to_string(), "-l", &request.user]);
    for path in &request.identities.explicit {
        arguments.extend(["-i".into(), path.clone().into_os_string()]);
    }
    let rest = ["-s", "--", &request.host, SUBSYSTEM];
    arguments.extend(rest.iter().map(OsString::from));
    arguments
}

/// Splits at blanks, as `GIT_SSH_COMMAND` and `rsync -e` do, with single and double quotes and backslashes.
fn words(command: &OsString) -> Result<Vec<OsString>, ClientError> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let (mut word, mut quote) = (None::<Vec<u8>>, None);
    let mut bytes = command.clone().into_vec().into_iter();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (byte, Some(open)) if byte == open => quote = None,
            (b'\\', None | Some(b'"')) => {
                let next = bytes.next().ok_or_else(|| usage("it ends in a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            (b' ' | b'\t' | b'\n', None) => words.extend(word.take()),
            (byte, _) => word.get_or_insert_default().push(byte),
        }
    }
    if quote.is_some() {
        return Err(usage("a quote is not closed"));
    }
    words.extend(word);
    Ok(words.into_iter().map(OsString::from_vec).collect())
}

fn usage(reason: &str) -> ClientError {
    ClientError::usage(
        format!("--ssh-command: {reason}"),
        "give a program and its options: --ssh-command 'ssh -J gate'",
    )
}

/// Carries what the program writes, as it comes; ends with it.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<ChannelEvent>,
    event: fn(Vec<u8>) -> ChannelEvent,
) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
        if to.send(event(bytes.to_vec())).await.is_err() {
            return;
        }
    }
}

impl SshProgram {
    /// Sends bytes in order.
    pub(crate) async fn send(&mut self, bytes: &[u8], host: &str) -> Result<(), ClientError> {
        let sent = match &mut self.input {
            Some(input) => {
                async { input.write_all(bytes).await.is_ok() && input.flush().await.is_ok() }.await
            }
            None => false,
        };
        if sent {
            return Ok(());
        }
        // It is about to end; why is in what it says.
        while let Ok(Some(ChannelEvent::Stderr(words))) =
            tokio::time::timeout(END_TIMEOUT, self.events.recv()).await
        {
            self.words = words;
        }
        Err(self.failed(host).await)
    }

    /// The next event; nothing is lost if the future is dropped.
    pub(crate) async fn next_event(&mut self, host: &str) -> Result<ChannelEvent, ClientError> {
        if self.ended {
            return Ok(ChannelEvent::Closed);
        }
        match self.events.recv().await {
            Some(ChannelEvent::Data(bytes)) => {
                self.spoke = true;
                Ok(ChannelEvent::Data(bytes))
            }
            Some(ChannelEvent::Stderr(bytes)) => {
                self.words.clone_from(&bytes);
                Ok(ChannelEvent::Stderr(bytes))
            }
            Some(other) => Ok(other),
            None if self.spoke => {
                self.ended = true;
                Ok(self.exit_event().await)
            }
            None => Err(self.failed(host).await),
        }
    }

    /// How the program ended, as the event that the library would give.
    async fn exit_event(&mut self) -> ChannelEvent {
        match tokio::time::timeout(END_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => ChannelEvent::ExitStatus(u32::try_from(code).unwrap_or(u32::MAX)),
                (None, Some(signal)) => ChannelEvent::ExitSignal(signal.to_string()),
                (None, None) => ChannelEvent::Closed,
            },
            _ => ChannelEvent::Closed,
        }
    }

    /// The error for a program that ended before the conversation began, or in its middle.
    async fn failed(&mut self, host: &str) -> ClientError {
        self.ended = true;
        let status = tokio::time::timeout(END_TIMEOUT, self.child.wait()).await.ok().and_then(Result::ok);
        let said = sanitize::bytes(self.words.trim_ascii());
        let said = said.lines().last().unwrap_or_default();
        let name = &self.name;
        let reason = match status.and_then(|status| status.code()) {
            Some(SSH_FAILED) if !said.is_empty() => format!("{name} said: {said}"),
            Some(code) if !said.is_empty() => format!("{name} ended with status {code} and said: {said}"),
            Some(code) => format!("{name} ended with status {code}"),
            None => format!("{name} was ended"),
        };
        if said.contains("subsystem request failed") {
            return ClientError::NotHaul { host: host.to_owned(), port: self.port, said: None };
        }
        if said.contains("Permission denied") {
            return ClientError::Login {
                user: "this account".to_owned(),
                host: host.to_owned(),
                tried: vec![format!("those of {name}")],
                server_word: Some(said.to_owned()),
            };
        }
        ClientError::ConnectionLost { host: host.to_owned(), reason }
    }

    /// Closes the conversation and waits a moment for the program to end.
    pub(crate) async fn disconnect(mut self) {
        drop(self.input.take());
        drop(self.events);
        let _ = tokio::time::timeout(END_TIMEOUT, self.child.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_split_as_a_shell_would() {
        for (n, (text, expected)) in [
            ("ssh", &["ssh"][..]),
            ("  ssh  -J gate\t-v ", &["ssh", "-J", "gate", "-v"]),
            ("'/a b/ssh' -o \"ProxyCommand=x \\\"y\\\" %h\"", &["/a b/ssh", "-o", "ProxyCommand=x \"y\" %h"]),
            ("ssh a\\ b ''", &["ssh", "a b", ""]),
            ("", &[]),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(words(&text.into()).unwrap(), expected, "row {n}");
        }
        for text in ["ssh 'x", "ssh \"x", "ssh \\"] {
            assert!(words(&text.into()).is_err(), "{text}");
        }
    }
}
