//! Scenario `files`: many small files, beside one file as large as all of them and beside other programs.

use std::path::Path;

use super::BenchError;
use super::bed::Bed;
use super::copies::{link_tree, make_source};
use super::options::{Options, Pages};
use super::peers::{Peer, Peers, Terms, word};
use super::report::{Figures, Report, Series, Table};
use super::rounds::{Contender, alternate};
use super::volume::Room;
use crate::harness::{ServerOptions, WAYS, Way};
use crate::tree::make_file;

/// Files in a folder.
const FOLDER: u64 = 1000;

/// Many files of one size.
struct Tree {
    name: &'static str,
    title: &'static str,
    files: u64,
    size: u64,
}

const TREES: [Tree; 2] = [
    Tree { name: "tiny", title: "100,000 files of 1 KiB", files: 100_000, size: 1 << 10 },
    Tree { name: "small", title: "10,000 files of 100 KiB", files: 10_000, size: 100 << 10 },
];
/// As large as the larger tree.
const SINGLE_BYTES: u64 = 10_000 * (100 << 10);
/// In memory a small file takes a page and its entry of some 1 KiB.
const SOURCES_BYTES: u64 = 3 << 30;
const COPY_BYTES: u64 = 1 << 30;

/// Measures.
pub(super) fn run(options: &Options) -> Result<Report, BenchError> {
    let bed =
        Bed::start(Pages::Small, Room::for_trees(SOURCES_BYTES, COPY_BYTES), None, ServerOptions::default())?;
    let peers = Peers::start(&bed.volume, Terms::default())?;
    let (here, there, docroot) = (bed.volume.here(), bed.volume.there(), bed.server.docroot());
    make_source("single", SINGLE_BYTES, &[&here, &docroot])?;
    for tree in &TREES {
        make_tree(&here.join(tree.name), tree);
        link_tree(&here.join(tree.name), &docroot.join(tree.name))?;
        link_tree(&here.join(tree.name), &there.join(tree.name))?;
    }
    let mut contenders = Vec::new();
    for way in WAYS {
        contenders.push(bed.contender(SINGLE, way, "single", SINGLE_BYTES, &[]).reference());
        for tree in &TREES {
            let bytes = tree.files * tree.size;
            let own = bed.contender(&prefixed(tree, "haul"), way, tree.name, bytes, &[]);
            contenders.push(counted(own.reference(), tree));
            for peer in Peer::FOR_TREES {
                let contender = peers.contender(peer, way, &bed.volume, tree.name, bytes);
                contenders.push(counted(contender.renamed(|name| prefixed(tree, name)), tree));
            }
        }
    }
    let series = alternate(contenders, options);

    let mut report = Report::new("files");
    report.note(
        "random bytes, folders of 1,000 files, tmpfs to tmpfs (4 KiB pages, since a file takes at least one), loopback, \
         client and server on the same cores; every copy was compared with its source, byte by byte",
    );
    report.note("haul with BLAKE3; the others without any digest but rsync's; qcp with -j 16, rsync -r, tar as `tar | ssh tar`");
    report
        .note("not given trees: scp and sftp take a round trip and more for each file; curl takes no trees");
    for tree in &TREES {
        report.tables.push(table(tree, &series));
    }
    report.take(series);
    Ok(report)
}

const SINGLE: &str = "haul, one file of 1.02 GB,";

fn prefixed(tree: &Tree, name: &str) -> String {
    format!("{}: {name}", tree.title)
}

fn make_tree(root: &Path, tree: &Tree) {
    for n in 0..tree.files {
        make_file(&root.join(format!("{:03}", n / FOLDER)).join(format!("file-{n:06}")), tree.size, n);
    }
}

fn counted<'a>(contender: Contender<'a>, tree: &'a Tree) -> Contender<'a> {
    contender.with(|figures: &mut Figures| {
        if let Some(seconds) = figures.get("seconds").copied() {
            figures.insert("files_per_s", tree.files as f64 / seconds);
            figures.insert("megabytes_per_s", (tree.files * tree.size) as f64 / 1e6 / seconds);
        }
    })
}

fn table(tree: &Tree, series: &[Series]) -> Table {
    let mut table = Table::new(
        format!("{}:", tree.title),
        &[
            "",
            "haul's rate / its rate",
            "its rate / haul's with one file",
            "files/s",
            "MB/s",
            "client CPU s/GB",
            "server CPU s/GB",
        ],
    );
    let find = |name: &str| series.iter().find(|series| series.name == name).cloned().unwrap_or_default();
    for row in series.iter().filter(|row| row.name.starts_with(tree.title)) {
        let way = if row.name.ends_with(word(Way::Up)) { Way::Up } else { Way::Down };
        let haul = find(&format!("{} {}", prefixed(tree, "haul"), word(way)));
        let single = find(&format!("{SINGLE} {}", word(way)));
        table.row(vec![
            row.label().replacen(&prefixed(tree, ""), "", 1),
            haul.ratio_cell(row, "rate_gbit"),
            row.ratio_cell(&single, "rate_gbit"),
            row.cell("files_per_s", 0),
            row.cell("megabytes_per_s", 1),
            row.cell("client_cpu_s_per_gb", 2),
            row.cell("server_cpu_s_per_gb", 2),
        ]);
    }
    table
}
