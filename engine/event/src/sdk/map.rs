//! The tables: which member of an SDK's JSON is which column.
//!
//! A [`Level`] lists the members of one object that mean something; every other member is kept as
//! it is. Names are few and short, so a level is searched from the front, length first.

use super::Sdk;
use crate::model::Field;

/// The members of one object that mean something.
pub(super) type Level = &'static [(&'static str, Use)];

/// What a member is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// This column and nothing else.
    Column(Field),
    /// This column when nothing better is there; the member is kept as well.
    Hint(Field, Rank),
    /// A time: RFC 3339, an epoch number, or such a number as text.
    Time(Field),
    /// When it happened, by a clock that needs no correction.
    TrueTime,
    /// The `properties`: an object, or the text of one.
    Properties(Level),
    /// The `context`: an object.
    Context(Level),
    /// An object that is kept as it is and has members of interest.
    Inside(Level),
    /// An object whose members are the event's own.
    Payload(Level),
    /// The events of a batch; around them is an envelope.
    Batch,
    /// The write key; not kept.
    Key,
    /// The write key, or an alias of one; kept as well.
    Alias,
    /// What Snowplow calls the event: `pv`, `se`, …; not kept.
    Code,
    /// JSON as text, or as text in base64.
    Embedded(Embedded, Coding),
}

/// What embedded JSON becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Embedded {
    /// The `context`.
    Context,
    /// The property `ue_pr`, in whose `data.schema` the event's name lies.
    SelfDescribing,
}

/// How embedded JSON is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Text,
    Base64,
}

/// How good a source of a column is; the better one wins, of equals the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    #[default]
    None,
    /// Only in events of certain types; see [`Map::guesses`].
    Guess,
    Second,
    First,
    /// The column's own member.
    Own,
}

/// How an SDK's events are read.
#[derive(Debug)]
pub(super) struct Map {
    /// The members of an event's own object, or of the envelope around a batch.
    pub(super) event: Level,
    /// Types of events in which a [`Rank::Guess`] counts.
    pub(super) guesses: &'static [&'static str],
}

impl Map {
    pub(super) fn of(sdk: Sdk) -> &'static Map {
        match sdk {
            Sdk::Segment | Sdk::Jitsu => &SEGMENT,
            Sdk::PostHog => &POSTHOG,
            Sdk::Snowplow => &SNOWPLOW,
            Sdk::Plausible => &PLAUSIBLE,
            Sdk::Umami => &UMAMI,
        }
    }
}

/// The use of `name` in `level`.
#[inline]
pub(super) fn find(level: Level, name: &[u8]) -> Option<Use> {
    level.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, found)| *found)
}

static SEGMENT: Map = Map {
    event: &[
        ("type", Use::Column(Field::Type)),
        ("event", Use::Column(Field::Event)),
        ("name", Use::Hint(Field::Event, Rank::First)),
        ("userId", Use::Column(Field::UserId)),
        ("anonymousId", Use::Column(Field::AnonymousId)),
        ("messageId", Use::Column(Field::MessageId)),
        ("timestamp", Use::Time(Field::Timestamp)),
        ("originalTimestamp", Use::Time(Field::OriginalTimestamp)),
        ("sentAt", Use::Time(Field::SentAt)),
        (
            "properties",
            Use::Properties(&[
                ("url", Use::Hint(Field::Url, Rank::Guess)),
                ("referrer", Use::Hint(Field::Referrer, Rank::Guess)),
                ("name", Use::Hint(Field::Event, Rank::Guess)),
            ]),
        ),
        (
            "context",
            Use::Context(&[
                (
                    "page",
                    Use::Inside(&[
                        ("url", Use::Hint(Field::Url, Rank::First)),
                        ("referrer", Use::Hint(Field::Referrer, Rank::First)),
                    ]),
                ),
                ("userAgent", Use::Hint(Field::UserAgent, Rank::First)),
                ("sessionId", Use::Hint(Field::SessionId, Rank::First)),
            ]),
        ),
        ("batch", Use::Batch),
        ("writeKey", Use::Key),
    ],
    // In other events `url` is the address of something else, such as a link.
    guesses: &["page", "screen"],
};

