//! `GET /v1/events?follow=true`: the events as they become visible, as server-sent events.
//!
//! ```text
//! id: 0123456789ab-0-17          one event: its id, and in the next line what a page shows of it
//! data: {"id":"0123456789ab-0-17",…}
//!
//! event: dropped                 events are missing here: too many came, or the client was too slow
//! data: {"dropped":4000}
//! ```
//!
//! A tenant is not told how many are missing: the number covers all tenants. A comment every
//! [`KEEP_ALIVE`] keeps proxies from closing the connection. Once the key is revoked or rotated
//! nothing more is sent, and the answer ends with the next event or comment that would have been.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use ringlake_engine::listing::{Follower, Fresh, ListError, ListRequest};
use ringlake_engine::query::format::{Encoder, Format};
use serde_json::json;

use super::App;
use super::access::Access;
use super::answer::{Problem, chain};

/// Time without events after which a comment is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One who follows.
struct Following {
    app: Arc<App>,
    access: Access,
    follower: Follower,
    /// Whether a number may be told that covers all tenants.
    tells_numbers: bool,
    has_begun: bool,
}

/// Answers with the events that match `request`, as they come, for as long as `access` holds.
///
/// # Errors
/// When there are too many who follow.
pub fn answer(app: Arc<App>, access: Access, request: &ListRequest) -> Result<Response, Problem> {
    let follower = app.engine.follow(request).map_err(Problem::List)?;
    let tells_numbers = request.tenant.is_none();
    let following = Following { app, access, follower, tells_numbers, has_begun: false };
    let mut response = Response::new(Body::from_stream(stream::unfold(following, next)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some proxies hold an answer back until it has ended.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The next piece of the answer; none when the server stops.
async fn next(mut following: Following) -> Option<(Result<Bytes, Infallible>, Following)> {
    if !following.has_begun {
        following.has_begun = true;
        return Some((Ok(Bytes::from_static(b": following\n\n")), following));
    }
    loop {
        let stopping = following.app.stopping.clone();
        let waiting = tokio::time::timeout(KEEP_ALIVE, following.follower.next());
        let waited = stopping.run_until_cancelled(waiting).await?;
        if !following.access.is_current(&following.app.keys) {
            return None;
        }
        let Ok(fresh) = waited else {
            return Some((Ok(Bytes::from_static(b":\n\n")), following));
        };
        let tells_numbers = following.tells_numbers;
        let written = match fresh {
            Ok(None) => return None,
            Ok(Some(fresh)) if fresh.is_empty() => continue,
            Ok(Some(fresh)) => {
                // A burst takes milliseconds, which the loop does not have.
                let encoding =
                    following.app.control.spawn_blocking(move || write(&fresh, tells_numbers));
                encoding.await.ok()?
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(bytes) => return Some((Ok(bytes.into()), following)),
            Err(error) => {
                tracing::error!(error = %chain(&error), "a follower is cut off");
                return None;
            }
        }
    }
}

/// Writes what came as server-sent events.
fn write(fresh: &[Fresh], tells_numbers: bool) -> Result<Vec<u8>, ListError> {
    let mut out = Vec::new();
    for fresh in fresh {
        match fresh {
            Fresh::Dropped(count) => {
                let count = tells_numbers.then_some(*count);
                let data = json!({ "dropped": count });
                out.extend_from_slice(format!("event: dropped\ndata: {data}\n\n").as_bytes());
            }
            Fresh::Events(events) => {
                let failed =
                    |error: &dyn std::error::Error| ListError::Failed { message: chain(error) };
                let lines = Encoder::new(Format::Ndjson, &events.schema())
                    .and_then(|mut encoder| encoder.batch(events))
                    .map_err(|error| failed(&error))?;
                let ids = ids(events)
                    .ok_or_else(|| ListError::Failed { message: "new events have no id".into() })?;
                // A line break inside a value is escaped.
                for (id, line) in ids.iter().zip(lines.split(|byte| *byte == b'\n')) {
                    out.extend_from_slice(b"id: ");
                    out.extend_from_slice(id.unwrap_or_default().as_bytes());
                    out.extend_from_slice(b"\ndata: ");
                    out.extend_from_slice(line);
                    out.extend_from_slice(b"\n\n");
                }
            }
        }
    }
    Ok(out)
}

fn ids(events: &arrow::record_batch::RecordBatch) -> Option<&arrow::array::StringArray> {
    events.column_by_name("id")?.as_any().downcast_ref()
}
