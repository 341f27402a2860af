//! The messages of the control conversation, which runs inside SSH: one JSON object a line.
//!
//! Unknown fields are ignored, so that either side may grow. Every list and string from the peer is bounded by
//! [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES) before it is parsed.

use serde::{Deserialize, Serialize};

use super::after::{AfterTransfer, StoredFiles};
use super::path_text::PathText;
use super::rate_terms::{RateGrant, RateTerms};
use super::selection::{Feature, Selection, Sources, known_features};
use super::token::Token;
use crate::dscp::Dscp;
use crate::stats::Limits;
use crate::units::Rate;
use crate::verdict::Verdicts;

/// What the client says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// First message: versions, direction, paths and wishes.
    Offer(Box<Offer>),
    /// Follows an offer of a download whose sources are told apart from it.
    Sources(Sources),
    /// Other rate settings are wished for from now on.
    SetRate(RateTerms),
    /// What the receiving client has stored; comes before its outcome, if the offer holds `after`.
    Stored(StoredFiles),
    /// What the receiving client needs of the next files.
    Verdicts(Verdicts),
    /// How the transfer ended as the client sees it. Sent by the receiving client when all is on disk.
    Outcome(Outcome),
    /// The client gives up.
    Cancel(Cancel),
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// Answer to an acceptable offer.
    Agreement(Box<Agreement>),
    /// Answer to an offer that cannot be met. The conversation ends.
    Refusal(Refusal),
    /// The rate settings in force from now on: the answer to [`ClientMessage::SetRate`], or a change of what the server
    /// allows.
    Rate(RateGrant),
    /// What the receiving server has stored; comes before its outcome, if the offer holds `after`.
    Stored(StoredFiles),
    /// What the receiving server needs of the next files.
    Verdicts(Verdicts),
    /// How the transfer ended as the server sees it. The conversation ends.
    Outcome(Outcome),
    /// The server gives up.
    Cancel(Cancel),
}

/// Which way the data goes, named from the client's chair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Client to server.
    Upload,
    /// Server to client.
    Download,
}

/// How the sending rate is chosen; the names are ascp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RatePolicy {
    /// The target rate, whatever the path says.
    Fixed,
    /// As fair, with twice the share.
    High,
    /// Fills the path and keeps the queue short.
    #[default]
    Fair,
    /// As fair, with a tenth of the share.
    Low,
}

impl RatePolicy {
    /// Its share of what several transfers have together.
    #[must_use]
    pub const fn share(self) -> f64 {
        match self {
            Self::High => 2.0,
            Self::Fair | Self::Fixed => 1.0,
            Self::Low => 0.1,
        }
    }
}

/// The cipher that seals the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// AES with a 128-bit key in Galois counter mode.
    #[serde(rename = "aes-128-gcm")]
    Aes128Gcm,
    /// AES with a 256-bit key in Galois counter mode.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439), for machines without AES instructions.
    #[serde(rename = "chacha20-poly1305")]
    Chacha20Poly1305,
}

/// The digest taken of each file in transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Digest {
    /// BLAKE3, 32 bytes, equal to what `b3sum` prints.
    #[default]
    Blake3,
    /// None: only the AEAD tags of the datagrams guard the content.
    None,
}

/// What happens to files that stand at the destination; the names are ascp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Overwrite {
    /// They are replaced.
    #[default]
    #[serde(rename = "always")]
    Always,
    /// They stay.
    #[serde(rename = "never")]
    Never,
    /// They are replaced if they differ from the source, as far as the resume check looks.
    #[serde(rename = "diff")]
    Diff,
    /// They are replaced if they are older than the source.
    #[serde(rename = "older")]
    Older,
    /// They are replaced if they differ and are older.
    #[serde(rename = "diff+older")]
    DiffOlder,
}

/// How what is there of a file is checked before it is taken for a part of it; the levels are ascp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(try_from = "u8", into = "u8")]
pub enum ResumeCheck {
    /// Not at all: every file comes whole.
    #[default]
    None,
    /// Size and time of the source.
    Attributes,
    /// These, and at the end the digest of the whole file.
    Digest,
    /// These, and what is there is read again first.
    Reread,
}

