//! Every event, in the order of the numbers, for those who must not miss one: see
//! [`webhook`](crate::webhook).
//!
//! **Guarantees.** Whoever begins at a [`Position`] and goes on where each step has ended gets every
//! event with a number behind that position that matches, in each shard in the order of the numbers,
//! whatever is rolled, compacted or restarted meanwhile: a step goes no further than what is durable and
//! visible ([`Engine::visible_end`]). Each comes once; those that are erased or taken out by retention
//! before their turn do not come.
//!
//! **Not guaranteed.** Events that were set aside and are brought back later keep their numbers,
//! which have been passed then.
//!
//! **Algorithm.** A step asks for the numbers of one shard from the position to a little further, and
//! looks only into files whose statistics have some of them. Where few events match it asks for twice
//! as many numbers the next time, up to `WINDOW_MAX`; where many do, for fewer. Where the query fails,
//! be it that so many large events take more memory than there is, for a quarter at once.
//!
//! **Limits.** A step gives at most [`STEP_EVENTS`] events and about [`STEP_BYTES`], in parts of
//! [`PART_EVENTS`] and [`PART_BYTES`]: files are sorted by something else than the number, so that it
//! takes about as long to find a few as to find many. It is one query among others, and waits for a
//! worker as they do.
//!
//! **Roles.** Any thread that may block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Engine;
use crate::error::Error;
use crate::hot::Goal;
use crate::listing::{public, public_schema, rows_within, size_of_rows};
use crate::query::{QueryError, QueryRequest};
use crate::schema::{PARTITION, column_list};
use crate::snapshot::{DataFile, Snapshot};

/// Most events of a step.
pub const STEP_EVENTS: usize = 10_000;
/// Bytes of texts at which a step ends; its first event is in it whatever its size.
pub const STEP_BYTES: usize = 4 << 20;
/// Most events of a part.
pub const PART_EVENTS: usize = 500;
/// Bytes of texts at which a part ends; its first event is in it whatever its size.
pub const PART_BYTES: usize = 1 << 20;
/// Most numbers that a step asks for: about what a hot table holds.
const WINDOW_MAX: i64 = 1 << 18;
/// The first: sorted whole they fit into DuckDB's memory, also when each event is as large as one may be,
/// at the defaults of both.
const WINDOW_FIRST: i64 = 1 << 10;

/// How far somebody has come: the last number of each shard; 0 for a shard that is not named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position(BTreeMap<u32, i64>);

impl Position {
    fn of(&self, shard: u32) -> i64 {
        self.0.get(&shard).copied().unwrap_or(0)
    }

    /// The same but for one shard.
    fn at(&self, shard: u32, number: i64) -> Self {
        let mut other = self.clone();
        other.0.insert(shard, number);
        other
    }

    /// The same, but in no shard behind `end`.
    pub(crate) fn before(&self, end: &Self) -> Self {
        let within = self.0.iter().map(|(shard, last)| (*shard, (*last).min(end.of(*shard))));
        Self(within.filter(|(_, last)| *last > 0).collect())
    }

    /// How many numbers lie between it and `end`.
    #[must_use]
    pub fn behind(&self, end: &Self) -> u64 {
        let shards = end.0.iter().map(|(shard, end)| end.saturating_sub(self.of(*shard)));
        shards.map(|behind| u64::try_from(behind).unwrap_or(0)).sum()
    }
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct FeedRequest {
    /// Whose; all when absent.
    pub tenant: Option<String>,
    /// Of which types; any when empty.
    pub types: Vec<String>,
    /// With which names; any when empty.
    pub events: Vec<String>,
}

impl FeedRequest {
    /// The columns that it looks at, with what it wants of them.
    fn wanted(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let columns =
            [("tenant", self.tenant.as_slice()), ("type", &self.types), ("event", &self.events)];
        columns.into_iter().filter(|(_, texts)| !texts.is_empty())
    }

