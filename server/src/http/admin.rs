//! `POST /v1/admin/flush`, `roll`, `compact` and `vacuum`: wait until it is done.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use ringlake_engine::Error;
use serde::Serialize;
use serde_json::{Value, json};

use super::App;
use super::answer::Problem;

/// Everything accepted before the call is visible to SQL afterwards.
pub async fn flush(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    app.blocking(|app| {
        let began = Instant::now();
        app.engine.flush().map_err(|error| app.problem(error))?;
        Ok(Json(json!({ "seconds": began.elapsed().as_secs_f64() })))
    })
    .await
}

/// Everything accepted before the call is in the table afterwards.
pub async fn roll(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    app.blocking(|app| {
        let began = Instant::now();
        let report = app.engine.roll().map_err(|error| app.problem(error))?;
        timed(began, &report)
    })
    .await
}

/// The table's small files are joined afterwards.
pub async fn compact(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    app.blocking(|app| {
        let began = Instant::now();
        let report = app.engine.compact().map_err(|error| app.problem(error))?;
        timed(began, &report)
    })
    .await
}

/// Files that nobody needs are gone afterwards.
pub async fn vacuum(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    app.blocking(|app| {
        let began = Instant::now();
        let report = app.engine.vacuum().map_err(|error| app.problem(error))?;
        timed(began, &report)
    })
    .await
}

/// A report of the engine, and how long it took.
fn timed(began: Instant, report: &impl Serialize) -> Result<Json<Value>, Problem> {
    let mut answer = serde_json::to_value(report)
        .map_err(|_| Problem::Internal("the report cannot be written as JSON"))?;
    answer["seconds"] = began.elapsed().as_secs_f64().into();
    Ok(Json(answer))
}

impl App {
    /// The engine says "closed" while it starts as well as while it stops.
    pub(super) fn problem(&self, error: Error) -> Problem {
        match error {
            Error::Closed | Error::Broken { .. } if !self.stopping.is_cancelled() => {
                self.not_ready()
            }
            error => Problem::Engine(error),
        }
    }
}
