//! The engine: starts the threads, joins them up, and answers for the whole.
//!
//! **Guarantees**
//! - [`Engine::open`] takes the directory's lock and returns at once; recovery goes on behind it
//!   and the gate for events opens when it has ended.
//! - [`Engine::flush`] and [`Engine::roll`] cover everything that was committed to a ring before
//!   the call: a marker follows the events through every shard.
//! - [`Engine::shutdown`] leaves nothing accepted unsynced, or says so.
//!
//! **Failure.** A start that cannot read its log says why in [`Engine::readiness`] and accepts
//! nothing; queries over what was replayed go on.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ringlake_dedup::{Dedup, Limits};
use ringlake_ring::Consumer;
use uuid::Uuid;

use crate::ack::{self, Settler};
use crate::config::{Config, DedupConfig, LogConfig};
use crate::directory::Directory;
use crate::error::{Error, chain};
use crate::hot::{
    Database, Flusher, FlusherState, Goal, HotAppender, Marker, Message, Queue, Receiving,
    ToRoller, queue,
};
use crate::ingest::{Gate, Ingest};
use crate::lake::{Checked, DamagedFile, Location, Table};
use crate::log::{Identity, Log, RealDisk};
use crate::metrics::Operations;
use crate::query::{Pool, QueryError, QueryRequest, QueryStream};
use crate::recovery::{self, Progress, RecoveryStatus, ShardLog, ids};
use crate::roller::{Roller, RollerState};
use crate::schema::log_schema;
use crate::shard::{Intake, Shard, ShardState};
use crate::snapshot::{HotTable, Snapshot, Snapshots};
use crate::status::{Quarantine, Status};

/// Shards that can be configured. Delta keeps a number for each, `verify` a bitmap.
const SHARDS_MAX: usize = 1_024;
const _: () = assert!(SHARDS_MAX <= ringlake_dedup::OWNERS_MAX as usize);

/// Whether events are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They are, and made durable.
    Ready,
    /// They are not, or cannot be made durable now.
    NotReady {
        /// Why, in one sentence without a full stop.
        reason: String,
    },
}

/// What a roll left behind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RollReport {
    /// The table's version after it.
    pub version: u64,
    /// Live Parquet files.
    pub files: usize,
    /// Rows in them.
    pub rows: u64,
}

/// What a shutdown left behind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ShutdownReport {
    /// Everything accepted is in the synced log or the table.
    pub everything_durable: bool,
    /// Rows that only the log holds; the next start replays them.
    pub rows_to_replay: usize,
}

/// A running engine. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: Config,
    pub directory: Directory,
    pub location: Location,
    pub gate: Arc<Gate>,
    /// The known message ids, unless they are not looked at.
    pub dedup: Option<Arc<Dedup>>,
    pub shards: Arc<[Arc<ShardState>]>,
    pub snapshots: Arc<Snapshots>,
    pub progress: Progress,
    pub flusher: Arc<FlusherState>,
    pub roller: Arc<RollerState>,
    pub operations: Arc<Operations>,
    /// Which files of the table have been checked.
    pub checked: Arc<Checked>,
    /// Why recovery failed, if it did.
    failed: Mutex<Option<String>>,
    closing: AtomicBool,
    pool: Arc<Pool>,
    queue: Queue,
    markers: Vec<Sender<Arc<Marker>>>,
    /// One a thread; it disconnects when the thread has ended.
    threads: Mutex<Vec<(String, Receiver<()>)>>,
}

