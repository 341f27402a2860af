//! Logs in: with the keys of the environment, those of `-i`, the agent's and those of the configuration, each one once
//! and its certificate first; then with a password, where the server takes one.
//!
//! At most six keys are tried, because servers cut the connection then. It asks only where a person sits at a terminal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use zeroize::Zeroizing;

use crate::agent::Agent;
use crate::config::{Identities, TransferRequest};
use crate::error::ClientError;
use crate::handler::Handler;
use crate::keys::{FileKey, FileKeys, Locked};
use crate::known_hosts::describe;
use crate::signer::{FileSigner, PlainKey};
use crate::{password, prompt, sanitize};

/// OpenSSH's servers cut the connection after six failures (`MaxAuthTries`).
const MAX_TRIES: usize = 6;

/// One attempt may wait for a finger on a hardware key or a click on an agent's question.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a passphrase is asked for.
const PASSPHRASE_TRIES: usize = 3;

/// One key to try.
#[derive(Clone)]
enum Candidate {
    File(Arc<PrivateKey>, String),
    FileCertificate(Arc<PrivateKey>, Box<Certificate>, String),
    /// A file that waits for its passphrase.
    Locked(Box<FileKey>),
    Agent(Box<AgentIdentity>),
    /// A certificate from a file; the agent holds its key.
    AgentCertificate(Box<Certificate>, String),
}

impl Candidate {
    /// None for a file that does not tell it without its passphrase.
    fn public(&self) -> Option<PublicKey> {
        match self {
            Self::File(key, _) => Some(key.public_key().clone()),
            Self::FileCertificate(_, certificate, _) | Self::AgentCertificate(certificate, _) => {
                Some(PublicKey::new(certificate.public_key().clone(), ""))
            }
            Self::Locked(file) => file.public.clone(),
            Self::Agent(identity) => Some(identity.public_key().into_owned()),
        }
    }

    fn is_certificate(&self) -> bool {
        match self {
            Self::FileCertificate(..) | Self::AgentCertificate(..) => true,
            Self::Agent(identity) => matches!(**identity, AgentIdentity::Certificate { .. }),
            Self::File(..) | Self::Locked(_) => false,
        }
    }

    fn shown(&self) -> String {
        let origin = match self {
            Self::File(_, path) | Self::FileCertificate(_, _, path) | Self::AgentCertificate(_, path) => {
                path.clone()
            }
            Self::Locked(file) => sanitize::path(&file.path),
            Self::Agent(_) => "agent".to_owned(),
        };
        let kind = if self.is_certificate() { "certificate of " } else { "" };
        match self.public() {
            Some(public) => format!("{kind}{} ({origin})", describe(&public)),
            None => origin,
        }
    }
}

/// The server's answer to one attempt.
enum Answer {
    Welcome,
    /// No; the methods that are left.
    No(MethodSet),
    /// The proof is right, but the server wants a second one.
    NotEnough(MethodSet),
    Gone,
}

/// Logs in. `before_question` runs before something is asked at the terminal.
///
/// # Errors
/// If nothing is accepted: everything that was tried is listed.
pub(crate) async fn login(
    handle: &mut Handle<Handler>,
    request: &TransferRequest,
    files: FileKeys,
    said: impl Fn() -> Option<String>,
    before_question: &mut (dyn FnMut() + Send),
) -> Result<(), ClientError> {
    let agent = Agent::connect(handle, &request.identities.agent).await;
    let password_is_passphrase = files.password_is_passphrase;
    let held = agent.as_ref().map_or(&[][..], |agent| &agent.identities);
    let candidates = candidates(files, held, &request.identities)?;
    let (user, host) = (request.user.as_str(), request.host.as_str());
    let mut attempts =
        Attempts { handle, user, agent, tried: Vec::new(), word: None, rsa_hash: None, left: None };
    if attempts.with_keys(candidates, before_question).await {
        return Ok(());
    }
    if attempts.word.is_none() {
        let given = request.plan.environment.password.as_ref().filter(|_| !password_is_passphrase);
        let given = given.and_then(|secret| std::str::from_utf8(secret.as_bytes()).ok());
        let given = given.map(|text| Zeroizing::new(text.to_owned()));
        if attempts.with_password(host, given, before_question).await {
            return Ok(());
        }
    }
    let (tried, word) = (attempts.tried, attempts.word);
    let word = word.map(|word| if word == GONE { said().unwrap_or(word) } else { word });
    Err(ClientError::Login {
        user: sanitize::text(user),
        host: request.host.clone(),
        tried,
        server_word: word,
    })
}

const GONE: &str = "it closed the connection";

/// The attempts of one connection.
struct Attempts<'a> {
    handle: &'a mut Handle<Handler>,
    user: &'a str,
    agent: Option<Agent>,
    /// For the error.
    tried: Vec<String>,
    /// Why there is no use in going on.
    word: Option<String>,
    rsa_hash: Option<Option<Option<HashAlg>>>,
    /// Methods that the server still takes, if it has said.
    left: Option<MethodSet>,
}

