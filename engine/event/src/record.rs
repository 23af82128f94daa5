//! The record of one request on a ring: its accepted events in binary form, written once by the
//! decoder and read once by the shard.
//!
//! **Guarantees.** Writing never fails within [`record_bound`] bytes. Reading never panics:
//! [`Record::parse`] checks every length, character boundary and bit before it hands out anything,
//! so that a damaged record is an error and iterating is infallible.
//!
//! **Not guaranteed.** Stability: a record lives in memory between two threads of one process.
//!
//! **Layout.** Little-endian, nothing aligned.
//!
//! ```text
//! header   received_at i64 | events u32 | text length u32 | tenant length u16 | source u8
//!          | sender u8: 0 none, 1 known, 2 its address is kept | user agent length u16
//!          | address 16 bytes, IPv4 mapped into IPv6
//! text     the request's tenant, the user agent, then each event's texts in the order of its fields
//! heads    for each event: present u16 | 8 bytes a present time | 4 bytes a present text's length
//! ```
//!
//! The text is one stretch so that one UTF-8 check covers it. A text that is the rule is not
//! stored: the request's tenant, the default type, a timestamp equal to the receipt.
//!
//! **Limits.** For every event the JSON is at least as long as text and head together: two bytes
//! of mask against two braces, four of length against quotes, colon, comma and name, eight of time
//! against the shortest way to write one, and the six that a `properties` object made of unknown
//! fields adds (length and braces) against what `type` or `event` leaves over. So a record is at
//! most as long as the body plus a constant.

use std::net::IpAddr;

use crate::error::RecordError;
use crate::json::narrow;
use crate::model::{
    DEFAULT_TYPE, Field, Request, Sender, Source, TENANT_MAX_BYTES, USER_AGENT_MAX_BYTES,
};

/// Length of the fixed part in front of the texts.
pub(crate) const HEADER: usize = 8 + 4 + 4 + 2 + 1 + 1 + 2 + 16;

/// Every bit that a mask of present fields can have.
const FIELDS: u16 = (1 << (Field::TEXTS + Field::TIMES)) - 1;

/// Those of the texts.
const TEXT_FIELDS: u16 = (1 << Field::TEXTS) - 1;

/// How many bytes the record of a body of `body_len` bytes can need at most: what to reserve
/// before the body is decoded. Exact but for a constant of less than 900 bytes.
#[must_use]
pub const fn record_bound(body_len: usize) -> usize {
    body_len.saturating_add(HEADER + TENANT_MAX_BYTES + USER_AGENT_MAX_BYTES)
}

/// The head of an event: which fields it has, its times, the lengths of its texts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    pub(crate) present: u16,
    pub(crate) times: [i64; Field::TIMES],
    pub(crate) lengths: [u32; Field::TEXTS],
}

impl Head {
    /// Appends the head to `heads`.
    #[inline]
    pub(crate) fn write(&self, heads: &mut Vec<u8>) {
        const LONGEST: usize = 2 + 8 * Field::TIMES + 4 * Field::TEXTS;
        let mut bytes = [0; LONGEST];
        bytes[..2].copy_from_slice(&self.present.to_le_bytes());
        let mut len = 2;
        for (place, time) in self.times.iter().enumerate() {
            if self.present & (1 << (Field::TEXTS + place)) != 0 {
                bytes[len..len + 8].copy_from_slice(&time.to_le_bytes());
                len += 8;
            }
        }
        for (place, length) in self.lengths.iter().enumerate() {
            if self.present & (1 << place) != 0 {
                bytes[len..len + 4].copy_from_slice(&length.to_le_bytes());
                len += 4;
            }
        }
        heads.extend_from_slice(&bytes[..len]);
    }

    /// Takes a head off the front of `heads`.
    #[inline]
    pub(crate) fn read(heads: &mut &[u8]) -> Option<Head> {
        let present = u16::from_le_bytes(take(heads)?);
        let mut head = Head { present, ..Head::default() };
        for (place, time) in head.times.iter_mut().enumerate() {
            if present & (1 << (Field::TEXTS + place)) != 0 {
                *time = i64::from_le_bytes(take(heads)?);
            }
        }
        for (place, length) in head.lengths.iter_mut().enumerate() {
            if present & (1 << place) != 0 {
                *length = u32::from_le_bytes(take(heads)?);
            }
        }
        Some(head)
    }
}