impl Shared {
    /// Why recovery failed, if it did.
    fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a shard needs before its log is known.
struct ShardParts {
    consumer: Consumer,
    settler: Settler,
    state: Arc<ShardState>,
    markers: Receiver<Arc<Marker>>,
}

impl Engine {
    /// Opens the engine on its data directory. The handles, one a shard, are for the serving
    /// loops.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has the directory; [`Error::Config`] for a value
    /// out of range; otherwise what kept the table or DuckDB from opening.
    pub fn open(config: Config) -> Result<(Self, Vec<Ingest>), Error> {
        validate(&config)?;
        let directory = Directory::open(&config.data)?;
        let location = Location::parse(config.lake.as_deref(), directory.root())?;
        let table = Table::open_or_create(&location, directory.node())?;
        let orphans = table.remove_orphans()?;
        if !orphans.is_empty() {
            let files = orphans.len();
            tracing::info!(files, "removed files of rolls that were never committed");
        }
        let temporary = directory.temporary();
        let database = Arc::new(Database::open(&config.duckdb, location.root(), &temporary)?);
        let hot = OpenHot::new(&database)?;
        let snapshots = Arc::new(Snapshots::new(Snapshot {
            version: table.version(),
            files: table.live_files()?,
            hot: vec![Arc::clone(&hot.table)],
        }));

        let gate = Arc::new(Gate::default());
        let (ingests, parts, markers) = make_shards(&config, &gate);
        let shards: Arc<[_]> = parts.iter().map(|parts| Arc::clone(&parts.state)).collect();
        let (queue, receiving) = queue(config.hot.queue_bytes);
        let committed = committed(&table, &directory, parts.len())?;
        let for_queries = Arc::clone(&database);
        let checked: Arc<Checked> = Arc::default();
        let for_pool = Arc::clone(&checked);
        let pool = Pool::start(config.query.clone(), for_pool, move || for_queries.connect())
            .map_err(Error::io("start the query workers", "query"))?;

        let shared = Arc::new(Shared {
            gate,
            dedup: make_dedup(&config.dedup, Arc::clone(&shards)),
            shards,
            snapshots,
            progress: Progress::default(),
            flusher: Arc::default(),
            roller: Arc::default(),
            operations: Arc::default(),
            checked,
            failed: Mutex::new(None),
            closing: AtomicBool::new(false),
            pool: Arc::new(pool),
            queue,
            markers,
            threads: Mutex::new(Vec::new()),
            location,
            config,
            directory,
        });
        let engine = Self { shared };
        // No sealed table waits in the channel: one is being rolled, one more holds the flusher.
        let (to_roller, rolls) = bounded(0);
        engine.start_flusher(hot, receiving, to_roller, &committed)?;
        engine.start_roller(&database, table, rolls, committed.clone())?;
        let checking = engine.clone();
        engine.spawn("check", move || checking.check_files())?;
        let recovering = engine.clone();
        engine.spawn("recovery", move || recovering.recover(parts, &committed))?;
        Ok((engine, ingests))
    }

    fn start_flusher(
        &self,
        hot: OpenHot,
        receiving: Receiving,
        roller: Sender<ToRoller>,
        committed: &BTreeMap<u32, i64>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let flusher = Flusher {
            appender: hot.appender,
            node: self.node().to_owned(),
            config: shared.config.hot.clone(),
            messages: receiving.messages,
            wakes: receiving.wakes,
            budget: receiving.budget,
            roller,
            snapshots: Arc::clone(&shared.snapshots),
            unused: hot.unused,
            unused_sender: hot.unused_sender,
            quarantine: shared.directory.quarantine(),
            operations: Arc::clone(&shared.operations),
            state: Arc::clone(&shared.flusher),
        };
        let sequences = committed.iter().map(|(shard, last)| (*shard, *last)).collect();
        self.spawn("flusher", move || flusher.run(hot.table, sequences))
    }

    fn start_roller(
        &self,
        database: &Database,
        table: Table,
        rolls: Receiver<ToRoller>,
        committed: BTreeMap<u32, i64>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let connection = database
            .connect()
            .map_err(|source| Error::DuckDb { action: "open a connection", source })?;
        let roller = Roller {
            connection,
            location: shared.location.clone(),
            table,
            node: self.node().to_owned(),
            rolls,
            snapshots: Arc::clone(&shared.snapshots),
            shards: Arc::clone(&shared.shards),
            flusher: Arc::clone(&shared.flusher),
            operations: Arc::clone(&shared.operations),
            state: Arc::clone(&shared.roller),
            pool: Arc::clone(&shared.pool),
            checked: Arc::clone(&shared.checked),
            committed,
            rolled: VecDeque::new(),
        };
        self.spawn("roller", move || roller.run())
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> &str {
        self.shared.directory.node()
    }

    /// The directory of the Delta table.
    #[must_use]
    pub fn table_path(&self) -> &std::path::Path {
        self.shared.location.root()
    }

    /// Tells other processes on this machine where the server of this directory listens.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn announce(&self, address: &str) -> Result<(), Error> {
        self.shared.directory.announce(address)
    }

