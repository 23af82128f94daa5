//! Pages against a model: a sorted list of everything there is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use tempfile::TempDir;

use super::*;
use crate::config::DuckDbConfig;
use crate::hot::Database;
use crate::lake::{Bounds, DataFile};
use crate::schema::{Kind, arrow_schema, hot_table_columns};
use crate::snapshot::HotTable;

/// The first moment of the tests, in microseconds since 1970.
const MOMENT: i64 = 1_795_000_000_000_000;

/// An event of the model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    received_at: i64,
    shard: i32,
    sequence: i64,
    tenant: String,
    kind: String,
    user_id: Option<String>,
}

impl Event {
    fn new(received_at: i64, sequence: i64) -> Self {
        Self {
            received_at,
            shard: i32::try_from(sequence % 2).unwrap(),
            sequence,
            tenant: format!("t{}", sequence % 3),
            kind: if sequence % 5 == 0 { "page".into() } else { "track".into() },
            user_id: (sequence % 4 > 0).then(|| format!("u{}", sequence % 7)),
        }
    }

    fn id(&self) -> String {
        format!("n-{}-{}", self.shard, self.sequence)
    }

    fn matches(&self, request: &ListRequest) -> bool {
        let same =
            |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|it| it == text);
        let user = request.user_id.is_none() || request.user_id == self.user_id;
        same(&request.tenant, &self.tenant)
            && same(&request.kind, &self.kind)
            && request.event.is_none()
            && user
            && request.from.is_none_or(|from| self.received_at >= from)
            && request.to.is_none_or(|to| self.received_at < to)
    }
}

