//! Passwords of virtual users: hashed with argon2id, checked off the connection's task by few at a time, guessed slowly.
//! An unknown name costs the same work and the same wait as a wrong password. No account is ever locked: who guesses
//! makes the next answers late, and that wears off. Not here: how often a source may connect (`admission`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use thiserror::Error;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::auth::Denied;

/// Work for one password: memory in KiB, rounds, lanes. Above the floor that OWASP recommends for argon2id (19 MiB and
/// two rounds), and some 60 ms of one core.
const MEMORY_KIB: u32 = 64 << 10;
const ROUNDS: u32 = 2;
const LANES: u32 = 1;

/// Checks at a time: their memory is bounded by it.
const PARALLEL: usize = 2;

/// What a configured hash may cost at most. It is worked out for everybody who asks.
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_ROUNDS: u32 = 16;
const MOST_LANES: u32 = 16;

/// The least: OWASP's weakest set for argon2id is 7 MiB with five rounds.
const LEAST_MEMORY_KIB: u32 = 7 << 10;
const LEAST_KIB_ROUNDS: u64 = 35 << 10;
const LEAST_HASH_BYTES: usize = 16;

/// Longest password that is looked at, in bytes.
pub(crate) const MAX_PASSWORD_BYTES: usize = 1024;

/// Wrong passwords for a name that cost nothing; after them the answer is late, each time by double.
const FREE_FAILURES: u32 = 3;
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// Without a failure for so long a name is as new.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Names whose failures are remembered; beyond it the one that rested longest is forgotten.
const MAX_NAMES: usize = 4096;
/// Login names are no longer than this, so more of a name tells nothing.
const MAX_NAME_CHARS: usize = 64;

/// Why there is no hash.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// Nothing, or too much.
    #[error("a password has 1 to {MAX_PASSWORD_BYTES} bytes")]
    Length,
    /// No memory, or no randomness.
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

/// The line for the configuration.
///
/// # Errors
/// If the password is empty or too long, or the system has no random numbers.
pub(crate) fn hash(password: &[u8]) -> Result<String, PasswordError> {
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::Length);
    }
    let words = |error: &dyn std::fmt::Display| PasswordError::Hash(error.to_string());
    let params = Params::new(MEMORY_KIB, ROUNDS, LANES, None).map_err(|error| words(&error))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(argon2.hash_password(password).map_err(|error| words(&error))?.to_string())
}

