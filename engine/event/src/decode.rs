//! From a request's body to its record: one object, an array of objects, or lines of objects.
//!
//! **Guarantees.** The body's bytes decide its shape, nothing else does. Every event is read once,
//! by [`Draft`], and written once, when it is known to be good; nothing is allocated for it. A
//! refused request has no record. What is accepted is RFC 8259 within the crate's limits.
//!
//! **Not guaranteed.** That every fault of a body is reported: in [`Mode::Whole`] the first one is,
//! in [`Mode::Partial`] the first one of each event.
//!
//! **Limits.** [`Limits`], [`MAX_DEPTH`](crate::MAX_DEPTH), [`BODY_MAX_BYTES`]. A refusal takes
//! at most a few hundred bytes, so a report is bounded by the number of events.
//!
//! **Failure.** In [`Mode::Partial`] an array's syntax error refuses the request, because where
//! the next event begins is unknown. In lines the next event is taken to begin at the next line:
//! the first one within the failed stretch that begins with `{`, or else the one after the error.
//! What is read again that way is at most the body once more.

use crate::draft::Draft;
use crate::error::{DecodeError, ErrorKind, Fault, Rejection, Scan};
use crate::json::{Scanner, Scratch};
use crate::model::{Limits, Mode, Request, TENANT_MAX_BYTES};
use crate::record::{RecordWriter, record_bound};

/// Longest body in bytes: positions in it are kept as 31 bits. Servers have lower limits.
pub const BODY_MAX_BYTES: usize = (1 << 31) - 1;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads request bodies; holds the scratch memory that one body leaves for the next.
///
/// The scratch grows to what the largest event so far needed (less than three times its JSON) and
/// to the heads of the fullest request (at most 74 bytes an event).
#[derive(Debug, Default)]
pub struct Decoder {
    scratch: Scratch,
    draft: Draft,
    heads: Vec<u8>,
}

/// What came of a request that was not refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Decoded {
    /// How much of the output the record takes, in bytes; 0 when no event was accepted.
    pub record_len: usize,
    /// How many events the record holds.
    pub accepted: usize,
    /// The events that were left out, in the order of the request; empty in [`Mode::Whole`].
    pub rejected: Vec<Rejection>,
}

impl Decoder {
    /// A decoder without scratch memory yet.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Reads `body` and writes the record of its events to the front of `out`.
    ///
    /// `out` may hold anything before, and after an error holds nothing of use.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the request is refused as a whole; see [`ErrorKind`] for the reasons.
    ///
    /// # Panics
    ///
    /// When `out` is shorter than [`record_bound`] of the body's length.
    pub fn decode(
        &mut self,
        body: &[u8],
        request: &Request<'_>,
        limits: &Limits,
        mode: Mode,
        out: &mut [u8],
    ) -> Result<Decoded, DecodeError> {
        assert!(out.len() >= record_bound(body.len()), "the output holds the record's bound");
        check_lengths(body, request).map_err(|fault| fault.into_error(None, 1))?;
        if simdutf8::basic::from_utf8(body).is_err() {
            return Err(self.not_utf8(body, request, limits, out));
        }
        self.run(body, request, limits, mode, out).map_err(|(fault, index)| {
            let of_request = matches!(fault.kind, ErrorKind::Empty | ErrorKind::TooMany);
            fault.into_error((!of_request).then_some(index), index + 1)
        })
    }

    /// Decodes a body in UTF-8. An error comes with the index of the event it was found in.
    fn run(
        &mut self,
        body: &[u8],
        request: &Request<'_>,
        limits: &Limits,
        mode: Mode,
        out: &mut [u8],
    ) -> Result<Decoded, (Box<Fault>, usize)> {
        let record = RecordWriter::new(out, &mut self.heads, request);
        let scanner = Scanner::new(body, limits, mode, &mut self.scratch);
        let mut run = Run {
            scanner,
            draft: &mut self.draft,
            record,
            request,
            limits,
            mode,
            index: 0,
            rejected: Vec::new(),
            rereadable: body.len(),
        };
        match run.body() {
            Ok(()) => Ok(run.finish()),
            Err(fault) => Err((fault, run.index)),
        }
    }

