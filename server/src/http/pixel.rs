//! `GET /v1/pixel.gif`: one event in a query string, for pages without scripts.
//!
//! Parameters that are fields of an event become them, the request's own options are taken out, and
//! the others become properties.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use ringlake_event::{Mode, Request as EventRequest, Source, encode_pairs, pairs_bound};

use super::answer::{self, Problem, Reply};
use super::cors;
use super::ingest::{Options, Refused, now_micros};
use super::serving_loop::ServingLoop;

/// The path.
pub const PATH: &str = "/v1/pixel.gif";
const METHODS: &str = "GET, HEAD, OPTIONS";
/// The content type of [`GIF`].
pub const IMAGE: HeaderValue = HeaderValue::from_static("image/gif");
/// Browsers must ask every time.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// One transparent point: header, a palette of two colours, "the first is transparent", the image.
pub const GIF: [u8; 43] = *b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\
    \x21\xf9\x04\x01\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// Answers a request for [`PATH`].
pub async fn answer(serving: &ServingLoop, peer: IpAddr, request: Request<Incoming>) -> Reply {
    // A body makes no sense here; hyper discards a small one and closes after a large one.
    let (head, _) = request.into_parts();
    let allows = |origin: &[u8]| serving.app.answers_origin(origin);
    let mut reply = match head.method {
        Method::GET | Method::HEAD => pixel(serving, peer, &head).await,
        Method::OPTIONS => cors::preflight(&head.headers, METHODS, allows),
        _ => Problem::Method(METHODS).reply(),
    };
    cors::permit(&head.headers, allows, &mut reply);
    reply
}

async fn pixel(serving: &ServingLoop, peer: IpAddr, head: &Parts) -> Reply {
    let began = Instant::now();
    let outcome = receive(serving, peer, head, began).await;
    let mut reply = outcome.unwrap_or_else(|refused| serving.refuse(refused));
    // Browsers must ask every time, after a refusal too.
    reply.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    serving.observe(began);
    reply
}

async fn receive(
    serving: &ServingLoop,
    peer: IpAddr,
    head: &Parts,
    began: Instant,
) -> Result<Reply, Refused> {
    serving.check_open()?;
    let access = serving.sender(peer, head, None, began).await?;
    let query = head.uri.query().unwrap_or_default();
    let mut options = Options::default();
    let mut pairs = Vec::new();
    for pair in parameters(query) {
        let (name, value) = pair?;
        if !options.set(&name, &value)? {
            pairs.push((name, value));
        }
    }
    let request = EventRequest {
        received_at: now_micros(),
        source: Source::Pixel,
        tenant: access.tenant(),
        correct_clock: true,
        sender: serving.visitor(peer, &head.headers),
    };
    let limits = &serving.app.config.http.limits;
    let attempt = || {
        let _stage = serving.traces.stage("decode");
        serving.commit(&access, pairs_bound(query.len()), Mode::Whole, |decoder, out| {
            encode_pairs(decoder, pairs.iter().cloned(), &request, limits, out)
        })
    };
    let (decoded, ticket) = serving.patiently(attempt).await?;
    serving.acknowledge(ticket, decoded.accepted, options.ack).await?;
    let mut reply = if options.quiet {
        answer::empty(StatusCode::NO_CONTENT)
    } else {
        answer::whole(StatusCode::OK, IMAGE, Bytes::from_static(&GIF))
    };
    serving.show_quotas(&access, &mut reply);
    Ok(reply)
}

/// The parameters of a query string, decoded strictly: a lenient decoder would store what the
/// client did not send.
///
/// # Errors
/// [`Problem::Malformed`] for a parameter that cannot be decoded.
pub fn parameters(
    query: &str,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Problem>> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        Ok((decode(name)?, decode(value)?))
    })
}

/// The text that a percent-encoded one stands for.
///
/// # Errors
/// [`Problem::Malformed`] when it stands for none.
pub fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|digit| {
                    digit
                        .and_then(|digit| char::from(digit).to_digit(16))
                        .and_then(|value| u8::try_from(value).ok())
                });
                let [Some(high), Some(low)] = digits else {
                    return Err(malformed("a % that is not followed by two hexadecimal digits"));
                };
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| malformed("percent-encoded bytes that are not UTF-8"))
}

fn malformed(what: &str) -> Problem {
    Problem::Malformed(format!("the query string holds {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        let decoded: Result<Vec<_>, _> = parameters(query).collect();
        let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into(), value.into());
        decoded.unwrap().into_iter().map(owned).collect()
    }

    #[test]
    fn parameters_are_decoded() {
        let expected = [("type", "page view"), ("u", "a=b&c"), ("é", ""), ("flag", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs("type=page+view&u=a%3Db%26c&%C3%A9=&flag"), expected);
        assert_eq!(pairs("&&"), []);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "%ff=1", "a=%ed%a0%80", "a=%+1"] {
            assert!(parameters(query).any(|pair| pair.is_err()), "{query}");
        }
    }
}
