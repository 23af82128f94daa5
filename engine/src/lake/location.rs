//! The place of the table: its directory, the names of its files, and their durability.
//!
//! **Guarantees.** [`Location::sync_file`] and [`Location::sync_directories`] return only when the
//! file and every directory entry that leads to it from the table's root are on the medium. Names
//! of data files are unique (a version 7 UUID) and say which node wrote them.
//!
//! **Layout**
//!
//! ```text
//! <root>/_delta_log/00000000000000000000.json …
//! <root>/date=2026-11-21/<node>-<uuid>-<checksums>.parquet
//! ```
//!
//! A file that is being written has no checksums in its name yet.
//!
//! **Roles.** Any thread; every call blocks. Calls may come from inside an async runtime only where
//! blocking is allowed.

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, mpsc};

use futures_util::TryStreamExt;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path};
use ringlake_disk::{Disk, RealDisk, create_directories, create_directories_durably};
use tokio::runtime::{Builder, Handle, Runtime};
use url::Url;
use uuid::Uuid;

use super::error::{LakeError, Result};
use super::seal::Sums;
use super::store::DiskStore;
use crate::schema::PARTITION;

/// Directory of the table below the data directory when nothing else is configured.
pub const DEFAULT_DIRECTORY: &str = "events";
/// Longest node id in bytes: a file name of 255 bytes must also hold the UUID and the suffix.
pub const NODE_MAX_BYTES: usize = 100;
/// Threads that serve the table's input and output. A checkpoint waits inside one of them for work
/// on another.
const IO_THREADS: usize = 2;
/// Threads for single operations on files, which never wait for each other. tokio would start one
/// for each operation of a commit, 50 and more, and each keeps some memory of its own.
const FILE_THREADS: usize = 8;
/// How the names of data files end.
const SUFFIX: &str = ".parquet";
/// Length of a UUID in its hyphenated form.
const UUID_BYTES: usize = 36;

/// Where the table lives. Clones share everything.
#[derive(Debug, Clone)]
pub struct Location {
    /// The table's directory: absolute, without symbolic links in the part that existed when the
    /// location was made.
    root: Arc<Path>,
    /// The same as a URL that ends in a slash.
    url: Url,
    /// The same as the name of an object.
    prefix: path::Path,
    /// The machine's objects.
    files: DiskStore,
    /// The table's objects, with names relative to its root.
    store: Arc<PrefixStore<DiskStore>>,
    io: Arc<IoThreads>,
}

impl Location {
    /// Where the table lives: `lake` is a path or a `file://` URL, and `<data>/events` when absent.
    /// Nothing is created.
    ///
    /// # Errors
    ///
    /// [`LakeError::Scheme`] for any other URL, [`LakeError::Place`] for a path that is no possible
    /// directory, [`LakeError::Io`] when the file system or the input and output threads fail.
    pub fn parse(lake: Option<&str>, data: &Path) -> Result<Self> {
        let path = match lake {
            None => data.join(DEFAULT_DIRECTORY),
            Some(text) => local_path(text)?,
        };
        let root = settle(&path)?;
        let place = |problem: &str| LakeError::Place {
            location: root.display().to_string(),
            problem: problem.to_owned(),
        };
        let url = Url::from_directory_path(&root)
            .map_err(|()| place("it is not a path that a URL can express"))?;
        let prefix =
            path::Path::from_url_path(url.path()).map_err(|source| place(&source.to_string()))?;
        let files = DiskStore::new(Arc::new(RealDisk));
        Ok(Self {
            root: root.into(),
            url,
            store: Arc::new(PrefixStore::new(files.clone(), prefix.clone())),
            prefix,
            files,
            io: Arc::new(IoThreads::start()?),
        })
    }

