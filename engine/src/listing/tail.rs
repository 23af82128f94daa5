//! The events as they become visible, for those who follow.
//!
//! **Guarantees.** A follower gets events in the order in which they became visible to SQL, each at
//! most once, only those that it asked for and only its tenant's. When events were left out it is
//! told so at the place where they are missing. Nobody waits for a follower.
//!
//! **Not guaranteed.** Every event: above about [`BURST_ROWS`] a flush, and for a follower that does
//! not keep up, only the newest come. Pages of a listing have them all.
//!
//! **Cost.** While nobody follows, one look at a counter for each flush, of which there are some a
//! second; nothing for an event.
//!
//! **Memory.** [`BURSTS`] bursts of at most [`BURST_ROWS`] rows and [`BURST_BYTES`] bytes, shared by
//! all followers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::page::{public, size_of_rows};
use super::{ListError, ListRequest};
use crate::promoted::TableColumns;

/// Most followers: each encodes what it gets for itself.
const FOLLOWERS_MAX: usize = 64;
/// Most of them that follow one tenant, so that no tenant takes the places of all.
const FOLLOWERS_OF_ONE_MAX: usize = 16;
/// Bursts that wait for the slowest follower; a later one pushes the oldest out.
const BURSTS: usize = 16;
/// Most rows of a flush that followers get: more than anybody reads.
const BURST_ROWS: usize = 1_000;
/// Most bytes of texts in them.
const BURST_BYTES: usize = 1 << 20;

/// Where the flusher leaves what it has made visible.
#[derive(Debug)]
pub(crate) struct Tail {
    columns: Arc<TableColumns>,
    sender: broadcast::Sender<Arc<Burst>>,
    /// How many follow each tenant. At most [`FOLLOWERS_MAX`] entries.
    places: Arc<Mutex<BTreeMap<String, usize>>>,
    /// Rows of all bursts so far, those left out included. Written by the flusher.
    rows: AtomicU64,
}

/// The newest rows of a flush.
#[derive(Debug)]
struct Burst {
    events: RecordBatch,
    /// Rows before `events`.
    first: u64,
    /// Rows with them.
    end: u64,
}

impl Tail {
    /// Nothing yet, of rows with `columns`.
    pub(crate) fn new(columns: Arc<TableColumns>) -> Self {
        let sender = broadcast::Sender::new(BURSTS);
        Self { columns, sender, places: Arc::default(), rows: AtomicU64::new(0) }
    }

    /// Shows followers the `rows` of a flush. Called by the flusher alone.
    pub(crate) fn publish(&self, rows: &[RecordBatch]) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        // Relaxed: written here only; `follow` says what it reads.
        let end = self.rows.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        match newest(rows, &self.columns) {
            Ok(events) => {
                let first = end - events.num_rows() as u64;
                // Nobody is left when the last one has gone meanwhile.
                let _ = self.sender.send(Arc::new(Burst { events, first, end }));
            }
            // The rows are stored; who follows is told with the next burst that some are missing.
            Err(error) => tracing::error!(%error, "followers cannot be shown new events"),
        }
    }

    /// Follows what becomes visible from here on and matches the texts of `request`.
    pub(crate) fn follow(&self, request: &ListRequest) -> Result<Follower, ListError> {
        let receiver = self.sender.subscribe();
        // This one is counted: of two who come at the same moment both see both.
        if self.sender.receiver_count() > FOLLOWERS_MAX {
            return Err(ListError::Followers { max: FOLLOWERS_MAX });
        }
        let place = match &request.tenant {
            Some(tenant) => Some(self.place_for(tenant)?),
            None => None,
        };
        // Relaxed: the channel's lock, taken above, comes after every burst that this follower does
        // not get, so their rows are in. Those of a burst on its way may be, see `next`.
        let seen = self.rows.load(Ordering::Relaxed);
        let columns = Arc::clone(&self.columns);
        Ok(Follower { columns, receiver, texts: request.texts(), seen, _place: place })
    }

    fn place_for(&self, tenant: &str) -> Result<Place, ListError> {
        let mut places = lock(&self.places);
        let taken = places.entry(tenant.to_owned()).or_default();
        if *taken == FOLLOWERS_OF_ONE_MAX {
            return Err(ListError::Followers { max: FOLLOWERS_OF_ONE_MAX });
        }
        *taken += 1;
        Ok(Place { tenant: tenant.to_owned(), places: Arc::clone(&self.places) })
    }
}

