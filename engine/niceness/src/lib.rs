//! Who goes first when a core is short: answers, queries that have only just begun and what these wait
//! for, then what brings the events to the table, then whatever can wait, long queries as well.
//!
//! A serving loop and its shard spend part of every batch waiting for the disk. The roller runs in
//! these gaps, and yields to them when all want a core at once. It must not yield as much as long
//! queries do: a query that never ends takes from it what it is short of, and with the weight of one it
//! slowed a saturated machine to half of its events, at these numbers to 0.7 of them. The flusher is one
//! of the former: it hands over what there is, and when it does more than that, somebody waits for it.
//!
//! **Turns.** Weights say how much of a core a thread gets, not how soon. Linux lets a thread that has
//! begun its turn finish it, three milliseconds as a rule, however little its weight is, and sees the end
//! of a turn at the next tick of its clock. Who wakes meanwhile goes first only with shorter turns, and
//! as long as he has not had more than his share. So loops and shards have turns of a tenth of a
//! millisecond, which Linux grants since 6.12, and the roller, which would run 4 or 5 ms beside a shard
//! that waits for its next sync, a share that is small enough: on one core at half of its load the 99th
//! percentile of answers (`perf latency`, single, synced) went from 11.8 ms to 9.7; either alone changed
//! nothing to speak of. At a tenth of the weight it was no less, and what it had not got to yet took 50
//! to 120 MB.
//! Queries have short turns as well: the hash of a wrong key that got the core while a shard waited for
//! the disk kept it from the shard afterwards, and half of all requests took milliseconds. An idle thread
//! is put aside for the shard at once; that is what hashes are. But the kernel's own thread that flushes
//! the disk may have to wait for it too, for 4 ms (seen in a trace), which is why wrong keys get little
//! time of it at all.
//!
//! **Bounds.** The roller cannot starve: when the queue is full shards wait, rings fill and
//! requests wait for room, which leaves the core to it. What is behind the events can, as long as
//! all cores are busy: small files stay for longer, and queries run into their timeout. Where one core
//! is all there is and never at rest, a hash of 20 ms takes 3 to 6 s, at a tenth of the weight as well as
//! at none; where the disk gives it a rest, a fraction of a second.

#![deny(unsafe_code)]

use std::time::Duration;

/// Whom a thread lets go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nobody, for those that answer: when they wake they need not wait for others' turns.
    Nobody,
    /// Those that answer requests: the roller has a quarter of their weight.
    Answers,
    /// All others, for hashes of keys: they get what nobody else wants, and a little.
    Everybody,
    /// The roller too: one 18th of its weight.
    Events,
}

impl Behind {
    /// As `nice` counts; `None` is that of the process. Linux does not ask an idle thread.
    #[cfg(target_os = "linux")]
    fn niceness(self) -> Option<i32> {
        match self {
            Self::Nobody => None,
            Self::Answers => Some(6),
            Self::Events | Self::Everybody => Some(19),
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

/// A thread as others see it: what it has had of the cores, and a way to put it behind.
#[derive(Debug, Clone, Copy)]
pub struct Runner {
    #[cfg(target_os = "linux")]
    thread: linux::Thread,
}

impl Runner {
    /// The calling thread.
    #[must_use]
    pub fn this() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            thread: linux::Thread::this(),
        }
    }

    /// How long it has run on any core since it began; nothing where that is not known, or once it has
    /// ended.
    #[must_use]
    pub fn time(&self) -> Option<Duration> {
        #[cfg(target_os = "linux")]
        return self.thread.time();
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Puts it `behind` others, as [`step`] does the calling thread. The caller knows that it still lives:
    /// its number may be that of another one afterwards.
    pub fn step(&self, behind: Behind) {
        #[cfg(not(target_os = "linux"))]
        let _ = behind;
        #[cfg(target_os = "linux")]
        if let Err(error) = self.thread.step(behind) {
            tracing::debug!(%error, "a thread that has run for long runs on like any other");
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "system calls that no safe library has")]
mod linux {
    use std::io;
    use std::mem::zeroed;
    use std::time::Duration;

    use super::Behind;

    /// A short turn: the shortest that Linux grants.
    const SHORT_NANOS: u64 = 100_000;
    /// A turn as all others have it.
    const USUAL: u64 = 0;
    /// The usual policy, and that of threads that are put aside for whoever wakes.
    const SCHED_OTHER: u32 = libc::SCHED_OTHER.cast_unsigned();
    const SCHED_IDLE: u32 = libc::SCHED_IDLE.cast_unsigned();

    /// Zero is the calling thread.
    pub(crate) fn step(behind: Behind) -> io::Result<()> {
        step_thread(0, behind)
    }

    /// The numbers by which the kernel knows a thread and its clock.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Thread {
        id: libc::pid_t,
        clock: Option<libc::clockid_t>,
    }

    impl Thread {
        pub(crate) fn this() -> Self {
            let mut clock = 0;
            // SAFETY: neither takes a pointer that outlives the call, and the calling thread lives.
            let (id, failed) = unsafe {
                (libc::gettid(), libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock))
            };
            Self { id, clock: (failed == 0).then_some(clock) }
        }

        pub(crate) fn time(self) -> Option<Duration> {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the kernel writes one `timespec`; it refuses a clock whose thread has ended.
            if unsafe { libc::clock_gettime(self.clock?, &raw mut time) } != 0 {
                return None;
            }
            let nanos = u32::try_from(time.tv_nsec).ok()?;
            Some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanos))
        }