    /// The same place on another disk than the operating system's.
    #[must_use]
    pub fn with_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.files = DiskStore::new(disk);
        self.store = Arc::new(PrefixStore::new(self.files.clone(), self.prefix.clone()));
        self
    }

    /// The table's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The table's URL; it ends in a slash.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// A name for a new data file of `node` in the partition `date` (`YYYY-MM-DD`), relative to the
    /// table's root.
    #[must_use]
    pub fn new_data_file(&self, node: &str, date: &str) -> path::Path {
        let name = format!("{node}-{}{SUFFIX}", Uuid::now_v7());
        path::Path::from_iter([format!("{PARTITION}={date}"), name])
    }

    /// Gives the written file `path`, a name of [`Location::new_data_file`], its final name, which
    /// carries `sums`. Its directory has to be synced afterwards.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`]; the file keeps its name then.
    pub(super) fn name_sealed(&self, path: &path::Path, sums: Sums) -> Result<path::Path> {
        let sealed = path.as_ref().trim_end_matches(SUFFIX);
        let sealed = path::Path::from(format!("{sealed}-{sums}{SUFFIX}"));
        let (old, new) = (self.local(path), self.local(&sealed));
        self.disk().rename(&old, &new).map_err(LakeError::io("rename", old))?;
        Ok(sealed)
    }

    /// The local path of the table's object `path`, for readers that open files themselves.
    #[must_use]
    pub fn local(&self, path: &path::Path) -> PathBuf {
        path.parts().fold(self.root.to_path_buf(), |local, part| local.join(part.as_ref()))
    }

    /// The size of the object `path` in bytes.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`], also when there is no such object.
    pub fn size(&self, path: &path::Path) -> Result<u64> {
        let (store, wanted) = (Arc::clone(&self.store), path.clone());
        let head = self.io.wait(async move { store.head(&wanted).await });
        Ok(head.map_err(LakeError::store("look at", path))?.size)
    }

    /// Puts a written file on the medium.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`]; the file must then not be committed.
    pub fn sync_file(&self, path: &path::Path) -> Result<()> {
        let local = self.local(path);
        self.disk().sync_file(&local).map_err(LakeError::io("sync", local))
    }

    /// Puts the directory entries that lead from the table's root to `path` on the medium. The
    /// entries above the root are [`Location::create`]'s concern.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`]; the file must then not be committed.
    pub fn sync_directories(&self, path: &path::Path) -> Result<()> {
        let mut directory = self.local(path);
        while directory.pop() && directory.starts_with(&self.root) {
            self.sync_directory(&directory)?;
        }
        Ok(())
    }

    /// Puts the entries of `directory` on the medium.
    pub(super) fn sync_directory(&self, directory: &Path) -> Result<()> {
        self.disk()
            .sync_directory(directory)
            .map_err(LakeError::io("sync the directory", directory))
    }

    /// Creates the table's directory with everything above it where it is missing. Its name and
    /// those above it are durable afterwards, whoever created them.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`].
    pub fn create(&self) -> Result<()> {
        create_directories_durably(self.disk(), &self.root)
            .map_err(LakeError::io("create", &*self.root))
    }

    /// Creates the partition that is to hold the data file `path` where it is missing.
    /// [`Location::sync_directories`] makes its name durable.
    ///
    /// # Errors
    ///
    /// [`LakeError::Io`].
    pub fn create_directory(&self, path: &path::Path) -> Result<()> {
        let mut directory = self.local(path);
        directory.pop();
        create_directories(self.disk(), &directory).map_err(LakeError::io("create", directory))
    }

    /// Everything in the table's directory, its log included.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`].
    pub fn list_all(&self) -> Result<Vec<ObjectMeta>> {
        self.list(None)
    }

    /// Data files that `node` has written, whether a commit names them or not.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`].
    pub fn data_files(&self, node: &str) -> Result<Vec<ObjectMeta>> {
        let mut files = self.list(None)?;
        files.retain(|file| is_data_file_of(&file.location, node));
        Ok(files)
    }

    /// The objects below `prefix`, or all of them.
    pub(super) fn list(&self, prefix: Option<path::Path>) -> Result<Vec<ObjectMeta>> {
        let store = Arc::clone(&self.store);
        let listed = prefix.clone().unwrap_or_default();
        self.io
            .wait(async move { store.list(prefix.as_ref()).try_collect().await })
            .map_err(LakeError::store("list the table's files below", format!("/{listed}")))
    }

    /// Removes the object `path`.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`]; an object that does not exist is not an error.
    pub fn remove(&self, path: &path::Path) -> Result<()> {
        let (store, doomed) = (Arc::clone(&self.store), path.clone());
        match self.io.wait(async move { store.delete(&doomed).await }) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(LakeError::store("remove", path)(source)),
        }
    }

    /// What changes the table's files.
    pub(super) fn disk(&self) -> &dyn Disk {
        self.files.disk()
    }

    /// The machine's objects, with absolute names.
    pub(super) fn files(&self) -> DiskStore {
        self.files.clone()
    }

    /// The runtime that does the table's input and output.
    pub(crate) fn runtime(&self) -> Handle {
        self.io.handle.clone()
    }
}

