//! Shows a run: a bar on a terminal, JSON lines for programs, a summary at the end. Results go to stdout, all else to
//! stderr. It decides nothing and never fails: a terminal that went away does not stop a transfer.

use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use haul_io::News;
use haul_proto::control::{Direction, Failure, PathText, RateTerms};
use haul_proto::ladder::{Reason, Rung};
use haul_proto::stats::{Limits, Sample, Snapshot};
use haul_proto::units::Rate;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::ascp_errors::AscpError;
use crate::cli::Manner;
use crate::config::{Presentation, Route, TransferRequest};
use crate::error::ClientError;
use crate::events::{Done, Event};
use crate::exit_status::{ExitStatus, trouble_status};
use crate::management::Reporter;
use crate::stats::{Recorder, StatsFile};
use crate::{ascp_output, human, sanitize};

/// Often enough for the eye, seldom enough for logs.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// The progress line tells of the keys for so long.
const HINT_TIME: Duration = Duration::from_secs(10);

/// A line of the server's words longer than this is cut.
const MAX_SERVER_LINE_BYTES: usize = 4096;

/// What carries the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// Datagrams.
    #[default]
    Udp,
    /// TLS over TCP.
    Https,
    /// The SSH channel.
    Ssh,
}

impl Carrier {
    /// Its name in summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Https => "https",
            Self::Ssh => "ssh",
        }
    }
}

impl From<Rung> for Carrier {
    fn from(rung: Rung) -> Self {
        match rung {
            Rung::Udp => Self::Udp,
            Rung::Https => Self::Https,
            Rung::Ssh => Self::Ssh,
        }
    }
}

/// What is known when the data begins to move.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    /// The session's name on both sides.
    pub session: String,
    /// Which way the data goes.
    pub direction: Direction,
    /// The server as typed.
    pub host: String,
    /// The account there.
    pub user: String,
    /// Where the datagrams go.
    pub address: String,
    /// What carries them.
    pub carrier: Carrier,
}

/// How a transfer ended that came to its end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Regular files that arrived whole.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there already, or were not to be replaced.
    pub skipped: u64,
    /// Their bytes.
    pub skipped_bytes: u64,
    /// Bytes that were there of files that were continued.
    pub resumed_bytes: u64,
    /// Entries that failed.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// From the agreement to the end.
    pub seconds: f64,
    /// What carried the data.
    pub carrier: Carrier,
    /// Smoothed round-trip time; none if it was never measured.
    pub rtt_ms: Option<f64>,
    /// Datagrams sent, or seen and missed.
    pub packets: u64,
    /// Datagrams lost on the way.
    pub lost_packets: u64,
    /// Content bytes sent more than once.
    pub retransmitted_bytes: u64,
    /// What held the transfer back, and how long.
    pub limits: Limits,
    /// How often it was begun.
    pub attempts: u32,
}

impl Summary {
    /// Success, or what the failures amount to: if nothing arrived and all failed alike, that trouble's status.
    #[must_use]
    pub fn exit_status(&self) -> ExitStatus {
        if self.failed == 0 {
            return ExitStatus::Success;
        }
        let mut statuses = self.failures.iter().map(|failure| trouble_status(failure.trouble));
        match statuses.next() {
            Some(first) if self.files == 0 && statuses.all(|status| status == first) => first,
            _ => ExitStatus::Failed,
        }
    }

    /// As "3 files, 1.00 GiB in 12.3 s (698 Mbit/s), udp, rtt 100.2 ms, 1.0 % lost, limited by network (97 %)".
    #[must_use]
    pub fn line(&self) -> String {
        let files = if self.files == 1 { "1 file".to_owned() } else { format!("{} files", self.files) };
        let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
        let skipped = if self.skipped == 0 { String::new() } else { format!(", {} skipped", self.skipped) };
        let resumed = match self.resumed_bytes {
            0 => String::new(),
            there => format!(" ({} of it were there)", human::bytes(there)),
        };
        let moved = self.bytes.saturating_sub(self.resumed_bytes);
        let goodput = Rate::from_bytes_per_second(moved as f64 / self.seconds.max(1e-3));
        let rtt = self.rtt_ms.map_or_else(String::new, |rtt| format!(", rtt {rtt:.1} ms"));
        let share = if self.packets == 0 { 0.0 } else { self.lost_packets as f64 / self.packets as f64 };
        let limiters = limiters(&self.limits);
        let attempts = match self.attempts {
            0 | 1 => String::new(),
            several => format!(", in {several} attempts"),
        };
        format!(
            "{files}{skipped}{failed}, {}{resumed} in {:.1} s ({}), {}{rtt}, {:.1} % lost{limiters}{attempts}",
            human::bytes(self.bytes),
            self.seconds,
            human::rate(goodput),
            self.carrier.name(),
            share * 100.0
        )
    }
}

