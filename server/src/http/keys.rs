//! `/v1/admin/keys`: keys over HTTP, and how the server follows the file that holds them.
//!
//! **Guarantees.** A change takes effect before it is answered. One that another process makes is
//! seen within [`LOOK_EVERY`] and the time to read the file. A secret is in the answer that makes it
//! and nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use ringlake_keys::check::SWEEP_EVERY;
use ringlake_keys::{Error, Key, Record, Wanted};
use serde_json::{Value, json};

use super::App;
use super::answer::{PathText, Problem, chain, path_text};
use super::query;

/// How often the file is looked at; a change shall be seen within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest description of a key: 32 aliases and 32 origins of their greatest length fit.
const BODY_MAX_BYTES: usize = 64 << 10;

/// `GET`: all keys, revoked ones included, without secrets.
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    app.blocking(|app| {
        let keys = app.keys.file().read().map_err(problem)?;
        Ok(Json(json!({ "keys": keys.iter().map(described).collect::<Vec<_>>() })))
    })
    .await
}

/// `POST`: makes a key.
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body = query::read(&app, body, &head.headers, BODY_MAX_BYTES).await?;
    let wanted: Wanted = serde_json::from_slice(&body)
        .map_err(|error| Problem::Malformed(format!("the body describes no key: {error}")))?;
    let made = app.blocking(|app| app.change_keys(|file| file.create(wanted))).await?;
    Ok(shown_once(StatusCode::CREATED, &made))
}

/// `POST …/{id}/rotate`: a new secret for a key.
pub async fn rotate(State(app): State<Arc<App>>, id: PathText) -> Result<Response, Problem> {
    let id = path_text(id, "such key")?;
    let made = app.blocking(move |app| app.change_keys(|file| file.rotate(&id))).await?;
    Ok(shown_once(StatusCode::OK, &made))
}

/// `DELETE …/{id}`: the key is refused from now on.
pub async fn revoke(State(app): State<Arc<App>>, id: PathText) -> Result<Json<Value>, Problem> {
    let id = path_text(id, "such key")?;
    let record = app.blocking(move |app| app.change_keys(|file| file.revoke(&id))).await?;
    Ok(Json(described(&record)))
}

/// An answer with a secret in it; nobody between us and the client may keep it.
fn shown_once(status: StatusCode, (key, record): &(Key, Record)) -> Response {
    let mut answer = described(record);
    answer["key"] = key.reveal().into();
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, no_store, Json(answer)).into_response()
}

/// A key as clients see it.
fn described(record: &Record) -> Value {
    json!({
        "id": record.id,
        "scope": record.scope,
        "tenant": record.is_of_tenant().then_some(&record.tenant),
        "aliases": record.aliases,
        "origins": record.origins,
        "created_at": record.created_at,
        "rotated_at": record.rotated_at,
        "revoked_at": record.revoked_at,
    })
}

fn problem(error: Error) -> Problem {
    match error {
        Error::Invalid(message) => Problem::Malformed(message),
        Error::NotFound(id) => Problem::NotFound(format!("key {id}")),
        Error::Full => Problem::Malformed(Error::Full.to_string()),
        other => {
            tracing::error!(error = %chain(&other), "the keys could not be read or changed");
            Problem::Internal("the keys could not be read or changed")
        }
    }
}

impl App {
    /// Changes the file and lets the change take effect.
    fn change_keys<T>(
        &self,
        change: impl FnOnce(&ringlake_keys::KeyFile) -> Result<T, Error>,
    ) -> Result<T, Problem> {
        let changed = change(self.keys.file()).map_err(problem)?;
        self.keys.reload().map_err(problem)?;
        Ok(changed)
    }
}

/// Follows the file of keys, and sweeps what was verified too long ago, until the server ends.
pub async fn follow(app: Arc<App>) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    let mut broken = false;
    loop {
        interval.tick().await;
        let keys = Arc::clone(&app.keys);
        let sweep = swept.elapsed() >= SWEEP_EVERY;
        if sweep {
            swept = Instant::now();
        }
        let look = tokio::task::spawn_blocking(move || {
            if sweep {
                keys.sweep();
            }
            keys.reload()
        });
        // Only the first of many failures is logged; the file may stay broken for long.
        match look.await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                broken = false;
                tracing::info!("the keys have changed");
            }
            Ok(Err(error)) if !broken => {
                broken = true;
                tracing::error!(error = %chain(&error), "the keys cannot be read; the last ones stay");
            }
            Ok(Err(_)) => {}
            Err(_) => tracing::error!("looking at the keys panicked"),
        }
    }
}
