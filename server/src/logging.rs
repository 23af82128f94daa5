//! Log lines on standard error.
//!
//! `RINGLAKE_LOG` (or `RUST_LOG`) filters them in the syntax of `tracing-subscriber`, for example
//! `ringlake=debug,ringlake_engine::log=trace`; without it, our own lines from `info` up and those
//! of libraries from `warn` up are written.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::UsageError;
use crate::cli::LogFormat;

/// The variable that filters log lines; `RUST_LOG` is read when it is not set.
pub const FILTER_VARIABLE: &str = "RINGLAKE_LOG";

/// What `serve` logs when nothing else is asked for.
pub const SERVER_FILTER: &str = "warn,ringlake=info,ringlake_engine=info";
/// What the other commands log: only what the user should act on.
pub const COMMAND_FILTER: &str = "warn";

/// Starts logging; `default_filter` applies when the environment has none.
///
/// # Errors
/// A [`UsageError`] when the filter in the environment cannot be parsed.
pub fn start(format: LogFormat, default_filter: &str) -> Result<(), UsageError> {
    let wanted = [FILTER_VARIABLE, "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().map(|value| (name, value)))
        .filter(|(_, value)| !value.is_empty());
    let filter = match wanted {
        None => EnvFilter::new(default_filter),
        Some((name, value)) => EnvFilter::try_new(&value)
            .map_err(|error| UsageError(format!("{name} is `{value}`: {error}")))?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (a test in the same process) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
