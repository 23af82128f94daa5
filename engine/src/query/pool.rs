//! The query workers and the queue in front of them.
//!
//! **Guarantees.** A query is admitted or refused: when `waiting` queries wait already, or when it
//! has waited for `wait`, the answer is [`QueryError::Busy`]. A worker survives every query,
//! panics included; a connection that may be damaged is replaced.
//!
//! **Roles.** Any thread may call [`Pool::query`], which blocks until the query is planned.
//! Each worker thread owns one connection. A job goes to the worker that was last to become free: its
//! heap and its view are warm, and those of workers that are seldom needed stay small.
//!
//! **Who goes first.** A query begins beside the threads that answer requests: a look at what has just
//! happened is over before anybody misses its time. One that has run for some time goes behind them, and
//! behind those that bring their events to DuckDB: queries that run for minutes on every core slow
//! ingestion, but do not stop it. A thread that has gone behind cannot come back without privileges; so
//! it ends with its query, and another one takes over its connection.
//!
//! **Failure.** Dropping the pool refuses what waits, interrupts what runs and joins the threads.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};

use crossbeam_channel::RecvTimeoutError;
use duckdb::Connection;

use crate::config::QueryConfig;
use crate::lake::Checked;
use crate::snapshot::Snapshot;
use ringlake_niceness::Behind;

use super::session::{Job, Session};
use super::stream::feed;
use super::watch::{Watch, Watchdog};
use super::{QueryError, QueryRequest, QueryStream, lock, room};

/// DuckDB parses and plans by recursion on the worker's stack. Only pages that are used cost
/// memory; its own depth limits are reached well before this is.
const STACK_BYTES: usize = 64 << 20;

/// Makes a connection to the engine's database.
type Connect = Box<dyn Fn() -> duckdb::Result<Connection> + Send + Sync>;

/// A bounded pool of query workers.
pub struct Pool {
    config: QueryConfig,
    checked: Arc<Checked>,
    shared: Arc<Shared>,
    watchdog: Watchdog,
}

