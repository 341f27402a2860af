//! One transfer over an open connection: offer, agreement, data, outcome. Not here: packets, presentation.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use haul_io::carrier::UdpCarrier;
use haul_io::disk::{
    After, Destination, Docroot, Filter, Sink, SinkOptions, Source, SourceItem, SourceOptions,
    resolve_destination, resolve_renamed,
};
use haul_io::drive::{Clock, Drive, End, StreamSet};
use haul_io::{Command, DriveError, Ending, News, Outlet, ReceiveEnd, SendEnd, Waker};
use haul_proto::constants::PROTOCOL_VERSION;
use haul_proto::control::{
    Agreement, Cancel, ClientMessage, Direction, Feature, LineDecoder, Offer, Outcome, Overwrite, PathText,
    RateGrant, RateTerms, Refusal, ResumeCheck, SecretHalf, Selection, ServerMessage, StoredFiles, Token,
    Trouble, encode_line, negotiation,
};
use haul_proto::crypto::{Seat, SessionSecret};
use haul_proto::ladder::{Allowed, Ladder, Rung};
use haul_proto::link::LinkConfig;
use haul_proto::receiver::{Receiver, ReceiverConfig};
use haul_proto::sender::{Sender, SenderConfig};
use haul_proto::verdict::Verdicts;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use crate::config::{Route, TransferRequest};
use crate::error::{self, ClientError};
use crate::input::{Input, Said};
use crate::progress::{Carrier, Presenter, Start, Summary};
use crate::rate_change;
use crate::sources::{self, Wanted};
use crate::ssh::{ChannelEvent, Connection};
use crate::streams::{self, Https};

/// The program as it introduces itself.
const PROGRAM: &str = concat!("haul ", env!("CARGO_PKG_VERSION"));

/// A rate change that the server does not take within this is given up.
const SAY_TIMEOUT: Duration = Duration::from_secs(3);

/// Changes of one grant that are shown.
const MOST_CHANGES: usize = 8;

/// Servers that are not busy answer an offer sooner.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// After the data has moved the server has this long to say its last word.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(10);

/// The same where the server has to remove or move what was sent, before its last word.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Lines of verdicts that wait for the server to take them.
const VERDICTS_WAITING: usize = 64;

/// Names of sources that are told in an offer.
const MOST_NAMES: usize = 64;

/// News that may wait to be shown, some three seconds' worth; what does not fit is dropped.
const NEWS_WAITING: usize = 64;

/// Runs the transfer to its end.
///
/// # Errors
/// If it did not come to an orderly end; failed files alone are no error, they are in the summary.
pub async fn transfer(
    request: &TransferRequest,
    connection: Connection,
    presenter: &mut Presenter,
    interrupted: watch::Receiver<bool>,
    lasting: &mut Lasting,
) -> Result<Summary, ClientError> {
    let Lasting { wish, input, renamed, .. } = lasting;
    let (decoder, last_words, granted) = (LineDecoder::default(), Vec::new(), *wish);
    let tells_stored = request.wanted.after.is_some();
    let mut conversation = Conversation {
        connection,
        decoder,
        last_words,
        wish,
        granted,
        renamed,
        tells_stored,
        arrived: Vec::new(),
        frames: None,
    };
    let result = conversation.run(request, presenter, interrupted, input).await;
    conversation.show_words(presenter);
    conversation.connection.disconnect().await;
    result
}

/// What goes on from one attempt at a transfer to the next.
#[derive(Debug)]
pub struct Lasting {
    /// What the user says meanwhile; none if nobody does.
    input: Option<Input>,
    listens: bool,
    /// The rate settings the user wants.
    wish: RateTerms,
    /// The single source has got the destination's name.
    renamed: bool,
}

impl Lasting {
    /// Before the first attempt; without an `input` the user's is opened when there is something to change.
    #[must_use]
    pub const fn new(request: &TransferRequest, input: Option<Input>) -> Self {
        let listens = input.is_some();
        Self { input, listens, wish: request.rate(), renamed: false }
    }

    /// Listens to the user from now on.
    pub fn listen(&mut self, request: &TransferRequest) {
        if !std::mem::replace(&mut self.listens, true) {
            self.input = Input::open(&request.presentation);
        }
    }
}

