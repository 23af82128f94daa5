//! Log lines on standard error.
//!
//! `RINGLAKE_LOG` (or `RUST_LOG`) filters them in the syntax of `tracing-subscriber`, for example
//! `ringlake=debug,ringlake_log=trace`; without it, our own lines from `info` up and those
//! of libraries from `warn` up are written. Those of a server that repeat are counted instead of
//! written: see [`repeats`].

use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::UsageError;
use crate::cli::LogFormat;
use crate::traces::{Tracer, work};

mod repeats;

pub use repeats::{INTERVAL as REPEATS_INTERVAL, Repeats};

/// The variable that filters log lines; `RUST_LOG` is read when it is not set.
pub const FILTER_VARIABLE: &str = "RINGLAKE_LOG";

/// What `serve` logs when nothing else is asked for.
const SERVER_FILTER: &str = "warn,ringlake=info,ringlake_engine=info";
/// What the other commands log: only what the user should act on.
const COMMAND_FILTER: &str = "warn";

/// Starts logging for a command.
///
/// # Errors
/// A [`UsageError`] when the filter in the environment cannot be parsed.
pub fn start(format: LogFormat) -> Result<(), UsageError> {
    install(format, COMMAND_FILTER, None, None)
}

/// Starts logging for a server; what repeats is counted in `repeats`, and spans of the engine's work
/// go to `tracer`.
///
/// # Errors
/// As [`start`].
pub fn start_server(
    format: LogFormat,
    repeats: Repeats,
    tracer: Option<Arc<Tracer>>,
) -> Result<(), UsageError> {
    install(format, SERVER_FILTER, Some(repeats), tracer)
}

/// Writes what the filter in the environment says, or `default_filter`, and `repeats` admits.
fn install(
    format: LogFormat,
    default_filter: &str,
    repeats: Option<Repeats>,
    tracer: Option<Arc<Tracer>>,
) -> Result<(), UsageError> {
    let wanted = [FILTER_VARIABLE, "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().map(|value| (name, value)))
        .filter(|(_, value)| !value.is_empty());
    let filter = match wanted {
        None => EnvFilter::new(default_filter),
        Some((name, value)) => EnvFilter::try_new(&value)
            .map_err(|error| UsageError(format!("{name} is `{value}`: {error}")))?,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    #[cfg(feature = "console")]
    let is_server = repeats.is_some();
    let lines = lines.with_filter(filter.and(repeats));
    let subscriber = tracing_subscriber::registry().with(lines).with(tracer.map(work::layer));
    // Commands beside a server would quarrel with it about the console's port.
    #[cfg(feature = "console")]
    let subscriber = subscriber.with(is_server.then(console_subscriber::spawn));
    // A second start (a test in the same process) keeps the first subscriber.
    let _ = subscriber.try_init();
    Ok(())
}
