//! Pages of raw events in the order in which they came, read without SQL.
//!
//! ```text
//!  ListRequest ─▶ cursor ─▶ filter ─┬▶ files: keys from Parquet ──┬▶ nearest ─▶ rows ─▶ Page
//!                                   └▶ hot: keys from hot tables ─┘
//! ```
//!
//! Who wants the events as they come follows the `tail` instead.
//!
//! **Guarantees.** A page is read from one [`Snapshot`]. Rows come in the order of `received_at`,
//! node, shard and sequence, or its reverse, each once; following the cursors from a first page gives
//! every event that was visible when it was read and matches, whatever is rolled or compacted
//! meanwhile. A tenant's listing holds that tenant's events only, and its cursors work for it only.
//!
//! **Not guaranteed.** An event becomes visible some time after its `received_at`, so a listing from
//! the oldest that has come to the present may have passed an event that appears later. Pages may
//! hold fewer events than asked for, even none, before the last: only a missing cursor is the end.
//!
//! **Limits.** A page has at most [`LIMIT_MAX`] events and ends early at [`PAGE_BYTES`]; it looks at
//! `ROWS_MAX` rows and `FILES_MAX` files or a little more, and then says where to go on.
//! `LISTINGS_MAX` pages are read at the same time; more wait as queries do.
//!
//! **Memory.** For each page the keys of the nearest rows, the chunks of one row group, and the rows
//! of the page.
//!
//! **Roles.** Any thread that may block, and that is no worker of an async runtime.

mod cursor;
mod error;
mod files;
mod filter;
pub(crate) mod hot;
mod order;
mod page;
mod tail;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};
use duckdb::Connection;
use tokio::runtime::Handle;

pub(crate) use cursor::Signer;
pub use error::ListError;
pub(crate) use files::OpenFile;
pub(crate) use filter::Filter;
pub use order::Order;
pub(crate) use order::Window;
pub(crate) use page::{public, public_schema, rows_within, size_of_rows};
pub(crate) use tail::Tail;
pub use tail::{Follower, Fresh};

use crate::config::QueryConfig;
use crate::lake::Checked;
use crate::snapshot::Snapshot;

/// Events in a page when nobody says.
pub const DEFAULT_LIMIT: usize = 50;
/// Most events in a page.
pub const LIMIT_MAX: usize = 1_000;
/// Values in a page, in bytes, at which it ends. Its first event is in it whatever its size.
pub const PAGE_BYTES: usize = 4 << 20;
/// Rows that a page looks at, about 50 ms.
const ROWS_MAX: usize = 1 << 20;
/// Files that a page opens, about 50 ms.
const FILES_MAX: usize = 256;
/// Pages that are read at the same time: each may hold a row group.
const LISTINGS_MAX: usize = 4;

/// Which page of which events.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// The only tenant whose events may be seen; all when absent.
    pub tenant: Option<String>,
    /// Events received at or after this moment, in microseconds since 1970.
    pub from: Option<i64>,
    /// Events received before this moment, in microseconds since 1970.
    pub to: Option<i64>,
    /// Events of this type.
    pub kind: Option<String>,
    /// Events of this name.
    pub event: Option<String>,
    /// Events of this user.
    pub user_id: Option<String>,
    /// The direction.
    pub order: Order,
    /// Most events in the page, from 1 to [`LIMIT_MAX`].
    pub limit: usize,
    /// The `next_cursor` of the page before; everything but `limit` has to be as it was for that.
    pub cursor: Option<String>,
}

impl ListRequest {
    /// The columns and their texts.
    pub(crate) fn texts(&self) -> Vec<(&'static str, String)> {
        let wanted = [
            ("tenant", &self.tenant),
            ("type", &self.kind),
            ("event", &self.event),
            ("user_id", &self.user_id),
        ];
        wanted.into_iter().filter_map(|(column, text)| Some((column, text.clone()?))).collect()
    }

