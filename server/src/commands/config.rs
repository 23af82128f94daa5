//! `ringlake config show`: how the server would run.

use std::io::{self, Write};

use anyhow::{Context, Result};

use crate::EXIT_FINE;
use crate::cli::{LogFormat, Serve};
use crate::config::{self, Config};

/// Prints the configuration that `ringlake serve` would have with the same arguments.
///
/// # Errors
/// When it is not valid, with the key and the range.
pub fn show(arguments: &Serve, log: Option<LogFormat>) -> Result<u8> {
    let text = config::show(&Config::for_server(arguments, log)?)?;
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(EXIT_FINE)
}
