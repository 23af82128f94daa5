//! `ringlake serve`: the server from its start to its end.
//!
//! **Order of a stop.** After SIGTERM or SIGINT the server has the configured time.
//! 1. The port is closed, `/readyz` says no. A request that has begun is answered, also when most of
//!    its body has yet to come; connections without one get a last call and are closed. After two
//!    fifths of the time every connection is closed, whatever it is doing: what was not answered
//!    was not acknowledged.
//!    Messages of webhooks have the same time.
//! 2. The engine stops: see [`ringlake_engine::Engine::shutdown`].
//!
//! The exit code is 0 when everything that was accepted is in the table or the synced log.
//!
//! **Failure.** The port is bound before the engine is opened, so that a second server on the same
//! port fails at once. A second signal ends the process on the spot with exit code 1; everything
//! acknowledged at `disk` is in the log, and the next start replays it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringlake_engine::webhook::Webhooks;
use ringlake_engine::{Engine, Ingest};
use ringlake_keys::{Keys, Limits};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::cli::{LogFormat, Serve};
use crate::config::Config;
use crate::http::accept::{self, HANDOVER_MAX, Target};
use crate::http::tls::{self, Tls};
use crate::http::{App, SMALL_BODIES_BYTES, keys, serving_loop};
use crate::logging::{self, Repeats};
use crate::traces::export::{Exporter, LAST_SEND_TIMEOUT};
use crate::traces::{self, Tracer};
use crate::{EXIT_FAILED, EXIT_FINE, UsageError, webhooks};

/// Threads for work that blocks, beside one for each query that may run or wait: listings, statistics,
/// results being encoded, keys, rolls, scrapes. Each exists while it is needed.
const BLOCKING_THREADS: usize = 64;

/// What the engine gets of the time for a stop when requests have used up all of it.
const ENGINE_TIME_MIN: Duration = Duration::from_millis(100);

/// Runs the server until it is told to stop.
///
/// # Errors
/// When it cannot start, or cannot stop in order.
pub fn run(arguments: &Serve, log: Option<LogFormat>) -> Result<u8> {
    let config = Config::for_server(arguments, log)?;
    let repeats = Repeats::default();
    let (tracer, exporter) = traces::start(&config.traces)?.unzip();
    logging::start_server(config.log_format, repeats.clone(), tracer.clone())?;
    for (key, origin) in config.set_keys() {
        tracing::debug!(key, %origin, "configured");
    }
    let data = config.engine.data.display().to_string();
    let tls = config.tls.as_ref().map(|files| Tls::load(&files.cert, &files.key));
    let tls = tls.transpose().map_err(|error| UsageError(format!("no TLS with {error}")))?;
    // Before anything else: whether there are keys decides who may connect.
    let keys = Keys::open(&config.engine.data)
        .with_context(|| format!("cannot read the keys in {data}"))?;
    let address = accept::parse_listen(&config.listen, keys.is_open_mode())?;
    let listener = accept::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr().context("cannot read the address that was bound")?;
    let queries = config.engine.query.workers + config.engine.query.waiting;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS + queries)
        .build()
        .context("cannot start the control runtime")?;
    let (engine, ingests) = Engine::open(config.engine.clone())
        .with_context(|| format!("cannot open the data directory {data}"))?;
    // A full disk must not keep the server from starting: queries need none.
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    if let Err(error) = engine.announce(&format!("{scheme}://{address}")) {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "other processes cannot be told where this server listens");
    }

    // Nor must it here.
    if let Err(error) = engine.start_exports() {
        let error: &dyn std::error::Error = &error;
        tracing::error!(error, "no exports are taken");
    }

    let webhooks = Webhooks::open(&config.engine.data)
        .with_context(|| format!("cannot read the webhooks in {data}"))?;
    let shared = Shared { config, keys, tls, webhooks, tracer };
    let (app, targets, loops) = start_loops(engine, ingests, shared, &runtime)?;
    let code = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut signals = Signals::new().context("cannot listen for signals")?;
        greet(address, &app);
        tokio::spawn(report(repeats.clone()));
        let exporting = Exporting::start(exporter);
        tokio::spawn(keys::follow(Arc::clone(&app)));
        if app.tls.is_some() {
            tokio::spawn(tls::follow(Arc::clone(&app)));
        }
        let accepting = Arc::clone(&app);
        let accepting = tokio::spawn(async move {
            let (http, stopping) = (&accepting.config.http, accepting.stopping.clone());
            accept::run(listener, targets, http, &accepting.turned_away, stopping).await;
        });
        signals.next().await;
        let asked = Instant::now();
        tracing::info!("stopping; a second signal stops at once");
        app.stopping.cancel();
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("stopped at once; the next start replays the log");
            std::process::exit(EXIT_FAILED.into());
        });
        accepting.await.context("the acceptor ended by itself")?;
        let code = tokio::task::spawn_blocking(move || stop(&app, loops, asked))
            .await
            .context("the shutdown ended by itself")?;
        // The engine's last work has a trace too.
        exporting.end().await;
        code
    })?;
    // Queries that are still being planned would hold the runtime; the process ends without them.
    runtime.shutdown_background();
    repeats.report();
    Ok(code)
}

