//! Events that say where they belong: ids, message ids, bodies.
//!
//! **Guarantees.** An event's id is unique within an episode and stands in its properties. Its
//! message id is unique within its tenant only: each belongs to two events of different tenants,
//! which are not the same event.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use super::plan::Request;

/// What the filling is made of.
const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

/// A request of a client, whether it was sent once or several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    /// Its round.
    pub round: u32,
    /// Its client.
    pub client: u32,
    /// Its place in the client's order.
    pub number: u32,
}

/// An event of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// The request.
    pub request: RequestId,
    /// Its place in it.
    pub index: u32,
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.round, self.client, self.number)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.request, self.index)
    }
}

impl FromStr for EventId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<EventId> {
        let parts: Vec<u32> = text
            .split('.')
            .map(|part| part.parse().map_err(|_| anyhow::anyhow!("{text:?} is no id of ours")))
            .collect::<anyhow::Result<_>>()?;
        let [round, client, number, index] = parts[..] else {
            anyhow::bail!("{text:?} is no id of ours");
        };
        Ok(EventId { request: RequestId { round, client, number }, index })
    }
}

/// The value of `session_id` that all events of a round have.
pub fn session(round: u32) -> String {
    format!("round-{round}")
}

/// The body of a request; the event at index `spoiled` is not valid.
pub fn body(id: RequestId, request: &Request, spoiled: Option<u32>) -> Vec<u8> {
    let (open, between, close) = match request.events {
        1 => ("", "", ""),
        _ if request.array => ("[", ",", "]"),
        _ => ("", "\n", ""),
    };
    let mut text = String::from(open);
    for index in 0..request.events {
        if index > 0 {
            text.push_str(between);
        }
        let event = EventId { request: id, index };
        write_event(&mut text, event, request, spoiled == Some(index));
    }
    text.push_str(close);
    text.into_bytes()
}

fn write_event(text: &mut String, id: EventId, request: &Request, spoiled: bool) {
    let RequestId { round, client, number } = id.request;
    let first = match (spoiled, number % 4) {
        (false, _) => r#""event":"crash""#,
        (true, 0) => r#""event":7"#,
        (true, 1) => r#""user_id":"neither type nor event""#,
        (true, 2) => r#""event":"crash","timestamp":"yesterday""#,
        (true, _) => r#""event":"crash" and this is no JSON"#,
    };
    let tenant = if client.is_multiple_of(2) { "even" } else { "odd" };
    let session = session(round);
    // Writing to a string cannot fail.
    let _ = write!(text, r#"{{{first},"tenant":"{tenant}","session_id":"{session}""#);
    if request.keyed {
        let shared = client / 2;
        let _ = write!(text, r#","message_id":"{round}/{shared}/{number}/{}""#, id.index);
    }
    let _ = write!(text, r#","properties":{{"id":"{id}","padding":""#);
    pad(text, id, request.padding);
    text.push_str(r#""}}"#);
}

/// Letters that no compression makes much shorter, so that segments of the log fill up.
fn pad(text: &mut String, id: EventId, letters: u32) {
    let RequestId { round, client, number } = id.request;
    let words = [round, client, number, id.index].map(u64::from);
    // A linear congruential generator: only its upper bits are used.
    let step = |state: u64| state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let mut state = words.iter().fold(1, |state, word| step(state ^ word));
    for _ in 0..letters {
        state = step(state);
        text.push(char::from(LETTERS[(state >> 58) as usize]));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use serde_json::Value;

    use super::super::plan::{Resend, Trick};
    use super::*;

    const REQUEST: Request = Request {
        events: 3,
        padding: 5,
        array: true,
        gzip: false,
        memory: false,
        keyed: true,
        trick: Trick::None,
        resend: Resend::Never,
    };

    fn parsed(client: u32) -> Vec<Value> {
        let body = body(RequestId { round: 4, client, number: 9 }, &REQUEST, None);
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn every_event_has_an_id_that_can_be_read_back() {
        for (index, event) in (0..).zip(parsed(2)) {
            let id: EventId = event["properties"]["id"].as_str().unwrap().parse().unwrap();
            let request = RequestId { round: 4, client: 2, number: 9 };
            assert_eq!(id, EventId { request, index });
            assert_eq!(event["session_id"], session(4));
            assert_eq!(event["properties"]["padding"].as_str().unwrap().len(), 5);
        }
        assert!("4.2.9".parse::<EventId>().is_err());
        assert!("4.2.9.1.1".parse::<EventId>().is_err());
        assert!("4.2.9.x".parse::<EventId>().is_err());
    }

    #[test]
    fn two_tenants_use_the_same_message_ids() {
        let (even, odd) = (parsed(2), parsed(3));
        assert_ne!(even[1]["tenant"], odd[1]["tenant"]);
        assert_eq!(even[1]["message_id"], odd[1]["message_id"]);
        assert_ne!(even[1]["message_id"], even[2]["message_id"]);
        assert_ne!(even[1]["message_id"], parsed(4)[1]["message_id"]);
    }

    #[test]
    fn lines_are_joined_by_newlines_and_one_event_stands_alone() {
        let id = RequestId { round: 1, client: 0, number: 0 };
        let lines = body(id, &Request { array: false, ..REQUEST }, None);
        assert_eq!(lines.split(|byte| *byte == b'\n').count(), 3);
        let one = body(id, &Request { events: 1, ..REQUEST }, None);
        assert!(serde_json::from_slice::<Value>(&one).unwrap().is_object());
    }
}