        pub(crate) fn step(self, behind: Behind) -> io::Result<()> {
            step_thread(self.id, behind)
        }
    }

    fn step_thread(thread: libc::pid_t, behind: Behind) -> io::Result<()> {
        let mut attributes = now(thread)?;
        if let Some(niceness) = behind.niceness() {
            attributes.sched_nice = niceness;
        }
        // For the usual policy this is the length of a turn; before 6.12 it says nothing.
        (attributes.sched_policy, attributes.sched_runtime) = match behind {
            Behind::Answers => (SCHED_OTHER, USUAL),
            Behind::Nobody | Behind::Events => (SCHED_OTHER, SHORT_NANOS),
            Behind::Everybody => (SCHED_IDLE, USUAL),
        };
        // SAFETY: the kernel reads as much of `attributes` as its size says.
        match unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How a thread runs now.
    fn now(thread: libc::pid_t) -> io::Result<libc::sched_attr> {
        // SAFETY: numbers, for all of which zero will do.
        let mut attributes: libc::sched_attr = unsafe { zeroed() };
        let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
        // SAFETY: the kernel writes no more than `size` bytes.
        match unsafe {
            libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, 0)
        } {
            0 => Ok(attributes),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
        use std::sync::mpsc;

        use super::super::Runner;
        use super::*;

        fn now() -> (u32, i32, u64) {
            let now = super::now(0).unwrap();
            (now.sched_policy, now.sched_nice, now.sched_runtime)
        }

        #[test]
        fn a_thread_steps_behind_and_the_others_stay() {
            let before = now();
            for behind in [Behind::Nobody, Behind::Answers, Behind::Events, Behind::Everybody] {
                let after = std::thread::spawn(move || {
                    step(behind).unwrap();
                    now()
                });
                let (policy, niceness, turn) = after.join().unwrap();
                let is_idle = behind == Behind::Everybody;
                assert_eq!(policy, if is_idle { SCHED_IDLE } else { SCHED_OTHER });
                let expected = behind.niceness().unwrap_or(before.1);
                assert!(is_idle || niceness == expected, "{behind:?}: {niceness}");
                // Older systems say nothing of turns.
                let is_short = matches!(behind, Behind::Nobody | Behind::Events);
                assert!(turn <= SHORT_NANOS || !is_short, "{behind:?}: {turn} ns");
            }
            assert_eq!(now(), before);
        }

        #[test]
        fn a_thread_is_put_behind_by_another_that_knows_how_long_it_has_run() {
            let runner = Runner::this();
            let (introduce, known) = mpsc::channel();
            let (proceed, wait) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                introduce.send(Runner::this()).unwrap();
                wait.recv().unwrap();
                now()
            });
            let other = known.recv().unwrap();
            let idle = other.time().unwrap();
            while runner.time().unwrap() < Duration::from_millis(20) {
                std::hint::black_box(());
            }
            assert!(other.time().unwrap() - idle < Duration::from_millis(20), "it only waits");
            let before = now();
            other.step(Behind::Events);
            proceed.send(()).unwrap();
            assert_eq!(thread.join().unwrap().1, 19);
            assert_eq!(now(), before);
            assert_eq!(other.time(), None);
        }
    }
}
