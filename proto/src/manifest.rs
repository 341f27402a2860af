//! The manifest object: what is sent, as a stream of records. Not here: files, paths on disk.
//!
//! ```text
//! record   length varint (of what follows) | type u8 | body
//! 1 FOLDER   parent varint | attributes | name to the end
//! 2 FILE     parent varint | size varint | attributes | name to the end
//! 3 SKIPPED  trouble u8 | path length varint | path | message (UTF-8) to the end
//! 4 END      files varint | folders varint | bytes varint
//! 5 LINK     parent varint | flags u8 | attributes | target length varint | target | name to the end
//! attributes mode u32 | modified s i64, ns u32 | accessed s i64, ns u32
//! ```
//!
//! Folder 0 is the destination; each FOLDER record takes the next number from 1. Files are numbered from 0. A name is
//! one component: a manifest cannot express a path that leaves its folder.

use crate::Error;
use crate::constants::{MAX_DEPTH, MAX_LINK_TARGET_BYTES, MAX_NAME_BYTES, MAX_RECORD_BYTES, TRAILER_BYTES};
use crate::control::{Digest, Trouble};
use crate::wire::{Reader, put_varint};

/// Mode and times of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits; others are masked off by the receiver.
    pub mode: u32,
    /// Time of last modification, seconds since 1970; [`NO_TIME`] if it is not told.
    pub modified_s: i64,
    /// Nanoseconds of it.
    pub modified_ns: u32,
    /// Time of last access, seconds since 1970.
    pub accessed_s: i64,
    /// Nanoseconds of it.
    pub accessed_ns: u32,
}

/// Seconds of a time that is not told: of a folder that is made for a target which the source does not have.
pub const NO_TIME: i64 = i64::MIN;

impl Attributes {
    /// Of a folder that only the receiver has: as if it were made there, without times.
    pub const UNTOLD: Self =
        Self { mode: 0o777, modified_s: NO_TIME, modified_ns: 0, accessed_s: NO_TIME, accessed_ns: 0 };

    /// Bit of the mode: the file has holes at the source, so it is given holes at the receiver.
    pub const SPARSE: u32 = 1 << 31;

    /// Whether the file has holes at the source.
    #[must_use]
    pub const fn is_sparse(&self) -> bool {
        self.mode & Self::SPARSE != 0
    }

    /// Whether times are told.
    #[must_use]
    pub const fn has_times(&self) -> bool {
        self.modified_s != NO_TIME
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A folder.
    Folder {
        /// Folder that holds it.
        parent: u64,
        /// Its name.
        name: Vec<u8>,
        /// Its mode and times.
        attributes: Attributes,
    },
    /// A regular file.
    File {
        /// Folder that holds it.
        parent: u64,
        /// Its name.
        name: Vec<u8>,
        /// Its bytes.
        size: u64,
        /// Its mode and times.
        attributes: Attributes,
    },
    /// A symbolic link.
    Link {
        /// Folder that holds it.
        parent: u64,
        /// Its name.
        name: Vec<u8>,
        /// What it says, as text.
        target: Vec<u8>,
        /// It replaces a file of its name.
        replaces_file: bool,
        /// Its times.
        attributes: Attributes,
    },
    /// A source that could not be read; it counts as failed.
    Skipped {
        /// Its path as the sender knows it.
        path: Vec<u8>,
        /// Why.
        trouble: Trouble,
        /// Why, in words.
        message: String,
    },
    /// Nothing follows.
    End {
        /// Files listed.
        files: u64,
        /// Folders listed.
        folders: u64,
        /// Bytes of the files.
        bytes: u64,
    },
}

impl Record {
    /// Appends the record. Names and messages beyond the limits are the caller's bug; messages are cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(96);
        match self {
            Self::Folder { parent, name, attributes } => {
                body.push(1);
                put_varint(&mut body, *parent);
                put_attributes(&mut body, attributes);
                body.extend_from_slice(name);
            }
            Self::File { parent, name, size, attributes } => {
                body.push(2);
                put_varint(&mut body, *parent);
                put_varint(&mut body, *size);
                put_attributes(&mut body, attributes);
                body.extend_from_slice(name);
            }
            Self::Link { parent, name, target, replaces_file, attributes } => {
                body.push(5);
                put_varint(&mut body, *parent);
                body.push(u8::from(*replaces_file));
                put_attributes(&mut body, attributes);
                put_varint(&mut body, target.len() as u64);
                body.extend_from_slice(target);
                body.extend_from_slice(name);
            }
            Self::Skipped { path, trouble, message } => {
                body.push(3);
                body.push(trouble_code(*trouble));
                let path = path.get(path.len().saturating_sub(3000)..).unwrap_or_default();
                put_varint(&mut body, path.len() as u64);
                body.extend_from_slice(path);
                body.extend_from_slice(message.as_bytes().get(..500).unwrap_or(message.as_bytes()));
            }
            Self::End { files, folders, bytes } => {
                body.push(4);
                for value in [*files, *folders, *bytes] {
                    put_varint(&mut body, value);
                }
            }
        }
        put_varint(out, body.len() as u64);
        out.extend_from_slice(&body);
    }