/// The place of one who follows a tenant; free again when it is dropped.
#[derive(Debug)]
struct Place {
    tenant: String,
    places: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        if let Some(taken) = places.get_mut(&self.tenant) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.tenant);
            }
        }
    }
}

/// A poisoned lock only says that another thread panicked; the counts are right.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last rows, copied, so that a burst keeps no large batch alive.
fn newest(rows: &[RecordBatch], columns: &TableColumns) -> Result<RecordBatch, ArrowError> {
    let (mut parts, mut taken, mut bytes, mut is_full) = (Vec::new(), 0, 0, false);
    for batch in rows.iter().rev() {
        let mut first = batch.num_rows();
        while first > 0 && !is_full {
            bytes += size_of_rows(batch, first - 1..first);
            // One event is shown, whatever its size.
            is_full = taken > 0 && (taken == BURST_ROWS || bytes > BURST_BYTES);
            if !is_full {
                (first, taken) = (first - 1, taken + 1);
            }
        }
        parts.push(batch.slice(first, batch.num_rows() - first));
    }
    parts.reverse();
    concat_batches(&columns.hot_schema(), &parts)
}

/// What a follower gets next.
#[derive(Debug)]
pub enum Fresh {
    /// New events, with the columns of a [`Page`](super::Page).
    Events(RecordBatch),
    /// Here so many events of all kinds and tenants were left out.
    Dropped(u64),
}

/// Follows the events as they become visible.
#[derive(Debug)]
pub struct Follower {
    columns: Arc<TableColumns>,
    receiver: broadcast::Receiver<Arc<Burst>>,
    texts: Vec<(&'static str, String)>,
    /// Rows up to here have been shown or reported.
    seen: u64,
    _place: Option<Place>,
}

impl Follower {
    /// Waits for what comes next: nothing, one of both, or a gap and the events behind it. Empty
    /// means that other events came. `None` when the engine has ended.
    ///
    /// # Errors
    /// [`ListError::Failed`] when the rows cannot be prepared.
    pub async fn next(&mut self) -> Result<Option<Vec<Fresh>>, ListError> {
        let burst = loop {
            match self.receiver.recv().await {
                Ok(burst) => break burst,
                // The numbers of the next burst say how many rows that were.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(None),
            }
        };
        let mut fresh = Vec::new();
        // Nothing is missing before a burst that was on its way when the follower came.
        let dropped = burst.first.saturating_sub(self.seen);
        if dropped > 0 {
            fresh.push(Fresh::Dropped(dropped));
        }
        self.seen = self.seen.max(burst.end);
        let events = self.matching(&burst.events).map_err(ListError::failed)?;
        if events.num_rows() > 0 {
            fresh.push(Fresh::Events(events));
        }
        Ok(Some(fresh))
    }

