//! The server: connections, routes, answers.
//!
//! ```text
//!  accept ─▶ serving loop (one per core) ─▶ access ─▶ ingest, pixel, SDKs ─▶ ring of the loop
//!                                                └──▶ router: query, events, status, metrics, admin
//! ```
//!
//! **Roles.** The control thread accepts connections and listens for signals. A serving loop owns
//! its connections and one ring producer, and never blocks. What blocks (queries being planned,
//! rolls, a look at the metrics) runs on the control runtime's pool of threads.
//!
//! **Failure.** A panic while one request is handled ends its connection and nothing else.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ringlake_engine::Engine;
use ringlake_engine::metrics::Histogram;
use ringlake_engine::webhook::Webhooks;
use ringlake_keys::{Keys, Limits};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::traces::Tracer;
use crate::webhooks::Totals;

pub mod accept;
mod access;
mod admin;
mod answer;
pub mod arrow;
mod body;
mod compress;
mod connection;
mod console;
mod cors;
mod encoding;
mod erase;
mod exports;
mod follow;
mod forwarded;
mod guard;
mod ingest;
pub mod keys;
mod listing;
mod logs;
mod metrics;
mod openapi;
pub mod parameters;
mod patience;
mod pixel;
mod profile;
mod query;
mod routes;
mod sdk;
pub mod serving_loop;
mod stats;
mod status;
pub mod tls;
mod webhooks;

pub use answer::chain;
pub use forwarded::Network;
pub use ingest::now_micros;
pub use listing::objects;
use serving_loop::LoopShared;

/// What every loop and every route can reach.
#[derive(Debug)]
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// The configuration.
    pub config: Config,
    /// Who may do what.
    pub keys: Arc<Keys>,
    /// How much of it.
    pub limits: Limits,
    /// What each loop shows of itself.
    pub loops: Vec<Arc<LoopShared>>,
    /// What connections are encrypted with, when they are.
    pub tls: Option<tls::Tls>,
    /// Connections closed because their address had enough. Written by the acceptor.
    pub turned_away: AtomicU64,
    /// Bytes that bodies other than events may still take; see [`SMALL_BODIES_BYTES`].
    pub small_bodies: Semaphore,
    /// Time from a query's head to its first rows.
    pub queries: Histogram,
    /// Who is sent events, and how far each of them is.
    pub webhooks: Webhooks,
    /// What came of sending.
    pub deliveries: Totals,
    /// Where traces go, when they are on.
    pub tracer: Option<Arc<Tracer>>,
    /// The control runtime, for its pool of threads that may block.
    pub control: Handle,
    /// Cancelled when the server has been asked to stop.
    pub stopping: CancellationToken,
    /// When the process began to serve.
    pub started: Instant,
}

/// Bytes of the bodies of queries and other small requests that are being read at a time; above it they
/// are answered 503. Sixteen of the largest, and as many queries wait for a worker at most.
pub const SMALL_BODIES_BYTES: usize = 16 << 20;

/// Time that requests in flight get to end after a stop was asked for; the rest of the shutdown
/// time is the engine's.
#[must_use]
pub fn grace(shutdown_timeout: Duration) -> Duration {
    shutdown_timeout * 2 / 5
}
