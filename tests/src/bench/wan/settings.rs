//! Which links, and what is asked of them.

use std::time::Duration;

use super::PAYLOAD_SHARE;
use crate::harness::{WAYS, Way};
use crate::wan::{Burst, WanConfig};

/// A fixed rate asks for this share of the link.
const FIXED_SHARE: f64 = 0.8;
/// A burst of losses, and the jitter and reordering that come with it.
const BURST: Duration = Duration::from_millis(20);
const JITTER: Duration = Duration::from_millis(5);
const REORDER: f64 = 0.01;

/// Options that only this scenario has.
#[derive(Debug, Clone)]
pub(in crate::bench) struct WanOptions {
    /// None is the part's own choice.
    links: Option<Vec<Link>>,
    queue: Option<f64>,
    /// Round-trip time of the haul that is there first, where it is longer.
    pub(super) far_rtt: Option<Duration>,
    /// What to measure.
    pub(super) part: Part,
    /// Of haul.
    pub(super) policy: String,
    /// Up, down or both.
    pub(super) ways: Vec<Way>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Share of the limit.
    Rates,
    /// Whole commands beside other programs.
    Peers,
    /// Files that end before anything is learnt.
    Short,
    /// Steps in capacity and an outage.
    Steps,
    /// Shares beside another flow.
    Beside(Flow),
}

/// A flow that haul joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// TCP under this congestion control.
    Tcp(&'static str),
    /// Another haul under the same policy.
    Haul,
}

impl Flow {
    /// How tables call it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Tcp(congestion) => format!("TCP {}", congestion.to_uppercase()),
            Self::Haul => "haul".to_owned(),
        }
    }
}

impl Default for WanOptions {
    fn default() -> Self {
        Self {
            links: None,
            queue: None,
            far_rtt: None,
            part: Part::Rates,
            policy: "fair".to_owned(),
            ways: WAYS.to_vec(),
        }
    }
}

