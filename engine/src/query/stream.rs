//! The reading end of a query.
//!
//! **Guarantees.** Items come in the order DuckDB made them. The stream ends with `None` only after
//! the last row of a complete result; every other end is an `Err` item, also when the worker
//! disappears. Dropping the stream interrupts the query, whatever it is doing.
//!
//! **Memory.** At most [`CAPACITY`] batches wait here; a full stream stops the query until its
//! timeout.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError};
use futures_core::Stream;
use futures_util::task::AtomicWaker;

use super::watch::{Reason, Watch};
use super::{QueryError, lock};

/// Batches between a query and its reader.
const CAPACITY: usize = 4;
/// How long a worker waits for its reader before it looks whether it has to stop.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// What both ends share beside the batches.
#[derive(Default)]
struct Shared {
    /// The task that polls the stream.
    reader: AtomicWaker,
    /// How the query ended; set before the channel closes.
    end: Mutex<Option<Result<(), QueryError>>>,
}

/// The writing end, owned by the worker.
pub(super) struct Feed {
    /// Present until the end.
    batches: Option<Sender<RecordBatch>>,
    shared: Arc<Shared>,
}

/// Makes both ends; the schema joins them when the query is planned.
pub(super) fn feed() -> (Feed, Receiving) {
    let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
    let shared = Arc::new(Shared::default());
    let feed = Feed { batches: Some(sender), shared: Arc::clone(&shared) };
    (feed, Receiving { batches: receiver, shared })
}

/// The reading end before the schema is known.
pub(super) struct Receiving {
    batches: Receiver<RecordBatch>,
    shared: Arc<Shared>,
}

impl Receiving {
    pub(super) fn into_stream(self, schema: SchemaRef, watch: Arc<Watch>) -> QueryStream {
        QueryStream { schema, receiving: self, watch, peeked: None, ended: false }
    }
}

impl Feed {
    /// Waits for room and hands a batch over. False when the query has to stop instead; the watch
    /// knows why.
    pub(super) fn send(&self, mut batch: RecordBatch, watch: &Watch) -> bool {
        let Some(batches) = &self.batches else { return false };
        while watch.reason().is_none() {
            match batches.send_timeout(batch, LOOK) {
                Ok(()) => {
                    self.shared.reader.wake();
                    return true;
                }
                Err(SendTimeoutError::Timeout(back)) => batch = back,
                Err(SendTimeoutError::Disconnected(_)) => return false,
            }
        }
        false
    }

    /// Ends the stream after what was sent.
    pub(super) fn finish(self, end: Result<(), QueryError>) {
        *lock(&self.shared.end) = Some(end);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        lock(&self.shared.end)
            .get_or_insert_with(|| Err(QueryError::failed("its worker stopped unexpectedly")));
        // The channel closes before the reader is woken, so that it finds the end.
        self.batches = None;
        self.shared.reader.wake();
    }
}

/// The result of a query, batch by batch.
///
/// It is a [`Stream`] for asynchronous readers and has [`blocking_next`](Self::blocking_next) for
/// the others.
#[must_use = "a query whose stream is dropped is interrupted"]
pub struct QueryStream {
    schema: SchemaRef,
    receiving: Receiving,
    watch: Arc<Watch>,
    /// An item taken by `ready` that no one has read yet.
    peeked: Option<RecordBatch>,
    ended: bool,
}

impl std::fmt::Debug for QueryStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("QueryStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl QueryStream {
    /// The columns of the result.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Waits until the first batch, or the end of an empty result, is there. Errors up to that
    /// moment come from here, before anything has been answered to a client.
    ///
    /// # Errors
    ///
    /// What ended the query.
    pub async fn ready(&mut self) -> Result<(), QueryError> {
        if self.peeked.is_none()
            && let Some(first) = std::future::poll_fn(|context| self.poll_item(context)).await
        {
            self.peeked = Some(first?);
        }
        Ok(())
    }

    /// The same as [`ready`](Self::ready) for a thread that may block.
    ///
    /// # Errors
    ///
    /// What ended the query.
    pub fn blocking_ready(&mut self) -> Result<(), QueryError> {
        if self.peeked.is_none()
            && let Some(first) = self.blocking_item()
        {
            self.peeked = Some(first?);
        }
        Ok(())
    }

    /// The next item, as the [`Stream`] would give it; blocks the thread until it is there.
    pub fn blocking_next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        match self.peeked.take() {
            Some(batch) => Some(Ok(batch)),
            None => self.blocking_item(),
        }
    }

    fn blocking_item(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        if self.ended {
            return None;
        }
        match self.receiving.batches.recv() {
            Ok(batch) => Some(Ok(batch)),
            Err(_) => self.end(),
        }
    }

    fn poll_item(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<Option<Result<RecordBatch, QueryError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // The second look, after the waker is in place, sees what arrived before the feed could
        // have known about it.
        for registered in [false, true] {
            match self.receiving.batches.try_recv() {
                Ok(batch) => return Poll::Ready(Some(Ok(batch))),
                Err(TryRecvError::Disconnected) => return Poll::Ready(self.end()),
                Err(TryRecvError::Empty) if registered => {}
                Err(TryRecvError::Empty) => self.receiving.shared.reader.register(context.waker()),
            }
        }
        Poll::Pending
    }

    fn end(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        self.ended = true;
        let end = lock(&self.receiving.shared.end).take();
        match end {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(QueryError::failed("its worker left without a word"))),
        }
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match this.peeked.take() {
            Some(batch) => Poll::Ready(Some(Ok(batch))),
            None => this.poll_item(context),
        }
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        if !self.ended {
            self.watch.stop(Reason::Dropped);
        }
    }
}