    /// The next whole record of `bytes` and how many bytes it took; `None` if it has not arrived in full.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if it is no record.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let mut reader = Reader::new(bytes);
        let Some(length) = reader.varint() else {
            return if bytes.len() < 10 { Ok(None) } else { Err(malformed()) };
        };
        let length = usize::try_from(length).ok().filter(|&length| length <= MAX_RECORD_BYTES);
        let Some(body) = reader.bytes(length.ok_or(Error::PeerMisbehaved("a manifest record is too long"))?)
        else {
            return Ok(None);
        };
        let taken = bytes.len() - reader.rest().len();
        Self::decode_body(body).map(|record| Some((record, taken))).ok_or_else(malformed)
    }

    fn decode_body(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(match reader.u8()? {
            1 => Self::Folder {
                parent: reader.varint()?,
                attributes: attributes(&mut reader)?,
                name: name(reader.rest())?,
            },
            2 => Self::File {
                parent: reader.varint()?,
                size: reader.varint()?,
                attributes: attributes(&mut reader)?,
                name: name(reader.rest())?,
            },
            3 => {
                let trouble = trouble_of(reader.u8()?);
                let length = usize::try_from(reader.varint()?).ok()?;
                let path = reader.bytes(length)?.to_vec();
                Self::Skipped { path, trouble, message: String::from_utf8_lossy(reader.rest()).into_owned() }
            }
            4 => Self::End { files: reader.varint()?, folders: reader.varint()?, bytes: reader.varint()? },
            5 => {
                let (parent, flags) = (reader.varint()?, reader.u8()?);
                let attributes = attributes(&mut reader)?;
                let length = usize::try_from(reader.varint()?).ok()?;
                let target = reader.bytes(length)?.to_vec();
                let fits = (1..=MAX_LINK_TARGET_BYTES).contains(&length) && !target.contains(&0);
                let name = name(reader.rest()).filter(|_| fits)?;
                Self::Link { parent, name, target, replaces_file: flags & 1 != 0, attributes }
            }
            _ => return None,
        })
    }
}

const fn malformed() -> Error {
    Error::PeerMisbehaved("a manifest record cannot be read")
}

fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes) {
    out.extend_from_slice(&attributes.mode.to_be_bytes());
    out.extend_from_slice(&attributes.modified_s.to_be_bytes());
    out.extend_from_slice(&attributes.modified_ns.to_be_bytes());
    out.extend_from_slice(&attributes.accessed_s.to_be_bytes());
    out.extend_from_slice(&attributes.accessed_ns.to_be_bytes());
}

fn attributes(reader: &mut Reader<'_>) -> Option<Attributes> {
    let attributes = Attributes {
        mode: reader.u32()? & (0o7777 | Attributes::SPARSE),
        modified_s: reader.i64()?,
        modified_ns: reader.u32()?,
        accessed_s: reader.i64()?,
        accessed_ns: reader.u32()?,
    };
    (attributes.modified_ns < 1_000_000_000 && attributes.accessed_ns < 1_000_000_000).then_some(attributes)
}