struct Conversation<'a> {
    connection: Connection,
    decoder: LineDecoder,
    /// What the server wrote for the user most recently, for an error that has nothing better to say.
    last_words: Vec<u8>,
    /// The rate settings the user wants, and what is in force.
    wish: &'a mut RateTerms,
    /// See [`Lasting`].
    renamed: &'a mut bool,
    granted: RateTerms,
    /// Datagrams that came between lines, and where they go once that stream is open.
    arrived: Vec<u8>,
    frames: Option<streams::Frames>,
    /// The server does something about the sources that are stored here.
    tells_stored: bool,
}

impl Conversation<'_> {
    async fn run(
        &mut self,
        request: &TransferRequest,
        presenter: &mut Presenter,
        interrupted: watch::Receiver<bool>,
        input: &mut Option<Input>,
    ) -> Result<Summary, ClientError> {
        let half = random_half()?;
        let RateTerms { policy, target_rate, min_rate } = *self.wish;
        let offer = offer(request, half.clone(), *self.renamed)?;
        let offer = Offer { policy, target_rate, min_rate, ..offer };
        let mut stop = interrupted.clone();
        let agreement = tokio::select! {
            agreement = self.negotiate(request, &offer, presenter) => agreement?,
            _ = stop.wait_for(|stop| *stop) => return Err(ClientError::Interrupted),
        };
        negotiation::check(&offer, &agreement)?;
        check_features(request, &offer, &agreement)?;
        for change in &agreement.changes {
            presenter.notice(&crate::sanitize::text(change));
        }
        self.granted = agreement.rate();
        let address = self.data_address(&agreement)?;
        let allowed = streams::allowed(request, &agreement)?;
        let start = Start {
            session: agreement.session.clone(),
            direction: direction(request),
            host: request.host.clone(),
            user: request.user.clone(),
            address: address.to_string(),
            carrier: allowed.first().map(Carrier::from).unwrap_or_default(),
        };
        presenter.start(&start);
        if let Some(reporter) = presenter.management() {
            reporter.start(&start, request, self.granted);
        }
        presenter.set_rate(self.granted, input.is_some());
        let begun = Instant::now();
        let https = Https::new(request, &agreement, self.connection.peer_address.ip().to_string())?;
        if agreement.features.contains(&Feature::SshCarrier) {
            self.decoder.take_frames();
        }
        let destination = destination(request, *self.renamed)?;
        *self.renamed |= destination.as_ref().map_or(agreement.renamed, Destination::renames);
        let running = Running::start(request, &agreement, (&half, destination), (address, allowed))?;
        let (ending, sent) = self.accompany(running, https, presenter, interrupted, input).await?;
        Ok(Summary { carrier: presenter.carrier(), ..summary(ending, sent, begun.elapsed()) })
    }

    async fn say(&mut self, message: &ClientMessage) -> Result<(), ClientError> {
        self.connection.send(&encode_line(message)).await
    }

    /// The next message of the server. Lines that are none are passed over.
    async fn hear(&mut self, presenter: &mut Presenter) -> Result<ServerMessage, ClientError> {
        loop {
            match self.decoder.poll_message() {
                Ok(Some(message)) => return Ok(message),
                Err(error) => tracing::warn!(%error, "a control line is ignored"),
                Ok(None) if self.pass_frames().await => {}
                Ok(None) => match self.connection.recv().await? {
                    ChannelEvent::Data(bytes) => self.decoder.handle_bytes(&bytes),
                    ChannelEvent::Stderr(bytes) => {
                        self.show_words(presenter);
                        self.last_words = bytes;
                    }
                    ChannelEvent::ExitStatus(_) | ChannelEvent::ExitSignal(_) => {}
                    ChannelEvent::Closed => return Err(self.ended()),
                },
            }
        }
    }

    /// Hands on datagrams that came between lines. `true` if there were any. Dropping the future loses nothing.
    async fn pass_frames(&mut self) -> bool {
        if self.arrived.is_empty() {
            self.arrived = self.decoder.drain_frames();
        }
        if self.arrived.is_empty() {
            return false;
        }
        match &self.frames {
            Some(frames) => {
                if let Ok(place) = frames.reserve().await {
                    place.send(std::mem::take(&mut self.arrived));
                }
                self.arrived.clear();
            }
            None => self.arrived.clear(),
        }
        true
    }

    /// Shows what the server wrote. The latest words wait: if the session ends with them, they belong to the error.
    fn show_words(&mut self, presenter: &mut Presenter) {
        let words = std::mem::take(&mut self.last_words);
        if !words.is_empty() {
            presenter.server_words(&words);
        }
    }

    fn ended(&mut self) -> ClientError {
        let words = std::mem::take(&mut self.last_words);
        let words = crate::sanitize::bytes(words.trim_ascii());
        let words = words.strip_prefix("hauld: ").unwrap_or(&words);
        let message = if words.is_empty() {
            "the server ended the session before the transfer was complete".to_owned()
        } else {
            format!("the server ended the session before the transfer was complete; it said: {words}")
        };
        ClientError::trouble(Trouble::PeerLost, message)
    }

    async fn negotiate(
        &mut self,
        request: &TransferRequest,
        offer: &Offer,
        presenter: &mut Presenter,
    ) -> Result<Agreement, ClientError> {
        self.say(&ClientMessage::Offer(Box::new(offer.clone()))).await?;
        if let Route::Download { sources, .. } = &request.direction
            && offer.selection.as_ref().is_some_and(|selection| selection.more_sources)
        {
            for message in sources::messages(sources, &request.wanted.targets) {
                self.say(&ClientMessage::Sources(message)).await?;
            }
        }
        // A queue is no failure, but whoever waits shall know.
        if let Ok(answer) = timeout(ANSWER_PATIENCE, self.await_agreement(presenter)).await {
            return answer;
        }
        presenter.notice("the server has not answered yet; it may have no free UDP port at the moment");
        self.await_agreement(presenter).await
    }

    async fn await_agreement(&mut self, presenter: &mut Presenter) -> Result<Agreement, ClientError> {
        match self.hear(presenter).await? {
            ServerMessage::Agreement(agreement) => Ok(*agreement),
            ServerMessage::Refusal(refusal) => Err(refusal.into()),
            ServerMessage::Cancel(cancel) => Err(cancel.into()),
            ServerMessage::Outcome(_)
            | ServerMessage::Rate(_)
            | ServerMessage::Verdicts(_)
            | ServerMessage::Stored(_) => {
                Err(ClientError::trouble(Trouble::Protocol, "the server ended a transfer that had not begun"))
            }
        }
    }

    /// Where the datagrams go: the address that SSH was reached on, unless the server names another.
    fn data_address(&self, agreement: &Agreement) -> Result<SocketAddr, ClientError> {
        let ip = match agreement.udp.addresses.first() {
            None => self.connection.peer_address.ip(),
            Some(address) => address.parse().map_err(|_| {
                ClientError::trouble(Trouble::Protocol, "the server named a data address that is none")
            })?,
        };
        let mut address = SocketAddr::new(ip, agreement.udp.port);
        if let (SocketAddr::V6(to), SocketAddr::V6(ssh)) = (&mut address, self.connection.peer_address) {
            to.set_scope_id(ssh.scope_id());
        }
        Ok(address)
    }

    /// Keeps the conversation going beside the data, until both have ended.
    async fn accompany(
        &mut self,
        mut running: Running,
        https: Option<Https>,
        presenter: &mut Presenter,
        mut interrupted: watch::Receiver<bool>,
        input: &mut Option<Input>,
    ) -> Result<(Ending, Option<Outcome>), ClientError> {
        let mut last_word = None;
        let mut listening = true;
        let mut stopping = false;
        loop {
            tokio::select! {
                result = &mut running.thread => {
                    while let Ok(news) = running.news.try_recv() {
                        presenter.news(&news);
                    }
                    let result = result.map_err(|error| ClientError::Internal { message: error.to_string() })?;
                    if let (Err(DriveError::PeerGone), Some(lost)) = (&result, running.lost.take()) {
                        return Err(lost);
                    }
                    return self.conclude(result, last_word, running.peer, presenter).await;
                }
                message = self.hear(presenter), if listening => {
                    listening = self.take_message(message, &mut running, &mut last_word, presenter);
                }
                Some(news) = running.news.recv() => presenter.news(&news),
                Some(rung) = running.opens.recv() => self.open(rung, https.as_ref(), &running),
                Some(line) = running.verdicts.recv(), if listening => {
                    if let Err(error) = self.say(&ClientMessage::Verdicts(line)).await {
                        running.lost = Some(error);
                        running.tell(Command::PeerGone);
                        listening = false;
                    }
                }
                said = next_said(input), if listening => match said {
                    Some(said) => self.act(said, presenter).await,
                    None => *input = None,
                },
                _ = interrupted.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    running.tell(Command::Interrupt);
                }
            }
        }
    }

    /// Opens streams that the ladder wants.
    fn open(&mut self, rung: Rung, https: Option<&Https>, running: &Running) {
        let ears = streams::Ears { commands: running.commands.clone(), waker: running.waker.clone() };
        match (rung, https) {
            (Rung::Https, Some(https)) => https.open(ears),
            (Rung::Ssh, _) => {
                match self.connection.frame_writer().map(|w| streams::between_lines(&ears, w)) {
                    Some(Ok(frames)) => self.frames = Some(frames),
                    Some(Err(error)) => running.tell(Command::StreamFailed(rung, error.to_string())),
                    None => {
                        let reason = "--ssh-command has the SSH channel".to_owned();
                        running.tell(Command::StreamFailed(rung, reason));
                    }
                }
            }
            _ => running.tell(Command::StreamFailed(rung, "the server has no such carrier".to_owned())),
        }
    }

    /// What the server says while the data moves; `false` if it is the last that is listened to.
    fn take_message(
        &mut self,
        message: Result<ServerMessage, ClientError>,
        running: &mut Running,
        last_word: &mut Option<Outcome>,
        presenter: &mut Presenter,
    ) -> bool {
        match message {
            Ok(ServerMessage::Agreement(_)) => return true,
            Ok(ServerMessage::Rate(grant)) => {
                self.take_grant(&grant, running, presenter);
                return true;
            }
            Ok(ServerMessage::Stored(stored)) => {
                running.tell(Command::PeerStored(stored));
                return true;
            }
            Ok(ServerMessage::Verdicts(line)) => {
                running.tell(Command::Verdicts(line));
                return true;
            }
            Ok(ServerMessage::Outcome(outcome)) => {
                *last_word = Some(outcome.clone());
                running.tell(Command::PeerOutcome(outcome));
            }
            Ok(ServerMessage::Cancel(cancel)) => running.tell(Command::PeerCancelled(cancel)),
            Ok(ServerMessage::Refusal(Refusal { trouble, message, .. })) => {
                running.tell(Command::PeerCancelled(Cancel { trouble, message }));
            }
            Err(error) => {
                running.lost = Some(error);
                running.tell(Command::PeerGone);
            }
        }
        false
    }

    /// Other rate settings are in force.
    fn take_grant(&mut self, grant: &RateGrant, running: &Running, presenter: &mut Presenter) {
        self.granted = grant.held_to(*self.wish);
        // Whichever end sends: a receiving one has nothing to do with it.
        running.tell(Command::SetRate(self.granted.into()));
        for change in grant.changes.iter().take(MOST_CHANGES) {
            presenter.notice(&crate::sanitize::text(change));
        }
        presenter.rate(self.granted);
    }

    /// Does what the user said: the server decides about rates, also about those of this end.
    async fn act(&mut self, said: Said, presenter: &mut Presenter) {
        let change = match said {
            Said::Change(change) => change,
            Said::Help => return presenter.notice(rate_change::KEYS),
            Said::Wrong(reason) => return presenter.problem(&crate::sanitize::text(&reason)),
        };
        match change.apply(*self.wish, self.granted, presenter.actual_rate()) {
            Ok(wish) => {
                *self.wish = wish;
                // A server that takes nothing must not hold up the transfer. Listening finds out what is wrong.
                let said = timeout(SAY_TIMEOUT, self.say(&ClientMessage::SetRate(wish))).await;
                if !matches!(said, Ok(Ok(()))) {
                    presenter.problem("the server did not take the rate change");
                }
            }
            Err(reason) => presenter.problem(&reason),
        }
    }

    /// Tells the server how it ended, and hears the server's last word.
    async fn conclude(
        &mut self,
        result: Result<Ending, DriveError>,
        last_word: Option<Outcome>,
        peer: SocketAddr,
        presenter: &mut Presenter,
    ) -> Result<(Ending, Option<Outcome>), ClientError> {
        match result {
            Ok(ending) if last_word.is_some() => Ok((ending, last_word)),
            Ok(ending) => {
                let stored =
                    if self.tells_stored { StoredFiles::messages(&ending.stored) } else { Vec::new() };
                for stored in stored {
                    self.say(&ClientMessage::Stored(stored)).await?;
                }
                self.say(&ClientMessage::Outcome(ending.outcome.clone())).await?;
                let patience = if self.tells_stored { SETTLE_TIMEOUT } else { LAST_WORD_TIMEOUT };
                // All is stored here. A server that says nothing more takes nothing away from that.
                let last_word = async {
                    loop {
                        match self.hear(presenter).await {
                            Ok(ServerMessage::Outcome(outcome)) => return Some(outcome),
                            // Said before the server heard that it is over.
                            Ok(ServerMessage::Rate(_)) => {}
                            _ => return None,
                        }
                    }
                };

                let sent = timeout(patience, last_word).await.unwrap_or_default();
                Ok((ending, sent))
            }
            Err(DriveError::PeerGone) => Err(self.ended()),
            Err(error) => {
                if !matches!(error, DriveError::Cancelled(_)) {
                    let cancel = Cancel { trouble: error.trouble(), message: error.to_string() };
                    let _ = timeout(Duration::from_secs(1), self.say(&ClientMessage::Cancel(cancel))).await;
                }
                Err(client_error(error, peer))
            }
        }
    }
}

