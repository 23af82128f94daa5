//! Generated events that can be sent any number of times: they carry no message ids, because the
//! second time one came it would be a duplicate, which is answered but not stored.

use anyhow::{Context, Result};
use ringlake_event::generate::Generator;

/// What a generated event begins with.
const MESSAGE_ID: &str = "{\"message_id\":\"";
/// What follows that.
const TENANT: &str = "{\"tenant\":\"";

/// `count` events of `seed`, each a line with its newline.
pub fn without_ids(count: usize, seed: u64) -> Result<Vec<String>> {
    let mut generator = Generator::new(seed);
    let mut line = Vec::new();
    let mut events = Vec::with_capacity(count);
    for _ in 0..count {
        line.clear();
        generator.write_event(&mut line);
        let rest = std::str::from_utf8(&line)?.strip_prefix(MESSAGE_ID);
        let rest = rest.and_then(|rest| rest.split_once("\","));
        let (_, rest) = rest.context("a generated event begins with its message id")?;
        events.push(format!("{{{rest}"));
    }
    Ok(events)
}

/// The same without tenants, as pages send them: a key says whose they are.
pub fn without_tenants(count: usize, seed: u64) -> Result<Vec<String>> {
    let bare = |event: String| {
        let rest = event.strip_prefix(TENANT).and_then(|rest| rest.split_once("\","));
        let (_, rest) = rest.context("a generated event begins with its tenant")?;
        Ok(format!("{{{rest}"))
    };
    without_ids(count, seed)?.into_iter().map(bare).collect()
}

/// The same as request bodies of `each` events.
pub fn batches(events: &[String], each: usize) -> Vec<String> {
    events.chunks(each).map(<[String]>::concat).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn events_have_everything_but_a_message_id() {
        let events = without_ids(1_000, 1).unwrap();
        assert_eq!(events.len(), 1_000);
        for line in &events {
            assert!(line.ends_with("}\n"), "{line}");
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(event["tenant"].is_string() && event["message_id"].is_null(), "{line}");
        }
        assert_eq!(batches(&events, 100).concat(), events.concat());
        for line in without_tenants(1_000, 1).unwrap() {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(event["tenant"].is_null() && event["type"].is_string(), "{line}");
        }
    }
}
