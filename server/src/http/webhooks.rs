//! `/v1/webhooks`: who is to be sent events, and how that goes. The sending is in
//! [`crate::webhooks`].
//!
//! **Guarantees.** The secret is in the answer that creates a webhook and nowhere else. A webhook begins
//! with the events that are accepted after that answer; those that are on their way to the log when it is
//! made may be the first.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use ringlake_engine::query::format::timestamp_text;
use ringlake_engine::webhook::{Delivery, Wanted, Webhook, WebhookError};
use ringlake_event::TENANT_MAX_BYTES;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{PathText, Problem, chain, path_text};
use super::{App, access, query};
use crate::webhooks::Target;

/// Longest description of a webhook: its lists of their greatest length fit.
const BODY_MAX_BYTES: usize = 64 << 10;

/// A webhook as a client describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    url: String,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    events: Vec<String>,
    tenant: Option<String>,
}

/// `POST /v1/webhooks`
pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let tenant = access::reader(&head)?;
    let body = query::read(&app, body, &head.headers, BODY_MAX_BYTES).await?;
    let wrong = |why: String| Problem::Malformed(format!("the body describes no webhook: {why}"));
    if !body.trim_ascii().starts_with(b"{") {
        return Err(wrong("it is no object".into()));
    }
    let described = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    let wanted = wanted(described, tenant)?;
    Target::parse(&wanted.url, app.config.webhooks.allow_private)
        .map_err(|why| Problem::Malformed(format!("url {why}")))?;
    app.blocking(|app| {
        let end = app.engine.end_of_feed().ok_or_else(|| app.not_ready())?;
        let webhook = app.webhooks.create(wanted, end).map_err(failed)?;
        let mut answer = shown(&webhook, app);
        answer["secret"] = webhook.secret.reveal().into();
        let place = HeaderValue::from_str(&format!("/v1/webhooks/{}", webhook.id))
            .map_err(|_| Problem::Internal("the id of a webhook is no part of an address"))?;
        let headers = [(LOCATION, place), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        Ok((StatusCode::CREATED, headers, Json(answer)).into_response())
    })
    .await
}

fn wanted(described: Described, tenant: Option<String>) -> Result<Wanted, Problem> {
    let Described { url, types, events, tenant: named } = described;
    if let Some(named) = &named
        && !(1..=TENANT_MAX_BYTES).contains(&named.len())
    {
        let length = named.len();
        return Err(Problem::Malformed(format!(
            "tenant has {length} bytes; 1 to {TENANT_MAX_BYTES} are allowed"
        )));
    }
    let tenant = match (tenant, named) {
        (Some(own), Some(named)) if own != named => {
            return Err(Problem::Forbidden("the key is of another tenant".into()));
        }
        (own, named) => own.or(named),
    };
    Ok(Wanted { tenant, url, types, events })
}

/// `GET /v1/webhooks`: all of them, oldest first. There are few.
pub async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    let tenant = access::reader(&request.into_parts().0)?;
    app.blocking(move |app| {
        let all = app.webhooks.list(tenant.as_deref());
        let all: Vec<Value> = all.iter().map(|webhook| shown(webhook, app)).collect();
        Ok(Json(json!({ "webhooks": all })))
    })
    .await
}

/// `GET /v1/webhooks/{id}`
pub async fn show(
    State(app): State<Arc<App>>,
    id: PathText,
    request: Request,
) -> Result<Json<Value>, Problem> {
    one(app, id, request, |app, webhook| Ok(shown(&webhook, app))).await
}

/// `GET /v1/webhooks/{id}/deliveries`: the last attempts, newest first.
pub async fn deliveries(
    State(app): State<Arc<App>>,
    id: PathText,
    request: Request,
) -> Result<Json<Value>, Problem> {
    one(app, id, request, |_, webhook| {
        let deliveries: Vec<Value> = webhook.deliveries.iter().rev().map(attempt).collect();
        Ok(json!({ "deliveries": deliveries }))
    })
    .await
}

/// `POST /v1/webhooks/{id}/resume`: tries again at once, also what was gone.
pub async fn resume(
    State(app): State<Arc<App>>,
    id: PathText,
    request: Request,
) -> Result<Json<Value>, Problem> {
    one(app, id, request, |app, webhook| {
        let resumed = app.webhooks.resume(None, &webhook.id).map_err(failed)?;
        Ok(shown(&resumed, app))
    })
    .await
}

/// `DELETE /v1/webhooks/{id}`
pub async fn remove(
    State(app): State<Arc<App>>,
    id: PathText,
    request: Request,
) -> Result<StatusCode, Problem> {
    let done = |app: &App, webhook: Webhook| {
        app.webhooks.remove(None, &webhook.id).map_err(failed)?;
        Ok(Value::Null)
    };
    one(app, id, request, done).await.map(|_| StatusCode::NO_CONTENT)
}

/// What `answer` makes of the webhook `id`, if whoever asks may see it.
async fn one(
    app: Arc<App>,
    id: PathText,
    request: Request,
    answer: impl FnOnce(&App, Webhook) -> Result<Value, Problem> + Send + 'static,
) -> Result<Json<Value>, Problem> {
    let id = path_text(id, "such webhook")?;
    let tenant = access::reader(&request.into_parts().0)?;
    app.blocking(move |app| {
        let webhook = app.webhooks.find(tenant.as_deref(), &id).map_err(failed)?;
        answer(app, webhook).map(Json)
    })
    .await
}

fn shown(webhook: &Webhook, app: &App) -> Value {
    let waits = webhook.failures > 0 && !webhook.is_gone;
    let behind = app.engine.end_of_feed().map(|end| webhook.position.behind(&end));
    json!({
        "id": webhook.id,
        "tenant": webhook.tenant,
        "url": webhook.url,
        "types": webhook.types,
        "events": webhook.events,
        "created_at": timestamp_text(webhook.created_at),
        "state": webhook.state().name(),
        "failures": webhook.failures,
        "next_attempt_at": waits.then(|| timestamp_text(webhook.next_attempt_at)),
        "delivered_events": webhook.delivered_events,
        "given_up_events": webhook.given_up_events,
        "behind_events": behind,
    })
}

fn attempt(delivery: &Delivery) -> Value {
    json!({
        "message": delivery.message,
        "at": timestamp_text(delivery.at),
        "took_ms": delivery.took_ms,
        "events": delivery.events,
        "outcome": delivery.outcome.name(),
        "status": delivery.status,
        "error": delivery.error,
    })
}

/// The details of failures of ours are for the log.
fn failed(error: WebhookError) -> Problem {
    match error {
        WebhookError::Invalid(message) => Problem::Malformed(message),
        WebhookError::Unknown => Problem::NotFound("such webhook".into()),
        WebhookError::Full { .. } => Problem::Malformed(error.to_string()),
        other => {
            tracing::error!(error = %chain(&other), "a webhook cannot be written down");
            Problem::Internal("the webhook cannot be written down")
        }
    }
}
