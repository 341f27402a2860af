//! What was measured, as tables for people (Markdown) and as JSON for programs. It measures nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::machine::OTHER_LOAD_CORES;

/// The figures of one run by name; the unit is in the name.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// All runs of one command or one way of running it.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    /// How tables call it.
    pub(super) name: String,
    /// The exact command, or what stands for it.
    pub(super) command: String,
    /// One entry a round; a failure says why.
    pub(super) runs: Vec<Result<Figures, String>>,
}

/// Median, smallest and largest of some runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    /// Half of the runs are at or below it.
    pub(super) median: f64,
    /// The smallest.
    pub(super) min: f64,
    /// The largest.
    pub(super) max: f64,
}

impl Series {
    /// One figure over all runs that have it; none if no run has.
    #[must_use]
    pub(super) fn spread(&self, figure: &str) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.as_ref().ok()?.get(figure).copied()))
    }

    /// This series' figure divided by another's, round by round.
    #[must_use]
    pub(super) fn ratio(&self, figure: &str, reference: &Self, its_figure: &str) -> Option<Spread> {
        let rounds = self.runs.iter().zip(&reference.runs);
        Spread::of(rounds.filter_map(|(own, other)| {
            Some(own.as_ref().ok()?.get(figure)? / other.as_ref().ok()?.get(its_figure)?)
        }))
    }

    /// Why it failed, if any run did.
    #[must_use]
    pub(super) fn failure(&self) -> Option<&str> {
        self.runs.iter().find_map(|run| run.as_ref().err().map(String::as_str))
    }

    /// The median of a figure for a table.
    #[must_use]
    pub(super) fn cell(&self, figure: &str, decimals: usize) -> String {
        self.text(figure, |median| format!("{median:.decimals$}"))
    }

    /// The ratio of the same figure for a table.
    #[must_use]
    pub(super) fn ratio_cell(&self, reference: &Self, figure: &str) -> String {
        self.ratio_of_cell(figure, reference, figure)
    }

    /// The ratio of two figures for a table.
    #[must_use]
    pub(super) fn ratio_of_cell(&self, figure: &str, reference: &Self, its_figure: &str) -> String {
        self.ratio(figure, reference, its_figure).map_or_else(missing, |spread| spread.to_string())
    }

    /// The median of a figure in bytes, as whole MiB for a table.
    #[must_use]
    pub(super) fn mebibytes(&self, figure: &str) -> String {
        self.text(figure, |median| format!("{:.0}", median / f64::from(1 << 20)))
    }

    /// The median of a share for a table.
    #[must_use]
    pub(super) fn percent(&self, figure: &str) -> String {
        self.text(figure, |median| format!("{:.1} %", median * 100.0))
    }

    /// The name for the first column, with a word about what failed.
    #[must_use]
    pub(super) fn label(&self) -> String {
        let failed = self.runs.iter().filter(|run| run.is_err()).count();
        match self.failure() {
            None => self.name.clone(),
            Some(why) if failed == self.runs.len() => format!("{}: {why}", self.name),
            Some(why) => format!("{}: {failed} of {} runs {why}", self.name, self.runs.len()),
        }
    }

    /// All that is known of it.
    #[must_use]
    pub(super) fn to_json(&self) -> Value {
        let names = self.runs.iter().filter_map(|run| run.as_ref().ok()).flat_map(BTreeMap::keys);
        let medians: BTreeMap<&str, f64> =
            names.filter_map(|name| Some((*name, self.spread(name)?.median))).collect();
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| match run {
                Ok(figures) => json!(figures),
                Err(why) => json!({ "failed": why }),
            })
            .collect();
        json!({ "name": self.name, "command": self.command, "medians": medians, "runs": runs })
    }

    fn text(&self, figure: &str, write: impl Fn(f64) -> String) -> String {
        self.spread(figure).map_or_else(missing, |spread| write(spread.median))
    }
}

impl Spread {
    /// None of nothing.
    #[must_use]
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

/// What stands where there is no figure; the row's name tells why.
fn missing() -> String {
    "-".to_owned()
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two digits that count, also of small ratios.
        let decimals = if self.median.abs() < 0.1 { 3 } else { 2 };
        write!(f, "{:.decimals$}", self.median)?;
        if self.min.total_cmp(&self.max).is_ne() {
            write!(f, " ({:.decimals$} to {:.decimals$})", self.min, self.max)?;
        }
        Ok(())
    }
}

