//! Statistics of a running transfer: what the sender tells ten times a second, as rows for `--json` and `--stats`. Both
//! have the same fields with the same names. Not here: measuring (`haul-proto`), and drawing (`plot`).

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use haul_proto::stats::Sample;
use haul_proto::units::Rate;
use serde::Serialize;

use crate::config::local_error;
use crate::error::ClientError;

/// The fields of a [`Row`], which are the columns of the file.
pub const COLUMNS: [&str; 13] = [
    "seconds",
    "bytes",
    "pacing_bps",
    "delivery_bps",
    "target_bps",
    "rtt_ms",
    "base_rtt_ms",
    "queue_ms",
    "loss",
    "lost_packets",
    "retransmitted_bytes",
    "state",
    "limiter",
];

/// One sample. All of it is the sender's knowledge, whichever side that is.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Row {
    /// Since the first data packet left.
    pub seconds: f64,
    /// Content bytes that the receiver has stored.
    pub bytes: u64,
    /// Rate at which packets leave while nothing else holds the sender, bit/s with IP and UDP headers.
    pub pacing_bps: u64,
    /// Rate at which packets arrived of late, by the receiver's reports, bit/s of UDP payload.
    pub delivery_bps: u64,
    /// Target rate agreed on, if any, bit/s.
    pub target_bps: Option<u64>,
    /// Smoothed round-trip time.
    pub rtt_ms: f64,
    /// Least round-trip time of late, if known.
    pub base_rtt_ms: Option<f64>,
    /// How long packets wait in the path's queues.
    pub queue_ms: f64,
    /// Lost packets as a share, 0 to 1, of those whose fate became known since the last row.
    pub loss: f64,
    /// Packets lost so far.
    pub lost_packets: u64,
    /// Bytes sent more than once so far.
    pub retransmitted_bytes: u64,
    /// The rate controller's word for what it is doing.
    pub state: String,
    /// What has held the sender back most since the last row.
    pub limiter: String,
}

/// A line of the file, without its end. What is absent is empty. No field needs quotes.
impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target_bps.map_or_else(String::new, |rate| rate.to_string());
        let base = self.base_rtt_ms.map_or_else(String::new, |rtt| rtt.to_string());
        let Self { seconds, bytes, pacing_bps, delivery_bps, rtt_ms, queue_ms, loss, .. } = self;
        write!(
            out,
            "{seconds},{bytes},{pacing_bps},{delivery_bps},{target},{rtt_ms},{base},{queue_ms},{loss},"
        )?;
        let Self { lost_packets, retransmitted_bytes, state, limiter, .. } = self;
        write!(out, "{lost_packets},{retransmitted_bytes},{state},{limiter}")
    }
}

/// Turns samples into rows.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Time, packets arrived and packets lost at the last row.
    last: Option<(Duration, u64, u64)>,
}

impl Recorder {
    /// The row of a sample; none if it is older than the last one.
    pub(crate) fn row(&mut self, sample: &Sample) -> Option<Row> {
        let (at, arrived, lost) = self.last.unwrap_or_default();
        if self.last.is_some() && sample.at <= at {
            return None;
        }
        self.last = Some((sample.at, sample.arrived_packets, sample.lost_packets));
        let arrived = sample.arrived_packets.saturating_sub(arrived) as f64;
        let lost = sample.lost_packets.saturating_sub(lost) as f64;
        Some(Row {
            seconds: rounded(sample.at.as_secs_f64(), 1e3),
            bytes: sample.bytes_done,
            pacing_bps: sample.pacing.bps(),
            delivery_bps: sample.delivery.bps(),
            target_bps: sample.target.map(Rate::bps),
            rtt_ms: ms(sample.rtt),
            base_rtt_ms: sample.base_rtt.map(ms),
            queue_ms: ms(sample.queue),
            loss: if lost > 0.0 { rounded(lost / (lost + arrived), 1e6) } else { 0.0 },
            lost_packets: sample.lost_packets,
            retransmitted_bytes: sample.retransmitted_bytes,
            state: sample.state.clone(),
            limiter: sample.limiter.name().to_owned(),
        })
    }
}

fn ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3, 1e3)
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The file of `--stats`: a header, then a line a row, each written at once so that it can be followed.
#[derive(Debug)]
pub(crate) struct StatsFile {
    file: File,
    path: PathBuf,
}

