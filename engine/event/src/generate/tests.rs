//! Behaviour of the generator, and the checksum that pins its bytes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::*;

fn bytes(seed: u64, events: usize) -> Vec<u8> {
    let mut generator = Generator::new(seed);
    let mut out = Vec::new();
    for _ in 0..events {
        generator.write_event(&mut out);
    }
    out
}

fn events(seed: u64, count: usize) -> Vec<Value> {
    let bytes = bytes(seed, count);
    let text = std::str::from_utf8(&bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Saved runs and reported figures name a seed: if this fails, they no longer say what was sent.
#[test]
fn the_first_thousand_lines_of_seed_1_never_change() {
    let bytes = bytes(1, 1_000);
    assert_eq!((bytes.len(), checksum(&bytes)), (421_243, 11_381_641_827_951_004_820));
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    assert_eq!(bytes(7, 2_000), bytes(7, 2_000));
    assert_ne!(bytes(7, 100), bytes(8, 100));
}

#[test]
fn every_line_is_one_json_object_with_known_fields_only() {
    let known = BTreeSet::from([
        "message_id",
        "tenant",
        "type",
        "event",
        "timestamp",
        "user_id",
        "anonymous_id",
        "session_id",
        "url",
        "referrer",
        "user_agent",
        "properties",
        "context",
    ]);
    let mut seen = BTreeSet::new();
    for event in events(3, 20_000) {
        for name in event.as_object().unwrap().keys() {
            assert!(known.contains(name.as_str()), "unknown field {name}");
            seen.insert(name.clone());
        }
        assert!(event["type"].is_string());
        assert!(event["tenant"].is_string());
    }
    assert_eq!(seen.len(), known.len());
}

#[test]
fn no_line_names_a_key_twice_or_is_longer_than_the_bound() {
    let bytes = bytes(4, 20_000);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() <= LINE_MAX, "{} bytes", line.len());
        let parsed: Value = serde_json::from_slice(line).unwrap();
        let keys = parsed.as_object().unwrap().keys();
        for key in keys {
            let quoted = format!("\"{key}\":");
            let text = std::str::from_utf8(line).unwrap();
            assert_eq!(text.matches(&quoted).count(), 1, "{text}");
        }
    }
}

#[test]
fn message_ids_are_unique_and_shaped_like_version_4_uuids() {
    let mut ids = HashSet::new();
    for event in events(1, 100_000) {
        let id = event["message_id"].as_str().unwrap().to_owned();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
        assert!(ids.insert(id), "a message id came twice");
    }
}

#[test]
fn a_line_is_about_420_bytes_on_average() {
    let average = bytes(1, 50_000).len() / 50_000;
    assert!((400..=440).contains(&average), "{average} bytes");
}

#[test]
fn every_tenant_and_every_type_appears_with_its_weight() {
    let mut tenants: BTreeMap<String, u32> = BTreeMap::new();
    let mut types: BTreeMap<String, u32> = BTreeMap::new();
    for event in events(1, 50_000) {
        *tenants.entry(event["tenant"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        *types.entry(event["type"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    for tenant in &TENANTS {
        let percent = tenants[tenant.name] / 500;
        assert!(percent.abs_diff(tenant.percent) <= 3, "{}: {percent} %", tenant.name);
    }
    let names: Vec<&str> = types.keys().map(String::as_str).collect();
    assert_eq!(names, ["alias", "group", "identify", "log", "page", "screen", "track"]);
    assert!(types["page"] > types["identify"]);
}

#[test]
fn sessions_hold_several_events_of_one_visitor() {
    let mut sessions: BTreeMap<String, (BTreeSet<String>, u32)> = BTreeMap::new();
    let mut known = 0;
    for event in events(1, 50_000) {
        let Some(session) = event["session_id"].as_str() else {
            continue;
        };
        let visitor = event["anonymous_id"].as_str().unwrap().to_owned();
        let entry = sessions.entry(session.to_owned()).or_default();
        entry.0.insert(visitor);
        entry.1 += 1;
        known += u32::from(event["user_id"].is_string());
    }
    assert!(sessions.values().all(|(visitors, _)| visitors.len() == 1));
    assert!(sessions.values().filter(|(_, count)| *count >= 3).count() > 1_000);
    assert!(known > 5_000);
}

#[test]
fn clocks_run_over_days_with_some_late_and_some_ahead() {
    let mut latest = String::new();
    let mut behind = 0;
    let mut days = BTreeSet::new();
    for event in events(1, 100_000) {
        let timestamp = event["timestamp"].as_str().unwrap().to_owned();
        assert_eq!(timestamp.len(), 24);
        assert!(timestamp.ends_with('Z'));
        days.insert(timestamp[..10].to_owned());
        behind += u32::from(timestamp < latest);
        latest = latest.max(timestamp);
    }
    assert!(days.len() >= 5, "{days:?}");
    assert!(behind > 1_000);
}

#[test]
fn text_comes_in_several_scripts_and_with_escapes() {
    let bytes = bytes(1, 20_000);
    let text = std::str::from_utf8(&bytes).unwrap();
    for sample in
        ["ü", "東京", "Пермь", "القاهرة", "🎉", "\\u00fc", "\\ud83c\\udf81", "\\\"", "\\n"]
    {
        assert!(text.contains(sample), "{sample} never appears");
    }
}
