//! The configuration when none is given: an ordinary user serves the own home folder to the own keys.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::parse::{FilledTable, Origin};
use super::settings::{Section, Value};
use super::{Config, parse};
use crate::error::ServerError;
use crate::policy::Permissions;

/// The port that users of ascp have open already.
const SSH_PORT: u16 = 33001;

/// Makes the configuration of the account that runs the process.
pub(super) fn config() -> Result<Config, ServerError> {
    let uid = Uid::effective();
    if uid.is_root() {
        return Err(ServerError::RootWithoutConfig);
    }
    let user = User::from_uid(uid)
        .ok()
        .flatten()
        .filter(|user| user.dir.is_absolute())
        .ok_or_else(|| ServerError::NoOwnAccount { uid: uid.as_raw() })?;
    Ok(for_account(&user.name, &user.dir, std::env::var_os("XDG_STATE_HOME").map(PathBuf::from)))
}

fn for_account(name: &str, home: &Path, xdg_state_home: Option<PathBuf>) -> Config {
    // The rest, UDP ports and HTTPS, is as in an empty file.
    let (mut tables, _) = parse::parse("");
    let state_home =
        xdg_state_home.filter(|path| path.is_absolute()).unwrap_or_else(|| home.join(".local/state"));
    let listen = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, SSH_PORT)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, SSH_PORT)),
    ];
    for table in &mut tables {
        match table.section {
            Section::Top => table.set("state_dir", Value::Path(state_home.join("haul")), Origin::SingleUser),
            Section::Ssh => table.set("listen", Value::Addresses(listen.to_vec()), Origin::SingleUser),
            Section::Udp | Section::Https | Section::Limits | Section::User | Section::Schedule => {}
        }
    }
    let mut user = FilledTable::new(Section::User, None);
    for (key, value) in [
        ("name", Value::Name(name.to_owned())),
        ("docroot", Value::Path(home.to_owned())),
        ("authorized_keys", Value::Path(home.join(".ssh/authorized_keys"))),
        ("permissions", Value::Permissions(Permissions::ALL)),
    ] {
        user.set(key, value, Origin::SingleUser);
    }
    tables.push(user);
    Config::from_tables(tables, "the single-user mode".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_serves_the_own_home() {
        let config = for_account("bob", Path::new("/home/bob"), None);
        assert_eq!(config.state_dir, Path::new("/home/bob/.local/state/haul"));
        assert_eq!(config.ssh_listen.len(), 2);
        let user = config.users.first().unwrap();
        assert_eq!((user.name.as_str(), user.docroot.as_path()), ("bob", Path::new("/home/bob")));
        assert_eq!(user.authorized_keys.as_deref(), Some(Path::new("/home/bob/.ssh/authorized_keys")));
        assert_eq!((user.permissions, &user.account), (Permissions::ALL, &None));
        assert!(config.listens_by_default());
    }

    #[test]
    fn the_state_home_of_the_desktop_is_followed_if_absolute() {
        let config = for_account("bob", Path::new("/home/bob"), Some(PathBuf::from("/state")));
        assert_eq!(config.state_dir, Path::new("/state/haul"));
        let config = for_account("bob", Path::new("/home/bob"), Some(PathBuf::from("state")));
        assert_eq!(config.state_dir, Path::new("/home/bob/.local/state/haul"));
    }
}
