//! A record put together field by field, for events that do not arrive as our own JSON.
//!
//! **Guarantees.** What [`Assembly::write`] writes is what [`Record::parse`](crate::Record::parse)
//! reads: the same record that a [`Decoder`](crate::Decoder) would write.
//!
//! **Roles.** A serving loop owns one, fills it from a request, learns the record's length and
//! writes it into the ring. Unlike the decoder's, such a record can be longer than its body (fields
//! are given twice, or for many events at once), so its length is not known before.
//!
//! **Memory.** The texts and heads of one request, kept for the next one up to [`KEPT_MAX_BYTES`].
//! Whoever fills it looks at [`Assembly::len`] after every event and stops at a limit.

use crate::json::narrow;
use crate::model::{Field, Request};
use crate::record::{HEADER, Head, Header, front_len, write_front};
use crate::time;

/// Memory that is kept for the next request at most: enough for most batches of SDKs (up to
/// 500 KB), little enough for one a core.
pub const KEPT_MAX_BYTES: usize = 4 << 20;

/// The fields of one event, as the columns of the table name them. Absent is null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The client's idempotency key.
    pub message_id: Option<&'a str>,
    /// Who owns the event, when that is not the owner of the request.
    pub tenant: Option<&'a str>,
    /// The column `type`; [`DEFAULT_TYPE`](crate::DEFAULT_TYPE) when absent.
    pub kind: Option<&'a str>,
    /// The event's name.
    pub event: Option<&'a str>,
    /// The user.
    pub user_id: Option<&'a str>,
    /// The browser or device.
    pub anonymous_id: Option<&'a str>,
    /// The visit.
    pub session_id: Option<&'a str>,
    /// The page's address.
    pub url: Option<&'a str>,
    /// Where the visitor came from.
    pub referrer: Option<&'a str>,
    /// The browser, as it names itself.
    pub user_agent: Option<&'a str>,
    /// The text of a JSON object; the caller has checked that it is one.
    pub properties: Option<&'a str>,
    /// The text of a JSON object; the caller has checked that it is one.
    pub context: Option<&'a str>,
    /// When it happened, microseconds since 1970 in the years 1 to 9999.
    pub timestamp: Option<i64>,
    /// When it happened by the client's clock.
    pub original_timestamp: Option<i64>,
    /// When it was sent by the client's clock.
    pub sent_at: Option<i64>,
}

/// A record under construction; see the module.
#[derive(Debug, Default)]
pub struct Assembly {
    texts: Vec<u8>,
    heads: Vec<u8>,
    /// The event that is being put together.
    head: Head,
    events: u32,
}

impl Assembly {
    /// An empty record.
    #[must_use]
    pub fn new() -> Assembly {
        Assembly::default()
    }

    /// Forgets all events: a request begins.
    pub fn clear(&mut self) {
        if self.len() > KEPT_MAX_BYTES {
            *self = Assembly::default();
        }
        self.texts.clear();
        self.heads.clear();
        self.head.present = 0;
        self.events = 0;
    }

