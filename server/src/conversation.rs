//! The control conversation of a worker and the transfer it leads to: offer, agreement or refusal, data, outcome.
//! Not here: taking rights, which has happened before; bytes of datagrams.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use haul_io::carrier::UdpCarrier;
use haul_io::disk::{
    After, DiskError, Docroot, Filter, Sink, SinkOptions, Source, SourceItem, SourceOptions, check_sources,
    resolve_destination, resolve_renamed,
};
use haul_io::drive::{Clock, Drive, End, StreamSet};
use haul_io::{Command, DriveError, Ending, News, Outlet, ReceiveEnd, SendEnd, Waker};
use haul_proto::control::negotiation::{self, Grant, Terms as Chosen, agree, choose};
use haul_proto::control::{
    Agreement, Cancel, Ceiling, ClientMessage, Direction, Feature, LineDecoder, MAX_SOURCES,
    MAX_SOURCES_BYTES, Offer, OfferedVersions, Outcome, Overwrite, PathText, Refusal, ResumeCheck,
    SecretHalf, ServerMessage, Sources, StoredFiles, Trouble, UdpEndpoint, encode_line, read_line,
};
use haul_proto::crypto::{Seat, SessionSecret};
use haul_proto::link::LinkConfig;
use haul_proto::receiver::{Receiver, ReceiverConfig};
use haul_proto::sender::{Sender, SenderConfig};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::{info, warn};

use crate::carriers;
use crate::error::ServerError;
use crate::policy::SessionPolicy;
use crate::shares::lease::{Lease, LeaseError};
use crate::shares::terms::{Heard, Keeper, Terms, WAITING};
use crate::speaker::Speaker;
use crate::{authorize, udp_port};

/// The program as it introduces itself.
const PROGRAM: &str = concat!("hauld ", env!("CARGO_PKG_VERSION"));

/// A client that has logged in must make its offer within this time.
const OFFER_TIMEOUT: Duration = Duration::from_secs(30);

/// The client decides how long to wait for UDP; a worker outlasts it.
const UDP_TIMEOUT: Duration = Duration::from_secs(120);

/// Lines of verdicts that wait for the client to listen.
const VERDICT_LINES: usize = 64;

/// Holds the conversation to its end.
pub(crate) fn hold(
    policy: &SessionPolicy,
    mut input: File,
    output: File,
    lease: Option<Lease>,
    door: Option<UnixDatagram>,
) -> ExitCode {
    let speaker = Speaker::new(output);
    let mut decoder = LineDecoder::default();
    let message = match first_message(&mut input, &mut decoder) {
        Ok(Some(message)) => message,
        Ok(None) => return ExitCode::SUCCESS,
        Err(refusal) => return refuse(&speaker, refusal),
    };
    let ClientMessage::Offer(offer) = message else {
        return refuse(&speaker, refusal(Trouble::Protocol, "the conversation must begin with an offer", ""));
    };
    let named = match named_sources(&offer, &mut input, &mut decoder) {
        Ok(Some(named)) => named,
        Ok(None) => return ExitCode::SUCCESS,
        Err(refusal) => return refuse(&speaker, refusal),
    };
    match prepare(policy, &offer, named, lease, (&mut input, &mut decoder)) {
        Ok(prepared) => Prepared { door, ..prepared }.run(speaker, input, decoder),
        Err(refusal) => refuse(&speaker, refusal),
    }
}

fn refuse(speaker: &Speaker, refusal: Refusal) -> ExitCode {
    warn!(trouble = ?refusal.trouble, message = ?refusal.message, "refused");
    speaker.say(&ServerMessage::Refusal(refusal));
    ExitCode::FAILURE
}

/// Tells a client, on standard output, why its session cannot start.
pub(crate) fn refuse_start(error: &ServerError) {
    let remedy = error.remedy().unwrap_or_default();
    let refusal = refusal(Trouble::PermissionDenied, error.lines().join("; "), remedy);
    let _ = std::io::stdout().write_all(&encode_line(&ServerMessage::Refusal(refusal)));
}

fn refusal(trouble: Trouble, message: impl Into<String>, remedy: impl Into<String>) -> Refusal {
    Refusal { trouble, message: message.into(), remedy: remedy.into() }
}

