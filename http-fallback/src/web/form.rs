//! Forms of browsers without scripts: files of a `multipart/form-data` (RFC 7578), written as they come, and a new folder.

use bytes::{Buf as _, BytesMut};
use haul_io::disk::Docroot;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};

use super::body::{self, Body, next_data, read_short};
use super::listing::joined;
use super::percent::Query;
use super::service::{Files, KIND, Refused, blocking, kind};
use super::upload::{Existing, Writer, checked_name, land, random_id};

/// Longest head of a part, and longest value that is no file.
const MAX_HEAD: usize = 16 << 10;
const MAX_VALUE: usize = 64;

/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// Makes a folder in `path` with the name of the form.
pub(super) async fn make_folder(
    files: Files,
    path: Vec<u8>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    if !files.write {
        return Err(Refused::forbidden("make folders"));
    }
    let form = read_short(request.into_body(), MAX_HEAD).await.ok().flatten().unwrap_or_default();
    let form = Query::parse(&String::from_utf8_lossy(&form));
    let name = checked_name(form.bytes("name").unwrap_or_default())?.to_vec();
    blocking(move || {
        if files.docroot.about(&joined(&path, &name)).is_ok() {
            return Err(Refused::new(
                StatusCode::CONFLICT,
                "there is something of this name already; take another one",
            ));
        }
        Ok(files.docroot.make_folder(&path, &name)?)
    })
    .await?;
    Ok(done())
}

fn done() -> Response<Body> {
    let response = Response::builder().status(StatusCode::OK).header(KIND, kind::UPLOAD);
    response.body(body::empty()).expect("no header here comes from outside")
}

/// Stores the files of a form in `folder`.
pub(super) async fn store(
    files: Files,
    folder: Vec<u8>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    if !files.write {
        return Err(Refused::forbidden("upload"));
    }
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = boundary(kind).ok_or_else(|| {
        Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "files come as multipart/form-data")
    })?;
    let mut form = Form::new(&boundary, request.into_body());
    let mut existing = Existing::Rename;
    while let Some(part) = form.next_part().await? {
        match part.file {
            None => {
                let value = form.value().await?;
                if part.name == "existing" {
                    existing = Existing::named(&value).unwrap_or(existing);
                }
            }
            // A file field that nothing was chosen in.
            Some(name) if name.is_empty() => while form.content().await?.is_some() {},
            Some(name) => receive(&files.docroot, &folder, &name, existing, &mut form).await?,
        }
    }
    Ok(done())
}

async fn receive(
    docroot: &Docroot,
    folder: &[u8],
    name: &[u8],
    existing: Existing,
    form: &mut Form,
) -> Result<(), Refused> {
    let name = checked_name(name)?.to_vec();
    let (docroot, folder) = (docroot.clone(), folder.to_vec());
    let taken = joined(&folder, &name);
    let growing = blocking(move || {
        if existing == Existing::Skip && docroot.about(&taken).is_ok() {
            return Ok(None);
        }
        Ok(Some(docroot.begin_growing(&folder, format!(".haul-{}.part", random_id()?).as_bytes())?))
    })
    .await?;
    let Some(growing) = growing else {
        while form.content().await?.is_some() {}
        return Ok(());
    };
    let mut writer = Writer { growing, at: 0, end: u64::MAX, waiting: BytesMut::new() };
    loop {
        match form.content().await {
            Ok(Some(data)) => writer = writer.take(data.freeze()).await?,
            Ok(None) => break,
            Err(refused) => {
                // A form cannot be resumed: nothing is left of it.
                let _ = blocking(move || Ok(writer.growing.discard()?)).await;
                return Err(refused);
            }
        }
    }
    let writer = writer.flush().await?;
    blocking(move || Ok(land(&writer.growing, &name, existing)?)).await.map(drop)
}

fn boundary(kind: &str) -> Option<String> {
    let mut parts = kind.split(';').map(str::trim);
    parts.next().filter(|kind| kind.eq_ignore_ascii_case("multipart/form-data"))?;
    let value = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (1..=MAX_BOUNDARY).contains(&value.len()).then_some(value)
}

/// The head of a part.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    name: String,
    /// The name of a file, without folders.
    file: Option<Vec<u8>>,
}

/// A form as it comes.
struct Form {
    body: Incoming,
    /// A line end, two hyphens and the boundary.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    ended: bool,
}

