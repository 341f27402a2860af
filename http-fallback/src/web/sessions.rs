//! Who is signed in, and the one-time links that sign in. Tokens are kept as digests; sessions survive a restart, so that
//! an upload goes on, links do not: they live for minutes. Time comes in as seconds since 1970.

use std::collections::HashMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::store::Store;
use super::token;

/// A session ends after so long without a request, and at the latest after so long, seconds.
pub const IDLE: u64 = 12 * 3600;
/// See [`IDLE`].
pub const ABSOLUTE: u64 = 7 * 24 * 3600;

/// A link signs in for so long, seconds.
pub const LINK_LIFE: u64 = 10 * 60;

/// Sessions of one user and in all; links of one user and in all. The oldest go first.
const MAX_OF_USER: usize = 50;
const MAX_IN_ALL: usize = 10_000;

/// How old what is on disk may be, seconds.
const SAVE_EVERY: u64 = 60;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    user: String,
    began: u64,
    seen: u64,
}

impl Session {
    const fn is_over(&self, now: u64) -> bool {
        now >= self.seen.saturating_add(IDLE) || now >= self.began.saturating_add(ABSOLUTE)
    }
}

/// All sessions, by the digest of their token.
#[derive(Debug)]
pub struct Sessions {
    store: Store,
    all: HashMap<String, Session>,
    saved: u64,
}

impl Sessions {
    /// Those of the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(store: Store, now: u64) -> io::Result<Self> {
        let mut all: HashMap<String, Session> = store.load()?;
        all.retain(|_, session| !session.is_over(now));
        Ok(Self { store, all, saved: now })
    }

    /// Begins a session of `user`; gives the token for the cookie.
    ///
    /// # Errors
    /// If there is no randomness, or the disk refuses.
    pub fn begin(&mut self, user: &str, now: u64) -> io::Result<String> {
        self.all.retain(|_, session| !session.is_over(now));
        evict(&mut self.all, |session| (session.user == user).then_some(session.seen), MAX_OF_USER);
        evict(&mut self.all, |session| Some(session.seen), MAX_IN_ALL);
        let token = token::new().map_err(|_| io::Error::other("the system has no random numbers"))?;
        let key = token::fingerprint(&token).unwrap_or_default();
        self.all.insert(key, Session { user: user.to_owned(), began: now, seen: now });
        self.save(now)?;
        Ok(token)
    }

    /// Whose session this token is.
    pub fn user(&mut self, token: &str, now: u64) -> Option<String> {
        let session = self.all.get_mut(&token::fingerprint(token)?)?;
        if session.is_over(now) {
            return None;
        }
        session.seen = now;
        let user = session.user.clone();
        if now >= self.saved.saturating_add(SAVE_EVERY) {
            // The next request tries again; a restart meanwhile makes sessions a little older than they are.
            let _ = self.save(now);
        }
        Some(user)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// If the disk refuses; until a restart it is over all the same.
    pub fn end(&mut self, token: &str, now: u64) -> io::Result<()> {
        match token::fingerprint(token).and_then(|key| self.all.remove(&key)) {
            Some(_) => self.save(now),
            None => Ok(()),
        }
    }

    fn save(&mut self, now: u64) -> io::Result<()> {
        self.saved = now;
        self.store.save(&self.all)
    }
}

/// Makes room for one more among those that `age` knows.
fn evict<T>(all: &mut HashMap<String, T>, age: impl Fn(&T) -> Option<u64>, most: usize) {
    let mut known: Vec<(u64, String)> =
        all.iter().filter_map(|(key, value)| age(value).map(|age| (age, key.clone()))).collect();
    if known.len() >= most {
        known.sort_unstable();
        for (_, key) in known.iter().take(known.len() + 1 - most) {
            all.remove(key);
        }
    }
}

/// One-time links.
#[derive(Debug, Default)]
pub struct Links {
    all: HashMap<String, Link>,
}

#[derive(Debug)]
struct Link {
    user: String,
    until: u64,
}

impl Links {
    /// A link for `user`: the token in it.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn make(&mut self, user: &str, now: u64) -> io::Result<String> {
        self.all.retain(|_, link| now < link.until);
        evict(&mut self.all, |link| (link.user == user).then_some(link.until), MAX_OF_USER);
        evict(&mut self.all, |link| Some(link.until), MAX_IN_ALL);
        let token = token::new().map_err(|_| io::Error::other("the system has no random numbers"))?;
        let key = token::fingerprint(&token).unwrap_or_default();
        self.all.insert(key, Link { user: user.to_owned(), until: now + LINK_LIFE });
        Ok(token)
    }

    /// Who a link would sign in; it stays good.
    #[must_use]
    pub fn user(&self, token: &str, now: u64) -> Option<&str> {
        let link = self.all.get(&token::fingerprint(token)?)?;
        (now < link.until).then_some(link.user.as_str())
    }

    /// Uses a link up.
    pub fn redeem(&mut self, token: &str, now: u64) -> Option<String> {
        let link = self.all.remove(&token::fingerprint(token)?)?;
        (now < link.until).then_some(link.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(folder: &tempfile::TempDir, now: u64) -> Sessions {
        Sessions::load(Store::new(folder.path(), "sessions.json"), now).unwrap()
    }

    #[test]
    fn a_session_survives_a_restart_but_neither_idleness_nor_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = sessions(&folder, 1000);
        let token = first.begin("alice", 1000).unwrap();
        let text = std::fs::read_to_string(folder.path().join("sessions.json")).unwrap();
        assert!(!text.contains(&token), "only digests are kept");
        let mut again = sessions(&folder, 2000);
        assert_eq!(again.user(&token, 2000).as_deref(), Some("alice"));
        assert_eq!(again.user(&token, 2000 + IDLE), None);
        let mut now = 2000;
        while now < 1000 + ABSOLUTE {
            assert!(again.user(&token, now).is_some(), "used often enough");
            now += IDLE - 1;
        }
        assert_eq!(again.user(&token, 1000 + ABSOLUTE), None, "too old");
    }

    #[test]
    fn signing_out_ends_one_session_and_too_many_end_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = sessions(&folder, 0);
        let tokens: Vec<_> = (0..=MAX_OF_USER as u64).map(|now| all.begin("alice", now).unwrap()).collect();
        let other = all.begin("bob", 0).unwrap();
        assert_eq!(all.user(&tokens[0], 100), None);
        assert!(all.user(&tokens[1], 100).is_some());
        all.end(&tokens[1], 100).unwrap();
        assert_eq!(all.user(&tokens[1], 100), None);
        assert!(all.user(&other, 100).is_some());
        assert_eq!(sessions(&folder, 100).user(&tokens[1], 100), None);
    }

    #[test]
    fn a_link_is_looked_at_often_and_used_once() {
        let mut links = Links::default();
        let token = links.make("alice", 0).unwrap();
        assert_eq!(links.user(&token, 5), Some("alice"));
        assert_eq!(links.user(&token, 5), Some("alice"));
        assert_eq!(links.redeem(&token, 5).as_deref(), Some("alice"));
        assert_eq!(links.user(&token, 5), None);
        assert_eq!(links.redeem(&token, 5), None);
        let late = links.make("alice", 0).unwrap();
        assert_eq!(links.redeem(&late, LINK_LIFE), None);
    }
}
