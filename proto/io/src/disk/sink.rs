//! The receiving disk: a thread that stores what the receiver hands over. Not here: what belongs where.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use haul_proto::control::{Digest, Trouble};
use haul_proto::disk::{DiskDone, DiskRequest};

use super::source::spawn;
use super::write::Writer;
use super::{Destination, DiskError};

/// How what comes is stored.
#[derive(Debug, Clone, Default)]
pub struct SinkOptions {
    /// Names partial files: the session's 16 hexadecimal digits.
    pub session: String,
    /// Keep times of modification and access.
    pub preserve_times: bool,
    /// Digest to check each file against.
    pub digest: Digest,
}

/// The receiving disk of a session. Dropping it removes what is unfinished, and joins its thread.
#[derive(Debug)]
pub struct Sink {
    requests: Option<Sender<DiskRequest>>,
    results: Receiver<Result<DiskDone, DiskError>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts to store into `destination`. `notify` is called after each answer.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        destination: Destination,
        options: SinkOptions,
        notify: impl Fn() + Send + Clone + 'static,
    ) -> Result<Self, DiskError> {
        // Both bounded by the receiver's pool of blocks and its manifest window.
        let (requests, request_receiver) = channel();
        let (result_sender, results) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(destination, options);
        let stopped = Arc::clone(&stop);
        let run = move || serve(writer, &request_receiver, &result_sender, &stopped, &notify);
        let thread = Some(spawn("haul-write", run)?);
        Ok(Self { requests: Some(requests), results, stop, thread })
    }

    /// Hands over a request. Requests are started in the order in which they come.
    pub fn submit(&mut self, request: DiskRequest) {
        if let Some(requests) = &self.requests {
            // Refused only after an error that poll tells.
            let _ = requests.send(request);
        }
    }

    /// The next answer, if there is one: one for each request.
    ///
    /// # Errors
    /// If the disk cannot go on: it is full, read-only or broken. The session must end.
    pub fn poll(&mut self) -> Result<Option<DiskDone>, DiskError> {
        match self.results.try_recv() {
            Ok(result) => result.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(DiskError::new(
                "write to",
                b"the disk",
                Trouble::Disk,
                "writing has ended after an error",
            )),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes files has panicked");
        }
    }
}

fn serve(
    mut writer: Writer,
    requests: &Receiver<DiskRequest>,
    results: &Sender<Result<DiskDone, DiskError>>,
    stop: &AtomicBool,
    notify: &impl Fn(),
) {
    for request in requests {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let result = writer.handle(request);
        let failed = result.is_err();
        if results.send(result).is_err() {
            break;
        }
        notify();
        if failed {
            break;
        }
    }
    writer.abandon();
}
