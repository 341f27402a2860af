//! Uploads that grow over several requests and survive a restart of everything: tus 1.0 with the extensions creation,
//! termination, expiration and checksum (<https://tus.io/protocols/resumable-upload>).
//!
//! All that is known of an upload lies beside the files of its folder: the content so far under a name of its own, whose
//! length is the offset, and a few facts in another file. A file gets its final name when it is whole, and never takes
//! the place of another unless that was asked for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use haul_io::disk::browse::{EntryKind, Growing, Taken};
use haul_io::disk::{DiskError, Docroot};
use haul_proto::control::Trouble;
use haul_proto::manifest::is_component;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::body::{self, Body, next_data};
use super::date::Moment;
use super::disposition::safe_name;
use super::listing::joined;
use super::percent::{encode_name, encode_path};
use super::service::{Files, KIND, Refused, blocking, kind};

/// An upload that nothing was added to for so long is removed, seconds.
const LIFE: u64 = 7 * 24 * 3600;

/// Bytes collected before they are written.
const PIECE: usize = 1 << 20;

/// What is taken of content that is refused, and for how long.
const MAX_DRAINED: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Names that are tried beside one that is taken.
const MAX_TRIES: u32 = 1000;

const VERSION: (HeaderName, &str) = (HeaderName::from_static("tus-resumable"), "1.0.0");

/// What to do if a file of the name is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Existing {
    /// Refuse, so that the user can be asked.
    #[default]
    Ask,
    /// Store the new one under a name beside it.
    Rename,
    /// Put the new one in its place.
    Replace,
    /// Leave it, and pass the new one over.
    Skip,
}

impl Existing {
    pub(super) fn named(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"ask" => Self::Ask,
            b"rename" => Self::Rename,
            b"replace" => Self::Replace,
            b"skip" => Self::Skip,
            _ => return None,
        })
    }
}

/// What is kept beside the content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Info {
    name: Vec<u8>,
    size: u64,
    existing: Existing,
}

/// Whether a name is that of an upload under way, of this or another part of haul; such files are in no listing.
#[must_use]
pub fn is_partial(name: &[u8]) -> bool {
    name.starts_with(b".haul-")
        && [&b".part"[..], b".info", b".journal"].iter().any(|end| name.ends_with(end))
}

/// Names of the two files of an upload.
fn names(id: &str) -> (Vec<u8>, Vec<u8>) {
    (format!(".haul-{id}.part").into_bytes(), format!(".haul-{id}.info").into_bytes())
}

/// The id in such a name, if it is one of ours: 32 hexadecimal digits.
fn id_of(name: &[u8]) -> Option<&str> {
    let middle = name.strip_prefix(b".haul-")?;
    let id = middle.strip_suffix(b".part").or_else(|| middle.strip_suffix(b".info"))?;
    std::str::from_utf8(id).ok().filter(|id| is_id(id))
}

fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Answers a request below `/upload/`: `path` is the folder, for all but POST with the id behind it.
pub(super) async fn serve(
    files: Files,
    path: Vec<u8>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    if !files.write {
        return Err(Refused::forbidden("upload"));
    }
    if request.method() == Method::OPTIONS {
        return Ok(finish(
            response(StatusCode::NO_CONTENT)
                .header("tus-version", "1.0.0")
                .header("tus-extension", "creation,termination,expiration,checksum")
                .header("tus-checksum-algorithm", "sha1,sha256"),
        ));
    }
    if request.headers().get("tus-resumable").is_none_or(|version| version != VERSION.1) {
        return Err(Refused::new(StatusCode::PRECONDITION_FAILED, "this server speaks tus 1.0.0"));
    }
    if request.method() == Method::POST {
        let headers = request.headers().clone();
        return blocking(move || create(&files.docroot, &path, &headers)).await;
    }
    let (folder, id) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[][..], path.as_slice()),
    };
    let id = std::str::from_utf8(id).ok().filter(|id| is_id(id)).ok_or_else(gone)?;
    let upload = Upload { docroot: files.docroot, folder: folder.to_vec(), id: id.to_owned() };
    match *request.method() {
        Method::HEAD => blocking(move || upload.tell()).await,
        Method::PATCH => upload.extend(request).await,
        Method::DELETE => blocking(move || upload.remove()).await,
        _ => Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "an upload knows HEAD, PATCH and DELETE")),
    }
}

