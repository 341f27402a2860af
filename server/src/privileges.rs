//! Taking the rights of a session, for good: groups, then gid, then uid, then a proof that there is no way back.
//! Called before any thread exists and before a byte from the network is read. Uid 0 and gid 0 are refused.

use std::ffi::CString;

use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Uid, User, getgrouplist, getgroups, getresgid, getresuid, initgroups, setresgid, setresuid,
};
use thiserror::Error;

/// Why the rights are not in place. The worker then ends.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// No such account.
    #[error("no account `{account}` in the account database")]
    NoAccount {
        /// Its name.
        account: String,
    },
    /// Root is never a transfer user.
    #[error("the account `{account}` has {what}, which no transfer may use")]
    TooPowerful {
        /// Its name.
        account: String,
        /// The right that is too much.
        what: &'static str,
    },
    /// Only root can become somebody else.
    #[error("cannot become `{account}`: the server runs as uid {uid}, not as root")]
    NotRoot {
        /// Its name.
        account: String,
        /// Who the process is.
        uid: u32,
    },
    /// A system call failed.
    #[error("{call} failed")]
    System {
        /// Which one.
        call: &'static str,
        /// The cause.
        source: nix::Error,
    },
    /// The proof failed.
    #[error("the change to `{account}` is not final: {what}")]
    NotFinal {
        /// Its name.
        account: String,
        /// What shows it.
        what: &'static str,
    },
}

impl PrivilegeError {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoAccount { .. } | Self::TooPowerful { .. } => {
                "name an ordinary account with `account` in [[user]]"
            }
            Self::NotRoot { .. } => "start hauld as root, or leave `account` out",
            Self::System { .. } | Self::NotFinal { .. } => {
                "check that the service keeps CAP_SETUID and CAP_SETGID and sets no securebits"
            }
        }
    }
}

/// Becomes an account, irrevocably.
///
/// # Errors
/// If the account is missing or too powerful, or the change cannot be made and proved.
pub fn become_account(name: &str) -> Result<(), PrivilegeError> {
    let user = find(name)?;
    refuse_root(name, user.uid, user.gid)?;
    let current = Uid::effective();
    if current.is_root() {
        let groups = switch(&user)?;
        prove(&user, &groups)?;
    } else if current != user.uid {
        return Err(PrivilegeError::NotRoot { account: name.to_owned(), uid: current.as_raw() });
    }
    close_ways_up()
}

/// Keeps the account of the process, which must not be root's.
///
/// # Errors
/// If the process is root, or the system refuses the restrictions.
pub fn keep_own_account() -> Result<(), PrivilegeError> {
    let uid = Uid::effective();
    if uid.is_root() || Uid::current().is_root() {
        return Err(PrivilegeError::TooPowerful { account: "root".to_owned(), what: "uid 0" });
    }
    close_ways_up()
}

/// The account of a name, refused if it may never be a transfer user.
pub(crate) fn find(name: &str) -> Result<User, PrivilegeError> {
    User::from_name(name)
        .map_err(|source| PrivilegeError::System { call: "getpwnam_r", source })?
        .ok_or_else(|| PrivilegeError::NoAccount { account: name.to_owned() })
}

/// Uid 0 and gid 0 are no transfer users.
pub(crate) fn refuse_root(name: &str, uid: Uid, gid: Gid) -> Result<(), PrivilegeError> {
    let what = match (uid.as_raw(), gid.as_raw()) {
        (0, _) => "uid 0",
        (_, 0) => "gid 0",
        _ => return Ok(()),
    };
    Err(PrivilegeError::TooPowerful { account: name.to_owned(), what })
}

/// Groups before gid before uid: afterwards there is no right left to change them. Returns the groups taken.
fn switch(user: &User) -> Result<Vec<Gid>, PrivilegeError> {
    let failed = |call| move |source| PrivilegeError::System { call, source };
    let name = CString::new(user.name.clone())
        .map_err(|_| PrivilegeError::NoAccount { account: user.name.clone() })?;
    let groups = getgrouplist(&name, user.gid).map_err(failed("getgrouplist"))?;
    if groups.iter().any(|group| group.as_raw() == 0) {
        return Err(PrivilegeError::TooPowerful {
            account: user.name.clone(),
            what: "gid 0 among its groups",
        });
    }
    initgroups(&name, user.gid).map_err(failed("initgroups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(failed("setresgid"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(failed("setresuid"))?;
    Ok(groups)
}

/// Looks at every id, and tries the way back, which must fail.
fn prove(user: &User, groups: &[Gid]) -> Result<(), PrivilegeError> {
    let not_final = |what| Err(PrivilegeError::NotFinal { account: user.name.clone(), what });
    let failed = |call| move |source| PrivilegeError::System { call, source };
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok()
        || setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).is_ok()
    {
        return not_final("root's rights came back when asked for");
    }
    let uids = getresuid().map_err(failed("getresuid"))?;
    if [uids.real, uids.effective, uids.saved] != [user.uid; 3] {
        return not_final("a user id differs");
    }
    let gids = getresgid().map_err(failed("getresgid"))?;
    if [gids.real, gids.effective, gids.saved] != [user.gid; 3] {
        return not_final("a group id differs");
    }
    let present = getgroups().map_err(failed("getgroups"))?;
    if !present.iter().all(|group| groups.contains(group) || *group == user.gid) {
        return not_final("a supplementary group was kept");
    }
    Ok(())
}

/// No program started from here gains rights, nobody of the same account reads our memory, files are 0644 at most.
fn close_ways_up() -> Result<(), PrivilegeError> {
    prctl::set_no_new_privs()
        .map_err(|source| PrivilegeError::System { call: "PR_SET_NO_NEW_PRIVS", source })?;
    prctl::set_dumpable(false)
        .map_err(|source| PrivilegeError::System { call: "PR_SET_DUMPABLE", source })?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_no_transfer_user() {
        let refused = become_account("root");
        assert!(matches!(refused, Err(PrivilegeError::TooPowerful { .. })), "{refused:?}");
        assert!(refuse_root("wheel", Uid::from_raw(1000), Gid::from_raw(0)).is_err());
        assert!(refuse_root("alice", Uid::from_raw(1000), Gid::from_raw(1000)).is_ok());
    }

    #[test]
    fn an_unknown_account_is_named() {
        let refused = become_account("no-such-account-here").unwrap_err();
        assert!(refused.to_string().contains("no-such-account-here"));
    }
}
