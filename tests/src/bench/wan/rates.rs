//! Which share of a link's limit haul reaches with a large file, and what that costs in queue and bytes.

use std::time::Duration;

use super::session::Session;
use super::settings::Link;
use super::{Lab, bytes_in};
use crate::bench::BenchError;
use crate::bench::bed::HaulJob;
use crate::bench::command::{children_cpu, own_threads_cpu};
use crate::bench::copies::make_source;
use crate::bench::machine::CoreTime;
use crate::bench::options::Options;
use crate::bench::peers::word;
use crate::bench::report::{Figures, Report, Series, Table};
use crate::bench::rounds::{Contender, alternate};
use crate::bench::usage::family_cpu;
use crate::harness::Way;
use crate::wan::Wan;

/// The goals' links: Mbit/s, ms, percent.
const USUAL: &str = "\
100:10:0,100:10:0.1,100:10:1,100:10:5,100:100:0,100:100:0.1,100:100:1,100:100:5,100:250:0,100:250:0.1,100:250:1,\
100:250:5,500:100:0,500:100:1,500:100:5,500:100:10,500:250:0,500:250:1,500:250:5,500:250:10,1000:10:0,1000:10:1,\
1000:10:5,1000:100:0,1000:100:1,1000:100:5,1000:250:0,1000:250:1,1000:250:5,100:100:0:0.1,100:100:0:5,\
1000:300:2:0.5:bursts";
/// Length of a transfer at the limit.
const SECONDS: f64 = 20.0;
/// What a run may take, in times of what it should.
const PATIENCE: f64 = 5.0;
/// Retransmitted bytes may be the loss times this, and a bit more.
const REPEAT_FACTOR: f64 = 1.15;
const REPEAT_MORE: f64 = 0.005;

/// Measures.
pub(super) fn run(options: &Options) -> Result<Report, BenchError> {
    let mut report = Report::new("wan");
    let mut table = Table::new(
        format!("Policy {}:", options.wan.policy),
        &[
            "link, RTT, loss",
            "of the limit",
            "data s",
            "whole command s",
            "queue mean ms",
            "queue p95 ms",
            "0.25 RTT + 15 ms",
            "sent again",
            "loss x 1.15 + 0.5 %",
            "reports",
            "dropped by the queue",
        ],
    );
    let mut all = Vec::new();
    for link in options.wan.links_or(USUAL) {
        let bytes = bytes_in(options, link.limit_bps(options.wan.target(&link)), SECONDS);
        let lab = Lab::start(options, &link, bytes, bytes)?;
        make_source("large", bytes, &[&lab.bed.volume.here(), &lab.bed.server.docroot()])?;
        let contenders = options.wan.ways.iter().map(|way| contender(&lab, options, &link, *way, bytes));
        for series in alternate(contenders.collect(), options) {
            table.row(cells(&series, &link));
            all.push(series);
        }
    }
    conditions(&mut report);
    if all.iter().any(|series| series.spread("emulator_overrun").is_some_and(|lost| lost.max > 0.0)) {
        report.note(
            "doubtful: the emulator did not keep up and lost packets; see emulator_overrun in the figures",
        );
    }
    report.tables.push(table);
    report.take(all);
    Ok(report)
}

fn conditions(report: &mut Report) {
    report.note(
        "one file that takes 20 s at the limit, tmpfs to tmpfs, both ends and the emulator on the same cores; every copy \
         was checked; medians",
    );
    report.note(
        "limit = rate (the target rate of policy fixed) x (1 - loss) x 1424/1500, the content of a full packet; reached: \
         file bytes by the time from the first data packet to the verified end, as the client tells",
    );
    report.note(
        "queue: wait in the emulator's bottleneck of all packets of the data's direction, start included",
    );
    report.note(
        "sent again: by file bytes; reports: bytes the other way by bytes of the data's direction, from the agreement on",
    );
}