fn gone() -> Refused {
    Refused::new(
        StatusCode::NOT_FOUND,
        "there is no such upload; it is finished, cancelled or too old: begin it again",
    )
}

fn response(status: StatusCode) -> hyper::http::response::Builder {
    Response::builder().status(status).header(VERSION.0, VERSION.1).header(KIND, kind::UPLOAD)
}

fn finish(builder: hyper::http::response::Builder) -> Response<Body> {
    builder.body(body::empty()).expect("no header here comes from outside unescaped")
}

fn expires() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Moment::new(i64::try_from(now + LIFE).unwrap_or(i64::MAX)).http()
}

fn number(headers: &HeaderMap, name: &str) -> Result<u64, Refused> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, format!("{name} must be a number of bytes")))
}

/// A value of `Upload-Metadata`: names and base64, with commas between.
fn metadata(headers: &HeaderMap, wanted: &str) -> Option<Vec<u8>> {
    let text = headers.get("upload-metadata")?.to_str().ok()?;
    text.split(',').find_map(|pair| {
        let (name, value) = pair.trim().split_once(' ').unwrap_or_else(|| (pair.trim(), ""));
        (name == wanted).then(|| STANDARD.decode(value.trim()).ok()).flatten()
    })
}

/// A name that a file may get.
pub(super) fn checked_name(name: &[u8]) -> Result<&[u8], Refused> {
    let text = std::str::from_utf8(name).ok();
    if text.is_some_and(|text| is_component(name) && !text.chars().any(char::is_control)) && !is_partial(name)
    {
        return Ok(name);
    }
    Err(Refused::new(
        StatusCode::BAD_REQUEST,
        format!("`{}` cannot be the name of a file here; give it another one", safe_name(name)),
    ))
}

fn create(docroot: &Docroot, folder: &[u8], headers: &HeaderMap) -> Result<Response<Body>, Refused> {
    let size = number(headers, "upload-length")?;
    let name = metadata(headers, "filename").or_else(|| metadata(headers, "name")).unwrap_or_default();
    let name = checked_name(&name)?.to_vec();
    let existing = metadata(headers, "existing").and_then(|text| Existing::named(&text)).unwrap_or_default();
    if matches!(existing, Existing::Ask | Existing::Skip) && docroot.about(&joined(folder, &name)).is_ok() {
        return Err(Refused::new(StatusCode::CONFLICT, "a file of this name is there already"));
    }
    sweep(docroot, folder);
    let id = random_id()?;
    let (part, info_name) = names(&id);
    let growing = docroot.begin_growing(folder, &part)?;
    let info = Info { name, size, existing };
    let mut created = response(StatusCode::CREATED)
        .header("upload-expires", expires())
        .header(LOCATION, format!("/upload/{}", encode_path(&joined(folder, id.as_bytes()))));
    if size == 0 {
        let name = land(&growing, &info.name, info.existing)?;
        created = created.header("haul-name", encode_name(&name));
    } else {
        let written = serde_json::to_vec(&info)
            .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        docroot.begin_growing(folder, &info_name)?.write_at(&written, 0)?;
    }
    Ok(finish(created))
}

/// An id that nobody guesses.
pub(super) fn random_id() -> Result<String, Refused> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the system has no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes what was given up long ago. What cannot be removed is tried again with the next upload.
fn sweep(docroot: &Docroot, folder: &[u8]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for entry in docroot.entries(folder).unwrap_or_default() {
        let old = u64::try_from(entry.about.modified_s).is_ok_and(|modified| modified + LIFE < now);
        if old && id_of(&entry.name).is_some() && entry.about.kind == EntryKind::File {
            let _ = docroot.remove_file(folder, &entry.name);
        }
    }
}

/// Gives a whole file its final name: the one that was wanted, or if that must not be, one beside it.
pub(super) fn land(growing: &Growing, name: &[u8], existing: Existing) -> Result<Vec<u8>, DiskError> {
    if existing == Existing::Replace {
        growing.finish(name, Taken::Replace)?;
        return Ok(name.to_vec());
    }
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0).unwrap_or(name.len());
    let (stem, end) = name.split_at(dot);
    for number in 1..MAX_TRIES {
        let beside = match number {
            1 => name.to_vec(),
            // Room for the number within the 255 bytes of a name; what is cut inside a character is mended below.
            _ => {
                [stem.get(..stem.len().min(230)).unwrap_or_default(), format!(" ({number})").as_bytes(), end]
                    .concat()
            }
        };
        let beside = match String::from_utf8(beside) {
            Ok(text) => text.into_bytes(),
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into_bytes(),
        };
        if growing.finish(&beside, Taken::Keep)? {
            return Ok(beside);
        }
    }
    Err(growing.refused(Trouble::Limit, "a thousand files of this name are there already"))
}

