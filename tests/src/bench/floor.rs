//! The least that any program of this kind needs here: a sealed blast, and a plain copy of the file, with two digests or
//! none. The copy tells how dear the file's memory is at the moment, which on a virtual machine changes severalfold.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::bed::Bed;
use super::copies::CopyJob;
use super::report::{Figures, Series};
use super::rounds::Contender;

/// Read, digested and written at a time; haul does the same.
const BLOCK_BYTES: usize = 256 << 10;
/// One thread a side.
const THREADS: f64 = 2.0;
const GIGABYTE: f64 = 1e9;

/// How the rows are called: whether the bytes are digested on either side.
pub(super) const NAMES: [(&str, bool); 2] =
    [("bound: blast, copy, two digests", true), ("bound: blast, copy", false)];

/// One thread copies `source`, which lies in the clients' folder.
pub(super) fn contender<'a>(
    bed: &'a Bed,
    source: &str,
    bytes: u64,
    (name, digest): (&str, bool),
) -> Contender<'a> {
    let (from, to) = (bed.volume.here().join(source), bed.server.docroot().join("landed"));
    let mut copy = CopyJob::new(&bed.volume, bytes, from, to);
    let command = "the rate of two threads that share alike what the ceiling and a copy of the file in blocks of 256 KiB cost";
    Contender::new(name, command, move || {
        let seconds = copy.make(|copy| plain_copy(copy, digest).map_err(|error| error.to_string()))?;
        Ok(Figures::from([("copy_s_per_gb", seconds / (bytes as f64 / GIGABYTE))]))
    })
    .reference()
}

/// Seconds that the copy takes.
fn plain_copy(copy: &CopyJob<'_>, digest: bool) -> std::io::Result<f64> {
    let (from, to) = (File::open(&copy.source)?, File::create(&copy.target)?);
    let (mut sent, mut arrived) = (blake3::Hasher::new(), blake3::Hasher::new());
    let mut block = vec![0; BLOCK_BYTES];
    let start = Instant::now();
    let mut at = 0;
    loop {
        let count = from.read_at(&mut block, at)?;
        let part = &block[..count];
        if count == 0 {
            break;
        }
        if digest {
            sent.update(part);
            arrived.update(part);
        }
        to.write_all_at(part, at)?;
        at += count as u64;
    }
    if sent.finalize() == arrived.finalize() {
        Ok(start.elapsed().as_secs_f64())
    } else {
        Err(std::io::Error::other("the digests differ"))
    }
}

/// Fills in the rates, round by round, from what the ceiling cost.
pub(super) fn compute(series: &mut [Series]) {
    let Some((ceiling, others)) = series.split_first_mut() else { return };
    for bound in others.iter_mut().filter(|one| NAMES.iter().any(|(name, _)| one.name == *name)) {
        for (own, blast) in bound.runs.iter_mut().flatten().zip(ceiling.runs.iter().flatten()) {
            if let Some(rate) = rate(own, blast) {
                own.insert("rate_gbit", rate);
            }
        }
    }
}

fn rate(own: &Figures, blast: &Figures) -> Option<f64> {
    let cores = blast.get("sender_cpu_cores")? + blast.get("receiver_cpu_cores")?;
    let blast_s_per_gb = cores / (blast.get("rate_gbit")? / 8.0);
    Some(8.0 * THREADS / (blast_s_per_gb + own.get("copy_s_per_gb")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_what_two_threads_can_share() {
        let blast =
            Figures::from([("sender_cpu_cores", 1.0), ("receiver_cpu_cores", 0.6), ("rate_gbit", 32.0)]);
        let copy = Figures::from([("copy_s_per_gb", 0.1)]);
        // 0.4 and 0.1 s/GB: 4 GB/s of two threads.
        assert!((rate(&copy, &blast).unwrap() - 32.0).abs() < 1e-9);
    }
}
