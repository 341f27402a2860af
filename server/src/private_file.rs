//! Files with secrets of the server, below its state directory: made once, whole, readable by their owner only, and not
//! taken otherwise.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::Uid;

/// Longest file that is read.
const MAX_BYTES: u64 = 256 << 10;

/// Makes the state directory unless it is there, and judges it.
pub(crate) fn prepare(state_dir: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(|error| error.to_string())?;
    let metadata = state_dir.metadata().map_err(|error| error.to_string())?;
    let own = Uid::effective().as_raw();
    if metadata.uid() != own {
        return Err(format!("it belongs to uid {}, expected {own}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!("others can write to it (mode {:04o}), expected 0700", metadata.mode() & 0o7777));
    }
    Ok(())
}

/// Reads a secret; none if there is no such file. The descriptor is judged, not the name.
pub(crate) fn read(path: &Path) -> Result<Option<String>, String> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let own = Uid::effective().as_raw();
    if !metadata.is_file() || metadata.uid() != own {
        return Err(format!("expected a regular file of uid {own}, found one of uid {}", metadata.uid()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("others can read it (mode {:04o}), expected 0600", metadata.mode() & 0o7777));
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(Some(text))
}

/// Written whole under another name, then given its name unless another process was faster.
pub(crate) fn create(state_dir: &Path, path: &Path, text: &str) -> Result<(), String> {
    // A temporary file has mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(state_dir).map_err(|error| error.to_string())?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(|error| error.to_string())?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.error.to_string()),
    }
    File::open(state_dir).and_then(|folder| folder.sync_all()).map_err(|error| error.to_string())
}
