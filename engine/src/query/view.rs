//! The `events` view that one query sees, generated from its snapshot.
//!
//! **Guarantees.** The view names every file and every hot table of the snapshot and nothing else:
//! no directory is listed, so a file that is half written or already replaced is never read. A
//! filter on `date` selects files by their partition directory before any of them is opened.
//!
//! **Layout.** Files of one table lie in `date=YYYY-MM-DD` directories and do not contain `date`;
//! DuckDB derives it from the path. It derives *every* `name=value` directory on the way, so a
//! table below a directory such as `node=3` would show 3 as its node; and Delta allows other
//! writers to put a file anywhere. When some path is not of the usual form, the files are read with
//! one branch per day instead, which takes longer to plan.

use std::collections::BTreeMap;
use std::path::Component;

use crate::schema::{COLUMNS, PARTITION, column_list};
use crate::snapshot::{DataFile, Snapshot};

use super::QueryError;

/// The statement that makes `events` show `snapshot` on the connection that runs it.
///
/// # Errors
///
/// [`QueryError::Failed`] when a path is not UTF-8, which DuckDB could not open.
pub(super) fn statement(snapshot: &Snapshot) -> Result<String, QueryError> {
    let columns = format!("{}, \"{PARTITION}\"", column_list());
    let mut branches = Vec::with_capacity(1 + snapshot.hot.len());
    if !snapshot.files.iter().all(has_usual_path) {
        branches.extend(branches_by_day(&snapshot.files)?);
    } else if !snapshot.files.is_empty() {
        let list = file_list(snapshot.files.iter())?;
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
    Ok(format!("CREATE OR REPLACE TEMP VIEW events AS {}", branches.join(" UNION ALL ")))
}

/// One branch per day, each with its date as a constant: a filter on `date` folds the others away.
fn branches_by_day(files: &[DataFile]) -> Result<Vec<String>, QueryError> {
    let mut days: BTreeMap<&str, Vec<&DataFile>> = BTreeMap::new();
    for file in files {
        days.entry(&file.date).or_default().push(file);
    }
    let columns = column_list();
    days.into_iter()
        .map(|(date, files)| {
            let list = file_list(files.into_iter())?;
            let day = if date.is_empty() { "NULL".into() } else { literal(date) };
            Ok(format!(
                "SELECT {columns}, CAST({day} AS DATE) AS \"{PARTITION}\" \
                 FROM read_parquet({list}, hive_partitioning = false)"
            ))
        })
        .collect()
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

/// `text` as an SQL string.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `name` as an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
