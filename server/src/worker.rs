//! Starts the worker of one session and bridges it to its SSH channel until one of them ends. It never looks into the
//! conversation. Whatever happens, the worker is gone and reaped afterwards, and the client hears how it ended.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream as StdUnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use haul_io::handover;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::doors::Doorkeeper;
use crate::front::{Front, SessionPermit, stopped};
use crate::logging::FILTER_VARIABLE;
use crate::policy::SessionPolicy;
use crate::shares::broker::Membership;
use crate::ssh::STDERR;

/// Bytes on their way from the worker to the client.
const BUFFER_BYTES: usize = 32 << 10;

/// A worker that takes nothing for so long hangs. Meanwhile the connection stands still, keep-alives included, so it
/// must stay below what the client's own keep-alives bear.
const STALL: Duration = Duration::from_secs(30);

/// From the client's end until the worker is asked to end, and until it is made to.
const ASK_AFTER: Duration = Duration::from_secs(2);
const KILL_AFTER: Duration = Duration::from_secs(10);

/// Exit status that tells the client: it was not the session that ended, something ended the session.
const LOST: u32 = 255;

/// What a session starts with.
pub(crate) struct WorkerStart {
    pub(crate) channel: Channel<Msg>,
    pub(crate) policy: SessionPolicy,
    /// Held until the worker is gone.
    pub(crate) permit: SessionPermit,
}

/// How the bridging ended.
enum Parting {
    Exited(io::Result<ExitStatus>),
    ClientGone,
    Stalled,
    StopOverdue,
}

/// Runs a session from start to end.
pub(crate) async fn serve(
    start: WorkerStart,
    program: &Path,
    front: &Front,
    shutdown: watch::Receiver<bool>,
) {
    let WorkerStart { channel, policy, permit } = start;
    let (mut from_client, to_client) = channel.split();
    match launch(&policy, program, front).await {
        Ok((mut child, socket, membership, doorkeeper)) => {
            info!(user = policy.user, worker = child.id(), "session started");
            let parting = bridge(&mut child, socket, &mut from_client, &to_client, shutdown).await;
            // It moves no more data: what it had goes to others.
            drop((membership, doorkeeper));
            // From here nobody reads the channel: without its queue the library drops what still comes.
            drop(from_client);
            part(parting, &mut child, &to_client).await;
        }
        Err(error) => {
            error!(%error, program = %program.display(), "worker not started");
            drop(from_client);
            farewell(
                &to_client,
                LOST,
                "hauld: the session's worker could not be started; see the server's log",
            )
            .await;
        }
    }
    drop(permit);
}

/// Starts the process and tells it its policy. One end of a socket pair is its standard input, on which the conversation
/// goes both ways, so that descriptors can be passed over it later. One end of another is its standard output: its lease
/// on the caps that sessions share.
async fn launch(
    policy: &SessionPolicy,
    program: &Path,
    front: &Front,
) -> io::Result<(Child, UnixStream, Option<Membership>, Option<Doorkeeper>)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(ours)?;
    let (of_broker, of_worker) = if policy.leased {
        UnixDatagram::pair().map(|(one, other)| (Some(one), Some(other)))?
    } else {
        (None, None)
    };
    let mut command = Command::new(program);
    command.arg0("hauld").args(["session", "--policy-on-stdin"]).env_clear().kill_on_drop(true);
    for name in [FILTER_VARIABLE, "RUST_LOG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(of_worker.map_or_else(Stdio::null, |lease| Stdio::from(OwnedFd::from(lease))))
        .stderr(Stdio::inherit());
    let child = command.spawn()?;
    // The command still holds the other end, which would hide the worker's end from us.
    drop(command);
    let bytes = policy.encode().map_err(io::Error::other)?;
    let (doorkeeper, sent) = open_door(policy, &socket, &bytes, front)?;
    socket.write_all(bytes.get(sent..).unwrap_or_default()).await?;
    let membership = of_broker.map(|lease| front.broker.join(&policy.user, lease)).transpose()?;
    Ok((child, socket, membership, doorkeeper))
}

/// Lets connections of HTTPS in: the worker's end of the socket over which they come goes with the first bytes of the
/// policy. Returns how many of them went.
fn open_door(
    policy: &SessionPolicy,
    socket: &UnixStream,
    bytes: &[u8],
    front: &Front,
) -> io::Result<(Option<Doorkeeper>, usize)> {
    let Some(https) = &policy.https else { return Ok((None, 0)) };
    let (ours, theirs) = UnixDatagram::pair()?;
    let sent = handover::send(socket, bytes, theirs.as_fd())?;
    Ok((Some(front.doors.open(&policy.session, https.token.as_bytes(), ours)), sent))
}

