//! Work on files that is done at once where there is nothing to wait for, and else by a thread of its own.
//!
//! Bytes that are in memory are copied sooner than another thread is woken, and are then in the cache of the core that
//! wants them: on two cores this moves 1.2 to 1.4 times as much as a thread for all of it (`bench loopback`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use haul_proto::control::Trouble;
use nix::errno::Errno;

use super::DiskError;

/// Work that comes in requests, each of which gets one answer.
pub(super) trait Work: Send + 'static {
    /// What is to be done.
    type Request: Send + 'static;
    /// What came of it.
    type Answer: Send + 'static;

    /// Does it at once, or gives it back if that may mean to wait: for a disk, or for another thread.
    fn try_at_once(&mut self, request: Self::Request) -> Result<Self::Answer, Self::Request>;

    /// Whether the next request may well be one that can be done at once.
    fn may_be_done_at_once(&self) -> bool;

    /// Does it, however long it takes.
    fn wait_for(&mut self, request: Self::Request) -> Self::Answer;
}

enum Order<W: Work> {
    /// Take over: do what is asked until nothing is left.
    TakeOver(W),
    Do(W::Request),
}

struct Done<W: Work> {
    answer: W::Answer,
    /// Comes back when nothing is left to do.
    work: Option<W>,
}

/// Somebody who works, here or on a thread of its own. Requests are done in order. Dropping it ends the work after the
/// request in hand.
#[derive(Debug)]
pub(super) struct Helper<W: Work> {
    /// Who works, while nothing waits.
    here: Option<W>,
    /// Answers of work that was done at once.
    answers: VecDeque<W::Answer>,
    orders: Option<Sender<Order<W>>>,
    done: Receiver<Done<W>>,
    /// Requests that the thread has not answered.
    away: usize,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Work> Helper<W> {
    /// Starts the thread. `notify` is called after each of its answers.
    pub(super) fn start(name: &str, work: W, notify: impl Fn() + Send + 'static) -> Result<Self, DiskError> {
        // Bounded by the windows of those who ask: each answer is asked for.
        let (orders, order_receiver) = channel();
        let (done_sender, done) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || serve(&order_receiver, &done_sender, &stopped, &notify);
        let thread = Some(spawn(name, run)?);
        let (here, orders, answers) = (Some(work), Some(orders), VecDeque::new());
        Ok(Self { here, answers, orders, done, away: 0, stop, thread })
    }

    /// Asks for something. Returns whether it was done at once.
    pub(super) fn ask(&mut self, request: W::Request) -> bool {
        let request = match &mut self.here {
            None => request,
            Some(work) => match work.try_at_once(request) {
                Ok(answer) => {
                    self.answers.push_back(answer);
                    return true;
                }
                Err(request) => request,
            },
        };
        self.hand_over();
        self.away += 1;
        self.order(Order::Do(request));
        false
    }

    fn hand_over(&mut self) {
        if let Some(work) = self.here.take() {
            self.order(Order::TakeOver(work));
        }
    }

    fn order(&self, order: Order<W>) {
        if let Some(orders) = &self.orders {
            // Refused only if the thread has panicked, which the next poll tells.
            let _ = orders.send(order);
        }
    }

    /// The next answer, if it is there.
    ///
    /// # Errors
    /// If the thread has panicked.
    pub(super) fn poll(&mut self) -> Result<Option<W::Answer>, DiskError> {
        if let Some(answer) = self.answers.pop_front() {
            return Ok(Some(answer));
        }
        match self.done.try_recv() {
            Ok(Done { answer, work }) => {
                self.away = self.away.saturating_sub(1);
                if let Some(work) = work {
                    self.here = Some(work);
                    if self.away > 0 {
                        // Asked for while it was on its way.
                        self.hand_over();
                    }
                }
                Ok(Some(answer))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(DiskError::new("go on with", b"the files", Trouble::Internal, "a thread has died"))
            }
        }
    }
}

impl<W: Work> Drop for Helper<W> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.orders = None;
        self.here = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread that works on files has panicked");
        }
    }
}

