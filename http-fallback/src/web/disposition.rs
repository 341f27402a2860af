//! The name under which a browser stores a download: `Content-Disposition` of RFC 6266 and 8187. Also names for people.

use super::percent::encode_name;

/// `attachment` with a plain name for old clients and the real one for all others. Never `inline`: nothing that a user
/// stores is shown in our origin.
#[must_use]
pub fn attachment(name: &[u8]) -> String {
    let real = safe_name(name);
    let plain: String =
        real.chars().map(|c| if c.is_ascii() && !"\"\\%".contains(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", encode_name(real.as_bytes()))
}

/// A name as text that cannot mislead: what is no UTF-8, moves the cursor, separates folders or changes the direction
/// of writing is replaced.
#[must_use]
pub fn safe_name(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name)
        .chars()
        .map(|c| if c.is_control() || is_deceptive(c) || c == '/' || c == '\\' { '_' } else { c })
        .collect();
    if text.is_empty() || text == "." || text == ".." { "_".to_owned() } else { text }
}

/// Marks that reorder or hide text: `exe.fdp` must not read as `pdf.exe`.
const fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_cannot_leave_their_quotes() {
        for (name, header) in [
            (&b"a.txt"[..], "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
            (b"a\"b\\c", "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b_c"),
            (
                b"a\r\nSet-Cookie: x",
                "attachment; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a__Set-Cookie%3A%20x",
            ),
            (
                "Größe.txt".as_bytes(),
                "attachment; filename=\"Gr__e.txt\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe.txt",
            ),
            ("x\u{202e}fdp.exe".as_bytes(), "attachment; filename=\"x_fdp.exe\"; filename*=UTF-8''x_fdp.exe"),
            (b"\xff", "attachment; filename=\"_\"; filename*=UTF-8''%EF%BF%BD"),
            (b"..", "attachment; filename=\"_\"; filename*=UTF-8''_"),
            (b"100%", "attachment; filename=\"100_\"; filename*=UTF-8''100%25"),
        ] {
            assert_eq!(attachment(name), header);
        }
    }
}