    /// The refusal of a body that is not UTF-8. Costs a second look at what precedes the fault.
    #[cold]
    fn not_utf8(
        &mut self,
        body: &[u8],
        request: &Request<'_>,
        limits: &Limits,
        out: &mut [u8],
    ) -> DecodeError {
        let at = match simdutf8::compat::from_utf8(body) {
            Ok(_) => 0,
            Err(error) => error.valid_up_to(),
        };
        // The text before it breaks off in the event that it belongs to, unless it had ended or
        // was wrong before.
        let before = self.run(&body[..at], request, limits, Mode::Whole, out);
        let (index, seen) = match before {
            Ok(decoded) => (Some(decoded.accepted), decoded.accepted + 1),
            Err((fault, index)) => ((fault.at >= at).then_some(index), index + 1),
        };
        let found = body.get(at).copied().unwrap_or_default();
        let fault = Fault::syntax(at, format!("the byte {found:#04x} is not UTF-8 here"));
        fault.into_error(index, seen)
    }
}

/// Refuses what the record's fixed-size numbers cannot hold.
fn check_lengths(body: &[u8], request: &Request<'_>) -> Scan<()> {
    if body.len() > BODY_MAX_BYTES {
        let message = format!(
            "a body of {} bytes is larger than the limit of {BODY_MAX_BYTES} bytes",
            body.len()
        );
        return Err(Fault::new(ErrorKind::TooLarge, 0, message));
    }
    let tenant_len = request.tenant.of_request().len();
    if tenant_len > TENANT_MAX_BYTES {
        let message = format!(
            "the key's tenant of {tenant_len} bytes is over the limit of {TENANT_MAX_BYTES} bytes"
        );
        return Err(Fault::new(ErrorKind::Forbidden, 0, message));
    }
    Ok(())
}

/// One body being decoded.
struct Run<'a> {
    scanner: Scanner<'a>,
    draft: &'a mut Draft,
    record: RecordWriter<'a>,
    request: &'a Request<'a>,
    limits: &'a Limits,
    mode: Mode,
    /// Which event is being read, counted from 0.
    index: usize,
    rejected: Vec<Rejection>,
    /// How many bytes may still be read a second time.
    rereadable: usize,
}

