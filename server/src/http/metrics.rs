//! `GET /metrics`: counters, gauges and histograms, in the OpenMetrics text format for who asks for
//! it and in Prometheus' own for everybody else.
//!
//! `server/ops/METRICS.md` describes each; a test keeps the two together.
//!
//! Everything is counted where it happens, by one thread each, and added up here when somebody
//! asks; so counting costs nothing that could be measured.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};
use ringlake_engine::Readiness;
use ringlake_engine::accounting::Refusal;
use ringlake_engine::metrics::{BOUNDS_NANOS, Histogram, Totals};
use ringlake_engine::status::{CompactionStatus, RetentionStatus, Status};
use ringlake_engine::webhook::WebhookState;

use super::App;
use super::answer::Problem;
use crate::traces::Tracer;

const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS_CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a scrape.
pub async fn answer(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let scraped = Arc::clone(&app);
    let text = app.blocking(|_| write(scraped)).await?;
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepted.contains(OPEN_METRICS) {
        Ok(([(CONTENT_TYPE, OPEN_METRICS_CONTENT)], text).into_response())
    } else {
        Ok(([(CONTENT_TYPE, PROMETHEUS_CONTENT)], prometheus(&text)).into_response())
    }
}

/// OpenMetrics in the format that came before it: the family of a counter has the name of its
/// samples, there are no units, and nothing marks the end.
fn prometheus(open_metrics: &str) -> String {
    let family = |line: &str| line.split(' ').nth(2).unwrap_or_default().to_owned();
    let is_counter = |line: &&str| line.starts_with("# TYPE ") && line.ends_with(" counter");
    let counters: HashSet<String> = open_metrics.lines().filter(is_counter).map(family).collect();
    let mut text = String::with_capacity(open_metrics.len() + 8 * counters.len());
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let name = family(line);
        if line.starts_with("# ") && counters.contains(&name) {
            text.push_str(&line.replacen(&name, &format!("{name}_total"), 1));
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

fn write(app: Arc<App>) -> Result<String, Problem> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(app)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|_| Problem::Internal("the metrics cannot be written"))?;
    Ok(text)
}

/// One look at everything.
#[derive(Debug)]
struct Scrape(Arc<App>);

type Labels<'a> = [(&'static str, &'a str); 1];
/// No metric of ours carries an example.
type NoExemplar = Exemplar<[(&'static str, &'static str); 1], f64>;

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.engine.status();
        let mut writer = Writer(encoder);
        self.events(&mut writer, &status)?;
        self.latencies(&mut writer)?;
        storage(&mut writer, &status)?;
        compaction(&mut writer, &status.compaction)?;
        retention(&mut writer, &status.retention)?;
        self.webhooks(&mut writer)?;
        traces(&mut writer, self.0.tracer.as_deref())?;
        let ready = matches!(self.0.engine.readiness(), Readiness::Ready);
        writer.gauge("ready", "1 when events are accepted durably", u64::from(ready))?;
        // Relaxed: statistics.
        let turned_away = self.0.turned_away.load(Ordering::Relaxed);
        let help = "connections closed because their address had enough";
        writer.counter("http_connections_turned_away", help, turned_away)?;
        writer.gauge("http_connections", "open connections", self.0.connections() as u64)
    }
}

impl Scrape {
    fn events(&self, writer: &mut Writer<'_>, status: &Status) -> fmt::Result {
        let accounting = &status.accounting;
        writer.counter(
            "events_received",
            "events that arrived, good or bad",
            accounting.received,
        )?;
        writer.counter("events_ingested", "events made durable", accounting.stored)?;
        writer.counter("events_duplicate", "events known before", accounting.duplicate)?;
        let refused = Refusal::ALL.map(|reason| (reason.name(), accounting.refused.of(reason)));
        writer.counters("events_refused", "events not stored, by reason", "reason", refused)?;
        writer.gauge(
            "events_in_flight",
            "events accepted, not yet durable",
            accounting.in_flight,
        )?;
        let mut by_code = BTreeMap::<&'static str, u64>::new();
        for shared in &self.0.loops {
            let errors = shared.validation_errors.lock().unwrap_or_else(PoisonError::into_inner);
            for (code, count) in errors.iter() {
                *by_code.entry(code).or_default() += count;
            }
        }
        writer.counters("validation_errors", "refusals of what clients sent", "type", by_code)
    }

    fn webhooks(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let deliveries = &self.0.deliveries;
        let help = "attempts to send a message of a webhook, by how they ended";
        writer.counters("webhook_deliveries", help, "status", deliveries.attempts())?;
        let mut took = Totals::default();
        deliveries.took.add_to(&mut took);
        let help = "time from the first byte of such a message to its answer";
        writer.histograms("webhook_delivery_latency", help, [(None, took)])?;
        let (webhooks, end) = (self.0.webhooks.list(None), self.0.engine.end_of_feed());
        let by_state = WebhookState::ALL.map(|state| {
            let count = webhooks.iter().filter(|webhook| webhook.state() == state).count();
            (state.name(), count as u64)
        });
        writer.gauges("webhooks", "webhooks, by what they are at", "state", by_state)?;
        let live = || webhooks.iter().filter(|webhook| !webhook.is_gone);
        let behind = end.iter().flat_map(|end| live().map(|webhook| webhook.position.behind(end)));
        let help = "events that the webhook furthest behind has yet to look at, but for those that are gone";
        writer.gauge("webhook_behind_events", help, behind.max().unwrap_or(0))
    }

