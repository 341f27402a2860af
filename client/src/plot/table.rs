//! Reads a file of `--stats`, by the names in its header. Long runs are averaged to as many rows as a picture can show.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::config::local_error;
use crate::error::ClientError;
use crate::stats::{COLUMNS, Row};

/// Rows that are kept at most. When there are more, neighbours are averaged; a picture is 900 dots wide.
const MAX_ROWS: usize = 3600;

/// No row of ours is longer.
const MAX_LINE_BYTES: u64 = 4096;

/// The rows of a file.
///
/// # Errors
/// If it cannot be read or is none of ours, with the line to blame.
pub(super) fn read(path: &Path) -> Result<Vec<Row>, ClientError> {
    let file = File::open(path).map_err(|error| local_error(path, error))?;
    let mut file = BufReader::new(file);
    let mut line = String::new();
    let mut rows = Condenser::default();
    let mut columns = None;
    for number in 1.. {
        line.clear();
        let read = (&mut file).take(MAX_LINE_BYTES).read_line(&mut line);
        let wrong = |message| ClientError::Config { path: path.to_owned(), line: Some(number), message };
        read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        // A last line without its end is still being written.
        let Some(text) = line.strip_suffix('\n') else { break };
        match &columns {
            None => columns = Some(Columns::of_header(text).map_err(wrong)?),
            Some(columns) => rows.push(columns.row(text).map_err(wrong)?),
        }
    }
    let rows = rows.finish();
    if rows.is_empty() {
        let message = "no statistics of haul --stats in it".to_owned();
        return Err(ClientError::Config { path: path.to_owned(), line: None, message });
    }
    Ok(rows)
}

/// Where each of [`COLUMNS`] stands in a line.
struct Columns([usize; COLUMNS.len()]);

impl Columns {
    fn of_header(header: &str) -> Result<Self, String> {
        let names: Vec<&str> = header.split(',').collect();
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            let found = names.iter().position(|name| *name == column);
            *place =
                found.ok_or_else(|| format!("expected a file of haul --stats, found no column {column}"))?;
        }
        Ok(Self(places))
    }

    fn row(&self, line: &str) -> Result<Row, String> {
        let values: Vec<&str> = line.split(',').collect();
        let mut fields = self.0.iter().zip(COLUMNS);
        let mut next = || {
            let (place, column) = fields.next().unwrap_or((&0, ""));
            Field { column, text: values.get(*place).copied() }
        };
        Ok(Row {
            seconds: next().number()?,
            bytes: next().count()?,
            pacing_bps: next().count()?,
            delivery_bps: next().count()?,
            target_bps: next().given().map(|field| field.count()).transpose()?,
            rtt_ms: next().number()?,
            base_rtt_ms: next().given().map(|field| field.number()).transpose()?,
            queue_ms: next().number()?,
            loss: next().number()?,
            lost_packets: next().count()?,
            retransmitted_bytes: next().count()?,
            state: next().word()?,
            limiter: next().word()?,
        })
    }
}

struct Field<'a> {
    column: &'static str,
    text: Option<&'a str>,
}

impl Field<'_> {
    fn given(self) -> Option<Self> {
        Some(self).filter(|field| field.text != Some(""))
    }

    fn number(&self) -> Result<f64, String> {
        let number = self.text.and_then(|text| text.parse::<f64>().ok());
        // Beyond this no sum or scale would make sense.
        number.filter(|number| (0.0..=1e18).contains(number)).ok_or_else(|| self.wrong("a number"))
    }

    fn count(&self) -> Result<u64, String> {
        self.text.and_then(|text| text.parse().ok()).ok_or_else(|| self.wrong("a whole number"))
    }

    fn word(&self) -> Result<String, String> {
        let plain = |text: &&str| {
            (1..=16).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        self.text.filter(plain).map(str::to_owned).ok_or_else(|| self.wrong("a word"))
    }

    fn wrong(&self, expected: &str) -> String {
        let found = self.text.map_or_else(|| "nothing".to_owned(), crate::sanitize::text);
        format!("{}: expected {expected}, found {found}", self.column)
    }
}

