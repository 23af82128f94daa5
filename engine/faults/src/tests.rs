//! The model against what is known of disks.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use ringlake_disk::{Access, Disk, write_file};

use super::*;

/// The contents of `name` in what a power cut now may leave; `None` where it is gone.
fn contents(disk: &TestDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let trace = disk.trace();
    let images = trace.after(trace.steps.len()).outcomes();
    images
        .iter()
        .map(|image| image.entries.get(Path::new(name)).map(|file| file.clone().unwrap().to_vec()))
        .collect()
}

#[test]
fn synced_bytes_under_a_synced_name_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    let mut file = disk.create(&scratch.path().join("a"), Access::Cached).unwrap();
    file.write_at(b"certain", 0).unwrap();
    file.sync().unwrap();
    disk.sync_directory(scratch.path()).unwrap();
    assert_eq!(contents(&disk, "a"), BTreeSet::from([Some(b"certain".to_vec())]));
}

#[test]
fn synced_bytes_without_a_synced_name_may_be_gone() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    let mut file = disk.create(&scratch.path().join("a"), Access::Cached).unwrap();
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(contents(&disk, "a"), BTreeSet::from([None, Some(b"bytes".to_vec())]));
}

#[test]
fn an_unsynced_write_is_there_up_to_any_sector() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("a"), [1; 600]).unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    disk.reopen(&scratch.path().join("a"), Access::Cached)
        .unwrap()
        .write_at(&[2; 900], 600)
        .unwrap();
    let expected = |lengths: &[(usize, u8)]| -> Vec<u8> {
        lengths.iter().flat_map(|(length, byte)| std::iter::repeat_n(*byte, *length)).collect()
    };
    let found: BTreeSet<_> = contents(&disk, "a").into_iter().flatten().collect();
    let all = BTreeSet::from([
        expected(&[(600, 1)]),
        expected(&[(600, 1), (900, 2)]),
        expected(&[(600, 1), (424, 2)]),
        expected(&[(600, 1), (424, 0), (476, 2)]),
        expected(&[(600, 1), (900, 0)]),
    ]);
    assert_eq!(found, all);
}

#[test]
fn a_write_whose_sync_failed_stays_doubtful_after_a_sync_that_succeeds() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("a"), "").unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    let mut file = disk.reopen(&scratch.path().join("a"), Access::Cached).unwrap();
    file.write_at(b"lost", 0).unwrap();
    disk.set_plan(|_, _| Fault::Fail(io::ErrorKind::Other));
    file.sync().unwrap_err();
    disk.clear_plan();
    // In another block: a write into the same one would write that again.
    file.write_at(b"kept", 5_000).unwrap();
    file.sync().unwrap();
    let found: BTreeSet<_> = contents(&disk, "a").into_iter().flatten().collect();
    let starts: BTreeSet<_> = found.iter().map(|content| content[..4].to_vec()).collect();
    assert_eq!(starts, BTreeSet::from([b"lost".to_vec(), vec![0; 4]]));
    assert!(found.iter().all(|content| content[5_000..] == *b"kept"));
    file.truncate(2).unwrap();
    let found: BTreeSet<_> = contents(&disk, "a").into_iter().flatten().collect();
    assert_eq!(found, BTreeSet::from([b"lo".to_vec(), b"\0\0".to_vec()]));
    file.write_at(b"new", 0).unwrap();
    file.sync().unwrap();
    let found: BTreeSet<_> = contents(&disk, "a").into_iter().flatten().collect();
    assert_eq!(found, BTreeSet::from([b"new".to_vec()]));
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("a"), "old").unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    disk.mark(1);
    write_file(&disk, &scratch.path().join("a"), b"new").unwrap();
    let old_or_new = BTreeSet::from([Some(b"new".to_vec()), Some(b"old".to_vec())]);
    assert_eq!(contents(&disk, "a"), old_or_new);
    disk.sync_directory(scratch.path()).unwrap();
    disk.mark(2);
    assert_eq!(contents(&disk, "a"), BTreeSet::from([Some(b"new".to_vec())]));

    let (states, tried) = disk.trace().states(0);
    assert!(tried > states.len(), "{tried} trees, {} of them distinct", states.len());
    for state in states {
        let content = state.image.entries[Path::new("a")].clone().unwrap();
        let new = *content == *b"new";
        assert!(new || (*content == *b"old" && state.promise == 1), "{state:?}");
    }
}

#[test]
fn a_removal_that_was_not_synced_is_undone_and_so_is_a_directory() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("a"), "back").unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    disk.remove(&scratch.path().join("a")).unwrap();
    disk.create_directory(&scratch.path().join("b")).unwrap();
    let mut file = disk.create(&scratch.path().join("b/c"), Access::Cached).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    disk.sync_directory(&scratch.path().join("b")).unwrap();
    assert_eq!(contents(&disk, "a"), BTreeSet::from([None, Some(b"back".to_vec())]));
    assert_eq!(contents(&disk, "b/c"), BTreeSet::from([None, Some(b"x".to_vec())]));
    assert!(disk.unrecorded().unwrap().is_empty());
}

#[test]
fn faults_do_what_they_say() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    let path = scratch.path().join("a");
    let mut file = disk.create(&path, Access::Cached).unwrap();
    disk.set_plan(|call, _| if call == Call::Write { Fault::Short } else { Fault::None });
    assert_eq!(file.write_at(b"12345678", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs::read(&path).unwrap(), b"1234");
    disk.set_plan(|_, _| Fault::FailAfterwards(io::ErrorKind::Other));
    disk.remove(&path).unwrap_err();
    assert!(!path.exists());
    assert!(disk.unrecorded().unwrap().is_empty());
}

#[test]
fn a_file_that_somebody_else_wrote_counts_as_written_when_it_is_synced() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = TestDisk::new(scratch.path()).unwrap();
    fs::write(scratch.path().join("a"), [7; 5_000]).unwrap();
    disk.sync_file(&scratch.path().join("a")).unwrap();
    disk.sync_directory(scratch.path()).unwrap();
    assert_eq!(contents(&disk, "a"), BTreeSet::from([Some(vec![7; 5_000])]));
    let (states, _) = disk.trace().states(0);
    let lengths: BTreeSet<usize> = states
        .iter()
        .filter_map(|state| state.image.entries.get(Path::new("a")))
        .map(|file| file.as_ref().unwrap().len())
        .collect();
    assert!(lengths.len() > 5, "{lengths:?}");
}

#[test]
fn an_image_is_put_into_a_directory_and_read_back() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("d")).unwrap();
    fs::write(scratch.path().join("d/e"), "content").unwrap();
    let image = Image::read(scratch.path(), &|_| false).unwrap();
    let copy = tempfile::tempdir().unwrap();
    image.write(copy.path()).unwrap();
    assert_eq!(Image::read(copy.path(), &|_| false).unwrap(), image);
    assert_eq!(FileSystem::holding(&image).current(), image);
    assert_eq!(Image::read(copy.path(), &|path| path.ends_with("e")).unwrap().entries.len(), 1);
}