/// Shows one run.
#[derive(Debug)]
pub struct Presenter {
    manner: Manner,
    /// The program that steers the run.
    management: Option<Reporter>,
    /// What is transferred, for ascp's progress lines; none if there shall be none.
    label: Option<String>,
    json: bool,
    quiet: bool,
    bar: Option<ProgressBar>,
    carrier: Option<Carrier>,
    begun: Instant,
    last_shown: Option<Instant>,
    last: Option<Snapshot>,
    server_line: Vec<u8>,
    recorder: Recorder,
    stats_file: Option<StatsFile>,
    /// The target rate in force.
    target: Option<Rate>,
    /// There are keys to tell of.
    keys: bool,
    /// An attempt has begun and has not been accounted for.
    attempting: bool,
}

impl Presenter {
    /// For a run that begins now.
    #[must_use]
    pub fn new(presentation: &Presentation) -> Self {
        let for_people = !presentation.json && !presentation.quiet;
        let as_ascp = presentation.manner == Manner::Ascp;
        let visible = for_people && !as_ascp && std::io::stderr().is_terminal();
        Self {
            manner: presentation.manner,
            management: None,
            label: (for_people && as_ascp).then(String::new),
            json: presentation.json,
            quiet: presentation.quiet,
            bar: visible.then(ProgressBar::new_spinner),
            carrier: None,
            begun: Instant::now(),
            last_shown: None,
            last: None,
            server_line: Vec::new(),
            recorder: Recorder::default(),
            stats_file: None,
            target: None,
            keys: false,
            attempting: false,
        }
    }

    /// How far the attempt came that has just ended, if the server had agreed to it.
    pub(crate) fn take_reached(&mut self) -> Option<Snapshot> {
        std::mem::take(&mut self.attempting).then(|| self.last.unwrap_or_default())
    }

    /// Whose manners the output has.
    pub(crate) const fn manner(&self) -> Manner {
        self.manner
    }

    /// Tells the program that steers the run.
    pub(crate) fn report_to(&mut self, reporter: Reporter) {
        self.management = Some(reporter);
    }

    /// The sources of this request have come to their end.
    pub(crate) fn sources_ended(&mut self, request: &TransferRequest, summary: &Summary) {
        let sources: Vec<PathText> = match &request.direction {
            Route::Upload { sources, .. } => {
                sources.iter().map(|path| PathText::new(path.as_os_str().as_bytes())).collect()
            }
            Route::Download { sources, .. } => sources.clone(),
        };
        if let Some(reporter) = &mut self.management {
            reporter.sources_ended(&sources, summary);
        }
    }

    /// For what only that program is told.
    pub(crate) const fn management(&mut self) -> Option<&mut Reporter> {
        self.management.as_mut()
    }

    /// Names what is transferred.
    pub(crate) fn set_label(&mut self, name: &str) {
        if let Some(label) = &mut self.label {
            *label = sanitize::text(name);
        }
    }

    /// Writes statistics to a file too.
    pub(crate) fn write_stats(&mut self, file: StatsFile) {
        self.stats_file = Some(file);
    }

    /// The server has agreed; data begins to move.
    pub fn start(&mut self, start: &Start) {
        if self.carrier.replace(start.carrier).is_none() {
            self.begun = Instant::now();
        }
        self.attempting = true;
        self.last = None;
        if self.json {
            Event::Start(start).print();
        }
        if let Some(bar) = &self.bar {
            bar.enable_steady_tick(PROGRESS_INTERVAL);
        }
    }

    /// The data has moved to another carrier.
    fn carrier_changed(&mut self, rung: Rung, reason: Reason) {
        let carrier = Carrier::from(rung);
        self.carrier = Some(carrier);
        tracing::info!(carrier = rung.name(), %reason, "carrier");
        if self.json {
            Event::Carrier { carrier, reason: reason.to_string() }.print();
        } else {
            self.notice(&format!("the data goes over {} now: {reason}", carrier.name()));
        }
    }

    /// What carries the data at present.
    pub(crate) fn carrier(&self) -> Carrier {
        self.carrier.unwrap_or_default()
    }

    /// What the data plane tells.
    pub fn news(&mut self, news: &News) {
        match news {
            News::Progress(snapshot) => self.progress(snapshot),
            News::Sample(sample) => self.sample(sample),
            News::Carrier(rung, reason) => self.carrier_changed(*rung, *reason),
            News::Open(_) => {}
        }
    }

    fn sample(&mut self, sample: &Sample) {
        let Some(row) = self.recorder.row(sample) else { return };
        if self.json {
            Event::Stats(&row).print();
        }
        let Some(file) = &mut self.stats_file else { return };
        if let Err(error) = file.write(&row) {
            let path = sanitize::path(file.path());
            self.stats_file = None;
            self.notice(&format!("the statistics end here: cannot write {path}: {error}"));
        }
    }