fn serve<W: Work>(
    orders: &Receiver<Order<W>>,
    done: &Sender<Done<W>>,
    stop: &AtomicBool,
    notify: &impl Fn(),
) {
    let mut desk = Desk { work: None, asked: VecDeque::new() };
    while let Ok(order) = orders.recv() {
        desk.take(order);
        while !stop.load(Ordering::Relaxed)
            && let Some(answer) = desk.next_answer()
        {
            orders.try_iter().for_each(|order| desk.take(order));
            if done.send(Done { answer, work: desk.give_back() }).is_err() {
                return;
            }
            notify();
        }
    }
}

/// What the thread has before it.
struct Desk<W: Work> {
    work: Option<W>,
    /// May have been asked for before the work comes.
    asked: VecDeque<W::Request>,
}

impl<W: Work> Desk<W> {
    fn take(&mut self, order: Order<W>) {
        match order {
            Order::TakeOver(work) => self.work = Some(work),
            Order::Do(request) => self.asked.push_back(request),
        }
    }

    fn next_answer(&mut self) -> Option<W::Answer> {
        let work = self.work.as_mut()?;
        Some(work.wait_for(self.asked.pop_front()?))
    }

    fn give_back(&mut self) -> Option<W> {
        let idle = self.asked.is_empty();
        self.work.take_if(|work| idle && work.may_be_done_at_once())
    }
}

/// Starts a thread of the disk.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DiskError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        DiskError { trouble: Trouble::Limit, ..DiskError::system("start the thread", name.as_bytes(), errno) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doubles numbers; odd ones, and none, only in the thread.
    #[derive(Debug)]
    struct Doubling(Sender<std::thread::ThreadId>);

    impl Work for Doubling {
        type Request = u64;
        type Answer = u64;

        fn try_at_once(&mut self, request: u64) -> Result<u64, u64> {
            if request.is_multiple_of(2) { Ok(self.wait_for(request)) } else { Err(request) }
        }

        fn may_be_done_at_once(&self) -> bool {
            true
        }

        fn wait_for(&mut self, request: u64) -> u64 {
            assert_ne!(request, 13);
            let _ = self.0.send(std::thread::current().id());
            request * 2
        }
    }

    #[test]
    fn answers_come_in_order_wherever_they_are_made() {
        let (notify, notified) = channel();
        let (tell, told) = channel();
        let mut helper = Helper::start("test", Doubling(tell), move || notify.send(()).unwrap()).unwrap();
        let (mut next, mut answers) = (0u64, Vec::new());
        while answers.len() < 2000 {
            // Numbers of either kind in runs of all lengths, by turns up to one, two and three unanswered.
            while next < 2000 && next < answers.len() as u64 + 1 + next / 100 % 3 {
                let number = if next.trailing_ones() > 2 { next } else { next * 2 };
                let at_once = helper.ask(number);
                assert!(!at_once || number.is_multiple_of(2));
                next += 1;
            }
            match helper.poll().unwrap() {
                Some(answer) => answers.push(answer),
                None => notified.recv().unwrap(),
            }
        }
        let expected =
            (0..2000u64).map(|number| if number.trailing_ones() > 2 { number * 2 } else { number * 4 });
        assert_eq!(answers, expected.collect::<Vec<_>>());
        let here = std::thread::current().id();
        let at_once = told.try_iter().filter(|&thread| thread == here).count();
        assert!((200..1800).contains(&at_once), "{at_once} of 2000 at once");
        drop(helper);
        // Comes to an end, as the thread has.
        notified.iter().for_each(drop);
    }

    #[test]
    fn the_death_of_the_thread_is_told() {
        let (notify, notified) = channel();
        let (tell, _told) = channel();
        let mut helper = Helper::start("test", Doubling(tell), move || notify.send(()).unwrap()).unwrap();
        assert!(!helper.ask(13));
        assert!(notified.recv().is_err(), "its way to notify is gone with it");
        assert_eq!(helper.poll().unwrap_err().trouble, Trouble::Internal);
    }
}
