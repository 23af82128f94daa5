//! Events without JSON: the query parameters of the pixel.
//!
//! Parameters with a field's name are that field, all others become properties with text values.
//! A time may be RFC 3339 or an epoch number. `properties` and `context` take the text of a JSON
//! object. A parameter given twice is a duplicate key, as everywhere.
//!
//! The parameters are written as one JSON object and decoded as one, so that every rule of the
//! body holds here too; the pixel is not where the traffic is.

use std::borrow::Cow;

use crate::decode::{Decoded, Decoder};
use crate::error::DecodeError;
use crate::json::{Scanner, Scratch, push_escaped};
use crate::model::{Field, Limits, Mode, Request};
use crate::record::record_bound;

/// How many bytes the record of a query string of `query_len` bytes can need at most.
///
/// A byte of the query becomes at most six of JSON: a control character its escape, a one-letter
/// parameter and its `&` a member with an empty text.
#[must_use]
pub const fn pairs_bound(query_len: usize) -> usize {
    record_bound(query_len.saturating_mul(6).saturating_add(16))
}

/// Decodes the percent-decoded parameters of one event and writes its record to the front of
/// `out`.
///
/// # Errors
///
/// As for [`Decoder::decode`] with [`Mode::Whole`]; the index is always 0.
///
/// # Panics
///
/// When `out` is shorter than the record's bound: [`pairs_bound`] of the query's length.
pub fn encode_pairs<'a>(
    decoder: &mut Decoder,
    pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    request: &Request<'_>,
    limits: &Limits,
    out: &mut [u8],
) -> Result<Decoded, DecodeError> {
    let mut json = Vec::with_capacity(1024);
    json.push(b'{');
    for (name, value) in pairs {
        if json.len() > 1 {
            json.push(b',');
        }
        push_escaped(&name, &mut json);
        json.push(b':');
        let as_given = match Field::named(name.as_bytes()) {
            Some(Field::Timestamp | Field::OriginalTimestamp | Field::SentAt) => {
                value.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            }
            Some(Field::Properties | Field::Context) => value.starts_with('{'),
            _ => false,
        };
        if as_given && is_value(&value) {
            json.extend_from_slice(value.as_bytes());
        } else {
            push_escaped(&value, &mut json);
        }
    }
    json.push(b'}');
    decoder.decode(&json, request, limits, Mode::Whole, out)
}

/// Whether `text` is one JSON value and nothing else.
///
/// Faults that leave the syntax intact do not matter: the decoder finds them again and names them.
fn is_value(text: &str) -> bool {
    let mut scratch = Scratch::default();
    let limits = Limits::default();
    let mut scanner = Scanner::new(text.as_bytes(), &limits, Mode::Partial, &mut scratch);
    scanner.begin_event();
    scanner.value().is_ok() && scanner.at == text.len()
}