/// One upload under way.
struct Upload {
    docroot: Docroot,
    folder: Vec<u8>,
    id: String,
}

impl Upload {
    fn info(&self) -> Result<Info, Refused> {
        let path = joined(&self.folder, &names(&self.id).1);
        let open = self.docroot.read_file(&path).map_err(|error| match error.trouble {
            Trouble::NotFound => gone(),
            _ => error.into(),
        })?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(open.file, 8 << 10), &mut bytes)
            .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|_| gone())
    }

    fn open(&self) -> Result<Growing, Refused> {
        self.docroot.open_growing(&self.folder, &names(&self.id).0).map_err(|error| match error.trouble {
            Trouble::NotFound => gone(),
            _ => error.into(),
        })
    }

    fn tell(&self) -> Result<Response<Body>, Refused> {
        let info = self.info()?;
        let offset = self.docroot.about(&joined(&self.folder, &names(&self.id).0))?.size;
        Ok(finish(
            response(StatusCode::OK)
                .header("upload-offset", offset)
                .header("upload-length", info.size)
                .header("upload-expires", expires())
                .header(CACHE_CONTROL, "no-store"),
        ))
    }

    fn remove(&self) -> Result<Response<Body>, Refused> {
        self.info()?;
        let (part, info) = names(&self.id);
        // Held by a request that adds to it, it is not removed under its feet.
        self.open()?.discard()?;
        let _ = part;
        self.docroot.remove_file(&self.folder, &info)?;
        Ok(finish(response(StatusCode::NO_CONTENT)))
    }

    async fn extend(self, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let (parts, mut incoming) = request.into_parts();
        if parts.headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/offset+octet-stream") {
            let message = "the content must be application/offset+octet-stream";
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let begin = number(&parts.headers, "upload-offset")?;
        let mut checksum = Checksum::wanted(&parts.headers)?;
        let opened = blocking(move || {
            let (info, growing) = (self.info()?, self.open()?);
            if growing.length()? != begin {
                return Err(Refused::new(
                    StatusCode::CONFLICT,
                    "the upload is at another place; ask with HEAD",
                ));
            }
            Ok((self, info, growing))
        })
        .await;
        if opened.is_err() {
            drain(&mut incoming).await;
        }
        let (upload, info, growing) = opened?;
        let mut writer = Writer { growing, at: begin, end: info.size, waiting: BytesMut::new() };
        let ended = loop {
            match next_data(&mut incoming).await {
                Some(Ok(data)) => {
                    if let Some(checksum) = &mut checksum {
                        checksum.context.update(&data);
                    }
                    writer = writer.take(data).await?;
                }
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        let writer = writer.flush().await?;
        let (growing, at) = (writer.growing, writer.at);
        if let Some(checksum) = checksum
            && !(ended && checksum.agrees())
        {
            // As if nothing had come: the client sends it again.
            return blocking(move || {
                growing.cut(begin)?;
                Err(Refused::new(
                    StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST),
                    "the checksum differs",
                ))
            })
            .await;
        }
        let mut answer =
            response(StatusCode::NO_CONTENT).header("upload-offset", at).header("upload-expires", expires());
        if at == info.size && ended {
            let name = blocking(move || {
                let name = land(&growing, &info.name, info.existing)?;
                // The file is whole whatever becomes of its facts.
                let _ = upload.docroot.remove_file(&upload.folder, &names(&upload.id).1);
                Ok(name)
            })
            .await?;
            answer = answer.header("haul-name", encode_name(&name));
        }
        Ok(finish(answer))
    }
}

/// Takes what is on its way: many clients read no answer before they have sent all, and see a broken connection instead.
async fn drain(incoming: &mut Incoming) {
    let all = async {
        let mut taken = 0;
        while let Some(Ok(data)) = next_data(incoming).await {
            taken += data.len();
            if taken > MAX_DRAINED {
                return;
            }
        }
    };
    // Whoever is slower is cut off.
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}

/// Collects what comes and writes it in large pieces.
pub(super) struct Writer {
    pub(super) growing: Growing,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) waiting: BytesMut,
}