impl Attempts<'_> {
    /// Tries the keys in turn; `true` if one of them opened.
    async fn with_keys(
        &mut self,
        candidates: VecDeque<Candidate>,
        before_question: &mut (dyn FnMut() + Send),
    ) -> bool {
        for candidate in candidates.into_iter().take(MAX_TRIES) {
            let shown = candidate.shown();
            let Some(candidate) = self.unlocked(candidate, before_question).await else {
                self.tried.push(format!("{shown} not tried: no passphrase opened it"));
                continue;
            };
            let hash = match self.hash_for(&candidate).await {
                Ok(hash) => hash,
                Err(reason) => {
                    self.tried.push(format!("{shown} not tried: {reason}"));
                    continue;
                }
            };
            tracing::debug!(key = shown, user = self.user, "trying key");
            self.tried.push(shown);
            match self.with_key(candidate, hash).await {
                Answer::Welcome => {
                    tracing::info!(user = self.user, key = self.tried.last(), "logged in");
                    return true;
                }
                Answer::No(left) => {
                    let another = left.contains(&MethodKind::PublicKey);
                    self.left = Some(left);
                    if !another {
                        break;
                    }
                }
                Answer::NotEnough(left) => {
                    let password = password::is_taken(&left);
                    self.left = Some(left);
                    if !password {
                        self.word = Some("the key is right, but a second proof is wanted".to_owned());
                    }
                    break;
                }
                Answer::Gone => {
                    self.word = Some(GONE.to_owned());
                    break;
                }
            }
        }
        false
    }

    /// Asks for the passphrase of a locked file; none if it stays locked.
    async fn unlocked(
        &self,
        candidate: Candidate,
        before_question: &mut (dyn FnMut() + Send),
    ) -> Option<Candidate> {
        let Candidate::Locked(file) = candidate else { return Some(candidate) };
        let Err(locked) = &file.private else { return None };
        before_question();
        let shown = sanitize::path(&file.path);
        for _ in 0..PASSPHRASE_TRIES {
            let passphrase = prompt::secret(&format!("Passphrase for {shown}: ")).await.ok()?;
            if passphrase.is_empty() {
                return None;
            }
            if let Some(key) = locked.open(&passphrase) {
                return Some(match file.certificates.first() {
                    Some(certificate) => {
                        Candidate::FileCertificate(key, Box::new(certificate.clone()), shown)
                    }
                    None => Candidate::File(key, shown),
                });
            }
        }
        None
    }

    async fn with_key(&mut self, candidate: Candidate, hash: Option<HashAlg>) -> Answer {
        let (handle, user) = (&mut *self.handle, self.user);
        let agent = self.agent.as_mut();
        let trial = async {
            match (candidate, agent) {
                (Candidate::File(key, _), _) => {
                    handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await.ok()
                }
                (Candidate::FileCertificate(key, certificate, _), _) => {
                    // The library's own call signs RSA with SHA-1 here.
                    let mut signer = FileSigner(key);
                    let result =
                        handle.authenticate_certificate_with(user, *certificate, hash, &mut signer).await;
                    Some(result.unwrap_or_else(|error| declined(&error)))
                }
                (Candidate::AgentCertificate(certificate, _), Some(agent)) => {
                    let mut signer = PlainKey(&mut agent.client);
                    let result =
                        handle.authenticate_certificate_with(user, *certificate, hash, &mut signer).await;
                    Some(result.unwrap_or_else(|error| declined(&error)))
                }
                (Candidate::Agent(identity), Some(agent)) => {
                    let client = &mut agent.client;
                    let result = match *identity {
                        AgentIdentity::PublicKey { key, .. } => {
                            handle.authenticate_publickey_with(user, key, hash, client).await
                        }
                        AgentIdentity::Certificate { certificate, .. } => {
                            handle.authenticate_certificate_with(user, certificate, hash, client).await
                        }
                    };
                    Some(result.unwrap_or_else(|error| declined(&error)))
                }
                (Candidate::Agent(_) | Candidate::AgentCertificate(..), None) | (Candidate::Locked(_), _) => {
                    None
                }
            }
        };
        match tokio::time::timeout(ATTEMPT_TIMEOUT, trial).await {
            Ok(Some(result)) => self.answer(result),
            Ok(None) | Err(_) => Answer::Gone,
        }
    }

    fn answer(&self, result: AuthResult) -> Answer {
        match result {
            AuthResult::Success => Answer::Welcome,
            AuthResult::Failure { partial_success: true, remaining_methods } => {
                Answer::NotEnough(remaining_methods)
            }
            // The library reports a dead connection as a failure without methods.
            AuthResult::Failure { .. } if self.handle.is_closed() => Answer::Gone,
            AuthResult::Failure { remaining_methods, .. } => Answer::No(remaining_methods),
        }
    }

    /// Tries the password of the environment, then asks for one; `true` if one opened.
    async fn with_password(
        &mut self,
        host: &str,
        given: Option<Zeroizing<String>>,
        before_question: &mut (dyn FnMut() + Send),
    ) -> bool {
        if self.left.is_none() {
            let answer = self.handle.authenticate_none(self.user).await;
            match answer.map(|result| self.answer(result)) {
                Ok(Answer::Welcome) => return true,
                Ok(Answer::No(left) | Answer::NotEnough(left)) => self.left = Some(left),
                Ok(Answer::Gone) | Err(_) => {
                    self.word = Some(GONE.to_owned());
                    return false;
                }
            }
        }
        let left = self.left.clone().unwrap_or_else(MethodSet::empty);
        if !password::is_taken(&left) {
            return false;
        }
        if given.is_none() && !prompt::possible() {
            self.word = Some("a password opens too: set HAUL_PASSWORD, or run haul at a terminal".to_owned());
            return false;
        }
        before_question();
        let outcome = password::log_in(self.handle, self.user, host, given, left).await;
        self.tried.extend(outcome.tried);
        if outcome.gone {
            self.word = Some(GONE.to_owned());
        }
        outcome.welcome
    }

    /// For RSA the hash that the server knows; never SHA-1.
    async fn hash_for(&mut self, candidate: &Candidate) -> Result<Option<HashAlg>, &'static str> {
        if !candidate.public().is_some_and(|key| matches!(key.algorithm(), Algorithm::Rsa { .. })) {
            return Ok(None);
        }
        let supported = match self.rsa_hash {
            Some(supported) => supported,
            None => *self.rsa_hash.insert(self.handle.best_supported_rsa_hash().await.unwrap_or_default()),
        };
        match supported {
            Some(Some(hash)) => Ok(Some(hash)),
            Some(None) => Err("the server knows RSA with SHA-1 only"),
            // It did not say; every server of the last ten years knows this one.
            None => Ok(Some(HashAlg::Sha512)),
        }
    }
}

