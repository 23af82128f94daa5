//! `POST /v1/query`: SQL in, a stream of rows out.
//!
//! **Guarantees.** An error before the first row is an answer with its own status. An error later
//! breaks the stream off without its end, so that no client takes a part for the whole. A client
//! that goes away ends its query.
//!
//! **Roles.** Planning and encoding run on the control runtime's pool; the serving loop only passes
//! bytes on.
//!
//! **Memory.** One encoded batch a query and what packs it, and what the engine keeps ready.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use ringlake_engine::query::format::{Encoder, Format};
use ringlake_engine::query::{Params, QueryError, QueryRequest, QueryStream};
use serde::Deserialize;

use super::answer::{Problem, chain};
use super::compress::{Coding, Packer};
use super::{App, access, body, encoding};
use crate::traces::{Stage, Trace, stage};

/// Longest statement with its parameters.
const BODY_MAX_BYTES: usize = 1 << 20;

/// A query as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    sql: String,
    #[serde(default)]
    params: Params,
}

/// Answers a query.
pub async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let format = wanted_format(&head.headers)?;
    let coding = match format {
        // Packed already.
        Format::Parquet => None,
        _ => Coding::accepted(&head.headers),
    };
    let tenant = access::reader(&head)?;
    let wanted = parse(&read(&app, body, &head.headers, BODY_MAX_BYTES).await?)?;
    let trace = head.extensions.get::<Arc<Trace>>();
    let planning_stage = stage(trace, "plan");
    let planning = Arc::clone(&app);
    let mut rows = planning
        .blocking(move |app| {
            let request =
                QueryRequest { sql: wanted.sql, params: wanted.params, timeout: None, tenant };
            app.engine.query(request).map_err(failed)
        })
        .await?;
    drop(planning_stage);
    let first_rows = stage(trace, "first rows");
    rows.ready().await.map_err(failed)?;
    drop(first_rows);
    app.queries.observe(began.elapsed());

    let encoder = Encoder::new(format, rows.schema()).map_err(failed)?;
    let packer = Packer::new(coding).map_err(|error| failed(unpacked(&error)))?;
    let stream_stage = stage(trace, "stream");
    let result = Rows { app, rows, encoding: Some((encoder, packer)), _stage: stream_stage };
    let mut response = Response::new(Body::from_stream(stream::unfold(result, next)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, coding.name());
    }
    Ok(response)
}

/// A result on its way out.
struct Rows {
    app: Arc<App>,
    rows: QueryStream,
    /// `None` once the end has been written or the stream is broken.
    encoding: Option<(Encoder, Packer)>,
    /// Ends, and the query's trace with it, when the client has everything or goes away.
    _stage: Option<Stage>,
}

/// The next piece of the body, and what is left.
async fn next(mut result: Rows) -> Option<(Result<Bytes, QueryError>, Rows)> {
    loop {
        let (mut encoder, mut packer) = result.encoding.take()?;
        let batch = match result.rows.next().await {
            Some(Ok(batch)) => Some(batch),
            Some(Err(error)) => return Some((Err(broken(error)), result)),
            None => None,
        };
        // A large batch takes milliseconds, which the loop does not have.
        let encoding = result.app.control.spawn_blocking(move || match batch {
            Some(batch) => {
                let bytes =
                    packer.pack(encoder.batch(&batch)?).map_err(|error| unpacked(&error))?;
                Ok((bytes, Some((encoder, packer))))
            }
            None => {
                let bytes = packer.finish(&encoder.finish()?).map_err(|error| unpacked(&error))?;
                Ok((bytes, None))
            }
        });
        let outcome = encoding.await.unwrap_or_else(|_| {
            Err(QueryError::Failed { message: "encoding the result panicked".into() })
        });
        let (bytes, encoding) = match outcome {
            Ok(encoded) => encoded,
            Err(error) => return Some((Err(broken(error)), result)),
        };
        result.encoding = encoding;
        if !bytes.is_empty() {
            return Some((Ok(bytes.into()), result));
        }
        // Some formats write nothing for a batch, or nothing at the end.
    }
}

