//! Messages as lines: one JSON object each, ended by a line feed, capped before it is parsed.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Longest line that is accepted, in bytes. An offer with a few thousand source paths fits.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Cuts a byte stream into messages. An error spoils one line only; the next one can be read.
#[derive(Debug, Default)]
pub struct LineDecoder {
    buffer: Vec<u8>,
    /// Bytes of the buffer that are known to hold no line feed.
    searched: usize,
    /// The rest of a line that was too long is being dropped.
    skipping: bool,
    /// Datagrams may come between lines.
    with_frames: bool,
    /// What came of them, each with its length before it.
    frames: Vec<u8>,
}

/// A line cannot begin with this byte; a datagram between lines does.
const FRAME_MARK: u8 = 0;

/// Mark and length before a datagram between lines.
const FRAME_HEAD: usize = 3;

/// Puts marks before datagrams that have their lengths before them already, as streams carry them; returns how many bytes
/// of them were whole and are taken.
pub fn mark_frames(stream: &[u8], out: &mut Vec<u8>) -> usize {
    let mut taken = 0;
    while let Some((head, rest)) = stream.get(taken..).and_then(<[u8]>::split_first_chunk::<2>) {
        let length = usize::from(u16::from_be_bytes(*head));
        let Some(datagram) = rest.get(..length) else { break };
        out.push(FRAME_MARK);
        out.extend_from_slice(head);
        out.extend_from_slice(datagram);
        taken += 2 + length;
    }
    taken
}

impl LineDecoder {
    /// Takes bytes from the stream.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes datagrams between lines from now on, which both sides have agreed on.
    pub const fn take_frames(&mut self) {
        self.with_frames = true;
    }

    /// The datagrams that came, each with two bytes of length before it, as streams carry them. To be asked whenever
    /// [`Self::poll_line`] has nothing more.
    pub fn drain_frames(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frames)
    }

    /// Moves whole datagrams at the front out of the way. `false` if one has begun and is not whole.
    fn split_off_frames(&mut self) -> bool {
        let mut taken = 0;
        let whole = loop {
            let rest = self.buffer.get(taken..).unwrap_or_default();
            if !self.with_frames || self.searched > 0 || self.skipping || rest.first() != Some(&FRAME_MARK) {
                break true;
            }
            let Some([_, high, low]) = rest.first_chunk::<FRAME_HEAD>() else { break false };
            let end = FRAME_HEAD + usize::from(u16::from_be_bytes([*high, *low]));
            let Some(frame) = rest.get(1..end) else { break false };
            self.frames.extend_from_slice(frame);
            taken += end;
        };
        self.buffer.drain(..taken);
        whole
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// [`Error::ControlTooLong`] if a line exceeds [`MAX_LINE_BYTES`], [`Error::ControlMalformed`] if it is no message.
    pub fn poll_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, Error> {
        self.poll_line()?.map(|line| read_line(&line)).transpose()
    }

    /// The next whole line, if there is one.
    ///
    /// # Errors
    /// [`Error::ControlTooLong`] if it exceeds [`MAX_LINE_BYTES`].
    pub fn poll_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if !self.split_off_frames() {
                return Ok(None);
            }
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|&byte| byte == b'\n').map(|at| at + self.searched)
            else {
                return self.wait_for_more();
            };
            self.searched = 0;
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if end > MAX_LINE_BYTES {
                return Err(Error::ControlTooLong);
            }
            return Ok(Some(line));
        }
    }

    fn wait_for_more(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.searched = self.buffer.len();
        if self.searched <= MAX_LINE_BYTES {
            return Ok(None);
        }
        self.buffer.clear();
        self.searched = 0;
        if std::mem::replace(&mut self.skipping, true) { Ok(None) } else { Err(Error::ControlTooLong) }
    }
}

/// A line as a message.
///
/// # Errors
/// [`Error::ControlMalformed`] if it is none.
pub fn read_line<M: DeserializeOwned>(line: &[u8]) -> Result<M, Error> {
    serde_json::from_slice(line).map_err(|error| Error::ControlMalformed(error.to_string()))
}