/// The first message; `None` if the client leaves without a word.
fn first_message(input: &mut File, decoder: &mut LineDecoder) -> Result<Option<ClientMessage>, Refusal> {
    let Some(line) = next_line(input, decoder)? else {
        return Ok(None);
    };
    // Versions first: what else an offer of another version holds may not be readable here.
    if let Ok(OfferedVersions { versions }) = read_line(&line) {
        negotiation::check_versions(&versions)?;
    }
    read_line(&line).map(Some).map_err(broken_line)
}

fn broken_line(error: haul_proto::Error) -> Refusal {
    refusal(Trouble::Protocol, error.to_string(), "")
}

/// The next line before the agreement; `None` if the client leaves.
fn next_line(input: &mut File, decoder: &mut LineDecoder) -> Result<Option<Vec<u8>>, Refusal> {
    let mut buffer = [0; 4096];
    let deadline = Instant::now() + OFFER_TIMEOUT;
    loop {
        if let Some(line) = decoder.poll_line().map_err(broken_line)? {
            return Ok(Some(line));
        }
        let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let left = deadline.saturating_duration_since(Instant::now());
        if poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) == Ok(0) {
            return Err(refusal(Trouble::Protocol, "no offer, or no more of it, came within 30 s", ""));
        }
        match input.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(None),
            Ok(count) => decoder.handle_bytes(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// What a download asks for, wherever the client has named it.
#[derive(Default)]
struct Named {
    sources: Vec<PathText>,
    targets: Vec<PathText>,
}

/// The sources of the offer, or those that follow it; `None` if the client leaves.
fn named_sources(
    offer: &Offer,
    input: &mut File,
    decoder: &mut LineDecoder,
) -> Result<Option<Named>, Refusal> {
    let more = offer.selection.as_ref().is_some_and(|selection| selection.more_sources);
    if offer.direction == Direction::Upload || !more {
        return Ok(Some(Named { sources: offer.sources.clone(), targets: Vec::new() }));
    }
    let (mut named, mut bytes) = (Named::default(), 0);
    loop {
        let Some(line) = next_line(input, decoder)? else {
            return Ok(None);
        };
        bytes += line.len();
        let ClientMessage::Sources(Sources { sources, targets, last }) =
            read_line(&line).map_err(broken_line)?
        else {
            return Err(refusal(Trouble::Protocol, "the list of sources broke off", ""));
        };
        named.sources.extend(sources);
        named.targets.extend(targets);
        if bytes > MAX_SOURCES_BYTES || named.sources.len().max(named.targets.len()) > MAX_SOURCES {
            let message =
                format!("the list of sources exceeds {MAX_SOURCES} names or {MAX_SOURCES_BYTES} bytes");
            return Err(refusal(
                Trouble::Limit,
                message,
                "name folders in place of their files, or use several lists",
            ));
        }
        if last {
            return Ok(Some(named));
        }
    }
}

/// A transfer that may begin.
struct Prepared {
    agreement: Agreement,
    secret: SessionSecret,
    carrier: UdpCarrier,
    /// Connections of HTTPS come here.
    door: Option<UnixDatagram>,
    disk: Disk,
    terms: Terms,
    lease: Option<Lease>,
    /// The client wants to hear what is stored.
    tells_stored: bool,
    /// Where SSH came from: an address that needs no further proof.
    proven: Option<IpAddr>,
    challenge_key: SecretHalf,
}

enum Disk {
    /// Download: what to read.
    Read(Docroot, Vec<SourceItem>, SourceOptions),
    /// Upload: where to write.
    Write(haul_io::disk::Destination, SinkOptions),
}

/// Checks the offer against the policy and opens what the transfer needs.
fn prepare(
    policy: &SessionPolicy,
    offer: &Offer,
    named: Named,
    lease: Option<Lease>,
    (input, decoder): (&mut File, &mut LineDecoder),
) -> Result<Prepared, Refusal> {
    let chosen = choose(offer)?;
    let allowed_rate = authorize::ask(policy, offer, &named.sources)?;
    let max_rate = [policy.max_session_rate, allowed_rate].into_iter().flatten().min();
    let docroot = open_docroot(&policy.docroot)?;
    let disk = match offer.direction {
        Direction::Upload => prepare_upload(policy, offer, &docroot)?,
        Direction::Download => prepare_download(policy, offer, named, docroot)?,
    };
    let udp_port::Opened { mut carrier, waited } = udp_port::open(policy, offer, input, decoder)?;
    let port = carrier.port().map_err(|error| refusal(Trouble::UdpPort, error.to_string(), ""))?;
    let mut terms = Terms::new(offer.direction, offer.rate(), max_rate);
    if let Some(lease) = &lease {
        terms.begin(lease).map_err(no_share)?;
    }
    let (verdicts, renamed) = match &disk {
        Disk::Read(..) => (offer.verdicts, false),
        Disk::Write(destination, _) => (wants_verdicts(offer, destination), destination.renames()),
    };
    let (mut agreement, secret) =
        make_agreement(policy, offer, chosen, (terms.ceiling(), port), (verdicts, renamed))?;
    if waited >= Duration::from_secs(1) {
        agreement.changes.push(format!("waited {} s for a free UDP port", waited.as_secs()));
    }
    carrier.set_dscp(agreement.dscp.unwrap_or_default());
    let challenge_key = SecretHalf::new(random()?);
    let proven = policy.peer.parse::<SocketAddr>().ok().map(|peer| peer.ip().to_canonical());
    let tells_stored = offer.after.is_some() && agreement.features.contains(&Feature::Stored);
    let door = None;
    Ok(Prepared { agreement, secret, carrier, door, disk, terms, lease, tells_stored, proven, challenge_key })
}

/// Whether anything can be there of what comes. If not, the sender need not wait for a word about each file.
fn wants_verdicts(offer: &Offer, destination: &haul_io::disk::Destination) -> bool {
    let matters = offer.overwrite != Overwrite::Always || offer.resume != ResumeCheck::None;
    offer.verdicts && matters && destination.may_hold(offer.names.iter().map(PathText::as_bytes))
}

fn no_share(error: LeaseError) -> Refusal {
    warn!(%error, "no share of the rate");
    refusal(Trouble::Limit, "the server cannot tell what rate this transfer may use", "try again later")
}

fn open_docroot(path: &Path) -> Result<Docroot, Refusal> {
    Docroot::open(path).map_err(|error| {
        warn!(docroot = ?path, %error, "the docroot cannot be opened");
        refusal(error.trouble, "the docroot of this user cannot be opened", "ask the server's administrator")
    })
}

fn prepare_upload(policy: &SessionPolicy, offer: &Offer, docroot: &Docroot) -> Result<Disk, Refusal> {
    if !policy.permissions.write {
        return Err(not_permitted("upload"));
    }
    let path = offer.destination.as_bytes();
    let destination = if offer.renamed {
        resolve_renamed(docroot, path)
    } else {
        resolve_destination(docroot, path, offer.create_destination, offer.source_count)
    };
    let destination = destination.map_err(path_refusal)?;
    let options = SinkOptions {
        session: policy.session.clone(),
        preserve_times: offer.preserve_times,
        digest: offer.digest,
        overwrite: offer.overwrite,
        resume: offer.resume,
        ..SinkOptions::default()
    };
    Ok(Disk::Write(destination, options))
}

fn prepare_download(
    policy: &SessionPolicy,
    offer: &Offer,
    named: Named,
    docroot: Docroot,
) -> Result<Disk, Refusal> {
    if !policy.permissions.read {
        return Err(not_permitted("download"));
    }
    let selection = offer.selection.as_deref().cloned().unwrap_or_default();
    if selection.symbolic_links.copies() && !offer.features.contains(&Feature::Links) {
        return Err(refusal(
            Trouble::Protocol,
            "links are asked for by a client that does not take them",
            "",
        ));
    }
    let Named { sources, targets } = named;
    let paths: Vec<Vec<u8>> = sources.iter().map(|path| path.as_bytes().to_vec()).collect();
    if paths.is_empty() {
        return Err(refusal(Trouble::NotFound, "the offer names no source", ""));
    }
    // What a list names may be missing in part: that is told at the end.
    if !selection.more_sources {
        check_sources(&docroot, &paths, selection.symbolic_links).map_err(path_refusal)?;
    }
    if offer.after.is_some() && !policy.permissions.write {
        return Err(not_permitted("remove or move what has been downloaded"));
    }
    let wished = offer.after.as_deref().filter(|after| after.remove || after.move_to.is_some());
    let after = wished.map(|after| After {
        move_to: after.move_to.as_ref().map(|path| path.as_bytes().to_vec()),
        remove_empty_folders: after.remove_empty_folders,
        remove_empty_sources: after.remove_empty_sources,
    });
    let filter = Filter::new(&selection).map_err(path_refusal)?;
    let base = selection.source_base.as_ref().map(PathText::as_bytes);
    let items = SourceItem::list(&docroot, paths, &targets, base).map_err(path_refusal)?;
    let (digest, verdicts, resume) = (offer.digest, offer.verdicts, offer.resume);
    Ok(Disk::Read(docroot, items, SourceOptions { digest, filter, after, verdicts, resume }))
}

fn not_permitted(action: &str) -> Refusal {
    refusal(
        Trouble::PermissionDenied,
        format!("this user may not {action}"),
        "ask the server's administrator for the permission",
    )
}

fn path_refusal(error: DiskError) -> Refusal {
    let remedy = match error.trouble {
        Trouble::OutsideDocroot => "paths are below the user's docroot: `/` is the docroot itself",
        Trouble::NotFound => "check the path; it is taken from the user's docroot",
        Trouble::PermissionDenied => {
            "the worker has the rights of the user's account; check owner and mode there"
        }
        _ => "",
    };
    refusal(error.trouble, error.to_string(), remedy)
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| refusal(Trouble::Internal, "the server has no random numbers", ""))?;
    Ok(bytes)
}

fn make_agreement(
    policy: &SessionPolicy,
    offer: &Offer,
    chosen: Chosen,
    (ceiling, port): (Option<Ceiling>, u16),
    (verdicts, renamed): (bool, bool),
) -> Result<(Agreement, SessionSecret), Refusal> {
    let half = SecretHalf::new(random()?);
    let id: [u8; 6] = random()?;
    let grant = Grant {
        session: policy.session.clone(),
        program: PROGRAM.to_owned(),
        connection_id: id.iter().fold(0, |id, &byte| id << 8 | u64::from(byte)),
        secret: half.clone(),
        udp: UdpEndpoint { port, addresses: Vec::new() },
        ceiling,
        without: policy.https.is_none().then_some(Feature::HttpsCarrier).into_iter().collect(),
        https: policy.https.clone(),
        dscp: policy.dscp,
        verdicts,
        renamed,
    };
    let agreement = agree(offer, chosen, grant);
    let secret = SessionSecret::new(agreement.cipher, &agreement.session, &offer.secret, &half);
    Ok((agreement, secret))
}

impl Prepared {
    fn run(self, speaker: Speaker, input: File, decoder: LineDecoder) -> ExitCode {
        let signals = block_stop_signals();
        let waker = match Waker::new() {
            Ok(waker) => waker,
            Err(error) => return refuse(&speaker, refusal(Trouble::Internal, error.to_string(), "")),
        };
        let clock = Clock::default();
        let rate = self.agreement.rate().into();
        let features = self.agreement.features.clone();
        let link = LinkConfig {
            seat: Seat::Server,
            connection_id: self.agreement.connection_id,
            secret: self.secret,
            peer: None,
            proven: self.proven,
            challenge_key: self.challenge_key,
        };
        let (tell, commands) = mpsc::channel();
        let (heard, inbox) = mpsc::sync_channel(WAITING);
        if let Some(door) = self.door.filter(|_| self.agreement.https.is_some()) {
            carriers::take_handed(door, tell.clone(), waker.clone());
        }
        let frames = match features.contains(&Feature::SshCarrier) {
            true => match carriers::between_lines(speaker.clone(), &tell, &waker) {
                Ok(frames) => Some(frames),
                Err(error) => return refuse(&speaker, refusal(Trouble::Internal, error.to_string(), "")),
            },
            false => None,
        };
        let ears = Ears { commands: tell.clone(), heard: heard.clone(), waker: waker.clone(), frames };
        listen(input, decoder, signals, ears);
        let verdicts = self.agreement.verdicts;
        info!(udp_port = self.agreement.udp.port, cipher = ?self.agreement.cipher, verdicts, "agreed");
        speaker.say(&ServerMessage::Agreement(Box::new(self.agreement)));
        let (terms, lease) = (self.terms, self.lease);
        Keeper { terms, lease, speaker: speaker.clone(), commands: tell, waker: waker.clone() }
            .start(&heard, inbox);
        let drive = Drive {
            carrier: Some(self.carrier),
            ladder: None,
            streams: StreamSet::default(),
            commands,
            waker: waker.clone(),
            udp_timeout: UDP_TIMEOUT,
            outlet: outlet(speaker.clone()),
        };
        let wake = move || waker.wake();
        let result = match self.disk {
            Disk::Read(docroot, items, options) => {
                let source = Source::start(docroot, items, options, wake);
                send(drive, clock, &SenderConfig { link, rate, verdicts }, source, &heard)
            }
            Disk::Write(destination, options) => {
                let sink = Sink::start(destination, options, wake);
                receive(drive, clock, (link, features, verdicts), sink, &heard)
            }
        };
        conclude(&speaker, result, self.tells_stored)
    }
}

fn send(
    drive: Drive,
    clock: Clock,
    config: &SenderConfig,
    source: Result<Source, DiskError>,
    heard: &mpsc::SyncSender<Heard>,
) -> Result<Ending, DriveError> {
    let mut end = SendEnd::new(Sender::new(clock.now(), config), source?);
    let ending = drive_to_end(drive, clock, &mut end, heard)?;
    let outcome = Outcome { sent: Some(end.counters()), ..ending.outcome };
    Ok(Ending { outcome, ..ending })
}

fn receive(
    drive: Drive,
    clock: Clock,
    (link, features, verdicts): (LinkConfig, Vec<Feature>, bool),
    sink: Result<Sink, DiskError>,
    heard: &mpsc::SyncSender<Heard>,
) -> Result<Ending, DriveError> {
    let socket_buffer = drive.carrier.as_ref().map_or(0, UdpCarrier::receive_buffer);
    let config = ReceiverConfig { link, socket_buffer, features, verdicts };
    let mut end = ReceiveEnd::new(Receiver::new(clock.now(), &config), sink?);
    drive_to_end(drive, clock, &mut end, heard)
}

fn drive_to_end(
    drive: Drive,
    clock: Clock,
    end: &mut dyn End,
    heard: &mpsc::SyncSender<Heard>,
) -> Result<Ending, DriveError> {
    let mut observe = |news| {
        match news {
            // Not waited for: another comes soon.
            News::Progress(snapshot) => drop(heard.try_send(Heard::Progress(Instant::now(), snapshot))),
            News::Carrier(rung, _) => info!(carrier = rung.name(), "the client is heard on"),
            News::Sample(_) | News::Open(_) => {}
        }
    };
    drive.run(clock, end, &mut observe).inspect(|Ending { snapshot, .. }| {
        let rtt_ms = snapshot.rtt.map_or(0.0, |rtt| rtt.as_secs_f64() * 1e3);
        info!(rtt_ms, packets = snapshot.packets, lost = snapshot.lost_packets, "data moved");
    })
}

/// Says verdicts on a thread of its own: the client may be slow to listen.
fn outlet(speaker: Speaker) -> Outlet {
    let (tell, told) = mpsc::sync_channel(VERDICT_LINES);
    thread::spawn(move || told.into_iter().for_each(|line| speaker.say(&ServerMessage::Verdicts(line))));
    Outlet::new(move |line| {
        tell.try_send(line).map_err(|error| match error {
            mpsc::TrySendError::Full(line) | mpsc::TrySendError::Disconnected(line) => line,
        })
    })
}

fn conclude(speaker: &Speaker, result: Result<Ending, DriveError>, tells_stored: bool) -> ExitCode {
    match result {
        Ok(Ending { outcome, stored, .. }) => {
            let stored = if tells_stored { StoredFiles::messages(&stored) } else { Vec::new() };
            stored.into_iter().for_each(|stored| speaker.say(&ServerMessage::Stored(stored)));
            info!(files = outcome.files, bytes = outcome.bytes, failed = outcome.failed, "transfer ended");
            speaker.say(&ServerMessage::Outcome(outcome));
            ExitCode::SUCCESS
        }
        Err(error) => {
            warn!(trouble = ?error.trouble(), message = ?error.to_string(), "transfer failed");
            let cancel = Cancel { trouble: error.trouble(), message: error.to_string() };
            speaker.say(&ServerMessage::Cancel(cancel));
            ExitCode::FAILURE
        }
    }
}

/// Keeps the signals that ask for an end from this thread and those it starts, so that one of them can wait for them:
/// a worker that is stopped removes its partial files and tells the client why.
fn block_stop_signals() -> SigSet {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    if let Err(error) = signals.thread_block() {
        warn!(%error, "signals will end the session without a word");
    }
    signals
}

/// Bytes taken from the control channel at once.
const LISTEN_BYTES: usize = 64 << 10;

/// Where what the client says goes.
struct Ears {
    commands: mpsc::Sender<Command>,
    heard: mpsc::SyncSender<Heard>,
    waker: Waker,
    /// Where datagrams between the lines go, if that was agreed on.
    frames: Option<UnixStream>,
}

/// Lines that are no message: told once in a while, so that a client cannot fill the log, and taken slowly.
#[derive(Default)]
struct Noise {
    lines: u64,
    told: Option<Instant>,
}

/// Time between two words about such lines.
const NOISE_TOLD: Duration = Duration::from_secs(10);
/// Time that each of them costs its sender.
const NOISE_PAUSE: Duration = Duration::from_millis(1);

impl Noise {
    fn on_line(&mut self, what: &str) {
        self.lines += 1;
        if self.told.is_none_or(|told| told.elapsed() > NOISE_TOLD) {
            self.told = Some(Instant::now());
            warn!(lines = self.lines, "ignored on the control channel: {what}");
        }
        thread::sleep(NOISE_PAUSE);
    }
}

/// Reads the rest of the conversation on a thread of its own, which ends with the process. What is no message is
/// passed over: noise in the channel must not end a transfer that goes well.
fn listen(mut input: File, mut decoder: LineDecoder, signals: SigSet, ears: Ears) {
    let Ears { commands, heard, waker, frames } = ears;
    if frames.is_some() {
        decoder.take_frames();
    }
    let (stop, wake) = (commands.clone(), waker.clone());
    thread::spawn(move || {
        if signals.wait().is_ok() {
            let message = "the server is being stopped".to_owned();
            let _ = stop.send(Command::PeerCancelled(Cancel { trouble: Trouble::PeerLost, message }));
            wake.wake();
        }
    });
    thread::spawn(move || {
        let mut buffer = vec![0; LISTEN_BYTES];
        let mut noise = Noise::default();
        let last = loop {
            match decoder.poll_message() {
                Ok(Some(ClientMessage::Outcome(outcome))) => break Command::PeerOutcome(outcome),
                Ok(Some(ClientMessage::Cancel(cancel))) => break Command::PeerCancelled(cancel),
                Ok(Some(ClientMessage::Verdicts(line))) => {
                    let _ = commands.send(Command::Verdicts(line));
                    waker.wake();
                }
                Ok(Some(ClientMessage::SetRate(wish))) => {
                    let _ = heard.send(Heard::Wish(wish));
                }
                Ok(Some(ClientMessage::Stored(stored))) => {
                    let _ = commands.send(Command::PeerStored(stored));
                }
                Ok(Some(ClientMessage::Offer(_))) => noise.on_line("a second offer"),
                Ok(Some(ClientMessage::Sources(_))) => noise.on_line("sources after the agreement"),
                Err(error) => noise.on_line(&error.to_string()),
                Ok(None) => {
                    carriers::pass_frames(frames.as_ref(), &decoder.drain_frames());
                    match input.read(&mut buffer) {
                        Ok(0) | Err(_) => break Command::PeerGone,
                        Ok(count) => decoder.handle_bytes(buffer.get(..count).unwrap_or_default()),
                    }
                }
            }
        };
        // The transfer may have ended by itself meanwhile.
        let _ = commands.send(last);
        waker.wake();
    });
}
