//! Keys: who is let in, to what, and what becomes of them while the server runs.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Answer, Connection, PATIENCE, Server, basic, id_of, make_key, ringlake, text};

const EVENTS: &str = "/v1/events";
const EVENT: &[u8] = br#"{"event":"a"}"#;
/// A change of the file is seen within this time, unless the machine is busy.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// A request with this key, or with none when it is empty.
fn send(server: &Server, key: &str, method: &str, path: &str, body: &[u8]) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str())];
    let headers = if key.is_empty() { &[][..] } else { &headers[..] };
    Connection::new(server.address).request(method, path, headers, body)
}

fn post_event(server: &Server, key: &str) -> u16 {
    send(server, key, "POST", EVENTS, EVENT).status
}

/// Waits until `status` is answered.
fn until(status: u16, mut ask: impl FnMut() -> u16) {
    let began = Instant::now();
    while ask() != status {
        assert!(began.elapsed() < PATIENCE, "{status} was never answered");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn keys_command(server: &Server, arguments: &[&str]) -> String {
    let output =
        ringlake().arg("keys").args(arguments).arg("--data").arg(&server.data).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_first_key_ends_the_open_mode_of_a_running_server() {
    let mut server = Server::start();
    assert_eq!(post_event(&server, ""), 202);
    // In open mode whatever is sent as a key is ignored.
    assert_eq!(post_event(&server, "nonsense"), 202);
    let admin = make_key(&server.data, &["--scope", "admin"]);
    server.use_key(&admin);
    let mut taken = 2;
    until(401, || {
        let status = post_event(&server, "");
        taken += u64::from(status == 202);
        status
    });
    assert_eq!(post_event(&server, "nonsense"), 401);
    assert_eq!(post_event(&server, &admin), 202);
    assert_eq!(server.count(), taken + 1);
    // The last key's revocation does not open the server again, not even for the next start.
    keys_command(&server, &["revoke", id_of(&admin)]);
    until(401, || post_event(&server, &admin));
    assert_eq!(post_event(&server, ""), 401);
    let data = server.data.clone();
    let held = server.take_directory();
    server.kill();
    let again = Server::starting_on(&data, &[]);
    // Not before it is ready: 503 comes first.
    until(401, || post_event(&again, ""));
    again.kill();
    drop(held);
}

#[test]
fn other_addresses_than_loopback_need_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let serve = ["serve", "--listen", "0.0.0.0:0", "--data", data.to_str().unwrap()];
    let refused = ringlake().args(serve).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("ringlake keys create"), "{}", text(&refused.stderr));
    make_key(&data, &["--scope", "write"]);
    let server = Server::starting_at("0.0.0.0:0", &data, &[]);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    assert_eq!(Connection::new(address).request("GET", "/healthz", &[], b"").status, 200);
    // Not before it is ready: 503 comes first.
    until(401, || Connection::new(address).request("POST", EVENTS, &[], EVENT).status);
    server.kill();
}

#[test]
fn a_damaged_file_of_keys_stops_the_start_and_not_a_running_server() {
    let server = Server::with_keys(&[]);
    let path = server.data.join("keys.json");
    std::fs::write(&path, "{\"version\":1,").unwrap();
    std::thread::sleep(SEEN_WITHIN);
    assert_eq!(post_event(&server, server.key()), 202);
    assert_eq!(post_event(&server, ""), 401);
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(&path, other.path().join("keys.json")).unwrap();
    let data = other.path().to_str().unwrap();
    let output = ringlake().args(["serve", "--listen", "127.0.0.1:0", "--data", data]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("keys.json is not a file of keys"));
}

#[test]
fn commands_make_list_rotate_and_revoke_keys() {
    let server = Server::with_keys(&[]);
    let create = ["--scope", "write", "--tenant", "acme", "--alias", "a.example"];
    let key = make_key(&server.data, &create);
    until(202, || post_event(&server, &key));
    let listed = keys_command(&server, &["list"]);
    let line = listed.lines().find(|line| line.contains(id_of(&key))).unwrap();
    assert!(
        line.contains("write") && line.contains("acme") && line.contains("a.example"),
        "{line}"
    );
    assert!(!listed.contains(key.split('_').nth(2).unwrap()) && !listed.contains("argon"));

    let rotated = keys_command(&server, &["rotate", id_of(&key)]);
    let next = rotated.lines().last().unwrap();
    assert_eq!(id_of(next), id_of(&key));
    until(401, || post_event(&server, &key));
    assert_eq!(post_event(&server, next), 202);
    keys_command(&server, &["revoke", id_of(&key)]);
    until(401, || post_event(&server, next));
    assert!(keys_command(&server, &["list"]).contains("REVOKED"));

    let data = server.data.to_str().unwrap();
    for (arguments, code, message) in [
        (&["create", "--scope", "admin", "--tenant", "t"][..], 2, "all tenants"),
        (&["create", "--scope", "read", "--alias", "a"], 2, "aliases are for write keys"),
        (&["create", "--scope", "write", "--origin", "shop.example"], 2, "`shop.example`"),
        (&["create", "--scope", "write", "--tenant", ""], 2, "tenant has 0 bytes"),
        (&["revoke", id_of(&key)], 1, "no key with the id"),
        (&["rotate", "nobody"], 1, "no key with the id `nobody`"),
    ] {
        let output =
            ringlake().arg("keys").args(arguments).args(["--data", data]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
    }
}

#[test]
fn the_same_over_http_takes_effect_with_the_answer() {
    let server = Server::with_keys(&[]);
    let wanted = json!({ "scope": "write", "tenant": "acme", "aliases": ["a.example"] });
    let made = server.post("/v1/admin/keys", wanted.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let (made, key) = (made.json(), made.json()["key"].as_str().unwrap().to_owned());
    assert_eq!((made["tenant"].as_str(), made["id"].as_str()), (Some("acme"), Some(id_of(&key))));
    assert_eq!(post_event(&server, &key), 202);
    let listed = server.get("/v1/admin/keys");
    assert!(!listed.text().contains("argon2") && !listed.text().contains(&key));
    assert_eq!(listed.json()["keys"][1]["aliases"], json!(["a.example"]));

    let path = format!("/v1/admin/keys/{}", id_of(&key));
    let next = server.post(&format!("{path}/rotate"), b"").json()["key"].clone();
    assert_eq!(post_event(&server, &key), 401);
    assert_eq!(post_event(&server, next.as_str().unwrap()), 202);
    assert_eq!(server.connect().request("DELETE", &path, &[], b"").status, 200);
    assert_eq!(post_event(&server, next.as_str().unwrap()), 401);
    assert_eq!(server.connect().request("DELETE", &path, &[], b"").status, 404);
    for body in ["", "{}", "{\"scope\":\"root\"}", "{\"scope\":\"write\",\"tenants\":[]}"] {
        let answer = server.post("/v1/admin/keys", body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        answer.error();
    }

    let url = server.url();
    let run = |arguments: &[&str]| {
        let mut command = ringlake();
        command.arg("keys").args(arguments).args(["--url", &url]);
        command.env("RINGLAKE_KEY", server.key()).output().unwrap()
    };
    let output = run(&["create", "--scope", "read", "--tenant", "acme"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let read = text(&output.stdout).lines().last().unwrap().to_owned();
    assert_eq!(send(&server, &read, "POST", "/v1/query", b"SELECT 1 AS n").status, 200);
    assert!(text(&run(&["list"]).stdout).contains(id_of(&read)));
    assert!(run(&["revoke", id_of(&read)]).status.success());
    assert_eq!(send(&server, &read, "POST", "/v1/query", b"SELECT 1 AS n").status, 401);
    let output = ringlake().args(["keys", "list", "--url", &url]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("401"), "{}", text(&output.stderr));
}

#[test]
fn a_key_is_taken_from_every_place_where_clients_put_it() {
    let server = Server::with_keys(&[]);
    let key = make_key(&server.data, &["--scope", "write"]);
    until(202, || post_event(&server, &key));
    let mut connection = Connection::new(server.address);
    for (name, value) in [
        ("Authorization", format!("bearer {key}")),
        ("X-Write-Key", key.clone()),
        ("Authorization", basic(&key)),
    ] {
        assert_eq!(connection.request("POST", EVENTS, &[(name, &value)], EVENT).status, 202);
    }
    let with_key = |path: &str, key: &str| format!("{path}?quiet=true&type=page&key={key}");
    assert_eq!(connection.request("POST", &with_key(EVENTS, &key), &[], EVENT).status, 204);
    let pixel = with_key("/v1/pixel.gif", &key);
    assert_eq!(connection.request("GET", &pixel, &[], b"").status, 204);
    // Other scopes are not taken from where they would stay in logs and histories.
    let admin = with_key(EVENTS, server.key());
    let refused = connection.request("POST", &admin, &[], EVENT);
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("only write keys"), "{}", refused.text());
    let read = make_key(&server.data, &["--scope", "read"]);
    let query = with_key("/v1/query", &read);
    until(200, || send(&server, &read, "POST", "/v1/query", b"SELECT 1 AS n").status);
    assert_eq!(connection.request("POST", &query, &[], b"SELECT 1 AS n").status, 401);
    // Who sends a wrong one is not let in by a good one elsewhere.
    let wrong = [("Authorization", "Bearer rl_x")];
    assert_eq!(connection.request("POST", &with_key(EVENTS, &key), &wrong, EVENT).status, 401);
}

#[test]
fn each_route_wants_its_scope() {
    let server = Server::with_keys(&[]);
    let write = make_key(&server.data, &["--scope", "write"]);
    let read = make_key(&server.data, &["--scope", "read"]);
    until(202, || post_event(&server, &write));
    until(200, || send(&server, &read, "POST", "/v1/query", b"SELECT 1 AS n").status);
    let routes: [(&str, &str, &[u8], [u16; 4]); 21] = [
        // Without a key, with write, with read, with admin.
        ("POST", EVENTS, EVENT, [401, 202, 403, 202]),
        ("GET", "/v1/pixel.gif?type=page", b"", [401, 200, 403, 200]),
        ("POST", "/v1/query", b"SELECT 1 AS n", [401, 403, 200, 200]),
        ("GET", EVENTS, b"", [401, 403, 200, 200]),
        ("GET", "/v1/stats", b"", [401, 403, 200, 200]),
        ("GET", "/v1/schema", b"", [401, 403, 200, 200]),
        ("GET", "/v1/exports", b"", [401, 403, 200, 200]),
        ("POST", "/v1/exports", b"{}", [401, 403, 202, 202]),
        ("GET", "/v1/exports/0", b"", [401, 403, 404, 404]),
        ("DELETE", "/v1/exports/0", b"", [401, 403, 404, 404]),
        ("GET", "/v1/status", b"", [401, 403, 403, 200]),
        ("GET", "/metrics", b"", [401, 403, 403, 200]),
        ("POST", "/v1/admin/flush", b"", [401, 403, 403, 200]),
        ("POST", "/v1/admin/roll", b"", [401, 403, 403, 200]),
        ("GET", "/v1/admin/profile?seconds=1", b"", [401, 403, 403, 200]),
        ("GET", "/v1/admin/keys", b"", [401, 403, 403, 200]),
        ("DELETE", "/v1/admin/keys/nobody", b"", [401, 403, 403, 404]),
        ("POST", "/v1/admin/keys/nobody/rotate", b"", [401, 403, 403, 404]),
        ("GET", "/healthz", b"", [200, 200, 200, 200]),
        ("GET", "/readyz", b"", [200, 200, 200, 200]),
        ("GET", "/v1/nothing", b"", [401, 403, 404, 404]),
    ];
    for (method, path, body, expected) in routes {
        for (key, expected) in ["", &write, &read, server.key()].iter().zip(expected) {
            let answer = send(&server, key, method, path, body);
            assert_eq!(answer.status, expected, "{method} {path} with {key:?}: {}", answer.text());
            if expected == 401 {
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
            if expected >= 400 {
                answer.error();
            }
        }
    }
}

#[test]
fn an_event_belongs_to_the_tenant_of_its_key() {
    let server = Server::with_keys(&[]);
    let key = make_key(&server.data, &["--scope", "write", "--tenant", "acme"]);
    until(202, || post_event(&server, &key));
    let own = br#"{"event":"own","tenant":"acme"}"#;
    assert_eq!(send(&server, &key, "POST", EVENTS, own).status, 202);
    let foreign = br#"[{"event":"good"},{"event":"bad","tenant":"other"}]"#;
    let refused = send(&server, &key, "POST", EVENTS, foreign);
    assert_eq!((refused.status, refused.error()["index"].as_u64()), (403, Some(1)));
    let partly = send(&server, &key, "POST", "/v1/events?partial=true", foreign);
    assert_eq!((partly.status, &partly.json()["accepted"]), (207, &json!(1)));
    let pixel = |key: &str, tenant: &str| {
        let path = format!("/v1/pixel.gif?event=pixel&tenant={tenant}");
        send(&server, key, "GET", &path, b"").status
    };
    assert_eq!((pixel(&key, "acme"), pixel(&key, "other")), (200, 403));
    // Who administers the instance sends for everybody.
    assert_eq!(send(&server, server.key(), "POST", EVENTS, foreign).status, 202);
    assert_eq!(pixel(server.key(), "other"), 200);
    let rows = server.query(
        "SELECT tenant, list(event ORDER BY event) AS events FROM events GROUP BY ALL ORDER BY ALL",
    );
    let expected = [
        json!({ "tenant": "acme", "events": ["a", "good", "own", "pixel"] }),
        json!({ "tenant": "default", "events": ["good"] }),
        json!({ "tenant": "other", "events": ["bad", "pixel"] }),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_read_key_shows_the_events_of_its_tenant_in_memory_and_in_files() {
    let server = Server::with_keys(&[]);
    let acme = make_key(&server.data, &["--scope", "read", "--tenant", "acme"]);
    let other = make_key(&server.data, &["--scope", "read", "--tenant", "other"]);
    let events = br#"[{"event":"mine","tenant":"acme","user_id":"1"},
                      {"event":"secret","tenant":"other","user_id":"u-secret"}]"#;
    assert_eq!(server.post(EVENTS, events).status, 202);
    assert_eq!(server.post("/v1/admin/roll", b"").status, 200);
    assert_eq!(server.post(EVENTS, events).status, 202);
    assert_eq!(server.count(), 4);
    let ask = |key: &str, sql: &str| send(&server, key, "POST", "/v1/query", sql.as_bytes());
    for key in [&acme, &other] {
        until(200, || ask(key, "SELECT 1 AS n").status);
    }
    let rows = |key: &str| {
        let sql = "SELECT tenant, event, count(*) AS n FROM events GROUP BY ALL";
        ask(key, sql).json()
    };
    assert_eq!(rows(&acme), json!({ "tenant": "acme", "event": "mine", "n": 2 }));
    assert_eq!(rows(&other), json!({ "tenant": "other", "event": "secret", "n": 2 }));
    // A condition that fails on the rows of others does not fail.
    assert_eq!(ask(&acme, "SELECT sum(user_id::INT) AS n FROM events").json()["n"], 2);
    let failed = ask(&other, "SELECT sum(user_id::INT) AS n FROM events");
    assert_eq!(failed.status, 400);
    let message = failed.error()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Conversion Error") && !message.contains("secret"), "{message}");
}

#[test]
fn a_write_key_can_be_bound_to_pages() {
    let server = Server::with_keys(&[("RINGLAKE_HTTP_CORS_ORIGINS", "https://all.example")]);
    let origin = ["--scope", "write", "--origin", "https://shop.example"];
    let bound = make_key(&server.data, &origin);
    let free = make_key(&server.data, &["--scope", "write"]);
    until(202, || post_event(&server, &bound));
    until(202, || post_event(&server, &free));
    let from = |key: &str, page: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("Origin", page)];
        let answer = Connection::new(server.address).request("POST", EVENTS, &headers, EVENT);
        (answer.status, answer.header("access-control-allow-origin").is_some())
    };
    assert_eq!(from(&bound, "https://shop.example"), (202, true));
    assert_eq!(from(&bound, "https://all.example").0, 403);
    assert_eq!(from(&free, "https://all.example"), (202, true));
    assert_eq!(from(&free, "https://shop.example").0, 403);
    assert_eq!(from(&free, "https://evil.example"), (403, false));
    // A preflight carries no key: whatever some key allows may ask.
    for (page, allowed) in [
        ("https://shop.example", true),
        ("https://all.example", true),
        ("https://evil.example", false),
    ] {
        let headers = [("Origin", page), ("Access-Control-Request-Method", "POST")];
        let answer = Connection::new(server.address).request("OPTIONS", EVENTS, &headers, b"");
        let permitted = answer.header("access-control-allow-methods").is_some();
        assert_eq!((answer.status, permitted), (204, allowed), "{page}");
    }
}

#[test]
fn secrets_are_in_no_log_no_metric_and_no_answer() {
    let server = Server::with_keys(&[("RINGLAKE_LOG", "trace")]);
    let write = make_key(&server.data, &["--scope", "write"]);
    until(202, || post_event(&server, &write));
    let forged = format!("rl_{}_{}", id_of(&write), "z".repeat(32));
    let mut seen = String::new();
    for key in [&write, &forged, server.key()] {
        for path in [EVENTS, "/v1/query", "/v1/admin/keys", "/v1/nothing"] {
            seen += &send(&server, key, "POST", path, b"{}").text();
            seen += &send(&server, "", "POST", &format!("{path}?key={key}"), b"{}").text();
        }
    }
    seen += &server.get("/metrics").text();
    seen += &server.get("/v1/status").text();
    let admin = server.key().to_owned();
    server.leave_unaccounted();
    let (_, log) = server.stop();
    assert!(log.contains("the keys have changed"), "the log is there");
    for key in [&write, &forged, &admin] {
        let secret = key.split('_').nth(2).unwrap();
        assert!(!log.contains(secret) && !seen.contains(secret), "{key}");
    }
}

#[test]
fn wrong_keys_cost_an_answer_and_no_hash() {
    let server = Server::with_keys(&[]);
    let write = make_key(&server.data, &["--scope", "write"]);
    until(202, || post_event(&server, &write));
    let mut connection = Connection::new(server.address);
    for number in 0..1_000 {
        // Half of them have an id that exists.
        let id = if number % 2 == 0 { id_of(&write) } else { "waaaaaaaaaa" };
        let bearer = format!("Bearer rl_{id}_{number:a>32}");
        let answer =
            connection.request("POST", EVENTS, &[("Authorization", bearer.as_str())], EVENT);
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
    // None of them was hashed: above 20 hashes a minute the answer would have been 429.
    assert_eq!(post_event(&server, &write), 202);

    // A key that nobody has used yet: its secret is not known, so guesses are hashed, but few.
    let unused = make_key(&server.data, &["--scope", "write"]);
    let guess = |number: usize| {
        send(&server, &format!("rl_{}_{number:a>32}", id_of(&unused)), "POST", EVENTS, EVENT)
    };
    std::thread::sleep(SEEN_WITHIN);
    // Twice as many as a minute allows, and one, in case that the minute ends in between.
    let limited = (0..41).map(guess).find(|answer| answer.status == 429).unwrap();
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(limited.error()["code"], "too_many_wrong_keys");
    assert_eq!(post_event(&server, &write), 202);
    let metrics = server.get("/metrics").text();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("cache_lookups_total{result=\"hit\"}") >= 1.0, "{metrics}");
    assert!(value("cache_lookups_total{result=\"miss\"}") >= 1_000.0, "{metrics}");
    assert!(value("auth_latency_seconds_count") >= 1_000.0, "{metrics}");
    let refused: Value = server.accounting()["refused"]["forbidden"].clone();
    assert!(refused.as_u64().unwrap() >= 1_020, "{refused}");
}

#[test]
fn sdks_send_their_key_where_they_always_did() {
    let server = Server::with_keys(&[]);
    let arguments = ["--scope", "write", "--tenant", "acme", "--alias", "shop.example"];
    let website = "94db1cb1-74f4-4a40-ad6c-962362670409";
    let key = make_key(&server.data, &[&arguments[..], &["--alias", website]].concat());
    until(202, || post_event(&server, &key));
    let segment = r#"{"type":"track","event":"segment","userId":"u"}"#;
    let with_key = format!(r#"{{"event":"segment","userId":"u","writeKey":"{key}"}}"#);
    let posthog =
        format!(r#"{{"api_key":"{key}","batch":[{{"event":"posthog","distinct_id":"u"}}]}}"#);
    let plausible = r#"{"n":"plausible","u":"https://shop.example/","d":"shop.example"}"#;
    let umami = format!(
        r#"{{"type":"event","payload":{{"website":"{website}","name":"umami","url":"/"}}}}"#
    );
    let snowplow = format!("/i?e=se&se_ca=c&se_ac=snowplow&p=web&aid={key}");
    let basic = basic(&key);
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        Connection::new(server.address).request(method, path, headers, body.as_bytes()).status
    };
    assert_eq!(ask("POST", "/v1/track", &[("Authorization", &basic)], segment), 200);
    assert_eq!(ask("POST", "/v1/track", &[], &with_key), 200);
    assert_eq!(ask("POST", "/batch/", &[], &posthog), 200);
    assert_eq!(ask("POST", "/api/event", &[], plausible), 200);
    assert_eq!(ask("POST", "/api/send", &[], &umami), 200);
    assert_eq!(ask("GET", &snowplow, &[], ""), 200);
    // Nothing is taken without a key, with one that is not known, or with one of another scope.
    assert_eq!(ask("POST", "/v1/track", &[], segment), 401);
    assert_eq!(ask("POST", "/v1/track", &[("Authorization", "Basic eDp5")], segment), 401);
    assert_eq!(ask("POST", "/v1/track", &[], &with_key.replace(&key, "phc_x")), 401);
    assert_eq!(ask("POST", "/v1/track", &[], &with_key.replace(&key, server.key())), 403);
    assert_eq!(ask("POST", "/api/event", &[], &plausible.replace("shop.", "evil.")), 401);
    assert_eq!(ask("GET", "/i?e=pv&url=https://a.example/", &[], ""), 401);
    let rows = server.query(
        "SELECT tenant, list(event ORDER BY event) AS events FROM events WHERE event <> 'a' \
         GROUP BY ALL",
    );
    let events = ["plausible", "posthog", "segment", "segment", "snowplow", "umami"];
    assert_eq!(rows, [json!({ "tenant": "acme", "events": events })]);
    // The key of a body is not stored with it.
    let stored =
        server.query("SELECT properties FROM events WHERE event IN ('segment', 'posthog')");
    assert!(stored.iter().all(|row| !row.to_string().contains(&key)), "{stored:?}");
}
