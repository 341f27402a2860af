//! Shared links: who shares what, until when and how often, and which downloads have been counted. Tokens are kept as
//! digests, all of it in a file that survives a restart. Time comes in as seconds since 1970.
//!
//! A download counts when it begins. Its parts, and its continuation after a break, belong to it: as long as the same
//! address has not had all of the file, and has not asked for more than twice its size.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::store::Store;
use super::token;

/// Shares of one user and in all.
const MAX_OF_USER: usize = 1000;
const MAX_IN_ALL: usize = 100_000;

/// Downloads of one share that are remembered as under way; the oldest are forgotten.
const MAX_DOWNLOADS: usize = 64;

/// A download that rests so long is over, seconds.
const DOWNLOAD_LIFE: u64 = 24 * 3600;

/// What parts may overlap beyond the size: programs ask for more than they keep.
const SLACK: u64 = 1 << 20;

/// A shared file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Names it in lists; opens nothing.
    pub id: String,
    fingerprint: String,
    /// Who shares it, with whose rights it is read.
    pub user: String,
    /// Percent-encoded, below the docroot.
    pub path: String,
    /// It is a folder.
    pub folder: bool,
    /// When it was made.
    pub made: u64,
    /// When it ends.
    pub expires: Option<u64>,
    /// How many downloads there may be.
    pub count: Option<u32>,
    /// How many there were.
    pub used: u32,
    /// Hash of the password, if it has one.
    pub password: Option<String>,
    downloads: Vec<Download>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Download {
    number: u32,
    address: IpAddr,
    path: String,
    version: String,
    size: u64,
    /// Bytes that have left, and that were asked for less what did not leave.
    sent: u64,
    claimed: u64,
    seen: u64,
}

/// What a share is to be.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Who.
    pub user: String,
    /// What, percent-encoded.
    pub path: String,
    /// It is a folder.
    pub folder: bool,
    /// For how long, seconds.
    pub lifetime: Option<u64>,
    /// How often.
    pub count: Option<u32>,
    /// Hash of the password.
    pub password: Option<String>,
}

/// A part of a file that is about to be sent.
#[derive(Debug, Clone)]
pub struct Part {
    /// Who asks.
    pub address: IpAddr,
    /// Which file of the share.
    pub path: String,
    /// Its version.
    pub version: String,
    /// Its size.
    pub size: u64,
    /// Bytes of this part.
    pub length: u64,
}

/// A part that is being sent; to be given back with [`Shares::settle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    id: String,
    number: u32,
    length: u64,
}

/// All shares.
#[derive(Debug)]
pub struct Shares {
    store: Store,
    all: Vec<Share>,
}

impl Share {
    const fn is_over(&self, now: u64) -> bool {
        matches!(self.expires, Some(end) if now >= end)
    }
}

