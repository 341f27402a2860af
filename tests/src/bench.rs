//! The benchmark: haul beside its own limit and beside other programs, as ratios of runs in turns.
//!
//! It uses haul as a user does and never links its crates. It only measures; whether a figure is good is for
//! the reader to say.

mod bed;
mod blast;
mod ceiling;
mod command;
mod copies;
mod files;
mod fleet;
mod floor;
mod hall;
mod https;
mod loopback;
mod machine;
mod options;
mod paced;
mod peers;
mod report;
mod rounds;
mod sessions;
mod ssh;
mod usage;
mod veth;
mod veth_link;
mod volume;
mod wan;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};

pub use options::USAGE;

use options::{Options, Scenario};
use report::Report;

/// Exit status after a signal, as shells have it.
const INTERRUPTED: i32 = 130;

/// Why nothing was measured.
#[derive(Debug)]
pub enum BenchError {
    /// The command line is wrong.
    Usage(String),
    /// Others use the machine.
    Busy {
        /// How many cores they use.
        cores: f64,
    },
    /// Something the scenario needs could not be made.
    Environment {
        /// What was tried.
        what: String,
        /// The answer.
        why: String,
    },
}

impl BenchError {
    /// For a failed call of the system.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Environment { what, why: error.to_string() }
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => write!(f, "{message}\n\n{USAGE}"),
            Self::Busy { cores } => write!(
                f,
                "the machine is busy: others use {cores:.2} cores; wait for them, or measure all the same with --force"
            ),
            Self::Environment { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for BenchError {}

/// Measures what was asked for; prints tables and writes the figures.
///
/// # Errors
/// When nothing can be measured: a wrong command line, a busy machine, missing rights.
pub fn run(arguments: &[String]) -> Result<(), BenchError> {
    let options = Options::parse(arguments)?;
    // Servers with another account must be able to read what is made here.
    umask(Mode::from_bits_truncate(0o022));
    let machine = machine::describe();
    println!("{}\n", machine::summary(&machine));
    if options.scenarios != [Scenario::Ceiling] {
        machine::check_programs()?;
        volume::own_mounts()?;
    }
    stop_on_signals()?;
    let mut reports = Vec::new();
    for scenario in &options.scenarios {
        if !options.force {
            machine::check_quiet()?;
        }
        let report = measure(*scenario, &options)?;
        println!("{report}");
        reports.push(report.to_json());
        // What was measured so far is not lost with what comes.
        save(&options.json, arguments, &machine, &reports)?;
    }
    eprintln!("figures: {}", options.json.display());
    Ok(())
}

/// Ends everything that was started here, and removes what was made, when somebody stops the benchmark.
fn stop_on_signals() -> Result<(), BenchError> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().map_err(|errno| BenchError::io("block signals")(errno.into()))?;
    std::thread::spawn(move || {
        let _ = signals.wait();
        command::end_family(std::process::id(), false);
        veth_link::remove_left_over(|pid| pid == std::process::id());
        volume::unmount_all();
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

fn measure(scenario: Scenario, options: &Options) -> Result<Report, BenchError> {
    match scenario {
        Scenario::Ceiling => Ok(ceiling::run(options)),
        Scenario::Loopback => loopback::run(options),
        Scenario::Veth => veth::run(options),
        Scenario::Paced => paced::run(options),
        Scenario::Files => files::run(options),
        Scenario::Sessions => sessions::run(options),
        Scenario::Wan => wan::run(options),
    }
}

fn save(path: &Path, arguments: &[String], machine: &Value, reports: &[Value]) -> Result<(), BenchError> {
    let all = json!({ "arguments": arguments, "machine": machine, "scenarios": reports });
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(BenchError::io(format!("make {}", directory.display())))?;
    }
    let text = serde_json::to_string_pretty(&all).expect("figures are numbers and text");
    fs::write(path, text).map_err(BenchError::io(format!("write {}", path.display())))
}
