//! The in-memory DuckDB that holds the hot tables and runs all SQL.
//!
//! **Limits.** Memory, threads and temporary files are bounded by the configuration, set once
//! here and locked. Files outside the table and the temporary directory cannot be reached;
//! extensions are never loaded or installed.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use duckdb::Connection;

use super::ffi::{ChunkAppender, RawDatabase, Refused};
use crate::config::DuckDbConfig;
use crate::error::Error;
use crate::query::room;

/// An open database; connections are made from it.
#[derive(Debug)]
pub struct Database {
    raw: Arc<RawDatabase>,
}

impl Database {
    /// Opens a database that may read and write below `table`, and spill below `temporary`.
    ///
    /// # Errors
    /// When DuckDB refuses a setting.
    pub fn open(config: &DuckDbConfig, table: &Path, temporary: &Path) -> Result<Self, Error> {
        let settings = [
            ("memory_limit", config.memory_limit.as_str()),
            ("autoload_known_extensions", "false"),
            ("autoinstall_known_extensions", "false"),
        ];
        let raw = RawDatabase::open(&settings)
            .map_err(|source| Error::Append { action: "open the in-memory database", source })?;
        let refused = |source| Error::DuckDb { action: "configure the in-memory database", source };
        let connection = raw.connect().map_err(refused)?;
        connection.execute_batch(&start_sql(config, table, temporary)).map_err(refused)?;
        let limit = connection
            .query_row("SELECT current_setting('memory_limit')", [], |row| row.get::<_, String>(0));
        if let Some(bytes) = bytes_of(&limit.map_err(refused)?) {
            room::set_bound(bytes);
        }
        Ok(Self { raw: Arc::new(raw) })
    }

    /// One more connection.
    ///
    /// # Errors
    /// When DuckDB cannot make one.
    pub fn connect(&self) -> duckdb::Result<Connection> {
        self.raw.connect()
    }

    /// What appends to hot tables of `schema`.
    pub(super) fn chunk_appender(&self, schema: SchemaRef) -> Result<ChunkAppender, Refused> {
        ChunkAppender::new(Arc::clone(&self.raw), schema)
    }
}

/// The settings of every engine database, in the order in which DuckDB accepts them.
fn start_sql(config: &DuckDbConfig, table: &Path, temporary: &Path) -> String {
    let table = literal(&format!("{}/", table.display()));
    let temporary = literal(&temporary.display().to_string());
    format!(
        "SET threads = {threads};
         -- Nothing is read ahead: where all cores are busy, handing each file and each column to
         -- another thread and back takes longer than reading what the system has in memory, and a
         -- look at the newest events 95 ms instead of 78. Without any thread for it a recursive
         -- query waits for ever.
         SET async_threads = 1;
         SET read_ahead_depth = 0;
         SET GLOBAL disable_parquet_prefetching = true;
         SET temp_directory = {temporary};
         SET max_temp_directory_size = {temp_max};
         -- Rolls do not read the hot tables, and who wants an order asks for it.
         SET preserve_insertion_order = false;
         -- In memory a checkpoint only rewrites row groups, at the cost of the append that
         -- happens to trigger it: with the default of 16 MB, every one of about 32 K rows.
         SET checkpoint_threshold = '1TB';
         SET allow_community_extensions = false;
         -- The bundled build has no ICU: its TIMESTAMPTZ now() does not take part in arithmetic.
         CREATE MACRO now() AS get_current_timestamp()::TIMESTAMP;
         CREATE MACRO today() AS get_current_timestamp()::TIMESTAMP::DATE;
         SET allowed_directories = [{table}];
         SET enable_external_access = false;
         SET lock_configuration = true;",
        threads = config.threads,
        temp_max = literal(&config.temp_max),
    )
}

/// A size as DuckDB writes it, such as `953.6 MiB`, in bytes.
fn bytes_of(text: &str) -> Option<usize> {
    let (number, unit) = text.split_once(' ')?;
    let shift = ["bytes", "KiB", "MiB", "GiB", "TiB"].iter().position(|known| *known == unit)?;
    // Less than a unit more or less is all the same.
    let whole = number.split('.').next()?.parse::<usize>().ok()?;
    whole.checked_mul(1 << (10 * shift))
}

/// `text` as an SQL string.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::bytes_of;

    #[test]
    fn sizes_of_duckdb_are_read() {
        assert_eq!(bytes_of("953.6 MiB"), Some(953 << 20));
        assert_eq!(bytes_of("512 bytes"), Some(512));
        assert_eq!(bytes_of("16 GiB"), Some(16 << 30));
        assert_eq!(bytes_of("no limit"), None);
    }
}
