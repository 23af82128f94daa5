//! One event while its JSON is read: which field lies where in the body.
//!
//! Nothing is copied before the event is complete and found good; then its fields go into the
//! record in one go. Names without a column are kept as spans (name, colon and value as the client
//! wrote them) and join the client's `properties`, whose keys live in the same namespace.

use crate::error::{ErrorKind, Fault, Scan, quote};
use crate::json::{Scanner, Text, narrow, unescape_into, wide};
use crate::model::{Field, Request, Tenant};
use crate::record::RecordWriter;
use crate::time;

/// The fields of the event being read; scratch that is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Fields whose name has occurred, be it with null.
    seen: u16,
    /// Fields that have a value.
    present: u16,
    texts: [Text; Field::TEXTS],
    times: [i64; Field::TIMES],
    /// Members without a column, from the opening quote of the name to the end of the value.
    extras: Vec<(u32, u32)>,
    /// Value of an escaped tenant.
    tenant: Vec<u8>,
}

impl Draft {
    /// Reads the object that is next. An `Err` means that the scanner stands inside it.
    ///
    /// Faults that leave the syntax intact are in the scanner's `noted` afterwards, or are the
    /// `Err` in [`Mode::Whole`](crate::Mode::Whole).
    #[inline]
    pub(crate) fn read(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        self.seen = 0;
        self.present = 0;
        self.extras.clear();
        scanner.open_event();
        scanner.skip_space();
        if !scanner.take(b'}') {
            loop {
                self.member(scanner)?;
                scanner.skip_space();
                if scanner.take(b',') {
                    scanner.skip_space();
                } else if scanner.take(b'}') {
                    break;
                } else {
                    return Err(scanner.expected("`,` or `}` in an object"));
                }
            }
        }
        scanner.close_event()?;
        match scanner.oversize() {
            None => Ok(()),
            Some(length) => scanner.note(|scanner| scanner.too_large(length, "")),
        }
    }

    /// Reads one member of the event's object.
    #[inline]
    fn member(&mut self, scanner: &mut Scanner<'_>) -> Scan<()> {
        let start = scanner.at;
        let name = scanner.name()?;
        let known = if name.escaped() {
            Field::named(scanner.plain(name))
        } else {
            Field::named(name.raw(scanner.body))
        };
        let Some(field) = known else {
            scanner.remember(name)?;
            scanner.value()?;
            self.extras.push((narrow(start), narrow(scanner.at)));
            return Ok(());
        };
        if self.seen & field.bit() != 0 {
            scanner.note(|scanner| given_twice(field, start, name.raw(scanner.body)))?;
        }
        self.seen |= field.bit();
        match field {
            Field::Properties | Field::Context => self.object(scanner, field),
            Field::Timestamp | Field::OriginalTimestamp | Field::SentAt => {
                self.time(scanner, field)
            }
            _ => self.text(scanner, field),
        }
    }

    /// Reads the value of a text field.
    #[inline]
    fn text(&mut self, scanner: &mut Scanner<'_>, field: Field) -> Scan<()> {
        match scanner.peek() {
            Some(b'"') => {
                let text = scanner.string()?;
                // An empty owner, type or name says nothing; other empty texts are values.
                let counts = !matches!(field, Field::Tenant | Field::Type | Field::Event);
                if counts || text.len() > 0 {
                    self.set(field, text);
                }
                Ok(())
            }
            Some(b'n') => scanner.literal("null"),
            _ => wrong_type(scanner, field, "a string or null"),
        }
    }

    /// Reads the value of `properties` or `context`.
    #[inline]
    fn object(&mut self, scanner: &mut Scanner<'_>, field: Field) -> Scan<()> {
        match scanner.peek() {
            Some(b'{') => {
                let start = scanner.at;
                if field == Field::Properties {
                    scanner.merged_object()?;
                } else {
                    scanner.value()?;
                }
                self.set(field, Text::new(start, scanner.at, false));
                Ok(())
            }
            Some(b'n') => scanner.literal("null"),
            _ => wrong_type(scanner, field, "an object or null"),
        }
    }

    /// Reads the value of a time.
    #[inline]
    fn time(&mut self, scanner: &mut Scanner<'_>, field: Field) -> Scan<()> {
        let start = scanner.at;
        let micros = match scanner.peek() {
            Some(b'"') => {
                let text = scanner.string()?;
                if text.escaped() {
                    time::parse_rfc3339(scanner.plain(text))
                } else {
                    time::parse_rfc3339(text.raw(scanner.body))
                }
            }
            Some(b'-' | b'0'..=b'9') => time::parse_epoch(scanner.number()?),
            Some(b'n') => return scanner.literal("null"),
            _ => return wrong_type(scanner, field, "a time (text or number) or null"),
        };
        if let Some(micros) = micros {
            self.present |= field.bit();
            self.times[field.place() - Field::TEXTS] = micros;
            return Ok(());
        }
        scanner.note(|scanner| bad_time(field, start, &scanner.body[start..scanner.at]))
    }

    #[inline]
    fn set(&mut self, field: Field, text: Text) {
        self.present |= field.bit();
        self.texts[field.place()] = text;
    }

    fn has(&self, field: Field) -> bool {
        self.present & field.bit() != 0
    }

    fn time_of(&self, field: Field) -> Option<i64> {
        self.has(field).then(|| self.times[field.place() - Field::TEXTS])
    }