/// What the user says next; for ever silent without an input.
async fn next_said(input: &mut Option<Input>) -> Option<Said> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}

fn client_error(error: DriveError, peer: SocketAddr) -> ClientError {
    match error {
        DriveError::UdpSilent { waited, rejected, local, .. } => {
            error::udp_silent(peer, waited, rejected, local)
        }
        DriveError::NoCarrier(_) => ClientError::Trouble {
            trouble: error.trouble(),
            message: error.to_string(),
            remedy: "let UDP, or the TCP port of the server's HTTPS, pass in the firewalls; name a --proxy if there is \
                     one; --carrier ssh needs the SSH connection only"
                .to_owned(),
        },
        DriveError::Cancelled(cancel) => cancel.into(),
        DriveError::Interrupted => ClientError::Interrupted,
        error => ClientError::trouble(error.trouble(), error.to_string()),
    }
}

/// The data plane at work on its own thread.
struct Running {
    thread: JoinHandle<Result<Ending, DriveError>>,
    commands: mpsc::Sender<Command>,
    waker: Waker,
    news: tokio::sync::mpsc::Receiver<News>,
    /// Kinds of streams that are wanted.
    opens: tokio::sync::mpsc::UnboundedReceiver<Rung>,
    /// What this end needs, for the server.
    verdicts: tokio::sync::mpsc::Receiver<Verdicts>,
    peer: SocketAddr,
    lost: Option<ClientError>,
}

