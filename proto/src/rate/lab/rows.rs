//! What the controller must reach, row by row: utilisation, queue, time to start, fairness, each with its bound.
//!
//! Utilisation is the share of what the path carries after its random loss. The queue is that of the bottleneck.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::haul::Haul;
use super::meter::Meter;
use super::path::{Change, Loss, PathConfig};
use super::tcp::{Bbr, Cubic, Law, Tcp};
use super::{Agent, Flow, World};
use crate::control::RatePolicy;
use crate::rate::RateConfig;
use crate::units::Rate;

/// UDP payload of a full datagram.
const DATAGRAM: u16 = 1472;

/// One figure and where it must lie.
struct Check {
    scene: String,
    what: &'static str,
    value: f64,
    bound: RangeInclusive<f64>,
}

impl Check {
    fn holds(&self) -> bool {
        self.bound.contains(&self.value)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.bound.start(), self.bound.end());
        let verdict = if self.holds() { "  " } else { "!!" };
        write!(f, "{verdict} {:<44} {:<14} {:>8.4}", self.scene, self.what, self.value)?;
        match (*least > f64::MIN, *most < f64::MAX) {
            (true, false) => write!(f, "  >= {least:.3}"),
            (false, true) => write!(f, "  <= {most:.3}"),
            _ => write!(f, "  {least:.3} .. {most:.3}"),
        }
    }
}

#[derive(Default)]
struct Row(Vec<Check>);

impl Row {
    fn at_least(&mut self, scene: &str, what: &'static str, value: f64, least: f64) {
        self.between(scene, what, value, least..=f64::MAX);
    }

    fn at_most(&mut self, scene: &str, what: &'static str, value: f64, most: f64) {
        self.between(scene, what, value, f64::MIN..=most);
    }

    fn between(&mut self, scene: &str, what: &'static str, value: f64, bound: RangeInclusive<f64>) {
        self.0.push(Check { scene: scene.to_owned(), what, value, bound });
    }

    /// Shows all figures, and fails if one lies outside its bound.
    fn assert(self) {
        self.0.iter().for_each(|check| println!("{check}"));
        let failed: Vec<String> =
            self.0.iter().filter(|check| !check.holds()).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    }
}

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1e3)
}

const fn policy(policy: RatePolicy) -> RateConfig {
    RateConfig { policy, target: None, minimum: None }
}

const FAIR: RateConfig = policy(RatePolicy::Fair);
const HIGH: RateConfig = policy(RatePolicy::High);
const LOW: RateConfig = policy(RatePolicy::Low);

/// One of our flows.
fn haul(rtt: f64, from: f64, config: RateConfig) -> Flow {
    haul_of(DATAGRAM, rtt, from, config)
}

fn haul_of(datagram: u16, rtt: f64, from: f64, config: RateConfig) -> Flow {
    let agent = Agent::Haul(Haul::new(datagram, config));
    Flow { agent, rtt: ms(rtt), from: Duration::from_secs_f64(from), until: Duration::MAX }
}

fn cubic(rtt: f64, from: f64) -> Flow {
    tcp(rtt, from, Law::Cubic(Cubic::default()))
}

fn bbr(rtt: f64, from: f64) -> Flow {
    tcp(rtt, from, Law::Bbr(Bbr::default()))
}

fn tcp(rtt: f64, from: f64, law: Law) -> Flow {
    let agent = Agent::Tcp(Tcp::new(law));
    Flow { agent, rtt: ms(rtt), from: Duration::from_secs_f64(from), until: Duration::MAX }
}

fn run(path: &PathConfig, seconds: f64, flows: Vec<Flow>) -> Meter {
    World::new(path.clone(), 1, flows).run(Duration::from_secs_f64(seconds))
}

fn path(mbit: f64, rtt: f64, loss: f64, bdp: f64) -> PathConfig {
    PathConfig::new(mbit, ms(rtt), bdp).loss(loss)
}

fn label(mbit: f64, rtt: f64, loss: f64, bdp: f64) -> String {
    format!("{mbit} Mbit/s {rtt} ms {} % {bdp} BDP", loss * 100.0)
}

