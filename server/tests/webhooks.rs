//! Webhooks, against receivers that write down what they are sent.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Answer, Server, make_key};

mod support;

/// Receivers of these tests are on loopback; one shard has one order.
const ALLOWED: [(&str, &str); 2] =
    [("RINGLAKE_WEBHOOKS_ALLOW_PRIVATE", "true"), ("RINGLAKE_SHARDS", "1")];
const NO_CONTENT: &str = "204 No Content";

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq)]
struct Message {
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    /// Whether it was answered with something else than a 2xx.
    failed: bool,
}

impl Message {
    fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["events"].as_array().unwrap().clone()
    }

    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        let (id, time) = (&self.headers["webhook-id"], &self.headers["webhook-timestamp"]);
        mac.update(format!("{id}.{time}.{}", self.body).as_bytes());
        let expected = STANDARD.encode(mac.finalize().into_bytes());
        self.headers["webhook-signature"] == format!("v1,{expected}")
    }
}

/// A receiver: it answers what it was told to, and else that it is fine.
#[derive(Clone)]
struct Receiver {
    url: String,
    messages: Arc<Mutex<Vec<Message>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let receiver = Self { url, messages: Arc::default(), answers: Arc::default() };
        let taking = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let taking = taking.clone();
                std::thread::spawn(move || taking.serve(stream.unwrap()));
            }
        });
        receiver
    }

    /// Answers the next messages so, one after the other.
    fn answer_with(&self, answers: &[&str]) {
        self.answers.lock().unwrap().extend(answers.iter().map(|&answer| answer.to_owned()));
    }

    fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(mut message) = read(&mut stream) {
            let answer = self.answers.lock().unwrap().pop_front();
            let answer = answer.unwrap_or_else(|| NO_CONTENT.into());
            message.failed = !answer.starts_with('2');
            self.messages.lock().unwrap().push(message);
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// The user ids of all events that it has taken.
    fn taken(&self) -> Vec<String> {
        let messages = self.messages();
        let taken = messages.iter().filter(|message| !message.failed);
        taken.flat_map(users_of).collect()
    }

    /// The user ids of all events that have come.
    fn users(&self) -> Vec<String> {
        self.messages().iter().flat_map(users_of).collect()
    }
}

fn users_of(message: &Message) -> Vec<String> {
    let events = message.events();
    events.iter().map(|event| event["user_id"].as_str().unwrap().to_owned()).collect()
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Message> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut request = line.split(' ');
    assert_eq!(request.next(), Some("POST"));
    let path = request.next().unwrap().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(Message { path, headers, body: String::from_utf8(body).unwrap(), failed: false })
}

fn create(server: &Server, wanted: Value) -> Value {
    let made = server.post("/v1/webhooks", wanted.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    let webhook = made.json();
    let id = webhook["id"].as_str().unwrap();
    assert_eq!(made.header("location"), Some(format!("/v1/webhooks/{id}").as_str()));
    assert_eq!(made.header("cache-control"), Some("no-store"));
    webhook
}

fn path_of(webhook: &Value) -> String {
    format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap())
}

fn show(server: &Server, webhook: &Value) -> Value {
    server.get(&path_of(webhook)).json()
}

/// The attempts, newest first.
fn deliveries(server: &Server, webhook: &Value) -> Vec<Value> {
    let answer = server.get(&format!("{}/deliveries", path_of(webhook))).json();
    answer["deliveries"].as_array().unwrap().clone()
}

/// Sends events `event` of users `from` to before `to`.
fn send(server: &Server, event: &str, users: std::ops::Range<usize>) {
    let events: Vec<Value> =
        users.map(|user| json!({ "event": event, "user_id": user.to_string() })).collect();
    let answer = server.post("/v1/events", serde_json::to_vec(&events).unwrap());
    assert_eq!(answer.status, 202, "{}", answer.text());
}

fn numbers(users: std::ops::Range<usize>) -> Vec<String> {
    users.map(|user| user.to_string()).collect()
}

fn remove(server: &Server, webhook: &Value) -> Answer {
    server.connect().request("DELETE", &path_of(webhook), &[], b"")
}

