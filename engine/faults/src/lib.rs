//! For tests: a disk that fails on request, and what a power cut may leave of what it did.
//!
//! [`TestDisk`] works on a real directory. It writes down every operation, and before each asks the
//! test whether to let it succeed. [`Trace`] is what was written down; for every point in it
//! [`Trace::states`] gives what a power cut there may leave behind, each as an [`Image`] that can be
//! put into a directory and opened.
//!
//! **The model.** What was synced stays. Of the rest, for each file and each directory on its own:
//! nothing; everything; what lies before or behind any one sector border; the new length with zeros
//! in it; a later write without an earlier one. Names that were created, linked,
//! renamed or removed and not synced may each have happened or not, whatever happened to the others.
//! After a failed sync a write is never certain again: the page cache may hold it and call it clean,
//! so that a later sync succeeds without writing it. This is more than any one file system does.
//!
//! **Not in the model.** Synced bytes that change; a sector that is written half; directories that
//! are removed or renamed (nobody does).
//!
//! **Limits.** Up to [`NAMES_ALL`] unsynced names are combined in every way; of more, each is tried
//! alone, missing alone, and in order. One file's outcomes are combined with nothing and with
//! everything of the others: files are read on their own, so that their mixtures add nothing.

#![forbid(unsafe_code)]

mod check;
mod disk;
mod image;
mod model;
mod outcomes;
mod trace;

pub use check::{Seen, check_all, scratch};
pub use disk::{Call, Fault, TestDisk};
pub use image::Image;
pub use model::FileSystem;
pub use outcomes::NAMES_ALL;
pub use trace::{State, Step, Trace};

#[cfg(test)]
mod tests;
