//! Our flow: the sender and the receiver as they are, without sealing and content. What [`Sender`](crate::sender::Sender)
//! does beside that with a report, a timer or the pacer is repeated here in short.

use std::time::Duration;

use super::{Event, Net, Packet};
use crate::constants::{FIRST_FLIGHT_PACKETS, IP_OVERHEAD, REPORT_INTERVAL_MAX, REPORT_PATIENCE};
use crate::link::Way;
use crate::loss::{Cargo, Ledger, Path};
use crate::pacer::Pacer;
use crate::rate::{PathSample, RateConfig, RateController};
use crate::receiver::feedback::Feedback;
use crate::rtt::Rtt;
use crate::sender::report_interval;
use crate::wire::report::Report;

pub(crate) struct Haul {
    pub(super) flow: usize,
    datagram: u16,
    rate: RateController,
    config: RateConfig,
    started: bool,
    ledger: Ledger,
    rtt: Rtt,
    pacer: Pacer,
    number: u64,
    latest_bytes: u64,
    clock: Option<(u32, Duration, i32)>,
    last_report: Duration,
    last_progress: Duration,
    last_timeout: Duration,
    timeouts: u32,
    silence_marked: Duration,
    woken_for: Duration,
    // The receiver.
    feedback: Feedback,
    due_for: Duration,
    received: (u64, u64),
    sent_at: std::collections::VecDeque<Duration>,
    first_sent: u64,
}

impl Haul {
    pub(super) fn new(datagram: u16, config: RateConfig) -> Box<Self> {
        let now = Duration::ZERO;
        Box::new(Self {
            flow: 0,
            datagram,
            rate: RateController::new(now, config),
            config,
            started: false,
            ledger: Ledger::default(),
            rtt: Rtt::default(),
            pacer: Pacer::new(now),
            number: 0,
            latest_bytes: 0,
            clock: None,
            last_report: now,
            last_progress: now,
            last_timeout: now,
            timeouts: 0,
            silence_marked: now,
            woken_for: Duration::MAX,
            feedback: Feedback::default(),
            due_for: Duration::MAX,
            received: (0, 0),
            sent_at: std::collections::VecDeque::new(),
            first_sent: 0,
        })
    }

    pub(super) fn on_wake(&mut self, net: &mut Net) {
        let now = net.now;
        if !self.started {
            self.started = true;
            self.rate = RateController::new(now, self.config);
            self.pacer = Pacer::new(now);
            (self.last_report, self.last_progress, self.last_timeout) = (now, now, now);
        }
        if self.woken_for <= now {
            self.woken_for = Duration::MAX;
        }
        self.on_timeout(net);
        self.pump(net);
    }

    fn on_timeout(&mut self, net: &mut Net) {
        let now = net.now;
        if self.ledger.in_flight() == 0 || self.rtt.sampled().is_none() {
            return;
        }
        if now >= self.repair_deadline() {
            self.timeouts += 1;
            self.last_timeout = now;
            self.send(net, self.datagram);
            self.send(net, self.datagram);
        }
        let patience = (self.interval() * 2 + self.rtt.smoothed() * 2).max(Duration::from_millis(50));
        if now.saturating_sub(self.last_report.max(self.silence_marked)) > patience {
            self.silence_marked = now;
            self.rate.on_silence();
        }
    }

    fn repair_deadline(&self) -> Duration {
        let wait = self.rtt.patience() + self.interval() * 2 + Duration::from_millis(10);
        let wait = (wait * 2u32.pow(self.timeouts.min(6))).min(Duration::from_millis(500).max(wait));
        self.last_progress.max(self.last_timeout) + wait
    }

    fn interval(&self) -> Duration {
        (report_interval(self.rtt.sampled()) * REPORT_PATIENCE).min(REPORT_INTERVAL_MAX)
    }

    fn pump(&mut self, net: &mut Net) {
        let now = net.now;
        let size = u64::from(self.datagram);
        loop {
            self.pacer.set_rate(now, self.rate.rate(), self.datagram, self.rate.burst_share());
            let window = self.rate.window().max(2 * size);
            let fits = |flow: &Self| {
                flow.ledger.in_flight() + size <= window
                    && (flow.rtt.sampled().is_some() || flow.number < FIRST_FLIGHT_PACKETS)
            };
            if !fits(self) {
                break;
            }
            if !self.pacer.may_send(now) {
                let at = self.pacer.ready_at();
                self.wake(net, at);
                return;
            }
            let (mut bytes, mut packets) = (0, 0);
            while bytes + size <= self.pacer.batch_bytes() && fits(self) {
                self.send(net, self.datagram);
                bytes += size;
                packets += 1;
            }
            self.pacer.on_sent(bytes + packets * IP_OVERHEAD);
        }
        // A report will let it go on, or else this timer.
        let at =
            if self.rtt.sampled().is_some() { self.repair_deadline() } else { now + Duration::from_secs(1) };
        self.wake(net, at.min(now + Duration::from_millis(50)));
    }

