//! Batches that cannot be passed on: Arrow files in the quarantine directory that describe themselves.
//!
//! **Guarantees.** A file says in its schema's metadata whose numbers it holds and why it was set
//! aside. [`read`] gives back what was written or refuses: the report beside the file has its
//! checksum, because Arrow files carry none and its reader trusts what it reads.
//!
//! **Layout.** An Arrow IPC file with the columns of a hot table but the promoted ones. Metadata: [`FORMAT_KEY`] (the
//! version of this layout), `ringlake.node`, `ringlake.shard`, `ringlake.first`, `ringlake.last`,
//! `ringlake.reason`. Beside it lies the report that [`set_aside`](crate::log::set_aside) writes for
//! every piece in quarantine; `verify` reads only that. Once restored, both names end in
//! `.restored`.
//!
//! **Memory.** One batch.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;

use crate::error::Error;
use crate::hot::{LogBatch, rows_to_set_aside};
use crate::log;
use crate::schema::hot_schema;

/// The key that makes an Arrow file one of ours; its value is the version of the layout.
pub const FORMAT_KEY: &str = "ringlake.quarantine";
/// The only version so far.
const FORMAT: &str = "1";
/// What an Arrow file begins with.
const MAGIC: &[u8; 6] = b"ARROW1";
/// The extension of a batch in quarantine.
pub const EXTENSION: &str = "arrow";
/// What the names of restored pieces end in.
pub const RESTORED: &str = "restored";

/// A batch that was set aside.
#[derive(Debug, Clone)]
pub struct Aside {
    /// The file.
    pub path: PathBuf,
    /// The node that numbered its events.
    pub node: String,
    /// Their shard.
    pub shard: u32,
    /// The number of the first event.
    pub first: i64,
    /// The number of the last one.
    pub last: i64,
    /// Why the batch was set aside.
    pub reason: String,
    /// The events, as rows of a hot table without promoted columns.
    pub rows: Vec<RecordBatch>,
}

/// The bytes of the file of `batch`, which was set aside for `reason`.
///
/// # Errors
/// When the batch does not have the log's schema.
pub fn encode(node: &str, batch: &LogBatch, reason: &str) -> Result<Vec<u8>, Error> {
    let rows = rows_to_set_aside(node, batch)
        .map_err(|source| Error::Arrow { action: "encode a quarantine file", source })?;
    encode_rows(node, batch.shard, (batch.first, batch.last()), reason, &[rows])
}

fn encode_rows(
    node: &str,
    shard: u32,
    (first, last): (i64, i64),
    reason: &str,
    rows: &[RecordBatch],
) -> Result<Vec<u8>, Error> {
    let about = HashMap::from([
        (FORMAT_KEY.to_owned(), FORMAT.to_owned()),
        ("ringlake.node".to_owned(), node.to_owned()),
        ("ringlake.shard".to_owned(), shard.to_string()),
        ("ringlake.first".to_owned(), first.to_string()),
        ("ringlake.last".to_owned(), last.to_string()),
        ("ringlake.reason".to_owned(), reason.to_owned()),
    ]);
    let schema = Arc::new(Schema::new_with_metadata(hot_schema().fields().clone(), about));
    let write = || {
        let mut writer = FileWriter::try_new(Vec::new(), &schema)?;
        for rows in rows {
            writer.write(&rows.clone().with_schema(Arc::clone(&schema))?)?;
        }
        writer.into_inner()
    };
    write().map_err(|source| Error::Arrow { action: "encode a quarantine file", source })
}

/// Whether the file at `path` is a batch from quarantine: an Arrow file with a report beside it.
///
/// # Errors
/// When it cannot be read.
pub fn is_one(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start == MAGIC && path.with_extension("json").exists())
}

