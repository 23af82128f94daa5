//! The keys case: what keys and limits cost, and what wrong keys do to those who have a right one.
//!
//! **Guarantees**: open mode and keys are loaded in turn, open, keys, keys, open, on servers of their
//! own that both run all the time, so that a drift of the machine meets both alike. The server has core
//! 0 and the generators core 1. Good traffic is an open loop; what was acknowledged is counted by SQL
//! at the end, so that nothing that came with a wrong key was stored.
//!
//! **Not guaranteed**: that wrong keys arrive at even distances. Their generator gives way to the one
//! that is measured, at once: with long turns it delayed the answers to good traffic by milliseconds, on
//! the way to the client's clock.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use ringlake_niceness::Behind;

use crate::bulk::count_as_f64;
use crate::events;
use crate::http;
use crate::load::{Bodies, Client, Outcome, Pace};
use crate::report::{Column, Report, number, verdict};
use crate::trial::{CORE, Lab, Loads, Trial};

/// Distinct events that are sent in turn.
const EVENTS: usize = 10_000;
/// Keys that good traffic comes with, and one that only wrong secrets are tried for.
const KEYS: usize = 9;
/// Connections that find the maximum, and those of the open loop.
const CLOSED_CONNECTIONS: usize = 64;
const CONNECTIONS: usize = 256;
/// Percent of the maximum that good traffic is beside wrong keys.
const SHARE: f64 = 50.0;
const WRONG_PER_SECOND: f64 = 1_000.0;
/// Addresses that wrong keys come from when they do not come from that of good traffic.
const ATTACKERS: u8 = 200;
/// A wrong key is not known, or its address has tried too many, or too many wait to be looked at.
const REFUSALS: &[u16] = &[401, 429, 503];
/// Until every key has been hashed once.
const SHOWN_DEADLINE: Duration = Duration::from_secs(60);
const RATE_MIN: f64 = 0.95;
const P99_MAX: f64 = 2.0;
/// Counted against every request, and never reached.
const LIMITS: [(&str, &str); 4] = [
    ("RINGLAKE_LIMITS_KEY_REQUESTS", "100000000000"),
    ("RINGLAKE_LIMITS_KEY_EVENTS", "100000000000"),
    ("RINGLAKE_LIMITS_TENANT_REQUESTS", "100000000000"),
    ("RINGLAKE_LIMITS_TENANT_EVENTS", "100000000000"),
];

const OPEN: &str = "open";
const WITH_KEYS: &str = "keys";
const ALONE: &str = "alone";
const SAME: &str = "same address";
const OTHERS: &str = "other addresses";
const RATIO: &str = "ratio";
const COLUMNS: [Column; 8] = [
    Column { name: "answered/s", decimals: 0 },
    Column { name: RATIO, decimals: 3 },
    Column { name: "server cpu us/request", decimals: 2 },
    Column { name: "p50 ms", decimals: 2 },
    Column { name: "p99 ms", decimals: 2 },
    Column { name: "log write ms", decimals: 2 },
    Column { name: "refused", decimals: 0 },
    Column { name: "wrong keys/s", decimals: 0 },
];
type Values = [f64; 8];

/// `perf keys`
#[derive(Debug, Args)]
#[command(mut_arg("rounds", |arg| arg.default_value("5")))]
pub struct Options {
    #[command(flatten)]
    loads: Loads,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let loads = &options.loads;
    let lab = Lab::on_two_cores("keys", &loads.common)?;
    let bodies = events::without_tenants(EVENTS, loads.seed)?;
    let title = format!(
        "single events with keys and limits, and beside {WRONG_PER_SECOND} wrong keys a second; {} s a \
         load, server on core {CORE}, generators on core {}",
        loads.seconds,
        CORE + 1,
    );
    let mut report = Report::new("keys", title, &COLUMNS);
    for round in loads.rounds() {
        for (side, values) in ours(&lab, &bodies, loads)? {
            report.add(side, round, &values);
        }
    }
    let rate = report.median(WITH_KEYS, RATIO);
    let (value, limit) =
        (format!("{} of open mode", number(rate, 3)), format!("at least {RATE_MIN}"));
    report.note(verdict("rate with keys and limits", &value, &limit, rate >= RATE_MIN));
    for side in [SAME, OTHERS] {
        let ratio = report.median(side, RATIO);
        let value = format!("{} times that alone", number(ratio, 2));
        let what = format!("p99 beside wrong keys from the {side}");
        report.note(verdict(&what, &value, &format!("at most {P99_MAX}"), ratio <= P99_MAX));
    }
    report.finish(&lab.machine, loads.common.save)
}

