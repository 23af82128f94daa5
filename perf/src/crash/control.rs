//! What the harness asks of the server besides events: rolls, compactions, counts, the accounting.
//!
//! **Failure.** While a fault may come at any moment an answer may be missing, and that is no
//! finding; an answer that is there and says something that must not be is one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::client::Progress;
use super::event::{EventId, session};
use super::oracle::Found;
use super::plan::{Chore, Round};
use crate::http::{self, Answer};

/// How often the count of acknowledgements is looked at.
const POLL: Duration = Duration::from_millis(1);

/// What became of the chores of a round.
#[derive(Debug, Default)]
pub struct Chores {
    /// Rolls answered.
    pub rolls: u64,
    /// Compactions answered.
    pub compactions: u64,
    /// Rolls without an answer: they were under way when the process ended.
    pub rolls_cut: u64,
    /// Compactions without one.
    pub compactions_cut: u64,
    /// What must not be.
    pub complaints: Vec<String>,
}

impl Chores {
    /// Adds those of another thread.
    pub fn add(&mut self, other: Chores) {
        self.rolls += other.rolls;
        self.compactions += other.compactions;
        self.rolls_cut += other.rolls_cut;
        self.compactions_cut += other.compactions_cut;
        self.complaints.extend(other.complaints);
    }

    /// Asks for one thing and notes what came of it.
    pub fn run(&mut self, address: SocketAddr, number: u32, chore: Chore) {
        match chore {
            Chore::Roll => match post(address, "/v1/admin/roll") {
                Ok(answer) if answer.status == 200 => self.rolls += 1,
                other => self.rolls_cut += self.unanswered("a roll", other),
            },
            Chore::Compact => match post(address, "/v1/admin/compact") {
                Ok(answer) if answer.status == 200 => self.compactions += 1,
                other => self.compactions_cut += self.unanswered("a compaction", other),
            },
            Chore::Look => {
                if let Err(complaint) = look(address, number) {
                    self.complaints.push(format!("{complaint:#}"));
                }
            }
        }
    }

    /// 1 when the end of the process cut `what` off.
    fn unanswered(&mut self, what: &str, answer: std::io::Result<Answer>) -> u64 {
        match answer {
            // The server is stopping.
            Ok(answer) if answer.status == 503 => 0,
            Ok(answer) => {
                let complaint = format!("{what} was answered {} {}", answer.status, answer.text());
                self.complaints.push(complaint);
                0
            }
            // It had gone before it was asked.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => 0,
            Err(_) => 1,
        }
    }
}

/// Does the chores of a round, each when its time has come.
pub fn run(address: SocketAddr, number: u32, plan: &Round, progress: &Progress) -> Chores {
    let mut done = Chores::default();
    for (at, chore) in &plan.chores {
        // Relaxed, both: only the number matters, and the flag is all there is.
        while progress.acknowledged.load(Ordering::Relaxed) < *at {
            if progress.over.load(Ordering::Relaxed) {
                return done;
            }
            thread::sleep(POLL);
        }
        done.run(address, number, *chore);
    }
    done
}

fn post(address: SocketAddr, target: &str) -> std::io::Result<Answer> {
    http::call(address, "POST", target, "", "")
}

/// Under load, with rolls under way: no event is seen twice, and every event is accounted for.
fn look(address: SocketAddr, number: u32) -> Result<()> {
    let sql = format!(
        "SELECT count(*) AS events, count(DISTINCT json_extract_string(properties, '$.id')) AS ids \
         FROM events WHERE session_id = '{}'",
        session(number),
    );
    let headers = "Accept: text/csv\r\n";
    if let Ok(answer) = http::call(address, "POST", "/v1/query", headers, &sql)
        && answer.status == 200
    {
        let text = answer.text();
        let counts = text.lines().last().and_then(|line| line.split_once(','));
        ensure!(counts.is_some_and(|(events, ids)| events == ids), "one query sees {text}");
    }
    if let Ok(answer) = http::call(address, "GET", "/v1/status", "", "")
        && answer.status == 200
    {
        Status::parse(&answer)?;
    }
    Ok(())
}

