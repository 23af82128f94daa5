//! Who a request comes from, and what that one may do.
//!
//! **Guarantees.** Every route asks here, and what a route needs is said in one place:
//! [`ServingLoop::sender`] for events, [`ServingLoop::admit`] for all others, where a route that
//! nobody thought of needs a key that may read. A key that was verified before costs a look into a
//! table: no lock that others wait for, no allocation. No message holds any part of a key.
//!
//! **Open mode.** While no key exists everybody may do everything, and keys that are sent are
//! ignored.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Uri};
use ringlake_event::{Sender, Tenant};
use ringlake_keys::limits::Standing;
use ringlake_keys::{Keys, Record, Refused, Scope};

use super::answer::{self, Problem, Reply};
use super::serving_loop::ServingLoop;
use super::{App, forwarded};

/// Room for a decoded `Basic` header whose user name is a key; longer ones hold none.
const BASIC_MAX_BYTES: usize = 192;

/// How a request says which key it comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A key in a header.
    Header(&'a str),
    /// A key where others may see it: in a query string or a body. Good for write keys only.
    Public(&'a str),
    /// A name that a write key has beside its own: a domain, a website id. Only some SDK routes
    /// take one.
    Alias(&'a str),
}

impl<'a> Credential<'a> {
    /// What an SDK has put into its body: a key, or another name of one.
    #[must_use]
    pub fn in_body(text: &'a str) -> Self {
        if text.starts_with("rl_") { Self::Public(text) } else { Self::Alias(text) }
    }
}

/// Whether a request has a key where ours have it: in its headers or its query string.
#[must_use]
pub fn names_key(head: &Parts) -> bool {
    let mut room = [0; BASIC_MAX_BYTES];
    in_headers(&head.headers, &mut room).is_some() || in_query(&head.uri).is_some()
}

/// What the holder of a request may do.
#[derive(Debug, Clone)]
pub struct Access {
    /// The key; none in open mode.
    key: Option<Arc<Record>>,
    /// When the key had been looked at.
    decided: Option<Instant>,
    /// The tightest quota of requests after this one, if there is any.
    standing: Option<Standing>,
}

impl Access {
    /// No key exists.
    const OPEN: Self = Self { key: None, decided: None, standing: None };

    /// Who owns the events of this request; see [`ServingLoop::sender`].
    #[must_use]
    pub fn tenant(&self) -> Tenant<'_> {
        match &self.key {
            Some(key) if key.is_of_tenant() => Tenant::Fixed(&key.tenant),
            _ => Tenant::Open,
        }
    }

    /// Whose events may be read: all when `None`.
    ///
    /// # Errors
    /// [`Problem::Forbidden`] for a write key.
    pub fn readable(&self) -> Result<Option<&str>, Problem> {
        match &self.key {
            None => Ok(None),
            Some(key) => match key.scope {
                Scope::Admin => Ok(None),
                Scope::Read => Ok(Some(&key.tenant)),
                Scope::Write => Err(lacks(key, "read or admin")),
            },
        }
    }

    /// Whether it still holds, for an answer that goes on: the key was neither revoked nor rotated,
    /// and open mode has not ended.
    #[must_use]
    pub fn is_current(&self, keys: &Keys) -> bool {
        self.key.as_ref().map_or_else(|| keys.is_open_mode(), |key| keys.holds(key))
    }

    /// Tells in `reply` how the tightest quota of requests stands, if there is any and it is news.
    pub fn show_quota<B>(&self, reply: &mut hyper::Response<B>) {
        show_news(self.standing, reply);
    }

    fn may_send(&self) -> Result<(), Problem> {
        match &self.key {
            Some(key) if key.scope == Scope::Read => Err(lacks(key, "write or admin")),
            _ => Ok(()),
        }
    }

    fn may_administer(&self) -> Result<(), Problem> {
        match &self.key {
            Some(key) if key.scope != Scope::Admin => Err(lacks(key, "admin")),
            _ => Ok(()),
        }
    }
}

fn lacks(record: &Record, needed: &str) -> Problem {
    let scope = record.scope.name();
    Problem::Forbidden(format!("the key has scope {scope}; this needs scope {needed}"))
}

fn show_news<B>(standing: Option<Standing>, reply: &mut hyper::Response<B>) {
    if let Some(standing) = standing.filter(Standing::is_news) {
        answer::show_quota(reply.headers_mut(), standing);
    }
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Read,
    Admin,
}

/// Who sent the request `head`, which a router got.
///
/// # Errors
/// None in practice: [`ServingLoop::admit`] has looked.
pub fn of(head: &Parts) -> Result<&Access, Problem> {
    head.extensions.get().ok_or(Problem::Internal("nobody looked at the key"))
}

/// Whose events the request `head`, which a router got, may read: all when `None`.
///
/// # Errors
/// See [`Access::readable`].
pub fn reader(head: &Parts) -> Result<Option<String>, Problem> {
    Ok(of(head)?.readable()?.map(str::to_owned))
}

fn need(path: &str) -> Need {
    match path {
        "/healthz" | "/readyz" => Need::Nothing,
        "/metrics" | "/v1/status" => Need::Admin,
        path if path.starts_with("/v1/admin/") => Need::Admin,
        _ => Need::Read,
    }
}

impl ServingLoop {
    /// What the engine may know of the client behind `peer`; see [`forwarded::sender`].
    pub fn visitor<'a>(&self, peer: IpAddr, headers: &'a HeaderMap) -> Option<Sender<'a>> {
        let config = &self.app.config;
        forwarded::sender(peer, headers, &config.http, config.privacy)
    }

    /// Who sends events with the request `head` from `peer`: the key of its headers or of its query
    /// string (`key=`), else `elsewhere`, which is what an SDK has put somewhere of its own. The
    /// result may send, from the page that the request comes from, to [`Access::tenant`]. `began` is
    /// now, or so short a while ago that it may count as the time of the look at the key.
    ///
    /// # Errors
    /// [`Problem::Unauthorized`] without a key or with an unknown one, [`Problem::Forbidden`] for a
    /// key or a page that may not, [`Problem::Limited`] above a quota, and the problems of a key that
    /// cannot be looked at now.
    pub async fn sender(
        &self,
        peer: IpAddr,
        head: &Parts,
        elsewhere: Option<Credential<'_>>,
        began: Instant,
    ) -> Result<Access, Problem> {
        let origin = head.headers.get(ORIGIN).map(|origin| origin.as_bytes());
        let access = if self.app.keys.is_open_mode() {
            Access::OPEN
        } else {
            let mut room = [0; BASIC_MAX_BYTES];
            let sent = in_headers(&head.headers, &mut room).map(Credential::Header);
            let sent = sent.or_else(|| in_query(&head.uri).map(Credential::Public)).or(elsewhere);
            let _stage = self.traces.stage("check key");
            let client = forwarded::client(peer, &head.headers, &self.app.config.http);
            self.holder(client, sent, began).await?
        };
        access.may_send()?;
        let of_key = match (&access.key, origin) {
            (Some(key), Some(origin)) => key.allows_origin(origin),
            _ => None,
        };
        let allowed = of_key.unwrap_or_else(|| {
            origin.is_none_or(|origin| self.app.config.http.allows_origin(origin))
        });
        if !allowed {
            return Err(Problem::Forbidden("events from pages of this Origin are refused".into()));
        }
        self.count_request(access)
    }

    /// Who asks for anything that is not ingest.
    ///
    /// # Errors
    /// As [`ServingLoop::sender`]; the key has to be in a header.
    pub async fn admit(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Access, Problem> {
        let need = need(uri.path());
        if need == Need::Nothing || self.app.keys.is_open_mode() {
            return Ok(Access::OPEN);
        }
        let mut room = [0; BASIC_MAX_BYTES];
        let sent = in_headers(headers, &mut room).map(Credential::Header);
        let client = forwarded::client(peer, headers, &self.app.config.http);
        let access = self.holder(client, sent, Instant::now()).await?;
        match need {
            Need::Admin => access.may_administer()?,
            _ => access.readable().map(|_| ())?,
        }
        self.count_request(access)
    }

    /// Takes the request out of the quotas of its key.
    fn count_request(&self, access: Access) -> Result<Access, Problem> {
        let (Some(key), Some(began)) = (&access.key, access.decided) else { return Ok(access) };
        let outcome = self.app.limits.take_request(key, began);
        self.shared.limit_checks.observe(began.elapsed());
        let standing = outcome.map_err(|exceeded| Problem::Limited { exceeded, events: 1 })?;
        Ok(Access { standing, ..access })
    }

    /// Takes the events of a request out of the quotas of its key, before they are committed.
    ///
    /// # Errors
    /// [`Problem::Limited`].
    pub fn count_events(&self, access: &Access, events: usize) -> Result<(), Problem> {
        let Some(key) = &access.key else { return Ok(()) };
        let outcome = self.app.limits.take_events(key, events as u64, Instant::now());
        outcome.map(|_| ()).map_err(|exceeded| Problem::Limited { exceeded, events })
    }

    /// Tells in `reply`, to a request with events, how the tightest quota of requests stands, or, where
    /// there is none, that of events, if it is news.
    pub fn show_quotas(&self, access: &Access, reply: &mut Reply) {
        let of_events = |key| self.app.limits.of_events(key, Instant::now());
        show_news(access.standing.or_else(|| access.key.as_deref().and_then(of_events)), reply);
    }

    /// Who holds the key that was sent.
    async fn holder(
        &self,
        client: IpAddr,
        sent: Option<Credential<'_>>,
        began: Instant,
    ) -> Result<Access, Problem> {
        let keys = &self.app.keys;
        let (record, public) = match sent {
            None => return Err(Problem::Unauthorized("a key is needed")),
            Some(Credential::Alias(alias)) => (keys.of_alias(alias), true),
            Some(Credential::Header(key) | Credential::Public(key)) => {
                let cached = keys.cached(key, began);
                let counter = match cached {
                    Some(_) => &self.shared.key_hits,
                    None => &self.shared.key_misses,
                };
                // Relaxed: statistics.
                counter.fetch_add(1, Ordering::Relaxed);
                let record = match cached {
                    Some(record) => Ok(record),
                    None => keys.check(key, client).await,
                };
                (record, matches!(sent, Some(Credential::Public(_))))
            }
        };
        let decided = Instant::now();
        self.shared.auth.observe(decided.saturating_duration_since(began));
        let record = record.map_err(Problem::from)?;
        if public && record.scope != Scope::Write {
            let reason = "only write keys may be sent in a query string or a body";
            return Err(Problem::Forbidden(reason.into()));
        }
        Ok(Access { key: Some(record), decided: Some(decided), standing: None })
    }
}

