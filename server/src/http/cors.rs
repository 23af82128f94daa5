//! What browsers need to hear before pages of other sites may send events.
//!
//! Only the ingest routes get these headers; [`super::guard`] refuses foreign pages on all others.
//! The request's own origin is echoed rather than `*`, because some trackers send credentials, with
//! which browsers refuse `*`.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, StatusCode};

use super::answer::{Reply, empty};

/// Request headers that a page may set: ours, and those that SDKs set in browsers.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "content-type, content-encoding, authorization, x-write-key, x-enable-debug, x-ip-policy, \
     x-umami-cache, sp-anonymous, anonymousid",
);
/// Answer headers that a page may read, so that it can wait before it tries again.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("retry-after, ratelimit-limit, ratelimit-remaining, ratelimit-reset");
/// A day: browsers cap it at their own, shorter limits.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Answers a preflight request for a route that takes `methods`; `allows` knows the origins.
pub fn preflight(
    headers: &HeaderMap,
    methods: &'static str,
    allows: impl Fn(&[u8]) -> bool,
) -> Reply {
    let mut reply = empty(StatusCode::NO_CONTENT);
    let answer = reply.headers_mut();
    answer.insert(hyper::header::ALLOW, HeaderValue::from_static(methods));
    if allowed_origin(headers, allows).is_some() {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    }
    reply
}

/// Adds to `reply` what lets the page behind `headers` read it; nothing for other clients.
pub fn permit(headers: &HeaderMap, allows: impl Fn(&[u8]) -> bool, reply: &mut Reply) {
    if !headers.contains_key(ORIGIN) {
        return;
    }
    let answer = reply.headers_mut();
    answer.insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed_origin(headers, allows) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
}

fn allowed_origin(headers: &HeaderMap, allows: impl Fn(&[u8]) -> bool) -> Option<&HeaderValue> {
    headers.get(ORIGIN).filter(|origin| allows(origin.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn from_page(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers
    }

    #[test]
    fn an_allowed_origin_is_echoed_with_credentials() {
        let headers = from_page("https://shop.example");
        let mut reply = preflight(&headers, "POST, OPTIONS", |_| true);
        permit(&headers, |_| true, &mut reply);
        assert_eq!(reply.status(), StatusCode::NO_CONTENT);
        assert_eq!(reply.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
        assert_eq!(reply.headers()[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(reply.headers()[ACCESS_CONTROL_ALLOW_METHODS], "POST, OPTIONS");
        assert_eq!(reply.headers()[VARY], "origin");
    }

    #[test]
    fn an_origin_that_is_not_listed_gets_no_permission() {
        let headers = from_page("https://other.example");
        let shop_only = |origin: &[u8]| origin == b"https://shop.example";
        let mut reply = preflight(&headers, "POST, OPTIONS", shop_only);
        permit(&headers, shop_only, &mut reply);
        assert!(!reply.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert!(!reply.headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS));
        assert_eq!(reply.headers()[VARY], "origin");
    }

    #[test]
    fn programs_get_no_such_headers() {
        let mut reply = empty(StatusCode::ACCEPTED);
        permit(&HeaderMap::new(), |_| true, &mut reply);
        assert!(reply.headers().is_empty());
    }
}