/// What loads have brought, and what they took of the server.
struct Taken {
    outcome: Outcome,
    /// Processor time in seconds.
    cpu: f64,
    /// How long a write of the log took in the last of them.
    log_write_ms: f64,
}

/// A server that is measured, and how many requests it has answered well.
struct Side {
    trial: Trial,
    bodies: Vec<String>,
    keys: Vec<String>,
    stored: u64,
}

impl Side {
    fn client(&self, connections: usize) -> Result<Client> {
        let address = self.trial.address();
        let bodies = Bodies::with_keys(address, &self.bodies, &self.keys);
        Client::connect(address, bodies, connections)
    }

    /// Sends one event with each key, so that none is hashed under load.
    fn show_keys(&mut self) -> Result<()> {
        let deadline = Instant::now() + SHOWN_DEADLINE;
        for key in &self.keys {
            let headers = format!("X-Write-Key: {key}\r\n");
            loop {
                let (address, body) = (self.trial.address(), &self.bodies[0]);
                let answer = http::call(address, "POST", "/v1/events", &headers, body)?;
                if answer.status == 202 {
                    break;
                }
                let later = answer.status == 503 && Instant::now() < deadline;
                ensure!(later, "a key was answered {} {}", answer.status, answer.text());
            }
            self.stored += 1;
        }
        Ok(())
    }

    /// One load.
    fn load(&mut self, client: &mut Client, pace: Pace, loads: &Loads) -> Result<Taken> {
        // What the load before has left in the rings would be charged to this one.
        self.trial.flush()?;
        let (cpu, writes) = (self.trial.server.cpu_seconds()?, self.trial.log_writes()?);
        let outcome = client.run(pace, loads.length())?;
        self.stored += outcome.answered;
        let cpu = self.trial.server.cpu_seconds()? - cpu;
        let log_write_ms = self.trial.log_writes()?.milliseconds_since(&writes);
        Ok(Taken { outcome, cpu, log_write_ms })
    }
}

/// One round; the values in the order of [`COLUMNS`].
fn ours(lab: &Lab, bodies: &[String], loads: &Loads) -> Result<Vec<(&'static str, Values)>> {
    let (bodies, keys) = (bodies.to_vec(), Vec::new());
    let mut open = Side { trial: lab.start(&[])?, bodies: bodies.clone(), keys, stored: 0 };
    let (trial, mut keys) = lab.start_with_keys(KEYS, &LIMITS)?;
    let victim = keys.pop().unwrap_or_default();
    let mut with_keys = Side { trial, bodies, keys, stored: 0 };
    with_keys.show_keys()?;

    let nothing = || Outcome::new().map(|outcome| Taken { outcome, cpu: 0.0, log_write_ms: 0.0 });
    let mut sums = [nothing()?, nothing()?];
    let mut clients = [open.client(CLOSED_CONNECTIONS)?, with_keys.client(CLOSED_CONNECTIONS)?];
    for turn in [0, 1, 1, 0] {
        // A roll that one of them has still to do would be charged to whichever has its turn.
        open.trial.roll()?;
        with_keys.trial.roll()?;
        let side = if turn == 0 { &mut open } else { &mut with_keys };
        let taken = side.load(&mut clients[turn], Pace::Closed, loads)?;
        let sum = &mut sums[turn];
        sum.outcome.add(&taken.outcome)?;
        sum.cpu += taken.cpu;
        sum.log_write_ms = taken.log_write_ms;
    }
    drop(clients);
    open.trial.end(open.stored..=open.stored)?;
    let [free, keyed] = &sums;
    let ratio = keyed.outcome.rate() / free.outcome.rate();
    let mut sides =
        vec![(OPEN, values(free, f64::NAN, f64::NAN)), (WITH_KEYS, values(keyed, ratio, f64::NAN))];

    let pace = Pace::PerSecond(keyed.outcome.rate() * SHARE / 100.0);
    let mut client = with_keys.client(CONNECTIONS)?;
    let alone = with_keys.load(&mut client, pace, loads)?;
    sides.push((ALONE, values(&alone, f64::NAN, f64::NAN)));
    for (name, sources) in [(SAME, vec![Ipv4Addr::LOCALHOST.into()]), (OTHERS, others())] {
        let (taken, wrong) = beside(&mut with_keys, &mut client, pace, &victim, sources, loads)?;
        let ratio = taken.outcome.milliseconds(99.0) / alone.outcome.milliseconds(99.0);
        sides.push((name, values(&taken, ratio, wrong)));
    }
    with_keys.trial.end(with_keys.stored..=with_keys.stored)?;
    Ok(sides)
}