    /// How far the transfer is. May be called as often as one likes: it shows four a second.
    pub fn progress(&mut self, snapshot: &Snapshot) {
        self.last = Some(*snapshot);
        if let Some(reporter) = &mut self.management {
            reporter.progress(snapshot);
        }
        if self.last_shown.is_some_and(|shown| shown.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        self.last_shown = Some(Instant::now());
        let carrier = self.carrier.unwrap_or_default();
        if self.json {
            Event::progress(snapshot, carrier).print();
        }
        if let Some(line) = self.label.as_ref().and_then(|label| ascp_output::progress_line(label, snapshot))
        {
            to_stdout(&format!("\r{line}"));
        }
        if let Some(bar) = &self.bar {
            let mut words = message(snapshot, carrier);
            if let Some(target) = self.target {
                words.push_str(&format!(", target {}", human::rate(target)));
            }
            if self.keys && self.begun.elapsed() < HINT_TIME {
                words.push_str(" (? for keys)");
            }
            draw(bar, snapshot, words);
        }
    }

    /// The rate at present.
    pub(crate) fn actual_rate(&self) -> Rate {
        self.last.map_or(Rate::ZERO, |snapshot| snapshot.rate)
    }

    /// The rate settings at the start, and whether there are keys to change them.
    pub fn set_rate(&mut self, terms: RateTerms, keys: bool) {
        (self.target, self.keys) = (terms.target_rate, keys);
    }

    /// Other rate settings are in force.
    pub fn rate(&mut self, terms: RateTerms) {
        tracing::debug!(?terms, "rate settings");
        self.target = terms.target_rate;
        if let Some(reporter) = &mut self.management {
            reporter.rate(terms);
        }
        if self.json {
            Event::rate(terms).print();
        }
    }

    /// What the user said cannot be done. The text has to be sanitised already.
    pub fn problem(&mut self, message: &str) {
        if self.json {
            Event::Error { message }.print();
        } else {
            self.to_stderr(&format!("{}: {message}", self.manner.program()));
        }
    }

    /// Something the user should know, from haul itself. The text has to be sanitised already.
    pub fn notice(&mut self, message: &str) {
        tracing::debug!(notice = message);
        if self.json {
            Event::Notice { message }.print();
        } else {
            self.to_stderr(&format!("{}: {message}", self.manner.program()));
        }
    }

    /// The server's words on the channel's error stream, in pieces as they come.
    pub fn server_words(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || self.server_line.len() >= MAX_SERVER_LINE_BYTES {
                self.flush_server_line();
            }
            if byte != b'\n' {
                self.server_line.push(byte);
            }
        }
    }

    /// The end of the run: the bar goes, failures are listed, then the summary or, for programs, the last line. The
    /// error itself is printed by `run_cli`.
    pub fn finish(&mut self, result: &Result<Summary, ClientError>) {
        self.flush_server_line();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(reporter) = &mut self.management {
            reporter.finish(result);
        }
        match result {
            Ok(summary) => self.finish_summary(summary),
            Err(error) if self.json => {
                let seconds = self.begun.elapsed().as_secs_f64();
                Event::Done(Done::of_error(error, self.last.as_ref(), self.carrier, seconds)).print();
            }
            Err(error) if self.manner == Manner::Ascp => {
                to_stdout(&ascp_output::session_stop(&AscpError::of(error)));
            }
            Err(_) => {}
        }
    }

    fn finish_summary(&self, summary: &Summary) {
        for failure in &summary.failures {
            if self.json {
                Event::failure(failure).print();
            }
            let path = sanitize::bytes(failure.path.as_bytes());
            let program = self.manner.program();
            self.to_stderr(&format!("{program}: {path}: {}", sanitize::text(&failure.message)));
        }
        let unlisted = summary.failed.saturating_sub(summary.failures.len() as u64);
        if unlisted > 0 {
            self.to_stderr(&format!("{}: and {unlisted} more failed", self.manner.program()));
        }
        if self.json {
            Event::Done(Done::of_summary(summary)).print();
        } else if let Some(label) = &self.label {
            let last = ascp_output::last_line(label, summary);
            to_stdout(&format!("\r{last}\n{}", ascp_output::completion(summary)));
        } else if self.manner == Manner::Ascp && summary.failed > 0 {
            to_stdout(&ascp_output::session_stop(&ascp_output::of_summary(summary)));
        } else if !self.quiet {
            to_stdout(&format!("{}\n", summary.line()));
        }
    }

