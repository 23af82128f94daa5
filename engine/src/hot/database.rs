//! The in-memory DuckDB that holds the hot tables and runs all SQL.
//!
//! **Limits.** Memory, threads and temporary files are bounded by the configuration, set once
//! here and locked. Files outside the table and the temporary directory cannot be reached;
//! extensions are never loaded or installed.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use duckdb::Connection;

use crate::config::DuckDbConfig;
use crate::error::Error;

/// An open database; connections are cloned from it.
#[derive(Debug)]
pub struct Database {
    /// Only cloned from; a connection may be used by one thread at a time.
    root: Mutex<Connection>,
}

impl Database {
    /// Opens a database that may read and write below `table`, and spill below `temporary`.
    ///
    /// # Errors
    /// When DuckDB refuses a setting.
    pub fn open(config: &DuckDbConfig, table: &Path, temporary: &Path) -> Result<Self, Error> {
        let refused = |source| Error::DuckDb { action: "open the in-memory database", source };
        let settings = duckdb::Config::default()
            .enable_autoload_extension(false)
            .and_then(|settings| settings.max_memory(&config.memory_limit))
            .map_err(refused)?;
        let root = Connection::open_in_memory_with_flags(settings).map_err(refused)?;
        root.execute_batch(&start_sql(config, table, temporary)).map_err(refused)?;
        Ok(Self { root: Mutex::new(root) })
    }

    /// One more connection.
    ///
    /// # Errors
    /// When DuckDB cannot make one.
    pub fn connect(&self) -> duckdb::Result<Connection> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).try_clone()
    }
}

/// The settings of every engine database, in the order in which DuckDB accepts them.
fn start_sql(config: &DuckDbConfig, table: &Path, temporary: &Path) -> String {
    let table = quote(&format!("{}/", table.display()));
    let temporary = quote(&temporary.display().to_string());
    format!(
        "SET threads = {threads};
         SET temp_directory = {temporary};
         SET max_temp_directory_size = {temp_max};
         -- A roll sorts anyway, and parallel inserts need not keep an order.
         SET preserve_insertion_order = false;
         SET parquet_metadata_cache = true;
         SET allow_community_extensions = false;
         -- The bundled build has no ICU: its TIMESTAMPTZ now() does not take part in arithmetic.
         CREATE MACRO now() AS get_current_timestamp()::TIMESTAMP;
         CREATE MACRO today() AS get_current_timestamp()::TIMESTAMP::DATE;
         SET allowed_directories = [{table}];
         SET enable_external_access = false;
         SET lock_configuration = true;",
        threads = config.threads,
        temp_max = quote(&config.temp_max),
    )
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
