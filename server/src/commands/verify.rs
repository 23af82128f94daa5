//! `ringlake verify`: is every number there exactly once?

use std::io::{self, Write};

use anyhow::{Context, Result};
use ringlake_engine::VerifyReport;

use super::{grouped, must_exist};
use crate::cli::Verify;
use crate::config::Config;
use crate::{EXIT_FAILED, EXIT_FINE};

/// Runs the command.
///
/// # Errors
/// When the directory cannot be read at all.
pub fn run(arguments: &Verify) -> Result<u8> {
    let config = Config::for_command(&arguments.place, None)?;
    must_exist(&config)?;
    let data = &config.engine.data;
    let report = ringlake_engine::verify(data, config.engine.lake.as_deref())
        .with_context(|| format!("cannot verify {}", data.display()))?;
    print(&report, io::stdout().lock()).context("cannot write to standard output")?;
    for problem in &report.problems {
        writeln!(io::stderr(), "ringlake: {problem}").context("cannot write to standard error")?;
    }
    Ok(if report.problems.is_empty() { EXIT_FINE } else { EXIT_FAILED })
}

fn print(report: &VerifyReport, mut out: impl Write) -> io::Result<()> {
    writeln!(out, "node     {}", report.node)?;
    writeln!(out, "table    version {}, {} files", report.version, grouped(report.files))?;
    let mut events = 0;
    for shard in &report.shards {
        events += shard.table_rows + shard.log_rows;
        write!(
            out,
            "shard {:<2} {} events in the table, {} in the log only, last number {}",
            shard.shard,
            grouped(shard.table_rows),
            grouped(shard.log_rows),
            shard.last_sequence,
        )?;
        if shard.void > 0 {
            write!(out, ", {} void", grouped(shard.void))?;
        }
        if shard.quarantined > 0 {
            write!(out, ", {} quarantined", grouped(shard.quarantined))?;
        }
        if shard.erased > 0 {
            write!(out, ", {} erased", grouped(shard.erased))?;
        }
        if shard.expired > 0 {
            write!(out, ", {} past retention", grouped(shard.expired))?;
        }
        writeln!(out)?;
    }
    if report.rows_of_other_nodes > 0 {
        let rows = grouped(report.rows_of_other_nodes);
        writeln!(out, "others   {rows} events of other nodes, not checked")?;
    }
    if report.torn_bytes > 0 {
        let bytes = grouped(report.torn_bytes);
        writeln!(out, "torn     {bytes} bytes after the last frame, never acknowledged")?;
    }
    match report.problems.len() {
        0 => writeln!(out, "fine     {} events, each exactly once", grouped(events)),
        1 => writeln!(out, "damaged  1 problem"),
        count => writeln!(out, "damaged  {count} problems"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use ringlake_engine::verify::ShardReport;

    use super::*;

    #[test]
    fn the_report_counts_what_is_there() {
        let shard = ShardReport {
            table_rows: 1_500,
            log_rows: 20,
            last_sequence: 1_525,
            void: 5,
            erased: 1_200,
            expired: 3_000,
            ..ShardReport::default()
        };
        let report = VerifyReport { shards: vec![shard], ..VerifyReport::default() };
        let mut text = Vec::new();
        print(&report, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("1,500 events in the table, 20 in the log only"), "{text}");
        assert!(text.contains("5 void, 1,200 erased, 3,000 past retention"), "{text}");
        assert!(text.contains("1,520 events, each exactly once"), "{text}");
    }
}