async fn bridge(
    child: &mut Child,
    socket: UnixStream,
    from_client: &mut ChannelReadHalf,
    to_client: &ChannelWriteHalf<Msg>,
    shutdown: watch::Receiver<bool>,
) -> Parting {
    let (from_worker, to_worker) = socket.into_split();
    let pid = child.id();
    tokio::select! {
        parting = carry_in(from_client, to_worker) => parting,
        status = async { carry_out(from_worker, to_client).await; child.wait().await } => Parting::Exited(status),
        () = stop(pid, shutdown) => Parting::StopOverdue,
    }
}

/// Client to worker. A worker that reads slowly slows the client down; one that does not read at all is given up.
///
/// The library opens the client's window when data arrives, not when it is taken, and its task waits for room in the
/// channel's queue, during which nothing goes out either. So a worker must go on reading even while it cannot write:
/// one that waits with both, as `cat` does, would stand still until it is given up.
async fn carry_in(from_client: &mut ChannelReadHalf, to_worker: OwnedWriteHalf) -> Parting {
    let mut to_worker = Some(to_worker);
    loop {
        match from_client.wait().await {
            None | Some(ChannelMsg::Close) => return Parting::ClientGone,
            Some(ChannelMsg::Data { data }) => {
                let Some(socket) = &mut to_worker else { continue };
                match timeout(STALL, socket.write_all(&data)).await {
                    Ok(Ok(())) => {}
                    // The worker has ended; its exit is seen on the other way.
                    Ok(Err(_)) => to_worker = None,
                    Err(_) => return Parting::Stalled,
                }
            }
            // Dropped, this half of the socket is shut down: the worker reads its end.
            Some(ChannelMsg::Eof) => to_worker = None,
            Some(_) => {}
        }
    }
}

/// Worker to client, as fast as the client's window allows, until the worker closes.
async fn carry_out(mut from_worker: OwnedReadHalf, to_client: &ChannelWriteHalf<Msg>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(count @ 1..) = from_worker.read(&mut buffer).await else { return };
        let bytes = buffer.get(..count).unwrap_or_default().to_vec();
        if to_client.data_bytes(bytes).await.is_err() {
            return;
        }
    }
}

/// At a stop asks the worker to end, with the way to its client still open; returns when it has taken too long.
async fn stop(pid: Option<u32>, mut shutdown: watch::Receiver<bool>) {
    stopped(&mut shutdown).await;
    signal(pid, Signal::SIGTERM);
    sleep(KILL_AFTER).await;
}

/// Brings the worker to its end and tells the client.
async fn part(parting: Parting, child: &mut Child, to_client: &ChannelWriteHalf<Msg>) {
    match parting {
        Parting::Exited(status) => tell(status, to_client).await,
        Parting::ClientGone => {
            let status = end(child).await;
            info!(status = ?status.ok().map(ExitStatus::into_raw), "session ended, client gone");
            // The client may have closed only the channel and wait for our close.
            let _ = to_client.close().await;
        }
        Parting::Stalled => {
            warn!("worker takes no data, killed");
            tell(kill_now(child).await, to_client).await;
        }
        Parting::StopOverdue => {
            warn!("worker does not stop, killed");
            tell(kill_now(child).await, to_client).await;
        }
    }
}

/// Its input is closed already. Most workers end by that.
async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    if let Ok(status) = timeout(ASK_AFTER, child.wait()).await {
        return status;
    }
    signal(child.id(), Signal::SIGTERM);
    match timeout(KILL_AFTER.saturating_sub(ASK_AFTER), child.wait()).await {
        Ok(status) => status,
        Err(_) => kill_now(child).await,
    }
}

async fn kill_now(child: &mut Child) -> io::Result<ExitStatus> {
    child.start_kill()?;
    child.wait().await
}

/// Only for a child that is not reaped yet: its id is still its own.
fn signal(pid: Option<u32>, signal: Signal) {
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended just now.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

async fn tell(status: io::Result<ExitStatus>, to_client: &ChannelWriteHalf<Msg>) {
    let (code, text) = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => (u32::try_from(code).unwrap_or(LOST), None),
            (None, signal) => (LOST, Some(killed_by(signal.unwrap_or_default()))),
        },
        Err(error) => (LOST, Some(format!("hauld: the session's worker is lost: {error}"))),
    };
    match &text {
        None => info!(status = code, "session ended"),
        Some(text) => warn!(text, "session lost"),
    }
    farewell(to_client, code, text.as_deref().unwrap_or_default()).await;
}

fn killed_by(signal: i32) -> String {
    format!(
        "hauld: the session's worker was killed by signal {signal}; nothing incomplete bears its final name; \
         start the transfer again"
    )
}

/// A line for the user if there is one, then the exit status. If the client is gone meanwhile there is nobody to tell.
async fn farewell(to_client: &ChannelWriteHalf<Msg>, status: u32, text: &str) {
    let tell = async {
        if !text.is_empty() {
            to_client.extended_data_bytes(STDERR, format!("{text}\r\n").into_bytes()).await?;
        }
        to_client.exit_status(status).await?;
        to_client.eof().await?;
        to_client.close().await
    };
    // A client that opens no window for the line is not waited for.
    let _ = timeout(STALL, tell).await;
}
