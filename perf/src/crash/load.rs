//! The load of a round and its end: clients and chores until enough is acknowledged, then the
//! fault.
//!
//! **Guarantees.** Whatever goes wrong, the process is gone and all threads have ended when
//! [`run`] returns.

use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::client::{self, Counts, Entry, Journal, Progress};
use super::control::{self, Chores};
use super::plan::{CLIENTS, Chore, Lead, Round};
use crate::server::Server;

/// Time for the acknowledgements of a round, which come within a second or two.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(1);

/// What a load brought.
#[derive(Debug)]
pub struct Loaded {
    /// How the process ended.
    pub status: ExitStatus,
    /// From the signal to the end of the process.
    pub stop: Duration,
    /// The requests of all clients.
    pub entries: Vec<Entry>,
    /// How their sendings ended.
    pub counts: Counts,
    /// What else was asked of the server.
    pub chores: Chores,
    /// What must not be.
    pub complaints: Vec<String>,
}

/// Loads the server as planned and ends it as planned.
pub fn run(server: &mut Server, seed: u64, number: u32, plan: &Round) -> Result<Loaded> {
    let address = server.address();
    let progress = Progress::default();
    thread::scope(|scope| {
        let progress = &progress;
        let clients: Vec<ScopedJoinHandle<'_, Journal>> = (0..CLIENTS)
            .map(|client| scope.spawn(move || client::run(address, seed, number, client, progress)))
            .collect();
        let chores = scope.spawn(move || control::run(address, number, plan, progress));
        let ended = bring_down(server, number, plan, progress);
        if ended.is_err() {
            // Without a server the clients come to their end.
            server.signal(Signal::KILL)?;
            server.wait()?;
        }
        // Relaxed: the flag is all there is.
        progress.over.store(true, Ordering::Relaxed);

        let journals: Vec<Journal> = clients.into_iter().map(joined).collect();
        let mut chores = joined(chores);
        let (status, stop, last) = ended?;
        chores.add(last);
        let mut counts = Counts::default();
        journals.iter().for_each(|journal| counts.add(&journal.counts));
        let (entries, complaints): (Vec<_>, Vec<_>) =
            journals.into_iter().map(|journal| (journal.entries, journal.complaints)).unzip();
        Ok(Loaded {
            status,
            stop,
            entries: entries.into_iter().flatten().collect(),
            counts,
            chores,
            complaints: complaints.into_iter().flatten().collect(),
        })
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

type Ended = (ExitStatus, Duration, Chores);

/// Waits for the moment of the fault and lets it happen.
fn bring_down(
    server: &mut Server,
    number: u32,
    plan: &Round,
    progress: &Progress,
) -> Result<Ended> {
    let began = Instant::now();
    // Relaxed: only the number matters.
    while progress.acknowledged.load(Ordering::Relaxed) < plan.fault_at {
        if let Some(status) = server.ended()? {
            bail!("the server ended by itself with {status}:\n{}", server.said());
        }
        if began.elapsed() > LOAD_DEADLINE {
            bail!("the events of a round were not acknowledged within {LOAD_DEADLINE:?}");
        }
        thread::sleep(POLL);
    }
    match plan.fault.lead {
        Lead::Nothing => end(server, plan, Chores::default()),
        Lead::Pause(time) => {
            server.signal(Signal::STOP)?;
            thread::sleep(time);
            server.signal(Signal::CONT)?;
            end(server, plan, Chores::default())
        }
        Lead::Roll(time) => end_during(server, number, plan, Chore::Roll, time),
        Lead::Compact(time) => end_during(server, number, plan, Chore::Compact, time),
    }
}

/// Asks for `chore` and ends the server some time later.
fn end_during(
    server: &mut Server,
    number: u32,
    plan: &Round,
    chore: Chore,
    time: Duration,
) -> Result<Ended> {
    let address = server.address();
    thread::scope(|scope| {
        let asked = scope.spawn(move || {
            let mut chores = Chores::default();
            chores.run(address, number, chore);
            chores
        });
        thread::sleep(time);
        let ended = end(server, plan, Chores::default());
        let chores = joined(asked);
        ended.map(|(status, stop, _)| (status, stop, chores))
    })
}

fn end(server: &mut Server, plan: &Round, chores: Chores) -> Result<Ended> {
    let began = Instant::now();
    server.signal(plan.fault.end.signal())?;
    Ok((server.wait()?, began.elapsed(), chores))
}
