//! The freshness case: how long after its acknowledgement an event is seen by SQL.
//!
//! **Guarantees**: a probe is an event of its own, acknowledged at `disk`. Its time runs from the
//! end of the acknowledgement to the end of the first query that counts it, so that what a query
//! takes is in it. Every load is an open loop, on top of which probes come at seeded random
//! distances: probes that followed each other at once would fall into step with the flushes.
//!
//! **Limits**: a probe that is not seen within a minute is an error.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::bulk::count_as_f64;
use crate::events;
use crate::http::Connection;
use crate::latency::Curves;
use crate::load::{Bodies, Client, Outcome, Pace};
use crate::report::{Column, Report, number, verdict};
use crate::trial::{Lab, Loads};

const EVENTS: usize = 10_000;
/// Events a request of the load.
const BATCH: usize = 100;
const CONNECTIONS: usize = 64;
/// Percent of the measured maximum; 0 is a server that gets nothing but probes.
const SHARES: [u32; 3] = [0, 50, 80];
const JUDGED: &str = "50 %";
const P99_MAX_MS: f64 = 500.0;
/// The closed loop that finds the maximum is no longer than this: what it stored is in the way of the
/// looks that follow.
const MOST_LENGTH: Duration = Duration::from_secs(10);
/// Between two probes at most: five flush intervals.
const PAUSE_MAX_MS: u64 = 500;
/// Between two looks for a probe.
const LOOK: Duration = Duration::from_millis(2);
const SEEN_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_MAX_NS: u64 = 60_000_000_000;

const P99: &str = "p99 ms";
const COLUMNS: [Column; 7] = [
    Column { name: "load events/s", decimals: 0 },
    Column { name: "probes", decimals: 0 },
    Column { name: "p50 ms", decimals: 1 },
    Column { name: P99, decimals: 1 },
    Column { name: "max ms", decimals: 1 },
    Column { name: "look p50 ms", decimals: 1 },
    Column { name: "refused", decimals: 0 },
];

/// `perf fresh`
#[derive(Debug, Args)]
#[command(mut_arg("seconds", |arg| arg.default_value("50")))]
#[command(mut_arg("rounds", |arg| arg.default_value("5")))]
pub struct Options {
    #[command(flatten)]
    loads: Loads,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let loads = &options.loads;
    let lab = Lab::open("fresh", &loads.common)?;
    let bodies = events::batches(&events::without_ids(EVENTS, loads.seed)?, BATCH);
    let title = format!(
        "from the acknowledgement to SQL, {} s a load, batches of {BATCH} over {CONNECTIONS} \
         connections",
        loads.seconds,
    );
    let mut report = Report::new("fresh", title, &COLUMNS);
    let mut curves = Curves::default();
    for round in loads.rounds() {
        for (share, seen, values) in ours(&lab, &bodies, round, loads)? {
            let side = if share == 0 { "idle".to_owned() } else { format!("{share} %") };
            report.add(&side, round, &values);
            curves.add(side, seen)?;
        }
    }
    let p99 = report.median(JUDGED, P99);
    let limit = format!("under {P99_MAX_MS} ms at half of the maximum");
    report.note(verdict("p99 ms", &number(p99, 1), &limit, p99 < P99_MAX_MS));
    report.attach("percentiles.csv", curves.csv());
    report.finish(&lab.machine, loads.common.save)
}

