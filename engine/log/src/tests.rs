//! The log against a disk that fails, and against damage.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use proptest::prelude::*;
use ringlake_disk::{Disk, RealDisk};
use ringlake_faults::{Call, Fault, TestDisk};

use super::*;

mod forged;
mod power_cut;
mod regressions;

const NODE: &str = "0123456789ab";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("tenant", DataType::Utf8, false),
        Field::new("visitor", DataType::Int64, true),
        Field::new("note", DataType::Utf8, true),
    ]))
}

/// A batch whose `tenant` column says which rows it holds.
fn batch(tenants: &[String]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(tenants.to_vec())),
        new_null_array(&DataType::Int64, tenants.len()),
        new_null_array(&DataType::Utf8, tenants.len()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn numbered(first: i64, rows: i64) -> RecordBatch {
    batch(&(first..first + rows).map(|number| format!("row-{number}")).collect::<Vec<_>>())
}

fn open(directory: &Path, disk: Arc<dyn Disk>, segment_bytes: u64) -> Log {
    let found =
        recover(0, 0, directory, &directory.join("quarantine"), &*disk, &mut |_| ()).unwrap();
    let identity = Identity { node: NODE.into(), shard: 0, schema: schema() };
    Log::new(directory.into(), disk, identity, segment_bytes, found.segments, found.voids).unwrap()
}

/// Every row that the directory holds: its number and its text.
fn rows(directory: &Path) -> Vec<(i64, String)> {
    let mut rows = Vec::new();
    scan::<Error>(directory, &mut |frame| {
        let batch = frame.batch().unwrap();
        let tenants = batch.column_by_name("tenant").unwrap().as_string::<i32>().clone();
        for (offset, tenant) in tenants.iter().enumerate() {
            rows.push((frame.first() + i64::try_from(offset).unwrap(), tenant.unwrap().to_owned()));
        }
        Ok(())
    })
    .unwrap();
    rows
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    files(directory, "log")
}

fn spares(directory: &Path) -> Vec<PathBuf> {
    files(directory, "spare")
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths
}

#[test]
fn what_was_appended_is_read_back_with_its_numbers() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
    log.append(&numbered(1, 1), 1).unwrap();
    log.append(&numbered(2, 5_000), 2).unwrap();
    let expected: Vec<_> = (1..=5_001).map(|number| (number, format!("row-{number}"))).collect();
    assert_eq!(rows(scratch.path()), expected);
}

#[test]
fn a_full_segment_is_followed_by_another_one() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
    for number in 1..=3 {
        log.append(&numbered(number, 1), number).unwrap();
    }
    assert_eq!(segments(scratch.path()).len(), 3);
    assert_eq!(log.size().1, 3);
}

#[test]
fn only_segments_that_the_lake_holds_whole_are_released() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
    for number in [1, 11, 21] {
        log.append(&numbered(number, 10), number).unwrap();
    }
    assert_eq!(log.release(19).unwrap(), 1);
    assert_eq!(log.release(30).unwrap(), 1);
    assert_eq!(rows(scratch.path()).first().unwrap().0, 21, "the newest segment stays");
}

#[test]
fn a_start_goes_on_in_a_new_segment() {
    let scratch = tempfile::tempdir().unwrap();
    open(scratch.path(), Arc::new(RealDisk), 1 << 20).append(&numbered(1, 2), 1).unwrap();
    open(scratch.path(), Arc::new(RealDisk), 1 << 20).append(&numbered(3, 2), 3).unwrap();
    assert_eq!(segments(scratch.path()).len(), 2);
    assert_eq!(rows(scratch.path()).len(), 4);
}

/// Faults that frames meet, in order.
type Faults = Arc<Mutex<VecDeque<(Call, Fault)>>>;

/// A disk over `root` on which each frame that is written meets the next fault of the queue: at its
/// write or at its sync. Headers meet none.
fn faulty(root: &Path) -> (TestDisk, Faults) {
    let disk = TestDisk::new(root).unwrap();
    let faults = Faults::default();
    let queue = Arc::clone(&faults);
    let (mut started, mut coming) = (HashSet::new(), None);
    disk.set_plan(move |call, path| {
        if call == Call::Write && !started.insert(path.to_owned()) {
            coming = queue.lock().unwrap().pop_front();
        }
        coming.take_if(|(wanted, _)| *wanted == call).map_or(Fault::None, |(_, fault)| fault)
    });
    (disk, faults)
}

const SHORT_WRITE: (Call, Fault) = (Call::Write, Fault::Short);
const FAILED_WRITE: (Call, Fault) = (Call::Write, Fault::FailAfterwards(io::ErrorKind::Other));
const FAILED_SYNC: (Call, Fault) = (Call::Sync, Fault::Fail(io::ErrorKind::Other));

