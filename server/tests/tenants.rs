//! Every endpoint with every other tenant's key: nothing of one tenant is shown to another, and
//! nothing is stored under another's name.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
        Self::with(&[])
    }

    fn with(variables: &[(&str, &str)]) -> Self {
        let server = Server::with_keys(variables);
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

/// Every route that the description has, with a body that most of those that take one understand.
#[test]
fn no_route_of_the_description_lets_a_tenant_do_what_is_anothers() {
    let world = World::new();
    let description = world.server.get("/openapi.json").json();
    let tenant = &world.tenants[0];
    let foreign = &world.tenants[1];
    let planted = |key: &str| format!("planted with {}", &key[..4]);
    for (path, operations) in description["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "none").replace("{name}", "none");
        let is_admins =
            ["/v1/status", "/metrics"].contains(&path.as_str()) || path.starts_with("/v1/admin/");
        for method in operations.as_object().unwrap().keys() {
            for key in [&tenant.read, &tenant.write] {
                let body = serde_json::json!({
                    "type": "track", "event": planted(key), "name": planted(key), "tenant": foreign.name,
                    "user_id": "u", "userId": "u", "distinct_id": "u", "url": "https://a.example/",
                    "domain": foreign.name, "website": foreign.name, "sql": "FROM events",
                });
                let body = serde_json::to_vec(&body).unwrap();
                let answer = world.send(key, &method.to_uppercase(), &path, &body);
                let shown = answer.text();
                assert!(!shown.contains(&foreign.secret), "{method} {path}: {shown}");
                assert!(!is_admins || answer.status == 403, "{method} {path}: {}", answer.status);
            }
        }
    }
    world.server.flush();
    let sql =
        "SELECT tenant, count(*) AS n FROM events WHERE event LIKE 'planted%' GROUP BY tenant";
    // Some SDKs' routes understand it and have no tenant in their events: it is the sender's.
    let rows = world.server.query(sql);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["tenant"], tenant.name);
    let sql = "SELECT 1 AS n FROM events WHERE event LIKE 'planted with rl_r%'";
    assert_eq!(world.server.query(sql).len(), 0, "a read key sends nothing");
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

/// Statements that nobody has thought of: parts of the lists of attacks and of legitimate statements,
/// put together at random, the same ones in each run. It is no target of libFuzzer, for which DuckDB
/// would have to be compiled once more.
#[test]
fn statements_at_random_show_nothing_of_others_and_change_nothing() {
    const CASES: usize = 600;
    // Mutations often multiply rows; what takes longer has shown nothing by then.
    let world = World::with(&[("RINGLAKE_QUERY_TIMEOUT_MS", "200")]);
    let all = |lists: &[&str]| lists.iter().flat_map(|list| statements(list)).collect::<Vec<_>>();
    let legitimate = all(&["legitimate.sql", "oracles.sql"]);
    let attacks = all(&["refused.sql", "invalid.sql"]);
    let [own, others @ ..] = &world.tenants[..] else { panic!("there are tenants") };
    let before = files(&world.server.data);
    let mut random = Random(0x5eed);
    let (mut answered, mut refused) = (0, 0);
    for case in 0..CASES {
        let sql = mutated(&legitimate, &attacks, &mut random);
        let answer = world.send(&own.read, "POST", "/v1/query", sql.as_bytes());
        match answer.status {
            200 => answered += 1,
            400 | 403 | 408 => refused += 1,
            other => panic!("case {case}: {sql}: {other} {}", answer.text()),
        }
        let shown = answer.text();
        for other in others {
            assert!(!shown.contains(&other.secret), "case {case}: {sql}: {shown}");
        }
    }
    println!("{answered} answered, {refused} refused");
    assert!(
        answered > CASES / 20 && refused > CASES / 20,
        "{answered} answered, {refused} refused"
    );
    assert_eq!(world.server.count(), 10 * world.tenants.len() as u64);
    let after = files(&world.server.data);
    let changed = after.iter().filter(|(path, bytes)| before.get(*path) != Some(*bytes));
    let changed: Vec<_> = changed.map(|(path, _)| path).collect();
    assert_eq!((changed, after.len()), (Vec::new(), before.len()));
}

/// The files below `directory` but for what DuckDB spills.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.components().any(|part| part.as_os_str() == "tmp") {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap()
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// Words, quoted texts, and every other character by itself; blanks go with what is before them.
fn words(sql: &str) -> Vec<&str> {
    let (mut words, mut start, mut quote) = (Vec::new(), 0, None);
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut last = ' ';
    for (at, letter) in sql.char_indices() {
        let goes_on = quote.is_some() || letter == ' ' || (is_word(last) && is_word(letter));
        if !goes_on && at > start {
            words.push(&sql[start..at]);
            start = at;
        }
        match quote {
            Some(open) if open == letter => quote = None,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            _ => {}
        }
        last = letter;
    }
    words.push(&sql[start..]);
    words
}

/// Names of things that must not be reached, and what surrounds them.
const SPICE: [&str; 24] = [
    " events ",
    " hot_1 ",
    " main.events ",
    " duckdb_tables() ",
    " 'x.parquet' ",
    " tenant ",
    " * ",
    " UNION ALL ",
    " -- ",
    " /* */ ",
    ";",
    " RETURNING * ",
    " INTO ",
    " LATERAL ",
    " EXCEPT ",
    " query('SELECT 1') ",
    " read_text('/etc/passwd') ",
    " error(user_id) ",
    " user_id::INT ",
    " WITH x AS ",
    " USING SAMPLE 10 ",
    " columns('.*') ",
    " (SELECT max(user_id) FROM events) ",
    " getenv('HOME') ",
];

/// One statement made of parts of two others, in three of four cases beginning with a legitimate one.
fn mutated(legitimate: &[String], attacks: &[String], random: &mut Random) -> String {
    let from = if random.below(4) == 0 { attacks } else { legitimate };
    let mut parts = words(&from[random.below(from.len())]);
    let from = if random.below(2) == 0 { attacks } else { legitimate };
    let others = words(&from[random.below(from.len())]);
    let is_name = |word: &str| word.starts_with(|first: char| first.is_alphabetic());
    let names: Vec<&str> = others.iter().copied().filter(|word| is_name(word)).collect();
    for _ in 0..random.below(3) {
        let at = random.below(parts.len());
        match random.below(6) {
            0 => parts[at] = random.pick(&others),
            1 => parts.insert(at, random.pick(&SPICE)),
            2 => parts[at] = random.pick(&SPICE),
            3 => parts.insert(at, parts[at]),
            4 => {
                parts.truncate(at + 1);
                parts.extend(&others[random.below(others.len())..]);
            }
            _ if is_name(parts[at]) && !names.is_empty() => parts[at] = random.pick(&names),
            _ => {}
        }
    }
    let sql = parts.concat();
    match random.below(10) {
        0 => format!("SELECT * FROM ({sql}) a"),
        1 => format!("WITH a AS ({sql}) SELECT * FROM a, events"),
        2 => format!("SELECT count(*), ({sql}) FROM events"),
        3 => format!("{sql} UNION ALL BY NAME SELECT user_id FROM events"),
        _ => sql,
    }
}
