//! The `events` table: its built-in columns, once, for Arrow, DuckDB and the log.
//!
//! Columns stand in the same order everywhere. `date` is the last built-in column of a hot table and
//! the partition of the lake; it is never in the log, because it follows from `received_at`. Promoted
//! columns come behind it, see [`promoted`](crate::promoted).
//!
//! Timestamps have no zone and mean UTC (Delta `timestamp_ntz`): DuckDB's bundled build has no
//! ICU, and a cast from the zoned form keeps filters from the statistics.

use std::num::TryFromIntError;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// One column of the `events` table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name, the same in every format.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether an event may lack it.
    pub nullable: bool,
    /// What it means, as a phrase for users.
    pub meaning: &'static str,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text; dictionaries are out because DuckDB's appender refuses them.
    Text,
    /// A 32-bit integer.
    Int,
    /// A 64-bit integer.
    Long,
    /// A 64-bit floating-point number.
    Double,
    /// True or false.
    Boolean,
    /// Microseconds since 1970 in UTC, without a zone.
    Timestamp,
}

impl Kind {
    /// The Arrow type.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }

    /// The DuckDB type.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::Text => "VARCHAR",
            Self::Int => "INTEGER",
            Self::Long => "BIGINT",
            Self::Double => "DOUBLE",
            Self::Boolean => "BOOLEAN",
            Self::Timestamp => "TIMESTAMP",
        }
    }
}

const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: false, meaning }
}

const fn optional(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: true, meaning }
}

/// Every stored column in order; the partition column [`PARTITION`] is not among them.
pub const COLUMNS: [Column; 22] = [
    required(
        "node",
        Kind::Text,
        "node that accepted the event; with shard and sequence its identity",
    ),
    required("shard", Kind::Int, "shard of the node"),
    required("sequence", Kind::Long, "number of the event in its shard, dense from 1"),
    optional("message_id", Kind::Text, "the client's idempotency key"),
    required("tenant", Kind::Text, "owner of the event"),
    required("type", Kind::Text, "track, page, screen, identify, group, alias, log or another"),
    optional("event", Kind::Text, "name of the event"),
    required("timestamp", Kind::Timestamp, "when it happened, corrected for the client's clock"),
    optional("original_timestamp", Kind::Timestamp, "when it happened, as the client said"),
    optional("sent_at", Kind::Timestamp, "when it was sent, as the client said"),
    required("received_at", Kind::Timestamp, "when the server accepted it"),
    optional("user_id", Kind::Text, "who, as the client knows"),
    optional("anonymous_id", Kind::Text, "who, before that is known"),
    optional("session_id", Kind::Text, "session of the client"),
    optional("visitor_id", Kind::Long, "bits of a keyed hash that changes every day"),
    optional("url", Kind::Text, "address of the page"),
    optional("referrer", Kind::Text, "where the visitor came from"),
    optional("user_agent", Kind::Text, "program of the client"),
    optional("ip", Kind::Text, "address of the client; null unless enabled"),
    optional("properties", Kind::Text, "JSON: what belongs to the event"),
    optional("context", Kind::Text, "JSON: what belongs to its circumstances"),
    required("source", Kind::Text, "endpoint or SDK that it came by"),
];

/// The partition column: the UTC day of `received_at`.
pub const PARTITION: &str = "date";

/// The value of the partition column for a row received at `received_at`, in microseconds since
/// 1970: days since 1970.
///
/// # Errors
/// When there is no such day: the years 5,800,000 and beyond.
pub(crate) fn day_of(received_at: i64) -> Result<i32, TryFromIntError> {
    const DAY_MICROS: i64 = 86_400_000_000;
    i32::try_from(received_at.div_euclid(DAY_MICROS))
}

/// The Arrow schema of a stored batch (without the partition column).
#[must_use]
pub fn arrow_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let fields: Vec<Field> = COLUMNS
            .iter()
            .map(|column| Field::new(column.name, column.kind.arrow(), column.nullable))
            .collect();
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

/// Number of leading columns that a log frame states in its header instead of storing them.
pub(crate) const HEADER_COLUMNS: usize = 3;

/// The Arrow schema of a logged batch: the stored columns but `node`, `shard` and `sequence`.
#[must_use]
pub fn log_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        const { assert!(COLUMNS.len() > HEADER_COLUMNS) };
        let fields: Vec<_> = arrow_schema().fields().iter().skip(HEADER_COLUMNS).cloned().collect();
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

/// The Arrow schema of a hot table without promoted columns: the stored columns and `date`.
#[must_use]
pub fn hot_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields: Vec<_> = arrow_schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(PARTITION, DataType::Date32, false)));
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SCHEMA)
}

/// The quoted names of the built-in columns, comma-separated, without the partition column.
#[must_use]
pub fn column_list() -> String {
    COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
}

/// The definitions of the built-in columns of a hot table, `date` included.
///
/// There is no key, index, default or constraint: they would slow the append and are the part of
/// DuckDB where its known recovery bugs live.
#[must_use]
pub fn hot_table_columns() -> String {
    let mut definitions: Vec<String> =
        COLUMNS.iter().map(|column| format!("\"{}\" {}", column.name, column.kind.sql())).collect();
    definitions.push(format!("\"{PARTITION}\" DATE"));
    definitions.join(", ")
}
