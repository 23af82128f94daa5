//! Importing through a running server: a few connections, pieces as requests with `partial=true`.
//!
//! **Failure.** What the server cannot take now (429, 503) is sent again after the time it asks
//! for. A connection that breaks in the middle of a request ends the import:
//! nobody knows whether those events were stored. Importing again stores what is missing, if the
//! events have a message id.

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};

use super::super::runtime;
use super::{Job, PIECE_BYTES, QUEUE_MAX, Work};
use crate::cli::{ImportFormat, SentKey};
use crate::client::{self, Client, Outgoing};
use crate::http::arrow;

/// Connections that send at the same time; one sync on the server covers several of them.
const CONNECTIONS: usize = 4;
/// Longest answer: a piece has as many rejections as lines.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// An answer to a piece.
#[derive(Debug, Deserialize)]
struct Answer {
    accepted: usize,
    #[serde(default)]
    duplicates: usize,
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    index: usize,
    error: String,
}

/// Imports into the server at `url`, with `key` if it needs one; gives a note for the last line.
pub fn run(job: &Job<'_>, url: &str, key: &SentKey) -> Result<String> {
    let clients = (0..CONNECTIONS).map(|_| Client::new(url, key));
    let clients: Vec<Client> = clients.collect::<Result<_>>()?;
    let (sender, receiver) = mpsc::channel::<Work>(QUEUE_MAX);
    let runtime = runtime()?;
    thread::scope(|scope| {
        let reader =
            scope.spawn(move || job.read(PIECE_BYTES, |work| sender.blocking_send(work).is_ok()));
        let receiver = Arc::new(Mutex::new(receiver));
        let senders =
            clients.into_iter().map(|client| send_all(job, client, Arc::clone(&receiver)));
        // The first failure drops the others, and with them the receiver, which stops the reader.
        let sent = runtime.block_on(futures_util::future::try_join_all(senders));
        drop(receiver);
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent?;
        read
    })?;
    Ok(String::new())
}

async fn send_all(
    job: &Job<'_>,
    mut client: Client,
    pieces: Arc<Mutex<mpsc::Receiver<Work>>>,
) -> Result<()> {
    loop {
        let next = pieces.lock().await.recv().await;
        let Some(work) = next else { return Ok(()) };
        // Halves of a refused piece, the next one last.
        let mut stack = vec![work];
        while let Some(work) = stack.pop() {
            if let Some((left, right)) = send(job, &mut client, work).await? {
                stack.extend([right, left]);
            }
        }
    }
}

/// Sends one piece; gives it back in halves when the server refuses it as a whole.
async fn send(job: &Job<'_>, client: &mut Client, work: Work) -> Result<Option<(Work, Work)>> {
    let is_arrow = job.format == ImportFormat::Arrow;
    if !is_arrow && work.piece.text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let outgoing = Outgoing {
        method: None,
        path: "/v1/events?partial=true&ack=disk".into(),
        body: Bytes::from(work.piece.text.clone()),
        content_type: Some(if is_arrow { arrow::CONTENT } else { "application/x-ndjson" }),
        ..Outgoing::default()
    };
    let response = client.insist(&outgoing).await?;
    match response.status() {
        StatusCode::ACCEPTED | StatusCode::MULTI_STATUS => {
            let text = client::read(response, ANSWER_MAX_BYTES).await?;
            let answer: Answer =
                serde_json::from_slice(&text).context("the server's answer is not ours")?;
            job.accepted(answer.accepted, answer.duplicates);
            for bad in answer.rejected {
                job.rejected(&work.file, job.number_of(&work, bad.index), bad.error);
            }
            Ok(None)
        }
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
            let reason = client::refusal(response).await;
            let halves = job.halves(&work);
            if halves.is_none() {
                job.rejected(&work.file, job.number_of(&work, 0), reason);
            }
            Ok(halves)
        }
        _ => bail!(client::refusal(response).await),
    }
}
