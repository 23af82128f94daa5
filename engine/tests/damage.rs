//! Damage on the medium: whatever bytes change while nobody looks, the next start succeeds, says
//! what it has set aside, and no query or listing returns anything that was not sent.
//!
//! A stopped data directory is copied, some bytes in its segments and Parquet files are changed, and
//! the engine is opened on the copy. The seeds are fixed; a failure names the round, and the bytes
//! that were changed in it.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use ringlake_engine::listing::{ListError, ListRequest};
use ringlake_engine::query::{QueryError, QueryRequest};
use ringlake_engine::{Engine, verify};
use ringlake_faults::Image;
use support::{LIMIT, config, open, send_at, stop};

mod support;

/// Two days, so that damage in the files of one leaves the other to be queried.
const DAYS: [(&str, i64); 2] =
    [("2026-11-18", 1_795_000_000_000_000), ("2026-11-19", 1_795_086_400_000_000)];
const ROUNDS: u64 = 40;

/// A stopped directory: on each of two shards, both days in the table in several files, and more in
/// the log only. Gives the rows as text.
fn build(data: &Path) -> BTreeSet<String> {
    let (engine, mut ingests) = open(config(data));
    let mut sent = 0;
    for round in 0..10 {
        for (_, day) in DAYS {
            for ingest in &mut ingests {
                send_at(ingest, day, sent, 20);
                sent += 20;
            }
        }
        if round % 2 == 0 && round < 8 {
            engine.roll().unwrap();
        }
    }
    engine.flush().unwrap();
    let rows: BTreeSet<String> = rows(&engine, "true").unwrap().into_iter().collect();
    assert_eq!(rows.len(), sent);
    stop(&engine, ingests);
    rows
}

/// Every column of the rows that `filter` selects, one text a row.
fn rows(engine: &Engine, filter: &str) -> Result<Vec<String>, QueryError> {
    let sql = format!("SELECT * FROM events WHERE {filter}");
    let mut stream = engine.query(QueryRequest::new(sql))?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.blocking_next() {
        rows.extend(texts(batch?.columns()));
    }
    Ok(rows)
}

/// The rows of the day that begins at `day`, from the pages of a listing.
fn listed(engine: &Engine, day: i64) -> Result<Vec<String>, ListError> {
    let mut request =
        ListRequest { from: Some(day), to: Some(day + 1), limit: 70, ..ListRequest::default() };
    let mut rows = Vec::new();
    loop {
        let page = engine.list(&request)?;
        // The first column is the id, which is no column of the table.
        rows.extend(texts(&page.events.columns()[1..]));
        match page.next_cursor {
            Some(cursor) => request.cursor = Some(cursor),
            None => return Ok(rows),
        }
    }
}

/// One text a row.
fn texts(columns: &[ArrayRef]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let rows = columns[0].len();
    let columns: Vec<_> =
        columns.iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let text_of = |row| {
        let mut text = String::new();
        columns.iter().for_each(|column| write!(text, "{}|", column.value(row)).unwrap());
        text
    };
    (0..rows).map(text_of).collect()
}

/// The segments and the data files below `data`, in order.
fn files(data: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let below = |directory: PathBuf| -> Vec<PathBuf> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let of = |directories: Vec<PathBuf>, extension: &str| {
        let mut files: Vec<PathBuf> = directories
            .into_iter()
            .filter(|path| path.is_dir() && !path.ends_with("_delta_log"))
            .flat_map(below)
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        files
    };
    (of(below(data.join("log")), "log"), of(below(data.join("events")), "parquet"))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// What is changed in a round.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// One bit of a segment.
    BitInLog,
    /// Some bytes next to each other in a segment.
    BurstInLog,
    /// One bit of a data file.
    BitInParquet,
    /// Some bytes next to each other in a data file.
    BurstInParquet,
    /// One bit in each of four files of either kind.
    Everywhere,
}

/// Changes bytes of `file`; says where.
fn damage(file: &Path, length: usize, random: &mut Random) -> String {
    let mut bytes = fs::read(file).unwrap();
    let at = random.below(bytes.len());
    let end = (at + length).min(bytes.len());
    if length == 1 {
        bytes[at] ^= 1 << random.below(8);
    } else {
        bytes[at..end].fill_with(|| u8::try_from(random.below(256)).unwrap());
    }
    fs::write(file, &bytes).unwrap();
    format!("{}: {at}..{end} of {}", file.display(), bytes.len())
}

#[test]
fn a_file_that_cannot_be_read_for_a_while_is_not_given_up() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let sent = build(&data);
    let day = data.join("events/date=2026-11-18");
    let away = scratch.path().join("away");
    fs::rename(&day, &away).unwrap();
    let (engine, ingests) = open(config(&data));
    // What was replayed is visible then.
    engine.flush().unwrap();
    assert!(rows(&engine, "true").is_err());
    fs::rename(&away, &day).unwrap();
    let found: BTreeSet<String> = rows(&engine, "true").unwrap().into_iter().collect();
    assert!(found == sent, "{} of {}", found.len(), sent.len());
    stop(&engine, ingests);
}

