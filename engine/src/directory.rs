//! The data directory: who owns it, which node it is, and where things lie in it.
//!
//! ```text
//! <data>/lock         held by the one process that writes; says who that is
//! <data>/node         the generated node id
//! <data>/cursor.key   what listings sign their cursors with; for its owner's eyes only
//! <data>/salt         today's visitor salt; see `visitor.rs`
//! <data>/log/         segments, a directory a shard
//! <data>/events/      the Delta table (unless it lives elsewhere)
//! <data>/erasures/    what is to be erased, and which numbers were; see `erase`
//! <data>/retention.json  which numbers retention has taken out; see `retention`
//! <data>/exports/     export jobs and their files
//! <data>/webhooks/    who is sent events, and how far each is; for their owner's eyes only
//! <data>/quarantine/  bytes and batches set aside, each with a report
//! <data>/tmp/         DuckDB's spill files; emptied at start
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringlake_disk::{Disk, RealDisk, create_directories, create_directories_durably, write_file};

use crate::error::Error;
use crate::log;
use crate::secret;

/// Length of a generated node id. Twelve bytes are what DuckDB stores inside a string's own slot.
const NODE_ID_LENGTH: usize = 12;

/// An owned data directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    node: String,
    disk: Arc<dyn Disk>,
    /// Unlocked by `release`, or when dropped.
    lock: File,
}

impl Directory {
    /// Creates the directory when it is not there, and locks it.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process holds it, [`Error::Io`] otherwise.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_on(root, Arc::new(RealDisk))
    }

    /// The same on another disk than the operating system's.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn open_on(root: &Path, disk: Arc<dyn Disk>) -> Result<Self, Error> {
        let root = &std::path::absolute(root).map_err(Error::io("locate", root))?;
        create_directories_durably(&*disk, root)
            .map_err(Error::io("create the data directory", root))?;
        let root = root.canonicalize().map_err(Error::io("open the data directory", root))?;
        let lock = lock(&root)?;
        for name in ["log", "quarantine"] {
            let path = root.join(name);
            create_directories(&*disk, &path).map_err(Error::io("create", &path))?;
        }
        let node = read_or_make_node_id(&root, &*disk)?;
        disk.sync_directory(&root).map_err(Error::io("sync", &root))?;
        let directory = Self { root, node, disk, lock };
        directory.empty_temporary()?;
        Ok(directory)
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The node id: twelve lower-case hexadecimal digits.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The key of cursors, made when it is not there. Losing it makes old cursors invalid and nothing
    /// else, so a file that cannot be written, on a full disk say, is no error.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub(crate) fn cursor_key(&self) -> Result<secret::Key, Error> {
        let path = self.root.join("cursor.key");
        if let Some(key) = fs::read(&path).ok().and_then(|bytes| bytes.try_into().ok()) {
            return Ok(key);
        }
        let key = secret::random().map_err(Error::io("make", &path))?;
        let written = secret::draft(&path, &key).and_then(|draft| fs::rename(draft, &path));
        if let Err(error) = written {
            tracing::warn!(%error, "cursors of listings will be invalid after a restart");
        }
        Ok(key)
    }

    /// Where the logs are.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The log of one shard.
    #[must_use]
    pub fn shard_log(&self, shard: u32) -> PathBuf {
        self.log().join(shard.to_string())
    }

    /// Creates the logs of the first `shards` shards where they are missing. The names of all logs
    /// are durable afterwards, also of those that a killed process has left unsynced.
    ///
    /// # Errors
    /// When one cannot be created, or the names not be synced.
    pub fn create_shard_logs(&self, shards: u32) -> Result<(), Error> {
        for shard in 0..shards {
            let path = self.shard_log(shard);
            create_directories(&*self.disk, &path).map_err(Error::io("create", &path))?;
        }
        let log = self.log();
        self.disk.sync_directory(&log).map_err(Error::io("sync", &log))
    }

    /// What changes files in it.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where damaged bytes and refused batches go.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Where DuckDB spills.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Tells other processes how to reach the owner: `url` stands in the lock file.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn announce(&self, url: &str) -> Result<(), Error> {
        write_owner(&self.lock, &format!("{} at {url}", std::process::id()))
            .map_err(Error::io("write", self.root.join("lock")))
    }

    /// Lets another process have the directory; nothing may write to it from here on.
    pub(crate) fn release(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the data directory stays locked until the process ends");
        }
    }

    fn empty_temporary(&self) -> Result<(), Error> {
        let path = self.temporary();
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        fs::remove_dir_all(&path).map_err(Error::io("empty", &path))?;
        fs::create_dir(&path).map_err(Error::io("create", &path))
    }
}