#[test]
fn events_arrive_signed_and_as_the_listing_shows_them() {
    let (server, receiver) = (Server::with(&ALLOWED), Receiver::start());
    send(&server, "signup", 90..91);
    let webhook = create(&server, json!({ "url": receiver.url, "events": ["signup", "paid"] }));
    send(&server, "signup", 1..3);
    send(&server, "seen", 3..4);
    server.wait_until("the events arrive", || receiver.users().len() >= 2);
    assert_eq!(receiver.users(), numbers(1..3), "nothing from before, nothing else");

    let message = &receiver.messages()[0];
    assert_eq!(message.path, "/hook?a=b");
    assert_eq!(message.headers["content-type"], "application/json");
    assert!(message.headers["user-agent"].starts_with("ringlake/"));
    assert!(message.is_signed_with(webhook["secret"].as_str().unwrap()));
    assert!(!message.is_signed_with("whsec_bm90IHRoZSBzZWNyZXQ="));
    let listed = server.get("/v1/events?event=signup&order=asc").json();
    assert_eq!(message.events()[0], listed["events"][1]);

    server.wait_until("it is noted", || show(&server, &webhook)["delivered_events"] == 2);
    let shown = show(&server, &webhook);
    assert!(shown["secret"].is_null() && shown["tenant"].is_null());
    assert_eq!((&shown["state"], &shown["failures"]), (&json!("active"), &json!(0)));
    let all = server.get("/v1/webhooks").json();
    assert_eq!(all["webhooks"][0]["id"], webhook["id"]);
    let last = &deliveries(&server, &webhook)[0];
    assert_eq!((&last["outcome"], &last["status"]), (&json!("delivered"), &json!(204)));
    assert_eq!(last["message"], message.headers["webhook-id"].as_str());
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("webhook_deliveries_total{status=\"delivered\"} 1\n"), "{metrics}");
    assert!(metrics.contains("webhooks{state=\"active\"} 1\n"), "{metrics}");

    assert_eq!(remove(&server, &webhook).status, 204);
    assert_eq!(server.get(&path_of(&webhook)).status, 404);
    let other = create(&server, json!({ "url": receiver.url, "types": ["page"] }));
    send(&server, "signup", 4..5);
    let page = server.post("/v1/events", r#"{"type":"page","user_id":"5"}"#);
    assert_eq!(page.status, 202);
    server.wait_until("the page arrives", || receiver.users().len() >= 3);
    assert_eq!(receiver.users(), ["1", "2", "5"], "the first webhook is gone");
    assert_eq!(remove(&server, &other).status, 204);
}

#[test]
fn a_receiver_that_fails_gets_the_same_message_until_it_takes_it() {
    let (server, receiver) = (Server::with(&ALLOWED), Receiver::start());
    let elsewhere = Receiver::start();
    let moved = format!("307 Elsewhere\r\nlocation: {}", elsewhere.url);
    receiver.answer_with(&["500 Internal Server Error", &moved]);
    let webhook = create(&server, json!({ "url": receiver.url }));
    send(&server, "e", 0..3);
    server.wait_until("the first failure is noted", || {
        show(&server, &webhook)["state"] == "retrying"
    });
    send(&server, "e", 3..2_000);
    server.wait_until("all arrive", || show(&server, &webhook)["delivered_events"] == 2_000);
    let messages = receiver.messages();
    let attempts = &messages[..3];
    assert!(attempts.iter().all(|one| one.body == attempts[0].body));
    assert!(
        attempts.iter().all(|one| one.headers["webhook-id"] == attempts[0].headers["webhook-id"])
    );
    assert!(elsewhere.messages().is_empty(), "a redirect is not followed");
    assert_eq!(receiver.users()[6..], numbers(0..2_000)[..], "what was taken came once, in order");
    let all = deliveries(&server, &webhook);
    let outcomes: Vec<_> = all.iter().rev().map(|one| (&one["outcome"], &one["status"])).collect();
    let failed = json!("failed");
    assert_eq!(outcomes[..2], [(&failed, &json!(500)), (&failed, &json!(307))]);
    assert!(all.last().unwrap()["error"].as_str().unwrap().contains("500"), "{all:?}");
    assert_eq!(show(&server, &webhook)["state"], "active");
}

