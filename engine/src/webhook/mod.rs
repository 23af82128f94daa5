//! Webhooks: who wants to be sent which events, and how far each of them is.
//!
//! ```text
//!  feed ─▶ message ─▶ attempt ─┬▶ 2xx: delivered, on to the next events
//!            ▲                 ├▶ 410: gone, nothing more is sent
//!            └── pause ◀───────┴▶ all else: failed, the same again
//! ```
//!
//! This module remembers; whoever sends knows HTTP and is not in here.
//!
//! **Guarantees.** A webhook that was created is on the medium, with the place in the events where it
//! is ([`feed`](crate::feed)). The place moves when a message has been delivered, or given up, so that
//! nothing is left out by a crash. Webhooks of one tenant do not exist for another one.
//!
//! **Not guaranteed.** That a message comes once: a crash between its delivery and the note of it
//! brings the same events again, perhaps with others in one message. Each has the same `id` as before.
//!
//! **Retries.** A failed attempt is repeated after 1, 2, 4, 8 s; with [`CIRCUIT_FAILURES`] in a row
//! the circuit is open, and one attempt is made after 1, 2, 4, … minutes, at most [`PAUSE_MAX`], until
//! one goes through. A message that could not be delivered for [`GIVE_UP_AFTER`], in
//! [`GIVE_UP_FAILURES`] attempts at least, is given up, so that one that its receiver cannot stand does not
//! hold up all others for ever.
//!
//! **Limits.** [`WEBHOOKS_MAX`] webhooks, [`OF_TENANT_MAX`] of a tenant; [`DELIVERIES_KEPT`] attempts
//! are remembered of each.
//!
//! **Roles.** Any thread that may block: changes wait for the disk.
//!
//! **Layout.** `<data>/webhooks/<id>.json`, mode 0600: its secret is in it.

mod record;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use record::{Delivery, Outcome, Secret, Wanted, Webhook, WebhookState};

use crate::clock::now_micros;
use crate::error::{Error, chain};
use crate::feed::Position;
use store::Store;
pub(crate) use store::{DIRECTORY, files_of};

/// Most webhooks: each looks for events of its own.
pub const WEBHOOKS_MAX: usize = 64;
/// Most of one tenant, so that none takes the places of all.
pub const OF_TENANT_MAX: usize = 16;
/// Attempts that are remembered of each webhook.
pub const DELIVERIES_KEPT: usize = 50;
/// Failures in a row that open the circuit.
pub const CIRCUIT_FAILURES: u32 = 5;
/// The longest pause between two attempts, unless the receiver asks for more.
pub const PAUSE_MAX: Duration = Duration::from_mins(15);
/// The longest that a receiver can ask for.
pub const ASKED_PAUSE_MAX: Duration = Duration::from_hours(1);
/// Time after the first attempt at which a message is given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// And failures in a row that there have to be: a server that was down for a day has not tried for one.
pub const GIVE_UP_FAILURES: u32 = 24;
/// How often it is written down that nothing was to be sent; less of it is looked through again
/// after a crash.
const NOTE_EVERY: Duration = Duration::from_secs(10);

/// A webhook that was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// What is wanted makes no sense; names the field.
    #[error("{0}")]
    Invalid(String),
    /// There is no such webhook, or it is another tenant's.
    #[error("there is no such webhook")]
    Unknown,
    /// Too many.
    #[error("there are {limit} webhooks already{whose}, which is the most; delete one")]
    Full {
        /// How many there may be.
        limit: usize,
        /// Of whom; empty for all.
        whose: &'static str,
    },
    /// It could not be written down.
    #[error("the webhook cannot be written down")]
    Store(#[source] Error),
}

/// All webhooks of a data directory.
#[derive(Debug)]
pub struct Webhooks {
    store: Store,
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
    /// Held while one is created, so that the limits hold.
    creating: Mutex<()>,
    /// Counts the changes that those who send must know of.
    changes: watch::Sender<u64>,
}

/// A webhook as it is now.
#[derive(Debug)]
struct Entry {
    /// Held by who changes it, until that is written. Nobody who only looks waits for the disk.
    changing: Mutex<()>,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    webhook: Webhook,
    /// When it was written down.
    noted: Instant,
    is_removed: bool,
}

