//! Waiting until everything that came before has gone so far.
//!
//! **Guarantees.** A marker covers everything that was committed to a ring before the call: it
//! follows the events through every shard.
//!
//! **Roles.** Any thread; every call blocks, but not behind what has been failing for long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::error::Error;
use crate::hot::{FlusherState, Goal, Marker, Queue};
use crate::problem::Problem;
use crate::roller::RollerState;
use crate::shard::ShardState;

/// How long something may fail before those who wait for it are told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a waiting caller looks whether it is so.
pub(crate) const STUCK_LOOK: Duration = Duration::from_millis(500);

/// The way of markers.
#[derive(Debug)]
pub(crate) struct Markers {
    /// One a shard, in the order of `shards`.
    pub senders: Vec<Sender<Arc<Marker>>>,
    pub shards: Arc<[Arc<ShardState>]>,
    pub flusher: Arc<FlusherState>,
    pub roller: Arc<RollerState>,
    pub broken: Arc<Problem>,
}

impl Markers {
    /// Waits until everything before the call has come as far as `goal`.
    ///
    /// # Errors
    /// [`Error::Closed`] when the engine stops, [`Error::Broken`] and [`Error::Stuck`].
    pub fn reach(&self, goal: Goal) -> Result<(), Error> {
        let answer = self.send(goal)?;
        loop {
            match answer.recv_timeout(STUCK_LOOK) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Closed),
                Err(RecvTimeoutError::Timeout) => self.check_stuck(goal)?,
            }
        }
    }

    /// Waits until everything before the call is visible, at most for `limit`. Then, or when it is
    /// not going to be soon, what has come to the flusher is: at most `limit` more, through `queue`.
    pub fn show_within(&self, limit: Duration, queue: &Queue) {
        let shown = match self.send(Goal::Visible) {
            Ok(answer) => answer.recv_timeout(limit).is_ok(),
            Err(_) => false,
        };
        if !shown {
            let _ = queue.ask().recv_timeout(limit);
        }
    }

    /// Sends a marker through the shards; gives where its answer comes.
    fn send(&self, goal: Goal) -> Result<Receiver<()>, Error> {
        self.check_stuck(goal)?;
        let (marker, answer) = Marker::new(goal, self.senders.len());
        for (sender, shard) in self.senders.iter().zip(self.shards.iter()) {
            sender.send(Arc::clone(&marker)).map_err(|_| Error::Closed)?;
            shard.waker.wake();
        }
        Ok(answer)
    }

    /// Nobody waits for what has been failing for long, or for ever.
    fn check_stuck(&self, goal: Goal) -> Result<(), Error> {
        // Relaxed: statistics.
        let needs_roller = goal == Goal::Rolled
            || self.flusher.waits_for_roller.load(Ordering::Relaxed)
            || self.flusher.unshown.is_there();
        if needs_roller {
            self.check_roller()?;
        }
        self.check(self.flusher.problem.lasting(PATIENCE))
    }

    /// Nor for a roller that has been failing for long.
    ///
    /// # Errors
    /// [`Error::Broken`] and [`Error::Stuck`].
    pub fn check_roller(&self) -> Result<(), Error> {
        self.check(self.roller.problem.lasting(PATIENCE))
    }

    fn check(&self, lasting: Option<String>) -> Result<(), Error> {
        if let Some(problem) = self.broken.text() {
            return Err(Error::Broken { problem });
        }
        lasting.map_or(Ok(()), |problem| Err(Error::Stuck { problem }))
    }
}
