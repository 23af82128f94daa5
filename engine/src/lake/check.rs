//! Looking at the checksums of data files: before a query reads one, and in `verify`.
//!
//! **Guarantees.** A file passes [`check_outside`] only when it is as long as the log says and its
//! footer, page headers and Bloom filters are what was written; the footer is compared before it is
//! parsed. Page bodies carry checksums of their own that every reader looks at
//! (see [`seal`](super::seal)). [`check_whole`] finds every changed byte.
//!
//! **Not guaranteed.** Anything about files that others have written: they have no checksums in
//! their names. Only their length is compared, and only by [`check_whole`].
//!
//! **Roles.** Query workers and one thread of the engine call [`Checked::damaged_of`]; the roller
//! calls [`Checked::trust`]; listings call [`Checked::problem_of`].
//!
//! **Memory.** About 100 bytes a file that has been checked, and with promoted columns as much for
//! each whose columns were looked at.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::delta::DataFile;
use super::error::{LakeError, Result};
use super::seal::{MAGIC, PageReader, TAIL_BYTES, read_at};
use super::{footer, location};
use crate::promoted::{Lacking, TableColumns};

/// How much of a file is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Compares everything in `file` that is no page body with what was written.
///
/// # Errors
///
/// [`LakeError::Damaged`], or [`LakeError::Io`] when it cannot be read.
pub fn check_outside(file: &DataFile) -> Result<()> {
    let Some(sums) = location::sums_in(&file.path) else { return Ok(()) };
    let path = &*file.local;
    let opened = open(file)?;
    let problem = |problem: &str| LakeError::damaged(path, problem);
    let footer = footer_bytes(&opened, file)?;
    if crc32c::crc32c(&footer) != sums.footer {
        return Err(problem("has a footer that is not what was written"));
    }
    let metadata = &footer[..footer.len() - TAIL_BYTES];
    let metadata =
        ParquetMetaDataReader::decode_metadata(metadata).map_err(LakeError::parquet(path))?;
    let footer_at = file.bytes - footer.len() as u64;
    if headers_crc(&opened, path, &metadata, footer_at)? != Some(sums.headers) {
        return Err(problem("has page headers or filters that are not what was written"));
    }
    Ok(())
}

/// Compares every byte of `file` with what was written.
///
/// # Errors
///
/// [`LakeError::Damaged`], or [`LakeError::Io`] when it cannot be read.
pub fn check_whole(file: &DataFile) -> Result<()> {
    let path = &*file.local;
    let opened = open(file)?;
    let Some(sums) = location::sums_in(&file.path) else { return Ok(()) };
    let mut buffer = vec![0; READ_BYTES];
    let (mut at, mut crc) = (0, 0);
    while at < file.bytes {
        let left = usize::try_from(file.bytes - at).unwrap_or(usize::MAX);
        let part = &mut buffer[..READ_BYTES.min(left)];
        read_at(&opened, part, at).map_err(LakeError::io("read", path))?;
        crc = crc32c::crc32c_append(crc, part);
        at += part.len() as u64;
    }
    if crc != sums.whole {
        return Err(LakeError::damaged(path, "has bytes that are not what was written"));
    }
    Ok(())
}

/// Opens a file that is as long as the log says.
fn open(file: &DataFile) -> Result<File> {
    let path = &*file.local;
    let opened = File::open(path).map_err(LakeError::io("open", path))?;
    let bytes = opened.metadata().map_err(LakeError::io("look at", path))?.len();
    if bytes != file.bytes {
        let said = file.bytes;
        return Err(LakeError::damaged(path, format!("has {bytes} bytes, the log says {said}")));
    }
    Ok(opened)
}

/// The footer with its length and the closing magic.
fn footer_bytes(opened: &File, file: &DataFile) -> Result<Vec<u8>> {
    let path = &*file.local;
    let damaged = || LakeError::damaged(path, "does not end as a Parquet file does");
    let tail_at = file.bytes.checked_sub(TAIL_BYTES as u64).ok_or_else(damaged)?;
    let mut tail = [0; TAIL_BYTES];
    read_at(opened, &mut tail, tail_at).map_err(LakeError::io("read", path))?;
    let [a, b, c, d, magic @ ..] = tail;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if magic != *MAGIC || length > tail_at - (MAGIC.len() as u64).min(tail_at) {
        return Err(damaged());
    }
    let mut footer = vec![0; usize::try_from(length).map_err(|_| damaged())? + TAIL_BYTES];
    read_at(opened, &mut footer, tail_at - length).map_err(LakeError::io("read", path))?;
    Ok(footer)
}