/// What one flow alone must reach.
struct Alone {
    utilisation: f64,
    queue: f64,
    t90: f64,
}

/// One flow alone on a path, after `t90` of grace.
fn alone(row: &mut Row, (mbit, rtt, loss, bdp): (f64, f64, f64, f64), goal: &Alone) -> Meter {
    let datagram = if mbit > 5000.0 { 8972 } else { DATAGRAM };
    let seconds = (rtt * 0.05).clamp(10.0, 20.0);
    let meter = run(&path(mbit, rtt, loss, bdp), seconds, vec![haul_of(datagram, rtt, 0.0, FAIR)]);
    let (scene, limit) = (label(mbit, rtt, loss, bdp), mbit * 1e6 * (1.0 - loss));
    let settled = goal.t90.max(0.5)..seconds;
    row.at_least(&scene, "utilisation", meter.total(settled.clone()) / limit, goal.utilisation);
    row.at_most(&scene, "queue ms", meter.queue_ms(settled, 0.95).0, goal.queue);
    let t90 = meter.reached(0, 0.0, 0.9 * limit, ms(rtt / 4.0).as_secs_f64().max(0.02));
    row.at_most(&scene, "t90 s", t90, goal.t90);
    meter
}

/// Four round trips, and 50 ms for reports and the meter.
fn four_trips(rtt: f64) -> f64 {
    4.0 * rtt / 1e3 + 0.05
}

fn row_1() -> Row {
    let mut row = Row::default();
    for rtt in [10.0, 100.0, 300.0] {
        for bdp in [1.0, 4.0] {
            let cell = (100.0, rtt, 0.0, bdp);
            let meter =
                alone(&mut row, cell, &Alone { utilisation: 0.98, queue: 10.0, t90: four_trips(rtt) });
            row.at_most(
                &label(100.0, rtt, 0.0, bdp),
                "queue p95",
                meter.queue_ms(1.0..10.0, 0.95).1,
                0.1 * rtt + 10.0,
            );
            row.at_most(
                &label(100.0, rtt, 0.0, bdp),
                "queue max",
                meter.queue_ms(0.0..10.0, 1.0).1,
                rtt.max(20.0),
            );
        }
    }
    row
}

fn row_2() -> Row {
    let mut row = Row::default();
    for rtt in [10.0, 100.0, 300.0] {
        for loss in [0.001, 0.01, 0.05] {
            let goal = Alone { utilisation: 0.97, queue: 20.0, t90: four_trips(rtt) + rtt / 1e3 };
            alone(&mut row, (100.0, rtt, loss, 1.0), &goal);
        }
    }
    row
}

fn row_3() -> Row {
    let mut row = Row::default();
    for rtt in [10.0, 100.0, 300.0] {
        for bdp in [1.0, 10.0] {
            let goal = Alone { utilisation: 0.95, queue: 30.0, t90: four_trips(rtt) + 2.0 * rtt / 1e3 };
            alone(&mut row, (100.0, rtt, 0.1, bdp), &goal);
        }
    }
    row
}

fn row_4() -> Row {
    let mut row = Row::default();
    for mbit in [100.0, 1000.0] {
        for rtt in [100.0, 300.0] {
            for loss in [0.0, 0.01, 0.05] {
                let goal = Alone { utilisation: 0.94, queue: 0.1 * rtt, t90: four_trips(rtt) + rtt / 1e3 };
                let meter = alone(&mut row, (mbit, rtt, loss, 0.1), &goal);
                row.at_most(&label(mbit, rtt, loss, 0.1), "drops", meter.dropped_share(2.0..20.0), 0.02);
            }
        }
    }
    row
}

