//! Frames: the small messages between the two data planes. A FRAMES plaintext holds frames back to back, then zeros.
//!
//! ```text
//! 0 PADDING   one zero byte
//! 1 PING      token u64 | smoothed RTT in microseconds u32 (0: unknown)   answered by PONG with the token
//! 2 PONG      token u64
//! 3 REPORT    see `report`
//! 4 STATS     see `sample`
//! ```

use super::report::Report;
use super::{Reader, sample};
use crate::Error;
use crate::stats::Sample;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Asks for a [`Frame::Pong`], and tells the sender's RTT so that the receiver can time its reports.
    Ping {
        /// To be sent back. Unpredictable when it validates a path.
        token: u64,
        /// Smoothed RTT in microseconds; zero while unknown.
        srtt_us: u32,
    },
    /// Answer to a [`Frame::Ping`].
    Pong {
        /// The token of the ping.
        token: u64,
    },
    /// What has arrived.
    Report(Report),
    /// What the sender knows about path and rate, for people to look at.
    Stats(Sample),
}

impl Frame {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ping { token, srtt_us } => {
                out.push(1);
                out.extend_from_slice(&token.to_be_bytes());
                out.extend_from_slice(&srtt_us.to_be_bytes());
            }
            Self::Pong { token } => {
                out.push(2);
                out.extend_from_slice(&token.to_be_bytes());
            }
            Self::Report(report) => {
                out.push(3);
                report.encode(out);
            }
            Self::Stats(stats) => {
                out.push(4);
                sample::encode(stats, out);
            }
        }
    }

    /// The next frame of a plaintext; `None` at its end.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if the bytes are no frame. They were authenticated, so the peer itself is at fault.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let cut = || Error::PeerMisbehaved("a frame is cut short");
        loop {
            let Some(kind) = reader.u8() else {
                return Ok(None);
            };
            let frame = match kind {
                0 => continue,
                1 => Self::Ping {
                    token: reader.u64().ok_or_else(cut)?,
                    srtt_us: reader.u32().ok_or_else(cut)?,
                },
                2 => Self::Pong { token: reader.u64().ok_or_else(cut)? },
                3 => Self::Report(Report::decode(reader).ok_or_else(cut)?),
                4 => Self::Stats(
                    sample::decode(reader).ok_or(Error::PeerMisbehaved("a STATS frame is malformed"))?,
                ),
                _ => return Err(Error::PeerMisbehaved("a frame has an unknown type")),
            };
            return Ok(Some(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_pinned_and_padding_is_skipped() {
        let table: [(Frame, &[u8]); 2] = [
            (
                Frame::Ping { token: 0x0102_0304_0506_0708, srtt_us: 0x0a0b_0c0d },
                &[1, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d],
            ),
            (Frame::Pong { token: 5 }, &[2, 0, 0, 0, 0, 0, 0, 0, 5]),
        ];
        for (frame, bytes) in table {
            let mut encoded = Vec::new();
            frame.encode(&mut encoded);
            assert_eq!(encoded, bytes);
            let padded = [&[0, 0], bytes, &[0; 5]].concat();
            let mut reader = Reader::new(&padded);
            assert_eq!(Frame::decode(&mut reader), Ok(Some(frame)));
            assert_eq!(Frame::decode(&mut reader), Ok(None));
            for cut in 1..bytes.len() {
                assert!(Frame::decode(&mut Reader::new(&bytes[..cut])).is_err());
            }
        }
        assert!(Frame::decode(&mut Reader::new(&[99])).is_err());
    }

    #[test]
    fn statistics_are_frame_4_and_refused_when_cut() {
        let bytes = [&[4, 1, 2, 3, 4, 0, 5, 0, 6, 7, 8, 9, 1, 5][..], b"drain"].concat();
        let frame = Frame::decode(&mut Reader::new(&bytes)).unwrap().unwrap();
        let Frame::Stats(sample) = &frame else { panic!("{frame:?}") };
        assert_eq!((sample.bytes_done, sample.retransmitted_bytes, sample.state.as_str()), (2, 9, "drain"));
        let mut encoded = Vec::new();
        frame.encode(&mut encoded);
        assert_eq!(encoded, bytes);
        for cut in 1..bytes.len() {
            assert!(Frame::decode(&mut Reader::new(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }
}
