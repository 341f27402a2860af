//! Pages behind a shared link: one file, and the question for a password. A shared folder is a page of
//! [`folder`](super::folder).

use super::super::date::Moment;
use super::super::disposition::safe_name;
use super::super::html::{escape, size};
use super::{icon, page};

/// A file that is shared.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Bytes.
    pub size: u64,
    /// Where it is fetched.
    pub address: &'a str,
    /// When the link ends, seconds since 1970.
    pub expires: Option<u64>,
    /// Downloads that are left, if they are counted.
    pub left: Option<u32>,
}

impl File<'_> {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let name = escape(&safe_name(self.name));
        let mut facts = format!("<dt>Size</dt><dd>{}</dd>", size(self.size));
        if let Some(end) = self.expires {
            let moment = Moment::new(i64::try_from(end).unwrap_or(i64::MAX));
            facts.push_str(&format!(
                "<dt>Until</dt><dd><time datetime=\"{}\">{} UTC</time></dd>",
                moment.iso(),
                moment.short()
            ));
        }
        if let Some(left) = self.left {
            facts.push_str(&format!("<dt>Downloads left</dt><dd>{left}</dd>"));
        }
        let content = format!(
            r#"<section class="card narrow"><div class="mark">{}</div><h1>{name}</h1><dl class="facts">{facts}</dl><a class="button primary wide" href="{}" download>{}Download</a><p>Programs such as curl, wget and aria2 get the file from the address of this page.</p></section>"#,
            icon("file"),
            escape(self.address),
            icon("down")
        );
        page(&safe_name(self.name), None, &content)
    }
}

/// The question for the password of a link.
#[must_use]
pub fn password(note: Option<&str>) -> String {
    let note =
        note.map_or_else(String::new, |note| format!(r#"<p class="note" role="alert">{}</p>"#, escape(note)));
    let content = format!(
        r#"<section class="card narrow"><div class="mark">{}</div><h1>This link has a password</h1><p>Whoever gave you the link knows it.</p>{note}<form method="post"><label for="password">Password</label><input id="password" name="password" type="password" autocomplete="off" required maxlength="1024" autofocus><button class="primary wide">Open</button></form></section>"#,
        icon("key")
    );
    page("Password", None, &content)
}