/// Whether a hash of the configuration can be used: argon2id, neither too cheap nor too dear.
pub(crate) fn is_usable(text: &str) -> bool {
    let Ok(hash) = PasswordHash::new(text) else { return false };
    let Ok(params) = Params::try_from(&hash) else { return false };
    let (memory, rounds, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    hash.algorithm == argon2::ARGON2ID_IDENT
        && hash.version == Some(Version::V0x13.into())
        && hash.salt.is_some()
        && hash.hash.is_some_and(|hash| hash.as_bytes().len() >= LEAST_HASH_BYTES)
        && (LEAST_MEMORY_KIB..=MOST_MEMORY_KIB).contains(&memory)
        && u64::from(memory) * u64::from(rounds) >= LEAST_KIB_ROUNDS
        && rounds <= MOST_ROUNDS
        && lanes <= MOST_LANES
}

/// Checks passwords for the whole server.
#[derive(Debug)]
pub(crate) struct Passwords {
    work: Arc<Semaphore>,
    failures: Mutex<Failures>,
    /// What unknown names are checked against: the work is that of a real check, the result does not count.
    decoy: String,
}

impl Passwords {
    /// `decoy` is a hash that costs what those of the users cost, such as one of theirs.
    pub(crate) fn new(decoy: String) -> Self {
        Self { work: Arc::new(Semaphore::new(PARALLEL)), failures: Mutex::default(), decoy }
    }

    /// Checks a password against the hash of a user; `None` for a user who has none, or who is unknown. Asks `welcome` when its
    /// turn has come.
    pub(crate) async fn check(
        &self,
        name: &str,
        hash: Option<&str>,
        password: Zeroizing<String>,
        welcome: impl Fn() -> bool,
    ) -> Result<(), Denied> {
        let name: String = name.chars().take(MAX_NAME_CHARS).collect();
        let delay = self.failures().delay(Instant::now(), &name);
        tokio::time::sleep(delay).await;
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.decoy).to_owned();
        let Ok(permit) = Arc::clone(&self.work).acquire_owned().await else {
            return Err(Denied::Interrupted);
        };
        // Guesses that queued before their source was penalised cost nothing any more.
        if !welcome() {
            return Err(Denied::Interrupted);
        }
        let work = move || {
            // Held until the work is done, also if the connection is gone before.
            let _permit = permit;
            verify(&hash, &password)
        };
        let fits = tokio::task::spawn_blocking(work).await.map_err(|_| Denied::Interrupted)?;
        if known && fits {
            self.failures().forget(&name);
            return Ok(());
        }
        // Counted when it is known, so that many right logins at once do not wait for each other. Guesses side by side
        // are held back by the few checks at a time, and by the admission.
        self.failures().add(Instant::now(), &name);
        Err(if known { Denied::WrongPassword } else { Denied::NoPassword })
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn verify(hash: &str, password: &str) -> bool {
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// How often each name has failed of late. Pure: the time is an argument.
#[derive(Debug, Default)]
struct Failures {
    names: HashMap<String, (u32, Instant)>,
}

impl Failures {
    /// How late the next answer is to be.
    fn delay(&self, now: Instant, name: &str) -> Duration {
        let recent = |last: Instant| now.saturating_duration_since(last) < FORGIVEN_AFTER;
        let count = self.names.get(name).filter(|(_, last)| recent(*last)).map_or(0, |(count, _)| *count);
        match count.saturating_sub(FREE_FAILURES.saturating_sub(1)) {
            0 => Duration::ZERO,
            late => FIRST_DELAY.saturating_mul(1 << (late - 1).min(16)).min(LONGEST_DELAY),
        }
    }

    /// Another one.
    fn add(&mut self, now: Instant, name: &str) {
        if self.names.len() >= MAX_NAMES && !self.names.contains_key(name) {
            let oldest = self.names.iter().min_by_key(|(_, (_, last))| *last).map(|(name, _)| name.clone());
            oldest.map(|oldest| self.names.remove(&oldest));
        }
        let (count, last) = self.names.entry(name.to_owned()).or_insert((0, now));
        if now.saturating_duration_since(*last) >= FORGIVEN_AFTER {
            *count = 0;
        }
        (*count, *last) = (count.saturating_add(1), now);
    }

    fn forget(&mut self, name: &str) {
        self.names.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_who_has_one_opens() {
        let line = hash(b"correct horse").unwrap();
        assert!(is_usable(&line), "{line}");
        assert!(!line.contains("horse"));
        let passwords = Passwords::new(hash(b"decoy").unwrap());
        let check = async |hash, password| passwords.check("alice", hash, secret(password), || true).await;
        assert!(check(Some(line.as_str()), "correct horse").await.is_ok());
        for wrong in ["", "correct horse ", "Correct horse"] {
            assert!(
                matches!(check(Some(line.as_str()), wrong).await, Err(Denied::WrongPassword)),
                "{wrong:?}"
            );
        }
        // The decoy's own password opens nothing.
        assert!(matches!(check(None, "decoy").await, Err(Denied::NoPassword)));
        let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
        assert!(!verify(&line, &long));
    }

    #[test]
    fn hashes_that_are_weak_foreign_or_too_dear_are_refused() {
        let salt_and_hash = "c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for (n, (head, usable)) in [
            ("$argon2id$v=19$m=65536,t=2,p=1$", true),
            ("$argon2id$v=19$m=19456,t=2,p=1$", true),
            ("$argon2id$v=19$m=7168,t=5,p=1$", true),
            ("$argon2id$v=19$m=19456,t=1,p=1$", false),
            ("$argon2id$v=19$m=1024,t=9,p=1$", false),
            ("$argon2id$v=19$m=4194304,t=1,p=1$", false),
            ("$argon2id$v=19$m=65536,t=99,p=1$", false),
            ("$argon2i$v=19$m=65536,t=2,p=1$", false),
            ("$argon2id$v=16$m=65536,t=2,p=1$", false),
            ("$argon2id$m=65536,t=2,p=1$", false),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(is_usable(&format!("{head}{salt_and_hash}")), usable, "row {n}: {head}");
        }
        for text in
            ["", "secret", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=65536,t=2,p=1$c2FsdHNhbHQ"]
        {
            assert!(!is_usable(text), "{text}");
        }
    }

    #[test]
    fn guesses_become_slow_never_impossible_and_are_forgiven() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut guess = |at| {
            let delay = failures.delay(at, "alice");
            failures.add(at, "alice");
            delay.as_millis()
        };
        let delays: Vec<u128> = (0..9).map(|_| guess(start)).collect();
        assert_eq!(delays, [0, 0, 0, 500, 1000, 2000, 4000, 8000, 8000]);
        assert!((0..100).all(|_| guess(start) == LONGEST_DELAY.as_millis()));
        assert_eq!(guess(start + FORGIVEN_AFTER), 0);
        for _ in 0..5 {
            guess(start + FORGIVEN_AFTER);
        }
        let later = start + FORGIVEN_AFTER;
        assert!(failures.delay(later, "alice") > Duration::ZERO);
        assert_eq!(failures.delay(later, "bob"), Duration::ZERO, "names do not share");
        failures.forget("alice");
        assert_eq!(failures.delay(later, "alice"), Duration::ZERO);
    }

    #[test]
    fn the_table_of_names_is_bounded() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        for n in 0..2 * MAX_NAMES {
            failures.add(start + Duration::from_millis(n as u64), &n.to_string());
        }
        assert_eq!(failures.names.len(), MAX_NAMES);
        assert!(!failures.names.contains_key("0"));
    }
}
