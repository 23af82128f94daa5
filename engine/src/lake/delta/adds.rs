//! New files in the form in which the Delta library takes them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use delta_kernel::KernelResult;
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::transaction::Transaction;
use serde_json::{Map, Value, json};

use crate::lake::footer::{Bound, NewFile, Stats};
use crate::schema::PARTITION;

/// One row per file, with exactly the statistics that the table of `transaction` keeps.
///
/// The rows go through JSON because the schema, statistics above all, depends on the table; a
/// commit has a handful of files.
pub(super) fn batch(transaction: &Transaction, files: &[NewFile]) -> KernelResult<RecordBatch> {
    let base: Schema = transaction.add_files_schema().as_ref().try_into_arrow()?;
    let stats: Schema = transaction.stats_schema()?.as_ref().try_into_arrow()?;
    let fields: Vec<_> = base
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "stats" => {
                Arc::new(Field::new("stats", DataType::Struct(stats.fields().clone()), true))
            }
            _ => Arc::clone(field),
        })
        .collect();
    let rows: Vec<Value> = files.iter().map(row).collect();
    let mut decoder = ReaderBuilder::new(Arc::new(Schema::new(fields))).build_decoder()?;
    decoder.serialize(&rows)?;
    let batch = decoder.flush()?;
    Ok(batch.ok_or_else(|| ArrowError::JsonError("no file to add".to_owned()))?)
}

fn row(file: &NewFile) -> Value {
    json!({
        // Names of ours have no byte that a URL would have to escape.
        "path": file.path.as_ref(),
        "partitionValues": { PARTITION: file.date },
        "size": file.bytes,
        "modificationTime": file.modified_ms,
        "stats": stats(file.rows, &file.stats),
    })
}

fn stats(rows: u64, stats: &Stats) -> Value {
    let (mut nulls, mut min, mut max) = (Map::new(), Map::new(), Map::new());
    for column in &stats.columns {
        if let Some(count) = column.nulls {
            nulls.insert(column.name.to_owned(), count.into());
        }
        for (bound, values) in [(&column.min, &mut min), (&column.max, &mut max)] {
            let value = match bound {
                Some(Bound::Text(text)) => text.as_str().into(),
                Some(Bound::Number(number)) => (*number).into(),
                None => continue,
            };
            values.insert(column.name.to_owned(), value);
        }
    }
    json!({
        "numRecords": rows,
        "nullCount": nulls,
        "minValues": min,
        "maxValues": max,
        "tightBounds": true,
    })
}