impl Running {
    fn start(
        request: &TransferRequest,
        agreement: &Agreement,
        (half, destination): (&SecretHalf, Option<Destination>),
        (peer, allowed): (SocketAddr, Allowed),
    ) -> Result<Self, ClientError> {
        let cannot = |error: std::io::Error| {
            ClientError::trouble(Trouble::UdpPort, format!("cannot open a UDP socket to {peer}: {error}"))
        };
        let waker = Waker::new().map_err(cannot)?;
        let mut carrier = None;
        if allowed.udp {
            match UdpCarrier::connect(peer) {
                Ok(socket) => carrier = Some(socket),
                Err(error) if allowed.https || allowed.ssh => tracing::info!(%error, "no UDP socket"),
                Err(error) => return Err(cannot(error)),
            }
        }
        if let Some(carrier) = &mut carrier {
            carrier.set_dscp(request.dscp.unwrap_or_default());
        }
        let (commands, inbox) = mpsc::channel();
        let (tell, news) = tokio::sync::mpsc::channel(NEWS_WAITING);
        let clock = Clock::default();
        let socket_buffer = carrier.as_ref().map_or(0, UdpCarrier::receive_buffer);
        let place = (peer, socket_buffer);
        let mut end = make_end(request, agreement, (half, destination), place, clock, &waker)?;
        let (wants, opens) = tokio::sync::mpsc::unbounded_channel();
        let (tell_verdicts, verdicts) = tokio::sync::mpsc::channel(VERDICTS_WAITING);
        let outlet = Outlet::new(move |line| {
            tell_verdicts.try_send(line).map_err(tokio::sync::mpsc::error::TrySendError::into_inner)
        });
        let drive = Drive {
            carrier,
            ladder: Ladder::new(clock.now(), allowed),
            streams: StreamSet::default(),
            commands: inbox,
            waker: waker.clone(),
            udp_timeout: request.udp_timeout,
            outlet,
        };
        let thread = tokio::task::spawn_blocking(move || {
            let result = drive.run(clock, end.as_mut(), &mut |news| {
                if let News::Open(rung) = news {
                    let _ = wants.send(rung);
                } else {
                    let _ = tell.try_send(news);
                }
            });
            if result.is_err() {
                // How far it came, for the next attempt and for the last line.
                let _ = tell.try_send(News::Progress(end.snapshot()));
            }
            result
        });
        Ok(Self { thread, commands, waker, news, opens, verdicts, peer, lost: None })
    }

