//! Asks a program of the administrator's about each transfer, before it begins: may it be, and how fast.
//!
//! The program is run by the session's worker, with the session's rights and an empty environment. It reads the request
//! as JSON on standard input. Exit status 0 allows; on standard output it may write
//! `{"allow":false,"message":"..."}` or `{"max_rate":"100m"}`. Any other status refuses, as does silence.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use haul_proto::control::{Direction, Offer, PathText, Refusal, Trouble};
use haul_proto::units::Rate;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::policy::SessionPolicy;

/// The program has to answer within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// What is asked.
#[derive(Debug, Serialize)]
struct Request<'a> {
    session: &'a str,
    user: &'a str,
    peer: &'a str,
    program: &'a str,
    direction: Direction,
    /// Download: what is wanted. Upload: empty.
    sources: &'a [PathText],
    /// Upload: where to. Download: empty.
    destination: &'a PathText,
    /// Sources are removed once they are stored at the other side.
    removes_sources: bool,
    /// Sources are moved there once they are stored at the other side.
    moves_sources_to: Option<&'a PathText>,
    target_rate_bps: Option<u64>,
    token: Option<&'a str>,
}

/// What is answered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default = "yes")]
    allow: bool,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    max_rate: Option<String>,
}

const fn yes() -> bool {
    true
}

/// Asks, if somebody is to be asked; the rate that must not be exceeded, if one was named.
///
/// # Errors
/// If the transfer is not allowed, or nobody could say.
pub(crate) fn ask(
    policy: &SessionPolicy,
    offer: &Offer,
    sources: &[PathText],
) -> Result<Option<Rate>, Refusal> {
    let Some(program) = &policy.authorize else { return Ok(None) };
    let moved = offer.after.as_deref().and_then(|after| after.move_to.as_ref());
    // The program compares paths; they must mean what they say.
    let climbs = |path: &PathText| path.as_bytes().split(|&byte| byte == b'/').any(|name| name == b"..");
    if sources.iter().chain([&offer.destination]).chain(moved).any(climbs) {
        return Err(Refusal {
            trouble: Trouble::OutsideDocroot,
            message: "paths may not hold `..` here".to_owned(),
            remedy: "write the path without it".to_owned(),
        });
    }
    let request = Request {
        removes_sources: offer.after.as_deref().is_some_and(|after| after.remove),
        moves_sources_to: moved,
        session: &policy.session,
        user: &policy.user,
        peer: &policy.peer,
        program: &offer.program,
        direction: offer.direction,
        sources,
        destination: &offer.destination,
        target_rate_bps: offer.target_rate.map(Rate::bps),
        token: offer.token.as_ref().map(haul_proto::control::Token::as_str),
    };
    let answer = serde_json::to_vec(&request)
        .map_err(|error| error.to_string())
        .and_then(|request| run(Command::new(program), request));
    match answer {
        Ok(Some(Answer { allow: true, max_rate, .. })) => {
            let rate = max_rate.map(|text| Rate::parse(&text)).transpose().map_err(|error| {
                warn!(%error, program = %program.display(), "the answer about a transfer is malformed");
                no_answer()
            })?;
            info!(?rate, "the transfer is allowed");
            Ok(rate)
        }
        Ok(answer) => {
            let message = answer.and_then(|answer| answer.message);
            Err(Refusal {
                trouble: Trouble::PermissionDenied,
                message: message.unwrap_or_else(|| "this transfer is not permitted".to_owned()),
                remedy: "ask who gave you the token, or the server's administrator".to_owned(),
            })
        }
        Err(reason) => {
            warn!(reason, program = %program.display(), "nobody said whether a transfer is allowed");
            Err(no_answer())
        }
    }
}

fn no_answer() -> Refusal {
    Refusal {
        trouble: Trouble::PermissionDenied,
        message: "the server could not find out whether this transfer is permitted".to_owned(),
        remedy: "the server's log says more to its administrator".to_owned(),
    }
}

/// Runs the program; `None` if it refuses without a word.
fn run(mut command: Command, request: Vec<u8>) -> Result<Option<Answer>, String> {
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let answered = exchange(&mut child, request);
    if answered.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string());
    let (text, status) = (answered?, status?);
    match (status.code(), text.trim_ascii()) {
        (Some(0), b"") => Ok(Some(Answer { allow: true, message: None, max_rate: None })),
        (Some(0), text) => serde_json::from_slice(text)
            .map(Some)
            .map_err(|error| format!("its answer is malformed: {error}")),
        (Some(1), text) => Ok(serde_json::from_slice::<Answer>(text).ok()),
        _ => Err(format!("it ended with {status}")),
    }
    .map(|answer| match (status.code(), answer) {
        (Some(1), Some(answer)) => Some(Answer { allow: false, ..answer }),
        (_, answer) => answer,
    })
}

/// Hands the request over and takes the answer, each on a thread of its own: the program may do both at once.
fn exchange(child: &mut Child, request: Vec<u8>) -> Result<Vec<u8>, String> {
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("it has no standard input and output".to_owned());
    };
    thread::spawn(move || {
        // A program that does not want to know everything may close early.
        let _ = input.write_all(&request);
    });
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.take(MAX_ANSWER_BYTES).read_to_end(&mut text);
        let _ = tell.send(read.map(|_| text));
    });
    match told.recv_timeout(PATIENCE) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Option<Answer>, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, br#"{"token":"good"}"#.to_vec())
    }

    #[test]
    fn the_exit_status_and_the_words_decide() {
        for (script, allowed) in [
            ("cat > /dev/null", Some(true)),
            ("exit 0", Some(true)),
            ("grep -q good", Some(true)),
            ("grep -q better", Some(false)),
            (r#"echo '{"allow":false,"message":"no"}'"#, Some(false)),
            (r#"echo '{"allow":true}'; exit 1"#, Some(false)),
            (r#"echo '{"max_rate":"5m"}'"#, Some(true)),
            ("echo yes", None),
            (r#"echo '{"allowed":true}'"#, None),
            ("exit 2", None),
            ("kill -9 $$", None),
        ] {
            let answer = shell(script).ok().map(|answer| answer.is_some_and(|answer| answer.allow));
            assert_eq!(answer, allowed, "{script}");
        }
        let missing = run(Command::new("/no/such/program"), Vec::new());
        assert!(missing.unwrap_err().contains("cannot be started"));
    }
}
