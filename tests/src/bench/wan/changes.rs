//! How fast haul is when there is no time to learn: short files, steps in capacity, an outage.

use std::cell::Cell;
use std::process::Command;
use std::time::{Duration, Instant};

use super::rates::patience;
use super::session::{Said, Session};
use super::settings::Link;
use super::{Lab, bytes_in};
use crate::bench::BenchError;
use crate::bench::bed::HaulJob;
use crate::bench::copies::make_source;
use crate::bench::options::Options;
use crate::bench::peers::word;
use crate::bench::report::{Figures, Report, Series, Table};
use crate::bench::rounds::{Contender, alternate};
use crate::harness::Way;

const SHORT_LINKS: &str = "1000:200:0,1000:200:1";
const SHORT_BYTES: u64 = 10 << 20;
const STEP_LINK: &str = "500:100:0";
/// The link's rate falls to this share of itself and comes back.
const STEP_SHARE: f64 = 0.2;
/// Since the first data packet.
const STEP_DOWN_AT: f64 = 8.0;
const STEP_UP_AT: f64 = 16.0;
/// At the limit of the unchanged link.
const STEP_SECONDS: f64 = 15.0;
/// As near to the new limit counts as learnt.
const NEAR: f64 = 0.1;
/// UDP payload of full packets, in which delivery is told.
const UDP_SHARE: f64 = 1472.0 / 1500.0;
const OUTAGE_LINK: &str = "100:100:0";
const OUTAGE_AT: f64 = 5.0;
const OUTAGE: Duration = Duration::from_secs(30);
const OUTAGE_SECONDS: f64 = 15.0;

/// Short files.
pub(super) fn short(options: &Options) -> Result<Report, BenchError> {
    let mut report = Report::new("wan, short files");
    report.note(
        "10 MiB to the verified end: from the end of the SSH login (the log's `logged in`), from the agreement, and from the first \
         data packet, as the client tells; medians",
    );
    let head =
        ["link, RTT, loss", "RTT from the agreement", "RTT from the first data packet", "whole command s"];
    let mut table = Table::new("", &head);
    let bytes = options.size.unwrap_or(SHORT_BYTES);
    let measure = |job: &mut HaulJob<'_>, lab: &Lab, link: &Link, way: Way| {
        let session = job.run(|client| finished(client, patience(bytes, link.limit_bps(None)), |_| {}))?;
        let (done, rtt) = (session.done()?.at, link.rtt.as_secs_f64());
        let since =
            |begin: Option<Instant>| begin.map_or(f64::NAN, |begin| (done - begin).as_secs_f64() / rtt);
        Ok(Figures::from([
            ("rtt_from_login", since(session.logged("logged in"))),
            ("rtt_from_agreement", since(session.agreed())),
            ("rtt_from_data", since(session.first_data(way, link.rtt))),
            ("seconds", (session.ended - session.begun).as_secs_f64()),
            ("emulator_overrun", lab.wan.stats().a_to_b.overrun as f64),
        ]))
    };
    let all = each(options, SHORT_LINKS, |_| bytes, &measure)?;
    for series in &all {
        table.row(vec![
            series.label(),
            series.cell("rtt_from_login", 2),
            series.cell("rtt_from_agreement", 2),
            series.cell("rtt_from_data", 2),
            series.cell("seconds", 2),
        ]);
    }
    report.tables.push(table);
    report.take(all);
    Ok(report)
}

/// Steps and an outage.
pub(super) fn steps(options: &Options) -> Result<Report, BenchError> {
    let mut report = Report::new("wan, changes under way");
    report.note(format!(
        "the link's rate falls to {STEP_SHARE} of itself {STEP_DOWN_AT} s after the first data packet and comes back at \
         {STEP_UP_AT} s; time until delivery, and the pacing of the sender, are within 10 % of the new limit, in RTT, seen ten \
         times a second"
    ));
    report.note("outage: nothing passes for 30 s; extra is the data phase's time beyond that of a run without it; medians");
    let seconds = |of: f64| move |link: &Link| bytes_in(options, link.limit_bps(None), of);
    let learnt = each(options, STEP_LINK, seconds(STEP_SECONDS), &step)?;
    let mut table = Table::new(
        "Steps, in RTT:",
        &["link, RTT, loss", "down: delivery", "down: pacing", "up: delivery", "up: pacing"],
    );
    for series in &learnt {
        let mut cells = vec![series.label()];
        cells.extend(STEP_FIGURES.iter().flatten().map(|name| series.cell(name, 1)));
        table.row(cells);
    }
    report.tables.push(table);
    let outages = each(options, OUTAGE_LINK, seconds(OUTAGE_SECONDS), &outage)?;
    let mut table =
        Table::new("An outage of 30 s:", &["link, RTT, loss", "data s without", "data s with", "extra s"]);
    for series in &outages {
        table.row(vec![
            series.label(),
            series.cell("plain_seconds", 2),
            series.cell("data_seconds", 2),
            series.cell("extra_seconds", 2),
        ]);
    }
    report.tables.push(table);
    report.take(learnt.into_iter().chain(outages).collect());
    Ok(report)
}

