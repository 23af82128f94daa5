//! Tests of records, and of which rows an erase takes.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use ringlake_disk::RealDisk;

use super::*;
use crate::hot::{logged, rows_of};

fn of(who: Who) -> Erasure {
    Erasure { tenant: "t".into(), who }
}

/// Which numbers of three tenants' events, in shard 2 from 11 on, go.
fn taken(who: Who, through: i64) -> Vec<i64> {
    let lines = [
        r#"{"event":"a","tenant":"t","user_id":"u"}"#,
        r#"{"event":"b","tenant":"x","user_id":"u"}"#,
        r#"{"event":"c","tenant":"t","user_id":"uu","anonymous_id":"u"}"#,
        r#"{"event":"d","tenant":"t"}"#,
        r#"{"event":"e","tenant":"t","user_id":"u"}"#,
    ];
    let batch = logged(2, 11, &lines.map(str::to_owned));
    let rows = rows_of("0123456789ab", &[batch]).unwrap();
    let selection = Selection {
        node: "0123456789ab".into(),
        erasure: of(who),
        through: BTreeMap::from([(2, through)]),
    };
    let doomed = selection.doomed(&rows[0]);
    let numbers = crate::lake::erase::numbers_of(&rows[0], &doomed);
    let other = Selection { node: "another".into(), ..selection };
    assert_eq!(other.doomed(&rows[0]).true_count(), 0, "each node erases what it has written");
    numbers.into_iter().map(|(_, number)| number).collect()
}

#[test]
fn an_erase_takes_the_rows_of_one_tenant_and_name_up_to_its_number() {
    assert_eq!(taken(Who::UserId("u".into()), 100), [11, 15]);
    assert_eq!(taken(Who::UserId("u".into()), 14), [11]);
    assert_eq!(taken(Who::AnonymousId("u".into()), 100), [13]);
    assert_eq!(taken(Who::UserId(String::new()), 100), [0_i64; 0]);
    assert_eq!(taken(Who::VisitorId(0), 100), [0_i64; 0], "no visitor is not visitor 0");
}

#[test]
fn numbers_are_joined_to_runs_and_count_once() {
    let mut record = Record::new("1".into(), of(Who::VisitorId(7)), BTreeMap::new(), 0);
    record.add(&[(0, 5), (1, 9), (0, 3), (0, 4)]);
    record.add(&[(0, 4), (0, 7), (1, 10)]);
    assert_eq!(record.gone[&0], [(3, 5), (7, 7)]);
    assert_eq!(record.gone[&1], [(9, 10)]);
    assert_eq!(record.events, 6);
    record.add(&[(0, 6)]);
    assert_eq!(record.gone[&0], [(3, 7)]);
}

#[test]
fn a_record_that_is_done_keeps_the_numbers_and_forgets_the_name() {
    let scratch = tempfile::tempdir().unwrap();
    let open = || Erasures::open(scratch.path(), Arc::new(RealDisk)).unwrap();
    let jobs = open();
    let name = "somebody@example.com";
    let job = jobs.add(of(Who::UserId(name.into())), BTreeMap::from([(0, 8)])).unwrap();
    assert_eq!((job.status, job.by.as_str()), (EraseStatus::Queued, "user_id"));
    let (mut record, removing) = open().begin(&job.id).unwrap();
    assert!(!removing && record.through == BTreeMap::from([(0, 8)]));
    record.add(&[(0, 3), (0, 4)]);
    jobs.save(&record).unwrap();
    let path = directory(scratch.path()).join(format!("{}.json", job.id));
    assert!(std::fs::read_to_string(&path).unwrap().contains(name));
    let during = erased(scratch.path()).unwrap();
    assert_eq!((during.gone[&0].as_slice(), during.done.len()), (&[3..=4][..], 0));

    jobs.finish(record).unwrap();
    for jobs in [jobs, open()] {
        let job = jobs.one(&job.id).unwrap();
        assert_eq!((job.status, job.events), (EraseStatus::Done, 2));
        assert_eq!(job.finished_at.unwrap().len(), "2026-11-22T00:00:00.000000Z".len());
        assert_eq!((jobs.pending().len(), jobs.all().len()), (0, 1));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(name), "{text}");
    assert_eq!(erased(scratch.path()).unwrap().done[&0], [3..=4]);

    let changed = text.replacen("[3,4]", "[3,5]", 1);
    assert_ne!(changed, text);
    std::fs::write(&path, changed).unwrap();
    let error = erased(scratch.path()).unwrap_err().to_string();
    assert!(error.contains("not what was written"), "{error}");
}
