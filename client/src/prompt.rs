//! Asks for a secret at the terminal, without showing it. Only where a person sits: standard input must be a terminal,
//! so that a batch job gets an error and never a question that nobody answers.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::{Zeroize as _, Zeroizing};

/// Longest secret, in bytes.
const MAX_BYTES: usize = 4096;

/// Whether somebody can be asked.
#[must_use]
pub fn possible() -> bool {
    io::stdin().is_terminal()
}

/// Asks, and waits for the answer. If the future is dropped, the terminal is as it was.
///
/// # Errors
/// If there is no terminal, or it is closed without an answer.
pub async fn secret(question: &str) -> io::Result<Zeroizing<String>> {
    if !possible() {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "standard input is no terminal"));
    }
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let _quiet = Quiet::new(&terminal)?;
    terminal.write_all(question.as_bytes())?;
    terminal.flush()?;
    let input = terminal.try_clone()?;
    let answer = tokio::task::spawn_blocking(move || read_line(input)).await.map_err(io::Error::other)?;
    // The Enter of the answer was not shown either.
    terminal.write_all(b"\n")?;
    answer
}

/// The same for a program without a runtime; an interrupt ends it with the terminal as it was.
///
/// # Errors
/// As [`secret`], and if it is interrupted.
pub fn blocking(question: &str) -> io::Result<Zeroizing<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        tokio::select! {
            answer = secret(question) => answer,
            _ = tokio::signal::ctrl_c() => Err(io::ErrorKind::Interrupted.into()),
        }
    });
    // The thread that reads may still wait for the terminal.
    runtime.shutdown_background();
    answer
}

fn read_line(mut input: File) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    let mut byte = [0];
    loop {
        match input.read(&mut byte)? {
            0 if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => break,
            _ if byte == *b"\n" => break,
            _ if bytes.len() >= MAX_BYTES => return Err(io::ErrorKind::InvalidData.into()),
            _ => bytes.push(byte[0]),
        }
    }
    byte.zeroize();
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Zeroizing::new(text.trim_end_matches('\r').to_owned()))
}

/// The terminal without echo; restored on drop.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        // What was typed before the question is not its answer.
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing is left to be done if the terminal is gone.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}