fn row_5() -> Row {
    let mut row = Row::default();
    for mbit in [100.0, 1000.0] {
        for loss in [0.0, 0.01, 0.05] {
            // A round trip holds so few packets that 5 % leaves doubt what each loss was: 0.89 is reached.
            let utilisation = if loss > 0.03 { 0.88 } else { 0.93 };
            let goal = Alone { utilisation, queue: 1.0, t90: 0.2 };
            let meter = alone(&mut row, (mbit, 10.0, loss, 0.1), &goal);
            row.at_most(&label(mbit, 10.0, loss, 0.1), "drops", meter.dropped_share(1.0..10.0), 0.03);
        }
    }
    row
}

fn row_6() -> Row {
    let mut row = Row::default();
    for loss in [0.0, 0.01, 0.05] {
        alone(&mut row, (1000.0, 100.0, loss, 1.0), &Alone { utilisation: 0.97, queue: 10.0, t90: 0.45 });
    }
    for (mbit, rtt, loss) in [(1000.0, 250.0, 0.01), (500.0, 250.0, 0.1), (1000.0, 10.0, 0.05)] {
        alone(
            &mut row,
            (mbit, rtt, loss, 1.0),
            &Alone { utilisation: 0.95, queue: 30.0, t90: four_trips(rtt) + 2.0 * rtt / 1e3 },
        );
    }
    row
}

fn row_7() -> Row {
    let mut row = Row::default();
    for rtt in [100.0, 300.0] {
        for loss in [0.0, 0.01] {
            alone(
                &mut row,
                (10_000.0, rtt, loss, 1.0),
                &Alone { utilisation: 0.97, queue: 10.0, t90: four_trips(rtt) + rtt / 1e3 },
            );
        }
    }
    row
}

fn row_8() -> Row {
    let mut row = Row::default();
    for mbit in [10.0, 100.0] {
        let cell = (mbit, 100.0, 0.0, 10.0);
        let meter = alone(&mut row, cell, &Alone { utilisation: 0.98, queue: 20.0, t90: 0.5 });
        row.at_most(&label(mbit, 100.0, 0.0, 10.0), "queue max", meter.queue_ms(0.0..10.0, 1.0).1, 120.0);
    }
    row
}

fn row_9() -> Row {
    let mut row = Row::default();
    for (mbit, rtt) in [(100.0, 10.0), (100.0, 100.0), (1000.0, 100.0)] {
        let config = RateConfig { target: Some(Rate::from_bps((mbit * 0.9e6) as u64)), ..FAIR };
        let meter = run(&path(mbit, rtt, 0.0, 1.0), 10.0, vec![haul(rtt, 0.0, config)]);
        let scene = format!("{mbit} Mbit/s {rtt} ms, target 0.9");
        row.at_least(&scene, "of target", meter.rate(0, 1.0..10.0) / (mbit * 0.9e6), 0.99);
        row.at_most(&scene, "queue ms", meter.queue_ms(1.0..10.0, 0.95).0, 1.0);
        let t90 = meter.reached(0, 0.0, 0.81e6 * mbit, (rtt / 4e3).max(0.02));
        row.at_most(&scene, "t90 s", t90, 2.0 * rtt / 1e3 + 0.05);
    }
    row
}

fn row_10() -> Row {
    let mut row = Row::default();
    for (factor, loss) in [(2.0, 0.0), (4.0, 0.0), (4.0, 0.01)] {
        let config = RateConfig { target: Some(Rate::from_bps((factor * 100e6) as u64)), ..FAIR };
        let meter = run(&path(100.0, 100.0, loss, 1.0), 20.0, vec![haul(100.0, 0.0, config)]);
        let scene = format!("100 Mbit/s 100 ms {loss}, target {factor} times");
        row.at_least(&scene, "utilisation", meter.total(1.0..20.0) / 100e6 / (1.0 - loss), 0.97);
        row.at_most(&scene, "queue ms", meter.queue_ms(1.0..20.0, 0.95).0, 20.0);
        row.at_most(&scene, "drops", meter.dropped_share(0.0..20.0), 0.01);
    }
    row
}

