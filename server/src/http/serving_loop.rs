//! A serving loop: one thread, one runtime, one ring producer, its share of the connections.
//!
//! **Guarantees.** Nothing here waits for a disk, a lock or another loop. A request is decoded
//! straight into the loop's own ring.
//!
//! **Roles.** Everything but [`LoopShared`] stays on the loop's thread; that is written by the loop
//! and read by whoever looks at the metrics.
//!
//! **Failure.** When the server stops, requests that have begun are answered inside the grace
//! period; connections without one are closed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use ringlake_engine::Ingest;
use ringlake_engine::ack::Acks;
use ringlake_engine::metrics::Histogram;
use ringlake_event::sdk::SdkDecoder;
use ringlake_event::{Assembly, Decoder};
use ringlake_niceness::Behind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tower_service::Service;

use super::accept::Accepted;
use super::access::Access;
use super::answer::{self, Problem, Reply};
use super::body::Budget;
use super::connection::{Connection, LocalTasks, Patience, Streaming};
use super::encoding::Room;
use super::tls::{HTTP2, Tls};
use super::{App, console, grace, guard, ingest, logs, pixel, routes, sdk};
use crate::traces::{Recorder, Trace};

/// How often a loop looks for connections that stand still. Their timeouts are rounded up to it.
const TICK: Duration = Duration::from_secs(1);
/// So many connections that stand still are dropped at a time, which takes a millisecond or so: who
/// opens thousands at once makes them due at once as well, and nobody else should wait for that …
const DROPS_AT_ONCE: usize = 16;
/// … so the others have their turn for as long.
const DROPS_APART: Duration = Duration::from_millis(1);
/// When the server stops, a connection without a request gets this long to have one on its way.
const LAST_CALL: Duration = Duration::from_millis(200);
/// hyper reads this much of a connection at most before it is taken; larger bodies come in pieces.
const READ_BUFFER_MAX_BYTES: usize = 256 << 10;
/// The same for a connection of HTTP/2, all of its requests together, …
const HTTP2_CONNECTION_BYTES: u32 = 256 << 10;
/// … and for one of them, so that one that nobody reads leaves room for the others.
const HTTP2_REQUEST_BYTES: u32 = 128 << 10;
/// What an answer in HTTP/2 holds at most while its client does not read on.
const HTTP2_ANSWER_BYTES: usize = 16 << 10;
/// Requests that a connection of HTTP/2 has at the same time; a client waits with more. Many begin with
/// a hundred before they have been told.
const HTTP2_REQUESTS_MAX: u32 = 128;
/// Requests that a client has taken back before they were looked at; one with more is cut off.
const HTTP2_RESETS_MAX: usize = 20;

/// What a loop shows of itself to other threads.
#[derive(Debug, Default)]
pub struct LoopShared {
    /// Open connections. Written by the acceptor (up) and the loop (down); may be stale.
    pub connections: AtomicUsize,
    /// Time from a request's head to its answer, for requests that carry events.
    pub latency: Histogram,
    /// Time from the look at a request's key to the decision about it.
    pub auth: Histogram,
    /// Time of the looks at quotas.
    pub limit_checks: Histogram,
    /// Keys that were verified not long ago.
    pub key_hits: AtomicU64,
    /// Keys that were not.
    pub key_misses: AtomicU64,
    /// Requests refused for what they carried, by code. Locked only when one is refused.
    pub validation_errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl LoopShared {
    /// Counts a refusal that is the client's doing.
    pub fn count_refusal(&self, problem: &Problem) {
        if let Some(code) = problem.validation_code() {
            let mut errors = self.validation_errors.lock().unwrap_or_else(PoisonError::into_inner);
            *errors.entry(code).or_default() += 1;
        }
    }
}

/// The loop's own things.
pub struct ServingLoop {
    /// What all loops share.
    pub app: Arc<App>,
    /// What this loop shows.
    pub shared: Arc<LoopShared>,
    /// The way into the shard.
    pub ingest: RefCell<Ingest>,
    /// The decoder and its scratch memory.
    pub decoder: RefCell<Decoder>,
    /// The same for the bodies of SDKs.
    pub sdk_decoder: RefCell<SdkDecoder>,
    /// Where the records of requests are put together whose length is not known before.
    pub assembly: RefCell<Assembly>,
    /// Where bodies are unpacked.
    pub unpacked: RefCell<Room>,
    /// The way back: durable or not.
    pub acks: Acks,
    /// What bodies may hold together.
    pub budget: Budget,
    /// Which requests are traced.
    pub traces: Recorder,
    router: axum::Router,
    builder: http1::Builder,
    builder2: http2::Builder<LocalTasks>,
    /// Ticks since the loop began.
    clock: Rc<Cell<u32>>,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
}

/// Starts the thread of loop `index`. It ends some time after `receiver` has closed.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(
    index: usize,
    app: Arc<App>,
    ingest: Ingest,
    receiver: mpsc::Receiver<Accepted>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("loop-{index}")).spawn(move || {
        ringlake_niceness::step(Behind::Nobody);
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let serving = Rc::new(ServingLoop::new(index, app, ingest));
            serving.run(receiver).await;
        });
        // What is left of the tasks holds the ring's producer; it goes with them.
        drop(local);
    })
}

