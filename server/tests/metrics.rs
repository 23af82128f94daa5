//! What `server/ops` says about the metrics, against a server that has some.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::Server;

mod support;

const EVENTS: &str = "/v1/events";
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
/// Words of PromQL that look like a metric.
const KEYWORDS: [&str; 4] = ["and", "or", "unless", "bool"];

fn ops(name: &str) -> String {
    // Cargo runs tests in the folder of their package.
    std::fs::read_to_string(Path::new("ops").join(name)).unwrap()
}

/// A server that has seen something of everything.
fn busy_server() -> Server {
    let server = Server::start();
    server.post(EVENTS, r#"[{"event":"a","message_id":"1"},{"event":"b"}]"#);
    server.post(EVENTS, r#"{"event":"a","timestamp":"never"}"#);
    server.post("/v1/admin/roll", b"");
    server.query("SELECT 1");
    server
}

/// The families of a text, and the type of each.
fn families(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.into(), b.into())).collect()
}

/// The names of all samples in a text.
fn samples(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap()).collect()
}

/// The metrics that a PromQL expression names: what is left of its words without selectors, labels
/// that it groups by, functions and keywords.
fn named_in(expression: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let mut nested = 0;
    for letter in expression.chars() {
        match letter {
            '{' | '[' => nested += 1,
            '}' | ']' => nested -= 1,
            _ if nested == 0 => plain.push(letter),
            _ => {}
        }
    }
    for grouping in ["by (", "without (", "on ("] {
        while let Some(start) = plain.find(grouping) {
            let end = start + plain[start..].find(')').unwrap();
            plain.replace_range(start..=end, "");
        }
    }
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut names = BTreeSet::new();
    let mut rest = plain.as_str();
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|letter| !is_word(letter)).unwrap_or(word.len());
        rest = &word[end..];
        let is_function = rest.trim_start().starts_with('(');
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        if !is_function && !is_number && !KEYWORDS.contains(&&word[..end]) {
            names.insert(word[..end].to_owned());
        }
    }
    names
}

fn assert_exist(place: &str, expression: &str, known: &BTreeSet<&str>) {
    let names = named_in(expression);
    assert!(!names.is_empty(), "{place}: {expression}");
    for name in names {
        assert!(known.contains(name.as_str()), "{place} has no such metric: {name}");
    }
}

#[test]
fn the_documentation_names_every_metric_with_its_type_and_no_other() {
    let server = busy_server();
    let exposed = families(&server.get("/metrics").text());
    let document = ops("METRICS.md");
    let described: BTreeMap<String, String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            assert!(!cells[2].is_empty(), "{line}: a unit");
            (cells[0].trim_end_matches('`').to_owned(), cells[1].to_owned())
        })
        .collect();
    assert_eq!(described, exposed);
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let server = busy_server();
    let text = server.get("/metrics").text();
    let known = samples(&text);
    let dashboard: Value = serde_json::from_str(&ops("grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert_exist(title, target["expr"].as_str().unwrap(), &known);
        }
    }
    let alerts = ops("alerts.yml");
    let rules: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(panels.len() > 10 && rules.len() == alerts.matches("- alert: ").count());
    for rule in rules {
        assert_exist("alerts.yml", rule.trim_matches('\''), &known);
    }
}

#[test]
fn both_formats_hold_the_same_samples() {
    let server = busy_server();
    let plain = server.get("/metrics").text();
    let accept = [("Accept", OPEN_METRICS)];
    let answer = server.connect().request("GET", "/metrics", &accept, b"");
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let open = answer.text();
    assert!(open.ends_with("# EOF\n") && !plain.contains("# EOF"));
    assert_eq!(samples(&open), samples(&plain));
}

/// Prometheus' own opinion of both files and of the answer.
#[test]
fn promtool_has_no_complaint() {
    let server = busy_server();
    let tool = |arguments: &[&str]| {
        Command::new("promtool")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    let Ok(mut check) = tool(&["check", "metrics"]) else {
        support::skip("promtool (apt-get install prometheus)");
        return;
    };
    let text = server.get("/metrics").text();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", support::text(&output.stderr));
    assert_eq!(support::text(&output.stderr), "");
    let output = tool(&["check", "rules", "ops/alerts.yml"]).unwrap();
    let output = output.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", support::text(&output.stderr));
}

#[test]
fn the_names_in_an_expression_are_found() {
    let of = |expression| named_in(expression).into_iter().collect::<Vec<_>>();
    let quantile = "histogram_quantile(0.9, sum by (le) (rate(a_bucket{x=\"y\"}[5m]))) > 1";
    assert_eq!(of(quantile), ["a_bucket"]);
    assert_eq!(of("sum without (shard) (b) / c and on (i) d == 0"), ["b", "c", "d"]);
}
