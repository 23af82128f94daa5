//! Traces, against a collector that writes down what it is sent.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use support::{Answer, Server, run, text};

mod support;

const EVENTS: &str = "/v1/events";
/// A sample that no request comes into by itself.
const NONE_BY_ITSELF: &str = "0.0000000000001";
const CLIENT_SPAN: [u8; 8] = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];

/// The header of a client that samples its trace number `n`.
fn sampled(n: u8) -> String {
    format!("00-{:032x}-00f067aa0ba902b7-01", n)
}

/// The id of that trace.
fn trace_id(n: u8) -> Vec<u8> {
    u128::from(n).to_be_bytes().into()
}

/// A collector of OTLP over HTTP.
#[derive(Clone)]
struct Collector {
    url: String,
    /// The bodies it has been sent.
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self { url, bodies: Arc::default() };
        let taking = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let taking = taking.clone();
                std::thread::spawn(move || taking.serve(stream.unwrap()));
            }
        });
        collector
    }

    /// Takes requests until the client goes.
    fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if line == "\r\n" {
                    break;
                }
                head.push(line.trim_end().to_lowercase());
            }
            assert_eq!(head[0], "post /v1/traces http/1.1");
            assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            self.bodies.lock().unwrap().push(body);
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                content-length: 0\r\n\r\n";
            if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// Every span so far.
    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap().clone();
        let requests =
            bodies.iter().map(|body| ExportTraceServiceRequest::decode(&**body).unwrap());
        requests
            .flat_map(|request| request.resource_spans)
            .inspect(|of| {
                let service = &of.resource.as_ref().unwrap().attributes[0];
                assert_eq!(
                    (service.key.as_str(), said(service)),
                    ("service.name", "ringlake".into())
                );
            })
            .flat_map(|of| of.scope_spans)
            .flat_map(|of| of.spans)
            .collect()
    }

    /// The request and its stages of trace `n`, once the collector has them.
    fn trace(&self, server: &Server, n: u8) -> (Span, Vec<Span>) {
        let mut spans = Vec::new();
        server.wait_until("the trace arrives", || {
            spans = self.spans();
            spans.retain(|span| span.trace_id == trace_id(n));
            !spans.is_empty()
        });
        // They are sent together, the request first.
        let stages = spans.split_off(1);
        (spans.remove(0), stages)
    }

    /// Whether any body holds `text`.
    fn was_told(&self, text: &str) -> bool {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().any(|body| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

fn said(attribute: &opentelemetry_proto::tonic::common::v1::KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.clone()).unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    span.attributes.iter().map(|one| (one.key.as_str(), said(one))).collect()
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// Checks that the stages lie inside their request, one behind the other.
fn assert_in_order(request: &Span, stages: &[Span]) {
    let mut at = request.start_time_unix_nano;
    for stage in stages {
        assert_eq!((&stage.trace_id, &stage.parent_span_id), (&request.trace_id, &request.span_id));
        assert!(at <= stage.start_time_unix_nano, "{request:?} {stages:?}");
        assert!(stage.start_time_unix_nano <= stage.end_time_unix_nano);
        at = stage.end_time_unix_nano;
    }
    assert!(at <= request.end_time_unix_nano, "{request:?} {stages:?}");
}

fn ask(server: &Server, path: &str, n: u8, body: &str) -> Answer {
    let method = if body.is_empty() { "GET" } else { "POST" };
    server.connect().request(method, path, &[("traceparent", &sampled(n))], body.as_bytes())
}

fn with_collector(collector: &Collector, sample: &str) -> Server {
    Server::with(&[("RINGLAKE_TRACES_URL", &collector.url), ("RINGLAKE_TRACES_SAMPLE", sample)])
}

#[test]
fn a_request_that_its_client_samples_goes_on_in_the_same_trace() {
    let collector = Collector::start();
    let server = with_collector(&collector, NONE_BY_ITSELF);
    assert_eq!(server.post(EVENTS, r#"{"event":"not traced"}"#).status, 202);
    assert_eq!(ask(&server, EVENTS, 1, r#"{"event":"traced"}"#).status, 202);
    let (request, stages) = collector.trace(&server, 1);
    assert_eq!((request.name.as_str(), request.kind), ("POST /v1/events", 2));
    assert_eq!(request.parent_span_id, CLIENT_SPAN);
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "202"),
        ("http.route", EVENTS),
    ];
    assert_eq!(attributes(&request), expected.map(|(key, value)| (key, value.to_owned())).into());
    assert_eq!(names(&stages), ["read body", "decode", "wait for log"]);
    assert_in_order(&request, &stages);

    server.flush();
    let answer = ask(&server, "/v1/query", 2, "SELECT event FROM events");
    assert_eq!((answer.status, answer.text().lines().count()), (200, 2));
    let (request, stages) = collector.trace(&server, 2);
    assert_eq!(request.name, "POST /v1/query");
    assert_eq!(names(&stages), ["plan", "first rows", "stream"]);
    assert_in_order(&request, &stages);

    // Nobody else has asked for a trace.
    let spans = collector.spans();
    assert!(spans.iter().all(|span| [trace_id(1), trace_id(2)].contains(&span.trace_id)));
}

#[test]
fn a_sample_of_everything_names_routes_and_nothing_of_the_client() {
    let collector = Collector::start();
    let server = Server::with_keys(&[
        ("RINGLAKE_TRACES_URL", &collector.url),
        ("RINGLAKE_TRACES_SAMPLE", "1"),
    ]);
    let key = server.key().to_owned();
    let secrets = ["hushuser", "hushevent", "hushpath", "hushmethod", "hushquery", key.as_str()];
    let event =
        format!(r#"{{"event":"hushevent","user_id":"hushuser","properties":{{"k":"{key}"}}}}"#);
    assert_eq!(ask(&server, &format!("{EVENTS}?utm=hushquery&key={key}"), 1, &event).status, 202);
    assert_eq!(ask(&server, "/v1/pixel.gif?type=page&event=hushevent", 2, "").status, 200);
    assert_eq!(ask(&server, "/v1/identify", 3, r#"{"userId":"hushuser"}"#).status, 200);
    assert_eq!(ask(&server, "/v1/exports/hushpath", 4, "").status, 404);
    assert_eq!(ask(&server, "/hushpath", 5, "").status, 404);
    let odd = server.connect().request("HUSHMETHOD", EVENTS, &[("traceparent", &sampled(6))], b"");
    assert_eq!(odd.status, 405);
    let of = |n| {
        let (request, stages) = collector.trace(&server, n);
        assert_in_order(&request, &stages);
        let stages: Vec<String> = stages.into_iter().map(|stage| stage.name).collect();
        (request.name, stages.join(", "))
    };
    let with = |name: &str, stages: &str| (name.to_owned(), stages.to_owned());
    let body = "check key, read body, decode, wait for log";
    assert_eq!(of(1), with("POST /v1/events", body));
    assert_eq!(of(2), with("GET /v1/pixel.gif", "check key, decode, wait for log"));
    assert_eq!(of(3), with("POST /v1/identify", body));
    assert_eq!(of(4), with("GET /v1/exports/{id}", ""));
    assert_eq!(of(5), with("GET", ""));
    assert_eq!(of(6), with("_OTHER /v1/events", ""));
    for secret in secrets {
        assert!(!collector.was_told(secret), "{secret}");
        assert!(!collector.was_told(&secret.to_uppercase()), "{secret}");
    }
    let metrics = server.get("/metrics").text();
    assert!(metrics.lines().any(|line| line == "trace_spans_dropped_total 0"), "{metrics}");
}

#[test]
fn background_work_is_traced_whatever_the_sample_and_at_zero_no_request_is() {
    let collector = Collector::start();
    let server = with_collector(&collector, "0");
    for user in ["a", "b"] {
        let event = format!(r#"{{"event":"bought","user_id":"{user}"}}"#);
        assert_eq!(ask(&server, EVENTS, 1, &event).status, 202);
        server.roll();
    }
    assert_eq!(server.post("/v1/admin/compact", b"").status, 200);
    assert_eq!(server.post("/v1/exports", "{}").status, 202);
    assert_eq!(server.post("/v1/admin/erase", r#"{"tenant":"default","user_id":"b"}"#).status, 202);
    let wanted = ["roll", "compaction", "export", "erase"];
    let mut spans = Vec::new();
    server.wait_until("all work is traced", || {
        spans = collector.spans();
        wanted.iter().all(|name| spans.iter().any(|span| span.name == *name))
    });
    assert!(spans.iter().all(|span| wanted.contains(&span.name.as_str())), "{:?}", names(&spans));
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty() && span.status.is_none()));
    let roll = spans.iter().find(|span| span.name == "roll").unwrap();
    assert_eq!(attributes(roll)["ringlake.rows"], "1");
    let compaction = spans.iter().find(|span| span.name == "compaction").unwrap();
    assert_eq!(attributes(compaction)["ringlake.inputs"], "2");
}

#[test]
fn the_last_spans_are_sent_when_the_server_stops() {
    let collector = Collector::start();
    let server = with_collector(&collector, NONE_BY_ITSELF);
    assert_eq!(ask(&server, EVENTS, 1, r#"{"event":"a"}"#).status, 202);
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    // On a machine that is very slow they are given up, which the server says.
    let arrived = collector.spans().iter().any(|span| span.trace_id == trace_id(1));
    assert!(arrived || log.contains("the last traces are dropped"), "{log}");
}

#[test]
fn a_collector_that_is_away_costs_its_spans_and_one_line() {
    // Nobody listens at the port of tcpmux any more.
    let variables =
        [("RINGLAKE_TRACES_URL", "http://127.0.0.1:1"), ("RINGLAKE_TRACES_SAMPLE", "1")];
    let server = Server::with(&variables);
    let mut connection = server.connect();
    for _ in 0..200 {
        assert_eq!(connection.request("POST", EVENTS, &[], b"{\"event\":\"a\"}").status, 202);
    }
    let dropped = || -> u64 {
        let metrics = server.get("/metrics").text();
        let line = metrics.lines().find(|line| line.starts_with("trace_spans_dropped_total "));
        line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    };
    // Each of the 200 has a span and three stages.
    server.wait_until("the spans are dropped", || dropped() >= 800);
    assert_eq!(server.count(), 200);
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
}

#[test]
fn a_collector_that_never_answers_keeps_no_server_from_stopping() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let server = Server::with(&[("RINGLAKE_TRACES_URL", &url), ("RINGLAKE_TRACES_SAMPLE", "1")]);
    assert_eq!(server.post(EVENTS, r#"{"event":"a"}"#).status, 202);
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("everything accepted is durable"), "{log}");
}

#[test]
fn a_collector_needs_a_url_that_it_can_have() {
    for url in ["ftp://collector", "collector:4318", "http://collector?token=1"] {
        let refused = run(&["serve", "--listen", "127.0.0.1:0", "--traces", url]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains("no traces"), "{}", text(&refused.stderr));
    }
}
