//! The bytes of an encrypted file, version 1: a header, then chunks of 64 KiB, each sealed by itself with AES-256-GCM.
//! Pure: no files, no passwords, no randomness.
//!
//! The nonce of a chunk is made of its content (an HMAC, as in synthetic-IV modes), its number and whether it is the
//! last. So the same content gives the same bytes, which an interrupted transfer needs in order to go on, and other
//! content under the same keys gets another nonce: a nonce never serves two contents, whatever happened to the source
//! in between. What repeats then shows: that two files with the same id have the same bytes at the same place.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use thiserror::Error;
use zeroize::Zeroizing;

/// What a file begins with.
const MAGIC: &[u8; 8] = b"HAULCRYP";

/// The only version, its only way to make keys, and the logarithm of the length of its chunks.
const VERSION: u8 = 1;
const ARGON2ID: u8 = 1;
const CHUNK_EXPONENT: u8 = 16;

/// Content of every chunk but the last.
pub const CHUNK_BYTES: usize = 1 << CHUNK_EXPONENT;

/// A chunk's nonce and tag.
const CHUNK_OVERHEAD: usize = NONCE_LEN + 16;

/// The header without its check.
const UNCHECKED_BYTES: usize = 72;

/// The header.
pub const HEADER_BYTES: usize = UNCHECKED_BYTES + 32;

/// A sealed chunk.
pub const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + CHUNK_OVERHEAD;

/// Why bytes are no encrypted file, or not to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Another kind of file.
    #[error("it is no encrypted file of haul")]
    Foreign,
    /// A format of later days.
    #[error("it is encrypted in version {found} of the format, this program knows version {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Numbers that this program refuses.
    #[error("its header asks for {memory_kib} KiB and {rounds} rounds of argon2id, more than is allowed")]
    Costs {
        /// Memory.
        memory_kib: u32,
        /// Rounds.
        rounds: u32,
    },
    /// The check of the header fails.
    #[error("the password is wrong, or the header is damaged")]
    Password,
    /// A chunk is damaged, swapped, repeated or missing.
    #[error("it is damaged in the 64 KiB from byte {offset} of its content, or cut off there")]
    Damaged {
        /// Where, in the content.
        offset: u64,
    },
    /// More than 2^64 chunks, or the library refuses.
    #[error("it cannot be encrypted")]
    Impossible,
}

/// How dear it is to make a key of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Memory of argon2id.
    pub memory_kib: u32,
    /// Its rounds.
    pub rounds: u32,
    /// Its lanes.
    pub lanes: u32,
}

impl Costs {
    /// Half a second or less, 64 MiB.
    pub const USUAL: Self = Self { memory_kib: 64 << 10, rounds: 3, lanes: 1 };

    /// What a hostile header may ask for at most.
    const fn are_allowed(self) -> bool {
        self.memory_kib <= 1 << 20
            && self.rounds >= 1
            && self.rounds <= 16
            && self.lanes >= 1
            && self.lanes <= 16
    }
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Costs of the password.
    pub costs: Costs,
    /// Salt of the password.
    pub salt: [u8; 16],
    /// Sets the keys of this file apart from those of others with the same password.
    pub file_id: [u8; 32],
}

impl Header {
    fn unchecked(&self) -> [u8; UNCHECKED_BYTES] {
        let mut bytes = [0; UNCHECKED_BYTES];
        let parts: [&[u8]; 7] = [
            MAGIC,
            &[VERSION, ARGON2ID, CHUNK_EXPONENT, 0],
            &self.costs.memory_kib.to_be_bytes(),
            &self.costs.rounds.to_be_bytes(),
            &self.costs.lanes.to_be_bytes(),
            &self.salt,
            &self.file_id,
        ];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self, keys: &FileKeys) -> [u8; HEADER_BYTES] {
        let unchecked = self.unchecked();
        let check = hmac::sign(&keys.header, &unchecked);
        let mut bytes = [0; HEADER_BYTES];
        let all = unchecked.iter().chain(check.as_ref());
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads a header; what it says is not proved before [`Header::check`].
    ///
    /// # Errors
    /// If it is none, or asks for too much.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FormatError> {
        let (head, rest) = bytes.split_at(MAGIC.len());
        if head != MAGIC {
            return Err(FormatError::Foreign);
        }
        let mut rest = rest.iter().copied();
        let mut take = || rest.next().unwrap_or_default();
        match [take(), take(), take(), take()] {
            [VERSION, ARGON2ID, CHUNK_EXPONENT, 0] => {}
            [found, ..] => return Err(FormatError::Version { found }),
        }
        let mut number = || u32::from_be_bytes([take(), take(), take(), take()]);
        let costs = Costs { memory_kib: number(), rounds: number(), lanes: number() };
        if !costs.are_allowed() {
            return Err(FormatError::Costs { memory_kib: costs.memory_kib, rounds: costs.rounds });
        }
        let salt = std::array::from_fn(|_| take());
        let file_id = std::array::from_fn(|_| take());
        Ok(Self { costs, salt, file_id })
    }