/// Says now and then how many log lines were left out.
async fn report(repeats: Repeats) {
    loop {
        tokio::time::sleep(logging::REPEATS_INTERVAL).await;
        repeats.report();
    }
}

/// The task that sends traces, if there is one.
struct Exporting {
    finish: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Exporting {
    fn start(exporter: Option<Exporter>) -> Self {
        let finish = CancellationToken::new();
        let task = exporter.map(|exporter| tokio::spawn(exporter.run(finish.clone())));
        Self { finish, task }
    }

    /// Sends what is left, if the collector takes it soon.
    async fn end(self) {
        self.finish.cancel();
        if let Some(task) = self.task
            && tokio::time::timeout(LAST_SEND_TIMEOUT, task).await.is_err()
        {
            tracing::warn!("the last traces are dropped: the collector is too slow");
        }
    }
}

/// What the loops share beside the engine.
struct Shared {
    config: Config,
    keys: Keys,
    tls: Option<Tls>,
    webhooks: Webhooks,
    tracer: Option<Arc<Tracer>>,
}

type Started = (Arc<App>, Vec<Target>, Vec<JoinHandle<()>>);

fn start_loops(
    engine: Engine,
    ingests: Vec<Ingest>,
    shared: Shared,
    runtime: &tokio::runtime::Runtime,
) -> Result<Started> {
    let Shared { config, keys, tls, webhooks, tracer } = shared;
    let app = Arc::new(App {
        engine,
        limits: Limits {
            window: config.quotas.window,
            key: config.quotas.key,
            tenant: config.quotas.tenant,
            began: Instant::now(),
        },
        config,
        keys: Arc::new(keys),
        loops: ingests.iter().map(|_| Arc::default()).collect(),
        queries: Default::default(),
        tls,
        turned_away: Default::default(),
        small_bodies: Semaphore::new(SMALL_BODIES_BYTES),
        webhooks,
        deliveries: Default::default(),
        tracer,
        control: runtime.handle().clone(),
        stopping: CancellationToken::new(),
        started: Instant::now(),
    });
    let mut targets = Vec::new();
    let mut threads = Vec::new();
    for (index, ingest) in ingests.into_iter().enumerate() {
        let (sender, receiver) = mpsc::channel(HANDOVER_MAX);
        targets.push(Target { sender, shared: Arc::clone(&app.loops[index]) });
        let thread = serving_loop::start(index, Arc::clone(&app), ingest, receiver);
        threads.push(thread.context("cannot start a serving loop")?);
    }
    let sending = webhooks::start(Arc::clone(&app));
    threads.push(sending.context("cannot start the thread of the webhooks")?);
    Ok((app, targets, threads))
}

/// Ends the loops, then the engine; says whether everything accepted is durable.
fn stop(app: &App, threads: Vec<JoinHandle<()>>, asked: Instant) -> Result<u8> {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a serving loop, or the thread of the webhooks, had panicked");
        }
    }
    let left = app.config.shutdown_timeout.saturating_sub(asked.elapsed());
    // Even late, the engine gets a moment: its logs are nearly always synced already.
    let report = app.engine.shutdown(left.max(ENGINE_TIME_MIN));
    let report = report.context("the shutdown was not finished in time; the next start goes on")?;
    let seconds = asked.elapsed().as_secs_f64();
    if let Some(thread) = report.late {
        tracing::warn!(thread, "a thread did not end in time; it loses nothing");
    }
    if report.everything_durable {
        tracing::info!(
            rows_to_replay = report.rows_to_replay,
            seconds,
            "stopped; everything accepted is durable"
        );
        Ok(EXIT_FINE)
    } else {
        tracing::error!(
            seconds,
            "stopped; events that had been accepted with ack=memory may be missing from the log"
        );
        Ok(EXIT_FAILED)
    }
}

/// Tells whoever started the server where it is and how to talk to it.
fn greet(address: SocketAddr, app: &App) {
    let (mode, header) = match app.keys.is_open_mode() {
        true => ("open mode: no keys exist, loopback only", ""),
        false => ("requests need a key", "-H 'Authorization: Bearer KEY' "),
    };
    let scheme = if app.tls.is_some() { "https" } else { "http" };
    if app.config.log_format == LogFormat::Json {
        tracing::info!(mode, "listening on {scheme}://{address}");
        return;
    }
    let version = env!("CARGO_PKG_VERSION");
    // Standard error may be closed; the server works without it.
    let _ = writeln!(
        std::io::stderr(),
        "ringlake {version} listening on {scheme}://{address} ({mode})\n\
         try: curl {header}-d '{{\"event\":\"hello\"}}' {scheme}://{address}/v1/events",
    );
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
