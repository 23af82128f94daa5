//! One event of an SDK while its JSON is read.
//!
//! As in the decoder of our own events nothing is copied before the event is complete: fields are
//! spans of the body. What is not in the body as it is stored (a type that follows from a name,
//! JSON that came as text or base64) is put into a side buffer, and its span says so.
//!
//! **Not guaranteed.** That every member that has no column is kept when the event's properties
//! hold a member of the same name: the one in the properties wins.

use super::Sdk;
use super::embed::{self, Embed};
use super::map::{Coding, Embedded, Level, Map, Rank, Use, find};
use crate::assembly::Assembly;
use crate::error::{ErrorKind, Fault, Scan, quote};
use crate::json::{Scanner, Scratch, Text, unescape};
use crate::model::{Field, Limits, Request};
use crate::time;

/// Members without a column that an event with properties may have. Each is looked for among the
/// properties' names; SDKs send less than ten.
pub(super) const EXTRAS_MAX: usize = 64;

/// A client's clock that is off by this much at most is believed: correcting it would only add the
/// time that the request took. SDKs that try again send the old `sent_at`, and a 503 of ours tells them
/// to wait for some seconds.
pub(super) const CLOCK_TOLERANCE_MICROS: u64 = 30_000_000;

/// Longest write key in a body, in bytes; longer ones are none.
pub(super) const KEY_MAX_BYTES: usize = 512;

/// A stretch of the body, or of the side buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    text: Text,
    aside: bool,
}

/// A member without a column, from the opening quote of its name to the end of its value.
#[derive(Debug, Clone, Copy)]
struct Extra {
    name: Text,
    member: Text,
    /// It is the event's name unless there is a better one.
    names_event: bool,
}

/// The fields of the event being read; scratch that is used again for the next.
#[derive(Debug, Default)]
pub(super) struct Draft {
    texts: [Span; Field::TEXTS],
    /// How good each text's source is; none when there is no text.
    ranks: [Rank; Field::TEXTS],
    times: [Option<i64>; Field::TIMES],
    true_time: Option<i64>,
    extras: Vec<Extra>,
    /// The names of the properties.
    names: Vec<Span>,
    /// `"ue_pr":{…}` in the side buffer.
    self_describing: Option<Span>,
    code: Option<Text>,
    key: Option<Text>,
    /// The side buffer.
    aside: Vec<u8>,
    scratch: Scratch,
}

impl Draft {
    /// Forgets everything: an event begins.
    pub(super) fn clear(&mut self) {
        self.ranks = Default::default();
        self.times = Default::default();
        self.true_time = None;
        self.extras.clear();
        self.names.clear();
        self.self_describing = None;
        self.code = None;
        self.key = None;
        self.aside.clear();
    }

    /// The write key in the event or envelope that was read.
    pub(super) fn key(&self, body: &[u8]) -> Option<String> {
        let key = self.key.filter(|key| (1..=KEY_MAX_BYTES).contains(&key.len()))?;
        let mut value = Vec::with_capacity(key.len());
        unescape(key.raw(body), |piece| value.extend_from_slice(piece));
        String::from_utf8(value).ok()
    }

    /// When the envelope that was read says it was sent.
    pub(super) fn sent_at(&self) -> Option<i64> {
        self.times[Field::SentAt.place() - Field::TEXTS]
    }

