//! Scenario `paced`: one transfer at a rate that is far below what the machine can, and what it costs.

use super::BenchError;
use super::bed::Bed;
use super::copies::make_source;
use super::options::Options;
use super::peers::word;
use super::report::{Figures, Report, Series, Table};
use super::rounds::alternate;
use super::veth_link::{Offload, VethLink};
use super::volume::Room;
use crate::harness::{ServerOptions, WAYS, Way};

const SIZE_BYTES: u64 = 1 << 30;
const RATE: &str = "1g";
const RATE_GBIT: f64 = 1.0;

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
    let contenders = WAYS.map(|way| {
        let options = ["-l", RATE, "--policy", "fixed"];
        let contender = bed.contender("haul", way, "large", size, &options);
        contender.after(link.setter(Offload::On)).with(move |figures| shares(figures, way))
    });
    let series = alternate(contenders.into(), options);

    let mut report = Report::new("paced");
    report.note(format!(
        "one file of {} MiB at 1 Gbit/s (-l {RATE} --policy fixed) over veth with 1500-byte packets, gso, tso and \
         tx-udp-segmentation on, gro off; BLAKE3 on",
        size >> 20
    ));
    report.note(
        "a side's share of one core is its CPU time by the time of the whole command, login included; the kernel \
         receives in the name of the sender here, as veth hands packets over on the sender's core",
    );
    report.tables.push(table(&series));
    report.take(series);
    Ok(report)
}

/// CPU time by time, of each end of the data.
fn shares(figures: &mut Figures, way: Way) {
    let value = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    let (client, server) = (value("client_cpu_s"), value("server_cpu_s"));
    let (sender, receiver) = if way == Way::Up { (client, server) } else { (server, client) };
    let seconds = value("seconds");
    let machine = value("machine_busy_s");
    let of_rate = value("data_rate_gbit") / RATE_GBIT;
    figures.insert("sender_cores", sender / seconds);
    figures.insert("receiver_cores", receiver / seconds);
    figures.insert("machine_cores", machine / seconds);
    figures.insert("of_rate", of_rate);
}

fn table(series: &[Series]) -> Table {
    let mut table = Table::new(
        "",
        &[
            "",
            "sender, of a core",
            "receiver, of a core",
            "machine, of a core",
            "rate held, of 1 Gbit/s",
            "Gbit/s",
        ],
    );
    for (row, way) in series.iter().zip(WAYS) {
        table.row(vec![
            if row.failure().is_some() { row.label() } else { word(way).to_owned() },
            row.percent("sender_cores"),
            row.percent("receiver_cores"),
            row.percent("machine_cores"),
            row.percent("of_rate"),
            row.cell("rate_gbit", 3),
        ]);
    }
    table
}