/// `events` as a batch of the stored columns.
fn batch(events: &[Event]) -> RecordBatch {
    let schema = arrow_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        let text = |of: &dyn Fn(&Event) -> Option<String>| -> ArrayRef {
            Arc::new(events.iter().map(of).collect::<StringArray>())
        };
        match field.name().as_str() {
            "node" => text(&|_| Some("n".into())),
            "tenant" => text(&|event| Some(event.tenant.clone())),
            "type" => text(&|event| Some(event.kind.clone())),
            "user_id" => text(&|event| event.user_id.clone()),
            "properties" => text(&|event| Some(format!("{{\"n\":{}}}", event.sequence))),
            "source" => text(&|_| Some("test".into())),
            "shard" => Arc::new(
                events.iter().map(|event| Some(event.shard)).collect::<arrow::array::Int32Array>(),
            ),
            "sequence" => Arc::new(
                events
                    .iter()
                    .map(|event| Some(event.sequence))
                    .collect::<arrow::array::Int64Array>(),
            ),
            "received_at" | "timestamp" => Arc::new(
                events
                    .iter()
                    .map(|event| Some(event.received_at))
                    .collect::<TimestampMicrosecondArray>(),
            ),
            _ => new_null(field.data_type(), events.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn new_null(data_type: &arrow::datatypes::DataType, rows: usize) -> ArrayRef {
    arrow::array::new_null_array(data_type, rows)
}

/// A lister over files and hot tables that tests fill.
struct Fixture {
    lister: Lister,
    database: Arc<Database>,
    runtime: tokio::runtime::Runtime,
    directory: TempDir,
    checked: Arc<Checked>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let limits = DuckDbConfig::default();
        let database =
            Arc::new(Database::open(&limits, directory.path(), directory.path()).unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let checked: Arc<Checked> = Arc::default();
        let connections = Arc::clone(&database);
        let lister = Lister::new(
            Signer::new([1; 16]),
            Arc::clone(&checked),
            runtime.handle().clone(),
            QueryConfig { waiting: 1, wait: Duration::from_millis(20), ..QueryConfig::default() },
            move || connections.connect(),
        );
        Self { lister, database, runtime, directory, checked }
    }

    /// A Parquet file of `events`; `pages` rows a page and three times as many a row group.
    fn file(&self, name: &str, events: &[Event], pages: usize) -> DataFile {
        let path = self.directory.path().join(format!("{name}.parquet"));
        write(&path, events, pages);
        let times = events.iter().map(|event| event.received_at);
        let tenants = events.iter().map(|event| event.tenant.as_str());
        DataFile {
            path: format!("{name}.parquet").into(),
            bytes: std::fs::metadata(&path).unwrap().len(),
            local: path.into(),
            date: "".into(),
            rows: Some(events.len() as u64),
            modified_ms: 0,
            bounds: Bounds {
                received_at: times.clone().min().zip(times.max()),
                tenant: tenants.clone().min().map(Into::into).zip(tenants.max().map(Into::into)),
                ..Bounds::default()
            },
        }
    }

    /// A hot table of `events`.
    fn hot(&self, name: &str, events: &[Event]) -> Arc<HotTable> {
        let connection = self.database.connect().unwrap();
        let columns = hot_table_columns();
        connection.execute_batch(&format!("CREATE OR REPLACE TABLE {name} ({columns})")).unwrap();
        for event in events {
            let user = event.user_id.as_ref().map_or("NULL".into(), |user| format!("'{user}'"));
            let sql = format!(
                "INSERT INTO {name} (node, shard, sequence, tenant, type, timestamp, received_at, \
                 user_id, properties, source) VALUES ('n', {}, {}, '{}', '{}', \
                 make_timestamp({at}), make_timestamp({at}), {user}, '{{\"n\":{}}}', 'test')",
                event.shard,
                event.sequence,
                event.tenant,
                event.kind,
                event.sequence,
                at = event.received_at,
            );
            connection.execute_batch(&sql).unwrap();
        }
        let (unused, _) = crossbeam_channel::unbounded();
        Arc::new(HotTable::new(name.into(), unused))
    }

    /// The ids of all pages, and how many pages there were.
    fn all(&self, request: &ListRequest, snapshots: &[Snapshot]) -> (Vec<String>, usize) {
        let (mut ids, mut pages) = (Vec::new(), 0);
        let mut request = request.clone();
        loop {
            // Each page from the next snapshot, as if there was a roll in between.
            let page = self.lister.page(&request, &snapshots[pages % snapshots.len()]).unwrap();
            assert!(page.events.num_rows() <= request.limit);
            check(&page.events);
            let column = page.events.column(0).as_string::<i32>();
            ids.extend(column.iter().map(|id| id.unwrap().to_owned()));
            pages += 1;
            match page.next_cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => return (ids, pages),
            }
        }
    }
}

fn write(path: &Path, events: &[Event], pages: usize) {
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(pages)
        .set_write_batch_size(pages)
        .set_max_row_group_row_count(Some(3 * pages))
        .set_bloom_filter_enabled(true)
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), arrow_schema(), Some(properties))
            .unwrap();
    writer.write(&batch(events)).unwrap();
    writer.close().unwrap();
}

/// The values of a row belong together, whatever they were read from.
fn check(events: &RecordBatch) {
    let column = |name| events.column_by_name(name).unwrap();
    let sequence = column("sequence").as_primitive::<Int64Type>();
    let received = column("received_at").as_primitive::<TimestampMicrosecondType>();
    let date = cast(column("date"), &arrow::datatypes::DataType::Int32).unwrap();
    let date = date.as_primitive::<arrow::datatypes::Int32Type>();
    for row in 0..events.num_rows() {
        let properties = column("properties").as_string::<i32>().value(row);
        assert_eq!(properties, format!("{{\"n\":{}}}", sequence.value(row)));
        assert_eq!(i64::from(date.value(row)), received.value(row) / 86_400_000_000);
    }
}

fn snapshot(files: Vec<DataFile>, hot: Vec<Arc<HotTable>>) -> Snapshot {
    Snapshot { version: 1, files: files.into(), hot, columns: Arc::default() }
}

fn requests(limit: usize) -> Vec<ListRequest> {
    let plain = ListRequest { limit, ..ListRequest::default() };
    let some = |text: &str| Some(text.to_owned());
    vec![
        plain.clone(),
        ListRequest { tenant: some("t1"), ..plain.clone() },
        ListRequest { kind: some("page"), user_id: some("u3"), ..plain.clone() },
        ListRequest { tenant: some("t9"), ..plain.clone() },
        ListRequest { event: some("never"), ..plain.clone() },
        ListRequest { from: Some(MOMENT + 20), to: Some(MOMENT + 60), ..plain },
    ]
}