impl Form {
    fn new(boundary: &str, body: Incoming) -> Self {
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter has no line before it.
        Self { body, delimiter, buffer: BytesMut::from(&b"\r\n"[..]), ended: false }
    }

    async fn more(&mut self) -> Result<(), Refused> {
        let broken = || Refused::new(StatusCode::BAD_REQUEST, "the form ended too early; send it again");
        match next_data(&mut self.body).await {
            Some(Ok(data)) if !self.ended => {
                self.buffer.extend_from_slice(&data);
                Ok(())
            }
            _ => Err(broken()),
        }
    }

    /// Goes to the next part; what is left of this one is passed over.
    async fn next_part(&mut self) -> Result<Option<Part>, Refused> {
        while self.content().await?.is_some() {}
        self.buffer.advance(self.delimiter.len());
        while self.buffer.len() < 2 {
            self.more().await?;
        }
        if self.buffer.starts_with(b"--") {
            self.ended = true;
            return Ok(None);
        }
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Refused::new(StatusCode::BAD_REQUEST, "a part of the form has too long a head"));
            }
            self.more().await?;
        };
        // The line end before the content stays: a delimiter may follow at once.
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        Ok(Some(part(&head)))
    }

    /// Content of the present part; `None` at its end.
    async fn content(&mut self) -> Result<Option<BytesMut>, Refused> {
        loop {
            match find(&self.buffer, &self.delimiter) {
                Some(0) => return Ok(None),
                Some(at) => return Ok(Some(self.buffer.split_to(at))),
                None => {
                    let safe = self.buffer.len().saturating_sub(self.delimiter.len());
                    if safe > 0 {
                        return Ok(Some(self.buffer.split_to(safe)));
                    }
                    self.more().await?;
                }
            }
        }
    }

    async fn value(&mut self) -> Result<Vec<u8>, Refused> {
        let mut value = Vec::new();
        while let Some(data) = self.content().await? {
            value.extend_from_slice(&data);
            if value.len() > MAX_VALUE {
                return Err(Refused::new(StatusCode::BAD_REQUEST, "a value of the form is too long"));
            }
        }
        Ok(value)
    }
}

fn part(head: &[u8]) -> Part {
    let head = String::from_utf8_lossy(head);
    let mut part = Part { name: String::new(), file: None };
    for line in head.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else { continue };
        if !name.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        part.name = parameter(value, "name").unwrap_or_default();
        part.file = parameter(value, "filename").map(|file| {
            let last = file.rsplit(['/', '\\']).next().unwrap_or_default();
            // The three characters that browsers escape (HTML, "multipart form data").
            last.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n").into_bytes()
        });
    }
    part
}

/// A parameter in quotes.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let start = format!("; {wanted}=\"");
    let (_, rest) = value.split_once(&start)?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (&first, _) = wanted.split_first()?;
    let mut from = 0;
    while let Some(rest) = bytes.get(from..) {
        let at = from + rest.iter().position(|&byte| byte == first)?;
        if bytes.get(at..)?.starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_and_heads_are_read_as_browsers_write_them() {
        assert_eq!(boundary("multipart/form-data; boundary=----WebKit7").as_deref(), Some("----WebKit7"));
        assert_eq!(boundary("Multipart/Form-Data; charset=x; boundary=\"a b\"").as_deref(), Some("a b"));
        for bad in ["text/plain; boundary=x", "multipart/form-data", "multipart/form-data; boundary="] {
            assert_eq!(boundary(bad), None, "{bad}");
        }
        let head = b"Content-Disposition: form-data; name=\"file\"; filename=\"C:\\x\\a%22b.txt\"\r\nContent-Type: x";
        assert_eq!(part(head), Part { name: "file".to_owned(), file: Some(b"a\"b.txt".to_vec()) });
        let head = b"content-disposition: form-data; name=\"existing\"";
        assert_eq!(part(head), Part { name: "existing".to_owned(), file: None });
    }

    #[test]
    fn delimiters_are_found_wherever_they_stand() {
        assert_eq!(find(b"\r\r\n--x", b"\r\n--x"), Some(1));
        assert_eq!(find(b"abc\r\n--", b"\r\n--x"), None);
        assert_eq!(find(b"", b"x"), None);
    }
}
