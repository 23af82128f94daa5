//! The feed: whoever goes on where the last step ended gets every event once, whatever happens
//! meanwhile.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use arrow::array::AsArray;
use ringlake_engine::Engine;
use ringlake_engine::feed::{
    Feed, FeedError, FeedRequest, PART_BYTES, PART_EVENTS, Part, Position, STEP_BYTES,
};
use ringlake_engine::query::QueryRequest;
use support::{MOMENT, assert_sound, config, open, send, send_body, stop};

mod support;

/// Whose events, as their user ids say; and the position behind them.
fn all(engine: &Engine, request: &FeedRequest, from: &Position) -> (Vec<usize>, Position) {
    let end = engine.visible_end().unwrap();
    let (mut feed, mut position) = (Feed::new(vec![request.clone()]), from.clone());
    let mut users = Vec::new();
    while let Some(step) = feed.step(engine, &position, &end).unwrap() {
        let parts = step.parts(request).unwrap();
        for part in &parts {
            users.extend(users_of(part));
            assert!((1..=PART_EVENTS).contains(&part.events.num_rows()));
        }
        assert!(parts.last().is_none_or(|last| last.next == step.next));
        assert_eq!(users_in(&parts), step.events());
        position = step.next;
    }
    assert_eq!(position, end);
    (users, position)
}

fn users_of(part: &Part) -> Vec<usize> {
    let column = part.events.column_by_name("user_id").unwrap().as_string::<i32>();
    column.iter().map(|user| user.unwrap().parse().unwrap()).collect()
}

fn users_in(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.events.num_rows()).sum()
}

fn sorted(mut users: Vec<usize>) -> Vec<usize> {
    users.sort_unstable();
    users
}

#[test]
fn every_event_comes_once_from_memory_and_from_files_and_after_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    let every = FeedRequest::default();
    let mut position = engine.end_of_feed().unwrap();
    let mut sent = 0;
    for round in 0..4 {
        send(&mut ingests[round % 2], sent, 3_000);
        sent += 3_000;
        if round == 2 {
            engine.roll().unwrap();
        }
    }
    let (users, behind) = all(&engine, &every, &position);
    assert_eq!(sorted(users), (0..sent).collect::<Vec<_>>());
    assert_eq!(behind, engine.end_of_feed().unwrap());
    // Where it was, everything is there once more; behind it nothing is.
    assert_eq!(all(&engine, &every, &position).0.len(), sent);
    assert!(all(&engine, &every, &behind).0.is_empty());
    position = behind;
    send(&mut ingests[0], sent, 10);
    stop(&engine, ingests);

    let mut fewer = config(scratch.path());
    fewer.shards = std::num::NonZeroUsize::MIN;
    let (engine, mut ingests) = open(fewer);
    send(&mut ingests[0], sent + 10, 10);
    engine.compact().unwrap();
    let text = serde_json::to_string(&position).unwrap();
    let (users, _) = all(&engine, &every, &serde_json::from_str(&text).unwrap());
    assert_eq!(sorted(users), (sent..sent + 20).collect::<Vec<_>>());
    let (users, _) = all(&engine, &every, &Position::default());
    assert_eq!(sorted(users), (0..sent + 20).collect::<Vec<_>>());
    stop(&engine, ingests);
    assert_sound(scratch.path(), 12_020);
}

#[test]
fn only_events_that_are_wanted_come_in_the_order_of_their_numbers() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send(&mut ingests[0], 0, 4_000);
    engine.roll().unwrap();
    send(&mut ingests[0], 4_000, 4_000);
    let from = Position::default();
    let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let of = |request| all(&engine, &request, &from).0;
    let with = |wanted: &dyn Fn(usize) -> bool| (0..8_000).filter(|n| wanted(*n)).collect();

    let tenant = Some("t1".to_owned());
    let one: Vec<usize> = with(&|n| n % 3 == 1);
    assert_eq!(of(FeedRequest { tenant: tenant.clone(), ..FeedRequest::default() }), one);
    let events = texts(&["e2", "e5"]);
    let some: Vec<usize> = with(&|n| n % 3 == 1 && (n % 7 == 2 || n % 7 == 5));
    let types = texts(&["page", "track"]);
    assert_eq!(of(FeedRequest { tenant, events, types }), some);
    let types = texts(&["page"]);
    assert!(of(FeedRequest { types, ..FeedRequest::default() }).is_empty());
    let events = texts(&["e'; --"]);
    assert!(of(FeedRequest { events, ..FeedRequest::default() }).is_empty());
    stop(&engine, ingests);
}

