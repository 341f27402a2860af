//! The objects that `--json` prints, one a line on stdout. Their names and fields are part of the interface.

use std::collections::BTreeMap;
use std::io::Write;

use haul_proto::control::{Failure, PathText, RatePolicy, RateTerms, Trouble};
use haul_proto::stats::Snapshot;
use haul_proto::units::Rate;
use serde::Serialize;

use crate::error::ClientError;
use crate::progress::{Carrier, Start, Summary};
use crate::sanitize;
use crate::stats::Row;

/// The JSON Schema of these objects. It is published: what it names stays as it is.
pub(crate) const SCHEMA: &str = include_str!("events.schema.json");

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The server has agreed; data begins to move.
    Start(&'a Start),
    /// How far it is, a few times a second.
    Progress {
        bytes: u64,
        total: Option<u64>,
        files: u64,
        files_total: Option<u64>,
        rate_bps: u64,
        rtt_ms: Option<f64>,
        lost_packets: u64,
        carrier: Carrier,
    },
    /// What the sender knows about path and rate, ten times a second while data moves, in either direction.
    Stats(&'a Row),
    /// Another carrier is in use.
    Carrier { carrier: Carrier, reason: String },
    /// Something the user should know.
    Notice { message: &'a str },
    /// Other rate settings are in force.
    Rate { policy: RatePolicy, target_rate_bps: Option<u64>, min_rate_bps: Option<u64> },
    /// Something on standard input that cannot be done. The transfer goes on.
    Error { message: &'a str },
    /// One entry that failed.
    Failure { path: &'a PathText, trouble: Trouble, message: String },
    /// The last line.
    Done(Done),
}

/// The last line, of every run.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    ok: bool,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    bytes: u64,
    files: u64,
    skipped: u64,
    skipped_bytes: u64,
    resumed_bytes: u64,
    failed: u64,
    attempts: u32,
    seconds: f64,
    carrier: Option<Carrier>,
    rtt_ms: Option<f64>,
    packets: u64,
    lost_packets: u64,
    retransmitted_bytes: u64,
    /// Share of time that each limiter held, by name; those that did not are absent.
    limits: BTreeMap<&'static str, f64>,
}

impl<'a> Event<'a> {
    /// Progress from a snapshot.
    pub(crate) fn progress(snapshot: &Snapshot, carrier: Carrier) -> Self {
        Self::Progress {
            bytes: snapshot.bytes_done,
            total: snapshot.bytes_total,
            files: snapshot.files_done,
            files_total: snapshot.files_total,
            rate_bps: snapshot.rate.bps(),
            rtt_ms: snapshot.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            lost_packets: snapshot.lost_packets,
            carrier,
        }
    }

    /// Rate settings in force.
    pub(crate) fn rate(terms: RateTerms) -> Self {
        Self::Rate {
            policy: terms.policy,
            target_rate_bps: terms.target_rate.map(Rate::bps),
            min_rate_bps: terms.min_rate.map(Rate::bps),
        }
    }

    /// A failed entry.
    pub(crate) fn failure(failure: &'a Failure) -> Self {
        Self::Failure {
            path: &failure.path,
            trouble: failure.trouble,
            message: sanitize::text(&failure.message),
        }
    }

    /// Prints the line. A reader that went away is no reason to stop a transfer.
    pub(crate) fn print(&self) {
        let Ok(mut line) = serde_json::to_string(self) else { return };
        line.push('\n');
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    }
}

impl Done {
    /// The end of a transfer that ran to its end.
    pub(crate) fn of_summary(summary: &Summary) -> Self {
        let failed = summary.failed > 0;
        Self {
            ok: !failed,
            exit_code: summary.exit_status() as u8,
            error: failed.then(|| format!("{} failed", summary.failed)),
            remedy: None,
            bytes: summary.bytes,
            files: summary.files,
            skipped: summary.skipped,
            skipped_bytes: summary.skipped_bytes,
            resumed_bytes: summary.resumed_bytes,
            failed: summary.failed,
            attempts: summary.attempts.max(1),
            seconds: summary.seconds,
            carrier: Some(summary.carrier),
            rtt_ms: summary.rtt_ms,
            packets: summary.packets,
            lost_packets: summary.lost_packets,
            retransmitted_bytes: summary.retransmitted_bytes,
            limits: summary.limits.shares().into_iter().collect(),
        }
    }

    /// The end of a run that broke off; `last` is how far it came.
    pub(crate) fn of_error(
        error: &ClientError,
        last: Option<&Snapshot>,
        carrier: Option<Carrier>,
        seconds: f64,
    ) -> Self {
        let last = last.copied().unwrap_or_default();
        Self {
            ok: false,
            exit_code: error.exit_status() as u8,
            error: Some(error.to_string()),
            remedy: error.remedy(),
            bytes: last.bytes_done,
            files: last.files_stored,
            skipped: last.files_done.saturating_sub(last.files_stored),
            skipped_bytes: 0,
            resumed_bytes: 0,
            failed: 0,
            attempts: 1,
            seconds,
            carrier,
            rtt_ms: last.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            packets: last.packets,
            lost_packets: last.lost_packets,
            retransmitted_bytes: last.retransmitted_bytes,
            limits: last.limits.shares().into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_documented_fields() {
        let summary = Summary { files: 3, bytes: 10, seconds: 1.5, rtt_ms: Some(0.2), ..Summary::default() };
        let line = serde_json::to_string(&Event::Done(Done::of_summary(&summary))).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["event"].as_str(), value["ok"].as_bool()), (Some("done"), Some(true)), "{line}");
        for field in ["bytes", "files", "seconds", "carrier", "rtt_ms", "lost_packets", "retransmitted_bytes"]
        {
            assert!(!value[field].is_null(), "{field}: {line}");
        }
        assert_eq!(value["carrier"], "udp");
        assert!(value.get("error").is_none(), "{line}");
    }

    #[test]
    fn a_broken_run_says_why() {
        let done = Done::of_error(&ClientError::Interrupted, None, None, 0.0);
        let value = serde_json::to_value(Event::Done(done)).unwrap();
        assert_eq!((value["ok"].as_bool(), value["exit_code"].as_u64()), (Some(false), Some(130)));
        assert_eq!(value["error"], "interrupted");
    }
}
