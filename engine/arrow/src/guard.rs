//! What a message claims, checked before arrow-rs acts on it.
//!
//! **Algorithm.** The nodes and buffers of a batch are walked in the order of its columns, as arrow-rs
//! will walk them. No buffer is shared: their lengths add up to at most the body's, so that no byte is
//! checked more often than it was sent. A buffer holds whole values, which arrow-rs asserts. What compressed buffers claim to unpack to, and what views
//! refer to (many may refer to the same bytes), is added up and counted against the bounds.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc;

use crate::stream::{DEPTH_MAX, FIELDS_MAX, StreamError, malformed};

/// Most rows of one column, nested ones included: what 32-bit offsets reach.
const ROWS_MAX: i64 = i32::MAX as i64;

/// In front of a compressed buffer stands how long it is unpacked, or -1 when it is not packed.
const LENGTH_BYTES: usize = 8;
const NOT_PACKED: i64 = -1;

/// Bytes of a view; the first four are the length of what it refers to.
const VIEW_BYTES: usize = 16;

/// Checks that the columns can become fields of events.
pub(crate) fn check_schema(schema: &Schema) -> Result<(), StreamError> {
    let count = schema.flattened_fields().len();
    if count > FIELDS_MAX {
        let reason = format!("a schema of {count} fields is over the limit of {FIELDS_MAX} fields");
        return Err(StreamError::Unsuited(reason));
    }
    check_names(schema.fields().iter().map(|field| field.name().as_str()), "the schema")?;
    schema.fields().iter().try_for_each(|field| check_field(field, field.name(), DEPTH_MAX))
}

fn check_names<'a>(names: impl Iterator<Item = &'a str>, place: &str) -> Result<(), StreamError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            let name = crate::quoted(name);
            return Err(StreamError::Unsuited(format!("{place} has two columns `{name}`")));
        }
    }
    Ok(())
}

/// Checks a field of `column`, with at most `levels` levels.
fn check_field(field: &Field, column: &str, levels: usize) -> Result<(), StreamError> {
    let unsuited = |reason: String| {
        StreamError::Unsuited(format!("the column `{}` {reason}", crate::quoted(column)))
    };
    let Some(levels) = levels.checked_sub(1) else {
        return Err(unsuited(format!("is nested deeper than {DEPTH_MAX} levels")));
    };
    match field.data_type() {
        DataType::List(inner) | DataType::LargeList(inner) => check_field(inner, column, levels),
        DataType::FixedSizeList(inner, size) if *size > 0 => check_field(inner, column, levels),
        DataType::Struct(fields) => {
            check_names(fields.iter().map(|field| field.name().as_str()), "a structure")?;
            fields.iter().try_for_each(|field| check_field(field, column, levels))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 && is_text(pair[0].data_type()) => {
                check_field(&pair[1], column, levels)
            }
            _ => Err(unsuited("is a map whose keys are no texts".into())),
        },
        DataType::Dictionary(_, values) if is_scalar(values) => Ok(()),
        kind if is_scalar(kind) => Ok(()),
        kind => Err(unsuited(format!("has the type {}, which events cannot have", named(kind)))),
    }
}

/// A type's name, without all that is nested in it.
pub(crate) fn named(kind: &DataType) -> String {
    let name = kind.to_string();
    let end = name.find(['(', '{', '<']).unwrap_or(name.len());
    crate::quoted(&name[..end])
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8)
}

fn is_scalar(kind: &DataType) -> bool {
    match kind {
        DataType::Null
        | DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Timestamp(_, _)
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_) => true,
        DataType::FixedSizeBinary(size) => *size > 0,
        DataType::Decimal32(precision, scale) => is_decimal(*precision, *scale, 9),
        DataType::Decimal64(precision, scale) => is_decimal(*precision, *scale, 18),
        DataType::Decimal128(precision, scale) => is_decimal(*precision, *scale, 38),
        DataType::Decimal256(precision, scale) => is_decimal(*precision, *scale, 76),
        kind => kind.is_integer() || kind.is_floating(),
    }
}

fn is_decimal(precision: u8, scale: i8, max: u8) -> bool {
    (1..=max).contains(&precision) && scale.unsigned_abs() <= precision
}

/// What a batch claims, after the check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims {
    pub(crate) rows: usize,
    /// Bytes that its columns take in memory, or whose check costs as much.
    pub(crate) unpacked: usize,
}

impl Claims {
    /// Checks a batch of columns of the `kinds`, which is to unpack to at most `limit` bytes.
    pub(crate) fn read<'a>(
        batch: ipc::RecordBatch<'_>,
        kinds: impl IntoIterator<Item = &'a DataType>,
        body: &[u8],
        limit: usize,
    ) -> Result<Self, StreamError> {
        let rows = batch.length();
        if !(0..=ROWS_MAX).contains(&rows) {
            return Err(malformed(format!("a batch claims {rows} rows")));
        }
        let nodes = batch.nodes().ok_or_else(|| malformed("a batch has no nodes"))?;
        let buffers = batch.buffers().ok_or_else(|| malformed("a batch has no buffers"))?;
        let mut walk = Walk {
            nodes: nodes.iter(),
            buffers: buffers.iter(),
            views: batch.variadicBufferCounts().into_iter().flatten(),
            body,
            packed: batch.compression().is_some(),
            used: 0,
            unpacked: 0,
            limit,
        };
        kinds.into_iter().try_for_each(|kind| walk.column(kind))?;
        let rows = usize::try_from(rows).map_err(|error| malformed(error.to_string()))?;
        Ok(Self { rows, unpacked: walk.unpacked })
    }
}

