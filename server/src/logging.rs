//! Where the log goes and how much of it: standard error, fields instead of prose. Says nothing itself.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Environment variable with a filter in the form of tracing's directives.
pub(crate) const FILTER_VARIABLE: &str = "HAUL_LOG";

/// Longest text of a peer that is logged.
const SHOWN_CHARS: usize = 64;

/// Who logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `hauld serve`.
    Front,
    /// `hauld session` below it: the same log.
    Worker,
    /// `hauld session` below an OpenSSH server, which sends standard error to the client: only what went wrong.
    WorkerOfStockServer,
}

/// Starts logging. The SSH library's own debug output names users and keys, so it stays at warnings unless the
/// environment asks for it.
pub(crate) fn start(role: Role, verbose: u8) {
    let level = match (role, verbose) {
        (Role::WorkerOfStockServer, 0) => "warn",
        (_, 0) => "info",
        (_, 1) => "debug",
        (_, _) => "trace",
    };
    let filter = std::env::var(FILTER_VARIABLE)
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("{level},russh=warn")));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Telling on standard error that standard error is closed would panic, wherever the log line is.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start happens only in tests that share a process; the first one stays.
    let _ = subscriber.try_init();
}

/// Text from a peer, shortened; log it with `?` so that control characters are escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
