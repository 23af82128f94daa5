//! From requests to a batch: which events go into it, which are known, which request has to wait.
//!
//! **Guarantees.** A request goes into one batch, whole but for its duplicates, or waits whole. An
//! event is a duplicate when its id is stored, or is in the same batch already; then it shares the
//! fate of the batch: if that fails, both requests are told so, and the retry of either is stored.
//!
//! **Roles.** The shard thread. It calls [`Intake::stored`] or [`Intake::lost`] for every batch
//! before it looks at the ring again: until then other shards wait for the ids in it.
//!
//! **Memory.** The batch, 16 bytes an id in it, and the requests that wait ([`super::held`]).

use std::sync::Arc;
use std::time::Duration;

use ringlake_dedup::{Claim, Claims, Dedup, Key};
use ringlake_event::{Record, RecordError};

use super::batch::BatchBuilder;
use super::held::HeldRequests;
use crate::bots::Robots;
use crate::visitor::Visitors;

/// What became of a request from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It is in the batch; so many of its events were known and are not.
    InBatch {
        /// Events that are not in the batch.
        duplicates: usize,
    },
    /// It waits for another shard.
    Held,
}

/// A request that has waited and is in the batch now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    /// Its ticket.
    pub ticket: u64,
    /// Events of it that are not in the batch.
    pub duplicates: usize,
}

/// The batch under way, and who waits; see the module.
#[derive(Debug)]
pub struct Intake {
    /// The rows of the batch.
    pub builder: BatchBuilder,
    /// Absent when message ids are not looked at.
    ids: Option<Ids>,
    held: HeldRequests,
    late: Vec<Late>,
    /// Events of the batch's requests that are not in it.
    duplicates: usize,
}

/// What is known of the ids of the batch.
#[derive(Debug)]
struct Ids {
    claims: Claims,
    /// How many decisions there had been when the waiting requests were last tried.
    decisions: u64,
    /// When the batch's ids were received; nothing while there are none.
    times: Option<(i64, i64)>,
    /// Scratch: a request's ids with the indexes of their events, and which events are new.
    keys: Vec<(Key, usize)>,
    is_new: Vec<bool>,
}

impl Intake {
    /// An empty batch of the shard number `shard`. Without `dedup` every event is new.
    #[must_use]
    pub fn new(dedup: Option<Arc<Dedup>>, shard: u32) -> Self {
        let ids = dedup.map(|dedup| Ids {
            decisions: dedup.decisions(),
            claims: Claims::new(dedup, shard),
            times: None,
            keys: Vec::new(),
            is_new: Vec::new(),
        });
        Self {
            builder: BatchBuilder::new(),
            ids,
            held: HeldRequests::default(),
            late: Vec::new(),
            duplicates: 0,
        }
    }

    /// The same with visitor ids, and with the events of robots marked if `bots` says so.
    #[must_use]
    pub(crate) fn with_senders(mut self, visitors: Arc<Visitors>, bots: Option<Robots>) -> Self {
        self.builder = BatchBuilder::with_senders(visitors, bots);
        self
    }

    /// Takes one request from the ring: `bytes` as `ringlake_event` has written them.
    ///
    /// # Errors
    /// When the bytes are no record; nothing of them is in the batch.
    pub fn take(&mut self, ticket: u64, bytes: &[u8]) -> Result<Taken, RecordError> {
        let record = Record::parse(bytes)?;
        Ok(match self.append(&record) {
            Some(duplicates) => Taken::InBatch { duplicates },
            None => {
                self.held.push(ticket, bytes);
                Taken::Held
            }
        })
    }

    /// Begins a batch with the waiting requests that need not wait any more, until it has `rows_max`
    /// rows. It looks only when there has been a decision.
    pub fn retry(&mut self, rows_max: usize) {
        self.late.clear();
        self.duplicates = 0;
        if self.held.len() == 0 {
            return;
        }
        let Some(ids) = &mut self.ids else { return };
        // Looked at before the ids are: a decision after it leads to another try.
        let decisions = ids.claims.dedup().decisions();
        if decisions == ids.decisions {
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        let mut all_tried = true;
        held.release(|request| {
            if self.builder.rows() >= rows_max {
                all_tried = false;
                return false;
            }
            // It was a record when it came; nothing has touched it since.
            let Ok(record) = Record::parse(&request.record) else { return false };
            let Some(duplicates) = self.append(&record) else { return false };
            self.late.push(Late { ticket: request.ticket, duplicates });
            true
        });
        self.held = held;
        if let (true, Some(ids)) = (all_tried, &mut self.ids) {
            ids.decisions = decisions;
        }
    }

    /// Blocks until a decision makes another try worth it, for at most `limit`.
    pub fn wait(&self, limit: Duration) {
        if let Some(ids) = &self.ids {
            ids.claims.dedup().wait_for_decision(ids.decisions, limit);
        }
    }

    /// Whether so many requests wait that no further one may be read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held.is_full()
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.held.len()
    }

    /// The ticket of the waiting request that came first.
    #[must_use]
    pub fn oldest_waiting(&self) -> Option<u64> {
        self.held.oldest()
    }

    /// Events of the batch's requests that are not in the batch, because they are known.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// The requests of the batch that had been waiting.
    #[must_use]
    pub fn late(&self) -> &[Late] {
        &self.late
    }

    /// The batch is durable, or had no rows: its ids are known from now on.
    pub fn stored(&mut self) {
        if let Some(ids) = &mut self.ids
            && let Some((from, to)) = ids.times.take()
        {
            ids.claims.store(&(from..=to));
        }
    }

    /// The batch is lost: its ids are as if they had never come.
    pub fn lost(&mut self) {
        if let Some(ids) = &mut self.ids {
            ids.times = None;
            ids.claims.forget();
        }
    }

    /// Appends the new events of a request; gives how many are known, or nothing when the request
    /// has to wait.
    #[inline]
    fn append(&mut self, record: &Record<'_>) -> Option<usize> {
        let Some(ids) = self.ids.as_mut().filter(|_| record.has_message_ids()) else {
            self.builder.append(record);
            return Some(0);
        };
        let duplicates = ids.claim(record)?;
        if duplicates == 0 {
            self.builder.append(record);
        } else {
            self.builder.append_some(record, &ids.is_new);
            self.duplicates += duplicates;
        }
        Some(duplicates)
    }
}

impl Ids {
    /// Claims the ids of a request; gives how many events are known, or nothing when the request
    /// has to wait.
    fn claim(&mut self, record: &Record<'_>) -> Option<usize> {
        let dedup = self.claims.dedup();
        let received_at = record.received_at();
        dedup.expire(received_at);
        self.keys.clear();
        let ids = record.message_ids().enumerate();
        self.keys.extend(
            ids.filter_map(|(index, id)| id.map(|(tenant, id)| (dedup.key(tenant, id), index))),
        );
        self.is_new.clear();
        self.is_new.resize(record.events(), true);
        let is_new = &mut self.is_new;
        match self.claims.claim(&mut self.keys, |index, new| is_new[index] = new) {
            Claim::Undecided => None,
            Claim::Decided { duplicates } => {
                let (from, to) = self.times.unwrap_or((received_at, received_at));
                self.times = Some((from.min(received_at), to.max(received_at)));
                Some(duplicates)
            }
        }
    }
}