    /// Whether the keys are those that the header was made with.
    ///
    /// # Errors
    /// [`FormatError::Password`].
    pub fn check(bytes: &[u8; HEADER_BYTES], keys: &FileKeys) -> Result<(), FormatError> {
        let (unchecked, check) = bytes.split_at(UNCHECKED_BYTES);
        hmac::verify(&keys.header, unchecked, check).map_err(|_| FormatError::Password)
    }
}

/// The keys of one file.
#[derive(Debug)]
pub struct FileKeys {
    header: hmac::Key,
    nonce: hmac::Key,
    content: LessSafeKey,
}

/// Output length of the key derivation.
struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

impl FileKeys {
    /// The keys of a file, from the password's key and the file's id (HKDF-SHA-256, RFC 5869).
    ///
    /// # Errors
    /// If the library refuses, which it has no reason to.
    pub fn derive(password_key: &[u8; 32], file_id: &[u8; 32]) -> Result<Self, FormatError> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, file_id).extract(password_key);
        let key = |purpose: &[u8]| {
            let info = [&b"haul-crypt 1 "[..], purpose];
            let mut bytes = Zeroizing::new([0; 32]);
            let expanded = extracted.expand(&info, Bytes32).and_then(|key| key.fill(&mut *bytes));
            expanded.map(|()| bytes).map_err(|_| FormatError::Impossible)
        };
        let content =
            UnboundKey::new(&AES_256_GCM, &*key(b"content")?).map_err(|_| FormatError::Impossible)?;
        Ok(Self {
            header: hmac::Key::new(hmac::HMAC_SHA256, &*key(b"header")?),
            nonce: hmac::Key::new(hmac::HMAC_SHA256, &*key(b"nonce")?),
            content: LessSafeKey::new(content),
        })
    }

    /// Seals a chunk in place: nonce before it, tag behind it.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn seal(&self, number: u64, last: bool, chunk: &mut Vec<u8>) -> Result<(), FormatError> {
        let place = place(number, last);
        let mut mac = hmac::Context::with_key(&self.nonce);
        mac.update(&place);
        mac.update(chunk);
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(mac.sign().as_ref()).for_each(|(to, from)| *to = *from);
        self.content
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), chunk)
            .map_err(|_| FormatError::Impossible)?;
        chunk.splice(..0, nonce);
        Ok(())
    }

    /// Opens a chunk in place.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] if it is not the one that belongs here.
    pub fn open(&self, number: u64, last: bool, chunk: &mut Vec<u8>) -> Result<(), FormatError> {
        let damaged = || FormatError::Damaged { offset: number.saturating_mul(CHUNK_BYTES as u64) };
        let nonce = chunk.get(..NONCE_LEN).and_then(|nonce| nonce.try_into().ok()).ok_or_else(damaged)?;
        chunk.drain(..NONCE_LEN);
        let length = self
            .content
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(place(number, last)), chunk)
            .map_err(|_| damaged())?
            .len();
        chunk.truncate(length);
        // A short chunk amid a file, or an empty one behind others, cannot come from `seal` as it is used.
        let fits = if last { length > 0 || number == 0 } else { length == CHUNK_BYTES };
        if fits { Ok(()) } else { Err(damaged()) }
    }
}

/// What a chunk is bound to besides its content.
fn place(number: u64, last: bool) -> [u8; 9] {
    let mut place = [u8::from(last); 9];
    place.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    place
}

