//! The bodies that the SDKs of other systems send, read into the one event model.
//!
//! **Guarantees.** A body is scanned once, like our own, and no tree is built. Each event is found
//! good or bad by itself: in a batch the bad ones are left out and reported, because to an SDK a
//! refusal is final for all of it. A body that is not JSON is refused whole, and so is a bad event
//! that came alone.
//!
//! **Algorithm.** A table a family (`map`) says which member is which column. Members without a
//! column are kept in `properties` under their own names; `context` is kept as it came. An object
//! with a list of events (`batch`, `data`) is an envelope: its `sentAt` counts for all of them, its
//! other members for nothing.
//!
//! **Limits.** [`Limits`] for each event; an event with `properties` has at most 64 members beside
//! its fields; a request's events take at most the bytes that the caller says. A write key of more
//! than 512 bytes is none.
//!
//! **Common to all.** Ids may be numbers. An empty text counts as absent. Times are RFC 3339, epoch
//! numbers, or such numbers as text. `original_timestamp` is what the client said, and so is
//! `timestamp`, unless `sent_at` shows that the client's clock is more than 30 s off: then it is
//! `received_at − (sent_at − original_timestamp)`. A `timestamp` that differs by more than that from the
//! time at which the event was made has been told, and stays. When `properties` have a member of the same name
//! as a member without a column, theirs is kept.
//!
//! # Segment, RudderStack (`source` is `segment`), Jitsu (`jitsu`)
//!
//! | member | column |
//! |---|---|
//! | `type`, or else the route's last part | `type` |
//! | `event`, or else `name`, or else a page's or screen's `properties.name` | `event` |
//! | `userId`, `anonymousId`, `messageId` | `user_id`, `anonymous_id`, `message_id` |
//! | `originalTimestamp`, or else `timestamp` | `original_timestamp`, `timestamp` |
//! | `sentAt`, or else the envelope's | `sent_at` |
//! | `properties`, `context` | `properties`, `context` |
//! | `context.page.url`, or else a page's or screen's `properties.url` | `url` |
//! | `context.page.referrer`, or else a page's or screen's `properties.referrer` | `referrer` |
//! | `context.userAgent`, `context.sessionId` | `user_agent`, `session_id` |
//! | `traits`, `groupId`, `previousId`, `category`, `channel`, … | `properties` |
//! | `writeKey` | the write key; not stored |
//!
//! # PostHog (`posthog`)
//!
//! | member | column |
//! |---|---|
//! | `event` | `event`; `$pageview` has `type` page, `$screen` screen, `$identify` identify, `$groupidentify` group, `$create_alias` alias, all others track |
//! | `distinct_id`, or else `properties.distinct_id` | `user_id` |
//! | `uuid`, or else `properties.$insert_id` | `message_id` |
//! | `timestamp` | `original_timestamp`, `timestamp` |
//! | the envelope's `sent_at` | `sent_at` |
//! | `properties.$current_url`, `$referrer`, `$session_id` | `url`, `referrer`, `session_id` |
//! | `properties.$device_id`, or else `$anon_distinct_id` | `anonymous_id` |
//! | `properties.$raw_user_agent`, or else `$user_agent` | `user_agent` |
//! | `properties`, and `$set`, `$set_once`, … beside them | `properties` |
//! | `api_key`, `token`, `properties.token` | the write key; stored only in the last place |
//!
//! # Snowplow (`snowplow`)
//!
//! | parameter | column |
//! |---|---|
//! | `e` | `type` page for `pv`, track for all others |
//! | `se_ac`, the name in the schema of `ue_pr`/`ue_px`, `page_ping`, `transaction`, `transaction_item` | `event` |
//! | `eid`, `uid`, `duid`, `sid` | `message_id`, `user_id`, `anonymous_id`, `session_id` |
//! | `dtm`, `stm` | `original_timestamp` and `timestamp`; `sent_at` |
//! | `ttm` | `timestamp` |
//! | `url`, `refr`, `ua` | `url`, `referrer`, `user_agent` |
//! | `co`, `cx` | `context`, decoded |
//! | `ue_pr`, `ue_px` | `properties.ue_pr`, decoded |
//! | `aid`, `page`, `tv`, `se_ca`, … | `properties` |
//!
//! # Plausible (`plausible`)
//!
//! | member | column |
//! |---|---|
//! | `n`, `name` | `event`; `pageview` has `type` page, all others track |
//! | `u`, `url`; `r`, `referrer` | `url`; `referrer` |
//! | `p`, `m`, `props`: an object or the text of one | `properties` |
//! | `d`, `domain` (alias of the write key), `w`, `h`, `v`, `$`, … | `properties` |
//!
//! # Umami (`umami`)
//!
//! | member | column |
//! |---|---|
//! | `type` | `type` identify; for an event page, or track when it has a name |
//! | `payload.name`, `payload.url`, `payload.referrer`, `payload.userAgent` | `event`, `url`, `referrer`, `user_agent` |
//! | `payload.id`, or else `data.id` when identifying | `user_id` |
//! | `payload.timestamp` | `original_timestamp`, `timestamp` |
//! | `payload.data` | `properties` |
//! | `payload.website` (alias of the write key), `title`, `hostname`, `screen`, … | `properties` |

