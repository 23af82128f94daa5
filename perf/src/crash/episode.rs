//! An episode: one data directory over several rounds of load, fault, restart and judgement.
//!
//! **Guarantees.** Nothing is judged before the server is up again and everything it replayed is
//! visible. What was seen in one round is held against all later ones, by count in every round and
//! by id in the end: by SQL, and by a second reader of the Parquet files.
//!
//! **Failure.** What must not be is gathered until the round is over, so that one cause shows all
//! its effects; then the episode ends with an error.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Counts, Entry, Outcome, Progress, Sender};
use super::control::{self, Status};
use super::event::session;
use super::lake::Table;
use super::load;
use super::oracle::{self, Fate, Found, Sent, Violation};
use super::plan::{End, Round, Settings};
use super::table::Row;
use crate::server::{self, Server};

/// Time for a request that is sent again to a running server to be taken.
const RESEND_DEADLINE: Duration = Duration::from_secs(20);
/// Time for a roll of what a start has replayed.
const ROWS_DEADLINE: Duration = Duration::from_secs(10);
/// Findings that are told one by one.
const TOLD_MAX: usize = 20;

/// A data directory and what was sent to it.
#[derive(Debug)]
pub struct Episode {
    binary: PathBuf,
    directory: PathBuf,
    data: PathBuf,
    seed: u64,
    /// Every request of the rounds that are over; what is known of them is settled.
    sent: Vec<Sent>,
    /// The newest round that has begun.
    begun: u32,
    /// Version of the table at the end of the last round.
    version: u64,
    /// Compactions that the table has seen until then.
    compactions: u64,
    complaints: Vec<String>,
}

impl Episode {
    /// An episode in the empty directory `directory`.
    pub fn new(binary: &Path, directory: &Path, seed: u64) -> Episode {
        Episode {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            data: directory.join("data"),
            seed,
            sent: Vec::new(),
            begun: 0,
            version: 0,
            compactions: 0,
            complaints: Vec::new(),
        }
    }

    /// Runs rounds 1 to `rounds`; `each` gets every one of them.
    pub fn run(&mut self, rounds: u32, mut each: impl FnMut(Row)) -> Result<()> {
        let mut server = self.start(&Round::new(self.seed, 1).settings)?;
        for number in 1..=rounds {
            self.begun = number;
            let plan = Round::new(self.seed, number);
            let mut row = Row::new(self.seed, number, &plan.fault);
            let mut entries = self.load(&mut server, number, &plan, &mut row)?;
            let next = Round::new(self.seed, number + 1).settings;
            let table = Table::read(&self.data)?;
            row.orphans = table.orphans()?;
            row.compactions = table.compactions - self.compactions;
            self.compactions = table.compactions;
            for (end, after) in &plan.fault.interruptions {
                self.interrupt(&next, *end, *after)?;
            }
            self.verify()?;
            let began = Instant::now();
            server = self.start(&next)?;
            row.restart = began.elapsed();
            self.judge(server.address(), number, &mut entries, &mut row)?;
            self.sent.extend(entries.iter().map(|entry| entry.sent));
            each(row);
            self.stop_at_complaints()?;
        }
        self.finish(server)
    }

    /// How many rounds have begun.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// The load and its end. What is known of each request is what is left when the process is
    /// gone.
    fn load(
        &mut self,
        server: &mut Server,
        number: u32,
        plan: &Round,
        row: &mut Row,
    ) -> Result<Vec<Entry>> {
        let loaded = load::run(server, self.seed, number, plan);
        self.keep_log(server)?;
        let mut loaded = loaded?;
        self.check_exit(plan.fault.end, loaded.status, "the server");
        self.complaints.append(&mut loaded.complaints);
        self.complaints.append(&mut loaded.chores.complaints);
        row.counts = loaded.counts;
        row.chores = loaded.chores;
        row.stop = loaded.stop;
        for entry in &mut loaded.entries {
            entry.sent.fate = entry.sent.fate.after_end(plan.fault.end);
        }
        loaded.entries.sort_by_key(|entry| entry.sent.id);
        Ok(loaded.entries)
    }