impl WanOptions {
    /// All of them take a value.
    pub(in crate::bench) const VALUED: [&'static str; 7] =
        ["--links", "--policy", "--ways", "--part", "--beside", "--queue", "--far-rtt"];

    /// Takes one; none when it is not understood.
    pub(in crate::bench) fn set(&mut self, option: &str, value: &str) -> Option<()> {
        match (option, value) {
            ("--links", list) => self.links = Some(parse_links(list)?),
            ("--policy", "fair" | "high" | "low" | "fixed") => value.clone_into(&mut self.policy),
            ("--ways", "up") => self.ways = vec![Way::Up],
            ("--ways", "down") => self.ways = vec![Way::Down],
            ("--ways", "both") => self.ways = WAYS.to_vec(),
            ("--part", "rates") => self.part = Part::Rates,
            ("--part", "peers") => self.part = Part::Peers,
            ("--part", "short") => self.part = Part::Short,
            ("--part", "steps") => self.part = Part::Steps,
            ("--beside", "cubic") => self.part = Part::Beside(Flow::Tcp("cubic")),
            ("--beside", "bbr") => self.part = Part::Beside(Flow::Tcp("bbr")),
            ("--beside", "haul") => self.part = Part::Beside(Flow::Haul),
            ("--far-rtt", text) => {
                let ms = text.parse::<f64>().ok().filter(positive)?;
                self.far_rtt = Some(Duration::try_from_secs_f64(ms / 1e3).ok()?);
            }
            ("--queue", text) => {
                self.queue = Some(text.strip_suffix("bdp").unwrap_or(text).parse().ok().filter(positive)?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Those asked for, else these.
    pub(super) fn links_or(&self, usual: &str) -> Vec<Link> {
        let links = self.links.clone().unwrap_or_else(|| parse_links(usual).expect("our own links"));
        links.into_iter().map(|link| Link { queue: self.queue.unwrap_or(link.queue), ..link }).collect()
    }

    /// Rate that haul is told to keep to.
    pub(super) fn target(&self, link: &Link) -> Option<u64> {
        (self.policy == "fixed").then_some((link.rate as f64 * FIXED_SHARE) as u64)
    }

    /// Options of haul for this link.
    pub(super) fn haul(&self, link: &Link) -> Vec<String> {
        let mut words = vec!["--policy".to_owned(), self.policy.clone()];
        if let Some(target) = self.target(link) {
            words.extend(["-l".to_owned(), format!("{}k", target / 1000)]);
        }
        words
    }
}

/// A path as a user of the emulator would describe it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Link {
    /// Bits per second of IP packets.
    pub(super) rate: u64,
    /// Without queues.
    pub(super) rtt: Duration,
    /// Share of packets, each way.
    pub(super) loss: f64,
    /// In bandwidth-delay products.
    pub(super) queue: f64,
    /// Losses come in bursts, with jitter and reordering.
    pub(super) bursts: bool,
}

impl Link {
    /// Mbit/s, ms and percent, then the queue and the word `bursts` if they differ from the usual.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let mut number = || words.next()?.parse::<f64>().ok();
        let (rate, rtt, loss) = (number().filter(positive)?, number().filter(positive)?, number()?);
        let queue = words.next().map_or(Some(1.0), |word| word.parse().ok().filter(positive))?;
        let bursts = match words.next() {
            None => false,
            Some("bursts") => true,
            Some(_) => return None,
        };
        let link = Self {
            rate: (rate * 1e6) as u64,
            rtt: Duration::try_from_secs_f64(rtt / 1e3).ok()?,
            loss: loss / 100.0,
            queue,
            bursts,
        };
        (words.next().is_none() && (0.0..1.0).contains(&link.loss)).then_some(link)
    }

    /// For the first column.
    pub(super) fn name(&self) -> String {
        let (rate, rtt, loss) = (self.rate as f64 / 1e6, self.rtt.as_secs_f64() * 1e3, self.loss * 100.0);
        let mut name = format!("{rate} Mbit/s, {rtt} ms, {loss} %");
        if (self.queue - 1.0).abs() > f64::EPSILON {
            name += &format!(", queue {} BDP", self.queue);
        }
        name + if self.bursts { ", bursts" } else { "" }
    }

    /// The emulator's settings.
    pub(super) fn config(&self) -> WanConfig {
        let bdp = self.rate as f64 / 8.0 * self.rtt.as_secs_f64();
        // None is one product, but never less than a batch of the network card.
        let queue_bytes = ((self.queue - 1.0).abs() > f64::EPSILON).then_some((bdp * self.queue) as u64);
        let usual = WanConfig { rate: Some(self.rate), rtt: self.rtt, queue_bytes, ..WanConfig::default() };
        if self.bursts && self.loss > 0.0 {
            let burst = Burst::Outage { length: BURST, every: BURST.div_f64(self.loss) };
            return WanConfig { burst: Some(burst), jitter: JITTER, reorder: REORDER, ..usual };
        }
        WanConfig { loss: self.loss, ..usual }
    }

    /// The most content that full packets can carry, bits per second: of the link, or of a lower target rate.
    pub(super) fn limit_bps(&self, target: Option<u64>) -> f64 {
        target.unwrap_or(self.rate).min(self.rate) as f64 * (1.0 - self.loss) * PAYLOAD_SHARE
    }
}

fn parse_links(list: &str) -> Option<Vec<Link>> {
    list.split(',').map(Link::parse).collect()
}

fn positive(number: &f64) -> bool {
    number.is_finite() && *number > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_they_are_written() {
        let link = Link::parse("1000:300:2:0.5:bursts").unwrap();
        assert_eq!(link.name(), "1000 Mbit/s, 300 ms, 2 %, queue 0.5 BDP, bursts");
        let config = link.config();
        assert_eq!((config.loss, config.queue_bytes), (0.0, Some(18_750_000)));
        let every = Duration::from_secs(1);
        assert_eq!(config.burst, Some(Burst::Outage { length: BURST, every }));
        for wrong in ["", "100", "100:10", "100:10:100", "0:10:1", "100:10:1:2:3", "100:10:1:1:bursts:"] {
            assert_eq!(Link::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_what_full_packets_carry() {
        let link = Link::parse("100:100:1").unwrap();
        assert!((link.limit_bps(None) - 93.984e6).abs() < 1.0);
        assert!((link.limit_bps(Some(80_000_000)) - 75.1872e6).abs() < 1.0);
        assert_eq!(link.config().queue_bytes, None);
    }
}
