//! `haul encrypt FILE...` and `haul decrypt FILE...` as a user types them. Not here: what happens to the files (`local`).

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::SUFFIX;
use super::local::{CryptError, Vault};
use crate::cli::Manner;
use crate::exit_status::ExitStatus;
use crate::plan::Environment;
use crate::{prompt, sanitize};

const HELP: &str = "\
Usage: haul encrypt PATH...
       haul decrypt PATH...

Makes FILE.haul-crypt of FILE with a password, or FILE of FILE.haul-crypt, on this machine. The source stays, and
nothing is written over. Of a folder all files below it are taken that are not, or are, encrypted; links are passed over. The password is HAUL_FILE_PASSWORD or ASPERA_SCP_FILEPASS, else it is asked for at the
terminal. Written is the name of each file made. A file named encrypt or decrypt is sent as ./encrypt.

Exit status: 0 all done, 1 some files failed, 2 wrong command line or no password
";

/// Folders in folders that are entered.
const MAX_DEPTH: u32 = 256;

/// What to do with the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Encrypt,
    Decrypt,
}

/// Runs the command if this command line is one; the first argument is the program's name.
pub(crate) fn run(args: &[OsString]) -> Option<ExitCode> {
    let (deed, rest) = asked(args)?;
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        let _ = io::stdout().write_all(HELP.as_bytes());
        return Some(ExitStatus::Success.into());
    }
    Some(match carry_out(deed, rest) {
        Ok(status) => status.into(),
        Err((message, remedy)) => {
            let _ = writeln!(io::stderr(), "haul: {message}\n  {remedy}");
            ExitStatus::Usage.into()
        }
    })
}

/// Whether the command line is one of these. With a remote operand it is a transfer of a file of that name.
fn asked(args: &[OsString]) -> Option<(Deed, &[OsString])> {
    let (program, rest) = args.split_first()?;
    let (word, rest) = rest.split_first()?;
    let deed = match word.as_bytes() {
        b"encrypt" => Deed::Encrypt,
        b"decrypt" => Deed::Decrypt,
        _ => return None,
    };
    let remote = rest.iter().any(|word| word.as_bytes().contains(&b':'));
    (Manner::of(Some(program)) == Manner::Haul && !remote).then_some((deed, rest))
}

type Wrong = (String, &'static str);

fn carry_out(deed: Deed, words: &[OsString]) -> Result<ExitStatus, Wrong> {
    let words = match words.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => match words.iter().find(|word| word.as_bytes().starts_with(b"-")) {
            Some(option) => {
                let shown = sanitize::text(&option.to_string_lossy());
                return Err((
                    format!("{shown} is no option here"),
                    "see haul encrypt --help; a file of that name is ./-...",
                ));
            }
            None => words,
        },
    };
    if words.is_empty() {
        return Err(("no file named".to_owned(), "see haul encrypt --help"));
    }
    let password = password(deed)?;
    let mut vault = Vault::new(password.as_slice());
    let mut status = ExitStatus::Success;
    for word in words {
        let path = Path::new(word);
        let well = match path.is_dir() {
            true => below(deed, &mut vault, path, 0),
            false => one(deed, &mut vault, path),
        };
        if !well {
            status = ExitStatus::Failed;
        }
    }
    Ok(status)
}

fn one(deed: Deed, vault: &mut Vault<'_>, path: &Path) -> bool {
    let done = match deed {
        Deed::Encrypt => vault.encrypt(path),
        Deed::Decrypt => vault.decrypt(path),
    };
    told(path, done)
}

/// All files below a folder, in the order of their names; `true` if all went well.
fn below(deed: Deed, vault: &mut Vault<'_>, folder: &Path, depth: u32) -> bool {
    let listed = || -> io::Result<Vec<fs::DirEntry>> {
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        Ok(entries)
    };
    let too_deep = || io::Error::other("folders are nested too deeply");
    let entries = match if depth > MAX_DEPTH { Err(too_deep()) } else { listed() } {
        Ok(entries) => entries,
        Err(error) => {
            let _ = writeln!(io::stderr(), "haul: {}: {error}", sanitize::path(folder));
            return false;
        }
    };
    let mut well = true;
    for entry in entries {
        let path = entry.path();
        let encrypted = path.as_os_str().as_bytes().ends_with(SUFFIX.as_bytes());
        well &= match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(deed, vault, &path, depth + 1),
            Ok(kind) if kind.is_file() && encrypted == (deed == Deed::Decrypt) => one(deed, vault, &path),
            // Links and pipes, and files of the other kind.
            Ok(_) => true,
            Err(error) => {
                let _ = writeln!(io::stderr(), "haul: {}: {error}", sanitize::path(&path));
                false
            }
        };
    }
    well
}

/// Says what became of a file; `true` if it went well.
fn told(path: &Path, done: Result<PathBuf, CryptError>) -> bool {
    match done {
        Ok(target) => {
            let mut line = target.into_os_string().as_bytes().to_vec();
            line.push(b'\n');
            io::stdout().write_all(&line).is_ok()
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "haul: {}: {error}", sanitize::path(path));
            false
        }
    }
}

/// The password of the environment, else a person's; one that encrypts is asked for twice.
fn password(deed: Deed) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    if let Some(secret) = Environment::of_process().file_password {
        return Ok(Zeroizing::new(secret.as_bytes().to_vec()));
    }
    let ask = |question| {
        prompt::blocking(question).map_err(|error| {
            (format!("no password for the files: {error}"), "set HAUL_FILE_PASSWORD, or run it at a terminal")
        })
    };
    let first = ask("Password for the files: ")?;
    if first.is_empty() {
        return Err((
            "the password is empty".to_owned(),
            "give one, and keep it: without it the files are lost",
        ));
    }
    if deed == Deed::Encrypt && *ask("The same again: ")? != *first {
        return Err(("the two passwords are not the same".to_owned(), "run the command again"));
    }
    Ok(Zeroizing::new(first.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_not_taken_for_these_commands() {
        for (n, (line, deed)) in [
            (&["haul", "encrypt", "f"][..], Some(Deed::Encrypt)),
            (&["/usr/bin/haul", "decrypt", "a", "b"], Some(Deed::Decrypt)),
            (&["haul", "encrypt"], Some(Deed::Encrypt)),
            (&["haul", "decrypt", "host:"], None),
            (&["haul", "./decrypt", "host:"], None),
            (&["haul", "f", "decrypt"], None),
            (&["ascp", "decrypt", "f"], None),
            (&["haul"], None),
        ]
        .into_iter()
        .enumerate()
        {
            let args: Vec<OsString> = line.iter().map(OsString::from).collect();
            assert_eq!(asked(&args).map(|(deed, _)| deed), deed, "row {n}: {line:?}");
        }
    }
}