/// Takes `N` bytes off the front of `bytes`.
#[inline]
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

/// A record being written into reserved bytes.
///
/// An event that is begun and not finished leaves nothing behind.
pub(crate) struct RecordWriter<'a> {
    out: &'a mut [u8],
    /// Where the next text goes.
    at: usize,
    /// The heads so far; they follow the text when all of it is known.
    heads: &'a mut Vec<u8>,
    head: Head,
    header: Header,
}

impl<'a> RecordWriter<'a> {
    /// Begins a record in `out`, which holds at least [`record_bound`] bytes of the body.
    /// `heads` is scratch.
    pub(crate) fn new(
        out: &'a mut [u8],
        heads: &'a mut Vec<u8>,
        request: &Request<'_>,
    ) -> RecordWriter<'a> {
        heads.clear();
        let at = write_front(request, out);
        RecordWriter { out, at, heads, head: Head::default(), header: Header::of(request) }
    }

    /// Sets a time of the current event. `field` is one of the times.
    #[inline]
    pub(crate) fn time(&mut self, field: Field, micros: i64) {
        self.head.present |= field.bit();
        self.head.times[field.place() - Field::TEXTS] = micros;
    }

    /// Adds a text of the current event. `place` is the text's among the fields; texts come in
    /// that order.
    ///
    /// `write` gets `len` bytes to write to and returns how many of them it used.
    #[inline]
    pub(crate) fn text(
        &mut self,
        place: usize,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let bit = 1 << place;
        debug_assert!(self.head.present & TEXT_FIELDS < bit, "texts come in order");
        let used = write(&mut self.out[self.at..self.at + len]);
        self.head.present |= bit;
        self.head.lengths[place] = narrow(used);
        self.at += used;
    }

    /// The current event is complete.
    #[inline]
    pub(crate) fn finish_event(&mut self) {
        self.head.write(self.heads);
        self.head.present = 0;
        self.header.events += 1;
    }

    /// How many events are complete.
    pub(crate) fn events(&self) -> usize {
        self.header.events as usize
    }

    /// Puts the parts together and returns the record's length; 0 when it holds no event.
    pub(crate) fn finish(mut self) -> usize {
        if self.header.events == 0 {
            return 0;
        }
        let len = self.at + self.heads.len();
        self.out[self.at..len].copy_from_slice(self.heads);
        self.header.text_len = narrow(self.at - HEADER);
        self.header.write(self.out);
        len
    }
}

/// How many bytes of a record stand in front of its events' texts.
pub(crate) fn front_len(request: &Request<'_>) -> usize {
    HEADER + request.tenant.of_request().len() + agent_of(request).len()
}

/// Writes the request's own texts to where they stand in a record; returns where the events' begin.
///
/// # Panics
///
/// When `out` is shorter than [`front_len`].
pub(crate) fn write_front(request: &Request<'_>, out: &mut [u8]) -> usize {
    let mut at = HEADER;
    for text in [request.tenant.of_request(), agent_of(request)] {
        out[at..at + text.len()].copy_from_slice(text.as_bytes());
        at += text.len();
    }
    at
}

/// What a record keeps of the user agent.
fn agent_of<'a>(request: &Request<'a>) -> &'a str {
    let agent = request.sender.map_or("", |sender| sender.user_agent);
    &agent[..agent.floor_char_boundary(USER_AGENT_MAX_BYTES)]
}

/// The fixed part of a record.
pub(crate) struct Header {
    received_at: i64,
    pub(crate) events: u32,
    /// Of all texts, the request's own included.
    pub(crate) text_len: u32,
    tenant_len: u16,
    agent_len: u16,
    source: Source,
    sender: u8,
    address: [u8; 16],
}

impl Header {
    /// The header of a record without events.
    pub(crate) fn of(request: &Request<'_>) -> Header {
        let (tenant, agent) = (request.tenant.of_request(), agent_of(request));
        debug_assert!(tenant.len() <= TENANT_MAX_BYTES);
        Header {
            received_at: request.received_at,
            events: 0,
            text_len: 0,
            tenant_len: u16::try_from(tenant.len()).expect("a tenant has at most 255 bytes"),
            agent_len: u16::try_from(agent.len()).expect("it was cut to 512 bytes"),
            source: request.source,
            sender: match request.sender {
                None => 0,
                Some(Sender { keep_address: false, .. }) => 1,
                Some(Sender { keep_address: true, .. }) => 2,
            },
            address: request.sender.map_or([0; 16], |sender| octets(sender.address)),
        }
    }

