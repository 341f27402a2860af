//! Logs in with public keys: those of `-i`, then the agent's, then those of the configuration, each one once.
//!
//! At most six are tried, because servers cut the connection then. It never prompts, and never sends a password.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;

use crate::config::{Identities, TransferRequest};
use crate::error::ClientError;
use crate::handler::Handler;
use crate::keys::{FileKey, FileKeys};
use crate::known_hosts::describe;
use crate::sanitize;

/// OpenSSH's servers cut the connection after six failures (`MaxAuthTries`).
const MAX_TRIES: usize = 6;

/// One attempt may wait for a finger on a hardware key or a click on an agent's question.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// The agent is local; without an answer in this time it is stuck.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// One key to try.
enum Candidate {
    File(Arc<PrivateKey>, String),
    Agent(Box<AgentIdentity>),
}

impl Candidate {
    fn public(&self) -> PublicKey {
        match self {
            Self::File(key, _) => key.public_key().clone(),
            Self::Agent(identity) => identity.public_key().into_owned(),
        }
    }

    fn shown(&self) -> String {
        let origin = match self {
            Self::File(_, path) => path.clone(),
            Self::Agent(_) => "agent".to_owned(),
        };
        format!("{} ({origin})", describe(&self.public()))
    }
}

/// The server's answer to one key.
enum Answer {
    Welcome,
    /// No, and whether another key may be tried.
    No {
        another: bool,
    },
    /// The key is right, but the server wants a second proof, which we cannot give.
    NotEnough,
    Gone,
}

/// Logs in.
///
/// # Errors
/// If no key is accepted: every key that was tried is listed.
pub(crate) async fn login(
    handle: &mut Handle<Handler>,
    request: &TransferRequest,
    files: FileKeys,
    said: impl Fn() -> Option<String>,
) -> Result<(), ClientError> {
    let mut agent = Agent::connect(handle).await;
    let candidates =
        candidates(files, agent.as_ref().map_or(&[], |agent| &agent.identities), &request.identities)?;
    let mut tried = Vec::new();
    let mut word = None;
    let mut rsa_hash = None;
    for candidate in candidates.into_iter().take(MAX_TRIES) {
        let hash = match hash_for(handle, &candidate.public(), &mut rsa_hash).await {
            Ok(hash) => hash,
            Err(reason) => {
                tried.push(format!("{} not tried: {reason}", candidate.shown()));
                continue;
            }
        };
        tried.push(candidate.shown());
        tracing::debug!(key = candidate.shown(), user = request.user, "trying key");
        match attempt(handle, &request.user, candidate, hash, agent.as_mut()).await {
            Answer::Welcome => {
                tracing::info!(user = request.user, key = tried.last(), "logged in");
                return Ok(());
            }
            Answer::No { another: true } => {}
            Answer::No { another: false } => {
                word = Some("public keys are not accepted".to_owned());
                break;
            }
            Answer::NotEnough => {
                word = Some("the key is right, but a second proof is wanted".to_owned());
                break;
            }
            Answer::Gone => {
                word = said().or_else(|| Some("it closed the connection".to_owned()));
                break;
            }
        }
    }
    Err(ClientError::Login {
        user: sanitize::text(&request.user),
        host: request.host.clone(),
        tried,
        server_word: word,
    })
}

async fn attempt(
    handle: &mut Handle<Handler>,
    user: &str,
    candidate: Candidate,
    hash: Option<HashAlg>,
    agent: Option<&mut Agent>,
) -> Answer {
    let trial = async {
        match (candidate, agent) {
            (Candidate::File(key, _), _) => {
                handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await.ok()
            }
            (Candidate::Agent(identity), Some(agent)) => {
                let result = match *identity {
                    AgentIdentity::PublicKey { key, .. } => {
                        handle.authenticate_publickey_with(user, key, hash, &mut agent.client).await
                    }
                    AgentIdentity::Certificate { certificate, .. } => {
                        handle.authenticate_certificate_with(user, certificate, hash, &mut agent.client).await
                    }
                };
                Some(result.unwrap_or_else(|error| declined(&error)))
            }
            (Candidate::Agent(_), None) => None,
        }
    };
    let Ok(result) = tokio::time::timeout(ATTEMPT_TIMEOUT, trial).await else { return Answer::Gone };
    match result {
        Some(AuthResult::Success) => Answer::Welcome,
        Some(AuthResult::Failure { partial_success: true, .. }) => Answer::NotEnough,
        // The library reports a dead connection as a failure without methods.
        Some(AuthResult::Failure { .. }) | None if handle.is_closed() => Answer::Gone,
        Some(AuthResult::Failure { remaining_methods, .. }) => {
            Answer::No { another: remaining_methods.contains(&MethodKind::PublicKey) }
        }
        None => Answer::Gone,
    }
}

