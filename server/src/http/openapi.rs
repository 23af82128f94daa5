//! `GET /openapi.json`: every route, what it takes and what it answers.
//!
//! The description is a file of its own, `server/openapi.json`. A test lets Schemathesis hold the
//! server to it.

use axum::response::{IntoResponse, Response};
use hyper::header::CONTENT_TYPE;

use super::answer::JSON;

/// Answers with the description.
pub async fn answer() -> Response {
    ([(CONTENT_TYPE, JSON)], include_str!("../../openapi.json")).into_response()
}
