//! The ways a query can fail, and how DuckDB's messages become them.

use std::time::Duration;

/// How the message begins that a view raises for a damaged file; its name and a quote follow.
pub(super) const DAMAGED_MARK: &str = "damaged file of the table: \"";
/// How DuckDB begins when a page of a file cannot be decompressed; its path and a quote follow.
const DUCKDB_MARK: &str = "Failed to read file \"";
/// In place of DuckDB's words, which say "Allocation failure" or propose settings that are locked.
const OUT_OF_MEMORY: &str = "Out of Memory Error: the query needs more than `duckdb.memory` and \
    `duckdb.temp_max` leave it; lists and long texts have to fit into memory whole. Ask for fewer \
    rows or columns, or raise the limits";

/// A query that was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The statement or its data is wrong: syntax, an unknown column, a failing cast, a result
    /// that needs more memory than is allowed.
    #[error("{message}")]
    Sql {
        /// DuckDB's message without the excerpt of the statement.
        message: String,
        /// Where in the statement, in bytes from its start, when DuckDB says so.
        position: Option<usize>,
    },
    /// The statement is not a read of `events`.
    #[error("{message}")]
    Forbidden {
        /// One sentence: what is not allowed.
        message: String,
    },
    /// The query, or the reading of its result, took too long.
    #[error("the query took longer than its limit of {after:?}")]
    Timeout {
        /// The limit that applied.
        after: Duration,
    },
    /// Too many queries wait already, or no worker became free in time.
    #[error("too many queries: {waiting} may wait, each for at most {wait:?}")]
    Busy {
        /// The configured number of waiting queries.
        waiting: usize,
        /// The configured longest wait.
        wait: Duration,
    },
    /// New events needed the memory that the query had: it read old ones from memory while many
    /// were rolled, or DuckDB had none left to take new ones in.
    #[error("the query was ended because newer events need the memory that it takes")]
    Outrun,
    /// Other queries have the memory that it takes to begin this one.
    #[error("there is no memory to begin the query: others have it now")]
    NoMemory,
    /// A file of the table that the query needs is damaged. Queries of other days go on.
    #[error(
        "a file that the query needs is damaged: {file}; `ringlake verify` says more, and a filter \
         on date that leaves out its day lets the query run"
    )]
    Damaged {
        /// The file, by its name in the table or its path.
        file: String,
    },
    /// The engine is starting or shutting down.
    #[error("the engine does not take queries now")]
    NotReady,
    /// Something of ours went wrong. The message is for the log, not for the client.
    #[error("the query failed: {message}")]
    Failed {
        /// The cause.
        message: String,
    },
}

impl QueryError {
    pub(super) fn sql(message: impl Into<String>) -> Self {
        Self::Sql { message: message.into(), position: None }
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::Forbidden { message: message.into() }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into() }
    }

    /// Sorts an error of DuckDB, raised while `sql` was planned or run, by whose fault it is.
    pub(super) fn from_duckdb(error: &duckdb::Error, sql: &str) -> Self {
        let text = plain(error.to_string());
        if let Some(file) = damaged_file(&text) {
            return Self::Damaged { file: file.to_owned() };
        }
        let class = text.split_once(" Error:").map_or("", |(class, _)| class);
        match class {
            "IO" | "INTERNAL" | "FATAL" | "TransactionContext" | "Transaction" | "Corrupted"
            | "INTERRUPT" | "Connection" | "Serialization" | "Resource in use" => {
                Self::failed(text)
            }
            "Permission" => Self::forbidden("the query reads something other than events"),
            "Out of Memory" => Self::sql(OUT_OF_MEMORY),
            "" if matches!(error, duckdb::Error::DuckDBFailure(..)) => Self::failed(text),
            _ => {
                let (message, position) = split_excerpt(&text, sql);
                Self::Sql { message: message.to_owned(), position }
            }
        }
    }

    /// Sorts an error of DuckDB, raised by what we do before and around a client's statement.
    pub(super) fn from_preparation(error: &duckdb::Error) -> Self {
        let text = plain(error.to_string());
        if text.starts_with("Out of Memory") { Self::NoMemory } else { Self::failed(text) }
    }

    /// The same error without what DuckDB may have quoted from a row: its class and its position.
    pub(super) fn without_data(self) -> Self {
        match self {
            Self::Sql { message, position } if message != OUT_OF_MEMORY => {
                let class = message.split_once(" Error:").map_or("Execution", |(class, _)| class);
                let message = format!("{class} Error while reading rows; only admin keys see more");
                Self::Sql { message, position }
            }
            // Shown to no client.
            other => other,
        }
    }
}

