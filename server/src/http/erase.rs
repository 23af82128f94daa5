//! `/v1/admin/erase`: jobs that erase every event of somebody, and their reports.
//!
//! No answer and no line of the log says whose events they are: only by which column they were named.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use ringlake_engine::erase::{Erasure, Who};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::answer::{PathText, Problem, path_text};
use super::query;

/// Longest description of a job: an id is at most some kilobytes.
const BODY_MAX_BYTES: usize = 64 << 10;
/// Jobs that a list shows at most, newest first.
const LIST_MAX: usize = 1_000;

/// What a client wants erased.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    tenant: String,
    user_id: Option<String>,
    anonymous_id: Option<String>,
    visitor_id: Option<VisitorId>,
}

/// A number that JSON's readers do not all read exactly, so that it may come as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum VisitorId {
    Number(i64),
    Text(String),
}

/// `POST`: asks for somebody to be erased.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = query::read(&app, body, &head.headers, BODY_MAX_BYTES).await?;
    let wanted: Wanted = serde_json::from_slice(&body)
        // What serde says may quote an id.
        .map_err(|error| {
            Problem::Malformed(format!(
                "the body names nobody to erase: {EXPECTED} (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
    let erasure = erasure(wanted)?;
    app.blocking(|app| {
        let job = app.engine.erase(erasure).map_err(|error| app.problem(error))?;
        let place = HeaderValue::from_str(&format!("/v1/admin/erase/{}", job.id))
            .map_err(|_| Problem::Internal("the id of a job is no part of an address"))?;
        Ok((StatusCode::ACCEPTED, [(LOCATION, place)], Json(job)).into_response())
    })
    .await
}

const EXPECTED: &str =
    "an object with tenant and one of user_id, anonymous_id and visitor_id is expected";

fn erasure(wanted: Wanted) -> Result<Erasure, Problem> {
    let wrong = || Problem::Malformed(format!("the body names nobody to erase: {EXPECTED}"));
    let visitor = match wanted.visitor_id {
        None => None,
        Some(VisitorId::Number(number)) => Some(number),
        Some(VisitorId::Text(text)) => Some(text.parse().map_err(|_| wrong())?),
    };
    let who = match (wanted.user_id, wanted.anonymous_id, visitor) {
        (Some(user), None, None) if !user.is_empty() => Who::UserId(user),
        (None, Some(anonymous), None) if !anonymous.is_empty() => Who::AnonymousId(anonymous),
        (None, None, Some(visitor)) => Who::VisitorId(visitor),
        _ => return Err(wrong()),
    };
    Ok(Erasure { tenant: wanted.tenant, who })
}

/// `GET`: the jobs, newest first.
pub async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    let mut jobs = app.engine.erasures();
    jobs.truncate(LIST_MAX);
    Json(json!({ "erasures": jobs }))
}

/// `GET …/{id}`: one job and its report.
pub async fn show(State(app): State<Arc<App>>, id: PathText) -> Result<Response, Problem> {
    let id = path_text(id, "such erasure")?;
    match app.engine.erasure(&id) {
        Some(job) => Ok(Json(job).into_response()),
        None => Err(Problem::NotFound("such erasure".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Erasure> {
        erasure(serde_json::from_str(text).ok()?).ok()
    }

    #[test]
    fn exactly_one_name_is_taken() {
        let of = |who| Some(Erasure { tenant: "t".into(), who });
        let user = of(Who::UserId("u".into()));
        assert_eq!(read(r#"{"tenant":"t","user_id":"u"}"#), user);
        assert_eq!(read(r#"{"tenant":"t","user_id":"u","visitor_id":null}"#), user);
        let number = i64::MIN + 1;
        for text in [number.to_string(), format!("\"{number}\"")] {
            let body = format!(r#"{{"tenant":"t","visitor_id":{text}}}"#);
            assert_eq!(read(&body), of(Who::VisitorId(number)), "{body}");
        }
        for wrong in [
            r#"{"tenant":"t"}"#,
            r#"{"user_id":"u"}"#,
            r#"{"tenant":"t","user_id":""}"#,
            r#"{"tenant":"t","user_id":"u","anonymous_id":"a"}"#,
            r#"{"tenant":"t","visitor_id":"u"}"#,
            r#"{"tenant":"t","visitor_id":1.5}"#,
            r#"{"tenant":"t","user_id":"u","event":"e"}"#,
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