    /// The rows of `events` that it wants.
    fn mask(&self, events: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let mut columns = Vec::new();
        for (name, texts) in self.wanted() {
            columns
                .push((events.column(events.schema().index_of(name)?).as_string::<i32>(), texts));
        }
        let is_wanted = |row: usize| {
            columns.iter().all(|(column, texts)| {
                column.is_valid(row) && texts.iter().any(|text| text == column.value(row))
            })
        };
        Ok((0..events.num_rows()).map(|row| Some(is_wanted(row))).collect())
    }
}

/// Why a step could not be made. The position is as before; the next one may go through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// What was accepted is not visible, or not yet.
    #[error("the newest events cannot be seen")]
    Hidden(#[source] Error),
    /// They cannot be read.
    #[error("the events cannot be read")]
    Query(#[from] QueryError),
    /// A defect of ours.
    #[error("the events cannot be prepared: {0}")]
    Prepare(#[from] ArrowError),
}

/// What a step gave.
#[derive(Debug)]
pub struct Step {
    /// The events in their order, with the columns of a page of a listing.
    events: RecordBatch,
    /// Whose numbers they have.
    shard: u32,
    /// Where to go on.
    pub next: Position,
    /// Whether these are all that were looked at, of those that are wanted: not when they are too many.
    pub is_whole: bool,
}

impl Step {
    /// Those events that `request` wants, which is one of those that the feed was made for. The last
    /// part ends where the step does.
    ///
    /// # Errors
    /// None in practice.
    pub fn parts(&self, request: &FeedRequest) -> Result<Vec<Part>, ArrowError> {
        let events = filter_record_batch(&self.events, &request.mask(&self.events)?)?;
        let column = events.column(events.schema().index_of("sequence")?);
        let sequences = column.as_primitive::<Int64Type>();
        let (mut parts, mut at) = (Vec::new(), 0);
        while at < events.num_rows() {
            let rest = events.slice(at, (events.num_rows() - at).min(PART_EVENTS));
            let count = rows_within(&rest, PART_BYTES).max(1);
            at += count;
            let next = match at == events.num_rows() {
                true => self.next.clone(),
                false => self.next.at(self.shard, sequences.value(at - 1)),
            };
            parts.push(Part { events: rest.slice(0, count), next });
        }
        Ok(parts)
    }

    /// How many events it has, whoever wants them.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.num_rows()
    }
}

/// Some of the events of a step.
#[derive(Debug)]
pub struct Part {
    /// They, with the columns of a page of a listing; at least one.
    pub events: RecordBatch,
    /// The position behind them.
    pub next: Position,
}

/// Goes through the events.
#[derive(Debug)]
pub struct Feed {
    requests: Vec<FeedRequest>,
    /// Numbers that the next step asks for.
    window: i64,
}

impl Feed {
    /// Goes through the events that any of `requests` wants.
    #[must_use]
    pub fn new(requests: Vec<FeedRequest>) -> Self {
        Self { requests, window: WINDOW_FIRST }
    }

    /// Goes on for others.
    pub fn serve(&mut self, requests: Vec<FeedRequest>) {
        self.requests = requests;
    }

    /// The events behind `from` and not behind `end`, in the shard that has most numbers there; nothing
    /// when there are none. `end` is one that [`Engine::visible_end`] has given.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub fn step(
        &mut self,
        engine: &Engine,
        from: &Position,
        end: &Position,
    ) -> Result<Option<Step>, FeedError> {
        let behind = |shard: u32| end.of(shard) - from.of(shard);
        let farthest = end.0.keys().copied().max_by_key(|shard| behind(*shard));
        let Some(shard) = farthest.filter(|shard| behind(*shard) > 0) else { return Ok(None) };
        let first = from.of(shard) + 1;
        let (last, (events, is_whole)) = loop {
            let last = end.of(shard).min(first.saturating_add(self.window - 1));
            match self.read(engine, shard, first, last) {
                Ok(read) => break (last, read),
                Err(error) if first == last || !is_too_much(&error) => return Err(error),
                Err(_) => self.window = ((last - first + 1) / 4).max(1),
            }
        };
        let column = events.column(events.schema().index_of("sequence")?);
        let reached = match column.as_primitive::<Int64Type>().values().last() {
            Some(reached) if !is_whole => *reached,
            _ => last,
        };
        self.window = match is_whole {
            true => (self.window * 2).min(WINDOW_MAX),
            false => reached - first + 1,
        };
        Ok(Some(Step { events, shard, next: from.at(shard, reached), is_whole }))
    }

    /// The events with these numbers, and whether these are all; if not, there are some.
    fn read(
        &self,
        engine: &Engine,
        shard: u32,
        first: i64,
        last: i64,
    ) -> Result<(RecordBatch, bool), FeedError> {
        let shared = &engine.shared;
        // Held until the end: its files stay.
        let snapshot = shared.snapshots.load();
        let request = QueryRequest {
            sql: self.sql(engine),
            params: self.params(engine, shard, first, last).into(),
            // A second time, around everything, where there is one.
            tenant: match &*self.requests {
                [one] => one.tenant.clone(),
                _ => None,
            },
            timeout: None,
        };
        let mut stream = shared.pool.query(request, Arc::new(part_of(&snapshot, first, last)))?;
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < STEP_EVENTS
            && bytes < STEP_BYTES
            && let Some(batch) = stream.blocking_next()
        {
            let batch = public(&batch?, &shared.columns)?;
            let fit = rows_within(&batch, STEP_BYTES - bytes).max(usize::from(rows == 0));
            let all = batch.num_rows();
            let batch = batch.slice(0, fit.min(all));
            rows += batch.num_rows();
            bytes = if fit < all { STEP_BYTES } else { bytes + size_of_rows(&batch, 0..all) };
            batches.push(batch);
        }
        let is_whole = rows < STEP_EVENTS && bytes < STEP_BYTES;
        let schema = Arc::new(public_schema(&shared.columns));
        Ok((concat_batches(&schema, &batches)?, is_whole))
    }

    fn sql(&self, engine: &Engine) -> String {
        let mut columns = format!("{}, \"{PARTITION}\"", column_list());
        for column in engine.columns().promoted() {
            columns.push_str(&format!(", \"{}\"", column.name.replace('"', "\"\"")));
        }
        let one_of = |(column, texts): (&str, &[String])| {
            format!("\"{column}\" IN (?{})", ", ?".repeat(texts.len() - 1))
        };
        let all_of = |request: &FeedRequest| {
            let conditions: Vec<String> = request.wanted().map(one_of).collect();
            if conditions.is_empty() { "true".into() } else { conditions.join(" AND ") }
        };
        let wanted: Vec<String> = self.requests.iter().map(all_of).collect();
        let wanted = wanted.join(" OR ");
        format!(
            "SELECT {columns} FROM events \
             WHERE node = ? AND shard = ? AND sequence BETWEEN ? AND ? AND ({wanted}) \
             ORDER BY sequence LIMIT {STEP_EVENTS}"
        )
    }

    fn params(&self, engine: &Engine, shard: u32, first: i64, last: i64) -> Vec<Value> {
        let numbers = [Value::from(engine.node()), shard.into(), first.into(), last.into()];
        let texts = self.requests.iter().flat_map(FeedRequest::wanted).flat_map(|(_, texts)| texts);
        numbers.into_iter().chain(texts.map(|text| Value::from(text.as_str()))).collect()
    }
}

impl Engine {
    /// Behind the events that are durable: where those begin that come from now on. None until the log
    /// has been replayed.
    #[must_use]
    pub fn end_of_feed(&self) -> Option<Position> {
        if !self.is_running() {
            return None;
        }
        let mut end = self.shared.found.get().cloned().unwrap_or_default();
        for shard in self.shared.shards.iter() {
            // Relaxed: a number that is missed here comes with the next look; the marker that makes
            // those below it visible is sent after it.
            let durable = shard.durable_sequence.load(Ordering::Relaxed);
            let known = end.entry(shard.shard).or_default();
            *known = durable.max(*known);
        }
        // One that is equal is the same.
        end.retain(|_, last| *last > 0);
        Some(Position(end))
    }

    /// The same, once everything before it is visible. Costs what showing that costs.
    ///
    /// # Errors
    /// [`FeedError::Hidden`].
    pub fn visible_end(&self) -> Result<Position, FeedError> {
        let end = self.end_of_feed().ok_or(FeedError::Hidden(Error::Closed))?;
        self.reach(Goal::Visible).map_err(FeedError::Hidden)?;
        Ok(end)
    }
}

/// Whether fewer events may be read where these were not.
fn is_too_much(error: &FeedError) -> bool {
    match error {
        FeedError::Query(QueryError::Busy { .. } | QueryError::NotReady) => false,
        FeedError::Query(_) => true,
        FeedError::Hidden(_) | FeedError::Prepare(_) => false,
    }
}

/// `snapshot` without the files that have none of the numbers.
fn part_of(snapshot: &Snapshot, first: i64, last: i64) -> Snapshot {
    let has_some = |file: &&DataFile| {
        file.bounds.sequence.is_none_or(|(min, max)| min <= last && first <= max)
    };
    Snapshot {
        version: snapshot.version,
        files: snapshot.files.iter().filter(has_some).cloned().collect(),
        hot: snapshot.hot.clone(),
        columns: Arc::clone(&snapshot.columns),
    }
}
