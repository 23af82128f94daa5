//! What was done to a directory, step by step, and what power cuts on the way may leave.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::image::Image;
use crate::model::FileSystem;

/// One thing that was done; paths are relative to the root, files are numbered.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Step {
    Create {
        path: PathBuf,
        file: usize,
    },
    CreateDirectory {
        path: PathBuf,
    },
    Write {
        file: usize,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Length {
        file: usize,
        length: usize,
    },
    Sync {
        file: usize,
    },
    SyncFailed {
        file: usize,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncDirectory {
        path: PathBuf,
    },
    /// The test has made its promise of this number: what it says must survive from here on.
    Mark(usize),
}

/// A recorded run.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What there was before the first step.
    pub start: FileSystem,
    /// What was done.
    pub steps: Vec<Step>,
}

/// What some power cut leaves, and what must be true of it.
#[derive(Debug, Clone)]
pub struct State {
    /// The tree.
    pub image: Image,
    /// The newest promise that had been made at the latest of the cuts that may leave this; 0 when
    /// none had.
    pub promise: usize,
    /// How many steps had been taken at that cut, for a failing test to tell.
    pub cut: usize,
}

impl Trace {
    /// The file system after the first `count` steps.
    #[must_use]
    pub fn after(&self, count: usize) -> FileSystem {
        let mut system = self.start.clone();
        for step in &self.steps[..count] {
            system.apply(step);
        }
        system
    }

    /// What power cuts before and after every step from number `from` on may leave. Trees that are
    /// equal are given once, with the strongest promise: promises must never take back an earlier
    /// one. With it how many trees there were before that.
    #[must_use]
    pub fn states(&self, from: usize) -> (Vec<State>, usize) {
        let mut states: BTreeMap<u64, State> = BTreeMap::new();
        let mut tried = 0;
        let mut system = self.start.clone();
        let mut promise = 0;
        for cut in 0..=self.steps.len() {
            if cut >= from {
                for image in system.outcomes() {
                    tried += 1;
                    let state = State { promise, cut, image };
                    states.insert(state.image.fingerprint(), state);
                }
            }
            match self.steps.get(cut) {
                Some(Step::Mark(number)) => promise = promise.max(*number),
                Some(step) => system.apply(step),
                None => {}
            }
        }
        (states.into_values().collect(), tried)
    }

    /// The steps before the cut of `state`, shortened, for a failing test to tell.
    #[must_use]
    pub fn story(&self, state: &State) -> String {
        let shown = 12;
        let steps = &self.steps[state.cut.saturating_sub(shown)..state.cut];
        let mut story = format!("power cut after {} steps, the last ones:\n", state.cut);
        for step in steps {
            let mut text = format!("{step:?}");
            if let Step::Write { file, offset, bytes } = step {
                text = format!("Write {{ file: {file}, offset: {offset}, {} bytes }}", bytes.len());
            }
            story.push_str(&format!("  {text}\n"));
        }
        story.push_str("what is left:\n");
        for (path, content) in &state.image.entries {
            let length =
                content.as_ref().map_or("directory".into(), |bytes| bytes.len().to_string());
            story.push_str(&format!("  {} {length}\n", path.display()));
        }
        story
    }
}
