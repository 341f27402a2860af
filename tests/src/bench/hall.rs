//! A `hauld` with many users, and many clients that copy files of their own at the same time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::unistd::{User, chown};

use super::BenchError;
use super::command::{children_cpu, line, settle};
use super::copies::link_tree;
use super::fleet::{Fleet, Life, fairness, most_at_once, rates_together};
use super::options::Options;
use super::peers::word;
use super::report::{Figures, Spread};
use super::usage::{PeakMemory, family, family_cpu, proportional_bytes};
use super::volume::{Room, Volume};
use crate::harness::{Client, Server, ServerOptions, Way, make_key};
use crate::tree::{Also, differences, make_file};

/// Over all sessions of a run.
const TOTAL_BYTES: u64 = 4 << 30;
const LIMIT: Duration = Duration::from_secs(300);
/// A server lets one user have 64.
const SESSIONS_OF_USER: usize = 50;
/// UDP ports beyond one a session: ports of sessions that are just ending are still taken.
const SPARE_PORTS: u16 = 50;
/// The account that sessions run as.
const ACCOUNT: &str = "nobody";
/// Rate at which sessions count as idle.
pub(super) const IDLE_RATE: &str = "100k";
/// How long a paced session takes: longer than it takes to start 500 on two cores.
pub(super) const PACED_SECONDS: u64 = 25;
/// Over which fairness is judged: two reports of progress, which come every 250 ms.
const WINDOW: Duration = Duration::from_millis(500);

/// How many sessions do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Direction of all.
    pub(super) way: Way,
    /// Number of sessions.
    pub(super) count: usize,
    /// Each at a rate so low that all run at the same time.
    pub(super) paced: bool,
}

impl Load {
    /// For tables.
    #[must_use]
    pub(super) fn name(self) -> String {
        let noun = if self.count == 1 { "session" } else { "sessions" };
        let paced = if self.paced { ", paced" } else { "" };
        format!("{} {noun} {}{paced}", self.count, word(self.way))
    }
}

/// A server with users enough, and its files.
#[derive(Debug)]
pub(super) struct Hall {
    server: Server,
    volume: Volume,
    users: usize,
    /// Bytes over all sessions.
    pub(super) total: u64,
}

