//! The routes of other systems' SDKs: their bodies in, our events out.
//!
//! **Guarantees.** An SDK that is pointed here needs no change: its body is recognised by its bytes
//! (several mislabel theirs), the answer is a 200 with a small JSON object (some take a 202 or 204
//! for a failure, one wants a body), a batch keeps its good events, and an event that is sent again
//! is stored once, because the SDK's message id is ours. What each member becomes is listed in
//! `ringlake_event::sdk`.
//!
//! **Failure.** As on our own route: 429 and 503 say "later", any other 4xx "never".
//!
//! **Memory.** A request's events are put together beside the ring, because they can take more
//! bytes than their body: at most twice the limit of a body. While they wait, for a key to be checked or
//! for room in the ring, they take their body's place in the budget of bodies.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::CACHE_CONTROL;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use ringlake_engine::ack::Ticket;
use ringlake_event::sdk::{Sdk, SdkBody, SdkDecoded, SdkDecoder, decode_base64};
use ringlake_event::{Assembly, DecodeError, Request as EventRequest, Tenant};

use super::access::{self, Access, Credential};
use super::answer::{self, Problem, Reply};
use super::cors;
use super::encoding::{self, Coding, Room};
use super::ingest::{Refused, now_micros};
use super::pixel::{self, parameters};
use super::serving_loop::ServingLoop;

/// What PostHog's form bodies begin with.
const FORM_FIELD: &[u8] = b"data=";

/// A route of an SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    sdk: Sdk,
    /// The type of events that name none.
    kind: Option<&'static str>,
    /// The event is in the query string and the answer is an image.
    pixel: bool,
}

/// The route of an SDK at `path`, if there is one.
pub fn route(path: &str) -> Option<Route> {
    const TYPES: [&str; 6] = ["track", "identify", "page", "screen", "group", "alias"];
    let of_type = |name: &str| TYPES.into_iter().find(|kind| *kind == name);
    let post = |sdk, kind| Some(Route { sdk, kind, pixel: false });
    match path {
        "/v1/batch" => post(Sdk::Segment, None),
        "/batch/" | "/batch" | "/e/" | "/e" | "/capture/" | "/capture" => post(Sdk::PostHog, None),
        "/com.snowplowanalytics.snowplow/tp2" => post(Sdk::Snowplow, None),
        "/i" => Some(Route { sdk: Sdk::Snowplow, kind: None, pixel: true }),
        "/api/event" => post(Sdk::Plausible, None),
        "/api/send" => post(Sdk::Umami, None),
        _ => {
            if let Some(name) = path.strip_prefix("/v1/") {
                return of_type(name).and_then(|kind| post(Sdk::Segment, Some(kind)));
            }
            let name = path.strip_prefix("/api/s/")?;
            of_type(name.strip_prefix("s2s/").unwrap_or(name))
                .and_then(|kind| post(Sdk::Jitsu, Some(kind)))
        }
    }
}

impl Route {
    fn methods(self) -> &'static str {
        if self.pixel { "GET, HEAD, OPTIONS" } else { "POST, OPTIONS" }
    }
}

/// Answers a request for `route`.
pub async fn answer(
    serving: &ServingLoop,
    peer: IpAddr,
    request: Request<Incoming>,
    route: Route,
) -> Reply {
    let began = Instant::now();
    let (head, mut body) = request.into_parts();
    let allows = |origin: &[u8]| serving.app.answers_origin(origin);
    let mut reply = match head.method {
        Method::POST if !route.pixel => {
            let outcome = receive(serving, peer, route, &head, &mut body).await;
            serving.conclude(began, outcome, &head, body)
        }
        Method::GET | Method::HEAD if route.pixel => {
            let outcome = receive_pixel(serving, peer, route, &head).await;
            let mut reply = serving.conclude(began, outcome, &head, body);
            reply.headers_mut().insert(CACHE_CONTROL, pixel::NO_STORE);
            reply
        }
        Method::OPTIONS => cors::preflight(&head.headers, route.methods(), allows),
        _ => Problem::Method(route.methods()).reply(),
    };
    cors::permit(&head.headers, allows, &mut reply);
    reply
}