#[test]
fn a_2xx_counts_whatever_comes_behind_it() {
    let (server, receiver) = (Server::with(&ALLOWED), Receiver::start());
    // The body never comes to its end.
    receiver.answer_with(&["200 OK\r\ncontent-length: 9\r\n\r\nhalf\r\nx: y"]);
    let webhook = create(&server, json!({ "url": receiver.url }));
    send(&server, "e", 0..1);
    server.wait_until("it is delivered", || show(&server, &webhook)["delivered_events"] == 1);
    assert_eq!(deliveries(&server, &webhook)[0]["status"], 200);
    send(&server, "e", 1..2);
    server.wait_until("the next one too", || show(&server, &webhook)["delivered_events"] == 2);
    assert_eq!(receiver.users(), ["0", "1"]);
}

#[test]
fn what_was_not_delivered_before_a_crash_comes_after_it() {
    let (mut server, receiver) = (Server::with(&ALLOWED), Receiver::start());
    let directory = server.take_directory();
    let webhook = create(&server, json!({ "url": receiver.url }));
    send(&server, "e", 0..5);
    server.wait_until("the first are taken", || show(&server, &webhook)["delivered_events"] == 5);
    receiver.answer_with(&["503 Not Now\r\nretry-after: 600"]);
    send(&server, "e", 5..9);
    server.wait_until("the next are refused", || show(&server, &webhook)["failures"] == 1);
    server.roll();
    send(&server, "e", 9..12);
    server.kill();

    let server = Server::on(&directory.path().join("data"), &ALLOWED);
    let shown = show(&server, &webhook);
    assert_eq!((&shown["failures"], &shown["delivered_events"]), (&json!(1), &json!(5)));
    assert_eq!(shown["behind_events"], 7);
    assert_eq!(receiver.users().len(), 9, "it asked for more time than there was");
    let resumed = server.post(&format!("{}/resume", path_of(&webhook)), b"");
    assert_eq!(resumed.status, 200, "{}", resumed.text());
    server.wait_until("all arrive", || show(&server, &webhook)["delivered_events"] == 12);
    let users = receiver.users();
    assert_eq!(users[9..], numbers(5..12)[..], "what was refused came again");
    assert_eq!(show(&server, &webhook)["behind_events"], 0);
}

/// Those that have everything are read for together; one that falls behind reads for itself until it has
/// caught up, and a new one begins somewhere else.
#[test]
fn many_webhooks_get_each_what_it_wants_and_nothing_twice() {
    let [private, _] = ALLOWED;
    let server =
        Server::with(&[private, ("RINGLAKE_SHARDS", "2"), ("RINGLAKE_HOT_ROLL_ROWS", "1024")]);
    const NAMES: [&str; 3] = ["a", "b", "c"];
    const ROUND: usize = 2_000;
    let event = |user: usize| NAMES[user % NAMES.len()];
    let mut hooks: Vec<(Receiver, Value, usize)> = Vec::new();
    let mut sent = 0;
    for round in 0..5 {
        for events in [json!([]), json!(["a"]), json!(["b", "c"])] {
            let receiver = Receiver::start();
            // Now and then one fails and is late.
            if round % 2 == 0 {
                receiver.answer_with(&["204 No Content", "500 Internal Server Error"]);
            }
            create(&server, json!({ "url": receiver.url, "events": events }));
            hooks.push((receiver, events, sent));
        }
        for _ in 0..4 {
            let users = sent..sent + ROUND / 4;
            let events: Vec<Value> = users
                .map(|user| json!({ "event": event(user), "user_id": user.to_string() }))
                .collect();
            let answer = server.post("/v1/events", serde_json::to_vec(&events).unwrap());
            assert_eq!(answer.status, 202, "{}", answer.text());
            sent += ROUND / 4;
        }
        // A look or two lie between the rounds.
        let (receiver, ..) = &hooks[0];
        server.wait_until("some arrive", || receiver.users().len() > sent / 2);
    }
    let done = || {
        let all = server.get("/v1/webhooks").json();
        let all = all["webhooks"].as_array().unwrap();
        all.iter().all(|webhook| webhook["behind_events"] == 0 && webhook["failures"] == 0)
    };
    server.wait_until("all have everything", done);
    for (receiver, events, first) in &hooks {
        let wants = |user: &usize| {
            let events = events.as_array().unwrap();
            events.is_empty() || events.contains(&json!(event(*user)))
        };
        let expected: Vec<usize> = (*first..sent).filter(wants).collect();
        let mut users: Vec<usize> = receiver.taken().iter().map(|id| id.parse().unwrap()).collect();
        users.sort_unstable();
        assert_eq!(users, expected, "{events} from {first} on");
    }
}

