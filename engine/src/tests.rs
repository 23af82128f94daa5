//! The whole engine on a disk that fails and forgets.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod power_cut;
mod random;
pub(crate) mod support;
