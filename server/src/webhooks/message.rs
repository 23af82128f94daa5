//! What is sent: events as JSON, signed.
//!
//! **Form.** `{"webhook":"…","events":[…]}`, each event as `GET /v1/events` shows it, with the headers of
//! [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks): `webhook-id`,
//! `webhook-timestamp` and `webhook-signature`. The signature is `v1,` and the HMAC-SHA256, in base64,
//! of id, time and body with dots between them; the key is what follows `whsec_` in the secret, decoded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use ringlake_engine::feed::{Part, Position};
use ringlake_engine::query::QueryError;
use ringlake_engine::query::format::{Encoder, Format};
use sha2::{Digest, Sha256};

use crate::http::objects;

/// Events on their way, the same in each attempt.
#[derive(Debug, Clone)]
pub struct Message {
    /// The id: the same for the same events and webhook.
    pub id: String,
    pub events: u64,
    pub body: Bytes,
    /// Where the webhook is once this is delivered.
    pub next: Position,
}

impl Message {
    /// The message with the events of `part` for the webhook `webhook`.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(webhook: &str, part: Part) -> Result<Self, QueryError> {
        let Part { events, next } = part;
        // Nothing in it needs an escape.
        let mut body = format!("{{\"webhook\":\"{webhook}\",\"events\":").into_bytes();
        objects(Encoder::new(Format::Ndjson, &events.schema())?, [&events], &mut body)?;
        body.push(b'}');
        let digest = Sha256::digest(&body);
        let id = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(Self {
            id: format!("msg_{id}"),
            events: events.num_rows() as u64,
            body: body.into(),
            next,
        })
    }

    /// The signature of the message when it is sent at `timestamp`, in seconds since 1970.
    pub fn signature(&self, key: &[u8], timestamp: i64) -> String {
        signature(key, &self.id, timestamp, &self.body)
    }
}

fn signature(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