#[test]
fn a_receiver_that_is_gone_is_left_alone() {
    let (server, receiver) = (Server::with(&ALLOWED), Receiver::start());
    receiver.answer_with(&["410 Gone"]);
    let webhook = create(&server, json!({ "url": receiver.url }));
    send(&server, "e", 0..1);
    server.wait_until("it is gone", || show(&server, &webhook)["state"] == "gone");
    // Another one is served after this; the gone one would have been too.
    let other = Receiver::start();
    create(&server, json!({ "url": other.url }));
    send(&server, "e", 1..2);
    server.wait_until("the other gets it", || other.users() == ["1"]);
    assert_eq!(receiver.messages().len(), 1);
    server.post(&format!("{}/resume", path_of(&webhook)), b"");
    server.wait_until("it is back", || receiver.users() == ["0", "0", "1"]);
}

#[test]
fn nothing_is_sent_to_private_addresses_unless_it_is_allowed() {
    let (server, receiver) = (Server::start(), Receiver::start());
    for (url, why) in [
        (receiver.url.clone(), "https://"),
        ("https://127.0.0.1/".into(), "not on the internet"),
        ("https://[::1]:8080/".into(), "not on the internet"),
        ("https://0x7f.1/".into(), "not on the internet"),
        ("https://169.254.169.254/".into(), "not on the internet"),
        ("https://user:word@example.com/".into(), "user name"),
        ("nonsense".into(), "not a URL"),
    ] {
        let refused = server.post("/v1/webhooks", json!({ "url": url }).to_string());
        assert_eq!(refused.status, 400, "{url}");
        let message = refused.error()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("url ") && message.contains(why), "{message}");
    }
    // A name says nothing; where it leads does.
    let port = receiver.url.split(['/', ':']).nth(4).unwrap();
    let webhook = create(&server, json!({ "url": format!("https://localhost:{port}/") }));
    send(&server, "e", 0..1);
    server.wait_until("an attempt fails", || !deliveries(&server, &webhook).is_empty());
    let last = &deliveries(&server, &webhook)[0];
    assert!(last["error"].as_str().unwrap().contains("no address on the internet"), "{last}");
    assert!(last["status"].is_null() && receiver.messages().is_empty());
}

/// `server/tests/tls` holds an authority and two certificates for localhost.
#[test]
fn a_receiver_has_to_show_a_certificate_that_is_trusted() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let file = |name: &str| folder.join(name).display().to_string();
    let (cert, key, authority) = (file("first.pem"), file("first.key"), file("ca.pem"));
    let temporary = tempfile::tempdir().unwrap();
    let encrypted = [("RINGLAKE_TLS_CERT", cert.as_str()), ("RINGLAKE_TLS_KEY", &key)];
    let receiver = Server::starting_on(temporary.path(), &encrypted);
    let url = format!("https://localhost:{}/none", receiver.address.port());
    let attempt = |variables: &[(&str, &str)]| {
        let server = Server::with(variables);
        let webhook = create(&server, json!({ "url": url }));
        send(&server, "e", 0..1);
        server.wait_until("an attempt fails", || !deliveries(&server, &webhook).is_empty());
        deliveries(&server, &webhook).remove(0)
    };
    let [private, shards] = ALLOWED;
    let trusted = attempt(&[private, shards, ("SSL_CERT_FILE", &authority)]);
    assert_eq!(trusted["status"], 404, "it was asked: {trusted}");
    let untrusted = attempt(&ALLOWED);
    assert!(untrusted["status"].is_null(), "{untrusted}");
    assert!(untrusted["error"].as_str().unwrap().contains("certificate"), "{untrusted}");
    receiver.leave_unaccounted();
}

