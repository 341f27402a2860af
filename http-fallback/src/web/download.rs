//! One file as an answer: conditions, ranges, and a body that is cut rather than wrong when the file changes.

use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use haul_io::disk::browse::{About, OpenFile};
use hyper::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use hyper::{Response, StatusCode};
use ring::digest::{SHA256, digest};

use super::body::{self, Body, Source};
use super::date::Moment;
use super::disposition::attachment;
use super::range::{Answer, Conditions, answer};

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// Answers a GET, or with `head` a HEAD.
#[must_use]
pub fn serve(file: OpenFile, name: &[u8], headers: &HeaderMap, head: bool) -> Response<Body> {
    let (etag, modified) = (etag(&file.about), Moment::new(file.about.modified_s).http());
    let size = file.about.size;
    let asked = conditions(headers);
    let mut response = Response::builder()
        .header(ETAG, &etag)
        .header(LAST_MODIFIED, &modified)
        .header(ACCEPT_RANGES, "bytes");
    let (first, end) = match answer(&asked, &etag, &modified, size) {
        Answer::NotModified => return finish(response.status(StatusCode::NOT_MODIFIED), body::empty()),
        Answer::Changed => return finish(response.status(StatusCode::PRECONDITION_FAILED), body::empty()),
        Answer::Unsatisfiable => {
            let response = response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(CONTENT_RANGE, format!("bytes */{size}"));
            return finish(response, body::empty());
        }
        Answer::Whole => (0, size),
        Answer::Part { first, last } => {
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
            (first, last + 1)
        }
    };
    let length = end - first;
    response = response
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_DISPOSITION, attachment(name))
        .header(CONTENT_LENGTH, length);
    let body = if head { body::empty() } else { body::pulled(Piecewise { file, at: first, end }, length) };
    finish(response, body)
}

fn finish(response: hyper::http::response::Builder, body: Body) -> Response<Body> {
    response.body(body).expect("no header here comes from outside unescaped")
}

fn conditions(headers: &HeaderMap) -> Conditions<'_> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // A repeated Range is no range.
    let range = if headers.get_all(RANGE).iter().count() == 1 { text(RANGE) } else { None };
    Conditions {
        if_match: text(IF_MATCH),
        if_none_match: text(IF_NONE_MATCH),
        if_modified_since: text(IF_MODIFIED_SINCE),
        if_range: text(IF_RANGE),
        range,
    }
}

/// Tells nothing of the file system: the digest of what changes with the content.
fn etag(about: &About) -> String {
    let digest = digest(&SHA256, about.version().as_bytes());
    let digits: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

struct Piecewise {
    file: OpenFile,
    at: u64,
    end: u64,
}

impl Source for Piecewise {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; left.min(PIECE)];
        self.file.file.read_exact_at(&mut piece, self.at)?;
        self.at += piece.len() as u64;
        // The last piece leaves only if all that went before is of the same version.
        if self.at == self.end && !self.file.about.same_content(&self.file.about_now()?) {
            return Err(io::Error::other("the file changed while it was sent"));
        }
        Ok(Some(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use haul_io::disk::Docroot;
    use http_body_util::BodyExt as _;

    use super::*;

    fn get(docroot: &Docroot, headers: &[(HeaderName, &str)]) -> Response<Body> {
        let map = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        serve(docroot.read_file(b"f").unwrap(), b"f", &map, false)
    }

    #[tokio::test]
    async fn parts_of_a_file_make_the_file() {
        let top = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..700_001_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        fs::write(top.path().join("f"), &content).unwrap();
        let docroot = Docroot::open(top.path()).unwrap();
        let whole = get(&docroot, &[]);
        assert_eq!(
            (whole.status(), whole.headers()[CONTENT_LENGTH].to_str().unwrap()),
            (StatusCode::OK, "700001")
        );
        let etag = whole.headers()[ETAG].to_str().unwrap().to_owned();
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), content);
        let tail = get(&docroot, &[(RANGE, "bytes=300000-"), (IF_RANGE, &etag)]);
        assert_eq!(tail.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(tail.headers()[CONTENT_RANGE], "bytes 300000-700000/700001");
        assert_eq!(tail.into_body().collect().await.unwrap().to_bytes(), content[300_000..]);
        let beyond = get(&docroot, &[(RANGE, "bytes=700001-")]);
        assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.headers()[CONTENT_RANGE], "bytes */700001");
        fs::write(top.path().join("f"), "new").unwrap();
        let stale = get(&docroot, &[(RANGE, "bytes=1-"), (IF_RANGE, &etag)]);
        assert_eq!(stale.status(), StatusCode::OK);
        assert_eq!(stale.into_body().collect().await.unwrap().to_bytes(), "new");
    }

    #[tokio::test]
    async fn a_file_that_changes_or_shrinks_is_cut_and_never_taken_for_whole() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("f");
        fs::write(&path, vec![1; 3 * PIECE]).unwrap();
        let docroot = Docroot::open(top.path()).unwrap();
        let mut response = get(&docroot, &[]);
        response.body_mut().frame().await.unwrap().unwrap();
        fs::write(&path, vec![2; 3 * PIECE]).unwrap();
        assert!(response.into_body().collect().await.is_err());
        let mut response = get(&docroot, &[]);
        response.body_mut().frame().await.unwrap().unwrap();
        fs::write(&path, vec![2; 10]).unwrap();
        assert!(response.into_body().collect().await.is_err());
    }
}
