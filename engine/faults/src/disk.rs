//! A real directory whose every change is recorded and may be made to fail.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlake_disk::{Access, Disk, DiskFile, RealDisk};

use crate::image::Image;
use crate::model::FileSystem;
use crate::trace::{Step, Trace};

/// What a write in blocks rewrites, at least.
const BLOCK: u64 = 4_096;

/// What the engine asks of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the trait's methods")]
pub enum Call {
    Create,
    Reopen,
    CreateDirectory,
    Link,
    Rename,
    Remove,
    SyncFile,
    SyncDirectory,
    Write,
    Sync,
    Truncate,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It succeeds.
    None,
    /// Nothing happens, and an error is reported. After a failed sync nothing is certain.
    Fail(io::ErrorKind),
    /// It happens, and an error is reported all the same. Bytes are never certain then.
    FailAfterwards(io::ErrorKind),
    /// Half of the bytes are written, then there is no room left. Other calls just fail.
    Short,
}

/// Decides what becomes of a call on a path relative to the root.
type Plan = Box<dyn FnMut(Call, &Path) -> Fault + Send>;

/// A recording, faulty disk over a real directory. Clones are the same disk.
#[derive(Clone)]
pub struct TestDisk {
    root: PathBuf,
    /// Paths that are none of the disk's business.
    ignored: fn(&Path) -> bool,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    start: FileSystem,
    system: FileSystem,
    steps: Vec<Step>,
    plan: Option<Plan>,
}

impl fmt::Debug for TestDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestDisk").field("root", &self.root).finish_non_exhaustive()
    }
}

impl TestDisk {
    /// A disk over the directory `root`, in which everything is certain.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn new(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let system = FileSystem::holding(&Image::read(&root, &|_| false)?);
        Ok(Self::resume(&root, system))
    }

    /// A disk over the directory `root`, which holds what `system` says.
    #[must_use]
    pub fn resume(root: &Path, system: FileSystem) -> Self {
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let shared = Shared { start: system.clone(), system, steps: Vec::new(), plan: None };
        Self { root, ignored: |_| false, shared: Arc::new(Mutex::new(shared)) }
    }

    /// The same disk without an eye on the paths that `ignored` knows: they are written by others,
    /// and nothing rests on them.
    #[must_use]
    pub fn ignoring(mut self, ignored: fn(&Path) -> bool) -> Self {
        self.ignored = ignored;
        self
    }

    /// What was done so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let shared = self.lock();
        Trace { start: shared.start.clone(), steps: shared.steps.clone() }
    }

    /// Makes the promise `number`: what it stands for has to survive every later power cut.
    pub fn mark(&self, number: usize) {
        self.lock().steps.push(Step::Mark(number));
    }

    /// Asks `plan` about every call from now on.
    pub fn set_plan(&self, plan: impl FnMut(Call, &Path) -> Fault + Send + 'static) {
        self.lock().plan = Some(Box::new(plan));
    }

    /// Lets every call succeed from now on.
    pub fn clear_plan(&self) {
        self.lock().plan = None;
    }

    /// The paths at which the directory is not what the recorded calls have made of it: somebody
    /// went past the trait there.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn unrecorded(&self) -> io::Result<Vec<PathBuf>> {
        let shared = self.lock();
        Ok(Image::read(&self.root, &self.ignored)?.differences(&shared.system.current()))
    }

    /// The lock also keeps the order of the steps that of what really happened.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `path` relative to the root; `None` for what lies outside, which is not recorded.
    fn relative(&self, path: &Path) -> Option<PathBuf> {
        let settled = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => parent.canonicalize().ok()?.join(name),
            _ => path.to_owned(),
        };
        settled.strip_prefix(&self.root).ok().map(Path::to_owned)
    }

    /// Does `real` unless the plan is against it, and records `step` when it was done.
    fn call<T>(
        &self,
        call: Call,
        path: &Path,
        real: impl FnOnce() -> io::Result<T>,
        step: impl FnOnce(&mut Shared, PathBuf),
    ) -> io::Result<T> {
        let Some(path) = self.relative(path) else { return real() };
        let mut shared = self.lock();
        let fault = shared.decide(call, &path);
        match fault {
            Fault::Fail(kind) => return Err(kind.into()),
            Fault::Short => return Err(io::ErrorKind::StorageFull.into()),
            Fault::None | Fault::FailAfterwards(_) => {}
        }
        let done = real()?;
        step(&mut shared, path);
        match fault {
            Fault::FailAfterwards(kind) => Err(kind.into()),
            _ => Ok(done),
        }
    }

    /// Files that were written beside `path` without this disk, as Parquet is: they count as created and
    /// written just now.
    fn note_strangers(&self, path: &Path) -> io::Result<()> {
        let Some(directory) = path.parent().filter(|_| self.relative(path).is_some()) else {
            return Ok(());
        };
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let Some(relative) = self.relative(&entry.path()) else { continue };
            if entry.file_type()?.is_file() && !(self.ignored)(&relative) {
                self.lock().known(&relative, &entry.path())?;
            }
        }
        Ok(())
    }

    fn open(&self, inner: Box<dyn DiskFile>, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let reader = File::open(path)?;
        let Some(path) = self.relative(path) else { return Ok(inner) };
        let file = self.lock().system.file(&path);
        let Some(file) = file else { return Ok(inner) };
        Ok(Box::new(TestFile { disk: self.clone(), inner, file, path, reader }))
    }
}