impl ServingLoop {
    fn new(index: usize, app: Arc<App>, ingest: Ingest) -> Self {
        let http = &app.config.http;
        let mut builder = http1::Builder::new();
        // Not `pipeline_flush`: it holds answers back while more input waits, and a connection that
        // closes meanwhile (a broken body, a shutdown) takes them with it.
        builder
            // Answers are a few hundred bytes: copied behind their head they go out with the
            // cheaper system call.
            .writev(false)
            .max_header_size(http.head_max_bytes)
            .max_buf_size(READ_BUFFER_MAX_BYTES.max(2 * http.head_max_bytes));
        Self {
            shared: Arc::clone(&app.loops[index]),
            acks: ingest.acks(),
            ingest: RefCell::new(ingest),
            decoder: RefCell::default(),
            sdk_decoder: RefCell::default(),
            assembly: RefCell::default(),
            unpacked: RefCell::default(),
            budget: Budget::new(http.bodies_share(app.loops.len())),
            traces: Recorder::new(app.tracer.clone()),
            router: routes::router(Arc::clone(&app)),
            builder,
            builder2: http2_builder(http.head_max_bytes),
            clock: Rc::default(),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            app,
        }
    }

    async fn run(self: Rc<Self>, mut receiver: mpsc::Receiver<Accepted>) {
        tokio::task::spawn_local(self.acks.clone().drive());
        let sweeper = tokio::task::spawn_local(Rc::clone(&self).sweep());
        while let Some(accepted) = receiver.recv().await {
            let serving = Rc::clone(&self);
            tokio::task::spawn_local(async move { serving.serve(accepted).await });
        }
        self.close().await;
        sweeper.abort();
    }