#[test]
fn random_damage_never_stops_a_start_or_comes_back_as_data() {
    let scratch = tempfile::tempdir().unwrap();
    let template = scratch.path().join("template");
    let sent = build(&template);
    let kinds = [
        Kind::BitInLog,
        Kind::BitInParquet,
        Kind::BurstInLog,
        Kind::BurstInParquet,
        Kind::Everywhere,
    ];
    for round in 0..ROUNDS {
        let data = scratch.path().join("round");
        Image::read(&template, &|_| false).unwrap().write(&data).unwrap();
        let kind = kinds[usize::try_from(round).unwrap() % kinds.len()];
        let mut random = Random(round);
        let (segments, parquet) = files(&data);
        let either: Vec<_> = segments.iter().chain(&parquet).cloned().collect();
        let (from, count, length) = match kind {
            Kind::BitInLog => (&segments, 1, 1),
            Kind::BurstInLog => (&segments, 1, 64),
            Kind::BitInParquet => (&parquet, 1, 1),
            Kind::BurstInParquet => (&parquet, 1, 64),
            Kind::Everywhere => (&either, 4, 1),
        };
        let places: Vec<String> = (0..count)
            .map(|_| damage(&from[random.below(from.len())], length, &mut random))
            .collect();
        examine(&data, &sent, kind, &format!("round {round}, {kind:?}: {places:?}"));
        fs::remove_dir_all(&data).unwrap();
    }
}

fn examine(data: &Path, sent: &BTreeSet<String>, kind: Kind, what: &str) {
    let (engine, ingests) =
        Engine::open(config(data)).unwrap_or_else(|error| panic!("{what}: {error}"));
    engine.wait_ready(LIMIT).unwrap_or_else(|error| panic!("{what}: {error}"));
    // What was replayed is in the queue of the flusher, or visible.
    engine.flush().unwrap();
    let in_log = matches!(kind, Kind::BitInLog | Kind::BurstInLog);
    let in_parquet = matches!(kind, Kind::BitInParquet | Kind::BurstInParquet);
    let mut found = BTreeSet::new();
    let mut failed = 0;
    for (day, moment) in DAYS {
        match listed(&engine, moment) {
            Ok(rows) => {
                let count = rows.len();
                let rows: BTreeSet<String> = rows.into_iter().collect();
                assert_eq!(rows.len(), count, "{what}: a listing has a row twice");
                assert!(rows.is_subset(sent), "{what}: a listing has a row that was never sent");
            }
            Err(ListError::Damaged { file }) => {
                assert!(file.contains(day), "{what}: {file} is not of {day}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
        match rows(&engine, &format!("date = DATE '{day}'")) {
            Ok(rows) => {
                for row in rows {
                    assert!(sent.contains(&row), "{what}: never sent: {row}");
                    assert!(found.insert(row), "{what}: a row is there twice");
                }
            }
            Err(QueryError::Damaged { file }) => {
                assert!(file.contains(day), "{what}: {file} is not of {day}");
                failed += 1;
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    let lost = sent.len() - found.len();
    let status = engine.status();
    assert!(failed == 0 || !status.lake.damaged.is_empty(), "{what}: damage is not in the status");
    if in_log {
        assert_eq!(failed, 0, "{what}");
        let told = status.quarantined.stretches > 0 || status.recovery.torn_bytes > 0;
        assert!(told || lost == 0, "{what}: {lost} rows are gone, and nobody says so: {status:?}");
        assert_eq!(status.quarantined.stretches > 0, has_reports(data), "{what}");
    }
    if in_parquet {
        assert!(failed <= 1, "{what}: damage in one file hides both days");
        // Unread values may be damaged without a query noticing; verify does.
        let report = verify(data, None).unwrap();
        assert!(!report.problems.is_empty(), "{what}: verify finds nothing");
    }
    stop(&engine, ingests);
    let report = verify(data, None).unwrap();
    if in_log {
        assert_eq!(
            report.problems,
            Vec::<String>::new(),
            "{what}: after the start all is explained"
        );
    }
    // What was set aside once is not found again, and the numbers go on.
    let (engine, mut ingests) = open(config(data));
    if in_log {
        assert_eq!(engine.status().quarantined.stretches, 0, "{what}");
    }
    send_at(&mut ingests[0], DAYS[0].1, 1_000_000, 1);
    engine.flush().unwrap();
    if failed == 0 {
        assert_eq!(rows(&engine, "true").unwrap().len(), found.len() + 1, "{what}");
    }
    stop(&engine, ingests);
}

fn has_reports(data: &Path) -> bool {
    fs::read_dir(data.join("quarantine")).unwrap().next().is_some()
}
