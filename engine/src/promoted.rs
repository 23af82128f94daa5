//! Promoted columns: values out of `properties` and `context` as typed columns of their own.
//!
//! **Guarantees**
//! - A promoted column is a column like any other in hot tables, Parquet files, queries, listings and
//!   exports. In what was written before there was one it is null.
//! - What a row has in a promoted column follows from its `properties` and `context` and from the
//!   configuration of the process that brings it into a hot table. The log and quarantined batches hold
//!   no promoted columns: what they bring back gets those of the new configuration.
//! - A column stays in the table for good. One that is not configured any more is null in new rows.
//!
//! **Not guaranteed.** Values for rows that were stored before their column was configured: those
//! have them in `properties` still.
//!
//! **Roles.** A start reads the [`Promotion`] from the configuration, and adds to the table what it
//! lacks; the flusher owns a [`Promoter`]; everybody else goes by the [`TableColumns`] of a snapshot.
//!
//! **Limits.** [`COLUMNS_MAX`] configured columns and [`TABLE_COLUMNS_MAX`] in a table; more refuse the
//! start. A value of another type than its column's is null and counted; a missing one, or JSON's
//! `null`, is null. Numbers are no text and text is no number; `int64` takes whole numbers only.
//!
//! **Memory.** Promoted values come on top of the logged rows by which the flusher's queue and hot
//! tables are bounded: texts as long as they stand in their object, all others 8 bytes at most.
//!
//! **Cost.** Nothing without promoted columns. With them the flusher reads the objects of every event
//! up to the last wanted value, some tenths of a microsecond; the shard and the answer to the client
//! have no part in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondBuilder, new_null_array,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use ringlake_event::promote::{self, Path, Root, Wanted};

use crate::schema::{COLUMNS, Kind, PARTITION, column_list, hot_schema, hot_table_columns};

/// Most columns that can be configured: each takes room in every row and time for every event.
pub const COLUMNS_MAX: usize = 64;
/// Most promoted columns of a table, those that are not configured any more included: one bit each
/// says whether a file has them.
pub const TABLE_COLUMNS_MAX: usize = 128;
const _: () = assert!(TABLE_COLUMNS_MAX <= Lacking::BITS as usize);
/// Longest name of a column.
pub const NAME_MAX_BYTES: usize = 63;

/// The promoted columns that a file lacks: bit `n` stands for number `n` of [`TableColumns::promoted`].
pub(crate) type Lacking = u128;

/// Names that mean something else in answers or in SQL.
const RESERVED: [&str; 5] =
    ["id", "rowid", "current_catalog", "current_database", "current_schema"];

/// What promoted columns hold.
pub(crate) const KINDS: [Kind; 5] =
    [Kind::Text, Kind::Long, Kind::Double, Kind::Boolean, Kind::Timestamp];

/// The type of a promoted column that the configuration calls `name`.
#[must_use]
pub fn kind_of(name: &str) -> Option<Kind> {
    KINDS.into_iter().find(|kind| name_of(*kind) == name)
}

/// What the configuration calls `kind`.
#[must_use]
pub fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "string",
        Kind::Int => "int32",
        Kind::Long => "int64",
        Kind::Double => "double",
        Kind::Boolean => "boolean",
        Kind::Timestamp => "timestamp",
    }
}

/// A promoted column as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnConfig {
    /// Its name: a letter, then letters, digits and underscores, all small, at most
    /// [`NAME_MAX_BYTES`]; none of the built-in columns'.
    pub name: String,
    /// Where its values are, such as `properties.cart.total`; see [`Path::parse`].
    pub path: String,
    /// Their type: text, 64-bit integers, 64-bit floats, booleans or timestamps.
    pub kind: Kind,
}

/// A configured value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}; it must be {limit}")]
pub struct Unfit {
    /// The setting, such as `columns[2].name`; columns count from 1.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub limit: String,
}

/// The configured columns, checked.
#[derive(Debug, Clone, Default)]
pub struct Promotion {
    columns: Vec<(PromotedColumn, Path)>,
}

impl Promotion {
    /// Checks `columns` as far as can be done without a table.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn new(columns: &[ColumnConfig]) -> Result<Self, Unfit> {
        let unfit = |key: String, value: &str, limit: String| {
            let value = value.chars().take(NAME_MAX_BYTES + 1).collect();
            Err(Unfit { key, value, limit })
        };
        if columns.len() > COLUMNS_MAX {
            let (key, count) = ("the number of columns".to_owned(), columns.len().to_string());
            return unfit(key, &count, format!("at most {COLUMNS_MAX}"));
        }
        let mut promotion = Self::default();
        for (at, column) in columns.iter().enumerate() {
            let key = |field: &str| format!("columns[{}].{field}", at + 1);
            if let Some(limit) = problem_with_name(&column.name) {
                return unfit(key("name"), &column.name, limit);
            }
            if columns[..at].iter().any(|other| other.name == column.name) {
                let limit = "the name of one column only".to_owned();
                return unfit(key("name"), &column.name, limit);
            }
            if !KINDS.contains(&column.kind) {
                return unfit(key("type"), name_of(column.kind), one_of_the_types());
            }
            let path = match Path::parse(&column.path) {
                Ok(path) => path,
                Err(limit) => return unfit(key("path"), &column.path, limit),
            };
            let column = PromotedColumn { name: column.name.clone(), kind: column.kind };
            promotion.columns.push((column, path));
        }
        Ok(promotion)
    }

    /// The columns, in the order of the configuration.
    pub(crate) fn columns(&self) -> impl ExactSizeIterator<Item = &PromotedColumn> {
        self.columns.iter().map(|(column, _)| column)
    }
}

