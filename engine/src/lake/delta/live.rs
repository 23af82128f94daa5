//! The files that a version of the table consists of, read from its log.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use delta_kernel::engine::arrow_data::EngineDataArrowExt;
use delta_kernel::snapshot::SnapshotRef;
use delta_kernel::{Engine, KernelError};
use serde_json::Value;
use url::Url;

use super::delta_error;
use crate::lake::error::{LakeError, Result};
use crate::lake::footer::{Bound, NewFile, Stats};
use crate::lake::location::Location;
use crate::schema::PARTITION;

/// A data file that is part of the table. Clones share the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Its name relative to the table's root, decoded; absolute when it lies elsewhere.
    pub path: Arc<str>,
    /// The same as a local path.
    pub local: Arc<Path>,
    /// Its partition, `YYYY-MM-DD`; empty when the table has it as null.
    pub date: Arc<str>,
    /// Its rows; absent when the writer did not say.
    pub rows: Option<u64>,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: i64,
    /// What its rows lie between.
    pub bounds: Bounds,
}

/// What the rows of a file lie between, both ends included; absent when not known. Never narrower
/// than the rows, but possibly wider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Of `received_at`, in microseconds since 1970.
    pub received_at: Option<(i64, i64)>,
    /// Of `timestamp`, in microseconds since 1970.
    pub timestamp: Option<(i64, i64)>,
    /// Of `tenant`.
    pub tenant: Option<(Arc<str>, Arc<str>)>,
    /// Of `sequence`, over all shards.
    pub sequence: Option<(i64, i64)>,
}

impl DataFile {
    /// The file that committing `file` has made part of the table.
    pub(in crate::lake) fn of(location: &Location, file: &NewFile) -> Self {
        Self {
            path: file.path.as_ref().into(),
            local: location.local(&file.path).into(),
            date: file.date.as_str().into(),
            rows: Some(file.rows),
            bytes: file.bytes,
            modified_ms: file.modified_ms,
            bounds: Bounds::of(&file.stats),
        }
    }
}

impl Bounds {
    fn of(stats: &Stats) -> Self {
        let ends = |name| {
            let column = stats.column(name)?;
            Some((column.min.clone()?, column.max.clone()?))
        };
        let numbers = |name| match ends(name)? {
            (Bound::Number(min), Bound::Number(max)) => Some((min, max)),
            _ => None,
        };
        let tenant = match ends("tenant") {
            Some((Bound::Text(min), Bound::Text(max))) => Some((min.into(), max.into())),
            _ => None,
        };
        Self {
            received_at: numbers("received_at"),
            timestamp: numbers("timestamp"),
            tenant,
            sequence: numbers("sequence"),
        }
    }

    /// The bounds in the statistics that the log keeps as JSON.
    fn of_json(stats: &Value) -> Self {
        let end = |side, name| stats.get(side)?.get(name);
        let both = |name| Some((end("minValues", name)?, end("maxValues", name)?));
        let ends = |name| both(name).and_then(|(min, max)| Some((min.as_str()?, max.as_str()?)));
        let micros = |name| {
            let (min, max) = ends(name)?;
            let parse = TimestampMicrosecondType::parse;
            Some((parse(min)?, parse(max)?))
        };
        Self {
            received_at: micros("received_at"),
            timestamp: micros("timestamp"),
            tenant: ends("tenant").map(|(min, max)| (min.into(), max.into())),
            sequence: both("sequence").and_then(|(min, max)| Some((min.as_i64()?, max.as_i64()?))),
        }
    }
}

/// The files that `snapshot` consists of.
pub(super) fn read(
    kernel: &dyn Engine,
    snapshot: &SnapshotRef,
    location: &Location,
) -> Result<Vec<DataFile>> {
    let failed = || delta_error("list the files");
    let scan = Arc::clone(snapshot).scan_builder().without_row_transforms().build();
    let mut files = Vec::new();
    for found in scan.map_err(failed())?.scan_metadata(kernel).map_err(failed())? {
        let batch = found
            .and_then(|found| found.scan_files.apply_selection_vector())
            .and_then(EngineDataArrowExt::try_into_record_batch)
            .map_err(failed())?;
        rows(&batch, location, &mut files)?;
    }
    Ok(files)
}

/// Turns the rows of a scan into files.
fn rows(batch: &RecordBatch, location: &Location, files: &mut Vec<DataFile>) -> Result<()> {
    let column = |name: &str| {
        batch.column_by_name(name).ok_or_else(|| {
            delta_error("list the files")(KernelError::MissingColumn(name.to_owned()))
        })
    };
    let paths = column("path")?.as_string::<i32>();
    let sizes = column("size")?.as_primitive::<Int64Type>();
    let times = column("modificationTime")?.as_primitive::<Int64Type>();
    let stats = column("stats")?.as_string::<i32>();
    let deleted = column("deletionVector")?;
    let constants = column("fileConstantValues")?.as_struct();
    let partitions = constants.column_by_name("partitionValues");
    for row in 0..batch.num_rows() {
        let path = paths.value(row);
        if deleted.is_valid(row) {
            return Err(LakeError::Unsupported {
                path: path.to_owned(),
                problem: "has deleted rows marked in a deletion vector; rewrite it without".into(),
            });
        }
        let (path, local) = place(location, path)?;
        let stats: Option<Value> =
            stats.is_valid(row).then(|| serde_json::from_str(stats.value(row)).ok()).flatten();
        files.push(DataFile {
            path,
            local,
            date: partitions.and_then(|map| partition(map, row)).unwrap_or_default(),
            rows: stats.as_ref().and_then(|stats| stats.get("numRecords")?.as_u64()),
            bytes: u64::try_from(sizes.value(row)).unwrap_or(0),
            modified_ms: times.value(row),
            bounds: stats.as_ref().map(Bounds::of_json).unwrap_or_default(),
        });
    }
    Ok(())
}

/// The value of the partition column in row `row` of a column of maps.
fn partition(maps: &dyn Array, row: usize) -> Option<Arc<str>> {
    let entries = maps.as_map_opt()?.value(row);
    let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
    let at = keys.iter().position(|key| key == Some(PARTITION))?;
    let values = values.as_string::<i32>();
    values.is_valid(at).then(|| values.value(at).into())
}

/// Decodes a path of the log, which is a URL relative to the table.
pub(super) fn place(location: &Location, path: &str) -> Result<(Arc<str>, Arc<Path>)> {
    let unsupported = || LakeError::Unsupported {
        path: path.to_owned(),
        problem: "is not on this machine".to_owned(),
    };
    let url: Url = location.url().join(path).map_err(|_| unsupported())?;
    let local = url.to_file_path().map_err(|()| unsupported())?;
    let name = local.strip_prefix(location.root()).unwrap_or(&local);
    let name = name.to_str().ok_or_else(unsupported)?.into();
    Ok((name, local.into()))
}
