//! `ringlake demo`: the whole way once, with figures.
//!
//! ```text
//!  generator ▶ requests over kept-alive connections ▶ a server of its own ▶ roll ▶ two queries
//! ```
//!
//! **Not guaranteed.** The figures are those of this machine with the generator, the client and the
//! server sharing it; the load runs in `perf/` measure more carefully.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::query::table_from_stream;
use super::{grouped, rate, runtime};
use crate::EXIT_FINE;
use crate::cli::{Demo, SentKey};
use crate::client::{self, Client, Outgoing};

mod load;
mod server;

use server::Server;

/// Longest answer to anything but the load.
const ANSWER_MAX_BYTES: usize = 64 << 20;
/// Time that the server may take to say that it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(30);

const QUERIES: [(&str, &str); 2] = [
    (
        "the busiest tenants",
        "SELECT tenant, type, count(*) AS events, count(DISTINCT anonymous_id) AS visitors \
         FROM events GROUP BY ALL ORDER BY events DESC, tenant, type LIMIT 8",
    ),
    (
        "the busiest events",
        "SELECT coalesce(event, type) AS name, count(*) AS events, \
         count(DISTINCT session_id) AS sessions, min(timestamp) AS first, max(timestamp) AS last \
         FROM events GROUP BY name ORDER BY events DESC, name LIMIT 8",
    ),
];

/// Runs the command.
///
/// # Errors
/// When any step fails, or not every event arrives.
pub fn run(arguments: &Demo) -> Result<u8> {
    let place = Place::new(arguments)?;
    let server = Server::start(&place.path)?;
    let outcome = runtime()?.block_on(async {
        tokio::select! {
            outcome = all_steps(arguments.events, &server.url) => outcome,
            reason = interrupted() => Err(reason),
        }
    });
    let table = outcome?;
    server.stop()?;
    say(&place.farewell(&table))?;
    Ok(EXIT_FINE)
}

/// Waits until the user, or the system, wants no more: the server and the directory must not stay.
async fn interrupted() -> anyhow::Error {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return anyhow::Error::new(error).context("cannot listen for signals"),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    anyhow::anyhow!("interrupted")
}

/// Where the demonstration leaves its data.
struct Place {
    path: PathBuf,
    /// Removed at the end, and when anything fails.
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(arguments: &Demo) -> Result<Self> {
        if let Some(path) = &arguments.data {
            return Ok(Self { path: path.clone(), temporary: None });
        }
        let made = tempfile::Builder::new().prefix("ringlake-demo-").tempdir();
        let made = made.context("cannot make a temporary directory")?;
        if arguments.keep {
            return Ok(Self { path: made.keep(), temporary: None });
        }
        Ok(Self { path: made.path().to_owned(), temporary: Some(made) })
    }

    fn farewell(&self, table: &str) -> String {
        if self.temporary.is_some() {
            return format!("Parquet   was in {table}; removed, --keep leaves it there");
        }
        format!(
            "Parquet   in {table}\n\
             next      ringlake query \"SELECT count(*) FROM events\" --data {}",
            self.path.display()
        )
    }
}

