//! Every endpoint with every other tenant's key: nothing of one tenant is shown to another, and
//! nothing is stored under another's name.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::time::{Duration, Instant};

use support::{Answer, Connection, PATIENCE, Server, make_key, statements};

/// Names that end an SQL string and a JSON string, and one that is the beginning of another.
const TENANTS: [&str; 4] = ["acme", "acme2", "it's", "a\"b"];

struct Tenant {
    name: &'static str,
    write: String,
    read: String,
    /// In every event of the tenant, in every text field, and nowhere else.
    secret: String,
}

struct World {
    server: Server,
    tenants: Vec<Tenant>,
}

impl World {
    /// Each tenant has the same number of events in files, in the log and in memory.
    fn new() -> Self {
        let server = Server::with_keys(&[]);
        let tenants = TENANTS.iter().enumerate().map(|(index, &name)| {
            let make = |scope| make_key(&server.data, &["--scope", scope, "--tenant", name]);
            let secret = format!("secret-{index}-of-tenant");
            Tenant { name, write: make("write"), read: make("read"), secret }
        });
        let world = Self { tenants: tenants.collect(), server };
        let until = Instant::now() + PATIENCE;
        let last = world.tenants.last().unwrap();
        while world.send(&last.read, "POST", "/v1/query", b"SELECT 1 AS n").status != 200 {
            assert!(Instant::now() < until, "the keys are seen");
            std::thread::sleep(Duration::from_millis(10));
        }
        for in_files in [true, false] {
            for tenant in &world.tenants {
                let answer = world.send(&tenant.write, "POST", "/v1/events", &tenant.events());
                assert_eq!(answer.status, 202, "{}", answer.text());
            }
            let path = if in_files { "/v1/admin/roll" } else { "/v1/admin/flush" };
            assert_eq!(world.server.post(path, b"").status, 200);
        }
        world
    }

    fn send(&self, key: &str, method: &str, path: &str, body: &[u8]) -> Answer {
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("Accept", "application/json")];
        Connection::new(self.server.address).request(method, path, &headers, body)
    }
}

impl Tenant {
    fn events(&self) -> Vec<u8> {
        let secret = &self.secret;
        let event = serde_json::json!({
            "event": secret, "type": secret, "user_id": secret, "anonymous_id": secret,
            "session_id": secret, "url": secret, "referrer": secret, "user_agent": secret,
            "properties": { "secret": secret }, "context": { "secret": secret },
        });
        serde_json::to_vec(&vec![event; 5]).unwrap()
    }
}

/// Requests that read, as many ways as there are.
fn reading(foreign: &Tenant) -> Vec<(&'static str, String, String)> {
    let name = foreign.name.replace('\'', "''");
    let query = |sql: String| ("POST", "/v1/query".to_owned(), sql);
    let get = |path: String| ("GET", path, String::new());
    let encoded: String = foreign.name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let secret = &foreign.secret;
    vec![
        query("SELECT * FROM events".into()),
        query(format!("SELECT * FROM events WHERE tenant = '{name}'")),
        query(format!("SELECT * FROM events WHERE tenant = '{name}' OR tenant <> '{name}'")),
        query("SELECT DISTINCT tenant, event FROM events".into()),
        query("SELECT max(user_id), min(url), any_value(properties) FROM events".into()),
        query("SELECT a.user_id, b.user_id FROM events a, events b".into()),
        query("WITH e AS (SELECT * FROM events) SELECT list(user_id) AS l FROM e".into()),
        query(format!(
            "SELECT count(*) AS n, string_agg(event) AS e FROM events WHERE event = '{secret}'"
        )),
        query("SELECT user_id::INT FROM events".into()),
        query("SELECT error(user_id) FROM events".into()),
        query("SELECT error(user_id) FROM events WHERE user_id > 'secret-'".into()),
        query("FROM 'events/**/*.parquet'".into()),
        query("SELECT * FROM main.events".into()),
        query("SELECT * FROM hot_1".into()),
        query("SELECT sql FROM duckdb_views()".into()),
        get("/v1/events".into()),
        get(format!("/v1/events?tenant={encoded}&limit=1000")),
        get(format!("/v1/events?event={secret}&order=asc")),
        get(format!("/v1/events?user_id={secret}")),
        get("/v1/stats?interval=day&group_by=event".into()),
        get("/v1/stats?interval=day&group_by=url".into()),
        get(format!("/v1/stats?tenant={encoded}&interval=hour&group_by=type")),
        get("/v1/schema".into()),
        get("/v1/exports".into()),
        // A job shows what it was asked for, so the name of a foreign event is not in this one.
        ("POST", "/v1/exports".into(), "{\"format\":\"ndjson\"}".into()),
        get("/v1/status".into()),
        get("/metrics".into()),
        get("/v1/admin/keys".into()),
        get("/v1/admin/profile".into()),
        ("POST", "/v1/admin/flush".into(), String::new()),
        ("POST", "/v1/admin/roll".into(), String::new()),
        get("/v1/admin/erase".into()),
        (
            "POST",
            "/v1/admin/erase".into(),
            format!("{{\"tenant\":\"t\",\"user_id\":\"{secret}\"}}"),
        ),
        ("POST", "/v1/admin/keys".into(), "{\"scope\":\"admin\"}".into()),
        get("/healthz".into()),
        get("/readyz".into()),
        get("/".into()),
    ]
}