/// The outcome of a scenario.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The scenario.
    pub(super) scenario: &'static str,
    /// Conditions and doubts, one a line.
    pub(super) notes: Vec<String>,
    /// What is printed.
    pub(super) tables: Vec<Table>,
    /// What it was computed from.
    pub(super) series: Vec<Series>,
}

impl Report {
    /// An empty one.
    #[must_use]
    pub(super) fn new(scenario: &'static str) -> Self {
        Self { scenario, ..Self::default() }
    }

    /// Keeps the series, and tells when other work has disturbed some of their runs.
    pub(super) fn take(&mut self, series: Vec<Series>) {
        let runs = || series.iter().flat_map(|one| one.runs.iter().flatten().map(move |run| (one, run)));
        let disturbed: BTreeSet<&str> = runs()
            .filter(|(_, run)| run.get("other_cores").is_some_and(|cores| *cores > OTHER_LOAD_CORES))
            .map(|(one, _)| one.name.as_str())
            .collect();
        if !disturbed.is_empty() {
            let names: Vec<&str> = disturbed.into_iter().collect();
            self.notes.push(format!(
                "doubtful: other processes used over {OTHER_LOAD_CORES} cores during runs of: {}",
                names.join("; ")
            ));
        }
        self.series = series;
    }

    /// Adds a line about the conditions.
    pub(super) fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// Every figure, with what was read off them.
    #[must_use]
    pub(super) fn to_json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "notes": self.notes,
            "tables": self.tables.iter().map(Table::to_json).collect::<Vec<_>>(),
            "series": self.series.iter().map(Series::to_json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.scenario)?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        for table in &self.tables {
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}

/// Rows below headings.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows yet.
    #[must_use]
    pub(super) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|word| (*word).to_owned()).collect();
        Self { title: title.into(), head, rows: Vec::new() }
    }

    /// Adds a row; cells that are left out are empty.
    pub(super) fn row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }

    fn to_json(&self) -> Value {
        json!({ "title": self.title, "head": self.head, "rows": self.rows })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width =
            |column: usize| lines().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).map(|column| width(column).unwrap_or(0)).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")
        };
        if !self.title.is_empty() {
            writeln!(f, "{}\n", self.title)?;
        }
        line(f, &self.head)?;
        for (column, width) in widths.iter().enumerate() {
            // Figures stand to the right of names.
            write!(f, "|{}{}", "-".repeat(width + 1), if column == 0 { "-" } else { ":" })?;
        }
        writeln!(f, "|")?;
        self.rows.iter().try_for_each(|row| line(f, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rates: &[Option<f64>]) -> Series {
        let run = |rate: &Option<f64>| {
            rate.map(|rate| Figures::from([("rate", rate)])).ok_or_else(|| "failed: broke".to_owned())
        };
        Series { name: "it".into(), command: "do it".into(), runs: rates.iter().map(run).collect() }
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_failures_are_told() {
        let fast = series(&[Some(4.0), Some(9.0), None]);
        let slow = series(&[Some(2.0), Some(3.0), Some(1.0)]);
        assert_eq!(fast.ratio("rate", &slow, "rate"), Some(Spread { median: 2.5, min: 2.0, max: 3.0 }));
        assert_eq!(fast.label(), "it: 1 of 3 runs failed: broke");
        assert_eq!(series(&[None]).label(), "it: failed: broke");
        assert_eq!(series(&[None]).cell("rate", 1), "-");
        assert_eq!(series(&[None]).ratio_cell(&slow, "rate"), "-");
        assert_eq!(slow.cell("rate", 1), "2.0");
        assert_eq!(fast.to_json()["medians"]["rate"], 6.5);
        assert_eq!(fast.to_json()["runs"][2]["failed"], "failed: broke");
    }

    #[test]
    fn small_ratios_keep_their_digits() {
        let text = |values: &[f64]| Spread::of(values.iter().copied()).unwrap().to_string();
        assert_eq!(text(&[0.04]), "0.040");
        assert_eq!(text(&[2.0, 4.0]), "3.00 (2.00 to 4.00)");
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new("T", &["a", "bb"]);
        table.row(vec!["xyz".into(), "1".into()]);
        assert_eq!(table.to_string(), "T\n\n| a   | bb |\n|-----|---:|\n| xyz | 1  |\n");
    }
}
