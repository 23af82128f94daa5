//! The messages of an Arrow IPC stream, from bytes that nobody vouches for.
//!
//! **Guarantees.** A batch that comes out of [`Batches`] is valid: arrow-rs has checked every offset,
//! index and text of it. What arrow-rs takes on trust was checked before it saw the message: that the
//! buffers lie inside the body, that no number is negative, that what is compressed or shared stays
//! small once it is spread out, and that the columns are of the kinds that [`check_schema`] lets pass.
//! Hostile bytes end in an error.
//!
//! **Limits.** [`Bounds`], counted before memory is taken; [`FIELDS_MAX`] fields, [`DEPTH_MAX`] levels.
//!
//! **Memory.** One message and its unpacked form, and the dictionaries so far.
//!
//! **Not guaranteed.** Types that nobody sends events with: unions, run ends, list views, intervals,
//! durations. Dictionaries that grow by pieces (deltas); a whole new one is fine.

use std::collections::HashMap;
use std::io::{self, Read};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{RecordBatchDecoder, read_dictionary};
use arrow::ipc::{self, Endianness, Message, MessageHeader, root_as_message_with_opts};
use flatbuffers::VerifierOptions;
use thiserror::Error;

use crate::guard::{Claims, check_schema};

/// Most fields of a schema, nested ones included: far more than an event has, few enough that what
/// each message costs for each field stays small.
pub const FIELDS_MAX: usize = 1_024;

/// Deepest nesting of lists, structures and maps.
pub const DEPTH_MAX: usize = 32;

/// Longest head of a message: names, metadata and where the buffers lie.
const HEAD_MAX_BYTES: usize = 4 << 20;

/// Tables in the head of a message: a field has its type, its dictionary and its metadata.
const TABLES_MAX: usize = 16 * FIELDS_MAX;

/// What an Arrow IPC file begins with; what follows is a stream.
const FILE_MAGIC: [u8; 8] = *b"ARROW1\0\0";

/// Zeros may follow, up to 64 bytes in all; and one word that is more.
const FILE_PADDING_WORDS: usize = (64 - FILE_MAGIC.len()) / 4 + 1;

const CONTINUATION: [u8; 4] = [0xff; 4];

/// How much may come out of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Longest message, before and after its buffers were unpacked, in bytes.
    pub message_max_bytes: usize,
    /// All of the stream's messages after unpacking, in bytes.
    pub stream_max_bytes: usize,
    /// Most rows of all batches.
    pub rows_max: usize,
}

/// Why a stream was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The bytes could not be read.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The bytes are not such a stream, or contradict themselves.
    #[error("not an Arrow IPC stream: {0}")]
    Malformed(String),
    /// It is one, with columns that events cannot have.
    #[error("{0}")]
    Unsuited(String),
    /// More bytes than the bounds allow.
    #[error("an Arrow {what} of {found} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What it was: a message, a stream.
        what: &'static str,
        /// How large it is, or was when the limit was passed.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// More rows than the bounds allow.
    #[error("a request holds at most {limit} events")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl From<ArrowError> for StreamError {
    fn from(error: ArrowError) -> Self {
        StreamError::Malformed(error.to_string())
    }
}

/// The batches of a stream, or of an Arrow IPC file, which holds one.
#[derive(Debug)]
pub struct Batches<R> {
    input: R,
    bounds: Bounds,
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// A footer follows the stream of a file.
    is_file: bool,
    /// Bytes of all messages so far, unpacked.
    unpacked: usize,
    rows: usize,
}

impl<R: Read> Batches<R> {
    /// The batches that `input` holds. Nothing is read yet.
    pub fn new(input: R, bounds: Bounds) -> Self {
        let dictionaries = HashMap::new();
        Self { input, bounds, schema: None, dictionaries, is_file: false, unpacked: 0, rows: 0 }
    }

    /// The next batch; none when the stream has ended. After an error nothing more can be read.
    ///
    /// # Errors
    ///
    /// [`StreamError`].
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, StreamError> {
        while let Some(head) = self.head()? {
            let options = VerifierOptions {
                max_tables: TABLES_MAX,
                // A sound head says everything once and refers to its layouts a few times.
                max_apparent_size: 4 * head.len() + 1_024,
                ..VerifierOptions::default()
            };
            let message = root_as_message_with_opts(&options, &head)
                .map_err(|error| StreamError::Malformed(error.to_string()))?;
            let body = self.body(&message)?;
            match message.header_type() {
                MessageHeader::Schema => self.take_schema(&message)?,
                MessageHeader::DictionaryBatch => self.take_dictionary(&message, &body)?,
                MessageHeader::RecordBatch => return self.take_batch(&message, &body).map(Some),
                other => {
                    let name = other.variant_name().unwrap_or("of an unknown kind");
                    return Err(malformed(format!("it holds a message {name}")));
                }
            }
        }
        match self.schema {
            Some(_) => Ok(None),
            None => Err(malformed("it has no schema")),
        }
    }

    /// The head of the next message; none at the end.
    fn head(&mut self) -> Result<Option<Vec<u8>>, StreamError> {
        let mut word = [0; 4];
        if !self.fill_or_end(&mut word)? {
            return Ok(None);
        }
        if self.schema.is_none() && word == FILE_MAGIC[..4] {
            self.fill(&mut word)?;
            if word != FILE_MAGIC[4..] {
                return Err(malformed("its first bytes are unknown"));
            }
            self.is_file = true;
            for _ in 0..FILE_PADDING_WORDS {
                self.fill(&mut word)?;
                if word != [0; 4] {
                    break;
                }
            }
        }
        if word == CONTINUATION {
            self.fill(&mut word)?;
        }
        let length = u32::from_le_bytes(word) as usize;
        if length == 0 {
            return self.end().map(|()| None);
        }
        if length > HEAD_MAX_BYTES.min(self.bounds.message_max_bytes) {
            return Err(malformed(format!("the head of a message claims {length} bytes")));
        }
        let mut head = vec![0; length];
        self.fill(&mut head)?;
        Ok(Some(head))
    }