type Measure<'a> = dyn Fn(&mut HaulJob<'_>, &Lab, &Link, Way) -> Result<Figures, String> + 'a;

/// Runs each link and way.
fn each(
    options: &Options,
    links: &str,
    bytes: impl Fn(&Link) -> u64,
    measure: &Measure<'_>,
) -> Result<Vec<Series>, BenchError> {
    let mut all = Vec::new();
    for link in options.wan.links_or(links) {
        let bytes = bytes(&link);
        let lab = Lab::start(options, &link, bytes, bytes)?;
        make_source("file", bytes, &[&lab.bed.volume.here(), &lab.bed.server.docroot()])?;
        let mut extra = options.wan.haul(&link);
        extra.push("-v".to_owned());
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        let contenders = options.wan.ways.iter().map(|way| {
            let mut job = lab.bed.job(*way, "file", bytes, &extra);
            let (lab, link) = (&lab, &link);
            Contender::new(format!("{} {}", link.name(), word(*way)), job.line(), move || {
                measure(&mut job, lab, link, *way)
            })
        });
        all.extend(alternate(contenders.collect(), options));
    }
    Ok(all)
}

fn finished(client: Command, limit: Duration, hear: impl FnMut(&Said)) -> Result<Session, String> {
    let session = Session::watch(client, limit, hear)?;
    session.done().map(|_| ())?;
    Ok(session)
}

/// Delivery and pacing, of the step down and of the step up.
const STEP_FIGURES: [[&str; 2]; 2] =
    [["down_delivery_rtt", "down_pacing_rtt"], ["up_delivery_rtt", "up_pacing_rtt"]];

fn step(job: &mut HaulJob<'_>, lab: &Lab, link: &Link, way: Way) -> Result<Figures, String> {
    let low = (link.rate as f64 * STEP_SHARE) as u64;
    let steps = [(STEP_DOWN_AT, low), (STEP_UP_AT, link.rate)];
    let mut taken: Vec<Instant> = Vec::new();
    let session = job.run(|client| {
        finished(client, Duration::from_secs(120), |said| {
            let Some((at, rate)) = steps.get(taken.len()) else { return };
            if said.event() == "stats" && said.number("seconds") >= Some(*at) {
                lab.wan.set_rate(Some(*rate));
                taken.push(Instant::now());
            }
        })
    });
    lab.wan.set_rate(Some(link.rate));
    let session = session?;
    let on_the_way = if way == Way::Down { link.rtt / 2 } else { Duration::ZERO };
    let mut figures = Figures::new();
    for (number, ((_, rate), names)) in steps.iter().zip(STEP_FIGURES).enumerate() {
        let Some(begin) = taken.get(number).copied() else { continue };
        let end = taken.get(number + 1).copied();
        let limit = *rate as f64 * (1.0 - link.loss);
        for (name, (column, limit)) in
            names.into_iter().zip([("delivery_bps", limit * UDP_SHARE), ("pacing_bps", *rate as f64)])
        {
            let near = |row: &&Said| {
                row.number(column).is_some_and(|bps| (bps / limit - 1.0).abs() <= NEAR)
                    && row.at > begin
                    && end.is_none_or(|end| row.at < end)
            };
            if let Some(row) = session.events("stats").find(near) {
                let time = row.at.saturating_duration_since(begin + on_the_way);
                figures.insert(name, time.as_secs_f64() / link.rtt.as_secs_f64());
            }
        }
    }
    Ok(figures)
}

fn outage(job: &mut HaulJob<'_>, lab: &Lab, link: &Link, way: Way) -> Result<Figures, String> {
    let plain = job.run(|client| finished(client, Duration::from_secs(60), |_| {}))?;
    let struck = std::thread::scope(|scope| {
        let begun = Cell::new(false);
        let session = job.run(|client| {
            finished(client, Duration::from_secs(120), |said| {
                if !begun.get() && said.event() == "stats" && said.number("seconds") >= Some(OUTAGE_AT) {
                    begun.set(true);
                    lab.wan.set_blackout(true);
                    scope.spawn(|| {
                        std::thread::sleep(OUTAGE);
                        lab.wan.set_blackout(false);
                    });
                }
            })
        });
        lab.wan.set_blackout(false);
        session
    })?;
    let seconds = |session: &Session| {
        let begin = session.first_data(way, link.rtt).ok_or("it told no statistics")?;
        Ok::<_, String>(session.done()?.at.saturating_duration_since(begin).as_secs_f64())
    };
    let (plain, struck) = (seconds(&plain)?, seconds(&struck)?);
    Ok(Figures::from([("plain_seconds", plain), ("data_seconds", struck), ("extra_seconds", struck - plain)]))
}
