//! Tests of plans: single decisions, and whole days against a simple model.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;
use crate::lake::delta::Bounds;
use crate::lake::testing::{DAY, DAY_MICROS, NODE};

const MIB: u64 = 1 << 20;
const SECOND: i64 = 1_000_000;
/// A day and a half after the beginning of [`DAY`].
const NEXT_NOON: i64 = DAY_MICROS / 1_000 + DAY_MS * 3 / 2;

/// A file of `rows` rows of a hundred bytes, received from second `first` to second `last`.
fn file(rows: u64, first: i64, last: i64) -> DataFile {
    dated(DAY, rows, first, last)
}

fn dated(date: &str, rows: u64, first: i64, last: i64) -> DataFile {
    let path = format!("date={date}/{NODE}-{}.parquet", uuid::Uuid::now_v7());
    DataFile {
        local: std::path::Path::new(&path).into(),
        path: path.into(),
        date: date.into(),
        rows: Some(rows),
        bytes: rows * 100,
        modified_ms: (DAY_MICROS + last * SECOND) / 1_000,
        bounds: Bounds {
            received_at: Some((DAY_MICROS + first * SECOND, DAY_MICROS + last * SECOND)),
            ..Bounds::default()
        },
    }
}

fn plan_at(files: &[DataFile], now_ms: Option<i64>) -> Option<Job> {
    let avoid = HashSet::new();
    next_job(files, &Rules { node: NODE, file_bytes: MIB, now_ms, avoid: &avoid })
}

/// A plan while [`DAY`] still receives events.
fn plan(files: &[DataFile]) -> Option<Job> {
    plan_at(files, Some(DAY_MICROS / 1_000 + DAY_MS / 2))
}

/// Files of `rows` rows and ten seconds each, one after the other.
fn row_of(rows: &[u64]) -> Vec<DataFile> {
    let starts = (0..).step_by(10);
    rows.iter().zip(starts).map(|(rows, start)| file(*rows, start, start + 9)).collect()
}

pub(in crate::lake) fn paths(files: &[DataFile]) -> Vec<&str> {
    files.iter().map(|file| &*file.path).collect()
}

#[test]
fn neighbours_that_reach_the_next_tier_are_joined_and_the_newest_waits() {
    let files = row_of(&[100; 7]);
    let job = plan(&files).unwrap();
    assert_eq!(paths(&job.inputs), paths(&files[..6]));
    assert_eq!((job.cut, job.pieces, job.bytes()), (None, 1, 60_000));
    // Five of them have 500 rows, which is no tier higher; and three files are too few anyway.
    assert_eq!(plan(&files[..6]), None);
    assert_eq!(plan(&row_of(&[500, 500, 500, 1])), None);
}

#[test]
fn a_large_file_is_not_rewritten_for_the_sake_of_small_neighbours() {
    let files = row_of(&[5_000, 1, 1, 1, 1, 1, 1, 1, 1, 5_000, 1, 1]);
    let job = plan(&files).unwrap();
    assert_eq!(paths(&job.inputs), paths(&files[1..9]));
    let once = row_of(&[5_000, 8, 5_000, 1, 1]);
    assert_eq!(plan(&once), None);
}

#[test]
fn what_is_finished_parts_its_neighbours() {
    let finished = MIB / 100;
    let files = row_of(&[100, 100, 100, 100, finished, 100, 100, 100, 100]);
    assert_eq!(plan(&files), None);
    let job = plan_at(&files, Some(NEXT_NOON)).unwrap();
    assert_eq!(paths(&job.inputs), paths(&files[..4]));
}

#[test]
fn a_job_holds_as_much_as_makes_a_finished_file() {
    let files = row_of(&[2_000; 12]);
    let job = plan(&files).unwrap();
    // Seven files reach the next tier, but six fill a file; the seventh does not fit any more.
    assert_eq!(paths(&job.inputs), paths(&files[..6]));
    let many = row_of(&[10; 300]);
    assert_eq!(plan(&many).unwrap().inputs.len(), INPUTS_MAX);
}

#[test]
fn the_newest_day_comes_first_and_days_are_never_mixed() {
    let mut files = row_of(&[100; 8]);
    let older: Vec<_> = (0..8).map(|at| dated("2026-11-20", 100, at * 10, at * 10 + 9)).collect();
    files.splice(0..0, older);
    let job = plan(&files).unwrap();
    assert!(job.inputs.iter().all(|file| &*file.date == DAY));
    files.truncate(8);
    let job = plan(&files).unwrap();
    assert!(job.inputs.iter().all(|file| &*file.date == "2026-11-20"));
}