/// The threads behind a location. They outlive every clone of it and are let go without waiting,
/// because the last clone may be dropped on a thread that must not block.
#[derive(Debug)]
struct IoThreads {
    handle: Handle,
    /// Absent only while the threads are being let go.
    runtime: Option<Runtime>,
}

impl IoThreads {
    fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .max_blocking_threads(FILE_THREADS)
            .thread_name("ringlake-lake")
            .enable_all()
            .build()
            .map_err(LakeError::io("start threads for", "the table"))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Runs `task` on the threads and waits for it.
    fn wait<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // The receiver waits below for as long as the task runs.
            let _ = sender.send(task.await);
        });
        receiver.recv().expect("the runtime lives as long as self, and its tasks do not panic")
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whether `node` can be part of a file name and of a Delta application id.
///
/// # Errors
///
/// [`LakeError::Node`] when it cannot.
pub fn check_node(node: &str) -> Result<()> {
    let plain = node.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && (1..=NODE_MAX_BYTES).contains(&node.len()) {
        return Ok(());
    }
    Err(LakeError::Node { node: node.to_owned(), max: NODE_MAX_BYTES })
}

/// Whether `path` is a name that [`Location::new_data_file`] gives to files of `node`, or such a
/// name with checksums. What follows the node must be a UUID and nothing else, so that node `a`
/// never claims a file of node `a-b`.
pub(super) fn is_data_file_of(path: &path::Path, node: &str) -> bool {
    let mut parts = path.parts();
    let (Some(directory), Some(name), None) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let partition =
        directory.as_ref().strip_prefix(PARTITION).is_some_and(|rest| rest.starts_with('='));
    let id = name
        .as_ref()
        .strip_prefix(node)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    let id = id.map(|id| split_sums(id).map_or(id, |(id, _)| id));
    partition && id.is_some_and(|id| id.len() == UUID_BYTES && Uuid::try_parse(id).is_ok())
}

/// The checksums in the name of a data file; `None` when we have not sealed it.
pub(super) fn sums_in(path: &str) -> Option<Sums> {
    let stem = path.strip_suffix(SUFFIX)?;
    let (stem, sums) = split_sums(stem)?;
    let id = stem.get(stem.len().checked_sub(UUID_BYTES)?..)?;
    Uuid::try_parse(id).ok().map(|_| sums)
}

/// Separates checksums from what stands before them.
fn split_sums(stem: &str) -> Option<(&str, Sums)> {
    let (stem, digits) = stem.rsplit_once('-')?;
    Some((stem, Sums::parse(digits)?))
}

/// The path that a configured location names.
fn local_path(text: &str) -> Result<PathBuf> {
    let Some((scheme, _)) = text.split_once("://") else {
        return Ok(PathBuf::from(text));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(LakeError::Scheme { location: text.to_owned() });
    }
    let place = |problem: String| LakeError::Place { location: text.to_owned(), problem };
    let url = Url::parse(text).map_err(|source| place(source.to_string()))?;
    url.to_file_path().map_err(|()| place("the URL names no path on this machine".to_owned()))
}