mod draft;
mod embed;
mod map;

use std::borrow::Cow;

use draft::{CLOCK_TOLERANCE_MICROS, Draft, look_up};
use map::{Map, Use};

use crate::assembly::Assembly;
use crate::error::{DecodeError, ErrorKind, Fault, Rejection, Scan};
use crate::json::{Scanner, Scratch, push_escaped};
use crate::model::{Limits, Mode, Request, Source};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A family of SDKs whose bodies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// Segment and RudderStack.
    Segment,
    /// Jitsu.
    Jitsu,
    /// PostHog.
    PostHog,
    /// Snowplow.
    Snowplow,
    /// Plausible.
    Plausible,
    /// Umami.
    Umami,
}

impl Sdk {
    /// What its events have in the column `source`.
    #[must_use]
    pub fn source(self) -> Source {
        match self {
            Sdk::Segment => Source::Segment,
            Sdk::Jitsu => Source::Jitsu,
            Sdk::PostHog => Source::PostHog,
            Sdk::Snowplow => Source::Snowplow,
            Sdk::Plausible => Source::Plausible,
            Sdk::Umami => Source::Umami,
        }
    }
}

/// What a body of an SDK held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct SdkDecoded {
    /// How many events the record holds.
    pub accepted: usize,
    /// The events of a batch that were left out, in its order.
    pub rejected: Vec<Rejection>,
    /// The first write key or alias of one in the body.
    pub key: Option<String>,
}

/// Reads bodies of SDKs; holds the scratch memory that one leaves for the next.
#[derive(Debug, Default)]
pub struct SdkDecoder {
    scratch: Scratch,
    draft: Draft,
    json: Vec<u8>,
}

/// How a body is to be read.
#[derive(Debug, Clone, Copy)]
pub struct SdkBody<'a> {
    /// The family.
    pub sdk: Sdk,
    /// The type of events that name none: the last part of the route.
    pub kind: Option<&'static str>,
    /// What is known of the request.
    pub request: &'a Request<'a>,
    /// Bounds on its events.
    pub limits: &'a Limits,
    /// How many bytes its events may take in the record.
    pub record_max_bytes: usize,
}

impl SdkDecoder {
    /// A decoder without scratch memory yet.
    #[must_use]
    pub fn new() -> SdkDecoder {
        SdkDecoder::default()
    }

