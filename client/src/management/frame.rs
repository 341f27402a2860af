//! Frames of the management port: a line `FASPMGR 2`, lines `Key: Value`, an empty line. Pure: text in, text out.

use std::fmt::Write as _;

/// The first line of every frame.
const HEADER: &str = "FASPMGR 2";

/// A driver that sends longer lines or more of them is not listened to.
const MAX_LINE_BYTES: usize = 64 << 10;
const MAX_FIELDS: usize = 256;

/// One frame: its fields in order, the first one `Type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame(Vec<(String, String)>);

/// What came is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came over the management port is no frame")]
pub(crate) struct NoFrame;

impl Frame {
    /// A frame of this type.
    pub(crate) fn new(kind: &str) -> Self {
        Self(vec![("Type".to_owned(), kind.to_owned())])
    }

    /// Adds a field.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.0.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds a field, if there is a value.
    #[must_use]
    pub(crate) fn with_some(self, key: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Its type, in capitals.
    pub(crate) fn kind(&self) -> String {
        self.field("Type").unwrap_or_default().to_ascii_uppercase()
    }

    /// The value of a field. Drivers write keys in other cases too.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    /// As it goes over the port. Line ends in values travel as ESC n and ESC r, and ESC as ESC ESC, so that a file's name
    /// cannot end a line.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (key, value) in &self.0 {
            let value = value.replace('\x1b', "\x1b\x1b").replace('\n', "\x1bn").replace('\r', "\x1br");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key}: {value}");
        }
        text.push('\n');
        text
    }
}

/// Takes bytes as they come and gives frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    line: Vec<u8>,
    frame: Option<Frame>,
}

impl Frames {
    /// The frames that these bytes complete.
    ///
    /// # Errors
    /// If what comes is no frame, or larger than any.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, NoFrame> {
        let mut complete = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > MAX_LINE_BYTES {
                    return Err(NoFrame);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            complete.extend(self.take_line(line.strip_suffix(b"\r").unwrap_or(&line))?);
        }
        Ok(complete)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<Frame>, NoFrame> {
        let line = std::str::from_utf8(line).map_err(|_| NoFrame)?;
        let Some(frame) = &mut self.frame else {
            // Drivers send an empty line more than the frame has.
            if line == HEADER {
                self.frame = Some(Frame(Vec::new()));
                return Ok(None);
            }
            return if line.is_empty() { Ok(None) } else { Err(NoFrame) };
        };
        if line.is_empty() {
            return Ok(self.frame.take());
        }
        let (key, value) = line.split_once(':').ok_or(NoFrame)?;
        if frame.0.len() >= MAX_FIELDS {
            return Err(NoFrame);
        }
        frame.0.push((key.trim().to_owned(), unescaped(value.strip_prefix(' ').unwrap_or(value))));
        Ok(None)
    }
}

fn unescaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('\x1b', Some(escaped @ ('n' | 'r' | '\x1b'))) => {
                rest.next();
                text.push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    _ => '\x1b',
                });
            }
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_as_documented() {
        let frame = Frame::new("RATE").with("Rate", 300_000).with_some("MinRate", None::<u64>);
        assert_eq!(frame.text(), "FASPMGR 2\nType: RATE\nRate: 300000\n\n");
    }

    #[test]
    fn names_of_files_cannot_end_a_line() {
        let frame = Frame::new("STOP").with("File", "a\nFASPMGR 2\r\x1bz");
        assert_eq!(frame.text().lines().count(), 4);
        assert_eq!(Frames::default().take(frame.text().as_bytes()), Ok(vec![frame]));
    }

    #[test]
    fn frames_come_however_the_stream_is_cut() {
        let text = b"FASPMGR 2\r\nType: START\r\nSource: /a: b\r\n\r\n\nFASPMGR 2\ntype: done\n\n";
        for step in [1, 7, text.len()] {
            let mut frames = Frames::default();
            let found: Vec<Frame> = text.chunks(step).flat_map(|bytes| frames.take(bytes).unwrap()).collect();
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!(found.first().unwrap().field("Source"), Some("/a: b"));
            assert_eq!(found.last().unwrap().kind(), "DONE");
        }
    }

    #[test]
    fn noise_is_refused_and_memory_stays_bounded() {
        for noise in [&b"GET / HTTP/1.1\n"[..], b"FASPMGR 2\nno field\n", b"FASPMGR 2\n\xff: x\n"] {
            assert_eq!(Frames::default().take(noise), Err(NoFrame));
        }
        assert_eq!(Frames::default().take(&vec![b'x'; MAX_LINE_BYTES + 1]), Err(NoFrame));
        let many = format!("FASPMGR 2\n{}", "a: b\n".repeat(MAX_FIELDS + 1));
        assert_eq!(Frames::default().take(many.as_bytes()), Err(NoFrame));
    }
}
