//! Cutting Arrow streams and files into pieces, each a small stream of its own.
//!
//! **Memory.** A batch of the input as it is, and unpacked, and one piece. A batch of more than
//! [`BATCH_MAX_BYTES`] ends the import.

use std::io::{self, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use ringlake_arrow::{Batches, Bounds, StreamError};
use ringlake_event::DEFAULT_EVENTS_MAX;

use super::pieces::{Next, Piece};

/// Largest batch of the input, packed or not. What writes such files starts a new batch after a
/// million rows at most.
const BATCH_MAX_BYTES: usize = 1 << 30;

/// Cuts input that is an Arrow IPC stream or file.
pub struct Slices<R> {
    batches: Batches<R>,
    piece_bytes: usize,
    /// The rows that are cut up now.
    rest: Option<RecordBatch>,
    /// How many rows make a piece.
    step: usize,
    /// The number of the first row in `rest`.
    number: u64,
}

impl<R: Read> Slices<R> {
    /// Cuts `input` into pieces of about `piece_bytes`.
    pub fn new(input: R, piece_bytes: usize) -> Self {
        let bounds = Bounds {
            message_max_bytes: BATCH_MAX_BYTES,
            stream_max_bytes: usize::MAX,
            rows_max: usize::MAX,
        };
        let batches = Batches::new(input, bounds);
        Self { batches, piece_bytes, rest: None, step: 1, number: 1 }
    }

    /// The next piece; no row is too long for one.
    ///
    /// # Errors
    /// When the input cannot be read, or holds what events cannot have.
    pub fn next(&mut self) -> io::Result<Next> {
        loop {
            let Some(batch) = self.rest.take() else {
                if !self.read_batch()? {
                    return Ok(Next::End);
                }
                continue;
            };
            if batch.num_rows() == 0 {
                continue;
            }
            let taken = self.step.min(batch.num_rows());
            let text = encode(&batch.slice(0, taken)).map_err(io::Error::other)?;
            let piece = Piece { text, first: self.number };
            self.number += taken as u64;
            self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
            return Ok(Next::Piece(piece));
        }
    }

    /// Reads a batch and finds how to cut it; false at the end.
    fn read_batch(&mut self) -> io::Result<bool> {
        let Some(batch) = self.batches.next_batch().map_err(broken)? else { return Ok(false) };
        ringlake_arrow::check_columns(&batch).map_err(io::Error::other)?;
        let batch = plain(&batch).map_err(io::Error::other)?;
        let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
        let bytes = sizes.sum::<Result<usize, ArrowError>>().map_err(io::Error::other)?;
        let row_bytes = bytes / batch.num_rows().max(1);
        self.step = (self.piece_bytes / row_bytes.max(1)).clamp(1, DEFAULT_EVENTS_MAX);
        self.rest = Some(batch);
        Ok(true)
    }
}

fn broken(error: StreamError) -> io::Error {
    match error {
        StreamError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// The batch without what every one of its pieces would carry whole: dictionaries, the texts behind
/// views.
fn plain(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let fields = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Utf8View => DataType::LargeUtf8,
        DataType::BinaryView => DataType::LargeBinary,
        other => other.clone(),
    }
}

fn encode(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
    writer.write(rows)?;
    writer.into_inner()
}

/// Two pieces of half the rows; none when there is only one row.
pub fn split(piece: &Piece) -> Option<(Piece, Piece)> {
    let bounds = Bounds {
        message_max_bytes: usize::MAX,
        stream_max_bytes: usize::MAX,
        rows_max: usize::MAX,
    };
    let rows = Batches::new(piece.text.as_slice(), bounds).next_batch().ok()??;
    let half = rows.num_rows() / 2;
    if half == 0 {
        return None;
    }
    let part = |from: usize, count: usize| {
        let text = encode(&rows.slice(from, count)).ok()?;
        Some(Piece { text, first: piece.first + from as u64 })
    };
    Some((part(0, half)?, part(half, rows.num_rows() - half)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use arrow::array::{ArrayRef, StringArray, StringDictionaryBuilder, StringViewArray};
    use arrow::datatypes::Int8Type;

    use super::*;

    /// A stream of two batches of 100 rows each, of every kind that is made plain.
    fn stream() -> Vec<u8> {
        let names: Vec<String> = (0..100).map(|number| format!("event {number}")).collect();
        let mut types = StringDictionaryBuilder::<Int8Type>::new();
        types.extend((0..100).map(|_| Some("track")));
        let columns: [(&str, ArrayRef); 3] = [
            ("event", Arc::new(StringArray::from(names.clone()))),
            ("type", Arc::new(types.finish())),
            ("url", Arc::new(StringViewArray::from_iter_values(&names))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch.slice(0, 0)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn rows(piece: &Piece) -> usize {
        let bounds =
            Bounds { message_max_bytes: 1 << 20, stream_max_bytes: 1 << 20, rows_max: usize::MAX };
        Batches::new(piece.text.as_slice(), bounds).next_batch().unwrap().unwrap().num_rows()
    }

    #[test]
    fn pieces_hold_every_row_once_and_know_their_numbers() {
        let mut slices = Slices::new(io::Cursor::new(stream()), 500);
        let mut number = 1;
        while let Next::Piece(piece) = slices.next().unwrap() {
            assert_eq!(piece.first, number);
            assert!(rows(&piece) < 100);
            number += rows(&piece) as u64;
        }
        assert_eq!(number, 201);
    }

    #[test]
    fn halves_hold_what_the_whole_held() {
        let Next::Piece(whole) = Slices::new(io::Cursor::new(stream()), 1 << 20).next().unwrap()
        else {
            panic!("there are rows");
        };
        let (left, right) = split(&whole).unwrap();
        assert_eq!((rows(&left), rows(&right), right.first), (50, 50, 51));
        let one = Piece { text: encode(&plain_rows(1)).unwrap(), first: 7 };
        assert!(split(&one).is_none());
    }

    fn plain_rows(count: usize) -> RecordBatch {
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a"; count]));
        RecordBatch::try_from_iter([("event", names)]).unwrap()
    }

    #[test]
    fn what_is_no_stream_is_said() {
        for bytes in [&b"{\"event\":\"a\"}\n"[..], b"", &stream()[..300]] {
            assert!(Slices::new(bytes, 500).next().is_err());
        }
    }
}