    fn latencies(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut ingestion = Totals::default();
        for shared in &self.0.loops {
            shared.latency.add_to(&mut ingestion);
        }
        let help = "time from a request's head to its answer";
        writer.histograms("event_ingestion_latency", help, [(None, ingestion)])?;
        let (mut auth, mut limits) = (Totals::default(), Totals::default());
        let (mut hits, mut misses) = (0, 0);
        for shared in &self.0.loops {
            shared.auth.add_to(&mut auth);
            shared.limit_checks.add_to(&mut limits);
            // Relaxed: statistics.
            hits += shared.key_hits.load(Ordering::Relaxed);
            misses += shared.key_misses.load(Ordering::Relaxed);
        }
        let help = "time from the look at a request's key to the decision about it";
        writer.histograms("auth_latency", help, [(None, auth)])?;
        let help = "time of a look at the quotas of a key and its tenant";
        writer.histograms("rate_limit_check_latency", help, [(None, limits)])?;
        let lookups = [("hit", hits), ("miss", misses)];
        let help = "looks into the cache of verified keys";
        writer.counters("cache_lookups", help, "result", lookups)?;
        let operations = self.0.engine.operations();
        let of = |name, histogram: &Histogram| {
            let mut totals = Totals::default();
            histogram.add_to(&mut totals);
            (Some([("operation", name)]), totals)
        };
        let help = "time of storage operations: log batch, hot flush, roll, compaction, query until first rows";
        let all = [
            of("log", &operations.log),
            of("flush", &operations.flush),
            of("roll", &operations.roll),
            of("compact", &operations.compact),
            of("query", &self.0.queries),
        ];
        writer.histograms("db_operations_latency", help, all)
    }
}

fn storage(writer: &mut Writer<'_>, status: &Status) -> fmt::Result {
    let names: Vec<String> = status.shards.iter().map(|shard| shard.shard.to_string()).collect();
    let per_shard = |value: fn(&ringlake_engine::status::ShardStatus) -> u64| {
        names.iter().zip(&status.shards).map(move |(name, shard)| (name.as_str(), value(shard)))
    };
    let queue = per_shard(|shard| shard.ring_bytes as u64);
    writer.gauges("event_queue_size", "bytes in the ring, not yet read", "shard", queue)?;
    let room = per_shard(|shard| shard.ring_capacity as u64);
    writer.gauges("event_queue_capacity", "size of the ring in bytes", "shard", room)?;
    let log = per_shard(|shard| shard.log_bytes);
    writer.gauges("wal_bytes", "size of the log in bytes", "shard", log)?;
    let segments = per_shard(|shard| shard.log_segments);
    writer.gauges("wal_segments", "segments of the log", "shard", segments)?;
    writer.gauge(
        "wal_limit_bytes",
        "size of all logs at which events are refused",
        status.space.log_max_bytes,
    )?;
    let places = [("log", status.space.log), ("lake", status.space.lake)];
    let free = places.into_iter().filter_map(|(name, place)| Some((name, place.free_bytes?)));
    writer.gauges("disk_free_bytes", "free space where log and table are", "place", free)?;
    let floors = places.map(|(name, place)| (name, place.free_min_bytes));
    let help = "free space below which events are refused";
    writer.gauges("disk_free_min_bytes", help, "place", floors)?;
    writer.gauge(
        "hot_queue_bytes",
        "durable batches that wait to be taken into a hot table",
        status.hot.queue_bytes as u64,
    )?;
    writer.gauge("hot_rows", "rows in memory, not yet in the table", status.hot.rows as u64)?;
    writer.gauge("hot_tables", "hot tables that queries read", status.hot.tables as u64)?;
    let help = "times that DuckDB refused rows, which were then rolled to be seen";
    writer.counter("hot_refused", help, status.hot.refused)?;
    writer.gauge("queries_running", "queries that run", status.queries.running as u64)?;
    let help = "queries that wait for a worker";
    writer.gauge("queries_waiting", help, status.queries.waiting as u64)?;
    writer.gauge("lake_version", "version of the Delta table", status.lake.version)?;
    writer.gauge("lake_files", "live Parquet files", status.lake.files as u64)?;
    writer.gauge("lake_bytes", "size of the live Parquet files", status.lake.bytes)?;
    writer.gauge("lake_rows", "rows in the live Parquet files", status.lake.rows)?;
    if let Some(dedup) = &status.dedup {
        writer.gauge("dedup_ids", "message ids that are known", dedup.ids as u64)?;
        let help = "how far back a repeated message id is recognised";
        writer.gauge("dedup_window_age_seconds", help, dedup.window_age_seconds)?;
        let help = "requests that wait for another shard to write an event of theirs";
        writer.gauge("dedup_held_requests", help, dedup.held_requests as u64)?;
    }
    let damaged = status.lake.damaged.len() as u64;
    writer.gauge("lake_damaged_files", "live Parquet files that must not be read", damaged)?;
    writer.counter("events_recovered", "events replayed by the start", status.recovered)?;
    let recovery = &status.recovery;
    writer.gauge("recovery_bytes", "log bytes that the start has to read", recovery.bytes_total)?;
    writer.gauge("recovery_read_bytes", "log bytes read by the start", recovery.bytes_done)?;
    writer.counter("torn_bytes", "bytes cut off behind the last frames", recovery.torn_bytes)?;
    writer.counter("events_void", "numbers lost with failed batches", status.void)?;
    writer.counter("quarantined_rows", "rows set aside", status.quarantined.rows)?;
    let batches = status.quarantined.batches;
    writer.counter(
        "quarantined_batches",
        "batches that the table cannot take, set aside",
        batches,
    )?;
    let stretches = status.quarantined.stretches;
    writer.counter("quarantined_stretches", "damaged stretches of log set aside", stretches)?;
    let wrong = status.wrong_types.iter().map(|(column, count)| (column.as_str(), *count));
    let help = "values of another type than their promoted column, null in it";
    writer.counters("column_wrong_type", help, "column", wrong)
}