/// Flows of our own that join two seconds apart, looked at from 20 s after the last.
fn own(row: &mut Row, scene: &str, path: &PathConfig, rtts: &[f64], goal: (f64, f64, f64)) {
    let from = 2.0 * rtts.len() as f64 + 18.0;
    let span = from..from + 10.0;
    let limit = path.rate * (1.0 - path.loss_share());
    // Where many flows meet in a short queue, who overflows it first is chance: the median of three.
    let runs = [1, 2, 3].map(|seed| {
        let apart = 0.1 * (seed - 1) as f64;
        let start = |(number, &rtt): (usize, &f64)| {
            haul(rtt + apart * number as f64, (2.0 + 0.1 * apart) * number as f64, FAIR)
        };
        let flows = rtts.iter().enumerate().map(start).collect();
        let meter = World::new(path.clone(), seed, flows).run(Duration::from_secs_f64(span.end));
        let queue = meter.queue_ms(span.clone(), 0.95).0;
        [meter.total(span.clone()) / limit, queue, meter.jain(span.clone())]
    });
    let [utilisation, queue, jain] = [0, 1, 2].map(|figure| median(runs.map(|run| run[figure])));
    row.at_least(scene, "utilisation", utilisation, goal.0);
    row.at_most(scene, "queue ms", queue, goal.1);
    row.at_least(scene, "Jain", jain, goal.2);
}

fn median(mut values: [f64; 3]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[1]
}

fn row_11() -> Row {
    let mut row = Row::default();
    for (count, bdp) in [(2, 1.0), (4, 1.0), (8, 1.0), (4, 4.0)] {
        let scene = format!("{count} own, {bdp} BDP");
        own(&mut row, &scene, &path(100.0, 60.0, 0.0, bdp), &vec![60.0; count], (0.98, 12.0, 0.97));
    }
    row
}

fn row_12() -> Row {
    let mut row = Row::default();
    for (count, loss, bdp) in
        [(2, 0.0, 0.25), (4, 0.0, 0.25), (8, 0.0, 0.25), (2, 0.02, 1.0), (4, 0.02, 1.0), (8, 0.02, 1.0)]
    {
        let scene = format!("{count} own, {} %, {bdp} BDP", loss * 100.0);
        // Eight in a queue of 15 ms overflow it before they see each other's part.
        let jain = if count == 8 && bdp < 1.0 { 0.85 } else { 0.9 };
        own(&mut row, &scene, &path(100.0, 60.0, loss, bdp), &vec![60.0; count], (0.97, 15.0, jain));
    }
    row
}

fn row_13() -> Row {
    let mut row = Row::default();
    let rtts = [10.0, 40.0, 100.0, 200.0];
    for (loss, bdp) in [(0.0, 1.0), (0.0, 4.0), (0.01, 1.0)] {
        let scene = format!("RTT 10 40 100 200, {loss}, {bdp}");
        own(&mut row, &scene, &path(100.0, 90.0, loss, bdp), &rtts, (0.97, 20.0, 0.85));
    }
    own(&mut row, "RTT 20 200", &path(100.0, 100.0, 0.0, 1.0), &[20.0, 200.0], (0.97, 20.0, 0.9));
    own(&mut row, "RTT 200 20", &path(100.0, 100.0, 0.0, 1.0), &[200.0, 20.0], (0.97, 20.0, 0.9));
    // After twenty round trips. The law moves by the queue's part of the round trip: on a longer way that is less.
    for (rtt, jain) in [(20.0, 0.95), (50.0, 0.94), (100.0, 0.9)] {
        let meter = run(
            &path(100.0, rtt, 0.0, 1.0),
            5.0 + rtt * 0.04,
            vec![haul(rtt, 0.0, FAIR), haul(rtt, 5.0, FAIR)],
        );
        let from = 5.0 + rtt * 0.02;
        row.at_least(&format!("two, {rtt} ms, 20 RTT"), "Jain", meter.jain(from..from + rtt * 0.02), jain);
    }
    row
}

