#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::record::pause;
use super::*;

const SECOND: i64 = 1_000_000;

fn wanted(tenant: Option<&str>) -> Wanted {
    let tenant = tenant.map(str::to_owned);
    Wanted { tenant, url: "https://example.com/hook".into(), ..Wanted::default() }
}

fn attempt(outcome: Outcome, at: i64) -> Delivery {
    let message = "m".into();
    Delivery { message, at, took_ms: 5, events: 3, outcome, status: Some(500), error: None }
}

fn at(sequence: i64) -> Position {
    serde_json::from_value(serde_json::json!({ "0": sequence })).unwrap()
}

#[test]
fn a_webhook_survives_in_a_file_that_only_its_owner_reads() {
    let data = tempfile::tempdir().unwrap();
    let webhooks = Webhooks::open(data.path()).unwrap();
    let created = webhooks.create(wanted(Some("acme")), at(7)).unwrap();
    assert!(created.secret.key().unwrap().len() >= 24);
    assert!(!format!("{created:?}").contains(created.secret.reveal()));
    let path = data.path().join("webhooks").join(format!("{}.json", created.id));
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    webhooks.attempted(&created.id, attempt(Outcome::Delivered, 0), &at(9), None).unwrap();

    std::fs::write(data.path().join("webhooks/other.json"), "{").unwrap();
    let again = Webhooks::open(data.path()).unwrap();
    let read = again.list(None);
    assert_eq!(read, webhooks.list(None));
    assert_eq!((read.len(), read[0].delivered_events), (1, 3));
    assert_eq!(read[0].position, at(9));
    assert!(data.path().join("webhooks/other.json").exists(), "what is damaged stays");

    again.remove(None, &created.id).unwrap();
    // One that is being delivered meanwhile does not bring it back.
    assert!(again.attempted(&created.id, attempt(Outcome::Failed, 0), &at(9), None).is_none());
    assert!(!path.exists());
}

#[test]
fn a_tenant_has_its_own_webhooks_and_no_more_than_its_share() {
    let data = tempfile::tempdir().unwrap();
    let webhooks = Webhooks::open(data.path()).unwrap();
    let mine = webhooks.create(wanted(Some("a")), at(0)).unwrap();
    let of_all = webhooks.create(wanted(None), at(0)).unwrap();
    assert_eq!(webhooks.list(Some("a")).len(), 1);
    assert_eq!(webhooks.list(None).len(), 2);
    for (tenant, id) in [("b", &mine.id), ("a", &of_all.id)] {
        let unknown = |error| matches!(error, WebhookError::Unknown);
        assert!(unknown(webhooks.find(Some(tenant), id).unwrap_err()));
        assert!(unknown(webhooks.remove(Some(tenant), id).unwrap_err()));
        assert!(unknown(webhooks.resume(Some(tenant), id).unwrap_err()));
    }
    for _ in 1..OF_TENANT_MAX {
        webhooks.create(wanted(Some("a")), at(0)).unwrap();
    }
    let full = webhooks.create(wanted(Some("a")), at(0)).unwrap_err().to_string();
    assert!(full.contains("16 webhooks already of this tenant"), "{full}");
    webhooks.create(wanted(Some("b")), at(0)).unwrap();
    while webhooks.list(None).len() < WEBHOOKS_MAX {
        webhooks.create(wanted(None), at(0)).unwrap();
    }
    let full = webhooks.create(wanted(Some("b")), at(0)).unwrap_err().to_string();
    assert!(full.contains("64 webhooks already, which"), "{full}");
}