impl App {
    /// Whether pages of `origin` may read answers: the configuration or some key names it. Whether
    /// they may send is decided once their key is known.
    pub fn answers_origin(&self, origin: &[u8]) -> bool {
        self.config.http.allows_origin(origin) || self.keys.names_origin(origin)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown => Self::Unauthorized("the key is not known"),
            Refused::TooMany(wait) => Self::WrongKeys(wait),
            Refused::Busy => Self::KeysBusy,
        }
    }
}

/// The key in a request's headers: `Authorization: Bearer KEY`, `X-Write-Key: KEY`, or the user name
/// of `Authorization: Basic`, which may also be meant for a proxy in front of us. Jitsu's SDK sends
/// `X-Write-Key: KEY:SECRET` and takes no key without a colon; ours have their secret in them.
fn in_headers<'a>(headers: &'a HeaderMap, room: &'a mut [u8; BASIC_MAX_BYTES]) -> Option<&'a str> {
    let sent = headers.get(AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    if let Some(key) = after(b"bearer", sent) {
        return str::from_utf8(key).ok();
    }
    if let Some(encoded) = after(b"basic", sent)
        && let Ok(length) = STANDARD.decode_slice(encoded, room)
        && let Ok(text) = str::from_utf8(&room[..length])
    {
        let user = text.split_once(':').map_or(text, |(user, _)| user);
        if user.starts_with("rl_") {
            return Some(user);
        }
    }
    let sent = headers.get("x-write-key").and_then(|value| value.to_str().ok());
    sent.map(|sent| sent.split_once(':').map_or(sent, |(key, _)| key))
}

/// What `Authorization` says after `scheme`.
fn after<'a>(scheme: &[u8], sent: &'a [u8]) -> Option<&'a [u8]> {
    let (first, rest) = sent.split_at_checked(scheme.len())?;
    let value = rest.strip_prefix(b" ")?;
    first.eq_ignore_ascii_case(scheme).then(|| value.trim_ascii())
}

