//! The command line: which options there are and which part of the library does the work. It does no work itself.

use std::ffi::OsString;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use haul_client::prompt;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::ServerError;
use crate::{demo, logging, password, serve, session, web};

/// Longest line that is read as a password; the limit of passwords themselves is lower.
const MAX_LINE_BYTES: u64 = 4096;

/// Serves file transfers to `haul`.
#[derive(Debug, Parser)]
#[command(name = "hauld", version, about, arg_required_else_help = true)]
pub struct Arguments {
    /// Log more: once for decisions, twice for packets.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until stopped; without a configuration serve your own account.
    Serve {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Be the worker of one session, on standard input and output. Started by `hauld serve`, or by an OpenSSH server
    /// with `Subsystem haul /usr/bin/hauld session`.
    #[command(hide = true)]
    Session {
        /// Read the session's policy from standard input first.
        #[arg(long)]
        policy_on_stdin: bool,
    },
    /// Be the worker that has the files of one user for browsers. Started by `hauld serve`.
    #[command(hide = true)]
    Web,
    /// Make a first real transfer on this machine: server, client, SSH, UDP, upload, download, digests.
    Demo,
    /// The client of the demonstration, as a process of its own.
    #[command(name = demo::CLIENT, hide = true)]
    DemoClient {
        /// What `haul` takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Hash a password for `password` in [[user]]: asks at a terminal, else reads one line of standard input.
    Password,
    /// Check a configuration and print `ok` or every problem.
    CheckConfig {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the effective configuration with the origin of each value.
    PrintConfig {
        /// Configuration file (TOML); without one, what `hauld serve` would use.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Does what the command line asks for.
///
/// # Errors
/// [`ServerError`], for `main` to print.
pub fn run(arguments: &Arguments) -> Result<ExitCode, ServerError> {
    match &arguments.command {
        Command::Serve { config } => {
            logging::start(logging::Role::Front, arguments.verbose);
            serve::serve(config.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Command::Session { policy_on_stdin } => {
            let role =
                if *policy_on_stdin { logging::Role::Worker } else { logging::Role::WorkerOfStockServer };
            logging::start(role, arguments.verbose);
            Ok(session::run(*policy_on_stdin))
        }
        Command::Web => {
            logging::start(logging::Role::Worker, arguments.verbose);
            Ok(web::worker::run())
        }
        Command::Demo => demo::run().map(|()| ExitCode::SUCCESS),
        Command::DemoClient { arguments } => {
            let name = OsString::from("haul");
            Ok(haul_client::run_cli(std::iter::once(name).chain(arguments.iter().cloned())))
        }
        Command::Password => print(&format!("{}\n", password::hash(ask_password()?.as_bytes())?)),
        Command::CheckConfig { config } => check(&Config::load(config)?),
        Command::PrintConfig { config } => {
            print(&Config::load_or_single_user(config.as_deref())?.to_string())
        }
    }
}

/// The password: typed twice by a person, or a line from a program.
fn ask_password() -> Result<Zeroizing<String>, ServerError> {
    let failed = |error: io::Error| ServerError::ReadPassword(error.to_string());
    if !prompt::possible() {
        let mut line = Zeroizing::new(String::with_capacity(2 * password::MAX_PASSWORD_BYTES));
        io::stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line).map_err(failed)?;
        let end = line.trim_end_matches(['\r', '\n']).len();
        line.truncate(end);
        return Ok(line);
    }
    let first = prompt::blocking("Password: ").map_err(failed)?;
    let second = prompt::blocking("The same again: ").map_err(failed)?;
    if *first != *second {
        return Err(ServerError::ReadPassword("the two are not the same".to_owned()));
    }
    Ok(first)
}

/// Warnings count here as problems: whoever checks wants to know all.
fn check(config: &Config) -> Result<ExitCode, ServerError> {
    let problems = config.check();
    if problems.is_empty() { print("ok\n") } else { Err(config.refused_for(problems)) }
}

fn print(text: &str) -> Result<ExitCode, ServerError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ServerError::Output)?;
    Ok(ExitCode::SUCCESS)
}
