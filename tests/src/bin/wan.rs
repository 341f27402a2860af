//! The WAN emulator by hand: sets the path up, takes commands on stdin, prints counters at the end.
//!
//! It decides nothing itself; see `haul_tests::wan` for the model.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use haul_tests::wan::{Burst, Wan, WanConfig, Way, quantity};
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "\
usage: wan [options]
  --rate 200m          bottleneck rate, both directions (default unlimited)
  --rate-back 20m      another rate from B to A
  --rtt 100ms          round-trip time
  --loss 1%            independent loss, each direction
  --loss-back 0%       another loss from B to A
  --burst SPEC         packets:SHARE,MEANLENGTH (Gilbert-Elliott) or outage:LENGTH,EVERY (times)
  --queue 1bdp|BYTES   drop-tail queue; also 0.5bdp, 2bdp (default 1bdp, at least 64 KiB)
  --reorder 1%         share held back by --hold (default 2ms-10ms)
  --hold 2ms-10ms
  --dup 1%             share delivered twice
  --jitter 5ms         wandering extra delay that keeps the order
  --corrupt 0.1%       share of UDP packets changed behind the checksum's back
  --path-mtu 1400      larger packets vanish
  --mtu 1500           MTU of the devices
  --seed N
  --name-a A --name-b B
  --stay               do not end when stdin ends
commands on stdin: udp on|off, blackout on|off|a-to-b|b-to-a, rate 50m, rtt 50ms, loss 2%, path-mtu 1400, stats, reset, quit";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("wan: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let stay = arguments.iter().any(|argument| argument == "--stay");
    let config = parse(&arguments)?;
    // Blocked before any thread exists, so that only the signal thread receives them.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().map_err(|error| error.to_string())?;
    let wan = Wan::start(config).map_err(|error| error.to_string())?;
    println!("ready A={} {} B={} {}", wan.a(), wan.address_a(), wan.b(), wan.address_b());
    let _ = io::stdout().flush();
    let (sender, commands) = mpsc::channel();
    let from_signal = sender.clone();
    std::thread::spawn(move || {
        let _ = signals.wait();
        let _ = from_signal.send("quit".to_owned());
    });
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        if !stay {
            let _ = sender.send("quit".to_owned());
        }
    });
    while let Ok(line) = commands.recv() {
        if line.trim() == "quit" {
            break;
        }
        if let Err(message) = obey(&wan, &line) {
            eprintln!("wan: {message}");
        }
    }
    println!("{}", wan.stats());
    Ok(())
}

fn obey(wan: &Wan, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let bad = || format!("not understood: {line}");
    match words.as_slice() {
        [] => {}
        ["stats"] => println!("{}", wan.stats()),
        ["reset"] => wan.reset_stats(),
        ["udp", state] => wan.set_drop_udp(!switch(state).ok_or_else(bad)?),
        ["blackout", "a-to-b"] => wan.set_blackout_way(Way::AToB, true),
        ["blackout", "b-to-a"] => wan.set_blackout_way(Way::BToA, true),
        ["blackout", state] => wan.set_blackout(switch(state).ok_or_else(bad)?),
        ["rate", "off"] => wan.set_rate(None),
        ["rate", rate] => wan.set_rate(Some(quantity::rate(rate).ok_or_else(bad)?)),
        ["rtt", rtt] => wan.set_rtt(quantity::time(rtt).ok_or_else(bad)?),
        ["loss", loss] => wan.set_loss(quantity::share(loss).ok_or_else(bad)?),
        ["path-mtu", "off"] => wan.set_path_mtu(None),
        ["path-mtu", mtu] => wan.set_path_mtu(Some(mtu.parse().map_err(|_| bad())?)),
        _ => return Err(bad()),
    }
    Ok(())
}

fn switch(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn parse(arguments: &[String]) -> Result<WanConfig, String> {
    let mut config = WanConfig::default();
    let (mut queue, mut name_a, mut name_b) = (None, None, None);
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        if option == "--stay" {
            continue;
        }
        let value = rest.next().ok_or_else(|| format!("{option} needs a value\n{USAGE}"))?.as_str();
        let bad = || format!("{option}: not understood: {value}\n{USAGE}");
        match option.as_str() {
            "--rate" => config.rate = Some(quantity::rate(value).ok_or_else(bad)?),
            "--rate-back" => config.rate_back = Some(quantity::rate(value).ok_or_else(bad)?),
            "--rtt" => config.rtt = quantity::time(value).ok_or_else(bad)?,
            "--loss" => config.loss = quantity::share(value).ok_or_else(bad)?,
            "--loss-back" => config.loss_back = Some(quantity::share(value).ok_or_else(bad)?),
            "--burst" => config.burst = Some(burst(value).ok_or_else(bad)?),
            "--queue" => queue = Some(value),
            "--reorder" => config.reorder = quantity::share(value).ok_or_else(bad)?,
            "--hold" => config.reorder_hold = hold(value).ok_or_else(bad)?,
            "--dup" => config.duplicate = quantity::share(value).ok_or_else(bad)?,
            "--jitter" => config.jitter = quantity::time(value).ok_or_else(bad)?,
            "--corrupt" => config.corrupt = quantity::share(value).ok_or_else(bad)?,
            "--path-mtu" => config.path_mtu = Some(value.parse().map_err(|_| bad())?),
            "--mtu" => config.mtu = value.parse().map_err(|_| bad())?,
            "--seed" => config.seed = value.parse().map_err(|_| bad())?,
            "--name-a" => name_a = Some(value.to_owned()),
            "--name-b" => name_b = Some(value.to_owned()),
            _ => return Err(format!("unknown option {option}\n{USAGE}")),
        }
    }
    config.names = match (name_a, name_b) {
        (None, None) => None,
        (Some(a), Some(b)) => Some((a, b)),
        _ => return Err("--name-a and --name-b belong together".to_owned()),
    };
    if let Some(queue) = queue {
        config.queue_bytes = queue_bytes(queue, config.rate, config.rtt)
            .ok_or_else(|| format!("--queue: not understood (bdp needs --rate): {queue}"))?;
    }
    Ok(config)
}

/// None inside for the automatic limit.
fn queue_bytes(text: &str, rate: Option<u64>, rtt: Duration) -> Option<Option<u64>> {
    match text.strip_suffix("bdp") {
        Some("1") => Some(None),
        Some(factor) => {
            let factor: f64 = factor.parse().ok()?;
            Some(Some((factor * rate? as f64 / 8.0 * rtt.as_secs_f64()) as u64))
        }
        None => quantity::bytes(text).map(Some),
    }
}

fn burst(text: &str) -> Option<Burst> {
    let (kind, numbers) = text.split_once(':')?;
    let (first, second) = numbers.split_once(',')?;
    match kind {
        "packets" => {
            Some(Burst::Packets { share: quantity::share(first)?, mean_length: second.parse().ok()? })
        }
        "outage" => Some(Burst::Outage { length: quantity::time(first)?, every: quantity::time(second)? }),
        _ => None,
    }
}

fn hold(text: &str) -> Option<(Duration, Duration)> {
    let (low, high) = text.split_once('-')?;
    Some((quantity::time(low)?, quantity::time(high)?))
}
