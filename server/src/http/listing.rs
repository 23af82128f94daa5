//! `GET /v1/events`: pages of raw events, and with `follow=true` the events as they come.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::HeaderMap;
use hyper::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use ringlake_engine::listing::{DEFAULT_LIMIT, LIMIT_MAX, ListError, ListRequest, Order, Page};
use ringlake_engine::query::QueryError;
use ringlake_engine::query::format::{Encoder, Format};

use super::answer::{JSON, Problem, chain};
use super::parameters::Parameters;
use super::{App, access, compress, follow};

const KNOWN: &str = "from, to, type, event, user_id, limit, cursor, order, follow";
const KNOWN_TO_FOLLOW: &str = "type, event, user_id; a live tail has no range and no pages";

/// Answers a page, or the events as they come.
pub async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let tenant = access::reader(&head)?;
    let Wanted { request, follow } = wanted(head.uri.query(), tenant)?;
    if follow {
        return follow::answer(app, access::of(&head)?.clone(), &request);
    }
    app.blocking(move |app| {
        let page = app.engine.list(&request).map_err(failed)?;
        whole(&head.headers, json(&page).map_err(Problem::Query)?)
    })
    .await
}

/// What is asked for.
#[derive(Debug)]
struct Wanted {
    request: ListRequest,
    /// Whether the events are wanted as they come; the request then has texts only.
    follow: bool,
}

fn wanted(query: Option<&str>, tenant: Option<String>) -> Result<Wanted, Problem> {
    let mut parameters = Parameters::new(query);
    let (kind, event) = (parameters.text("type")?, parameters.text("event")?);
    let texts = ListRequest {
        tenant,
        kind,
        event,
        user_id: parameters.text("user_id")?,
        ..ListRequest::default()
    };
    let answers = [("true", true), ("false", false)];
    if parameters.choice("follow", &answers, "true or false")? == Some(true) {
        parameters.finish(KNOWN_TO_FOLLOW)?;
        return Ok(Wanted { request: texts, follow: true });
    }
    let orders = [("asc", Order::Ascending), ("desc", Order::Descending)];
    let request = ListRequest {
        from: parameters.moment("from")?,
        to: parameters.moment("to")?,
        order: parameters.choice("order", &orders, "asc or desc")?.unwrap_or_default(),
        limit: limit(&mut parameters)?,
        cursor: parameters.text("cursor")?,
        ..texts
    };
    parameters.finish(KNOWN)?;
    Ok(Wanted { request, follow: false })
}

fn limit(parameters: &mut Parameters) -> Result<usize, Problem> {
    const { assert!(LIMIT_MAX == 1_000) };
    let limit = parameters.count("limit", LIMIT_MAX, "a whole number from 1 to 1000")?;
    Ok(limit.unwrap_or(DEFAULT_LIMIT))
}

/// `{"events":[…],"next_cursor":…}`
fn json(page: &Page) -> Result<Vec<u8>, QueryError> {
    let mut body = b"{\"events\":".to_vec();
    objects(Encoder::new(Format::Ndjson, &page.events.schema())?, [&page.events], &mut body)?;
    body.extend_from_slice(b",\"next_cursor\":");
    match &page.next_cursor {
        // Nothing in it needs an escape.
        Some(cursor) => body.extend_from_slice(format!("\"{cursor}\"").as_bytes()),
        None => body.extend_from_slice(b"null"),
    }
    body.push(b'}');
    Ok(body)
}

/// Writes the rows of `batches` as a JSON array of objects. `encoder` writes a line for each.
///
/// # Errors
/// See [`Encoder::batch`].
pub fn objects<'a>(
    mut encoder: Encoder,
    batches: impl IntoIterator<Item = &'a arrow::record_batch::RecordBatch>,
    body: &mut Vec<u8>,
) -> Result<(), QueryError> {
    body.push(b'[');
    let start = body.len();
    for batch in batches {
        let lines = encoder.batch(batch)?;
        // A line break inside a value is escaped.
        body.extend(lines.into_iter().map(|byte| if byte == b'\n' { b',' } else { byte }));
    }
    if body.len() > start {
        body.pop();
    }
    body.push(b']');
    Ok(())
}

/// An answer of JSON in the encoding that the client accepts.
///
/// # Errors
/// None in practice.
pub fn whole(headers: &HeaderMap, body: Vec<u8>) -> Result<Response, Problem> {
    let packed = compress::pack(headers, body);
    let (body, coding) = packed.map_err(|_| Problem::Internal("the answer cannot be packed"))?;
    let mut response = Response::new(Body::from(body));
    let answer = response.headers_mut();
    answer.insert(CONTENT_TYPE, JSON);
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(coding) = coding {
        answer.insert(CONTENT_ENCODING, coding);
    }
    Ok(response)
}

/// The details of failures of ours are for the log.
fn failed(error: ListError) -> Problem {
    if let ListError::Failed { .. } = &error {
        tracing::error!(error = %chain(&error), "a listing failed");
    }
    Problem::List(error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn every_parameter_finds_its_field() {
        let query = "from=2026-11-21&to=1795305600&type=page&event=E&user_id=u&limit=7&order=asc";
        let request = wanted(Some(query), Some("t".into())).unwrap().request;
        assert_eq!(request.tenant.as_deref(), Some("t"));
        assert_eq!(request.from, Some(1_795_219_200_000_000));
        assert_eq!(request.to, Some(1_795_305_600_000_000));
        assert_eq!(request.kind.as_deref(), Some("page"));
        assert_eq!(request.event.as_deref(), Some("E"));
        assert_eq!(request.user_id.as_deref(), Some("u"));
        assert_eq!((request.limit, request.order), (7, Order::Ascending));
        let default = wanted(None, None).unwrap().request;
        assert_eq!((default.limit, default.order), (DEFAULT_LIMIT, Order::Descending));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=x", "order=up", "from=x", "a=b"] {
            assert!(wanted(Some(query), None).is_err(), "{query}");
        }
    }
}