impl Shared {
    fn decide(&mut self, call: Call, path: &Path) -> Fault {
        self.plan.as_mut().map_or(Fault::None, |plan| plan(call, path))
    }

    fn record(&mut self, step: Step) {
        self.system.apply(&step);
        self.steps.push(step);
    }

    /// The number of the file at `path`. One that nobody has created here was written by somebody
    /// else: it counts as created and written just now.
    fn known(&mut self, path: &Path, real: &Path) -> io::Result<usize> {
        if let Some(file) = self.system.file(path) {
            return Ok(file);
        }
        let bytes: Arc<[u8]> = std::fs::read(real)?.into();
        let file = self.system.next_file();
        self.record(Step::Create { path: path.to_owned(), file });
        self.record(Step::Write { file, offset: 0, bytes });
        Ok(file)
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.note_strangers(path)?;
        let inner = self.call(
            Call::Create,
            path,
            || RealDisk.create(path, access),
            |shared, path| {
                let file = shared.system.next_file();
                shared.record(Step::Create { path, file });
            },
        )?;
        self.open(inner, path)
    }

    fn reopen(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.call(Call::Reopen, path, || RealDisk.reopen(path, access), |_, _| {})?;
        if let Some(relative) = self.relative(path) {
            self.lock().known(&relative, path)?;
        }
        self.open(inner, path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.call(
            Call::CreateDirectory,
            path,
            || RealDisk.create_directory(path),
            |shared, path| shared.record(Step::CreateDirectory { path }),
        )
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let Some(relative) = self.relative(from) else { return RealDisk.link(from, to) };
        self.call(
            Call::Link,
            to,
            || RealDisk.link(from, to),
            |shared, to| shared.record(Step::Link { from: relative, to }),
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let Some(relative) = self.relative(from) else { return RealDisk.rename(from, to) };
        self.call(
            Call::Rename,
            to,
            || RealDisk.rename(from, to),
            |shared, to| shared.record(Step::Rename { from: relative, to }),
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(
            Call::Remove,
            path,
            || RealDisk.remove(path),
            |shared, path| {
                // What was never synced here was never written down either.
                if shared.system.file(&path).is_some() {
                    shared.record(Step::Remove { path });
                }
            },
        )
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let Some(relative) = self.relative(path) else { return RealDisk.sync_file(path) };
        let mut shared = self.lock();
        let file = shared.known(&relative, path)?;
        match shared.decide(Call::SyncFile, &relative) {
            Fault::None => {
                RealDisk.sync_file(path)?;
                shared.record(Step::Sync { file });
                Ok(())
            }
            fault => shared.fail_sync(file, fault),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.call(
            Call::SyncDirectory,
            path,
            || RealDisk.sync_directory(path),
            |shared, path| shared.record(Step::SyncDirectory { path }),
        )
    }
}

impl Shared {
    fn fail_sync(&mut self, file: usize, fault: Fault) -> io::Result<()> {
        let kind = match fault {
            Fault::Fail(kind) | Fault::FailAfterwards(kind) => kind,
            Fault::None | Fault::Short => io::ErrorKind::StorageFull,
        };
        self.record(Step::SyncFailed { file });
        Err(kind.into())
    }
}

/// An open file of a [`TestDisk`].
#[derive(Debug)]
struct TestFile {
    disk: TestDisk,
    inner: Box<dyn DiskFile>,
    file: usize,
    /// The name under which it was opened, relative to the root.
    path: PathBuf,
    /// Shows what a write has really changed.
    reader: File,
}

impl TestFile {
    fn write(&mut self, shared: &mut Shared, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)?;
        // A write in whole blocks takes what is already in the first one along, and fills the last.
        let start = offset - offset % BLOCK;
        let end = (offset + bytes.len() as u64).next_multiple_of(BLOCK);
        let end = end.min(self.reader.metadata()?.len());
        let mut written = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        self.reader.read_exact_at(&mut written, start)?;
        let offset = usize::try_from(start).map_err(io::Error::other)?;
        shared.record(Step::Write { file: self.file, offset, bytes: written.into() });
        Ok(())
    }
}

impl DiskFile for TestFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let disk = self.disk.clone();
        let mut shared = disk.lock();
        match shared.decide(Call::Write, &self.path) {
            Fault::None => self.write(&mut shared, bytes, offset),
            Fault::Fail(kind) => Err(kind.into()),
            Fault::FailAfterwards(kind) => {
                self.write(&mut shared, bytes, offset)?;
                shared.record(Step::SyncFailed { file: self.file });
                Err(kind.into())
            }
            Fault::Short => {
                self.write(&mut shared, &bytes[..bytes.len() / 2], offset)?;
                Err(io::ErrorKind::StorageFull.into())
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let disk = self.disk.clone();
        let mut shared = disk.lock();
        match shared.decide(Call::Sync, &self.path) {
            Fault::None => {
                self.inner.sync()?;
                shared.record(Step::Sync { file: self.file });
                Ok(())
            }
            fault => shared.fail_sync(self.file, fault),
        }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let disk = self.disk.clone();
        let mut shared = disk.lock();
        match shared.decide(Call::Truncate, &self.path) {
            Fault::None => {
                self.inner.truncate(length)?;
                let length = usize::try_from(length).map_err(io::Error::other)?;
                shared.record(Step::Length { file: self.file, length });
                shared.record(Step::Sync { file: self.file });
                Ok(())
            }
            fault => shared.fail_sync(self.file, fault),
        }
    }
}