#[test]
fn a_step_for_many_gives_each_what_it_wants_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    send(&mut ingests[0], 0, 3_000);
    engine.roll().unwrap();
    send(&mut ingests[0], 3_000, 3_000);
    let of = |tenant: &str, events: &[&str]| FeedRequest {
        tenant: Some(tenant.into()),
        events: events.iter().map(|&event| event.to_owned()).collect(),
        ..FeedRequest::default()
    };
    let requests = [of("t0", &["e1", "e2"]), of("t1", &[]), of("t2", &["e5"]), of("t9", &["e1"])];
    let (start, end) = (Position::default(), engine.visible_end().unwrap());
    let mut feed = Feed::new(requests.to_vec());
    let (mut at, mut read) = (start.clone(), 0);
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); requests.len()];
    while let Some(step) = feed.step(&engine, &at, &end).unwrap() {
        for (request, users) in requests.iter().zip(&mut users) {
            users.extend(step.parts(request).unwrap().iter().flat_map(users_of));
        }
        read += step.events();
        at = step.next;
    }
    for (request, users) in requests.iter().zip(&users) {
        assert_eq!(*users, all(&engine, request, &start).0);
    }
    let wanted: usize = users.iter().map(Vec::len).sum();
    assert_eq!(read, wanted, "nobody else's were read");
    stop(&engine, ingests);
}

/// The rows of a step are sorted whole, and these do not fit.
#[test]
fn events_that_take_more_memory_than_there_is_come_in_smaller_steps() {
    let scratch = tempfile::tempdir().unwrap();
    let mut small = config(scratch.path());
    small.duckdb.memory_limit = "64MB".into();
    let (engine, mut ingests) = open(small);
    let pad = "x".repeat(100_000);
    for user in 0..1_200 {
        let event = format!(r#"{{"event":"big","user_id":"{user}","url":"{pad}"}}"#);
        send_body(&mut ingests[0], MOMENT, &event, 1);
    }
    engine.roll().unwrap();
    let sql = "SELECT * FROM events ORDER BY sequence LIMIT 1200";
    let whole = engine.query(QueryRequest::new(sql)).and_then(|mut rows| rows.blocking_ready());
    assert!(whole.is_err(), "all of them are too much");
    let (users, _) = all(&engine, &FeedRequest::default(), &Position::default());
    assert_eq!(users, (0..1_200).collect::<Vec<_>>());
    stop(&engine, ingests);
}

#[test]
fn a_step_and_its_parts_end_at_their_bytes_and_leave_nothing_out() {
    let scratch = tempfile::tempdir().unwrap();
    let (engine, mut ingests) = open(config(scratch.path()));
    let pad = "x".repeat(100_000);
    for user in 0..60 {
        let event = format!(r#"{{"event":"big","user_id":"{user}","url":"{pad}"}}"#);
        send_body(&mut ingests[0], MOMENT, &event, 1);
    }
    let (every, start) = (FeedRequest::default(), Position::default());
    let mut feed = Feed::new(vec![every.clone()]);
    let end = engine.visible_end().unwrap();
    let step = feed.step(&engine, &start, &end).unwrap().unwrap();
    let parts = step.parts(&every).unwrap();
    let rows: Vec<usize> = parts.iter().map(|part| part.events.num_rows()).collect();
    assert!(!step.is_whole && rows.iter().sum::<usize>() == STEP_BYTES / 100_100, "{rows:?}");
    assert_eq!(rows[0], PART_BYTES / 100_100);
    let (users, _) = all(&engine, &every, &start);
    assert_eq!(users, (0..60).collect::<Vec<_>>());
    // Whoever has had only a part of it goes on behind that.
    let (users, _) = all(&engine, &every, &parts[1].next);
    assert_eq!(users, (rows[0] + rows[1]..60).collect::<Vec<_>>());
    stop(&engine, ingests);
    let error = engine.visible_end().unwrap_err();
    assert!(matches!(error, FeedError::Hidden(_)), "{error}");
}