impl Entry {
    fn new(webhook: Webhook) -> Arc<Self> {
        let now = Now { webhook, noted: Instant::now(), is_removed: false };
        Arc::new(Self { changing: Mutex::default(), now: Mutex::new(now) })
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Webhooks {
    /// The webhooks of the data directory `data`. A file that cannot be read is reported and stays.
    ///
    /// # Errors
    /// When the directory of webhooks cannot be read.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let store = Store::of(data);
        let found = store.read()?.into_iter().map(|webhook| (webhook.id.clone(), webhook));
        let entries = found.map(|(id, webhook)| (id, Entry::new(webhook))).collect();
        let (entries, creating) = (Mutex::new(entries), Mutex::default());
        Ok(Self { store, entries, creating, changes: watch::Sender::new(0) })
    }

    /// Tells of webhooks that were created, removed or are to be tried now.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Creates a webhook for the events behind `position`, which nobody else has the secret of.
    ///
    /// # Errors
    /// [`WebhookError::Invalid`], [`WebhookError::Full`] and [`WebhookError::Store`].
    pub fn create(&self, wanted: Wanted, position: Position) -> Result<Webhook, WebhookError> {
        wanted.check()?;
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.list(None);
        if all.len() >= WEBHOOKS_MAX {
            return Err(WebhookError::Full { limit: WEBHOOKS_MAX, whose: "" });
        }
        let of_tenant = all.iter().filter(|other| other.tenant == wanted.tenant);
        if wanted.tenant.is_some() && of_tenant.count() >= OF_TENANT_MAX {
            return Err(WebhookError::Full { limit: OF_TENANT_MAX, whose: " of this tenant" });
        }
        let failed = |source| {
            WebhookError::Store(Error::io("make the secret of", self.store.directory())(source))
        };
        let secret = Secret::random().map_err(failed)?;
        let webhook = Webhook::new(wanted, secret, position, now_micros());
        self.store.write(&webhook).map_err(WebhookError::Store)?;
        self.entries().insert(webhook.id.clone(), Entry::new(webhook.clone()));
        self.tell();
        Ok(webhook)
    }

    /// The webhooks that `tenant` may see, all for none; in the order of their creation.
    #[must_use]
    pub fn list(&self, tenant: Option<&str>) -> Vec<Webhook> {
        let entries: Vec<Arc<Entry>> = self.entries().values().cloned().collect();
        let all = entries.iter().map(|entry| entry.lock().webhook.clone());
        all.filter(|webhook| webhook.is_visible_to(tenant)).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`].
    pub fn find(&self, tenant: Option<&str>, id: &str) -> Result<Webhook, WebhookError> {
        let entry = self.entry(id)?;
        let webhook = entry.lock().webhook.clone();
        if webhook.is_visible_to(tenant) { Ok(webhook) } else { Err(WebhookError::Unknown) }
    }

    /// Removes one of them; nothing more is sent.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`] and [`WebhookError::Store`].
    pub fn remove(&self, tenant: Option<&str>, id: &str) -> Result<(), WebhookError> {
        self.find(tenant, id)?;
        let entry = self.entry(id)?;
        let _changing = entry.change();
        if entry.lock().is_removed {
            return Err(WebhookError::Unknown);
        }
        self.store.remove(id).map_err(WebhookError::Store)?;
        entry.lock().is_removed = true;
        self.entries().remove(id);
        self.tell();
        Ok(())
    }

    /// Forgets the failures of one of them, so that it is tried at once, also when it was gone.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`] and [`WebhookError::Store`].
    pub fn resume(&self, tenant: Option<&str>, id: &str) -> Result<Webhook, WebhookError> {
        self.find(tenant, id)?;
        let entry = self.entry(id)?;
        let changing = entry.change();
        entry.lock().webhook.resume();
        let written = self.note(&entry);
        drop(changing);
        self.tell();
        written.map_err(WebhookError::Store)?;
        Ok(entry.lock().webhook.clone())
    }

    /// Notes an attempt to deliver the events up to `next`. After
    /// [`Outcome::Delivered`] and [`Outcome::GivenUp`] the events behind `next` are in turn.
    ///
    /// The attempt counts whether it can be written down or not: what was delivered comes again after a
    /// restart then.
    pub fn attempted(
        &self,
        id: &str,
        delivery: Delivery,
        next: &Position,
        asked_pause: Option<Duration>,
    ) -> Option<Webhook> {
        let entry = self.entry(id).ok()?;
        let _changing = entry.change();
        entry.lock().webhook.attempted(delivery, next, asked_pause, now_micros());
        if let Err(error) = self.note(&entry) {
            tracing::warn!(webhook = id, error = chain(&error), "a delivery cannot be noted");
        }
        Some(entry.lock().webhook.clone())
    }

    /// Notes that none of the events up to `next` was to be sent.
    pub fn passed(&self, id: &str, next: Position) {
        let Ok(entry) = self.entry(id) else { return };
        let _changing = entry.change();
        let is_due = {
            let mut now = entry.lock();
            now.webhook.position = next;
            now.noted.elapsed() >= NOTE_EVERY
        };
        if is_due && let Err(error) = self.note(&entry) {
            tracing::debug!(webhook = id, error = chain(&error), "a webhook cannot be noted");
        }
    }

    /// Puts back those that are behind `end`, where all numbers end: the log has lost what they had been
    /// sent, and gives the numbers out again. To be called once, when it has been replayed.
    pub fn put_back(&self, end: &Position) {
        let entries: Vec<Arc<Entry>> = self.entries().values().cloned().collect();
        for entry in entries {
            let _changing = entry.change();
            let mut now = entry.lock();
            let before = now.webhook.position.before(end);
            if before != now.webhook.position {
                now.webhook.position = before;
                let webhook = &now.webhook.id;
                tracing::warn!(webhook, "the log ends before what a webhook was sent last");
            }
        }
    }

    /// Writes down what it is now. The caller holds [`Entry::change`].
    fn note(&self, entry: &Entry) -> Result<(), Error> {
        let webhook = {
            let mut now = entry.lock();
            if now.is_removed {
                return Ok(());
            }
            now.noted = Instant::now();
            now.webhook.clone()
        };
        self.store.write(&webhook)
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, WebhookError> {
        self.entries().get(id).cloned().ok_or(WebhookError::Unknown)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}
