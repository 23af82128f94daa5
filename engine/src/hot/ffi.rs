//! DuckDB's C interface, as far as the safe crate lacks it: Arrow batches appended without a copy.
//!
//! **Guarantees.** No pointer of DuckDB's leaves this module. Everything that is made here is
//! freed here, also when a call fails half-way.
//!
//! **Why not the crate's appender.** It copies every string through one call each, and DuckDB
//! checks its UTF-8 again. `duckdb_data_chunk_from_arrow` lets a chunk point into the Arrow
//! buffers instead; the only copy left is DuckDB's own.
//!
//! **Limits.** A chunk holds one DuckDB vector of rows (2,048). DuckDB's appender commits on its
//! own at 204,800 rows; callers append fewer in one call, so that a call is all or nothing.

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use duckdb::{Connection, ffi};

/// Rows of one chunk: DuckDB's vector size, which its build fixes.
const CHUNK_ROWS: usize = 2_048;

/// Why DuckDB refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// In DuckDB's words.
    pub reason: String,
    /// It has no memory left, or no room to spill to: the same may go through later.
    pub is_lack: bool,
}

impl Refused {
    /// Something that is as wrong the next time.
    fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_lack: false }
    }
}

/// An open in-memory database. It closes when this and every connection to it are gone.
#[derive(Debug)]
pub(super) struct RawDatabase {
    database: ffi::duckdb_database,
}

// SAFETY: a DuckDB database may be used from any thread; the handle is a plain pointer to it.
unsafe impl Send for RawDatabase {}
// SAFETY: as above; `duckdb_connect`, the only call that shares it, takes DuckDB's own locks.
unsafe impl Sync for RawDatabase {}

impl RawDatabase {
    /// Opens an empty database with `settings`.
    pub(super) fn open(settings: &[(&str, &str)]) -> Result<Self, Refused> {
        let mut config = ptr::null_mut();
        // SAFETY: `config` is a place for the handle that the call makes.
        unsafe { ffi::duckdb_create_config(&raw mut config) };
        let opened = Self::open_with(config, settings);
        // SAFETY: `config` came from `duckdb_create_config` and is destroyed once.
        unsafe { ffi::duckdb_destroy_config(&raw mut config) };
        opened
    }

    fn open_with(config: ffi::duckdb_config, settings: &[(&str, &str)]) -> Result<Self, Refused> {
        for (name, value) in settings {
            let (c_name, c_value) = (c_string(name)?, c_string(value)?);
            // SAFETY: `config` is live; both texts end in a zero byte and outlive the call.
            let state =
                unsafe { ffi::duckdb_set_config(config, c_name.as_ptr(), c_value.as_ptr()) };
            if state != ffi::DuckDBSuccess {
                return Err(Refused::for_good(format!("the setting {name} = {value} is refused")));
            }
        }
        let mut database = ptr::null_mut();
        let mut error: *mut c_char = ptr::null_mut();
        // SAFETY: the path is a C text, `config` is live, both out-pointers are places for one
        // handle and one text.
        let state = unsafe {
            ffi::duckdb_open_ext(c":memory:".as_ptr(), &raw mut database, config, &raw mut error)
        };
        if state == ffi::DuckDBSuccess {
            return Ok(Self { database });
        }
        let refused = Refused::for_good(text(error));
        // SAFETY: DuckDB allocated the message (or left null, which is allowed) and gave it to us.
        unsafe { ffi::duckdb_free(error.cast()) };
        Err(refused)
    }

    /// A connection for the safe crate.
    pub(super) fn connect(&self) -> duckdb::Result<Connection> {
        // SAFETY: the database is open; the connection holds a reference of its own on it.
        unsafe { Connection::open_from_raw(self.database) }
    }
}

impl Drop for RawDatabase {
    fn drop(&mut self) {
        // SAFETY: the handle came from `duckdb_open_ext` and is closed once.
        unsafe { ffi::duckdb_close(&raw mut self.database) };
    }
}

/// Appends batches of one schema through a connection of its own.
#[derive(Debug)]
pub(super) struct ChunkAppender {
    connection: ffi::duckdb_connection,
    types: ffi::duckdb_arrow_converted_schema,
    schema: SchemaRef,
    /// The connection's database stays open at least as long.
    _database: Arc<RawDatabase>,
}

// SAFETY: a DuckDB connection may move between threads; `&mut self` in `append` keeps it to one at
// a time.
unsafe impl Send for ChunkAppender {}

impl ChunkAppender {
    /// An appender for batches of `schema`.
    pub(super) fn new(database: Arc<RawDatabase>, schema: SchemaRef) -> Result<Self, Refused> {
        let mut connection = ptr::null_mut();
        // SAFETY: the database is open and `connection` is a place for one handle.
        let state = unsafe { ffi::duckdb_connect(database.database, &raw mut connection) };
        if state != ffi::DuckDBSuccess {
            return Err(Refused::for_good("no connection can be made"));
        }
        // From here on the drop of `appender` frees what is made.
        let mut appender = Self {
            connection,
            types: ptr::null_mut(),
            schema: Arc::clone(&schema),
            _database: database,
        };
        appender.types = appender.convert(&schema)?;
        Ok(appender)
    }