fn row_14() -> Row {
    let mut row = Row::default();
    for (names, first, second, ratio, slack) in
        [("high fair", HIGH, FAIR, 2.0, 0.15), ("fair low", FAIR, LOW, 10.0, 0.25)]
    {
        let flows = vec![haul(60.0, 0.0, first), haul(60.0, 2.0, second)];
        let meter = run(&path(100.0, 60.0, 0.0, 1.0), 50.0, flows);
        let span = 20.0..50.0;
        let seen = meter.rate(0, span.clone()) / meter.rate(1, span.clone());
        row.between(names, "ratio", seen, ratio * (1.0 - slack)..=ratio * (1.0 + slack));
        row.at_least(names, "utilisation", meter.total(span.clone()) / 100e6, 0.98);
        row.at_most(names, "queue ms", meter.queue_ms(span, 0.95).0, 10.0);
    }
    row
}

/// One of ours joins a TCP flow.
fn beside(
    row: &mut Row,
    rival: &str,
    cell: (f64, f64),
    config: RateConfig,
    share: RangeInclusive<f64>,
    sum: f64,
) {
    let (rtt, bdp) = cell;
    let first = if rival == "CUBIC" { cubic(rtt, 0.0) } else { bbr(rtt, 0.0) };
    let meter = run(&path(100.0, rtt, 0.0, bdp), 70.0, vec![first, haul(rtt, 5.0, config)]);
    let scene = format!("{:?} beside {rival}, {rtt} ms, {bdp} BDP", config.policy);
    let total = meter.total(15.0..70.0);
    row.at_least(&scene, "sum", total / 100e6, sum);
    row.between(&scene, "share", meter.rate(1, 15.0..70.0) / total, share);
}

/// Round-trip times and queues of the rows with rivals.
const BESIDE: [(f64, f64); 8] = [
    (20.0, 0.5),
    (20.0, 1.0),
    (20.0, 5.0),
    (50.0, 1.0),
    (50.0, 4.0),
    (100.0, 0.5),
    (100.0, 1.0),
    (100.0, 5.0),
];

fn row_15() -> Row {
    let mut row = Row::default();
    for (rtt, bdp) in BESIDE {
        // Queues of 10 and 20 ms hardly differ from those that sixteen of our own would make.
        let least = if rtt * bdp <= 20.0 {
            0.17
        } else if bdp <= 1.0 {
            0.2
        } else {
            0.25
        };
        beside(&mut row, "CUBIC", (rtt, bdp), FAIR, least..=0.65, 0.97);
    }
    row
}

fn row_16() -> Row {
    let mut row = Row::default();
    for (rtt, bdp) in BESIDE {
        // BBR leaves a CUBIC flow no more than this in short queues, and us as much.
        let late = run(&path(100.0, rtt, 0.0, bdp), 70.0, vec![bbr(rtt, 0.0), cubic(rtt, 5.0)]);
        let cubic = late.rate(1, 15.0..70.0) / late.total(15.0..70.0);
        let least = if bdp < 1.0 || (rtt, bdp) == (100.0, 1.0) { 0.8 * cubic } else { 0.17 };
        beside(&mut row, "BBR", (rtt, bdp), FAIR, least..=0.65, 0.95);
    }
    row
}

fn row_17() -> Row {
    let mut row = Row::default();
    for rival in ["CUBIC", "BBR"] {
        for cell in [(20.0, 1.0), (50.0, 4.0), (100.0, 1.0)] {
            beside(&mut row, rival, cell, LOW, 0.0..=0.07, 0.95);
        }
    }
    let mut leaving = cubic(50.0, 0.0);
    leaving.until = Duration::from_secs(20);
    let meter = run(&path(100.0, 50.0, 0.0, 1.0), 40.0, vec![leaving, haul(50.0, 5.0, LOW)]);
    row.at_most("the rival leaves", "t90 s", meter.reached(1, 20.0, 90e6, 0.05), 1.5);
    row
}

fn row_18() -> Row {
    let mut row = Row::default();
    for cell in [(20.0, 1.0), (50.0, 4.0), (100.0, 1.0)] {
        beside(&mut row, "CUBIC", cell, HIGH, 0.3..=0.8, 0.97);
    }
    row
}

