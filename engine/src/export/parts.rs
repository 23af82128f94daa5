//! The files of an export while they are written.
//!
//! **Guarantees.** A file gets its name when all its bytes are on the medium.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use sha2::{Digest, Sha256};

use super::job::{ExportFile, ExportFormat, sync};
use crate::query::format::Encoder;

/// Size at which the next file begins: one that a download of a minute has.
const PART_BYTES: u64 = 256 << 20;

/// Writes rows into one file after the other.
pub(super) struct Parts {
    directory: PathBuf,
    format: ExportFormat,
    schema: SchemaRef,
    part: Option<Part>,
    /// The complete files.
    files: Vec<ExportFile>,
}

/// The file at hand.
struct Part {
    name: String,
    file: File,
    encoder: Encoder,
    hash: Sha256,
    bytes: u64,
    rows: u64,
}

impl Parts {
    /// Writes rows of `schema` into `directory`.
    pub(super) fn new(directory: PathBuf, format: ExportFormat, schema: SchemaRef) -> Self {
        Self { directory, format, schema, part: None, files: Vec::new() }
    }

    /// The complete files so far.
    pub(super) fn files(&self) -> &[ExportFile] {
        &self.files
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        let complete: u64 = self.files.iter().map(|file| file.bytes).sum();
        complete + self.part.as_ref().map_or(0, |part| part.bytes)
    }

    /// Adds rows. True when a file is complete with them.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> io::Result<bool> {
        let mut part = match self.part.take() {
            Some(part) => part,
            None => self.begin()?,
        };
        let bytes = part.encoder.batch(batch).map_err(io::Error::other)?;
        part.append(&bytes)?;
        part.rows += batch.num_rows() as u64;
        if part.bytes < PART_BYTES {
            self.part = Some(part);
            return Ok(false);
        }
        self.complete(part)?;
        Ok(true)
    }

    /// Completes the last file. There is one even without rows, so that readers find the columns.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self.part.take() {
            Some(part) => self.complete(part),
            None if self.files.is_empty() => {
                let part = self.begin()?;
                self.complete(part)
            }
            None => Ok(()),
        }
    }

    fn begin(&self) -> io::Result<Part> {
        let name = format!("part-{:05}.{}", self.files.len() + 1, self.format.extension());
        let file = File::create(self.draft(&name))?;
        let encoder =
            Encoder::new(self.format.encoding(), &self.schema).map_err(io::Error::other)?;
        Ok(Part { name, file, encoder, hash: Sha256::new(), bytes: 0, rows: 0 })
    }

    fn complete(&mut self, mut part: Part) -> io::Result<()> {
        let empty = Encoder::new(self.format.encoding(), &self.schema).map_err(io::Error::other)?;
        let encoder = std::mem::replace(&mut part.encoder, empty);
        part.append(&encoder.finish().map_err(io::Error::other)?)?;
        part.file.sync_all()?;
        fs::rename(self.draft(&part.name), self.directory.join(&part.name))?;
        sync(&self.directory)?;
        let sha256 = part.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let Part { name, bytes, rows, .. } = part;
        self.files.push(ExportFile { name, bytes, rows, sha256 });
        Ok(())
    }

    fn draft(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.partial"))
    }
}

impl Part {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
