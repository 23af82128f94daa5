//! The perf lab: whole-system cases, each beside what people would use instead.
//!
//! | module | is |
//! |---|---|
//! | [`bulk`] | a file of events over HTTP to a Delta commit, beside DuckDB's own loader |
//! | [`crash`] | clients against a server that is killed, round after round |
//! | [`fresh`] | from acknowledgement to SQL, under load |
//! | [`hostile`] | ingestion beside queries that want everything |
//! | [`keys`] | what keys and limits cost, and what wrong keys do |
//! | [`latency`] | an open loop at shares of the maximum |
//! | [`peers`] | the same events into ClickHouse's engine |
//! | [`query`] | SQL over HTTP beside DuckDB alone on the same files |
//! | [`ring`] | the ring beside other queues |
//! | [`scale`] | more ids, more tenants, larger events, more shards |
//! | [`siege`] | normal load beside thousands of hostile connections |
//! | [`single`] | one event a request over 64 connections, beside nginx |
//! | [`soak`] | half an hour at 60 % of the maximum |
//! | [`replay`] | a start on a log that a crash has left |
//! | [`trial`] | what cases share: options, a server on an empty directory |
//! | [`events`], [`load`], [`http`] | what is sent; by a schedule; one request |
//! | [`server`] | a `ringlake` process under test: start, measure, stop |
//! | [`machine`] | what the figures were measured on |
//! | [`compare`] | two commits in one case |
//! | [`instructions`] | counts of the hot path, beside those recorded |
//! | [`page`] | one HTML page over the saved runs |
//! | [`profile`] | a flame graph of the server |
//! | [`report`] | tables on the terminal, saved runs |
//!
//! `cargo run --release -p perf -- <case>`; `perf/README.md` says what each case means.

#![forbid(unsafe_code)]

mod bulk;
mod compare;
mod crash;
mod events;
mod fresh;
mod hostile;
mod http;
mod instructions;
mod keys;
mod latency;
mod load;
mod machine;
mod page;
mod peers;
mod profile;
mod query;
mod replay;
mod report;
mod ring;
mod scale;
mod server;
mod siege;
mod single;
mod soak;
mod trial;

use clap::{Parser, Subcommand};

use self::profile::What;

#[derive(Debug, Parser)]
#[command(name = "perf", about = "Whole-system cases, each beside what people would use instead")]
struct Cli {
    #[command(subcommand)]
    case: Case,
}

