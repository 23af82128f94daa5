//! The way of a hot table to Parquet: one sorted file for each day in it.
//!
//! **Guarantees.** Every returned file is complete, holds exactly the rows of its day, is sealed
//! with checksums, and is on the medium with its directory entries. On an error no file of the call
//! remains.
//!
//! **Not guaranteed.** The files are no part of the table before a commit names them: they lie in
//! its directory and are orphans until then.
//!
//! **Layout.** Rows are in the order of tenant, then timestamp, so that one tenant's or one hour's
//! rows lie together. Row groups have the size of DuckDB's own, pages [`PAGE_BYTES`], which the
//! footer also says ([`PAGE_BYTES_KEY`]). Timestamps carry no zone. The partition column is not in
//! the file; the log says it.
//!
//! **Memory.** DuckDB sorts within its memory limit and spills to its temporary directory.

use std::path::{Path, PathBuf};

use duckdb::Connection;
use object_store::path;

use super::error::{LakeError, Result};
use super::footer::NewFile;
use super::location::{Location, check_node};
use super::seal::seal;
use crate::config::{PAGE_BYTES, ROW_GROUP_ROWS};
use crate::schema::PARTITION;

/// The key of the footer that says how large pages may be. Nothing else in a file of DuckDB's does,
/// and whoever joins files has to know what reading them takes.
pub const PAGE_BYTES_KEY: &str = "ringlake.page_bytes";

/// Writes the rows of `table`, a hot table that nobody appends to any more, into the table's
/// directory; `node` becomes part of the names. An empty table gives no files.
///
/// # Errors
///
/// [`LakeError::DuckDb`] when DuckDB cannot read or write, [`LakeError::Io`] when a file cannot be
/// synced, [`LakeError::Content`] or [`LakeError::Parquet`] when a file does not hold what it
/// should.
pub fn write_table(
    connection: &Connection,
    table: &str,
    location: &Location,
    node: &str,
) -> Result<Vec<NewFile>> {
    check_node(node)?;
    let mut begun = Vec::new();
    let written = write_days(connection, table, location, node, &mut begun);
    if written.is_err() {
        for path in &begun {
            if let Err(error) = location.remove(path) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%path, error, "a file of a failed roll stays until the next start");
            }
        }
    }
    written
}

/// Writes every day of `table`; the names go to `begun` before there can be a file.
fn write_days(
    connection: &Connection,
    table: &str,
    location: &Location,
    node: &str,
    begun: &mut Vec<path::Path>,
) -> Result<Vec<NewFile>> {
    let mut files = Vec::new();
    let days = days(connection, table)?;
    let columns = columns(connection, table)?;
    for day in days {
        let draft = location.new_data_file(node, &day.date);
        begun.push(draft.clone());
        location.create_directory(&draft)?;
        connection
            .execute_batch(&copy(table, &columns, &day.date, location, &draft)?)
            .map_err(|source| LakeError::DuckDb { action: "write a Parquet file", source })?;
        let file = finish(location, &draft, node, &day.date, begun, &mut |_| Ok(()))?;
        if file.rows != day.rows {
            return Err(LakeError::Content {
                path: location.local(&file.path),
                problem: format!("has {} rows instead of {}", file.rows, day.rows),
            });
        }
        files.push(file);
    }
    Ok(files)
}

/// Makes the file that has been written as `draft` one that a commit may name: sealed, synced and
/// with its final name. The draft is removed; other names go to `begun` before there can be a file.
/// `between` is called as [`seal`] says.
pub(super) fn finish(
    location: &Location,
    draft: &path::Path,
    node: &str,
    date: &str,
    begun: &mut Vec<path::Path>,
    between: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<NewFile> {
    let sealed = location.new_data_file(node, date);
    begun.push(sealed.clone());
    let (from, to) = (location.local(draft), location.local(&sealed));
    let sums = seal(location.disk(), &from, &to, between)?;
    location.sync_file(&sealed)?;
    let path = location.name_sealed(&sealed, sums)?;
    begun.push(path.clone());
    location.remove(draft)?;
    location.sync_directories(&path)?;
    NewFile::read(location, path, date)
}

/// A partition of a hot table.
struct Day {
    /// `YYYY-MM-DD`.
    date: String,
    rows: u64,
}

fn days(connection: &Connection, table: &str) -> Result<Vec<Day>> {
    let failed = |source| LakeError::DuckDb { action: "count the rows of a hot table", source };
    let sql = format!(
        "SELECT CAST({date} AS VARCHAR), count(*) FROM {table} GROUP BY ALL ORDER BY ALL",
        date = quoted(PARTITION),
        table = quoted(table),
    );
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut days = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let date: Option<String> = row.get(0).map_err(failed)?;
        let rows: i64 = row.get(1).map_err(failed)?;
        let rows = u64::try_from(rows).unwrap_or(0);
        match date.filter(|date| is_day(date)) {
            Some(date) => days.push(Day { date, rows }),
            None => {
                return Err(LakeError::Content {
                    path: PathBuf::from(table),
                    problem: format!("has {rows} rows without a date between years 0 and 9999"),
                });
            }
        }
    }
    Ok(days)
}

/// The quoted names of the table's columns but the partition, in their order.
fn columns(connection: &Connection, table: &str) -> Result<String> {
    let failed =
        |source| LakeError::DuckDb { action: "look at the columns of a hot table", source };
    let sql = "SELECT name FROM pragma_table_info(?) ORDER BY cid";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let names = statement.query_map([quoted(table)], |row| row.get::<_, String>(0));
    let names: Vec<String> = names.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    let stored = names.iter().filter(|name| *name != PARTITION).map(|name| quoted(name));
    Ok(stored.collect::<Vec<_>>().join(", "))
}

/// Whether `date` is `YYYY-MM-DD`. DuckDB writes other years differently, and those would not make
/// a partition that other readers understand.
fn is_day(date: &str) -> bool {
    date.len() == 10
        && date.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// DuckDB's default is 3: a tenth more processor time for files that are no smaller, because the
/// rows are sorted and the text is in dictionaries.
const ZSTD_LEVEL: u8 = 1;

/// The statement that writes the rows of `date`.
fn copy(
    table: &str,
    columns: &str,
    date: &str,
    location: &Location,
    path: &path::Path,
) -> Result<String> {
    let local = location.local(path);
    let Some(target) = local.to_str() else {
        return Err(LakeError::Place {
            location: local.display().to_string(),
            problem: "DuckDB takes only UTF-8 paths".to_owned(),
        });
    };
    Ok(format!(
        "COPY (SELECT {columns} FROM {table} WHERE {partition} = DATE '{date}' \
         ORDER BY \"tenant\", \"timestamp\") \
         TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL {ZSTD_LEVEL}, \
         ROW_GROUP_SIZE {ROW_GROUP_ROWS}, DATA_PAGE_SIZE_LIMIT {PAGE_BYTES}, \
         KV_METADATA {{'{PAGE_BYTES_KEY}': '{PAGE_BYTES}'}})",
        table = quoted(table),
        partition = quoted(PARTITION),
        target = target.replace('\'', "''"),
    ))
}

/// `name` as an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests;