impl StatsFile {
    /// Begins the file. An older one of its kind is replaced; anything else is left alone: the name may be a source.
    ///
    /// # Errors
    /// If it cannot be written, or holds something else.
    pub(crate) fn create(path: &Path) -> Result<Self, ClientError> {
        let cannot = |error| local_error(path, error);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.is_file() {
            let mut head = Vec::new();
            let header = header();
            (&file).take(header.len() as u64).read_to_end(&mut head).map_err(cannot)?;
            if !head.is_empty() && head != header.as_bytes() {
                return Err(ClientError::LocalPath {
                    path: path.to_owned(),
                    message: "--stats would overwrite what is no statistics of haul",
                    remedy: "name a new file after --stats, or remove this one",
                    source: None,
                });
            }
            file.set_len(0).map_err(cannot)?;
            io::Seek::rewind(&mut file).map_err(cannot)?;
        }
        file.write_all(header().as_bytes()).map_err(cannot)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If it cannot be written: the disk is full, or a reader went away.
    pub(crate) fn write(&mut self, row: &Row) -> io::Result<()> {
        // One call a line, so that a reader never sees half of one.
        self.file.write_all(format!("{row}\n").as_bytes())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn header() -> String {
    COLUMNS.join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use haul_proto::stats::Limiter;

    fn sample(at_ms: u64, arrived: u64, lost: u64) -> Sample {
        Sample {
            at: Duration::from_millis(at_ms),
            bytes_done: 1 << 20,
            pacing: Rate::from_bps(200_000_000),
            delivery: Rate::from_bps(188_000_000),
            target: None,
            rtt: Duration::from_micros(104_250),
            base_rtt: Some(Duration::from_millis(100)),
            queue: Duration::from_nanos(3_900_400),
            arrived_packets: arrived,
            lost_packets: lost,
            retransmitted_bytes: 57_400,
            limiter: Limiter::SenderDisk,
            state: "track".to_owned(),
        }
    }

    #[test]
    fn a_row_reads_as_documented() {
        let row = Recorder::default().row(&sample(300, 97, 3)).unwrap();
        let line = "0.3,1048576,200000000,188000000,,104.25,100,3.9,0.03,3,57400,track,sender_disk";
        assert_eq!(row.to_string(), line);
        let full = Row { target_bps: Some(5), base_rtt_ms: None, ..row };
        let line = "0.3,1048576,200000000,188000000,5,104.25,,3.9,0.03,3,57400,track,sender_disk";
        assert_eq!(full.to_string(), line);
    }

    #[test]
    fn the_columns_are_the_fields_in_their_order() {
        let json = serde_json::to_string(&Row::default()).unwrap();
        let mut rest = json.as_str();
        for column in COLUMNS {
            let (_, after) =
                rest.split_once(&format!("\"{column}\":")).unwrap_or_else(|| panic!("{column}: {json}"));
            rest = after;
        }
        assert_eq!(json.matches("\":").count(), COLUMNS.len(), "{json}");
        assert_eq!(Row::default().to_string().split(',').count(), COLUMNS.len());
    }

    #[test]
    fn loss_is_that_of_the_interval_even_when_a_sample_is_missing() {
        let mut recorder = Recorder::default();
        let loss: Vec<_> = [(100, 90, 10), (200, 190, 10), (400, 385, 15), (300, 290, 12), (500, 385, 15)]
            .into_iter()
            .map(|(at, arrived, lost)| recorder.row(&sample(at, arrived, lost)).map(|row| row.loss))
            .collect();
        assert_eq!(loss, [Some(0.1), Some(0.0), Some(0.025), None, Some(0.0)], "the late one is passed over");
    }

    #[test]
    fn an_older_file_is_replaced_and_a_foreign_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.csv");
        let row = Recorder::default().row(&sample(300, 97, 3)).unwrap();
        for rows in [3, 1] {
            let mut file = StatsFile::create(&path).unwrap();
            (0..rows).for_each(|_| file.write(&row).unwrap());
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), rows + 1, "{text}");
            assert!(text.starts_with("seconds,bytes,") && text.ends_with(",sender_disk\n"), "{text}");
        }
        let source = folder.path().join("genome.bam");
        std::fs::write(&source, b"seconds").unwrap();
        let error = StatsFile::create(&source).unwrap_err();
        assert!(error.to_string().contains("no statistics of haul"), "{error}");
        assert_eq!(std::fs::read(&source).unwrap(), b"seconds");
        assert!(StatsFile::create(&folder.path().join("no/such")).is_err());
    }
}