/// The CRC32C of what lies before `footer_at` and is no page body; `None` when the pages do not lie
/// as the footer says.
fn headers_crc(
    opened: &File,
    path: &Path,
    metadata: &ParquetMetaData,
    footer_at: u64,
) -> Result<Option<u32>> {
    let mut part = vec![0; MAGIC.len()];
    read_at(opened, &mut part, 0).map_err(LakeError::io("read", path))?;
    let mut crc = crc32c::crc32c(&part);
    let mut at = part.len() as u64;
    for group in metadata.row_groups() {
        for chunk in group.columns() {
            let (start, length) = chunk.byte_range();
            if start != at || length > footer_at - at.min(footer_at) {
                return Ok(None);
            }
            at += length;
            let mut pages = PageReader::new(opened, start, at);
            while let Some(page) = pages.next_header().map_err(LakeError::io("read", path))? {
                let Some(page) = page else { return Ok(None) };
                crc = crc32c::crc32c_append(crc, &page.bytes);
            }
        }
        for chunk in group.columns() {
            let Some(start) = chunk.bloom_filter_offset() else { continue };
            let length = u64::try_from(chunk.bloom_filter_length().unwrap_or(0));
            let (Ok(start), Ok(length)) = (u64::try_from(start), length) else { return Ok(None) };
            if start != at || length > footer_at - at.min(footer_at) {
                return Ok(None);
            }
            part.resize(usize::try_from(length).unwrap_or(0), 0);
            read_at(opened, &mut part, at).map_err(LakeError::io("read", path))?;
            crc = crc32c::crc32c_append(crc, &part);
            at += length;
        }
    }
    part.resize(usize::try_from(footer_at - at).unwrap_or(0), 0);
    read_at(opened, &mut part, at).map_err(LakeError::io("read", path))?;
    Ok(Some(crc32c::crc32c_append(crc, &part)))
}

/// The promoted ones among `columns` that `file` lacks.
fn lacking_in(file: &DataFile, columns: &TableColumns) -> Result<Lacking> {
    let metadata = footer::metadata(&open(file)?, &file.local)?;
    let fields = metadata.file_metadata().schema().get_fields();
    let has = |name: &str| fields.iter().any(|field| field.name() == name);
    let promoted = columns.promoted().iter().enumerate();
    let lacking = promoted.filter(|(_, column)| !has(&column.name));
    Ok(lacking.fold(0, |lacking, (number, _)| lacking | 1 << number))
}

/// A file that is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    /// Its name relative to the table's root.
    pub path: Arc<str>,
    /// Its partition, `YYYY-MM-DD`.
    pub date: Arc<str>,
    /// What is wrong with it, in one sentence without a full stop.
    pub problem: Arc<str>,
}

impl DamagedFile {
    fn of(file: &DataFile, problem: String) -> Self {
        let (path, date) = (Arc::clone(&file.path), Arc::clone(&file.date));
        Self { path, date, problem: problem.into() }
    }
}

/// What is known of a file.
#[derive(Debug)]
enum Known {
    /// It may be read.
    Sound,
    /// It must not be read.
    Damaged(DamagedFile),
    /// It may be read, but a query has met a page whose checksum is wrong. Those that do not need
    /// the page go on.
    BadPage(DamagedFile),
}

/// Which files of the table this process has checked, and what came of it.
#[derive(Debug, Default)]
pub struct Checked {
    files: Mutex<HashMap<Arc<str>, Known>>,
    /// Held by whoever checks files, so that two do not check the same.
    checking: Mutex<()>,
    /// Which promoted columns files lack.
    lacking: Mutex<HashMap<Arc<str>, Lacking>>,
    /// All files of this version are sound: nothing needs to be looked up. 0 before that.
    sound_version: AtomicU64,
}

impl Checked {
    /// Takes `files` for sound without a look: this process has just sealed them.
    pub fn trust(&self, files: impl IntoIterator<Item = Arc<str>>) {
        let mut known = self.known();
        known.extend(files.into_iter().map(|path| (path, Known::Sound)));
    }

    /// The damaged ones among `files`, the files of `version`, and those that cannot be read; those that
    /// have not been checked are checked now, newest first. `None` when `stop` said so in between.
    pub fn damaged_of(
        &self,
        version: u64,
        files: &[DataFile],
        stop: impl Fn() -> bool,
    ) -> Option<Vec<DamagedFile>> {
        // Relaxed: a hint that saves work; what was found is under the lock.
        if version != 0 && self.sound_version.load(Ordering::Relaxed) == version {
            return Some(Vec::new());
        }
        let unread = self.check_unknown(files, stop)?;
        let known = self.known();
        let find = |file: &DataFile| match known.get(&file.path) {
            Some(Known::Damaged(damaged)) => Some(damaged.clone()),
            _ => None,
        };
        let mut damaged: Vec<DamagedFile> = files.iter().filter_map(find).collect();
        damaged.extend(unread);
        if damaged.is_empty() {
            // Relaxed: as above.
            self.sound_version.store(version, Ordering::Relaxed);
        }
        Some(damaged)
    }

