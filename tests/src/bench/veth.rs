//! Scenario `veth`: one large file over a link of 1500-byte packets, with segmentation offload and without.

use super::BenchError;
use super::bed::Bed;
use super::blast::blast;
use super::copies::make_source;
use super::loopback::VARIANTS;
use super::options::Options;
use super::report::{Report, Series, Table};
use super::rounds::{Contender, alternate};
use super::veth_link::{Offload, VethLink};
use super::volume::Room;
use crate::harness::{ServerOptions, WAYS};

const SIZE_BYTES: u64 = 4 << 30;
/// UDP payloads of the bare blast: haul's first datagrams, and the most that 1500-byte packets carry.
const DATAGRAMS: [usize; 2] = [1440, 1472];

/// Measures.
pub(super) fn run(options: &Options) -> Result<Report, BenchError> {
    let size = options.size.unwrap_or(SIZE_BYTES);
    let link = VethLink::create()?;
    let bed = Bed::start(
        options.pages,
        Room::for_files(size, size),
        Some(&link.place()),
        ServerOptions::default(),
    )?;
    make_source("large", size, &[&bed.volume.here(), &bed.server.docroot()])?;

    let mut contenders = Vec::new();
    for offload in Offload::ALL {
        contenders.extend(DATAGRAMS.map(|datagram| bare(&link, offload, datagram, options)));
        for way in WAYS {
            for (name, extra) in VARIANTS {
                let contender =
                    bed.contender(&format!("{}, {name}", offload.name()), way, "large", size, extra);
                contenders.push(contender.after(link.setter(offload)));
            }
        }
    }
    let series = alternate(contenders, options);

    let mut report = Report::new("veth");
    report.note(format!(
        "one file of {} MiB of random bytes, tmpfs to tmpfs, between two network namespaces on the same cores, \
         veth with 1500-byte packets",
        size >> 20
    ));
    report.note("offload on: the kernel's default (gso, tso, tx-udp-segmentation on; gro off)");
    report.note("offload off: gso, tso and tx-udp-segmentation off, gro on, at both devices: each packet crosses alone");
    report.note("the bare blast seals and opens as scenario `ceiling` does, from memory to memory");
    report.tables.extend(Offload::ALL.map(|offload| table(offload, &series)));
    report.take(series);
    Ok(report)
}

fn bare<'a>(link: &'a VethLink, offload: Offload, datagram: usize, options: &'a Options) -> Contender<'a> {
    let name = bare_name(offload, datagram);
    let command = format!("sealed blast of {datagram}-byte datagrams over veth");
    let run = move || {
        let blasted = link.set(offload).and_then(|()| link.ends()).map_err(|error| error.to_string())?;
        Ok(blast(&blasted, datagram, options.blast).map_err(|error| error.to_string())?.figures())
    };
    Contender::new(name, command, run).reference()
}

fn bare_name(offload: Offload, datagram: usize) -> String {
    format!("{}, bare blast of {datagram}-byte datagrams", offload.name())
}

fn table(offload: Offload, series: &[Series]) -> Table {
    let mut table = Table::new(
        format!("{}:", offload.name()),
        &[
            "",
            "to the blast of 1440 bytes",
            "to the blast of 1472 bytes",
            "Gbit/s",
            "data Gbit/s",
            "client CPU s/GB",
            "server CPU s/GB",
            "lost",
        ],
    );
    let bare = DATAGRAMS.map(|datagram| {
        let name = bare_name(offload, datagram);
        series.iter().find(|series| series.name == name).cloned().unwrap_or_default()
    });
    for row in series.iter().filter(|row| row.name.starts_with(offload.name())) {
        let mut cells = vec![row.label().replacen(&format!("{}, ", offload.name()), "", 1)];
        cells.extend(bare.iter().map(|bare| row.ratio_cell(bare, "rate_gbit")));
        cells.extend([
            row.cell("rate_gbit", 2),
            row.cell("data_rate_gbit", 2),
            row.cell("client_cpu_s_per_gb", 2),
            row.cell("server_cpu_s_per_gb", 2),
            row.percent("lost_share"),
        ]);
        table.row(cells);
    }
    table
}