    fn convert(&self, schema: &Schema) -> Result<ffi::duckdb_arrow_converted_schema, Refused> {
        let mut exported = FFI_ArrowSchema::try_from(schema)
            .map_err(|error| Refused::for_good(error.to_string()))?;
        let mut types = ptr::null_mut();
        // SAFETY: the connection is live, `exported` is an Arrow schema in the C layout that both
        // sides share and outlives the call (DuckDB reads it and leaves its release to us).
        let error = unsafe {
            ffi::duckdb_schema_from_arrow(
                self.connection,
                (&raw mut exported).cast(),
                &raw mut types,
            )
        };
        check(error)?;
        Ok(types)
    }

    /// Appends `rows` to `table`, all or none.
    pub(super) fn append(&mut self, table: &str, rows: &[RecordBatch]) -> Result<(), Refused> {
        if rows.iter().any(|batch| batch.schema_ref() != &self.schema) {
            return Err(Refused::for_good("the batch has another schema than the appender"));
        }
        let table = c_string(table)?;
        let mut appender = ptr::null_mut();
        // SAFETY: the connection is live, the name is a C text, null means the default schema.
        let state = unsafe {
            ffi::duckdb_appender_create(
                self.connection,
                ptr::null(),
                table.as_ptr(),
                &raw mut appender,
            )
        };
        let appended = if state == ffi::DuckDBSuccess {
            self.append_chunks(appender, rows)
        } else {
            appender_error(appender)
        };
        if appended.is_err() && state == ffi::DuckDBSuccess {
            // SAFETY: the appender is live. What it still holds must not be flushed by its end.
            unsafe { ffi::duckdb_appender_clear(appender) };
        }
        // SAFETY: the appender came from `duckdb_appender_create`, which makes one even when it
        // fails, and is destroyed once.
        unsafe { ffi::duckdb_appender_destroy(&raw mut appender) };
        appended
    }

    fn append_chunks(
        &self,
        appender: ffi::duckdb_appender,
        rows: &[RecordBatch],
    ) -> Result<(), Refused> {
        for batch in rows {
            for start in (0..batch.num_rows()).step_by(CHUNK_ROWS) {
                let slice = batch.slice(start, CHUNK_ROWS.min(batch.num_rows() - start));
                let mut chunk = self.chunk(slice)?;
                // SAFETY: appender and chunk are live.
                let state = unsafe { ffi::duckdb_append_data_chunk(appender, chunk) };
                // SAFETY: the chunk came from `duckdb_data_chunk_from_arrow` and is destroyed
                // once; the appender has copied it, or failed.
                unsafe { ffi::duckdb_destroy_data_chunk(&raw mut chunk) };
                if state != ffi::DuckDBSuccess {
                    return appender_error(appender);
                }
            }
        }
        // SAFETY: the appender is live.
        let state = unsafe { ffi::duckdb_appender_flush(appender) };
        if state == ffi::DuckDBSuccess { Ok(()) } else { appender_error(appender) }
    }

    /// A chunk that points into the buffers of `rows` and keeps them.
    fn chunk(&self, rows: RecordBatch) -> Result<ffi::duckdb_data_chunk, Refused> {
        let mut array = FFI_ArrowArray::new(&StructArray::from(rows).to_data());
        let mut chunk = ptr::null_mut();
        // SAFETY: connection and types are live and of the batch's schema (checked in `append`).
        // DuckDB takes the array over and sets its release to null, so that its drop here does
        // nothing; when it does not come that far, the drop releases it.
        let error = unsafe {
            ffi::duckdb_data_chunk_from_arrow(
                self.connection,
                (&raw mut array).cast(),
                self.types,
                &raw mut chunk,
            )
        };
        check(error)?;
        Ok(chunk)
    }
}

impl Drop for ChunkAppender {
    fn drop(&mut self) {
        // SAFETY: the types came from `duckdb_schema_from_arrow` or are null, which is allowed.
        unsafe { ffi::duckdb_destroy_arrow_converted_schema(&raw mut self.types) };
        // SAFETY: the connection came from `duckdb_connect` and is closed once.
        unsafe { ffi::duckdb_disconnect(&raw mut self.connection) };
    }
}

/// Turns error data into a result and frees it; null is success.
fn check(mut error: ffi::duckdb_error_data) -> Result<(), Refused> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: `error` is live; the message belongs to it and is copied before it is destroyed.
    let reason = text(unsafe { ffi::duckdb_error_data_message(error) });
    // SAFETY: as above.
    let kind = unsafe { ffi::duckdb_error_data_error_type(error) };
    // SAFETY: as above, destroyed once.
    unsafe { ffi::duckdb_destroy_error_data(&raw mut error) };
    // The only files that appends to tables in memory write are those they spill to.
    let is_lack = matches!(
        kind,
        ffi::duckdb_error_type_DUCKDB_ERROR_OUT_OF_MEMORY | ffi::duckdb_error_type_DUCKDB_ERROR_IO
    );
    Err(Refused { reason, is_lack })
}

fn appender_error(appender: ffi::duckdb_appender) -> Result<(), Refused> {
    // SAFETY: the appender is live or null, for which the call gives an error as well.
    let error = unsafe { ffi::duckdb_appender_error_data(appender) };
    check(error).and(Err(Refused::for_good("the append failed for no stated reason")))
}

fn c_string(text: &str) -> Result<CString, Refused> {
    CString::new(text).map_err(|_| Refused::for_good(format!("{text:?} holds a zero byte")))
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return "no reason given".into();
    }
    // SAFETY: DuckDB's messages end in a zero byte; the callers hold what they belong to.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