    /// Whether events can be accepted durably now, and if not, why.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let shared = &self.shared;
        let failed = shared.failure();
        // Relaxed, here and below: a look at statistics.
        let reason = if shared.closing.load(Ordering::Relaxed) {
            Some("the server is shutting down".to_owned())
        } else if let Some(problem) = failed {
            Some(format!("the log could not be replayed: {problem}"))
        } else if !shared.gate.is_open() {
            Some(shared.progress.sentence())
        } else {
            let log = shared.shards.iter().find_map(|shard| shard.log_problem());
            let log = log.map(|problem| format!("the log cannot be written: {problem}"));
            let hot = || {
                shared
                    .flusher
                    .problem()
                    .map(|problem| format!("the hot table takes no rows: {problem}"))
            };
            let roll = || {
                shared
                    .roller
                    .problem()
                    .map(|problem| format!("the table takes no commit: {problem}"))
            };
            log.or_else(hot).or_else(roll)
        };
        reason.map_or(Readiness::Ready, |reason| Readiness::NotReady { reason })
    }

    /// Whether events are accepted at all; one relaxed load.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.gate.is_open()
    }

    /// Waits until recovery has ended.
    ///
    /// # Errors
    /// When it failed, or took longer than `limit`.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        while !self.is_open() {
            if let Some(problem) = self.shared.failure() {
                return Err(Error::Format { path: self.shared.directory.log(), problem });
            }
            if Instant::now() >= until {
                return Err(Error::Deadline { what: "replaying the log", limit });
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Runs one query over everything that is visible now. Blocks until a worker has planned it.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn query(&self, request: QueryRequest) -> Result<QueryStream, QueryError> {
        // Half a replay would look like lost events.
        if !self.is_open() && self.shared.failure().is_none() {
            return Err(QueryError::NotReady);
        }
        self.shared.pool.query(request, self.shared.snapshots.load())
    }

    /// How far the start is.
    #[must_use]
    pub fn recovery(&self) -> RecoveryStatus {
        self.shared.progress.status()
    }

    /// What was set aside since the start.
    #[must_use]
    pub fn quarantined(&self) -> Quarantine {
        Quarantine::of(&self.shared)
    }

    /// The files of the table that are known to be damaged; queries that need one fail.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<DamagedFile> {
        self.shared.checked.damaged()
    }

    /// A look at everything countable.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.shared)
    }

    /// How long the engine's own operations took so far.
    #[must_use]
    pub fn operations(&self) -> &Operations {
        &self.shared.operations
    }

    /// Waits until every event committed to a ring before the call is visible to SQL.
    ///
    /// # Errors
    /// [`Error::Closed`] while shutting down, or when the engine failed to start.
    pub fn flush(&self) -> Result<(), Error> {
        self.reach(Goal::Visible)
    }

    /// Waits until every event committed to a ring before the call is in the table.
    ///
    /// # Errors
    /// [`Error::Closed`] while shutting down, or when the engine failed to start.
    pub fn roll(&self) -> Result<RollReport, Error> {
        self.reach(Goal::Rolled)?;
        let snapshot = self.shared.snapshots.load();
        Ok(RollReport {
            version: snapshot.version,
            files: snapshot.files.len(),
            rows: snapshot.files.iter().filter_map(|file| file.rows).sum(),
        })
    }

    fn reach(&self, goal: Goal) -> Result<(), Error> {
        // Relaxed: a marker that slips through is answered by its sender's end.
        if self.shared.closing.load(Ordering::Relaxed) || !self.is_open() {
            return Err(Error::Closed);
        }
        let (marker, answer) = Marker::new(goal, self.shared.markers.len());
        for (sender, shard) in self.shared.markers.iter().zip(self.shared.shards.iter()) {
            sender.send(Arc::clone(&marker)).map_err(|_| Error::Closed)?;
            shard.waker.wake();
        }
        drop(marker);
        answer.recv().unwrap_or(Err(Error::Closed))
    }

    /// Stops: no event is accepted any more, the rings are drained, the logs synced, the threads
    /// ended. Drop the [`Ingest`] handles, or at least stop using them, before.
    ///
    /// # Errors
    /// [`Error::Deadline`] when a thread did not end in time.
    pub fn shutdown(&self, limit: Duration) -> Result<ShutdownReport, Error> {
        let shared = &self.shared;
        let until = Instant::now() + limit;
        // Relaxed: only says "no more"; the shards drain what came before.
        shared.closing.store(true, Ordering::Relaxed);
        shared.gate.close();
        // Release: pairs with the Acquire load in `Roller::roll_until_done`.
        shared.roller.stop.store(true, Ordering::Release);
        for shard in shared.shards.iter() {
            // Release: pairs with the Acquire load in `Shard::run`.
            shard.stop.store(true, Ordering::Release);
            shard.waker.wake();
        }
        // What the shards still send is in the log already; the flusher need not take it.
        shared.queue.lift_bounds();
        self.join("shard", until)?;
        self.join("recovery", until)?;
        self.join("check", until)?;
        shared.queue.send_message(Message::Stop);
        self.join("flusher", until)?;
        self.join("roller", until)?;
        shared.pool.close();
        shared.directory.release();
        let lost = shared.shards.iter().any(|shard| shard.log_problem().is_some());
        Ok(ShutdownReport {
            everything_durable: !lost,
            // Relaxed: statistics; the flusher has ended.
            rows_to_replay: shared.flusher.hot_rows.load(Ordering::Relaxed),
        })
    }

    /// The thread that checks the table's files before the first query would have to.
    fn check_files(&self) {
        let snapshot = self.shared.snapshots.load();
        // Relaxed: see `shutdown`; one more file is checked at most.
        let stop = || self.shared.closing.load(Ordering::Relaxed);
        self.shared.checked.damaged_of(snapshot.version, &snapshot.files, stop);
    }

    /// The recovery thread: replays, then starts the shards and opens the gate.
    fn recover(&self, parts: Vec<ShardParts>, committed: &BTreeMap<u32, i64>) {
        let shared = &self.shared;
        let shards = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let outcome =
            recovery::recover_logs(&shared.directory, shards, committed, &shared.progress)
                .and_then(|logs| {
                    self.replay(&logs, committed)?;
                    self.start_shards(parts, logs, committed)
                });
        match outcome {
            Ok(()) => {
                shared.progress.end();
                // Relaxed: see `shutdown`; a gate opened too late is closed by the check below.
                if !shared.closing.load(Ordering::Relaxed) {
                    shared.gate.open();
                }
            }
            Err(error) => {
                let problem = chain(&error);
                tracing::error!(%problem, "the log could not be replayed; no events are accepted");
                *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
            }
        }
    }

    /// Brings back what only the logs hold, and the ids of what is stored.
    fn replay(
        &self,
        logs: &BTreeMap<u32, ShardLog>,
        committed: &BTreeMap<u32, i64>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let mut ids = shared.dedup.as_deref().map(|dedup| {
            ids::Reader::new(dedup, self.node(), &shared.config.dedup, ids::now_micros())
        });
        if let Some(ids) = &mut ids {
            ids.table(&shared.snapshots.load().files, &shared.progress);
        }
        let quarantine = shared.directory.quarantine();
        recovery::replay(logs, committed, &quarantine, &shared.queue, &shared.progress, ids)
    }

    fn start_shards(
        &self,
        parts: Vec<ShardParts>,
        mut logs: BTreeMap<u32, ShardLog>,
        committed: &BTreeMap<u32, i64>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        for parts in parts {
            let state = Arc::clone(&parts.state);
            let Some(log) = logs.remove(&state.shard) else { continue };
            let last = log.next_sequence - 1;
            // Relaxed, all four: statistics, before the thread that writes them exists.
            state.last_sequence.store(last, Ordering::Relaxed);
            state.durable_sequence.store(last, Ordering::Relaxed);
            let in_table = committed.get(&state.shard).copied().unwrap_or(0);
            state.released.fetch_max(in_table, Ordering::Relaxed);
            let shard = Shard {
                consumer: parts.consumer,
                intake: Intake::new(shared.dedup.clone(), state.shard),
                log: Log::new(
                    log.directory,
                    Box::new(RealDisk),
                    Identity {
                        node: self.node().to_owned(),
                        shard: state.shard,
                        schema: log_schema(),
                    },
                    shared.config.log.segment_bytes,
                    log.recovered.segments,
                    log.recovered.voids,
                )?,
                settler: parts.settler,
                queue: shared.queue.clone(),
                operations: Arc::clone(&shared.operations),
                markers: parts.markers,
                limits: LogConfig::clone(&shared.config.log),
                next_sequence: log.next_sequence,
                state,
            };
            self.spawn(&format!("shard-{}", shard.state.shard), move || shard.run())?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let (alive, ended) = bounded::<()>(0);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive = alive;
                body();
            })
            .map_err(Error::io("start the thread", name))?;
        self.shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), ended));
        Ok(())
    }

    /// Waits for every thread whose name starts with `kind`.
    fn join(&self, kind: &'static str, until: Instant) -> Result<(), Error> {
        let threads: Vec<_> = {
            let all = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter()
                .filter(|(name, _)| name.starts_with(kind))
                .map(|(_, ended)| ended.clone())
                .collect()
        };
        for ended in threads {
            // Nothing is ever sent: the channel disconnects when the thread ends.
            if ended.recv_deadline(until).is_err_and(|error| error.is_timeout()) {
                let what = match kind {
                    "shard" => "draining the rings",
                    "recovery" => "stopping the recovery",
                    "check" => "stopping the check of files",
                    "flusher" => "stopping the flusher",
                    _ => "stopping the roller",
                };
                return Err(Error::Deadline { what, limit: until.elapsed() });
            }
        }
        Ok(())
    }
}