/// Reads the batch at `path`.
///
/// # Errors
/// [`Error::Log`] when it cannot be read, has no report beside it or is damaged;
/// [`Error::Format`] when it is something else or of another version.
pub fn read(path: &Path) -> Result<Aside, Error> {
    let (bytes, _) = log::read_aside(path)?;
    let problem = |problem: String| Error::Format { path: path.to_path_buf(), problem };
    let unreadable = |source: ArrowError| problem(format!("cannot be read: {source}"));
    let reader = FileReader::try_new(Cursor::new(bytes), None).map_err(unreadable)?;
    let schema = reader.schema();
    let about = |key: &str| {
        let value = schema.metadata().get(key).cloned();
        value.ok_or_else(|| problem(format!("is no quarantine file: it has no {key}")))
    };
    let format = about(FORMAT_KEY)?;
    if format != FORMAT {
        return Err(problem(format!(
            "is a quarantine file of format {format}; this version reads format {FORMAT}"
        )));
    }
    let number = |key: &str| {
        about(key)?.parse::<i64>().map_err(|error| problem(format!("has a bad {key}: {error}")))
    };
    let shard = number("ringlake.shard")?;
    // Without the metadata, as the appender wants it.
    let plain = |rows: RecordBatch| RecordBatch::try_new(hot_schema(), rows.columns().to_vec());
    let rows: Result<_, ArrowError> = reader.map(|rows| rows.and_then(plain)).collect();
    let aside = Aside {
        path: path.to_path_buf(),
        node: about("ringlake.node")?,
        shard: u32::try_from(shard).map_err(|_| problem(format!("has no shard {shard}")))?,
        first: number("ringlake.first")?,
        last: number("ringlake.last")?,
        reason: about("ringlake.reason")?,
        rows: rows.map_err(unreadable)?,
    };
    if !aside.has_its_numbers() {
        return Err(problem("does not hold the numbers that it names".into()));
    }
    Ok(aside)
}

impl Aside {
    /// Number of its events.
    #[must_use]
    pub fn events(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// When arrow cannot encode them.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let numbers = (self.first, self.last);
        encode_rows(&self.node, self.shard, numbers, &self.reason, &self.rows)
    }

    /// The name of its file.
    pub(crate) fn name(&self) -> String {
        format!("batch-{}-{}-{}.{EXTENSION}", self.shard, self.first, self.last)
    }

    /// What is left of the batch without the rows that `doomed` says, in batches without a gap.
    pub(crate) fn without(&self, doomed: &dyn Fn(&RecordBatch) -> BooleanArray) -> Vec<Self> {
        let mut left: Vec<Self> = Vec::new();
        let mut number = self.first;
        for rows in &self.rows {
            let doomed = doomed(rows);
            let mut row = 0;
            while row < rows.num_rows() {
                let run = (row..rows.num_rows()).take_while(|&row| !doomed.value(row)).count();
                if run > 0 {
                    let part = rows.slice(row, run);
                    let first = number + i64::try_from(row).unwrap_or(i64::MAX);
                    let last = first + i64::try_from(run).unwrap_or(i64::MAX) - 1;
                    match left.last_mut().filter(|before| before.last + 1 == first) {
                        Some(before) => {
                            before.rows.push(part);
                            before.last = last;
                        }
                        None => left.push(Self { first, last, rows: vec![part], ..self.clone() }),
                    }
                }
                row += run + 1;
            }
            number += i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
        }
        left
    }