    /// Reads `body` and adds its events to `record`, which is empty.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the request is refused as a whole: it is not JSON, holds no event or too
    /// many, or holds a single event that is bad.
    pub fn decode(
        &mut self,
        body: &[u8],
        how: &SdkBody<'_>,
        record: &mut Assembly,
    ) -> Result<SdkDecoded, DecodeError> {
        if let Err(error) = simdutf8::compat::from_utf8(body) {
            let message = "the body is not UTF-8 here";
            return Err(Fault::syntax(error.valid_up_to(), message).into_error(None, 1));
        }
        let mut run = Run {
            scanner: Scanner::new(body, how.limits, Mode::Partial, &mut self.scratch),
            draft: &mut self.draft,
            record,
            how,
            index: 0,
            batch: false,
            rejected: Vec::new(),
            key: None,
        };
        match run.body() {
            Ok(()) => run.finish(),
            Err(fault) => {
                let of_request = matches!(fault.kind, ErrorKind::Empty | ErrorKind::TooMany);
                let index = (run.batch && !of_request).then_some(run.index);
                Err(fault.into_error(index, run.index + 1))
            }
        }
    }

    /// Reads the event that percent-decoded parameters spell, as [`SdkDecoder::decode`] reads its
    /// JSON.
    ///
    /// # Errors
    ///
    /// As for [`SdkDecoder::decode`].
    pub fn decode_pairs<'a>(
        &mut self,
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
        how: &SdkBody<'_>,
        record: &mut Assembly,
    ) -> Result<SdkDecoded, DecodeError> {
        let mut json = std::mem::take(&mut self.json);
        json.clear();
        json.push(b'{');
        for (name, value) in pairs {
            if json.len() > 1 {
                json.push(b',');
            }
            push_escaped(&name, &mut json);
            json.push(b':');
            push_escaped(&value, &mut json);
        }
        json.push(b'}');
        let decoded = self.decode(&json, how, record);
        self.json = json;
        decoded
    }
}

/// The bytes that base64 text stands for, of either alphabet and padded or not; nothing when it is
/// none.
#[must_use]
pub fn decode_base64(mut text: Vec<u8>) -> Option<Vec<u8>> {
    let end = embed::decode_base64(&mut text, 0)?;
    text.truncate(end);
    Some(text)
}

/// One body being decoded.
struct Run<'a> {
    scanner: Scanner<'a>,
    draft: &'a mut Draft,
    record: &'a mut Assembly,
    how: &'a SdkBody<'a>,
    /// Which event is being read, counted from 0.
    index: usize,
    /// The events are in a list.
    batch: bool,
    rejected: Vec<Rejection>,
    key: Option<String>,
}

