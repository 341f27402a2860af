//! The datagram: clear header, and the header of a DATA plaintext.
//!
//! ```text
//! clear header, 16 bytes, all of it AEAD associated data
//!   0      type (4 bits) | 0000
//!   1      lane
//!   2..8   connection id
//!   8..16  packet number
//! then the sealed plaintext, a multiple of 16 bytes, then the 16-byte tag
//!
//! DATA plaintext, first 16 bytes
//!   0..4   time of sending, microseconds of the sender's clock, wrapping
//!   4..8   floor: low 32 bits of the oldest packet number whose fate the sender still wants to know
//!   8..14  offset in the object
//!   14..16 object (2 bits) | content bytes in this packet (14 bits)
//! then the content, then zeros up to a multiple of 16
//! ```

use super::Reader;
use crate::constants::{DATA_HEADER_BYTES, HEADER_BYTES, TAG_BYTES};

/// What a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// A piece of an object.
    Data,
    /// A sequence of [frames](super::frame).
    Frames,
}

/// Clear header of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the datagram carries.
    pub packet_type: PacketType,
    /// Lane: socket, key and packet number space. Always 0 in this version.
    pub lane: u8,
    /// Connection id, 48 bits.
    pub connection_id: u64,
    /// Packet number.
    pub number: u64,
}

impl Header {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let packet_type: u8 = match self.packet_type {
            PacketType::Data => 1,
            PacketType::Frames => 2,
        };
        let [_, _, a, b, c, d, e, f] = self.connection_id.to_be_bytes();
        let [g, h, i, j, k, l, m, n] = self.number.to_be_bytes();
        [packet_type << 4, self.lane, a, b, c, d, e, f, g, h, i, j, k, l, m, n]
    }

    /// From the front of a datagram. `None` if it cannot be one of ours: such datagrams draw no answer.
    #[must_use]
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let sealed = datagram.len().checked_sub(HEADER_BYTES + TAG_BYTES)?;
        if sealed == 0 {
            return None;
        }
        let mut reader = Reader::new(datagram);
        let packet_type = match reader.u8()? {
            0x10 => PacketType::Data,
            0x20 => PacketType::Frames,
            _ => return None,
        };
        Some(Self { packet_type, lane: reader.u8()?, connection_id: reader.u48()?, number: reader.u64()? })
    }
}

/// The reliable byte streams of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// Names, sizes and attributes, in records.
    Manifest,
    /// The content of all files, each followed by its trailer, as [`crate::layout`] places them.
    Content,
}

/// Header of a DATA plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// Time of sending on the sender's clock, microseconds, wrapping.
    pub sent_us: u32,
    /// Low 32 bits of the oldest packet number whose fate the sender wants to know.
    pub floor: u32,
    /// The stream.
    pub object: Object,
    /// Where the piece starts.
    pub offset: u64,
    /// Length of the piece, at most 16,383.
    pub length: u16,
}

impl DataHeader {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; DATA_HEADER_BYTES] {
        let object: u16 = match self.object {
            Object::Manifest => 0,
            Object::Content => 1 << 14,
        };
        let [a, b, c, d] = self.sent_us.to_be_bytes();
        let [e, f, g, h] = self.floor.to_be_bytes();
        let [_, _, i, j, k, l, m, n] = self.offset.to_be_bytes();
        let [o, p] = (object | (self.length & 0x3fff)).to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// From a DATA plaintext: the header and the piece. `None` if the piece is empty or longer than the packet.
    #[must_use]
    pub fn decode(plaintext: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader::new(plaintext);
        let (sent_us, floor, offset, last) = (reader.u32()?, reader.u32()?, reader.u48()?, reader.u16()?);
        let object = match last >> 14 {
            0 => Object::Manifest,
            1 => Object::Content,
            _ => return None,
        };
        let length = last & 0x3fff;
        let piece = reader.bytes(usize::from(length)).filter(|piece| !piece.is_empty())?;
        Some((Self { sent_us, floor, object, offset, length }, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clear_header_is_pinned() {
        let header = Header {
            packet_type: PacketType::Frames,
            lane: 3,
            connection_id: 0x0102_0304_0506,
            number: 0x1112_1314_1516_1718,
        };
        let bytes = header.encode();
        assert_eq!(bytes, [0x20, 3, 1, 2, 3, 4, 5, 6, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        let datagram = [&bytes[..], &[0; 17]].concat();
        assert_eq!(Header::decode(&datagram), Some(header));
        assert_eq!(Header::decode(&datagram[..32]), None, "no plaintext");
        for first in [0x00, 0x11, 0x30, 0xff] {
            let mut other = datagram.clone();
            other[0] = first;
            assert_eq!(Header::decode(&other), None, "type byte {first:#x}");
        }
    }

    #[test]
    fn the_data_header_is_pinned() {
        let header = DataHeader {
            sent_us: 0x0a0b_0c0d,
            floor: 0x1a1b_1c1d,
            object: Object::Content,
            offset: 0x2122_2324_2526,
            length: 3,
        };
        let bytes = header.encode();
        let expected =
            [0x0a, 0x0b, 0x0c, 0x0d, 0x1a, 0x1b, 0x1c, 0x1d, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x40, 0x03];
        assert_eq!(bytes, expected);
        let plaintext = [&bytes[..], b"abc", &[0; 13]].concat();
        assert_eq!(DataHeader::decode(&plaintext), Some((header, &b"abc"[..])));
        assert_eq!(DataHeader::decode(&plaintext[..18]), None, "piece cut short");
        let mut empty = plaintext.clone();
        empty[15] = 0;
        assert_eq!(DataHeader::decode(&empty), None, "empty piece");
        let mut unknown = plaintext;
        unknown[14] = 0x80;
        assert_eq!(DataHeader::decode(&unknown), None, "unknown object");
    }
}