    /// Whether the rows are those of the shard from `first` to `last`, in order.
    fn has_its_numbers(&self) -> bool {
        let mut expected = self.first..=self.last;
        for rows in &self.rows {
            let nodes = rows.column(0).as_string::<i32>();
            let shards = rows.column(1).as_primitive::<Int32Type>().values();
            let sequences = rows.column(2).as_primitive::<Int64Type>().values();
            let ours = |row: usize| {
                nodes.value(row) == self.node && u32::try_from(shards[row]) == Ok(self.shard)
            };
            if !(0..rows.num_rows()).all(|row| ours(row) && expected.next() == Some(sequences[row]))
            {
                return false;
            }
        }
        self.first >= 1 && expected.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use arrow::array::Array;
    use ringlake_disk::RealDisk;

    use super::*;
    use crate::hot::logged;
    use crate::log::{Quarantined, set_aside};

    fn report() -> Quarantined {
        let (origin, reason) = ("a test".into(), "it was refused".into());
        Quarantined { shard: 3, sequences: Some((7, 8)), origin, reason, bytes: 1 }
    }

    fn file(directory: &Path) -> PathBuf {
        let lines = [r#"{"event":"a","user_id":"ä"}"#.to_owned(), r#"{"event":"b"}"#.to_owned()];
        let bytes = encode("0123456789ab", &logged(3, 7, &lines), "it was refused").unwrap();
        set_aside(&RealDisk, directory, "batch.arrow", &bytes, &report()).unwrap();
        directory.join("batch.arrow")
    }

    #[test]
    fn a_batch_is_read_back_with_its_numbers_and_its_reason() {
        let scratch = tempfile::tempdir().unwrap();
        let path = file(scratch.path());
        assert!(is_one(&path).unwrap());
        let aside = read(&path).unwrap();
        assert_eq!((aside.shard, aside.first, aside.last, aside.events()), (3, 7, 8, 2));
        assert_eq!(
            (aside.node.as_str(), aside.reason.as_str()),
            ("0123456789ab", "it was refused")
        );
        let users = aside.rows[0].column_by_name("user_id").unwrap().as_string::<i32>().clone();
        assert_eq!((users.value(0), users.is_null(1)), ("ä", true));
    }

    #[test]
    fn a_batch_without_some_rows_is_batches_without_a_gap() {
        let lines: Vec<String> =
            "abacaddb".chars().map(|event| format!(r#"{{"event":"{event}"}}"#)).collect();
        let bytes = encode("0123456789ab", &logged(3, 7, &lines), "it was refused").unwrap();
        let scratch = tempfile::tempdir().unwrap();
        set_aside(&RealDisk, scratch.path(), "batch.arrow", &bytes, &report()).unwrap();
        let mut aside = read(&scratch.path().join("batch.arrow")).unwrap();
        // In two batches, of which the second begins with what stays.
        let whole = aside.rows.remove(0);
        aside.rows = vec![whole.slice(0, 3), whole.slice(3, 5)];
        let left = |doomed: char| -> Vec<(i64, i64)> {
            let doomed = |rows: &RecordBatch| {
                let events = rows.column_by_name("event").unwrap().as_string::<i32>().clone();
                events.iter().map(|event| Some(event.unwrap().starts_with(doomed))).collect()
            };
            let left = aside.without(&doomed);
            assert!(left.iter().all(Aside::has_its_numbers), "{left:?}");
            left.iter().map(|aside| (aside.first, aside.last)).collect()
        };
        assert_eq!(left('a'), [(8, 8), (10, 10), (12, 14)]);
        assert_eq!(left('b'), [(7, 7), (9, 13)]);
        assert_eq!(left('d'), [(7, 11), (14, 14)]);
        assert_eq!(left('x'), [(7, 14)]);
        for aside in aside.without(&|rows| BooleanArray::from(vec![false; rows.num_rows()])) {
            let report = Quarantined { sequences: Some((aside.first, aside.last)), ..report() };
            let bytes = aside.encode().unwrap();
            set_aside(&RealDisk, scratch.path(), &aside.name(), &bytes, &report).unwrap();
            assert_eq!(read(&scratch.path().join("batch-3-7-14.arrow")).unwrap().events(), 8);
        }
    }

    #[test]
    fn a_changed_byte_is_found_before_anything_is_read() {
        let scratch = tempfile::tempdir().unwrap();
        let path = file(scratch.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.to_string().contains("is damaged"), "byte {at}: {error}");
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("other.arrow");
        std::fs::write(&path, b"{}").unwrap();
        assert!(!is_one(&path).unwrap());
        let mut writer = FileWriter::try_new(Vec::new(), &hot_schema()).unwrap();
        writer.finish().unwrap();
        let plain = writer.into_inner().unwrap();
        std::fs::write(&path, &plain).unwrap();
        assert!(!is_one(&path).unwrap());
        set_aside(&RealDisk, scratch.path(), "other.arrow", &plain, &report()).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is no quarantine file"));
    }
}
