//! The words that options take, and what they stand for in the protocol.

use clap::ValueEnum;
use haul_proto::control::{self, Cipher, Digest, RatePolicy};
use serde::Serialize;

/// `--policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The target rate whatever the path says; needs -l
    Fixed,
    /// A double share
    High,
    /// A fair share
    Fair,
    /// What others leave
    #[value(alias = "trickle")]
    Low,
}

/// `--cipher` and `-c`, with ascp's names as aliases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CipherName {
    /// AES, 128-bit key
    #[value(name = "aes-128-gcm", aliases = ["aes128", "aes128gcm", "aes128cfb", "aes-128", "aes-128-cfb"])]
    Aes128Gcm,
    /// AES, 256-bit key
    #[value(name = "aes-256-gcm", aliases = [
        "aes256", "aes256gcm", "aes256cfb", "aes-256", "aes-256-cfb",
        "aes192", "aes192gcm", "aes192cfb", "aes-192", "aes-192-cfb", "aes-192-gcm",
    ])]
    Aes256Gcm,
    /// For processors without AES instructions
    #[value(name = "chacha20-poly1305")]
    Chacha20Poly1305,
    /// As -T
    #[value(hide = true)]
    None,
}

/// `--digest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DigestName {
    /// BLAKE3
    Blake3,
    /// No digest of whole files
    None,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Upload
    Send,
    /// Download
    #[value(alias = "receive")]
    Recv,
}

/// `--overwrite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// Leave what is there
    Never,
    /// Replace it
    Always,
    /// Replace it if it differs, by the measure of -k
    #[default]
    Diff,
    /// Replace it if it differs and the source is newer
    #[value(name = "diff+older")]
    DiffOlder,
    /// Replace it if the source is newer
    Older,
}

impl From<Overwrite> for control::Overwrite {
    fn from(name: Overwrite) -> Self {
        match name {
            Overwrite::Never => Self::Never,
            Overwrite::Always => Self::Always,
            Overwrite::Diff => Self::Diff,
            Overwrite::DiffOlder => Self::DiffOlder,
            Overwrite::Older => Self::Older,
        }
    }
}

/// `--symbolic-links`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SymbolicLinks {
    /// Copy what they point to
    #[default]
    Follow,
    /// Copy the link itself
    Copy,
    /// Copy the link itself, also over a file
    #[value(name = "copy+force")]
    CopyForce,
    /// Leave them out
    Skip,
}

/// `--preserve-acls` and `--preserve-xattrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// On the file itself
    Native,
    /// In a file beside it
    Metafile,
    /// Not
    #[default]
    None,
}

/// `--file-manifest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ManifestKind {
    /// A list of the files that were transferred
    Text,
    /// None
    #[default]
    None,
}

/// `--file-crypt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileCrypt {
    /// On upload
    Encrypt,
    /// On download
    Decrypt,
}

/// `--file-checksum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChecksum {
    /// BLAKE3, which haul computes anyway
    Blake3,
    /// SHA-512
    #[value(name = "sha-512", alias = "sha512")]
    Sha512,
    /// SHA-384
    #[value(name = "sha-384", alias = "sha384")]
    Sha384,
    /// SHA-256
    #[value(name = "sha-256", alias = "sha256")]
    Sha256,
    /// SHA-1
    #[value(name = "sha1", alias = "sha-1")]
    Sha1,
    /// MD5
    Md5,
    /// None
    None,
}

/// `--carrier`: what carries the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum CarrierName {
    /// UDP where it passes
    #[default]
    Auto,
    /// UDP only
    Udp,
    /// TLS over TCP
    Https,
    /// The SSH connection
    Ssh,
}

/// `-y`: fallback to TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Off
    #[value(name = "0")]
    Off,
    /// When UDP does not pass
    #[value(name = "1")]
    On,
    /// At once
    #[value(name = "F", alias = "f")]
    Force,
}

/// `-w`: which way ascp measures before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Towards this machine
    R,
    /// Away from it
    F,
}

/// Values of `yes` and `no`, and of ascp's `0` and `1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    #[value(name = "yes", aliases = ["1", "true", "on"])]
    Yes,
    /// Off
    #[value(name = "no", aliases = ["0", "false", "off"])]
    No,
}

impl From<Policy> for RatePolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Fixed => Self::Fixed,
            Policy::High => Self::High,
            Policy::Fair => Self::Fair,
            Policy::Low => Self::Low,
        }
    }
}

impl CipherName {
    /// The cipher; none where ascp would send in the clear.
    #[must_use]
    pub const fn cipher(self) -> Option<Cipher> {
        match self {
            Self::Aes128Gcm => Some(Cipher::Aes128Gcm),
            Self::Aes256Gcm => Some(Cipher::Aes256Gcm),
            Self::Chacha20Poly1305 => Some(Cipher::Chacha20Poly1305),
            Self::None => None,
        }
    }
}

impl From<DigestName> for Digest {
    fn from(name: DigestName) -> Self {
        match name {
            DigestName::Blake3 => Self::Blake3,
            DigestName::None => Self::None,
        }
    }
}
