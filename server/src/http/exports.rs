//! `/v1/exports`: jobs that write files of events, and the fetching of those files.
//!
//! Files are fetched as browsers and download tools do: `Range` with one range, `If-Range` with the
//! `ETag`, 206 and 416. The `ETag` is the checksum of the file, so that a download that goes on
//! later is of the same bytes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderValue, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE,
};
use hyper::{HeaderMap, StatusCode};
use ringlake_engine::export::{ExportError, ExportFormat, ExportRequest, Job};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Problem, chain};
use super::parameters::{self, Parameters};
use super::{App, access, query};

/// Longest description of a job.
const BODY_MAX_BYTES: usize = 64 << 10;
/// Jobs in a page when nobody says, and at most.
const DEFAULT_LIMIT: usize = 50;
const LIMIT_MAX: usize = 1_000;
/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A job as a client describes it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    from: Option<Value>,
    to: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<String>,
    event: Option<String>,
    columns: Option<Vec<String>>,
    format: ExportFormat,
}

/// `POST /v1/exports`
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let tenant = access::reader(&head)?;
    let body = query::read(&app, body, &head.headers, BODY_MAX_BYTES).await?;
    let wanted = wanted(body.trim_ascii())?;
    let request = ExportRequest {
        tenant,
        from: moment("from", wanted.from)?,
        to: moment("to", wanted.to)?,
        kind: wanted.kind,
        event: wanted.event,
        columns: wanted.columns,
        format: wanted.format,
    };
    app.blocking(move |app| {
        let job = app.engine.create_export(request).map_err(failed)?;
        let mut response = Json(described(&job)).into_response();
        *response.status_mut() = StatusCode::ACCEPTED;
        if let Ok(place) = HeaderValue::from_str(&format!("/v1/exports/{}", job.id)) {
            response.headers_mut().insert(LOCATION, place);
        }
        Ok(response)
    })
    .await
}

fn wanted(body: &[u8]) -> Result<Wanted, Problem> {
    let wrong = |why: String| Problem::Malformed(format!("the body describes no export: {why}"));
    match body.first() {
        None => Ok(Wanted::default()),
        Some(b'{') => serde_json::from_slice(body).map_err(|error| wrong(error.to_string())),
        Some(_) => Err(wrong("it is no object".into())),
    }
}

/// A moment as text or number.
fn moment(name: &'static str, value: Option<Value>) -> Result<Option<i64>, Problem> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let wrong = || Problem::Malformed(format!("{name} must be {}", parameters::MOMENT));
    parameters::moment(&text).map(Some).ok_or_else(wrong)
}

/// `GET /v1/exports`: the jobs, newest first.
pub async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    let (head, _) = request.into_parts();
    let tenant = access::reader(&head)?;
    let mut parameters = Parameters::new(head.uri.query());
    let limit = parameters.count("limit", LIMIT_MAX, "a whole number from 1 to 1000")?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let cursor = parameters.text("cursor")?;
    parameters.finish("limit, cursor")?;
    let is_id =
        |text: &String| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if cursor.as_ref().is_some_and(|cursor| !is_id(cursor)) {
        return Err(Problem::Malformed("the cursor is not one that this listing gave".into()));
    }
    let mut jobs = app.engine.exports(tenant.as_deref(), cursor.as_deref(), limit + 1);
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = jobs.last().filter(|_| has_more).map(|job| job.id.clone());
    let jobs: Vec<Value> = jobs.iter().map(described).collect();
    Ok(Json(json!({ "exports": jobs, "next_cursor": next })))
}

/// What a path names; nothing has a name that is no text.
type Named<T> = Result<Path<T>, PathRejection>;

fn name<T>(named: Named<T>) -> Result<T, Problem> {
    named.map(|Path(name)| name).map_err(|_| failed(ExportError::Unknown))
}

/// `GET /v1/exports/{id}`
pub async fn show(
    State(app): State<Arc<App>>,
    id: Named<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let id = name(id)?;
    let tenant = access::reader(&request.into_parts().0)?;
    let job = app.engine.export(tenant.as_deref(), &id).map_err(failed)?;
    Ok(Json(described(&job)))
}