    /// Checks those of `files` that have not been. Returns the ones that could not be read, of which
    /// nothing is known afterwards either: what the disk or the limit of open files refuses now it may
    /// give the next time.
    fn check_unknown(
        &self,
        files: &[DataFile],
        stop: impl Fn() -> bool,
    ) -> Option<Vec<DamagedFile>> {
        let unknown = |known: &HashMap<_, _>, file: &&DataFile| !known.contains_key(&file.path);
        if !files.iter().any(|file| unknown(&self.known(), &file)) {
            return Some(Vec::new());
        }
        let mut unread = Vec::new();
        // The names of a day's files sort by time.
        let mut left: Vec<&DataFile> = {
            let known = self.known();
            files.iter().filter(|file| unknown(&known, file)).collect()
        };
        left.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        for file in left {
            if stop() {
                return None;
            }
            let _turn = self.checking.lock().unwrap_or_else(PoisonError::into_inner);
            if !unknown(&self.known(), &file) {
                continue;
            }
            let found = match check_outside(file) {
                Ok(()) => Known::Sound,
                Err(error) => {
                    let problem = crate::error::chain(&error);
                    if matches!(error, LakeError::Io { .. }) {
                        tracing::error!(problem, "a file of the table cannot be read now");
                        unread.push(DamagedFile::of(file, problem));
                        continue;
                    }
                    tracing::error!(problem, "a file of the table is damaged; it is not read");
                    Known::Damaged(DamagedFile::of(file, problem))
                }
            };
            self.known().insert(Arc::clone(&file.path), found);
        }
        Some(unread)
    }

    /// Which promoted ones among `columns` each of `files` lacks; nothing is known of those that are
    /// `damaged` or cannot be read, whose readers fail in their own way. Footers that have not been
    /// looked at are read now. `None` when `stop` said so in between.
    pub(crate) fn lacking_of(
        &self,
        columns: &TableColumns,
        files: &[DataFile],
        damaged: &[DamagedFile],
        stop: impl Fn() -> bool,
    ) -> Option<Vec<Lacking>> {
        if columns.promoted().is_empty() {
            return Some(vec![0; files.len()]);
        }
        let mut found = Vec::with_capacity(files.len());
        for file in files {
            let known = self.lacking().get(&file.path).copied();
            let lacking = match known {
                Some(known) => known,
                None if damaged.iter().any(|damaged| damaged.path == file.path) => 0,
                None if stop() => return None,
                None => match lacking_in(file, columns) {
                    Ok(lacking) => {
                        self.lacking().insert(Arc::clone(&file.path), lacking);
                        lacking
                    }
                    Err(_) => 0,
                },
            };
            found.push(lacking);
        }
        Some(found)
    }

    /// Notes that a page of one of `files` could not be read: the one that is at `local`.
    pub fn bad_page(&self, files: &[DataFile], local: &str) {
        let Some(file) = files.iter().find(|file| file.local.as_os_str() == local) else { return };
        let problem = format!("the file {local} of the table is damaged: a page cannot be read");
        tracing::error!(problem, "a query has met a damaged page");
        let mut known = self.known();
        if !matches!(known.get(&file.path), Some(Known::Damaged(_))) {
            known.insert(Arc::clone(&file.path), Known::BadPage(DamagedFile::of(file, problem)));
        }
    }

    /// What is wrong with `file` as a whole, if anything is; it is checked now unless it has been.
    pub fn problem_of(&self, file: &DataFile) -> Option<DamagedFile> {
        let unread = self.check_unknown(std::slice::from_ref(file), || false);
        match self.known().get(&file.path) {
            Some(Known::Damaged(damaged)) => Some(damaged.clone()),
            _ => unread?.pop(),
        }
    }

    /// Forgets files that are no part of the table any more.
    pub fn keep(&self, files: &[DataFile]) {
        let mut known = self.known();
        if known.len() > files.len() {
            let live: HashSet<&str> = files.iter().map(|file| &*file.path).collect();
            known.retain(|path, _| live.contains(&**path));
            self.lacking().retain(|path, _| live.contains(&**path));
        }
    }

    /// Every file that is known to be damaged.
    #[must_use]
    pub fn damaged(&self) -> Vec<DamagedFile> {
        let mut damaged: Vec<DamagedFile> = self
            .known()
            .values()
            .filter_map(|known| match known {
                Known::Sound => None,
                Known::Damaged(damaged) | Known::BadPage(damaged) => Some(damaged.clone()),
            })
            .collect();
        damaged.sort_by(|a, b| a.path.cmp(&b.path));
        damaged
    }

    fn lacking(&self) -> MutexGuard<'_, HashMap<Arc<str>, Lacking>> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