impl Hall {
    /// Starts it.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub(super) fn open(options: &Options, most: usize) -> Result<Self, BenchError> {
        let total = options.size.unwrap_or(TOTAL_BYTES);
        // Large pages are not divided among files.
        let room = total / 4 * 5;
        let volume = Volume::mount(options.pages, Room::for_trees(room, room))?;
        let at = |name: &str| volume.path().join(name);
        make_key(&at("key"));
        for folder in ["docroot", "docroot/landed"] {
            fs::create_dir_all(at(folder)).map_err(BenchError::io("make a folder"))?;
            give_away(&at(folder))?;
        }
        let users = most.div_ceil(SESSIONS_OF_USER);
        let table = |n: usize| {
            format!(
                "[[user]]\nname = \"user{n}\"\ndocroot = {:?}\nauthorized_keys = {:?}\naccount = \"{ACCOUNT}\"\n\
                 permissions = [\"read\", \"write\", \"list\"]\n",
                at("docroot"),
                at("key.pub")
            )
        };
        let server = Server::start(ServerOptions {
            tables: (0..users).map(table).collect(),
            udp_ports: u16::try_from(most).unwrap_or(u16::MAX).saturating_add(SPARE_PORTS),
            parent: Some(volume.path().to_owned()),
            deadline: false,
            ..ServerOptions::default()
        });
        Ok(Self { server, volume, users, total })
    }

    fn docroot(&self) -> PathBuf {
        self.volume.path().join("docroot")
    }

    /// Session `n` of `count`.
    fn client(&self, way: Way, count: usize, n: usize) -> Client {
        let user = n % self.users.min(count.div_ceil(SESSIONS_OF_USER)).max(1);
        let far = |folder: &str| format!("user{user}@127.0.0.1:{folder}/{n:03}");
        let near = |folder: &str| self.volume.here().join(folder).join(format!("{n:03}"));
        let client = Client::alone().args(["--json", "-P", &self.server.port().to_string(), "-i"]);
        let client =
            client.arg(self.volume.path().join("key")).arg("--known-hosts").arg(self.server.known_hosts());
        match way {
            Way::Up => client.arg(near("set")).arg(far("landed")),
            Way::Down => client.arg(far("set")).arg(near("landed")),
        }
    }

    fn clients(&self, way: Way, count: usize, extra: &[String]) -> Vec<Command> {
        (0..count).map(|n| self.client(way, count, n).args(extra).command()).collect()
    }

    /// A file for each session, in memory only once.
    fn make_set(&self, count: usize) -> Result<(), BenchError> {
        let (near, far) = (self.volume.here().join("set"), self.docroot().join("set"));
        self.clear(&["set", "landed"])?;
        for n in 0..count {
            make_file(&near.join(format!("{n:03}")), self.bytes_each(count), (count * 1000 + n) as u64);
        }
        link_tree(&near, &far)
    }

    /// Removes what is in these folders, on both sides.
    fn clear(&self, folders: &[&str]) -> Result<(), BenchError> {
        for root in [self.volume.here(), self.docroot()] {
            for folder in folders.iter().map(|folder| root.join(folder)) {
                let _ = fs::remove_dir_all(&folder);
                fs::create_dir_all(&folder).map_err(BenchError::io("make a folder"))?;
                give_away(&folder)?;
            }
        }
        Ok(())
    }

    /// The command of one of the sessions.
    #[must_use]
    pub(super) fn example(&self, load: Load) -> String {
        let command = self.client(load.way, load.count, 0).args(self.pace(load)).command();
        format!("{} times: {}", load.count, line(&command))
    }

    /// Runs all sessions of a load to their end and compares all copies.
    ///
    /// # Errors
    /// What failed first, and how many did.
    pub(super) fn measure(&self, load: Load) -> Result<Figures, String> {
        self.make_set(load.count).map_err(|error| error.to_string())?;
        self.volume.release(u64::MAX).map_err(|error| error.to_string())?;
        let outcome = self.transfer(load);
        let (from, to) = match load.way {
            Way::Up => (self.volume.here(), self.docroot()),
            Way::Down => (self.docroot(), self.volume.here()),
        };
        let report = match &outcome {
            Ok(_) => differences(&from.join("set"), &to.join("landed"), Also::default()),
            Err(_) => Vec::new(),
        };
        self.clear(&["set", "landed"]).map_err(|error| error.to_string())?;
        self.volume.refill().map_err(|error| error.to_string())?;
        match report.first() {
            Some(line) => Err(format!("the copies differ: {line}")),
            None => outcome,
        }
    }

    fn transfer(&self, load: Load) -> Result<Figures, String> {
        let daemon = self.server.pid();
        let (count, before) = (load.count, family(daemon).len());
        let (client_cpu, server_cpu) = (children_cpu(), family_cpu(daemon));
        let over = AtomicBool::new(false);
        let (lives, memory) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut memory = PeakMemory::default();
                while !over.load(Ordering::Acquire) {
                    memory.look(daemon, false);
                    // One look costs some 20 us a session.
                    std::thread::park_timeout(Duration::from_millis(20.max(count as u64)));
                }
                memory
            });
            let lives = Fleet::start(self.clients(load.way, count, &self.pace(load)), LIMIT)
                .and_then(|fleet| fleet.finish(LIMIT));
            over.store(true, Ordering::Release);
            watcher.thread().unpark();
            (lives, watcher.join().expect("the watcher does not panic"))
        });
        settle(daemon, before)?;
        let lives = lives?;
        let mut figures = judge(&lives, self.bytes_each(count))?;
        if load.paced {
            figures.insert("pace_gbit", self.kilobits(count) as f64 / 1e6);
        }
        let gigabytes = self.total as f64 / 1e9;
        figures.insert("client_cpu_s_per_gb", (children_cpu() - client_cpu) / gigabytes);
        figures.insert("server_cpu_s_per_gb", (family_cpu(daemon) - server_cpu) / gigabytes);
        if let Some(peak) = Spread::of(memory.all().map(|bytes| bytes as f64)) {
            figures.insert("worker_peak_bytes", peak.median);
            figures.insert("worker_peak_bytes_max", peak.max);
        }
        Ok(figures)
    }

    fn bytes_each(&self, count: usize) -> u64 {
        self.total / count as u64
    }

    /// Rate of a paced session in Kbit/s.
    fn kilobits(&self, count: usize) -> u64 {
        (self.bytes_each(count) * 8 / PACED_SECONDS / 1000).max(1)
    }

    /// Options that set the rate of a load.
    fn pace(&self, load: Load) -> Vec<String> {
        if !load.paced {
            return Vec::new();
        }
        vec!["-l".to_owned(), format!("{}k", self.kilobits(load.count))]
    }

    /// Memory of the workers while sessions move hardly anything: median of each worker, and of all.
    ///
    /// # Errors
    /// When a session ends.
    pub(super) fn idle(&self, way: Way, count: usize) -> Result<(Spread, f64), String> {
        self.make_set(count).map_err(|error| error.to_string())?;
        self.volume.release(u64::MAX).map_err(|error| error.to_string())?;
        let daemon = self.server.pid();
        let before = family(daemon);
        let pace = ["-l", IDLE_RATE, "--policy", "fixed"].map(str::to_owned);
        let fleet = Fleet::start(self.clients(way, count, &pace), LIMIT)?;
        fleet.wait_started(LIMIT)?;
        let workers = family(daemon).into_iter().filter(|pid| !before.contains(pid));
        let sizes: Vec<f64> = workers.map(|pid| proportional_bytes(pid) as f64).collect();
        let ended = fleet.first_ended();
        drop(fleet);
        settle(daemon, before.len())?;
        self.clear(&["set", "landed"]).map_err(|error| error.to_string())?;
        self.volume.refill().map_err(|error| error.to_string())?;
        if let Some(outcome) = ended {
            let how = outcome.err().unwrap_or_else(|| "its file has arrived".to_owned());
            return Err(format!(
                "{} of {count} workers are there; the first session that ended: {how}",
                sizes.len()
            ));
        }
        let all = sizes.iter().sum();
        Spread::of(sizes).map(|spread| (spread, all)).ok_or_else(|| "no worker".to_owned())
    }
}

