//! The commands: what they store, print and exit with.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use support::{Server, ringlake, run, run_with_input, text};

mod support;

fn generate(events: &str, seed: &str) -> Vec<u8> {
    let output = run(&["generate", "--events", events, "--seed", seed]);
    assert!(output.status.success());
    output.stdout
}

fn rows(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn query(data: &Path, sql: &str) -> Vec<Value> {
    rows(&run(&["query", sql, "--data", data.to_str().unwrap()]))
}

fn import(data: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut all = vec!["import", "--data", data.to_str().unwrap()];
    all.extend(arguments);
    run_with_input(&all, input)
}

#[test]
fn generated_events_are_imported_verified_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let events = generate("20000", "7");
    assert_eq!(events, generate("20000", "7"), "the same seed gives the same bytes");
    let output = import(&data, &["-"], &events);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("20,000 events in "), "{}", text(&output.stdout));

    let mut by_tenant = std::collections::BTreeMap::<String, u64>::new();
    for line in text(&events).lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        *by_tenant.entry(event["tenant"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let counted = query(&data, "SELECT tenant, count(*) AS n FROM events GROUP BY tenant");
    let counted: std::collections::BTreeMap<String, u64> = counted
        .iter()
        .map(|row| (row["tenant"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(counted, by_tenant);

    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("20,000 events, each exactly once"));
}

#[test]
fn import_never_corrects_the_clients_clock() {
    let directory = tempfile::tempdir().unwrap();
    let event = br#"{"event":"a","originalTimestamp":"2020-01-01T00:00:00Z","sentAt":"2020-01-01T00:00:01Z"}"#;
    assert!(import(directory.path(), &["-"], event).status.success());
    let row = &query(directory.path(), "SELECT timestamp, source FROM events")[0];
    assert!(row["timestamp"].as_str().unwrap().starts_with("2020-01-01T00:00:00"), "{row}");
    assert_eq!(row["source"], "import");
}

#[test]
fn compressed_files_and_arrays_are_imported() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // Message ids are unique for a seed only: repeated events would not be stored again.
    let [first, second, third] = ["1", "2", "3"].map(|seed| generate("100", seed));
    let gzip = directory.path().join("a");
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&gzip).unwrap(), Default::default());
    encoder.write_all(&first).unwrap();
    encoder.finish().unwrap();
    let zstd = directory.path().join("b");
    std::fs::write(&zstd, zstd::encode_all(&second[..], 1).unwrap()).unwrap();
    let output = import(&data, &[gzip.to_str().unwrap(), zstd.to_str().unwrap()], b"");
    assert!(output.status.success(), "{}", text(&output.stderr));

    let array = format!("[\n{}\n]\n", text(&third).trim_end().replace('\n', ",\n\n"));
    let output = import(&data, &["-", "--format", "json"], array.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(query(&data, "SELECT count(*) AS n FROM events")[0]["n"], 300);
}

const GOOD: &str = "{\"event\":\"a\"}";

/// Bad lines among good ones: no JSON, no event, a wrong type.
fn with_bad_lines() -> String {
    format!("{GOOD}\nnonsense\n\n{GOOD}\n{{}}\n{{\"event\":\"a\",\"url\":1}}\n{GOOD}\n")
}

#[test]
fn bad_lines_are_left_out_and_told_with_their_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let output = import(directory.path(), &["-"], with_bad_lines().as_bytes());
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for named in ["- line 2: ", "- line 5: ", "- line 6: ", "url", "3 events were left out"] {
        assert!(told.contains(named), "{named}: {told}");
    }
    assert_eq!(query(directory.path(), "SELECT count(*) AS n FROM events")[0]["n"], 3);
}

#[test]
fn import_and_query_work_through_a_running_server() {
    let server = Server::start();
    let url = server.url();
    let events = generate("5000", "3");
    let output = run_with_input(&["import", "-", "--url", &url], &events);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run_with_input(&["import", "-", "--url", &url], with_bad_lines().as_bytes());
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("- line 5: ") && told.contains("3 events were left out"), "{told}");
    assert_eq!(server.count(), 5_003);

    let sql = "SELECT count(*) AS n FROM events";
    assert_eq!(rows(&run(&["query", sql, "--url", &url]))[0]["n"], 5_003);
    let table = run(&["query", sql, "--url", &url, "--format", "table"]);
    assert!(text(&table.stdout).contains("| 5003  |"), "{}", text(&table.stdout));
    let told = text(&table.stderr);
    assert!(told.starts_with("1 row, ") && told.ends_with(" s\n"), "{told}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("remote.csv");
    let path = file.to_str().unwrap();
    let output = run(&["query", sql, "--url", &url, "--format", "csv", "--output", path]);
    assert!(text(&output.stderr).starts_with("9 B in "), "{}", text(&output.stderr));
    assert_eq!(std::fs::read(&file).unwrap(), b"n\r\n5003\r\n");
    let refused = run(&["query", "SELECT nope FROM events", "--url", &url]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("the server answered 400"), "{}", text(&refused.stderr));
    // The directory belongs to the server.
    let locked = run(&["query", sql, "--data", server.data.to_str().unwrap()]);
    assert_eq!(locked.status.code(), Some(1));
    assert!(text(&locked.stderr).contains("--url"), "{}", text(&locked.stderr));
}

