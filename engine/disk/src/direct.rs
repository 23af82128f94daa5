//! A file whose writes go to the medium at once, past the page cache.
//!
//! **Guarantees.** When [`Direct::write`] returns, the bytes are durable (`O_DSYNC`). Where the file
//! system allows it they also bypass the page cache (`O_DIRECT`): a log is read back after a crash
//! or not at all, and writing pages back costs more than writing.
//!
//! **Not guaranteed.** Random access: a write starts at 0 or inside what the one before covered.
//!
//! **Alignment.** `O_DIRECT` wants offset, length and memory in whole blocks. So a write takes the
//! bytes of its first block that are already there along, and fills its last block up with zeros.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Satisfies every common medium; where more is asked for, the page cache is used.
const BLOCK: usize = 4_096;

/// An open file; see the module.
#[derive(Debug)]
pub(crate) struct Direct {
    file: File,
    /// Whole blocks as they were written last, from the first aligned byte on; longer by a block
    /// than needed, so that there is one.
    blocks: Vec<u8>,
    /// Where in the file the first aligned byte lies.
    start: u64,
    /// How many bytes of `blocks` were asked for, without the zeros behind them.
    length: usize,
}

impl Direct {
    /// Opens `path` as `options` say, for writing.
    pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<Self> {
        let open = |options: &mut OpenOptions, flags: OFlags| {
            options.write(true).custom_flags(flags.bits().cast_signed()).open(path)
        };
        let file = match open(options, OFlags::DSYNC | OFlags::DIRECT) {
            // The file system knows no direct access.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // A refused open may have created the file.
                open(options.create_new(false).create(true), OFlags::DSYNC)?
            }
            opened => opened?,
        };
        Ok(Self { file, blocks: Vec::new(), start: 0, length: 0 })
    }

    /// Puts `bytes` on the medium, from `offset` on.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = offset - offset % BLOCK as u64;
        let kept = usize::try_from(offset - start).unwrap_or(BLOCK);
        let from = start.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let known = kept == 0 || from.is_some_and(|from| from + kept <= self.length);
        let Some(from) = from.filter(|_| known).or((kept == 0).then_some(0)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a write past the last one"));
        };

        let length = kept + bytes.len();
        let padded = length.next_multiple_of(BLOCK);
        let mut head = [0; BLOCK];
        let old = aligned(&self.blocks);
        head[..kept].copy_from_slice(&self.blocks[old + from..][..kept]);
        self.blocks.resize(padded + BLOCK, 0);
        let new = aligned(&self.blocks);
        let blocks = &mut self.blocks[new..new + padded];
        blocks[..kept].copy_from_slice(&head[..kept]);
        blocks[kept..length].copy_from_slice(bytes);
        blocks[length..].fill(0);
        (self.start, self.length) = (start, length);

        match self.file.write_all_at(blocks, start) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // Larger blocks are wanted: through the page cache then, still synced.
                let flags = rustix::fs::fcntl_getfl(&self.file)?;
                rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
                self.file.write_all_at(blocks, start)
            }
            outcome => outcome,
        }
    }

    /// Cuts the file to `length` bytes, durably. Nothing may be written afterwards.
    pub(crate) fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.sync_all()
    }
}

/// Index of the first byte of `memory` that lies at a block's border.
fn aligned(memory: &[u8]) -> usize {
    match memory.as_ptr().align_offset(BLOCK) {
        // Too short to have one: nothing is in it.
        border if border > memory.len() => 0,
        border => border,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The way of the log: every write starts where the one before ended, or a few bytes
        /// earlier, over its end mark.
        #[test]
        fn what_was_written_is_there(
            writes in prop::collection::vec((0_usize..20_000, 0_usize..60, any::<u8>()), 1..12),
            recycled in any::<bool>(),
        ) {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("file");
            let mut model = vec![0xEE; if recycled { 100_000 } else { 0 }];
            std::fs::write(&path, &model).unwrap();
            let mut file = Direct::open(&mut OpenOptions::new(), &path).unwrap();
            let mut end = 0;
            for (length, back, byte) in writes {
                let at = end - back.min(end);
                // Never before the start of what the last write covered.
                let at = at.max(usize::try_from(file.start).unwrap());
                end = at + length;
                file.write(&vec![byte; length], at as u64).unwrap();
                model.resize(model.len().max(end), 0);
                model[at..end].fill(byte);
                let padded = end.next_multiple_of(BLOCK);
                model.resize(model.len().max(padded), 0);
                model[end..padded].fill(0);
                prop_assert_eq!(&std::fs::read(&path).unwrap(), &model);
            }
        }
    }

    #[test]
    fn a_write_somewhere_else_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let mut file = Direct::open(OpenOptions::new().create_new(true), &path).unwrap();
        file.write(b"header", 0).unwrap();
        let error = file.write(b"frame", 5_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