impl Shares {
    /// Those of the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(store: Store, now: u64) -> io::Result<Self> {
        let mut all: Vec<Share> = store.load()?;
        all.retain(|share| !share.is_over(now));
        Ok(Self { store, all })
    }

    /// Shares something; gives the token and the id.
    ///
    /// # Errors
    /// If there are too many, there is no randomness, or the disk refuses: then nothing is shared.
    pub fn make(&mut self, wish: Wish, now: u64) -> io::Result<(String, String)> {
        self.all.retain(|share| !share.is_over(now));
        let of_user = self.all.iter().filter(|share| share.user == wish.user).count();
        if of_user >= MAX_OF_USER || self.all.len() >= MAX_IN_ALL {
            return Err(io::Error::other(format!(
                "there are {of_user} shares of yours; end some with `haul unshare`"
            )));
        }
        let no_random = |_| io::Error::other("the system has no random numbers");
        let token = token::new().map_err(no_random)?;
        let id: String = token::fingerprint(&token::new().map_err(no_random)?)
            .unwrap_or_default()
            .chars()
            .take(8)
            .collect();
        self.all.push(Share {
            id: id.clone(),
            fingerprint: token::fingerprint(&token).unwrap_or_default(),
            user: wish.user,
            path: wish.path,
            folder: wish.folder,
            made: now,
            expires: wish.lifetime.map(|life| now.saturating_add(life)),
            count: wish.count,
            used: 0,
            password: wish.password,
            downloads: Vec::new(),
        });
        if let Err(error) = self.store.save(&self.all) {
            self.all.pop();
            return Err(error);
        }
        Ok((token, id))
    }

    /// What a token opens.
    #[must_use]
    pub fn find(&self, token: &str, now: u64) -> Option<&Share> {
        let fingerprint = token::fingerprint(token)?;
        self.all.iter().find(|share| share.fingerprint == fingerprint && !share.is_over(now))
    }

    /// Those of a user.
    pub fn of<'a>(&'a self, user: &'a str, now: u64) -> impl Iterator<Item = &'a Share> {
        self.all.iter().filter(move |share| share.user == user && !share.is_over(now))
    }

    /// Ends a share of a user; `false` if there is none.
    ///
    /// # Errors
    /// If the disk refuses; until a restart it is over all the same.
    pub fn remove(&mut self, user: &str, id: &str) -> io::Result<bool> {
        let before = self.all.len();
        self.all.retain(|share| !(share.user == user && share.id == id));
        if self.all.len() == before {
            return Ok(false);
        }
        self.store.save(&self.all).map(|()| true)
    }

    /// Asks for a part: of a download under way, or else of a new one, which counts. `None` if that is one too many.
    ///
    /// # Errors
    /// If the count cannot be stored: then nothing may be sent.
    pub fn claim(&mut self, id: &str, part: &Part, now: u64) -> io::Result<Option<Claim>> {
        let Some(share) = self.all.iter_mut().find(|share| share.id == id && !share.is_over(now)) else {
            return Ok(None);
        };
        share.downloads.retain(|download| now < download.seen.saturating_add(DOWNLOAD_LIFE));
        let limit = part.size.saturating_mul(2).saturating_add(SLACK.min(part.size));
        let same = |download: &&mut Download| {
            download.address == part.address
                && (&download.path, &download.version) == (&part.path, &part.version)
                && download.sent < download.size
                && download.claimed.saturating_add(part.length) <= limit
        };
        if let Some(download) = share.downloads.iter_mut().find(same) {
            download.claimed += part.length;
            download.seen = now;
            return Ok(Some(Claim { id: id.to_owned(), number: download.number, length: part.length }));
        }
        if share.count.is_some_and(|count| share.used >= count) {
            return Ok(None);
        }
        let counted = share.count.is_some();
        share.used += 1;
        let number = share.used;
        if share.downloads.len() >= MAX_DOWNLOADS {
            share.downloads.remove(0);
        }
        share.downloads.push(Download {
            number,
            address: part.address,
            path: part.path.clone(),
            version: part.version.clone(),
            size: part.size,
            sent: 0,
            claimed: part.length,
            seen: now,
        });
        // Counted on disk before the first byte leaves.
        if counted {
            self.store.save(&self.all)?;
        }
        Ok(Some(Claim { id: id.to_owned(), number, length: part.length }))
    }

    /// A part has ended, whole or not.
    pub fn settle(&mut self, claim: &Claim, sent: u64, now: u64) {
        let Some(share) = self.all.iter_mut().find(|share| share.id == claim.id) else { return };
        let counted = share.count.is_some();
        let download = share.downloads.iter_mut().find(|download| download.number == claim.number);
        if let Some(download) = download {
            download.sent = download.sent.saturating_add(sent);
            download.claimed = download.claimed.saturating_sub(claim.length.saturating_sub(sent));
            download.seen = now;
            if counted && download.sent >= download.size {
                // So that a restart does not make it one that may go on. If the disk refuses, it may, and no more.
                let _ = self.store.save(&self.all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(folder: &tempfile::TempDir) -> Shares {
        Shares::load(Store::new(folder.path(), "shares.json"), 0).unwrap()
    }

    fn wish(count: Option<u32>, lifetime: Option<u64>) -> Wish {
        Wish { user: "alice".to_owned(), path: "a/b".to_owned(), count, lifetime, ..Wish::default() }
    }

    fn part(from: u8, size: u64, length: u64) -> Part {
        let address = IpAddr::from([192, 0, 2, from]);
        Part { address, path: String::new(), version: "v".to_owned(), size, length }
    }

    #[test]
    fn parts_of_one_download_count_once_and_the_next_download_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut shares = shares(&folder);
        let (_, id) = shares.make(wish(Some(2), None), 0).unwrap();
        let size = 100 << 20;
        // As aria2 does: the whole first, then seven parts of it at the same time.
        let whole = shares.claim(&id, &part(1, size, size), 1).unwrap().unwrap();
        let others: Vec<_> =
            (0..7).map(|_| shares.claim(&id, &part(1, size, size / 8), 1).unwrap().unwrap()).collect();
        shares.settle(&whole, size / 8, 2);
        others.iter().for_each(|claim| shares.settle(claim, size / 8, 2));
        assert_eq!(shares.of("alice", 2).next().unwrap().used, 1);
        let second = shares.claim(&id, &part(1, size, size), 3).unwrap().unwrap();
        shares.settle(&second, size / 2, 4);
        let rest = shares.claim(&id, &part(1, size, size / 2), 5).unwrap().unwrap();
        shares.settle(&rest, size / 2, 6);
        assert_eq!(shares.of("alice", 2).next().unwrap().used, 2);
        assert!(shares.claim(&id, &part(1, size, 1), 7).unwrap().is_none(), "once too often");
        let mut again = Shares::load(Store::new(folder.path(), "shares.json"), 7).unwrap();
        assert!(again.claim(&id, &part(1, size, 1), 7).unwrap().is_none(), "after a restart too");
        assert!(shares.claim(&id, &part(2, size, 1), 7).unwrap().is_none());
    }

    #[test]
    fn a_download_cannot_be_stretched_over_the_whole_network_or_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut shares = shares(&folder);
        let (_, id) = shares.make(wish(Some(1), None), 0).unwrap();
        let size = 10 << 20;
        assert!(shares.claim(&id, &part(1, size, size), 1).unwrap().is_some());
        assert!(shares.claim(&id, &part(2, size, size), 1).unwrap().is_none(), "another address");
        assert!(shares.claim(&id, &part(1, size, size), 1).unwrap().is_some());
        assert!(shares.claim(&id, &part(1, size, size), 1).unwrap().is_none(), "more than twice");
    }

    #[test]
    fn shares_survive_a_restart_end_in_time_and_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = shares(&folder);
        let (token, id) = first.make(wish(Some(3), Some(100)), 0).unwrap();
        let (other, other_id) = first.make(wish(None, None), 0).unwrap();
        first.claim(&id, &part(1, 5, 5), 1).unwrap().unwrap();
        let text = std::fs::read_to_string(folder.path().join("shares.json")).unwrap();
        assert!(!text.contains(&token), "only digests are kept");
        let mut again = shares(&folder);
        assert_eq!(again.find(&token, 99).unwrap().used, 1);
        assert!(again.find(&token, 100).is_none(), "over");
        assert!(!again.remove("bob", &other_id).unwrap(), "not his");
        assert!(again.remove("alice", &other_id).unwrap());
        assert!(again.find(&other, 1).is_none() && shares(&folder).find(&other, 1).is_none());
    }
}
