//! The published SDKs, as their package managers install them, deliver every kind of event to a
//! server, and deliver it once when the first answer is a 503 and the second never comes.
//!
//! `RINGLAKE_TEST_CLIENTS` names a folder with `node_modules` and `python/bin/python` that hold the
//! packages of `clients/package.json` and `clients/requirements.txt` (CI makes it); without it the
//! tests say that they are skipped.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

#[path = "clients/rows.rs"]
mod rows;
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rows::{Row, check, lines};
use support::{Server, clients, make_key, text};

/// An SDK and what its script sends with it.
struct Sdk {
    name: &'static str,
    language: Language,
    /// Every kind of event, in the order of the lines.
    rows: &'static [Row<'static>],
    /// How often each is sent: once for every way of sending.
    times: usize,
    retries: Retries,
}

#[derive(Clone, Copy, PartialEq)]
enum Language {
    Node,
    Python,
}

/// What an SDK does about a request that failed.
#[derive(Clone, Copy, PartialEq)]
enum Retries {
    /// It sends the same ids again.
    Known,
    /// It sends the same events again, which have no ids: where the server had stored them before
    /// the connection was cut, they are stored twice.
    Unknown,
    /// It drops the events.
    Never,
}

use Language::{Node, Python};
use Retries::{Known, Never, Unknown};

const SDKS: [Sdk; 13] = [
    sdk("segment", Node, &SEGMENT, 1, Known),
    sdk("segment", Python, &SEGMENT, 1, Known),
    sdk("rudderstack", Node, &SEGMENT, 1, Known),
    sdk("rudderstack", Python, &RUDDERSTACK_PYTHON, 1, Known),
    // The ways of browsers and of servers.
    sdk("jitsu", Node, &JITSU, 2, Never),
    sdk("posthog", Node, &POSTHOG, 1, Known),
    sdk("posthog", Python, &POSTHOG_PYTHON, 1, Known),
    // By POST and GET, with and without base64.
    sdk("snowplow", Node, &SNOWPLOW, 4, Known),
    sdk("snowplow", Python, &SNOWPLOW_PYTHON, 2, Known),
    sdk("umami", Node, &UMAMI, 1, Never),
    sdk("plausible", Node, &PLAUSIBLE, 1, Never),
    // JSON and protobuf, with and without gzip.
    sdk("opentelemetry", Node, &OPENTELEMETRY, 4, Unknown),
    sdk("opentelemetry", Python, &OPENTELEMETRY_PYTHON, 2, Unknown),
];

const fn sdk(
    name: &'static str,
    language: Language,
    rows: &'static [Row<'static>],
    times: usize,
    retries: Retries,
) -> Sdk {
    Sdk { name, language, rows, times, retries }
}

