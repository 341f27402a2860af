//! haul itself: a `hauld`, a folder here and its docroot on one file system, and copies between them.

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::BenchError;
use super::command::{Measured, Ran, line};
use super::copies::CopyJob;
use super::options::Pages;
use super::peers::word;
use super::report::Figures;
use super::rounds::Contender;
use super::volume::{Room, Volume};
use crate::harness::{Server, ServerOptions, Way};
use crate::wan;

/// Where the two ends are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Network namespace of clients.
    pub(super) near: String,
    /// That of the server.
    pub(super) far: String,
    /// The server's address.
    pub(super) address: IpAddr,
}

impl Place {
    /// The server's address; loopback without a place.
    pub(super) fn address_of(place: Option<&Self>) -> IpAddr {
        place.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |place| place.address)
    }

    /// A command that will run where the server is.
    pub(super) fn far_command(place: Option<&Self>, program: &Path) -> Command {
        place.map_or_else(
            || Command::new(program),
            |place| wan::command_in(&place.far, &program.to_string_lossy()),
        )
    }

    /// True when somebody listens there.
    pub(super) fn answers(place: Option<&Self>, port: u16) -> bool {
        let dial = || TcpStream::connect((Self::address_of(place), port)).is_ok();
        place.map_or_else(dial, |place| wan::enter(&place.far, dial).unwrap_or(false))
    }
}

/// A server and its file system.
#[derive(Debug)]
pub(super) struct Bed {
    /// The running `hauld`. Ends before the file system goes.
    pub(super) server: Server,
    /// What holds all files.
    pub(super) volume: Volume,
    near: Option<String>,
}

impl Bed {
    /// Mounts room and starts `hauld`, on loopback unless a place is given.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub(super) fn start(
        pages: Pages,
        room: Room,
        place: Option<&Place>,
        options: ServerOptions,
    ) -> Result<Self, BenchError> {
        let volume = Volume::mount(pages, room)?;
        let server = Server::start(ServerOptions {
            parent: Some(volume.path().to_owned()),
            deadline: false,
            place: place.map(|place| (place.far.clone(), place.address)),
            ..options
        });
        Ok(Self { server, volume, near: place.map(|place| place.near.clone()) })
    }

    /// A contender that copies `source`, a file or a tree that lies in both folders, with more options.
    pub(super) fn contender(
        &self,
        name: &str,
        way: Way,
        source: &str,
        bytes: u64,
        extra: &[&str],
    ) -> Contender<'_> {
        let mut job = self.job(way, source, bytes, extra);
        Contender::new(format!("{name} {}", word(way)), job.line(), move || {
            let daemon = Some(self.server.pid());
            figures(job.run(|client| Measured::new(client, daemon, bytes).run())?, bytes)
        })
    }

    /// A copy of `source`, which lies in both folders, by haul.
    pub(super) fn job(&self, way: Way, source: &str, bytes: u64, extra: &[&str]) -> HaulJob<'_> {
        let (from, to) = match way {
            Way::Up => (self.volume.here(), self.server.docroot()),
            Way::Down => (self.server.docroot(), self.volume.here()),
        };
        let copy = CopyJob::new(&self.volume, bytes, from.join(source), to.join("landed"));
        HaulJob { bed: self, way, copy, extra: extra.iter().map(|word| (*word).to_owned()).collect() }
    }

    fn client(&self, way: Way, copy: &CopyJob<'_>, extra: &[String]) -> Command {
        let below = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut client = self.server.client().arg("--json").args(extra);
        if let Some(namespace) = &self.near {
            client = client.in_namespace(namespace);
        }
        let client = match way {
            Way::Up => client.arg(&copy.source).arg(self.server.destination(&below(&copy.target))),
            Way::Down => client.arg(self.server.destination(&below(&copy.source))).arg(&copy.target),
        };
        client.command()
    }
}

/// A copy that haul is to make.
#[derive(Debug)]
pub(super) struct HaulJob<'a> {
    bed: &'a Bed,
    way: Way,
    copy: CopyJob<'a>,
    extra: Vec<String>,
}

impl HaulJob<'_> {
    /// The command for a report.
    #[must_use]
    pub(super) fn line(&self) -> String {
        line(&self.bed.client(self.way, &self.copy, &self.extra))
    }

    /// Runs the client in the way of the caller; the copy is checked and removed.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) fn run<T>(&mut self, run: impl FnOnce(Command) -> Result<T, String>) -> Result<T, String> {
        let Self { bed, way, copy, extra } = self;
        copy.make(|copy| run(bed.client(*way, copy, extra)))
    }
}

/// Adds what haul itself tells in its last line.
fn figures(ran: Ran, bytes: u64) -> Result<Figures, String> {
    let Ran { mut figures, stdout } = ran;
    let last = stdout.lines().last().unwrap_or_default();
    let done: Value =
        serde_json::from_str(last).map_err(|error| format!("its last line: {error}: {last}"))?;
    if done["ok"] != true {
        return Err(format!("it says: {}", done["error"]));
    }
    let number = |name: &str| done[name].as_f64();
    if let Some(seconds) = number("seconds").filter(|seconds| *seconds > 0.0) {
        figures.insert("data_seconds", seconds);
        figures.insert("data_rate_gbit", bytes as f64 * 8.0 / seconds / 1e9);
    }
    if let (Some(packets), Some(lost)) = (number("packets"), number("lost_packets")) {
        figures.insert("packets", packets);
        figures.insert("lost_share", lost / packets.max(1.0));
    }
    if let Some(again) = number("retransmitted_bytes") {
        figures.insert("retransmitted_share", again / bytes as f64);
    }
    Ok(figures)
}
