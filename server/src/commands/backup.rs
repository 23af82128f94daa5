//! `ringlake backup`: a copy of a data directory, of a running server's too.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{grouped, must_exist};
use crate::EXIT_FINE;
use crate::cli::Backup;
use crate::config::Config;

/// Runs the command.
///
/// # Errors
/// When something cannot be read or written, or the output is there already.
pub fn run(arguments: &Backup) -> Result<u8> {
    let config = Config::for_command(&arguments.place, None)?;
    must_exist(&config)?;
    let (data, output) = (&config.engine.data, &arguments.output);
    if output.exists() {
        bail!("{} is there already; a backup makes a new directory", output.display());
    }
    let bar = bar();
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let report =
        ringlake_engine::backup(data, config.engine.lake.as_deref(), output, &mut progress)
            .with_context(|| format!("cannot back up {}", data.display()))?;
    bar.finish_and_clear();
    println!(
        "{}: version {} of the table with {} events in {} files, {} bytes; {} bytes of log",
        output.display(),
        report.table.version,
        grouped(report.table.rows),
        grouped(report.table.files),
        grouped(report.table.bytes),
        grouped(report.log_bytes),
    );
    println!("to check it: ringlake verify --data {}", output.display());
    Ok(EXIT_FINE)
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
