//! The event model of ringlake, and its way from a request's bytes to a ring record and back.
//!
//! A serving loop owns a [`Decoder`], reserves [`record_bound`] bytes on its ring, lets the decoder
//! write the record there and commits what it used. The shard reads it with [`Record::parse`].
//!
//! **Architecture invariant.** This crate knows neither HTTP nor Arrow nor the ring: bytes come in,
//! bytes go out. It uses no `unsafe` and builds in seconds.

#![forbid(unsafe_code)]

mod model;

mod error;

mod json;

pub mod time;

mod draft;

mod decode;

mod pairs;

mod record;

mod assembly;

mod object;

pub mod write;

pub mod sdk;

pub mod promote;

pub mod generate;

pub use assembly::{Assembly, Fields, KEPT_MAX_BYTES};
pub use decode::{BODY_MAX_BYTES, Decoded, Decoder};
pub use error::{DecodeError, ErrorKind, QUOTE_MAX_CHARS, RecordError, Rejection};
pub use model::{
    DEFAULT_EVENT_MAX_BYTES, DEFAULT_EVENTS_MAX, DEFAULT_TENANT, DEFAULT_TYPE, Field, Limits,
    MAX_DEPTH, Mode, Request, Sender, Source, TENANT_MAX_BYTES, Tenant, USER_AGENT_MAX_BYTES,
};
pub use object::ObjectCheck;
pub use pairs::{encode_pairs, pairs_bound};
pub use record::{Event, Events, MessageIds, Record, record_bound};