    /// Reads the value of the member `name`, which is `found`.
    pub(super) fn member(
        &mut self,
        scanner: &mut Scanner<'_>,
        limits: &Limits,
        name: Text,
        found: Option<Use>,
    ) -> Scan<()> {
        match found {
            Some(Use::Column(field)) => return self.column(scanner, field),
            Some(Use::Time(field)) => {
                let micros = time_value(scanner, field.name())?;
                self.times[field.place() - Field::TEXTS] = micros;
                return Ok(());
            }
            Some(Use::TrueTime) => {
                self.true_time = time_value(scanner, "ttm")?;
                return Ok(());
            }
            Some(Use::Properties(level)) => return self.properties(scanner, limits, level),
            Some(Use::Context(level)) => return self.context(scanner, level),
            Some(Use::Payload(level)) if scanner.peek() == Some(b'{') => {
                return scanner.members(true, |scanner, name| {
                    let found = look_up(scanner, level, name);
                    self.member(scanner, limits, name, found)
                });
            }
            Some(Use::Embedded(what, coding)) => {
                return self.embedded(scanner, limits, what, coding);
            }
            Some(Use::Key) => {
                self.key = scalar(scanner)?.or(self.key);
                return Ok(());
            }
            Some(Use::Code) => {
                self.code = scalar(scanner)?;
                return Ok(());
            }
            Some(Use::Alias) => self.key = scalar(scanner)?.or(self.key),
            Some(Use::Hint(field, rank)) => self.hint(scanner, field, rank)?,
            Some(Use::Inside(level)) => self.inside(scanner, level, false)?,
            Some(Use::Payload(_) | Use::Batch) | None => scanner.value()?,
        }
        if scanner.oversize().is_some() {
            // The event is lost already; its members must not fill the memory as well.
            return Ok(());
        }
        let names_event = matches!(found, Some(Use::Hint(Field::Event, _)));
        let member = Text::new(name.start() - 1, scanner.at, false);
        self.extras.push(Extra { name, member, names_event });
        Ok(())
    }

    /// Reads a text that has a column of its own. Numbers are taken as text: ids often are some.
    fn column(&mut self, scanner: &mut Scanner<'_>, field: Field) -> Scan<()> {
        let start = scanner.at;
        if matches!(scanner.peek(), Some(b'{' | b'[' | b't' | b'f')) {
            scanner.note(|_| {
                let name = field.name();
                let message = format!("`{name}` has to be a string, a number or null");
                Fault::field(ErrorKind::Type, start, name, message)
            })?;
            return scanner.value();
        }
        if self.ranks[field.place()] == Rank::Own {
            scanner.note(|_| {
                let name = field.name();
                let message = format!("the field `{name}` is given twice");
                Fault::field(ErrorKind::Duplicate, start, name, message)
            })?;
        }
        if let Some(text) = scalar(scanner)? {
            self.set(field, Rank::Own, Span { text, aside: false });
        }
        Ok(())
    }

    /// Reads a value that is kept where it is and may be a column's as well.
    fn hint(&mut self, scanner: &mut Scanner<'_>, field: Field, rank: Rank) -> Scan<()> {
        if !matches!(scanner.peek(), Some(b'"' | b'-' | b'0'..=b'9')) {
            return scanner.value();
        }
        if let Some(text) = scalar(scanner)?
            // PostHog's word for "no referrer".
            && text.raw(scanner.body) != b"$direct"
        {
            self.set(field, rank, Span { text, aside: false });
        }
        Ok(())
    }

    fn set(&mut self, field: Field, rank: Rank, span: Span) {
        let known = &mut self.ranks[field.place()];
        if rank > *known {
            *known = rank;
            self.texts[field.place()] = span;
        }
    }

    /// Gives `field` a text that is not in the body.
    fn set_aside(&mut self, field: Field, text: &str) {
        let start = self.aside.len();
        self.aside.extend_from_slice(text.as_bytes());
        let text = Text::new(start, self.aside.len(), false);
        self.texts[field.place()] = Span { text, aside: true };
        self.ranks[field.place()] = Rank::Own;
    }

    /// Reads an object, if it is one, and looks at the members in `level`.
    fn inside(&mut self, scanner: &mut Scanner<'_>, level: Level, properties: bool) -> Scan<()> {
        if scanner.peek() != Some(b'{') {
            return scanner.value();
        }
        scanner.members(false, |scanner, name| {
            if properties && scanner.oversize().is_none() {
                self.names.push(Span { text: name, aside: false });
            }
            match look_up(scanner, level, name) {
                Some(Use::Hint(field, rank)) => self.hint(scanner, field, rank),
                Some(Use::Inside(level)) => self.inside(scanner, level, false),
                Some(Use::Alias) if scanner.peek() == Some(b'"') => {
                    self.key = self.key.or(scalar(scanner)?);
                    Ok(())
                }
                _ => scanner.value(),
            }
        })
    }

