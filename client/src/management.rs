//! The management port (`-M`): tells the program that started this run how it goes, in ascp's frames, and takes its orders.
//! That program listens on a port of this machine.
//!
//! It decides nothing. A driver that goes away does not stop a transfer, except one with `--keepalive` that waits for it.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use haul_proto::control::{Direction, PathText, RatePolicy, RateTerms};
use haul_proto::stats::Snapshot;
use haul_proto::units::Rate;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use tokio::sync::mpsc;

use crate::ascp_errors::AscpError;
use crate::ascp_output;
use crate::config::TransferRequest;
use crate::error::{ClientError, connect_error};
use crate::input::Said;
use crate::progress::{Start, Summary};
use crate::rate_change::RateChange;
use frame::{Frame, Frames};

mod frame;

/// Drivers listen only after they have started us.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// A driver that takes nothing for so long is not written to any more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Statistics come so often.
const STATS_INTERVAL: Duration = Duration::from_millis(500);

/// Orders that may wait; beyond them the driver waits.
const WAITING: usize = 1024;

/// What the driver says.
#[derive(Debug)]
pub(crate) struct Orders {
    /// Changes of the rate.
    pub(crate) said: mpsc::Receiver<Said>,
    /// Sources, for `--keepalive`.
    pub(crate) sources: mpsc::Receiver<SourceOrder>,
}

/// A source that the driver names, and where it lands below the destination; none keeps its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceOrder {
    pub(crate) source: PathText,
    pub(crate) destination: Option<PathText>,
}

/// Tells the driver.
#[derive(Debug)]
pub(crate) struct Reporter {
    stream: Option<TcpStream>,
    session: String,
    begun: Instant,
    last_stats: Option<Instant>,
    announced: bool,
    sized: bool,
    /// Bytes of the transfers before this one, with `--keepalive`.
    before: u64,
    /// What the driver was told of the sources so far.
    arguments: u64,
}

/// For a run that fails before it begins: a driver waits for words on its port, not for those on stderr.
pub(crate) fn reporter_for_failure(args: &[OsString]) -> Option<Reporter> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    let value = loop {
        let arg = args.next()?.to_str().unwrap_or_default();
        match arg.strip_prefix("-M") {
            Some("") => break args.next()?.to_str()?,
            Some(value) => break value,
            None => {}
        }
    };
    let stream = dial(value.trim().parse().ok()?).ok()?;
    let mut reporter = Reporter::new(stream);
    let frame = reporter.frame("INIT");
    reporter.send(&frame);
    Some(reporter)
}

/// Drivers start to listen when they have started us.
fn dial(port: u16) -> io::Result<TcpStream> {
    let begun = Instant::now();
    let stream = loop {
        match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            Ok(stream) => break stream,
            Err(_) if begun.elapsed() < CONNECT_TIME => thread::sleep(CONNECT_PAUSE),
            Err(error) => return Err(error),
        }
    };
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to the driver, and begins to listen to it.
///
/// # Errors
/// If nobody listens there.
pub(crate) fn connect(port: u16, request: &TransferRequest) -> Result<(Reporter, Orders), ClientError> {
    let failed = |error| connect_error("the program that -M names (127.0.0.1)", port, error);
    let stream = dial(port).map_err(failed)?;
    let listening = stream.try_clone().map_err(failed)?;
    let (say, said) = mpsc::channel(WAITING);
    let (name, sources) = mpsc::channel(WAITING);
    thread::Builder::new()
        .name("management".to_owned())
        .spawn(move || listen(listening, &say, Some(name)))
        .map_err(failed)?;
    let mut reporter = Reporter::new(stream);
    reporter.init(request);
    Ok((reporter, Orders { said, sources }))
}

/// Names the session, as UUIDs do; without randomness a name of the process is unique enough for its driver.
fn uuid() -> String {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 16];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return format!("{:032x}", getpid().as_raw());
    }
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// Reads frames until the driver closes or says something that is none.
fn listen(mut stream: TcpStream, say: &mpsc::Sender<Said>, mut name: Option<mpsc::Sender<SourceOrder>>) {
    let mut frames = Frames::default();
    let mut buffer = [0; 4096];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        match frames.take(buffer.get(..count).unwrap_or_default()) {
            Ok(frames) => {
                for frame in frames {
                    act(&frame, say, &mut name);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the driver is not listened to any more");
                return;
            }
        }
    }
}

/// Carries out one order. Orders that nobody waits for any more are lost with their receiver.
fn act(frame: &Frame, say: &mpsc::Sender<Said>, name: &mut Option<mpsc::Sender<SourceOrder>>) {
    tracing::debug!(kind = frame.kind(), "order of the driver");
    match frame.kind().as_str() {
        "RATE" => {
            let _ = say.blocking_send(rate_change(frame).map_or_else(Said::Wrong, Said::Change));
        }
        "START" => {
            let path = |key| frame.field(key).filter(|path| !path.is_empty()).map(PathText::new);
            if let (Some(source), Some(name)) = (path("Source"), name) {
                let _ = name.blocking_send(SourceOrder { source, destination: path("Destination") });
            }
        }
        // What a signal does: the transfer is cancelled in order.
        "CANCEL" => {
            let _ = kill(getpid(), Signal::SIGINT);
        }
        // No more sources.
        "DONE" => *name = None,
        _ => {}
    }
}

