//! A page in a real browser: what `navigator.sendBeacon` and a pixel send is in the table soon, by
//! itself.
//!
//! The page comes from another port than the server, so that every request is cross-origin, as on
//! a real site. Without a Chromium the test says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Browser, PATIENCE, Server};

/// From the page's last call to all four events in an answer to SQL. A second is promised; a machine
/// that runs a browser and other tests is given some more.
const VISIBLE_WITHIN: Duration = Duration::from_secs(20);
/// The first round pays for the browser's warm-up and the preflight.
const ROUNDS: u32 = 3;
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

/// What the browser calls the beacons of a round, and where they are stored from.
const KINDS: [(&str, &str); 4] =
    [("blob", "events"), ("bytes", "events"), ("pixel", "pixel"), ("text", "events")];

/// `TARGET` and `ROUNDS` are filled in. `/go` is answered when the test is ready for the round;
/// `/sent` tells it that everything has been handed to the browser.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Beacons</title><script>
const target = "TARGET";
const event = (kind, round) => JSON.stringify({
  type: "track", event: kind, url: location.href, session_id: "round-" + round,
  properties: { title: "Grüße 東京 🎉" },
});
async function send(round) {
  await fetch("/go?" + round);
  const queued = [
    navigator.sendBeacon(target + "/v1/events", event("text", round)),
    navigator.sendBeacon(target + "/v1/events",
      new Blob([event("blob", round)], { type: "application/json" })),
    navigator.sendBeacon(target + "/v1/events", new TextEncoder().encode(event("bytes", round))),
  ];
  new Image().src = target + "/v1/pixel.gif?type=page&event=pixel&session_id=round-" + round
    + "&title=" + encodeURIComponent("Grüße 東京 🎉");
  await fetch("/sent?" + queued.every(Boolean));
}
(async () => { for (let round = 1; round <= ROUNDS; round++) await send(round); })();
</script>"#;

#[test]
fn beacons_and_pixels_of_a_page_are_in_the_table_soon() {
    let server = Server::start();
    let page = Page::serve(&server.url());
    let Some(_browser) = Browser::open(&page.url) else { return };

    let mut fastest = PATIENCE;
    for round in 1..=ROUNDS {
        page.go.send(()).unwrap();
        let sent = page.sent.recv_timeout(PATIENCE).expect("the page sends its beacons");
        assert_eq!(sent.queued, "true", "the browser queued all beacons");
        let taken = visible(&server, round, sent.at);
        eprintln!("round {round}: all four visible {} ms after they were sent", taken.as_millis());
        fastest = fastest.min(taken);
    }
    assert!(fastest <= VISIBLE_WITHIN, "the fastest of {ROUNDS} rounds took {fastest:?}");
    server.accounting();
}

/// Waits until all events of a round are there as they should be; gives the time since `sent`.
fn visible(server: &Server, round: u32, sent: Instant) -> Duration {
    let sql = format!(
        "SELECT event, source, type, url, properties FROM events \
         WHERE session_id = 'round-{round}' ORDER BY event"
    );
    loop {
        // Not through a flush: what is measured is how soon events appear by themselves.
        let answer = server.post("/v1/query", &sql);
        let taken = sent.elapsed();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let rows: Vec<Value> =
            answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if rows.len() >= KINDS.len() {
            check(&rows);
            return taken;
        }
        assert!(taken < PATIENCE, "only {rows:?} arrived");
        thread::sleep(POLL);
    }
}

fn check(rows: &[Value]) {
    let seen: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row["event"].as_str().unwrap(), row["source"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, KINDS);
    for row in rows {
        let properties: Value = match &row["properties"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            other => other.clone(),
        };
        assert_eq!(properties["title"], "Grüße 東京 🎉", "{row}");
        assert_eq!(row["type"], if row["event"] == "pixel" { "page" } else { "track" });
    }
}

/// The site that the page comes from.
struct Page {
    url: String,
    /// Lets the page send the next round.
    go: Sender<()>,
    /// The page has sent a round.
    sent: Receiver<Sent>,
}

struct Sent {
    at: Instant,
    /// What `sendBeacon` said, "true" when it took all.
    queued: String,
}

impl Page {
    fn serve(target: &str) -> Page {
        let html = PAGE.replace("TARGET", target).replace("ROUNDS", &ROUNDS.to_string());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (go, ready) = channel();
        let (sender, sent) = channel();
        let ready = Arc::new(std::sync::Mutex::new(ready));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (html, ready, sender) = (html.clone(), Arc::clone(&ready), sender.clone());
                // The browser opens spare connections; each gets a thread, so none blocks another.
                thread::spawn(move || answer(stream, &html, &ready, &sender));
            }
        });
        Page { url, go, sent }
    }
}

/// Answers one request and closes. `None` when the browser went away, which is fine.
fn answer(
    mut stream: TcpStream,
    html: &str,
    ready: &std::sync::Mutex<Receiver<()>>,
    sender: &Sender<Sent>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let at = Instant::now();
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1)?;
    let body = match path.split_once('?') {
        None if path == "/" => html,
        Some(("/go", _)) => {
            ready.lock().unwrap().recv().ok()?;
            ""
        }
        Some(("/sent", queued)) => {
            sender.send(Sent { at, queued: queued.to_owned() }).ok()?;
            ""
        }
        _ => "",
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .ok()
}
