//! Draws a file of `--stats` as SVG: rates, delays, and loss with repair, over a common time axis, below bands that show
//! what the rate controller was doing and what held the transfer back.

mod axis;
mod picture;
mod style;
mod table;

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use haul_proto::stats::Limiter;
use haul_proto::units::Rate;

use crate::error::ClientError;
use crate::stats::Row;
use crate::{human, sanitize};
use axis::Axis;
use picture::{Band, Panel, Picture, Shape, Trace};

/// Ticks on the scale of a panel, about.
const TICKS: f64 = 5.0;
/// A target so many times higher than everything else would press all else to the ground; it is told in words.
const TARGET_IN_SIGHT: f64 = 2.0;
/// Pacing above so many times what arrives is cut off: a start from nothing may try for much.
const PACING_IN_SIGHT: f64 = 1.4;
/// Loss above so many times what nine of ten rows stay below is cut off.
const LOSS_IN_SIGHT: f64 = 2.0;
/// Repair is shown over this time: it comes in bursts, and some RTT after the loss.
const REPAIR_SECONDS: f64 = 1.0;

/// The picture of a file of `--stats`.
///
/// # Errors
/// If the file cannot be read or is none of ours, or stdout is a terminal.
pub(crate) fn draw(path: &Path) -> Result<String, ClientError> {
    let file = sanitize::path(path);
    if std::io::stdout().is_terminal() {
        let remedy = format!("write it to a file: haul --plot {file} > plot.svg");
        return Err(ClientError::usage("--plot writes SVG, found a terminal on stdout", remedy));
    }
    let rows = table::read(path)?;
    let name = path.file_name().map(|name| sanitize::path(name.as_ref()));
    Ok(picture(name.unwrap_or(file), &rows).svg())
}

fn picture(title: String, rows: &[Row]) -> Picture<'_> {
    let word = |value: fn(&Row) -> &str| rows.iter().map(value).collect();
    Picture {
        title,
        subtitle: subtitle(rows),
        times: rows.iter().map(|row| row.seconds).collect(),
        bands: vec![
            Band { title: "state", words: word(|row| &row.state), class: |_, place| style::band(place) },
            Band {
                title: "limited by",
                words: word(|row| &row.limiter),
                class: |word, _| limiter_class(word),
            },
        ],
        panels: vec![rates(rows), delays(rows), losses(rows)],
    }
}

/// The network, which is the rule, is grey; what one might want to mend has a colour.
fn limiter_class(word: &str) -> &'static str {
    let place = Limiter::ALL.iter().position(|limiter| limiter.name() == word);
    style::band(place.map_or(5, |place| 6 + place))
}

