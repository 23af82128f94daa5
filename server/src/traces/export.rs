//! The way to the collector: OTLP over HTTP, in protobuf.
//!
//! **Not guaranteed.** That a span arrives. What cannot be sent is dropped and counted; nothing is sent
//! twice. What goes wrong is said once, and once when it goes well again.
//!
//! **Roles.** One task of the control runtime.
//!
//! **Limits.** One request at a time, of about [`BATCH_SPANS`] spans, each given up after
//! [`SEND_TIMEOUT`]; what comes meanwhile waits in the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Tracer, text};
use crate::cli::SentKey;
use crate::client::{Client, Outgoing, read, refusal};

/// Where collectors take traces, below their URL.
const PATH: &str = "/v1/traces";
/// How long a finished trace waits for company.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// Spans in one request, and those of one trace: some 100 KB, which any collector takes.
const BATCH_SPANS: usize = 512;
/// A collector that takes longer has lost these spans.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of an answer.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// What the last spans get when the server stops.
pub const LAST_SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// What sends the spans.
#[derive(Debug)]
pub struct Exporter {
    client: Client,
    tracer: Arc<Tracer>,
    queue: mpsc::Receiver<Vec<Span>>,
    /// Whether the last request went wrong.
    is_failing: bool,
}

impl Exporter {
    /// Sends what comes out of `queue` to the collector at `url`.
    ///
    /// # Errors
    /// A [`crate::UsageError`] for a URL that no collector can have.
    pub(super) fn new(
        url: &str,
        tracer: Arc<Tracer>,
        queue: mpsc::Receiver<Vec<Span>>,
    ) -> Result<Self> {
        let client = Client::new(url, &SentKey::default())?;
        Ok(Self { client, tracer, queue, is_failing: false })
    }

    /// Sends until `finish` is cancelled, and then what is left.
    pub async fn run(mut self, finish: CancellationToken) {
        let mut interval = tokio::time::interval(SEND_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = interval.tick() => false,
                () = finish.cancelled() => true,
            };
            self.send_queued().await;
            if is_last {
                return;
            }
        }
    }

    /// Sends what is in the queue now, until something goes wrong.
    async fn send_queued(&mut self) {
        let mut traces = self.queue.len();
        while traces > 0 {
            let mut spans = Vec::new();
            while traces > 0 && spans.len() < BATCH_SPANS {
                traces -= 1;
                spans.extend(self.queue.try_recv().unwrap_or_default());
            }
            let count = spans.len();
            let sent = tokio::time::timeout(SEND_TIMEOUT, self.send(spans)).await;
            match sent.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                Ok(refused) => {
                    self.tracer.drop_spans(refused.min(count));
                    // Relaxed: statistics.
                    self.tracer
                        .sent
                        .fetch_add((count - refused.min(count)) as u64, Ordering::Relaxed);
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("traces are sent again");
                    }
                }
                Err(error) => {
                    self.tracer.drop_spans(count);
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(error = %format!("{error:#}"), "traces cannot be sent and are dropped");
                    }
                    return;
                }
            }
        }
    }

    /// Sends one request; gives how many of its spans the collector has refused.
    async fn send(&mut self, spans: Vec<Span>) -> Result<usize> {
        let body = request(spans).encode_to_vec().into();
        let content_type = Some("application/x-protobuf");
        let outgoing = Outgoing { path: PATH.into(), body, content_type, ..Outgoing::default() };
        let response = self.client.send(&outgoing).await?;
        if !response.status().is_success() {
            bail!(refusal(response).await);
        }
        // Read to its end, so that the connection can be used again. Not all collectors answer in
        // protobuf; then nothing is known of refused ones.
        let answer = read(response, ANSWER_MAX_BYTES).await?;
        let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
        let refused = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(usize::try_from(refused).unwrap_or(0))
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![text("service.name", "ringlake"), text("service.version", version)];
    let scope = InstrumentationScope {
        name: "ringlake".into(),
        version: version.into(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}
