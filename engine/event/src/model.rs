//! The vocabulary of ingestion: where an event came from, who owns it, which names its fields have.
//!
//! Field names are the column names of the table. The camelCase forms of the Segment spec,
//! `dedup_id` for `message_id` and `name` for `event` mean the same field; two names of one field
//! in one event are a duplicate key. Every other name is unknown and its value goes into
//! `properties`; that includes the server's own columns (`node`, `shard`, `sequence`,
//! `received_at`, `date`, `source`, `visitor_id`, `ip`).

use std::fmt;
use std::net::IpAddr;

/// The owner of an event that names none, when no key names one either.
pub const DEFAULT_TENANT: &str = "default";

/// The type of an event that has a name (`event`) and no `type`.
pub const DEFAULT_TYPE: &str = "track";

/// Deepest nesting of objects and arrays in one event; the event's own object is level 1.
///
/// The array or the lines around the events do not count, so that an event is acceptable in every
/// shape of body or in none.
pub const MAX_DEPTH: usize = 128;

/// Longest tenant a key may carry, in bytes. A record holds the tenant of its request once, and its
/// bound counts this much for it. (A tenant that an event names itself is bounded by the event's
/// size.)
pub const TENANT_MAX_BYTES: usize = 255;

/// Default of [`Limits::event_max_bytes`]: far above any beacon, small enough that a hundred at
/// once are harmless.
pub const DEFAULT_EVENT_MAX_BYTES: usize = 256 * 1024;

/// Default of [`Limits::events_max`]: a request is stored whole or not at all, so it has to stay a
/// modest part of a ring and of a log frame.
pub const DEFAULT_EVENTS_MAX: usize = 50_000;

/// Which way an event came in: the `source` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Source {
    /// `POST /v1/events`.
    Events = 0,
    /// `GET /v1/pixel.gif`.
    Pixel = 1,
    /// The `import` command.
    Import = 2,
    /// The routes of Segment's SDKs, which RudderStack's use as well.
    Segment = 3,
    /// The routes of Jitsu's SDK.
    Jitsu = 4,
    /// The routes of PostHog's SDKs.
    PostHog = 5,
    /// The routes of Snowplow's trackers.
    Snowplow = 6,
    /// The route of Plausible's trackers.
    Plausible = 7,
    /// The route of Umami's trackers.
    Umami = 8,
    /// OpenTelemetry logs.
    Otlp = 9,
}

impl Source {
    /// Every source, each at the place of its byte.
    const ALL: [Source; 10] = [
        Source::Events,
        Source::Pixel,
        Source::Import,
        Source::Segment,
        Source::Jitsu,
        Source::PostHog,
        Source::Snowplow,
        Source::Plausible,
        Source::Umami,
        Source::Otlp,
    ];

    /// The text of the `source` column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Events => "events",
            Source::Pixel => "pixel",
            Source::Import => "import",
            Source::Segment => "segment",
            Source::Jitsu => "jitsu",
            Source::PostHog => "posthog",
            Source::Snowplow => "snowplow",
            Source::Plausible => "plausible",
            Source::Umami => "umami",
            Source::Otlp => "otlp",
        }
    }

    /// The source a record's byte stands for, if any.
    pub(crate) fn from_byte(byte: u8) -> Option<Source> {
        Source::ALL.get(usize::from(byte)).copied()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Who owns the events of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant<'a> {
    /// Each event's own `tenant` counts; without one (or with an empty one) it is
    /// [`DEFAULT_TENANT`].
    Open,
    /// The key's tenant, at most [`TENANT_MAX_BYTES`] long. An event that names a different one is
    /// forbidden.
    Fixed(&'a str),
}

impl<'a> Tenant<'a> {
    /// The owner of an event that names none.
    #[must_use]
    pub fn of_request(self) -> &'a str {
        match self {
            Tenant::Open => DEFAULT_TENANT,
            Tenant::Fixed(tenant) => tenant,
        }
    }
}

/// Longest user agent that a record carries, in bytes; the rest of a longer one tells no visitors
/// apart.
pub const USER_AGENT_MAX_BYTES: usize = 512;

/// Who sent a request, for the visitor id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender<'a> {
    /// The client's address.
    pub address: IpAddr,
    /// How its program names itself; a record carries [`USER_AGENT_MAX_BYTES`] of it.
    pub user_agent: &'a str,
    /// Whether the address goes into the column `ip`.
    pub keep_address: bool,
}

/// What the server knows about a request before it looks at the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// When the request was accepted, microseconds since 1970-01-01 UTC.
    pub received_at: i64,
    /// Which way it came in.
    pub source: Source,
    /// Who owns its events.
    pub tenant: Tenant<'a>,
    /// Whether `timestamp` is corrected for the client's clock when an event carries both `sent_at`
    /// and `original_timestamp`. True over HTTP, false for imports.
    pub correct_clock: bool,
    /// Who sent it. Without it its events have no visitor id.
    pub sender: Option<Sender<'a>>,
}

/// Bounds on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest JSON text of one event, in bytes, braces included. Default
    /// [`DEFAULT_EVENT_MAX_BYTES`].
    pub event_max_bytes: usize,
    /// Most events in one request, refused ones included. Default [`DEFAULT_EVENTS_MAX`].
    pub events_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { event_max_bytes: DEFAULT_EVENT_MAX_BYTES, events_max: DEFAULT_EVENTS_MAX }
    }
}

