//! Claims about single transfers: rate, repair, queue, tail, path MTU, roaming.

use std::time::Duration;

use haul_proto::control::RatePolicy;
use haul_proto::rate::RateConfig;
use haul_proto::stats::Sample;
use haul_proto::units::Rate;

use crate::link::LinkConfig;
use crate::pair::{Scene, run};

const MIB: usize = 1 << 20;

fn wan(mbit: f64, rtt_ms: u64, loss: f64) -> LinkConfig {
    let delay = Duration::from_micros(rtt_ms * 500);
    let bdp = (mbit * 1e6 / 8.0 * rtt_ms as f64 / 1e3) as u64;
    LinkConfig {
        bits_per_second: mbit * 1e6,
        delay,
        queue_bytes: bdp.max(30_000),
        loss,
        ..LinkConfig::default()
    }
}

fn scene(mbit: f64, rtt_ms: u64, loss: f64, mib: usize) -> Scene {
    let mut scene = Scene::new(1).file(mib * MIB);
    scene.forward = wan(mbit, rtt_ms, loss);
    scene.back = LinkConfig { loss: loss / 2.0, ..wan(mbit, rtt_ms, 0.0) };
    scene
}

/// Goodput of the whole transfer as a share of rate x (1 - loss).
fn share(scene: Scene) -> f64 {
    let limit = scene.forward.bits_per_second * (1.0 - scene.forward.loss);
    let bits = scene.files.iter().map(|file| file.content.len() as f64 * 8.0).sum::<f64>();
    let ending = run(scene).unwrap();
    bits / ending.time.as_secs_f64() / limit
}

fn fixed(mbit: u64) -> RateConfig {
    RateConfig { policy: RatePolicy::Fixed, target: Some(Rate::from_bps(mbit * 1_000_000)), minimum: None }
}

#[test]
fn fixed_keeps_its_rate_whatever_the_loss() {
    for loss in [0.0, 0.01, 0.05, 0.1] {
        let mut scene = scene(100.0, 100, loss, 60);
        scene.rate = fixed(95);
        let share = share(scene);
        // 0.95 of the link, 0.95 of it payload; the first and the last round trip take 4 % of the time.
        assert!(share > 0.84, "loss {loss}: {share:.3}");
    }
}

#[test]
fn fair_fills_long_lossy_paths_without_a_hint() {
    for (mbit, rtt, loss) in
        [(100.0, 10, 0.0), (100.0, 100, 0.0), (100.0, 100, 0.01), (100.0, 100, 0.05), (300.0, 200, 0.01)]
    {
        let share = share(scene(mbit, rtt, loss, mbit as usize));
        assert!(share > 0.75, "{mbit} Mbit/s, {rtt} ms, {loss}: {share:.3}");
    }
}

#[test]
fn fair_keeps_the_queue_short() {
    for (mbit, rtt, loss) in [(100.0, 20, 0.0), (100.0, 100, 0.0), (100.0, 100, 0.01)] {
        let mut scene = scene(mbit, rtt, loss, 60);
        scene.forward.queue_bytes *= 5;
        let ending = run(scene).unwrap();
        let mean = ending.forward.queue_sum / ending.forward.offered as u32;
        assert!(mean < Duration::from_millis(rtt / 4 + 15), "{mbit} Mbit/s, {rtt} ms: mean queue {mean:?}");
    }
}

#[test]
fn repair_costs_little_more_than_what_was_lost() {
    for loss in [0.0, 0.01, 0.05] {
        let mut scene = scene(100.0, 100, loss, 60);
        scene.rate = fixed(90);
        let ending = run(scene).unwrap();
        let share = ending.retransmitted as f64 / (60 * MIB) as f64;
        assert!(share < loss * 1.15 + 0.025, "loss {loss}: {share:.4} sent again");
        let lost = ending.forward.lost + ending.forward.queue_drops;
        assert!(ending.lost.abs_diff(lost) <= 20 + lost / 50, "{} declared lost, {lost} were", ending.lost);
    }
}

#[test]
fn reordering_alone_causes_little_repair() {
    let mut scene = scene(100.0, 60, 0.0, 60);
    scene.forward.reorder = 0.01;
    scene.rate = fixed(90);
    let ending = run(scene).unwrap();
    assert!(ending.retransmitted < MIB as u64, "{} bytes sent again", ending.retransmitted);
    let lost: Vec<u64> = ending.sent_samples.iter().map(|sample| sample.lost_packets).collect();
    assert!(lost.iter().max() > Some(&ending.lost), "some were declared lost and came after all: {lost:?}");
    assert!(lost.windows(2).all(|pair| pair[0] <= pair[1]), "{lost:?}");
}

#[test]
fn reports_cost_less_than_half_a_percent() {
    for (mbit, rtt, loss) in [(100.0, 100, 0.05), (300.0, 200, 0.05), (100.0, 10, 0.0)] {
        let mut scene = scene(mbit, rtt, loss, 60);
        scene.rate = fixed(mbit as u64 * 9 / 10);
        let ending = run(scene).unwrap();
        let share = ending.back.offered_bytes as f64 / ending.forward.offered_bytes as f64;
        assert!(share < 0.005, "{mbit} Mbit/s, {rtt} ms, {loss}: {share:.5}");
    }
}

#[test]
fn a_file_of_one_window_needs_few_round_trips() {
    let rtt = 200;
    for loss in [0.0, 0.05] {
        let mut scene = scene(1000.0, rtt, loss, 1);
        scene.rate = fixed(500);
        let ending = run(scene).unwrap();
        let trips = ending.time.as_secs_f64() * 1e3 / rtt as f64;
        assert!(trips < if loss == 0.0 { 2.6 } else { 5.5 }, "loss {loss}: {trips:.1} round trips");
    }
}

