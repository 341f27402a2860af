//! Logs in with a password: the `password` method of SSH, or `keyboard-interactive`, which many servers use to ask for
//! the same. What the environment gives is sent once; then a person is asked, if there is one.

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Step};
use russh::{MethodKind, MethodSet};
use zeroize::Zeroizing;

use crate::handler::Handler;
use crate::{prompt, sanitize};

/// How often a person is asked.
const QUESTIONS: usize = 3;

/// Rounds of questions that a server may ask in one attempt.
const MAX_ROUNDS: usize = 8;

/// How it ended.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) welcome: bool,
    /// The connection is gone.
    pub(crate) gone: bool,
    /// What was tried, for the error.
    pub(crate) tried: Vec<String>,
}

/// Whether one of the methods is a password's.
pub(crate) fn is_taken(methods: &MethodSet) -> bool {
    methods.contains(&MethodKind::Password) || methods.contains(&MethodKind::KeyboardInteractive)
}

/// Tries the given password, then those of a person.
pub(crate) async fn log_in(
    handle: &mut Handle<Handler>,
    user: &str,
    host: &str,
    given: Option<Zeroizing<String>>,
    mut left: MethodSet,
) -> Outcome {
    let mut outcome = Outcome::default();
    let question = format!("Password for {}@{}: ", sanitize::text(user), sanitize::text(host));
    let asked = if prompt::possible() { QUESTIONS } else { 0 };
    let mut given = given;
    for _ in 0..asked + usize::from(given.is_some()) {
        let (password, origin) = match given.take() {
            Some(password) => (password, "password of the environment"),
            None => match prompt::secret(&question).await {
                Ok(password) => (password, "password"),
                Err(_) => break,
            },
        };
        outcome.tried.push(origin.to_owned());
        let result = if left.contains(&MethodKind::Password) {
            handle.authenticate_password(user, password.as_str()).await
        } else {
            interactive(handle, user, password).await
        };
        match result {
            Ok(AuthResult::Success) => {
                tracing::info!(user, "logged in with a password");
                outcome.welcome = true;
                break;
            }
            Ok(AuthResult::Failure { remaining_methods, .. }) if !handle.is_closed() => {
                left = remaining_methods
            }
            Ok(_) | Err(_) => {
                outcome.gone = true;
                break;
            }
        }
        if !is_taken(&left) {
            break;
        }
    }
    outcome
}

/// Answers the first hidden question with the password; further ones, such as a one-time code, are put to the person.
async fn interactive(
    handle: &mut Handle<Handler>,
    user: &str,
    password: Zeroizing<String>,
) -> Result<AuthResult, russh::Error> {
    let mut password = Some(password);
    let mut step = handle.authenticate_keyboard_interactive_start(user, None).await?;
    for _ in 0..MAX_ROUNDS {
        let prompts = match step {
            Step::Success => return Ok(AuthResult::Success),
            Step::Failure { remaining_methods, partial_success } => {
                return Ok(AuthResult::Failure { remaining_methods, partial_success });
            }
            Step::InfoRequest { prompts, .. } => prompts,
        };
        let mut answers = Vec::new();
        for one in prompts {
            let answer = match password.take().filter(|_| !one.echo) {
                Some(password) => password,
                // An empty answer ends in the server's refusal, which says more than we could.
                None => {
                    prompt::secret(&format!("(asked by the server) {} ", sanitize::text(one.prompt.trim())))
                        .await
                        .unwrap_or_default()
                }
            };
            answers.push(answer.as_str().to_owned());
        }
        step = handle.authenticate_keyboard_interactive_respond(answers).await?;
    }
    Ok(AuthResult::Failure { remaining_methods: MethodSet::empty(), partial_success: false })
}
