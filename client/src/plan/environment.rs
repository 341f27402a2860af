//! What the environment says: haul's names first, then ascp's. Secrets come this way, because other users of a machine
//! see command lines.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

/// A secret: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("set")
    }
}

/// The variables that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Environment {
    /// Password of the account, and passphrase of its keys: `HAUL_PASSWORD`, `ASPERA_SCP_PASS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Text of a private key: `HAUL_KEY`, `ASPERA_SCP_KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// Password of `--file-crypt`: `HAUL_FILE_PASSWORD`, `ASPERA_SCP_FILEPASS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_password: Option<Secret>,
    /// As `-W`: `HAUL_TOKEN`, `ASPERA_SCP_TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Password of the proxy: `HAUL_PROXY_PASSWORD`, `ASPERA_PROXY_PASS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_password: Option<Secret>,
    /// Text of the application for logs: `HAUL_COOKIE`, `ASPERA_SCP_COOKIE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The ssh that dials in haul's place: `HAUL_SSH_COMMAND`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "super::as_text")]
    pub ssh_command: Option<OsString>,
    /// Variables of ascp that are set and mean nothing here, and why.
    #[serde(skip)]
    pub without_meaning: Vec<(&'static str, &'static str)>,
}

/// Variables of ascp that mean nothing here.
const WITHOUT_MEANING: [(&str, &str); 4] = [
    ("ASPERA_SCP_LICENSE", "haul needs no licence"),
    ("ASPERA_SRC_PASS", "haul reads no object storage"),
    ("ASPERA_DST_PASS", "haul writes no object storage"),
    ("ASPERA_DEST_PASS", "haul writes no object storage"),
];

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    /// Reads it from `variable`. Empty variables count as absent.
    #[must_use]
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let first = |names: [&str; 2]| {
            names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()))
        };
        let secret = |names| first(names).map(|value| Secret::new(value.into_vec()));
        Self {
            password: secret(["HAUL_PASSWORD", "ASPERA_SCP_PASS"]),
            key: secret(["HAUL_KEY", "ASPERA_SCP_KEY"]),
            file_password: secret(["HAUL_FILE_PASSWORD", "ASPERA_SCP_FILEPASS"]),
            token: secret(["HAUL_TOKEN", "ASPERA_SCP_TOKEN"]),
            proxy_password: secret(["HAUL_PROXY_PASSWORD", "ASPERA_PROXY_PASS"]),
            cookie: first(["HAUL_COOKIE", "ASPERA_SCP_COOKIE"])
                .as_deref()
                .map(OsStr::to_string_lossy)
                .map(|text| text.into_owned()),
            ssh_command: first(["HAUL_SSH_COMMAND", "HAUL_SSH_COMMAND"]),
            without_meaning: WITHOUT_MEANING
                .into_iter()
                .filter(|(name, _)| variable(name).is_some())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haul_s_names_come_before_ascp_s_and_secrets_are_never_shown() {
        let variables = [
            ("ASPERA_SCP_PASS", "theirs"),
            ("HAUL_PASSWORD", "ours"),
            ("HAUL_TOKEN", ""),
            ("ASPERA_SCP_TOKEN", "ATM2_x"),
            ("ASPERA_SCP_COOKIE", "job 7"),
            ("ASPERA_SCP_LICENSE", "x"),
        ];
        let environment = Environment::of(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        });
        assert_eq!(environment.password.as_ref().unwrap().as_bytes(), b"ours");
        assert_eq!(environment.token.as_ref().unwrap().as_bytes(), b"ATM2_x");
        assert_eq!(environment.cookie.as_deref(), Some("job 7"));
        assert_eq!(environment.without_meaning, [("ASPERA_SCP_LICENSE", "haul needs no licence")]);
        let shown = format!("{environment:?} {}", serde_json::to_string(&environment).unwrap());
        assert!(!shown.contains("ours") && !shown.contains("ATM2"), "{shown}");
        assert!(shown.contains(r#""password":"set""#), "{shown}");
    }
}
