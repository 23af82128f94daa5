//! The `events` view that one query sees, generated from its snapshot.
//!
//! **Guarantees.** The view names every file and every hot table of the snapshot and nothing else:
//! no directory is listed, so a file that is half written or already replaced is never read. A
//! filter on `date` selects files by their partition directory before any of them is opened.
//!
//! **Damage.** A damaged file is never opened. In its place stands a branch without data that fails
//! with a message as soon as a query needs it: a filter on `date` that leaves out the file's day
//! folds it away, so other days can still be queried; no other filter does.
//!
//! **Layout.** Files of one table lie in `date=YYYY-MM-DD` directories and do not contain `date`;
//! DuckDB derives it from the path. It derives *every* `name=value` directory on the way, so a
//! table below a directory such as `node=3` would show 3 as its node; and Delta allows other
//! writers to put a file anywhere. When some path is not of the usual form, the files are read with
//! one branch per day instead, which takes longer to plan.

use std::collections::BTreeMap;
use std::path::Component;

use crate::lake::DamagedFile;
use crate::schema::{COLUMNS, PARTITION, column_list};
use crate::snapshot::{DataFile, Snapshot};

use super::QueryError;
use super::error::DAMAGED_MARK;

/// The statement that makes `events` show `snapshot`, of whose files `damaged` must not be read, on
/// the connection that runs it; only the events of `tenant`, if there is one.
///
/// # Errors
///
/// [`QueryError::Failed`] when a path is not UTF-8, which DuckDB could not open.
pub(super) fn statement(
    snapshot: &Snapshot,
    damaged: &[DamagedFile],
    tenant: Option<&str>,
) -> Result<String, QueryError> {
    let columns = format!("{}, \"{PARTITION}\"", column_list());
    let mut branches: Vec<String> = damaged.iter().map(failing).collect();
    let is_sound = |file: &&DataFile| !damaged.iter().any(|damaged| damaged.path == file.path);
    let files: Vec<&DataFile> = snapshot.files.iter().filter(is_sound).collect();
    if !files.iter().all(|file| has_usual_path(file)) {
        branches.extend(branches_by_day(&files)?);
    } else if !files.is_empty() {
        let list = file_list(files.into_iter())?;
        branches.push(format!(
            "SELECT {columns} FROM read_parquet({list}, hive_partitioning = true, \
             hive_types = {{'{PARTITION}': DATE}})"
        ));
    }
    for table in &snapshot.hot {
        branches.push(format!("SELECT {columns} FROM {}", quoted(&table.name)));
    }
    if branches.is_empty() {
        branches.push(empty());
    }
    let all = branches.join(" UNION ALL ");
    let shown = match tenant {
        None => all,
        // Around all branches, so that none can be forgotten; DuckDB moves it into each.
        Some(tenant) => {
            format!("SELECT {columns} FROM ({all}) AS mine WHERE tenant = {}", literal(tenant))
        }
    };
    Ok(format!("CREATE OR REPLACE TEMP VIEW events AS {shown}"))
}

/// One branch per day, each with its date as a constant: a filter on `date` folds the others away.
fn branches_by_day(files: &[&DataFile]) -> Result<Vec<String>, QueryError> {
    let mut days: BTreeMap<&str, Vec<&DataFile>> = BTreeMap::new();
    for &file in files {
        days.entry(&file.date).or_default().push(file);
    }
    let columns = column_list();
    days.into_iter()
        .map(|(date, files)| {
            let list = file_list(files.into_iter())?;
            let day = date_or_null(date);
            Ok(format!(
                "SELECT {columns}, CAST({day} AS DATE) AS \"{PARTITION}\" \
                 FROM read_parquet({list}, hive_partitioning = false)"
            ))
        })
        .collect()
}

/// A relation with the columns of `events` that fails when it is read. No value is a constant: a
/// filter on one would be decided without reading, and the rows of the file silently left out.
fn failing(file: &DamagedFile) -> String {
    let message = literal(&format!("{DAMAGED_MARK}{}\"", file.path));
    let fail = format!("error(concat({message}, i))");
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|column| format!("CAST({fail} AS {}) AS {}", column.kind.sql(), quoted(column.name)))
        .collect();
    format!(
        "SELECT {}, CAST({} AS DATE) AS \"{PARTITION}\" FROM range(1) AS damaged(i) \
         WHERE CASE WHEN i >= 0 THEN {fail} END",
        columns.join(", "),
        date_or_null(&file.date),
    )
}

/// A relation without rows that has the columns of `events`.
fn empty() -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|column| format!("CAST(NULL AS {}) AS {}", column.kind.sql(), quoted(column.name)))
        .collect();
    format!("SELECT {}, CAST(NULL AS DATE) AS \"{PARTITION}\" WHERE false", columns.join(", "))
}

/// Whether `date=…` of the file's own day is the only partition that its path spells.
fn has_usual_path(file: &DataFile) -> bool {
    let mut partitions = file.local.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str().filter(|name| name.contains('=')),
        _ => None,
    });
    let expected = |name: &str| {
        name.split_once('=').is_some_and(|(key, day)| key == PARTITION && *day == *file.date)
    };
    partitions.next().is_some_and(expected) && partitions.next().is_none()
}

fn file_list<'a>(files: impl Iterator<Item = &'a DataFile>) -> Result<String, QueryError> {
    let mut list = String::from("[");
    for file in files {
        let path = file.local.to_str().ok_or_else(|| {
            QueryError::failed(format!("the path {} is not UTF-8", file.local.display()))
        })?;
        if list.len() > 1 {
            list.push_str(", ");
        }
        list.push_str(&literal(path));
    }
    list.push(']');
    Ok(list)
}

fn date_or_null(date: &str) -> String {
    if date.is_empty() { "NULL".into() } else { literal(date) }
}

/// `text` as an SQL string.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `name` as an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