fn compaction(writer: &mut Writer<'_>, done: &CompactionStatus) -> fmt::Result {
    let counters = [
        ("compactions", "commits that replaced files by fewer ones", done.commits),
        ("compaction_files_read", "files that were joined", done.files_read),
        ("compaction_read_bytes", "size of the files that were joined", done.bytes_read),
        ("compaction_files_written", "files that took their place", done.files_written),
        ("compaction_written_bytes", "size of the files that took their place", done.bytes_written),
        ("compaction_pauses", "times that it waited for more urgent work", done.pauses),
        ("lake_files_removed", "files removed because nobody needs them", done.files_removed),
    ];
    for (name, help, value) in counters {
        writer.counter(name, help, value)?;
    }
    writer.gauge("lake_files_waiting", "replaced files kept for other readers", done.files_waiting)
}

fn retention(writer: &mut Writer<'_>, done: &RetentionStatus) -> fmt::Result {
    let counters = [
        ("retention_files", "files taken out of the table by retention", done.files),
        ("retention_rows", "events in them", done.rows),
        ("retention_bytes", "size of them", done.bytes),
    ];
    for (name, help, value) in counters {
        writer.counter(name, help, value)?;
    }
    let help = "size of the files past what is kept that are still in the table";
    writer.gauge("retention_due_bytes", help, done.due_bytes)
}

fn traces(writer: &mut Writer<'_>, tracer: Option<&Tracer>) -> fmt::Result {
    // Relaxed: statistics.
    let count = |of: fn(&Tracer) -> &AtomicU64| {
        tracer.map_or(0, |tracer| of(tracer).load(Ordering::Relaxed))
    };
    let sent = count(|tracer| &tracer.sent);
    writer.counter("trace_spans_sent", "spans that the collector has taken", sent)?;
    let help = "spans that did not reach the collector";
    writer.counter("trace_spans_dropped", help, count(|tracer| &tracer.dropped))
}

/// Writes families of metrics.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        encode_counter(&mut encoder, value)
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            let labels: Labels<'_> = [(label, value)];
            encode_counter(&mut encoder.encode_family(&labels)?, count)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        encoder.encode_gauge(&value)
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, count) in values {
            let labels: Labels<'_> = [(label, value)];
            encoder.encode_family(&labels)?.encode_gauge(&count)?;
        }
        Ok(())
    }

    fn histograms<'v>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Option<Labels<'v>>, Totals)>,
    ) -> fmt::Result {
        let seconds = Some(&Unit::Seconds);
        let mut encoder = self.0.encode_descriptor(name, help, seconds, MetricType::Histogram)?;
        for (labels, totals) in values {
            match labels {
                None => encode_histogram(&mut encoder, &totals)?,
                Some(labels) => encode_histogram(&mut encoder.encode_family(&labels)?, &totals)?,
            }
        }
        Ok(())
    }
}

fn encode_counter(encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter(&value, None::<&NoExemplar>)
}

fn encode_histogram(encoder: &mut MetricEncoder<'_>, totals: &Totals) -> fmt::Result {
    let seconds = |nanos| Duration::from_nanos(nanos).as_secs_f64();
    let bounds = BOUNDS_NANOS.into_iter().map(seconds).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(totals.buckets).collect();
    encode_labelled::<[(&str, &str); 0]>(encoder, totals, &buckets)
}

fn encode_labelled<S: EncodeLabelSet>(
    encoder: &mut MetricEncoder<'_>,
    totals: &Totals,
    buckets: &[(f64, u64)],
) -> fmt::Result {
    encoder.encode_histogram::<S>(totals.sum_seconds, totals.count(), buckets, None)
}