/// The key in a query string. A key has no character that would be encoded there.
fn in_query(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn found(headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        in_headers(&map, &mut [0; BASIC_MAX_BYTES]).map(str::to_owned)
    }

    #[test]
    fn a_key_is_found_where_clients_put_it() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let expected = Some("rl_w1_x".to_owned());
        assert_eq!(found(&[("authorization", "Bearer rl_w1_x")]), expected);
        assert_eq!(found(&[("authorization", "bearer  rl_w1_x ")]), expected);
        assert_eq!(found(&[("x-write-key", "rl_w1_x")]), expected);
        assert_eq!(found(&[("x-write-key", "rl_w1_x:secret")]), expected);
        assert_eq!(found(&[("authorization", &basic("rl_w1_x:"))]), expected);
        assert_eq!(found(&[("authorization", &basic("rl_w1_x:ignored"))]), expected);
        let proxy = basic("alice:secret");
        assert_eq!(found(&[("authorization", &proxy), ("x-write-key", "rl_w1_x")]), expected);
        for value in ["Bearer", "Basic ?", "Digest rl_w1_x", &basic(&"x".repeat(200)), &proxy] {
            assert_eq!(found(&[("authorization", value)]), None, "{value}");
        }
        assert_eq!(
            in_query(&Uri::from_static("/v1/events?ack=disk&key=rl_w1_x&q=1")),
            Some("rl_w1_x")
        );
        assert_eq!(in_query(&Uri::from_static("/v1/events?monkey=1")), None);
    }

    #[test]
    fn a_route_that_nobody_thought_of_needs_a_key() {
        assert_eq!(need("/healthz"), Need::Nothing);
        assert_eq!(need("/v1/admin/keys"), Need::Admin);
        assert_eq!(need("/metrics"), Need::Admin);
        for path in ["/", "/v1/query", "/healthz/", "/readyz2", "//healthz", "/V1/admin/roll"] {
            assert_eq!(need(path), Need::Read, "{path}");
        }
    }
}