fn validate(config: &Config) -> Result<(), Error> {
    let out_of_range =
        |name, value: String, limit: String| Err(Error::Config { name, value, limit });
    if config.shards.get() > SHARDS_MAX {
        return out_of_range("shards", config.shards.to_string(), format!("at most {SHARDS_MAX}"));
    }
    let ring = ringlake_ring::MIN_CAPACITY..=ringlake_ring::MAX_CAPACITY;
    if !ring.contains(&config.ring_bytes) || !config.ring_bytes.is_power_of_two() {
        let limit = format!("a power of two from {} to {}", ring.start(), ring.end());
        return out_of_range("ring_bytes", config.ring_bytes.to_string(), limit);
    }
    Ok(())
}

/// The first hot table, and what works on it.
struct OpenHot {
    appender: HotAppender,
    table: Arc<HotTable>,
    unused: Receiver<String>,
    unused_sender: Sender<String>,
}

impl OpenHot {
    fn new(database: &Database) -> Result<Self, Error> {
        // Holds at most the names of the tables that exist.
        let (unused_sender, unused) = unbounded();
        let table = Arc::new(HotTable::new("hot_1".into(), unused_sender.clone()));
        let appender = HotAppender::new(database)?;
        appender
            .create(&table.name)
            .map_err(|source| Error::DuckDb { action: "create the first hot table", source })?;
        Ok(Self { appender, table, unused, unused_sender })
    }
}

