//! Arrow IPC streams, read into the event model.
//!
//! **Guarantees.** A stream's columns are told by name and type before any row is looked at; what
//! becomes of a row is what would become of the JSON object with the same members. Each row is found
//! good or bad by itself. Hostile bytes end in a refusal, inside the bounds; see [`Batches`].
//!
//! **Algorithm.** Texts go from the columns' buffers into the record; JSON is written only for what
//! ends as JSON, in `properties` and `context`.
//!
//! **Limits.** [`Limits`] for rows and for what is stored of one; the request's events take at most
//! the bytes that the caller says, because a dictionary says once what each of its rows repeats.
//!
//! **Memory.** One message and its unpacked form, the dictionaries, one row's JSON.
//!
//! # What becomes of a column
//!
//! | column | type | |
//! |---|---|---|
//! | a text field of an event (see `ringlake_event::Field`) | `Utf8`, `LargeUtf8`, `Utf8View`, a dictionary of them | the column of the table |
//! | `timestamp`, `original_timestamp`, `sent_at` | `Timestamp` (without a zone: UTC), `Date32`, `Int64` and `Float64` (since 1970, the size tells the unit), texts in RFC 3339 | the column of the table |
//! | `properties`, `context` | texts that are JSON objects, `Struct`, `Map` with text keys | JSON |
//! | every other name, the server's own columns included | all but unions, run ends, list views, intervals, durations | a member of `properties` |
//!
//! A null is an absent member. In `properties` binary values are written in hexadecimal, decimals and
//! times as texts, numbers that are none (NaN) as texts.

#![forbid(unsafe_code)]

mod stream;

mod guard;

mod values;

mod columns;

use arrow::array::RecordBatch;
use ringlake_event::{
    Assembly, DecodeError, ErrorKind, Limits, Mode, ObjectCheck, QUOTE_MAX_CHARS, Rejection,
    Request,
};

pub use stream::{Batches, Bounds, DEPTH_MAX, FIELDS_MAX, StreamError};

use columns::{Columns, Refusal};

/// What a request is and may be.
#[derive(Debug, Clone, Copy)]
pub struct Body<'a> {
    /// The request around the rows.
    pub request: &'a Request<'a>,
    /// Bounds on its events.
    pub limits: &'a Limits,
    /// What a bad row does to the good ones.
    pub mode: Mode,
    /// Most bytes of the stream once its buffers are unpacked.
    pub unpacked_max_bytes: usize,
    /// Most bytes of the record.
    pub record_max_bytes: usize,
}

/// Reads the stream in `bytes` and adds its rows to `record`, which is empty; gives those that were
/// left out, none in [`Mode::Whole`].
///
/// # Errors
///
/// [`DecodeError`] when the request is refused as a whole.
pub fn decode(
    bytes: &[u8],
    body: &Body<'_>,
    record: &mut Assembly,
) -> Result<Vec<Rejection>, DecodeError> {
    let max = body.unpacked_max_bytes;
    let bounds =
        Bounds { message_max_bytes: max, stream_max_bytes: max, rows_max: body.limits.events_max };
    let mut run = Run { body, record, index: 0, rejected: Vec::new(), scratch: Scratch::default() };
    let mut batches = Batches::new(bytes, bounds);
    while let Some(batch) = batches.next_batch().map_err(|error| run.stream_refused(&error))? {
        run.take(&batch)?;
    }
    if run.index == 0 {
        return Err(run.fail(ErrorKind::Empty, "the stream holds no rows".into()));
    }
    Ok(run.rejected)
}

/// Checks the names and types of a batch's columns, as [`decode`] will.
///
/// # Errors
///
/// [`DecodeError`], which names the column.
pub fn check_columns(batch: &RecordBatch) -> Result<(), DecodeError> {
    Columns::of(batch).map(drop).map_err(|refusal| refusal.into_error(None, 1))
}

/// What one row leaves for the next.
#[derive(Debug, Default)]
struct Scratch {
    properties: Vec<u8>,
    context: Vec<u8>,
    check: ObjectCheck,
}

/// One stream being decoded.
struct Run<'a> {
    body: &'a Body<'a>,
    record: &'a mut Assembly,
    /// Which row is being read, counted from 0.
    index: usize,
    rejected: Vec<Rejection>,
    scratch: Scratch,
}

impl Run<'_> {
    fn take(&mut self, batch: &RecordBatch) -> Result<(), DecodeError> {
        let seen = self.index + 1;
        let columns = Columns::of(batch).map_err(|refusal| refusal.into_error(None, seen))?;
        for row in 0..batch.num_rows() {
            let fields = columns.row(row, self.body, &mut self.scratch);
            match fields {
                Ok(fields) => self.record.push(self.body.request, &fields),
                Err(refusal) => {
                    let error = refusal.into_error(Some(self.index), self.index + 1);
                    if self.body.mode == Mode::Whole {
                        return Err(error);
                    }
                    self.rejected.push(Rejection { index: self.index, error });
                }
            }
            self.index += 1;
            let max = self.body.record_max_bytes;
            if self.record.len() > max {
                let message = format!("the request's events take more than {max} bytes");
                return Err(self.fail(ErrorKind::TooLarge, message));
            }
        }
        Ok(())
    }

    /// Refuses the whole request.
    fn fail(&self, kind: ErrorKind, message: String) -> DecodeError {
        Refusal { kind, field: None, message }.into_error(None, self.index.max(1))
    }

    fn stream_refused(&self, error: &StreamError) -> DecodeError {
        let kind = match error {
            StreamError::Unsuited(_) => ErrorKind::Type,
            StreamError::TooLarge { .. } => ErrorKind::TooLarge,
            StreamError::TooMany { .. } => ErrorKind::TooMany,
            _ => ErrorKind::NotArrow,
        };
        self.fail(kind, error.to_string().chars().take(4 * QUOTE_MAX_CHARS).collect())
    }
}

/// A name that a client chose, for a message.
fn quoted(name: &str) -> String {
    let shown = name.chars().take(QUOTE_MAX_CHARS);
    shown.flat_map(char::escape_debug).collect()
}
