//! The crash case: is anything lost or doubled that was acknowledged?
//!
//! **Guarantees.** A server process under load from several clients is killed, stopped, paused
//! and cut off, in the middle of rolls and of its own starts. After each restart every event that
//! was sent is accounted for, by its id. The first thing that is wrong ends the run with exit
//! code 1, the ids, the seed, and the data directory left as it is.
//!
//! **Not guaranteed.** That a seed meets the same instant twice: it decides what is sent, which
//! fault comes, and after how many acknowledgements; the machine decides the rest. Power cuts: a
//! killed process loses nothing that the kernel holds.
//!
//! | module | is |
//! |---|---|
//! | [`plan`] | what the seed decides |
//! | [`event`] | ids and bodies |
//! | [`client`] | a stream of requests and the notes about it |
//! | [`control`] | rolls, counts, the accounting |
//! | [`load`] | clients until the fault |
//! | [`oracle`] | what was sent against what is there |
//! | [`lake`] | a second reader of the Parquet files |
//! | [`episode`] | one data directory over several rounds |
//! | [`table`] | lines and totals |

mod client;
mod control;
mod episode;
mod event;
pub mod lake;
mod load;
mod oracle;
mod plan;
mod table;

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;

use self::episode::Episode;
use self::table::Row;
use crate::machine::Machine;
use crate::report;
use crate::server;
use crate::trial::Common;

/// Rounds on one data directory. After that it is a fresh one, so that a replay is short.
const EPISODE_ROUNDS: u32 = 10;
/// Seeds taken from the clock stay below, so that people can type them.
const CLOCK_SEEDS: u64 = 1_000_000;

/// `perf crash`
#[derive(Debug, Args)]
pub struct Options {
    /// Rounds: one fault and one restart each, at least.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seed of the first ten rounds; the next ten have the next one [default: from the clock].
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=u64::from(u32::MAX)))]
    seed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let binary = server::binary()?;
    let began = Instant::now();
    let first = options.seed.unwrap_or_else(seed_of_the_clock);
    println!("{} rounds from seed {first}", options.rounds);
    let mut rows = Vec::new();
    let mut left = options.rounds;
    for seed in first.. {
        if left == 0 {
            break;
        }
        let rounds = left.min(EPISODE_ROUNDS);
        run_episode(&binary, options, seed, rounds, &mut rows)?;
        left -= rounds;
    }
    let machine = Machine::read();
    let totals = format!(
        "crash: {} rounds from seed {first} in {:.0} s\n{}\n\n{}",
        options.rounds,
        began.elapsed().as_secs_f64(),
        machine.line(),
        table::totals(&rows),
    );
    print!("{totals}");
    if options.common.save {
        let text = format!("{totals}\n{}", table::text(&rows));
        let folder = report::save("crash", &machine, &text, &table::csv(&rows))?;
        println!("saved in {}", folder.display());
    }
    Ok(())
}

/// Runs rounds 1 to `rounds` of `seed` in a directory that stays when something is wrong.
fn run_episode(
    binary: &Path,
    options: &Options,
    seed: u64,
    rounds: u32,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let scratch = options.common.scratch("crash")?;
    let mut episode = Episode::new(binary, scratch.path(), seed);
    let outcome = episode.run(rounds, |row| {
        println!("{}", row.line());
        rows.push(row);
    });
    outcome.with_context(|| {
        let kept = scratch.keep();
        format!(
            "seed {seed} failed; data directory and server.log are kept in {}; \
             `cargo run --release -p perf -- crash --seed {seed} --rounds {}` plans the same \
             rounds again",
            kept.display(),
            episode.begun().max(1),
        )
    })
}

fn seed_of_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() % CLOCK_SEEDS
}