    fn properties(&mut self, scanner: &mut Scanner<'_>, limits: &Limits, level: Level) -> Scan<()> {
        let (start, field) = (scanner.at, Field::Properties);
        match scanner.peek() {
            Some(b'{') => {
                self.inside(scanner, level, true)?;
                let text = Text::new(start, scanner.at, false);
                self.set(field, Rank::Own, Span { text, aside: false });
                Ok(())
            }
            Some(b'"') => {
                let text = scanner.string()?;
                if text.len() == 0 {
                    return Ok(());
                }
                let embed = Embed { text, coding: Coding::Text, depth: 0 };
                match embed.object(scanner.body, limits, &mut self.aside, &mut self.scratch) {
                    Ok(object) => {
                        let aside = |text| Span { text, aside: true };
                        self.names.extend(object.names.into_iter().map(aside));
                        self.set(field, Rank::Own, aside(object.text));
                        Ok(())
                    }
                    Err(reason) => note_embedded(scanner, start, field.name(), &reason),
                }
            }
            Some(b'n') => scanner.literal("null"),
            _ => note_type(scanner, field.name(), "an object or null"),
        }
    }

    fn context(&mut self, scanner: &mut Scanner<'_>, level: Level) -> Scan<()> {
        let (start, field) = (scanner.at, Field::Context);
        match scanner.peek() {
            Some(b'{') => {
                self.inside(scanner, level, false)?;
                let text = Text::new(start, scanner.at, false);
                self.set(field, Rank::Own, Span { text, aside: false });
                Ok(())
            }
            Some(b'n') => scanner.literal("null"),
            _ => note_type(scanner, field.name(), "an object or null"),
        }
    }

    fn embedded(
        &mut self,
        scanner: &mut Scanner<'_>,
        limits: &Limits,
        what: Embedded,
        coding: Coding,
    ) -> Scan<()> {
        let start = scanner.at;
        let name = match what {
            Embedded::Context => "context",
            Embedded::SelfDescribing => "ue_pr",
        };
        if scanner.peek() != Some(b'"') {
            return note_type(scanner, name, "a string");
        }
        let text = scanner.string()?;
        let member = self.aside.len();
        let embed = match what {
            Embedded::Context => Embed { text, coding, depth: 0 },
            Embedded::SelfDescribing => {
                self.aside.extend_from_slice(b"\"ue_pr\":");
                Embed { text, coding, depth: 1 }
            }
        };
        let read = embed.object(scanner.body, limits, &mut self.aside, &mut self.scratch);
        let object = match read {
            Ok(object) => object,
            Err(reason) => return note_embedded(scanner, start, name, &reason),
        };
        match what {
            Embedded::Context => {
                self.set(Field::Context, Rank::Own, Span { text: object.text, aside: true });
            }
            Embedded::SelfDescribing => {
                let text = Text::new(member, object.text.end(), false);
                self.self_describing = Some(Span { text, aside: true });
                if let Some(schema) = object.schema {
                    let name = embed::schema_name(&self.aside, schema);
                    self.set(Field::Event, Rank::First, Span { text: name, aside: true });
                }
            }
        }
        Ok(())
    }

    /// Gives the event what follows from the rest of it, and checks what can only be seen in the
    /// whole event. `start` is where it began, `kind` the type that the route says.
    pub(super) fn conclude(
        &mut self,
        sdk: Sdk,
        body: &[u8],
        start: usize,
        kind: Option<&'static str>,
    ) -> Scan<()> {
        if self.extras.len() > EXTRAS_MAX && !self.names.is_empty() {
            let message = format!("an event has at most {EXTRAS_MAX} members beside its fields");
            return Err(Fault::new(ErrorKind::TooLarge, start, message));
        }
        let kind = self.kind(sdk, body, kind).map_err(|missing| {
            Fault::new(ErrorKind::Shape, start, format!("an event needs {missing}"))
        })?;
        let guesses = match kind {
            Some(kind) => {
                self.set_aside(Field::Type, kind);
                Map::of(sdk).guesses.contains(&kind)
            }
            None => {
                let named = self.raw(body, Field::Type).unwrap_or_default();
                Map::of(sdk).guesses.iter().any(|guess| guess.as_bytes() == named)
            }
        };
        if !guesses {
            for rank in self.ranks.iter_mut().filter(|rank| **rank == Rank::Guess) {
                *rank = Rank::None;
            }
        }
        // Each is by the client's clock until that has been compared with ours.
        let [timestamp, original, _] = &mut self.times;
        *original = original.or(*timestamp);
        *timestamp = timestamp.or(*original);
        Ok(())
    }

