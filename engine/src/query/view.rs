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

use crate::hot::literal;
use crate::lake::DamagedFile;
use crate::promoted::{Lacking, TableColumns};
use crate::schema::{COLUMNS, Kind, PARTITION, column_list};
use crate::snapshot::{DataFile, Snapshot};

use super::QueryError;
use super::error::DAMAGED_MARK;

/// The statement that makes `events` show `snapshot` on the connection that runs it; only the events
/// of `tenant`, if there is one. Files that are `damaged` must not be read; `lacking` says of each
/// file which promoted columns it has not.
///
/// # Errors
///
/// [`QueryError::Failed`] when a path is not UTF-8, which DuckDB could not open.
pub(super) fn statement(
    snapshot: &Snapshot,
    damaged: &[DamagedFile],
    lacking: &[Lacking],
    tenant: Option<&str>,
) -> Result<String, QueryError> {
    let table = &*snapshot.columns;
    let columns = select(table, 0, DATE);
    let mut branches: Vec<String> = damaged.iter().map(|file| failing(table, file)).collect();
    let is_sound = |file: &DataFile| !damaged.iter().any(|damaged| damaged.path == file.path);
    let files: Vec<(&DataFile, Lacking)> = snapshot
        .files
        .iter()
        .zip(lacking)
        .filter(|(file, _)| is_sound(file))
        .map(|(file, lacking)| (file, *lacking))
        .collect();
    if files.iter().all(|(file, _)| has_usual_path(file)) {
        branches.extend(branches_by_columns(table, &files)?);
    } else {
        branches.extend(branches_by_day(table, &files)?);
    }
    for hot in &snapshot.hot {
        branches.push(format!("SELECT {columns} FROM {}", quoted(&hot.name)));
    }
    if branches.is_empty() {
        branches.push(empty(table));
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

/// [`PARTITION`], quoted.
const DATE: &str = "\"date\"";

/// The columns of `events` in their order: the partition is `date`, and promoted ones that are
/// `lacking` are null.
fn select(table: &TableColumns, lacking: Lacking, date: &str) -> String {
    let mut list = format!("{}, {date}", column_list());
    for (number, column) in table.promoted().iter().enumerate() {
        let name = quoted(&column.name);
        list.push_str(&match lacking >> number & 1 {
            0 => format!(", {name}"),
            _ => format!(", CAST(NULL AS {}) AS {name}", column.kind.sql()),
        });
    }
    list
}

/// One branch for all files with the same promoted columns: DuckDB wants every file of a branch to
/// have all of its columns. A filter on a column folds away the branches that lack it.
fn branches_by_columns(
    table: &TableColumns,
    files: &[(&DataFile, Lacking)],
) -> Result<Vec<String>, QueryError> {
    let mut alike: BTreeMap<Lacking, Vec<&DataFile>> = BTreeMap::new();
    for &(file, lacking) in files {
        alike.entry(lacking).or_default().push(file);
    }
    alike
        .into_iter()
        .map(|(lacking, files)| {
            let list = file_list(files.into_iter())?;
            Ok(format!(
                "SELECT {} FROM read_parquet({list}, hive_partitioning = true, \
                 hive_types = {{'{PARTITION}': DATE}})",
                select(table, lacking, DATE),
            ))
        })
        .collect()
}

/// The same for each day, with its date as a constant: a filter on `date` folds the others away.
fn branches_by_day(
    table: &TableColumns,
    files: &[(&DataFile, Lacking)],
) -> Result<Vec<String>, QueryError> {
    let mut days: BTreeMap<(&str, Lacking), Vec<&DataFile>> = BTreeMap::new();
    for &(file, lacking) in files {
        days.entry((&file.date, lacking)).or_default().push(file);
    }
    days.into_iter()
        .map(|((date, lacking), files)| {
            let list = file_list(files.into_iter())?;
            let date = format!("CAST({} AS DATE) AS {DATE}", date_or_null(date));
            Ok(format!(
                "SELECT {} FROM read_parquet({list}, hive_partitioning = false)",
                select(table, lacking, &date),
            ))
        })
        .collect()
}

/// A relation with the columns of `events` that fails when it is read. No value is a constant: a
/// filter on one would be decided without reading, and the rows of the file silently left out.
fn failing(table: &TableColumns, file: &DamagedFile) -> String {
    let message = literal(&format!("{DAMAGED_MARK}{}\"", file.path));
    let fail = format!("error(concat({message}, i))");
    let date = format!("CAST({} AS DATE) AS {DATE}", date_or_null(&file.date));
    format!(
        "SELECT {} FROM range(1) AS damaged(i) WHERE CASE WHEN i >= 0 THEN {fail} END",
        all_as(table, &fail, &date),
    )
}

/// A relation without rows that has the columns of `events`.
fn empty(table: &TableColumns) -> String {
    let date = format!("CAST(NULL AS DATE) AS {DATE}");
    format!("SELECT {} WHERE false", all_as(table, "NULL", &date))
}

/// The columns of `events` in their order: the partition is `date`, all others are `value`.
fn all_as(table: &TableColumns, value: &str, date: &str) -> String {
    let cast =
        |name: &str, kind: Kind| format!("CAST({value} AS {}) AS {}", kind.sql(), quoted(name));
    let built_in = COLUMNS.iter().map(|column| cast(column.name, column.kind));
    let promoted = table.promoted().iter().map(|column| cast(&column.name, column.kind));
    built_in.chain([date.to_owned()]).chain(promoted).collect::<Vec<_>>().join(", ")
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

/// `name` as an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