    /// Serves one connection until it ends.
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let connection = Rc::new(Connection::new(accepted.peer, Rc::clone(&self.clock)));
        let open = Open::enter(&self, &connection);
        if let Ok(stream) = TcpStream::from_std(accepted.stream) {
            match &self.app.tls {
                None => self.serve_http1(&connection, stream).await,
                // Boxed: what there is without TLS need not have room for it.
                Some(tls) => Box::pin(self.serve_tls(tls, &connection, stream)).await,
            }
        }
        drop(open);
        drop((accepted.place, accepted.seat));
    }

    async fn serve_http1<I>(&self, connection: &Rc<Connection>, stream: I)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        // Boxed: hyper keeps room for it in every connection, and most have no request.
        let service = service_fn(move |request| Box::pin(self.respond(connection, request)));
        connection.serve(&self.builder, stream, service).await;
    }

    /// Shakes hands, then serves what the client has chosen.
    async fn serve_tls(self: &Rc<Self>, tls: &Tls, connection: &Rc<Connection>, stream: TcpStream) {
        let patience = self.app.config.http.head_timeout;
        let handshake = tokio::time::timeout(patience, tls.acceptor().accept(stream));
        let stream = match connection.before_requests(handshake).await {
            Some(Ok(Ok(stream))) => stream,
            Some(Ok(Err(error))) => return tracing::debug!(%error, "a handshake failed"),
            // Too slow, or the server stops.
            Some(Err(_)) | None => return,
        };
        connection.waiting();
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return self.serve_http1(connection, stream).await;
        }
        let (serving, state) = (Rc::clone(self), Rc::clone(connection));
        let service = service_fn(move |request| {
            let (serving, request_state) = (Rc::clone(&serving), state.request());
            async move { serving.respond(&request_state, request).await }
        });
        connection.serve_http2(&self.builder2, stream, service).await;
    }

    /// Answers one request, and traces it if it is one of the sample.
    async fn respond(
        &self,
        connection: &Rc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Reply, Infallible> {
        let trace = self.traces.begin(&request);
        if let Some(trace) = &trace {
            trace_route(trace, request.uri().path());
        }
        let answer = pin!(self.answer(connection, request));
        Ok(match trace {
            None => answer.await,
            Some(trace) => Box::pin(self.traces.record(trace, answer)).await,
        })
    }

    /// Answers one request.
    async fn answer(&self, connection: &Rc<Connection>, request: Request<Incoming>) -> Reply {
        connection.working();
        let reply = match request.uri().path() {
            ingest::PATH if !is_read(request.method()) => {
                ingest::answer(self, connection.peer, request).await
            }
            // Boxed: hyper moves the future of every request, which has room for the largest.
            pixel::PATH => Box::pin(pixel::answer(self, connection.peer, request)).await,
            logs::PATH => Box::pin(logs::answer(self, connection.peer, request)).await,
            path => match sdk::route(path) {
                Some(route) => Box::pin(sdk::answer(self, connection.peer, request, route)).await,
                None => Box::pin(self.route(connection, request)).await,
            },
        };
        connection.waiting();
        reply
    }

    /// Whether a request that is not ingest may be answered: by where it comes from, and by its key.
    async fn permit(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Access, Problem> {
        guard::check(headers, uri, self.app.keys.is_open_mode())?;
        self.admit(peer, headers, uri).await
    }

    /// Everything that is not ingest.
    async fn route(&self, connection: &Rc<Connection>, mut request: Request<Incoming>) -> Reply {
        let access = match self.permit(connection.peer, request.headers(), request.uri()).await {
            Ok(access) => access,
            Err(problem) => {
                let mut reply = problem.reply();
                console::ask_for_key(request.uri().path(), &mut reply);
                let (head, body) = request.into_parts();
                answer::let_go(&mut reply, &head.headers, body);
                return reply;
            }
        };
        request.extensions_mut().insert(access.clone());
        if let Some(trace) = self.traces.current() {
            request.extensions_mut().insert(trace);
        }
        // A router answers problems as answers; it has no errors.
        let mut response: Response<_> = match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        access.show_quota(&mut response);
        response
            .map(|body| http_body_util::Either::Right(Streaming::new(body, Rc::clone(connection))))
    }

    /// Counts the time from `began` to an answer.
    pub fn observe(&self, began: Instant) {
        self.shared.latency.observe(began.elapsed());
    }

    /// Drops connections that stand still.
    async fn sweep(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // One more than the timeout has, because the first may pass at once.
        let ticks = |timeout: Duration| {
            let ticks = timeout.as_millis().div_ceil(TICK.as_millis()) + 1;
            u32::try_from(ticks).unwrap_or(u32::MAX)
        };
        let http = &self.app.config.http;
        let patience = Patience { idle: ticks(http.idle_timeout), head: ticks(http.head_timeout) };
        loop {
            interval.tick().await;
            self.clock.set(self.clock.get().wrapping_add(1));
            let mut stuck = self.open_connections();
            stuck.retain(|connection| connection.is_stuck(patience));
            for some in stuck.chunks(DROPS_AT_ONCE) {
                // Looked at again: they may have gone on while the ones before them were dropped.
                for connection in some.iter().filter(|one| one.is_stuck(patience)) {
                    connection.abort();
                }
                tokio::time::sleep(DROPS_APART).await;
            }
        }
    }

    /// Ends all connections: those in the middle of a request when it is answered, the others
    /// after a last call, all of them when the grace period is over.
    async fn close(&self) {
        let until = Instant::now() + grace(self.app.config.shutdown_timeout);
        let last_call = Instant::now() + LAST_CALL;
        for connection in self.open_connections() {
            connection.finish();
        }
        let mut idle = HashSet::new();
        while !self.connections.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let now = Instant::now();
            for (id, connection) in self.connections.borrow().iter() {
                // A request of HTTP/2 ends before its answer is written: that has had its turn by the
                // next look.
                let is_idle = connection.is_idle();
                let was_idle = if is_idle { !idle.insert(*id) } else { idle.remove(id) };
                if now >= until || (now >= last_call && is_idle && was_idle) {
                    connection.abort();
                }
            }
        }
    }

    fn open_connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }
}

fn http2_builder(head_max_bytes: usize) -> http2::Builder<LocalTasks> {
    let mut builder = http2::Builder::new(LocalTasks);
    builder
        .max_header_list_size(u32::try_from(head_max_bytes).unwrap_or(u32::MAX))
        .initial_connection_window_size(HTTP2_CONNECTION_BYTES)
        .initial_stream_window_size(HTTP2_REQUEST_BYTES)
        .max_send_buf_size(HTTP2_ANSWER_BYTES)
        .max_concurrent_streams(HTTP2_REQUESTS_MAX)
        .max_pending_accept_reset_streams(HTTP2_RESETS_MAX);
    builder
}

/// Tells a trace the route of a request that the loop answers itself.
fn trace_route(trace: &Trace, path: &str) {
    if matches!(path, ingest::PATH | pixel::PATH | logs::PATH) || sdk::route(path).is_some() {
        trace.set_route(path);
    }
}

/// Whether a request asks for events instead of bringing some.
fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A connection's entry in the loop's list; leaves it when dropped, also by a panic.
struct Open<'a> {
    serving: &'a ServingLoop,
    id: u64,
}

impl<'a> Open<'a> {
    fn enter(serving: &'a ServingLoop, connection: &Rc<Connection>) -> Self {
        let id = serving.next_connection.get();
        serving.next_connection.set(id + 1);
        serving.connections.borrow_mut().insert(id, Rc::clone(connection));
        Self { serving, id }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.serving.connections.borrow_mut().remove(&self.id);
        // Relaxed: statistics; see `accept::hand_over`.
        self.serving.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
