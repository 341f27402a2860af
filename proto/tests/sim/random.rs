//! Thousands of random transfers: every one must end with every byte in place.

use std::time::Duration;

use haul_proto::control::{Cipher, RatePolicy};
use haul_proto::rate::RateConfig;
use haul_proto::units::Rate;

use crate::link::{Dice, LinkConfig};
use crate::pair::{Scene, SimFile, run};

fn random_link(dice: &mut Dice) -> LinkConfig {
    let bits_per_second = [2e6, 20e6, 100e6, 1e9][dice.below(4) as usize];
    let delay = Duration::from_micros([50, 2_000, 20_000, 100_000, 300_000][dice.below(5) as usize]);
    let bdp = (bits_per_second / 8.0 * delay.as_secs_f64() * 2.0) as u64;
    LinkConfig {
        bits_per_second,
        delay,
        queue_bytes: (bdp / [10, 2, 1][dice.below(3) as usize]).max(20_000),
        loss: [0.0, 0.001, 0.01, 0.05, 0.2][dice.below(5) as usize],
        burst: dice.chance(0.3).then(|| (1.0 + dice.below(30) as f64, 0.002)),
        reorder: if dice.chance(0.4) { 0.03 } else { 0.0 },
        duplicate: if dice.chance(0.3) { 0.03 } else { 0.0 },
        corrupt: if dice.chance(0.3) { 0.02 } else { 0.0 },
        mtu: [1200, 1300, 1472, 9300][dice.below(4) as usize],
        blackout: dice.chance(0.1).then(|| {
            let from = Duration::from_millis(5_000 + dice.below(1500));
            (from, from + Duration::from_millis(dice.below(4000)))
        }),
    }
}

fn random_scene(seed: u64) -> Scene {
    let mut dice = Dice(seed);
    let mut scene = Scene::new(seed);
    scene.forward = random_link(&mut dice);
    scene.back = LinkConfig { loss: dice.share() * 0.1, ..random_link(&mut dice) };
    scene.back.delay = scene.forward.delay;
    // Keep a simulated transfer to a few thousand packets: slow links get less.
    let budget = if scene.forward.bits_per_second < 1e7 { 300_000 } else { 3_000_000 };
    scene.folders = dice.below(6);
    let mut total = 0;
    for index in 0..1 + dice.below(60) {
        let size = match dice.below(6) {
            0 => 0,
            1 => dice.below(100),
            2 | 3 => dice.below(20_000),
            4 => dice.below(400_000),
            _ => dice.below(2_500_000),
        };
        if total + size > budget {
            break;
        }
        total += size;
        scene = scene.file(size as usize);
        if let Some(SimFile { folder, .. }) = scene.files.last_mut() {
            *folder = index % (scene.folders + 1);
        }
    }
    scene.cipher = if dice.chance(0.9) { Cipher::Aes128Gcm } else { Cipher::Chacha20Poly1305 };
    scene.epoch_shift = if dice.chance(0.5) { 10 } else { 22 };
    scene.read_delay = Duration::from_micros(dice.below(3000));
    scene.write_delay = Duration::from_micros([0, 1000, 50_000][dice.below(3) as usize]);
    scene.upload = dice.chance(0.5);
    if dice.chance(0.1) {
        scene.moves = vec![Duration::from_millis(dice.below(2000))];
    }
    let policy =
        [RatePolicy::Fixed, RatePolicy::High, RatePolicy::Fair, RatePolicy::Low][dice.below(4) as usize];
    let share = [0.3, 0.9, 2.0][dice.below(3) as usize];
    let target = dice.chance(0.5).then(|| Rate::from_bps((scene.forward.bits_per_second * share) as u64));
    scene.rate = RateConfig { policy, target, minimum: None };
    scene
}

fn run_seeds(seeds: std::ops::Range<u64>) {
    let failures: Vec<String> = seeds
        .filter_map(|seed| run(random_scene(seed)).err().map(|error| format!("seed {seed}: {error}")))
        .collect();
    assert!(failures.is_empty(), "{} transfers failed:\n{}", failures.len(), failures.join("\n"));
}

// Four tests, so that the cores share the work.

#[test]
fn random_transfers_end_byte_equal_0() {
    run_seeds(0..600);
}

#[test]
fn random_transfers_end_byte_equal_1() {
    run_seeds(600..1200);
}

#[test]
fn random_transfers_end_byte_equal_2() {
    run_seeds(1200..1800);
}

#[test]
fn random_transfers_end_byte_equal_3() {
    run_seeds(1800..2400);
}

/// For digging: `SEED=17 cargo test --release -p haul-proto --test sim one_seed -- --nocapture`.
#[test]
fn one_seed() {
    let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) else { return };
    let scene = random_scene(seed);
    println!("{:?}\n{:?}\n{:?}", scene.forward, scene.back, scene.rate);
    println!("upload {} moves {:?} shift {}", scene.upload, scene.moves, scene.epoch_shift);
    println!("{:#?}", run(scene));
}