/// What a type has to be, as a phrase.
#[must_use]
pub fn one_of_the_types() -> String {
    format!("one of {}", KINDS.map(name_of).join(", "))
}

/// Whether a promoted column can have the name.
pub(crate) fn is_column_name(name: &str) -> bool {
    problem_with_name(name).is_none()
}

/// What a name has to be when `name` is not.
fn problem_with_name(name: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
    if !begins || name.len() > NAME_MAX_BYTES || !name.bytes().all(is_plain) {
        return Some(format!(
            "a small letter and then small letters, digits and underscores, at most \
             {NAME_MAX_BYTES} bytes"
        ));
    }
    let is_taken = COLUMNS.iter().any(|column| column.name == name)
        || name == PARTITION
        || RESERVED.contains(&name);
    is_taken.then(|| "a name that is not taken: see GET /v1/schema".into())
}

/// A promoted column of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromotedColumn {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

/// The columns of the table as this process has them since its start.
#[derive(Debug, Clone)]
pub struct TableColumns {
    promoted: Vec<PromotedColumn>,
    hot: SchemaRef,
}

impl Default for TableColumns {
    fn default() -> Self {
        Self { promoted: Vec::new(), hot: hot_schema() }
    }
}

impl TableColumns {
    /// The built-in columns and `promoted`, in the order of the table.
    #[must_use]
    pub fn new(promoted: Vec<PromotedColumn>) -> Self {
        let fields = hot_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let with = |mut fields: Vec<Field>, column: &PromotedColumn| {
            fields.push(Field::new(&column.name, column.kind.arrow(), true));
            fields
        };
        let hot = Arc::new(Schema::new(promoted.iter().fold(fields, with)));
        Self { promoted, hot }
    }

    /// The promoted columns, in the order in which they were added to the table.
    #[must_use]
    pub fn promoted(&self) -> &[PromotedColumn] {
        &self.promoted
    }

    /// The Arrow schema of a hot table.
    #[must_use]
    pub fn hot_schema(&self) -> SchemaRef {
        Arc::clone(&self.hot)
    }

    /// The quoted names of all columns but the partition, comma-separated.
    #[must_use]
    pub fn list(&self) -> String {
        let promoted = self.promoted.iter().map(|column| format!(", \"{}\"", column.name));
        promoted.fold(column_list(), |list, name| list + &name)
    }

    /// The column definitions of a hot table, see [`hot_table_columns`].
    #[must_use]
    pub fn definitions(&self) -> String {
        let define =
            |column: &PromotedColumn| format!(", \"{}\" {}", column.name, column.kind.sql());
        self.promoted.iter().map(define).fold(hot_table_columns(), |list, next| list + &next)
    }

    /// The names of all columns, the partition among them, in the order of a hot table.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hot.fields().iter().map(|field| field.name().as_str())
    }
}

/// Values that had another type than their promoted column, of each configured one, since the start.
#[derive(Debug, Default)]
pub(crate) struct WrongTypes(Vec<(String, AtomicU64)>);

impl WrongTypes {
    /// The counts, by column.
    pub(crate) fn counts(&self) -> Vec<(String, u64)> {
        // Relaxed: statistics.
        let count =
            |(name, count): &(String, AtomicU64)| (name.clone(), count.load(Ordering::Relaxed));
        self.0.iter().map(count).collect()
    }
}

/// Fills promoted columns. Belongs to one thread.
#[derive(Debug, Default)]
pub struct Promoter {
    columns: Arc<TableColumns>,
    properties: Wanted,
    context: Wanted,
    /// For each configured column its place among the promoted ones.
    places: Vec<usize>,
    /// Wrong types among the rows at hand, by configured column.
    wrong: Vec<u64>,
    total: Arc<WrongTypes>,
}

impl Promoter {
    /// Fills the columns of `promotion`, all of which are among `columns`; the others are null.
    #[must_use]
    pub fn new(columns: Arc<TableColumns>, promotion: &Promotion) -> Self {
        let place = |wanted: &PromotedColumn| columns.promoted.iter().position(|it| it == wanted);
        let (mut filled, mut places) = (Vec::new(), Vec::new());
        for (column, path) in &promotion.columns {
            if let Some(place) = place(column) {
                places.push(place);
                filled.push((column, path));
            }
        }
        let below = |root: Root| {
            let paths = filled.iter().enumerate().filter(move |(_, (_, path))| path.root == root);
            Wanted::new(paths.map(|(number, (_, path))| (number, path.names.as_slice())))
        };
        let counts = filled.iter().map(|(column, _)| (column.name.clone(), AtomicU64::new(0)));
        Self {
            properties: below(Root::Properties),
            context: below(Root::Context),
            wrong: vec![0; filled.len()],
            total: Arc::new(WrongTypes(counts.collect())),
            places,
            columns,
        }
    }

