//! A laboratory for rate control: virtual time, one bottleneck, our flows without their bytes, and rival TCP flows.
//!
//! Our flow is the real ledger, pacer, feedback and controller; only sealing and content are left out, so that minutes at
//! gigabits pass in seconds. [`rows`] holds what the controller must reach.

mod haul;
mod meter;
mod path;
mod rows;
mod tcp;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::wire::report::Report;
use haul::Haul;
use meter::Meter;
use path::{Path, PathConfig};
use tcp::Tcp;

/// Who sends.
pub(crate) enum Agent {
    Haul(Box<Haul>),
    Tcp(Box<Tcp>),
}

/// A flow and when it sends.
pub(crate) struct Flow {
    pub(super) agent: Agent,
    pub(super) rtt: Duration,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// A datagram or segment on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(super) flow: usize,
    pub(super) number: u64,
    /// Bytes on the wire.
    pub(super) size: u32,
}

pub(crate) enum Event {
    /// The bottleneck has sent its first packet.
    Depart,
    /// The path changes.
    Step(usize),
    /// The queue is looked at.
    Look,
    /// A packet reaches the receiver.
    Deliver(Packet),
    /// A flow may go on: it starts, its pacer lets it, or a timer is due.
    Wake(usize),
    /// The receiver of our flow may have to report.
    Due(usize),
    /// A report reaches our sender.
    Told(usize, Box<Report>),
    /// An acknowledgement reaches a TCP sender.
    Acked(usize, u64),
}

struct Entry {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, as the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Everything but the flows.
pub(crate) struct Net {
    pub(super) now: Duration,
    heap: BinaryHeap<Entry>,
    order: u64,
    pub(super) path: Path,
    pub(super) meter: Meter,
    /// Half the round trip of each flow.
    delays: Vec<Duration>,
}

impl Net {
    pub(super) fn at(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.heap.push(Entry { at: at.max(self.now), order: self.order, event });
    }

    /// Hands a packet to the bottleneck.
    pub(super) fn send(&mut self, packet: Packet) {
        self.meter.on_sent(self.now, packet);
        match self.path.offer(self.now, packet) {
            path::Offer::Dropped => self.meter.on_dropped(self.now, packet),
            path::Offer::Queued => {}
            path::Offer::Serving(until) => self.at(until, Event::Depart),
        }
    }

    fn depart(&mut self) {
        let (packet, next) = self.path.depart(self.now);
        if let Some(until) = next {
            self.at(until, Event::Depart);
        }
        if let Some(packet) = packet {
            let delay = self.delays[packet.flow];
            let at = self.path.arrival(self.now + delay, packet.flow);
            self.at(at, Event::Deliver(packet));
        }
    }

    /// Sends something of `size` bytes back to the sender of `flow`.
    pub(super) fn send_back(&mut self, flow: usize, size: u32, event: Event) {
        if let Some(at) = self.path.back(self.now, size) {
            let delay = self.delays[flow];
            self.at(at + delay, event);
        }
    }
}

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// A path and the flows on it.
pub(crate) struct World {
    net: Net,
    flows: Vec<Flow>,
}

impl World {
    pub(super) fn new(config: PathConfig, seed: u64, mut flows: Vec<Flow>) -> Self {
        for (number, flow) in flows.iter_mut().enumerate() {
            match &mut flow.agent {
                Agent::Haul(haul) => haul.flow = number,
                Agent::Tcp(tcp) => tcp.flow = number,
            }
        }
        let delays = flows.iter().map(|flow| flow.rtt / 2).collect();
        let meter = Meter::new(flows.len());
        let path = Path::new(config, seed, flows.len());
        let net =
            Net { now: Duration::from_secs(3600), heap: BinaryHeap::new(), order: 0, path, meter, delays };
        Self { net, flows }
    }

    /// Runs for `span`; what was measured.
    pub(super) fn run(mut self, span: Duration) -> Meter {
        let zero = self.net.now;
        self.net.meter.zero = zero;
        for (flow, about) in self.flows.iter_mut().enumerate() {
            about.from += zero;
            about.until = about.until.saturating_add(zero);
            self.net.at(about.from, Event::Wake(flow));
        }
        for (number, step) in self.net.path.steps().into_iter().enumerate() {
            self.net.at(zero + step, Event::Step(number));
        }
        self.net.at(zero, Event::Look);
        while let Some(Entry { at, event, .. }) = self.net.heap.pop() {
            if at > zero + span {
                break;
            }
            self.net.now = at;
            self.handle(event);
        }
        self.net.meter
    }

    fn handle(&mut self, event: Event) {
        let now = self.net.now;
        match event {
            Event::Depart => self.net.depart(),
            Event::Step(number) => self.net.path.step(number),
            Event::Look => {
                let delay = self.net.path.queue_delay();
                self.net.meter.on_look(delay);
                self.net.at(self.net.now + LOOK, Event::Look);
            }
            Event::Deliver(packet) => {
                self.net.meter.on_delivered(self.net.now, packet);
                match &mut self.flows[packet.flow].agent {
                    Agent::Haul(haul) => haul.on_deliver(&mut self.net, packet),
                    Agent::Tcp(_) => {
                        self.net.send_back(packet.flow, 60, Event::Acked(packet.flow, packet.number));
                    }
                }
            }
            Event::Wake(flow) => {
                let about = &mut self.flows[flow];
                if self.net.now < about.until {
                    match &mut about.agent {
                        Agent::Haul(haul) => haul.on_wake(&mut self.net),
                        Agent::Tcp(tcp) => tcp.on_wake(&mut self.net),
                    }
                }
            }
            Event::Due(flow) => {
                if let Agent::Haul(haul) = &mut self.flows[flow].agent {
                    haul.on_due(&mut self.net);
                }
            }
            Event::Told(flow, report) => {
                let about = &mut self.flows[flow];
                if let Agent::Haul(haul) = &mut about.agent {
                    haul.on_report(&mut self.net, &report, now < about.until);
                }
            }
            Event::Acked(flow, number) => {
                let about = &mut self.flows[flow];
                if let Agent::Tcp(tcp) = &mut about.agent {
                    tcp.on_ack(&mut self.net, number, now < about.until);
                }
            }
        }
    }
}