impl TryFrom<u8> for ResumeCheck {
    type Error = &'static str;

    fn try_from(level: u8) -> Result<Self, &'static str> {
        match level {
            0 => Ok(Self::None),
            1 => Ok(Self::Attributes),
            2 => Ok(Self::Digest),
            3 => Ok(Self::Reread),
            _ => Err("expected a resume level, 0 to 3"),
        }
    }
}

impl From<ResumeCheck> for u8 {
    fn from(check: ResumeCheck) -> Self {
        match check {
            ResumeCheck::None => 0,
            ResumeCheck::Attributes => 1,
            ResumeCheck::Digest => 2,
            ResumeCheck::Reread => 3,
        }
    }
}

const fn is_default_overwrite(overwrite: &Overwrite) -> bool {
    matches!(overwrite, Overwrite::Always)
}

const fn is_no_resume(check: &ResumeCheck) -> bool {
    matches!(check, ResumeCheck::None)
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// First message of the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Protocol versions the client speaks, best first.
    pub versions: Vec<u32>,
    /// Program and version, for logs.
    pub program: String,
    /// Which way the data goes.
    pub direction: Direction,
    /// Download: the paths wanted, below the docroot. Upload: empty.
    #[serde(default)]
    pub sources: Vec<PathText>,
    /// Upload: how many sources come, and whether they come into a folder.
    #[serde(default)]
    pub source_count: u32,
    /// Upload: where to, below the docroot.
    #[serde(default)]
    pub destination: PathText,
    /// Upload: the destination is a folder, make it if missing (`-d`).
    #[serde(default)]
    pub create_destination: bool,
    /// Keep modification and access times (`-p`).
    #[serde(default)]
    pub preserve_times: bool,
    /// How the rate is chosen.
    #[serde(default)]
    pub policy: RatePolicy,
    /// Target rate; none means: find the capacity of the path.
    #[serde(default)]
    pub target_rate: Option<Rate>,
    /// Rate below which congestion does not push the sender.
    #[serde(default)]
    pub min_rate: Option<Rate>,
    /// Ciphers the client can use, best first. Those that a newer peer knows are passed over.
    #[serde(deserialize_with = "known_ciphers")]
    pub ciphers: Vec<Cipher>,
    /// Digest wanted.
    #[serde(default)]
    pub digest: Digest,
    /// UDP port wished for (`-O`).
    #[serde(default)]
    pub udp_port: Option<u16>,
    /// DSCP that the server is asked to put on what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// What happens to files that stand at the destination.
    #[serde(default, skip_serializing_if = "is_default_overwrite")]
    pub overwrite: Overwrite,
    /// How unfinished files are continued.
    #[serde(default, skip_serializing_if = "is_no_resume")]
    pub resume: ResumeCheck,
    /// Upload: the client can go by verdicts. Download: it will give them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub verdicts: bool,
    /// Upload: an earlier attempt was told that the single source gets the destination's name. So it shall be again,
    /// although a folder may stand there by now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub renamed: bool,
    /// Upload: names that the sources will have below the destination, by which the server sees whether anything of
    /// them can be there. None: they are too many to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<PathText>,
    /// What the client understands beyond the first programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "known_features")]
    pub features: Vec<Feature>,
    /// Download: what of the sources is sent. None: all of them, under their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Box<Selection>>,
    /// What the application behind the transfer shows to be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// What happens to the sources afterwards. None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Box<AfterTransfer>>,
    /// The client's half of the session's secret.
    pub secret: SecretHalf,
}

impl Offer {
    /// The rate settings wished for.
    #[must_use]
    pub const fn rate(&self) -> RateTerms {
        RateTerms { policy: self.policy, target_rate: self.target_rate, min_rate: self.min_rate }
    }
}

/// What is read of an offer before all else, so that a peer of another version is told the versions.
#[derive(Debug, Deserialize)]
pub struct OfferedVersions {
    /// Protocol versions the client speaks.
    pub versions: Vec<u32>,
}