#[test]
fn no_endpoint_shows_a_tenant_anything_of_another() {
    let world = World::new();
    for tenant in &world.tenants {
        for foreign in world.tenants.iter().filter(|other| other.name != tenant.name) {
            for (method, path, body) in reading(foreign) {
                for key in [&tenant.read, &tenant.write] {
                    let answer = world.send(key, method, &path, body.as_bytes());
                    let shown = answer.text();
                    for other in world.tenants.iter().filter(|other| other.name != tenant.name) {
                        // What was asked for may be quoted; the rows hold the whole of it.
                        let quoted = body.contains(&other.secret) || path.contains(&other.secret);
                        assert!(
                            quoted || !shown.contains(&other.secret),
                            "{} sees {} by {method} {path} {body}: {shown}",
                            tenant.name,
                            other.name
                        );
                    }
                    let is_admins = ["/v1/status", "/metrics"].contains(&path.as_str())
                        || path.starts_with("/v1/admin/");
                    if is_admins {
                        assert_eq!(answer.status, 403, "{method} {path}");
                    }
                }
            }
        }
        // It does see what is its own, from files and from memory.
        let sql = b"SELECT count(*) AS n, count(DISTINCT tenant) AS t, min(event) AS e FROM events";
        let own = world.send(&tenant.read, "POST", "/v1/query", sql).json();
        assert_eq!(own["rows"], serde_json::json!([[10, 1, tenant.secret]]), "{}", tenant.name);
        let own = world.send(&tenant.read, "GET", "/v1/events", b"").json();
        let events = own["events"].as_array().unwrap();
        assert_eq!(events.len(), 10);
        assert!(events.iter().all(|event| event["tenant"] == tenant.name), "{own}");
        let own = world.send(&tenant.read, "GET", "/v1/stats?group_by=event", b"").json();
        let counted = serde_json::json!([{"event": tenant.secret, "count": 10, "visitors": 1}]);
        assert_eq!(own["buckets"], counted);
    }
}

#[test]
fn a_cursor_of_another_tenant_leads_nowhere() {
    let world = World::new();
    for tenant in &world.tenants {
        let first = world.send(&tenant.read, "GET", "/v1/events?limit=4", b"").json();
        let path = format!("/v1/events?cursor={}", first["next_cursor"].as_str().unwrap());
        let own = world.send(&tenant.read, "GET", &path, b"").json();
        assert_eq!(own["events"].as_array().unwrap().len(), 6, "{own}");
        for foreign in world.tenants.iter().filter(|other| other.name != tenant.name) {
            assert_eq!(world.send(&foreign.read, "GET", &path, b"").status, 400);
        }
    }
}

