//! Keys of a session, and sealing and opening of datagrams with ring. Not here: making randomness, replay protection.
//!
//! Both sides draw 32 random bytes and exchange them inside SSH. The keys follow by HKDF-SHA-256 (RFC 5869):
//!
//! ```text
//! PRK        = Extract(salt = "haul 1 " || session, client half || server half)
//! key || iv  = Expand(PRK, "haul key" || direction || lane || epoch)
//! nonce      = iv XOR packet number (as RFC 9001 section 5.3)
//! epoch      = packet number >> 22
//! ```
//!
//! The epoch follows from the packet number, so a key change needs no agreement and no message.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use ring::hkdf;
use zeroize::Zeroizing;

use crate::constants::{EPOCH_SHIFT, HEADER_BYTES, TAG_BYTES};
use crate::control::{Cipher, SecretHalf};

/// Who sealed a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// The side that dialled.
    Client,
    /// The side that was dialled.
    Server,
}

impl Seat {
    /// The other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    const fn label(self) -> u8 {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }
}

/// Source of all keys of a session.
#[derive(Clone)]
pub struct SessionSecret {
    prk: hkdf::Prk,
    cipher: Cipher,
    epoch_shift: u32,
}

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSecret").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

impl SessionSecret {
    /// Mixes the two halves.
    #[must_use]
    pub fn new(cipher: Cipher, session: &str, client: &SecretHalf, server: &SecretHalf) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, format!("haul 1 {session}").as_bytes());
        let mut halves = Zeroizing::new([0; 64]);
        for (to, from) in halves.iter_mut().zip(client.as_bytes().iter().chain(server.as_bytes())) {
            *to = *from;
        }
        Self { prk: salt.extract(halves.as_slice()), cipher, epoch_shift: EPOCH_SHIFT }
    }

    /// Changes keys every 2^`shift` packets instead, so that simulations see many epochs. Both sides must agree.
    #[must_use]
    pub const fn with_epoch_shift(mut self, shift: u32) -> Self {
        self.epoch_shift = shift;
        self
    }

    /// Packets that may be under way at most: half an epoch, so that the receiver always has the key of what arrives.
    #[must_use]
    pub const fn max_unsettled(&self) -> usize {
        1 << (self.epoch_shift - 1)
    }

    /// The sealing side of `seat`.
    #[must_use]
    pub fn sealer(&self, seat: Seat, lane: u8) -> Sealer {
        Sealer { key: self.key(seat, lane, 0), secret: self.clone(), seat, lane, epoch: 0, next_number: 0 }
    }

    /// Opens what `seat` has sealed.
    #[must_use]
    pub fn opener(&self, seat: Seat, lane: u8) -> Opener {
        Opener {
            previous: None,
            current: self.key(seat, lane, 0),
            next: self.key(seat, lane, 1),
            secret: self.clone(),
            seat,
            lane,
            epoch: 0,
        }
    }

    fn key(&self, seat: Seat, lane: u8, epoch: u64) -> PacketKey {
        let algorithm = algorithm(self.cipher);
        let key_len = algorithm.key_len();
        let mut material = Zeroizing::new([0u8; 32 + 12]);
        let info = [b"haul key".as_slice(), &[seat.label(), lane], &epoch.to_be_bytes()];
        let length = MaterialLength(key_len + 12);
        let (material, _) = material.split_at_mut(length.0);
        self.prk
            .expand(&info, length)
            .and_then(|okm| okm.fill(material))
            .expect("HKDF-SHA-256 yields up to 8160 bytes, we ask for at most 44");
        let (key, iv_bytes) = material.split_at(key_len);
        let mut iv = [0; 12];
        iv.copy_from_slice(iv_bytes);
        let key = UnboundKey::new(algorithm, key).expect("the key has the algorithm's length");
        PacketKey { key: LessSafeKey::new(key), iv }
    }
}

struct MaterialLength(usize);

impl hkdf::KeyType for MaterialLength {
    fn len(&self) -> usize {
        self.0
    }
}

const fn algorithm(cipher: Cipher) -> &'static Algorithm {
    match cipher {
        Cipher::Aes128Gcm => &AES_128_GCM,
        Cipher::Aes256Gcm => &AES_256_GCM,
        Cipher::Chacha20Poly1305 => &CHACHA20_POLY1305,
    }
}

struct PacketKey {
    key: LessSafeKey,
    iv: [u8; 12],
}

impl PacketKey {
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().skip(4).zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals datagrams of one direction and lane. Packet numbers come from here and are never used twice.
pub struct Sealer {
    secret: SessionSecret,
    seat: Seat,
    lane: u8,
    epoch: u64,
    key: PacketKey,
    next_number: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("next_number", &self.next_number).finish_non_exhaustive()
    }
}

impl Sealer {
    /// The number that the next sealed packet will have.
    #[must_use]
    pub const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Seals `datagram` in place: header, plaintext, then room for the tag. The header must hold
    /// [`next_number`](Self::next_number). Returns that number.
    pub fn seal(&mut self, datagram: &mut [u8]) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let epoch = number >> self.secret.epoch_shift;
        if epoch != self.epoch {
            self.key = self.secret.key(self.seat, self.lane, epoch);
            self.epoch = epoch;
        }
        let (header, rest) = datagram.split_at_mut(HEADER_BYTES);
        let (plaintext, tag_room) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let tag = self
            .key
            .key
            .seal_in_place_separate_tag(self.key.nonce(number), Aad::from(&*header), plaintext)
            .expect("a datagram is far below the AEAD's length limit");
        tag_room.copy_from_slice(tag.as_ref());
        number
    }
}

