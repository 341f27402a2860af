//! Files with holes: the sender does not read what is none of their data, and the receiver leaves holes where only zeros
//! came. Not here: what is sent; a hole travels as zeros.

use std::os::fd::AsFd;

use nix::unistd::{Whence, lseek};

use super::partial::write_at;

/// Zeros are left out in this unit: the page, and the block, of most file systems.
const PAGE: usize = 4096;

/// Whether a file has no data in a range. File systems that do not tell have data everywhere.
pub(super) fn is_hole(file: impl AsFd, offset: u64, length: u64) -> bool {
    let Ok(from) = i64::try_from(offset) else {
        return false;
    };
    match lseek(file, from, Whence::SeekData) {
        Ok(next) => u64::try_from(next).is_ok_and(|next| next >= offset.saturating_add(length)),
        Err(errno) => errno == nix::errno::Errno::ENXIO,
    }
}

/// Writes all of `bytes` at `offset`, a multiple of the page, but for zeros where the file has a hole already. Its length
/// is to be set afterwards.
pub(super) fn write_around_holes(file: impl AsFd, bytes: &[u8], offset: u64) -> nix::Result<()> {
    let mut at = offset;
    let is_zero = |page: &&[u8]| page.iter().all(|&byte| byte == 0);
    for run in bytes.chunks(PAGE).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let length = run.iter().map(|page| page.len()).sum::<usize>();
        let start = (at - offset) as usize;
        let zeros = run.first().is_some_and(is_zero);
        // Where an earlier session has written something, zeros count, too.
        if !zeros || !is_hole(&file, at, length as u64) {
            write_at(&file, bytes.get(start..start + length).unwrap_or_default(), at)?;
        }
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_are_written_only_where_something_else_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let file = std::fs::File::create(&path).unwrap();
        assert!(is_hole(&file, 0, 1), "an empty file has no data");
        let mut bytes = vec![0; 64 * PAGE];
        bytes[3 * PAGE + 5] = 1;
        *bytes.last_mut().unwrap() = 2;
        write_around_holes(&file, &bytes, 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert!(file.metadata().unwrap().blocks() * 512 <= 4 * PAGE as u64, "two pages");
        assert!(is_hole(&file, 4 * PAGE as u64, 8) && !is_hole(&file, 3 * PAGE as u64, 8));
        // Another content over it: what is zero now must not stay what it was.
        let zeros = vec![0; 64 * PAGE];
        write_around_holes(&file, &zeros, 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), zeros);
    }

    #[test]
    fn pages_that_are_cut_short_arrive_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 7] {
            let bytes = vec![7; length];
            write_around_holes(file.as_file(), &bytes, 0).unwrap();
            assert_eq!(std::fs::read(file.path()).unwrap()[..length], bytes);
        }
    }
}