/// Rates are in Kbit/s.
fn rate_change(frame: &Frame) -> Result<RateChange, String> {
    let rate = |key: &str| match frame.field(key) {
        None => Ok(None),
        Some(text) => match text.trim().parse::<u64>().ok().and_then(|kbps| kbps.checked_mul(1000)) {
            Some(bps) => Ok(Some(Rate::from_bps(bps)).filter(|rate| *rate > Rate::ZERO)),
            None => Err(format!("the driver sent a rate that is none: {key}: {text}")),
        },
    };
    let policy = match frame.field("Adaptive").map(str::to_ascii_lowercase).as_deref() {
        Some("fixed") => Some(RatePolicy::Fixed),
        Some("trickle") => Some(RatePolicy::Low),
        // Fair and high are one word there; the priority tells them apart.
        Some("adaptive") if frame.field("Priority").map(str::trim) == Some("1") => Some(RatePolicy::High),
        Some("adaptive") => Some(RatePolicy::Fair),
        _ => None,
    };
    let minimum = frame.field("MinRate").map(|_| rate("MinRate")).transpose()?;
    Ok(RateChange::of_driver(rate("Rate")?, minimum, policy))
}

impl Reporter {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream: Some(stream),
            session: uuid(),
            begun: Instant::now(),
            last_stats: None,
            announced: false,
            sized: false,
            before: 0,
            arguments: 0,
        }
    }

    /// Sends a frame; a driver that does not take it is forgotten.
    fn send(&mut self, frame: &Frame) {
        let Some(stream) = &mut self.stream else { return };
        if let Err(error) = stream.write_all(frame.text().as_bytes()) {
            tracing::warn!(%error, "the driver is not told any more");
            self.stream = None;
        }
    }

    fn frame(&self, kind: &str) -> Frame {
        Frame::new(kind)
            .with("SessionId", &self.session)
            .with("Elapsedusec", self.begun.elapsed().as_micros())
    }

    fn init(&mut self, request: &TransferRequest) {
        let application = &request.plan.application;
        let frame = self
            .frame("INIT")
            .with("Operation", "Transfer")
            .with_some("UserStr", application.user_string.as_ref())
            .with_some("Cookie", application.cookie.as_ref());
        self.send(&frame);
    }

    /// The server has agreed.
    pub(crate) fn start(&mut self, start: &Start, request: &TransferRequest, rate: RateTerms) {
        self.sized = false;
        if std::mem::replace(&mut self.announced, true) {
            return;
        }
        let (upload, plan) = (start.direction == Direction::Upload, &request.plan);
        let kbps = |rate: Option<Rate>| rate.map(|rate| rate.bps() / 1000);
        let yes_no = |yes| if yes { "Yes" } else { "No" };
        let frame = self
            .frame("SESSION")
            .with("Direction", if upload { "Send" } else { "Receive" })
            .with("Operation", "Transfer")
            .with("Remote", "No")
            .with("User", &start.user)
            .with("Host", &start.host)
            .with_some("RemoteAddress", start.address.rsplit_once(':').map(|(address, _)| address))
            .with_some("Port", start.address.rsplit_once(':').map(|(_, port)| port))
            .with("TCPPort", request.ssh_port)
            .with("Source", plan.label())
            .with("Encryption", "Yes")
            .with("Adaptive", adaptive(rate.policy))
            .with_some("Rate", kbps(rate.target_rate))
            .with("MinRate", kbps(rate.min_rate).unwrap_or_default())
            .with("Keepalive", yes_no(plan.management.is_some_and(|management| management.keepalive)))
            .with_some("UserStr", plan.application.user_string.as_ref())
            .with_some("Cookie", plan.application.cookie.as_ref())
            .with_some("Tags", plan.application.tags.as_ref());
        self.send(&frame);
    }

    /// How far it is.
    pub(crate) fn progress(&mut self, snapshot: &Snapshot) {
        if let Some(total) = snapshot.bytes_total
            && !std::mem::replace(&mut self.sized, true)
        {
            let frame = self
                .frame("NOTIFICATION")
                .with("PreTransferBytes", self.before + total)
                .with_some("PreTransferFiles", snapshot.files_total);
            self.send(&frame);
        }
        if self.last_stats.is_some_and(|last| last.elapsed() < STATS_INTERVAL) {
            return;
        }
        self.last_stats = Some(Instant::now());
        let frame = self.stats(snapshot);
        self.send(&frame);
    }

    fn stats(&self, snapshot: &Snapshot) -> Frame {
        let done = self.before + snapshot.bytes_done;
        let percent = snapshot
            .bytes_total
            .filter(|total| *total > 0)
            .map(|total| u128::from(snapshot.bytes_done) * 100 / u128::from(total));
        self.frame("STATS")
            .with("StartByte", 0)
            .with("TransferBytes", done)
            .with("FileBytes", done)
            .with("Written", done)
            .with("TransfersPassed", snapshot.files_done)
            .with("Rate", snapshot.rate.bps() / 1000)
            .with("Loss", (snapshot.loss() * 100.0) as u64)
            .with_some("Delay", snapshot.rtt.map(|rtt| rtt.as_millis()))
            .with_some("Progress", percent)
            .with_some(
                "Remaining",
                snapshot.bytes_total.map(|total| total.saturating_sub(snapshot.bytes_done)),
            )
    }

    /// Other rates are in force.
    pub(crate) fn rate(&mut self, terms: RateTerms) {
        let frame = self
            .frame("RATE")
            .with_some("Rate", terms.target_rate.map(|rate| rate.bps() / 1000))
            .with("MinRate", terms.min_rate.map_or(0, |rate| rate.bps() / 1000))
            .with("Adaptive", adaptive(terms.policy));
        self.send(&frame);
    }

    /// These sources have come to their end.
    pub(crate) fn sources_ended(&mut self, sources: &[PathText], summary: &Summary) {
        for failure in &summary.failures {
            let code = AscpError::of_trouble(failure.trouble, String::new).code;
            let frame = self
                .frame("FILEERROR")
                .with("File", String::from_utf8_lossy(failure.path.as_bytes()))
                .with("Code", code)
                .with("Description", crate::sanitize::text(&failure.message));
            self.send(&frame);
        }
        // Only then is each source known to be a file that arrived.
        let all_files = summary.failed + summary.skipped == 0 && summary.files == sources.len() as u64;
        for source in sources {
            let name = String::from_utf8_lossy(source.as_bytes());
            if all_files {
                let size = (sources.len() == 1).then_some(summary.bytes);
                let stop = self
                    .frame("STOP")
                    .with("File", &name)
                    .with("StartByte", 0)
                    .with_some("Size", size)
                    .with_some("Written", size)
                    .with("FaspFileArgIndex", self.arguments);
                self.send(&stop);
            }
            let frame = self
                .frame("ARGSTOP")
                .with("Source", &name)
                .with("FaspFileArgIndex", self.arguments)
                .with("ArgTransfersStatus", if summary.failed == 0 { "Success" } else { "Failure" });
            self.send(&frame);
            self.arguments += 1;
        }
        self.before += summary.bytes;
    }

    /// The end of the run, and of the port.
    pub(crate) fn finish(&mut self, result: &Result<Summary, ClientError>) {
        let failed = |code: &AscpError| (code.code, code.words.clone().into_owned());
        let frame = match result {
            Ok(summary) if summary.failed == 0 => totals(self.frame("DONE"), summary),
            Ok(summary) => {
                let (code, words) = failed(&ascp_output::of_summary(summary));
                totals(self.frame("ERROR"), summary).with("Code", code).with("Description", words)
            }
            Err(error) => {
                let (code, words) = failed(&AscpError::of(error));
                self.frame("ERROR").with("Code", code).with("Description", crate::sanitize::text(&words))
            }
        };
        self.send(&frame);
        if let Some(stream) = self.stream.take() {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

fn totals(frame: Frame, summary: &Summary) -> Frame {
    frame
        .with("StartByte", 0)
        .with("TransferBytes", summary.bytes)
        .with("FileBytes", summary.bytes)
        .with("TransfersAttempted", summary.files + summary.failed)
        .with("TransfersPassed", summary.files)
        .with("TransfersFailed", summary.failed)
        .with("TransfersSkipped", summary.skipped)
}

const fn adaptive(policy: RatePolicy) -> &'static str {
    match policy {
        RatePolicy::Fixed => "Fixed",
        RatePolicy::High | RatePolicy::Fair => "Adaptive",
        RatePolicy::Low => "Trickle",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(lines: &str) -> Result<RateChange, String> {
        rate_change(
            Frames::default()
                .take(format!("FASPMGR 2\nType: RATE\n{lines}\n").as_bytes())
                .unwrap()
                .first()
                .unwrap(),
        )
    }

    #[test]
    fn a_driver_s_rates_are_in_kilobits() {
        let wish = RateTerms { policy: RatePolicy::Fair, target_rate: None, min_rate: None };
        let to = |lines| change(lines).unwrap().apply(wish, wish, Rate::ZERO).unwrap();
        assert_eq!(to("Rate: 300000\n").target_rate, Some(Rate::from_bps(300_000_000)));
        assert_eq!(to("Rate: 5\nMinRate: 2\n").min_rate, Some(Rate::from_bps(2000)));
        assert_eq!(to("MinRate: 0\n").min_rate, None);
        assert_eq!(to("Adaptive: Trickle\n").policy, RatePolicy::Low);
        assert_eq!(to("Rate: 5\nAdaptive: Fixed\n").policy, RatePolicy::Fixed);
        assert_eq!(to("Adaptive: Adaptive\nPriority: 1\n").policy, RatePolicy::High);
        assert!(change("Rate: fast\n").is_err());
    }

    #[test]
    fn sessions_have_names_of_the_usual_form() {
        let (one, other) = (uuid(), uuid());
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_ne!(one, other);
    }
}
