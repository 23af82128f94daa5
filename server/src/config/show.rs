//! The effective configuration, written as a file.
//!
//! **Guarantees.** Every key has a line with its value, its unit and where the value came from, and
//! its default when that is another. Read with `--config` on the same machine, the text gives the
//! same configuration.

use toml::{Table, Value};

use super::raw::Raw;
use super::{Config, KEYS, Origin, lookup};
use crate::UsageError;

const HEADING: &str = "\
# How `ringlake serve` would run with this file, environment and flags. Behind each value: its unit
# and where it comes from. With --config this text gives the same configuration.
";

/// `config` as a file.
///
/// # Errors
/// A [`UsageError`] for a value that TOML cannot hold.
pub fn show(config: &Config) -> Result<String, UsageError> {
    let values = table(config)?;
    let defaults = table(&Config::load(None, std::iter::empty(), Vec::new())?)?;
    let mut text = String::from(HEADING);
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != section {
            text.push_str(&format!("\n[{of}]"));
            section = of;
        }
        let (value, default) = (lookup(&values, key.name), lookup(&defaults, key.name));
        let origin = config.origin(key.name);
        let mut note = format!("{}; {origin}", key.unit);
        if *origin != Origin::Default {
            let default = default.map_or_else(|| "not set".into(), Value::to_string);
            note.push_str(&format!(", default {default}"));
        }
        text.push_str(&format!("\n# {}\n", key.meaning));
        match value {
            Some(value) => text.push_str(&format!("{name} = {value} # {note}\n")),
            None => text.push_str(&format!("# {name} is not set # {note}\n")),
        }
    }
    Ok(text)
}

/// `config` as values.
pub(super) fn table(config: &Config) -> Result<Table, UsageError> {
    let failed = |error| UsageError(format!("the configuration cannot be written: {error}"));
    match Value::try_from(Raw::of(config)).map_err(failed)? {
        Value::Table(table) => Ok(table),
        _ => Ok(Table::new()),
    }
}
