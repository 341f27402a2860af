//! haul, the client: the `ascp`-style command line, SSH dialling, and presentation.
//!
//! [`run_cli`] is the whole program. Not here: packets (`haul-proto`) and the data plane's sockets and disks (`haul-io`).

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

pub mod agent;
mod ascp_errors;
mod ascp_output;
pub mod cli;
pub mod config;
mod dial;
pub mod error;
mod events;
pub mod exit_status;
pub mod file_crypt;
mod fingerprint;
mod handler;
mod host_certificate;
pub mod human;
pub mod input;
mod install;
mod keepalive;
mod keys;
pub mod known_hosts;
mod links;
pub mod local;
mod logging;
mod login;
mod management;
pub mod operands;
mod password;
pub mod plan;
mod plot;
pub mod progress;
pub mod prompt;
mod rate_change;
mod retry;
pub mod sanitize;
pub mod session;
mod signer;
pub mod sources;
pub mod ssh;
pub mod ssh_config;
mod ssh_config_lines;
mod ssh_dash_g;
mod ssh_program;
pub mod stats;
mod streams;
pub mod target;

pub use config::TransferRequest;
pub use error::ClientError;
pub use exit_status::ExitStatus;
pub use progress::{Presenter, Summary};
use retry::Retry;
use stats::StatsFile;

/// After a signal the session has this long to cancel and remove its partial files.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Threads that still wait for a slow disk or name server do not hold up the end longer than this.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs the program: reads the arguments (the first is the program's name), transfers, and says how it ended.
pub fn run_cli(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(code) = file_crypt::command::run(&args).or_else(|| links::run(&args)) {
        return code;
    }
    let request = match understand(&args) {
        Ok(Understood::Request(request)) => request,
        Ok(Understood::Text(text)) => {
            return print(&text);
        }
        Err(error) => {
            let json = args.iter().any(|arg| arg == "--json");
            let manner = cli::Manner::of(args.first());
            let presentation = config::Presentation { json, manner, ..config::Presentation::default() };
            let mut presenter = Presenter::new(&presentation);
            if let Some(reporter) = management::reporter_for_failure(&args) {
                presenter.report_to(reporter);
            }
            return conclude(&mut presenter, Err(error));
        }
    };
    let mut presenter = Presenter::new(&request.presentation);
    presenter.set_label(&request.plan.label());
    let result = run(&request, &mut presenter);
    conclude(&mut presenter, result)
}

/// A text on stdout. A picture that was cut short by a full disk must not look like a success.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr().lock(), "haul: cannot write to stdout: {error}");
            ExitStatus::Disk.into()
        }
        _ => ExitStatus::Success.into(),
    }
}

enum Understood {
    Request(Box<TransferRequest>),
    Text(String),
}

fn understand(args: &[OsString]) -> Result<Understood, ClientError> {
    match cli::parse(args)? {
        cli::Asked::Text(text) => Ok(Understood::Text(text)),
        cli::Asked::Plot(path) => plot::draw(&path).map(Understood::Text),
        cli::Asked::InstallAscp(directory) => install::link_ascp(&directory).map(Understood::Text),
        cli::Asked::Explanation(cli) => {
            config::explain(&cli, plan::Environment::of_process()).map(Understood::Text)
        }
        cli::Asked::Transfer(cli) => {
            config::resolve(*cli).map(|request| Understood::Request(Box::new(request)))
        }
    }
}