struct Shared {
    queue: Mutex<Queue>,
    connect: Connect,
    /// Of every worker, the one that it lives on now.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Workers without a job.
    idle: usize,
    /// Those of them that sleep; the last one to fall asleep is woken first.
    asleep: Vec<Thread>,
    closed: bool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts `config.workers` threads (at least one). Each makes its connection with `connect`
    /// when its first query comes, and a new one after a panic. `checked` knows which files may be
    /// read.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn start(
        config: QueryConfig,
        checked: Arc<Checked>,
        connect: impl Fn() -> duckdb::Result<Connection> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let workers = config.workers.max(1);
        let shared = Arc::new(Shared {
            // Workers count as idle from the start: they take a job as soon as they run.
            queue: Mutex::new(Queue { idle: workers, ..Queue::default() }),
            connect: Box::new(connect),
            threads: Mutex::default(),
        });
        let pool = Self { config, checked, shared, watchdog: Watchdog::start()? };
        for index in 0..workers {
            pool.shared.spawn(format!("query-{index}"), None)?;
        }
        Ok(pool)
    }

    /// Runs a query over `snapshot`. Blocks until the query is planned and its columns are known;
    /// rows come from the stream. The snapshot is held until the query has ended.
    ///
    /// # Errors
    ///
    /// [`QueryError::Busy`] when there is no room, [`QueryError::Sql`] and
    /// [`QueryError::Forbidden`] for statements that cannot or must not run, and the other kinds
    /// as they say.
    pub fn query(
        &self,
        request: QueryRequest,
        snapshot: Arc<Snapshot>,
    ) -> Result<QueryStream, QueryError> {
        let limit = self.config.timeout;
        let timeout = request.timeout.map_or(limit, |timeout| timeout.min(limit));
        let (feed, receiving) = feed();
        let (planned, plan) = crossbeam_channel::bounded(1);
        let watch = self.watchdog.watch(snapshot.version);
        let (checked, watch_of_job) = (Arc::clone(&self.checked), Arc::clone(&watch));
        self.enqueue(Job {
            request,
            timeout,
            snapshot,
            checked,
            watch: watch_of_job,
            feed,
            planned,
        })?;

        let plan = match plan.recv_timeout(self.config.wait) {
            // Nothing yet: a job that still waits is given up, one that runs has its own limit.
            Err(RecvTimeoutError::Timeout) if self.withdraw(&watch) => return Err(self.busy()),
            Err(RecvTimeoutError::Timeout) => plan.recv().map_err(|_| QueryError::NotReady)?,
            Err(RecvTimeoutError::Disconnected) => return Err(QueryError::NotReady),
            Ok(plan) => plan,
        };
        Ok(receiving.into_stream(plan?, watch))
    }

    /// Ends every running query whose snapshot is older than Delta version `version`, because it
    /// keeps rolled hot tables in memory.
    pub fn stop_older(&self, version: u64) {
        self.watchdog.stop_older(version);
    }

    /// Queries that run now. Statistics: it may be old when it is read.
    #[must_use]
    pub fn running(&self) -> usize {
        self.config.workers.max(1).saturating_sub(lock(&self.shared.queue).idle)
    }

    /// Queries that wait for a worker now. Statistics: it may be old when it is read.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.shared.queue).jobs.len()
    }

    fn enqueue(&self, job: Job) -> Result<(), QueryError> {
        let mut queue = lock(&self.shared.queue);
        if queue.closed {
            return Err(QueryError::NotReady);
        }
        if queue.jobs.len() >= queue.idle + self.config.waiting {
            return Err(self.busy());
        }
        queue.jobs.push_back(job);
        // Nobody asleep: whoever is awake looks for a job before it falls asleep.
        let worker = queue.asleep.pop();
        drop(queue);
        if let Some(worker) = worker {
            worker.unpark();
        }
        Ok(())
    }

    /// Takes the job of `watch` out of the queue. False when a worker has it already.
    fn withdraw(&self, watch: &Arc<Watch>) -> bool {
        let mut queue = lock(&self.shared.queue);
        let at = queue.jobs.iter().position(|job| Arc::ptr_eq(&job.watch, watch));
        at.and_then(|at| queue.jobs.remove(at)).is_some()
    }

    fn busy(&self) -> QueryError {
        QueryError::Busy { waiting: self.config.waiting, wait: self.config.wait }
    }

    /// Refuses new and waiting queries and interrupts running ones. Does not wait for them.
    pub fn close(&self) {
        let (waiting, asleep) = {
            let mut queue = lock(&self.shared.queue);
            queue.closed = true;
            (std::mem::take(&mut queue.jobs), std::mem::take(&mut queue.asleep))
        };
        asleep.iter().for_each(Thread::unpark);
        waiting.into_iter().for_each(|job| job.refuse(QueryError::NotReady));
        self.watchdog.stop_all();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
        // A thread that hands over adds the next one before it ends.
        loop {
            let thread = lock(&self.shared.threads).pop();
            let Some(thread) = thread else { return };
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Starts a thread for a worker, with the `session` that it has already. When a worker calls it, that
    /// is the worker, and the calling thread has no more to do than to end.
    fn spawn(self: &Arc<Self>, name: String, session: Option<Session>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let worker = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        // Locked from here, so that the thread cannot look for itself before it is there.
        let mut threads = lock(&self.threads);
        threads.push(worker.spawn(move || {
            ringlake_niceness::step(Behind::Nobody);
            room::bound_this_thread();
            shared.work(session);
        })?);
        let this = std::thread::current().id();
        threads.retain(|thread| thread.thread().id() != this);
        Ok(())
    }

    /// Gives a worker another thread, when the calling one has been put behind. False when there is
    /// none to be had: then this one goes on, with a new connection.
    fn hand_over(self: &Arc<Self>, session: Option<Session>) -> bool {
        let name = std::thread::current().name().unwrap_or("query").to_owned();
        if let Err(error) = self.spawn(name, session) {
            tracing::warn!(%error, "no new thread for queries: those of this one wait for ingestion");
            return false;
        }
        true
    }

    /// A worker's life, or the rest of it.
    fn work(self: &Arc<Self>, mut session: Option<Session>) {
        while let Some(job) = self.next_job() {
            let mut current = match session.take() {
                Some(current) => current,
                None => match (self.connect)() {
                    Ok(connection) => Session::new(connection),
                    Err(error) => {
                        job.refuse(QueryError::from_preparation(&error));
                        lock(&self.queue).idle += 1;
                        continue;
                    }
                },
            };
            let ran = current.run(job);
            session = ran.usable.then_some(current);
            // Before there is another thread that could take a job: it counts itself out then.
            lock(&self.queue).idle += 1;
            if ran.behind && self.hand_over(session.take()) {
                return;
            }
        }
    }

    /// Waits for a job; nothing when the pool closes.
    fn next_job(&self) -> Option<Job> {
        let this = std::thread::current();
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.idle -= 1;
                return Some(job);
            }
            queue.asleep.push(this.clone());
            drop(queue);
            std::thread::park();
            queue = lock(&self.queue);
            // Whoever wakes a worker takes it off the list; a thread may also wake by itself.
            queue.asleep.retain(|other| other.id() != this.id());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::super::tests::{no_events, read};
    use super::*;

    #[test]
    fn queries_one_after_another_go_to_the_same_worker() {
        const WORKERS: usize = 4;
        let connects = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connects);
        let config = QueryConfig { workers: WORKERS, ..QueryConfig::default() };
        let pool = Pool::start(config, Arc::default(), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Connection::open_in_memory()
        })
        .unwrap();
        for _ in 0..10 {
            // A worker that is still on its way to sleep may take a job from the one that is woken.
            let began = Instant::now();
            while lock(&pool.shared.queue).asleep.len() < WORKERS {
                assert!(began.elapsed() < Duration::from_secs(120), "a worker does not rest");
                std::thread::yield_now();
            }
            let stream = pool.query(QueryRequest::new("SELECT 1"), no_events()).unwrap();
            assert_eq!(read(stream).unwrap().len(), 1);
        }
        assert_eq!(connects.load(Ordering::Relaxed), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_query_that_runs_for_long_ends_with_its_thread_and_the_next_has_its_connection() {
        const LONG: &str = "SELECT count(*) FROM range(1000000) a(x), range(1000000) b(y) \
                            WHERE (x * y) % 7 = 9";
        let connects = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connects);
        let config = QueryConfig { workers: 1, ..QueryConfig::default() };
        let pool = Pool::start(config, Arc::default(), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Connection::open_in_memory()
        })
        .unwrap();
        let thread =
            || lock(&pool.shared.threads).iter().map(|thread| thread.thread().id()).next_back();
        let run = |sql: &str, seconds| {
            let timeout = Some(Duration::from_secs(seconds));
            read(pool.query(QueryRequest { timeout, ..QueryRequest::new(sql) }, no_events())?)
        };
        let first = thread();
        run("SELECT 1", 60).unwrap();
        assert_eq!(thread(), first, "a short one leaves it alone");
        let began = Instant::now();
        while thread() == first {
            assert!(began.elapsed() < Duration::from_secs(120), "the thread stays");
            std::thread::scope(|scope| {
                // Before the long one, or behind it: then the next thread has a job at once.
                let other = scope.spawn(|| run("SELECT 1", 60));
                run(LONG, 1).unwrap_err();
                other.join().unwrap().unwrap();
            });
        }
        run("SELECT 1", 60).unwrap();
        while pool.running() > 0 {
            assert!(began.elapsed() < Duration::from_secs(120), "a worker is not counted as idle");
            std::thread::yield_now();
        }
        assert_eq!(connects.load(Ordering::Relaxed), 1);
        assert_eq!(lock(&pool.shared.threads).len(), 1);
    }
}