#[test]
fn a_day_that_is_over_is_joined_whatever_the_tiers() {
    let files = row_of(&[5_000, 1, 600]);
    assert_eq!(plan(&files), None);
    let job = plan_at(&files, Some(NEXT_NOON)).unwrap();
    assert_eq!(paths(&job.inputs), paths(&files));
    assert_eq!(plan_at(&files, None), Some(job));
    assert_eq!(plan_at(&files[..1], None), None);
    // The replay of a long log brings back yesterday's events: not yet.
    let mut replayed = files;
    replayed[2].modified_ms = NEXT_NOON - millis(QUIET) + 1;
    assert_eq!(plan_at(&replayed, Some(NEXT_NOON)), None);
    replayed[2].modified_ms -= 1;
    assert!(plan_at(&replayed, Some(NEXT_NOON)).is_some());
}

#[test]
fn rows_that_reach_into_the_next_file_are_cut_off_when_they_are_few() {
    let mut files = row_of(&[100; 7]);
    let next = DAY_MICROS + 59 * SECOND;
    files[6].bounds.received_at.as_mut().unwrap().0 = next;
    let newest = file(100, 100, 101);
    files.push(newest);
    let job = plan(&files[..7]).unwrap();
    assert_eq!((job.inputs.len(), job.cut), (6, None), "they only touch");
    files[5].bounds.received_at.as_mut().unwrap().1 = next + SECOND;
    let job = plan(&files[..7]).unwrap();
    assert_eq!((job.inputs.len(), job.cut), (6, Some(next)));
    // All of them in the same time: a cut would only move the rows.
    let same: Vec<_> = (0..7).map(|_| file(100, 0, 10)).collect();
    assert_eq!(plan(&same).unwrap().cut, None);
}

#[test]
fn files_of_one_time_are_parted_when_the_day_is_over() {
    let finished = MIB / 100;
    let files = [
        file(finished, 0, 100),
        file(finished, 50, 200),
        file(10, 70, 80),
        file(finished, 200, 300),
    ];
    assert_eq!(plan(&files), None);
    let job = plan_at(&files, Some(NEXT_NOON)).unwrap();
    assert_eq!(paths(&job.inputs), paths(&files[..3]));
    assert_eq!((job.cut, job.pieces), (None, 3));
    let disjoint = [file(finished, 0, 50), file(finished, 50, 100)];
    assert_eq!(plan_at(&disjoint, Some(NEXT_NOON)), None);
    let too_much: Vec<_> = (0..9).map(|_| file(finished, 0, 100)).collect();
    assert_eq!(plan_at(&too_much, Some(NEXT_NOON)), None);
}

#[test]
fn files_of_others_or_without_statistics_are_left_alone() {
    let files = row_of(&[100; 8]);
    let changed = |change: &dyn Fn(&mut DataFile)| {
        let mut files = files.clone();
        change(&mut files[3]);
        plan(&files).map(|job| job.inputs.contains(&files[3]))
    };
    assert_eq!(changed(&|_| {}), Some(true));
    assert_eq!(changed(&|file| file.rows = None), Some(false));
    assert_eq!(changed(&|file| file.bounds.received_at = None), Some(false));
    let foreign = format!("date={DAY}/node-b-{}.parquet", uuid::Uuid::now_v7());
    assert_eq!(changed(&|file| file.path = foreign.as_str().into()), Some(false));
    assert_eq!(changed(&|file| file.path = "part-0.parquet".into()), Some(false));

    let avoid = HashSet::from([Arc::clone(&files[3].path)]);
    let rules = Rules { node: NODE, file_bytes: MIB, now_ms: None, avoid: &avoid };
    assert!(!next_job(&files, &rules).unwrap().inputs.contains(&files[3]));
}

#[test]
fn a_shortened_job_is_cut_where_the_rest_begins() {
    let mut files = row_of(&[100; 8]);
    files[3].bounds.received_at.as_mut().unwrap().1 += 2 * SECOND;
    let job = plan(&files).unwrap();
    assert_eq!(job.cut, None);
    let whole = job.clone();
    assert_eq!(whole.clone().shortened(7), whole);
    let short = job.shortened(4);
    assert_eq!(paths(&short.inputs), paths(&files[..4]));
    assert_eq!(short.cut, Some(files[4].bounds.received_at.unwrap().0));
}

/// A file of the model: what it is and how often its rows have been written, at most.
#[derive(Debug, Clone)]
struct Written {
    file: DataFile,
    times: u32,
}