#[test]
fn the_largest_datagram_that_passes_is_found() {
    for (mtu, expected) in [(1200, 1200), (1452, 1440), (1472, 1472), (9300, 9200)] {
        let mut scene = scene(100.0, 20, 0.0, 20);
        scene.deadline = Duration::from_secs(20);
        scene.forward.mtu = mtu;
        assert_eq!(run(scene).unwrap().datagram, expected, "path of {mtu}");
    }
}

#[test]
fn an_outage_of_thirty_seconds_is_survived() {
    for upload in [false, true] {
        let mut scene = scene(100.0, 50, 0.01, 60);
        scene.upload = upload;
        let outage = Some((Duration::from_secs(7), Duration::from_secs(37)));
        scene.forward.blackout = outage;
        scene.back.blackout = outage;
        let ending = run(scene).unwrap();
        assert!(ending.time < Duration::from_secs(48), "upload {upload}: {:?}", ending.time);
        let silent = Duration::from_secs(3)..Duration::from_secs(31);
        let samples: Vec<_> =
            ending.sent_samples.iter().filter(|sample| silent.contains(&sample.at)).collect();
        assert!(samples.len() > 250, "upload {upload}: {}", samples.len());
        assert!(samples.iter().all(|sample| sample.delivery == Rate::ZERO), "upload {upload}");
    }
}

#[test]
fn a_client_may_change_its_address_in_mid_transfer() {
    for upload in [false, true] {
        let mut scene = scene(50.0, 50, 0.0, 20);
        scene.upload = upload;
        scene.moves = vec![Duration::from_secs(1), Duration::from_secs(2)];
        let ending = run(scene).unwrap();
        assert!(ending.time < Duration::from_secs(8), "upload {upload}: {:?}", ending.time);
    }
}

#[test]
fn a_slow_disk_slows_the_sender_instead_of_losing_data() {
    let mut scene = scene(1000.0, 10, 0.0, 100);
    scene.rate = fixed(900);
    scene.write_delay = Duration::from_millis(50);
    let ending = run(scene).unwrap();
    assert!(ending.time > Duration::from_secs(4), "{:?}", ending.time);
    assert!(ending.retransmitted < MIB as u64, "{} bytes sent again", ending.retransmitted);
}

#[test]
fn an_empty_transfer_ends() {
    let mut scene = Scene::new(3);
    scene.folders = 3;
    run(scene).unwrap();
}

#[test]
fn altered_datagrams_are_dropped_and_repaired() {
    let mut scene = scene(100.0, 20, 0.0, 20);
    scene.forward.corrupt = 0.05;
    scene.back.corrupt = 0.05;
    assert!(run(scene).unwrap().rejected > 100);
}

#[test]
fn more_files_than_the_receiver_keeps_in_its_books_arrive() {
    let mut scene = Scene::new(5);
    for _ in 0..150_000 {
        scene = scene.file(0);
    }
    scene.forward = wan(300.0, 20, 0.01);
    let ending = run(scene).unwrap();
    assert!(ending.time < Duration::from_secs(5), "{:?}", ending.time);
}

/// Rows of the first are all in the second, in order.
fn is_part_of(part: &[Sample], whole: &[Sample]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|sample| rest.any(|other| other == sample))
}

#[test]
fn both_ends_see_the_sender_s_samples_ten_times_a_second() {
    for (upload, policy) in [
        (true, RatePolicy::Fair),
        (false, RatePolicy::Fair),
        (true, RatePolicy::Fixed),
        (false, RatePolicy::Fixed),
    ] {
        let mut scene = Scene { upload, ..scene(50.0, 80, 0.02, 30) };
        scene.rate = RateConfig { policy, ..fixed(40) };
        let ending = run(scene).unwrap();
        let samples = &ending.sent_samples;
        let seconds = samples.last().unwrap().at.as_secs_f64();
        let row = format!("upload {upload}, {policy:?}: {} samples in {seconds} s", samples.len());
        assert!(seconds > 6.0 && (9.0..=10.1).contains(&(samples.len() as f64 / seconds)), "{row}");
        assert!(is_part_of(&ending.heard_samples, samples), "{row}");
        assert!(ending.heard_samples.len() as f64 > 0.9 * samples.len() as f64, "{row}");
        for pair in samples.windows(2) {
            assert!(pair[0].at < pair[1].at && pair[0].bytes_done <= pair[1].bytes_done, "{row}: {pair:?}");
            assert!(pair[0].lost_packets <= pair[1].lost_packets, "{row}: {pair:?}");
            assert!(pair[0].retransmitted_bytes <= pair[1].retransmitted_bytes, "{row}: {pair:?}");
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        for sample in samples.iter().filter(|sample| (2.0..6.0).contains(&sample.at.as_secs_f64())) {
            assert!((38e6..=40e6).contains(&(sample.pacing.bps() as f64)), "{row}: {sample:?}");
            // Two percent are lost on the way, two more are headers of IP and UDP.
            let delivered = sample.delivery.bps() as f64 / sample.pacing.bps() as f64;
            assert!((0.9..0.985).contains(&delivered), "{row}: {sample:?}");
            assert_eq!(sample.target, Some(Rate::from_bps(40_000_000)), "{row}");
            assert!((80.0..86.0).contains(&ms(sample.rtt)), "{row}: {sample:?}");
            assert!((80.0..82.0).contains(&ms(sample.base_rtt.unwrap())), "{row}: {sample:?}");
            assert!(ms(sample.queue) < 5.0, "{row}: {sample:?}");
        }
        let last = samples.last().unwrap();
        let loss = last.lost_packets as f64 / (last.lost_packets + last.arrived_packets) as f64;
        assert!((0.014..0.026).contains(&loss), "{row}: loss {loss}");
    }
}