    fn tell(&self, command: Command) {
        // The thread may have ended by itself; then there is nobody to tell.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

fn make_end(
    request: &TransferRequest,
    agreement: &Agreement,
    (half, destination): (&SecretHalf, Option<Destination>),
    (peer, socket_buffer): (SocketAddr, u64),
    clock: Clock,
    waker: &Waker,
) -> Result<Box<dyn End + Send>, ClientError> {
    let secret = SessionSecret::new(agreement.cipher, &agreement.session, half, &agreement.secret);
    let link = LinkConfig {
        seat: Seat::Client,
        connection_id: agreement.connection_id,
        secret,
        peer: Some(peer),
        proven: None,
        challenge_key: random_half()?,
    };
    let waker = waker.clone();
    let wake = move || waker.wake();
    let system = Docroot::whole_system().map_err(disk_error)?;
    match &request.direction {
        Route::Upload { sources, .. } => {
            let (digest, verdicts, resume) = (agreement.digest, agreement.verdicts, request.resume);
            let filter = Filter::new(&request.wanted.selection).map_err(disk_error)?;
            let items = local_items(&system, sources, &request.wanted)?;
            let after = local_after(&request.wanted)?;
            let options = SourceOptions { digest, filter, after, verdicts, resume };
            let source = Source::start(system, items, options, wake).map_err(disk_error)?;
            let config = SenderConfig { link, rate: agreement.rate().into(), verdicts };
            Ok(Box::new(SendEnd::new(Sender::new(clock.now(), &config), source)))
        }
        Route::Download { .. } => {
            let nowhere = || ClientError::Internal { message: "a download has no destination".to_owned() };
            let destination = destination.ok_or_else(nowhere)?;
            let options = SinkOptions {
                session: agreement.session.clone(),
                preserve_times: request.preserve_times,
                digest: agreement.digest,
                overwrite: request.overwrite,
                resume: request.resume,
                ..SinkOptions::default()
            };
            let sink = Sink::start(destination, options, wake).map_err(disk_error)?;
            let (mut features, verdicts) = (agreement.features.clone(), agreement.verdicts);
            // A server makes no links here that nobody asked for.
            let links = request.wanted.selection.symbolic_links.copies();
            features.retain(|feature| *feature != Feature::Links || links);
            let config = ReceiverConfig { link, socket_buffer, features, verdicts };
            Ok(Box::new(ReceiveEnd::new(Receiver::new(clock.now(), &config), sink)))
        }
    }
}

/// Where a download lands; made if it is to be. None for an upload.
fn destination(request: &TransferRequest, renamed: bool) -> Result<Option<Destination>, ClientError> {
    let Route::Download { sources, destination } = &request.direction else {
        return Ok(None);
    };
    let system = Docroot::whole_system().map_err(disk_error)?;
    let count = source_count(sources.len(), &request.wanted);
    let path = absolute(destination)?;
    // The docroot itself has no name to give away: its entries need a folder to land in.
    let create = request.create_destination || sources.iter().any(is_docroot);
    let destination = if renamed {
        resolve_renamed(&system, &path)
    } else {
        resolve_destination(&system, &path, create, count)
    };
    destination.map(Some).map_err(disk_error)
}

/// Whether the two sides are to talk about each file before it is sent; that costs a round trip. An upload leaves it
/// to the server, a download looks whether anything can be there.
fn wants_verdicts(request: &TransferRequest, renamed: bool) -> Result<bool, ClientError> {
    if request.overwrite == Overwrite::Always && request.resume == ResumeCheck::None {
        return Ok(false);
    }
    match &request.direction {
        Route::Upload { .. } => Ok(true),
        // Nothing is in a folder that is yet to be made.
        Route::Download { destination, .. } if request.create_destination && !destination.exists() => {
            Ok(false)
        }
        Route::Download { sources, .. } => {
            let names = names_told(sources.iter().map(PathText::as_bytes), &request.wanted);
            let names = || names.iter().map(PathText::as_bytes);
            Ok(destination(request, renamed)?.is_some_and(|destination| destination.may_hold(names())))
        }
    }
}

/// The last names of the paths; none if one has none, or if they are too many to be told.
fn names_told<'a>(paths: impl ExactSizeIterator<Item = &'a [u8]>, wanted: &Wanted) -> Vec<PathText> {
    let renamed = !wanted.targets.is_empty() || wanted.selection.source_base.is_some();
    if renamed || paths.len() > MOST_NAMES {
        return Vec::new();
    }
    let names = paths.map(|path| {
        let name = path.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty());
        name.filter(|name| *name != b"." && *name != b"..").map(PathText::new)
    });
    names.collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// What is sent from here, and where it lands.
fn local_items(
    system: &Docroot,
    sources: &[PathBuf],
    wanted: &Wanted,
) -> Result<Vec<SourceItem>, ClientError> {
    let paths = sources.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    let base = wanted.selection.source_base.as_ref();
    let base = base.map(|base| absolute(Path::new(OsStr::from_bytes(base.as_bytes())))).transpose()?;
    SourceItem::list(system, paths, &wanted.targets, base.as_deref()).map_err(disk_error)
}

/// What happens to the sources here afterwards.
fn local_after(wanted: &Wanted) -> Result<Option<After>, ClientError> {
    let wished = wanted.after.as_ref().filter(|after| after.remove || after.move_to.is_some());
    let Some(after) = wished else { return Ok(None) };
    let move_to = after.move_to.as_ref().map(|path| absolute(Path::new(OsStr::from_bytes(path.as_bytes()))));
    Ok(Some(After {
        move_to: move_to.transpose()?,
        remove_empty_folders: after.remove_empty_folders,
        remove_empty_sources: after.remove_empty_sources,
    }))
}

/// How many sources there are, as far as it decides how the destination is read: those of a list need a folder.
fn source_count(named: usize, wanted: &Wanted) -> u32 {
    if wanted.needs_folder() { u32::MAX } else { u32::try_from(named).unwrap_or(u32::MAX) }
}

/// Whether the server understands all that the transfer needs.
fn check_features(
    request: &TransferRequest,
    offer: &Offer,
    agreement: &Agreement,
) -> Result<(), ClientError> {
    let wanted = &request.wanted;
    let needed = match request.direction {
        Route::Upload { .. } => wanted.needed_of_a_receiver(),
        Route::Download { .. } => wanted.needed_of_a_sender(offer.selection.as_deref()),
    };
    let download = matches!(request.direction, Route::Download { .. });
    if download && offer.verdicts && !agreement.verdicts {
        return Err(ClientError::trouble(
            Trouble::Incompatible,
            format!(
                "{} is too old for --overwrite and -k; update hauld there, or use --overwrite=always -k0",
                crate::sanitize::text(&agreement.program)
            ),
        ));
    }
    if needed.iter().all(|feature| agreement.features.contains(feature)) {
        return Ok(());
    }
    Err(ClientError::trouble(
        Trouble::Incompatible,
        format!(
            "{} is too old for what the options ask of it; update hauld there, or leave out lists, filters and links",
            crate::sanitize::text(&agreement.program)
        ),
    ))
}

/// Whether a remote path means the docroot: nothing in it but slashes and dots.
fn is_docroot(path: &PathText) -> bool {
    path.as_bytes().split(|&byte| byte == b'/').all(|name| name.is_empty() || name == b".")
}

fn disk_error(error: haul_io::disk::DiskError) -> ClientError {
    ClientError::trouble(error.trouble, error.to_string())
}

/// The path from the root, as bytes; a slash at its end is kept, because it says "folder".
fn absolute(path: &Path) -> Result<Vec<u8>, ClientError> {
    let full = std::path::absolute(path).map_err(|error| {
        ClientError::trouble(Trouble::NotFound, format!("the current folder is gone: {error}"))
    })?;
    let mut bytes = full.as_os_str().as_bytes().to_vec();
    if path.as_os_str().as_bytes().ends_with(b"/") && !bytes.ends_with(b"/") {
        bytes.push(b'/');
    }
    Ok(bytes)
}

fn random_half() -> Result<SecretHalf, ClientError> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ClientError::Internal { message: "this system has no random numbers".to_owned() })?;
    Ok(SecretHalf::new(bytes))
}