/// Who holds the lock of `root`, if anybody does: its process id and, for a server, its URL.
#[must_use]
pub fn owner(root: &Path) -> Option<String> {
    let file = File::open(root.join("lock")).ok()?;
    match file.try_lock_shared() {
        Ok(()) => None,
        Err(_) => Some(read_owner(file)),
    }
}

/// The node id of a directory that exists.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn read_node(root: &Path) -> Result<String, Error> {
    let path = root.join("node");
    let text = fs::read_to_string(&path).map_err(Error::io("read the node id in", &path))?;
    parse_node(&text, path)
}

fn parse_node(text: &str, path: PathBuf) -> Result<String, Error> {
    let node = text.trim();
    if node.len() == NODE_ID_LENGTH && node.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(node.to_owned());
    }
    let problem = format!("holds no node id of {NODE_ID_LENGTH} hexadecimal digits");
    Err(Error::Format { path, problem })
}

fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Locked { path: root.into(), owner: read_owner(file) });
        }
        Err(TryLockError::Error(source)) => {
            return Err(Error::Io { action: "lock", path, source });
        }
    }
    // It is a courtesy to other processes; a full disk must not keep this one from starting.
    if let Err(error) = write_owner(&file, &std::process::id().to_string()) {
        tracing::warn!(path = %path.display(), %error, "cannot say who holds the lock");
    }
    Ok(file)
}

fn read_owner(mut file: File) -> String {
    let mut owner = String::new();
    match file.read_to_string(&mut owner) {
        Ok(_) if !owner.trim().is_empty() => owner.trim().to_owned(),
        _ => "unknown".into(),
    }
}

fn write_owner(mut file: &File, owner: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{owner}")
}

fn read_or_make_node_id(root: &Path, disk: &dyn Disk) -> Result<String, Error> {
    let path = root.join("node");
    match fs::read_to_string(&path) {
        Ok(text) => parse_node(&text, path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Under another id, what the table holds of the log already would come again.
            let node = if let Some(node) = log::node_of(&root.join("log"))? {
                tracing::warn!(node, path = %path.display(), "the node id was lost; the log has it");
                parse_node(&node, path.clone())?
            } else {
                let mut node = uuid::Uuid::new_v4().simple().to_string();
                node.truncate(NODE_ID_LENGTH);
                node
            };
            let line = format!("{node}\n");
            write_file(disk, &path, line.as_bytes()).map_err(Error::io("write", &path))?;
            Ok(node)
        }
        Err(source) => Err(Error::Io { action: "read", path, source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use arrow::array::RecordBatch;

    use super::*;
    use crate::log::{Identity, Log};
    use crate::schema::log_schema;

    #[test]
    fn a_directory_keeps_its_node_id() {
        let scratch = tempfile::tempdir().unwrap();
        let first = Directory::open(scratch.path()).unwrap().node().to_owned();
        assert_eq!(Directory::open(scratch.path()).unwrap().node(), first);
    }

    #[test]
    fn a_lost_node_id_is_found_in_the_log() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::open(scratch.path()).unwrap();
        directory.create_shard_logs(2).unwrap();
        let node = directory.node().to_owned();
        let identity = Identity { node: node.clone(), shard: 1, schema: log_schema() };
        let log = directory.log().join("1");
        let disk = Arc::clone(directory.disk());
        let mut log = Log::new(log, disk, identity, 1 << 20, Vec::new(), Vec::new()).unwrap();
        log.append(&RecordBatch::new_empty(log_schema()), 1).unwrap();
        drop((log, directory));
        fs::remove_file(scratch.path().join("node")).unwrap();
        assert_eq!(Directory::open(scratch.path()).unwrap().node(), node);
        assert_eq!(fs::read_to_string(scratch.path().join("node")).unwrap().trim(), node);
    }

    #[test]
    fn a_second_owner_is_told_who_the_first_one_is() {
        let scratch = tempfile::tempdir().unwrap();
        let first = Directory::open(scratch.path()).unwrap();
        first.announce("http://127.0.0.1:8080").unwrap();
        let Err(Error::Locked { owner: seen, .. }) = Directory::open(scratch.path()) else {
            panic!("the directory was locked twice");
        };
        assert_eq!(seen, format!("{} at http://127.0.0.1:8080", std::process::id()));
        assert_eq!(owner(scratch.path()), Some(seen));
        drop(first);
        assert_eq!(owner(scratch.path()), None);
    }
}
