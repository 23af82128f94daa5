//! Jobs on the disk, and requests that are none.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use super::*;
use crate::promoted::TableColumns;

fn job(request: ExportRequest) -> Job {
    Job::new(request, &TableColumns::default(), 1_795_000_000_000_000).unwrap()
}

#[test]
fn a_description_gives_the_job_back() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path().join("exports")).unwrap();
    let mut first = job(ExportRequest {
        tenant: Some("t".into()),
        from: Some(-1),
        kind: Some("page".into()),
        columns: Some(vec!["id".into(), "date".into()]),
        format: ExportFormat::Csv,
        ..ExportRequest::default()
    });
    first.files.push(ExportFile { name: "a".into(), bytes: 1, rows: 2, sha256: "00".into() });
    store.save(&first).unwrap();
    fs::write(store.directory(&first.id).join("a"), "x").unwrap();
    let second = job(ExportRequest::default());
    store.save(&second).unwrap();
    let mut loaded = store.load().unwrap();
    loaded.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(loaded, [first.clone(), second]);
    store.remove(&first.id).unwrap();
    store.remove(&first.id).unwrap();
    assert_eq!(store.load().unwrap().len(), 1);
}

#[test]
fn an_interrupted_job_begins_again_and_fails_in_the_end() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path().join("exports")).unwrap();
    let mut running = job(ExportRequest::default());
    for restarts in 1..=RESTARTS_MAX + 1 {
        running.begin(now_micros());
        store.save(&running).unwrap();
        let directory = store.directory(&running.id);
        fs::write(directory.join("part-00001.parquet"), "half").unwrap();
        running = store.load().unwrap().remove(0);
        assert_eq!(running.restarts, restarts);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "only the description is left");
        let expected = if restarts > RESTARTS_MAX { Status::Failed } else { Status::Queued };
        assert_eq!(running.status, expected);
    }
    assert!(running.error.is_some() && running.expires_at.is_some());
}

#[test]
fn a_directory_without_a_description_goes_at_the_next_start() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path().join("exports")).unwrap();
    fs::create_dir(store.directory("0")).unwrap();
    fs::write(store.directory("0").join("job.json.partial"), "{").unwrap();
    assert!(store.load().unwrap().is_empty());
    assert!(!store.directory("0").exists());
}

#[test]
fn an_export_whose_description_cannot_be_read_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path().join("exports")).unwrap();
    let mut made = job(ExportRequest::default());
    made.end(now_micros(), None);
    store.save(&made).unwrap();
    let description = store.directory(&made.id).join("job.json");
    let text = fs::read(&description).unwrap();
    fs::write(&description, &text[..text.len() / 2]).unwrap();
    assert!(store.load().unwrap().is_empty());
    fs::write(&description, text).unwrap();
    assert_eq!(store.load().unwrap(), [made]);
}

#[test]
fn what_was_cancelled_does_not_come_back() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path().join("exports")).unwrap();
    let mut running = job(ExportRequest::default());
    running.begin(now_micros());
    store.save(&running).unwrap();
    store.cancel(&running.id).unwrap();
    // The thread that runs it may write it down once more.
    running.end(now_micros(), None);
    store.save(&running).unwrap();
    assert!(store.load().unwrap().is_empty());
    assert!(!store.directory(&running.id).exists());
    store.cancel(&running.id).unwrap();
    assert!(!store.directory(&running.id).exists());
}

#[test]
fn an_export_whose_files_are_gone_has_failed() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path().join("exports")).unwrap();
    let mut made = job(ExportRequest::default());
    made.files.push(ExportFile { name: "a".into(), bytes: 1, rows: 2, sha256: "00".into() });
    made.end(now_micros(), None);
    store.save(&made).unwrap();
    let found = store.load().unwrap().remove(0);
    assert_eq!((found.status, found.files.len()), (Status::Failed, 0));
    assert_eq!(store.load().unwrap(), [found]);
}

#[test]
fn the_end_of_a_range_is_the_moment_of_creation_at_the_latest() {
    let now = 1_000;
    let to = |from, to| {
        Job::new(
            ExportRequest { from, to, ..ExportRequest::default() },
            &TableColumns::default(),
            now,
        )
        .map(|job| job.request.to)
    };
    assert_eq!(to(None, None).unwrap(), Some(1_001));
    assert_eq!(to(None, Some(5_000)).unwrap(), Some(1_001));
    assert_eq!(to(None, Some(5)).unwrap(), Some(5));
    assert_eq!(to(Some(7_000), Some(8_000)).unwrap(), Some(1_001));
    assert!(matches!(to(Some(5), Some(5)), Err(ExportError::Range)));
}

#[test]
fn a_tenant_sees_its_own_jobs_only() {
    let of = |tenant: Option<&str>| {
        job(ExportRequest { tenant: tenant.map(str::to_owned), ..ExportRequest::default() })
    };
    assert!(of(Some("a")).is_visible_to(None) && of(Some("a")).is_visible_to(Some("a")));
    assert!(!of(Some("a")).is_visible_to(Some("b")) && !of(None).is_visible_to(Some("b")));
}
