//! What SQL says of stored events, a line each, and how that is compared with what was sent.
//!
//! Both tests with published SDKs take this file as a module of theirs.

use serde_json::Value;

use super::support::Server;

/// An event: its columns as [`ROWS`] spells them, and the least that its properties hold, with its
/// context as their member `context`.
pub type Row<'a> = (&'a str, &'a str);

/// Columns that are null are left out. Ids that an SDK has invented are `random`. A time is `told`
/// when it is the one that the scripts tell, and `now` when it is that of the request; neither to
/// the second, because clocks are corrected, and a client may have to try again.
const ROWS: &str = "SELECT concat_ws(' ', source, type, event, 'user=' || user_id, \
    'device=' || CASE WHEN length(anonymous_id) > 30 THEN 'random' ELSE anonymous_id END, \
    'session=' || CASE WHEN length(session_id) > 30 THEN 'random' ELSE session_id END, \
    'url=' || url, 'from=' || referrer, \
    CASE WHEN abs(epoch(timestamp) - epoch(TIMESTAMP '2026-01-02 03:04:05')) < 120 THEN 'told' \
    WHEN abs(epoch(timestamp) - epoch(received_at)) < 120 THEN 'now' \
    ELSE timestamp::VARCHAR END, CASE WHEN message_id IS NOT NULL THEN 'id' END) AS line, \
    message_id, properties, context FROM events ORDER BY line, properties";

/// The lines of all stored events.
pub fn lines(server: &Server) -> Vec<String> {
    server.query(ROWS).iter().map(line).collect()
}

/// Checks that every row of `expected`, which is in order, is stored `times` times and nothing
/// else, and that no two events have the same id.
pub fn check(who: &str, server: &Server, expected: &[Row<'_>], times: usize) {
    let rows = server.query(ROWS);
    let seen: Vec<String> = rows.iter().map(line).collect();
    let repeated = || expected.iter().flat_map(|row| std::iter::repeat_n(row, times));
    let wanted: Vec<&str> = repeated().map(|(line, _)| *line).collect();
    assert_eq!(seen, wanted, "{who}");
    for (row, (line, least)) in rows.iter().zip(repeated()) {
        let json = |column: &str| match row[column].as_str() {
            Some(text) => serde_json::from_str(text).unwrap(),
            None => Value::Object(serde_json::Map::new()),
        };
        let mut properties = json("properties");
        properties["context"] = json("context");
        let least: Value = serde_json::from_str(least).unwrap();
        assert!(holds(&properties, &least), "{who}: {line}: {properties} has not {least}");
    }
    let mut ids: Vec<&str> = rows.iter().filter_map(|row| row["message_id"].as_str()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "{who}: {ids:?}");
}

fn line(row: &Value) -> String {
    row["line"].as_str().unwrap().to_owned()
}

/// Whether `whole` has everything that `least` has, where null stands for any value.
fn holds(whole: &Value, least: &Value) -> bool {
    match (whole, least) {
        (Value::Object(whole), Value::Object(least)) => {
            least.iter().all(|(name, value)| whole.get(name).is_some_and(|own| holds(own, value)))
        }
        (Value::Array(whole), Value::Array(least)) => {
            whole.len() == least.len() && whole.iter().zip(least).all(|(own, one)| holds(own, one))
        }
        _ => least.is_null() || whole == least,
    }
}
