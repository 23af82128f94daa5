//! The trackers that sites put into their pages, in a real browser, on a page of another origin:
//! posthog-js, Plausible's tracker and web-vitals deliver where the key allows the page's origin,
//! and are refused where it does not.
//!
//! Without a Chromium, or without the packages (see `clients.rs`), it says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

#[path = "clients/rows.rs"]
mod rows;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rows::{Row, check, lines};
use support::{Browser, Server, clients, make_key};

/// What a page loads from its own site, and where the packages have it.
const SCRIPTS: [(&str, &str); 3] = [
    ("/posthog.js", "posthog-js/dist/module.no-external.js"),
    ("/plausible.js", "@plausible-analytics/tracker/plausible.js"),
    ("/web-vitals.js", "web-vitals/dist/web-vitals.js"),
];

/// Where every visit begins, so that the page has a referrer.
const ENTRANCE: &str = "<!doctype html><script>location.replace('/shop')</script>";

/// The page around a tracker. It tells its site of whatever goes wrong: what nobody catches, what
/// the console would show, and requests that fail or are refused.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Shop</title><h1>Shop</h1><script>
const send = window.fetch.bind(window);
const problem = (...words) => send("/problem?" + encodeURIComponent(words.join(" ")));
addEventListener("error", (event) => problem("uncaught:", event.message));
addEventListener("unhandledrejection", (event) => problem("unhandled:", event.reason));
console.error = console.warn = (...words) => problem("console:", ...words);
window.fetch = (target, options) => send(target, options).then(
  (answer) => { if (!answer.ok) problem(target, answer.status); return answer; },
  (error) => { problem(target, error); throw error; },
);
</script><script type="module">SCRIPT</script>"#;

/// `TARGET` and `KEY` are filled in here and below. It ignores headless browsers unless it is told.
const POSTHOG: &str = r#"
import posthog from "/posthog.js";
posthog.init("KEY", {
  api_host: "TARGET", opt_out_useragent_filter: true, advanced_disable_flags: true,
  capture_pageview: true, autocapture: false, disable_session_recording: true,
});
posthog.identify("u1", { plan: "pro" });
posthog.group("company", "g1", { size: 3 });
posthog.alias("u2");
posthog.capture("Bought", { title: "Grüße 東京 🎉" });"#;

/// The second page view ends the engagement with the first one.
const PLAUSIBLE: &str = r#"
import { init, track } from "/plausible.js";
init({ domain: "shop.example", endpoint: "TARGET/api/event", captureOnLocalhost: true });
track("Bought", {
  props: { title: "Grüße 東京 🎉" }, revenue: { amount: 12.5, currency: "EUR" },
});
history.pushState({}, "", "/cart");"#;

/// Metrics as they are, and one in our own shape. Later reports that correct one are not sent.
const WEB_VITALS: &str = r#"
import { onCLS, onFCP, onLCP, onTTFB } from "/web-vitals.js";
const beacon = (event) => {
  if (!navigator.sendBeacon("TARGET/v1/events?key=KEY", JSON.stringify(event))) problem("unsent");
};
const sent = new Set();
for (const on of [onCLS, onFCP, onLCP, onTTFB]) {
  on((metric) => {
    if (sent.has(metric.name)) return;
    sent.add(metric.name);
    beacon(metric);
  }, { reportAllChanges: true });
}
onTTFB((metric) => beacon({
  type: "page", event: metric.name, url: location.href, referrer: document.referrer,
  properties: { ...metric, title: "Grüße 東京 🎉" },
}));"#;