/// Files that overlap, with and without several row groups and pages, and hot tables: every listing
/// in both directions gives what a sorted list gives, also when the rows move while it is read.
#[test]
fn pages_are_those_of_a_sorted_list() {
    let fixture = Fixture::new();
    let layout =
        (proptest::collection::vec((0_i64..100, 0_usize..5), 1..80), 1_usize..30, 1_usize..9);
    let mut runner = TestRunner::new(Cases { cases: 12, ..Cases::default() });
    runner
        .run(&layout, |(events, limit, pages)| {
            let mut sources: [Vec<Event>; 5] = Default::default();
            let mut all = Vec::new();
            for (sequence, (at, source)) in (1..).zip(events) {
                let event = Event::new(MOMENT + at, sequence);
                sources[source].push(event.clone());
                all.push(event);
            }
            all.sort_unstable();
            let [hot, open, files @ ..] = sources;
            let named = files.iter().enumerate().filter(|(_, events)| !events.is_empty());
            let files: Vec<DataFile> =
                named.map(|(n, events)| fixture.file(&format!("f{n}"), events, pages)).collect();
            let before = snapshot(
                files.clone(),
                vec![fixture.hot("hot_1", &hot), fixture.hot("hot_2", &open)],
            );
            let mut rolled = files;
            if !hot.is_empty() {
                rolled.push(fixture.file("rolled", &hot, 1_000));
            }
            let after = snapshot(rolled, vec![fixture.hot("hot_2", &open)]);
            for mut request in requests(limit) {
                for order in [Order::Ascending, Order::Descending] {
                    request.order = order;
                    let snapshots = [
                        snapshot(before.files.to_vec(), before.hot.clone()),
                        snapshot(after.files.to_vec(), after.hot.clone()),
                    ];
                    let (found, _) = fixture.all(&request, &snapshots);
                    let matching = all.iter().filter(|event| event.matches(&request));
                    let mut expected: Vec<String> = matching.map(Event::id).collect();
                    if order == Order::Descending {
                        expected.reverse();
                    }
                    prop_assert_eq!(found, expected, "{:?}", request);
                }
            }
            Ok(())
        })
        .unwrap();
}

/// A page of a long table costs a page: it opens the files that it shows, and few more.
#[test]
fn a_page_of_two_thousand_files_costs_a_page() {
    let fixture = Fixture::new();
    let files: Vec<DataFile> = (0..2_000)
        .map(|number| {
            let events: Vec<Event> = (0..40)
                .map(|row| Event::new(MOMENT + number * 1_000 + row, number * 40 + row + 1))
                .collect();
            fixture.file(&format!("f{number}"), &events, 1_000)
        })
        .collect();
    let snapshot = snapshot(files, Vec::new());
    let connection = fixture.database.connect().unwrap();
    for (at, order) in
        [(0, Order::Ascending), (777_000, Order::Ascending), (777_000, Order::Descending)]
    {
        let position = Some(order::Position::At(MOMENT + at));
        let window = Window::new(None, None, position.as_ref(), order);
        let filter = Filter { order, window, position, texts: Vec::new() };
        let reading = page::Reading {
            checked: &fixture.checked,
            connection: &connection,
            snapshot: &snapshot,
            filter: &filter,
            limit: 50,
        };
        assert!(fixture.runtime.block_on(reading.files_opened()).unwrap() <= 3, "{order:?}");
        assert_eq!(fixture.runtime.block_on(reading.run()).unwrap().0.num_rows(), 50);
    }
    // What is rare is looked for in a bounded number of files at a time.
    let rare = ListRequest {
        user_id: Some("u6".into()),
        kind: Some("none".into()),
        limit: 50,
        ..ListRequest::default()
    };
    let (ids, pages) = fixture.all(&rare, std::slice::from_ref(&snapshot));
    assert!(ids.is_empty());
    assert_eq!(pages, 2_000_usize.div_ceil(FILES_MAX));
    // 50 ms are wanted on a machine of its own.
    let slow = slow_page(&fixture, &snapshot);
    assert!(slow < Duration::from_secs(1), "{slow:?}");
}