/// Does a job as a merge would: rows are spread evenly, and files shrink to `shrink` percent.
fn carry_out(files: &mut Vec<Written>, job: &Job, shrink: u64) {
    let (done, kept): (Vec<_>, Vec<_>) =
        files.drain(..).partition(|written| job.inputs.contains(&written.file));
    *files = kept;
    assert_eq!(done.len(), job.inputs.len(), "inputs are live");
    let times = 1 + done.iter().map(|written| written.times).max().unwrap();
    let runs: Vec<Run<'_>> = done.iter().filter_map(|written| Run::of(&written.file)).collect();
    let first = runs.iter().map(|run| run.first).min().unwrap();
    let last = runs.iter().map(|run| run.last).max().unwrap();
    let rows: u64 = runs.iter().map(|run| run.rows).sum();
    let end = job.cut.unwrap_or(last);
    let pieces = i64::try_from(job.pieces).unwrap();
    let mut bounds: Vec<i64> =
        (0..=pieces).map(|piece| first + (end - first) / pieces * piece).collect();
    bounds.extend(job.cut.map(|_| last));
    *bounds.last_mut().unwrap() = last;
    let share = rows / (bounds.len() as u64 - 1);
    for (index, ends) in bounds.windows(2).enumerate() {
        let rest = if index == 0 { rows - share * (bounds.len() as u64 - 1) } else { 0 };
        let mut made = dated(&job.inputs[0].date, share + rest, 0, 0);
        made.bytes = made.bytes * shrink / 100 + 1;
        made.modified_ms = 0;
        made.bounds.received_at = Some((ends[0], ends[1]));
        files.push(Written { file: made, times });
    }
}

/// Whatever every job promises.
fn check(job: &Job, files: &[DataFile]) {
    assert!(job.inputs.len() >= 2 && job.inputs.len() <= INPUTS_MAX, "{}", job.inputs.len());
    assert!(job.inputs.iter().all(|input| input.date == job.inputs[0].date), "one day");
    let distinct: HashSet<_> = job.inputs.iter().map(|input| &input.path).collect();
    assert_eq!(distinct.len(), job.inputs.len(), "each file once");
    assert!(job.inputs.iter().all(|input| files.contains(input)), "of the table");
    let most = if job.pieces > 1 { OVERLAP_MAX * MIB } else { MIB / 4 * 5 };
    let smallest_two = job.inputs.len() == 2;
    assert!(job.bytes() <= most || smallest_two, "{} bytes", job.bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rolls of any size come in, with rolls that reach back and replays that overlap; after each
    /// of them the compactor works until it is content, and once more when the day is over.
    #[test]
    fn a_day_ends_in_few_disjoint_files_and_nothing_is_rewritten_often(
        rolls in prop::collection::vec((1_u64..3_000, 0_i64..30, 1_i64..20), 1..400),
        shrink in 40_u64..=100,
    ) {
        let mut files: Vec<Written> = Vec::new();
        let mut now = 0;
        let drain = |files: &mut Vec<Written>, now_ms: Option<i64>| {
            for _ in 0..2_000 {
                let live: Vec<_> = files.iter().map(|written| written.file.clone()).collect();
                let Some(job) = plan_at(&live, now_ms) else { return };
                check(&job, &live);
                carry_out(files, &job, shrink);
            }
            panic!("it never ends");
        };
        for (rows, back, length) in rolls {
            // One roll in ten reaches back beyond its predecessor.
            let back = if back > 3 { 0 } else { back };
            let made = file(rows, now - back, now + length);
            now += length;
            files.push(Written { file: made, times: 1 });
            drain(&mut files, Some(DAY_MICROS / 1_000 + DAY_MS / 2));
            // Open tiers: at most a handful of files each, and the finished ones.
            let finished = files.iter().filter(|written| written.file.bytes >= MIB / 2).count();
            prop_assert!(files.len() - finished < 100, "{} files", files.len());
        }
        let most = files.iter().map(|written| written.times).max().unwrap();
        prop_assert!(most <= 8, "rows written {} times", most);

        drain(&mut files, Some(NEXT_NOON));
        let mut runs: Vec<_> = files.iter().filter_map(|written| Run::of(&written.file)).collect();
        runs.sort_by(Run::order);
        for pair in runs.windows(2) {
            prop_assert!(pair[0].last <= pair[1].first, "files overlap");
            let both = pair[0].file.bytes + pair[1].file.bytes;
            prop_assert!(both >= MIB / 2, "two small neighbours are left: {} bytes", both);
        }
        let most = files.iter().map(|written| written.times).max().unwrap();
        prop_assert!(most <= 11, "rows written {} times", most);
    }
}
