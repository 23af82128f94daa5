//! The configuration: file, environment and flags, made into legal values.
//!
//! **Guarantees.** Later sources win: the TOML file, then `RINGLAKE_*` variables, then flags. A key
//! that nobody knows is an error that names it, wherever it stands. A value outside its range is
//! an error that names key, value and range. Where each value came from is kept ([`Config::origin`]).
//!
//! **Layout.** The variable of key `duckdb.memory` is `RINGLAKE_DUCKDB_MEMORY`; `columns`, which is a
//! list of tables, has none. [`KEYS`] is the one list of keys; [`raw`] mirrors it for serde.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlake_event::Limits;
use ringlake_keys::limits::Quota;
use toml::{Table, Value};

use crate::UsageError;
use crate::cli::{Ack, LogFormat, Place, Serve};
use crate::http::Network;

mod keys;
mod raw;
mod show;

pub use keys::{KEYS, Kind, help};
use raw::Raw;
pub use show::show;

/// The data directory when nobody names one.
pub const DEFAULT_DATA: &str = "./ringlake-data";
/// Where the server listens when nobody says: loopback, because no key exists yet.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// A stop request ends within this time, whatever clients do.
pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Part of the requests that are traced: at a hundred thousand a second still a hundred of them.
pub const DEFAULT_TRACES_SAMPLE: f64 = 0.001;

/// Variables that begin with `RINGLAKE_` and are no settings: the log filter is read by
/// [`crate::logging`], the key that a command sends by [`crate::cli`], Kubernetes invents two families for a service that is called `ringlake`, and
/// the test suite steers itself with the third.
const FOREIGN_VARIABLES: [&str; 2] = [crate::logging::FILTER_VARIABLE, crate::cli::KEY_VARIABLE];
const FOREIGN_PREFIXES: [&str; 3] = ["RINGLAKE_SERVICE_", "RINGLAKE_PORT", "RINGLAKE_TEST_"];
const PREFIX: &str = "RINGLAKE_";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(formatter, "default"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

/// Everything that can be configured, with legal values.
#[derive(Debug, Clone)]
pub struct Config {
    /// The engine's part.
    pub engine: ringlake_engine::Config,
    /// The server's part.
    pub http: HttpConfig,
    /// What keys and tenants may do.
    pub quotas: Quotas,
    /// What is kept of visitors.
    pub privacy: Privacy,
    /// What connections are encrypted with. Default nothing: plain HTTP/1.1, as behind a proxy.
    pub tls: Option<TlsFiles>,
    /// Where webhooks may go.
    pub webhooks: WebhooksConfig,
    /// Where traces go, and of what.
    pub traces: TracesConfig,
    /// Where to listen, as `address:port`.
    pub listen: String,
    /// What a 2xx promises when the request does not say.
    pub ack: Ack,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Time for an orderly stop. Default 5 s; what is not synced by then is reported.
    pub shutdown_timeout: Duration,
    origins: BTreeMap<&'static str, Origin>,
}

/// What keys and tenants may do in a window; a quota of 0 is none.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    /// Length of the sliding window. A burst may use a quota at once. Default 60 s.
    pub window: Duration,
    /// For each key. Default none.
    pub key: Quota,
    /// For each tenant, all of its keys together. Default none.
    pub tenant: Quota,
}

impl Default for Quotas {
    fn default() -> Self {
        let none = Quota::default();
        Self { window: Duration::from_secs(60), key: none, tenant: none }
    }
}

/// A certificate and its key, in PEM. Newer ones are taken up within a second or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain of certificates, the server's own first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Where traces go, and of what.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesConfig {
    /// The collector. Default none: there are no traces.
    pub url: Option<String>,
    /// Part of the requests that are traced, between 0 and 1; at 0 only background work is. Default
    /// 0.001.
    pub sample: f64,
}

/// Where webhooks may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// Whether they may go to addresses that are not on the internet, and by plain HTTP. Default no:
    /// tenants name the URLs, and the server may reach what they may not.
    pub allow_private: bool,
}

