//! The store against the promises of its trait, faults, and power cuts.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;

use futures_util::TryStreamExt;
use object_store::{ObjectStoreExt, PutPayload};
use ringlake_disk::RealDisk;
use ringlake_faults::{Call, Fault, TestDisk};
use tokio::runtime::Runtime;

use super::*;

/// A scratch directory, a disk over it, and a store on that disk.
struct Place {
    root: tempfile::TempDir,
    disk: TestDisk,
    store: DiskStore,
    runtime: Runtime,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let disk = TestDisk::new(root.path()).unwrap();
        let store = DiskStore::new(Arc::new(disk.clone()));
        Self { root, disk, store, runtime: Runtime::new().unwrap() }
    }

    fn object(&self, name: &str) -> ObjectPath {
        let root = self.root.path().canonicalize().unwrap();
        ObjectPath::from_absolute_path(root).unwrap().join(name)
    }

    fn put(&self, name: &str, bytes: &'static [u8], mode: PutMode) -> Result<PutResult> {
        let (object, payload) = (self.object(name), PutPayload::from_static(bytes));
        self.runtime.block_on(self.store.put_opts(&object, payload, PutOptions::from(mode)))
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let object = self.object(name);
        self.runtime
            .block_on(async { self.store.get(&object).await?.bytes().await })
            .unwrap()
            .into()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn only_old_staging_files_are_removed() {
    let place = Place::new();
    for name in ["1.json", "1.json#2", "2.json#1", "#1", "3.json#x", "3.json#"] {
        fs::write(place.root.path().join(name), "bytes").unwrap();
    }
    let hours = |hours| Duration::from_hours(hours);
    let old = std::time::SystemTime::now() - hours(2);
    for name in ["1.json", "1.json#2", "#1", "3.json#x", "3.json#"] {
        let file = fs::File::options().write(true).open(place.root.path().join(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    place.store.remove_staged(place.root.path(), hours(1));
    assert_eq!(place.names(), ["#1", "1.json", "2.json#1", "3.json#", "3.json#x"]);
}

#[test]
fn an_object_is_created_once_and_may_be_overwritten() {
    let place = Place::new();
    place.put("a", b"first", PutMode::Create).unwrap();
    let error = place.put("a", b"second", PutMode::Create).unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    assert_eq!(place.get("a"), b"first");
    place.put("a", b"third", PutMode::Overwrite).unwrap();
    assert_eq!(place.get("a"), b"third");
    assert_eq!(place.names(), ["a"]);
    assert!(place.disk.unrecorded().unwrap().is_empty());
}

#[test]
fn directories_are_made_on_the_way() {
    let place = Place::new();
    let root = place.root.path().canonicalize().unwrap();
    let object = ObjectPath::from_absolute_path(&root).unwrap().join("x").join("y").join("z");
    let put = place.store.put(&object, PutPayload::from_static(b"deep"));
    place.runtime.block_on(put).unwrap();
    assert_eq!(fs::read(root.join("x/y/z")).unwrap(), b"deep");
}

#[test]
fn an_object_in_parts_appears_when_it_is_complete() {
    let place = Place::new();
    let object = place.object("a");
    place.runtime.block_on(async {
        let mut upload = place.store.put_multipart(&object).await.unwrap();
        // The second part is written first.
        let (one, two) = (
            upload.put_part(PutPayload::from_static(b"one")),
            upload.put_part(PutPayload::from_static(b"two")),
        );
        two.await.unwrap();
        one.await.unwrap();
        assert!(place.store.head(&object).await.is_err());
        upload.complete().await.unwrap();
        assert!(upload.complete().await.is_err());

        let mut given_up = place.store.put_multipart(&object).await.unwrap();
        given_up.put_part(PutPayload::from_static(b"never")).await.unwrap();
        given_up.abort().await.unwrap();
    });
    assert_eq!(place.get("a"), b"onetwo");
    assert_eq!(place.names(), ["a"]);
}

#[test]
fn a_staging_file_that_a_crash_left_is_passed_over() {
    let place = Place::new();
    fs::write(place.root.path().join("a#1"), "half").unwrap();
    place.put("a", b"whole", PutMode::Create).unwrap();
    assert_eq!(place.get("a"), b"whole");
    let root = ObjectPath::from_absolute_path(place.root.path().canonicalize().unwrap()).unwrap();
    let listed = place.store.list(Some(&root)).try_collect::<Vec<_>>();
    assert_eq!(place.runtime.block_on(listed).unwrap().len(), 1);
}

#[test]
fn an_object_is_removed_once() {
    let place = Place::new();
    place.put("a", b"content", PutMode::Create).unwrap();
    let object = place.object("a");
    place.runtime.block_on(place.store.delete(&object)).unwrap();
    let error = place.runtime.block_on(place.store.delete(&object)).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

/// Whatever fails, the object is there whole or not at all, and nothing else is left behind.
#[test]
fn a_put_that_fails_leaves_no_part() {
    let calls = [Call::Create, Call::Write, Call::Sync, Call::Link, Call::SyncDirectory];
    for wrong in calls {
        let place = Place::new();
        let plan = move |call, _: &Path| if call == wrong { Fault::Short } else { Fault::None };
        place.disk.set_plan(plan);
        place.put("a", b"content", PutMode::Create).unwrap_err();
        let published = wrong == Call::SyncDirectory;
        assert_eq!(place.names(), if published { vec!["a"] } else { vec![] }, "{wrong:?}");
    }
}

#[test]
fn no_power_cut_leaves_a_part_or_takes_what_was_put() {
    let place = Place::new();
    place.put("a", b"first", PutMode::Create).unwrap();
    place.disk.mark(1);
    place.put("a", b"second", PutMode::Overwrite).unwrap();
    place.disk.mark(2);
    for state in place.disk.trace().states(0).0 {
        let content = state.image.entries.get(Path::new("a")).map(|file| file.clone().unwrap());
        let allowed: &[Option<&[u8]>] = match state.promise {
            0 => &[None, Some(b"first")],
            1 => &[Some(b"first"), Some(b"second")],
            _ => &[Some(b"second")],
        };
        assert!(allowed.contains(&content.as_deref()), "{}", place.disk.trace().story(&state));
    }
}

#[test]
fn the_operating_systems_files_are_written_the_same_way() {
    let root = tempfile::tempdir().unwrap();
    let store = DiskStore::new(Arc::new(RealDisk));
    let path = root.path().canonicalize().unwrap();
    let object = ObjectPath::from_absolute_path(&path).unwrap().join("a");
    let put = store.put(&object, PutPayload::from_static(b"content"));
    Runtime::new().unwrap().block_on(put).unwrap();
    assert_eq!(fs::read(path.join("a")).unwrap(), b"content");
}