async fn receive(
    serving: &ServingLoop,
    peer: IpAddr,
    route: Route,
    head: &Parts,
    body: &mut Incoming,
) -> Result<Reply, Refused> {
    serving.check_open()?;
    let access = known_sender(serving, peer, head).await?;
    let body = serving.collect(head, body).await?;
    let limit = serving.app.config.http.body_max_bytes;
    let read = serving.unpack(&body, |text| {
        let text = match text.strip_prefix(FORM_FIELD) {
            Some(value) if route.sdk == Sdk::PostHog => Cow::Owned(form_data(value, limit)?),
            _ => Cow::Borrowed(text),
        };
        read(serving, route, |decoder, how, assembly| decoder.decode(&text, how, assembly))
    })?;
    let charge = body.make_way(read.assembly.record_len(&read.request))?;
    let (access, decoded, ticket) = store(serving, peer, head, access, read).await?;
    drop(charge);
    let duplicates = serving.acknowledge(ticket, decoded.accepted, None).await?;
    let mut reply = answer::accepted_for_sdk(decoded.accepted, duplicates, &decoded.rejected);
    serving.show_quotas(&access, &mut reply);
    Ok(reply)
}

async fn receive_pixel(
    serving: &ServingLoop,
    peer: IpAddr,
    route: Route,
    head: &Parts,
) -> Result<Reply, Refused> {
    serving.check_open()?;
    let access = known_sender(serving, peer, head).await?;
    let query = head.uri.query().unwrap_or_default();
    // The key is no member of the event.
    let pairs = parameters(query).filter(|pair| !matches!(pair, Ok((name, _)) if name == "key"));
    let pairs = pairs.collect::<Result<Vec<_>, Problem>>()?;
    let stage = serving.traces.stage("decode");
    let read = read(serving, route, |decoder, how, assembly| {
        decoder.decode_pairs(pairs.into_iter(), how, assembly)
    })?;
    drop(stage);
    let (access, decoded, ticket) = store(serving, peer, head, access, read).await?;
    serving.acknowledge(ticket, decoded.accepted, None).await?;
    let mut reply = answer::whole(StatusCode::OK, pixel::IMAGE, Bytes::from_static(&pixel::GIF));
    serving.show_quotas(&access, &mut reply);
    Ok(reply)
}

/// Who sends a request that has its key where ours have it, so that nothing is read for a wrong one.
async fn known_sender(
    serving: &ServingLoop,
    peer: IpAddr,
    head: &Parts,
) -> Result<Option<Access>, Problem> {
    if !access::names_key(head) {
        return Ok(None);
    }
    serving.sender(peer, head, None, Instant::now()).await.map(Some)
}

/// A request that has been read and is not stored yet.
struct Read {
    decoded: SdkDecoded,
    assembly: Assembly,
    /// What was known of it before its key was.
    request: EventRequest<'static>,
}