    fn command(&self, settings: &Settings) -> Command {
        let mut command = server::command(&self.binary, &self.data, None);
        // Nobody's environment but the plan decides.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGLAKE_") {
                command.env_remove(name);
            }
        }
        command.envs(settings.variables());
        command
    }

    fn start(&self, settings: &Settings) -> Result<Server> {
        Server::start(self.command(settings))
    }

    /// A start that is cut off after a time.
    fn interrupt(&mut self, settings: &Settings, end: End, after: Duration) -> Result<()> {
        let mut child = self.command(settings).stderr(self.log()?).spawn()?;
        thread::sleep(after);
        kill_process(Pid::from_child(&child), end.signal())?;
        let Some(status) = server::wait(&mut child)? else {
            child.kill()?;
            bail!(
                "a server that was told to stop {} ms after its start went on",
                after.as_millis()
            );
        };
        // Before it listens for the signal the kernel ends it; nothing has been accepted then.
        if end == End::Kill || status.signal() != Some(Signal::TERM.as_raw()) {
            self.check_exit(end, status, "a start that was cut off");
        }
        Ok(())
    }

    fn check_exit(&mut self, end: End, status: ExitStatus, what: &str) {
        let fine = match end {
            End::Kill => status.signal() == Some(Signal::KILL.as_raw()),
            End::Terminate => status.success(),
        };
        if !fine {
            self.complaints.push(format!("{what} ended with {status} after {end}"));
        }
    }

    /// `ringlake verify` on the directory, which nobody has open.
    fn verify(&mut self) -> Result<()> {
        let output =
            Command::new(&self.binary).args(["verify", "--data"]).arg(&self.data).output()?;
        if !output.status.success() {
            let said = [output.stderr, output.stdout].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            self.complaints.push(format!("verify ended with {}:\n{said}", output.status));
        }
        Ok(())
    }

    /// Looks at the server after its start, sends again what the plan wants, and compares.
    fn judge(
        &mut self,
        address: SocketAddr,
        number: u32,
        entries: &mut [Entry],
        row: &mut Row,
    ) -> Result<()> {
        let before = Status::read(address)?;
        row.replayed = before.recovered;
        if before.stored + before.duplicate + before.refused + before.in_flight > 0 {
            self.complaints.push(format!("a server that was sent nothing counts {before:?}"));
        }
        let counts = self.resend(address, entries)?;
        control::flush(address)?;
        let after = Status::read(address)?;
        let stored = counts.answered - counts.sums.duplicates;
        if (after.stored, after.duplicate, after.in_flight) != (stored, counts.sums.duplicates, 0) {
            self.complaints.push(format!(
                "{stored} events were answered as new and {} as known, the accounting is {after:?}",
                counts.sums.duplicates,
            ));
        }
        row.counts.add(&counts.sums);
        row.commits = after.version.saturating_sub(self.version);
        self.version = after.version;

        let mut sent: Vec<Sent> = entries.iter().map(|entry| entry.sent).collect();
        let found = control::ids(address, Some(number))?;
        row.count(&self.compare(&sent, &found, "by SQL after the restart"));
        oracle::settle(&mut sent, &found);
        for (entry, sent) in entries.iter_mut().zip(sent) {
            entry.sent = sent;
        }
        self.count_rounds(address, number, entries)
    }

    /// Sends again what the plan wants, each until it is answered.
    fn resend(&mut self, address: SocketAddr, entries: &mut [Entry]) -> Result<Resent> {
        let mut sender = Sender::new(address);
        let progress = Progress::default();
        let mut answered = 0;
        for entry in entries.iter_mut().filter(|entry| entry.wants_resend(true)) {
            let deadline = Instant::now() + RESEND_DEADLINE;
            loop {
                let Ok(outcome) = sender.resend(entry, &progress) else {
                    bail!("the server took no connection after its start");
                };
                match outcome {
                    Outcome::Acknowledged { .. } => {
                        answered += u64::from(entry.sent.events);
                        break;
                    }
                    // It will never fit the ring that this server has.
                    Outcome::Refused(413) => break,
                    Outcome::Refused(_) if Instant::now() < deadline => {}
                    other => {
                        let id = entry.sent.id;
                        self.complaints.push(format!("request {id}, sent again: {other:?}"));
                        break;
                    }
                }
            }
        }
        self.complaints.append(&mut sender.journal.complaints);
        Ok(Resent { answered, sums: sender.journal.counts })
    }

    /// Every round so far must have as many events as it had when it was judged, and the status as
    /// many rows as the query.
    fn count_rounds(&mut self, address: SocketAddr, number: u32, entries: &[Entry]) -> Result<()> {
        let there = control::counts(address)?;
        for round in 1..=number {
            let of_round = entries.iter().map(|entry| &entry.sent).chain(&self.sent);
            let stored = of_round
                .filter(|sent| sent.id.round == round && sent.fate == Fate::Stored)
                .map(|sent| u64::from(sent.events));
            let expected: u64 = stored.sum();
            let count = there.get(&session(round)).copied().unwrap_or(0);
            if count != expected {
                self.complaints.push(format!(
                    "round {round} has {count} events in round {number}; there were {expected}",
                ));
            }
        }
        let total: u64 = there.values().sum();
        let deadline = Instant::now() + ROWS_DEADLINE;
        loop {
            let status = Status::read(address)?;
            if status.hot_rows + status.lake_rows == total {
                return Ok(());
            }
            // In the middle of a roll the status may see its rows on both sides.
            if Instant::now() >= deadline {
                let complaint = format!("a query counts {total} events, the status {status:?}");
                self.complaints.push(complaint);
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The last look: every id of the episode, by SQL and in the Parquet files, before and after a
    /// compaction.
    fn finish(&mut self, mut server: Server) -> Result<()> {
        let address = server.address();
        control::roll(address)?;
        self.compare_all(address, "after the last roll")?;
        control::compact(address)?;
        self.compare_all(address, "after the last compaction")?;
        server.signal(Signal::TERM)?;
        let status = server.wait()?;
        self.keep_log(&server)?;
        self.check_exit(End::Terminate, status, "the last server");
        self.verify()?;
        self.stop_at_complaints()
    }

    fn compare_all(&mut self, address: SocketAddr, when: &str) -> Result<()> {
        let sent = std::mem::take(&mut self.sent);
        self.compare(&sent, &control::ids(address, None)?, &format!("by SQL {when}"));
        let table = Table::read(&self.data)?.ids()?;
        self.compare(&sent, &table, &format!("in the Parquet files {when}"));
        self.sent = sent;
        Ok(())
    }

    fn compare(&mut self, sent: &[Sent], found: &Found, how: &str) -> Vec<Violation> {
        let violations = oracle::judge(sent, found);
        self.complaints.extend(violations.iter().map(|violation| format!("{how}: {violation}")));
        violations
    }

    fn stop_at_complaints(&mut self) -> Result<()> {
        let complaints = std::mem::take(&mut self.complaints);
        if complaints.is_empty() {
            return Ok(());
        }
        let mut told: Vec<String> = complaints.iter().take(TOLD_MAX).cloned().collect();
        if complaints.len() > TOLD_MAX {
            told.push(format!("and {} findings more", complaints.len() - TOLD_MAX));
        }
        bail!("{}", told.join("\n"))
    }

    /// The file that all servers of the episode log to.
    fn log(&self) -> Result<File> {
        let path = self.directory.join("server.log");
        let file = File::options().create(true).append(true).open(&path);
        file.with_context(|| format!("cannot open {}", path.display()))
    }

    fn keep_log(&mut self, server: &Server) -> Result<()> {
        let said = server.said();
        if let Some(line) = said.lines().find(|line| line.contains("panicked at")) {
            self.complaints.push(format!("a thread of the server panicked: {line}"));
        }
        Ok(self.log()?.write_all(said.as_bytes())?)
    }
}

/// What came of the requests that were sent again after a start.
struct Resent {
    /// Events in those that were acknowledged.
    answered: u64,
    sums: Counts,
}
