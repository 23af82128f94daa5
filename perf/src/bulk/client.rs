//! The client of the bulk case: kept-alive connections that post pre-cut pieces.
//!
//! It does as little as a client can, because it shares the machine with the server: the pieces
//! are slices of one buffer, one thread drives all connections, answers are read and dropped.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// How long a piece waits after 429 or 503 before it is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Longest time that a flush is asked for again.
const DEMAND_DEADLINE: Duration = Duration::from_secs(60);

/// When things had happened, counted from just before the first byte.
#[derive(Debug)]
pub struct Timing {
    /// The last piece was answered with 202.
    pub answered: Duration,
    /// The roll returned: everything is in a Delta commit.
    pub committed: Duration,
    /// Pieces that were sent again because the server was full.
    pub retries: u64,
}

/// Posts every piece over `connections`, then rolls.
pub fn load(address: SocketAddr, pieces: &[Bytes], connections: u32) -> Result<Timing> {
    let pieces: Rc<[Bytes]> = pieces.into();
    block_on(async move {
        let mut control = Connection::open(address, None).await?;
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Connection::open(address, None).await?);
        }
        let next = Rc::new(Cell::new(0));
        let start = Instant::now();
        let tasks: Vec<_> = open
            .into_iter()
            .map(|connection| {
                let (pieces, next) = (Rc::clone(&pieces), Rc::clone(&next));
                tokio::task::spawn_local(send(connection, pieces, next))
            })
            .collect();
        let mut retries = 0;
        for task in tasks {
            retries += task.await.context("a connection's task panicked")??;
        }
        let answered = start.elapsed();
        let (status, body) = control.post("/v1/admin/roll", Bytes::new()).await?;
        let committed = start.elapsed();
        ensure!(status.is_success(), "the roll was answered {status}: {}", text(&body));
        Ok(Timing { answered, committed, retries })
    })
}

/// The number of rows of `events`, by SQL; `key` is for servers that want one.
pub fn count(address: SocketAddr, key: Option<&str>) -> Result<u64> {
    block_on(async move {
        let mut connection = Connection::open(address, key).await?;
        let sql = Bytes::from_static(b"SELECT count(*) AS n FROM events");
        let (status, body) = connection.post("/v1/query", sql).await?;
        ensure!(status == StatusCode::OK, "the count was answered {status}: {}", text(&body));
        let row: serde_json::Value = serde_json::from_slice(&body)?;
        row["n"].as_u64().with_context(|| format!("the count is {row}"))
    })
}

/// Makes everything that was accepted visible to SQL. `key` is for servers that want one.
pub fn flush(address: SocketAddr, key: Option<&str>) -> Result<()> {
    demand(address, key, "flush")
}

/// Moves everything that was accepted to Parquet.
pub fn roll(address: SocketAddr, key: Option<&str>) -> Result<()> {
    demand(address, key, "roll")
}

/// A server that says that it cannot pass events on, because a roll found no memory for example, tries
/// again by itself, and so does this.
fn demand(address: SocketAddr, key: Option<&str>, what: &str) -> Result<()> {
    block_on(async move {
        let mut connection = Connection::open(address, key).await?;
        let deadline = Instant::now() + DEMAND_DEADLINE;
        loop {
            let (status, body) =
                connection.post(&format!("/v1/admin/{what}"), Bytes::new()).await?;
            if status.is_success() {
                return Ok(());
            }
            let later = status == StatusCode::SERVICE_UNAVAILABLE && Instant::now() < deadline;
            ensure!(later, "the {what} was answered {status}: {}", text(&body));
            tokio::time::sleep(RETRY_AFTER).await;
        }
    })
}

/// Takes pieces until none is left; returns how often it had to wait.
async fn send(
    mut connection: Connection,
    pieces: Rc<[Bytes]>,
    next: Rc<Cell<usize>>,
) -> Result<u64> {
    let mut retries = 0;
    while let Some(piece) = pieces.get(next.replace(next.get() + 1)) {
        loop {
            let (status, body) = connection.post("/v1/events", piece.clone()).await?;
            match status {
                StatusCode::ACCEPTED => break,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    retries += 1;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                _ => bail!("a piece was answered {status}: {}", text(&body)),
            }
        }
    }
    Ok(retries)
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    /// Empty for none, which servers in open mode ignore.
    key: String,
}

impl Connection {
    async fn open(address: SocketAddr, key: Option<&str>) -> Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // An error of the connection appears as an error of the request that waits on it.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let key = key.unwrap_or_default().to_owned();
        Ok(Connection { sender, host: address.to_string(), key })
    }

    async fn post(&mut self, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "text/plain")
            .header("x-write-key", &self.key)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}
