//! Looking for rows in the hot tables, and reading those that were chosen.
//!
//! Hot tables live in DuckDB's memory, so both are prepared statements. They name the table, take
//! every value as a parameter, and give at most a page of rows.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, Schema};
use duckdb::types::Value;
use duckdb::{Connection, params_from_iter};

use super::ListError;
use super::filter::{Filter, KEY_COLUMNS};
use super::order::{Nearest, Order, Place, Position};
use crate::promoted::TableColumns;
use crate::snapshot::HotTable;

/// DuckDB's number of a row, which stays as long as its table.
const ROW_ID: &str = "rowid";

/// Hands the wanted rows of `table`, at most `limit`, to `nearest`, as those of the table with
/// number `number`.
pub(crate) fn search(
    connection: &Connection,
    table: &HotTable,
    number: usize,
    filter: &Filter,
    limit: usize,
    nearest: &mut Nearest,
) -> Result<(), ListError> {
    let (sql, values) = statement(&table.name, filter, limit);
    for batch in read(connection, &sql, values)? {
        let ids = batch.column_by_name(ROW_ID).and_then(|column| {
            column.as_any().downcast_ref::<arrow::array::PrimitiveArray<Int64Type>>()
        });
        let ids = ids.ok_or_else(|| ListError::failed("a hot table gives no row numbers"))?;
        filter
            .select(&batch, nearest, |row| Place::Hot { table: number, row: ids.value(row) })
            .map_err(ListError::failed)?;
    }
    Ok(())
}

/// Reads all columns of the rows of `table` with these numbers, in ascending order of the numbers.
pub(crate) fn rows(
    connection: &Connection,
    table: &HotTable,
    columns: &TableColumns,
    numbers: &[i64],
) -> Result<RecordBatch, ListError> {
    let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let sql = format!(
        "SELECT {} FROM \"{}\" WHERE {ROW_ID} IN ({}) ORDER BY {ROW_ID}",
        columns.list(),
        table.name,
        list.join(", ")
    );
    let batches = read(connection, &sql, Vec::new())?;
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    concat_batches(&schema, &batches).map_err(ListError::failed)
}

/// Hands the rows of `table` in the window of `filter` and with its texts to `take`, with all
/// columns, until that says no.
pub(crate) fn each(
    connection: &Connection,
    table: &HotTable,
    columns: &TableColumns,
    filter: &Filter,
    mut take: impl FnMut(RecordBatch) -> bool,
) -> Result<(), ListError> {
    let (conditions, values) = conditions(filter);
    let sql = format!(
        "SELECT {} FROM \"{}\" WHERE {}",
        columns.list(),
        table.name,
        conditions.join(" AND ")
    );
    let mut statement = connection.prepare(&sql).map_err(ListError::failed)?;
    let chunks = statement.stream_arrow(params_from_iter(values)).map_err(ListError::failed)?;
    for chunk in chunks {
        if !take(chunk.map_err(ListError::failed)?) {
            break;
        }
    }
    Ok(())
}

fn read(
    connection: &Connection,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<RecordBatch>, ListError> {
    let mut statement = connection.prepare(sql).map_err(ListError::failed)?;
    let batches = statement.query_arrow(params_from_iter(values)).map_err(ListError::failed)?;
    Ok(batches.collect())
}

/// The statement that finds the keys of wanted rows, and its values.
fn statement(table: &str, filter: &Filter, limit: usize) -> (String, Vec<Value>) {
    let (mut conditions, mut values) = conditions(filter);
    let (beyond, direction) = match filter.order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    if let Some(Position::After(key)) = &filter.position {
        conditions.push(format!(
            "(received_at {beyond} make_timestamp(?) OR received_at = make_timestamp(?) AND \
             (node {beyond} ? OR node = ? AND (shard {beyond} ? OR shard = ? AND \
             sequence {beyond} ?)))"
        ));
        let (at, node, shard) =
            (moment(key.received_at), Value::Text(key.node.to_string()), Value::Int(key.shard));
        values.extend([at.clone(), at, node.clone(), node, shard.clone(), shard]);
        values.push(Value::BigInt(key.sequence));
    }
    let order = KEY_COLUMNS.map(|column| format!("{column} {direction}")).join(", ");
    let sql = format!(
        "SELECT {ROW_ID}, * FROM (SELECT {ROW_ID}, {} FROM \"{table}\" WHERE {} \
         ORDER BY {order} LIMIT {limit})",
        filter.columns().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", "),
        conditions.join(" AND "),
    );
    (sql, values)
}

/// The conditions for the window and the texts of `filter`, and their values.
fn conditions(filter: &Filter) -> (Vec<String>, Vec<Value>) {
    let window = filter.window;
    let mut conditions =
        vec!["received_at BETWEEN make_timestamp(?) AND make_timestamp(?)".to_owned()];
    let mut values = vec![moment(window.first), moment(window.last)];
    for (column, text) in &filter.texts {
        conditions.push(format!("\"{column}\" = ?"));
        values.push(Value::Text(text.clone()));
    }
    (conditions, values)
}

/// A moment as a parameter. DuckDB's own infinities lie beyond the bounds, and no event does.
fn moment(at: i64) -> Value {
    Value::BigInt(at.clamp(-i64::MAX / 2, i64::MAX / 2))
}