    /// Writes the first [`HEADER`] bytes of `out`.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let header = &mut out[..HEADER];
        header[..8].copy_from_slice(&self.received_at.to_le_bytes());
        header[8..12].copy_from_slice(&self.events.to_le_bytes());
        header[12..16].copy_from_slice(&self.text_len.to_le_bytes());
        header[16..18].copy_from_slice(&self.tenant_len.to_le_bytes());
        header[18] = self.source as u8;
        header[19] = self.sender;
        header[20..22].copy_from_slice(&self.agent_len.to_le_bytes());
        header[22..].copy_from_slice(&self.address);
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A checked record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    received_at: i64,
    source: Source,
    events: u32,
    /// The request's tenant.
    tenant: &'a str,
    sender: Option<Sender<'a>>,
    /// The events' texts.
    text: &'a str,
    heads: &'a [u8],
    /// Every field that at least one event has.
    present: u16,
}

impl<'a> Record<'a> {
    /// Checks the bytes of a record and gives access to them.
    ///
    /// # Errors
    ///
    /// [`RecordError`] when the bytes cannot be a record; nothing of them can be used then.
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, RecordError> {
        let truncated = RecordError::Truncated { len: bytes.len() };
        let mut rest = bytes;
        let mut header = || {
            let received_at = i64::from_le_bytes(take(&mut rest)?);
            let events = u32::from_le_bytes(take(&mut rest)?);
            let text_len = u32::from_le_bytes(take(&mut rest)?);
            let tenant_len = u16::from_le_bytes(take(&mut rest)?);
            let [source] = take(&mut rest)?;
            let [sender] = take(&mut rest)?;
            let agent_len = u16::from_le_bytes(take(&mut rest)?);
            let address = IpAddr::from(take::<16>(&mut rest)?).to_canonical();
            let (text, heads) = rest.split_at_checked(usize::try_from(text_len).ok()?)?;
            let lengths = (usize::from(tenant_len), usize::from(agent_len));
            Some((received_at, events, lengths, source, (sender, address), text, heads))
        };
        let Some((received_at, events, lengths, source, sender, text, heads)) = header() else {
            return Err(truncated);
        };
        let unknown = RecordError::Unknown { what: "source", value: u16::from(source) };
        let source = Source::from_byte(source).ok_or(unknown)?;
        let text = simdutf8::basic::from_utf8(text).map_err(|_| RecordError::NotUtf8)?;
        let (tenant, text) = text.split_at_checked(lengths.0).ok_or(truncated)?;
        let (user_agent, text) = text.split_at_checked(lengths.1).ok_or(truncated)?;
        let known = |keep_address| Sender { address: sender.1, user_agent, keep_address };
        let sender = match sender.0 {
            0 => None,
            1 => Some(known(false)),
            2 => Some(known(true)),
            other => {
                return Err(RecordError::Unknown { what: "sender", value: u16::from(other) });
            }
        };
        let mut record =
            Record { received_at, source, events, tenant, sender, text, heads, present: 0 };
        record.present = record.check_events(bytes.len())?;
        Ok(record)
    }

    /// Checks that the heads account for all of the text, in whole characters; gives the fields
    /// that occur.
    fn check_events(&self, len: usize) -> Result<u16, RecordError> {
        let truncated = RecordError::Truncated { len };
        let mut heads = self.heads;
        let mut at = 0_usize;
        let mut present = 0;
        for _ in 0..self.events {
            let head = Head::read(&mut heads).ok_or(truncated)?;
            if head.present & !FIELDS != 0 {
                return Err(RecordError::Unknown { what: "field bits", value: head.present });
            }
            present |= head.present;
            for length in head.lengths {
                at = usize::try_from(length)
                    .ok()
                    .and_then(|length| at.checked_add(length))
                    .ok_or(truncated)?;
                if at > self.text.len() {
                    return Err(truncated);
                }
                if !self.text.is_char_boundary(at) {
                    return Err(RecordError::NotUtf8);
                }
            }
        }
        match heads.len() + self.text.len() - at {
            0 => Ok(present),
            excess => Err(RecordError::Excess { len, excess }),
        }
    }

