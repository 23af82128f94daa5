//! The load: generated events in requests over several kept-alive connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use hyper::StatusCode;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringlake_event::generate::Generator;
use tokio::sync::{Mutex, mpsc};

use super::on_terminal;
use crate::cli::SentKey;
use crate::client::{self, Client, Outgoing};

/// Events in one request, about 420 KB.
pub const EVENTS_PER_REQUEST: u64 = 1_000;
/// Connections that send at the same time.
const CONNECTIONS: usize = 8;
/// Requests that are ready before a connection is.
const READY_MAX: usize = 2 * CONNECTIONS;
/// How often one request is sent before the demonstration gives up.
const ATTEMPTS_MAX: usize = 60;
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// Latencies are kept in microseconds up to this, with this many significant digits.
const LATENCY_MAX_MICROS: u64 = 600_000_000;
const LATENCY_DIGITS: u8 = 3;

/// What was sent.
pub struct Sent {
    /// Events, all acknowledged.
    pub events: u64,
    /// Bytes of JSON.
    pub bytes: u64,
    /// Time from sending a request to its acknowledgement, refused attempts not counted.
    pub latencies: Histogram<u64>,
}

impl Sent {
    fn new() -> Result<Self> {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, LATENCY_DIGITS)?;
        Ok(Self { events: 0, bytes: 0, latencies })
    }
}

/// One request's events.
struct Batch {
    events: u64,
    lines: Bytes,
}

/// Generates `events` of `seed` and sends them to the server at `url`.
///
/// # Errors
/// When the server refuses events for good, or cannot be reached.
pub async fn run(url: &str, events: u64, seed: u64) -> Result<Sent> {
    let progress = progress(events);
    let (sender, receiver) = mpsc::channel(READY_MAX);
    let generating = std::thread::spawn(move || generate(events, seed, &sender));
    let receiver = Arc::new(Mutex::new(receiver));
    let connections = (0..CONNECTIONS).map(|_| send_all(url, &receiver, &progress));
    let outcome = try_join_all(connections).await;
    progress.finish_and_clear();
    let parts = outcome?;
    // It has ended: its channel is empty and closed.
    if generating.join().is_err() {
        bail!("the generator panicked");
    }
    let mut all = Sent::new()?;
    for part in parts {
        all.events += part.events;
        all.bytes += part.bytes;
        all.latencies.add(&part.latencies)?;
    }
    Ok(all)
}

fn generate(events: u64, seed: u64, batches: &mpsc::Sender<Batch>) {
    let mut generator = Generator::new(seed);
    let mut left = events;
    let mut length = 0;
    while left > 0 {
        let count = left.min(EVENTS_PER_REQUEST);
        let mut lines = Vec::with_capacity(length + length / 8);
        for _ in 0..count {
            generator.write_event(&mut lines);
        }
        length = lines.len();
        left -= count;
        // Nobody takes batches any more once a connection has failed.
        if batches.blocking_send(Batch { events: count, lines: lines.into() }).is_err() {
            return;
        }
    }
}

async fn send_all(
    url: &str,
    batches: &Mutex<mpsc::Receiver<Batch>>,
    progress: &ProgressBar,
) -> Result<Sent> {
    let mut client = Client::new(url, &SentKey::default())?;
    let mut sent = Sent::new()?;
    loop {
        let next = batches.lock().await.recv().await;
        let Some(batch) = next else { return Ok(sent) };
        sent.bytes += batch.lines.len() as u64;
        let latency = send(&mut client, batch.lines).await?;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_MICROS);
        sent.latencies.saturating_record(micros.max(1));
        sent.events += batch.events;
        progress.inc(batch.events);
    }
}

async fn send(client: &mut Client, lines: Bytes) -> Result<Duration> {
    let outgoing = Outgoing {
        method: None,
        path: "/v1/events?ack=disk".into(),
        body: lines,
        content_type: Some("application/x-ndjson"),
        ..Outgoing::default()
    };
    for _ in 0..ATTEMPTS_MAX {
        let began = Instant::now();
        let response = client.send(&outgoing).await.context("a request failed")?;
        match response.status() {
            StatusCode::ACCEPTED => {
                client::read(response, ANSWER_MAX_BYTES).await?;
                return Ok(began.elapsed());
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let wait = client::retry_after(&response).unwrap_or(Duration::from_secs(1));
                client::read(response, ANSWER_MAX_BYTES).await?;
                tokio::time::sleep(wait).await;
            }
            _ => bail!(client::refusal(response).await),
        }
    }
    bail!("the server took no events in {ATTEMPTS_MAX} attempts")
}

fn progress(events: u64) -> ProgressBar {
    if !on_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let template = "{bar:30} {human_pos} of {human_len} events, {per_sec}, {eta} left";
    ProgressBar::new(events).with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