/// Good traffic beside wrong keys; also how many of those came a second.
fn beside(
    side: &mut Side,
    client: &mut Client,
    pace: Pace,
    victim: &str,
    sources: Vec<IpAddr>,
    loads: &Loads,
) -> Result<(Taken, f64)> {
    let address = side.trial.address();
    let bodies = Bodies::with_keys(address, &side.bodies, &wrong(victim));
    let length = loads.length();
    thread::scope(|scope| {
        let attacker = scope.spawn(move || -> Result<Outcome> {
            // It shares the generator's core, and what it would take from it would look like the server's.
            ringlake_niceness::step(Behind::Everybody);
            let mut client = Client::refused(&sources, address, bodies, REFUSALS)?;
            client.run(Pace::PerSecond(WRONG_PER_SECOND), length)
        });
        let taken = side.load(client, pace, loads)?;
        let attacker = attacker.join().map_err(|_| anyhow::anyhow!("the attacker panicked"))??;
        ensure!(attacker.answered == 0, "{} wrong keys were taken", attacker.answered);
        Ok((taken, count_as_f64(attacker.refused) / attacker.seconds))
    })
}

/// Keys that nobody has given out: half of them have the id of one that exists and that nobody has
/// shown yet, which is what costs most to look at.
fn wrong(victim: &str) -> Vec<String> {
    let id = victim.rsplit_once('_').map_or("", |(id, _)| id);
    let key = |number: usize| match number % 2 {
        0 => format!("{id}_{number:032}"),
        _ => format!("rl_w{number:010}_{number:032}"),
    };
    (0..EVENTS).map(key).collect()
}

fn others() -> Vec<IpAddr> {
    (1..=ATTACKERS).map(|last| Ipv4Addr::new(127, 0, 9, last).into()).collect()
}

fn values(taken: &Taken, ratio: f64, wrong: f64) -> Values {
    let Taken { outcome, cpu, log_write_ms } = taken;
    [
        outcome.rate(),
        ratio,
        1e6 * cpu / count_as_f64(outcome.answered),
        outcome.milliseconds(50.0),
        outcome.milliseconds(99.0),
        *log_write_ms,
        count_as_f64(outcome.refused),
        wrong,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_look_like_keys_and_half_of_them_like_the_victims() {
        let victim = "rl_wabcdefghij_abcdefghijkmnpqrstuvwxyz23456789";
        let keys = wrong(victim);
        assert!(keys.iter().all(|key| key.len() == victim.len() && key != victim));
        let forged = keys.iter().filter(|key| key.starts_with("rl_wabcdefghij_")).count();
        assert_eq!(forged, keys.len().div_ceil(2));
    }
}
