//! hauld, the server of haul: hands over to the library and prints what it failed of, once.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use haul_server::cli::{Arguments, run};
use haul_server::error::ServerError;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints the error with its causes, then what to do about it.
fn report(error: &ServerError) {
    let mut text = String::new();
    for line in error.lines() {
        text.push_str(&format!("hauld: {line}\n"));
    }
    if let Some(remedy) = error.remedy() {
        text.push_str(&format!("{remedy}\n"));
    }
    // Nobody is left to tell when stderr is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
