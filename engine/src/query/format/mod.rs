//! Result encoders: record batches in, bytes of one document out.
//!
//! **Guarantees.** Encoding is incremental: a batch's bytes are complete when it has been given
//! (Parquet keeps up to one row group back). A result without rows, or without any batch, is a
//! valid document of every format. A value has the same text in JSON, NDJSON and CSV.
//!
//! **Layout.** How values are written where the format has no type of its own for them:
//!
//! | type | JSON and NDJSON | CSV |
//! |---|---|---|
//! | integers up to 64 bits | number | the same text |
//! | HUGEINT, which sums of integers are | number when it fits 64 bits (signed or unsigned), else string | same text |
//! | DECIMAL | string with all digits of its scale | same text |
//! | FLOAT, DOUBLE | number; NaN and infinities are null | same text; empty |
//! | TIMESTAMP (all kinds) | string, RFC 3339 in UTC with `Z`, always 6 digits after the point (0, 3 or 9 for the kinds with another unit) | same text |
//! | DATE, TIME | `YYYY-MM-DD`, `HH:MM:SS.ffffff` | same text |
//! | INTERVAL | string, `1 year 2 months 3 days 04:05:06.5` | same text |
//! | BLOB, BIT | string of lower-case hexadecimal digits | same text |
//! | UUID, ENUM, JSON | string | same text |
//! | STRUCT, MAP | object; keys of a MAP become text | the JSON text |
//! | LIST, ARRAY | array | the JSON text |
//! | UNION | the value of the active member | same text |
//! | null | `null` | empty |
//!
//! Column names that occur twice: JSON (rows are arrays), CSV and Arrow keep them; NDJSON and
//! Parquet, where a name must be unique, write the second `a` as `a_1`, the third as `a_2`.

mod arrow;
mod csv;
mod json;
mod parquet;
mod text;
mod types;
mod values;

#[cfg(test)]
mod tests;

use ::arrow::array::RecordBatch;
use ::arrow::datatypes::{Schema, SchemaRef};

use super::QueryError;

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Arrow IPC stream.
    Arrow,
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180 with a header line.
    Csv,
    /// One JSON object: `{"columns":[{"name","type"}],"rows":[[…]],"row_count":N}`.
    Json,
    /// A Parquet file, compressed with zstd.
    Parquet,
}

impl Format {
    /// Every format, the default first.
    pub const ALL: [Self; 5] = [Self::Ndjson, Self::Json, Self::Csv, Self::Arrow, Self::Parquet];

    /// The media type of the document.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format of a name as commands take it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "arrow" => Self::Arrow,
            "ndjson" | "jsonl" => Self::Ndjson,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "parquet" => Self::Parquet,
            _ => return None,
        })
    }

    /// The best format for the value of an `Accept` header: the highest `q`, the first among
    /// equals. An empty value and `*/*` mean NDJSON; nothing fits when every type is unknown.
    #[must_use]
    pub fn from_accept(accept: &str) -> Option<Self> {
        if accept.trim().is_empty() {
            return Some(Self::Ndjson);
        }
        let mut best: Option<(f32, Self)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let Some(format) = parts.next().and_then(Self::from_media_range) else { continue };
            let quality = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(Some(1.0), |quality| quality.trim().parse::<f32>().ok())
                .unwrap_or(0.0);
            if quality > 0.0 && best.is_none_or(|(highest, _)| quality > highest) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format)
    }

    fn from_media_range(range: &str) -> Option<Self> {
        Some(match range.to_ascii_lowercase().as_str() {
            "*/*"
            | "application/*"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl" => Self::Ndjson,
            "application/vnd.apache.arrow.stream" => Self::Arrow,
            "text/csv" | "text/*" => Self::Csv,
            "application/json" => Self::Json,
            "application/vnd.apache.parquet" => Self::Parquet,
            _ => return None,
        })
    }
}

/// Encodes one result.
pub struct Encoder(Kind);

enum Kind {
    Arrow(arrow::Encoder),
    Csv(csv::Encoder),
    Json(json::Encoder),
    Parquet(Box<parquet::Encoder>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Encoder")
    }
}

impl Encoder {
    /// Starts a document for a result with these columns.
    ///
    /// # Errors
    ///
    /// [`QueryError::Failed`] when the format has no place for the columns.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self, QueryError> {
        Ok(Self(match format {
            Format::Arrow => Kind::Arrow(arrow::Encoder::new(schema)?),
            Format::Csv => Kind::Csv(csv::Encoder::new(schema)),
            Format::Json => Kind::Json(json::Encoder::document(schema)),
            Format::Ndjson => Kind::Json(json::Encoder::lines(schema)),
            Format::Parquet => Kind::Parquet(Box::new(parquet::Encoder::new(schema)?)),
        }))
    }

    /// Takes a batch and gives the bytes that are complete with it; they may be none.
    ///
    /// # Errors
    ///
    /// [`QueryError::Failed`] when a value cannot be written.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        match &mut self.0 {
            Kind::Arrow(encoder) => encoder.batch(batch),
            Kind::Csv(encoder) => encoder.batch(batch),
            Kind::Json(encoder) => encoder.batch(batch),
            Kind::Parquet(encoder) => encoder.batch(batch),
        }
    }

    /// Ends the document and gives its last bytes.
    ///
    /// # Errors
    ///
    /// [`QueryError::Failed`] when the end cannot be written.
    pub fn finish(self) -> Result<Vec<u8>, QueryError> {
        match self.0 {
            Kind::Arrow(encoder) => encoder.finish(),
            Kind::Csv(encoder) => Ok(encoder.finish()),
            Kind::Json(encoder) => Ok(encoder.finish()),
            Kind::Parquet(encoder) => encoder.finish(),
        }
    }
}

/// A moment in microseconds since 1970 as all formats write it.
#[must_use]
pub fn timestamp_text(micros: i64) -> String {
    let mut text = Vec::new();
    text::timestamp(&mut text, micros, ::arrow::datatypes::TimeUnit::Microsecond);
    String::from_utf8_lossy(&text).into_owned()
}

/// The column names, the repeated ones with a number so that each is unique.
fn unique_names(schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let free = |name: &str, names: &[String]| {
            !names.iter().any(|taken| taken == name)
                && (name == field.name() || schema.fields().find(name).is_none())
        };
        let mut name = field.name().clone();
        let mut count = 0_usize;
        while !free(&name, &names) {
            count += 1;
            name = format!("{}_{count}", field.name());
        }
        names.push(name);
    }
    names
}

fn failed(error: impl std::fmt::Display) -> QueryError {
    QueryError::failed(format!("the result cannot be encoded: {error}"))
}