impl Run<'_> {
    fn finish(self) -> Decoded {
        let accepted = self.record.events();
        Decoded { record_len: self.record.finish(), accepted, rejected: self.rejected }
    }

    /// Reads the whole body.
    fn body(&mut self) -> Scan<()> {
        if self.scanner.body.starts_with(BYTE_ORDER_MARK) {
            self.scanner.at = BYTE_ORDER_MARK.len();
        }
        self.scanner.skip_space();
        match self.scanner.peek() {
            Some(b'{') => self.lines(),
            Some(b'[') => self.array(),
            Some(b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                let message =
                    "the body has to be an object, an array of objects, or lines of objects";
                self.scanner.value()?;
                Err(Fault::new(ErrorKind::Shape, self.scanner.at, message))
            }
            Some(_) => Err(self.scanner.expected("an object or an array")),
            None => Err(Fault::new(ErrorKind::Empty, self.scanner.at, "the body is empty")),
        }
    }

    /// Reads an array of events.
    fn array(&mut self) -> Scan<()> {
        self.scanner.at += 1;
        self.scanner.skip_space();
        if !self.scanner.take(b']') {
            loop {
                self.admit()?;
                self.scanner.begin_event();
                self.object_or_other()?;
                self.conclude()?;
                self.index += 1;
                self.scanner.skip_space();
                if self.scanner.take(b']') {
                    break;
                }
                if !self.scanner.take(b',') {
                    return Err(self.scanner.expected("`,` or `]` after an event"));
                }
                self.scanner.skip_space();
            }
        }
        self.scanner.skip_space();
        match self.scanner.peek() {
            None => Ok(()),
            Some(_) => Err(self.scanner.expected("nothing after the array of events")),
        }
    }

    /// Reads one object, or several on lines of their own.
    fn lines(&mut self) -> Scan<()> {
        loop {
            self.scanner.skip_space();
            if self.scanner.peek().is_none() {
                return Ok(());
            }
            self.admit()?;
            self.scanner.begin_event();
            match self.line() {
                Ok(()) => self.conclude()?,
                Err(fault) => {
                    let at = self.next_line(fault.at);
                    self.refuse(fault)?;
                    self.scanner.at = at;
                }
            }
            self.index += 1;
        }
    }

    /// Reads one object and the end of its line.
    #[inline]
    fn line(&mut self) -> Scan<()> {
        self.object_or_other()?;
        while self.scanner.take(b' ') || self.scanner.take(b'\t') || self.scanner.take(b'\r') {}
        match self.scanner.peek() {
            None | Some(b'\n') => Ok(()),
            Some(_) => Err(self.scanner.expected("the end of the line after an event")),
        }
    }

    /// Reads an event, or notes that there is something else in its place.
    #[inline]
    fn object_or_other(&mut self) -> Scan<()> {
        if self.scanner.peek() == Some(b'{') {
            return self.draft.read(&mut self.scanner);
        }
        let start = self.scanner.at;
        self.scanner.value()?;
        let message = "an event has to be an object";
        self.scanner.note(|_| Fault::new(ErrorKind::Shape, start, message))
    }

    /// Refuses a request that holds more events than it may.
    #[inline]
    fn admit(&self) -> Scan<()> {
        if self.index < self.limits.events_max {
            return Ok(());
        }
        let message = format!("a request holds at most {} events", self.limits.events_max);
        Err(Fault::new(ErrorKind::TooMany, self.scanner.at, message))
    }

    /// Keeps the event that has been read, or leaves it out.
    #[inline]
    fn conclude(&mut self) -> Scan<()> {
        if let Some(fault) = self.scanner.noted.take() {
            return self.refuse(fault);
        }
        let (body, start) = (self.scanner.body, self.scanner.event_start());
        if let Err(fault) = self.draft.check(body, start, self.request) {
            return self.refuse(fault);
        }
        self.draft.write(body, self.request, &mut self.record);
        Ok(())
    }

    /// Leaves the current event out, or refuses the request.
    #[cold]
    fn refuse(&mut self, fault: Box<Fault>) -> Scan<()> {
        match self.mode {
            Mode::Whole => Err(fault),
            Mode::Partial => {
                let error = fault.into_error(Some(self.index), self.index + 1);
                self.rejected.push(Rejection { index: self.index, error });
                Ok(())
            }
        }
    }

    /// Where to go on after a syntax error at `fault` in the current event.
    #[cold]
    fn next_line(&mut self, fault: usize) -> usize {
        let body = self.scanner.body;
        let fault = fault.clamp(self.scanner.event_start(), body.len());
        // The byte at fault may be the brace that a cut off line ran into.
        let failed = &body[self.scanner.event_start()..body.len().min(fault + 1)];
        let begins_event = |pair: &[u8]| pair == b"\n{";
        let inside = failed.windows(2).position(begins_event);
        let inside = inside.map(|at| self.scanner.event_start() + at + 1);
        if let Some(line) = inside
            && let Some(rereadable) = self.rereadable.checked_sub(fault - line)
        {
            self.rereadable = rereadable;
            return line;
        }
        let end = body[fault..].iter().position(|byte| *byte == b'\n');
        end.map_or(body.len(), |at| fault + at)
    }
}