/// The agent would not sign; the next key may do better.
fn declined(error: &russh::AgentAuthError) -> AuthResult {
    tracing::warn!(%error, "the ssh agent did not sign");
    AuthResult::Failure {
        remaining_methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        partial_success: false,
    }
}

/// For RSA the hash that the server knows; never SHA-1.
async fn hash_for(
    handle: &Handle<Handler>,
    key: &PublicKey,
    known: &mut Option<Option<Option<HashAlg>>>,
) -> Result<Option<HashAlg>, &'static str> {
    if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        return Ok(None);
    }
    let supported = match *known {
        Some(supported) => supported,
        None => *known.insert(handle.best_supported_rsa_hash().await.unwrap_or_default()),
    };
    match supported {
        Some(Some(hash)) => Ok(Some(hash)),
        Some(None) => Err("the server knows RSA with SHA-1 only"),
        // It did not say; every server of the last ten years knows this one.
        None => Ok(Some(HashAlg::Sha512)),
    }
}

/// Puts the keys in order, without doubles.
fn candidates(
    files: FileKeys,
    agent: &[AgentIdentity],
    identities: &Identities,
) -> Result<VecDeque<Candidate>, ClientError> {
    let mut order = VecDeque::new();
    let mut seen: Vec<KeyData> = Vec::new();
    let named: Vec<KeyData> = files.explicit.iter().chain(&files.fallback).filter_map(public_data).collect();
    for file in files.explicit {
        let candidate = from_file(&file, agent).map_err(|locked| locked.error(&file.path))?;
        push(&mut order, &mut seen, candidate);
    }
    for identity in agent {
        if !identities.only || named.contains(identity.public_key().key_data()) {
            push(&mut order, &mut seen, Candidate::Agent(Box::new(identity.clone())));
        }
    }
    for file in files.fallback {
        match from_file(&file, agent) {
            Ok(candidate) => push(&mut order, &mut seen, candidate),
            Err(locked) => tracing::debug!(error = %locked.error(&file.path), "key passed over"),
        }
    }
    Ok(order)
}

fn public_data(file: &FileKey) -> Option<KeyData> {
    file.public.as_ref().map(|key| key.key_data().clone())
}

/// The private key of the file, else the agent's if it holds the same one.
fn from_file(file: &FileKey, agent: &[AgentIdentity]) -> Result<Candidate, crate::keys::Locked> {
    match &file.private {
        Ok(key) => Ok(Candidate::File(Arc::clone(key), sanitize::path(&file.path))),
        Err(locked) => {
            let public = public_data(file);
            let held =
                agent.iter().find(|identity| Some(identity.public_key().key_data()) == public.as_ref());
            held.map(|identity| Candidate::Agent(Box::new(identity.clone()))).ok_or_else(|| locked.clone())
        }
    }
}

fn push(order: &mut VecDeque<Candidate>, seen: &mut Vec<KeyData>, candidate: Candidate) {
    let public = candidate.public();
    // A certificate has the key of its plain twin and is worth an attempt of its own.
    let certificate = matches!(&candidate, Candidate::Agent(identity) if matches!(**identity, AgentIdentity::Certificate { .. }));
    if certificate || !seen.contains(public.key_data()) {
        if !certificate {
            seen.push(public.key_data().clone());
        }
        order.push_back(candidate);
    }
}

/// A running ssh agent and what it holds.
struct Agent {
    client: AgentClient<UnixStream>,
    identities: Vec<AgentIdentity>,
}

impl Agent {
    /// Connects to the agent of `SSH_AUTH_SOCK`; none if there is no agent or it does not answer.
    async fn connect(handle: &Handle<Handler>) -> Option<Self> {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty())?;
        let connected = tokio::time::timeout(AGENT_TIMEOUT, async {
            let mut client = AgentClient::connect_uds(&socket).await?;
            // Lets the agent enforce keys that are bound to destinations; agents without that refuse, which is fine.
            if let Some(binding) = handle.agent_session_binding() {
                let bound = client.bind_session(binding, false).await;
                tracing::trace!(bound = bound.is_ok(), "agent session binding");
            }
            let identities = client.request_identities().await?;
            Ok::<_, russh::keys::Error>(Self { client, identities })
        });
        match connected.await {
            Ok(Ok(agent)) => {
                tracing::debug!(keys = agent.identities.len(), "ssh agent");
                Some(agent)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the ssh agent at SSH_AUTH_SOCK cannot be used");
                None
            }
            Err(_) => {
                tracing::warn!("the ssh agent at SSH_AUTH_SOCK does not answer");
                None
            }
        }
    }
}
