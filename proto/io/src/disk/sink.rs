//! The receiving disk: stores what the receiver hands over. Not here: what belongs where.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use haul_proto::control::{Digest, Overwrite, ResumeCheck};
use haul_proto::disk::{DiskDone, DiskRequest};
use haul_proto::range_set::RangeSet;

use super::helper::Helper;
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
    /// Numbers of the files that are under their names; filled in while they get there.
    pub stored: Arc<Mutex<RangeSet>>,
    /// What happens to files that stand there.
    pub overwrite: Overwrite,
    /// How unfinished files are continued; they are kept unless it is none.
    pub resume: ResumeCheck,
}

/// The receiving disk of a session. Dropping it removes what is unfinished.
#[derive(Debug)]
pub struct Sink {
    stored: Arc<Mutex<RangeSet>>,
    writer: Helper<Writer>,
}

impl Sink {
    /// Starts to store into `destination`. `notify` is called when an answer has come.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        destination: Destination,
        options: SinkOptions,
        notify: impl Fn() + Send + 'static,
    ) -> Result<Self, DiskError> {
        let stored = Arc::clone(&options.stored);
        Ok(Self { stored, writer: Helper::start("haul-write", Writer::new(destination, options), notify)? })
    }

    /// The files that are under their names, by their numbers. They are durable once the disk has answered to
    /// [`DiskRequest::Finish`].
    #[must_use]
    pub fn stored(&self) -> Vec<Range<u64>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Hands over a request. Requests are done in the order in which they come.
    pub fn submit(&mut self, request: DiskRequest) {
        self.writer.ask(request);
    }

    /// The next answer, if there is one: one for each request.
    ///
    /// # Errors
    /// If the disk cannot go on: it is full, read-only or broken. The session must end.
    pub fn poll(&mut self) -> Result<Option<DiskDone>, DiskError> {
        self.writer.poll()?.transpose()
    }
}
