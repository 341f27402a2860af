//! The command line of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use super::BenchError;
use super::wan::WanOptions;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: bench SCENARIO [options]

Measures haul beside what else there is. Every cell of a table is a ratio of two runs of the same round
(A B C A B C ...); the median over the rounds is printed, with the smallest and largest when there are
several. Prints Markdown on stdout and progress on stderr, and writes all single figures as JSON.

scenarios
  ceiling    sealed UDP from memory to memory over loopback: the most any such program can reach here
  loopback   one large file beside scp, rsync, sftp, qcp and curl over HTTPS
  veth       one large file between two network namespaces, 1500-byte packets, with and without offload
  paced      one transfer at 1 Gbit/s over such a link: which share of a core each end uses
  files      100,000 files of 1 KiB and 10,000 of 100 KiB
  sessions   1, 10, 100 and 500 transfers at once
  wan        haul over the emulated long and lossy links of the project's goals; more with --part and --beside
  all        everything but wan, one after the other

options
  --runs N         rounds, also --rounds (default 5; wan 3)
  --size SIZE      the large file: 8g, 512m, binary prefixes (default 8g; paced 1g; sessions 4g over all)
  --peer-size SIZE the large file of the other programs, which are slower (default 2g)
  --pages huge|4k  pages of the tmpfs that holds the files (default huge)
  --seconds N      length of a blast of the ceiling (default 2)
  --only WORD      only what has WORD in its name, and what it is compared with
  --counts N,N     numbers of sessions (default 1,10,100,500)
  --json FILE      where the figures go (default target/bench-SCENARIO.json)
  --force          measure although the machine is busy

options of wan
  --links LIST     RATE:RTT:LOSS[:QUEUE[:bursts]] in Mbit/s, ms, percent and bandwidth-delay products, as
                   100:100:1,1000:300:2:0.5:bursts (default the goals' 32 links; less for the other parts)
  --policy POLICY  of haul: fair (default), high, low, or fixed, which asks for 0.8 of the link's rate
  --ways up|down|both  (default both)
  --part rates     share of the limit, queue and retransmissions of a file of 20 s at the limit (default)
  --part peers     whole commands beside scp, curl over HTTPS (CUBIC and BBR) and qcp, 0.64 MB per Mbit/s
  --part short     10 MiB from the agreement to the end, in round trips
  --part steps     500 -> 100 -> 500 Mbit/s, and an outage of 30 s
  --beside FLOW    haul joins a cubic, bbr or haul flow for 40 s
  --far-rtt MS     longer RTT of the haul that is joined, with --beside haul
  --queue N        queue of all links in bandwidth-delay products, also as 4bdp

All but `ceiling` need root: they mount a tmpfs of their own, start servers, or make network namespaces.
What is not on PATH is named as absent; what fails is named with its reason.
Memory needed: twice SIZE and some; the files lie in memory.";

/// The parts, in the order of `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the usage text describes them")]
pub(super) enum Scenario {
    Ceiling,
    Loopback,
    Veth,
    Paced,
    Files,
    Sessions,
    Wan,
}

impl Scenario {
    /// Those of `all`, which measure the machine; `wan`, which takes hours, stands last and is asked for by name.
    pub(super) const ALL: [Self; 7] =
        [Self::Ceiling, Self::Loopback, Self::Veth, Self::Paced, Self::Files, Self::Sessions, Self::Wan];

    /// Its name on the command line.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Loopback => "loopback",
            Self::Veth => "veth",
            Self::Paced => "paced",
            Self::Files => "files",
            Self::Sessions => "sessions",
            Self::Wan => "wan",
        }
    }
}

