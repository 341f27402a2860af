//! Host keys on record: OpenSSH's `known_hosts` files, read with all their markers, and extended by one line at a time.
//!
//! It fails closed: a file that is there and cannot be read ends the run, it does not make every host unknown. Lines of
//! `@cert-authority` are passed over, because host certificates are not supported yet. Not here: what a verdict means.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use ring::hmac;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use crate::error::ClientError;
use crate::ssh_config_lines::wildcard;

/// A file larger than this is not read.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The files with host keys; new keys go to the first.
#[derive(Debug, Clone)]
pub struct KnownHosts {
    files: Vec<PathBuf>,
}

/// What the files say about a host and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This key is on record for this host.
    Known,
    /// Nothing is on record for this host.
    Unknown,
    /// Another key is on record.
    Changed(Record),
    /// This key is marked as stolen.
    Revoked(Record),
}

/// One key on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Kind and fingerprint.
    pub key: String,
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// One line that names a host, parsed.
struct Entry {
    mark: Mark,
    key: PublicKey,
    record: Record,
}

/// What a line says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It is the host's.
    Host,
    /// Nobody may use it: neither as a host's nor as an authority's.
    Revoked,
    /// It signs certificates of the host.
    Authority,
}

impl KnownHosts {
    /// Over these files; those that are missing are empty.
    #[must_use]
    pub const fn new(files: Vec<PathBuf>) -> Self {
        Self { files }
    }

    /// The file that new keys are added to.
    #[must_use]
    pub fn writable(&self) -> Option<&Path> {
        self.files.first().map(PathBuf::as_path)
    }

    /// What is on record for a host and the key it presents.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> Result<Verdict, ClientError> {
        let entries = self.entries(&canonical(host, port))?;
        // OpenSSH also trusts a key on record for the name without a port.
        let portless = if port == 22 { Vec::new() } else { self.entries(&canonical(host, 22))? };
        let same = |entry: &&Entry| entry.key.key_data() == key.key_data();
        let marked = |mark| move |entry: &&Entry| entry.mark == mark;
        if let Some(entry) = entries.iter().chain(&portless).filter(same).find(marked(Mark::Revoked)) {
            return Ok(Verdict::Revoked(entry.record.clone()));
        }
        if entries.iter().chain(&portless).filter(same).any(|entry| entry.mark == Mark::Host) {
            return Ok(Verdict::Known);
        }
        let mut others = entries.iter().filter(marked(Mark::Host));
        // The record to show is the one of the same kind of key, if there is one.
        let alike = others.clone().find(|entry| entry.key.algorithm() == key.algorithm());
        let changed = alike.or_else(|| others.next());
        Ok(changed.map_or(Verdict::Unknown, |entry| Verdict::Changed(entry.record.clone())))
    }

    /// The kinds of key on record for a host, so that the server is asked for one of them.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn algorithms(&self, host: &str, port: u16) -> Result<Vec<Algorithm>, ClientError> {
        let mut entries = self.entries(&canonical(host, port))?;
        if entries.is_empty() {
            entries = self.entries(&canonical(host, 22))?;
        }
        let of_host = entries.iter().filter(|entry| entry.mark == Mark::Host);
        Ok(of_host.map(|entry| entry.key.algorithm()).collect())
    }

    /// The keys whose certificates for this host are trusted.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn authorities(&self, host: &str, port: u16) -> Result<Vec<PublicKey>, ClientError> {
        let mut entries = self.entries(&canonical(host, port))?;
        if port != 22 {
            entries.extend(self.entries(&canonical(host, 22))?);
        }
        let revoked = |key: &PublicKey| {
            entries.iter().any(|entry| entry.mark == Mark::Revoked && entry.key.key_data() == key.key_data())
        };
        let authorities = entries.iter().filter(|entry| entry.mark == Mark::Authority);
        Ok(authorities.map(|entry| entry.key.clone()).filter(|key| !revoked(key)).collect())
    }

    /// Adds a key under a lock, unless another process was quicker. Returns what is then on record.
    ///
    /// # Errors
    /// If there is no file to write to, or it cannot be written.
    pub fn add(&self, host: &str, port: u16, key: &PublicKey) -> Result<Verdict, ClientError> {
        let Some(path) = self.writable() else {
            let source = io::Error::new(io::ErrorKind::NotFound, "no home directory");
            return Err(ClientError::KnownHosts {
                path: PathBuf::from("known_hosts"),
                doing: "write",
                source,
            });
        };
        let failed = |source| ClientError::KnownHosts { path: path.to_owned(), doing: "write", source };
        let file = open_for_append(path).map_err(failed)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed(io::Error::from(errno)))?;
        let verdict = self.check(host, port, key)?;
        if verdict != Verdict::Unknown {
            return Ok(verdict);
        }
        let mut line = String::new();
        if !ends_with_newline(&mut file).map_err(failed)? {
            line.push('\n');
        }
        let mut bare = key.clone();
        bare.set_comment("");
        let text = bare.to_openssh().map_err(|error| failed(io::Error::other(error)))?;
        line.push_str(&format!("{} {}\n", canonical(host, port), text.trim()));
        file.write_all(line.as_bytes()).map_err(failed)?;
        Ok(Verdict::Known)
    }

    fn entries(&self, name: &str) -> Result<Vec<Entry>, ClientError> {
        let mut entries = Vec::new();
        for path in &self.files {
            let failed = |source| ClientError::KnownHosts { path: path.clone(), doing: "read", source };
            let bytes = read_file(path).map_err(failed)?;
            let lines = bytes.split(|&byte| byte == b'\n').enumerate();
            entries.extend(lines.filter_map(|(at, line)| entry(line, name, path, at + 1)));
        }
        Ok(entries)
    }
}