/// Whether `name` can stand as one component of a path.
#[must_use]
pub fn is_component(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

fn name(bytes: &[u8]) -> Option<Vec<u8>> {
    is_component(bytes).then(|| bytes.to_vec())
}

/// Number of a trouble inside manifests and trailers; those that a source cannot have are `0`.
const fn trouble_code(trouble: Trouble) -> u8 {
    match trouble {
        Trouble::SourceChanged => 1,
        Trouble::Disk => 2,
        Trouble::NotFound => 3,
        Trouble::PermissionDenied => 4,
        Trouble::WrongKind => 5,
        Trouble::OutsideDocroot => 6,
        Trouble::Limit => 7,
        Trouble::Protocol
        | Trouble::Incompatible
        | Trouble::DiskFull
        | Trouble::DigestMismatch
        | Trouble::UdpPort
        | Trouble::UdpSilent
        | Trouble::PeerLost
        | Trouble::Interrupted
        | Trouble::Busy
        | Trouble::Internal
        | Trouble::Other => 255,
    }
}

const fn trouble_of(code: u8) -> Trouble {
    match code {
        1 => Trouble::SourceChanged,
        2 => Trouble::Disk,
        3 => Trouble::NotFound,
        4 => Trouble::PermissionDenied,
        5 => Trouble::WrongKind,
        6 => Trouble::OutsideDocroot,
        7 => Trouble::Limit,
        _ => Trouble::Other,
    }
}

/// What follows each file's content: how reading it ended, and its digest.
///
/// ```text
/// status u8 (0 whole, else the trouble) | digest kind u8 (0 none, 1 BLAKE3, 2 of a part) | 6 zero bytes | digest
/// 32 bytes
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Why the content is not whole; none if it is.
    pub trouble: Option<Trouble>,
    /// Digest of the content, if one was taken.
    pub digest: Option<[u8; 32]>,
    /// The digest covers only what was sent of the file.
    pub of_part: bool,
}

impl Trailer {
    /// Of a file that was read to its end.
    #[must_use]
    pub const fn whole(digest: Option<[u8; 32]>) -> Self {
        Self { trouble: None, digest, of_part: false }
    }

    /// Of a file of which only a part was read. There is no digest of no blocks.
    #[must_use]
    pub const fn part(digest: Option<[u8; 32]>) -> Self {
        Self { trouble: None, digest, of_part: digest.is_some() }
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; TRAILER_BYTES as usize] {
        let mut bytes = [0; TRAILER_BYTES as usize];
        let (head, digest) = bytes.split_at_mut(8);
        if let [status, kind, ..] = head {
            *status = self.trouble.map_or(0, trouble_code);
            *kind = match self.digest {
                None => 0,
                Some(_) if self.of_part => 2,
                Some(_) => 1,
            };
        }
        digest.copy_from_slice(&self.digest.unwrap_or_default());
        bytes
    }

    /// From bytes; `None` if they are too few or the digest is of no known kind.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (status, kind) = (reader.u8()?, reader.u8()?);
        reader.bytes(6)?;
        let digest: [u8; 32] = reader.bytes(32)?.try_into().ok()?;
        let digest = match kind {
            0 => None,
            1 | 2 => Some(digest),
            _ => return None,
        };
        let trouble = (status != 0).then(|| trouble_of(status));
        Some(Self { trouble, digest, of_part: kind == 2 })
    }

    /// The kind of digest that a reader should take.
    #[must_use]
    pub const fn wants(digest: Digest) -> bool {
        match digest {
            Digest::Blake3 => true,
            Digest::None => false,
        }
    }
}

/// Checks the order of records as they are read: parents must exist, depth is bounded, nothing follows END.
#[derive(Debug, Clone)]
pub struct TreeCheck {
    /// Depth of each folder; the index is its number.
    depths: Vec<u16>,
    files: u64,
    bytes: u64,
    ended: bool,
}

impl Default for TreeCheck {
    fn default() -> Self {
        Self { depths: vec![0], files: 0, bytes: 0, ended: false }
    }
}

