//! The worker of one session: takes its policy and its rights, then holds the control conversation on standard input
//! and output. It reads nothing from the network before its rights are in place.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;

use haul_io::handover;
use nix::unistd::{Uid, User};
use tracing::{error, info_span};

use crate::conversation;
use crate::error::ServerError;
use crate::policy::{Permissions, PolicyError, PortRange, SessionPolicy, random_session_name};
use crate::privileges::{become_account, keep_own_account};
use crate::shares::lease::Lease;

/// Runs the worker to its end.
#[must_use]
pub fn run(policy_on_stdin: bool) -> ExitCode {
    match prepare(policy_on_stdin) {
        Ok(Prepared { policy, input, output, lease, door }) => {
            let _span =
                info_span!("session", session = policy.session, user = ?policy.user, peer = policy.peer)
                    .entered();
            conversation::hold(&policy, input, output, lease, door)
        }
        Err(error) => {
            error!(reason = error.lines().join("; "), "session not started");
            if !policy_on_stdin {
                // An OpenSSH server keeps a subsystem's standard error to itself; the client must hear why all the same.
                conversation::refuse_start(&error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// What a worker has before it hears its client.
struct Prepared {
    policy: SessionPolicy,
    input: File,
    output: File,
    lease: Option<Lease>,
    /// Connections of HTTPS come here.
    door: Option<UnixDatagram>,
}

/// Policy, then rights. The descriptors are duplicates of 0 and 1 without a buffer between: the standard library's
/// would read ahead, past the policy.
///
/// Below `hauld`, standard input is a socket that the conversation goes both ways on, and standard output is the lease, if
/// there is one. Below an OpenSSH server they are what they are called.
fn prepare(policy_on_stdin: bool) -> Result<Prepared, ServerError> {
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(ServerError::Runtime)?;
    let second = io::stdout().as_fd().try_clone_to_owned().map_err(ServerError::Runtime)?;
    let (policy, input, output, lease, door) = if policy_on_stdin {
        let output = File::from(input.try_clone().map_err(ServerError::Runtime)?);
        let mut input = File::from(input);
        let mut head = [0; 4];
        let (count, door) = match handover::receive(&input, &mut head) {
            // Started by hand, with a pipe.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOTSOCK as i32) => (0, None),
            received => received.map_err(PolicyError::Read)?,
        };
        let policy = SessionPolicy::read_from(&mut head.get(..count).unwrap_or_default().chain(&mut input))?;
        let lease = policy.leased.then(|| Lease::new(UnixDatagram::from(second)));
        (policy, input, output, lease, door.map(UnixDatagram::from))
    } else {
        (policy_of_own_account()?, File::from(input), File::from(second), None, None)
    };
    match &policy.account {
        Some(account) => become_account(&account.name)?,
        None => keep_own_account()?,
    }
    Ok(Prepared { policy, input, output, lease, door })
}

/// Below an OpenSSH server, which has authenticated and changed to the account already: its home folder, all rights.
fn policy_of_own_account() -> Result<SessionPolicy, ServerError> {
    let uid = Uid::effective();
    let user =
        User::from_uid(uid).ok().flatten().ok_or_else(|| ServerError::NoOwnAccount { uid: uid.as_raw() })?;
    let (peer, local) = ssh_connection(&std::env::var("SSH_CONNECTION").unwrap_or_default());
    Ok(SessionPolicy {
        session: random_session_name()?,
        user: user.name,
        peer,
        docroot: home(user.dir)?,
        permissions: Permissions::ALL,
        max_session_rate: None,
        leased: false,
        dscp: None,
        https: None,
        udp_ports: PortRange::DEFAULT,
        udp_bind: local,
        authorize: None,
        account: None,
    })
}

fn home(dir: PathBuf) -> Result<PathBuf, PolicyError> {
    if dir.is_absolute() {
        return Ok(dir);
    }
    Err(PolicyError::Read(io::Error::new(io::ErrorKind::NotFound, "the account has no home folder")))
}

/// Client and server address of `SSH_CONNECTION`: "client-address client-port server-address server-port".
fn ssh_connection(text: &str) -> (String, Option<IpAddr>) {
    let mut words = text.split_ascii_whitespace();
    let (address, port) = (words.next(), words.next());
    let peer =
        match (address.and_then(|text| text.parse::<IpAddr>().ok()), port.and_then(|text| text.parse().ok()))
        {
            (Some(address), Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
            _ => "unknown".to_owned(),
        };
    (peer, words.next().and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_are_read_from_the_connection_variable() {
        assert_eq!(
            ssh_connection("192.0.2.7 4711 192.0.2.1 22"),
            ("192.0.2.7:4711".to_owned(), Some(IpAddr::from([192, 0, 2, 1])))
        );
        assert_eq!(ssh_connection("2001:db8::7 4711 2001:db8::1 22").0, "[2001:db8::7]:4711");
        assert_eq!(ssh_connection(""), ("unknown".to_owned(), None));
    }
}