/// `/v1/status`, whose accounting adds up.
#[derive(Debug)]
pub struct Status {
    /// Events made durable since the start.
    pub stored: u64,
    /// Events that were known.
    pub duplicate: u64,
    /// Events refused.
    pub refused: u64,
    /// Events on their way.
    pub in_flight: u64,
    /// Events replayed by the start.
    pub recovered: u64,
    /// Stretches and batches set aside, and void numbers: none without a faulty disk.
    pub damaged: u64,
    /// Rows in hot tables.
    pub hot_rows: u64,
    /// Rows in the table.
    pub lake_rows: u64,
    /// Version of the table.
    pub version: u64,
}

impl Status {
    /// Asks for it.
    pub fn read(address: SocketAddr) -> Result<Status> {
        let answer = http::call(address, "GET", "/v1/status", "", "")?;
        ensure!(answer.status == 200, "/v1/status was answered {}", answer.status);
        Status::parse(&answer)
    }

    fn parse(answer: &Answer) -> Result<Status> {
        let status: Value = serde_json::from_slice(&answer.body)?;
        let of = |path: &str| -> Result<u64> {
            let value = status.pointer(path).and_then(Value::as_u64);
            value.with_context(|| format!("/v1/status has no count {path}: {status}"))
        };
        let refused = status.pointer("/accounting/refused").and_then(Value::as_object);
        let refused = refused.context("/v1/status does not say what was refused")?;
        let read = Status {
            stored: of("/accounting/stored")?,
            duplicate: of("/accounting/duplicate")?,
            refused: refused.values().filter_map(Value::as_u64).sum(),
            in_flight: of("/accounting/in_flight")?,
            recovered: of("/recovered")?,
            damaged: of("/quarantined/stretches")? + of("/quarantined/batches")? + of("/void")?,
            hot_rows: of("/hot/rows")?,
            lake_rows: of("/lake/rows")?,
            version: of("/lake/version")?,
        };
        let ended = read.stored + read.duplicate + read.refused + read.in_flight;
        let accounting = &status["accounting"];
        ensure!(of("/accounting/received")? == ended, "the accounting is off: {accounting}");
        ensure!(read.damaged == 0, "something was set aside or declared void: {status}");
        Ok(read)
    }
}

/// Waits until everything accepted is visible.
pub fn flush(address: SocketAddr) -> Result<()> {
    demand(post(address, "/v1/admin/flush")?, "a flush")
}

/// Waits until everything accepted is in the table.
pub fn roll(address: SocketAddr) -> Result<()> {
    demand(post(address, "/v1/admin/roll")?, "a roll")
}

/// Joins small files.
pub fn compact(address: SocketAddr) -> Result<()> {
    demand(post(address, "/v1/admin/compact")?, "a compaction")
}

fn demand(answer: Answer, what: &str) -> Result<()> {
    ensure!(answer.status == 200, "{what} was answered {} {}", answer.status, answer.text());
    Ok(())
}

/// The ids of all events, or of those of one round, by SQL.
pub fn ids(address: SocketAddr, round: Option<u32>) -> Result<Found> {
    let mut sql = "SELECT json_extract_string(properties, '$.id') AS id FROM events".to_owned();
    if let Some(round) = round {
        sql.push_str(&format!(" WHERE session_id = '{}'", session(round)));
    }
    let text = csv(address, &sql)?;
    text.lines().skip(1).map(|id| id.parse::<EventId>()).collect()
}

/// The number of events of each round, by SQL.
pub fn counts(address: SocketAddr) -> Result<BTreeMap<String, u64>> {
    let text = csv(address, "SELECT session_id, count(*) FROM events GROUP BY session_id")?;
    let counts = text.lines().skip(1).map(|line| {
        let (session, count) = line.split_once(',').with_context(|| format!("{line:?}"))?;
        Ok((session.to_owned(), count.parse()?))
    });
    counts.collect()
}

fn csv(address: SocketAddr, sql: &str) -> Result<String> {
    let answer = http::call(address, "POST", "/v1/query", "Accept: text/csv\r\n", sql)?;
    if answer.status != 200 {
        bail!("{sql} was answered {} {}", answer.status, answer.text());
    }
    Ok(String::from_utf8(answer.body)?)
}
