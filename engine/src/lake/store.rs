//! The table's objects as files on a local disk.
//!
//! **Guarantees.** An object appears whole and durable or not at all: it is written and synced under
//! a staging name, gets its own name in one step, and that name is synced before a call returns
//! `Ok`. Of several [`PutMode::Create`] calls for one name at most one succeeds. Every change goes
//! through [`Disk`]; reading is `object_store`'s.
//!
//! **Failure.** A call that fails may have published the object all the same, when only the sync of
//! its name failed. A crash may leave a staging file, `<name>#<number>`; listings pass over it, and
//! [`DiskStore::remove_staged`] removes it once nobody can be writing it.
//!
//! **Roles.** The Delta library and [`super::Location`], on the location's threads.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use ringlake_disk::{Access, Disk, DiskFile, create_directories_durably};
use tokio::task::spawn_blocking;

/// Staging names that are tried; each one that is taken is left from a crash, or another writer's.
const STAGING_NAMES_MAX: u32 = 1_000;

/// What the trait's methods return.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The machine's files as objects. Clones share the disk.
#[derive(Debug, Clone)]
pub(super) struct DiskStore {
    disk: Arc<dyn Disk>,
    reader: Arc<LocalFileSystem>,
}

impl DiskStore {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, reader: Arc::new(LocalFileSystem::new()) }
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Removes the staging files in `directory` that nobody has written to for `age`. One that stays is
    /// in nobody's way, and an error is only logged.
    pub(super) fn remove_staged(&self, directory: &Path, age: Duration) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_staged(path)) {
            let modified = fs::metadata(&path).and_then(|about| about.modified());
            if !modified.is_ok_and(|at| at.elapsed().is_ok_and(|since| since >= age)) {
                continue;
            }
            match self.disk.remove(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what a crash had left"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a staging file stays")
                }
            }
        }
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a local disk")
    }
}

impl ObjectStore for DiskStore {
    fn put_opts<'s, 'l, 'f>(
        &'s self,
        location: &'l ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> Answer<'f, PutResult>
    where
        's: 'f,
        'l: 'f,
    {
        async move {
            let path = self.reader.path_to_filesystem(location)?;
            let disk = Arc::clone(&self.disk);
            spawn_blocking(move || {
                let mut staged = Staged::create(disk, path)?;
                staged.write(&payload, 0)?;
                match options.mode {
                    PutMode::Overwrite => staged.replace(),
                    PutMode::Create => staged.publish(),
                    PutMode::Update(_) => Err(unsupported("a conditional overwrite")),
                }
            })
            .await?
        }
        .boxed()
    }

    fn put_multipart_opts<'s, 'l, 'f>(
        &'s self,
        location: &'l ObjectPath,
        _options: PutMultipartOptions,
    ) -> Answer<'f, Box<dyn MultipartUpload>>
    where
        's: 'f,
        'l: 'f,
    {
        async move {
            let path = self.reader.path_to_filesystem(location)?;
            let staged = Staged::create(Arc::clone(&self.disk), path)?;
            let upload = Upload { staged: Arc::new(Mutex::new(Some(staged))), length: 0 };
            Ok(Box::new(upload) as Box<dyn MultipartUpload>)
        }
        .boxed()
    }

    fn get_opts<'s, 'l, 'f>(
        &'s self,
        location: &'l ObjectPath,
        options: GetOptions,
    ) -> Answer<'f, GetResult>
    where
        's: 'f,
        'l: 'f,
    {
        self.reader.get_opts(location, options)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let path = store.reader.path_to_filesystem(&location)?;
                    spawn_blocking(move || {
                        store.disk.remove(&path).map_err(failed(&path))?;
                        Ok(location)
                    })
                    .await?
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reader.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&ObjectPath>,
        offset: &ObjectPath,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reader.list_with_offset(prefix, offset)
    }

    fn list_with_delimiter<'s, 'l, 'f>(
        &'s self,
        prefix: Option<&'l ObjectPath>,
    ) -> Answer<'f, ListResult>
    where
        's: 'f,
        'l: 'f,
    {
        self.reader.list_with_delimiter(prefix)
    }

    fn copy_opts<'s, 'l, 'm, 'f>(
        &'s self,
        _from: &'l ObjectPath,
        _to: &'m ObjectPath,
        _options: CopyOptions,
    ) -> Answer<'f, ()>
    where
        's: 'f,
        'l: 'f,
        'm: 'f,
    {
        async { Err(unsupported("a copy")) }.boxed()
    }
}