/// Length of the encrypted file of so much content.
#[must_use]
pub const fn encrypted_size(content: u64) -> u64 {
    let chunks = if content == 0 { 1 } else { content.div_ceil(CHUNK_BYTES as u64) };
    (HEADER_BYTES as u64).saturating_add(content).saturating_add(chunks.saturating_mul(CHUNK_OVERHEAD as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> FileKeys {
        FileKeys::derive(&[7; 32], &[9; 32]).unwrap()
    }

    fn header() -> Header {
        Header { costs: Costs::USUAL, salt: [3; 16], file_id: [9; 32] }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_header_says_what_was_put_in_and_knows_its_keys() {
        let bytes = header().encode(&keys());
        assert_eq!(Header::decode(&bytes), Ok(header()));
        assert_eq!(Header::check(&bytes, &keys()), Ok(()));
        let others = FileKeys::derive(&[8; 32], &[9; 32]).unwrap();
        assert_eq!(Header::check(&bytes, &others), Err(FormatError::Password));
        for at in 0..HEADER_BYTES {
            let mut changed = bytes;
            changed[at] ^= 1;
            let refused = Header::decode(&changed).is_err() || Header::check(&changed, &keys()).is_err();
            assert!(refused, "byte {at}");
        }
        let mut dear = bytes;
        dear[12] = 0xff;
        assert!(matches!(Header::decode(&dear), Err(FormatError::Costs { .. })));
        let mut later = bytes;
        later[8] = 2;
        assert_eq!(Header::decode(&later), Err(FormatError::Version { found: 2 }));
    }

    #[test]
    fn a_chunk_opens_in_its_place_only() {
        let sealed = |number, last, content: &[u8]| {
            let mut chunk = content.to_vec();
            keys().seal(number, last, &mut chunk).unwrap();
            chunk
        };
        let full = vec![5; CHUNK_BYTES];
        let chunk = sealed(3, false, &full);
        assert_eq!(chunk.len(), SEALED_CHUNK_BYTES);
        let open = |number, last, chunk: &[u8]| {
            let mut chunk = chunk.to_vec();
            keys().open(number, last, &mut chunk).map(|()| chunk)
        };
        assert_eq!(open(3, false, &chunk).unwrap(), full);
        for (number, last) in [(2, false), (4, false), (3, true)] {
            assert!(open(number, last, &chunk).is_err(), "{number} {last}");
        }
        for at in [0, 11, 12, 40_000, SEALED_CHUNK_BYTES - 1] {
            let mut changed = chunk.clone();
            changed[at] ^= 1;
            assert_eq!(
                open(3, false, &changed),
                Err(FormatError::Damaged { offset: 3 * CHUNK_BYTES as u64 })
            );
        }
        assert!(open(3, false, &[]).is_err() && open(3, false, &chunk[..20]).is_err());
        assert_eq!(open(0, true, &sealed(0, true, b"")).unwrap(), b"");
        assert!(open(1, true, &sealed(1, true, b"")).is_err(), "an empty chunk behind others");
        assert!(open(0, false, &sealed(0, false, b"short")).is_err(), "a short chunk amid a file");
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_and_other_content_another_nonce() {
        let sealed = |content: &[u8]| {
            let mut chunk = content.to_vec();
            keys().seal(0, true, &mut chunk).unwrap();
            chunk
        };
        assert_eq!(sealed(b"one"), sealed(b"one"));
        assert_ne!(sealed(b"one")[..NONCE_LEN], sealed(b"two")[..NONCE_LEN]);
    }

    #[test]
    fn sizes_are_known_in_advance() {
        for (content, chunks) in [(0, 1), (1, 1), (65_536, 1), (65_537, 2), (131_072, 2), (1 << 40, 1 << 24)]
        {
            assert_eq!(encrypted_size(content), 104 + content + 28 * chunks, "{content}");
        }
    }

    #[test]
    fn the_bytes_are_pinned() {
        assert_eq!(
            hex(&header().encode(&keys())),
            concat!(
                "4841554c435259500101100000010000000000030000000103030303030303030303030303030303090909090909090909090909",
                "09090909090909090909090909090909090909090380518c8ab9165b4645a983bb9699bb3a724d59bd419affe70e749175da353b"
            )
        );
        let mut chunk = b"haul".to_vec();
        keys().seal(0, true, &mut chunk).unwrap();
        assert_eq!(hex(&chunk), "8ed8277177bc7260f64fe9221a2b47fc82098c74df463a455fda9b3b8996844b");
    }
}