#[derive(Debug, Subcommand)]
enum Case {
    /// A file of events over HTTP to a Delta commit, beside DuckDB's own loader.
    #[command(after_long_help = include_str!("../cases/bulk/README.md"))]
    Bulk(bulk::Options),
    /// One event a request over 64 kept-alive connections, beside nginx.
    #[command(after_long_help = include_str!("../cases/single/README.md"))]
    Single(single::Options),
    /// Latencies of an open loop at 10, 50 and 80 % of the measured maximum.
    #[command(after_long_help = include_str!("../cases/latency/README.md"))]
    Latency(latency::Options),
    /// How long after its acknowledgement an event is seen by SQL, under load.
    #[command(after_long_help = include_str!("../cases/fresh/README.md"))]
    Fresh(fresh::Options),
    /// What ingestion loses beside queries that want everything.
    #[command(after_long_help = include_str!("../cases/hostile/README.md"))]
    Hostile(hostile::Options),
    /// What keys and limits cost, and what wrong keys do to those who have a right one.
    #[command(after_long_help = include_str!("../cases/keys/README.md"))]
    Keys(keys::Options),
    /// The ring beside rtrb, crossbeam's ArrayQueue and its channel, with the same records.
    #[command(after_long_help = include_str!("../cases/ring/README.md"))]
    Ring(ring::Options),
    /// The same events into ClickHouse's engine, a thousand at a time.
    #[command(after_long_help = include_str!("../cases/peers/README.md"))]
    Peers(peers::Options),
    /// Does anything grow in half an hour at 60 % of the maximum?
    #[command(after_long_help = include_str!("../cases/soak/README.md"))]
    Soak(soak::Options),
    /// Rate and memory with more ids, more tenants, larger events, more shards.
    #[command(after_long_help = include_str!("../cases/scale/README.md"))]
    Scale(scale::Options),
    /// What normal load notices of clients that hold on to all they can get.
    #[command(after_long_help = include_str!("../cases/siege/README.md"))]
    Siege(siege::Options),
    /// SQL over HTTP beside DuckDB alone on the same Parquet files.
    #[command(after_long_help = include_str!("../cases/query/README.md"))]
    Query(query::Options),
    /// Two commits in one case, in turn: `perf compare A B -- bulk --alone`.
    Compare(compare::Options),
    /// Instructions an event costs in decode, ring, shard and log, beside those recorded.
    Instructions(instructions::Options),
    /// A flame graph of where a case's server spends its time: `perf flame bulk --alone --rounds 1`.
    Flame(profile::Options),
    /// The same of where its memory comes from.
    Heap(profile::Options),
    /// Writes one HTML page over the saved runs.
    Report(page::Options),
    /// Is anything lost or doubled that was acknowledged, whatever happens to the process?
    #[command(after_long_help = include_str!("../cases/crash/README.md"))]
    Crash(crash::Options),
    /// A start on 5 GB of log, none of which is in the table.
    #[command(after_long_help = include_str!("../cases/replay/README.md"))]
    Replay(replay::Options),
    /// The reference of `bulk`, in a process of its own.
    #[command(hide = true)]
    DuckdbCopy(bulk::reference::Options),
    /// DuckDB alone of `query`, in a process of its own.
    #[command(hide = true)]
    DuckdbQuery(query::AloneOptions),
    /// What `instructions` counts, in a process that callgrind runs.
    #[command(hide = true)]
    InstructionsCounted(instructions::Counted),
}

impl Case {
    /// Whether rounds of it measure a server, and nothing of this program.
    fn has_rounds_of_a_server(&self) -> bool {
        match self {
            Case::Bulk(_)
            | Case::Single(_)
            | Case::Latency(_)
            | Case::Fresh(_)
            | Case::Hostile(_)
            | Case::Keys(_)
            | Case::Peers(_)
            | Case::Scale(_)
            | Case::Siege(_)
            | Case::Query(_)
            | Case::Replay(_) => true,
            // One load, or a table of another kind.
            Case::Soak(_) | Case::Crash(_) => false,
            // The ring and what is counted are parts of this program.
            Case::Ring(_) | Case::Instructions(_) | Case::InstructionsCounted(_) => false,
            Case::Compare(_) | Case::Flame(_) | Case::Heap(_) | Case::Report(_) => false,
            Case::DuckdbCopy(_) | Case::DuckdbQuery(_) => false,
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().case {
        Case::Bulk(options) => bulk::run(&options),
        Case::Single(options) => single::run(&options),
        Case::Latency(options) => latency::run(&options),
        Case::Fresh(options) => fresh::run(&options),
        Case::Hostile(options) => hostile::run(&options),
        Case::Keys(options) => keys::run(&options),
        Case::Ring(options) => ring::run(&options),
        Case::Peers(options) => peers::run(&options),
        Case::Soak(options) => soak::run(&options),
        Case::Scale(options) => scale::run(&options),
        Case::Siege(options) => siege::run(&options),
        Case::Query(options) => query::run(&options),
        Case::Compare(options) => compare::run(&options),
        Case::Instructions(options) => instructions::run(&options),
        Case::Flame(options) => profile::run(&options, What::Time),
        Case::Heap(options) => profile::run(&options, What::Memory),
        Case::Report(options) => page::run(&options),
        Case::Crash(options) => crash::run(&options),
        Case::Replay(options) => replay::run(&options),
        Case::DuckdbCopy(options) => bulk::reference::copy(&options),
        Case::DuckdbQuery(options) => query::serve(&options),
        Case::InstructionsCounted(options) => instructions::be_counted(&options),
    }
}