/// The name under which a host is on record: lower case, with the port unless it is 22.
#[must_use]
pub fn canonical(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// Kind and fingerprint of a key, as ssh shows them.
#[must_use]
pub fn describe(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB"));
    }
    Ok(bytes)
}

fn open_for_append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Whether the file is empty or its last line is complete; an editor may have left it without a newline.
fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    // A device such as /dev/null has no end to look at.
    if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Reads a line: `[@marker] names type key [comment]`; none if it is not about `name`, or not usable.
fn entry(line: &[u8], name: &str, path: &Path, number: usize) -> Option<Entry> {
    let line = std::str::from_utf8(line).ok()?.trim();
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let mut first = words.next().filter(|word| !word.starts_with('#'))?;
    let mark = match first.strip_prefix('@') {
        None => Mark::Host,
        Some("revoked") => Mark::Revoked,
        Some("cert-authority") => Mark::Authority,
        // Markers we do not know.
        Some(_) => return None,
    };
    if mark != Mark::Host {
        first = words.next()?;
    }
    if !names_match(first, name) {
        return None;
    }
    let (kind, blob) = (words.next()?, words.next()?);
    match PublicKey::from_openssh(&format!("{kind} {blob}")) {
        Ok(key) => {
            let record = Record { key: describe(&key), path: path.to_owned(), line: number };
            Some(Entry { mark, key, record })
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), line = number, %error, "unusable line in known_hosts");
            None
        }
    }
}

