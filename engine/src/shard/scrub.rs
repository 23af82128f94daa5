//! Letting go of every byte of log that there is now, for an erase.
//!
//! The segments of the log hold erased events until the table holds everything in them, and their
//! blocks do when they are used again. On request the shard closes the open segment, gives all blocks
//! back to the file system once they are released instead of keeping some, and says when the last of
//! them has gone. What comes meanwhile goes into new files.

use std::sync::atomic::Ordering;

use super::Shard;

impl Shard {
    /// Begins what was asked for last, if it has not begun.
    pub(super) fn begin_scrub(&mut self) {
        // Relaxed: the number is all there is; the request waits for the answer in `end_scrub`.
        let wanted = self.state.scrub_wanted.load(Ordering::Relaxed);
        if wanted == self.scrubbing {
            return;
        }
        match self.log.retire(self.next_sequence) {
            Ok(()) => self.scrubbing = wanted,
            // It is tried again at the next turn.
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::debug!(shard = self.state.shard, error, "log segments stay for now");
            }
        }
        // Relaxed: statistics for whoever waits; nothing is handed over with it.
        self.state.scrub_begun.store(self.scrubbing, Ordering::Relaxed);
        self.publish_log_size();
    }

    /// Says so when the last segment from before the request has gone.
    pub(super) fn end_scrub(&self) {
        if !self.log.has_retired() {
            // Release: pairs with the Acquire load of who waits, who then looks at the directory.
            self.state.scrubbed.store(self.scrubbing, Ordering::Release);
        }
    }
}
