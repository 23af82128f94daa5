//! CSV after RFC 4180: a header line, CRLF, quotes where they are needed.
//!
//! **Layout.** A null is empty and an empty text is `""`, so that they can be told apart. In a
//! result with one column a null is `""` as well: an empty line would be skipped by readers.

use arrow::array::cast::AsArray;
use arrow::array::{Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::json::writer::{EncoderOptions, NullableEncoder};

use super::values::{column, encode_or_null, options};
use super::{QueryError, failed};

/// Encodes CSV.
pub(super) struct Encoder {
    options: EncoderOptions,
    /// The header line, until it has been given.
    head: Vec<u8>,
}

/// One column of a batch.
enum Cells<'a> {
    /// Text that needs no JSON.
    Text(&'a StringArray),
    /// Values whose JSON has no escapes: its text without quotes.
    Plain(NullableEncoder<'a>),
    /// Any other value: the content of a JSON string, or JSON.
    Nested(NullableEncoder<'a>),
}

impl Encoder {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let mut head = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                head.push(b',');
            }
            write_field(field.name(), &mut head);
        }
        head.extend_from_slice(b"\r\n");
        Self { options: options(), head }
    }

    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        let mut out = std::mem::take(&mut self.head);
        let schema = batch.schema();
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            columns.push(match array.data_type() {
                DataType::Utf8 => Cells::Text(array.as_string()),
                data_type => {
                    let encoder = column(field, array.as_ref(), &self.options).map_err(failed)?;
                    if is_plain(data_type) { Cells::Plain(encoder) } else { Cells::Nested(encoder) }
                }
            });
        }
        let single = columns.len() == 1;
        let mut scratch = Vec::new();
        for row in 0..batch.num_rows() {
            for (index, cells) in columns.iter_mut().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                let start = out.len();
                cells.write(row, &mut scratch, &mut out);
                if single && out.len() == start {
                    out.extend_from_slice(b"\"\"");
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        Ok(out)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.head
    }
}

impl Cells<'_> {
    fn write(&mut self, row: usize, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        let encoder = match self {
            Self::Text(array) => {
                if array.is_valid(row) {
                    write_field(array.value(row), out);
                }
                return;
            }
            Self::Plain(encoder) | Self::Nested(encoder) => encoder,
        };
        scratch.clear();
        encode_or_null(encoder, row, scratch);
        if scratch.as_slice() == b"null" {
            return;
        }
        if let Self::Plain(_) = self {
            let text = scratch.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
            match text.unwrap_or(scratch) {
                // No bytes are not a null either.
                b"" => out.extend_from_slice(b"\"\""),
                text => out.extend_from_slice(text),
            }
        } else if let Ok(text) = serde_json::from_slice::<String>(scratch) {
            write_field(&text, out);
        } else {
            write_field(&String::from_utf8_lossy(scratch), out);
        }
    }
}

/// Whether the JSON of every value of the type is free of escapes, commas and line breaks.
fn is_plain(data_type: &DataType) -> bool {
    data_type.is_numeric()
        || data_type.is_temporal()
        || matches!(data_type, DataType::Boolean | DataType::Null)
        || matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn write_field(text: &str, out: &mut Vec<u8>) {
    let special = |byte: u8| matches!(byte, b'"' | b',' | b'\r' | b'\n');
    if !text.is_empty() && !text.bytes().any(special) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
