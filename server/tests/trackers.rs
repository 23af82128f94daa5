//! The trackers that sites put into their pages, in a real browser, on a page of another origin:
//! posthog-js, Plausible's tracker and web-vitals deliver where the key allows the page's origin, and
//! are refused where it does not.
//!
//! Without a Chromium, or without the packages (see `clients.rs`), it says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use support::{Browser, Server, clients, make_key};

/// What the page loads from its own site, and where the packages have it.
const SCRIPTS: [(&str, &str); 3] = [
    ("/posthog.js", "posthog-js/dist/module.no-external.js"),
    ("/plausible.js", "@plausible-analytics/tracker/plausible.js"),
    ("/web-vitals.js", "web-vitals/dist/web-vitals.js"),
];

/// `TARGET` and `KEY` are filled in. Both trackers leave headless browsers out unless they are told.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Shop</title><h1>Shop</h1>
<script type="module">
import posthog from "/posthog.js";
import { init, track } from "/plausible.js";
import { onTTFB } from "/web-vitals.js";
posthog.init("KEY", {
  api_host: "TARGET", opt_out_useragent_filter: true, advanced_disable_flags: true,
  capture_pageview: true, autocapture: false, disable_session_recording: true,
});
posthog.identify("u1", { plan: "pro" });
posthog.capture("Bought", { title: "Grüße 東京 🎉" });
init({ domain: "shop.example", endpoint: "TARGET/api/event", captureOnLocalhost: true });
track("Bought", { props: { title: "Grüße 東京 🎉" } });
onTTFB((metric) => navigator.sendBeacon("TARGET/v1/events?key=KEY",
  JSON.stringify({ type: "track", event: metric.name, url: location.href, properties: metric })));
</script>"#;

/// One row a kind.
const ROWS: &str = "SELECT concat_ws(' ', coalesce(source, '-'), type, event, coalesce(user_id, '-'), \
    url LIKE 'http://127.0.0.1:%', contains(properties, 'Grüße 東京 🎉')) AS line \
    FROM events ORDER BY line";

#[test]
fn trackers_deliver_from_the_origin_that_their_key_allows_and_from_no_other() {
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
    let page = PAGE.replace("TARGET", &server.url()).replace("KEY", &key);
    let origin = site.url.clone();
    site.serve(&folder, &page);
    let Some(allowed) = Browser::open(&origin) else { return };
    let expected = [
        "events track TTFB - true false",
        "plausible page pageview - true false",
        "plausible track Bought - true true",
        "posthog identify $identify u1 true false",
        "posthog page $pageview u1 true false",
        "posthog track Bought u1 true true",
    ];
    let lines = || -> Vec<String> {
        let rows = server.query(ROWS);
        rows.iter().map(|row| row["line"].as_str().unwrap().to_owned()).collect()
    };
    server.wait_until("everything has come", || {
        let lines = lines();
        assert!(lines.len() <= expected.len(), "{lines:?}");
        lines.len() == expected.len()
    });
    drop(allowed);
    assert_eq!(lines(), expected);
    assert_eq!(turned_away(&server), 0);

    let origin = other.url.clone();
    other.serve(&folder, &page);
    let _refused = Browser::open(&origin).unwrap();
    server.wait_until("all three are refused", || turned_away(&server) >= 3);
    assert_eq!(lines(), expected);
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
}

impl Site {
    fn bind() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Site { url: format!("http://{}", listener.local_addr().unwrap()), listener }
    }

    /// Serves `page` and the scripts until the process ends.
    fn serve(self, folder: &Path, page: &str) {
        let modules: PathBuf = folder.join("node_modules");
        let page = Arc::new(page.to_owned());
        thread::spawn(move || {
            for stream in self.listener.incoming().map_while(Result::ok) {
                let (modules, page) = (modules.clone(), Arc::clone(&page));
                thread::spawn(move || answer(stream, &modules, &page));
            }
        });
    }
}

/// Answers one request and closes. `None` when the browser went away, which is fine.
fn answer(mut stream: TcpStream, modules: &Path, page: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1)?;
    let script = SCRIPTS.iter().find(|(name, _)| *name == path);
    let (kind, body) = match script {
        Some((_, file)) => {
            ("text/javascript", std::fs::read_to_string(modules.join(file)).unwrap())
        }
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
