//! A run as ascp shows it, on stdout, in the forms that programs match: progress lines with a percentage, `Completed:`,
//! `Partial Completion:` and `Session Stop`. Not here: when something is shown (`progress`).

use haul_proto::stats::Snapshot;
use haul_proto::units::Rate;

use crate::ascp_errors::AscpError;
use crate::error::ClientError;
use crate::progress::Summary;

/// Names are cut and padded to this, so that lines cover each other.
const NAME_COLUMNS: usize = 45;

/// `NAME   1%  300MB 97.1Mb/s    44:21 ETA`, without the return before it; none while the total is unknown.
pub(crate) fn progress_line(name: &str, snapshot: &Snapshot) -> Option<String> {
    let total = snapshot.bytes_total?;
    let done = snapshot.bytes_done.min(total);
    let percent = if total == 0 { 100 } else { u128::from(done) * 100 / u128::from(total) };
    let left = if snapshot.rate > Rate::ZERO { snapshot.rate.time_for(total - done).as_secs() } else { 0 };
    Some(format!("{} ETA", columns(name, percent, done, snapshot.rate, left)))
}

/// The last progress line: the whole, with the time it took.
pub(crate) fn last_line(name: &str, summary: &Summary) -> String {
    columns(name, 100, summary.bytes, rate(summary), summary.seconds as u64)
}

fn columns(name: &str, percent: u128, bytes: u64, rate: Rate, seconds: u64) -> String {
    let name: String = name.chars().take(NAME_COLUMNS).collect();
    let (size, rate) = (size(bytes), rate_words(rate));
    format!("{name:<NAME_COLUMNS$} {percent:>3}% {size:>6} {rate:>8}    {}", time(seconds))
}

/// The end of a transfer that ran to its end.
pub(crate) fn completion(summary: &Summary) -> String {
    let kilobytes = summary.bytes / 1024;
    let kilobits = rate(summary).bps() / 1000;
    let seconds = summary.seconds as u64;
    let files = counted(summary.files, "file");
    if summary.failed == 0 {
        return format!(
            "Completed: {kilobytes}K bytes transferred in {seconds} seconds\n ({kilobits}K bits/sec), in {files}.\n"
        );
    }
    let failed = counted(summary.failed, "file");
    format!(
        "Partial Completion: {kilobytes}K bytes transferred in {seconds} seconds\n ({kilobits}K bits/sec), in {files}; \
         {failed} failed.\n{}",
        session_stop(&of_summary(summary))
    )
}

/// What ascp calls the failures of a transfer that came to its end.
pub(crate) fn of_summary(summary: &Summary) -> AscpError {
    match summary.failures.first() {
        Some(first) if summary.files == 0 => AscpError::of_trouble(first.trouble, || first.message.clone()),
        _ => AscpError::some_files(),
    }
}

/// The end of a session that broke off.
pub(crate) fn session_stop(error: &AscpError) -> String {
    format!("\r\nSession Stop  (Error: {})\n", crate::sanitize::text(&error.words))
}

/// What stands on stderr: ascp's words, then haul's, which say more.
pub(crate) fn complaint(error: &ClientError, shown: &str) -> String {
    let ascp = AscpError::of(error);
    let words = crate::sanitize::text(&ascp.words);
    let own = if ascp.words == error.to_string() { String::new() } else { format!("\n  {shown}") };
    format!("ascp: {words}, exiting.{own}")
}

fn counted(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

fn rate(summary: &Summary) -> Rate {
    Rate::from_bytes_per_second(summary.bytes as f64 / summary.seconds.max(1e-3))
}

/// As scp counts: the next unit once there are more than four digits.
fn size(bytes: u64) -> String {
    let mut number = bytes;
    for unit in ["B", "KB", "MB", "GB", "TB"] {
        if number < 10_000 {
            return format!("{number}{unit}");
        }
        number /= 1024;
    }
    format!("{number}PB")
}

fn rate_words(rate: Rate) -> String {
    let mut number = rate.bps() as f64;
    for unit in ["b/s", "Kb/s", "Mb/s"] {
        if number < 1000.0 {
            return format!("{number:.1}{unit}");
        }
        number /= 1000.0;
    }
    format!("{number:.1}Gb/s")
}

fn time(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haul_proto::control::{Failure, PathText, Trouble};

    fn summary(bytes: u64, seconds: f64, files: u64) -> Summary {
        Summary { bytes, seconds, files, ..Summary::default() }
    }

    #[test]
    fn the_end_has_the_form_of_published_runs() {
        let kilobytes = 74_523 * 1024;
        let seconds = kilobytes as f64 * 8.0 / 5_132_500.0;
        assert_eq!(
            completion(&summary(kilobytes, seconds, 1)),
            "Completed: 74523K bytes transferred in 118 seconds\n (5132K bits/sec), in 1 file.\n"
        );
        assert!(completion(&summary(0, 0.0, 2)).ends_with(" (0K bits/sec), in 2 files.\n"));
        let failure =
            Failure { path: PathText::new(*b"f"), trouble: Trouble::NotFound, message: "gone".to_owned() };
        let partial = Summary { failed: 3, failures: vec![failure], ..summary(1 << 20, 2.0, 6) };
        assert_eq!(
            completion(&partial),
            "Partial Completion: 1024K bytes transferred in 2 seconds\n (4194K bits/sec), in 6 files; 3 files failed.\n\
             \r\nSession Stop  (Error: Some files failed to transfer)\n"
        );
        assert_eq!(of_summary(&Summary { files: 0, ..partial }).code, 4);
    }

    #[test]
    fn progress_has_the_columns_of_published_runs() {
        let snapshot = Snapshot {
            bytes_done: 300 << 20,
            bytes_total: Some(30_000 << 20),
            rate: Rate::from_bps(97_100_000),
            ..Snapshot::default()
        };
        let line = progress_line("f", &snapshot).unwrap();
        assert_eq!(line.len(), NAME_COLUMNS + " 100%  300MB 97.1Mb/s    42:45 ETA".len());
        assert!(line.ends_with("   1%  300MB 97.1Mb/s    42:45 ETA"), "{line}");
        assert!(last_line("f", &summary(1 << 20, 0.6, 1)).ends_with(" 100% 1024KB 14.0Mb/s    00:00"));
        assert_eq!(progress_line("f", &Snapshot { bytes_total: None, ..snapshot }), None);
    }

    #[test]
    fn quantities_read_as_ascp_s() {
        for (bytes, shown) in
            [(0, "0B"), (9_999, "9999B"), (10_240, "10KB"), (72 << 20, "72MB"), (9_999 << 30, "9999GB")]
        {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!((time(61).as_str(), time(3_661).as_str()), ("01:01", "1:01:01"));
    }
}
