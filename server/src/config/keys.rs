//! The list of all configuration keys, with unit, range and meaning.

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file, with the section before the dot.
    pub name: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// The unit of a number; what a text names.
    pub unit: &'static str,
    /// What it does, as a phrase.
    pub meaning: &'static str,
}

/// What the value of a key looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An array of strings; commas separate them in the environment.
    List,
    /// `true` or `false`.
    Flag,
    /// An array of tables; not in the environment.
    Tables,
    /// A number between 0 and 1.
    Ratio,
    /// A whole number.
    Count {
        /// The smallest legal value.
        min: u64,
        /// The largest legal value.
        max: u64,
    },
}

impl Key {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("RINGLAKE_{}", self.name.replace('.', "_").to_uppercase())
    }
}

const fn text(name: &'static str, unit: &'static str, meaning: &'static str) -> Key {
    Key { name, kind: Kind::Text, unit, meaning }
}

const fn number(
    name: &'static str,
    min: u64,
    max: u64,
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, kind: Kind::Count { min, max }, unit, meaning }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A day: longer waits are mistakes.
const DAY_MS: u64 = 86_400_000;

/// Every key there is, in the order of the documentation.
pub const KEYS: &[Key] = &[
    text("data", "path", "data directory: the log, the node's identity and, by default, the table"),
    text(
        "lake",
        "path or file:// URL",
        "where the Delta table lives; below the data directory when not set",
    ),
    text("listen", "address:port", "where the server listens"),
    text("ack", "disk or memory", "what a 2xx promises when the request does not say"),
    text("log_format", "text or json", "how log lines look"),
    number("shards", 1, 256, "shards", "serving loops, rings and logs; one per core by default"),
    number("ring_bytes", 64 * KIB, GIB, "bytes", "capacity of each ring, a power of two"),
    number("shutdown_timeout_ms", 100, DAY_MS, "ms", "time for an orderly stop"),
    Key {
        name: "columns",
        kind: Kind::Tables,
        unit: "tables of name, path, type",
        meaning: "values of properties and context that are columns of their own, [[columns]] each: \
                  name; path such as properties.cart.total, or /properties/cart/total; type, one of \
                  string, int64, double, boolean, timestamp; at most 64",
    },
    number("http.connections_max", 1, 1_000_000, "connections", "open connections; more wait"),
    number(
        "http.connections_per_address_max",
        1,
        1_000_000,
        "connections",
        "open connections of one address; more are closed",
    ),
    number("http.head_max_bytes", KIB, MIB, "bytes", "size of a request's head"),
    number("http.body_max_bytes", KIB, GIB, "bytes", "size of an ingest body, decompressed"),
    number(
        "http.bodies_max_bytes",
        MIB,
        64 * GIB,
        "bytes",
        "size of all bodies of events being read; a core has a share, of twice http.body_max_bytes at least",
    ),
    number("http.event_max_bytes", 256, 64 * MIB, "bytes", "size of one event"),
    number("http.events_max", 1, 1_000_000, "events", "events in one request"),
    number("http.body_timeout_ms", 10, DAY_MS, "ms", "time for a body to arrive"),
    number("http.head_timeout_ms", 10, DAY_MS, "ms", "time for a request's head to arrive"),
    number(
        "http.body_rate_min_bytes",
        0,
        MIB,
        "bytes a second",
        "average rate below which a body is given up after 5 s; 0 is any",
    ),
    number("http.idle_timeout_ms", 10, DAY_MS, "ms", "time that a connection may stand still"),
    Key {
        name: "http.cors_origins",
        kind: Kind::List,
        unit: "origins",
        meaning: "origins that may send events from a browser; * is any",
    },
    Key {
        name: "http.trusted_proxies",
        kind: Kind::List,
        unit: "addresses or networks",
        meaning: "proxies whose X-Forwarded-For or Forwarded is believed",
    },
    text(
        "tls.cert",
        "file in PEM",
        "chain of certificates to encrypt connections with; plain HTTP when not set",
    ),
    text("tls.key", "file in PEM", "private key of the first certificate in tls.cert"),
    Key {
        name: "privacy.store_ip",
        kind: Kind::Flag,
        unit: "true or false",
        meaning: "whether clients' addresses are stored in the column ip",
    },
    Key {
        name: "privacy.honour_dnt",
        kind: Kind::Flag,
        unit: "true or false",
        meaning: "whether DNT and Sec-GPC keep events free of visitor id and address",
    },
    Key {
        name: "privacy.mark_bots",
        kind: Kind::Flag,
        unit: "true or false",
        meaning: "whether events of known robots get \"bot\": true in their context",
    },
    number("limits.window_ms", 100, DAY_MS, "ms", "window that the other limits count over"),
    number(
        "limits.key_requests",
        0,
        1 << 39,
        "requests",
        "requests of one key in a window; 0 is any",
    ),
    number("limits.key_events", 0, 1 << 39, "events", "events of one key in a window; 0 is any"),
    number(
        "limits.tenant_requests",
        0,
        1 << 39,
        "requests",
        "requests of all keys of a tenant in a window; 0 is any",
    ),
    number(
        "limits.tenant_events",
        0,
        1 << 39,
        "events",
        "events of all keys of a tenant in a window; 0 is any",
    ),
    Key {
        name: "webhooks.allow_private",
        kind: Kind::Flag,
        unit: "true or false",
        meaning: "whether webhooks may go to addresses that are not on the internet, and by plain HTTP",
    },
    text(
        "traces.url",
        "http:// or https:// URL",
        "OpenTelemetry collector that gets traces, in OTLP over HTTP; none when not set",
    ),
    Key {
        name: "traces.sample",
        kind: Kind::Ratio,
        unit: "between 0 and 1",
        meaning: "part of the requests that are traced; 0 is none, also when clients ask for it",
    },
    number("dedup.ids", 0, 1_000_000_000, "ids", "message ids that are known; 0 looks at none"),
    number("dedup.window_ms", 1_000, 90 * DAY_MS, "ms", "time for which a message id is known"),
    number("log.segment_bytes", MIB, 16 * GIB, "bytes", "size at which a log segment is closed"),
    number("log.batch_rows", 1, 1_000_000, "events", "events that one sync covers at most"),
    number("log.batch_bytes", 64 * KIB, GIB, "bytes", "bytes that one sync covers at most"),
    number(
        "log.max_bytes",
        4 * MIB,
        1 << 50,
        "bytes",
        "size of all logs at which events are refused",
    ),
    number(
        "disk.free_min_bytes",
        0,
        1 << 50,
        "bytes",
        "free space below which events are refused, where the log is and where the table is; when \
         not set 536870912, or an eighth of the file system if that is less",
    ),
    number(
        "hot.flush_interval_ms",
        1,
        DAY_MS,
        "ms",
        "time until followers see a durable event; SQL sees it at once",
    ),
    number(
        "hot.queue_bytes",
        MIB,
        16 * GIB,
        "bytes",
        "durable batches that wait to be taken into a hot table",
    ),
    number(
        "hot.roll_rows",
        1_024,
        100_000_000,
        "events",
        "events at which a hot table is rolled; it takes up to twice as many while another one is",
    ),
    number("hot.roll_bytes", MIB, 16 * GIB, "bytes", "size at which a hot table is rolled"),
    number("hot.roll_age_ms", 100, DAY_MS, "ms", "age at which a hot table is rolled"),
    text("duckdb.memory", "size such as 1GB", "DuckDB's memory limit"),
    number("duckdb.threads", 1, 256, "threads", "DuckDB's threads"),
    text("duckdb.temp_max", "size such as 4GB", "size of DuckDB's temporary directory"),
    number("query.workers", 1, 64, "queries", "queries that run at the same time"),
    number("query.waiting", 0, 10_000, "queries", "queries that may wait for a worker"),
    number("query.wait_ms", 0, DAY_MS, "ms", "time that a query may wait for a worker"),
    number("query.timeout_ms", 1, DAY_MS, "ms", "time that a query may take"),
    number(
        "compaction.interval_ms",
        0,
        DAY_MS,
        "ms",
        "time between looks for small files; 0: never",
    ),
    number(
        "compaction.file_bytes",
        MIB,
        16 * GIB,
        "bytes",
        "size of the files that are made of them",
    ),
    number("compaction.retain_ms", 0, 7 * DAY_MS, "ms", "time that replaced files stay on disk"),
    number(
        "retention.age_ms",
        0,
        36_525 * DAY_MS,
        "ms",
        "age at which events leave the table, whole files at a time; 0: never",
    ),
    number(
        "retention.max_bytes",
        0,
        1 << 60,
        "bytes",
        "size of the table's files above which the oldest leave it; 0: any",
    ),
];

/// The keys as a chapter of the help text.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Keys of the configuration file, in TOML; a dot separates section and key. The environment\n\
         variable of http.events_max is RINGLAKE_HTTP_EVENTS_MAX, and so on; columns has none.\n",
    );
    for key in KEYS {
        text.push_str(&format!("  {:<32} {} [{}]\n", key.name, key.meaning, key.unit));
    }
    text
}