#[test]
fn what_describes_no_webhook_is_refused_with_the_field() {
    let server = Server::with(&ALLOWED);
    let long = "x".repeat(300);
    for (body, named) in [
        ("", "no object"),
        ("[]", "no object"),
        ("{", "EOF"),
        ("{}", "url"),
        (r#"{"url":"https://example.com","type":"track"}"#, "type"),
        (r#"{"url":"https://example.com","types":"track"}"#, "a sequence"),
        (&format!(r#"{{"url":"https://example.com","types":["{long}"]}}"#), "types"),
        (&format!(r#"{{"url":"https://example.com","tenant":"{long}"}}"#), "tenant"),
    ] {
        let refused = server.post("/v1/webhooks", body);
        assert_eq!(refused.status, 400, "{body}");
        let message = refused.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(named), "{body}: {message}");
    }
    for (method, path) in [("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/resume")]
    {
        let path = format!("/v1/webhooks/none{path}");
        let answer = server.connect().request(method, &path, &[], b"");
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(answer.error()["code"], "not_found");
    }
    let answer = server.connect().request("PUT", "/v1/webhooks", &[], b"");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")));
}

#[test]
fn a_tenant_gets_its_own_events_and_sees_its_own_webhooks() {
    let server = Server::with_keys(&ALLOWED);
    let key = |scope, tenant| make_key(&server.data, &["--scope", scope, "--tenant", tenant]);
    let (read, other, write) = (key("read", "acme"), key("read", "beta"), key("write", "acme"));
    let ask = |key: &str, method: &str, path: &str, body: &Value| {
        let bearer = format!("Bearer {key}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("Authorization", bearer.as_str())];
        server.connect().request(method, path, &headers, body.as_bytes())
    };
    let receiver = Receiver::start();
    let wanted = json!({ "url": receiver.url });
    server.wait_until("the keys are seen", || {
        ask(&other, "GET", "/v1/webhooks", &Value::Null).status == 200
            && ask(&write, "GET", "/v1/webhooks", &Value::Null).status == 403
    });
    assert_eq!(ask(&write, "POST", "/v1/webhooks", &wanted).status, 403);
    let foreign = json!({ "url": receiver.url, "tenant": "beta" });
    assert_eq!(ask(&read, "POST", "/v1/webhooks", &foreign).status, 403);
    let made = ask(&read, "POST", "/v1/webhooks", &wanted);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    assert_eq!(made["tenant"], "acme");

    let path = path_of(&made);
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/deliveries")),
        ("POST", format!("{path}/resume")),
        ("DELETE", path.clone()),
    ] {
        assert_eq!(ask(&other, method, &path, &Value::Null).status, 404, "{method} {path}");
    }
    let of = |key: &str| ask(key, "GET", "/v1/webhooks", &Value::Null).json()["webhooks"].clone();
    assert_eq!(of(&other), json!([]));
    assert_eq!(of(&read).as_array().unwrap().len(), 1);
    assert_eq!(of(server.key()).as_array().unwrap().len(), 1);

    let events = json!([
        { "event": "e", "user_id": "1", "tenant": "beta" },
        { "event": "e", "user_id": "2", "tenant": "acme" },
        { "event": "e", "user_id": "3", "tenant": "acme2" },
    ]);
    assert_eq!(server.post("/v1/events", events.to_string()).status, 202);
    assert_eq!(ask(&write, "POST", "/v1/events", &json!({"event":"e","user_id":"4"})).status, 202);
    server.wait_until("the events arrive", || receiver.users().len() >= 2);
    assert_eq!(receiver.users(), ["2", "4"]);
    // The administrator's is for everybody's.
    let all = Receiver::start();
    create(&server, json!({ "url": all.url }));
    assert_eq!(server.post("/v1/events", events.to_string()).status, 202);
    server.wait_until("all arrive", || all.users().len() >= 3);
    assert_eq!(all.users(), ["1", "2", "3"]);
}
