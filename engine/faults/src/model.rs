//! A file system that remembers what is certain and what only the page cache knows.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::image::Image;
use crate::trace::Step;

/// Names and contents, each with what a power cut may take from it. Paths are relative to its root.
#[derive(Debug, Clone)]
pub struct FileSystem {
    pub(crate) files: Vec<FileState>,
    /// The root is the first one.
    pub(crate) directories: Vec<DirectoryState>,
}

/// A name's target: an index into the files or the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    File(usize),
    Directory(usize),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FileState {
    /// What is certainly on the medium.
    pub base: Arc<[u8]>,
    /// What has been done since the first change that is not certain, in order.
    pub changes: Vec<(Change, Certainty)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Length(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// A sync makes it certain.
    Pending,
    /// A sync of it has failed: no later one makes it certain.
    Doubtful,
    Certain,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct DirectoryState {
    /// The names that are certain.
    pub base: BTreeMap<OsString, Node>,
    /// What has been done to names since, in order.
    pub changes: Vec<NameChange>,
}

#[derive(Debug, Clone)]
pub(crate) enum NameChange {
    Put(OsString, Node),
    Move(OsString, OsString),
    Delete(OsString),
}

impl Change {
    pub(crate) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

impl FileState {
    /// What the page cache says.
    pub(crate) fn current(&self) -> Vec<u8> {
        let mut content = self.base.to_vec();
        for (change, _) in &self.changes {
            change.apply(&mut content);
        }
        content
    }

    fn sync(&mut self) {
        if self.changes.iter().any(|(_, certainty)| *certainty == Certainty::Doubtful) {
            for (_, certainty) in &mut self.changes {
                if *certainty == Certainty::Pending {
                    *certainty = Certainty::Certain;
                }
            }
        } else {
            self.base = self.current().into();
            self.changes.clear();
        }
    }

    fn sync_failed(&mut self) {
        for (_, certainty) in &mut self.changes {
            if *certainty == Certainty::Pending {
                *certainty = Certainty::Doubtful;
            }
        }
    }
}

impl NameChange {
    pub(crate) fn apply(&self, names: &mut BTreeMap<OsString, Node>) {
        match self {
            Self::Put(name, node) => drop(names.insert(name.clone(), *node)),
            // The change that made the name may be missing.
            Self::Move(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Delete(name) => drop(names.remove(name)),
        }
    }
}

impl DirectoryState {
    /// The names as a running process sees them.
    pub(crate) fn current(&self) -> BTreeMap<OsString, Node> {
        let mut names = self.base.clone();
        for change in &self.changes {
            change.apply(&mut names);
        }
        names
    }
}

impl FileSystem {
    /// A file system in which everything of `image` is certain.
    ///
    /// # Panics
    /// When the image holds a file without its directory.
    #[must_use]
    pub fn holding(image: &Image) -> Self {
        let mut system = Self { files: Vec::new(), directories: vec![DirectoryState::default()] };
        for (path, content) in &image.entries {
            let node = match content {
                None => system.new_directory(),
                Some(bytes) => {
                    system.files.push(FileState { base: Arc::clone(bytes), changes: Vec::new() });
                    Node::File(system.files.len() - 1)
                }
            };
            let (directory, name) = system.parent(path).expect("directories come first");
            system.directories[directory].base.insert(name, node);
        }
        system
    }

    /// What a running process sees.
    #[must_use]
    pub fn current(&self) -> Image {
        let mut image = Image::default();
        self.collect(0, &PathBuf::new(), &mut image);
        image
    }

    fn collect(&self, directory: usize, path: &Path, image: &mut Image) {
        for (name, node) in self.directories[directory].current() {
            let path = path.join(name);
            match node {
                Node::File(file) => {
                    image.entries.insert(path, Some(self.files[file].current().into()));
                }
                Node::Directory(below) => {
                    image.entries.insert(path.clone(), None);
                    self.collect(below, &path, image);
                }
            }
        }
    }

    /// The number of the file that a running process finds at `path`.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<usize> {
        let (directory, name) = self.parent(path)?;
        match self.directories[directory].current().get(&name) {
            Some(Node::File(file)) => Some(*file),
            _ => None,
        }
    }

    /// The number that the next file gets.
    pub(crate) fn next_file(&self) -> usize {
        self.files.len()
    }

    /// Does what `step` says.
    ///
    /// # Panics
    /// When a step does not fit the steps before it.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Create { path, file } => {
                assert_eq!(*file, self.files.len(), "files are numbered in order");
                self.files.push(FileState::default());
                self.change_name(path, |name| NameChange::Put(name, Node::File(*file)));
            }
            Step::CreateDirectory { path } => {
                let node = self.new_directory();
                self.change_name(path, |name| NameChange::Put(name, node));
            }
            Step::Write { file, offset, bytes } => {
                let change = Change::Write { offset: *offset, bytes: Arc::clone(bytes) };
                self.files[*file].changes.push((change, Certainty::Pending));
            }
            Step::Length { file, length } => {
                self.files[*file].changes.push((Change::Length(*length), Certainty::Pending));
            }
            Step::Sync { file } => self.files[*file].sync(),
            Step::SyncFailed { file } => self.files[*file].sync_failed(),
            Step::Link { from, to } => {
                let file = self.file(from).expect("a file that is linked exists");
                self.change_name(to, |name| NameChange::Put(name, Node::File(file)));
            }
            Step::Rename { from, to } => {
                assert_eq!(from.parent(), to.parent(), "a rename stays in its directory");
                let from = from.file_name().map(OsStr::to_owned).expect("a file has a name");
                self.change_name(to, |to| NameChange::Move(from, to));
            }
            Step::Remove { path } => self.change_name(path, NameChange::Delete),
            Step::SyncDirectory { path } => {
                let directory = self.directory(path).expect("a directory that is synced exists");
                let state = &mut self.directories[directory];
                state.base = state.current();
                state.changes.clear();
            }
            Step::Mark(_) => {}
        }
    }

    fn new_directory(&mut self) -> Node {
        self.directories.push(DirectoryState::default());
        Node::Directory(self.directories.len() - 1)
    }

    fn change_name(&mut self, path: &Path, change: impl FnOnce(OsString) -> NameChange) {
        let (directory, name) = self.parent(path).expect("a name stands in a directory");
        self.directories[directory].changes.push(change(name));
    }

    fn parent(&self, path: &Path) -> Option<(usize, OsString)> {
        let directory = self.directory(path.parent()?)?;
        Some((directory, path.file_name()?.to_owned()))
    }

    fn directory(&self, path: &Path) -> Option<usize> {
        let mut directory = 0;
        for component in path.components() {
            let Component::Normal(name) = component else { return None };
            match self.directories[directory].current().get(name) {
                Some(Node::Directory(below)) => directory = *below,
                _ => return None,
            }
        }
        Some(directory)
    }
}
