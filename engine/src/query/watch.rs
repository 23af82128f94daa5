//! The timer that ends queries: at their deadline, when their reader has gone, at shutdown. It also
//! puts those behind that have run for some time.
//!
//! **Guarantees.** An interrupt reaches only the query it is meant for. The interrupt handle is
//! inside the [`Watch`]'s lock from the moment a worker begins until it ends; every interrupt is
//! sent under that lock, so none can be sent after the end, when the connection may already run
//! the next query. The same lock keeps a thread that is put behind from having ended.
//!
//! **Roles.** A worker calls [`Watch::begin`] and [`Watch::end`]; anyone calls [`Watch::stop`]; the
//! watchdog thread alone calls `tick`.
//!
//! **Algorithm.** DuckDB forgets a pending interrupt when a connection starts its next statement,
//! and one query is several statements. So one interrupt can be lost; the watchdog repeats it
//! every 10 ms until the worker says that it has ended.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use duckdb::InterruptHandle;
use ringlake_niceness::{Behind, Runner};

use super::lock;

/// Time between two interrupts of a query that does not end.
const REPEAT: Duration = Duration::from_millis(10);

/// What a query may have of a core at the weight of those that answer requests; after that it goes behind
/// them and behind the roller. A look at what has just happened is over by then, and a query
/// that takes minutes takes their time in its first instant only.
const AHEAD: Duration = Duration::from_millis(100);
/// Between two looks at what a query has had: never more often, however little is left to it.
const LOOK: Duration = Duration::from_millis(10);

/// Why a query was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its time was up.
    Deadline,
    /// Nobody reads its result any more.
    Dropped,
    /// The engine shuts down.
    Shutdown,
    /// New events need the memory that its snapshot keeps.
    Outrun,
}

/// What the watchdog knows about one query.
pub(super) struct Watch {
    state: Mutex<State>,
    /// The Delta version of the query's snapshot.
    version: u64,
    /// To the watchdog.
    messages: Sender<Message>,
}

#[derive(Default)]
struct State {
    /// Present while a worker runs the query.
    running: Option<Running>,
    /// The first reason given; later ones change nothing.
    reason: Option<Reason>,
}

/// A query that a worker runs.
struct Running {
    handle: Arc<InterruptHandle>,
    deadline: Instant,
    /// The worker's thread.
    runner: Runner,
    /// The time of its thread at which it goes behind; nothing where that is not known.
    ahead_until: Option<Duration>,
    /// It has gone behind.
    behind: bool,
}

impl Running {
    /// Puts the thread behind if the query has had its time; when to look again otherwise.
    fn put_behind(&mut self, now: Instant) -> Option<Instant> {
        if self.behind {
            return None;
        }
        let left = self.ahead_until?.saturating_sub(self.runner.time()?);
        if left.is_zero() {
            self.runner.step(Behind::Events);
            self.behind = true;
            return None;
        }
        Some(now + left.max(LOOK))
    }
}

enum Message {
    Watch(Arc<Watch>),
    /// Something changed: look at every query now.
    Look,
    /// Stop every query, those still to come included.
    StopAll,
    /// Stop every query whose snapshot is older than this Delta version.
    StopOlder(u64),
    /// End the thread.
    End,
}

impl Watch {
    /// The calling worker begins the query; its interrupts go to `handle`. False when the query has
    /// been stopped before it began.
    pub(super) fn begin(self: &Arc<Self>, handle: Arc<InterruptHandle>, deadline: Instant) -> bool {
        let runner = Runner::this();
        let ahead_until = runner.time().map(|time| time + AHEAD);
        {
            let mut state = lock(&self.state);
            if state.reason.is_some() {
                return false;
            }
            let behind = false;
            state.running = Some(Running { handle, deadline, runner, ahead_until, behind });
        }
        self.tell(Message::Watch(Arc::clone(self)));
        true
    }

    /// The worker has ended the query: no interrupt is sent from here on. True when its thread has been
    /// put behind, where it stays.
    pub(super) fn end(&self) -> bool {
        let running = lock(&self.state).running.take();
        running.is_some_and(|running| running.behind)
    }

    /// Ends the query now if it runs, and before it begins if it does not.
    pub(super) fn stop(&self, reason: Reason) {
        {
            let mut state = lock(&self.state);
            state.reason.get_or_insert(reason);
            match &state.running {
                Some(running) => running.handle.interrupt(),
                None => return,
            }
        }
        self.tell(Message::Look);
    }

    /// Why the query was told to stop, if it was.
    pub(super) fn reason(&self) -> Option<Reason> {
        lock(&self.state).reason
    }

    /// Interrupts the query if it has to stop, and puts it behind if it has had its time. Gives the
    /// time of the next look, or nothing when the query has ended.
    fn tick(&self, now: Instant) -> Option<Instant> {
        let mut state = lock(&self.state);
        let State { running, reason } = &mut *state;
        let running = running.as_mut()?;
        if now >= running.deadline {
            reason.get_or_insert(Reason::Deadline);
        }
        if reason.is_some() {
            running.handle.interrupt();
            return Some(now + REPEAT);
        }
        let look = running.put_behind(now);
        Some(look.map_or(running.deadline, |look| look.min(running.deadline)))
    }

    fn tell(&self, message: Message) {
        // The watchdog outlives every worker; once it has gone, nothing runs that it could end.
        let _ = self.messages.send(message);
    }
}

/// The watchdog thread.
pub(super) struct Watchdog {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread.
    pub(super) fn start() -> std::io::Result<Self> {
        // Unbounded, but each query sends at most two messages.
        let (messages, receiver) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new()
            .name("query-watchdog".into())
            .spawn(move || run(&receiver))?;
        Ok(Self { messages, thread: Some(thread) })
    }

    /// A watch for one query over a snapshot of `version`.
    pub(super) fn watch(&self, version: u64) -> Arc<Watch> {
        Arc::new(Watch { state: Mutex::default(), version, messages: self.messages.clone() })
    }

    /// Stops every running query whose snapshot is older than `version`.
    pub(super) fn stop_older(&self, version: u64) {
        let _ = self.messages.send(Message::StopOlder(version));
    }

    /// Stops every query that runs or is about to.
    pub(super) fn stop_all(&self) {
        let _ = self.messages.send(Message::StopAll);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(messages: &Receiver<Message>) {
    let mut watched: Vec<Arc<Watch>> = Vec::new();
    let mut stopping = false;
    loop {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        watched.retain(|watch| match watch.tick(now) {
            Some(at) => {
                next = Some(next.map_or(at, |next| next.min(at)));
                true
            }
            None => false,
        });
        let message = match next {
            Some(at) => messages.recv_deadline(at),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match message {
            Ok(Message::Watch(watch)) => {
                if stopping {
                    watch.stop(Reason::Shutdown);
                }
                watched.push(watch);
            }
            Ok(Message::StopAll) => {
                stopping = true;
                watched.iter().for_each(|watch| watch.stop(Reason::Shutdown));
            }
            Ok(Message::StopOlder(version)) => {
                let old = watched.iter().filter(|watch| watch.version < version);
                old.for_each(|watch| watch.stop(Reason::Outrun));
            }
            Ok(Message::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
