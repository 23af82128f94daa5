//! The published SDKs, as their package managers install them, deliver every kind of event to a
//! server, and deliver it once when the first answer is a 503 and the second never comes.
//!
//! `RINGLAKE_TEST_CLIENTS` names a folder with `node_modules` and `python/bin/python` that hold the
//! packages of `clients/package.json` and `clients/requirements.txt` (CI makes it); without it the
//! tests say that they are skipped.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use support::{Server, clients, text};

/// One row a kind: source, type, event, user, device, address, and how often.
const ROWS: &str = "SELECT concat_ws(' ', source, type, coalesce(event, '-'), coalesce(user_id, '-'), \
    coalesce(anonymous_id, '-'), coalesce(url, '-'), count(*)) AS line \
    FROM events GROUP BY source, type, event, user_id, anonymous_id, url ORDER BY line";

/// What SQL has to say of `Bought` for every SDK.
const BOUGHT: &str = "SELECT count(*) AS n, count(DISTINCT message_id) AS ids, \
    count(*) FILTER (timestamp = TIMESTAMP '2026-01-02 03:04:05') AS told, \
    count(*) FILTER (abs(epoch_ms(timestamp) - epoch_ms(received_at)) < 60000) AS now, \
    count(*) FILTER (contains(properties, '\"pro\"')) AS kept \
    FROM events WHERE event = 'Bought'";

/// The time that a client told.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Told,
    Now,
}

fn script(name: &str) -> PathBuf {
    // Cargo runs tests in the folder of their package.
    PathBuf::from("tests/clients").join(name)
}

fn node(folder: &PathBuf, sdk: &str, url: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(script("clients.mjs")).args([sdk, url]).arg(folder);
    command
}

fn python(folder: &std::path::Path, sdk: &str, url: &str) -> Command {
    let mut command = Command::new(folder.join("python/bin/python"));
    command.arg(script("clients.py")).args([sdk, url]);
    command
}

/// Runs a client to its end; it must have nothing to complain about.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}");
    let complaint = said.lines().find(|line| {
        let line = line.to_ascii_lowercase();
        line.contains("error") || line.contains("fail")
    });
    assert_eq!(complaint, None, "{command:?}: {said}");
}

fn lines(server: &Server) -> Vec<String> {
    let rows = server.query(ROWS);
    rows.iter().map(|row| row["line"].as_str().unwrap().to_owned()).collect()
}

/// Checks all rows, and time, ids and properties of `Bought`.
fn check(server: &Server, expected: &[&str], bought: u64, when: When, with_ids: bool) {
    assert_eq!(lines(server), expected);
    let row: &Value = &server.query(BOUGHT)[0];
    let of = |name: &str| row[name].as_u64().unwrap();
    assert_eq!((of("n"), of("kept")), (bought, bought), "{row}");
    assert_eq!(of(if when == When::Told { "told" } else { "now" }), bought, "{row}");
    assert_eq!(of("ids"), if with_ids { bought } else { 0 }, "{row}");
}

const SEGMENT: [&str; 6] = [
    "segment alias - u2 - - 1",
    "segment group - u1 - - 1",
    "segment identify - u1 - - 1",
    "segment page Home - a1 https://shop.example/home 1",
    "segment screen Cart u1 - - 1",
    "segment track Bought u1 - - 1",
];

#[test]
fn segments_and_rudderstacks_sdks_deliver() {
    let Some(folder) = clients() else { return };
    for (sdk, when) in [("segment", When::Told), ("rudderstack", When::Now)] {
        let server = Server::start();
        run(node(&folder, sdk, &server.url()));
        check(&server, &SEGMENT, 1, when, true);
        let server = Server::start();
        run(python(&folder, sdk, &server.url()));
        let page = "segment page Home u1 - https://shop.example/home 1";
        let expected = SEGMENT.map(|line| if line.contains(" page ") { page } else { line });
        check(&server, &expected, 1, when, true);
    }
}

