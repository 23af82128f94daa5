//! JSON: one object a line, or one document with columns and rows.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::EncoderOptions;

use super::values::{column, encode_or_null, options, write_string};
use super::{QueryError, failed, types, unique_names};

/// Encodes NDJSON or a JSON document.
pub(super) struct Encoder {
    options: EncoderOptions,
    layout: Layout,
    /// What stands before each value of a row: the opening bracket or a comma, and the name.
    before: Vec<Vec<u8>>,
    /// What stands after the last value.
    after: &'static [u8],
    /// The start of the document, until it has been given.
    head: Vec<u8>,
    rows: u64,
}

#[derive(PartialEq)]
enum Layout {
    Lines,
    Document,
}

impl Encoder {
    /// NDJSON.
    pub(super) fn lines(schema: &SchemaRef) -> Self {
        let before = unique_names(schema)
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let mut before = vec![if index == 0 { b'{' } else { b',' }];
                write_string(name, &mut before);
                before.push(b':');
                before
            })
            .collect();
        Self::new(Layout::Lines, before, b"}\n", Vec::new())
    }

    /// `{"columns":…,"rows":…,"row_count":…}`.
    pub(super) fn document(schema: &SchemaRef) -> Self {
        let mut head = b"{\"columns\":[".to_vec();
        for (index, field) in schema.fields().iter().enumerate() {
            head.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
            write_string(field.name(), &mut head);
            head.extend_from_slice(b",\"type\":");
            write_string(&types::sql_name(field), &mut head);
            head.push(b'}');
        }
        head.extend_from_slice(b"],\"rows\":[");
        let before = (0..schema.fields().len())
            .map(|index| vec![if index == 0 { b'[' } else { b',' }])
            .collect();
        Self::new(Layout::Document, before, b"]", head)
    }

    fn new(layout: Layout, before: Vec<Vec<u8>>, after: &'static [u8], head: Vec<u8>) -> Self {
        Self { options: options(), layout, before, after, head, rows: 0 }
    }

    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        let mut out = std::mem::take(&mut self.head);
        let schema = batch.schema();
        let mut columns = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .zip(&self.before)
            .map(|((field, array), before)| {
                Ok((before.as_slice(), column(field, array.as_ref(), &self.options)?))
            })
            .collect::<Result<Vec<_>, arrow::error::ArrowError>>()
            .map_err(failed)?;
        out.reserve(batch.num_rows() * (16 * columns.len() + 2));
        for row in 0..batch.num_rows() {
            if self.layout == Layout::Document && self.rows > 0 {
                out.push(b',');
            }
            self.rows += 1;
            for (before, encoder) in &mut columns {
                out.extend_from_slice(before);
                encode_or_null(encoder, row, &mut out);
            }
            out.extend_from_slice(self.after);
        }
        Ok(out)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = self.head;
        if self.layout == Layout::Document {
            out.extend_from_slice(format!("],\"row_count\":{}}}", self.rows).as_bytes());
        }
        out
    }
}