#[test]
fn a_failed_batch_is_written_once_more_into_a_new_segment() {
    for fault in [SHORT_WRITE, FAILED_WRITE, FAILED_SYNC] {
        let scratch = tempfile::tempdir().unwrap();
        let (disk, faults) = faulty(scratch.path());
        let mut log = open(scratch.path(), Arc::new(disk), 1 << 20);
        log.append(&numbered(1, 3), 1).unwrap();
        faults.lock().unwrap().push_back(fault);
        log.append(&numbered(4, 3), 4).unwrap();
        log.append(&numbered(7, 3), 7).unwrap();
        assert_eq!(segments(scratch.path()).len(), 2, "{fault:?}");
        let numbers: Vec<_> = rows(scratch.path()).into_iter().map(|row| row.0).collect();
        assert_eq!(numbers, (1..=9).collect::<Vec<_>>(), "{fault:?}");
    }
}

#[test]
fn a_batch_that_fails_twice_is_void_and_the_next_header_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let (disk, faults) = faulty(scratch.path());
    let mut log = open(scratch.path(), Arc::new(disk), 1 << 20);
    log.append(&numbered(1, 3), 1).unwrap();
    faults.lock().unwrap().extend([SHORT_WRITE, FAILED_SYNC]);
    assert!(matches!(log.append(&numbered(4, 3), 4), Err(Error::Io { .. })));
    log.append(&numbered(7, 1), 7).unwrap();
    let numbers: Vec<_> = rows(scratch.path()).into_iter().map(|row| row.0).collect();
    assert_eq!(numbers, [1, 2, 3, 7]);
    let found =
        recover(0, 0, scratch.path(), &scratch.path().join("quarantine"), &RealDisk, &mut |_| ())
            .unwrap();
    assert_eq!(found.voids, [4..=6]);
    assert!(found.quarantined.is_empty());
}

#[test]
fn a_segment_that_is_started_early_makes_the_void_ranges_durable() {
    let scratch = tempfile::tempdir().unwrap();
    let (disk, faults) = faulty(scratch.path());
    let mut log = open(scratch.path(), Arc::new(disk), 1 << 20);
    log.append(&numbered(1, 3), 1).unwrap();
    faults.lock().unwrap().extend([FAILED_SYNC, FAILED_SYNC]);
    log.append(&numbered(4, 3), 4).unwrap_err();
    log.start_segment(7).unwrap();
    let files = segments(scratch.path()).len();
    log.start_segment(7).unwrap();
    assert_eq!(segments(scratch.path()).len(), files, "one is open");
    let found =
        recover(0, 0, scratch.path(), &scratch.path().join("quarantine"), &RealDisk, &mut |_| ())
            .unwrap();
    assert_eq!((found.voids, found.last), (vec![4..=6], 6));

    // Nothing else knows them: the header outlives the rows.
    log.close_released(6);
    log.release(6).unwrap();
    let found =
        recover(0, 0, scratch.path(), &scratch.path().join("quarantine"), &RealDisk, &mut |_| ())
            .unwrap();
    assert_eq!((found.voids, found.segments.len()), (vec![4..=6], 1));
}

/// Where the frames of the segment at `path` end.
fn end(path: &Path) -> u64 {
    let mut reader = SegmentReader::open(path).unwrap();
    while reader.next_item().unwrap().is_some() {}
    reader.position()
}

/// Recycling saves the file system's journal; what must not happen is that an old frame comes back.
#[test]
fn a_recycled_segment_holds_only_what_was_written_since() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 20_000);
    let mut next = 1;
    let mut fill = |log: &mut Log, until: usize| {
        while segments(scratch.path()).len() < until {
            log.append(&numbered(next, 50), next).unwrap();
            next += 50;
        }
        next - 1
    };
    let last = fill(&mut log, 7);
    assert_eq!(log.release(last - 50).unwrap(), 6);
    assert_eq!(spares(scratch.path()).len(), 4, "spares are bounded");
    let recycled_bytes = fs::metadata(&spares(scratch.path())[3]).unwrap().len();

    let newest = fill(&mut log, 2);
    assert_eq!(spares(scratch.path()).len(), 3);
    let path = segments(scratch.path()).pop().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), recycled_bytes, "the blocks are taken over");
    let numbers: Vec<_> = rows(scratch.path()).into_iter().map(|row| row.0).collect();
    let kept = numbers[0];
    assert_eq!(numbers, (kept..=newest).collect::<Vec<_>>());
    assert_eq!(kept, last - 49, "the segment that was not released");

    // A start cuts the old frames off; they are not a torn tail.
    drop(log);
    let found =
        recover(0, 0, scratch.path(), &scratch.path().join("quarantine"), &RealDisk, &mut |_| ())
            .unwrap();
    assert_eq!((found.last, found.torn_bytes), (newest, 0));
    assert!(fs::metadata(&path).unwrap().len() < recycled_bytes);
    assert!(found.quarantined.is_empty());
}

