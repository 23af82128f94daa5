//! What a power cut may leave of a [`FileSystem`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::Image;
use crate::model::{Certainty, Change, FileState, FileSystem, Node};

/// Unsynced names up to which every combination is tried.
pub const NAMES_ALL: usize = 4;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// What the page cache writes at a time.
const PAGE: usize = 4_096;
/// Writes up to this long are torn at every sector.
const SECTORS_BYTES_MAX: usize = 16 << 10;
/// Places at which a longer write is torn, at most.
const TEARS_MAX: usize = 16;

/// The contents that a file may have, without and with everything unsynced first.
type Contents = Vec<Arc<[u8]>>;

impl FileSystem {
    /// Every tree that a power cut now may leave; see the limits of the crate.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Image> {
        let contents: Vec<Contents> = self.files.iter().map(FileState::outcomes).collect();
        let mut seen = BTreeSet::new();
        let mut images = Vec::new();
        for kept in self.name_choices() {
            let tree = self.tree(&kept);
            let unsure: BTreeSet<usize> = tree
                .values()
                .filter_map(|file| file.filter(|file| contents[*file].len() > 1))
                .collect();
            let mut choose = |varied: Option<(usize, usize)>, others: usize| {
                let choice = |file: usize| match varied {
                    Some((varied, content)) if varied == file => content,
                    _ => others.min(contents[file].len() - 1),
                };
                let image = image(&tree, |file| Arc::clone(&contents[file][choice(file)]));
                if seen.insert(image.fingerprint()) {
                    images.push(image);
                }
            };
            for others in [0, 1] {
                choose(None, others);
                for &file in &unsure {
                    for content in 0..contents[file].len() {
                        choose(Some((file, content)), others);
                    }
                }
            }
        }
        images
    }

    /// Which of the unsynced changes of names are kept, for each outcome.
    fn name_choices(&self) -> Vec<Vec<bool>> {
        let count: usize = self.directories.iter().map(|directory| directory.changes.len()).sum();
        let mut choices = Vec::new();
        if count <= NAMES_ALL {
            for number in 0..1_u32 << count {
                choices.push((0..count).map(|bit| number >> bit & 1 == 1).collect());
            }
            return choices;
        }
        for at in 0..count {
            choices.push((0..count).map(|index| index < at).collect());
            choices.push((0..count).map(|index| index == at).collect());
            choices.push((0..count).map(|index| index != at).collect());
        }
        choices.push(vec![true; count]);
        choices
    }

    /// The names that there are when of all changes, directory by directory, those of `kept`
    /// happened; a file is given by its number.
    fn tree(&self, kept: &[bool]) -> BTreeMap<PathBuf, Option<usize>> {
        let mut kept = kept.iter();
        let names: Vec<BTreeMap<OsString, Node>> = self
            .directories
            .iter()
            .map(|directory| {
                let mut names = directory.base.clone();
                for change in &directory.changes {
                    if kept.next() == Some(&true) {
                        change.apply(&mut names);
                    }
                }
                names
            })
            .collect();
        let mut tree = BTreeMap::new();
        collect(&names, 0, Path::new(""), &mut tree);
        tree
    }
}

fn collect(
    names: &[BTreeMap<OsString, Node>],
    directory: usize,
    path: &Path,
    tree: &mut BTreeMap<PathBuf, Option<usize>>,
) {
    for (name, node) in &names[directory] {
        let path = path.join(name);
        match node {
            Node::File(file) => drop(tree.insert(path, Some(*file))),
            Node::Directory(below) => {
                tree.insert(path.clone(), None);
                collect(names, *below, &path, tree);
            }
        }
    }
}

fn image(tree: &BTreeMap<PathBuf, Option<usize>>, content: impl Fn(usize) -> Arc<[u8]>) -> Image {
    let entries = tree.iter().map(|(path, file)| (path.clone(), file.map(&content))).collect();
    Image { entries }
}

impl FileState {
    fn outcomes(&self) -> Contents {
        if self.changes.is_empty() {
            return vec![Arc::clone(&self.base)];
        }
        let unsure: Vec<usize> = (0..self.changes.len())
            .filter(|index| self.changes[*index].1 != Certainty::Certain)
            .collect();
        let mut found = Contents::new();
        let mut add = |happened: &dyn Fn(usize) -> Option<Change>| {
            let mut content = self.base.to_vec();
            for (index, (change, certainty)) in self.changes.iter().enumerate() {
                let change = match certainty {
                    Certainty::Certain => Some(change.clone()),
                    _ => happened(index),
                };
                if let Some(change) = change {
                    change.apply(&mut content);
                }
            }
            if !found.iter().any(|known| **known == *content) {
                found.push(content.into());
            }
        };
        let whole = |index: usize| Some(self.changes[index].0.clone());
        add(&|_| None);
        add(&whole);
        for &last in &unsure {
            // Up to a change, that one torn.
            for part in torn(&self.changes[last].0) {
                add(&|index| match index.cmp(&last) {
                    std::cmp::Ordering::Less => whole(index),
                    std::cmp::Ordering::Equal => Some(part.clone()),
                    std::cmp::Ordering::Greater => None,
                });
            }
            add(&|index| (index <= last).then(|| whole(index)).flatten());
            // One alone, and all but one.
            add(&|index| (index == last).then(|| whole(index)).flatten());
            add(&|index| (index != last).then(|| whole(index)).flatten());
        }
        found
    }
}

/// The ways in which a change may have happened in part.
fn torn(change: &Change) -> Vec<Change> {
    let Change::Write { offset, bytes } = change else { return Vec::new() };
    let end = offset + bytes.len();
    let step = match bytes.len() {
        0..=SECTORS_BYTES_MAX => SECTOR,
        length => (length / TEARS_MAX).next_multiple_of(PAGE),
    };
    let first_border = (offset + 1).next_multiple_of(SECTOR);
    let mut parts = Vec::new();
    for border in (first_border..end).step_by(step) {
        let (before, behind) = bytes.split_at(border - offset);
        parts.push(Change::Write { offset: *offset, bytes: before.into() });
        parts.push(Change::Write { offset: border, bytes: behind.into() });
    }
    // The length without the bytes; what was there before stays.
    parts.push(Change::Write { offset: end, bytes: Arc::from([]) });
    parts
}