/// As "400 MiB in 19.2 s: 175 Mbit/s, mean RTT 110.9 ms (base 100.3 ms), 6063 packets lost, 9.46 MiB sent again".
fn subtitle(rows: &[Row]) -> String {
    let (Some(last), count) = (rows.last(), rows.len() as f64) else { return String::new() };
    let time = match last.seconds {
        seconds if seconds < 100.0 => format!("{seconds:.1} s"),
        seconds => human::time(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
    };
    let goodput = Rate::from_bytes_per_second(last.bytes as f64 / last.seconds.max(1e-3));
    let rtt = rows.iter().map(|row| row.rtt_ms).sum::<f64>() / count;
    let least = last.base_rtt_ms.map_or_else(String::new, |least| format!(" (base {least:.1} ms)"));
    format!(
        "{} in {time}: {} \u{b7} mean RTT {rtt:.1} ms{least} \u{b7} {} packets lost, {} sent again",
        human::bytes(last.bytes),
        human::rate(goodput),
        last.lost_packets,
        human::bytes(last.retransmitted_bytes)
    )
}

fn trace(name: &str, class: &'static str, shape: Shape, values: Vec<Option<f64>>) -> Trace {
    Trace { name: name.to_owned(), class, shape, values }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

fn rates(rows: &[Row]) -> Panel {
    let delivered = largest(rows.iter().map(|row| row.delivery_bps as f64));
    let paced = largest(rows.iter().map(|row| row.pacing_bps as f64));
    let shown = if delivered > 0.0 { paced.min(delivered * PACING_IN_SIGHT).max(delivered) } else { paced };
    let target = largest(rows.iter().filter_map(|row| row.target_bps).map(|rate| rate as f64));
    let in_sight = target <= shown * TARGET_IN_SIGHT;
    let top = if in_sight { shown.max(target) } else { shown };
    let (unit, name) = rate_unit(top);
    let values = |value: fn(&Row) -> Option<u64>| -> Vec<Option<f64>> {
        rows.iter().map(|row| value(row).map(|bps| bps as f64 / unit)).collect()
    };
    let peak = human::rate(Rate::from_bps(paced as u64));
    let pacing = if paced > top { format!("pacing, up to {peak}") } else { "pacing".to_owned() };
    let mut traces = vec![
        trace("delivery", "delivery", Shape::Area, values(|row| Some(row.delivery_bps))),
        trace(&pacing, "pacing", Shape::Line, values(|row| Some(row.pacing_bps))),
    ];
    if target > 0.0 {
        let words = format!("target {}", human::rate(Rate::from_bps(target as u64)));
        let values = if in_sight { values(|row| row.target_bps) } else { Vec::new() };
        traces.push(trace(&words, "target", Shape::Dashed, values));
    }
    Panel { title: format!("rate, {name}"), height: 230.0, axis: Axis::of_values(top / unit, TICKS), traces }
}

fn rate_unit(bps: f64) -> (f64, &'static str) {
    let units = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")];
    units.into_iter().find(|(unit, _)| bps >= *unit).unwrap_or((1.0, "bit/s"))
}

fn delays(rows: &[Row]) -> Panel {
    let values = |value: fn(&Row) -> Option<f64>| -> Vec<Option<f64>> { rows.iter().map(value).collect() };
    let top = largest(rows.iter().map(|row| row.rtt_ms.max(row.queue_ms)));
    let traces = vec![
        trace("queue", "queue", Shape::Area, values(|row| Some(row.queue_ms))),
        trace("base RTT", "base", Shape::Dashed, values(|row| row.base_rtt_ms)),
        trace("RTT", "rtt", Shape::Line, values(|row| Some(row.rtt_ms))),
    ];
    Panel { title: "delay, ms".to_owned(), height: 170.0, axis: Axis::of_values(top, TICKS), traces }
}

fn losses(rows: &[Row]) -> Panel {
    let lost: Vec<_> = rows.iter().map(|row| Some(row.loss * 100.0)).collect();
    let again = sent_again(rows);
    let mut all: Vec<f64> = lost.iter().chain(&again).flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let usual = all.get(all.len() * 9 / 10).copied().unwrap_or_default();
    let peak = largest(lost.iter().flatten().copied());
    let axis = Axis::of_values((usual * LOSS_IN_SIGHT).min(largest(all.into_iter())).max(0.1), TICKS);
    let name =
        if peak > axis.end { format!("packets lost, up to {peak:.0} %") } else { "packets lost".to_owned() };
    let traces = vec![
        trace(&name, "loss", Shape::Area, lost),
        trace("bytes sent again, over a second", "again", Shape::Line, again),
    ];
    Panel { title: "loss and repair, %".to_owned(), height: 130.0, axis, traces }
}

/// Bytes sent again as a share of all that were sent, percent, over the time before each row.
fn sent_again(rows: &[Row]) -> Vec<Option<f64>> {
    let (mut first, mut since, mut bytes) = (0, 0.0, 0.0);
    let mut sent = Vec::with_capacity(rows.len());
    for row in rows {
        let arrived = row.delivery_bps as f64 / 8.0 * (row.seconds - since).max(0.0);
        bytes += arrived / (1.0 - row.loss).max(0.01);
        since = row.seconds;
        sent.push(bytes);
    }
    let at = |n: usize| Some((rows.get(n)?, *sent.get(n)?));
    (0..rows.len())
        .map(|n| {
            let (row, now) = at(n)?;
            while at(first + 1).is_some_and(|(next, _)| next.seconds <= row.seconds - REPAIR_SECONDS) {
                first += 1;
            }
            let (earlier, then) = at(first)?;
            let again = row.retransmitted_bytes.saturating_sub(earlier.retransmitted_bytes) as f64;
            (now > then).then(|| (100.0 * again / (now - then)).min(100.0))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(target_bps: Option<u64>) -> Vec<Row> {
        let row = |n: u64| Row {
            seconds: n as f64 / 10.0,
            bytes: n * 250_000,
            pacing_bps: if n == 1 { 1_000_000_000 } else { 21_000_000 },
            delivery_bps: 20_000_000,
            target_bps,
            rtt_ms: 104.0,
            base_rtt_ms: (n > 3).then_some(100.0),
            queue_ms: 4.0,
            loss: 0.01,
            lost_packets: n,
            retransmitted_bytes: n * 2500,
            state: if n < 20 { "start" } else { "track" }.to_owned(),
            limiter: "target_rate".to_owned(),
        };
        // Three seconds with nothing heard in the middle.
        (1..=100).filter(|n| !(50..80).contains(n)).map(row).collect()
    }

    fn named<'a>(panel: &'a Panel, class: &str) -> &'a Trace {
        panel.traces.iter().find(|trace| trace.class == class).unwrap()
    }

    #[test]
    fn a_wild_start_and_a_far_target_leave_the_rate_readable() {
        let far = rates(&rows(Some(1_000_000_000)));
        assert_eq!((far.title.as_str(), far.axis.end), ("rate, Mbit/s", 30.0));
        assert_eq!(named(&far, "target").name, "target 1.00 Gbit/s");
        assert_eq!(named(&far, "pacing").name, "pacing, up to 1.00 Gbit/s");
        assert!(named(&far, "target").values.is_empty());
        let near = rates(&rows(Some(40_000_000)));
        assert!(named(&near, "target").values.iter().all(|value| *value == Some(40.0)));
        assert!(rates(&rows(None)).traces.iter().all(|trace| trace.class != "target"));
    }

    #[test]
    fn repair_is_a_share_of_what_was_sent() {
        // 25,000 bytes a second; 2,500,000 arrive, which is 99 % of what was sent.
        for (n, share) in sent_again(&rows(None)).into_iter().enumerate().skip(1) {
            let share = share.unwrap();
            assert!((0.985..0.995).contains(&share), "row {n}: {share}");
        }
    }

    #[test]
    fn the_picture_has_its_parts_and_breaks_lines_where_nothing_is_known() {
        let rows = rows(Some(40_000_000));
        let svg = picture("a&b<c>.csv".to_owned(), &rows).svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        for part in
            ["a&amp;b&lt;c&gt;.csv", "rate, Mbit/s", "delay, ms", "loss and repair, %", ">start<", ">track<"]
        {
            assert!(svg.contains(part), "{part}");
        }
        // The legend and two pieces, one on each side of the gap.
        assert_eq!(svg.matches("class=\"rtt line\"").count(), 3);
        assert_eq!(svg.matches("class=\"delivery area\"").count(), 3);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let opened = svg.matches("<text").count();
        assert_eq!(opened, svg.matches("</text>").count());
    }

    #[test]
    fn a_single_row_makes_a_picture() {
        let svg = picture("x".to_owned(), &rows(None)[..1]).svg();
        assert!(svg.contains("h0\"") && !svg.contains("NaN"), "{svg}");
        let nothing = Row { state: "start".to_owned(), limiter: "network".to_owned(), ..Row::default() };
        assert!(!picture("x".to_owned(), &[nothing]).svg().contains("NaN"));
    }
}
