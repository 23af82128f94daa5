//! The configuration as written: every key optional, none unknown.

use ringlake_engine::Config as EngineConfig;
use serde::{Deserialize, Serialize};

use super::{HttpConfig, Quotas, millis, set, size};
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
    pub privacy: Privacy,
    pub limits: Limits,
    pub dedup: Dedup,
    pub log: Log,
    pub disk: Disk,
    pub hot: Hot,
    pub duckdb: DuckDb,
    pub query: Query,
    pub compaction: Compaction,
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
pub(super) struct Privacy {
    pub store_ip: Option<bool>,
    pub honour_dnt: Option<bool>,
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
pub(super) struct Compaction {
    pub interval_ms: Option<u64>,
    pub file_bytes: Option<u64>,
    pub retain_ms: Option<u64>,
}

/// Puts the sections `dedup`, `log`, `disk`, `hot`, `duckdb`, `query` and `compaction` into
/// `engine`.
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

    let (compaction, raw) = (&mut engine.compaction, &raw.compaction);
    set(&mut compaction.interval, millis(raw.interval_ms, "compaction.interval_ms")?);
    set(&mut compaction.file_bytes, super::count(raw.file_bytes, "compaction.file_bytes")?);
    set(&mut compaction.retain_replaced, millis(raw.retain_ms, "compaction.retain_ms")?);
    Ok(())
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
