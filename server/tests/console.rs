//! The console: what it is served with, who may see it, and that it shows what is there in a real
//! browser. Without a Chromium that part says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::process::Command;

use support::{Connection, Server, basic, chromium, skip};

const BASIC: &str = "Basic realm=\"ringlake, key as the user name\"";
/// Milliseconds of the page's own time; the browser lets it pass as fast as answers come.
const PAGE_TIME: &str = "--virtual-time-budget=8000";

#[test]
fn the_page_brings_everything_along_and_lets_nothing_else_in() {
    let server = Server::start();
    for (path, kind) in [("/", "text/html"), ("/console.css", "text/css")] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with(kind));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        // Nothing is fetched from elsewhere.
        assert!(!answer.text().contains("//"), "{path}");
    }
    let script = server.get("/console.js").text();
    assert!(!script.contains("innerHTML"), "what events hold is text");
    let foreign = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(server.connect().request("GET", "/", &foreign, b"").status, 403);
}

#[test]
fn a_browser_is_asked_for_a_key_once_there_are_keys() {
    let server = Server::with_keys(&[]);
    let read = server.post("/v1/admin/keys", r#"{"scope":"read","tenant":"acme"}"#).json();
    let ask = |path: &str, headers: &[(&str, &str)]| {
        Connection::new(server.address).request("GET", path, headers, b"")
    };
    let refused = ask("/", &[]);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some(BASIC)));
    assert_eq!(ask("/v1/status", &[]).header("www-authenticate"), Some("Bearer"));
    let login = basic(read["key"].as_str().unwrap());
    assert_eq!(ask("/", &[("Authorization", &login)]).status, 200);
}

#[test]
fn a_browser_shows_figures_events_and_the_result_of_a_query() {
    let Some(chromium) = chromium() else {
        skip("a browser (apt-get install chromium)");
        return;
    };
    let server = Server::start();
    server.post("/v1/events", r#"[{"event":"<b id=evil>","user_id":"u1"},{"event":"shown"}]"#);
    server.post("/v1/events", r#"{"event":"bad","timestamp":"never"}"#);
    server.post("/v1/admin/flush", b"");
    let profile = tempfile::tempdir().unwrap();
    let sql = "SELECT%20event%2C%20count(*)%20AS%20n%20FROM%20events%20GROUP%20BY%20event";
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args([PAGE_TIME, "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("{}/#{sql}", server.url()))
        .output()
        .unwrap();
    let page = support::text(&output.stdout);
    for part in [
        "<span id=\"state\" class=\"pill good\">ready</span>",
        "<p class=\"detail\" id=\"reasons\">invalid 1</p>",
        "2 rows in",
        "<td title=\"shown\">shown</td>",
        "&lt;b id=evil&gt;</td>",
        "<td title=\"u1\">u1</td>",
        "shard 1",
        "<title>shown: 1</title></rect>",
    ] {
        assert!(page.contains(part), "{part}\n{page}\n{}", support::text(&output.stderr));
    }
    assert!(!page.contains("<b id="), "{page}");
}
