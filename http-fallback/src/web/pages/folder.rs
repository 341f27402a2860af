//! A folder: where it is, what is in it, and what can be done with it. Sorting, searching and paging are links and forms.

use std::fmt::Write as _;

use super::super::date::Moment;
use super::super::disposition::safe_name;
use super::super::html::{escape, size};
use super::super::listing::{Listing, PAGE, Row, Sort, View};
use super::super::percent::encode_path;
use super::{icon, page};

/// What a page of a folder needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Folder<'a> {
    /// Address of the top folder, with a slash at its end.
    pub base: &'a str,
    /// What the top folder is called.
    pub top: &'a str,
    /// The folder below it, without slashes at its ends.
    pub path: &'a [u8],
    /// What is in it.
    pub listing: &'a Listing,
    /// Who looks; none behind a shared link.
    pub user: Option<&'a str>,
    /// Files may be added.
    pub writable: bool,
    /// Files may be fetched.
    pub readable: bool,
    /// Address that gives the folder as an archive.
    pub archive: &'a str,
    /// Something to say first.
    pub note: Option<&'a str>,
}

impl Folder<'_> {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let name = self.path.rsplit(|&byte| byte == b'/').next().filter(|name| !name.is_empty());
        let title = name.map_or_else(|| self.top.to_owned(), safe_name);
        let mut content =
            format!("<div class=\"bar\">{}<div class=\"actions\">{}", self.crumbs(), self.search());
        if self.writable {
            content.push_str(&self.upload());
        }
        if self.readable {
            let (archive, down) = (escape(self.archive), icon("down"));
            let _ = write!(content, r#"<a class="button" href="{archive}" download>{down}Download all</a>"#);
        }
        content.push_str("</div></div>\n");
        if let Some(note) = self.note {
            let _ = writeln!(content, r#"<p class="note good" role="status">{}</p>"#, escape(note));
        }
        if self.writable {
            content.push_str("<div id=\"uploads\" class=\"card\" role=\"status\"></div>\n");
            content.push_str(
                "<div id=\"drop\" aria-hidden=\"true\"><div>Drop files to upload them here</div></div>\n",
            );
        }
        let _ = write!(content, "<div id=\"listing\">{}</div>", self.table(&title));
        page(&title, self.user, &content)
    }

    /// Address of this folder, with a slash at its end.
    fn here(&self) -> String {
        let path = encode_path(self.path);
        if path.is_empty() { self.base.to_owned() } else { format!("{}{path}/", self.base) }
    }

    fn crumbs(&self) -> String {
        let mut items = vec![(self.top.to_owned(), self.base.to_owned())];
        let mut so_far = self.base.to_owned();
        for part in self.path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            so_far.push_str(&encode_path(part));
            so_far.push('/');
            items.push((safe_name(part), so_far.clone()));
        }
        let mut list = String::new();
        for (n, (name, address)) in items.iter().enumerate() {
            let name = escape(name);
            let _ = if n + 1 == items.len() {
                write!(list, r#"<li aria-current="page"><h1>{name}</h1></li>"#)
            } else {
                write!(list, r#"<li><a href="{}">{name}</a></li>"#, escape(address))
            };
        }
        format!(r#"<nav class="crumbs" aria-label="Folders"><ol>{list}</ol></nav>"#)
    }

    fn search(&self) -> String {
        let view = &self.listing.view;
        let mut hidden = String::new();
        if view.sort != Sort::Name {
            let _ = write!(hidden, r#"<input type="hidden" name="sort" value="{}">"#, sort_word(view.sort));
        }
        if view.descending {
            hidden.push_str(r#"<input type="hidden" name="order" value="desc">"#);
        }
        format!(
            r#"<form class="search" role="search" action="{}"><label class="sr" for="q">Search names in this folder and below</label><input id="q" type="search" name="q" value="{}" placeholder="Search" maxlength="255">{hidden}<button aria-label="Search">{}</button></form>"#,
            escape(&self.here()),
            escape(&view.search),
            icon("search")
        )
    }

    fn upload(&self) -> String {
        let path = encode_path(self.path);
        format!(
            r#"<details class="panel"><summary class="button primary">{up}Upload</summary><div class="card"><form id="upload-form" method="post" enctype="multipart/form-data" action="{here}" data-tus="/upload/{path}">
<label for="existing">If a file of the same name is there</label>
<select id="existing" name="existing"><option value="rename">keep both</option><option value="replace">replace it</option><option value="skip">leave it as it is</option></select>
<label for="file">Files</label>
<input id="file" type="file" name="file" multiple required>
<button class="primary wide">Upload</button></form></div></details>
<details class="panel"><summary class="button">{plus}New folder</summary><div class="card"><form method="post" action="/folder/{path}">
<label for="name">Name</label><input id="name" name="name" required maxlength="255" autocomplete="off">
<button class="primary wide">Make folder</button></form></div></details>"#,
            up = icon("up"),
            plus = icon("plus"),
            here = escape(&self.here()),
        )
    }

    fn table(&self, title: &str) -> String {
        let Listing { view, total, bytes, cut, rows } = self.listing;
        if rows.is_empty() {
            return self.empty();
        }
        let heads: String = [(Sort::Name, "Name"), (Sort::Size, "Size"), (Sort::Date, "Changed")]
            .into_iter()
            .map(|(sort, name)| self.head(sort, name))
            .collect();
        let body: String = rows.iter().map(|row| self.row(row)).collect();
        let cut = if *cut { "; there may be more, search for something longer" } else { "" };
        let entries = if *total == 1 { "1 entry".to_owned() } else { format!("{total} entries") };
        let what = if view.search.is_empty() { "" } else { " found" };
        format!(
            r#"<div class="card"><table><caption class="sr">{}</caption><thead><tr>{heads}</tr></thead><tbody>
{body}</tbody></table></div>
<div class="sum"><span>{entries}{what}, {} in files{cut}</span>{}</div>"#,
            escape(title),
            size(*bytes),
            self.pages()
        )
    }

    fn head(&self, sort: Sort, name: &str) -> String {
        let view = &self.listing.view;
        let active = view.sort == sort;
        let descending = if active { !view.descending } else { sort != Sort::Name };
        let target = View { sort, descending, page: 0, ..view.clone() };
        let (order, arrow) = match (active, view.descending) {
            (false, _) => ("", ""),
            (true, false) => (r#" aria-sort="ascending""#, "<span aria-hidden=\"true\">↑</span>"),
            (true, true) => (r#" aria-sort="descending""#, "<span aria-hidden=\"true\">↓</span>"),
        };
        let (address, class) = (format!("{}{}", self.here(), target.query()), sort_word(sort));
        format!(
            r#"<th scope="col" class="{class}"{order}><a href="{}">{name}{arrow}</a></th>"#,
            escape(&address)
        )
    }

    fn row(&self, row: &Row) -> String {
        let Row { name, path, folder, usable, size: bytes, modified, .. } = row;
        let drawing = icon(match (folder, usable) {
            (true, _) => "folder",
            (false, true) => "file",
            (false, false) => "other",
        });
        let (name, here) = (escape(name), escape(&self.here()));
        let cell = if *folder {
            format!(r#"<a href="{here}{path}/">{drawing}{name}</a>"#)
        } else if *usable && self.readable {
            format!(r#"<a href="{here}{path}" download>{drawing}{name}</a>"#)
        } else {
            format!("<span>{drawing}{name}</span>")
        };
        let size = if *folder || !*usable { String::new() } else { size(*bytes) };
        let moment = Moment::new(*modified);
        format!(
            "<tr><td class=\"name\">{cell}</td><td class=\"size\">{size}</td><td class=\"date\"><time datetime=\"{}\">{}</time></td></tr>\n",
            moment.iso(),
            moment.short()
        )
    }

    fn empty(&self) -> String {
        let search = &self.listing.view.search;
        let text = if search.is_empty() {
            let hint = if self.writable { "<p>Drop files here, or use Upload.</p>" } else { "" };
            format!("<p><strong>This folder is empty.</strong></p>{hint}")
        } else {
            format!(
                r#"<p><strong>Nothing here has “{}” in its name.</strong></p><p><a href="{}">Show the whole folder</a></p>"#,
                escape(search),
                escape(&self.here())
            )
        };
        let drawing = icon(if search.is_empty() { "folder" } else { "search" });
        format!(r#"<div class="card empty">{drawing}{text}</div>"#)
    }

    fn pages(&self) -> String {
        let Listing { view, total, .. } = self.listing;
        if *total <= PAGE {
            return String::new();
        }
        let last = total.saturating_sub(1) / PAGE;
        let to = |page: usize, label: &str, rel: &str| {
            let address = format!("{}{}", self.here(), View { page, ..view.clone() }.query());
            format!(r#"<a rel="{rel}" href="{}">{label}</a>"#, escape(&address))
        };
        let before = if view.page > 0 { to(view.page - 1, "← Previous", "prev") } else { String::new() };
        let after = if view.page < last { to(view.page + 1, "Next →", "next") } else { String::new() };
        format!(
            r#"<nav class="pages" aria-label="Pages">{before}<span>Page {} of {}</span>{after}</nav>"#,
            view.page + 1,
            last + 1
        )
    }
}

const fn sort_word(sort: Sort) -> &'static str {
    match sort {
        Sort::Name => "name",
        Sort::Size => "size",
        Sort::Date => "date",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        let evil = "<script>alert(1)</script>\"'";
        let row = Row {
            name: evil.to_owned(),
            path: encode_path(evil.as_bytes()),
            folder: false,
            usable: true,
            link: false,
            size: 1,
            modified: 0,
        };
        let view = View { search: evil.to_owned(), ..View::default() };
        let listing = Listing { view, total: 1, bytes: 1, cut: false, rows: vec![row] };
        let folder = Folder {
            base: "/files/",
            top: "Files",
            path: evil.as_bytes(),
            listing: &listing,
            user: Some(evil),
            writable: true,
            readable: true,
            archive: "/zip/",
            note: Some(evil),
        };
        let html = folder.html();
        assert!(!html.contains("<script>alert") && !html.contains("\"'\""), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)"));
        assert!(!html.contains("style=") && !html.contains("onclick"), "nothing the policy would forbid");
    }
}