impl TreeCheck {
    /// Takes the next record.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] naming the rule that it breaks.
    pub fn handle_record(&mut self, record: &Record) -> Result<(), Error> {
        if self.ended {
            return Err(Error::PeerMisbehaved("a manifest record follows the end"));
        }
        let no_parent = Error::PeerMisbehaved("a manifest record names a folder that does not exist");
        let depth =
            |parent: u64| usize::try_from(parent).ok().and_then(|parent| self.depths.get(parent)).copied();
        match record {
            Record::Folder { parent, .. } => {
                let depth = depth(*parent).ok_or(no_parent)?.saturating_add(1);
                if u32::from(depth) > MAX_DEPTH {
                    return Err(Error::PeerMisbehaved("a manifest nests folders too deep"));
                }
                self.depths.push(depth);
            }
            Record::File { parent, size, .. } => {
                depth(*parent).ok_or(no_parent)?;
                self.files += 1;
                self.bytes = self.bytes.saturating_add(*size);
            }
            Record::Link { parent, .. } => {
                depth(*parent).ok_or(no_parent)?;
            }
            Record::Skipped { .. } => {}
            Record::End { files, folders, bytes } => {
                if (*files, *folders, *bytes) != (self.files, self.folders(), self.bytes) {
                    return Err(Error::PeerMisbehaved("the manifest's totals do not add up"));
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    /// Whether END has been seen.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Files listed so far.
    #[must_use]
    pub const fn files(&self) -> u64 {
        self.files
    }

    /// Folders listed so far.
    #[must_use]
    pub fn folders(&self) -> u64 {
        self.depths.len() as u64 - 1
    }

    /// Bytes of the files listed so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: Attributes =
        Attributes { mode: 0o644, modified_s: -2, modified_ns: 3, accessed_s: 4, accessed_ns: 5 };

    fn records() -> [Record; 5] {
        [
            Record::Folder { parent: 0, name: b"d\xff".to_vec(), attributes: ATTRIBUTES },
            Record::File { parent: 1, name: b"f".to_vec(), size: 300, attributes: ATTRIBUTES },
            Record::Skipped {
                path: b"p/q".to_vec(),
                trouble: Trouble::PermissionDenied,
                message: "no".into(),
            },
            Record::Link {
                parent: 1,
                name: b"l".to_vec(),
                target: b"../f".to_vec(),
                replaces_file: true,
                attributes: ATTRIBUTES,
            },
            Record::End { files: 1, folders: 1, bytes: 300 },
        ]
    }

    #[test]
    fn records_are_pinned_and_every_cut_waits() {
        let attributes: &[u8] = &[
            0, 0, 1, 0xa4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
            4, 0, 0, 0, 5,
        ];
        let expected = [
            [&[32, 1, 0], attributes, b"d\xff"].concat(),
            [&[33, 2, 1, 0xac, 2], attributes, b"f"].concat(),
            [&[8, 3, 4, 3][..], b"p/q", b"no"].concat(),
            [&[37, 5, 1, 1], attributes, &[4], b"../f", b"l"].concat(),
            vec![5, 4, 1, 1, 0xac, 2],
        ];
        for (record, bytes) in records().iter().zip(&expected) {
            let mut encoded = Vec::new();
            record.encode(&mut encoded);
            assert_eq!(&encoded, bytes);
            assert_eq!(Record::decode(bytes), Ok(Some((record.clone(), bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(Record::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn links_without_a_usable_target_are_refused() {
        for target in [&b""[..], b"a\0", &[b'x'; MAX_LINK_TARGET_BYTES + 1]] {
            let (parent, name, target) = (0, b"l".to_vec(), target.to_vec());
            let mut bytes = Vec::new();
            Record::Link { parent, name, target, replaces_file: false, attributes: ATTRIBUTES }
                .encode(&mut bytes);
            assert!(Record::decode(&bytes).is_err());
        }
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
            let mut bytes = Vec::new();
            Record::Folder { parent: 0, name: name.to_vec(), attributes: ATTRIBUTES }.encode(&mut bytes);
            assert!(Record::decode(&bytes).is_err(), "{name:?}");
        }
        assert!(is_component(b"..."));
        assert!(is_component(&[b'x'; 255]));
    }

    #[test]
    fn trees_that_do_not_hold_together_are_refused() {
        let [folder, file, _, link, end] = records();
        let mut check = TreeCheck::default();
        assert!(check.handle_record(&file).is_err(), "no such parent");
        assert!(check.handle_record(&link).is_err(), "no such parent");
        for record in &records() {
            check.handle_record(record).unwrap();
        }
        assert!(check.is_ended());
        assert!(check.handle_record(&folder).is_err(), "after the end");
        assert!(TreeCheck::default().handle_record(&end).is_err(), "wrong totals");
        let mut deep = TreeCheck::default();
        let mut nest = |parent| {
            deep.handle_record(&Record::Folder { parent, name: b"d".to_vec(), attributes: ATTRIBUTES })
        };
        assert!((0..u64::from(MAX_DEPTH)).all(|parent| nest(parent).is_ok()));
        assert!(nest(u64::from(MAX_DEPTH)).is_err(), "too deep");
    }

    #[test]
    fn trailers_are_pinned() {
        let whole = Trailer::whole(Some([7; 32]));
        assert_eq!(whole.encode()[..9], [0, 1, 0, 0, 0, 0, 0, 0, 7]);
        let changed = Trailer { trouble: Some(Trouble::SourceChanged), ..Trailer::whole(None) };
        assert_eq!(changed.encode()[..9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        for trailer in [whole, changed] {
            assert_eq!(Trailer::decode(&trailer.encode()), Some(trailer));
        }
        assert_eq!(Trailer::decode(&[0; 39]), None);
        assert_eq!(Trailer::decode(&[9; 40]), None);
    }
}