/// What is kept of visitors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Privacy {
    /// Whether the column `ip` holds clients' addresses. Default no.
    pub store_ip: bool,
    /// Whether `DNT: 1` and `Sec-GPC: 1` keep events free of visitor id and address. Default no.
    pub honour_dnt: bool,
}

/// Bounds of the HTTP server.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Open connections; above it new ones wait in the kernel's queue. Default 10,000.
    pub connections_max: usize,
    /// Open connections of one address (of one /64 in IPv6); above it new ones are closed. Default
    /// 1,024, more than a browser or an SDK opens.
    pub connections_per_address_max: usize,
    /// Size of a request's head in bytes; a larger one is answered 431. Default 16 KiB.
    pub head_max_bytes: usize,
    /// Size of an ingest body in bytes, before and after decompression. Default 4 MiB.
    pub body_max_bytes: usize,
    /// Bytes of all bodies that are being read or decompressed at one time, in equal shares for each
    /// core ([`HttpConfig::bodies_share`]); above it requests are answered 503. Default 128 MiB.
    pub bodies_max_bytes: usize,
    /// Limits of single events and of events in one request.
    pub limits: Limits,
    /// Time for a body to arrive; then 408. Default 30 s.
    pub body_timeout: Duration,
    /// Time for a head to arrive, from its first byte; then the connection is closed. Default 10 s.
    pub head_timeout: Duration,
    /// Average bytes a second below which a body that has been arriving for 5 s or longer is given
    /// up with 408; 0 is any. Default 512.
    pub body_rate_min_bytes: u64,
    /// Time that a connection may go without a complete request, or without reading its answer;
    /// then it is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// Origins that may send events from a browser; `*` is any. Default any. A write key that
    /// names origins itself goes by its own.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` or `Forwarded` says who the client is; they may have any
    /// number of connections. Default none.
    pub trusted_proxies: Vec<Network>,
}

impl HttpConfig {
    /// What the bodies of one of `loops` serving loops may take: never less than one of the largest
    /// bodies needs packed and unpacked, or it could never be taken.
    #[must_use]
    pub fn bodies_share(&self, loops: usize) -> usize {
        (self.bodies_max_bytes / loops.max(1)).max(self.body_max_bytes.saturating_mul(2))
    }

    /// Whether pages of `origin` may send events, as far as the configuration goes.
    #[must_use]
    pub fn allows_origin(&self, origin: &[u8]) -> bool {
        let same = |one: &String| one == "*" || origin.eq_ignore_ascii_case(one.as_bytes());
        self.cors_origins.iter().any(same)
    }
}

impl HttpConfig {
    /// Whether `address` is a proxy whose headers are believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 1_024,
            head_max_bytes: 16 << 10,
            body_max_bytes: 4 << 20,
            bodies_max_bytes: 128 << 20,
            limits: Limits::default(),
            body_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            body_rate_min_bytes: 512,
            idle_timeout: Duration::from_secs(60),
            cors_origins: vec!["*".into()],
            trusted_proxies: Vec::new(),
        }
    }
}

/// A value given on the command line.
type Flag = (&'static str, &'static str, Value);

impl Config {
    /// The configuration of `ringlake serve`.
    ///
    /// # Errors
    /// A [`UsageError`] for unknown keys, values out of range, and a file that cannot be read.
    pub fn for_server(arguments: &Serve, log: Option<LogFormat>) -> Result<Self, UsageError> {
        let mut flags = place_flags(&arguments.place, log)?;
        if let Some(listen) = &arguments.listen {
            flags.push(("listen", "--listen", Value::String(listen.clone())));
        }
        if let Some(ack) = arguments.ack {
            flags.push(("ack", "--ack", name_of(ack)));
        }
        if let Some(url) = &arguments.traces {
            flags.push(("traces.url", "--traces", Value::String(url.clone())));
        }
        if let Some(sample) = arguments.trace_sample {
            flags.push(("traces.sample", "--trace-sample", Value::Float(sample)));
        }
        for (key, flag, file) in [
            ("tls.cert", "--tls-cert", &arguments.tls_cert),
            ("tls.key", "--tls-key", &arguments.tls_key),
        ] {
            if let Some(file) = file {
                let text =
                    file.to_str().ok_or_else(|| UsageError(format!("{flag} is not UTF-8")))?;
                flags.push((key, flag, Value::String(text.into())));
            }
        }
        Self::load(arguments.place.config.as_deref(), std::env::vars_os(), flags)
    }