static POSTHOG: Map = Map {
    event: &[
        ("event", Use::Column(Field::Event)),
        ("distinct_id", Use::Column(Field::UserId)),
        ("uuid", Use::Column(Field::MessageId)),
        ("timestamp", Use::Time(Field::OriginalTimestamp)),
        ("sent_at", Use::Time(Field::SentAt)),
        ("sentAt", Use::Time(Field::SentAt)),
        (
            "properties",
            Use::Properties(&[
                ("$current_url", Use::Hint(Field::Url, Rank::First)),
                ("$referrer", Use::Hint(Field::Referrer, Rank::First)),
                ("$session_id", Use::Hint(Field::SessionId, Rank::First)),
                ("$device_id", Use::Hint(Field::AnonymousId, Rank::First)),
                ("$anon_distinct_id", Use::Hint(Field::AnonymousId, Rank::Second)),
                ("distinct_id", Use::Hint(Field::UserId, Rank::First)),
                ("$raw_user_agent", Use::Hint(Field::UserAgent, Rank::First)),
                ("$user_agent", Use::Hint(Field::UserAgent, Rank::Second)),
                ("$insert_id", Use::Hint(Field::MessageId, Rank::First)),
                ("token", Use::Alias),
            ]),
        ),
        ("batch", Use::Batch),
        ("api_key", Use::Key),
        ("token", Use::Key),
    ],
    guesses: &[],
};

static SNOWPLOW: Map = Map {
    event: &[
        ("e", Use::Code),
        ("se_ac", Use::Column(Field::Event)),
        ("eid", Use::Column(Field::MessageId)),
        ("uid", Use::Column(Field::UserId)),
        ("duid", Use::Column(Field::AnonymousId)),
        ("sid", Use::Column(Field::SessionId)),
        ("url", Use::Column(Field::Url)),
        ("refr", Use::Column(Field::Referrer)),
        ("ua", Use::Column(Field::UserAgent)),
        ("dtm", Use::Time(Field::OriginalTimestamp)),
        ("stm", Use::Time(Field::SentAt)),
        ("ttm", Use::TrueTime),
        ("co", Use::Embedded(Embedded::Context, Coding::Text)),
        ("cx", Use::Embedded(Embedded::Context, Coding::Base64)),
        ("ue_pr", Use::Embedded(Embedded::SelfDescribing, Coding::Text)),
        ("ue_px", Use::Embedded(Embedded::SelfDescribing, Coding::Base64)),
        ("aid", Use::Alias),
        ("data", Use::Batch),
    ],
    guesses: &[],
};

static PLAUSIBLE: Map = Map {
    event: &[
        ("n", Use::Column(Field::Event)),
        ("name", Use::Column(Field::Event)),
        ("u", Use::Column(Field::Url)),
        ("url", Use::Column(Field::Url)),
        ("r", Use::Column(Field::Referrer)),
        ("referrer", Use::Column(Field::Referrer)),
        ("d", Use::Alias),
        ("domain", Use::Alias),
        ("p", Use::Properties(&[])),
        ("m", Use::Properties(&[])),
        ("props", Use::Properties(&[])),
    ],
    guesses: &[],
};

static UMAMI: Map = Map {
    event: &[
        ("type", Use::Column(Field::Type)),
        (
            "payload",
            Use::Payload(&[
                ("name", Use::Column(Field::Event)),
                ("url", Use::Column(Field::Url)),
                ("referrer", Use::Column(Field::Referrer)),
                ("userAgent", Use::Column(Field::UserAgent)),
                ("id", Use::Column(Field::UserId)),
                ("timestamp", Use::Time(Field::OriginalTimestamp)),
                ("data", Use::Properties(&[("id", Use::Hint(Field::UserId, Rank::Guess))])),
                ("website", Use::Alias),
            ]),
        ),
    ],
    // The server's SDK names the user among the data.
    guesses: &["identify"],
};