/// A message as a line.
///
/// # Panics
/// Never: the messages hold nothing that JSON cannot express.
#[must_use]
pub fn encode_line<M: Serialize>(message: &M) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("control messages are plain data");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::super::{Cancel, ClientMessage, Trouble};
    use super::*;

    fn cancel() -> ClientMessage {
        ClientMessage::Cancel(Cancel { trouble: Trouble::Interrupted, message: "stop".into() })
    }

    #[test]
    fn datagrams_between_lines_are_told_from_them_however_the_stream_is_cut() {
        let line = encode_line(&cancel());
        let datagrams = [&[0, 3][..], b"\n{\0", &[1, 0], &[b'\n'; 256]].concat();
        let mut marked = Vec::new();
        assert_eq!(mark_frames(&datagrams, &mut marked), datagrams.len());
        assert_eq!(mark_frames(&[0, 9, 1], &mut Vec::new()), 0, "not whole yet");
        let stream = [&marked[..], &line, &marked, &marked, &line].concat();
        for step in [1, 2, 3, 7, 100, stream.len()] {
            let mut decoder = LineDecoder::default();
            decoder.take_frames();
            let (mut frames, mut lines) = (Vec::new(), 0);
            for bytes in stream.chunks(step) {
                decoder.handle_bytes(bytes);
                while let Some(message) = decoder.poll_message::<ClientMessage>().unwrap() {
                    assert_eq!(message, cancel());
                    lines += 1;
                }
                frames.extend(decoder.drain_frames());
            }
            assert_eq!((lines, &frames), (2, &datagrams.repeat(3)), "step {step}");
        }
    }

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let line = encode_line(&cancel());
        let stream = [&line[..], &line, &line].concat();
        for step in [1, 2, 7, stream.len()] {
            let mut decoder = LineDecoder::default();
            let mut found = 0;
            for bytes in stream.chunks(step) {
                decoder.handle_bytes(bytes);
                while let Some(message) = decoder.poll_message::<ClientMessage>().unwrap() {
                    assert_eq!(message, cancel());
                    found += 1;
                }
            }
            assert_eq!(found, 3, "in steps of {step}");
        }
    }

    #[test]
    fn a_spoiled_line_does_not_spoil_the_next() {
        let mut decoder = LineDecoder::default();
        decoder.handle_bytes(b"\xff\x00 noise\n{\"type\":\"unheard of\"}\n[1,\n");
        decoder.handle_bytes(&encode_line(&cancel()));
        for _ in 0..3 {
            assert!(matches!(decoder.poll_message::<ClientMessage>(), Err(Error::ControlMalformed(_))));
        }
        assert_eq!(decoder.poll_message(), Ok(Some(cancel())));
    }

    #[test]
    fn an_endless_line_is_told_once_and_takes_no_memory() {
        let mut decoder = LineDecoder::default();
        let mut errors = 0;
        for _ in 0..50 {
            decoder.handle_bytes(&vec![b'x'; 100_000]);
            errors += usize::from(decoder.poll_message::<ClientMessage>().is_err());
            assert!(decoder.buffer.len() <= MAX_LINE_BYTES + 100_000);
        }
        assert_eq!(errors, 1);
        decoder.handle_bytes(b"\n");
        decoder.handle_bytes(&encode_line(&cancel()));
        assert_eq!(decoder.poll_message(), Ok(Some(cancel())));
    }

    #[test]
    fn unknown_fields_are_ignored_and_the_text_is_pinned() {
        let line = br#"{"type":"cancel","trouble":"from the future","message":"stop","more":[1]}"#;
        let mut decoder = LineDecoder::default();
        decoder.handle_bytes(line);
        decoder.handle_bytes(b"\n");
        let expected = ClientMessage::Cancel(Cancel { trouble: Trouble::Other, message: "stop".into() });
        assert_eq!(decoder.poll_message(), Ok(Some(expected)));
        assert_eq!(
            encode_line(&cancel()),
            b"{\"type\":\"cancel\",\"trouble\":\"interrupted\",\"message\":\"stop\"}\n"
        );
    }
}
