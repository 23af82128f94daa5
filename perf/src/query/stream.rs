//! All rows as an Arrow IPC stream to a client that decodes and counts them.

use std::time::Instant;

use anyhow::{Result, ensure};
use arrow::ipc::reader::StreamReader;

use crate::bulk::{count_as_f64, megabytes};
use crate::http;
use crate::server::Server;

/// What one stream brought.
#[derive(Debug)]
pub struct Streamed {
    /// Rows that were decoded.
    pub rows: u64,
    seconds: f64,
    first: f64,
    peak: u64,
}

impl Streamed {
    /// In the order of the case's columns.
    pub fn values(&self) -> [f64; 5] {
        let rows = count_as_f64(self.rows);
        [self.seconds * 1e3, rows, rows / self.seconds, self.first * 1e3, megabytes(self.peak)]
    }
}

/// Reads everything there is.
pub fn all(server: &Server) -> Result<Streamed> {
    server.forget_peak()?;
    let began = Instant::now();
    let format = "application/vnd.apache.arrow.stream";
    let (status, body) = http::query(server.address(), "SELECT * FROM events", format)?;
    ensure!(status == 200, "all rows were answered {status}");
    let (mut rows, mut first) = (0, None);
    for batch in StreamReader::try_new(body, None)? {
        rows += batch?.num_rows() as u64;
        first.get_or_insert_with(|| began.elapsed().as_secs_f64());
    }
    let seconds = began.elapsed().as_secs_f64();
    let peak = server.memory()?.peak;
    Ok(Streamed { rows, seconds, first: first.unwrap_or(seconds), peak })
}
