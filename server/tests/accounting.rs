//! Nothing is dropped silently: what every test of a server checks when it stops, and that the
//! check would notice.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use serde_json::json;
use support::{Books, Server, balanced};

mod support;

/// Books of a server that was sent ten events, of which eight are stored.
fn sound() -> (Books, Books) {
    let accounting = json!({
        "received": 10, "stored": 7, "duplicate": 1, "refused": {"invalid": 2}, "in_flight": 0,
    });
    let after = Books { accounting, numbered: 107, void: 0, aside: 0, gone: 0, rows: Some(57) };
    let before = Books { accounting: json!({}), numbered: 100, rows: Some(50), ..after.clone() };
    (before, after)
}

#[test]
fn one_event_that_is_dropped_anywhere_is_noticed() {
    let (before, after) = sound();
    assert_eq!(balanced(&before, &after), Ok(()));
    let dropped = |change: fn(&mut Books)| {
        let mut books = after.clone();
        change(&mut books);
        balanced(&before, &books).unwrap_err()
    };
    // Between the request and the ring, in the ring, in the shard, and on the way to SQL.
    let problem = dropped(|books| books.accounting["received"] = json!(11));
    assert!(problem.starts_with("received: 11 is not 10"), "{problem}");
    let problem = dropped(|books| books.accounting["in_flight"] = json!(1));
    assert!(problem.starts_with("in flight: 1"), "{problem}");
    let problem = dropped(|books| books.numbered += 1);
    assert!(problem.starts_with("numbered: 8 is not 7"), "{problem}");
    let problem = dropped(|books| books.rows = Some(56));
    assert!(problem.starts_with("rows: 6 is not 7"), "{problem}");
    // What is recorded as gone is no loss.
    let mut books = after.clone();
    (books.numbered, books.void, books.rows, books.aside) = (110, 3, Some(55), 2);
    assert_eq!(balanced(&before, &books), Ok(()));
    (books.rows, books.gone) = (Some(51), 4);
    assert_eq!(balanced(&before, &books), Ok(()));
}

/// The same with a real server: an event that its books do not know is one too many.
#[test]
fn the_books_of_a_server_count_every_event_once() {
    let server = Server::start();
    assert_eq!(server.post("/v1/events", "{\"event\":\"a\"}\n{\"event\":\"b\"}").status, 202);
    assert_eq!(server.post("/v1/events", "{}").status, 400);
    assert_eq!(server.post("/v1/events", "nonsense").status, 400);
    let accounting = server.accounting();
    assert_eq!(
        (accounting["received"].as_u64(), accounting["stored"].as_u64()),
        (Some(4), Some(2))
    );
    server.assert_accounted();
}
