//! haul joins a flow that has a link for itself: what each gets.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::session::Session;
use super::settings::{Flow, Link};
use super::tcp;
use super::track::{Track, jain};
use super::{Lab, bytes_in};
use crate::bench::BenchError;
use crate::bench::copies::make_source;
use crate::bench::options::Options;
use crate::bench::report::{Figures, Report, Series, Table};
use crate::bench::rounds::{Contender, alternate};
use crate::harness::Way;

const USUAL: &str = "100:50:0,100:50:0:4";
/// How long the first flow has the link for itself, and both share it.
const ALONE: Duration = Duration::from_secs(5);
const TOGETHER: Duration = Duration::from_secs(40);
/// Not counted after joining.
const SETTLE: Duration = Duration::from_secs(5);
/// Round trips after which two flows of haul are to share, and how long that is looked at.
const EQUAL_AFTER_RTT: u32 = 20;
const EQUAL_FOR: Duration = Duration::from_secs(5);
/// A login and more.
const LOGIN: Duration = Duration::from_secs(3);
const SOURCE: &str = "large";

/// Measures.
pub(super) fn run(options: &Options, first: Flow) -> Result<Report, BenchError> {
    let mut all = Vec::new();
    for link in options.wan.links_or(USUAL) {
        let bytes = bytes_in(options, link.rate as f64, (ALONE + TOGETHER + 2 * LOGIN).as_secs_f64());
        let lab = Lab::start(options, &link, bytes, 2 * bytes)?;
        make_source(SOURCE, bytes, &[&lab.bed.volume.here()])?;
        let far = options.wan.far_rtt.map_or_else(String::new, |rtt| format!(" at {} ms", rtt.as_millis()));
        let name = format!("{}, beside {}{far}", link.name(), first.name());
        let command = format!("haul {} beside {}", options.wan.haul(&link).join(" "), first.name());
        let contender = Contender::new(name, command, || {
            lab.bed.volume.release(u64::MAX).map_err(|error| error.to_string())?;
            let figures = share(&lab, options, &link, first);
            clear(&lab);
            figures
        });
        all.extend(alternate(vec![contender], options));
    }
    let mut report = Report::new("wan, beside another flow");
    report.note(format!(
        "policy {} joins {} s after {}, both upwards; mean goodput from {} to {} s after haul's first data packet; \
         medians",
        options.wan.policy,
        ALONE.as_secs(),
        first.name(),
        SETTLE.as_secs(),
        TOGETHER.as_secs()
    ));
    report.note("queue: wait in the emulator's bottleneck in that time; drops: of the packets in that time");
    report.note(format!(
        "Jain's index of the two rates: over {} s from {EQUAL_AFTER_RTT} round trips after joining, and over the counted time",
        EQUAL_FOR.as_secs()
    ));
    report.tables.push(table(&all));
    report.take(all);
    Ok(report)
}

fn share(lab: &Lab, options: &Options, link: &Link, first: Flow) -> Result<Figures, String> {
    let stop = AtomicBool::new(false);
    let (first, (joined, own)) = std::thread::scope(|scope| {
        let first = scope.spawn(|| match first {
            Flow::Tcp(congestion) => tcp::flow(&lab.wan, congestion, &stop),
            Flow::Haul => haul(lab, options, link, 1).map(|(_, track)| track),
        });
        std::thread::sleep(ALONE);
        let own = haul(lab, options, link, 2);
        stop.store(true, Ordering::Release);
        let first = first.join().expect("the first flow's thread does not panic");
        Ok::<_, String>((first?, own?))
    })?;
    let stats = lab.wan.stats().a_to_b;
    let (from, to) = (joined + SETTLE, joined + TOGETHER);
    let longest = options.wan.far_rtt.map_or(link.rtt, |far| far.max(link.rtt));
    let equal_from = joined + longest * EQUAL_AFTER_RTT;
    let rate = |track: &Track, from, to| track.rate(from, to).ok_or("a flow ended too early");
    let (its, ours) = (rate(&first, from, to)?, rate(&own, from, to)?);
    let begin = joined.checked_sub(ALONE / 2).unwrap_or(joined);
    let equal_to = equal_from + EQUAL_FOR;
    let early = jain(rate(&first, equal_from, equal_to)?, rate(&own, equal_from, equal_to)?);
    Ok(Figures::from([
        ("first_alone_mbit", rate(&first, begin, joined)? / 1e6),
        ("first_mbit", its / 1e6),
        ("haul_mbit", ours / 1e6),
        ("rate_gbit", ours / 1e9),
        ("haul_share", ours / (its + ours)),
        ("haul_of_link", ours / link.rate as f64),
        ("jain_after_20_rtt", early),
        ("jain", jain(its, ours)),
        ("queue_mean_ms", stats.queue_delay_mean().as_secs_f64() * 1e3),
        ("queue_drops_share", stats.dropped_by_queue as f64 / stats.packets_in.max(1) as f64),
        ("emulator_overrun", (stats.overrun + stats.write_errors) as f64),
    ]))
}

/// An upload that is stopped after a while; when its first data packet left, and what had arrived when.
fn haul(lab: &Lab, options: &Options, link: &Link, number: u32) -> Result<(Instant, Track), String> {
    let client = lab.bed.server.client().arg("--json").args(options.wan.haul(link)).in_namespace(lab.wan.a());
    let landed = format!("landed-{number}");
    let target = if number == 1 && options.wan.far_rtt.is_some() {
        lab.bed.server.destination_at(&lab.wan.address_far().to_string(), &landed)
    } else {
        lab.bed.server.destination(&landed)
    };
    let client = client.arg(lab.bed.volume.here().join(SOURCE)).arg(target);
    let last = number == 2;
    let limit = TOGETHER + LOGIN + if last { Duration::ZERO } else { ALONE + LOGIN };
    let mut track = Track::default();
    let mut counting = false;
    let session = Session::watch(client.command(), limit, |said| {
        if said.event() != "stats" {
            return;
        }
        track.note(said.at, said.value["bytes"].as_u64().unwrap_or(0));
        if last && !counting && said.number("seconds") >= Some(SETTLE.as_secs_f64()) {
            counting = true;
            lab.wan.reset_stats();
        }
    })?;
    let Some(begin) = session.first_data(Way::Up, link.rtt) else {
        session.done()?;
        return Err("it told no statistics".to_owned());
    };
    Ok((begin, track))
}

/// What interrupted transfers have left.
fn clear(lab: &Lab) {
    let entries = fs::read_dir(lab.bed.server.docroot()).into_iter().flatten().flatten();
    entries.for_each(|entry| drop(fs::remove_file(entry.path())));
}

fn table(all: &[Series]) -> Table {
    let mut table = Table::new(
        "",
        &[
            "link, RTT, loss",
            "first alone Mbit/s",
            "first Mbit/s",
            "haul Mbit/s",
            "haul's share",
            "queue ms",
            "drops",
            "Jain after 20 RTT",
            "Jain",
        ],
    );
    for series in all {
        table.row(vec![
            series.label(),
            series.cell("first_alone_mbit", 1),
            series.cell("first_mbit", 1),
            series.cell("haul_mbit", 1),
            series.percent("haul_share"),
            series.cell("queue_mean_ms", 1),
            series.percent("queue_drops_share"),
            series.cell("jain_after_20_rtt", 3),
            series.cell("jain", 3),
        ]);
    }
    table
}
