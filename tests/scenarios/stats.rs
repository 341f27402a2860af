//! The statistics of a run say what the path is like, the same in `--json` and `--stats`, whichever side sends; and a
//! picture is drawn from them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use haul_tests::harness::{Client, Outcome, Pair, ServerOptions, WAYS};
use haul_tests::require::{WAN, require};
use haul_tests::tree::make_file;
use haul_tests::wan::{Wan, WanConfig};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const LINK: f64 = 50e6;
const RTT_MS: f64 = 60.0;
const LOSS: f64 = 0.02;

/// A column of the rows that have it.
fn column(rows: &[Value], name: &str) -> Vec<f64> {
    rows.iter().filter_map(|row| row[name].as_f64()).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The file of `--stats` as objects with the columns' names.
fn read_csv(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let value = |text: &str| match (text, text.parse::<f64>()) {
        ("", _) => Value::Null,
        (_, Ok(number)) => number.into(),
        (_, Err(_)) => text.into(),
    };
    lines
        .map(|line| {
            assert_eq!(line.split(',').count(), names.len(), "{line}");
            names.iter().zip(line.split(',')).map(|(name, text)| ((*name).to_owned(), value(text))).collect()
        })
        .collect()
}

#[track_caller]
fn assert_same_rows(events: &[Value], file: &[Value]) {
    assert_eq!(events.len(), file.len());
    for (event, row) in events.iter().zip(file) {
        let fields = event.as_object().unwrap().iter().filter(|(name, _)| *name != "event");
        assert_eq!(fields.clone().count(), row.as_object().unwrap().len(), "{event} {row}");
        for (name, value) in fields {
            let same =
                value.as_f64().map_or(row[name] == *value, |number| row[name].as_f64() == Some(number));
            assert!(same, "{name}: {event} {row}");
        }
    }
}

/// Ten rows a second without long gaps, from the first round trip to the end.
#[track_caller]
fn assert_rhythm(rows: &[Value], outcome: &Outcome) {
    let times = column(rows, "seconds");
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(first < 0.6, "the first row comes after {first} s");
    let seconds = outcome.done()["seconds"].as_f64().unwrap();
    assert!(last > 0.85 * seconds - 0.3 && last <= seconds, "{last} of {seconds} s");
    let rate = (times.len() - 1) as f64 / (last - first);
    assert!((8.0..=10.2).contains(&rate), "{rate} rows a second");
    for pair in times.windows(2) {
        // One may be lost on the way, and another.
        assert!((0.04..0.45).contains(&(pair[1] - pair[0])), "{pair:?}");
    }
}

#[track_caller]
fn assert_sums_grow(rows: &[Value], outcome: &Outcome) {
    // After the last row the sender may have sent all that was under way once more.
    for (name, least_share) in [("bytes", 0.8), ("lost_packets", 0.7), ("retransmitted_bytes", 0.3)] {
        let values = column(rows, name);
        assert_eq!(values.len(), rows.len(), "{name}");
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "{name}: {values:?}");
        let (last, end) = (values[values.len() - 1], outcome.done()[name].as_f64().unwrap());
        assert!(last >= least_share * end && last <= end + 5.0, "{name}: {last} of {end}");
    }
}

/// What holds once the rate has been found.
#[track_caller]
fn assert_path(rows: &[Value], limit: f64) {
    let middle = &rows[rows.len() / 2..rows.len() * 9 / 10];
    let (delivery, pacing) = (median(column(middle, "delivery_bps")), median(column(middle, "pacing_bps")));
    assert!((0.8 * limit..=limit).contains(&delivery), "delivery {delivery}");
    assert!((0.85 * limit..=1.3 * limit).contains(&pacing), "pacing {pacing}");
    let (rtt, base) = (median(column(middle, "rtt_ms")), median(column(middle, "base_rtt_ms")));
    assert!((RTT_MS..RTT_MS + 8.0).contains(&base), "base RTT {base}");
    assert!((base..base + 40.0).contains(&rtt), "RTT {rtt}, base {base}");
    let queue = median(column(middle, "queue_ms"));
    assert!(queue < 40.0 && (rtt - base - queue).abs() < 15.0, "queue {queue}, RTT {rtt}, base {base}");
    let loss = column(middle, "loss");
    let mean = loss.iter().sum::<f64>() / loss.len() as f64;
    assert!((0.4 * LOSS..2.5 * LOSS).contains(&mean), "loss {mean}");
    let grown = |name| {
        let values = column(middle, name);
        values[values.len() - 1] - values[0]
    };
    let again = grown("retransmitted_bytes") / grown("bytes");
    assert!((0.4 * LOSS..2.5 * LOSS).contains(&again), "sent again {again}");
}

#[track_caller]
fn assert_picture(csv: &Path) {
    let outcome = Client::alone().args(["--plot".as_ref(), csv.as_os_str()]).run();
    outcome.assert_success();
    let svg = &outcome.stdout;
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{}", outcome.story());
    for part in
        ["rate, Mbit/s", "delay, ms", "loss and repair, %", ">delivery<", ">RTT<", "prefers-color-scheme"]
    {
        assert!(svg.contains(part), "{part}: {}", outcome.story());
    }
}

#[test]
fn statistics_tell_the_path_alike_in_both_directions_and_forms() {
    if !require("statistics over an emulated path", WAN) {
        return;
    }
    let _turn = super::wan::turn();
    let config = WanConfig {
        rate: Some(LINK as u64),
        rtt: Duration::from_millis(RTT_MS as u64),
        loss: LOSS,
        seed: 23,
        ..WanConfig::default()
    };
    let wan = Wan::start(config).expect("the emulator starts where root and tun are");
    let pair = Pair::start(ServerOptions::at_b(&wan));
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 28 * MIB, 3);
        for (name, options, limit) in
            [("free", &[][..], LINK * (1.0 - LOSS)), ("fixed", &["-l", "40m", "--policy", "fixed"], 40e6)]
        {
            let csv = pair.here().join(format!("{way:?}-{name}.csv"));
            let client = pair.copy(way, &["file"], &format!("{name}-arrived")).args(options);
            let outcome = client.arg("--stats").arg(&csv).in_namespace(wan.a()).run();
            println!("{way:?} {name}: {}", outcome.stdout.lines().last().unwrap_or_default());
            outcome.assert_success();
            let rows: Vec<Value> = outcome.events_with("event", "stats").cloned().collect();
            assert_same_rows(&rows, &read_csv(&csv));
            assert_rhythm(&rows, &outcome);
            assert_sums_grow(&rows, &outcome);
            assert_path(&rows, limit);
            let target = if name == "fixed" { Value::from(40_000_000) } else { Value::Null };
            assert!(rows.iter().all(|row| row["target_bps"] == target), "{}", rows[0]);
            let (state, limiter) =
                if name == "fixed" { ("fixed", "target_rate") } else { ("track", "network") };
            let last = &rows[rows.len() / 2];
            assert_eq!((&last["state"], &last["limiter"]), (&state.into(), &limiter.into()), "{last}");
            assert_picture(&csv);
        }
    }
}