/// DuckDB's message. Where it could not be told while DuckDB made Arrow of a row, it comes as JSON.
fn plain(text: String) -> String {
    let parts = serde_json::from_str::<serde_json::Value>(&text).ok();
    let part = |name| parts.as_ref().and_then(|parts| parts[name].as_str());
    match (part("exception_type"), part("exception_message")) {
        (Some(class), Some(message)) => format!("{class} Error: {message}"),
        _ => text,
    }
}

/// The file that a message about damage names.
fn damaged_file(text: &str) -> Option<&str> {
    let rest = [DAMAGED_MARK, DUCKDB_MARK]
        .iter()
        .find_map(|mark| text.split_once(mark).map(|(_, rest)| rest))?;
    rest.split_once('"').map(|(file, _)| file)
}

/// Separates DuckDB's message from its excerpt of the statement (`LINE 2: …` and a line of carets)
/// and turns the carets into a byte position.
fn split_excerpt<'a>(text: &'a str, sql: &str) -> (&'a str, Option<usize>) {
    let Some((message, excerpt)) = text.rsplit_once("\n\nLINE ") else {
        return (text.trim_end(), None);
    };
    (message.trim_end(), position_of(excerpt, sql))
}

/// The byte position in `sql` that an excerpt (without its leading `LINE `) points at.
fn position_of(excerpt: &str, sql: &str) -> Option<usize> {
    let (shown, carets) = excerpt.split_once('\n')?;
    let (number, shown) = shown.split_once(": ")?;
    let line_index = number.parse::<usize>().ok()?.checked_sub(1)?;
    let prefix = "LINE : ".len() + number.len();
    let column = carets.find('^')?.checked_sub(prefix)?;
    // Carets are placed by display width; counting characters is exact for all but wide ones.
    let in_shown = shown.char_indices().nth(column).map_or(shown.len(), |(at, _)| at);

    let line = sql.split('\n').nth(line_index)?;
    let line_start = sql.split('\n').take(line_index).map(|line| line.len() + 1).sum::<usize>();
    // DuckDB cuts long lines at both ends and marks the cuts with dots.
    let whole = line.trim_end_matches('\r');
    if shown == whole {
        return Some(line_start + in_shown);
    }
    let cut_start = shown.strip_prefix("...").filter(|_| !whole.starts_with(shown));
    let dots = if cut_start.is_some() { "...".len() } else { 0 };
    let kept = &shown[dots..];
    let kept = if whole.ends_with(kept) { kept } else { kept.strip_suffix("...").unwrap_or(kept) };
    let start = if dots == 0 { 0 } else { whole.find(kept)? };
    Some(line_start + start + in_shown.checked_sub(dots)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn position(text: &str, sql: &str) -> Option<usize> {
        split_excerpt(text, sql).1
    }

    #[test]
    fn the_caret_line_becomes_a_byte_position() {
        let sql = "select nope from events";
        let text =
            "Binder Error: no column\n\nLINE 1: select nope from events\n               ^^^^";
        assert_eq!(position(text, sql), sql.find("nope"));
        assert_eq!(split_excerpt(text, sql).0, "Binder Error: no column");
    }

    #[test]
    fn positions_count_earlier_lines_and_bytes_of_wide_text() {
        let sql = "select 1 from events where\n  'é' = nopé";
        let text = "Binder Error: x\n\nLINE 2:   'é' = nopé\n                ^^^^";
        assert_eq!(position(text, sql), sql.find("nopé"));
    }

    #[test]
    fn a_shortened_excerpt_still_gives_the_position() {
        let sql = format!("select {}nope, {}1 from events", "1,".repeat(80), "2,".repeat(80));
        let excerpt = "LINE 1: ...1,1,nope, 2,2...";
        let carets = " ".repeat(excerpt.find("nope").unwrap());
        let text = format!("Binder Error: x\n\n{excerpt}\n{carets}^^^^");
        assert_eq!(position(&text, &sql), sql.find("nope"));
    }

    #[test]
    fn a_message_in_json_becomes_one_as_all_others() {
        let text = r#"{"exception_type":"Not implemented","exception_message":"no \"x\""}"#;
        assert_eq!(plain(text.into()), "Not implemented Error: no \"x\"");
        assert_eq!(plain("Binder Error: {}".into()), "Binder Error: {}");
    }

    #[test]
    fn a_tenant_is_told_that_memory_is_short_and_nothing_of_the_rows() {
        let hidden = |message: &str| QueryError::sql(message).without_data().to_string();
        assert_eq!(hidden(OUT_OF_MEMORY), OUT_OF_MEMORY);
        let shown = hidden("Conversion Error: could not convert 'secret'");
        assert!(shown.starts_with("Conversion Error") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_message_without_an_excerpt_has_no_position() {
        assert_eq!(split_excerpt("Conversion Error: x", "select 1"), ("Conversion Error: x", None));
    }
}
