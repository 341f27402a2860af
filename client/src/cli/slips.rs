//! Slips of the pen that the grammar alone would take for something else, and spellings that only `ascp` has.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::ClientError;
use crate::sanitize;

/// Rewrites `ascp`'s spellings that no grammar of letters and long names has.
pub(super) fn respelled(args: &[OsString]) -> Vec<Cow<'_, OsStr>> {
    let mut options = true;
    let respell = |arg: &'_ OsString| match arg.as_bytes() {
        b"-hh" => Some("--help"),
        b"-SSH" => Some("--ssh-command=ssh"),
        _ => None,
    };
    let mut words = Vec::with_capacity(args.len());
    for arg in args {
        options &= arg != "--";
        let word = respell(arg).filter(|_| options);
        words.push(word.map_or(Cow::Borrowed(arg.as_os_str()), |word| Cow::Owned(word.into())));
    }
    words
}

/// `-p 33001` and `-p33001`: other programs' letter for the port, but here `-p` keeps times.
pub(super) fn port_given_to_small_p(args: &[OsString]) -> Result<(), ClientError> {
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut rest = args.iter().skip(1).take_while(|arg| *arg != "--").peekable();
    while let Some(arg) = rest.next() {
        let attached = arg.as_bytes().strip_prefix(b"-p").filter(|digits| number(digits));
        let apart = (arg == "-p").then(|| rest.peek().map(|next| next.as_bytes())).flatten();
        let apart =
            apart.filter(|digits| number(digits) && !PathBuf::from(OsStr::from_bytes(digits)).exists());
        if let Some(digits) = attached.or(apart) {
            let digits = sanitize::bytes(digits);
            return Err(ClientError::usage(
                format!("-p keeps the files' times and takes no value, found {digits}"),
                format!("did you mean -P {digits}?"),
            ));
        }
    }
    Ok(())
}