struct Walk<'a, N, B, V> {
    nodes: N,
    buffers: B,
    /// How many buffers each column of views has.
    views: V,
    body: &'a [u8],
    packed: bool,
    /// Bytes of the body that belong to the buffers so far.
    used: usize,
    unpacked: usize,
    limit: usize,
}

impl<'a, 'b, N, B, V> Walk<'a, N, B, V>
where
    N: Iterator<Item = &'b ipc::FieldNode>,
    B: Iterator<Item = &'b ipc::Buffer>,
    V: Iterator<Item = i64>,
{
    fn column(&mut self, kind: &DataType) -> Result<(), StreamError> {
        let rows = self.node()?;
        if matches!(kind, DataType::Null) {
            return Ok(());
        }
        // Which rows are null.
        self.buffer(1)?;
        match kind {
            DataType::Utf8 | DataType::Binary => {
                self.buffer(4)?;
                self.buffer(1).map(drop)
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                self.buffer(8)?;
                self.buffer(1).map(drop)
            }
            DataType::Utf8View | DataType::BinaryView => self.views(rows),
            DataType::List(inner) | DataType::Map(inner, _) => {
                self.buffer(4)?;
                self.column(inner.data_type())
            }
            DataType::LargeList(inner) => {
                self.buffer(8)?;
                self.column(inner.data_type())
            }
            DataType::FixedSizeList(inner, _) => self.column(inner.data_type()),
            DataType::Struct(fields) => {
                fields.iter().try_for_each(|field| self.column(field.data_type()))
            }
            DataType::Dictionary(keys, _) => {
                self.buffer(keys.primitive_width().unwrap_or(1)).map(drop)
            }
            kind => self.buffer(kind.primitive_width().unwrap_or(1)).map(drop),
        }
    }

    /// The rows of the next column.
    fn node(&mut self) -> Result<usize, StreamError> {
        let node = self.nodes.next().ok_or_else(|| malformed("a batch has too few nodes"))?;
        let (rows, nulls) = (node.length(), node.null_count());
        if !(0..=ROWS_MAX).contains(&rows) || !(0..=rows).contains(&nulls) {
            return Err(malformed(format!("a column claims {rows} rows and {nulls} nulls")));
        }
        usize::try_from(rows).map_err(|error| malformed(error.to_string()))
    }

    /// A column of views and what they refer to.
    fn views(&mut self, rows: usize) -> Result<(), StreamError> {
        if self.packed {
            let reason = "columns of string views are not taken compressed; send them plain";
            return Err(StreamError::Unsuited(reason.into()));
        }
        let views = self.buffer(VIEW_BYTES)?;
        let referred = views.chunks_exact(VIEW_BYTES).take(rows).map(|view| {
            view.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize)
        });
        let referred = referred.fold(0, usize::saturating_add);
        self.count(referred)?;
        let more =
            self.views.next().ok_or_else(|| malformed("a column of views has no buffers"))?;
        // Each takes a buffer, or ends the walk.
        (0..more).try_for_each(|_| self.buffer(1).map(drop))
    }

    /// The bytes of the next buffer, as they were sent. Unpacked it holds whole values of `width` bytes.
    fn buffer(&mut self, width: usize) -> Result<&'a [u8], StreamError> {
        let place = self.buffers.next().ok_or_else(|| malformed("a batch has too few buffers"))?;
        let bytes = usize::try_from(place.offset())
            .ok()
            .zip(usize::try_from(place.length()).ok())
            .and_then(|(offset, length)| self.body.get(offset..)?.get(..length))
            .ok_or_else(|| malformed("a buffer lies outside its message"))?;
        self.used = self.used.saturating_add(bytes.len());
        if self.used > self.body.len() {
            return Err(malformed("the buffers of a message overlap"));
        }
        let length = self.unpacked_len(bytes)?;
        if !length.is_multiple_of(width) {
            return Err(malformed(format!(
                "a buffer of {length} bytes has values of {width} bytes"
            )));
        }
        self.count(length)?;
        Ok(bytes)
    }

    fn unpacked_len(&self, bytes: &[u8]) -> Result<usize, StreamError> {
        if !self.packed || bytes.is_empty() {
            return Ok(bytes.len());
        }
        let claimed = bytes
            .first_chunk::<LENGTH_BYTES>()
            .map(|length| i64::from_le_bytes(*length))
            .ok_or_else(|| malformed("a compressed buffer is too short"))?;
        if claimed == NOT_PACKED {
            return Ok(bytes.len() - LENGTH_BYTES);
        }
        usize::try_from(claimed).map_err(|_| malformed("a buffer unpacks to a negative length"))
    }

    fn count(&mut self, bytes: usize) -> Result<(), StreamError> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        if self.unpacked <= self.limit {
            return Ok(());
        }
        let (found, limit) = (self.unpacked, self.limit);
        Err(StreamError::TooLarge { what: "message", found, limit })
    }
}