/// Ids of devices and sessions are invented by the tracker. `SITE` is filled in here and below.
#[test]
fn posthog_js_delivers_from_an_allowed_origin_only() {
    let expected = [
        ("posthog alias $create_alias user=u1 WHERE id", r#"{"alias":"u2"}"#),
        (
            "posthog group $groupidentify user=u1 WHERE id",
            r#"{"$group_type":"company","$group_key":"g1","$group_set":{"size":3}}"#,
        ),
        ("posthog identify $identify user=u1 WHERE id", r#"{"$set":{"plan":"pro"}}"#),
        ("posthog page $pageview user=u1 WHERE id", r#"{"title":"Shop"}"#),
        ("posthog track Bought user=u1 WHERE id", r#"{"title":"Grüße 東京 🎉"}"#),
    ];
    let place = "device=random session=random url=SITE/shop from=SITE/ now";
    let expected = expected.map(|(line, least)| (line.replace("WHERE", place), least));
    judge(POSTHOG, &expected, true);
}

#[test]
fn plausibles_tracker_delivers_from_an_allowed_origin_only() {
    let expected = [
        ("plausible page pageview url=SITE/cart from=SITE/ now", r#"{"d":"shop.example"}"#),
        ("plausible page pageview url=SITE/shop from=SITE/ now", r#"{"d":"shop.example"}"#),
        (
            "plausible track Bought url=SITE/shop from=SITE/ now",
            r#"{"title":"Grüße 東京 🎉","$":{"amount":12.5,"currency":"EUR"}}"#,
        ),
        ("plausible track engagement url=SITE/shop now", r#"{"d":"shop.example","sd":100}"#),
    ];
    judge(PLAUSIBLE, &expected.map(|(line, least)| (line.to_owned(), least)), true);
}

#[test]
fn web_vitals_are_delivered_from_an_allowed_origin_only() {
    let raw = r#"{"value":null,"delta":null,"rating":null,"id":null,"navigationType":"navigate"}"#;
    let expected = [
        ("events page TTFB url=SITE/shop from=SITE/ now", r#"{"title":"Grüße 東京 🎉"}"#),
        ("events track CLS now", r#"{"value":0,"delta":0,"rating":"good"}"#),
        ("events track FCP now", raw),
        ("events track LCP now", raw),
        ("events track TTFB now", raw),
    ];
    // A beacon's page does not hear what became of it.
    judge(WEB_VITALS, &expected.map(|(line, least)| (line.to_owned(), least)), false);
}

/// Shows a page with `script` on the site that the key names, where `expected` has to come and
/// nothing may go wrong, and on another one, where it is refused and `hears` it.
fn judge(script: &str, expected: &[(String, &str)], hears: bool) {
    let Some(folder) = clients() else { return };
    let (site, other) = (Site::bind(), Site::bind());
    let server = Server::with_keys(&[]);
    let write = ["--scope", "write", "--alias", "shop.example", "--origin", &site.url];
    let key = make_key(&server.data, &write);
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    server.wait_until("the key is seen", || {
        server.connect().request("POST", "/v1/events", &headers, b"?").status == 400
    });
    let script = script.replace("TARGET", &server.url()).replace("KEY", &key);
    let page = PAGE.replace("SCRIPT", &script);

    let expected: Vec<(String, &str)> =
        expected.iter().map(|(line, least)| (line.replace("SITE", &site.url), *least)).collect();
    let expected: Vec<Row<'_>> =
        expected.iter().map(|(line, least)| (line.as_str(), *least)).collect();
    site.serve(&folder, &page);
    let Some(allowed) = Browser::open(&site.url) else { return };
    server.wait_until("everything has come", || lines(&server).len() >= expected.len());
    drop(allowed);
    check("the page", &server, &expected, 1);
    assert_eq!(site.problems(), [""; 0]);
    assert_eq!(turned_away(&server), 0);

    other.serve(&folder, &page);
    let _refused = Browser::open(&other.url).unwrap();
    server.wait_until("it is refused", || turned_away(&server) > 0);
    server.wait_until("the page hears it", || !hears || !other.problems().is_empty());
    check("the page", &server, &expected, 1);
}

/// Requests that were refused for where they came from.
fn turned_away(server: &Server) -> u64 {
    let metrics = server.get("/metrics").text();
    let start = "validation_errors_total{type=\"forbidden\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(start));
    count.map_or(0, |count| count.parse().unwrap())
}

/// A site on a port, and so an origin, of its own.
struct Site {
    url: String,
    listener: TcpListener,
    /// What its pages have told of, percent-encoded.
    problems: Arc<Mutex<Vec<String>>>,
}

impl Site {
    fn bind() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Site { url, listener, problems: Arc::default() }
    }

    /// Serves `page` and the scripts until the process ends.
    fn serve(&self, folder: &Path, page: &str) {
        let modules: PathBuf = folder.join("node_modules");
        let page = Arc::new(page.to_owned());
        let listener = self.listener.try_clone().unwrap();
        let problems = Arc::clone(&self.problems);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (modules, page) = (modules.clone(), Arc::clone(&page));
                let problems = Arc::clone(&problems);
                thread::spawn(move || answer(stream, &modules, &page, &problems));
            }
        });
    }

    fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap().clone()
    }
}

/// Answers one request and closes. `None` when the browser went away, which is fine.
fn answer(
    mut stream: TcpStream,
    modules: &Path,
    page: &str,
    problems: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1)?;
    if let Some(problem) = path.strip_prefix("/problem?") {
        problems.lock().unwrap().push(problem.to_owned());
    }
    let script = SCRIPTS.iter().find(|(name, _)| *name == path);
    let (kind, body) = match script {
        Some((_, file)) => {
            ("text/javascript", std::fs::read_to_string(modules.join(file)).unwrap())
        }
        None if path == "/" => ("text/html", ENTRANCE.to_owned()),
        None => ("text/html", page.to_owned()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .ok()
}
