//! Browser rules for every route that is not an ingest route.
//!
//! A page on a foreign site can make a browser send requests to a server on loopback or behind a
//! firewall. Three signs give it away, each alone is enough for a 403:
//!
//! - an `Origin` that is not the host asked for,
//! - `Sec-Fetch-Site: cross-site`,
//! - in open mode, a `Host` that is not a loopback name: a foreign name that was made to point at
//!   127.0.0.1 (DNS rebinding) passes the other two.
//!
//! A request without `Origin` and `Host` comes from no browser and passes.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{HOST, ORIGIN};
use hyper::{HeaderMap, Uri};

use super::answer::Problem;

/// Refuses what a foreign page may have caused.
///
/// # Errors
/// [`Problem::Forbidden`] with the reason.
pub fn check(headers: &HeaderMap, uri: &Uri, open_mode: bool) -> Result<(), Problem> {
    let host = match headers.get(HOST) {
        None => uri.authority().map(|authority| authority.as_str()),
        Some(value) => Some(value.to_str().map_err(|_| forbidden("the Host is not text"))?),
    };
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(forbidden("requests from pages of other sites are refused here"));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let same = origin.to_str().is_ok_and(|origin| is_same(origin, host.unwrap_or_default()));
        if !same {
            return Err(forbidden("the Origin is not this server; only ingest takes foreign ones"));
        }
    }
    match host {
        Some(host) if open_mode && !is_loopback(host) => Err(forbidden(
            "while no key exists, only requests to localhost are answered; the Host is another",
        )),
        _ => Ok(()),
    }
}

fn forbidden(reason: &str) -> Problem {
    Problem::Forbidden(reason.into())
}

/// Whether a page of `origin` was served by `host`; a default port may be left out on either side.
fn is_same(origin: &str, host: &str) -> bool {
    let (default_port, origin) = match origin.split_once("://") {
        Some(("http", rest)) => (":80", rest),
        Some(("https", rest)) => (":443", rest),
        _ => return false,
    };
    let bare = |name: &str| name.strip_suffix(default_port).unwrap_or(name).to_ascii_lowercase();
    !host.is_empty() && bare(origin) == bare(host)
}

/// Whether `host`, with or without a port, names this machine to itself.
fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_fine && address.parse::<Ipv6Addr>().is_ok_and(|it| it.is_loopback());
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn allowed(headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        check(&map, &Uri::from_static("/v1/query"), true).is_ok()
    }

    #[test]
    fn programs_and_own_pages_pass() {
        assert!(allowed(&[]));
        assert!(allowed(&[("host", "127.0.0.1:8080")]));
        assert!(allowed(&[("host", "localhost:8080"), ("origin", "http://localhost:8080")]));
        assert!(allowed(&[("host", "localhost"), ("origin", "http://LOCALHOST:80")]));
        assert!(allowed(&[("host", "[::1]:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(allowed(&[("host", "127.9.9.9")]));
    }

    #[test]
    fn foreign_pages_do_not() {
        assert!(!allowed(&[("host", "localhost:8080"), ("origin", "https://evil.example")]));
        assert!(!allowed(&[("host", "localhost:8080"), ("origin", "http://localhost:8081")]));
        assert!(!allowed(&[("host", "localhost:8080"), ("origin", "null")]));
        assert!(!allowed(&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn a_name_that_was_pointed_at_loopback_does_not() {
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]",
            "[::1",
            "localhost:http",
            "10.0.0.1:8080",
        ] {
            assert!(!allowed(&[("host", host)]), "{host}");
            assert!(!allowed(&[("host", host), ("origin", &format!("http://{host}"))]), "{host}");
        }
    }

    #[test]
    fn with_keys_any_host_is_fine() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "events.example".parse().unwrap());
        assert!(check(&headers, &Uri::from_static("/"), false).is_ok());
    }
}