    /// The type that follows from the rest of the event, or what the event lacks.
    fn kind(
        &mut self,
        sdk: Sdk,
        body: &[u8],
        kind: Option<&'static str>,
    ) -> Result<Option<&'static str>, &'static str> {
        match sdk {
            Sdk::Segment | Sdk::Jitsu => match (self.has(Field::Type), kind) {
                (true, _) => Ok(None),
                (false, Some(kind)) => Ok(Some(kind)),
                (false, None) if self.has(Field::Event) => Ok(None),
                (false, None) => Err("`type` or `event`"),
            },
            Sdk::PostHog => Ok(match self.raw(body, Field::Event).ok_or("`event`")? {
                b"$pageview" => Some("page"),
                b"$screen" => Some("screen"),
                b"$identify" => Some("identify"),
                b"$groupidentify" => Some("group"),
                b"$create_alias" => Some("alias"),
                _ => None,
            }),
            Sdk::Snowplow => match self.code.map(|code| code.raw(body)).ok_or("`e`")? {
                b"pv" => Ok(Some("page")),
                b"se" | b"ue" if self.has(Field::Event) => Ok(None),
                b"se" => Err("`se_ac`"),
                b"ue" => Err("`ue_pr` or `ue_px` with a schema in its data"),
                code => {
                    let name = match code {
                        b"pp" => "page_ping",
                        b"tr" => "transaction",
                        b"ti" => "transaction_item",
                        _ => return Err("one of pv, pp, se, ue, tr, ti as `e`"),
                    };
                    self.set_aside(Field::Event, name);
                    Ok(None)
                }
            },
            Sdk::Plausible => match self.raw(body, Field::Event).ok_or("`n` or `name`")? {
                b"pageview" => Ok(Some("page")),
                _ => Ok(None),
            },
            Sdk::Umami => match self.raw(body, Field::Type).ok_or("`type`")? {
                b"identify" => Ok(Some("identify")),
                b"event" if self.has(Field::Event) => Ok(Some("track")),
                b"event" => Ok(Some("page")),
                _ => Err("event or identify as `type`"),
            },
        }
    }

    fn has(&self, field: Field) -> bool {
        self.ranks[field.place()] != Rank::None
    }

    /// A text as it stands in the body; escapes are still in it.
    fn raw<'a>(&'a self, body: &'a [u8], field: Field) -> Option<&'a [u8]> {
        self.has(field).then(|| self.bytes(body, self.texts[field.place()]))
    }

    fn bytes<'a>(&'a self, body: &'a [u8], span: Span) -> &'a [u8] {
        span.text.raw(if span.aside { &self.aside } else { body })
    }

    /// Adds the event, which has been concluded, to `record`.
    pub(super) fn write(&self, body: &[u8], request: &Request<'_>, record: &mut Assembly) {
        for (place, field) in TEXT_FIELDS.into_iter().enumerate() {
            debug_assert_eq!(field.place(), place);
            if field == Field::Properties {
                self.write_properties(body, record);
            } else if let Some(raw) = self.raw(body, field) {
                let escaped = self.texts[place].text.escaped();
                record.text(field, |texts| match escaped {
                    true => unescape(raw, |piece| texts.extend_from_slice(piece)),
                    false => texts.extend_from_slice(raw),
                });
            }
        }
        for field in [Field::Timestamp, Field::OriginalTimestamp, Field::SentAt] {
            if let Some(micros) = self.times[field.place() - Field::TEXTS] {
                record.time(field, micros);
            }
        }
        record.correct(request, CLOCK_TOLERANCE_MICROS);
        if let Some(micros) = self.true_time {
            record.time(Field::Timestamp, micros);
        }
        record.finish_event();
    }

    /// Writes the event's properties with the members that have no column.
    fn write_properties(&self, body: &[u8], record: &mut Assembly) {
        let own = self.raw(body, Field::Properties);
        let extras = self.extras.iter().filter(|extra| self.is_kept(body, **extra));
        let extras = extras.map(|extra| extra.member.raw(body));
        let more = self.self_describing.map(|span| self.bytes(body, span));
        let mut members = extras.chain(more).peekable();
        if own.is_none() && members.peek().is_none() {
            return;
        }
        let head = own.map_or(&b"{"[..], |object| &object[..object.len() - 1]);
        record.text(Field::Properties, |texts| {
            texts.extend_from_slice(head);
            let mut empty = head[1..].trim_ascii().is_empty();
            for member in members {
                if !empty {
                    texts.push(b',');
                }
                empty = false;
                texts.extend_from_slice(member);
            }
            texts.push(b'}');
        });
    }

