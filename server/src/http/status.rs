//! How the server is: alive, ready, and in numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use ringlake_engine::{IngestError, Readiness};
use serde_json::{Value, json};

use super::App;
use super::answer::Problem;

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// `GET /readyz`: events are accepted and can be made durable. Either answer says what had to be
/// set aside, and `503` how far the start is.
pub async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, Response> {
    if app.stopping.is_cancelled() {
        return Err(Problem::ShuttingDown.into_response());
    }
    let damaged = app.engine.damaged_files();
    let damaged: Vec<&str> = damaged.iter().map(|file| &*file.path).collect();
    let details = json!({ "quarantined": app.engine.quarantined(), "damaged_files": damaged });
    match app.engine.readiness() {
        Readiness::Ready => Ok(Json(with(json!({ "status": "ready" }), details))),
        Readiness::NotReady { reason } => {
            let details = with(details, json!({ "recovery": app.engine.recovery() }));
            Err(Problem::NotReady(reason).response_with(details))
        }
    }
}

/// The members of both objects.
pub fn with(mut first: Value, second: Value) -> Value {
    if let (Some(first), Value::Object(second)) = (first.as_object_mut(), second) {
        first.extend(second);
    }
    first
}

/// `GET /v1/status`: everything countable.
pub async fn status(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    app.blocking(|app| {
        let engine = serde_json::to_value(app.engine.status())
            .map_err(|_| Problem::Internal("the status cannot be written as JSON"))?;
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": app.started.elapsed().as_secs(),
            "ready": true,
            "connections": app.connections(),
        });
        if let Readiness::NotReady { reason } = app.engine.readiness() {
            status["ready"] = false.into();
            status["reason"] = reason.into();
        }
        Ok(Json(with(status, engine)))
    })
    .await
}

impl App {
    /// The engine is not running, as an answer.
    pub fn not_ready(&self) -> Problem {
        Problem::NotReady(self.reason("starting"))
    }

    /// What keeps events out, as an answer.
    pub fn closed(&self, error: IngestError) -> Problem {
        match error {
            IngestError::NotReady => self.not_ready(),
            other => Problem::NoRoom {
                refusal: other.refusal(),
                reason: self.reason(&other.to_string()),
            },
        }
    }

    /// Why the engine is not ready, or `otherwise` when it became ready between two looks.
    fn reason(&self, otherwise: &str) -> String {
        match self.engine.readiness() {
            Readiness::NotReady { reason } => reason,
            Readiness::Ready => otherwise.into(),
        }
    }

    /// Open connections of all loops.
    pub fn connections(&self) -> usize {
        // Relaxed: statistics.
        self.loops.iter().map(|shared| shared.connections.load(Ordering::Relaxed)).sum()
    }

    /// Runs `work` where blocking hurts nobody.
    ///
    /// # Errors
    /// What `work` says, or [`Problem::Internal`] when it panics.
    pub async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let control = self.control.clone();
        let outcome = control.spawn_blocking(move || work(&self)).await;
        outcome.unwrap_or(Err(Problem::Internal("a task did not end")))
    }
}