/// What a bad event does to the good ones of the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The first bad event refuses the whole request.
    Whole,
    /// A bad event is reported and left out; the rest is kept.
    Partial,
}

/// A field with a column of its own. Texts come first, then times: see [`Field::TEXTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// The client's idempotency key.
    MessageId = 0,
    /// Who owns the event.
    Tenant = 1,
    /// The column `type`: track, page, …
    Type = 2,
    /// The event's name.
    Event = 3,
    /// The user.
    UserId = 4,
    /// The browser or device.
    AnonymousId = 5,
    /// The visit.
    SessionId = 6,
    /// The page's address.
    Url = 7,
    /// Where the visitor came from.
    Referrer = 8,
    /// The browser, as it names itself.
    UserAgent = 9,
    /// JSON of an object.
    Properties = 10,
    /// JSON of an object.
    Context = 11,
    /// When it happened.
    Timestamp = 12,
    /// When it happened by the client's clock.
    OriginalTimestamp = 13,
    /// When it was sent by the client's clock.
    SentAt = 14,
}

impl Field {
    /// How many of the fields are texts; they have the numbers below this one.
    pub const TEXTS: usize = 12;

    /// How many are times; they follow the texts.
    pub const TIMES: usize = 3;

    /// The field a client means by `name`.
    ///
    /// Compared by length first: most names are settled by it or by one comparison more.
    #[inline]
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Field> {
        let field = match (name.len(), name) {
            (3, b"url") => Field::Url,
            (4, b"type") => Field::Type,
            (4, b"name") => Field::Event,
            (5, b"event") => Field::Event,
            (6, b"tenant") => Field::Tenant,
            (6, b"userId") => Field::UserId,
            (6, b"sentAt") => Field::SentAt,
            (7, b"user_id") => Field::UserId,
            (7, b"sent_at") => Field::SentAt,
            (7, b"context") => Field::Context,
            (8, b"referrer") => Field::Referrer,
            (8, b"dedup_id") => Field::MessageId,
            (9, b"timestamp") => Field::Timestamp,
            (9, b"messageId") => Field::MessageId,
            (9, b"sessionId") => Field::SessionId,
            (9, b"userAgent") => Field::UserAgent,
            (10, b"message_id") => Field::MessageId,
            (10, b"session_id") => Field::SessionId,
            (10, b"user_agent") => Field::UserAgent,
            (10, b"properties") => Field::Properties,
            (11, b"anonymousId") => Field::AnonymousId,
            (12, b"anonymous_id") => Field::AnonymousId,
            (17, b"originalTimestamp") => Field::OriginalTimestamp,
            (18, b"original_timestamp") => Field::OriginalTimestamp,
            _ => return None,
        };
        Some(field)
    }

    /// The column's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Field::MessageId => "message_id",
            Field::Tenant => "tenant",
            Field::Type => "type",
            Field::Event => "event",
            Field::UserId => "user_id",
            Field::AnonymousId => "anonymous_id",
            Field::SessionId => "session_id",
            Field::Url => "url",
            Field::Referrer => "referrer",
            Field::UserAgent => "user_agent",
            Field::Properties => "properties",
            Field::Context => "context",
            Field::Timestamp => "timestamp",
            Field::OriginalTimestamp => "original_timestamp",
            Field::SentAt => "sent_at",
        }
    }

    /// The field's place among all fields; texts have the places below [`Field::TEXTS`].
    #[inline]
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self as u8)
    }

    /// The field's bit in masks of seen and present fields.
    #[inline]
    pub(crate) fn bit(self) -> u16 {
        1 << (self as u8)
    }
}

const _: () = assert!(Field::Timestamp as usize == Field::TEXTS);
const _: () = assert!(Field::SentAt as usize + 1 == Field::TEXTS + Field::TIMES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_field_leads_to_it() {
        for (name, field) in [
            ("message_id", Field::MessageId),
            ("messageId", Field::MessageId),
            ("dedup_id", Field::MessageId),
            ("tenant", Field::Tenant),
            ("type", Field::Type),
            ("event", Field::Event),
            ("name", Field::Event),
            ("user_id", Field::UserId),
            ("userId", Field::UserId),
            ("anonymous_id", Field::AnonymousId),
            ("anonymousId", Field::AnonymousId),
            ("session_id", Field::SessionId),
            ("sessionId", Field::SessionId),
            ("url", Field::Url),
            ("referrer", Field::Referrer),
            ("user_agent", Field::UserAgent),
            ("userAgent", Field::UserAgent),
            ("properties", Field::Properties),
            ("context", Field::Context),
            ("timestamp", Field::Timestamp),
            ("original_timestamp", Field::OriginalTimestamp),
            ("originalTimestamp", Field::OriginalTimestamp),
            ("sent_at", Field::SentAt),
            ("sentAt", Field::SentAt),
        ] {
            assert_eq!(Field::named(name.as_bytes()), Some(field), "{name}");
        }
    }

    #[test]
    fn the_servers_own_columns_are_unknown_names() {
        for name in [
            "node",
            "shard",
            "sequence",
            "received_at",
            "date",
            "source",
            "visitor_id",
            "ip",
            "Type",
            "",
        ] {
            assert_eq!(Field::named(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_source_survives_its_byte() {
        for (place, source) in Source::ALL.into_iter().enumerate() {
            assert_eq!(source as usize, place);
            assert_eq!(Source::from_byte(source as u8), Some(source));
        }
        assert_eq!(Source::from_byte(10), None);
    }
}