fn known_ciphers<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Cipher>, D::Error> {
    let names = Vec::<serde_json::Value>::deserialize(deserializer)?;
    Ok(names.into_iter().filter_map(|name| serde_json::from_value(name).ok()).collect())
}

/// The server's answer to an acceptable offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Protocol version chosen from the offer.
    pub version: u32,
    /// Program and version, for logs.
    pub program: String,
    /// Identifies the session in logs and names of partial files: 16 hexadecimal digits.
    pub session: String,
    /// Connection id in the header of each datagram: 48 bits.
    pub connection_id: u64,
    /// Cipher chosen from the offer.
    pub cipher: Cipher,
    /// Digest chosen.
    #[serde(default)]
    pub digest: Digest,
    /// Where the server's UDP socket is.
    pub udp: UdpEndpoint,
    /// Rate policy granted.
    pub policy: RatePolicy,
    /// Target rate granted; none means unlimited.
    #[serde(default)]
    pub target_rate: Option<Rate>,
    /// Minimum rate granted.
    #[serde(default)]
    pub min_rate: Option<Rate>,
    /// DSCP of what the server sends; none is best effort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// The receiver says what it needs of each file, and the sender goes by it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub verdicts: bool,
    /// Upload: the single source gets the destination's name.
    #[serde(default, skip_serializing_if = "is_false")]
    pub renamed: bool,
    /// What both sides understand beyond the first programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "known_features")]
    pub features: Vec<Feature>,
    /// Where TLS connections go; none without that carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<HttpsEndpoint>,
    /// What the server changed in the offer and why, one sentence each, for the user.
    #[serde(default)]
    pub changes: Vec<String>,
    /// The server's half of the session's secret.
    pub secret: SecretHalf,
}

impl Agreement {
    /// The rate settings granted.
    #[must_use]
    pub const fn rate(&self) -> RateTerms {
        RateTerms { policy: self.policy, target_rate: self.target_rate, min_rate: self.min_rate }
    }
}

/// Where TLS connections of a session go, and how server and client recognise each other there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpsEndpoint {
    /// TCP port of the server's HTTPS.
    pub port: u16,
    /// SHA-256 of its certificate in DER form.
    pub certificate_sha256: SecretHalf,
    /// Makes the proof that each connection shows, once.
    pub token: SecretHalf,
    /// `host` or `host:port` of a proxy in front of the server, whose certificate an authority vouches for; used instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// Where datagrams go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpEndpoint {
    /// The server's UDP port.
    pub port: u16,
    /// Addresses to try; empty means the address that SSH was reached on, which no NAT has to rewrite.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// 32 bytes of one side's randomness, as hexadecimal text; never shown, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHalf([u8; 32]);

impl SecretHalf {
    /// Wraps 32 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SecretHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHalf(..)")
    }
}