    /// Whether a member without a column is stored: not when it is the event's name already, nor
    /// when the properties have one of the same name.
    fn is_kept(&self, body: &[u8], extra: Extra) -> bool {
        let is_event = extra.names_event && self.ranks[Field::Event.place()] < Rank::Own;
        let name = Span { text: extra.name, aside: false };
        !is_event && !self.names.iter().any(|other| self.is_same(body, name, *other))
    }

    fn is_same(&self, body: &[u8], left: Span, right: Span) -> bool {
        let (one, other) = (self.bytes(body, left), self.bytes(body, right));
        if !left.text.escaped() && !right.text.escaped() {
            return one == other;
        }
        let plain = |raw: &[u8]| {
            let mut value = Vec::with_capacity(raw.len());
            unescape(raw, |piece| value.extend_from_slice(piece));
            value
        };
        plain(one) == plain(other)
    }
}

/// The texts, in the order of their places.
const TEXT_FIELDS: [Field; Field::TEXTS] = [
    Field::MessageId,
    Field::Tenant,
    Field::Type,
    Field::Event,
    Field::UserId,
    Field::AnonymousId,
    Field::SessionId,
    Field::Url,
    Field::Referrer,
    Field::UserAgent,
    Field::Properties,
    Field::Context,
];

/// What the member `name` is in `level`.
pub(super) fn look_up(scanner: &mut Scanner<'_>, level: Level, name: Text) -> Option<Use> {
    if name.escaped() {
        find(level, scanner.plain(name))
    } else {
        find(level, name.raw(scanner.body))
    }
}

/// Reads a string or number as text; nothing for an empty string and for other values.
fn scalar(scanner: &mut Scanner<'_>) -> Scan<Option<Text>> {
    let start = scanner.at;
    match scanner.peek() {
        Some(b'"') => scanner.string().map(|text| (text.len() > 0).then_some(text)),
        Some(b'-' | b'0'..=b'9') => {
            scanner.number()?;
            Ok(Some(Text::new(start, scanner.at, false)))
        }
        _ => scanner.value().map(|()| None),
    }
}

/// Reads a time; nothing for null and an empty text.
fn time_value(scanner: &mut Scanner<'_>, name: &str) -> Scan<Option<i64>> {
    let start = scanner.at;
    if matches!(scanner.peek(), Some(b'{' | b'[' | b't' | b'f')) {
        return note_type(scanner, name, "a time (text or number) or null").map(|()| None);
    }
    let is_text = scanner.peek() == Some(b'"');
    let Some(text) = scalar(scanner)? else { return Ok(None) };
    let raw = text.raw(scanner.body);
    let is_number = raw.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    let micros = if !is_text || is_number {
        time::parse_epoch(raw)
    } else if text.escaped() {
        time::parse_rfc3339(scanner.plain(text))
    } else {
        time::parse_rfc3339(raw)
    };
    if micros.is_none() {
        scanner.note(|scanner| {
            let given = quote(&scanner.body[start..scanner.at]);
            let message = format!("`{name}` is {given}; it has to be {}", time::FORMS);
            Fault::field(ErrorKind::Timestamp, start, name, message)
        })?;
    }
    Ok(micros)
}

#[cold]
fn note_type(scanner: &mut Scanner<'_>, name: &str, expected: &str) -> Scan<()> {
    let start = scanner.at;
    scanner.note(|_| {
        let message = format!("`{name}` has to be {expected}");
        Fault::field(ErrorKind::Type, start, name, message)
    })?;
    scanner.value()
}

#[cold]
fn note_embedded(scanner: &mut Scanner<'_>, start: usize, name: &str, reason: &str) -> Scan<()> {
    scanner.note(|_| {
        let message = format!("`{name}` has to hold a JSON object: {reason}");
        Fault::field(ErrorKind::Shape, start, name, message)
    })
}