/// `DELETE /v1/exports/{id}`: cancels and removes.
pub async fn cancel(
    State(app): State<Arc<App>>,
    id: Named<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let id = name(id)?;
    let tenant = access::reader(&request.into_parts().0)?;
    app.blocking(move |app| {
        app.engine.cancel_export(tenant.as_deref(), &id).map_err(failed)?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// A job as JSON, its files with the path to fetch them from.
fn described(job: &Job) -> Value {
    let mut value = serde_json::to_value(job).unwrap_or_default();
    if let Some(files) = value["files"].as_array_mut() {
        for file in files {
            let name = file["name"].as_str().unwrap_or_default();
            file["path"] = format!("/v1/exports/{}/files/{name}", job.id).into();
        }
    }
    value
}

/// `GET /v1/exports/{id}/files/{name}`
pub async fn fetch(
    State(app): State<Arc<App>>,
    file: Named<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, name) = name(file)?;
    let (head, _) = request.into_parts();
    let tenant = access::reader(&head)?;
    let opening = Arc::clone(&app);
    let (opened, about) = opening
        .blocking(move |app| {
            let found = app.engine.export_file(tenant.as_deref(), &id, &name);
            let (path, about) = found.map_err(failed)?;
            // It may have been removed since.
            let opened = File::open(path).map_err(|_| failed(ExportError::NoFile))?;
            Ok((opened, about))
        })
        .await?;
    let tag = HeaderValue::from_str(&format!("\"{}\"", about.sha256))
        .map_err(|_| Problem::Internal("a checksum is no text"))?;
    let mut response = Response::new(Body::empty());
    let length = about.bytes;
    let range = match wanted_range(&head.headers, &tag, length) {
        Wish::Unchanged => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(ETAG, tag);
            return Ok(response);
        }
        Wish::Beyond => {
            let mut refused = Problem::RangeBeyond { length }.into_response();
            if let Ok(text) = HeaderValue::from_str(&format!("bytes */{length}")) {
                refused.headers_mut().insert(CONTENT_RANGE, text);
            }
            return Ok(refused);
        }
        Wish::Whole => 0..length,
        Wish::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            if let Ok(text) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(CONTENT_RANGE, text);
            }
            range
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(CONTENT_TYPE, content_type(&about.name));
    headers.insert(ETAG, tag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(text) = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", about.name)) {
        headers.insert(CONTENT_DISPOSITION, text);
    }
    let pieces = Pieces { app, file: Arc::new(opened), range };
    *response.body_mut() = Body::from_stream(stream::unfold(pieces, next));
    Ok(response)
}

fn content_type(name: &str) -> HeaderValue {
    HeaderValue::from_static(match name.rsplit_once('.') {
        Some((_, "ndjson")) => "application/x-ndjson",
        Some((_, "csv")) => "text/csv; charset=utf-8",
        _ => "application/vnd.apache.parquet",
    })
}

/// What a client wants of a file.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Whole,
    Part(Range<u64>),
    /// A range that begins behind the end.
    Beyond,
    /// It has the file already.
    Unchanged,
}

fn wanted_range(headers: &HeaderMap, tag: &HeaderValue, length: u64) -> Wish {
    let is_known = |name| headers.get(name).is_some_and(|value| value == tag || value == "*");
    if is_known(IF_NONE_MATCH) {
        return Wish::Unchanged;
    }
    let is_other = headers.get(IF_RANGE).is_some_and(|value| value != tag);
    let range = headers.get(RANGE).filter(|_| !is_other);
    let Some(range) = range.and_then(|value| value.to_str().ok()) else { return Wish::Whole };
    // Several ranges, other units and what is malformed may be answered with the whole.
    let Some((from, to)) = range.trim().strip_prefix("bytes=").and_then(|it| it.split_once('-'))
    else {
        return Wish::Whole;
    };
    let range = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => from..to.saturating_add(1).min(length),
        (Ok(from), Err(_)) if to.trim().is_empty() => from..length,
        (Err(_), Ok(last)) if from.trim().is_empty() => length.saturating_sub(last)..length,
        _ => return Wish::Whole,
    };
    if range.start < range.end { Wish::Part(range) } else { Wish::Beyond }
}

/// A file on its way out.
struct Pieces {
    app: Arc<App>,
    file: Arc<File>,
    range: Range<u64>,
}

async fn next(mut pieces: Pieces) -> Option<(io::Result<Bytes>, Pieces)> {
    let left = usize::try_from(pieces.range.end - pieces.range.start).unwrap_or(usize::MAX);
    if left == 0 {
        return None;
    }
    let (file, at) = (Arc::clone(&pieces.file), pieces.range.start);
    let reading = pieces.app.control.spawn_blocking(move || {
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        file.read_exact_at(&mut piece, at).map(|()| piece)
    });
    let piece = reading.await.unwrap_or_else(|_| Err(io::Error::other("reading panicked")));
    match piece {
        Ok(piece) => {
            pieces.range.start += piece.len() as u64;
            Some((Ok(piece.into()), pieces))
        }
        Err(error) => {
            tracing::warn!(%error, "a file of an export cannot be read");
            pieces.range.start = pieces.range.end;
            Some((Err(error), pieces))
        }
    }
}

/// The details of failures of ours are for the log.
fn failed(error: ExportError) -> Problem {
    if let ExportError::Store(_) = &error {
        tracing::error!(error = %chain(&error), "an export was not accepted");
    }
    Problem::Export(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn wish(headers: &[(hyper::header::HeaderName, &str)]) -> Wish {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, value.parse().unwrap());
        }
        wanted_range(&map, &HeaderValue::from_static("\"a\""), 100)
    }

    #[test]
    fn one_range_is_taken_and_the_rest_is_the_whole() {
        for (range, expected) in [
            ("bytes=0-9", Wish::Part(0..10)),
            ("bytes=90-", Wish::Part(90..100)),
            ("bytes=90-200", Wish::Part(90..100)),
            ("bytes=-10", Wish::Part(90..100)),
            ("bytes=-200", Wish::Part(0..100)),
            ("bytes=100-", Wish::Beyond),
            ("bytes=-0", Wish::Beyond),
            ("bytes=9-0", Wish::Whole),
            ("bytes=0-1,3-4", Wish::Whole),
            ("lines=0-1", Wish::Whole),
            ("bytes=x-", Wish::Whole),
        ] {
            assert_eq!(wish(&[(RANGE, range)]), expected, "{range}");
        }
    }

    #[test]
    fn a_range_goes_on_only_with_the_same_file() {
        assert_eq!(wish(&[(RANGE, "bytes=5-"), (IF_RANGE, "\"a\"")]), Wish::Part(5..100));
        assert_eq!(wish(&[(RANGE, "bytes=5-"), (IF_RANGE, "\"b\"")]), Wish::Whole);
        assert_eq!(wish(&[(IF_NONE_MATCH, "\"a\"")]), Wish::Unchanged);
        assert_eq!(wish(&[(IF_NONE_MATCH, "\"b\"")]), Wish::Whole);
    }
}