#[test]
fn what_is_too_long_names_the_field() {
    let data = tempfile::tempdir().unwrap();
    let webhooks = Webhooks::open(data.path()).unwrap();
    let long = || "x".repeat(3_000);
    for (field, wrong) in [
        ("url", Wanted { url: long(), ..wanted(None) }),
        ("types", Wanted { types: vec![long()], ..wanted(None) }),
        ("events", Wanted { events: vec![String::new()], ..wanted(None) }),
        ("events", Wanted { events: vec!["e".into(); 33], ..wanted(None) }),
    ] {
        let error = webhooks.create(wrong, at(0)).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert!(!data.path().join("webhooks").exists());
}

#[test]
fn pauses_grow_until_the_circuit_opens_and_then_to_their_limit() {
    let secs = |failures| pause(failures, 200).as_secs();
    let grown: Vec<u64> = (1..=10).map(secs).collect();
    assert_eq!(grown, [1, 2, 4, 8, 60, 120, 240, 480, 900, 900]);
    assert_eq!(pause(u32::MAX, 200), PAUSE_MAX);
    assert_eq!(pause(1, 0), Duration::from_millis(800));
    assert_eq!(pause(1, 400), Duration::from_millis(1_200));
}

fn new() -> Webhook {
    Webhook::new(wanted(None), Secret::random().unwrap(), at(1), 0)
}

#[test]
fn a_message_stays_in_turn_until_it_is_delivered() {
    let mut webhook = new();
    for failures in 1..=6 {
        webhook.attempted(attempt(Outcome::Failed, 0), &at(4), None, 200);
        let state =
            if failures < CIRCUIT_FAILURES { WebhookState::Retrying } else { WebhookState::Broken };
        assert_eq!((webhook.failures, webhook.state()), (failures, state));
        assert_eq!(webhook.position, at(1));
        assert_eq!(webhook.next_attempt_at, 200 + micros(pause(failures, 200)));
    }
    webhook.attempted(attempt(Outcome::Delivered, 0), &at(4), None, 200);
    assert_eq!((webhook.state(), webhook.position.clone()), (WebhookState::Active, at(4)));
    assert_eq!((webhook.failing_since, webhook.delivered_events), (None, 3));
}

#[test]
fn a_receiver_may_ask_for_a_longer_pause_within_limits() {
    let mut webhook = new();
    let mut pause_when_asked = |asked| {
        webhook.resume();
        webhook.attempted(attempt(Outcome::Failed, 0), &at(4), Some(asked), 200);
        Duration::from_micros(u64::try_from(webhook.next_attempt_at - 200).unwrap())
    };
    assert_eq!(pause_when_asked(Duration::from_secs(30)), Duration::from_secs(30));
    assert_eq!(pause_when_asked(Duration::ZERO), Duration::from_secs(1));
    assert_eq!(pause_when_asked(Duration::from_hours(48)), ASKED_PAUSE_MAX);
}

#[test]
fn a_message_that_never_goes_through_is_given_up_after_a_day_and_the_next_has_its_own() {
    let mut webhook = new();
    let day = micros(GIVE_UP_AFTER);
    for _ in 0..GIVE_UP_FAILURES {
        webhook.attempted(attempt(Outcome::Failed, SECOND), &at(4), None, SECOND);
    }
    webhook.attempted(attempt(Outcome::Failed, day), &at(4), None, day);
    assert_eq!(webhook.position, at(1), "a second is left");
    webhook.attempted(attempt(Outcome::Failed, day), &at(4), None, day + SECOND);
    assert_eq!((webhook.position.clone(), webhook.given_up_events), (at(4), 3));
    assert_eq!(webhook.deliveries.back().unwrap().outcome, Outcome::GivenUp);
    assert!(webhook.next_attempt_at > day, "its receiver is no better for it");
    webhook.attempted(attempt(Outcome::Failed, 2 * day), &at(9), None, 2 * day);
    assert_eq!((webhook.position.clone(), webhook.failing_since), (at(4), Some(2 * day)));
}

#[test]
fn a_day_in_which_nothing_was_tried_gives_up_nothing() {
    let day = micros(GIVE_UP_AFTER);
    // The server was down.
    let mut webhook = new();
    webhook.attempted(attempt(Outcome::Failed, 0), &at(4), None, 0);
    webhook.attempted(attempt(Outcome::Failed, 2 * day), &at(4), None, 2 * day);
    assert_eq!((webhook.given_up_events, webhook.position.clone()), (0, at(1)));
    // Somebody has repaired the receiver, but not well enough.
    for _ in 0..=GIVE_UP_FAILURES {
        webhook.attempted(attempt(Outcome::Failed, day / 2), &at(4), None, day / 2);
    }
    webhook.resume();
    for _ in 0..=GIVE_UP_FAILURES {
        webhook.attempted(attempt(Outcome::Failed, 2 * day), &at(4), None, 2 * day);
    }
    assert_eq!((webhook.given_up_events, webhook.position), (0, at(1)));
}

#[test]
fn one_that_is_ahead_of_the_numbers_is_put_back() {
    let data = tempfile::tempdir().unwrap();
    let webhooks = Webhooks::open(data.path()).unwrap();
    let two = |first, second| serde_json::from_value(serde_json::json!({"0": first, "1": second}));
    let (ahead, end): (Position, Position) = (two(10, 3).unwrap(), two(4, 8).unwrap());
    let id = webhooks.create(wanted(None), ahead).unwrap().id;
    webhooks.put_back(&end);
    assert_eq!(webhooks.find(None, &id).unwrap().position, two(4, 3).unwrap());
}

#[test]
fn a_webhook_whose_file_is_gone_can_be_removed_once() {
    let data = tempfile::tempdir().unwrap();
    let webhooks = Webhooks::open(data.path()).unwrap();
    let id = webhooks.create(wanted(None), at(0)).unwrap().id;
    let directory = data.path().join("webhooks");
    std::fs::remove_file(directory.join(format!("{id}.json"))).unwrap();
    webhooks.remove(None, &id).unwrap();
    assert!(matches!(webhooks.remove(None, &id), Err(WebhookError::Unknown)));
    // What a crash has left behind has a secret in it.
    std::fs::write(directory.join(format!("{id}.json.new")), "{}").unwrap();
    assert!(Webhooks::open(data.path()).unwrap().list(None).is_empty());
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn a_receiver_that_is_gone_is_left_alone_until_somebody_says_otherwise() {
    let mut webhook = new();
    webhook.attempted(attempt(Outcome::Gone, 0), &at(4), None, 200);
    assert_eq!((webhook.state(), webhook.position.clone()), (WebhookState::Gone, at(1)));
    webhook.resume();
    assert_eq!((webhook.state(), webhook.next_attempt_at), (WebhookState::Active, 0));
}

#[test]
fn only_the_last_attempts_are_remembered() {
    let mut webhook = new();
    for number in 0..i64::try_from(DELIVERIES_KEPT).unwrap() + 5 {
        webhook.attempted(attempt(Outcome::Delivered, number), &at(4), None, number);
    }
    assert_eq!(webhook.deliveries.len(), DELIVERIES_KEPT);
    assert_eq!(webhook.deliveries.front().unwrap().at, 5);
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap()
}
