//! STATS: what the sender knows about path and rate, told to the receiver ten times a second for people to look at. The
//! protocol does not depend on it.
//!
//! ```text
//! varints, in this order:
//!   time since the first data packet left, microseconds
//!   content bytes stored, as the receiver has reported
//!   pacing rate, delivery rate, target rate (0: none), bit/s
//!   smoothed RTT, least RTT (0: unknown), queueing delay, microseconds
//!   packets arrived, packets lost, bytes sent more than once
//! limiter u8     place in `Limiter::ALL`
//! state          length u8, 1 to 16, then as many letters `a` to `z` and `_`
//! ```

use std::time::Duration;

use super::{Reader, put_varint};
use crate::stats::{Limiter, Sample};
use crate::units::Rate;

/// Longest name of a state, bytes.
pub const MAX_STATE_BYTES: usize = 16;

/// Appends a sample.
pub fn encode(sample: &Sample, out: &mut Vec<u8>) {
    for value in [
        micros(sample.at),
        sample.bytes_done,
        sample.pacing.bps(),
        sample.delivery.bps(),
        sample.target.map_or(0, Rate::bps),
        micros(sample.rtt),
        sample.base_rtt.map_or(0, |rtt| micros(rtt).max(1)),
        micros(sample.queue),
        sample.arrived_packets,
        sample.lost_packets,
        sample.retransmitted_bytes,
    ] {
        put_varint(out, value);
    }
    out.push(sample.limiter as u8);
    let state = sample.state.as_bytes();
    let state = state.get(..MAX_STATE_BYTES).unwrap_or(state);
    out.push(state.len() as u8);
    out.extend_from_slice(state);
}

/// Reads a sample; `None` if it is cut short or says something that no sample can say.
pub fn decode(reader: &mut Reader<'_>) -> Option<Sample> {
    let some = |value: u64| Some(value).filter(|&value| value > 0);
    Some(Sample {
        at: Duration::from_micros(reader.varint()?),
        bytes_done: reader.varint()?,
        pacing: Rate::from_bps(reader.varint()?),
        delivery: Rate::from_bps(reader.varint()?),
        target: some(reader.varint()?).map(Rate::from_bps),
        rtt: Duration::from_micros(reader.varint()?),
        base_rtt: some(reader.varint()?).map(Duration::from_micros),
        queue: Duration::from_micros(reader.varint()?),
        arrived_packets: reader.varint()?,
        lost_packets: reader.varint()?,
        retransmitted_bytes: reader.varint()?,
        limiter: Limiter::ALL.get(usize::from(reader.u8()?)).copied()?,
        state: state(reader)?,
    })
}

/// Only what can stand in a table, a picture and on a terminal as it is.
fn state(reader: &mut Reader<'_>) -> Option<String> {
    let length = usize::from(reader.u8()?);
    let name = reader.bytes(length).filter(|_| (1..=MAX_STATE_BYTES).contains(&length))?;
    let plain = name.iter().all(|&byte| byte.is_ascii_lowercase() || byte == b'_');
    plain.then(|| String::from_utf8_lossy(name).into_owned())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            at: Duration::from_micros(300),
            bytes_done: 1,
            pacing: Rate::from_bps(2),
            delivery: Rate::from_bps(3),
            target: None,
            rtt: Duration::from_micros(200),
            base_rtt: Some(Duration::from_micros(5)),
            queue: Duration::from_micros(6),
            arrived_packets: 7,
            lost_packets: 8,
            retransmitted_bytes: 9,
            limiter: Limiter::SenderDisk,
            state: "track".to_owned(),
        }
    }

    const BYTES: &[u8] = &[0xac, 2, 1, 2, 3, 0, 0xc8, 1, 5, 6, 7, 8, 9, 2, 5, b't', b'r', b'a', b'c', b'k'];

    #[test]
    fn the_sample_is_pinned_and_refused_when_cut() {
        let mut bytes = Vec::new();
        encode(&sample(), &mut bytes);
        assert_eq!(bytes, BYTES);
        assert_eq!(decode(&mut Reader::new(BYTES)), Some(sample()));
        for cut in 0..BYTES.len() {
            assert_eq!(decode(&mut Reader::new(&BYTES[..cut])), None, "cut at {cut}");
        }
    }

    #[test]
    fn the_example_of_the_protocol_text_reads_as_it_says() {
        let bytes = [
            &[0xe0, 0xa7, 0x12, 0x80, 0x80, 0x40, 0x80, 0x84, 0xaf, 0x5f, 0x80, 0xce, 0xd2, 0x59, 0][..],
            &[0xc0, 0xac, 0x06, 0x84, 0x8e, 0x06, 0xbc, 0x1e, 0x80, 0x20, 0x29, 0xb8, 0xc0, 0x03, 0, 5],
            b"track",
        ]
        .concat();
        let read = decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((read.at, read.bytes_done), (Duration::from_millis(300), 1 << 20));
        assert_eq!((read.pacing.bps(), read.delivery.bps(), read.target), (200_000_000, 188_000_000, None));
        assert_eq!((read.rtt, read.queue), (Duration::from_millis(104), Duration::from_micros(3900)));
        assert_eq!(read.base_rtt, Some(Duration::from_micros(100_100)));
        assert_eq!((read.arrived_packets, read.lost_packets, read.retransmitted_bytes), (4096, 41, 57_400));
        assert_eq!((read.limiter, read.state.as_str()), (Limiter::Network, "track"));
    }

    #[test]
    fn the_largest_values_survive_in_150_bytes() {
        let largest = Sample {
            at: Duration::from_micros(u64::MAX),
            bytes_done: u64::MAX,
            pacing: Rate::from_bps(u64::MAX),
            delivery: Rate::from_bps(u64::MAX),
            target: Some(Rate::from_bps(u64::MAX)),
            rtt: Duration::from_micros(u64::MAX),
            base_rtt: Some(Duration::from_micros(u64::MAX)),
            queue: Duration::from_micros(u64::MAX),
            arrived_packets: u64::MAX,
            lost_packets: u64::MAX,
            retransmitted_bytes: u64::MAX,
            limiter: Limiter::PeerCredit,
            state: "z".repeat(MAX_STATE_BYTES),
        };
        let mut bytes = Vec::new();
        encode(&largest, &mut bytes);
        assert!(bytes.len() <= 150, "{}", bytes.len());
        assert_eq!(decode(&mut Reader::new(&bytes)), Some(largest));
    }

    #[test]
    fn words_that_are_no_state_and_unknown_limiters_are_refused() {
        for state in ["", "Track", "a,b", "a\n", "\u{e4}", "abcdefghijklmnopq"] {
            let mut bytes = BYTES[..15].to_vec();
            bytes[14] = state.len() as u8;
            bytes.extend_from_slice(state.as_bytes());
            bytes.extend_from_slice(&[b'x'; 20]);
            assert_eq!(decode(&mut Reader::new(&bytes)), None, "{state:?}");
        }
        let mut bytes = BYTES.to_vec();
        bytes[13] = 7;
        assert_eq!(decode(&mut Reader::new(&bytes)), None);
    }
}
