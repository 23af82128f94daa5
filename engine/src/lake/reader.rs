//! A data file of the table as the `parquet` crate's asynchronous reader wants it.
//!
//! **Limits.** A read of several ranges is one trip to the store's threads. The end of the file,
//! where the footer is, is fetched in one piece of [`FOOTER_BYTES`] as a rule.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::delta::DataFile;

/// What is read of a file's end at first: a footer of several row groups with its page index.
const FOOTER_BYTES: usize = 32 << 10;

/// Reads one file. Clones read the same one.
#[derive(Debug, Clone)]
pub(crate) struct FileReader {
    store: Arc<LocalFileSystem>,
    path: Path,
    bytes: u64,
}

impl FileReader {
    /// A reader of `file`; nothing is opened yet. The futures that it gives have to run inside a
    /// Tokio runtime.
    ///
    /// # Errors
    /// When the path of the file cannot be expressed.
    pub(crate) fn new(file: &DataFile) -> Result<Self> {
        let path = Path::from_absolute_path(&file.local).map_err(external)?;
        Ok(Self { store: Arc::new(LocalFileSystem::new()), path, bytes: file.bytes })
    }
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let bytes = self.bytes;
            let reader = ParquetMetaDataReader::new()
                .with_prefetch_hint(Some(FOOTER_BYTES))
                // Ours have one, those of others may have none.
                .with_page_index_policy(PageIndexPolicy::Optional);
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}
