//! Scenario `ceiling`: what sealed UDP can carry over loopback at most. The reference of other scenarios.

use super::blast::{Ends, HEADER_BYTES, TAG_BYTES, blast};
use super::options::Options;
use super::report::{Figures, Report, Series, Table};
use super::rounds::{Contender, alternate};

/// UDP payloads: what an Ethernet path carries, and what a path with jumbo frames does. Both leave a plaintext
/// that is a multiple of 128 bytes, which AES-GCM takes fastest.
const DATAGRAMS: [usize; 2] = [1440, 8992];

/// Measures both sizes of datagrams.
pub(super) fn run(options: &Options) -> Report {
    let mut report = Report::new("ceiling");
    let contenders = DATAGRAMS.map(|datagram| {
        let name = format!("{datagram}-byte datagrams");
        Contender::new(name, command(datagram), move || one(datagram, options)).reference()
    });
    let series = alternate(contenders.into(), options);
    report.note(format!(
        "one sending and one receiving thread over loopback, AES-128-GCM (ring), every datagram sealed and opened \
         in place with a header of {HEADER_BYTES} and a tag of {TAG_BYTES} bytes; 64 KiB a system call"
    ));
    report.note(
        "the rate counts plaintext that arrived and authenticated; nothing is read, written or repeated",
    );
    report.tables.push(table(&series));
    report.take(series);
    report
}

/// The best of all sizes, as one contender.
pub(super) fn contender(options: &Options) -> Contender<'_> {
    Contender::new(
        "ceiling",
        format!("the better of: {}, {}", command(DATAGRAMS[0]), command(DATAGRAMS[1])),
        || {
            let runs = DATAGRAMS.map(|datagram| one(datagram, options));
            let best = runs.into_iter().reduce(|best, other| {
                let (best, other) = (best?, other?);
                Ok(if best.get("rate_gbit") >= other.get("rate_gbit") { best } else { other })
            });
            best.expect("there are sizes")
        },
    )
    .reference()
}

fn one(datagram: usize, options: &Options) -> Result<Figures, String> {
    let blasted = Ends::on_loopback().and_then(|ends| blast(&ends, datagram, options.blast));
    Ok(blasted.map_err(|error| error.to_string())?.figures())
}

fn command(datagram: usize) -> String {
    format!("sealed blast of {datagram}-byte datagrams over loopback")
}

fn table(series: &[Series]) -> Table {
    let mut table = Table::new(
        "",
        &["datagrams", "to the first row", "Gbit/s", "sender, cores", "receiver, cores", "lost"],
    );
    for row in series {
        table.row(vec![
            row.label(),
            series.first().map(|first| row.ratio_cell(first, "rate_gbit")).unwrap_or_default(),
            row.cell("rate_gbit", 1),
            row.cell("sender_cpu_cores", 2),
            row.cell("receiver_cpu_cores", 2),
            row.percent("lost_share"),
        ]);
    }
    table
}