impl TryFrom<String> for SecretHalf {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = || "a secret must be 64 hexadecimal digits".to_owned();
        let text = zeroize::Zeroizing::new(text);
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl From<SecretHalf> for String {
    fn from(secret: SecretHalf) -> Self {
        secret.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What kind of trouble a refusal, a failed file or a cancelled session is. The client's exit status follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The peer broke the protocol.
    Protocol,
    /// No common protocol version or cipher.
    Incompatible,
    /// No such file or folder.
    NotFound,
    /// The account or the permissions of the user do not allow it.
    PermissionDenied,
    /// The path leaves the docroot.
    OutsideDocroot,
    /// The destination cannot hold what is sent: a file where a folder is needed, or the reverse.
    WrongKind,
    /// The disk is full.
    DiskFull,
    /// Reading or writing failed.
    Disk,
    /// The content changed while it was read.
    SourceChanged,
    /// The digests of the two sides differ.
    DigestMismatch,
    /// No UDP port could be opened.
    UdpPort,
    /// No datagram of the peer arrives.
    UdpSilent,
    /// The peer is gone.
    PeerLost,
    /// A user interrupted the transfer.
    Interrupted,
    /// A limit of the server is reached.
    Limit,
    /// Another transfer is at work on it.
    Busy,
    /// A defect of this program.
    Internal,
    /// A kind that a newer peer knows.
    #[serde(other)]
    Other,
}

/// The server's answer to an offer that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Kind of trouble.
    pub trouble: Trouble,
    /// What failed, on what.
    pub message: String,
    /// What to do about it.
    #[serde(default)]
    pub remedy: String,
}

/// One side gives up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Kind of trouble.
    pub trouble: Trouble,
    /// What failed.
    pub message: String,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Outcome {
    /// Regular files that arrived whole.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already, or were not to be replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_bytes: u64,
    /// Bytes that were there of files that were continued.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed_bytes: u64,
    /// Entries that failed.
    pub failed: u64,
    /// The first failures, at most [`MAX_REPORTED_FAILURES`].
    #[serde(default)]
    pub failures: Vec<Failure>,
    /// What the sending side counted, if it is the one that speaks.
    #[serde(default)]
    pub sent: Option<SentCounters>,
}

/// What the sending side counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SentCounters {
    /// Datagrams sent.
    pub packets: u64,
    /// Datagrams lost.
    pub lost_packets: u64,
    /// Bytes sent more than once.
    pub retransmitted_bytes: u64,
    /// What held the sender back, and how long.
    #[serde(default)]
    pub limits: Limits,
}

/// How many failures an [`Outcome`] lists; the rest is only counted.
pub const MAX_REPORTED_FAILURES: usize = 100;