/// The whole way of the lists that the engine's tests have: with a key of a tenant, what is no read
/// of `events` is refused in one sentence, what is one works, and neither shows what others have.
#[test]
fn attacks_are_refused_and_good_queries_show_what_is_ones_own() {
    let world = World::new();
    let tenant = &world.tenants[2];
    let foreign = |text: &str| {
        let others = world.tenants.iter().filter(|other| other.name != tenant.name);
        others.map(|other| &other.secret).any(|secret| text.contains(secret))
    };
    for sql in statements("refused.sql") {
        let answer = world.send(&tenant.read, "POST", "/v1/query", sql.as_bytes());
        assert_eq!(answer.status, 403, "{sql}: {}", answer.text());
        let message = answer.error()["message"].as_str().unwrap().to_owned();
        assert!(!message.contains('\n') && !foreign(&message), "{sql}: {message}");
    }
    for sql in statements("legitimate.sql") {
        let answer = world.send(&tenant.read, "POST", "/v1/query", sql.as_bytes());
        assert!(answer.status == 200 && answer.complete, "{sql}: {}", answer.text());
        assert!(!foreign(&answer.text()), "{sql}: {}", answer.text());
    }
    assert_eq!(world.server.count(), 10 * TENANTS.len() as u64);
}

#[test]
fn an_export_is_for_its_tenant_alone() {
    let world = World::new();
    let export = |tenant: &Tenant, wanted: serde_json::Value| {
        let wanted = wanted.to_string();
        let made = world.send(&tenant.read, "POST", "/v1/exports", wanted.as_bytes());
        assert_eq!(made.status, 202, "{}", made.text());
        let path = made.header("location").unwrap().to_owned();
        let job = || world.send(&tenant.read, "GET", &path, b"").json();
        world.server.wait_until("the export is done", || job()["status"] == "done");
        job()
    };
    for tenant in &world.tenants {
        let job = export(tenant, serde_json::json!({"format": "ndjson"}));
        let id = job["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/exports/{id}");
        let file = job["files"][0]["path"].as_str().unwrap().to_owned();
        let written = world.send(&tenant.read, "GET", &file, b"").text();
        assert_eq!(written.lines().count(), 10);
        assert!(written.lines().all(|line| line.contains(&tenant.secret)), "{written}");
        for foreign in world.tenants.iter().filter(|other| other.name != tenant.name) {
            assert!(!written.contains(&foreign.secret), "{written}");
            for (method, path) in [("GET", &path), ("GET", &file), ("DELETE", &path)] {
                assert_eq!(world.send(&foreign.read, method, path, b"").status, 404, "{path}");
            }
            let listed = world.send(&foreign.read, "GET", "/v1/exports", b"").text();
            assert!(!listed.contains(&id), "{listed}");
            let none = export(tenant, serde_json::json!({"event": foreign.secret}));
            assert_eq!((&none["rows_done"], &none["rows_expected"]), (&0.into(), &0.into()));
        }
        assert_eq!(world.send(&tenant.write, "GET", &file, b"").status, 403);
        assert_eq!(world.server.get(&path).status, 200, "an admin sees all");
    }
}

#[test]
fn no_endpoint_stores_anything_under_the_name_of_another() {
    let world = World::new();
    for tenant in &world.tenants {
        for foreign in world.tenants.iter().filter(|other| other.name != tenant.name) {
            let event = serde_json::json!({ "event": "intruder", "tenant": foreign.name });
            let own = serde_json::json!({ "event": "own", "tenant": tenant.name });
            let encoded: String = foreign.name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let post = |path: &str, body: &serde_json::Value| {
                world.send(&tenant.write, "POST", path, body.to_string().as_bytes())
            };
            assert_eq!(post("/v1/events", &event).status, 403);
            assert_eq!(post("/v1/events", &serde_json::json!([own, event])).status, 403);
            let partly = post("/v1/events?partial=true", &serde_json::json!([own, event]));
            assert_eq!((partly.status, partly.json()["accepted"].as_u64()), (207, Some(1)));
            let pixel = format!("/v1/pixel.gif?event=intruder&tenant={encoded}");
            assert_eq!(world.send(&tenant.write, "GET", &pixel, b"").status, 403);
            let read = world.send(&tenant.read, "POST", "/v1/events", event.to_string().as_bytes());
            assert_eq!(read.status, 403);
        }
    }
    let rows = world.server.query(
        "SELECT count(*) AS n, count(*) FILTER (event = 'intruder') AS intruders FROM events",
    );
    let own = TENANTS.len() * 10 + TENANTS.len() * (TENANTS.len() - 1);
    assert_eq!(rows, [serde_json::json!({ "n": own, "intruders": 0 })]);
}