    fn matching(&self, events: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = Vec::with_capacity(self.texts.len());
        for (name, text) in &self.texts {
            let column = events.column_by_name(name).and_then(|it| it.as_string_opt::<i32>());
            let missing = || ArrowError::SchemaError(format!("there is no text column {name}"));
            columns.push((column.ok_or_else(missing)?, text.as_str()));
        }
        let matches = |row: usize| {
            columns.iter().all(|(column, text)| column.is_valid(row) && column.value(row) == *text)
        };
        let mask: BooleanArray = (0..events.num_rows()).map(|row| Some(matches(row))).collect();
        public(&filter_record_batch(events, &mask)?, &self.columns)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::hot::{logged, rows_of};

    /// `count` events with names `e<n>` of two tenants, numbered from `first`.
    fn rows(first: i64, count: i64, padding: usize) -> Vec<RecordBatch> {
        let pad = "x".repeat(padding);
        let lines: Vec<String> = (first..first + count)
            .map(|n| format!(r#"{{"event":"e{n}","tenant":"t{}","url":"{pad}"}}"#, n % 2))
            .collect();
        rows_of("0123456789ab", &[logged(0, first, &lines)]).unwrap()
    }

    /// What is there for `follower` now, as the names of events and the numbers left out.
    fn now(follower: &mut Follower) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let next = pin!(follower.next());
            let Poll::Ready(next) = next.poll(&mut Context::from_waker(Waker::noop())) else {
                return seen;
            };
            for fresh in next.unwrap().unwrap() {
                match fresh {
                    Fresh::Dropped(count) => seen.push(format!("-{count}")),
                    Fresh::Events(events) => {
                        let names = events.column_by_name("event").unwrap();
                        let names = names.as_string::<i32>().iter();
                        seen.extend(names.map(|name| name.unwrap().to_owned()));
                    }
                }
            }
        }
    }

    fn follow(tail: &Tail, tenant: Option<&str>) -> Follower {
        let tenant = tenant.map(str::to_owned);
        tail.follow(&ListRequest { tenant, ..ListRequest::default() }).unwrap()
    }

    #[test]
    fn followers_get_what_comes_after_them_and_is_theirs() {
        let tail = Tail::new(Arc::default());
        tail.publish(&rows(1, 3, 0));
        let (mut all, mut one) = (follow(&tail, None), follow(&tail, Some("t1")));
        tail.publish(&rows(4, 2, 0));
        tail.publish(&[rows(6, 1, 0), rows(7, 1, 0)].concat());
        assert_eq!(now(&mut all), ["e4", "e5", "e6", "e7"]);
        assert_eq!(now(&mut one), ["e5", "e7"]);
        assert!(now(&mut all).is_empty());
    }

    #[test]
    fn a_burst_is_cut_to_its_newest_events_and_says_so() {
        let tail = Tail::new(Arc::default());
        let mut follower = follow(&tail, None);
        tail.publish(&rows(1, 5_000, 0));
        let seen = now(&mut follower);
        assert_eq!((seen.len(), seen[0].as_str(), seen[1].as_str()), (1_001, "-4000", "e4001"));
        // Five of them are just below the limit on bytes.
        tail.publish(&rows(5_001, 10, BURST_BYTES / 5 - 1_000));
        let seen = now(&mut follower);
        assert_eq!((seen.len(), seen[0].as_str(), seen[1].as_str()), (6, "-5", "e5006"));
    }

    #[test]
    fn who_does_not_keep_up_is_told_how_much_is_missing() {
        let tail = Tail::new(Arc::default());
        let mut follower = follow(&tail, None);
        tail.publish(&rows(1, 1, 0));
        assert_eq!(now(&mut follower), ["e1"]);
        let bursts = i64::try_from(BURSTS).unwrap();
        for n in 0..bursts + 5 {
            tail.publish(&rows(2 + n, 1, 0));
        }
        let seen = now(&mut follower);
        assert_eq!((seen.len(), seen[0].as_str(), seen[1].as_str()), (BURSTS + 1, "-5", "e7"));
        // Also when it has not read anything before.
        let mut follower = follow(&tail, None);
        for n in 0..bursts + 5 {
            tail.publish(&rows(100 + n, 1, 0));
        }
        let seen = now(&mut follower);
        assert_eq!((seen.len(), seen[0].as_str(), seen[1].as_str()), (BURSTS + 1, "-5", "e105"));
    }

    #[test]
    fn one_follower_too_many_is_refused_until_another_goes() {
        let tail = Tail::new(Arc::default());
        let mut followers: Vec<_> = (0..FOLLOWERS_MAX).map(|_| follow(&tail, None)).collect();
        let request = ListRequest::default();
        assert!(matches!(tail.follow(&request), Err(ListError::Followers { .. })));
        followers.pop();
        assert!(tail.follow(&request).is_ok());
    }

    #[test]
    fn no_tenant_takes_the_places_of_all() {
        let tail = Tail::new(Arc::default());
        let mut followers: Vec<_> =
            (0..FOLLOWERS_OF_ONE_MAX).map(|_| follow(&tail, Some("t1"))).collect();
        let request = ListRequest { tenant: Some("t1".into()), ..ListRequest::default() };
        let refused = tail.follow(&request);
        assert!(matches!(refused, Err(ListError::Followers { max: FOLLOWERS_OF_ONE_MAX })));
        drop((follow(&tail, Some("t0")), follow(&tail, None)));
        followers.pop();
        assert!(tail.follow(&request).is_ok());
        drop(followers);
        assert!(lock(&tail.places).is_empty());
    }
}
