//! The main promise on real input: the counts of what was posted are what DuckDB counts in the
//! file itself, while hot, as Parquet, and after a restart.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::BTreeMap;

use duckdb::Connection;
use support::{Server, run};

mod support;

const EVENTS: &str = "50000";
/// What curl would send at a time.
const PIECE: usize = 1 << 20;

type Counts = BTreeMap<String, u64>;

/// Counts by tenant, type and day of the event, as DuckDB reads them from the file.
fn counted_by_duckdb(file: &std::path::Path) -> Counts {
    let connection = Connection::open_in_memory().unwrap();
    let sql = format!(
        "SELECT concat_ws('/', tenant, type, \"timestamp\"::TIMESTAMP::DATE), count(*)::UBIGINT
         FROM read_json('{}', format = 'newline_delimited', columns = {{tenant: 'VARCHAR',
              type: 'VARCHAR', \"timestamp\": 'VARCHAR'}})
         GROUP BY 1",
        file.display()
    );
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn counted_by_ringlake(server: &Server) -> Counts {
    let sql = "SELECT concat_ws('/', tenant, type, \"timestamp\"::DATE) AS k, count(*) AS n
               FROM events GROUP BY k";
    let rows = server.query(sql);
    rows.iter()
        .map(|row| (row["k"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap()))
        .collect()
}

/// Pieces of at most [`PIECE`] bytes, cut after newlines.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let end = rest.len().min(PIECE);
        let cut = rest[..end].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        let (piece, left) = rest.split_at(cut);
        pieces.push(piece);
        rest = left;
    }
    pieces
}

#[test]
fn the_counts_are_those_of_the_file_before_and_after_a_roll_and_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = directory.path().join("e.ndjson");
    let generated = run(&["generate", "--events", EVENTS, "--seed", "1"]).stdout;
    std::fs::write(&file, &generated).unwrap();
    let expected = counted_by_duckdb(&file);
    assert_eq!(expected.values().sum::<u64>().to_string(), EVENTS);

    let server = Server::on(&data, &[]);
    for piece in pieces(&generated) {
        let answer = server.post("/v1/events", piece);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(server.post("/v1/admin/flush", "").status, 200);
    assert_eq!(counted_by_ringlake(&server), expected, "hot");
    assert_eq!(server.post("/v1/admin/roll", "").status, 200);
    assert_eq!(counted_by_ringlake(&server), expected, "rolled");
    assert_eq!(server.accounting()["stored"].to_string(), EVENTS);
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");

    let server = Server::on(&data, &[]);
    assert_eq!(counted_by_ringlake(&server), expected, "after a restart");
    server.stop();
    let verified = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(verified.status.success(), "{}", support::text(&verified.stderr));
}
