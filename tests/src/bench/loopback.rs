//! Scenario `loopback`: one large file from memory to memory, beside the ceiling and beside other programs.

use super::BenchError;
use super::bed::Bed;
use super::ceiling;
use super::copies::make_source;
use super::floor;
use super::options::{Options, Pages};
use super::peers::{Peer, Peers, Terms, word};
use super::report::{Report, Series, Table};
use super::rounds::alternate;
use super::volume::Room;
use crate::harness::{ServerOptions, WAYS, Way};

/// Long enough that a second of start-up does not hide the rate.
const SIZE_BYTES: u64 = 8 << 30;
/// How haul is run: its name in tables, and its options.
pub(super) const VARIANTS: [(&str, &[&str]); 2] =
    [("haul", &["--digest", "blake3"]), ("haul, no digest,", &["--digest", "none"])];

/// Measures.
pub(super) fn run(options: &Options) -> Result<Report, BenchError> {
    let size = options.size.unwrap_or(SIZE_BYTES);
    let peer_size = options.peer_size.min(size);
    let bed =
        Bed::start(options.pages, Room::for_files(size + peer_size, size), None, ServerOptions::default())?;
    let peers = Peers::start(&bed.volume, Terms::default())?;
    let (here, there, docroot) = (bed.volume.here(), bed.volume.there(), bed.server.docroot());
    make_source("large", size, &[&here, &docroot])?;
    make_source("peers", peer_size, &[&here, &there])?;

    let mut contenders = vec![ceiling::contender(options)];
    contenders.extend(floor::NAMES.map(|kind| floor::contender(&bed, "large", size, kind)));
    for way in WAYS {
        for (name, extra) in VARIANTS {
            contenders.push(bed.contender(name, way, "large", size, extra).reference());
        }
        for peer in Peer::FOR_FILES {
            contenders.push(peers.contender(peer, way, &bed.volume, "peers", peer_size));
        }
    }
    let mut series = alternate(contenders, options);
    floor::compute(&mut series);

    let mut report = Report::new("loopback");
    conditions(&mut report, options, size, peer_size);
    report.tables.push(own_table(&series));
    report.tables.push(peer_table(&series));
    report.take(series);
    Ok(report)
}

fn conditions(report: &mut Report, options: &Options, size: u64, peer_size: u64) {
    let pages = if options.pages == Pages::Huge { "2 MiB" } else { "4 KiB" };
    report.note(format!(
        "one file of {} MiB (haul) or {} MiB (others) of random bytes, tmpfs to tmpfs with pages of {pages}, client \
         and server on the same cores; targets are \
         removed and memory for the copy is touched before each run; every copy was compared with its source",
        size >> 20,
        peer_size >> 20
    ));
    report.note(
        "rates count the whole command, login included; \"data\" is from the agreement to the end, as haul tells",
    );
    report.note(
        "AES-128-GCM everywhere; scp, sftp and rsync over OpenSSH, curl and nginx with TLS 1.3, HTTP/1.1 and sendfile; \
         qcp with --rx 5G --tx 5G --rtt 2",
    );
    report.note(
        "bound: two threads, one a side, share alike what the blast, a plain copy of the same file and the digests of both \
         sides cost at that moment; a real sender and receiver cannot share so evenly",
    );
    report.note("CPU is seconds for 10^9 bytes; memory is the peak of the largest process of a side");
}

/// haul against the ceiling.
pub(super) fn own_table(series: &[Series]) -> Table {
    let mut table = Table::new(
        "haul against the ceiling:",
        &[
            "",
            "of the ceiling",
            "data phase, of the ceiling",
            "Gbit/s",
            "data Gbit/s",
            "client CPU s/GB",
            "server CPU s/GB",
            "client MiB",
            "server MiB",
        ],
    );
    let Some((ceiling, _)) = series.split_first() else { return table };
    table.row(vec![ceiling.label(), "1".to_owned(), "1".to_owned(), ceiling.cell("rate_gbit", 1)]);
    for bound in series.iter().filter(|row| is_bound(row)) {
        let ratio = bound.ratio_cell(ceiling, "rate_gbit");
        table.row(vec![bound.label(), ratio.clone(), ratio, bound.cell("rate_gbit", 1)]);
    }
    for row in series.iter().filter(|row| row.name.starts_with("haul")) {
        table.row(vec![
            row.label(),
            row.ratio_cell(ceiling, "rate_gbit"),
            row.ratio_of_cell("data_rate_gbit", ceiling, "rate_gbit"),
            row.cell("rate_gbit", 2),
            row.cell("data_rate_gbit", 2),
            row.cell("client_cpu_s_per_gb", 2),
            row.cell("server_cpu_s_per_gb", 2),
            row.mebibytes("client_peak_bytes"),
            row.mebibytes("server_peak_bytes"),
        ]);
    }
    table
}

fn is_bound(series: &Series) -> bool {
    floor::NAMES.iter().any(|(name, _)| series.name == *name)
}

fn peer_table(series: &[Series]) -> Table {
    let mut table = Table::new(
        "How many times faster haul is:",
        &[
            "than",
            "haul",
            "haul, no digest",
            "its Gbit/s",
            "client CPU s/GB",
            "server CPU s/GB",
            "client MiB",
            "server MiB",
        ],
    );
    let own = |name: &str, way: Way| {
        let name = format!("{name} {}", word(way));
        series.iter().find(|series| series.name == name).cloned().unwrap_or_default()
    };
    for row in series.iter().skip(1).filter(|row| !row.name.starts_with("haul") && !is_bound(row)) {
        let way = if row.name.ends_with(word(Way::Up)) { Way::Up } else { Way::Down };
        let mut cells = vec![row.label()];
        cells.extend(VARIANTS.map(|(name, _)| own(name, way).ratio_cell(row, "rate_gbit")));
        cells.extend([
            row.cell("rate_gbit", 2),
            row.cell("client_cpu_s_per_gb", 2),
            row.cell("server_cpu_s_per_gb", 2),
            row.mebibytes("client_peak_bytes"),
            row.mebibytes("server_peak_bytes"),
        ]);
        table.row(cells);
    }
    table
}