/// Opens datagrams of one direction and lane. Keeps the keys of the epoch before and after the current one.
pub struct Opener {
    secret: SessionSecret,
    seat: Seat,
    lane: u8,
    epoch: u64,
    previous: Option<PacketKey>,
    current: PacketKey,
    next: PacketKey,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Opener {
    /// Opens `body` (ciphertext and tag) in place; `None` if it does not authenticate or its epoch is out of reach.
    pub fn open<'a>(&mut self, number: u64, header: &[u8], body: &'a mut [u8]) -> Option<&'a [u8]> {
        let epoch = number >> self.secret.epoch_shift;
        let key = if epoch == self.epoch {
            &self.current
        } else if epoch == self.epoch + 1 {
            &self.next
        } else if epoch + 1 == self.epoch {
            self.previous.as_ref()?
        } else {
            return None;
        };
        let plaintext = key.key.open_in_place(key.nonce(number), Aad::from(header), body).ok()?;
        if epoch > self.epoch {
            self.epoch = epoch;
            let next = self.secret.key(self.seat, self.lane, epoch + 1);
            let current = std::mem::replace(&mut self.next, next);
            self.previous = Some(std::mem::replace(&mut self.current, current));
        }
        Some(plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(cipher: Cipher) -> SessionSecret {
        SessionSecret::new(cipher, "0123456789abcdef", &SecretHalf::new([1; 32]), &SecretHalf::new([2; 32]))
    }

    fn sealed(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; HEADER_BYTES];
        datagram[8..16].copy_from_slice(&sealer.next_number().to_be_bytes());
        datagram.extend_from_slice(plaintext);
        datagram.extend_from_slice(&[0; TAG_BYTES]);
        sealer.seal(&mut datagram);
        datagram
    }

    fn opened(opener: &mut Opener, number: u64, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut datagram = datagram.to_vec();
        let (header, body) = datagram.split_at_mut(HEADER_BYTES);
        opener.open(number, header, body).map(<[u8]>::to_vec)
    }

    #[test]
    fn what_is_sealed_opens_across_many_epochs_and_only_once_altered_not_at_all() {
        for cipher in [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::Chacha20Poly1305] {
            let secret = secret(cipher).with_epoch_shift(3);
            let mut sealer = secret.sealer(Seat::Client, 0);
            let mut opener = secret.opener(Seat::Client, 0);
            for number in 0..100 {
                let mut datagram = sealed(&mut sealer, b"sixteen bytes...");
                assert_ne!(&datagram[HEADER_BYTES..HEADER_BYTES + 16], b"sixteen bytes...");
                assert_eq!(opened(&mut opener, number, &datagram).as_deref(), Some(&b"sixteen bytes..."[..]));
                let at = number as usize % datagram.len();
                datagram[at] ^= 1;
                assert_eq!(opened(&mut opener, number, &datagram), None, "{cipher:?} altered at {at}");
            }
        }
    }

    #[test]
    fn directions_and_lanes_have_keys_of_their_own() {
        let secret = secret(Cipher::Aes128Gcm);
        let datagram = sealed(&mut secret.sealer(Seat::Client, 0), b"sixteen bytes...");
        assert!(opened(&mut secret.opener(Seat::Client, 0), 0, &datagram).is_some());
        assert!(opened(&mut secret.opener(Seat::Server, 0), 0, &datagram).is_none());
        assert!(opened(&mut secret.opener(Seat::Client, 1), 0, &datagram).is_none());
    }

    #[test]
    fn an_epoch_out_of_reach_is_refused() {
        let secret = secret(Cipher::Aes128Gcm).with_epoch_shift(3);
        let mut sealer = secret.sealer(Seat::Client, 0);
        let datagrams: Vec<_> = (0..40).map(|_| sealed(&mut sealer, b"sixteen bytes...")).collect();
        let mut opener = secret.opener(Seat::Client, 0);
        assert!(opened(&mut opener, 16, &datagrams[16]).is_none(), "two epochs ahead");
        assert!(opened(&mut opener, 8, &datagrams[8]).is_some(), "one epoch ahead");
        assert!(opened(&mut opener, 16, &datagrams[16]).is_some());
        assert!(opened(&mut opener, 9, &datagrams[9]).is_some(), "one epoch late");
        assert!(opened(&mut opener, 1, &datagrams[1]).is_none(), "two epochs late");
    }

    #[test]
    fn the_key_schedule_is_pinned() {
        // Golden vector: a change here is a change of the protocol.
        let datagram = sealed(&mut secret(Cipher::Aes128Gcm).sealer(Seat::Client, 0), b"sixteen bytes...");
        let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0000000000000000000000000000000039e02ae6732462d1b70dc2c96855f9b6f1e95005a95379900f9aa40b553d2570"
        );
    }
}