#[test]
fn jitsus_sdk_delivers() {
    let Some(folder) = clients() else { return };
    let server = Server::start();
    run(node(&folder, "jitsu", &server.url()));
    // Devices are invented by the SDK.
    let rows = server.query(
        "SELECT concat_ws(' ', type, coalesce(event, '-'), coalesce(url, '-'), \
         count(DISTINCT message_id), count(anonymous_id)) AS line \
         FROM events WHERE source = 'jitsu' GROUP BY type, event, url ORDER BY line",
    );
    let seen: Vec<&str> = rows.iter().map(|row| row["line"].as_str().unwrap()).collect();
    let expected = [
        "group - - 2 2",
        "identify - - 2 2",
        "page Home https://shop.example/home 2 2",
        "track Bought - 2 2",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn posthogs_sdks_deliver() {
    let Some(folder) = clients() else { return };
    let common = [
        "posthog alias $create_alias u1 - - 1",
        "posthog group $groupidentify $company_g1 - - 1",
        "posthog identify $identify u1 - - 1",
        "posthog page $pageview u1 - https://shop.example/home 1",
        "posthog screen $screen u1 - - 1",
        "posthog track Bought u1 - - 1",
    ];
    let server = Server::start();
    run(node(&folder, "posthog", &server.url()));
    check(&server, &common, 1, When::Told, true);
    let server = Server::start();
    run(python(&folder, "posthog", &server.url()));
    let expected = [
        common[0],
        "posthog group $groupidentify u1 - - 1",
        common[3],
        "posthog track $set u1 - - 1",
        common[5],
    ];
    check(&server, &expected, 1, When::Told, true);
}

#[test]
fn snowplows_trackers_deliver_by_post_and_get() {
    let Some(folder) = clients() else { return };
    let server = Server::start();
    run(node(&folder, "snowplow", &server.url()));
    let expected = [
        "snowplow page - u1 - https://shop.example/home 4",
        "snowplow track Bought u1 - - 4",
        "snowplow track link_click u1 - - 4",
    ];
    assert_eq!(lines(&server), expected);
    let row = &server.query(
        "SELECT count(DISTINCT message_id) AS ids, \
         count(*) FILTER (contains(context, '{\"title\":\"Grüße\"}')) AS contexts, \
         count(*) FILTER (contains(properties, '{\"plan\":\"pro\"}')) AS described FROM events",
    )[0];
    assert_eq!(
        (&row["ids"], &row["contexts"], &row["described"]),
        (&12.into(), &12.into(), &4.into())
    );
    let server = Server::start();
    run(python(&folder, "snowplow", &server.url()));
    let expected =
        ["snowplow page - u1 - https://shop.example/home 2", "snowplow track Bought u1 - - 2"];
    assert_eq!(lines(&server), expected);
}

#[test]
fn umamis_and_plausibles_sdks_deliver() {
    let Some(folder) = clients() else { return };
    let server = Server::start();
    run(node(&folder, "umami", &server.url()));
    let expected =
        ["umami identify - u1 - - 1", "umami page - - - /home 1", "umami track Bought - - - 1"];
    check(&server, &expected, 1, When::Now, false);
    let server = Server::start();
    run(node(&folder, "plausible", &server.url()));
    let expected = [
        "plausible page pageview - - https://shop.example/home 1",
        "plausible track Bought - - https://shop.example/home 1",
    ];
    check(&server, &expected, 1, When::Now, false);
}

#[test]
fn opentelemetrys_exporters_deliver_logs() {
    let Some(folder) = clients() else { return };
    let server = Server::start();
    run(node(&folder, "opentelemetry", &server.url()));
    check(&server, &["otlp log Bought u1 - - 4"], 4, When::Told, false);
    let server = Server::start();
    run(python(&folder, "opentelemetry", &server.url()));
    assert_eq!(lines(&server), ["otlp log - u1 - - 2"]);
    let row = &server.query("SELECT properties FROM events")[0];
    let properties: Value = serde_json::from_str(row["properties"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&properties["body"], &properties["attributes"]["plan"]),
        (&"Bought".into(), &"pro".into())
    );
}

#[test]
fn a_503_and_a_cut_connection_lead_to_a_retry_without_a_duplicate() {
    let Some(folder) = clients() else { return };
    for (sdk, in_python, expected) in [
        ("segment", false, &SEGMENT[..]),
        ("segment", true, &SEGMENT[..]),
        ("rudderstack", false, &SEGMENT[..]),
        ("posthog", false, &[""; 6][..]),
        ("posthog", true, &[""; 5][..]),
    ] {
        let server = Server::start();
        let fault = FaultyProxy::start(server.address);
        let mut command = match in_python {
            true => python(&folder, sdk, &fault.url),
            false => node(&folder, sdk, &fault.url),
        };
        let output = command.output().unwrap();
        // What was stored before its answer was lost is acknowledged and not stored again.
        assert!(output.status.success(), "{sdk}: {}", text(&output.stderr));
        assert_eq!(lines(&server).len(), expected.len(), "{sdk}");
        assert_eq!(server.count(), expected.len() as u64, "{sdk}");
        let seen = fault.requests.load(Ordering::Relaxed); // Relaxed: the client has ended.
        assert!(seen > 2, "{sdk} has sent its first requests again");
        assert!(server.accounting()["duplicate"].as_u64().unwrap() > 0, "{sdk}");
    }
}

/// Hands requests to a server. It answers 503 to the first one, and nothing to the second one,
/// although the server has stored what was in them.
struct FaultyProxy {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl FaultyProxy {
    fn start(server: SocketAddr) -> FaultyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counter = Arc::clone(&counter);
                thread::spawn(move || relay(stream, server, &counter));
            }
        });
        FaultyProxy { url, requests }
    }
}

/// Relays one request and closes; `None` when the client went away.
fn relay(client: TcpStream, server: SocketAddr, requests: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut upstream = TcpStream::connect(server).ok()?;
    upstream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).ok()?;
    upstream.write_all(&body).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    // Relaxed: a count, whose every value is given out once.
    let number = requests.fetch_add(1, Ordering::Relaxed);
    let mut client = client;
    match number {
        0 => client
            .write_all(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nRetry-After: 1\r\n\
                Connection: close\r\n\r\n{}",
            )
            .ok(),
        1 => None,
        _ => client.write_all(&answer).ok(),
    }
}