/// Figures of a run, or what failed.
fn judge(lives: &[Life], bytes: u64) -> Result<Figures, String> {
    let failures: Vec<&String> =
        lives.iter().filter_map(|life| life.ended.as_ref()?.1.as_ref().err()).collect();
    if let Some(first) = failures.first() {
        return Err(format!("{} of {} sessions: {first}", failures.len(), lives.len()));
    }
    let whole =
        || lives.iter().filter_map(|life| Some((life.spawned, life.started?, life.ended.as_ref()?.0)));
    let (Some(first), Some(last)) = (whole().map(|times| times.0).min(), whole().map(|times| times.2).max())
    else {
        return Err("no session has begun".to_owned());
    };
    let seconds = (last - first).as_secs_f64();
    let mut waits: Vec<f64> =
        whole().map(|(spawned, started, _)| (started - spawned).as_secs_f64()).collect();
    waits.sort_by(f64::total_cmp);
    let percentile = |share: f64| waits[((waits.len() - 1) as f64 * share).round() as usize];
    let mut figures = Figures::from([
        ("seconds", seconds),
        ("rate_gbit", lives.len() as f64 * bytes as f64 * 8.0 / seconds / 1e9),
        ("start_p50_s", percentile(0.5)),
        ("start_p95_s", percentile(0.95)),
        ("most_at_once", most_at_once(lives) as f64),
    ]);
    let rates: Vec<f64> =
        whole().map(|(_, started, ended)| bytes as f64 / (ended - started).as_secs_f64()).collect();
    figures.insert("fairness_of_whole_sessions", fairness(&rates));
    if let Some(rate) = Spread::of(rates) {
        figures.insert("session_gbit_median", rate.median * 8.0 / 1e9);
        figures.insert("session_gbit_min", rate.min * 8.0 / 1e9);
    }
    let together = rates_together(lives, WINDOW);
    if together.len() > 1 {
        figures.insert("fairness", fairness(&together));
        figures.insert("fairness_sessions", together.len() as f64);
    }
    Ok(figures)
}

fn give_away(path: &Path) -> Result<(), BenchError> {
    let user = User::from_name(ACCOUNT).ok().flatten();
    let account = user.ok_or_else(|| BenchError::Environment {
        what: ACCOUNT.to_owned(),
        why: "no such account".to_owned(),
    })?;
    chown(path, Some(account.uid), Some(account.gid))
        .map_err(|errno| BenchError::io(format!("give {} away", path.display()))(errno.into()))
}