#[test]
fn a_large_bulk_import_into_a_small_ring_waits_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = ringlake()
        .args(["import", "-", "--data", directory.path().to_str().unwrap()])
        .env("RINGLAKE_RING_BYTES", "1048576")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let events = generate("50000", "2");
    child.stdin.take().unwrap().write_all(&events).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(query(directory.path(), "SELECT count(*) AS n FROM events")[0]["n"], 50_000);
}

#[test]
fn every_format_is_written_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    import(&data, &["-"], GOOD.as_bytes());
    let sql = "SELECT event, 1 AS n FROM events";
    for (format, start) in [
        ("csv", &b"event,n"[..]),
        ("ndjson", b"{\"event\":\"a\""),
        ("arrow", b"\xff\xff\xff\xff"),
        ("parquet", b"PAR1"),
        ("table", b"+"),
    ] {
        let file = directory.path().join(format);
        let arguments = ["query", sql, "--data", data.to_str().unwrap(), "--format", format];
        let output = run(&[&arguments[..], &["--output", file.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(output.stdout.is_empty());
        let told = text(&output.stderr);
        assert!(told.contains(" row") && told.trim_end().ends_with(" s"), "{told}");
        assert!(std::fs::read(&file).unwrap().starts_with(start), "{format}");
    }
    let file = directory.path().join("none");
    let output = run(&[
        "query",
        "SELECT nope",
        "--data",
        data.to_str().unwrap(),
        "--output",
        file.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!file.exists(), "a failed query leaves no file");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let mut child = ringlake()
        .args(["generate", "--events", "1000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn wrong_usage_exits_with_2_and_failed_work_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let code = |arguments: &[&str], expected: i32, named: &str| {
        let output = run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {told}");
        assert!(told.contains(named), "{arguments:?}: {told}");
    };
    code(&[], 2, "Usage");
    code(&["fly"], 2, "fly");
    code(&["query"], 2, "SQL");
    code(&["query", "SELECT 1", "--url", "ftp://localhost"], 2, "ftp");
    code(&["query", "SELECT 1", "--url", "localhost"], 2, "localhost");
    code(&["query", "SELECT 1", "--data", nowhere], 1, nowhere);
    code(&["verify", "--data", nowhere], 1, nowhere);
    code(&["import", "/no/such/file", "--data", nowhere], 1, "/no/such/file");
    let output = run_with_input(&["import", "-", "--url", "http://127.0.0.1:9"], b"{}");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot reach"), "{}", text(&output.stderr));
    let mut unknown = ringlake();
    unknown.args(["query", "SELECT 1", "--data", nowhere]).env("RINGLAKE_NO_SUCH", "1");
    let output = unknown.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("RINGLAKE_NO_SUCH"));
    assert!(run(&["--help"]).status.success());
    assert!(text(&run(&["--version"]).stdout).starts_with("ringlake "));
}

#[test]
fn verify_fails_when_a_file_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    assert!(import(&data, &["-"], &generate("1000", "1")).status.success());
    let parquet = find_parquet(&data).expect("the import has rolled its events into the table");
    std::fs::remove_file(parquet).unwrap();
    let output = run(&["verify", "--data", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("damaged"), "{}", text(&output.stdout));
}

fn find_parquet(directory: &Path) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let found = match path.is_dir() {
            true if path.ends_with("_delta_log") => None,
            true => find_parquet(&path),
            false => path.extension().is_some_and(|it| it == "parquet").then_some(path),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[test]
fn the_demonstration_runs_to_its_figures() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("kept");
    let arguments = ["demo", "--events", "20000", "--data", data.to_str().unwrap()];
    let output = run(&arguments);
    let figures = text(&output.stdout);
    assert!(output.status.success(), "{figures}{}", text(&output.stderr));
    for named in
        ["sent      20,000 events", "p50 ", "p99 ", "p99.9 ", "rolled", "+--", "Parquet   in "]
    {
        assert!(figures.contains(named), "{named}: {figures}");
    }
    assert_eq!(query(&data, "SELECT count(*) AS n FROM events")[0]["n"], 20_000);
    let again = run(&arguments);
    assert!(again.status.success(), "a second time too: {}", text(&again.stderr));

    let temporary = directory.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let output =
        ringlake().args(["demo", "--events", "1000"]).env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "it cleans up");
}

#[test]
fn the_demonstration_has_nothing_against_a_reader_that_has_seen_enough() {
    let mut demonstration = ringlake();
    demonstration.args(["demo", "--events", "1000"]).stdout(Stdio::piped());
    let mut child = demonstration.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_configuration_is_shown_as_a_file_that_gives_it_again() {
    let shown = run(&["config", "show", "--listen", "127.0.0.1:1", "--ack", "memory"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let first = text(&shown.stdout);
    assert!(first.contains("\nack = \"memory\" # disk or memory; flag --ack, default \"disk\"\n"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringlake.toml");
    std::fs::write(&file, &first).unwrap();
    let again = run(&["config", "show", "--config", file.to_str().unwrap()]);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&text(&again.stdout)), values(&first));

    std::fs::write(&file, "[hot]\nroll_rows = 1\n").unwrap();
    let refused = run(&["config", "show", "--config", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("hot.roll_rows is 1; it must be between"));
}