#[test]
fn a_spare_does_not_outlive_a_start() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
    for number in 1..=2 {
        log.append(&numbered(number, 1), number).unwrap();
    }
    log.release(1).unwrap();
    assert_eq!(spares(scratch.path()).len(), 1);
    drop(log);
    open(scratch.path(), Arc::new(RealDisk), 1);
    assert_eq!(spares(scratch.path()).len(), 0);
}

#[test]
fn spares_are_given_back_when_room_is_lacking() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
    for number in 1..=3 {
        log.append(&numbered(number, 1), number).unwrap();
    }
    log.release(2).unwrap();
    assert_eq!(spares(scratch.path()).len(), 2);
    assert!(log.remove_spares().unwrap() && !log.remove_spares().unwrap());
    assert_eq!(spares(scratch.path()).len(), 0);
    log.append(&numbered(4, 1), 4).unwrap();
    assert_eq!(rows(scratch.path()).len(), 2);
}

#[test]
fn the_open_segment_can_be_let_go_once_the_lake_holds_all_of_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
    log.append(&numbered(1, 5), 1).unwrap();
    log.close_released(4);
    assert!(!log.can_release(5));
    log.close_released(5);
    assert_eq!(log.release(5).unwrap(), 1);
    assert_eq!((log.size(), segments(scratch.path()).len()), ((0, 0), 0));
    log.append(&numbered(6, 1), 6).unwrap();
    drop(log);
    assert_eq!(rows(scratch.path()).len(), 1);
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
    log.append(&numbered(1, 2), 1).unwrap();
    let whole = end(&segments(scratch.path())[0]);
    log.append(&numbered(3, 2), 3).unwrap();
    let path = segments(scratch.path()).remove(0);
    let end = end(&path);
    for length in whole + 1..end {
        let copy = tempfile::tempdir().unwrap();
        let torn = copy.path().join(path.file_name().unwrap());
        fs::copy(&path, &torn).unwrap();
        fs::File::options().write(true).open(&torn).unwrap().set_len(length).unwrap();
        let found =
            recover(0, 0, copy.path(), &copy.path().join("quarantine"), &RealDisk, &mut |_| ())
                .unwrap();
        assert_eq!((found.last, found.torn_bytes), (2, length - whole));
        assert_eq!(fs::metadata(&torn).unwrap().len(), whole);
        assert!(found.quarantined.is_empty());
    }
}