fn unpacked(error: &std::io::Error) -> QueryError {
    QueryError::Failed { message: format!("the result cannot be packed: {error}") }
}

/// An error after the answer has begun is only seen in the log.
fn broken(error: QueryError) -> QueryError {
    tracing::warn!(error = %chain(&error), "a query ended while its result was being sent");
    error
}

/// The details of failures of ours are for the log.
pub fn failed(error: QueryError) -> Problem {
    if let QueryError::Failed { .. } = &error {
        tracing::error!(error = %chain(&error), "a query failed");
    }
    Problem::Query(error)
}

fn wanted_format(headers: &HeaderMap) -> Result<Format, Problem> {
    let mut wanted = String::new();
    for value in headers.get_all(ACCEPT) {
        if !wanted.is_empty() {
            wanted.push(',');
        }
        wanted.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Format::from_accept(&wanted).ok_or(Problem::NotAcceptable)
}

/// Reads a small body of at most `limit` bytes. All that are being read at a time have
/// [`SMALL_BODIES_BYTES`](super::SMALL_BODIES_BYTES) together.
///
/// # Errors
/// As [`body::collect`], and [`Problem::Packed`] for a body with a content encoding.
pub async fn read(
    app: &App,
    mut body: Body,
    headers: &HeaderMap,
    limit: usize,
) -> Result<Vec<u8>, Problem> {
    let gather = async {
        body::check_length(headers, limit)?;
        if encoding::of(headers)? != encoding::Coding::Identity {
            return Err(Problem::Packed);
        }
        let mut bytes = Vec::new();
        let mut room = app.small_bodies.try_acquire_many(0).map_err(|_| Problem::Crowded)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::BodyBroken(error.to_string()))?;
            let Ok(piece) = frame.into_data() else { continue };
            if bytes.len() + piece.len() > limit {
                return Err(Problem::BodyTooLarge { limit });
            }
            let more = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let more = app.small_bodies.try_acquire_many(more).map_err(|_| Problem::Crowded)?;
            room.merge(more);
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    };
    let timeout = app.config.http.body_timeout;
    let outcome = tokio::time::timeout(timeout, gather).await;
    let outcome = outcome.unwrap_or(Err(Problem::BodyTimeout(timeout)));
    if outcome.is_err() && body::needs_draining(&body, headers) {
        tokio::task::spawn_local(body::drain(body));
    }
    outcome
}

/// JSON when it looks like JSON, else the statement itself: no SQL begins with a brace.
fn parse(body: &[u8]) -> Result<Wanted, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Problem::Malformed("the query is not UTF-8".into()))?
        .trim_start_matches('\u{feff}');
    let wanted = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| {
            Problem::Malformed(format!("the body is not {{\"sql\",\"params\"}}: {error}"))
        })?
    } else {
        Wanted { sql: text.to_owned(), params: Params::default() }
    };
    if wanted.sql.trim().is_empty() {
        return Err(Problem::Malformed("there is no query in the body".into()));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn a_body_is_json_or_the_statement_itself() {
        let wanted = parse(b" {\"sql\":\"SELECT ?\",\"params\":[1]}").unwrap();
        assert_eq!((wanted.sql.as_str(), wanted.params), ("SELECT ?", vec![1.into()].into()));
        assert_eq!(parse(b"SELECT {'a': 1}").unwrap().sql, "SELECT {'a': 1}");
    }

    #[test]
    fn what_is_neither_is_refused() {
        for body in [&b""[..], b"  \n", b"\xff", b"{\"sql\":1}", b"{\"sql\":\"x\",\"limit\":1}"] {
            assert!(parse(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn accept_chooses_the_format() {
        let chosen = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            wanted_format(&headers).ok()
        };
        assert!(matches!(wanted_format(&HeaderMap::new()), Ok(Format::Ndjson)));
        assert_eq!(chosen("*/*"), Some(Format::Ndjson));
        assert_eq!(chosen("text/csv"), Some(Format::Csv));
        assert_eq!(chosen("application/vnd.apache.parquet"), Some(Format::Parquet));
        assert_eq!(chosen("image/png"), None);
    }
}