    /// Checks what can only be seen in the whole event. `start` is where it began.
    #[inline]
    pub(crate) fn check(&mut self, body: &[u8], start: usize, request: &Request<'_>) -> Scan<()> {
        if !self.has(Field::Type) && !self.has(Field::Event) {
            return Err(Fault::new(ErrorKind::Shape, start, "an event needs `type` or `event`"));
        }
        if self.has(Field::Tenant) && self.names_owner(body, request.tenant.of_request()) {
            // The record says it once for the whole request.
            self.present &= !Field::Tenant.bit();
        }
        match request.tenant {
            Tenant::Fixed(owner) if self.has(Field::Tenant) => {
                let named = self.texts[Field::Tenant.place()].raw(body);
                Err(foreign_tenant(start, named, owner))
            }
            _ => Ok(()),
        }
    }

    /// Whether the event's own `tenant` is `owner`.
    fn names_owner(&mut self, body: &[u8], owner: &str) -> bool {
        let text = self.texts[Field::Tenant.place()];
        if !text.escaped() {
            return text.raw(body) == owner.as_bytes();
        }
        self.tenant.clear();
        self.tenant.resize(text.len(), 0);
        let length = unescape_into(text.raw(body), &mut self.tenant);
        self.tenant[..length] == *owner.as_bytes()
    }

    /// Writes the event, which has been checked.
    #[inline]
    pub(crate) fn write(&self, body: &[u8], request: &Request<'_>, record: &mut RecordWriter<'_>) {
        for place in 0..Field::Properties.place() {
            if self.present & (1 << place) != 0 {
                record.text(place, self.texts[place].len(), |out| self.copy(place, body, out));
            }
        }
        if self.has(Field::Properties) || !self.extras.is_empty() {
            let len = self.properties_len();
            record.text(Field::Properties.place(), len, |out| self.write_properties(body, out));
        }
        if self.has(Field::Context) {
            let place = Field::Context.place();
            record.text(place, self.texts[place].len(), |out| self.copy(place, body, out));
        }
        let original = self.time_of(Field::OriginalTimestamp);
        let sent = self.time_of(Field::SentAt);
        let timestamp = self.timestamp(request);
        if timestamp != request.received_at {
            record.time(Field::Timestamp, timestamp);
        }
        if let Some(original) = original {
            record.time(Field::OriginalTimestamp, original);
        }
        if let Some(sent) = sent {
            record.time(Field::SentAt, sent);
        }
        record.finish_event();
    }

    /// When the event happened, by the best clock there is.
    fn timestamp(&self, request: &Request<'_>) -> i64 {
        let original = self.time_of(Field::OriginalTimestamp);
        if let (true, Some(sent), Some(original)) =
            (request.correct_clock, self.time_of(Field::SentAt), original)
        {
            // How long before it was sent, by the clock that measured both.
            let age = sent.saturating_sub(original);
            return time::clamped(request.received_at.saturating_sub(age));
        }
        self.time_of(Field::Timestamp).or(original).unwrap_or(request.received_at)
    }

    #[inline]
    fn copy(&self, place: usize, body: &[u8], out: &mut [u8]) -> usize {
        let text = self.texts[place];
        let raw = text.raw(body);
        if text.escaped() {
            return unescape_into(raw, out);
        }
        out.copy_from_slice(raw);
        raw.len()
    }

    /// The client's own `properties` without the closing brace, or the opening one alone.
    fn properties_head<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        if !self.has(Field::Properties) {
            return b"{";
        }
        let object = self.texts[Field::Properties.place()].raw(body);
        &object[..object.len() - 1]
    }

    /// An upper bound of what [`Draft::write_properties`] writes.
    fn properties_len(&self) -> usize {
        let own = if self.has(Field::Properties) {
            self.texts[Field::Properties.place()].len()
        } else {
            2
        };
        own + self.extras.iter().map(|(start, end)| wide(end - start) + 1).sum::<usize>()
    }

    /// Writes the client's `properties` with the members that have no column.
    fn write_properties(&self, body: &[u8], out: &mut [u8]) -> usize {
        let mut at = 0;
        let mut push = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        let head = self.properties_head(body);
        push(head);
        let mut empty = self.extras.is_empty() || head[1..].trim_ascii().is_empty();
        for (start, end) in &self.extras {
            if !empty {
                push(b",");
            }
            empty = false;
            push(&body[wide(*start)..wide(*end)]);
        }
        push(b"}");
        at
    }
}

#[cold]
fn given_twice(field: Field, at: usize, name: &[u8]) -> Box<Fault> {
    let (key, field) = (quote(name), field.name());
    let message = if key == field {
        format!("the field `{field}` is given twice")
    } else {
        format!("the field `{field}` is given twice, the second time as `{key}`")
    };
    Fault::field(ErrorKind::Duplicate, at, key, message)
}

/// Notes that a field has a value of the wrong type, and passes it by.
#[cold]
fn wrong_type(scanner: &mut Scanner<'_>, field: Field, expected: &str) -> Scan<()> {
    let start = scanner.at;
    let found = match scanner.peek() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'-' | b'0'..=b'9') => "a number",
        _ => return scanner.value(),
    };
    scanner.note(|_| {
        let name = field.name();
        let message = format!("`{name}` has to be {expected}, not {found}");
        Fault::field(ErrorKind::Type, start, name, message)
    })?;
    scanner.value()
}

#[cold]
fn bad_time(field: Field, at: usize, given: &[u8]) -> Box<Fault> {
    let (name, given) = (field.name(), quote(given));
    let message = format!("`{name}` is {given}; it has to be {}", time::FORMS);
    Fault::field(ErrorKind::Timestamp, at, name, message)
}

#[cold]
fn foreign_tenant(at: usize, named: &[u8], owner: &str) -> Box<Fault> {
    let (named, owner) = (quote(named), quote(owner.as_bytes()));
    let message = format!("the key belongs to the tenant `{owner}`, the event names `{named}`");
    Fault::field(ErrorKind::Forbidden, at, Field::Tenant.name(), message)
}