/// One entry that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its path as it stands in the manifest.
    pub path: PathText,
    /// Kind of trouble.
    pub trouble: Trouble,
    /// What failed.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::super::encode_line;
    use super::*;

    fn ones() -> String {
        "01".repeat(32)
    }

    fn text<M: Serialize>(message: &M) -> String {
        String::from_utf8(encode_line(message)).unwrap()
    }

    fn offer() -> Offer {
        Offer {
            versions: vec![1],
            program: "haul 0.1.0".into(),
            direction: Direction::Download,
            sources: vec![PathText::new(*b"a/\xff%")],
            source_count: 1,
            destination: PathText::default(),
            create_destination: false,
            preserve_times: true,
            policy: RatePolicy::Fair,
            target_rate: Some(Rate::from_bps(300_000_000)),
            min_rate: None,
            ciphers: vec![Cipher::Aes128Gcm, Cipher::Chacha20Poly1305],
            digest: Digest::Blake3,
            udp_port: None,
            dscp: None,
            overwrite: Overwrite::Always,
            resume: ResumeCheck::None,
            verdicts: false,
            renamed: false,
            names: Vec::new(),
            features: Vec::new(),
            selection: None,
            token: None,
            after: None,
            secret: SecretHalf::new([1; 32]),
        }
    }

    fn agreement() -> Agreement {
        Agreement {
            version: 1,
            program: "hauld 0.1.0".into(),
            session: "00000000deadbeef".into(),
            connection_id: 7,
            cipher: Cipher::Aes256Gcm,
            digest: Digest::None,
            udp: UdpEndpoint { port: 33001, addresses: vec!["192.0.2.1".into()] },
            policy: RatePolicy::Fixed,
            target_rate: Some(Rate::from_bps(1)),
            min_rate: None,
            dscp: None,
            https: None,
            verdicts: false,
            renamed: false,
            features: Vec::new(),
            changes: vec!["so".into()],
            secret: SecretHalf::new([1; 32]),
        }
    }

    #[test]
    fn a_token_stands_before_the_secret_and_only_where_there_is_one() {
        let token = Token::try_from("ATM2_x".to_owned()).ok();
        let with = text(&ClientMessage::Offer(Box::new(Offer { token, ..offer() })));
        let without = text(&ClientMessage::Offer(Box::new(offer())));
        assert_eq!(with.replace(r#""token":"ATM2_x","#, ""), without);
        assert!(with.contains(r#""token":"ATM2_x","secret":"#), "{with}");
        let ClientMessage::Offer(read) = serde_json::from_str(&with).unwrap() else { panic!("no offer") };
        assert_eq!(read.token.unwrap().as_str(), "ATM2_x");
    }

    #[test]
    fn the_offer_is_pinned() {
        let message = ClientMessage::Offer(Box::new(offer()));
        let expected = format!(
            r#"{{"type":"offer","versions":[1],"program":"haul 0.1.0","direction":"download","sources":["a/%FF%25"],"source_count":1,"destination":"","create_destination":false,"preserve_times":true,"policy":"fair","target_rate":300000000,"min_rate":null,"ciphers":["aes-128-gcm","chacha20-poly1305"],"digest":"blake3","udp_port":null,"secret":"{}"}}
"#,
            ones()
        );
        assert_eq!(text(&message), expected);
        assert_eq!(serde_json::from_str::<ClientMessage>(&expected).unwrap(), message);
        let least = format!(
            r#"{{"type":"offer","versions":[1],"program":"x","direction":"upload","ciphers":[],"secret":"{}"}}"#,
            ones()
        );
        assert!(serde_json::from_str::<ClientMessage>(&least).is_ok(), "what has a default may be left out");
        let newer = expected.replace("aes-128-gcm", "cipher-of-2031");
        let ClientMessage::Offer(newer) = serde_json::from_str(&newer).unwrap() else { panic!("no offer") };
        assert_eq!(newer.ciphers, [Cipher::Chacha20Poly1305], "unknown ciphers are passed over");
    }

    #[test]
    fn the_agreement_is_pinned() {
        let message = ServerMessage::Agreement(Box::new(agreement()));
        let expected = format!(
            r#"{{"type":"agreement","version":1,"program":"hauld 0.1.0","session":"00000000deadbeef","connection_id":7,"cipher":"aes-256-gcm","digest":"none","udp":{{"port":33001,"addresses":["192.0.2.1"]}},"policy":"fixed","target_rate":1,"min_rate":null,"changes":["so"],"secret":"{}"}}
"#,
            ones()
        );
        assert_eq!(text(&message), expected);
        assert_eq!(serde_json::from_str::<ServerMessage>(&expected).unwrap(), message);
    }

    #[test]
    fn refusal_and_outcome_are_pinned() {
        let refusal = ServerMessage::Refusal(Refusal {
            trouble: Trouble::OutsideDocroot,
            message: "no".into(),
            remedy: "go".into(),
        });
        let failure = Failure {
            path: PathText::new(*b"p"),
            trouble: Trouble::DigestMismatch,
            message: "differs".into(),
        };
        let limits = Limits { network: 3, sender_disk: 4, ..Limits::default() };
        let sent = Some(SentCounters { packets: 5, lost_packets: 1, retransmitted_bytes: 9, limits });
        let outcome = ServerMessage::Outcome(Outcome {
            files: 1,
            bytes: 2,
            failed: 1,
            failures: vec![failure],
            sent,
            ..Outcome::default()
        });
        for (message, expected) in [
            (refusal, r#"{"type":"refusal","trouble":"outside_docroot","message":"no","remedy":"go"}"#),
            (
                outcome,
                r#"{"type":"outcome","files":1,"bytes":2,"failed":1,"failures":[{"path":"p","trouble":"digest_mismatch","message":"differs"}],"sent":{"packets":5,"lost_packets":1,"retransmitted_bytes":9,"limits":{"network":3,"target_rate":0,"sender_disk":4,"sender_cpu":0,"receiver_disk":0,"receiver_cpu":0,"peer_credit":0}}}"#,
            ),
        ] {
            assert_eq!(text(&message).trim_end(), expected);
            assert_eq!(serde_json::from_str::<ServerMessage>(expected).unwrap(), message);
        }
    }

    #[test]
    fn secrets_are_never_shown_and_must_be_whole() {
        assert_eq!(format!("{:?}", SecretHalf::new([1; 32])), "SecretHalf(..)");
        for text in ["", "01", &"0g".repeat(32), &"é".repeat(32)] {
            assert!(SecretHalf::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
