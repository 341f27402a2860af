//! Scenario `wan`: the real programs over the emulator's long and lossy links.
//!
//! Both ends and the emulator share this machine's cores, so a link near a gigabit needs a quiet one.

mod beside;
mod changes;
mod rates;
mod session;
mod settings;
mod tcp;
mod track;
mod whole;

use std::fs;

pub(super) use settings::WanOptions;

use settings::{Link, Part};

use super::BenchError;
use super::bed::{Bed, Place};
use super::machine::first_number;
use super::options::Options;
use super::report::Report;
use super::volume::Room;
use crate::harness::ServerOptions;
use crate::wan::{Wan, WanConfig, WanError};

/// Content of a full 1500-byte packet of haul.
const PAYLOAD_SHARE: f64 = 1424.0 / 1500.0;
/// What TCP may have in flight: more than any link here holds. The kernel's own limit is below that.
const TCP_BUFFER_BYTES: u64 = 64 << 20;

/// Measures.
pub(super) fn run(options: &Options) -> Result<Report, BenchError> {
    match options.wan.part {
        Part::Rates => rates::run(options),
        Part::Peers => whole::run(options),
        Part::Short => changes::short(options),
        Part::Steps => changes::steps(options),
        Part::Beside(flow) => beside::run(options, flow),
    }
}

/// An emulated link with a `hauld` at its far end.
struct Lab {
    /// Ends before the namespaces go.
    bed: Bed,
    place: Place,
    wan: Wan,
}

impl Lab {
    /// Makes it, with room for a source and copies of so many bytes.
    fn start(options: &Options, link: &Link, source: u64, copy: u64) -> Result<Self, BenchError> {
        let config = WanConfig { far_rtt: options.wan.far_rtt, ..link.config() };
        let wan = Wan::start(config).map_err(|error| failed(&error))?;
        for end in [wan.a(), wan.b()] {
            for (name, value) in [
                ("tcp_rmem", format!("4096 131072 {TCP_BUFFER_BYTES}")),
                ("tcp_wmem", format!("4096 16384 {TCP_BUFFER_BYTES}")),
                ("tcp_no_metrics_save", "1".to_owned()),
            ] {
                set_ipv4(end, name, &value)?;
            }
        }
        let place = Place { near: wan.a().to_owned(), far: wan.b().to_owned(), address: wan.address_b() };
        let bed =
            Bed::start(options.pages, Room::for_trees(source, copy), Some(&place), ServerOptions::default())?;
        Ok(Self { bed, place, wan })
    }
}

/// Sets what a namespace has of its own in `net.ipv4`.
fn set_ipv4(namespace: &str, name: &str, value: &str) -> Result<(), BenchError> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    let written = crate::wan::enter(namespace, || fs::write(&path, value));
    written.map_err(|error| failed(&error))?.map_err(BenchError::io(format!("write {value} to {path}")))
}

fn failed(error: &WanError) -> BenchError {
    BenchError::Environment { what: "emulate a link".to_owned(), why: error.to_string() }
}

/// Bytes that a link carries of a file in a time at its limit, as far as memory holds source, copy and ballast.
fn bytes_in(options: &Options, limit_bps: f64, seconds: f64) -> u64 {
    let most = first_number("/proc/meminfo", "MemAvailable:") * 1024 / 5;
    options.size.unwrap_or((limit_bps * seconds / 8.0) as u64).min(most)
}