fn row_19() -> Row {
    let mut row = Row::default();
    for (rtt, loss) in [(50.0, 0.0), (100.0, 0.0), (100.0, 0.02)] {
        for factor in [0.25, 0.5, 2.0, 4.0] {
            let path = path(100.0, rtt, loss, 1.0).change(10.0, Change::Rate(factor * 100e6));
            let meter = run(&path, 30.0, vec![haul(rtt, 0.0, FAIR)]);
            let scene = format!("{rtt} ms {loss} step x {factor}");
            let limit = factor * 100e6 * (1.0 - loss);
            row.at_least(&scene, "utilisation", meter.total(10.0..30.0) / limit, 0.95);
            if factor < 1.0 {
                row.at_most(&scene, "queue", meter.queue_settled(10.0, 0.015), 5.0 * rtt / 1e3 + 1.0);
            } else {
                // Learnt within five round trips and the meter's half.
                let within = 5.5 * rtt / 1e3 + 0.1;
                row.at_most(&scene, "t90 s", meter.reached(0, 10.0, 0.9 * limit, rtt / 2e3), within);
            }
        }
    }
    row
}

/// The path stands still for a moment, as emulators and radio links do.
fn row_19_stall() -> Row {
    let mut row = Row::default();
    for (rtt, from, still) in [
        (10.0, 0.02, 0.043),
        (10.0, 0.04, 0.043),
        (10.0, 0.06, 0.043),
        (10.0, 5.0, 0.043),
        (10.0, 5.0, 0.2),
        (50.0, 5.0, 0.1),
        (100.0, 0.2, 0.05),
    ] {
        let path = path(100.0, rtt, 0.0, 1.0)
            .change(from, Change::Rate(1e6))
            .change(from + still, Change::Rate(100e6));
        let meter = run(&path, 30.0, vec![haul(rtt, 0.0, FAIR)]);
        let scene = format!("{rtt} ms, at {from} s still for {still} s");
        row.at_least(&scene, "utilisation", meter.total(6.0..30.0) / 100e6, 0.97);
        row.at_most(&scene, "drops", meter.dropped_share(7.0..30.0), 0.01);
    }
    row
}

fn row_20() -> Row {
    let mut row = Row::default();
    for (jitter, rtt, least) in
        [(1.0, 50.0, 0.97), (5.0, 50.0, 0.95), (20.0, 50.0, 0.85), (5.0, 10.0, 0.85), (5.0, 300.0, 0.82)]
    {
        for wander in [false, true] {
            let path = path(100.0, rtt, 0.0, 1.0).jitter(ms(jitter), wander);
            let meter = run(&path, 20.0, vec![haul(rtt, 0.0, FAIR)]);
            let scene = format!("jitter {jitter} ms of {rtt} ms{}", if wander { ", wandering" } else { "" });
            row.at_least(&scene, "utilisation", meter.total(2.0..20.0) / 100e6, least);
            row.at_most(&scene, "queue ms", meter.queue_ms(2.0..20.0, 0.95).0, 0.25 * rtt + 15.0);
        }
    }
    // A faster link shows behind jitter that is longer than the queue wanted.
    for rtt in [20.0, 100.0, 300.0] {
        let path = path(200.0, rtt, 0.0, 5.0).jitter(ms(5.0), true).change(5.0, Change::Rate(1e9));
        let meter = run(&path, 20.0, vec![haul(rtt, 0.0, FAIR)]);
        let scene = format!("jitter 5 ms of {rtt} ms, step x 5");
        row.at_least(&scene, "utilisation", meter.total(7.5..20.0) / 1e9, 0.85);
        row.at_most(&scene, "queue ms", meter.queue_ms(2.0..20.0, 0.95).0, 0.25 * rtt + 15.0);
    }
    row
}