fn contender<'a>(lab: &'a Lab, options: &Options, link: &'a Link, way: Way, bytes: u64) -> Contender<'a> {
    let extra = options.wan.haul(link);
    let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
    let mut job = lab.bed.job(way, "large", bytes, &extra);
    let limit = link.limit_bps(options.wan.target(link));
    Contender::new(format!("{} {}", link.name(), word(way)), job.line(), move || {
        let (machine, own) = (CoreTime::now(), own_cpu(lab));
        let session = transfer(&mut job, &lab.wan, patience(bytes, limit))?;
        let mut figures = figures(&session, &lab.wan, link, way, bytes, limit)?;
        let work = machine.until_now();
        figures.insert("other_cores", (work.busy - (own_cpu(lab) - own)) / work.seconds);
        figures.insert("machine_stolen_s", work.stolen);
        Ok(figures)
    })
}

/// Seconds of CPU time of the emulator and of both ends of all transfers so far.
fn own_cpu(lab: &Lab) -> f64 {
    own_threads_cpu() + children_cpu() + family_cpu(lab.bed.server.pid())
}

/// When a run is given up.
pub(super) fn patience(bytes: u64, limit_bps: f64) -> Duration {
    Duration::from_secs_f64(PATIENCE * bytes as f64 * 8.0 / limit_bps + 10.0)
}

/// One run; the emulator counts from the agreement on.
fn transfer(job: &mut HaulJob<'_>, wan: &Wan, limit: Duration) -> Result<Session, String> {
    job.run(|client| {
        let session = Session::watch(client, limit, |said| {
            if said.event() == "start" {
                wan.reset_stats();
            }
        })?;
        session.done().map(|_| ())?;
        Ok(session)
    })
}

fn figures(
    session: &Session,
    wan: &Wan,
    link: &Link,
    way: Way,
    bytes: u64,
    limit_bps: f64,
) -> Result<Figures, String> {
    let done = session.done()?;
    let begin = session.first_data(way, link.rtt).ok_or("it told no statistics")?;
    let seconds = done.at.saturating_duration_since(begin).as_secs_f64();
    let stats = wan.stats();
    let (data, back) =
        if way == Way::Up { (stats.a_to_b, stats.b_to_a) } else { (stats.b_to_a, stats.a_to_b) };
    let bits = bytes as f64 * 8.0;
    Ok(Figures::from([
        ("of_limit", bits / seconds / limit_bps),
        ("rate_gbit", bits / seconds / 1e9),
        ("data_seconds", seconds),
        ("seconds", (session.ended - session.begun).as_secs_f64()),
        ("queue_mean_ms", data.queue_delay_mean().as_secs_f64() * 1e3),
        ("queue_p95_ms", data.queue_delay_percentile(0.95).as_secs_f64() * 1e3),
        ("repeated_share", done.number("retransmitted_bytes").unwrap_or(f64::NAN) / bytes as f64),
        ("reports_share", back.bytes_in as f64 / data.bytes_in.max(1) as f64),
        ("queue_drops_share", data.dropped_by_queue as f64 / data.packets_in.max(1) as f64),
        ("emulator_overrun", (data.overrun + data.write_errors + back.overrun + back.write_errors) as f64),
        ("emulator_late_ms", data.late_max.as_secs_f64() * 1e3),
    ]))
}

fn cells(series: &Series, link: &Link) -> Vec<String> {
    let share = |name: &str| {
        series.spread(name).map_or_else(|| "-".to_owned(), |spread| format!("{:.2} %", spread.median * 100.0))
    };
    vec![
        series.label(),
        series.spread("of_limit").map_or_else(|| "-".to_owned(), |spread| format!("{:.3}", spread.median)),
        series.cell("data_seconds", 2),
        series.cell("seconds", 2),
        series.cell("queue_mean_ms", 1),
        series.cell("queue_p95_ms", 0),
        format!("{:.1}", link.rtt.as_secs_f64() * 1e3 / 4.0 + 15.0),
        share("repeated_share"),
        format!("{:.2} %", (link.loss * REPEAT_FACTOR + REPEAT_MORE) * 100.0),
        share("reports_share"),
        share("queue_drops_share"),
    ]
}