/// Runs one transfer on a runtime of its own.
fn run(request: &TransferRequest, presenter: &mut Presenter) -> Result<Summary, ClientError> {
    logging::start(&request.presentation)?;
    if let Some(path) = &request.presentation.stats_file {
        presenter.write_stats(StatsFile::create(path)?);
    }
    for remark in &request.remarks {
        tracing::info!(remark);
    }
    let application = &request.plan.application;
    if let Some(text) = &application.user_string {
        tracing::info!(user_string = text, "application");
    }
    if let Some(cookie) = &application.cookie {
        tracing::info!(cookie, "application");
    }
    if let Some(tags) = &application.tags {
        tracing::info!(%tags, "application");
    }
    let orders = match request.plan.management.and_then(|management| management.port) {
        Some(port) => {
            let (reporter, orders) = management::connect(port, request)?;
            presenter.report_to(reporter);
            Some(orders)
        }
        None => None,
    };
    let broken =
        |error: std::io::Error| ClientError::Internal { message: format!("cannot start tokio: {error}") };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(broken)?;
    let result = runtime.block_on(async {
        match orders {
            Some(orders) => run_managed(request, presenter, orders).await,
            None => run_until_interrupted(request, presenter, None).await,
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

/// Runs what the program behind the management port wants.
async fn run_managed(
    request: &TransferRequest,
    presenter: &mut Presenter,
    mut orders: management::Orders,
) -> Result<Summary, ClientError> {
    if !request.plan.management.is_some_and(|management| management.keepalive) {
        let input = input::Input::of(orders.said);
        let summary = run_until_interrupted(request, presenter, Some(input)).await?;
        presenter.sources_ended(request, &summary);
        return Ok(summary);
    }
    let mut signals = Signals::listen()?;
    let mut total = Summary::default();
    loop {
        let lot = tokio::select! {
            lot = keepalive::next_lot(&mut orders.sources) => lot,
            () = signals.next() => return Err(ClientError::Interrupted),
        };
        let Some(lot) = lot else { return Ok(total) };
        let request = keepalive::request_for(request, &lot);
        let (say, said) = mpsc::channel(1);
        let summary = tokio::select! {
            result = run_until_interrupted(&request, presenter, Some(input::Input::of(said))) => result?,
            () = keepalive::pass_on(&mut orders.said, say) => return Err(ClientError::Interrupted),
        };
        presenter.sources_ended(&request, &summary);
        keepalive::add(&mut total, summary);
    }
}

/// Runs the transfer; a signal cancels it, a second signal or too long a silence breaks it off.
async fn run_until_interrupted(
    request: &TransferRequest,
    presenter: &mut Presenter,
    input: Option<input::Input>,
) -> Result<Summary, ClientError> {
    let mut signals = Signals::listen()?;
    let mut retry = Retry::new(request);
    let mut lasting = session::Lasting::new(request, input);
    loop {
        let result = attempt(request, presenter, &mut signals, &mut lasting).await;
        let Some(pause) = retry.after(&result, presenter.take_reached()) else {
            return result.map(|summary| retry.total(summary));
        };
        let why = match &result {
            Ok(_) => "the lost session still holds a file".to_owned(),
            Err(error) => with_causes(error),
        };
        presenter.notice(&format!("{why}; trying again in {:.1} s", pause.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.next() => return Err(ClientError::Interrupted),
        }
    }
}

/// One attempt at the transfer.
async fn attempt(
    request: &TransferRequest,
    presenter: &mut Presenter,
    signals: &mut Signals,
    lasting: &mut session::Lasting,
) -> Result<Summary, ClientError> {
    let (interrupt, interrupted) = watch::channel(false);
    let connection = tokio::select! {
        connection = ssh::connect(request, presenter) => connection?,
        () = signals.next() => return Err(ClientError::Interrupted),
    };
    lasting.listen(request);
    let transfer = session::transfer(request, connection, presenter, interrupted, lasting);
    tokio::pin!(transfer);
    tokio::select! {
        result = &mut transfer => return result,
        () = signals.next() => {}
    }
    tracing::info!("interrupted: cancelling");
    interrupt.send_replace(true);
    tokio::select! {
        // A transfer that had just come to its end is not called interrupted.
        result = &mut transfer => match result {
            Ok(summary) => Ok(summary),
            Err(error) => {
                tracing::debug!(%error, "cancelled");
                Err(ClientError::Interrupted)
            }
        },
        () = signals.next() => Err(ClientError::Interrupted),
        () = tokio::time::sleep(CANCEL_TIMEOUT) => Err(ClientError::Interrupted),
    }
}

/// The signals that ask for an end.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, ClientError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| ClientError::Internal { message: format!("cannot catch signals: {error}") })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Shows the end, prints an error once with its cause and its remedy, and gives the exit status.
fn conclude(presenter: &mut Presenter, result: Result<Summary, ClientError>) -> ExitCode {
    presenter.finish(&result);
    let manner = presenter.manner();
    let status = match result {
        Ok(summary) => summary.exit_status(),
        Err(error) => {
            let shown = with_causes(&error);
            let line = match manner {
                cli::Manner::Haul => format!("haul: {shown}"),
                cli::Manner::Ascp => ascp_output::complaint(&error, &shown),
            };
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "{line}");
            if let Some(remedy) = error.remedy() {
                let _ = writeln!(stderr, "  {remedy}");
            }
            let ascp = ascp_errors::AscpError::of(&error);
            tracing::info!(status = "failed", errcode = ascp.code, errstr = %ascp.words, "session stop");
            error.exit_status()
        }
    };
    status.in_manner(manner)
}

/// The error and its causes on one line, without saying the same thing twice.
fn with_causes(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let words = sanitize::text(&inner.to_string());
        // The number behind the system's words says nothing more than they do.
        let words = words.split(" (os error").next().unwrap_or_default();
        if !text.to_lowercase().contains(&words.to_lowercase()) {
            text.push_str(&format!(": {words}"));
        }
        cause = inner.source();
    }
    text
}
