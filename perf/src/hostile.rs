//! The hostile case: what ingestion loses beside queries that want everything.
//!
//! **Guarantees**: the rate with and without is measured in turn on the same server, seconds apart;
//! a ratio is that of two neighbours. Everything that was acknowledged is counted by SQL at the end.
//!
//! **Not guaranteed**: that the queries end. They are broken off by the timeout, by the limit on
//! memory, or by the end of their rows, and asked again at once.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::bulk::count_as_f64;
use crate::events;
use crate::http;
use crate::load::{Bodies, Client, Outcome, Pace};
use crate::report::{Column, Report, number, verdict};
use crate::trial::{Lab, Loads};

/// Name and statement: they want the cores, DuckDB's memory, and memory that it does not count.
const STATEMENTS: [(&str, &str); 3] = [
    (
        "join",
        "SELECT count(*) FROM range(10000000) a(x), range(10000000) b(y) WHERE (x * y) % 7 = 9",
    ),
    ("sort", "SELECT list(range ORDER BY hash(range)) FROM range(100000000)"),
    ("text", "SELECT repeat('x', 20000000 + range) FROM range(1000)"),
];
/// How many at a time; four are as many as run.
const BESIDE: [u64; 2] = [1, 4];
const EVENTS: usize = 10_000;
const BATCH: usize = 1_000;
const CONNECTIONS: usize = 4;
const RATIO_MIN: f64 = 0.7;
/// Until all queries run, or none does.
const CHANGE_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

const RATIO: &str = "ratio";
const COLUMNS: [Column; 6] = [
    Column { name: "without events/s", decimals: 0 },
    Column { name: "beside events/s", decimals: 0 },
    Column { name: RATIO, decimals: 2 },
    Column { name: "p99 ms", decimals: 1 },
    Column { name: "queries ended", decimals: 0 },
    Column { name: "refused", decimals: 0 },
];

/// `perf hostile`
#[derive(Debug, Args)]
#[command(mut_arg("seconds", |arg| arg.default_value("3")))]
#[command(mut_arg("rounds", |arg| arg.default_value("5")))]
pub struct Options {
    #[command(flatten)]
    loads: Loads,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let loads = &options.loads;
    let lab = Lab::open("hostile", &loads.common)?;
    let bodies = events::batches(&events::without_ids(EVENTS, loads.seed)?, BATCH);
    let title = format!(
        "ingestion beside hostile queries, {} s each, batches of {BATCH} over {CONNECTIONS} \
         connections",
        loads.seconds,
    );
    let mut report = Report::new("hostile", title, &COLUMNS);
    for round in loads.rounds() {
        for (side, values) in ours(&lab, &bodies, loads.length())? {
            report.add(&side, round, &values);
        }
    }
    for (name, _) in STATEMENTS {
        let side = format!("1 {name}");
        let ratio = report.median(&side, RATIO);
        let value = format!("{} of the rate without", number(ratio, 2));
        let (limit, holds) = (format!("at least {RATIO_MIN}"), ratio >= RATIO_MIN);
        report.note(verdict(&format!("events/s beside {side}"), &value, &limit, holds));
    }
    report.note("lost: 0, as counted after every round".to_owned());
    report.finish(&lab.machine, loads.common.save)
}

/// One server, each statement once and four times; the values in the order of [`COLUMNS`].
fn ours(lab: &Lab, bodies: &[String], length: Duration) -> Result<Vec<(String, [f64; 6])>> {
    // A query may take as long as a load; then it is asked again.
    let timeout = length.as_millis().to_string();
    let trial = lab.start(&[("RINGLAKE_QUERY_TIMEOUT_MS", &timeout)])?;
    let address = trial.address();
    let mut client = Client::connect(address, Bodies::in_turn(address, bodies), CONNECTIONS)?;
    let mut stored = 0;
    let mut sides = Vec::new();
    for count in BESIDE {
        for (name, sql) in STATEMENTS {
            let calm = client.run(Pace::Closed, length)?;
            let (beside, ended) = beside(address, &mut client, length, sql, count)?;
            stored += (calm.answered + beside.answered) * BATCH as u64;
            let values = [
                calm.rate() * count_as_f64(BATCH as u64),
                beside.rate() * count_as_f64(BATCH as u64),
                beside.rate() / calm.rate(),
                beside.milliseconds(99.0),
                count_as_f64(ended),
                count_as_f64(calm.refused + beside.refused),
            ];
            sides.push((format!("{count} {name}"), values));
        }
    }
    trial.end(stored..=stored)?;
    Ok(sides)
}

/// Loads while `count` queries run all the time; what the load brought, and how many queries ended.
fn beside(
    address: SocketAddr,
    client: &mut Client,
    length: Duration,
    sql: &str,
    count: u64,
) -> Result<(Outcome, u64)> {
    let (over, ended) = (AtomicBool::new(false), AtomicU64::new(0));
    let outcome = thread::scope(|scope| {
        let attackers: Vec<_> =
            (0..count).map(|_| scope.spawn(|| attack(address, sql, &over, &ended))).collect();
        let outcome = running(address, |running| running == count)
            .and_then(|()| client.run(Pace::Closed, length));
        // Relaxed: the flag is all there is.
        over.store(true, Ordering::Relaxed);
        for attacker in attackers {
            attacker.join().map_err(|_| anyhow::anyhow!("an attacker panicked"))??;
        }
        outcome
    })?;
    running(address, |running| running == 0)?;
    Ok((outcome, ended.into_inner()))
}

/// Asks one query again and again.
fn attack(address: SocketAddr, sql: &str, over: &AtomicBool, ended: &AtomicU64) -> Result<()> {
    // Relaxed, both: a flag and a statistic.
    while !over.load(Ordering::Relaxed) {
        // A result that breaks off in its middle is an end like others.
        if let Ok((status, mut body)) = http::query(address, sql, "application/x-ndjson") {
            ensure!(matches!(status, 200 | 400 | 408 | 429 | 503), "{sql} was answered {status}");
            let _ = io::copy(&mut body, &mut io::sink());
        }
        ended.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits for a number of running queries.
fn running(address: SocketAddr, wanted: impl Fn(u64) -> bool) -> Result<()> {
    let deadline = Instant::now() + CHANGE_DEADLINE;
    loop {
        let status = http::status(address)?;
        let running = status.pointer("/queries/running").and_then(serde_json::Value::as_u64);
        let running = running.context("/v1/status does not say how many queries run")?;
        if wanted(running) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{running} queries run after {CHANGE_DEADLINE:?}");
        }
        thread::sleep(POLL);
    }
}