    fn wake(&mut self, net: &mut Net, at: Duration) {
        if at < self.woken_for {
            self.woken_for = at;
            net.at(at, Event::Wake(self.flow));
        }
    }

    fn send(&mut self, net: &mut Net, size: u16) {
        self.ledger.on_sent(self.number, net.now, Cargo::Frames, size, Path::Udp);
        self.sent_at.push_back(net.now);
        net.send(Packet { flow: self.flow, number: self.number, size: u32::from(size) + IP_OVERHEAD as u32 });
        self.number += 1;
    }

    /// At the receiver.
    pub(super) fn on_deliver(&mut self, net: &mut Net, packet: Packet) {
        let now = net.now;
        let Some(&sent) =
            packet.number.checked_sub(self.first_sent).and_then(|at| self.sent_at.get(at as usize))
        else {
            return;
        };
        // What is far behind is lost.
        while self.sent_at.len() > 300_000 {
            self.sent_at.pop_front();
            self.first_sent += 1;
        }
        let size = packet.size - IP_OVERHEAD as u32;
        self.received = (self.received.0 + 1, self.received.1 + u64::from(size));
        if let Some(rtt) = self.rtt.sampled() {
            self.feedback.set_rtt(rtt);
        }
        self.feedback.on_packet(now, packet.number, size as u16);
        self.feedback.on_data(
            now,
            packet.number,
            size as u16,
            sent.as_micros() as u32,
            self.ledger.floor() as u32,
        );
        self.schedule_report(net);
    }

    fn schedule_report(&mut self, net: &mut Net) {
        match self.feedback.due() {
            Some(due) if due <= net.now => self.report(net),
            Some(due) if due < self.due_for => {
                self.due_for = due;
                net.at(due, Event::Due(self.flow));
            }
            _ => {}
        }
    }

    pub(super) fn on_due(&mut self, net: &mut Net) {
        self.due_for = Duration::MAX;
        self.schedule_report(net);
    }

    fn report(&mut self, net: &mut Net) {
        let standing = Report { packets: self.received.0, bytes: self.received.1, ..Report::default() };
        for report in self.feedback.build(net.now, &standing) {
            let mut bytes = Vec::new();
            report.encode(&mut bytes);
            // Frame type, padding, header, tag, and what IP and UDP add.
            let size = (bytes.len() as u32 + 1).next_multiple_of(16) + 32 + IP_OVERHEAD as u32;
            net.meter.reported += u64::from(size);
            net.send_back(self.flow, size, Event::Told(self.flow, Box::new(report)));
        }
    }

    pub(super) fn on_report(&mut self, net: &mut Net, report: &Report, goes_on: bool) {
        let now = net.now;
        let interval = self.interval();
        let outcomes = self
            .ledger
            .on_report(now, report, &self.rtt, interval, Way::Udp)
            .expect("our own receiver is honest");
        let (raw, time, zero) =
            self.clock.get_or_insert((report.clock_us, Duration::from_secs(1), report.delay_min_us));
        let step = report.clock_us.wrapping_sub(*raw) as i32;
        if step > 0 {
            *time += Duration::from_micros(u64::from(step.unsigned_abs()));
            *raw = report.clock_us;
        }
        let seconds = |delay: i32| f64::from(delay.wrapping_sub(*zero)) * 1e-6;
        let sample = PathSample {
            now,
            receiver_clock: *time,
            received_bytes: report.bytes,
            rtt: outcomes.rtt,
            delay_min: seconds(report.delay_min_us),
            delay_max: seconds(report.delay_max_us),
            train_bytes: report.train_bytes,
            train_time: Duration::from_micros(report.train_us),
            interval,
            arrived_packets: outcomes.arrived_packets,
            lost_packets: outcomes.lost_packets - outcomes.outage_packets,
            idle: false,
        };
        if let Some(rtt) = sample.rtt {
            self.rtt.on_sample(now, rtt);
        }
        if sample.arrived_packets > 0 {
            self.last_progress = now;
            self.timeouts = 0;
        }
        self.last_report = now;
        if report.bytes >= self.latest_bytes {
            self.latest_bytes = report.bytes;
            self.rate.on_report(&sample);
        }
        if goes_on {
            self.woken_for = Duration::MAX;
            self.pump(net);
        }
    }
}