    /// The stream says that it has ended.
    fn end(&mut self) -> Result<(), StreamError> {
        if !self.is_file && self.fill_or_end(&mut [0])? {
            return Err(malformed("something follows its end"));
        }
        Ok(())
    }

    /// Reads the body of a message into memory that is aligned as arrow-rs wants it.
    fn body(&mut self, message: &Message<'_>) -> Result<Buffer, StreamError> {
        let limit = self.bounds.message_max_bytes;
        let length = usize::try_from(message.bodyLength())
            .map_err(|_| malformed("the body of a message has a negative length"))?;
        if length > limit {
            return Err(StreamError::TooLarge { what: "message", found: length, limit });
        }
        let mut body = MutableBuffer::from_len_zeroed(length);
        self.fill(&mut body)?;
        Ok(body.into())
    }

    fn take_schema(&mut self, message: &Message<'_>) -> Result<(), StreamError> {
        let schema = message.header_as_schema().ok_or_else(|| malformed("it has no schema"))?;
        if self.schema.is_some() {
            return Err(malformed("it has two schemas"));
        }
        if schema.endianness() != Endianness::Little {
            return Err(StreamError::Unsuited("the stream's numbers are big-endian".into()));
        }
        let schema = try_fb_to_schema(schema)?;
        check_schema(&schema)?;
        self.schema = Some(schema.into());
        Ok(())
    }

    fn take_dictionary(&mut self, message: &Message<'_>, body: &Buffer) -> Result<(), StreamError> {
        let schema = self.known_schema()?;
        let dictionary =
            message.header_as_dictionary_batch().ok_or_else(|| malformed("a message is empty"))?;
        if dictionary.isDelta() {
            let reason = "dictionaries that grow by deltas are not taken; send them whole";
            return Err(StreamError::Unsuited(reason.into()));
        }
        let values = dictionary_values(&schema, dictionary.id())
            .ok_or_else(|| malformed("a dictionary belongs to no column"))?;
        let batch = dictionary.data().ok_or_else(|| malformed("a dictionary is empty"))?;
        self.admit(batch, [values], body)?;
        read_dictionary(body, dictionary, &schema, &mut self.dictionaries, &message.version())?;
        Ok(())
    }

    fn take_batch(
        &mut self,
        message: &Message<'_>,
        body: &Buffer,
    ) -> Result<RecordBatch, StreamError> {
        let schema = self.known_schema()?;
        let batch =
            message.header_as_record_batch().ok_or_else(|| malformed("a message is empty"))?;
        let rows =
            self.admit(batch, schema.fields().iter().map(|field| field.data_type()), body)?;
        let limit = self.bounds.rows_max;
        self.rows = self.rows.saturating_add(rows);
        if self.rows > limit {
            return Err(StreamError::TooMany { limit });
        }
        let version = message.version();
        let decoder =
            RecordBatchDecoder::try_new(body, batch, schema, &self.dictionaries, &version)?;
        Ok(decoder.with_require_alignment(false).read_record_batch()?)
    }

    /// Checks what a batch claims about columns of the `kinds`; gives its rows.
    fn admit<'a>(
        &mut self,
        batch: ipc::RecordBatch<'_>,
        kinds: impl IntoIterator<Item = &'a DataType>,
        body: &Buffer,
    ) -> Result<usize, StreamError> {
        let claims = Claims::read(batch, kinds, body, self.bounds.message_max_bytes)?;
        self.unpacked = self.unpacked.saturating_add(claims.unpacked);
        let limit = self.bounds.stream_max_bytes;
        if self.unpacked > limit {
            return Err(StreamError::TooLarge { what: "stream", found: self.unpacked, limit });
        }
        Ok(claims.rows)
    }

    fn known_schema(&self) -> Result<SchemaRef, StreamError> {
        self.schema.clone().ok_or_else(|| malformed("its first message is no schema"))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StreamError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed("it breaks off"),
            _ => StreamError::Io(error),
        })
    }

    /// Fills `buffer`, or tells that the input ended before it.
    fn fill_or_end(&mut self, buffer: &mut [u8]) -> Result<bool, StreamError> {
        let (first, rest) = buffer.split_at_mut(1);
        let mut input = self.input.by_ref().take(1);
        let mut byte = Vec::with_capacity(1);
        if input.read_to_end(&mut byte).map_err(StreamError::Io)? == 0 {
            return Ok(false);
        }
        first.copy_from_slice(&byte);
        self.fill(rest).map(|()| true)
    }
}

/// The type of a dictionary's values.
fn dictionary_values(schema: &Schema, id: i64) -> Option<&DataType> {
    #[expect(deprecated, reason = "there is no other way from an id to its column")]
    let fields: Vec<&Field> = schema.fields_with_dict_id(id);
    match fields.first()?.data_type() {
        DataType::Dictionary(_, values) => Some(values),
        _ => None,
    }
}

pub(crate) fn malformed(reason: impl Into<String>) -> StreamError {
    StreamError::Malformed(reason.into())
}