const SEGMENT: [Row<'_>; 6] = [
    ("segment alias user=u2 now id", r#"{"previousId":"u1"}"#),
    ("segment group user=u1 told id", r#"{"groupId":"g1","traits":{"size":3}}"#),
    ("segment identify user=u1 now id", r#"{"traits":{"email":"a@b.example"}}"#),
    (
        "segment page Home device=a1 url=https://shop.example/home \
         from=https://search.example/ told id",
        r#"{"category":"Docs"}"#,
    ),
    ("segment screen Cart user=u1 now id", r#"{"category":"Shop"}"#),
    ("segment track Bought user=u1 told id", r#"{"plan":"pro"}"#),
];

const RUDDERSTACK_PYTHON: [Row<'_>; 6] = {
    let mut rows = SEGMENT;
    rows[2].1 = r#"{"context":{"traits":{"email":"a@b.example"}}}"#;
    rows
};

const JITSU: [Row<'_>; 4] = [
    ("jitsu group user=u1 device=a1 now id", r#"{"groupId":"g1","traits":{"size":3}}"#),
    ("jitsu identify user=u1 device=a1 now id", r#"{"traits":{"email":"a@b.example"}}"#),
    (
        "jitsu page Home user=u1 device=a1 url=https://shop.example/home \
         from=https://search.example/ now id",
        r#"{"path":"/home","context":{"traits":{"email":"a@b.example"}}}"#,
    ),
    ("jitsu track Bought user=u1 device=a1 now id", r#"{"plan":"pro"}"#),
];

const POSTHOG: [Row<'_>; 6] = [
    ("posthog alias $create_alias user=u1 now id", r#"{"alias":"u2"}"#),
    (
        "posthog group $groupidentify user=$company_g1 now id",
        r#"{"$group_type":"company","$group_key":"g1","$group_set":{"size":3}}"#,
    ),
    ("posthog identify $identify user=u1 now id", r#"{"$set":{"email":"a@b.example"}}"#),
    (
        "posthog page $pageview user=u1 device=a1 session=s1 url=https://shop.example/home \
         from=https://search.example/ told id",
        r#"{"$current_url":"https://shop.example/home"}"#,
    ),
    ("posthog screen $screen user=u1 now id", r#"{"$screen_name":"Cart"}"#),
    ("posthog track Bought user=u1 told id", r#"{"plan":"pro"}"#),
];

const POSTHOG_PYTHON: [Row<'_>; 5] = [
    POSTHOG[0],
    ("posthog group $groupidentify user=u1 now id", POSTHOG[1].1),
    POSTHOG[3],
    ("posthog track $set user=u1 now id", r#"{"$set":{"email":"a@b.example"}}"#),
    POSTHOG[5],
];

const SNOWPLOW: [Row<'_>; 9] = [
    (
        "snowplow page user=u1 device=a1 session=s1 url=https://shop.example/home \
         from=https://search.example/ told id",
        r#"{"aid":"app","page":"Home","context":{"data":[{"data":{"title":"Grüße"}}]}}"#,
    ),
    (
        "snowplow track Bought user=u1 device=a1 session=s1 told id",
        r#"{"se_ca":"shop","se_va":"1.5","context":{"data":[{"data":{"title":"Grüße"}}]}}"#,
    ),
    (
        "snowplow track add_to_cart user=u1 device=a1 session=s1 now id",
        r#"{"ue_pr":{"data":{"data":{"sku":"p1","quantity":2,"unitPrice":1.5}}}}"#,
    ),
    (
        "snowplow track link_click user=u1 device=a1 session=s1 now id",
        r#"{"ue_pr":{"data":{"data":{"targetUrl":"https://shop.example/home"}}}}"#,
    ),
    (
        "snowplow track page_ping user=u1 device=a1 session=s1 url=https://shop.example/home \
         from=https://search.example/ now id",
        r#"{"page":"Home","pp_may":"70"}"#,
    ),
    (
        "snowplow track screen_view user=u1 device=a1 session=s1 now id",
        r#"{"ue_pr":{"data":{"data":{"name":"Cart"}}}}"#,
    ),
    (
        "snowplow track subscribed user=u1 device=a1 session=s1 now id",
        r#"{"ue_pr":{"data":{"data":{"plan":"pro"}}},
            "context":{"data":[{"data":{"title":"Grüße"}}]}}"#,
    ),
    (
        "snowplow track transaction user=u1 device=a1 session=s1 now id",
        r#"{"tr_id":"o1","tr_tt":"3","tr_cu":"EUR"}"#,
    ),
    (
        "snowplow track transaction_item user=u1 device=a1 session=s1 now id",
        r#"{"ti_id":"o1","ti_sk":"p1","ti_pr":"1.5"}"#,
    ),
];

const SNOWPLOW_PYTHON: [Row<'_>; 5] =
    [SNOWPLOW[0], SNOWPLOW[1], SNOWPLOW[4], SNOWPLOW[5], SNOWPLOW[6]];

const UMAMI: [Row<'_>; 3] = [
    ("umami identify user=u1 now", r#"{"email":"a@b.example","website":"site"}"#),
    (
        "umami page url=/home from=https://search.example/ now",
        r#"{"title":"Home","hostname":"shop.example"}"#,
    ),
    ("umami track Bought now", r#"{"plan":"pro"}"#),
];

const PLAUSIBLE: [Row<'_>; 2] = [
    (
        "plausible page pageview url=https://shop.example/home from=https://search.example/ now",
        r#"{"d":"shop.example","w":800}"#,
    ),
    (
        "plausible track Bought url=https://shop.example/home from=https://search.example/ now",
        r#"{"plan":"pro"}"#,
    ),
];

const OPENTELEMETRY: [Row<'_>; 1] = [(
    "otlp log Bought user=u1 session=s1 url=https://shop.example/home told",
    r#"{"body":{"plan":"pro"},"severityText":"INFO","severityNumber":9,
        "attributes":{"n":7,"list":["a",1.5]},
        "context":{"scope":{"name":"shop","version":"1.0"}}}"#,
)];

const OPENTELEMETRY_PYTHON: [Row<'_>; 2] = [
    ("otlp log Bought user=u1 session=s1 told", r#"{"body":{"plan":"pro"},"severityText":"INFO"}"#),
    (
        "otlp log user=u1 now",
        r#"{"body":"Bought","severityText":"WARN","attributes":{"plan":"pro"}}"#,
    ),
];

impl Sdk {
    /// Its script, pointed at `url`.
    fn command(&self, folder: &Path, url: &str, key: Option<&str>) -> Command {
        // Cargo runs tests in the folder of their package.
        let scripts = PathBuf::from("tests/clients");
        let mut command = match self.language {
            Node => {
                let mut command = Command::new("node");
                command.arg(scripts.join("clients.mjs")).args([self.name, url]).arg(folder);
                command
            }
            Python => {
                let mut command = Command::new(folder.join("python/bin/python"));
                command.arg(scripts.join("clients.py")).args([self.name, url]);
                command
            }
        };
        command.args(key);
        command
    }

    fn events(&self) -> usize {
        self.rows.len() * self.times
    }

    fn title(&self) -> String {
        let language = if self.language == Node { "Node" } else { "Python" };
        format!("{} for {language}", self.name)
    }
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

/// Each SDK called `name` delivers every kind of event to a server of its own.
fn deliver(name: &str) {
    let Some(folder) = clients() else { return };
    for sdk in SDKS.iter().filter(|sdk| sdk.name == name) {
        let server = Server::start();
        run(sdk.command(&folder, &server.url(), None));
        check(&sdk.title(), &server, sdk.rows, sdk.times);
    }
}

#[test]
fn segments_sdks_deliver() {
    deliver("segment");
}

#[test]
fn rudderstacks_sdks_deliver() {
    deliver("rudderstack");
}

#[test]
fn jitsus_sdk_delivers() {
    deliver("jitsu");
}

#[test]
fn posthogs_sdks_deliver() {
    deliver("posthog");
}

#[test]
fn snowplows_trackers_deliver_by_post_and_get() {
    deliver("snowplow");
}

#[test]
fn umamis_sdk_delivers() {
    deliver("umami");
}

#[test]
fn plausibles_tracker_delivers() {
    deliver("plausible");
}

#[test]
fn opentelemetrys_exporters_deliver_logs() {
    deliver("opentelemetry");
}

/// Each SDK sends its key where it always does: in a header, in the body, or as a name of the site.
#[test]
fn with_keys_events_of_every_sdk_belong_to_the_tenant_of_its_key() {
    let Some(folder) = clients() else { return };
    let server = Server::with_keys(&[]);
    let names = ["--alias", "app", "--alias", "site", "--alias", "shop.example"];
    let key =
        make_key(&server.data, &[&["--scope", "write", "--tenant", "acme"][..], &names].concat());
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    server.wait_until("the key is seen", || {
        server.connect().request("POST", "/v1/events", &headers, b"?").status == 400
    });
    let mut sent = 0;
    for sdk in &SDKS {
        run(sdk.command(&folder, &server.url(), Some(&key)));
        sent += sdk.events();
        let row = &server
            .query("SELECT count(*) AS n, count(*) FILTER (tenant = 'acme') AS own FROM events")[0];
        assert_eq!((&row["n"], &row["own"]), (&sent.into(), &sent.into()), "{}", sdk.title());
    }
}

#[test]
fn after_a_503_and_a_cut_connection_sdks_for_node_try_again_without_a_duplicate() {
    try_again(Node);
}

#[test]
fn after_a_503_and_a_cut_connection_sdks_for_python_try_again_without_a_duplicate() {
    try_again(Python);
}

fn try_again(language: Language) {
    let Some(folder) = clients() else { return };
    let full = FullServer::start();
    for sdk in SDKS.iter().filter(|sdk| sdk.language == language) {
        let title = sdk.title();
        let refused = full.refused();
        if sdk.retries == Never {
            // What such an SDK says about it is its own affair.
            sdk.command(&folder, &full.server.url(), None).output().unwrap();
            assert!(full.refused() > refused, "{title} was refused");
            continue;
        }
        let server = Server::start();
        let fault = FaultyProxy::start(full.server.address, server.address);
        let output = sdk.command(&folder, &fault.url, None).output().unwrap();
        assert!(output.status.success(), "{title}: {}", text(&output.stderr));
        assert!(full.refused() > refused, "{title} was refused");
        let requests = fault.requests.lock().unwrap();
        for (kind, count) in requests.iter() {
            assert!(*count > 2, "{title} has sent {kind} again, not {count} times");
        }
        let known = server.accounting()["duplicate"].as_u64().unwrap();
        if sdk.retries == Known {
            check(&title, &server, sdk.rows, sdk.times);
            assert!(known > 0, "{title}: what was stored unheard is known when it comes again");
        } else {
            // Only what a cut connection has lost the answer to, not what a 503 has refused.
            let twice = requests.len() * sdk.rows.len();
            assert_eq!(lines(&server).len(), sdk.events() + twice, "{title}");
            assert_eq!(known, 0, "{title}");
        }
    }
    assert_eq!(full.server.accounting()["stored"], 0, "a 503 stores nothing");
}

/// A server that finds its disk too full, and so refuses all events with 503.
struct FullServer {
    server: Server,
    _directory: tempfile::TempDir,
}

impl FullServer {
    fn start() -> FullServer {
        let directory = tempfile::tempdir().unwrap();
        let pebibyte = [("RINGLAKE_DISK_FREE_MIN_BYTES", "1125899906842624")];
        let server = Server::starting_on(&directory.path().join("data"), &pebibyte);
        server.wait_until("the disk is too full", || {
            server.get("/readyz").text().contains("the disk is full")
        });
        FullServer { server, _directory: directory }
    }

    fn refused(&self) -> u64 {
        self.server.accounting()["refused"]["disk_full"].as_u64().unwrap()
    }
}

/// Hands requests to servers: the first one of each kind to one that refuses it, all others to one
/// that takes them. The answer to the second one of each kind is lost, and its connection cut.
struct FaultyProxy {
    url: String,
    /// How many requests there were of each kind: path and content type.
    requests: Arc<Mutex<HashMap<String, usize>>>,
}

impl FaultyProxy {
    fn start(refusing: SocketAddr, taking: SocketAddr) -> FaultyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::default();
        let counts = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counts = Arc::clone(&counts);
                thread::spawn(move || relay(stream, refusing, taking, &counts));
            }
        });
        FaultyProxy { url, requests }
    }
}

/// Relays one request and closes; `None` when the client went away.
fn relay(
    mut client: TcpStream,
    refusing: SocketAddr,
    taking: SocketAddr,
    requests: &Mutex<HashMap<String, usize>>,
) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let (mut head, mut kind, mut body) = (String::new(), String::new(), Vec::new());
    let (mut length, mut chunked) = (0, false);
    loop {
        let line = read_line(&mut reader)?;
        let lower = line.trim_end().to_ascii_lowercase();
        match lower.split_once(": ") {
            _ if lower.is_empty() => break,
            Some(("connection", _)) => continue,
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(("content-type", value)) => kind.push_str(value),
            None => kind.push_str(line.split(['?', ' ']).nth(1)?),
            Some(_) => {}
        }
        head.push_str(&line);
    }
    // Chunks are handed on as they came.
    while chunked {
        let line = read_line(&mut reader)?;
        let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
        body.extend_from_slice(line.as_bytes());
        read_exactly(&mut reader, size + 2, &mut body)?;
        chunked = size > 0;
    }
    read_exactly(&mut reader, length, &mut body)?;
    let number = {
        let mut requests = requests.lock().unwrap();
        let count = requests.entry(kind).or_default();
        *count += 1;
        *count
    };
    let mut upstream = TcpStream::connect(if number == 1 { refusing } else { taking }).ok()?;
    upstream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).ok()?;
    upstream.write_all(&body).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    if number == 2 { None } else { client.write_all(&answer).ok() }
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    Some(line)
}

/// Adds `count` bytes to `body`.
fn read_exactly(reader: &mut impl Read, count: usize, body: &mut Vec<u8>) -> Option<()> {
    let start = body.len();
    body.resize(start + count, 0);
    reader.read_exact(&mut body[start..]).ok()
}
