//! Makes the link under whose name the program has ascp's manners.

use std::io;
use std::path::Path;

use crate::config::local_error;
use crate::error::ClientError;
use crate::sanitize;

/// Makes `DIR/ascp`, a link to this program. A link that leads here already is fine; anything else stays as it is.
///
/// # Errors
/// If there is another `ascp`, or the link cannot be made.
pub(crate) fn link_ascp(directory: &Path) -> Result<String, ClientError> {
    let program = std::env::current_exe()
        .map_err(|error| ClientError::Internal { message: format!("where is this program? {error}") })?;
    let link = directory.join("ascp");
    match std::os::unix::fs::symlink(&program, &link) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let leads_here = std::fs::canonicalize(&link).is_ok_and(|path| path == program);
            if !leads_here {
                return Err(ClientError::LocalPath {
                    path: link,
                    message: "there is another ascp",
                    remedy: "move it away, or choose another folder",
                    source: None,
                });
            }
        }
        Err(error) => return Err(local_error(&link, error)),
    }
    let shown = sanitize::path(&link);
    let in_path =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|one| one == directory));
    let advice = if in_path { "" } else { "; put the folder into PATH" };
    Ok(format!("{shown} leads to {}{advice}\n", sanitize::path(&program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_made_once_and_never_over_something_else() {
        let folder = tempfile::tempdir().unwrap();
        assert!(link_ascp(folder.path()).unwrap().contains("put the folder into PATH"));
        assert!(link_ascp(folder.path()).is_ok(), "again");
        let link = folder.path().join("ascp");
        std::fs::remove_file(&link).unwrap();
        std::fs::write(&link, "the real one").unwrap();
        assert!(link_ascp(folder.path()).unwrap_err().to_string().contains("another ascp"));
        assert_eq!(std::fs::read(&link).unwrap(), b"the real one");
    }
}
