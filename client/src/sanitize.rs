//! Makes text and names of strangers safe to show: control characters and characters that change the direction of
//! writing are escaped, so that neither a server nor a file name can steer the reader's terminal.
//!
//! Not here: anything that decides; a sanitised text is for eyes, never for paths or comparisons.

use std::fmt::Write;

/// Longest text that is shown; the rest is cut and marked.
const MAX_SHOWN_CHARS: usize = 4096;

/// Escapes what could steer a terminal in `text`.
#[must_use]
pub fn text(text: &str) -> String {
    bytes(text.as_bytes())
}

/// Escapes what could steer a terminal in `bytes`; bytes that are no UTF-8 show as `\xNN`.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    let mut left = MAX_SHOWN_CHARS;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if left == 0 {
                shown.push_str("...");
                return shown;
            }
            left -= 1;
            push(&mut shown, character);
        }
        for byte in chunk.invalid().iter().take(left) {
            left = left.saturating_sub(1);
            push_escape(&mut shown, format_args!("\\x{byte:02x}"));
        }
    }
    shown
}

/// A local or remote name for a message, escaped like everything else.
#[must_use]
pub fn path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    bytes(path.as_os_str().as_bytes())
}

fn push(shown: &mut String, character: char) {
    match character {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        _ if steers(character) => push_escape(shown, format_args!("\\u{{{:x}}}", u32::from(character))),
        _ => shown.push(character),
    }
}

fn push_escape(shown: &mut String, escape: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = shown.write_fmt(escape);
}

/// Controls (C0, DEL, C1), bidirectional controls (UAX 9), line separators, and characters without width that hide
/// differences between names.
const fn steers(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        for (n, (given, shown)) in [
            (&b"plain name.txt"[..], "plain name.txt"),
            ("naïve 文".as_bytes(), "naïve 文"),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            (b"two\nlines\r\tand tab", "two\\nlines\\r\\tand tab"),
            (b"bell\x07del\x7f", "bell\\u{7}del\\u{7f}"),
            ("c1 \u{9b}31m".as_bytes(), "c1 \\u{9b}31m"),
            ("rtl \u{202e}gpj.exe".as_bytes(), "rtl \\u{202e}gpj.exe"),
            ("isolate \u{2066}x".as_bytes(), "isolate \\u{2066}x"),
            (b"bad \xff\xfe end", "bad \\xff\\xfe end"),
            (b"", ""),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(bytes(given), shown, "row {n}");
        }
    }

    #[test]
    fn endless_text_is_cut() {
        let shown = text(&"a".repeat(10_000));
        assert!(shown.len() < 5000 && shown.ends_with("..."), "{}", shown.len());
    }
}
