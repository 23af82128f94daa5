//! What the fuzz targets share: the oracles, and what they decode with.

#![allow(missing_docs, reason = "a library for the programs beside it")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a target is for")]

pub mod events;
pub mod log;
pub mod shapes;
pub mod stored;
