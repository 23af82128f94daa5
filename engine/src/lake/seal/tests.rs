//! Tests of sealing: what readers see of a sealed file, and of one with a changed byte.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use duckdb::Connection;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelector,
};
use parquet::basic::ZstdLevel;
use parquet::file::properties::WriterProperties;

use ringlake_disk::RealDisk;

use super::*;
use crate::lake::check::{check_outside, check_whole};
use crate::lake::delta::DataFile;
use crate::lake::footer;
use crate::lake::location::Location;
use crate::lake::testing::{NODE, append, hot_table, scratch, write_table};

/// A sealed file of `rows` events, and the same rows in DuckDB.
fn sealed(location: &Location, rows: u32) -> (Connection, DataFile) {
    let connection = hot_table("hot");
    append(&connection, "hot", NODE, 0, &format!("range(1, {}) t(i)", rows + 1), 0);
    // Values that do not compress to nothing, and nulls.
    let vary = "UPDATE hot SET url = md5(sequence::VARCHAR), user_agent = sequence % 7, \
                user_id = CASE WHEN sequence % 3 > 0 THEN user_id END, date = DATE '2026-11-21'";
    connection.execute_batch(vary).unwrap();
    let files = write_table(&connection, "hot", location, NODE).unwrap();
    let [file] = &files[..] else { panic!("one day was written: {files:?}") };
    (connection, DataFile::of(location, file))
}

/// A DuckDB that reads files anew every time.
fn reader() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("SET threads = 1; SET enable_external_file_cache = false").unwrap();
    connection
}

/// Everything in the file as DuckDB reads it, one text a row, in the order of the numbers.
fn by_duckdb(reader: &Connection, file: &Path) -> duckdb::Result<Vec<String>> {
    rows_of(reader, &format!("read_parquet('{}', hive_partitioning = false)", file.display()))
}

fn rows_of(connection: &Connection, relation: &str) -> duckdb::Result<Vec<String>> {
    let columns = crate::schema::column_list();
    let sql = format!(
        "SELECT (t)::VARCHAR FROM (SELECT {columns} FROM {relation}) t ORDER BY t.sequence"
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// Everything in the file as the `parquet` crate reads it.
fn by_parquet(file: &Path) -> Result<Vec<RecordBatch>, String> {
    let opened = File::open(file).unwrap();
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|error| error.to_string())?;
    let reader = reader.build().map_err(|error| error.to_string())?;
    reader.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[test]
fn a_sealed_file_holds_what_the_hot_table_held() {
    let (_data, location) = scratch();
    // Two row groups, dictionaries, columns of nulls only.
    let (connection, file) = sealed(&location, 130_000);
    let local = &file.local;
    assert_eq!(by_duckdb(&reader(), local).unwrap(), rows_of(&connection, "hot").unwrap());
    let rows: usize = by_parquet(local).unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 130_000);
    let metadata = footer::metadata(&File::open(local).unwrap(), local).unwrap();
    assert!(metadata.num_row_groups() > 1);
    check_outside(&file).unwrap();
    check_whole(&file).unwrap();
    assert_eq!(location.data_files(NODE).unwrap().len(), 1, "the draft is gone");
}

/// The users are those of [`sealed`].
#[test]
fn a_sealed_file_tells_which_users_it_cannot_hold() {
    let (_data, location) = scratch();
    let (connection, file) = sealed(&location, 130_000);
    let excludes = |user: &str| {
        let sql = format!(
            "SELECT bloom_filter_excludes FROM parquet_bloom_probe('{}', 'user_id', '{user}')",
            file.local.display(),
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let groups = statement.query_map([], |row| row.get(0)).unwrap();
        groups.map(Result::unwrap).collect::<Vec<bool>>()
    };
    let mut users = connection.prepare("SELECT DISTINCT user_id FROM hot LIMIT 100").unwrap();
    let users = users.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
    for user in users.filter_map(Result::unwrap) {
        assert!(excludes(&user).contains(&false), "{user} is in one of the row groups");
    }
    let wrong = (0..100).filter(|number| excludes(&format!("nobody-{number}")).contains(&false));
    assert!(wrong.count() < 40, "a filter of a row group is wrong once in twenty times");
}

/// Every byte of the file is changed once, one bit of it. Whatever was changed, `verify`'s check
/// finds it; and unless the check before reading finds it too, readers either fail or read what was
/// written. (Readers look at every third byte only, to save time.)
#[test]
fn no_changed_byte_comes_back_as_another_value() {
    let (_data, location) = scratch();
    let (_, file) = sealed(&location, 40);
    let whole = fs::read(&file.local).unwrap();
    let reader = reader();
    let expected = by_duckdb(&reader, &file.local).unwrap();
    let batches = by_parquet(&file.local).unwrap();
    let (mut outside, mut failed, mut same) = (0, 0, 0);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at.wrapping_mul(0x9e37_79b9) >> 7 & 7);
        fs::write(&file.local, &bytes).unwrap();
        assert!(check_whole(&file).is_err(), "byte {at} was changed, and nobody noticed");
        if check_outside(&file).is_err() {
            outside += 1;
            continue;
        }
        if at % 3 > 0 {
            continue;
        }
        match by_duckdb(&reader, &file.local) {
            Err(_) => failed += 1,
            Ok(found) => {
                assert_eq!(found, expected, "byte {at}");
                same += 1;
            }
        }
        if let Ok(found) = by_parquet(&file.local) {
            assert_eq!(found, batches, "byte {at}");
        }
    }
    assert!(outside > 0 && failed > 10 * same, "{outside}, {failed}, {same}");
}

