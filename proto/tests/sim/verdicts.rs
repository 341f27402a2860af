//! Claims about transfers in which the receiver holds some of the files, or parts of them.

use std::time::Duration;

use haul_proto::constants::BLOCK_BYTES;
use haul_proto::range_set::RangeSet;
use haul_proto::verdict::{Missing, Verdict};

use crate::link::{Dice, LinkConfig};
use crate::pair::{Scene, run};

const B: usize = BLOCK_BYTES as usize;

fn lossy(loss: f64) -> LinkConfig {
    let delay = Duration::from_millis(20);
    LinkConfig { bits_per_second: 200e6, delay, queue_bytes: 2 << 20, loss, ..LinkConfig::default() }
}

/// Files of all sizes, of which the receiver holds whatever the dice say.
fn random_scene(seed: u64) -> Scene {
    let mut dice = Dice(seed);
    let mut scene = Scene::new(seed);
    let mut verdicts = Vec::new();
    for _ in 0..1 + dice.below(60) {
        let most = [50, 5000, BLOCK_BYTES, 6 * BLOCK_BYTES][dice.below(4) as usize];
        let size = dice.below(most) as usize;
        scene = scene.file(size);
        let blocks = (size as u64).div_ceil(BLOCK_BYTES);
        let mut held = RangeSet::new();
        for block in 0..blocks {
            if dice.below(2) == 0 {
                held.insert(block..block + 1);
            }
        }
        verdicts.push(match dice.below(3) {
            0 => Verdict::All,
            1 => Verdict::Skip,
            _ => Verdict::Part(Missing::beside(&held, blocks)),
        });
    }
    let parts = (0..).zip(&verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Part(_)));
    scene.wrong = parts.map(|(id, _)| id).filter(|_| dice.below(3) == 0).collect();
    scene.verdicts = Some(verdicts);
    scene.upload = dice.below(2) == 0;
    scene.write_delay = Duration::from_micros(dice.below(3) * 500);
    scene.forward = lossy(dice.below(3) as f64 * 0.03);
    scene.back = lossy(dice.below(3) as f64 * 0.03);
    scene
}

#[test]
fn whatever_the_receiver_holds_all_files_are_whole_at_the_end() {
    for seed in 0..150 {
        run(random_scene(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn what_is_held_is_not_sent() {
    let mut scene = Scene::new(7).file(40 * B).file(40 * B);
    let mut held = RangeSet::new();
    held.insert(0..39);
    scene.verdicts = Some(vec![Verdict::Skip, Verdict::Part(Missing::beside(&held, 40))]);
    scene.forward = lossy(0.0);
    let ending = run(scene).unwrap();
    assert!(ending.forward.offered_bytes < 2 * BLOCK_BYTES, "{} bytes", ending.forward.offered_bytes);
}

#[test]
fn more_skipped_files_than_the_books_hold_take_few_round_trips() {
    let mut scene = Scene::new(5);
    for _ in 0..150_000 {
        scene = scene.file(0);
    }
    scene.verdicts = Some(vec![Verdict::Skip; 150_000]);
    scene.forward = lossy(0.01);
    scene.back = lossy(0.0);
    let ending = run(scene).unwrap();
    assert!(ending.time < Duration::from_secs(3), "{:?}", ending.time);
}