/// Whether a file has a staging name, `<name>#<number>`.
fn is_staged(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.rsplit_once('#')).is_some_and(|(name, number)| {
        !name.is_empty() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// An object that has no name of its own yet; dropping it removes what there is.
#[derive(Debug)]
struct Staged {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Where its bytes are.
    staging: PathBuf,
    file: Box<dyn DiskFile>,
    /// The staging name is still there.
    unfinished: bool,
}

impl Staged {
    fn create(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self> {
        let mut number = 1;
        loop {
            let mut staging = path.clone().into_os_string();
            staging.push(format!("#{number}"));
            let staging = PathBuf::from(staging);
            match disk.create(&staging, Access::Cached) {
                Ok(file) => return Ok(Self { disk, path, staging, file, unfinished: true }),
                Err(error) => match (error.kind(), path.parent()) {
                    (io::ErrorKind::AlreadyExists, _) if number < STAGING_NAMES_MAX => number += 1,
                    (io::ErrorKind::NotFound, Some(parent)) if !parent.exists() => {
                        create_directories_durably(&*disk, parent).map_err(failed(parent))?;
                    }
                    _ => return Err(failed(&staging)(error)),
                },
            }
        }
    }

    fn write(&mut self, payload: &PutPayload, mut offset: u64) -> Result<()> {
        for chunk in payload {
            self.file.write_at(chunk, offset).map_err(failed(&self.staging))?;
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    /// Gives it its name, which must be free.
    fn publish(mut self) -> Result<PutResult> {
        self.file.sync().map_err(failed(&self.staging))?;
        self.disk.link(&self.staging, &self.path).map_err(failed(&self.path))?;
        self.sync_name()
    }

    /// Gives it its name, in place of any object there.
    fn replace(mut self) -> Result<PutResult> {
        self.file.sync().map_err(failed(&self.staging))?;
        self.disk.rename(&self.staging, &self.path).map_err(failed(&self.path))?;
        self.unfinished = false;
        self.sync_name()
    }

    fn sync_name(&self) -> Result<PutResult> {
        if let Some(parent) = self.path.parent() {
            self.disk.sync_directory(parent).map_err(failed(parent))?;
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.unfinished
            && let Err(error) = self.disk.remove(&self.staging)
        {
            tracing::debug!(path = %self.staging.display(), %error, "a staging file stays");
        }
    }
}

/// An object that comes in parts.
#[derive(Debug)]
struct Upload {
    /// Gone once the object is complete or given up.
    staged: Arc<Mutex<Option<Staged>>>,
    /// Bytes of the parts so far.
    length: u64,
}

impl Upload {
    fn take(&self) -> Option<Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.length;
        self.length += data.content_length() as u64;
        let staged = Arc::clone(&self.staged);
        async move {
            spawn_blocking(move || {
                let mut staged = staged.lock().unwrap_or_else(PoisonError::into_inner);
                staged.as_mut().ok_or_else(given_up)?.write(&data, offset)
            })
            .await?
        }
        .boxed()
    }

    fn complete<'s, 'f>(&'s mut self) -> Answer<'f, PutResult>
    where
        's: 'f,
    {
        let staged = self.take();
        async move { spawn_blocking(move || staged.ok_or_else(given_up)?.replace()).await? }.boxed()
    }

    fn abort<'s, 'f>(&'s mut self) -> Answer<'f, ()>
    where
        's: 'f,
    {
        drop(self.take());
        async { Ok(()) }.boxed()
    }
}

/// Says what happened to `path` in the store's terms.
fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: "disk", source: format!("{path}: {source}").into() },
    }
}

fn given_up() -> Error {
    Error::Generic { store: "disk", source: "the upload has ended".into() }
}

fn unsupported(what: &str) -> Error {
    Error::NotSupported { source: format!("{what} is not supported").into() }
}

#[cfg(test)]
mod tests;