#[test]
fn what_duckdb_would_not_write_is_refused() {
    let (_data, location) = scratch();
    location.create().unwrap();
    let connection = hot_table("hot");
    append(&connection, "hot", NODE, 0, "range(1, 10) t(i)", 0);
    let draft = location.root().join("draft.parquet");
    let copy = format!("COPY hot TO '{}' (FORMAT parquet, COMPRESSION snappy)", draft.display());
    connection.execute_batch(&copy).unwrap();
    let sealed = location.root().join("sealed.parquet");
    let error = seal(&RealDisk, &draft, &sealed, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("not as ZSTD"), "{error}");
}

#[test]
fn a_bloom_filter_that_cannot_be_where_the_footer_says_is_refused() {
    let (_data, location) = scratch();
    let (_, file) = sealed(&location, 40);
    let bytes = fs::read(&file.local).unwrap();
    let metadata = footer::metadata(&File::open(&file.local).unwrap(), &file.local).unwrap();
    let [.., a, b, c, d, _, _, _, _] = bytes[..] else { panic!("a file ends with its footer") };
    let footer = u32::from_le_bytes([a, b, c, d]) as usize + TAIL_BYTES;
    // The same file with a footer that says where, and how long, its Bloom filters are.
    let outcome = |place: Option<i64>, length: Option<i32>| {
        let change = |chunk: &ColumnChunkMetaData| {
            let Some(offset) = chunk.bloom_filter_offset() else { return chunk.clone() };
            let changed = chunk.clone().into_builder();
            let changed = changed.set_bloom_filter_offset(place.or(Some(offset)));
            changed.set_bloom_filter_length(length).build().unwrap()
        };
        let group = metadata.row_group(0);
        let columns = group.columns().iter().map(change).collect();
        let group = group.clone().into_builder().set_column_metadata(columns).build().unwrap();
        let changed = metadata.clone().into_builder().set_row_groups(vec![group]).build();
        let mut draft = bytes[..bytes.len() - footer].to_vec();
        ParquetMetaDataWriter::new(&mut draft, &changed).finish().unwrap();
        let (from, to) = (location.root().join("draft"), location.root().join("sealed"));
        fs::write(&from, draft).unwrap();
        let outcome = seal(&RealDisk, &from, &to, &mut |_| Ok(()));
        fs::remove_file(&to).unwrap();
        outcome.map(|_| ())
    };
    let chunks = metadata.row_group(0).columns();
    let length = chunks.iter().find_map(ColumnChunkMetaData::bloom_filter_length);
    assert!(length.is_some_and(|length| length <= BLOOM_BYTES), "{length:?}");
    outcome(None, length).unwrap();
    let impossible = [
        (Some(-1), length),
        (None, None),
        (None, Some(0)),
        (None, Some(-1)),
        (None, Some(BLOOM_BYTES + 1)),
    ];
    for (place, length) in impossible {
        let error = outcome(place, length).unwrap_err().to_string();
        assert!(error.contains("impossible place or size"), "{length:?}: {error}");
    }
    let error = outcome(Some(1 << 40), length).unwrap_err();
    assert!(matches!(error, LakeError::Io { .. }), "a place behind the end: {error}");
}

#[test]
fn a_frame_that_has_a_checksum_keeps_it() {
    let mut checksums = Checksums::new().unwrap();
    let content = b"events".repeat(1_000);
    let mut frame = zstd::bulk::compress(&content, 3).unwrap();
    let plain = frame.len();
    checksums.add(&mut frame, content.len()).unwrap();
    assert_eq!(frame.len(), plain + 4);
    assert_eq!(zstd::bulk::decompress(&frame, content.len()).unwrap(), content);
    let before = frame.clone();
    checksums.add(&mut frame, content.len()).unwrap();
    assert_eq!(frame, before);
    assert!(checksums.add(&mut frame.clone(), 5).is_err() || frame[4] & ZSTD_CHECKSUM_FLAG != 0);
    let mut two = [before.clone(), before].concat();
    assert!(checksums.add(&mut two, content.len()).is_err());
}

/// Files that are not DuckDB's have pages with an index: readers that skip pages must find them.
#[test]
fn a_page_index_says_where_the_pages_are_now() {
    let directory = tempfile::tempdir().unwrap();
    let (draft, sealed) = (directory.path().join("draft"), directory.path().join("sealed"));
    let numbers = Int64Array::from_iter_values(0..30_000);
    let texts = StringArray::from_iter_values((0..30_000).map(|number| format!("text {number}")));
    let batch = RecordBatch::try_from_iter([
        ("number", Arc::new(numbers) as ArrayRef),
        ("text", Arc::new(texts)),
    ])
    .unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_data_page_row_count_limit(1_000)
        .set_write_batch_size(1_000)
        .set_max_row_group_row_count(Some(10_000))
        .build();
    let file = File::create(&draft).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    seal(&RealDisk, &draft, &sealed, &mut |_| Ok(())).unwrap();
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let opened = File::open(&sealed).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options).unwrap();
    let index = reader.metadata().page_index().unwrap();
    assert!(index.page_locations(2, 1).unwrap().len() >= 10);
    // Rows of the fourth page of the second row group only.
    let skip = |rows, skip| RowSelector { row_count: rows, skip };
    let selection = vec![skip(13_500, true), skip(10, false), skip(16_490, true)];
    let batches: Result<Vec<RecordBatch>, _> =
        reader.with_row_selection(selection.into()).build().unwrap().collect();
    assert_eq!(batches.unwrap(), [batch.slice(13_500, 10)]);
}
