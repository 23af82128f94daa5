//! What may be asked and what may not.

use super::Fixture;
use crate::query::{QueryError, sandbox};

/// The statements of a list in `statements/`: one a line, `⏎` for the end of a line.
pub(super) fn list(name: &str) -> Vec<String> {
    // Cargo runs tests in the folder of their package.
    let text = std::fs::read_to_string(format!("src/query/tests/statements/{name}")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(|line| line.replace('⏎', "\n")).collect()
}

#[test]
fn everything_but_one_select_over_events_is_forbidden() {
    let connection = Fixture::new().database.connect().unwrap();
    let statements = list("refused.sql");
    assert!(statements.len() >= 340, "{}", statements.len());
    let refused = |sql: &&String| match sandbox::check(&connection, sql) {
        Err(QueryError::Forbidden { message }) => {
            assert!(!message.is_empty() && !message.contains('\n'), "{sql}: {message}");
            true
        }
        _ => false,
    };
    let passed: Vec<&String> = statements.iter().filter(|sql| !refused(sql)).collect();
    assert!(passed.is_empty(), "{passed:#?}");
}

#[test]
fn selects_over_events_pass_and_run() {
    let fixture = Fixture::new();
    let statements = list("legitimate.sql");
    let failed = |sql: &String| Some(format!("{sql}: {}", fixture.run(sql).err()?));
    let failed: Vec<String> = statements.iter().filter_map(failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Every function of this DuckDB that a query may call has been looked at: what it reads, what it
/// leaves behind, what it does with values that it does not expect.
#[test]
fn the_functions_that_pass_are_known() {
    let connection = Fixture::new().database.connect().unwrap();
    let names = "SELECT DISTINCT function_name FROM duckdb_functions() \
                 WHERE regexp_matches(function_name, '^\\w+$') ORDER BY ALL";
    let mut names = connection.prepare(names).unwrap();
    let names = names.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
    let passing: Vec<String> = names
        .filter(|name| sandbox::check(&connection, &format!("SELECT \"{name}\"(1)")).is_ok())
        .collect();
    let unknown: Vec<&String> =
        passing.iter().filter(|name| !list("functions.txt").contains(name)).collect();
    assert!(unknown.is_empty(), "nobody has looked at {unknown:?}");
    assert_eq!(passing, list("functions.txt"));
}

#[test]
fn what_is_not_sql_is_a_syntax_error_with_its_position() {
    let connection = Fixture::new().database.connect().unwrap();
    for (sql, position) in [
        ("SELECT 1 AS x INTO y", Some(14)),
        ("SELECT 'é' FROM events WHERE ++ SELECT", Some(33)),
        ("SELEC 1", Some(0)),
        ("", None),
        (" ; -- nothing", None),
        ("SELECT \0", None),
    ] {
        match sandbox::check(&connection, sql) {
            Err(QueryError::Sql { message, position: at }) => {
                assert_eq!(at, position, "{sql}: {message}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn what_is_malformed_is_not_run() {
    let fixture = Fixture::new();
    for sql in list("invalid.sql") {
        match fixture.run(&sql) {
            Err(QueryError::Sql { message, .. }) => {
                assert!(message.starts_with("Parser Error: "), "{sql}: {message}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn deep_nesting_and_excessive_length_are_refused_and_long_lists_are_not() {
    let fixture = Fixture::new();
    for sql in [
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}1", "- ".repeat(10_000)),
        format!("SELECT 1{}", " + 1".repeat(10_000)),
        format!("SELECT {}{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("SELECT {}1{}", "(SELECT ".repeat(500), ")".repeat(500)),
        format!("SELECT '{}'", "x".repeat(1 << 20)),
    ] {
        let result = fixture.run(&sql);
        assert!(matches!(result, Err(QueryError::Sql { .. })), "{}: {result:?}", &sql[..40]);
    }
    let alternatives = vec!["shard = 1"; 2_000].join(" OR ");
    fixture.run(&format!("SELECT * FROM events WHERE {alternatives}")).unwrap();
    let numbers = vec!["1"; 10_000].join(", ");
    fixture.run(&format!("SELECT * FROM events WHERE shard IN ({numbers})")).unwrap();
    let unions = vec!["SELECT 1"; 200].join(" UNION ALL ");
    assert_eq!(super::rows(&fixture.run(&unions).unwrap()), 200);
    fixture.run(&format!("SELECT 1{}", " + 1".repeat(30))).unwrap();
}

#[test]
fn a_passing_statement_still_cannot_write() {
    let fixture = Fixture::new();
    fixture.execute("CREATE TABLE other (a INTEGER); CREATE SEQUENCE s;");
    // Were the check to miss something, the transaction would refuse it.
    let connection = fixture.database.connect().unwrap();
    connection.execute_batch("BEGIN TRANSACTION READ ONLY").unwrap();
    assert!(connection.execute_batch("INSERT INTO other VALUES (1)").is_err());
}