    /// The configuration of a command that opens a data directory.
    ///
    /// # Errors
    /// See [`Config::for_server`].
    pub fn for_command(place: &Place, log: Option<LogFormat>) -> Result<Self, UsageError> {
        Self::load(place.config.as_deref(), std::env::vars_os(), place_flags(place, log)?)
    }

    /// Where the value of `key` came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// The keys that somebody has set, and where.
    pub fn set_keys(&self) -> impl Iterator<Item = (&'static str, &Origin)> {
        KEYS.iter()
            .map(|key| (key.name, self.origin(key.name)))
            .filter(|(_, origin)| **origin != Origin::Default)
    }

    fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
        flags: Vec<Flag>,
    ) -> Result<Self, UsageError> {
        let mut origins = BTreeMap::new();
        let mut table = match file {
            None => Table::new(),
            Some(path) => read_file(path, &mut origins)?,
        };
        for (name, value) in variables {
            overlay_variable(&mut table, &mut origins, &name, &value)?;
        }
        for (key, flag, value) in flags {
            insert(&mut table, key, value);
            origins.insert(key, Origin::Flag(flag));
        }
        let raw: Raw = table.try_into().map_err(|error: toml::de::Error| {
            UsageError(format!("the configuration is not valid: {}", error.message()))
        })?;
        validate(raw, origins)
    }
}

fn place_flags(place: &Place, log: Option<LogFormat>) -> Result<Vec<Flag>, UsageError> {
    let mut flags = Vec::new();
    if let Some(data) = &place.data {
        let Some(text) = data.to_str() else {
            return Err(UsageError(format!("--data {} is not UTF-8", data.display())));
        };
        flags.push(("data", "--data", Value::String(text.into())));
    }
    if let Some(lake) = &place.lake {
        flags.push(("lake", "--lake", Value::String(lake.clone())));
    }
    if let Some(format) = log {
        flags.push(("log_format", "--log-format", name_of(format)));
    }
    Ok(flags)
}

fn name_of(value: impl clap::ValueEnum) -> Value {
    let name = value.to_possible_value().map(|value| value.get_name().to_owned());
    Value::String(name.unwrap_or_default())
}

/// Reads the file once for its keys and once, strictly, for an error that names the line.
fn read_file(
    path: &Path,
    origins: &mut BTreeMap<&'static str, Origin>,
) -> Result<Table, UsageError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| UsageError(format!("cannot read {}: {error}", path.display())))?;
    let invalid = |error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
        });
        UsageError(format!("{} line {line}: {}", path.display(), error.message()))
    };
    toml::from_str::<Raw>(&text).map_err(invalid)?;
    let table: Table = toml::from_str(&text).map_err(invalid)?;
    for key in KEYS {
        if lookup(&table, key.name).is_some() {
            origins.insert(key.name, Origin::File(path.to_owned()));
        }
    }
    Ok(table)
}

fn overlay_variable(
    table: &mut Table,
    origins: &mut BTreeMap<&'static str, Origin>,
    name: &std::ffi::OsStr,
    value: &std::ffi::OsStr,
) -> Result<(), UsageError> {
    let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
        return Ok(());
    };
    if FOREIGN_VARIABLES.contains(&name)
        || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    {
        return Ok(());
    }
    let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
        return Err(UsageError(format!("the environment variable {name} names no setting")));
    };
    let Some(text) = value.to_str() else {
        return Err(UsageError(format!("the environment variable {name} is not UTF-8")));
    };
    let value =
        match key.kind {
            Kind::Text => Value::String(text.into()),
            Kind::Flag => Value::Boolean(text.trim().parse().map_err(|_| {
                UsageError(format!("{name} is `{text}`; it must be true or false"))
            })?),
            Kind::List => Value::Array(
                text.split(',').map(|part| Value::String(part.trim().into())).collect(),
            ),
            Kind::Tables => {
                return Err(UsageError(format!(
                    "{name} is set; `{}` can be set in the configuration file only",
                    key.name
                )));
            }
            Kind::Ratio => Value::Float(text.trim().parse().map_err(|_| {
                UsageError(format!("{name} is `{text}`; it must be a number {}", key.unit))
            })?),
            Kind::Count { .. } => Value::Integer(text.trim().parse().map_err(|_| {
                UsageError(format!("{name} is `{text}`; it must be a whole number of {}", key.unit))
            })?),
        };
    insert(table, key.name, value);
    origins.insert(key.name, Origin::Environment(name.to_owned()));
    Ok(())
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => table.get(section)?.as_table()?.get(rest),
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.into(), value);
        return;
    };
    let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(rest.into(), value);
    }
}