#[test]
fn only_damaged_bytes_go_to_quarantine_and_their_numbers_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
    let mut ends = Vec::new();
    for first in [1, 11, 21] {
        log.append(&numbered(first, 10), first).unwrap();
        ends.push(end(&segments(scratch.path())[0]));
    }
    let path = segments(scratch.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let middle = usize::try_from(u64::midpoint(ends[0], ends[1])).unwrap();
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let quarantine = scratch.path().join("quarantine");
    let found = recover(0, 0, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!(found.quarantined.len(), 1);
    assert_eq!(found.quarantined[0].sequences, Some((11, 20)));
    assert_eq!(found.quarantined[0].bytes, ends[1] - ends[0]);
    assert_eq!(quarantined_ranges(&quarantine).unwrap(), found.quarantined);
    let numbers: Vec<_> = rows(scratch.path()).into_iter().map(|row| row.0).collect();
    assert_eq!(numbers, (1..=10).chain(21..=30).collect::<Vec<_>>());
}

/// A log of three segments with the numbers 1 to 6, to which something is done before the next start.
/// What that start has set aside, and the numbers that are left.
fn after(stored: i64, damage: impl FnOnce(&[PathBuf])) -> (Vec<Quarantined>, Vec<i64>) {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
    for first in [1, 3, 5] {
        log.append(&numbered(first, 2), first).unwrap();
    }
    drop(log);
    damage(&segments(scratch.path()));
    let quarantine = scratch.path().join("quarantine");
    let start = || recover(0, stored, scratch.path(), &quarantine, &RealDisk, &mut |_| ()).unwrap();
    let found = start();
    assert_eq!(quarantined_ranges(&quarantine).unwrap(), found.quarantined);
    assert_eq!((found.last, start().quarantined), (6, Vec::new()), "it is told once");
    (found.quarantined, rows(scratch.path()).into_iter().map(|row| row.0).collect())
}

fn cut_to_its_header(path: &Path) -> usize {
    let header = SegmentReader::open(path).unwrap().position();
    fs::File::options().write(true).open(path).unwrap().set_len(header).unwrap();
    usize::try_from(header).unwrap()
}

#[test]
fn frames_that_vanish_before_the_next_segment_are_told() {
    let zeroed = |paths: &[PathBuf]| {
        let bytes = fs::read(&paths[1]).unwrap();
        let header = cut_to_its_header(&paths[1]);
        fs::write(&paths[1], [&bytes[..header], &vec![0; bytes.len() - header]].concat()).unwrap();
    };
    let cut = |paths: &[PathBuf]| {
        cut_to_its_header(&paths[1]);
    };
    let gone = |paths: &[PathBuf]| fs::remove_file(&paths[1]).unwrap();
    for damage in [&zeroed as &dyn Fn(&[PathBuf]), &cut, &gone] {
        let (aside, left) = after(2, damage);
        assert_eq!(aside.iter().map(|it| it.sequences).collect::<Vec<_>>(), [Some((3, 4))]);
        assert_eq!(left, [1, 2, 5, 6]);
        // What the table holds is not missed.
        assert_eq!(after(4, damage), (Vec::new(), left));
    }
    assert_eq!(after(0, |_| ()), (Vec::new(), (1..=6).collect()));
}

#[test]
fn a_frame_of_another_segment_never_passes() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
    log.append(&numbered(1, 2), 1).unwrap();
    log.append(&numbered(3, 2), 3).unwrap();
    let paths = segments(scratch.path());
    let header = {
        let reader = SegmentReader::open(&paths[0]).unwrap();
        usize::try_from(reader.position()).unwrap()
    };
    // The second segment's frame behind the first one's: what a recycled file would look like.
    let mut first = fs::read(&paths[0]).unwrap();
    first.extend_from_slice(&fs::read(&paths[1]).unwrap()[header..]);
    fs::write(&paths[0], first).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    let numbers: Vec<_> = rows(scratch.path()).into_iter().map(|row| row.0).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn a_log_of_another_version_is_refused_with_a_sentence() {
    let scratch = tempfile::tempdir().unwrap();
    open(scratch.path(), Arc::new(RealDisk), 1 << 20).append(&numbered(1, 1), 1).unwrap();
    let path = segments(scratch.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 99;
    fs::write(&path, bytes).unwrap();
    let error =
        recover(0, 0, scratch.path(), &scratch.path().join("quarantine"), &RealDisk, &mut |_| ())
            .unwrap_err();
    assert!(error.to_string().contains("is a log of format 99"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever single stretch of bytes is overwritten, recovery succeeds, keeps every frame that
    /// the stretch does not touch, and brings back nothing that was not appended.
    #[test]
    fn recovery_survives_any_damage(
        batches in prop::collection::vec(1_i64..40, 1..8),
        at in 0.0_f64..1.0,
        noise in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = open(scratch.path(), Arc::new(RealDisk), 1 << 20);
        let mut next = 1;
        let mut frames = Vec::new();
        let path = scratch.path().join("00000000000000000001.log");
        for rows in batches {
            let start = if next == 1 { 0 } else { end(&path) };
            log.append(&numbered(next, rows), next).unwrap();
            frames.push((start..end(&path), next..next + rows));
            next += rows;
        }
        let mut bytes = fs::read(&path).unwrap();
        let header = SegmentReader::open(&path).unwrap().position();
        frames[0].0.start = header;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "any position will do")]
        let at = header as usize + (at * (bytes.len() - header as usize) as f64) as usize;
        let end = (at + noise.len()).min(bytes.len());
        let before = bytes[at..end].to_vec();
        bytes[at..end].copy_from_slice(&noise[..end - at]);
        let changed = before != bytes[at..end];
        fs::write(&path, &bytes).unwrap();

        recover(0, 0, scratch.path(), &scratch.path().join("quarantine"), &RealDisk, &mut |_| ()).unwrap();
        let found = rows(scratch.path());
        for (number, text) in &found {
            prop_assert_eq!(text, &format!("row-{number}"));
        }
        let untouched = frames.iter().filter(|(place, _)| {
            !changed || place.end <= at as u64 || place.start >= end as u64
        });
        for (_, numbers) in untouched {
            for number in numbers.clone() {
                prop_assert!(found.iter().any(|row| row.0 == number), "row {number} is gone");
            }
        }
    }
}
