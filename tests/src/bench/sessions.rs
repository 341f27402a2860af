//! Scenario `sessions`: many transfers at once, each with a client process, a login and a file of its own.

use super::BenchError;
use super::hall::{Hall, IDLE_RATE, Load, PACED_SECONDS};
use super::options::Options;
use super::report::{Report, Series, Table};
use super::rounds::{Contender, alternate};
use crate::harness::WAYS;

/// From so many on, sessions at full rate end before the last one has started.
const PACED_FROM: usize = 50;

/// Measures.
pub(super) fn run(options: &Options) -> Result<Report, BenchError> {
    let most = options.counts.iter().copied().max().unwrap_or(1);
    let hall = Hall::open(options, most)?;
    let idle = idle_table(&hall, &options.counts);
    let (free, paced) = (loads(options, false), loads(options, true));
    let contenders = free.iter().chain(&paced).map(|&load| {
        let hall = &hall;
        let contender = Contender::new(load.name(), hall.example(load), move || hall.measure(load));
        if load.count == options.counts[0] { contender.reference() } else { contender }
    });
    let series = alternate(contenders.collect(), options);

    let mut report = Report::new("sessions");
    conditions(&mut report, hall.total);
    report.tables.push(free_table(&free, &series));
    if !paced.is_empty() {
        report.tables.push(paced_table(&paced, &series));
    }
    report.tables.push(idle);
    report.take(series);
    Ok(report)
}

fn conditions(report: &mut Report, total: u64) {
    report.note(format!(
        "{} MiB of random bytes over all sessions of a run, in files of equal size, loopback, tmpfs to tmpfs, BLAKE3 on; \
         client and server on the same cores; every copy was compared with its source, byte by byte",
        total >> 20
    ));
    report.note(
        "clients are started one after the other with at most 48 before their login at a time, so at full rate \
         the first of many sessions end before the last begin: see \"most at once\"",
    );
    report.note(
        "the rate counts from the start of the first process to the end of the last; start-up is from exec to the agreement",
    );
    report.note(
        "fairness at full rate is Jain's index of the average rates over the half second in which most sessions were \
         active together, and how many these were stands beside it; haul tells whole blocks of 256 KiB, which makes it \
         look less fair where a session moves few of them; paced, it is that of whole sessions",
    );
}

/// What is run, in the order of the tables.
fn loads(options: &Options, paced: bool) -> Vec<Load> {
    let counts = options.counts.iter().filter(|count| !paced || **count >= PACED_FROM);
    WAYS.iter().flat_map(|&way| counts.clone().map(move |&count| Load { way, count, paced })).collect()
}

fn free_table(loads: &[Load], series: &[Series]) -> Table {
    let mut table = Table::new(
        "At full rate:",
        &[
            "",
            "rate, to the first row of its direction",
            "Gbit/s",
            "fairness",
            "of sessions",
            "most at once",
            "start-up p50 s",
            "start-up p95 s",
            "client CPU s/GB",
            "server CPU s/GB",
            "worker peak MiB, median",
            "largest",
        ],
    );
    for (load, row) in rows(loads, series) {
        let reference = rows(loads, series).find(|(other, _)| other.way == load.way);
        let mut cells = vec![row.label()];
        cells.push(reference.map(|(_, first)| row.ratio_cell(first, "rate_gbit")).unwrap_or_default());
        cells.extend([
            row.cell("rate_gbit", 2),
            row.cell("fairness", 3),
            row.cell("fairness_sessions", 0),
            row.cell("most_at_once", 0),
            row.cell("start_p50_s", 3),
            row.cell("start_p95_s", 3),
            row.cell("client_cpu_s_per_gb", 2),
            row.cell("server_cpu_s_per_gb", 2),
            row.mebibytes("worker_peak_bytes"),
            row.mebibytes("worker_peak_bytes_max"),
        ]);
        table.row(cells);
    }
    table
}

fn paced_table(loads: &[Load], series: &[Series]) -> Table {
    let mut table = Table::new(
        format!("Each session paced (-l) so that it takes {PACED_SECONDS} s, and all run at the same time:"),
        &[
            "",
            "median session / its pace",
            "slowest session / its pace",
            "fairness",
            "most at once",
            "pace, Mbit/s",
            "start-up p50 s",
            "start-up p95 s",
            "client CPU s/GB",
            "server CPU s/GB",
            "worker peak MiB, median",
            "largest",
        ],
    );
    for (_, row) in rows(loads, series) {
        table.row(vec![
            row.label(),
            row.ratio_of_cell("session_gbit_median", row, "pace_gbit"),
            row.ratio_of_cell("session_gbit_min", row, "pace_gbit"),
            row.cell("fairness_of_whole_sessions", 3),
            row.cell("most_at_once", 0),
            row.spread("pace_gbit").map_or_else(String::new, |pace| format!("{:.2}", pace.median * 1e3)),
            row.cell("start_p50_s", 3),
            row.cell("start_p95_s", 3),
            row.cell("client_cpu_s_per_gb", 2),
            row.cell("server_cpu_s_per_gb", 2),
            row.mebibytes("worker_peak_bytes"),
            row.mebibytes("worker_peak_bytes_max"),
        ]);
    }
    table
}

fn rows<'a>(loads: &'a [Load], series: &'a [Series]) -> impl Iterator<Item = (Load, &'a Series)> {
    loads.iter().filter_map(|load| Some((*load, series.iter().find(|one| one.name == load.name())?)))
}

fn idle_table(hall: &Hall, counts: &[usize]) -> Table {
    let title = format!("Memory of workers (PSS) when all sessions run at {IDLE_RATE}bit/s:");
    let mut table = Table::new(title, &["", "MiB a worker, median", "largest", "MiB, all"]);
    let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    for way in WAYS {
        for &count in counts {
            let mut cells = vec![Load { way, count, paced: false }.name()];
            match hall.idle(way, count) {
                Ok((spread, all)) => cells.extend([mib(spread.median), mib(spread.max), mib(all)]),
                Err(why) => cells[0] = format!("{}: failed: {why}", cells[0]),
            }
            eprintln!("idle: {}", cells.join(", "));
            table.row(cells);
        }
    }
    table
}
