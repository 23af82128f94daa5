//! The contents of a directory tree at one moment.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directories and files by their path relative to the root of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Image {
    /// A file's bytes; `None` for a directory.
    pub entries: BTreeMap<PathBuf, Option<Arc<[u8]>>>,
}

impl Image {
    /// What is in the directory `root`, without the entries whose path `ignored` knows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(root: &Path, ignored: &dyn Fn(&Path) -> bool) -> io::Result<Self> {
        let mut image = Self::default();
        image.read_below(root, Path::new(""), ignored)?;
        Ok(image)
    }

    fn read_below(
        &mut self,
        root: &Path,
        below: &Path,
        ignored: &dyn Fn(&Path) -> bool,
    ) -> io::Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if ignored(&path) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.entries.insert(path.clone(), None);
                self.read_below(root, &path, ignored)?;
            } else {
                self.entries.insert(path, Some(fs::read(entry.path())?.into()));
            }
        }
        Ok(())
    }

    /// Puts everything into the directory `root`, which is created; it must not hold any of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(root)?;
        // A directory comes before what is in it.
        for (path, content) in &self.entries {
            match content {
                None => fs::create_dir(root.join(path))?,
                Some(bytes) => fs::write(root.join(path), bytes)?,
            }
        }
        Ok(())
    }

    /// A number that differs for images that differ, as far as tests are concerned.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// The paths whose entries differ from those of `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<PathBuf> {
        let all = self.entries.keys().chain(other.entries.keys());
        let mut paths: Vec<PathBuf> = all
            .filter(|path| self.entries.get(*path) != other.entries.get(*path))
            .cloned()
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }
}