/// The key could not sign; the next one may do better.
fn declined(error: &dyn std::fmt::Display) -> AuthResult {
    tracing::warn!(%error, "a key did not sign");
    AuthResult::Failure {
        remaining_methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        partial_success: false,
    }
}

/// Puts the keys in order, without doubles.
fn candidates(
    files: FileKeys,
    agent: &[AgentIdentity],
    identities: &Identities,
) -> Result<VecDeque<Candidate>, ClientError> {
    let mut order = Order::default();
    let named: Vec<KeyData> = files.explicit.iter().chain(&files.fallback).filter_map(public_data).collect();
    for file in files.explicit {
        let found = from_file(&file, agent).map_err(|locked| locked.error(&file.path))?;
        order.extend(found);
    }
    for identity in agent {
        if !identities.only || named.contains(identity.public_key().key_data()) {
            order.push(Candidate::Agent(Box::new(identity.clone())));
        }
    }
    for file in files.fallback {
        match from_file(&file, agent) {
            Ok(found) => order.extend(found),
            Err(locked) => tracing::debug!(error = %locked.error(&file.path), "key passed over"),
        }
    }
    Ok(order.candidates)
}

fn public_data(file: &FileKey) -> Option<KeyData> {
    file.public.as_ref().map(|key| key.key_data().clone())
}

/// The file's certificates and its private key; the agent's if it holds the same one; else a question to come.
fn from_file(file: &FileKey, agent: &[AgentIdentity]) -> Result<Vec<Candidate>, Locked> {
    let path = sanitize::path(&file.path);
    let locked = match &file.private {
        Ok(key) => {
            let certified = file.certificates.iter().map(|certificate| {
                Candidate::FileCertificate(Arc::clone(key), Box::new(certificate.clone()), path.clone())
            });
            let mut found: Vec<Candidate> = certified.collect();
            found.push(Candidate::File(Arc::clone(key), path));
            return Ok(found);
        }
        Err(locked) => locked,
    };
    let public = public_data(file);
    if let Some(held) = agent.iter().find(|one| Some(one.public_key().key_data()) == public.as_ref()) {
        let certified = file
            .certificates
            .iter()
            .map(|certificate| Candidate::AgentCertificate(Box::new(certificate.clone()), path.clone()));
        let mut found: Vec<Candidate> = certified.collect();
        found.push(Candidate::Agent(Box::new(held.clone())));
        return Ok(found);
    }
    if locked.wants_passphrase() && prompt::possible() {
        return Ok(vec![Candidate::Locked(Box::new(file.clone()))]);
    }
    Err(locked.clone())
}

/// Candidates in their order.
#[derive(Default)]
struct Order {
    candidates: VecDeque<Candidate>,
    seen: Vec<KeyData>,
}

impl Order {
    fn extend(&mut self, found: Vec<Candidate>) {
        found.into_iter().for_each(|candidate| self.push(candidate));
    }

    fn push(&mut self, candidate: Candidate) {
        let public = candidate.public().map(|key| key.key_data().clone());
        // A certificate has the key of its plain twin and is worth an attempt of its own.
        if candidate.is_certificate() {
            self.candidates.push_back(candidate);
        } else if !public.as_ref().is_some_and(|key| self.seen.contains(key)) {
            self.seen.extend(public);
            self.candidates.push_back(candidate);
        }
    }
}
