//! `/v1/exports` and `ringlake export`.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};
use support::{Answer, Server, run, text};

mod support;

/// Events `n` from `first` on, of two types.
fn send(server: &Server, first: u64, events: u64) {
    let lines: Vec<String> = (first..first + events)
        .map(|n| {
            let kind = if n.is_multiple_of(2) { "page" } else { "track" };
            json!({"type": kind, "event": format!("e{}", n % 3), "properties": {"n": n}})
                .to_string()
        })
        .collect();
    assert_eq!(server.post("/v1/events", lines.join("\n")).status, 202);
}

fn create(server: &Server, wanted: &Value) -> String {
    let answer = server.post("/v1/exports", wanted.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/exports/{id}").as_str()));
    id
}

fn look(server: &Server, id: &str) -> Value {
    let answer = server.get(&format!("/v1/exports/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Waits until the job has ended.
fn ended(server: &Server, id: &str) -> Value {
    let mut job = Value::Null;
    server.wait_until("the job ends", || {
        job = look(server, id);
        !["queued", "running"].contains(&job["status"].as_str().unwrap())
    });
    job
}

fn done(server: &Server, wanted: &Value) -> Value {
    let job = ended(server, &create(server, wanted));
    assert_eq!(job["status"], "done", "{job}");
    job
}

fn fetch(server: &Server, job: &Value, headers: &[(&str, &str)]) -> Answer {
    let path = job["files"][0]["path"].as_str().unwrap();
    server.connect().request("GET", path, headers, b"")
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_export_holds_what_sql_gives_hot_and_rolled_in_every_format() {
    let server = Server::start();
    send(&server, 1, 200);
    server.roll();
    send(&server, 201, 100);
    let job = done(&server, &json!({"format": "ndjson"}));
    assert_eq!((&job["rows_done"], &job["rows_expected"]), (&json!(300), &json!(300)));
    assert_eq!(job["bytes_done"], job["bytes_expected"]);
    assert_eq!(job["bytes_done"], job["files"][0]["bytes"]);
    let answer = fetch(&server, &job, &[]);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let mut found = lines(&answer.body);
    let by_number = |event: &Value| (event["shard"].as_i64(), event["sequence"].as_i64());
    found.sort_by_key(by_number);
    assert_eq!(found, server.query("SELECT * FROM events ORDER BY shard, sequence"));

    let some =
        json!({"type": "page", "event": "e1", "columns": ["event", "id", "date"], "format": "csv"});
    let job = done(&server, &some);
    let body = text(&fetch(&server, &job, &[]).body);
    let mut rows = body.split("\r\n");
    assert_eq!(rows.next(), Some("event,id,date"));
    assert_eq!(rows.filter(|row| row.starts_with("e1,")).count(), 50);
    assert_eq!((&job["rows_done"], &job["rows_expected"]), (&json!(50), &json!(50)));

    let job = done(&server, &json!({"to": "2000-01-01"}));
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("empty.parquet");
    std::fs::write(&path, fetch(&server, &job, &[]).body).unwrap();
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let about = reader.metadata().file_metadata();
    assert_eq!((about.num_rows(), about.schema_descr().num_columns()), (0, 23));
}

#[test]
fn a_download_that_was_cut_goes_on_with_the_same_bytes() {
    let server = Server::start();
    send(&server, 1, 2_000);
    let job = done(&server, &json!({"format": "csv"}));
    let whole = fetch(&server, &job, &[]);
    let file = &job["files"][0];
    assert_eq!(file["bytes"], json!(whole.body.len()));
    let tag = whole.header("etag").unwrap();
    assert_eq!(tag, format!("\"{}\"", file["sha256"].as_str().unwrap()));
    let rest = fetch(&server, &job, &[("Range", "bytes=1000-"), ("If-Range", tag)]);
    assert_eq!((rest.status, rest.body.as_slice()), (206, &whole.body[1000..]));
    let range = format!("bytes 1000-{}/{}", whole.body.len() - 1, whole.body.len());
    assert_eq!(rest.header("content-range"), Some(range.as_str()));
    let other = fetch(&server, &job, &[("Range", "bytes=1000-"), ("If-Range", "\"other\"")]);
    assert_eq!((other.status, other.body.len()), (200, whole.body.len()));
    let beyond = fetch(&server, &job, &[("Range", "bytes=99999999-")]);
    assert_eq!(beyond.status, 416);
    let all = format!("bytes */{}", whole.body.len());
    assert_eq!(beyond.header("content-range"), Some(all.as_str()));
    assert_eq!(fetch(&server, &job, &[("If-None-Match", tag)]).status, 304);
    let path = file["path"].as_str().unwrap();
    let head = server.connect().request("HEAD", path, &[], b"");
    assert_eq!(head.header("content-length"), whole.header("content-length"));
    for name in ["job.json", "part-00002.csv", "..%2fjob.json"] {
        let path = format!("/v1/exports/{}/files/{name}", job["id"].as_str().unwrap());
        assert_eq!(server.get(&path).status, 404, "{name}");
    }
}

#[test]
fn a_cancelled_export_leaves_nothing() {
    let server = Server::start();
    send(&server, 1, 5_000);
    let directory = server.data.join("exports");
    let first = done(&server, &json!({}))["id"].as_str().unwrap().to_owned();
    // Several at once: some run, some wait when they are cancelled.
    let ids: Vec<String> = (0..5).map(|_| create(&server, &json!({"format": "ndjson"}))).collect();
    for id in ids.iter().chain([&first]) {
        let path = format!("/v1/exports/{id}");
        assert_eq!(server.connect().request("DELETE", &path, &[], b"").status, 204);
        assert_eq!(server.get(&path).status, 404);
        assert_eq!(server.connect().request("DELETE", &path, &[], b"").status, 404);
    }
    server.wait_until("nothing is left", || std::fs::read_dir(&directory).unwrap().count() == 0);
    assert_eq!(server.get("/v1/exports").json(), json!({"exports": [], "next_cursor": null}));
}

#[test]
fn exports_survive_a_kill_and_end_with_the_same_events() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::on(scratch.path(), &[]);
    send(&server, 1, 3_000);
    let kept = done(&server, &json!({"format": "csv"}));
    let ids: Vec<String> = (0..4).map(|_| create(&server, &json!({"format": "ndjson"}))).collect();
    server.kill();
    // A job without a description was never accepted.
    std::fs::create_dir(scratch.path().join("exports/nothing")).unwrap();
    let server = Server::on(scratch.path(), &[]);
    send(&server, 3_001, 10);
    for id in &ids {
        let job = ended(&server, id);
        assert_eq!((&job["status"], &job["rows_done"]), (&json!("done"), &json!(3_000)), "{job}");
        assert_eq!(lines(&fetch(&server, &job, &[]).body).len(), 3_000);
    }
    let found = look(&server, kept["id"].as_str().unwrap());
    assert_eq!(found, kept);
    assert_eq!(fetch(&server, &kept, &[]).body.len() as u64, kept["bytes_done"].as_u64().unwrap());
    assert!(!scratch.path().join("exports/nothing").exists());
    let pages = server.get("/v1/exports?limit=2").json();
    assert_eq!(pages["exports"].as_array().unwrap().len(), 2);
    let cursor = pages["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("/v1/exports?limit=5&cursor={cursor}")).json();
    assert_eq!(
        (rest["exports"].as_array().unwrap().len(), &rest["next_cursor"]),
        (3, &Value::Null)
    );
}

#[test]
fn what_is_no_export_is_refused() {
    let server = Server::start();
    for wanted in [
        json!({"columns": ["nope"]}),
        json!({"columns": ["event", "event"]}),
        json!({"columns": []}),
        json!({"format": "arrow"}),
        json!({"from": "yesterday"}),
        json!({"from": "2026-01-02", "to": "2026-01-01"}),
        json!({"form": "2026-01-02"}),
        json!([]),
    ] {
        let answer = server.post("/v1/exports", wanted.to_string());
        assert_eq!(answer.status, 400, "{wanted}: {}", answer.text());
        answer.error();
    }
    assert_eq!(server.get("/v1/exports/0").status, 404);
    assert_eq!(server.get("/v1/exports?cursor=../x").status, 400);
}

#[test]
fn a_file_that_cannot_be_read_is_logged_a_few_times_and_counted() {
    const FETCHES: usize = 50;
    let server = Server::start();
    send(&server, 1, 100);
    let job = done(&server, &json!({"format": "ndjson"}));
    let name = job["files"][0]["name"].as_str().unwrap();
    let id = job["id"].as_str().unwrap();
    let file = server.data.join("exports").join(id).join(name);
    File::options().write(true).open(file).unwrap().set_len(10).unwrap();
    let path = job["files"][0]["path"].as_str().unwrap();
    for _ in 0..FETCHES {
        let mut connection = server.connect();
        connection.ask("GET", path, &[], b"");
        // Broken off: the rest of the file is not there.
        let mut answer = Vec::new();
        let _ = connection.stream.read_to_end(&mut answer);
        assert!(!text(&answer).contains(r#""n":99"#), "{}", text(&answer));
    }
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    let with = |text: &'static str| log.lines().filter(move |line| line.contains(text));
    let written = with("an export cannot be read").filter(|line| !line.contains("left_out="));
    let written = written.count();
    let left_out: usize = with("left_out=")
        .map(|line| line.split("left_out=").nth(1).unwrap().split(' ').next().unwrap())
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    assert!(written < FETCHES, "{log}");
    assert_eq!(written + left_out, FETCHES, "{log}");
}

fn rows(directory: &Path) -> i64 {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let parquet = files.filter(|path| path.extension().is_some_and(|it| it == "parquet"));
    let read = |path| SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    parquet.map(|path| read(path).metadata().file_metadata().num_rows()).sum()
}

#[test]
fn the_command_exports_from_a_server_and_from_a_directory_and_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, output) = (scratch.path().join("data"), scratch.path().join("out"));
    let server = Server::on(&data, &[]);
    send(&server, 1, 1_000);
    let (url, output) = (server.url(), output.to_str().unwrap());
    let export = |more: &[&str]| run(&[&["export", "--output", output], more].concat());
    let made = export(&["--url", &url]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stdout).starts_with("1,000 events in 1 files"), "{}", text(&made.stdout));
    assert_eq!(rows(Path::new(output)), 1_000);

    assert_eq!(server.get("/v1/exports").json()["exports"], json!([]), "nothing stays there");

    // A run that was cut: the job is known, half of a file is there, and one of an earlier export.
    let id = create(&server, &json!({}));
    let job = ended(&server, &id);
    let file = Path::new(output).join("part-00001.parquet");
    let whole = fetch(&server, &job, &[]).body;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(file.with_file_name(".part-00001.parquet.partial"), &whole[..5_000]).unwrap();
    let earlier = file.with_file_name("part-00002.parquet");
    std::fs::write(&earlier, &whole).unwrap();
    let note = Path::new(output).join(".ringlake-export.json");
    let mut noted: Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    assert_eq!(noted["files"], json!(["part-00001.parquet"]));
    (noted["id"], noted["files"]) =
        (json!(id), json!(["part-00001.parquet", "part-00002.parquet"]));
    std::fs::write(&note, noted.to_string()).unwrap();
    // What is here already is not asked for again: the server has it wrong now.
    let there = data.join("exports").join(&id).join("part-00001.parquet");
    std::fs::write(&there, [&[0; 5_000], &whole[5_000..]].concat()).unwrap();
    let made = export(&["--url", &url]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    assert!(!earlier.exists());
    assert_eq!(server.get("/v1/exports").json()["exports"], json!([]));

    let data = data.to_str().unwrap();
    let refused = export(&["--data", data]);
    assert_eq!(refused.status.code(), Some(1), "the server has the directory");
    assert!(server.stop().0.success());
    let made = export(&["--data", data, "--type", "page", "--format", "ndjson"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let written = std::fs::read(Path::new(output).join("part-00001.ndjson")).unwrap();
    assert_eq!(lines(&written).len(), 500);
    assert_eq!(run(&["export", "--output", output, "--from", "x"]).status.code(), Some(2));
    let backwards = ["export", "--output", output, "--from", "2026-02-01", "--to", "2026-01-01"];
    assert_eq!(run(&backwards).status.code(), Some(2));
}