impl Writer {
    pub(super) async fn take(mut self, data: Bytes) -> Result<Self, Refused> {
        let known = self.at + self.waiting.len() as u64;
        if data.len() as u64 > self.end.saturating_sub(known) {
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "more came than was announced"));
        }
        self.waiting.extend_from_slice(&data);
        if self.waiting.len() < PIECE { Ok(self) } else { self.flush().await }
    }

    pub(super) async fn flush(mut self) -> Result<Self, Refused> {
        if self.waiting.is_empty() {
            return Ok(self);
        }
        blocking(move || {
            self.growing.write_at(&self.waiting, self.at)?;
            self.at += self.waiting.len() as u64;
            self.waiting.clear();
            Ok(self)
        })
        .await
    }
}

/// `Upload-Checksum`: an algorithm and the digest in base64.
struct Checksum {
    context: Context,
    expected: Vec<u8>,
}

impl Checksum {
    fn wanted(headers: &HeaderMap) -> Result<Option<Self>, Refused> {
        let Some(value) = headers.get("upload-checksum") else { return Ok(None) };
        let (algorithm, digest) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
        let algorithm = match algorithm {
            "sha1" => &SHA1_FOR_LEGACY_USE_ONLY,
            "sha256" => &SHA256,
            _ => return Err(Refused::new(StatusCode::BAD_REQUEST, "checksums are sha1 or sha256")),
        };
        let expected = STANDARD.decode(digest.trim()).unwrap_or_default();
        Ok(Some(Self { context: Context::new(algorithm), expected }))
    }

    fn agrees(self) -> bool {
        self.context.finish().as_ref() == self.expected
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_never_takes_the_place_of_another_unasked() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("a.tar.gz"), "old").unwrap();
        let docroot = Docroot::open(top.path()).unwrap();
        let store = |existing| {
            let growing = docroot.begin_growing(b"", b".haul-x.part").unwrap();
            growing.write_at(b"new", 0).unwrap();
            String::from_utf8(land(&growing, b"a.tar.gz", existing).unwrap()).unwrap()
        };
        assert_eq!(store(Existing::Rename), "a.tar (2).gz");
        assert_eq!(store(Existing::Ask), "a.tar (3).gz", "it came meanwhile");
        assert_eq!(fs::read_to_string(top.path().join("a.tar.gz")).unwrap(), "old");
        assert_eq!(store(Existing::Replace), "a.tar.gz");
        assert_eq!(fs::read_to_string(top.path().join("a.tar.gz")).unwrap(), "new");
        let long = [&"ü".repeat(125).into_bytes()[..], b".dat"].concat();
        for n in 0..3 {
            let growing = docroot.begin_growing(b"", b".haul-x.part").unwrap();
            let name = land(&growing, &long, Existing::Rename).unwrap();
            assert!(name.len() <= 255 && std::str::from_utf8(&name).is_ok(), "{n}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"\0", b"a\nb", b"\xff", b".haul-x.part", &[b'x'; 256]] {
            assert!(checked_name(name).is_err(), "{}", name.escape_ascii());
        }
        assert!(checked_name("Größe \"1\".txt".as_bytes()).is_ok());
    }

    #[test]
    fn what_was_given_up_long_ago_is_removed() {
        let top = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let docroot = Docroot::open(top.path()).unwrap();
        for name in [format!(".haul-{id}.part"), format!(".haul-{id}.info"), ".haul-0011-2.part".to_owned()] {
            let file = fs::File::create(top.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(LIFE + 10)).unwrap();
        }
        let fresh = "f".repeat(32);
        fs::write(top.path().join(format!(".haul-{fresh}.part")), "").unwrap();
        sweep(&docroot, b"");
        let mut left: Vec<_> =
            fs::read_dir(top.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(
            left,
            [".haul-0011-2.part".into(), std::ffi::OsString::from(format!(".haul-{fresh}.part"))]
        );
    }

    #[test]
    fn metadata_is_read_as_tus_writes_it() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "upload-metadata",
            "filename d29ybGQgw7w=,is_confidential, existing cmVwbGFjZQ==".parse().unwrap(),
        );
        assert_eq!(metadata(&headers, "filename").unwrap(), "world ü".as_bytes());
        assert_eq!(metadata(&headers, "existing").as_deref(), Some(&b"replace"[..]));
        assert_eq!(metadata(&headers, "none"), None);
    }
}