/// One server under each load in turn: the share, when probes were seen, and the values in the order
/// of [`COLUMNS`].
fn ours(
    lab: &Lab,
    bodies: &[String],
    round: u32,
    loads: &Loads,
) -> Result<Vec<(u32, Outcome, [f64; 7])>> {
    let trial = lab.start(&[])?;
    let address = trial.address();
    let length = loads.length();
    let mut client = Client::connect(address, Bodies::in_turn(address, bodies), CONNECTIONS)?;
    let most = client.run(Pace::Closed, length.min(MOST_LENGTH))?;
    let mut stored = most.answered * BATCH as u64;
    let mut sides = Vec::new();
    let mut random = Pcg64Mcg::seed_from_u64(loads.seed + u64::from(round));
    for share in SHARES {
        trial.count()?;
        let over = AtomicBool::new(false);
        let (load, probes) = thread::scope(|scope| {
            let over = &over;
            let name = format!("{round}-{share}");
            let random = &mut random;
            let prober = scope.spawn(move || probe(address, &name, random, over));
            let load = if share == 0 {
                thread::sleep(length);
                Outcome::new()
            } else {
                client.run(Pace::PerSecond(most.rate() * f64::from(share) / 100.0), length)
            };
            // Relaxed: the flag is all there is.
            over.store(true, Ordering::Relaxed);
            let probes = prober.join().map_err(|_| anyhow::anyhow!("the prober panicked"));
            anyhow::Ok((load?, probes??))
        })?;
        stored += load.answered * BATCH as u64 + probes.seen.answered;
        let rate = if share == 0 { 0.0 } else { load.rate() * count_as_f64(BATCH as u64) };
        let values = [
            rate,
            count_as_f64(probes.seen.answered),
            probes.seen.milliseconds(50.0),
            probes.seen.milliseconds(99.0),
            probes.seen.milliseconds(100.0),
            count_as_f64(probes.looks.value_at_quantile(0.5)) / 1e6,
            count_as_f64(load.refused),
        ];
        sides.push((share, probes.seen, values));
    }
    trial.end(stored..=stored)?;
    Ok(sides)
}

/// What the probes of one load brought.
struct Probes {
    /// From acknowledgement to visibility.
    seen: Outcome,
    /// Nanoseconds of each query.
    looks: Histogram<u64>,
}

/// Sends probes and looks for each until it is seen; at least one.
fn probe(
    address: SocketAddr,
    name: &str,
    random: &mut Pcg64Mcg,
    over: &AtomicBool,
) -> Result<Probes> {
    let mut connection = Connection::open(address)?;
    let mut probes =
        Probes { seen: Outcome::new()?, looks: Histogram::new_with_bounds(1, LOOK_MAX_NS, 3)? };
    let began = Instant::now();
    for number in 0.. {
        let body = format!("{{\"event\":\"probe\",\"user_id\":\"probe-{name}-{number}\"}}");
        let request = connection.request("POST", "/v1/events?ack=disk", "", body.as_bytes());
        connection.send(&request)?;
        let answer = connection.answer()?;
        match answer.status {
            202 => {
                let acknowledged = Instant::now();
                let seen = look(&mut connection, name, number, acknowledged, &mut probes.looks)?;
                probes.seen.latencies.saturating_record(u64::try_from(seen.as_nanos())?);
                probes.seen.answered += 1;
            }
            429 | 503 => probes.seen.refused += 1,
            status => anyhow::bail!("a probe was answered {status}: {}", answer.text()),
        }
        // Relaxed: the flag is all there is.
        if over.load(Ordering::Relaxed) && probes.seen.answered > 0 {
            break;
        }
        thread::sleep(Duration::from_millis(random.next_u64() % (PAUSE_MAX_MS + 1)));
    }
    probes.seen.seconds = began.elapsed().as_secs_f64();
    Ok(probes)
}

/// Asks until the probe is counted; the time since its acknowledgement.
fn look(
    connection: &mut Connection,
    name: &str,
    number: u32,
    acknowledged: Instant,
    looks: &mut Histogram<u64>,
) -> Result<Duration> {
    let sql = format!(
        "SELECT count(*) AS n FROM events WHERE user_id = 'probe-{name}-{number}' \
         AND received_at > now() - INTERVAL 2 MINUTE",
    );
    let request = connection.request("POST", "/v1/query", "", sql.as_bytes());
    loop {
        let began = Instant::now();
        connection.send(&request)?;
        let answer = connection.answer()?;
        let seen = acknowledged.elapsed();
        ensure!(answer.status == 200, "{sql} was answered {} {}", answer.status, answer.text());
        looks.saturating_record(u64::try_from(began.elapsed().as_nanos())?);
        let row: serde_json::Value = serde_json::from_slice(&answer.body)?;
        match row["n"].as_u64().with_context(|| format!("the count is {row}"))? {
            0 => ensure!(seen < SEEN_DEADLINE, "probe {number} is not seen after {seen:?}"),
            1 => return Ok(seen),
            many => anyhow::bail!("probe {number} is there {many} times"),
        }
        thread::sleep(LOOK);
    }
}
