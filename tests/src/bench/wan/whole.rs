//! Whole commands, login included: haul and other programs by turns over the same link.

use std::time::Duration;

use super::settings::Link;
use super::{Lab, bytes_in};
use crate::bench::BenchError;
use crate::bench::copies::make_source;
use crate::bench::options::Options;
use crate::bench::peers::{Peer, Peers, Terms, word};
use crate::bench::report::{Figures, Report, Series, Table};
use crate::bench::rounds::{Contender, alternate};
use crate::bench::veth_link::tool;
use crate::harness::Way;
use crate::wan::DEVICE;

const USUAL: &str = "100:100:0,100:100:1,500:100:0,500:100:1,1000:100:0,1000:100:1";
/// Files of 64, 320 and 640 MB at 100, 500 and 1000 Mbit/s.
const SECONDS: f64 = 5.12;
/// Then a peer is stopped.
const LIMIT: Duration = Duration::from_secs(60);
/// Congestion controls of TCP at both ends.
const CONTROLS: [&str; 2] = ["cubic", "bbr"];

/// Measures.
pub(super) fn run(options: &Options) -> Result<Report, BenchError> {
    let mut report = Report::new("wan, whole commands");
    report.note(format!(
        "time of the whole command, login included; 0.64 MB per Mbit/s; peers are stopped after {} s; medians",
        LIMIT.as_secs()
    ));
    report.note(
        "TCP buffers up to 64 MiB at both ends, no metrics kept; qcp is told the link's rate and round trip; scp and curl \
         under the congestion control named, at both ends; no peer checks a digest of the file",
    );
    let mut all = Vec::new();
    for link in options.wan.links_or(USUAL) {
        let series = measure(options, &link)?;
        report.tables.push(table(&link, &series));
        all.extend(series);
    }
    report.take(all);
    Ok(report)
}

fn measure(options: &Options, link: &Link) -> Result<Vec<Series>, BenchError> {
    let bytes = bytes_in(options, link.rate as f64, SECONDS);
    let lab = Lab::start(options, link, bytes, bytes)?;
    let terms = Terms {
        place: Some(lab.place.clone()),
        qcp: ((link.rate / 8).to_string(), link.rtt.as_millis().to_string()),
        limit: LIMIT,
    };
    let peers = Peers::start(&lab.bed.volume, terms)?;
    let volume = &lab.bed.volume;
    make_source("file", bytes, &[&volume.here(), &volume.there(), &lab.bed.server.docroot()])?;
    let extra = options.wan.haul(link);
    let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
    let mut contenders = Vec::new();
    for way in options.wan.ways.iter().copied() {
        contenders.push(lab.bed.contender("haul", way, "file", bytes, &extra).reference());
        for peer in [Peer::Scp, Peer::Curl] {
            for control in CONTROLS {
                let lab = &lab;
                let contender = peers.contender(peer, way, volume, "file", bytes);
                let contender = contender.renamed(|name| format!("{name}, {}", control.to_uppercase()));
                contenders.push(contender.after(move || set_congestion(lab, control)));
            }
        }
        for peer in [Peer::Qcp, Peer::QcpBbr] {
            contenders.push(peers.contender(peer, way, volume, "file", bytes));
        }
    }
    let contenders = contenders.into_iter().map(|contender| counted(contender, &lab));
    Ok(alternate(contenders.collect(), options))
}

/// Knows how far one got that took too long. The emulator's own work is no load by others.
fn counted<'a>(contender: Contender<'a>, lab: &'a Lab) -> Contender<'a> {
    let contender = contender.after(|| {
        lab.wan.reset_stats();
        Ok(())
    });
    let contender = contender.with(|figures| {
        let _ = figures.remove("other_cores");
    });
    contender.rescued(|why| {
        if !why.contains("took longer than") {
            return Err(why);
        }
        let stats = lab.wan.stats();
        let bytes = stats.a_to_b.bytes_out.max(stats.b_to_a.bytes_out);
        let seconds = LIMIT.as_secs_f64();
        Ok(Figures::from([
            ("seconds", seconds),
            ("late", 1.0),
            ("rate_gbit", bytes as f64 * 8.0 / seconds / 1e9),
        ]))
    })
}

/// For the path alone, as only the host may choose among all controls for a namespace.
fn set_congestion(lab: &Lab, control: &str) -> Result<(), String> {
    [(lab.wan.a(), lab.wan.address_a()), (lab.wan.b(), lab.wan.address_b())].into_iter().try_for_each(
        |(end, address)| {
            let address = address.to_string();
            let route = ["-n", end, "route", "replace", "10.77.0.0/24", "dev", DEVICE, "proto", "kernel"];
            let more = ["scope", "link", "src", address.as_str(), "congctl", control];
            tool("ip", &[route.as_slice(), more.as_slice()].concat()).map_err(|error| error.to_string())
        },
    )
}

fn table(link: &Link, series: &[Series]) -> Table {
    let mut table =
        Table::new(format!("{}:", link.name()), &["", "whole command s", "Mbit/s", "times haul's time"]);
    for row in series {
        let late = row.spread("late").is_some();
        let own = |way: Way| {
            let name = format!("haul {}", word(way));
            series.iter().find(|series| series.name == name).filter(|_| row.name.contains(word(way)))
        };
        let haul = [Way::Up, Way::Down].into_iter().find_map(own);
        let more = if late { "> " } else { "" };
        let rate = row.spread("rate_gbit").map_or_else(
            || "-".to_owned(),
            |rate| format!("{:.1}{}", rate.median * 1e3, if late { " so far, on the wire" } else { "" }),
        );
        table.row(vec![
            row.label(),
            format!("{more}{}", row.cell("seconds", 2)),
            rate,
            haul.map_or_else(String::new, |haul| format!("{more}{}", row.ratio_cell(haul, "seconds"))),
        ]);
    }
    table
}