    /// What a cursor is bound to: everything but the cursor and the limit, unambiguously.
    fn question(&self) -> Vec<u8> {
        format!("{:?}", (self.texts(), self.from, self.to, self.order)).into_bytes()
    }
}

/// One page.
#[derive(Debug)]
pub struct Page {
    /// The events: `id` (the text `node-shard-sequence`), then the columns of `events`.
    pub events: RecordBatch,
    /// Where the next page begins; absent when there is none.
    pub next_cursor: Option<String>,
}

/// Makes a connection to the engine's database.
type Connect = Box<dyn Fn() -> duckdb::Result<Connection> + Send + Sync>;

/// Reads pages.
pub(crate) struct Lister {
    signer: Signer,
    checked: Arc<Checked>,
    /// What reads files.
    runtime: Handle,
    connect: Connect,
    /// A connection, once it was needed, for each page that may be read at the same time.
    places: (Sender<Option<Connection>>, Receiver<Option<Connection>>),
    waiting: AtomicUsize,
    limits: QueryConfig,
}

impl std::fmt::Debug for Lister {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Lister")
    }
}

impl Lister {
    /// A lister that waits for its turn as queries with `limits` do.
    pub(crate) fn new(
        signer: Signer,
        checked: Arc<Checked>,
        runtime: Handle,
        limits: QueryConfig,
        connect: impl Fn() -> duckdb::Result<Connection> + Send + Sync + 'static,
    ) -> Self {
        let places = bounded(LISTINGS_MAX);
        for _ in 0..LISTINGS_MAX {
            // There is room for all of them.
            let _ = places.0.try_send(None);
        }
        let waiting = AtomicUsize::new(0);
        Self { signer, checked, runtime, connect: Box::new(connect), places, waiting, limits }
    }

    /// Reads one page from `snapshot`.
    pub(crate) fn page(
        &self,
        request: &ListRequest,
        snapshot: &Snapshot,
    ) -> Result<Page, ListError> {
        let question = request.question();
        let position = match &request.cursor {
            None => None,
            Some(cursor) => Some(self.signer.read(&question, cursor).ok_or(ListError::Cursor)?),
        };
        let filter = Filter {
            order: request.order,
            window: Window::new(request.from, request.to, position.as_ref(), request.order),
            position,
            texts: request.texts(),
        };
        let place = self.place()?;
        let reading = page::Reading {
            checked: &self.checked,
            connection: place.connection()?,
            snapshot,
            filter: &filter,
            limit: request.limit.clamp(1, LIMIT_MAX),
        };
        let (events, next) = self.runtime.block_on(reading.run())?;
        let next_cursor = next.map(|position| self.signer.write(&question, &position));
        Ok(Page { events, next_cursor })
    }

    /// A connection of its own to the hot tables.
    pub(crate) fn connection(&self) -> Result<Connection, ListError> {
        (self.connect)().map_err(ListError::failed)
    }

    /// Waits for a place among those who read.
    fn place(&self) -> Result<Taken<'_>, ListError> {
        let busy = || ListError::Busy { waiting: self.limits.waiting, wait: self.limits.wait };
        let mut connection = self.places.1.try_recv().ok();
        if connection.is_none() {
            // Relaxed, both: the count bounds who waits, it hands nothing over.
            let before = self.waiting.fetch_add(1, Ordering::Relaxed);
            if before < self.limits.waiting {
                connection = self.places.1.recv_timeout(self.limits.wait).ok();
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        let mut taken = Taken { lister: self, connection: connection.ok_or_else(busy)? };
        if taken.connection.is_none() {
            taken.connection = Some(self.connection()?);
        }
        Ok(taken)
    }
}

/// A place that was taken; it is given back when dropped.
struct Taken<'a> {
    lister: &'a Lister,
    connection: Option<Connection>,
}

impl Taken<'_> {
    fn connection(&self) -> Result<&Connection, ListError> {
        self.connection.as_ref().ok_or_else(|| ListError::failed("there is no connection"))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // There is room: it was taken from there.
        let _ = self.lister.places.0.try_send(self.connection.take());
    }
}