fn row_21() -> Row {
    let mut row = Row::default();
    for (rtt, bdp) in [(50.0, 1.0), (100.0, 1.0), (100.0, 0.25)] {
        let mut path = path(100.0, rtt, 0.0, bdp);
        path.loss = Loss::Bursts(0.02, 20.0);
        let meter = run(&path, 30.0, vec![haul(rtt, 0.0, FAIR)]);
        row.at_least(
            &format!("bursts, {rtt} ms, {bdp} BDP"),
            "utilisation",
            meter.total(2.0..30.0) / 98e6,
            0.92,
        );
    }
    // The link is away for 20 ms about once a second, either way.
    for (mbit, rtt, bdp, jitter, wander) in [
        (1000.0, 300.0, 0.5, 5.0, true),
        (1000.0, 300.0, 0.5, 5.0, false),
        (100.0, 100.0, 0.5, 5.0, true),
        (100.0, 20.0, 1.0, 0.0, true),
    ] {
        let mut path = path(mbit, rtt, 0.0, bdp).jitter(ms(jitter), wander);
        for n in 0..30 {
            let at = f64::from(n) + 0.2 + 0.6 * (f64::from(n) * 0.618).fract();
            path = path.change(at, Change::Outage(true)).change(at + 0.02, Change::Outage(false));
        }
        let meter = run(&path, 30.0, vec![haul(rtt, 0.0, FAIR)]);
        let order = if wander { "" } else { ", out of order" };
        let scene = format!("outages, {}{order}", label(mbit, rtt, 0.0, bdp));
        row.at_least(&scene, "utilisation", meter.total(4.0..30.0) / (mbit * 1e6 * 0.98), 0.85);
    }
    row
}

fn row_22() -> Row {
    let mut row = Row::default();
    for (mbit, rtt) in [(100.0, 20.0), (100.0, 100.0), (20.0, 50.0)] {
        let mut path = path(mbit, rtt, 0.0, 1.0);
        path.policed = true;
        let meter = run(&path, 30.0, vec![haul(rtt, 0.0, FAIR)]);
        let scene = format!("policer {mbit} Mbit/s, {rtt} ms");
        row.at_least(&scene, "utilisation", meter.total(2.0..30.0) / (mbit * 1e6), 0.90);
        row.at_most(&scene, "drops", meter.dropped_share(2.0..30.0), 0.05);
    }
    row
}

fn row_23() -> Row {
    let mut row = Row::default();
    for (mbit, rtt) in [(100.0, 100.0), (1000.0, 20.0), (10.0, 50.0)] {
        let mut path = path(mbit, rtt, 0.0, 1.0);
        path.back_rate = 0.02 * path.rate;
        path.back_loss = 0.1;
        let meter = run(&path, 20.0, vec![haul(rtt, 0.0, FAIR)]);
        let scene = format!("thin way back, {mbit} Mbit/s, {rtt} ms");
        row.at_least(&scene, "utilisation", meter.total(2.0..20.0) / (mbit * 1e6), 0.96);
        row.at_most(&scene, "reports", meter.reported as f64 / meter.sent[0] as f64, 0.005);
    }
    row
}

fn row_24() -> Row {
    let mut row = Row::default();
    for (rtt, outage) in [(50.0, 5.0), (100.0, 5.0), (100.0, 30.0)] {
        let back = 10.0 + outage;
        let path =
            path(100.0, rtt, 0.0, 1.0).change(10.0, Change::Outage(true)).change(back, Change::Outage(false));
        let meter = run(&path, back + 15.0, vec![haul(rtt, 0.0, FAIR)]);
        let t90 = meter.reached(0, back, 90e6, rtt / 1e3);
        row.at_most(&format!("dark for {outage} s, {rtt} ms"), "t90 s", t90, 10.0 * rtt / 1e3 + 1.0);
    }
    row
}

macro_rules! rows {
    ($($row:ident),*) => {
        mod tests {
            $(#[test]
            fn $row() {
                super::$row().assert();
            })*
        }
    };
}

rows!(
    row_1,
    row_2,
    row_3,
    row_4,
    row_5,
    row_6,
    row_7,
    row_8,
    row_9,
    row_10,
    row_11,
    row_12,
    row_13,
    row_14,
    row_15,
    row_16,
    row_17,
    row_18,
    row_19,
    row_19_stall,
    row_20,
    row_21,
    row_22,
    row_23,
    row_24
);