/// Whether a names field is about `name`: a hash of it, or a list of patterns of which one fits and no negated one.
fn names_match(field: &str, name: &str) -> bool {
    if let Some(hashed) = field.strip_prefix("|1|") {
        return hash_matches(hashed, name);
    }
    let mut matched = false;
    for pattern in field.split(',') {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |rest| (true, rest));
        if wildcard(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// `salt|hash`, both base64: HMAC-SHA1 of the name with the salt as its key (OpenSSH `hostfile.c`). It hides names, it
/// guards nothing, so SHA-1 does no harm.
fn hash_matches(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let (Some(salt), Some(hash)) = (base64(salt), base64(hash)) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    hmac::verify(&key, name.as_bytes(), &hash).is_ok()
}

/// Reads base64 (RFC 4648) with its padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len());
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two keys made for this test; nobody has the private halves.
    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKXvPqkEhAj48tK9gMKRF896ms1IMf8m89dYdbOwpsie";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIaNI1kxQArwwf0t/Sk58jN0lYsQ6uxDSLirZuttiGkS";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn known(text: &str) -> (tempfile::TempDir, KnownHosts) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        fs::write(&file, text).unwrap();
        (folder, KnownHosts::new(vec![file]))
    }

    /// The line that ssh-keygen -H makes of a name.
    fn hashed(name: &str) -> String {
        let salt = [7_u8; 20];
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        format!("|1|{}|{}", encode(&salt), encode(hmac::sign(&key, name.as_bytes()).as_ref()))
    }

    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte))
                << (8 * (3 - chunk.len()));
            for at in 0..4 {
                let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize] as char;
                text.push(if at <= chunk.len() { digit } else { '=' });
            }
        }
        text
    }

    #[test]
    fn lines_are_read_with_their_markers() {
        let (a, b) = (A, B);
        for (n, (text, host, port, expected)) in [
            (format!("h {a}\n"), "h", 22, "known"),
            (format!("h {a} comment here\n"), "H", 22, "known"),
            (format!("[h]:33001 {a}\n"), "h", 33001, "known"),
            (format!("[h]:33001 {a}\n"), "h", 33002, "unknown"),
            (format!("h {a}\n"), "h", 33001, "known"),
            (format!("h {b}\n"), "h", 33001, "unknown"),
            (format!("h {b}\n"), "h", 22, "changed"),
            (format!("h {b}\nh {a}\n"), "h", 22, "known"),
            (format!("{} {a}\n", hashed("h")), "h", 22, "known"),
            (format!("{} {a}\n", hashed("[h]:33001")), "h", 33001, "known"),
            (format!("{} {b}\n", hashed("h")), "h", 22, "changed"),
            (format!("*.org,!bad.org {a}\n"), "good.org", 22, "known"),
            (format!("*.org,!bad.org {a}\n"), "bad.org", 22, "unknown"),
            (format!("a,h,b\t{a}\n"), "h", 22, "known"),
            (format!("@revoked * {a}\nh {a}\n"), "h", 22, "revoked"),
            (format!("h {a}\n@revoked h {a}\n"), "h", 22, "revoked"),
            (format!("@revoked h {b}\n"), "h", 22, "unknown"),
            (format!("@cert-authority * {a}\n"), "h", 22, "unknown"),
            (format!("# h {a}\n\n  \nbroken\nh ssh-ed25519 AAAA\n"), "h", 22, "unknown"),
            (format!("  h {a}\r\n"), "h", 22, "known"),
        ]
        .into_iter()
        .enumerate()
        {
            let (_folder, known) = known(&text);
            let word = match known.check(host, port, &key(A)).unwrap() {
                Verdict::Known => "known",
                Verdict::Unknown => "unknown",
                Verdict::Changed(_) => "changed",
                Verdict::Revoked(_) => "revoked",
            };
            assert_eq!(word, expected, "row {n}: {text}");
        }
    }

    #[test]
    fn authorities_are_those_of_the_host_that_are_not_revoked() {
        for (n, (text, port, expected)) in [
            (format!("@cert-authority h {A}\n"), 22, 1),
            (format!("@cert-authority h {A}\n"), 33001, 1),
            (format!("@cert-authority [h]:33001 {A}\n"), 33001, 1),
            (format!("@cert-authority [h]:33001 {A}\n"), 22, 0),
            (format!("@cert-authority *.org {A}\n"), 22, 0),
            (format!("@cert-authority * {A}\n@revoked * {A}\n"), 22, 0),
            (format!("@cert-authority * {A}\n@revoked * {B}\n"), 22, 1),
            (format!("h {A}\n"), 22, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let (_folder, known) = known(&text);
            assert_eq!(known.authorities("h", port).unwrap().len(), expected, "row {n}: {text}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_a_change() {
        let ecdsa = concat!(
            "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPfUyAgSvdXez913AvLXL3sEym8w",
            "J5d65/W2LyOxHHCs/I8S/h10MrHHXxLs6gYoQss9TrspPQ4xcD6wvbFD2GI="
        );
        let (_folder, known) = known(&format!("h {ecdsa}\n"));
        assert!(matches!(known.check("h", 22, &key(A)).unwrap(), Verdict::Changed(_)));
        assert_eq!(known.algorithms("h", 22).unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownHosts::new(vec![folder.path().to_owned()]);
        assert!(known.check("h", 22, &key(A)).is_err());
    }

    #[test]
    fn adding_is_one_line_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/.ssh/known_hosts");
        let known = KnownHosts::new(vec![file.clone()]);
        assert_eq!(known.add("H", 33001, &key(A)).unwrap(), Verdict::Known);
        assert_eq!(known.add("h", 33001, &key(A)).unwrap(), Verdict::Known);
        assert!(matches!(known.add("h", 33001, &key(B)).unwrap(), Verdict::Changed(_)));
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("[h]:33001 {A}\n"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        fs::write(&file, format!("x {B}")).unwrap();
        known.add("h", 22, &key(A)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("x {B}\nh {A}\n"));
    }

    #[test]
    fn the_record_to_mend_is_named() {
        let (_folder, known) = known(&format!("x {A}\nh {B}\n"));
        let Verdict::Changed(record) = known.check("h", 22, &key(A)).unwrap() else {
            panic!("no change seen")
        };
        assert_eq!(record.line, 2);
        assert!(record.key.starts_with("ssh-ed25519 SHA256:"), "{}", record.key);
    }
}