const fn direction(request: &TransferRequest) -> Direction {
    match request.direction {
        Route::Upload { .. } => Direction::Upload,
        Route::Download { .. } => Direction::Download,
    }
}

fn offer(request: &TransferRequest, secret: SecretHalf, renamed: bool) -> Result<Offer, ClientError> {
    let wanted = &request.wanted;
    let (sources, count, destination, (selection, names)) = match &request.direction {
        Route::Upload { sources, destination } => {
            let names = names_told(sources.iter().map(|path| path.as_os_str().as_bytes()), wanted);
            (Vec::new(), sources.len(), destination.clone(), (None, names))
        }
        Route::Download { sources, .. } => {
            let more_sources = wanted.follow_the_offer(sources);
            let selection = Selection { more_sources, ..wanted.selection.clone() };
            let selection = (selection != Selection::default()).then(|| Box::new(selection));
            let named = if more_sources { Vec::new() } else { sources.clone() };
            (named, sources.len(), PathText::default(), (selection, Vec::new()))
        }
    };
    Ok(Offer {
        versions: vec![PROTOCOL_VERSION],
        program: PROGRAM.to_owned(),
        direction: direction(request),
        sources,
        source_count: source_count(count, wanted),
        destination,
        create_destination: request.create_destination,
        preserve_times: request.preserve_times,
        policy: request.policy,
        target_rate: request.target_rate,
        min_rate: request.min_rate,
        ciphers: request.ciphers.clone(),
        digest: request.digest,
        udp_port: request.udp_port,
        dscp: request.dscp,
        overwrite: request.overwrite,
        resume: request.resume,
        verdicts: wants_verdicts(request, renamed)?,
        renamed: renamed && matches!(request.direction, Route::Upload { .. }),
        names,
        features: Feature::ALL.to_vec(),
        selection,
        token: token(request)?,
        after: wanted.after.clone().map(Box::new),
        secret,
    })
}

