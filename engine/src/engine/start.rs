//! How the engine starts.
//!
//! **Order**
//! 1. The directory is locked, the table opened, files that no commit names are removed.
//! 2. The flusher and the roller start, and queries see the table.
//! 3. Behind the caller the logs are recovered and replayed; then the shards and the compactor
//!    start, and the gate for events opens.
//!
//! **Failure.** What fails in the first two steps fails the start. A log that cannot be replayed keeps
//! the gate closed until the next start; queries over what was replayed go on.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ringlake_dedup::{Dedup, Limits};
use ringlake_disk::{Disk, RealDisk};
use ringlake_ring::Consumer;
use uuid::Uuid;

use super::{Engine, Shared};
use crate::ack::{self, Settler};
use crate::bots;
use crate::clock::now_micros;
use crate::compactor::{Compactor, Erasing, Order};
use crate::config::{Config, DedupConfig, LogConfig};
use crate::directory::Directory;
use crate::erase::Erasures;
use crate::error::{Error, chain};
use crate::hot::{
    Database, Flusher, FlusherState, HotAppender, Marker, Overflow, Passing, Queue, Receiving,
    Sealed, queue,
};
use crate::ingest::{Bar, Gate, Ingest};
use crate::lake::{Checked, Location, Table};
use crate::listing::{Lister, Signer, Tail};
use crate::log::{Identity, Log};
use crate::markers::Markers;
use crate::problem::Problem;
use crate::promoted::{Promoter, Promotion, TableColumns};
use crate::query::Pool;
use crate::recovery::{self, Progress, ShardLog, ids};
use crate::roller::{Request, Roller, RollerState};
use crate::schema::log_schema;
use crate::shard::{Intake, Mending, Shard, ShardState};
use crate::snapshot::{HotTable, Snapshot, Snapshots};
use crate::space::{self, Space};
use crate::visitor::Visitors;
use crate::vital::Vital;
use ringlake_niceness::Behind;

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
    /// [`Error::Locked`] when another process has the directory; [`Error::Config`] and
    /// [`Error::Columns`] for a value out of range; otherwise what kept the table or DuckDB from opening.
    pub fn open(config: Config) -> Result<(Self, Vec<Ingest>), Error> {
        Self::open_on(config, Arc::new(RealDisk))
    }

    /// The same on another disk than the operating system's.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_on(config: Config, disk: Arc<dyn Disk>) -> Result<(Self, Vec<Ingest>), Error> {
        config.check()?;
        let (directory, mut table) = open_files(&config, disk)?;
        let promoter = promote(&config, &mut table)?;
        let columns = promoter.columns();
        let (directory, location) = (Arc::new(directory), table.location().clone());
        let visitors = Visitors::open(directory.root(), now_micros())
            .map_err(Error::io("read or make the visitor salt in", directory.root()))?;
        let temporary = directory.temporary();
        let database = Arc::new(Database::open(&config.duckdb, location.root(), &temporary)?);
        let hot = OpenHot::new(&database, &columns)?;
        let snapshots = Arc::new(first_snapshot(&table, &hot, &columns)?);

        let gate = Arc::new(Gate::default());
        let (ingests, parts, markers) = make_shards(&config, &gate);
        let shards: Arc<[_]> = parts.iter().map(|parts| Arc::clone(&parts.state)).collect();
        let (flusher, roller) = (Arc::<FlusherState>::default(), Arc::<RollerState>::default());
        let broken = Arc::<Problem>::default();
        let overflow = overflow(&gate, &flusher, &roller, &broken);
        let (queue, receiving) = queue(config.hot.queue_bytes, overflow);
        let places = (directory.log(), location.root().to_owned());
        let space = watch_space(&config, &gate, &shards, &queue, places);
        let committed = committed(&table, &directory, parts.len())?;
        let checked: Arc<Checked> = Arc::default();
        let pool = make_pool(&config, &checked, &database)?;
        // Orders are rare and their callers wait: each has at most one in it.
        let (orders, to_compactor) = unbounded();
        let lister = make_lister(&config, &directory, &location, &checked, &database)?;
        let markers = make_markers(markers, &shards, &flusher, &roller, &broken);
        let erasures = Erasures::open(directory.root(), Arc::clone(directory.disk()))?;

        let shared = Arc::new(Shared {
            gate,
            visitors: Arc::new(visitors),
            dedup: make_dedup(&config.dedup, Arc::clone(&shards)),
            shards,
            snapshots,
            progress: Progress::default(),
            flusher,
            roller,
            compactor: Arc::default(),
            space: Arc::new(space),
            queue,
            operations: Arc::default(),
            checked,
            broken,
            closing: AtomicBool::new(false),
            pool: Arc::new(pool),
            lister,
            exports: Arc::default(),
            tail: Arc::new(Tail::new(Arc::clone(&columns))),
            columns,
            wrong_types: promoter.total(),
            markers: Arc::new(markers),
            erasures: Arc::new(erasures),
            found: OnceLock::new(),
            orders,
            threads: Mutex::new(Vec::new()),
            location,
            config,
            directory,
        });
        let engine = Self { shared };
        // The flusher sends a table only while the roller is idle.
        let (to_roller, rolls) = bounded(1);
        let (to_committer, requests) = bounded(0);
        engine.start_flusher((hot, promoter), receiving, to_roller, &committed)?;
        engine.start_roller(table, (rolls, requests), committed.clone())?;
        let checking = engine.clone();
        engine.spawn("check", move || checking.check_files())?;
        let recovering = engine.clone();
        engine.spawn_vital("recovery", move || {
            recovering.recover(parts, &committed, (to_compactor, to_committer));
        })?;
        Ok((engine, ingests))
    }

    fn start_flusher(
        &self,
        (hot, promoter): (OpenHot, Promoter),
        receiving: Receiving,
        roller: Sender<Sealed>,
        committed: &BTreeMap<u32, i64>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let flusher = Flusher {
            appender: hot.appender,
            passing: Passing {
                promoter,
                node: self.node().to_owned(),
                disk: Arc::clone(shared.directory.disk()),
                quarantine: shared.directory.quarantine(),
                state: Arc::clone(&shared.flusher),
                tail: Arc::clone(&shared.tail),
            },
            config: shared.config.hot.clone(),
            messages: receiving.messages,
            asks: receiving.asks,
            wakes: receiving.wakes,
            budget: receiving.budget,
            roller,
            rolling: Arc::clone(&shared.roller),
            space: Arc::clone(&shared.space),
            snapshots: Arc::clone(&shared.snapshots),
            unused: hot.unused,
            unused_sender: hot.unused_sender,
            operations: Arc::clone(&shared.operations),
            state: Arc::clone(&shared.flusher),
        };
        let sequences = committed.iter().map(|(shard, last)| (*shard, *last)).collect();
        self.spawn_vital("flusher", move || {
            // What it does is little, unless somebody waits for it.
            ringlake_niceness::step(Behind::Nobody);
            flusher.run(hot.table, sequences);
        })
    }

    fn start_roller(
        &self,
        table: Table,
        (rolls, requests): (Receiver<Sealed>, Receiver<Request>),
        committed: BTreeMap<u32, i64>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let roller = Roller {
            location: shared.location.clone(),
            table,
            node: self.node().to_owned(),
            rolls,
            requests,
            wake: shared.queue.waker(),
            space: Arc::clone(&shared.space),
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
        self.spawn_vital("roller", move || {
            ringlake_niceness::step(Behind::Answers);
            roller.run();
        })
    }

    fn start_compactor(
        &self,
        (orders, committer): (Receiver<Order>, Sender<Request>),
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let compactor = Compactor {
            location: shared.location.clone(),
            node: self.node().to_owned(),
            config: shared.config.compaction.clone(),
            retention: shared.config.retention.clone(),
            orders,
            committer,
            snapshots: Arc::clone(&shared.snapshots),
            shards: Arc::clone(&shared.shards),
            roller: Arc::clone(&shared.roller),
            space: Arc::clone(&shared.space),
            operations: Arc::clone(&shared.operations),
            state: Arc::clone(&shared.compactor),
            erasing: Erasing {
                erasures: Arc::clone(&shared.erasures),
                markers: Arc::clone(&shared.markers),
                directory: Arc::clone(&shared.directory),
                exports: Arc::clone(&shared.exports),
                pause: Duration::ZERO,
            },
            avoid: HashSet::new(),
            slice: Cell::new(Instant::now()),
        };
        let state = Arc::clone(&shared.compactor);
        self.spawn("compactor", move || {
            ringlake_niceness::step(Behind::Events);
            state.watch(|| compactor.run());
        })
    }

    /// The thread that checks the table's files before the first query would have to.
    fn check_files(&self) {
        let snapshot = self.shared.snapshots.load();
        // Relaxed: see `shutdown`; one more file is checked at most.
        let stop = || self.shared.closing.load(Ordering::Relaxed);
        let checked = &self.shared.checked;
        if let Some(damaged) = checked.damaged_of(snapshot.version, &snapshot.files, stop) {
            checked.lacking_of(&snapshot.columns, &snapshot.files, &damaged, stop);
        }
    }

    /// The recovery thread: replays, then starts the shards and the compactor, which must not add its
    /// memory to that of a replay, and opens the gate.
    fn recover(
        &self,
        parts: Vec<ShardParts>,
        committed: &BTreeMap<u32, i64>,
        compactor: (Receiver<Order>, Sender<Request>),
    ) {
        let shared = &self.shared;
        let shards = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let outcome =
            recovery::recover_logs(&shared.directory, shards, committed, &shared.progress)
                .and_then(|logs| {
                    self.replay(&logs, committed)?;
                    self.note_found(&logs, committed);
                    self.start_shards(parts, logs, committed)?;
                    self.start_compactor(compactor)
                });
        match outcome {
            Ok(()) => {
                shared.progress.end();
                shared.space.look();
                shared.gate.lift(Bar::Closed);
                // Relaxed: see `Engine::tell_to_stop`. A request that slips through meanwhile is
                // drained like any other.
                if shared.closing.load(Ordering::Relaxed) || shared.broken.is_there() {
                    shared.gate.bar(Bar::Closed);
                }
            }
            Err(Error::Closed) => {
                tracing::info!("the replay was broken off; the next start goes on")
            }
            Err(error) => {
                let problem = format!("the log could not be replayed: {}", chain(&error));
                if shared.broken.set(problem.clone()) {
                    tracing::error!("{problem}; no events are accepted");
                }
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
        let mut ids = shared
            .dedup
            .as_deref()
            .map(|dedup| ids::Reader::new(dedup, self.node(), &shared.config.dedup, now_micros()));
        if let Some(ids) = &mut ids {
            ids.table(&shared.snapshots.load().files, &shared.progress);
            ids.quarantine(&shared.directory.quarantine());
        }
        let directory = &shared.directory;
        shared.queue.sparingly(|| {
            recovery::replay(logs, committed, directory, &shared.queue, &shared.progress, ids)
        })
    }

    fn start_shards(
        &self,
        parts: Vec<ShardParts>,
        mut logs: BTreeMap<u32, ShardLog>,
        committed: &BTreeMap<u32, i64>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let bots = || shared.config.mark_bots.then(bots::Robots::new);
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
                intake: Intake::new(shared.dedup.clone(), state.shard)
                    .with_senders(Arc::clone(&shared.visitors), bots()),
                log: Log::new(
                    log.directory,
                    Arc::clone(shared.directory.disk()),
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
                space: Arc::clone(&shared.space),
                mending: Mending::default(),
                scrubbing: 0,
                next_sequence: log.next_sequence,
                state,
            };
            self.spawn_vital(&format!("shard-{}", shard.state.shard), move || {
                ringlake_niceness::step(Behind::Nobody);
                shard.run();
            })?;
        }
        Ok(())
    }

    /// Starts a thread without which nothing can be accepted.
    pub(crate) fn spawn_vital(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let (gate, broken) = (Arc::clone(&self.shared.gate), Arc::clone(&self.shared.broken));
        self.spawn(name, move || {
            let _vital = Vital { gate, broken };
            body();
        })
    }

    pub(crate) fn spawn(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let (alive, ended) = bounded::<()>(0);
        let directory = Arc::clone(&self.shared.directory);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive = (alive, directory);
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
}

/// Adds the configured columns to the table; gives what fills them.
pub(crate) fn promote(config: &Config, table: &mut Table) -> Result<Promoter, Error> {
    let promotion = Promotion::new(&config.columns)?;
    let columns = Arc::new(table.promote(&promotion)?);
    Ok(Promoter::new(columns, &promotion))
}

/// What readers see before anything is replayed.
fn first_snapshot(
    table: &Table,
    hot: &OpenHot,
    columns: &Arc<TableColumns>,
) -> Result<Snapshots, Error> {
    Ok(Snapshots::new(Snapshot {
        version: table.version(),
        files: table.live_files()?,
        hot: vec![Arc::clone(&hot.table)],
        columns: Arc::clone(columns),
    }))
}

/// The files that a start needs before the logs: the directory and the table, both sound.
pub(crate) fn open_files(
    config: &Config,
    disk: Arc<dyn Disk>,
) -> Result<(Directory, Table), Error> {
    let directory = Directory::open_on(&config.data, Arc::clone(&disk))?;
    let location = Location::parse(config.lake.as_deref(), directory.root())?.with_disk(disk);
    let mut table = Table::open_or_create(&location, directory.node())?;
    let orphans = table.remove_orphans(config.compaction.retain_replaced)?;
    if !orphans.is_empty() {
        tracing::info!(files = orphans.len(), "removed files that are no part of the table");
    }
    Ok((directory, table))
}

/// The first hot table, and what works on it.
struct OpenHot {
    appender: HotAppender,
    table: Arc<HotTable>,
    unused: Receiver<String>,
    unused_sender: Sender<String>,
}

impl OpenHot {
    fn new(database: &Database, columns: &Arc<TableColumns>) -> Result<Self, Error> {
        // Holds at most the names of the tables that exist.
        let (unused_sender, unused) = unbounded();
        let table = Arc::new(HotTable::new("hot_1".into(), unused_sender.clone()));
        let appender = HotAppender::new(database, Arc::clone(columns))?;
        appender
            .create(&table.name)
            .map_err(|source| Error::DuckDb { action: "create the first hot table", source })?;
        Ok(Self { appender, table, unused, unused_sender })
    }
}

/// A queue is stuck when what comes behind it has a problem.
fn overflow(
    gate: &Arc<Gate>,
    flusher: &Arc<FlusherState>,
    roller: &Arc<RollerState>,
    broken: &Arc<Problem>,
) -> Overflow {
    let (flusher, roller, broken) = (Arc::clone(flusher), Arc::clone(roller), Arc::clone(broken));
    let stuck = move || {
        [&flusher.problem, &roller.problem, &broken].into_iter().any(|problem| problem.is_there())
    };
    Overflow { gate: Arc::clone(gate), stuck: Box::new(stuck) }
}

fn make_markers(
    senders: Vec<Sender<Arc<Marker>>>,
    shards: &Arc<[Arc<ShardState>]>,
    flusher: &Arc<FlusherState>,
    roller: &Arc<RollerState>,
    broken: &Arc<Problem>,
) -> Markers {
    Markers {
        senders,
        shards: Arc::clone(shards),
        flusher: Arc::clone(flusher),
        roller: Arc::clone(roller),
        broken: Arc::clone(broken),
    }
}

fn make_pool(
    config: &Config,
    checked: &Arc<Checked>,
    database: &Arc<Database>,
) -> Result<Pool, Error> {
    let (checked, database) = (Arc::clone(checked), Arc::clone(database));
    Pool::start(config.query.clone(), checked, move || database.connect())
        .map_err(Error::io("start the query workers", "query"))
}

/// Watches the two places, log and lake.
fn watch_space(
    config: &Config,
    gate: &Arc<Gate>,
    shards: &Arc<[Arc<ShardState>]>,
    queue: &Queue,
    (log, lake): (PathBuf, PathBuf),
) -> Space {
    let limits = space::Limits {
        free_min_bytes: config.disk.free_min_bytes,
        log_max_bytes: config.log_max_bytes(),
    };
    Space::new(limits, Arc::clone(gate), Arc::clone(shards), queue.waker(), log, lake)
}

fn make_lister(
    config: &Config,
    directory: &Directory,
    location: &Location,
    checked: &Arc<Checked>,
    database: &Arc<Database>,
) -> Result<Lister, Error> {
    let signer = Signer::new(directory.cursor_key()?);
    let (checked, database) = (Arc::clone(checked), Arc::clone(database));
    let connect = move || database.connect();
    Ok(Lister::new(signer, checked, location.runtime(), config.query.clone(), connect))
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

/// How far the table holds each shard of this node: those configured, those with a log, and those
/// that it knows.
pub(crate) fn committed(
    table: &Table,
    directory: &Directory,
    shards: usize,
) -> Result<BTreeMap<u32, i64>, Error> {
    let found = crate::log::shard_directories(&directory.log())?;
    let configured = 0..u32::try_from(shards).unwrap_or(u32::MAX);
    let in_table = table.all_sequences()?;
    found
        .into_iter()
        .map(|(shard, _)| shard)
        .chain(configured)
        .chain(in_table.into_keys())
        .map(|shard| Ok((shard, table.sequence(shard)?)))
        .collect()
}
