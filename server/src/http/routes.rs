//! The routes that are not ingest, and what all others get.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{delete, get, post};

use super::answer::Problem;
use super::{
    App, admin, console, erase, exports, keys, listing, metrics, openapi, profile, query, stats,
    status, webhooks,
};
use crate::traces::Trace;

/// The router; every loop has its own.
pub fn router(app: Arc<App>) -> Router {
    let mut routes = routes();
    if app.tracer.is_some() {
        routes = routes.route_layer(from_fn(name_route));
    }
    routes.fallback(nothing).with_state(app)
}

fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/query", post(query::answer).fallback(only_post))
        .route("/v1/events", get(listing::answer))
        .route("/v1/exports", get(exports::list).post(exports::create).fallback(only_get_and_post))
        .route(
            "/v1/exports/{id}",
            get(exports::show).delete(exports::cancel).fallback(only_get_and_delete),
        )
        .route("/v1/exports/{id}/files/{name}", get(exports::fetch).fallback(only_get))
        .route(
            "/v1/webhooks",
            get(webhooks::list).post(webhooks::create).fallback(only_get_and_post),
        )
        .route(
            "/v1/webhooks/{id}",
            get(webhooks::show).delete(webhooks::remove).fallback(only_get_and_delete),
        )
        .route("/v1/webhooks/{id}/deliveries", get(webhooks::deliveries).fallback(only_get))
        .route("/v1/webhooks/{id}/resume", post(webhooks::resume).fallback(only_post))
        .route("/v1/stats", get(stats::answer).fallback(only_get))
        .route("/v1/schema", get(stats::schema).fallback(only_get))
        .route("/v1/status", get(status::status).fallback(only_get))
        .route("/v1/admin/flush", post(admin::flush).fallback(only_post))
        .route("/v1/admin/roll", post(admin::roll).fallback(only_post))
        .route("/v1/admin/compact", post(admin::compact).fallback(only_post))
        .route("/v1/admin/vacuum", post(admin::vacuum).fallback(only_post))
        .route("/v1/admin/profile", get(profile::answer).fallback(only_get))
        .route("/v1/admin/erase", get(erase::list).post(erase::create).fallback(only_get_and_post))
        .route("/v1/admin/erase/{id}", get(erase::show).fallback(only_get))
        .route("/v1/admin/keys", get(keys::list).post(keys::create).fallback(only_get_and_post))
        .route("/v1/admin/keys/{id}", delete(keys::revoke).fallback(only_delete))
        .route("/v1/admin/keys/{id}/rotate", post(keys::rotate).fallback(only_post))
        .route(console::PATH, get(console::page).fallback(only_get))
        .route("/console.css", get(console::style).fallback(only_get))
        .route("/console.js", get(console::script).fallback(only_get))
        .route("/openapi.json", get(openapi::answer).fallback(only_get))
        .route("/healthz", get(status::healthz).fallback(only_get))
        .route("/readyz", get(status::readyz).fallback(only_get))
        .route("/metrics", get(metrics::answer).fallback(only_get))
}

/// Tells the trace of a request, if it has one, which route answers it.
async fn name_route(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    if let (Some(trace), Some(route)) =
        (extensions.get::<Arc<Trace>>(), extensions.get::<MatchedPath>())
    {
        trace.set_route(route.as_str());
    }
    next.run(request).await
}

async fn only_post() -> Problem {
    Problem::Method("POST")
}

async fn only_get_and_post() -> Problem {
    Problem::Method("GET, HEAD, POST")
}

async fn only_delete() -> Problem {
    Problem::Method("DELETE")
}

async fn only_get_and_delete() -> Problem {
    Problem::Method("GET, HEAD, DELETE")
}

async fn only_get() -> Problem {
    Problem::Method("GET, HEAD")
}

async fn nothing(request: Request) -> Problem {
    /// A path is quoted, but not all of it.
    const PATH_MAX_CHARS: usize = 64;
    Problem::NotFound(request.uri().path().chars().take(PATH_MAX_CHARS).collect())
}