impl Run<'_> {
    fn finish(mut self) -> Result<SdkDecoded, DecodeError> {
        if !self.batch && !self.rejected.is_empty() {
            return Err(self.rejected.remove(0).error);
        }
        Ok(SdkDecoded { accepted: self.record.events(), rejected: self.rejected, key: self.key })
    }

    /// Reads the whole body.
    fn body(&mut self) -> Scan<()> {
        if self.scanner.body.starts_with(BYTE_ORDER_MARK) {
            self.scanner.at = BYTE_ORDER_MARK.len();
        }
        self.scanner.skip_space();
        match self.scanner.peek() {
            Some(b'{') => self.object(false)?,
            Some(b'[') => self.list()?,
            Some(_) => return Err(self.scanner.expected("an object or an array")),
            None => {
                return Err(Fault::new(ErrorKind::Empty, self.scanner.at, "the body is empty"));
            }
        }
        self.scanner.skip_space();
        match self.scanner.peek() {
            None => Ok(()),
            Some(_) => Err(self.scanner.expected("nothing after the events")),
        }
    }

    /// Reads a list of events.
    fn list(&mut self) -> Scan<()> {
        self.batch = true;
        self.scanner.at += 1;
        self.scanner.skip_space();
        if self.scanner.take(b']') {
            return Ok(());
        }
        loop {
            if self.scanner.peek() == Some(b'{') {
                self.object(true)?;
            } else {
                self.other()?;
            }
            self.scanner.skip_space();
            if self.scanner.take(b']') {
                return Ok(());
            }
            if !self.scanner.take(b',') {
                return Err(self.scanner.expected("`,` or `]` after an event"));
            }
            self.scanner.skip_space();
        }
    }

    /// Reads what stands in the place of an event and is none.
    fn other(&mut self) -> Scan<()> {
        self.admit()?;
        let start = self.scanner.at;
        self.scanner.begin_event();
        self.scanner.value()?;
        self.refuse(*Fault::new(ErrorKind::Shape, start, "an event has to be an object"));
        Ok(())
    }

    /// Reads an event, or an envelope where one may be.
    fn object(&mut self, in_list: bool) -> Scan<()> {
        let map = Map::of(self.how.sdk);
        let mut envelope = false;
        self.draft.clear();
        self.scanner.begin_event();
        self.scanner.open_event();
        self.scanner.skip_space();
        if !self.scanner.take(b'}') {
            loop {
                let name = self.scanner.name()?;
                let found = look_up(&mut self.scanner, map.event, name);
                let is_list = self.scanner.peek() == Some(b'[');
                if matches!(found, Some(Use::Batch)) && is_list && !in_list && !envelope {
                    envelope = true;
                    self.enveloped()?;
                } else {
                    self.scanner.remember(name)?;
                    self.draft.member(&mut self.scanner, self.how.limits, name, found)?;
                }
                self.scanner.skip_space();
                if self.scanner.take(b',') {
                    self.scanner.skip_space();
                } else if self.scanner.take(b'}') {
                    break;
                } else {
                    return Err(self.scanner.expected("`,` or `}` in an object"));
                }
            }
        }
        self.scanner.close_event()?;
        self.take_key();
        if envelope {
            if let Some(sent_at) = self.draft.sent_at() {
                self.record.sent_at(self.how.request, sent_at, CLOCK_TOLERANCE_MICROS);
            }
            return Ok(());
        }
        if let Some(length) = self.scanner.oversize() {
            self.scanner.note(|scanner| scanner.too_large(length, ""))?;
        }
        self.conclude()
    }

    /// Reads the list in an envelope and goes on in the envelope.
    fn enveloped(&mut self) -> Scan<()> {
        self.take_key();
        let sent_at = self.draft.sent_at();
        self.list()?;
        if let Some(sent_at) = sent_at {
            self.record.sent_at(self.how.request, sent_at, CLOCK_TOLERANCE_MICROS);
        }
        self.draft.clear();
        self.scanner.reopen();
        Ok(())
    }

    fn take_key(&mut self) {
        if self.key.is_none() {
            self.key = self.draft.key(self.scanner.body);
        }
    }

    /// Refuses a request that holds more events than it may.
    fn admit(&self) -> Scan<()> {
        if self.index < self.how.limits.events_max {
            return Ok(());
        }
        let message = format!("a request holds at most {} events", self.how.limits.events_max);
        Err(Fault::new(ErrorKind::TooMany, self.scanner.at, message))
    }

    /// Keeps the event that has been read, or leaves it out.
    fn conclude(&mut self) -> Scan<()> {
        self.admit()?;
        let (body, start) = (self.scanner.body, self.scanner.event_start());
        let fault = match self.scanner.noted.take() {
            Some(fault) => Some(fault),
            None => self.draft.conclude(self.how.sdk, body, start, self.how.kind).err(),
        };
        if let Some(fault) = fault {
            self.refuse(*fault);
            return Ok(());
        }
        self.draft.write(body, self.how.request, self.record);
        let max = self.how.record_max_bytes;
        if self.record.len() > max {
            let message = format!("the request's events take more than {max} bytes");
            return Err(Fault::new(ErrorKind::TooLarge, start, message));
        }
        self.index += 1;
        Ok(())
    }

    /// Leaves the current event out.
    #[cold]
    fn refuse(&mut self, fault: Fault) {
        let index = self.batch.then_some(self.index);
        let error = fault.into_error(index, self.index + 1);
        self.rejected.push(Rejection { index: self.index, error });
        self.index += 1;
    }
}