/// Lets `decode` read a request. The events are the caller's until they are stored: finding out
/// whose they are can take a while, and other requests are read meanwhile.
fn read(
    serving: &ServingLoop,
    route: Route,
    decode: impl FnOnce(&mut SdkDecoder, &SdkBody<'_>, &mut Assembly) -> Result<SdkDecoded, DecodeError>,
) -> Result<Read, Problem> {
    let config = &serving.app.config.http;
    let request = EventRequest {
        received_at: now_micros(),
        source: route.sdk.source(),
        tenant: Tenant::Open,
        correct_clock: true,
        sender: None,
    };
    let how = SdkBody {
        sdk: route.sdk,
        kind: route.kind,
        request: &request,
        limits: &config.limits,
        record_max_bytes: 2 * config.body_max_bytes,
    };
    let mut assembly = serving.assembly.take();
    assembly.clear();
    let decoded = decode(&mut serving.sdk_decoder.borrow_mut(), &how, &mut assembly);
    Ok(Read { decoded: decoded.map_err(Problem::Event)?, assembly, request })
}

/// Hands the events of a request to the shard, in the name of its key, which may lie in the body.
async fn store(
    serving: &ServingLoop,
    peer: IpAddr,
    head: &Parts,
    known: Option<Access>,
    read: Read,
) -> Result<(Access, SdkDecoded, Option<Ticket>), Problem> {
    let Read { decoded, assembly, request } = read;
    let access = match known {
        Some(access) => access,
        None => {
            let in_body = decoded.key.as_deref().map(Credential::in_body);
            serving.sender(peer, head, in_body, Instant::now()).await?
        }
    };
    let request = EventRequest {
        tenant: access.tenant(),
        sender: serving.visitor(peer, &head.headers),
        ..request
    };
    let attempt = || serving.commit_assembly(&access, &assembly, &request, &decoded.rejected);
    let ticket = serving.patiently(attempt).await?;
    serving.assembly.replace(assembly);
    Ok((access, decoded, ticket))
}

/// The JSON in PostHog's form: percent-encoded base64 of it or of its gzip, or the JSON itself.
fn form_data(value: &[u8], limit: usize) -> Result<Vec<u8>, Problem> {
    let malformed = |what: &str| Problem::Malformed(format!("the form's `data` is not {what}"));
    let value = value.split(|byte| *byte == b'&').next().unwrap_or_default();
    let text = std::str::from_utf8(value).map_err(|_| malformed("UTF-8"))?;
    if ["{", "[", "%7B", "%5B"].iter().any(|start| text.starts_with(start)) {
        return Ok(pixel::decode(text)?.into_owned().into_bytes());
    }
    // A plus is one of base64's characters where it was not encoded.
    let text = pixel::decode(&text.replace('+', "%2B"))?.into_owned();
    let bytes = decode_base64(text.into_bytes()).ok_or_else(|| malformed("base64"))?;
    match encoding::sniff(Coding::Identity, &bytes) {
        Coding::Identity => Ok(bytes),
        coding => Ok(Room::default().unpack(coding, &bytes, limit)?.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn every_route_of_the_contract_has_its_sdk() {
        let kinds = ["track", "identify", "page", "screen", "group", "alias"];
        for kind in kinds {
            for (prefix, sdk) in
                [("/v1/", Sdk::Segment), ("/api/s/", Sdk::Jitsu), ("/api/s/s2s/", Sdk::Jitsu)]
            {
                let expected = Route { sdk, kind: Some(kind), pixel: false };
                assert_eq!(route(&format!("{prefix}{kind}")), Some(expected));
            }
        }
        for (path, sdk) in [
            ("/v1/batch", Sdk::Segment),
            ("/batch/", Sdk::PostHog),
            ("/e/", Sdk::PostHog),
            ("/capture/", Sdk::PostHog),
            ("/com.snowplowanalytics.snowplow/tp2", Sdk::Snowplow),
            ("/i", Sdk::Snowplow),
            ("/api/event", Sdk::Plausible),
            ("/api/send", Sdk::Umami),
        ] {
            let found = route(path).unwrap();
            assert_eq!((found.sdk, found.kind, found.pixel), (sdk, None, path == "/i"), "{path}");
        }
        for path in ["/", "/v1/query", "/v1/", "/v1/Track", "/api/s/", "/api/s/s2s/x/track"] {
            assert_eq!(route(path), None, "{path}");
        }
    }

    #[test]
    fn a_form_holds_base64_with_and_without_gzip() {
        let gzipped = "H4sIAAAAAAACA6tWSi1LzStRslJKVKoFACQE+NwNAAAA";
        for form in [
            "eyJldmVudCI6ImEifQ%3D%3D",
            "eyJldmVudCI6ImEifQ==&x=1",
            "%7B%22event%22%3A%22a%22%7D",
            gzipped,
            &gzipped.replace('+', "%2B"),
        ] {
            assert_eq!(form_data(form.as_bytes(), 13).unwrap(), br#"{"event":"a"}"#, "{form}");
        }
        assert!(matches!(form_data(gzipped.as_bytes(), 12), Err(Problem::BodyTooLarge { .. })));
        for form in ["%zz", "a*b", "%ff", &gzipped.replace("tW", "tX")] {
            assert!(form_data(form.as_bytes(), 100).is_err(), "{form}");
        }
    }
}