/// Makes `path` absolute and resolves the symbolic links of what exists of it, so that the same
/// table always has the same URL.
fn settle(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(LakeError::io("locate", path))?;
    let mut existing = absolute.clone();
    let mut missing = Vec::new();
    loop {
        match fs::canonicalize(&existing) {
            Ok(mut settled) => {
                settled.extend(missing.iter().rev());
                return Ok(settled);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LakeError::io("locate", existing)(error)),
        }
        let Some(Component::Normal(name)) = existing.components().next_back() else {
            return Err(LakeError::Place {
                location: path.display().to_string(),
                problem: "it goes up from a directory that does not exist".to_owned(),
            });
        };
        missing.push(name.to_owned());
        existing.pop();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_missing_location_is_the_events_directory_below_the_data() {
        let data = tempfile::tempdir().unwrap();
        let location = Location::parse(None, data.path()).unwrap();
        let root = data.path().canonicalize().unwrap().join("events");
        assert_eq!(location.root(), root);
        assert_eq!(location.url().as_str(), format!("file://{}/", root.display()));
        assert!(!root.exists());
    }

    #[test]
    fn a_path_and_its_file_url_are_the_same_place() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("a lake");
        let by_path = Location::parse(path.to_str(), data.path()).unwrap();
        let url = Url::from_directory_path(&path).unwrap();
        let by_url = Location::parse(Some(url.as_str()), data.path()).unwrap();
        assert_eq!(by_path.url(), by_url.url());
        assert_eq!(by_path.root(), by_url.root());
    }

    #[test]
    fn object_storage_is_refused_with_a_sentence() {
        let error = Location::parse(Some("s3://bucket/events"), Path::new("/data")).unwrap_err();
        assert!(matches!(error, LakeError::Scheme { .. }), "{error}");
        assert!(error.to_string().contains("not supported yet"), "{error}");
    }

    #[test]
    fn links_on_the_way_to_the_table_are_resolved() {
        let data = tempfile::tempdir().unwrap();
        let target = data.path().join("target");
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, data.path().join("link")).unwrap();
        let location = Location::parse(None, &data.path().join("link")).unwrap();
        assert_eq!(location.root(), target.canonicalize().unwrap().join("events"));
    }

    #[test]
    fn a_data_file_belongs_to_the_node_whose_whole_id_it_carries() {
        let data = tempfile::tempdir().unwrap();
        let location = Location::parse(None, data.path()).unwrap();
        let file = location.new_data_file("a-b", "2026-11-21");
        assert!(file.as_ref().starts_with("date=2026-11-21/a-b-"));
        assert!(is_data_file_of(&file, "a-b"));
        assert!(!is_data_file_of(&file, "a"));
        assert!(!is_data_file_of(&file, "b"));
        assert!(!is_data_file_of(&path::Path::from("_delta_log/a-b.json"), "a-b"));
        let sums = Sums { whole: 0x0123_4567, headers: 0x89ab_cdef, footer: 7 };
        let sealed = file.as_ref().replace(".parquet", &format!("-{sums}.parquet"));
        assert!(sealed.ends_with("-0123456789abcdef00000007.parquet"), "{sealed}");
        assert_eq!((sums_in(&sealed), sums_in(file.as_ref())), (Some(sums), None));
        let sealed = path::Path::from(sealed);
        assert!(is_data_file_of(&sealed, "a-b") && !is_data_file_of(&sealed, "a"));
    }

    #[test]
    fn node_ids_that_could_not_be_file_names_are_refused() {
        for node in ["", "a/b", "a b", "ä", &"n".repeat(NODE_MAX_BYTES + 1)] {
            assert!(matches!(check_node(node), Err(LakeError::Node { .. })), "{node:?}");
        }
        check_node("0199f3c2-7d1e-7aaa-8000-000000000001").unwrap();
    }

    #[test]
    fn removing_what_does_not_exist_is_no_error() {
        let data = tempfile::tempdir().unwrap();
        let location = Location::parse(None, data.path()).unwrap();
        location.create().unwrap();
        location.remove(&location.new_data_file("n", "2026-11-21")).unwrap();
    }
}