    fn flush_server_line(&mut self) {
        if self.server_line.is_empty() {
            return;
        }
        let line = sanitize::bytes(&std::mem::take(&mut self.server_line));
        let message = format!("the server says: {}", line.trim_end_matches("\\r"));
        self.notice(&message);
    }

    /// Prints a line above the bar.
    fn to_stderr(&self, line: &str) {
        let print = || {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// Results go there. A reader that went away is no reason to stop a transfer.
fn to_stdout(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// As ", limited by network (64 %), receiver disk (30 %)": what held for a quarter of the time and more, or else longest.
fn limiters(limits: &Limits) -> String {
    let mut shares = limits.shares();
    let named = shares.iter().filter(|&&(_, share)| share >= 0.25).count().max(1);
    shares.truncate(named);
    let word = |(name, share): &(&str, f64)| format!("{} ({:.0} %)", name.replace('_', " "), share * 100.0);
    let words: Vec<_> = shares.iter().map(word).collect();
    if words.is_empty() { String::new() } else { format!(", limited by {}", words.join(", ")) }
}

fn draw(bar: &ProgressBar, snapshot: &Snapshot, words: String) {
    let total = snapshot.bytes_total.filter(|&total| total > 0);
    // The template is ours and sound; a default look is better than no bar.
    let template = if total.is_some() { "{percent:>3} % {bar:24} {msg}" } else { "{spinner} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if let Some(total) = total {
        bar.set_length(total);
        bar.set_position(snapshot.bytes_done.min(total));
    }
    bar.set_message(words);
}

/// As "512 MiB of 1.00 GiB, 698 Mbit/s, 6 s left, udp, 1.0 % lost".
fn message(snapshot: &Snapshot, carrier: Carrier) -> String {
    let mut words = vec![match snapshot.bytes_total {
        Some(total) => format!("{} of {}", human::bytes(snapshot.bytes_done), human::bytes(total)),
        None => human::bytes(snapshot.bytes_done),
    }];
    if let Some(total) = snapshot.files_total.filter(|&total| total > 1) {
        words.push(format!("{} of {total} files", snapshot.files_done));
    }
    words.push(human::rate(snapshot.rate));
    let left = snapshot.bytes_total.map(|total| total.saturating_sub(snapshot.bytes_done));
    if let Some(left) = left.filter(|_| snapshot.rate > Rate::ZERO) {
        words.push(format!("{} left", human::time(snapshot.rate.time_for(left))));
    }
    words.push(carrier.name().to_owned());
    words.push(format!("{:.1} % lost", snapshot.loss() * 100.0));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use haul_proto::control::Trouble;

    fn failure(trouble: Trouble) -> Failure {
        Failure { path: PathText::new(*b"f"), trouble, message: String::new() }
    }

    #[test]
    fn the_end_line_reads_as_documented() {
        let summary = Summary {
            files: 3,
            bytes: 1 << 30,
            seconds: 12.3,
            rtt_ms: Some(100.2),
            packets: 1000,
            lost_packets: 10,
            limits: Limits { network: 64, receiver_disk: 30, sender_cpu: 6, ..Limits::default() },
            ..Summary::default()
        };
        let line = "3 files, 1.00 GiB in 12.3 s (698 Mbit/s), udp, rtt 100.2 ms, 1.0 % lost, limited by network (64 %), \
                    receiver disk (30 %)";
        assert_eq!(summary.line(), line);
        assert_eq!(Summary::default().line(), "0 files, 0 B in 0.0 s (0.00 bit/s), udp, 0.0 % lost");
    }

    #[test]
    fn failures_decide_the_exit_status() {
        let of = |files, failures: &[Trouble]| {
            let failures: Vec<_> = failures.iter().map(|&trouble| failure(trouble)).collect();
            Summary { files, failed: failures.len() as u64, failures, ..Summary::default() }.exit_status()
                as u8
        };
        for (n, (files, failures, status)) in [
            (1, &[][..], 0),
            (0, &[Trouble::PermissionDenied], 5),
            (0, &[Trouble::PermissionDenied, Trouble::NotFound], 5),
            (0, &[Trouble::PermissionDenied, Trouble::DiskFull], 1),
            (0, &[Trouble::DiskFull], 6),
            (1, &[Trouble::DiskFull], 1),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(of(files, failures), status, "row {n}");
        }
    }

    #[test]
    fn the_bar_tells_what_is_asked_for() {
        let snapshot = Snapshot {
            bytes_done: 512 << 20,
            bytes_total: Some(1 << 30),
            rate: Rate::from_bps(698_000_000),
            packets: 100,
            lost_packets: 1,
            ..Snapshot::default()
        };
        assert_eq!(
            message(&snapshot, Carrier::Udp),
            "512 MiB of 1.00 GiB, 698 Mbit/s, 6 s left, udp, 1.0 % lost"
        );
    }
}