/// Pages of the tmpfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// 2 MiB pages.
    Huge,
    /// 4 KiB pages, the kernel's default.
    Small,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// What to measure.
    pub(super) scenarios: Vec<Scenario>,
    /// Rounds.
    pub(super) runs: usize,
    /// Run everything once before it counts.
    pub(super) warm_up: bool,
    /// What only scenario `wan` has.
    pub(super) wan: WanOptions,
    /// Bytes of the large file, unless the scenario's own default holds.
    pub(super) size: Option<u64>,
    /// Bytes of the large file of peers.
    pub(super) peer_size: u64,
    /// Pages of the tmpfs.
    pub(super) pages: Pages,
    /// Length of a blast.
    pub(super) blast: Duration,
    /// What to leave in.
    pub(super) only: Option<String>,
    /// Numbers of sessions.
    pub(super) counts: Vec<usize>,
    /// Where the figures go.
    pub(super) json: PathBuf,
    /// Measure on a busy machine.
    pub(super) force: bool,
}

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// What is not understood.
    pub(super) fn parse(arguments: &[String]) -> Result<Self, BenchError> {
        let Some((name, rest)) = arguments.split_first() else { return Err(usage("no scenario")) };
        let scenarios = match Scenario::ALL.iter().find(|scenario| scenario.name() == name) {
            Some(scenario) => vec![*scenario],
            None if name == "all" => {
                Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Wan).collect()
            }
            None => return Err(usage(&format!("unknown scenario {name}"))),
        };
        let over_wan = scenarios == [Scenario::Wan];
        let mut options = Self {
            scenarios,
            runs: if over_wan { 3 } else { 5 },
            warm_up: !over_wan,
            wan: WanOptions::default(),
            size: None,
            peer_size: 2 << 30,
            pages: Pages::Huge,
            blast: Duration::from_secs(2),
            only: None,
            counts: vec![1, 10, 100, 500],
            json: PathBuf::from(format!("target/bench-{name}.json")),
            force: false,
        };
        let mut rest = rest.iter();
        while let Some(option) = rest.next() {
            options.set(option, &mut rest)?;
        }
        Ok(options)
    }

    /// True for what `--only` leaves in.
    #[must_use]
    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|word| name.contains(word.as_str()))
    }

    /// Takes one option, with its value from the rest of the line.
    fn set<'a>(
        &mut self,
        option: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), BenchError> {
        if option == "--force" {
            self.force = true;
            return Ok(());
        }
        if !VALUED.contains(&option) && !WanOptions::VALUED.contains(&option) {
            return Err(usage(&format!("unknown option {option}")));
        }
        let value = rest.next().ok_or_else(|| usage(&format!("{option} needs a value")))?;
        let bad = || usage(&format!("{option}: not understood: {value}"));
        match option {
            "--runs" | "--rounds" => {
                self.runs = value.parse().ok().filter(|runs| *runs > 0).ok_or_else(bad)?
            }
            "--size" => self.size = Some(size(value).ok_or_else(bad)?),
            "--peer-size" => self.peer_size = size(value).ok_or_else(bad)?,
            "--seconds" => self.blast = Duration::from_secs(value.parse().map_err(|_| bad())?),
            "--only" => self.only = Some(value.to_owned()),
            "--counts" => {
                let counts = value.split(',').map(|count| count.parse().ok().filter(|count| *count > 0));
                self.counts = counts.collect::<Option<_>>().ok_or_else(bad)?;
            }
            "--pages" => {
                self.pages = match value.as_str() {
                    "huge" => Pages::Huge,
                    "4k" => Pages::Small,
                    _ => return Err(bad()),
                };
            }
            "--json" => self.json = PathBuf::from(value),
            _ => self.wan.set(option, value).ok_or_else(bad)?,
        }
        Ok(())
    }
}

/// Options that take a value.
const VALUED: [&str; 9] =
    ["--runs", "--rounds", "--size", "--peer-size", "--seconds", "--only", "--counts", "--pages", "--json"];

fn usage(message: &str) -> BenchError {
    BenchError::Usage(message.to_owned())
}

/// Bytes with a binary prefix.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, BenchError> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_mistakes_are_named() {
        let options = parse("loopback --runs 3 --size 8g --pages 4k --counts 1,20 --force").unwrap();
        assert_eq!(options.scenarios, [Scenario::Loopback]);
        assert_eq!((options.runs, options.size, options.pages), (3, Some(8 << 30), Pages::Small));
        assert_eq!((options.counts.as_slice(), options.force), ([1, 20].as_slice(), true));
        assert_eq!(parse("all").unwrap().scenarios, Scenario::ALL[..6]);
        let wan = parse("wan --links 100:100:1 --rounds 2").unwrap();
        assert_eq!((wan.runs, wan.warm_up, parse("wan").unwrap().runs), (2, false, 3));
        for (line, word) in [
            ("", "no scenario"),
            ("fast", "unknown scenario fast"),
            ("veth --runs 0", "--runs: not understood: 0"),
            ("veth --runs", "--runs needs a value"),
            ("veth --size 5x", "--size: not understood: 5x"),
            ("veth --counts 1,,2", "--counts"),
            ("wan --links 100:x:1", "--links: not understood: 100:x:1"),
            ("veth --fast", "unknown option --fast"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