/// Everything between the start of the server and its end; gives the table's directory.
async fn all_steps(events: u64, url: &str) -> Result<String> {
    let mut client = Client::new(url, &SentKey::default())?;
    wait_until_ready(&mut client).await?;
    say(&format!("server    {url}, acknowledging when events are on the disk"))?;
    // What a start replays is visible with the next flush.
    call(&mut client, "/v1/admin/flush").await?;
    let before = count(&mut client).await?;

    let began = Instant::now();
    // The same events for every new directory, and others for one that has some: repeated message
    // ids would be recognised.
    let sent = load::run(url, events, before + 1).await?;
    let elapsed = began.elapsed();
    say(&format!(
        "sent      {} events ({} MB) in {:.2} s: {} events/s",
        grouped(sent.events),
        grouped(sent.bytes / 1_000_000),
        elapsed.as_secs_f64(),
        rate(sent.events, elapsed),
    ))?;
    say(&latencies(&sent.latencies))?;

    let rolled = call(&mut client, "/v1/admin/roll").await?;
    let whole = began.elapsed();
    say(&format!(
        "rolled    after {:.2} s in all: {} events/s from the first byte to the table",
        whole.as_secs_f64(),
        rate(sent.events, whole),
    ))?;
    let status = get(&mut client, "/v1/status").await?;
    say(&format!(
        "table     version {}, {} files, {} MB, {} rows",
        rolled["version"],
        status["lake"]["files"],
        grouped(status["lake"]["bytes"].as_u64().unwrap_or_default() / 1_000_000),
        grouped(status["lake"]["rows"].as_u64().unwrap_or_default()),
    ))?;
    for (title, sql) in QUERIES {
        let began = Instant::now();
        let answer = query(&mut client, sql).await?;
        let milliseconds = began.elapsed().as_secs_f64() * 1e3;
        let table = table_from_stream(&answer)?.text()?;
        say(&format!("\nquery     {title}, {milliseconds:.0} ms\n{table}"))?;
    }
    let after = count(&mut client).await?;
    if after != before + events {
        bail!("{} events were acknowledged and {} are in the table", events, after - before);
    }
    let location = status["lake"]["location"].as_str().unwrap_or_default();
    Ok(location.strip_prefix("file://").unwrap_or(location).to_owned())
}

fn latencies(histogram: &Histogram<u64>) -> String {
    let at = |quantile: f64| Duration::from_micros(histogram.value_at_quantile(quantile));
    format!(
        "latency   of {} requests of {} events, until acknowledged: p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}",
        grouped(histogram.len()),
        grouped(load::EVENTS_PER_REQUEST),
        at(0.5),
        at(0.99),
        at(0.999),
    )
}

async fn wait_until_ready(client: &mut Client) -> Result<()> {
    let until = Instant::now() + READY_PATIENCE;
    loop {
        let response =
            client.send(&Outgoing { path: "/readyz".into(), ..Outgoing::default() }).await?;
        if response.status().is_success() {
            client::read(response, ANSWER_MAX_BYTES).await?;
            return Ok(());
        }
        let refusal = client::refusal(response).await;
        if Instant::now() >= until {
            bail!("the server is not ready: {refusal}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn get(client: &mut Client, path: &str) -> Result<Value> {
    answer(client, Outgoing { path: path.into(), ..Outgoing::default() }).await
}

async fn call(client: &mut Client, path: &str) -> Result<Value> {
    let content_type = Some("application/json");
    answer(client, Outgoing { path: path.into(), content_type, ..Outgoing::default() }).await
}

async fn answer(client: &mut Client, outgoing: Outgoing) -> Result<Value> {
    let response = client.send(&outgoing).await?;
    if !response.status().is_success() {
        bail!(client::refusal(response).await);
    }
    let text = client::read(response, ANSWER_MAX_BYTES).await?;
    serde_json::from_slice(&text).context("the server's answer is not JSON")
}

/// Runs `sql`; gives an Arrow stream.
async fn query(client: &mut Client, sql: &str) -> Result<bytes::Bytes> {
    let outgoing = Outgoing {
        method: None,
        path: "/v1/query".into(),
        body: json!({ "sql": sql }).to_string().into(),
        content_type: Some("application/json"),
        accept: Some("application/vnd.apache.arrow.stream"),
        ..Outgoing::default()
    };
    let response = client.send(&outgoing).await?;
    if !response.status().is_success() {
        bail!(client::refusal(response).await);
    }
    client::read(response, ANSWER_MAX_BYTES).await
}

async fn count(client: &mut Client) -> Result<u64> {
    let outgoing = Outgoing {
        method: None,
        path: "/v1/query".into(),
        body: "SELECT count(*) AS events FROM events".into(),
        content_type: Some("text/plain"),
        accept: Some("application/x-ndjson"),
        ..Outgoing::default()
    };
    let counted = answer(client, outgoing).await?;
    counted["events"].as_u64().context("the count is not a number")
}

/// Prints a line. A reader that has had enough (`| head`) is none to complain to.
fn say(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Whether a live progress line makes sense.
fn on_terminal() -> bool {
    io::stderr().is_terminal()
}