/// The time of which one page in a hundred takes more, at moments all over the table, with and
/// without a filter.
fn slow_page(fixture: &Fixture, snapshot: &Snapshot) -> Duration {
    let mut times: Vec<Duration> = (0..400_i64)
        .map(|number| {
            let from = MOMENT + number * 7_919 % 1_990_000;
            let request = ListRequest {
                order: Order::Ascending,
                from: Some(from),
                tenant: (number % 2 == 0).then(|| "t1".into()),
                limit: 50,
                ..ListRequest::default()
            };
            let began = Instant::now();
            let page = fixture.lister.page(&request, snapshot).unwrap();
            assert_eq!(page.events.num_rows(), 50);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("a page: p50 {:?}, p99 {p99:?}", times[times.len() / 2]);
    p99
}

#[test]
fn a_page_ends_early_when_its_events_are_large() {
    let fixture = Fixture::new();
    let events: Vec<Event> = (1..=20).map(|n| Event::new(MOMENT + n, n)).collect();
    let hot = fixture.hot("hot_1", &events);
    let large = format!("UPDATE hot_1 SET url = repeat('x', {})", PAGE_BYTES / 4);
    fixture.database.connect().unwrap().execute_batch(&large).unwrap();
    let snapshot = snapshot(Vec::new(), vec![hot]);
    let request = ListRequest { limit: 1_000, ..ListRequest::default() };
    let first = fixture.lister.page(&request, &snapshot).unwrap();
    assert_eq!(first.events.num_rows(), 3);
    let (ids, pages) = fixture.all(&request, std::slice::from_ref(&snapshot));
    assert_eq!((ids.len(), pages), (20, 7));
}

#[test]
fn a_cursor_is_bound_to_tenant_filters_range_and_order() {
    let fixture = Fixture::new();
    let events: Vec<Event> = (1..=20).map(|n| Event::new(MOMENT + n, n)).collect();
    let snapshot = snapshot(Vec::new(), vec![fixture.hot("hot_1", &events)]);
    let mine = ListRequest { tenant: Some("t1".into()), limit: 2, ..ListRequest::default() };
    let cursor = fixture.lister.page(&mine, &snapshot).unwrap().next_cursor;
    assert!(cursor.is_some());
    let with = |request: ListRequest| {
        fixture.lister.page(&ListRequest { cursor: cursor.clone(), ..request }, &snapshot)
    };
    assert!(with(mine.clone()).is_ok());
    assert!(with(ListRequest { limit: 7, ..mine.clone() }).is_ok());
    for foreign in [
        ListRequest { tenant: Some("t2".into()), ..mine.clone() },
        ListRequest { tenant: None, ..mine.clone() },
        ListRequest { kind: Some("page".into()), ..mine.clone() },
        // The same texts in other columns.
        ListRequest { tenant: None, kind: Some("t1".into()), ..mine.clone() },
        ListRequest { from: Some(1), ..mine.clone() },
        ListRequest { order: Order::Ascending, ..mine },
    ] {
        assert!(matches!(with(foreign), Err(ListError::Cursor)));
    }
}

#[test]
fn one_listing_too_many_is_told_so_and_the_others_go_on() {
    let fixture = Fixture::new();
    let request = ListRequest { limit: 1, ..ListRequest::default() };
    let empty = snapshot(Vec::new(), Vec::new());
    let places: Vec<_> = (0..LISTINGS_MAX).map(|_| fixture.lister.place().unwrap()).collect();
    assert!(matches!(fixture.lister.page(&request, &empty), Err(ListError::Busy { .. })));
    drop(places);
    assert!(fixture.lister.page(&request, &empty).unwrap().next_cursor.is_none());
}

#[test]
fn the_columns_of_the_model_are_those_of_the_table() {
    let events = batch(&[Event::new(MOMENT, 1)]);
    for (column, field) in crate::schema::COLUMNS.iter().zip(events.schema().fields()) {
        assert_eq!(column.name, field.name());
        assert!(column.kind != Kind::Text || field.data_type() == &Kind::Text.arrow());
    }
}
