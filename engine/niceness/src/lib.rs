//! Who goes first when a core is short: answers, then what brings their events to the table, then
//! whatever can wait, queries as well.
//!
//! A serving loop and its shard spend part of every batch waiting for the disk. The flusher and the
//! roller run in these gaps, and yield to them when all want a core at once. They must not yield as
//! much as queries do: a query that never ends takes from them what they are short of, and with
//! the weight of one it slowed a saturated machine to half of its events, at these numbers to three
//! quarters.
//!
//! **Turns.** Weights say how much of a core a thread gets, not how soon. Linux lets a thread that has
//! begun its turn finish it, three milliseconds as a rule, however little its weight is: the hash of a
//! wrong key that got the core while a shard waited for the disk kept it from the shard afterwards, and
//! half of all requests took milliseconds. So what is not on the way of events has turns of a tenth of a
//! millisecond, which Linux grants since 6.12. Their end is seen at the next tick of the clock or when
//! somebody wakes, so that beside a hash that never ends half of the requests still took 2 ms. Only an
//! idle thread is put aside at once; that is what hashes are. The flusher and the roller keep their long
//! turns: short ones cost a bulk load 2 % of its events.
//!
//! **Bounds.** Flusher and roller cannot starve: when the queue is full shards wait, rings fill and
//! requests wait for room, which leaves the core to them. What is behind the events can, as long as
//! all cores are busy: small files stay for longer, and queries run into their timeout. Where one core
//! is all there is and never at rest, a hash of 20 ms takes 3 to 6 s, at a tenth of the weight as well as
//! at none; where the disk gives it a rest, a fraction of a second.

#![deny(unsafe_code)]

/// Whom a thread lets go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Those that answer requests: the flusher and the roller have half of their weight.
    Answers,
    /// All others, for hashes of keys: they get what nobody else wants, and a little.
    Everybody,
    /// The flusher and the roller too: one 35th of their weight.
    Events,
}

impl Behind {
    /// As `nice` counts; Linux does not ask an idle thread.
    #[cfg(target_os = "linux")]
    fn niceness(self) -> i32 {
        match self {
            Self::Answers => 3,
            Self::Events | Self::Everybody => 19,
        }
    }
}

/// Puts the calling thread `behind` others. Linux has a niceness for each thread; elsewhere there is one
/// for the process, which is left as it is.
pub fn step(behind: Behind) {
    #[cfg(not(target_os = "linux"))]
    let _ = behind;
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::step(behind) {
        tracing::debug!(%error, "a background thread runs like any other");
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call that no safe library has")]
mod linux {
    use std::io;
    use std::mem::zeroed;

    use super::Behind;

    /// A short turn: the shortest that Linux grants.
    const SHORT_NANOS: u64 = 100_000;
    /// A turn as all others have it.
    const USUAL: u64 = 0;
    /// The usual policy, and that of threads that are put aside for whoever wakes.
    const SCHED_OTHER: u32 = libc::SCHED_OTHER.cast_unsigned();
    const SCHED_IDLE: u32 = libc::SCHED_IDLE.cast_unsigned();

    pub(crate) fn step(behind: Behind) -> io::Result<()> {
        // SAFETY: numbers, for all of which zero will do: the policy is the usual one then.
        let mut attributes: libc::sched_attr = unsafe { zeroed() };
        attributes.size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
        attributes.sched_nice = behind.niceness();
        // For the usual policy this is the length of a turn; before 6.12 it says nothing.
        (attributes.sched_policy, attributes.sched_runtime) = match behind {
            Behind::Answers => (SCHED_OTHER, USUAL),
            Behind::Events => (SCHED_OTHER, SHORT_NANOS),
            Behind::Everybody => (SCHED_IDLE, USUAL),
        };
        // SAFETY: 0 is the calling thread, and the kernel reads as much of `attributes` as its size says.
        match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
        use super::*;

        fn now() -> (u32, i32, u64) {
            // SAFETY: as above.
            let mut attributes: libc::sched_attr = unsafe { zeroed() };
            let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap();
            // SAFETY: the kernel writes no more than `size` bytes.
            let read =
                unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
            assert_eq!(read, 0, "{}", io::Error::last_os_error());
            (attributes.sched_policy, attributes.sched_nice, attributes.sched_runtime)
        }

        #[test]
        fn a_thread_steps_behind_and_the_others_stay() {
            let before = now();
            for behind in [Behind::Answers, Behind::Events, Behind::Everybody] {
                let after = std::thread::spawn(move || {
                    step(behind).unwrap();
                    now()
                });
                let (policy, niceness, turn) = after.join().unwrap();
                let is_idle = behind == Behind::Everybody;
                assert_eq!(policy, if is_idle { SCHED_IDLE } else { SCHED_OTHER });
                assert!(is_idle || niceness == behind.niceness(), "{behind:?}: {niceness}");
                // Older systems say nothing of turns.
                assert!(turn <= SHORT_NANOS || behind != Behind::Events, "{behind:?}: {turn} ns");
            }
            assert_eq!(now(), before);
        }
    }
}