/// The application's token, as the wire takes it.
fn token(request: &TransferRequest) -> Result<Option<Token>, ClientError> {
    let text = request.plan.application.token.as_ref().map(|token| token.as_bytes().to_vec());
    let token = text.map(|text| String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned()));
    token.map(|text| text.and_then(Token::try_from)).transpose().map_err(|reason| {
        ClientError::usage(format!("the token cannot be sent: {reason}"), "check -W or HAUL_TOKEN")
    })
}

/// The receiving side judges the files; the sending side knows what was lost.
fn summary(ending: Ending, last_word: Option<Outcome>, elapsed: Duration) -> Summary {
    let Ending { mut outcome, snapshot, .. } = ending;
    let sent = last_word.as_ref().and_then(|outcome| outcome.sent);
    // A sending server adds what it could not do about its sources.
    if let Some(last) = last_word.filter(|last| last.failed > outcome.failed) {
        (outcome.failed, outcome.failures) = (last.failed, last.failures);
    }
    Summary {
        files: outcome.files,
        bytes: outcome.bytes,
        skipped: outcome.skipped,
        skipped_bytes: outcome.skipped_bytes,
        resumed_bytes: outcome.resumed_bytes,
        failed: outcome.failed,
        failures: outcome.failures,
        seconds: elapsed.as_secs_f64(),
        carrier: Carrier::Udp,
        rtt_ms: snapshot.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        packets: sent.map_or(snapshot.packets, |sent| sent.packets),
        lost_packets: sent.map_or(snapshot.lost_packets, |sent| sent.lost_packets),
        retransmitted_bytes: sent.map_or(snapshot.retransmitted_bytes, |sent| sent.retransmitted_bytes),
        limits: sent.map_or(snapshot.limits, |sent| sent.limits),
        attempts: 1,
    }
}