    /// The columns of the table.
    #[must_use]
    pub fn columns(&self) -> Arc<TableColumns> {
        Arc::clone(&self.columns)
    }

    /// What the wrong types are added up in.
    pub(crate) fn total(&self) -> Arc<WrongTypes> {
        Arc::clone(&self.total)
    }

    /// Adds the promoted columns to `rows`, which have the built-in ones of a hot table.
    ///
    /// # Errors
    /// When the rows have other columns.
    pub fn complete(&mut self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, ArrowError> {
        if self.columns.promoted.is_empty() {
            return Ok(rows);
        }
        self.wrong.fill(0);
        rows.into_iter().map(|rows| self.complete_batch(&rows)).collect()
    }

    /// Counts the wrong types of the last rows: they are in a table now.
    pub(crate) fn stored(&mut self) {
        for (wrong, (_, total)) in self.wrong.iter_mut().zip(&self.total.0) {
            // Relaxed: statistics.
            total.fetch_add(std::mem::take(wrong), Ordering::Relaxed);
        }
    }

    fn complete_batch(&mut self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = rows.columns().to_vec();
        columns.extend(self.promoted_of(rows)?);
        RecordBatch::try_new(self.columns.hot_schema(), columns)
    }

    fn promoted_of(&mut self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
        let count = rows.num_rows();
        let kinds = self.columns.promoted.iter().map(|column| column.kind);
        let mut all: Vec<ArrayRef> =
            kinds.clone().map(|kind| new_null_array(&kind.arrow(), count)).collect();
        if self.places.is_empty() {
            return Ok(all);
        }
        let kinds: Vec<Kind> = kinds.collect();
        let mut builders: Vec<Builder> =
            self.places.iter().map(|&place| Builder::new(kinds[place], count)).collect();
        let (properties, context) = (texts(rows, "properties")?, texts(rows, "context")?);
        let mut found: Vec<Option<&str>> = vec![None; builders.len()];
        for row in 0..count {
            for (wanted, objects) in [(&self.properties, properties), (&self.context, context)] {
                if !wanted.is_empty() && objects.is_valid(row) {
                    wanted.find(objects.value(row), |number, raw| found[number] = Some(raw));
                }
            }
            for ((builder, found), wrong) in
                builders.iter_mut().zip(&mut found).zip(&mut self.wrong)
            {
                let raw = found.take().filter(|raw| *raw != "null");
                let is_wrong = raw.is_some_and(|raw| !builder.append(raw));
                if raw.is_none() || is_wrong {
                    builder.append_null();
                }
                *wrong += u64::from(is_wrong);
            }
        }
        for (builder, &place) in builders.into_iter().zip(&self.places) {
            all[place] = builder.finish();
        }
        Ok(all)
    }
}

fn texts<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray, ArrowError> {
    let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| ArrowError::SchemaError(format!("there is no text column {name}")))
}

/// A promoted column under way.
enum Builder {
    Text(StringBuilder),
    Long(Int64Builder),
    Double(Float64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Text => Self::Text(StringBuilder::with_capacity(rows, 0)),
            Kind::Int | Kind::Long => Self::Long(Int64Builder::with_capacity(rows)),
            Kind::Double => Self::Double(Float64Builder::with_capacity(rows)),
            Kind::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            Kind::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows)),
        }
    }

    /// Appends the value that `raw` is the JSON text of. False when it has another type; nothing is
    /// appended then.
    fn append(&mut self, raw: &str) -> bool {
        match self {
            Self::Text(values) => promote::text(raw).map(|value| values.append_value(value)),
            Self::Long(values) => promote::whole(raw).map(|value| values.append_value(value)),
            Self::Double(values) => promote::float(raw).map(|value| values.append_value(value)),
            Self::Boolean(values) => promote::boolean(raw).map(|value| values.append_value(value)),
            Self::Timestamp(values) => promote::moment(raw).map(|at| values.append_value(at)),
        }
        .is_some()
    }

    fn append_null(&mut self) {
        match self {
            Self::Text(values) => values.append_null(),
            Self::Long(values) => values.append_null(),
            Self::Double(values) => values.append_null(),
            Self::Boolean(values) => values.append_null(),
            Self::Timestamp(values) => values.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Long(mut values) => Arc::new(values.finish()),
            Self::Double(mut values) => Arc::new(values.finish()),
            Self::Boolean(mut values) => Arc::new(values.finish()),
            Self::Timestamp(mut values) => Arc::new(values.finish()),
        }
    }
}

#[cfg(test)]
mod tests;