    /// How many events the record holds.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events as usize
    }

    /// When the request was accepted, microseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn received_at(&self) -> i64 {
        self.received_at
    }

    /// Which way the request came in.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Who sent the request, if the server said so.
    #[must_use]
    pub fn sender(&self) -> Option<Sender<'a>> {
        self.sender
    }

    /// Whether any event has a `message_id`.
    #[must_use]
    pub fn has_message_ids(&self) -> bool {
        self.present & Field::MessageId.bit() != 0
    }

    /// Tenant and `message_id` of each event, in the order of the request; none for an event
    /// without one, or with an empty one, which tells no event from another.
    #[must_use]
    pub fn message_ids(&self) -> MessageIds<'a> {
        MessageIds(self.iter())
    }

    /// The events, in the order of the request.
    #[must_use]
    pub fn iter(&self) -> Events<'a> {
        Events { left: self.events(), record: *self }
    }
}

impl<'a> IntoIterator for Record<'a> {
    type Item = Event<'a>;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Record<'a> {
    type Item = Event<'a>;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.iter()
    }
}

/// One event of a record, as the columns of the table name its fields.
///
/// Times are microseconds since 1970-01-01 UTC in the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The client's idempotency key.
    pub message_id: Option<&'a str>,
    /// Who owns the event.
    pub tenant: &'a str,
    /// The column `type`: track, page, identify, …
    pub kind: &'a str,
    /// The event's name.
    pub event: Option<&'a str>,
    /// When it happened, corrected for the client's clock where that was possible.
    pub timestamp: i64,
    /// When it happened by the client's clock.
    pub original_timestamp: Option<i64>,
    /// When it was sent by the client's clock.
    pub sent_at: Option<i64>,
    /// The user, as the client names them.
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
    /// Validated JSON text of an object.
    pub properties: Option<&'a str>,
    /// Validated JSON text of an object.
    pub context: Option<&'a str>,
}

/// The events of a [`Record`], in the order of the request.
#[derive(Debug, Clone)]
pub struct Events<'a> {
    record: Record<'a>,
    left: usize,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        self.left = self.left.checked_sub(1)?;
        let head = Head::read(&mut self.record.heads)?;
        let mut text = |field: Field| {
            if head.present & field.bit() == 0 {
                return None;
            }
            let length = head.lengths[field.place()] as usize;
            let (text, rest) = self.record.text.split_at_checked(length)?;
            self.record.text = rest;
            Some(text)
        };
        let time = |field: Field| {
            (head.present & field.bit() != 0).then(|| head.times[field.place() - Field::TEXTS])
        };
        // Struct fields are evaluated in the order in which they are written here: the order of
        // the texts in the record.
        Some(Event {
            message_id: text(Field::MessageId),
            tenant: text(Field::Tenant).unwrap_or(self.record.tenant),
            kind: text(Field::Type).unwrap_or(DEFAULT_TYPE),
            event: text(Field::Event),
            user_id: text(Field::UserId),
            anonymous_id: text(Field::AnonymousId),
            session_id: text(Field::SessionId),
            url: text(Field::Url),
            referrer: text(Field::Referrer),
            user_agent: text(Field::UserAgent),
            properties: text(Field::Properties),
            context: text(Field::Context),
            timestamp: time(Field::Timestamp).unwrap_or(self.record.received_at),
            original_timestamp: time(Field::OriginalTimestamp),
            sent_at: time(Field::SentAt),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Events<'_> {}

/// The identities of a [`Record`]'s events: cheaper than the events.
#[derive(Debug, Clone)]
pub struct MessageIds<'a>(Events<'a>);

impl<'a> Iterator for MessageIds<'a> {
    type Item = Option<(&'a str, &'a str)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Events { record, left } = &mut self.0;
        *left = left.checked_sub(1)?;
        let head = Head::read(&mut record.heads)?;
        let length = head.lengths.iter().map(|length| *length as usize).sum();
        let (texts, rest) = record.text.split_at_checked(length)?;
        record.text = rest;
        let length = |field: Field| head.lengths[field.place()] as usize;
        let (id, texts) = texts.split_at_checked(length(Field::MessageId))?;
        let tenant = if head.present & Field::Tenant.bit() == 0 {
            record.tenant
        } else {
            texts.get(..length(Field::Tenant))?
        };
        Some((!id.is_empty()).then_some((tenant, id)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for MessageIds<'_> {}

/// An identity is taken from the front of an event's texts.
const _: () = assert!(Field::MessageId as usize == 0 && Field::Tenant as usize == 1);
