//! Parquet files, written as the result arrives.
//!
//! **Memory.** One row group of at most 122,880 rows or 64 MiB is held back, encoded.
//!
//! **Not guaranteed.** Types that Parquet lacks keep their values only: columns that contain an
//! INTERVAL or a UNION are written as the text that JSON would show.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::EncoderOptions;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::values::{column, options};
use super::{QueryError, failed, unique_names};

const ROW_GROUP_MAX_ROWS: usize = 122_880;
const ROW_GROUP_MAX_BYTES: usize = 64 << 20;

/// Encodes a Parquet file.
pub(super) struct Encoder {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    /// Whether each column has to become text.
    as_text: Vec<bool>,
    options: EncoderOptions,
}

impl Encoder {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, QueryError> {
        let as_text: Vec<bool> =
            schema.fields().iter().map(|field| is_foreign(field.data_type())).collect();
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .zip(unique_names(schema))
            .zip(&as_text)
            .map(|((field, name), as_text)| {
                let data_type = if *as_text { &DataType::Utf8 } else { field.data_type() };
                Field::new(name, data_type.clone(), true).with_metadata(field.metadata().clone())
            })
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_MAX_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_MAX_BYTES))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))
            .map_err(failed)?;
        Ok(Self { writer, schema, as_text, options: options() })
    }

    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        let columns = batch
            .columns()
            .iter()
            .zip(batch.schema().fields())
            .zip(&self.as_text)
            .map(|((array, field), as_text)| {
                if *as_text { text_of(field, array, &self.options) } else { Ok(Arc::clone(array)) }
            })
            .collect::<Result<Vec<ArrayRef>, ArrowError>>()
            .map_err(failed)?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(failed)?;
        self.writer.write(&batch).map_err(failed)?;
        // The writer counts what has passed through it, so its buffer may be taken away.
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, QueryError> {
        self.writer.into_inner().map_err(failed)
    }
}

/// Whether Parquet has no form for some value of the type.
fn is_foreign(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) | DataType::Union(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => is_foreign(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| is_foreign(field.data_type())),
        _ => false,
    }
}

/// A column as text: the content of JSON strings, and JSON for the rest.
fn text_of(
    field: &Arc<Field>,
    array: &ArrayRef,
    options: &EncoderOptions,
) -> Result<ArrayRef, ArrowError> {
    let mut encoder = column(field, array.as_ref(), options)?;
    let mut texts = StringBuilder::with_capacity(array.len(), 16 * array.len());
    let mut json = Vec::new();
    for row in 0..array.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        json.clear();
        encoder.encode(row, &mut json);
        match serde_json::from_slice::<String>(&json) {
            Ok(text) => texts.append_value(text),
            Err(_) => texts.append_value(String::from_utf8_lossy(&json)),
        }
    }
    Ok(Arc::new(texts.finish()))
}
