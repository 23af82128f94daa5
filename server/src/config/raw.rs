//! The configuration as written: every key optional, none unknown.

use std::time::Duration;

use ringlake_engine::Config as EngineConfig;
use ringlake_engine::promoted::{ColumnConfig, kind_of, name_of, one_of_the_types};
use serde::{Deserialize, Serialize};

use super::{
    Config, DEFAULT_TRACES_SAMPLE, HttpConfig, Quotas, TlsFiles, TracesConfig, millis, set, size,
};
use crate::UsageError;
use crate::cli::{Ack, LogFormat};

/// The file's top level.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub data: Option<String>,
    pub lake: Option<String>,
    pub listen: Option<String>,
    pub ack: Option<Ack>,
    pub log_format: Option<LogFormat>,
    pub shards: Option<u64>,
    pub ring_bytes: Option<u64>,
    pub shutdown_timeout_ms: Option<u64>,
    pub http: Http,
    pub tls: Tls,
    pub privacy: Privacy,
    pub limits: Limits,
    pub webhooks: Webhooks,
    pub traces: Traces,
    pub dedup: Dedup,
    pub log: Log,
    pub disk: Disk,
    pub hot: Hot,
    pub duckdb: DuckDb,
    pub query: Query,
    pub retention: Retention,
    pub compaction: Compaction,
    pub columns: Vec<Column>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    pub connections_max: Option<u64>,
    pub connections_per_address_max: Option<u64>,
    pub head_max_bytes: Option<u64>,
    pub body_max_bytes: Option<u64>,
    pub bodies_max_bytes: Option<u64>,
    pub event_max_bytes: Option<u64>,
    pub events_max: Option<u64>,
    pub body_timeout_ms: Option<u64>,
    pub head_timeout_ms: Option<u64>,
    pub body_rate_min_bytes: Option<u64>,
    pub idle_timeout_ms: Option<u64>,
    pub cors_origins: Option<Vec<String>>,
    pub trusted_proxies: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub cert: Option<String>,
    pub key: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Privacy {
    pub store_ip: Option<bool>,
    pub honour_dnt: Option<bool>,
    pub mark_bots: Option<bool>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub window_ms: Option<u64>,
    pub key_requests: Option<u64>,
    pub key_events: Option<u64>,
    pub tenant_requests: Option<u64>,
    pub tenant_events: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Webhooks {
    pub allow_private: Option<bool>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Traces {
    pub url: Option<String>,
    pub sample: Option<f64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dedup {
    pub ids: Option<u64>,
    pub window_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub segment_bytes: Option<u64>,
    pub batch_rows: Option<u64>,
    pub batch_bytes: Option<u64>,
    pub max_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Disk {
    pub free_min_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Hot {
    pub flush_interval_ms: Option<u64>,
    pub queue_bytes: Option<u64>,
    pub roll_rows: Option<u64>,
    pub roll_bytes: Option<u64>,
    pub roll_age_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DuckDb {
    pub memory: Option<String>,
    pub threads: Option<u64>,
    pub temp_max: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Query {
    pub workers: Option<u64>,
    pub waiting: Option<u64>,
    pub wait_ms: Option<u64>,
    pub timeout_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retention {
    pub age_ms: Option<u64>,
    pub max_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Compaction {
    pub interval_ms: Option<u64>,
    pub file_bytes: Option<u64>,
    pub retain_ms: Option<u64>,
}

/// A promoted column. Nothing of it is optional.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    pub name: String,
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
}

impl Raw {
    /// What a file with every value of `config` would hold. Absent: what depends on the machine and
    /// has not been set.
    pub fn of(config: &Config) -> Self {
        let engine = &config.engine;
        Self {
            data: Some(engine.data.display().to_string()),
            lake: engine.lake.clone(),
            listen: Some(config.listen.clone()),
            ack: Some(config.ack),
            log_format: Some(config.log_format),
            shards: given(engine.shards.get()),
            ring_bytes: given(engine.ring_bytes),
            shutdown_timeout_ms: in_millis(config.shutdown_timeout),
            http: Http::of(&config.http),
            tls: Tls {
                cert: config.tls.as_ref().map(|files| files.cert.display().to_string()),
                key: config.tls.as_ref().map(|files| files.key.display().to_string()),
            },
            privacy: Privacy {
                store_ip: Some(config.privacy.store_ip),
                honour_dnt: Some(config.privacy.honour_dnt),
                mark_bots: Some(engine.mark_bots),
            },
            limits: Limits {
                window_ms: in_millis(config.quotas.window),
                key_requests: Some(config.quotas.key.requests),
                key_events: Some(config.quotas.key.events),
                tenant_requests: Some(config.quotas.tenant.requests),
                tenant_events: Some(config.quotas.tenant.events),
            },
            webhooks: Webhooks { allow_private: Some(config.webhooks.allow_private) },
            traces: Traces { url: config.traces.url.clone(), sample: Some(config.traces.sample) },
            dedup: Dedup {
                ids: given(engine.dedup.ids),
                window_ms: in_millis(engine.dedup.window),
            },
            log: Log {
                segment_bytes: Some(engine.log.segment_bytes),
                batch_rows: given(engine.log.batch_rows),
                batch_bytes: given(engine.log.batch_bytes),
                max_bytes: Some(engine.log_max_bytes()),
            },
            disk: Disk { free_min_bytes: engine.disk.free_min_bytes },
            hot: Hot {
                flush_interval_ms: in_millis(engine.hot.flush_interval),
                queue_bytes: given(engine.hot.queue_bytes),
                roll_rows: given(engine.hot.roll_rows),
                roll_bytes: given(engine.hot.roll_bytes),
                roll_age_ms: in_millis(engine.hot.roll_age),
            },
            duckdb: DuckDb {
                memory: Some(engine.duckdb.memory_limit.clone()),
                threads: given(engine.duckdb.threads),
                temp_max: Some(engine.duckdb.temp_max.clone()),
            },
            query: Query {
                workers: given(engine.query.workers),
                waiting: given(engine.query.waiting),
                wait_ms: in_millis(engine.query.wait),
                timeout_ms: in_millis(engine.query.timeout),
            },
            retention: Retention {
                age_ms: in_millis(engine.retention.age),
                max_bytes: Some(engine.retention.max_bytes),
            },
            compaction: Compaction {
                interval_ms: in_millis(engine.compaction.interval),
                file_bytes: Some(engine.compaction.file_bytes),
                retain_ms: in_millis(engine.compaction.retain_replaced),
            },
            columns: engine.columns.iter().map(Column::of).collect(),
        }
    }
}

impl Column {
    fn of(column: &ColumnConfig) -> Self {
        Self {
            name: column.name.clone(),
            path: column.path.clone(),
            kind: name_of(column.kind).to_owned(),
        }
    }
}

impl Http {
    fn of(http: &HttpConfig) -> Self {
        Self {
            connections_max: given(http.connections_max),
            connections_per_address_max: given(http.connections_per_address_max),
            head_max_bytes: given(http.head_max_bytes),
            body_max_bytes: given(http.body_max_bytes),
            bodies_max_bytes: given(http.bodies_max_bytes),
            event_max_bytes: given(http.limits.event_max_bytes),
            events_max: given(http.limits.events_max),
            body_timeout_ms: in_millis(http.body_timeout),
            head_timeout_ms: in_millis(http.head_timeout),
            body_rate_min_bytes: Some(http.body_rate_min_bytes),
            idle_timeout_ms: in_millis(http.idle_timeout),
            cors_origins: Some(http.cors_origins.clone()),
            trusted_proxies: Some(http.trusted_proxies.iter().map(ToString::to_string).collect()),
        }
    }
}

fn given(value: usize) -> Option<u64> {
    u64::try_from(value).ok()
}

fn in_millis(value: Duration) -> Option<u64> {
    u64::try_from(value.as_millis()).ok()
}

/// Puts the sections `dedup`, `log`, `disk`, `hot`, `duckdb`, `query`, `compaction` and `retention`
/// into `engine`.
pub(super) fn fill_engine(raw: &Raw, engine: &mut EngineConfig) -> Result<(), UsageError> {
    let dedup = &mut engine.dedup;
    set(&mut dedup.ids, size(raw.dedup.ids, "dedup.ids")?);
    set(&mut dedup.window, millis(raw.dedup.window_ms, "dedup.window_ms")?);

    let log = &mut engine.log;
    set(&mut log.segment_bytes, super::count(raw.log.segment_bytes, "log.segment_bytes")?);
    set(&mut log.batch_rows, size(raw.log.batch_rows, "log.batch_rows")?);
    set(&mut log.batch_bytes, size(raw.log.batch_bytes, "log.batch_bytes")?);
    log.max_bytes = super::count(raw.log.max_bytes, "log.max_bytes")?;
    let free = super::count(raw.disk.free_min_bytes, "disk.free_min_bytes")?;
    engine.disk.free_min_bytes = free;

    let hot = &mut engine.hot;
    set(&mut hot.flush_interval, millis(raw.hot.flush_interval_ms, "hot.flush_interval_ms")?);
    set(&mut hot.queue_bytes, size(raw.hot.queue_bytes, "hot.queue_bytes")?);
    set(&mut hot.roll_rows, size(raw.hot.roll_rows, "hot.roll_rows")?);
    set(&mut hot.roll_bytes, size(raw.hot.roll_bytes, "hot.roll_bytes")?);
    set(&mut hot.roll_age, millis(raw.hot.roll_age_ms, "hot.roll_age_ms")?);

    let duckdb = &mut engine.duckdb;
    set(&mut duckdb.memory_limit, raw.duckdb.memory.clone());
    set(&mut duckdb.threads, size(raw.duckdb.threads, "duckdb.threads")?);
    set(&mut duckdb.temp_max, raw.duckdb.temp_max.clone());

    let query = &mut engine.query;
    set(&mut query.workers, size(raw.query.workers, "query.workers")?);
    set(&mut query.waiting, size(raw.query.waiting, "query.waiting")?);
    set(&mut query.wait, millis(raw.query.wait_ms, "query.wait_ms")?);
    set(&mut query.timeout, millis(raw.query.timeout_ms, "query.timeout_ms")?);

    let retention = &mut engine.retention;
    set(&mut retention.age, millis(raw.retention.age_ms, "retention.age_ms")?);
    set(&mut retention.max_bytes, super::count(raw.retention.max_bytes, "retention.max_bytes")?);

    let (compaction, raw) = (&mut engine.compaction, &raw.compaction);
    set(&mut compaction.interval, millis(raw.interval_ms, "compaction.interval_ms")?);
    set(&mut compaction.file_bytes, super::count(raw.file_bytes, "compaction.file_bytes")?);
    set(&mut compaction.retain_replaced, millis(raw.retain_ms, "compaction.retain_ms")?);
    Ok(())
}

/// Puts the tables `columns` into `engine`.
pub(super) fn fill_columns(raw: &Raw, engine: &mut EngineConfig) -> Result<(), UsageError> {
    for (at, column) in raw.columns.iter().enumerate() {
        let kind = kind_of(&column.kind).ok_or_else(|| {
            let (number, kind) = (at + 1, &column.kind);
            UsageError(format!(
                "columns[{number}].type is {kind}; it must be {}",
                one_of_the_types()
            ))
        })?;
        let (name, path) = (column.name.clone(), column.path.clone());
        engine.columns.push(ColumnConfig { name, path, kind });
    }
    Ok(())
}

/// The files of the section `tls`.
pub(super) fn tls(raw: &Raw) -> Result<Option<TlsFiles>, UsageError> {
    match (&raw.tls.cert, &raw.tls.key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.into(), key: key.into() })),
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(UsageError("tls.cert is set without tls.key, its private key".into()))
        }
        (None, Some(_)) => {
            Err(UsageError("tls.key is set without tls.cert, its certificate".into()))
        }
    }
}

/// The section `traces`.
pub(super) fn traces(raw: &Raw) -> Result<TracesConfig, UsageError> {
    let sample = raw.traces.sample.unwrap_or(DEFAULT_TRACES_SAMPLE);
    if !(0.0..=1.0).contains(&sample) {
        return Err(UsageError(format!(
            "traces.sample is {sample}; it must be between 0 and 1, the part of the requests"
        )));
    }
    Ok(TracesConfig { url: raw.traces.url.clone(), sample })
}

/// Puts the section `limits` into `quotas`.
pub(super) fn fill_quotas(raw: &Raw, quotas: &mut Quotas) -> Result<(), UsageError> {
    let raw = &raw.limits;
    set(&mut quotas.window, millis(raw.window_ms, "limits.window_ms")?);
    for (target, value, name) in [
        (&mut quotas.key.requests, raw.key_requests, "limits.key_requests"),
        (&mut quotas.key.events, raw.key_events, "limits.key_events"),
        (&mut quotas.tenant.requests, raw.tenant_requests, "limits.tenant_requests"),
        (&mut quotas.tenant.events, raw.tenant_events, "limits.tenant_events"),
    ] {
        set(target, super::count(value, name)?);
    }
    Ok(())
}

/// Puts the section `http` into `http`.
pub(super) fn fill_http(raw: &Raw, http: &mut HttpConfig) -> Result<(), UsageError> {
    let raw = &raw.http;
    set(&mut http.connections_max, size(raw.connections_max, "http.connections_max")?);
    set(
        &mut http.connections_per_address_max,
        size(raw.connections_per_address_max, "http.connections_per_address_max")?,
    );
    set(&mut http.head_max_bytes, size(raw.head_max_bytes, "http.head_max_bytes")?);
    set(&mut http.body_max_bytes, size(raw.body_max_bytes, "http.body_max_bytes")?);
    set(&mut http.bodies_max_bytes, size(raw.bodies_max_bytes, "http.bodies_max_bytes")?);
    set(&mut http.limits.event_max_bytes, size(raw.event_max_bytes, "http.event_max_bytes")?);
    set(&mut http.limits.events_max, size(raw.events_max, "http.events_max")?);
    set(&mut http.body_timeout, millis(raw.body_timeout_ms, "http.body_timeout_ms")?);
    set(&mut http.head_timeout, millis(raw.head_timeout_ms, "http.head_timeout_ms")?);
    let rate = super::count(raw.body_rate_min_bytes, "http.body_rate_min_bytes")?;
    set(&mut http.body_rate_min_bytes, rate);
    set(&mut http.idle_timeout, millis(raw.idle_timeout_ms, "http.idle_timeout_ms")?);
    for text in raw.trusted_proxies.iter().flatten() {
        let network = text.parse().map_err(|()| {
            UsageError(format!(
                "http.trusted_proxies holds `{text}`; a proxy looks like 10.0.0.1 or 10.0.0.0/8"
            ))
        })?;
        http.trusted_proxies.push(network);
    }
    set(&mut http.cors_origins, raw.cors_origins.clone());
    for origin in &http.cors_origins {
        if !ringlake_keys::is_origin(origin) {
            return Err(UsageError(format!(
                "http.cors_origins holds `{origin}`; an origin is `*` or looks like https://host"
            )));
        }
    }
    Ok(())
}
