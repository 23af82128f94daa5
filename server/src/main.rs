//! The binary `ringlake`: beacons in over HTTP, Parquet out, SQL over both.
//!
//! | module | is |
//! |---|---|
//! | [`allocator`] | jemalloc, and how long it keeps memory |
//! | [`cli`] | the command line |
//! | [`config`] | file, environment and flags, made into legal values |
//! | [`commands`] | one module a command |
//! | [`http`] | the server: connections, routes, answers |
//! | [`webhooks`] | events sent to those who want them |
//! | [`client`] | the HTTP client of all of these |
//! | [`logging`] | what goes to standard error, and how |
//! | [`traces`] | what goes to a collector of OpenTelemetry, when there is one |
//!
//! **Architecture invariant.** Nothing in here holds a queue of events or knows a file format:
//! that is the engine's.
//!
//! **Failure.** A command that fails says why in one sentence on standard error and exits with 1,
//! or with 2 when it was used wrongly.

#![deny(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

mod allocator;
mod cli;
mod client;
mod commands;
mod config;
mod http;
mod logging;
mod traces;
mod webhooks;

/// The command did its work.
pub const EXIT_FINE: u8 = 0;
/// The work failed, or was done only in part.
pub const EXIT_FAILED: u8 = 1;
/// The command was used wrongly.
pub const EXIT_USAGE: u8 = 2;

/// A mistake in the command line, the environment or the configuration file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

fn main() -> ExitCode {
    let outcome = commands::run(cli::Cli::parse());
    let code = outcome.unwrap_or_else(|error| {
        // Standard error may be closed; there is nobody left to tell then.
        let _ = writeln!(std::io::stderr(), "ringlake: {}", sentence(&error));
        if error.is::<UsageError>() { EXIT_USAGE } else { EXIT_FAILED }
    });
    ExitCode::from(code)
}

/// An error and its causes as one line.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Some libraries repeat their source in their own message.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.replace('\n', " "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_sentence_with_its_causes() {
        let error = anyhow::anyhow!("permission denied").context("cannot open x");
        assert_eq!(sentence(&error), "cannot open x: permission denied");
    }

    #[test]
    fn a_cause_that_its_error_already_tells_is_not_repeated() {
        let error = anyhow::anyhow!("no").context("cannot: no");
        assert_eq!(sentence(&error), "cannot: no");
    }
}