/// Checks ranges and contradictions; what it returns needs no second look.
fn validate(raw: Raw, origins: BTreeMap<&'static str, Origin>) -> Result<Config, UsageError> {
    let data = PathBuf::from(raw.data.as_deref().unwrap_or(DEFAULT_DATA));
    let mut engine = ringlake_engine::Config::new(data);
    engine.lake = raw.lake.clone();
    if let Some(shards) = size(raw.shards, "shards")?.and_then(NonZeroUsize::new) {
        engine.shards = shards;
    }
    set(&mut engine.ring_bytes, size(raw.ring_bytes, "ring_bytes")?);
    raw::fill_engine(&raw, &mut engine)?;
    raw::fill_columns(&raw, &mut engine)?;
    set(&mut engine.mark_bots, raw.privacy.mark_bots);
    engine.check().map_err(|error| UsageError(error.to_string()))?;
    let mut http = HttpConfig::default();
    raw::fill_http(&raw, &mut http)?;
    let mut quotas = Quotas::default();
    raw::fill_quotas(&raw, &mut quotas)?;
    if http.limits.event_max_bytes > http.body_max_bytes {
        return Err(UsageError(format!(
            "http.event_max_bytes is {}; it must not be above http.body_max_bytes, {}",
            http.limits.event_max_bytes, http.body_max_bytes
        )));
    }
    Ok(Config {
        engine,
        http,
        quotas,
        privacy: Privacy {
            store_ip: raw.privacy.store_ip.unwrap_or_default(),
            honour_dnt: raw.privacy.honour_dnt.unwrap_or_default(),
        },
        tls: raw::tls(&raw)?,
        webhooks: WebhooksConfig { allow_private: raw.webhooks.allow_private.unwrap_or_default() },
        traces: raw::traces(&raw)?,
        listen: raw.listen.unwrap_or_else(|| DEFAULT_LISTEN.into()),
        ack: raw.ack.unwrap_or(Ack::Disk),
        log_format: raw.log_format.unwrap_or(LogFormat::Text),
        shutdown_timeout: millis(raw.shutdown_timeout_ms, "shutdown_timeout_ms")?
            .unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT),
        origins,
    })
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// Checks `value` against the range that [`KEYS`] gives `name`.
fn count(value: Option<u64>, name: &'static str) -> Result<Option<u64>, UsageError> {
    let Some(value) = value else { return Ok(None) };
    let key = KEYS.iter().find(|key| key.name == name);
    match key.map(|key| (key, key.kind)) {
        Some((key, Kind::Count { min, max })) if !(min..=max).contains(&value) => Err(UsageError(
            format!("{name} is {value}; it must be between {min} and {max} {}", key.unit),
        )),
        _ => Ok(Some(value)),
    }
}

fn size(value: Option<u64>, name: &'static str) -> Result<Option<usize>, UsageError> {
    let too_large = |_| UsageError(format!("{name} is larger than this machine can address"));
    count(value, name)?.map(|value| usize::try_from(value).map_err(too_large)).transpose()
}

fn millis(value: Option<u64>, name: &'static str) -> Result<Option<Duration>, UsageError> {
    Ok(count(value, name)?.map(Duration::from_millis))
}

#[cfg(test)]
mod tests;