/// One ring a shard, and both its ends.
fn make_shards(
    config: &Config,
    gate: &Arc<Gate>,
) -> (Vec<Ingest>, Vec<ShardParts>, Vec<Sender<Arc<Marker>>>) {
    let mut ingests = Vec::new();
    let mut all_parts = Vec::new();
    let mut all_markers = Vec::new();
    for shard in 0..u32::try_from(config.shards.get()).unwrap_or(u32::MAX) {
        let (producer, consumer) = ringlake_ring::ring(config.ring_bytes);
        let (settler, acks) = ack::channel();
        // Markers are rare and their callers wait: each holds at most one.
        let (to_shard, markers) = unbounded();
        let state = Arc::new(ShardState::new(shard, producer.gauge(), consumer.waker()));
        ingests.push(Ingest::new(producer, acks, Arc::clone(gate), Arc::clone(&state)));
        all_parts.push(ShardParts { consumer, settler, state, markers });
        all_markers.push(to_shard);
    }
    (ingests, all_parts, all_markers)
}

/// The table of known ids, empty. A decision that a shard waits for ends its sleep.
fn make_dedup(config: &DedupConfig, shards: Arc<[Arc<ShardState>]>) -> Option<Arc<Dedup>> {
    let ids = NonZeroUsize::new(config.ids)?;
    let limits = Limits { ids, window: config.window };
    // A new one for every start: the ids are read again from what is stored.
    let secret = Uuid::new_v4().into_bytes();
    let tell = move || shards.iter().for_each(|shard| shard.waker.wake());
    Some(Arc::new(Dedup::new(&limits, secret, tell)))
}

/// How far the table holds each shard of this node: those configured and those with a log.
fn committed(
    table: &Table,
    directory: &Directory,
    shards: usize,
) -> Result<BTreeMap<u32, i64>, Error> {
    let found = crate::log::shard_directories(&directory.log())?;
    let configured = 0..u32::try_from(shards).unwrap_or(u32::MAX);
    found
        .into_iter()
        .map(|(shard, _)| shard)
        .chain(configured)
        .map(|shard| Ok((shard, table.sequence(shard)?)))
        .collect()
}