/// Keeps at most [`MAX_ROWS`] by averaging ever more of them.
struct Condenser {
    rows: Vec<Row>,
    /// So many rows of the file become one.
    group: usize,
    pending: Vec<Row>,
}

impl Default for Condenser {
    fn default() -> Self {
        Self { rows: Vec::new(), group: 1, pending: Vec::new() }
    }
}

impl Condenser {
    fn push(&mut self, row: Row) {
        self.pending.push(row);
        if self.pending.len() < self.group {
            return;
        }
        self.rows.extend(average(&self.pending));
        self.pending.clear();
        if self.rows.len() >= MAX_ROWS {
            self.rows = self.rows.chunks(2).filter_map(average).collect();
            self.group *= 2;
        }
    }

    fn finish(mut self) -> Vec<Row> {
        self.rows.extend(average(&self.pending));
        self.rows
    }
}

/// Rates, delays and loss in the mean; all else, as time and sums, as it is in the last row.
fn average(rows: &[Row]) -> Option<Row> {
    let mean = |value: &dyn Fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len() as f64;
    let last = rows.last()?;
    Some(Row {
        pacing_bps: mean(&|row| row.pacing_bps as f64) as u64,
        delivery_bps: mean(&|row| row.delivery_bps as f64) as u64,
        rtt_ms: mean(&|row| row.rtt_ms),
        queue_ms: mean(&|row| row.queue_ms),
        loss: mean(&|row| row.loss),
        ..last.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64) -> Row {
        Row {
            seconds: n as f64 / 10.0,
            bytes: n * 100,
            pacing_bps: 200,
            delivery_bps: if n.is_multiple_of(2) { 100 } else { 300 },
            base_rtt_ms: Some(1.5),
            state: "track".to_owned(),
            limiter: "network".to_owned(),
            ..Row::default()
        }
    }

    fn read_text(text: &str) -> Result<Vec<Row>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_written_is_read_back_and_a_line_under_way_left_out() {
        let header = COLUMNS.join(",");
        let with_target = Row { target_bps: Some(7), base_rtt_ms: None, ..row(2) };
        let text = format!("{header}\n{}\n{with_target}\n0.3,12", row(1));
        assert_eq!(read_text(&text), Ok(vec![row(1), with_target]));
    }

    #[test]
    fn columns_are_found_by_name() {
        let names: Vec<_> = COLUMNS.iter().rev().copied().chain(["more"]).collect();
        let line = row(1).to_string();
        let values: Vec<_> = line.split(',').rev().chain(["x"]).collect();
        assert_eq!(read_text(&format!("{}\n{}\n", names.join(","), values.join(","))), Ok(vec![row(1)]));
    }

    #[test]
    fn foreign_files_are_refused_with_the_line_to_blame() {
        let header = COLUMNS.join(",");
        for (text, words) in [
            ("", "no statistics"),
            ("a,b\n1,2\n", "1: expected a file of haul --stats, found no column seconds"),
            (&format!("{header}\n"), "no statistics"),
            (&format!("{header}\n1,2\n"), "2: pacing_bps: expected a whole number, found nothing"),
            (
                &format!("{header}\n{}\n", row(1).to_string().replace("0.1,", "NaN,")),
                "2: seconds: expected a number",
            ),
            (
                &format!("{header}\n{}\n", row(1).to_string().replace("track", "<b>")),
                "2: state: expected a word",
            ),
            (&"x".repeat(10_000), "no statistics"),
        ] {
            let said = read_text(text).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn long_runs_are_averaged_to_what_can_be_shown() {
        let mut condenser = Condenser::default();
        (1..=100_000).for_each(|n| condenser.push(row(n)));
        let rows = condenser.finish();
        assert!((MAX_ROWS / 2..=MAX_ROWS).contains(&rows.len()), "{}", rows.len());
        let last = rows.last().unwrap();
        assert_eq!((last.seconds, last.bytes), (10_000.0, 10_000_000));
        assert!(rows.iter().all(|row| row.delivery_bps == 200 && row.pacing_bps == 200));
        assert!(rows.windows(2).all(|pair| pair[0].seconds < pair[1].seconds));
    }
}
