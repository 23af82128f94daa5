//! `GET /`: a page to look at, with live figures, the newest events and a box for SQL.
//!
//! **Guarantees.** Everything it needs is in the binary and comes from this server, so it works
//! without a network; the content policy lets nothing else in. It asks only for what the key that
//! opened it may see: the browser asks for that key (as the user's name of a Basic login) once there
//! are keys. What events hold is put into the page as text.

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};

use super::answer::Reply;

/// The page; its style and script have routes of their own.
pub const PATH: &str = "/";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers with the page.
pub async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("../../console/index.html"))
}

/// Answers with its style.
pub async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../console/console.css"))
}

/// Answers with its script.
pub async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../console/console.js"))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A newer binary has a newer page.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// Makes a browser ask for a key when it wanted the page without one.
pub fn ask_for_key(path: &str, reply: &mut Reply) {
    if path == PATH && reply.status() == StatusCode::UNAUTHORIZED {
        let question = HeaderValue::from_static("Basic realm=\"ringlake, key as the user name\"");
        reply.headers_mut().insert(WWW_AUTHENTICATE, question);
    }
}