    /// How many events are complete.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events as usize
    }

    /// Whether no event is complete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// How many bytes the events take so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len() + self.heads.len()
    }

    /// Adds an event of `request`.
    pub fn push(&mut self, request: &Request<'_>, event: &Fields<'_>) {
        let owner = event.tenant.filter(|tenant| *tenant != request.tenant.of_request());
        for (field, text) in [
            (Field::MessageId, event.message_id),
            (Field::Tenant, owner),
            (Field::Type, event.kind),
            (Field::Event, event.event),
            (Field::UserId, event.user_id),
            (Field::AnonymousId, event.anonymous_id),
            (Field::SessionId, event.session_id),
            (Field::Url, event.url),
            (Field::Referrer, event.referrer),
            (Field::UserAgent, event.user_agent),
            (Field::Properties, event.properties),
            (Field::Context, event.context),
        ] {
            if let Some(text) = text {
                self.text(field, |texts| texts.extend_from_slice(text.as_bytes()));
            }
        }
        for (field, micros) in [
            (Field::Timestamp, event.timestamp),
            (Field::OriginalTimestamp, event.original_timestamp),
            (Field::SentAt, event.sent_at),
        ] {
            if let Some(micros) = micros {
                self.time(field, micros);
            }
        }
        self.head.correct(request, None);
        self.finish_event();
    }

    /// Adds a text of the current event, which `write` appends. Texts come in the order of their
    /// fields.
    pub(crate) fn text(&mut self, field: Field, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.head.present & ((1 << Field::TEXTS) - 1) < field.bit(), "in order");
        let start = self.texts.len();
        write(&mut self.texts);
        self.head.present |= field.bit();
        self.head.lengths[field.place()] = narrow(self.texts.len() - start);
    }

    /// Sets a time of the current event.
    pub(crate) fn time(&mut self, field: Field, micros: i64) {
        self.head.set_time(field, micros);
    }

    /// Sets the current event's `timestamp` by the best clock there is, for a tracker: one that rounds
    /// `sent_at` down may have sent an event before it happened, and its age counts as nothing then. A
    /// clock that is at most `tolerance` microseconds off is left alone when the event has a `timestamp`,
    /// and so is a `timestamp` that is not the time at which the event was made: it was told.
    pub(crate) fn correct(&mut self, request: &Request<'_>, tolerance: u64) {
        self.head.correct(request, Some(tolerance));
    }

    /// The current event is complete.
    pub(crate) fn finish_event(&mut self) {
        self.head.write(&mut self.heads);
        self.head.present = 0;
        self.events += 1;
    }

    /// Tells the events when they were sent, those that do not know it; with it their clock can be
    /// corrected, as by [`Assembly::correct`].
    pub(crate) fn sent_at(&mut self, request: &Request<'_>, sent_at: i64, tolerance: u64) {
        let old = std::mem::take(&mut self.heads);
        let mut rest = old.as_slice();
        while let Some(mut head) = Head::read(&mut rest) {
            if head.time(Field::SentAt).is_none() {
                head.set_time(Field::SentAt, sent_at);
                head.correct(request, Some(tolerance));
            }
            head.write(&mut self.heads);
        }
    }

    /// How long the record of the events is under `request`.
    #[must_use]
    pub fn record_len(&self, request: &Request<'_>) -> usize {
        front_len(request) + self.len()
    }

    /// Writes the record to the front of `out` and returns its length, [`Assembly::record_len`];
    /// 0 when there is no event.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than the record, or the tenant longer than
    /// [`TENANT_MAX_BYTES`](crate::TENANT_MAX_BYTES).
    pub fn write(&self, request: &Request<'_>, out: &mut [u8]) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut at = write_front(request, out);
        for part in [&self.texts, &self.heads] {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let mut header = Header::of(request);
        header.events = self.events;
        header.text_len = narrow(at - HEADER - self.heads.len());
        header.write(out);
        at
    }
}

impl Head {
    fn time(&self, field: Field) -> Option<i64> {
        (self.present & field.bit() != 0).then(|| self.times[field.place() - Field::TEXTS])
    }

    fn set_time(&mut self, field: Field, micros: i64) {
        self.present |= field.bit();
        self.times[field.place() - Field::TEXTS] = micros;
    }

    /// With a tolerance as [`Assembly::correct`] says, without one as the times of our own events are.
    fn correct(&mut self, request: &Request<'_>, tolerance: Option<u64>) {
        let Some(original) = self.time(Field::OriginalTimestamp) else { return };
        let has_timestamp = self.time(Field::Timestamp).is_some();
        if let (true, Some(sent)) = (request.correct_clock, self.time(Field::SentAt)) {
            let off = request.received_at.abs_diff(sent);
            let told = self.time(Field::Timestamp).map(|timestamp| timestamp.abs_diff(original));
            if let (Some(told), Some(tolerance)) = (told, tolerance)
                && (off <= tolerance || told > tolerance)
            {
                return;
            }
            let age = sent.saturating_sub(original);
            let age = if tolerance.is_some() { age.max(0) } else { age };
            let happened = time::clamped(request.received_at.saturating_sub(age));
            self.set_time(Field::Timestamp, happened);
        } else if !has_timestamp {
            self.set_time(Field::Timestamp, original);
        }
    }
}
