//! Arrow builders for one batch of logged rows.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use ringlake_event::{Event, Record, Sender};

use crate::bots::Robots;
use crate::log::batch_bytes;
use crate::schema::log_schema;
use crate::visitor::Visitors;

/// Collects events column by column, in the order of [`log_schema`].
#[derive(Debug, Default)]
pub struct BatchBuilder {
    rows: usize,
    message_id: StringBuilder,
    tenant: StringBuilder,
    kind: StringBuilder,
    event: StringBuilder,
    timestamp: TimestampMicrosecondBuilder,
    original_timestamp: TimestampMicrosecondBuilder,
    sent_at: TimestampMicrosecondBuilder,
    received_at: TimestampMicrosecondBuilder,
    user_id: StringBuilder,
    anonymous_id: StringBuilder,
    session_id: StringBuilder,
    visitor_id: Int64Builder,
    url: StringBuilder,
    referrer: StringBuilder,
    user_agent: StringBuilder,
    ip: StringBuilder,
    properties: StringBuilder,
    context: StringBuilder,
    source: StringBuilder,
    /// Who knows the visitors; without it no event has a visitor id.
    visitors: Option<Arc<Visitors>>,
    /// Who knows robots; without it their events are like all others.
    bots: Option<Robots>,
}

impl BatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with visitor ids, and with the events of robots marked if `bots` says so.
    #[must_use]
    pub(crate) fn with_senders(visitors: Arc<Visitors>, bots: Option<Robots>) -> Self {
        Self { visitors: Some(visitors), bots, ..Self::default() }
    }

    /// Who knows the visitors, if anybody.
    pub(crate) fn visitors(&self) -> Option<&Visitors> {
        self.visitors.as_deref()
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends all events of one request.
    pub fn append(&mut self, record: &Record<'_>) {
        self.append_events(record, record.iter());
    }

    /// Appends the events of one request for which `wanted`, in their order, holds true.
    pub fn append_some(&mut self, record: &Record<'_>, wanted: &[bool]) {
        debug_assert_eq!(record.events(), wanted.len());
        let some = record.iter().zip(wanted).filter(|(_, wanted)| **wanted);
        self.append_events(record, some.map(|(event, _)| event));
    }

    fn append_events<'a>(&mut self, record: &Record<'a>, events: impl Iterator<Item = Event<'a>>) {
        let source = record.source().as_str();
        let received_at = record.received_at();
        let sender = record.sender();
        let ip = sender.filter(|sender| sender.keep_address);
        let ip = ip.map(|sender| sender.address.to_string());
        let visitors = self.visitors.as_deref();
        let mut visitor = Visitor { visitors, sender, received_at, last: None };
        for event in events {
            self.message_id.append_option(event.message_id);
            self.tenant.append_value(event.tenant);
            self.kind.append_value(event.kind);
            self.event.append_option(event.event);
            self.timestamp.append_value(event.timestamp);
            self.original_timestamp.append_option(event.original_timestamp);
            self.sent_at.append_option(event.sent_at);
            self.received_at.append_value(received_at);
            self.user_id.append_option(event.user_id);
            self.anonymous_id.append_option(event.anonymous_id);
            self.session_id.append_option(event.session_id);
            self.visitor_id.append_option(visitor.id(event.tenant));
            self.url.append_option(event.url);
            self.referrer.append_option(event.referrer);
            self.user_agent.append_option(event.user_agent);
            self.ip.append_option(ip.as_deref());
            self.properties.append_option(event.properties);
            match &mut self.bots {
                None => self.context.append_option(event.context),
                Some(bots) => {
                    let agent = event.user_agent.or(sender.map(|sender| sender.user_agent));
                    let context = bots.context(agent.unwrap_or_default(), event.context);
                    self.context.append_option(context);
                }
            }
            self.source.append_value(source);
            self.rows += 1;
        }
    }

    /// The batch and its size in bytes; the builder is empty afterwards.
    #[must_use]
    pub fn finish(&mut self) -> (RecordBatch, usize) {
        let columns: Vec<ArrayRef> = vec![
            finish_text(&mut self.message_id),
            finish_text(&mut self.tenant),
            finish_text(&mut self.kind),
            finish_text(&mut self.event),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.original_timestamp.finish()),
            Arc::new(self.sent_at.finish()),
            Arc::new(self.received_at.finish()),
            finish_text(&mut self.user_id),
            finish_text(&mut self.anonymous_id),
            finish_text(&mut self.session_id),
            Arc::new(self.visitor_id.finish()),
            finish_text(&mut self.url),
            finish_text(&mut self.referrer),
            finish_text(&mut self.user_agent),
            finish_text(&mut self.ip),
            finish_text(&mut self.properties),
            finish_text(&mut self.context),
            finish_text(&mut self.source),
        ];
        self.rows = 0;
        let batch = RecordBatch::try_new(log_schema(), columns)
            .expect("every column got a value for every row, in the order of the schema");
        let bytes = batch_bytes(&batch);
        (batch, bytes)
    }
}

/// The visitor of one request.
struct Visitor<'v, 'a> {
    visitors: Option<&'v Visitors>,
    sender: Option<Sender<'a>>,
    received_at: i64,
    /// The id of the last event and its tenant: most requests have one.
    last: Option<(&'a str, Option<i64>)>,
}

impl<'a> Visitor<'_, 'a> {
    fn id(&mut self, tenant: &'a str) -> Option<i64> {
        let (visitors, sender) = (self.visitors?, self.sender.as_ref()?);
        match self.last {
            Some((known, id)) if known == tenant => id,
            _ => {
                let id = visitors.id(self.received_at, tenant, sender);
                self.last = Some((tenant, id));
                id
            }
        }
    }
}

/// The column, and a builder of its size for the next one: batches under load are alike, and a
/// buffer that grows by doubling would hold up to twice its bytes while the batch waits.
fn finish_text(builder: &mut StringBuilder) -> ArrayRef {
    let bytes = builder.values_slice().len();
    let rows = builder.len();
    let next = StringBuilder::with_capacity(rows + rows / 8, bytes + bytes / 8);
    Arc::new(std::mem::replace(builder, next).finish())
}
