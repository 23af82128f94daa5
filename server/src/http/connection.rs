//! One connection: what it is doing, and how it is told to end.
//!
//! A timer per request would cost more than many a request. Instead each connection notes what it
//! is doing and since which tick of its loop; once a tick the loop looks at all of them and drops
//! those that have stood still for too long. That covers heads that never end, idle keep-alive,
//! and clients that do not read their answer.
//!
//! In HTTP/2 each request is noted by itself: the connection stands still as soon as one of them does,
//! and is dropped with all of them. A head there has as long as an idle connection has.
//!
//! **Roles.** Everything here belongs to one serving loop and never leaves its thread.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::ReplyBody;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a request, or for the client to read a whole answer, since a tick.
    Client(u32),
    /// In the middle of a request's head since a tick, which more bytes do not change.
    Head(u32),
    /// Working on a request; its own limits apply.
    Us,
    /// In the middle of an answer, waiting for the client to read on, since a tick.
    Reader(u32),
}

/// For how many ticks a connection may stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Without a request, or without reading the answer.
    pub idle: u32,
    /// With a part of a head.
    pub head: u32,
}

/// What a connection was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Go on.
    Serve,
    /// Answer what has begun, then close.
    Finish,
    /// Close now.
    Drop,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: IpAddr,
    phase: Cell<Phase>,
    order: Cell<Order>,
    clock: Rc<Cell<u32>>,
    task: RefCell<Option<Waker>>,
    /// Requests that share it, in HTTP/2.
    requests: RefCell<Vec<Weak<Connection>>>,
    /// What a request in HTTP/2 shares.
    shared: Option<Rc<Connection>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.waiting();
        }
    }
}

impl Connection {
    /// A connection from `peer` that has just been accepted; `clock` counts the ticks of its loop.
    pub fn new(peer: IpAddr, clock: Rc<Cell<u32>>) -> Self {
        Self {
            peer,
            phase: Cell::new(Phase::Client(clock.get())),
            order: Cell::new(Order::Serve),
            clock,
            task: RefCell::default(),
            requests: RefCell::default(),
            shared: None,
        }
    }

    /// One of the requests that share a connection of HTTP/2.
    pub fn request(self: &Rc<Self>) -> Rc<Self> {
        let mut request = Self::new(self.peer, Rc::clone(&self.clock));
        request.shared = Some(Rc::clone(self));
        let request = Rc::new(request);
        let mut requests = self.requests.borrow_mut();
        requests.retain(|other| other.strong_count() > 0);
        requests.push(Rc::downgrade(&request));
        request
    }

    /// The requests that share it now.
    fn live(&self) -> Vec<Rc<Self>> {
        self.requests.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// A request has begun.
    pub fn working(&self) {
        self.phase.set(Phase::Us);
    }

    /// It is the client's turn.
    pub fn waiting(&self) {
        self.phase.set(Phase::Client(self.clock.get()));
    }

    /// Bytes have come from the client.
    fn heard(&self) {
        if let Phase::Client(_) = self.phase.get() {
            self.phase.set(Phase::Head(self.clock.get()));
        }
    }

    /// Whether the client has had its turn for longer than anybody has patience.
    pub fn is_stuck(&self, patience: Patience) -> bool {
        let requests = self.live();
        if !requests.is_empty() {
            return requests.iter().any(|request| request.is_stuck(patience));
        }
        let (since, ticks) = match self.phase.get() {
            Phase::Client(since) | Phase::Reader(since) => (since, patience.idle),
            Phase::Head(since) => (since, patience.head),
            Phase::Us => return false,
        };
        self.clock.get().wrapping_sub(since) >= ticks
    }

    /// Whether no request is being answered.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase.get(), Phase::Client(_) | Phase::Head(_)) && self.live().is_empty()
    }

    /// Lets the connection answer what has begun and closes it then.
    pub fn finish(&self) {
        self.tell(Order::Finish);
    }

    /// Closes the connection now.
    pub fn abort(&self) {
        self.tell(Order::Drop);
    }

    fn tell(&self, order: Order) {
        self.order.set(order);
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    /// Serves `stream` until it ends or is told to.
    pub async fn serve<I, S>(self: &Rc<Self>, builder: &http1::Builder, stream: I, service: S)
    where
        I: AsyncRead + AsyncWrite + Unpin,
        S: HttpService<Incoming, ResBody = ReplyBody>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = Listening { stream, connection: Rc::clone(self) };
        let served = builder.serve_connection(TokioIo::new(stream), service);
        self.drive(served, |served| served.graceful_shutdown()).await;
    }

    /// The same in HTTP/2.
    pub async fn serve_http2<I, S>(
        &self,
        builder: &http2::Builder<LocalTasks>,
        stream: I,
        service: S,
    ) where
        I: AsyncRead + AsyncWrite + Unpin,
        S: HttpService<Incoming, ResBody = ReplyBody>,
        S::Future: 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let served = builder.serve_connection(TokioIo::new(stream), service);
        self.drive(served, |served| served.graceful_shutdown()).await;
    }

    /// Polls `served` until it ends or is told to; `finish` makes it end in order.
    async fn drive<C>(&self, served: C, finish: impl Fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut served = pin!(served);
        let mut finishing = false;
        poll_fn(|context| {
            match self.order.get() {
                Order::Serve => self.remember(context),
                Order::Finish if !finishing => {
                    finishing = true;
                    finish(served.as_mut());
                    self.remember(context);
                }
                Order::Finish => {}
                Order::Drop => return Poll::Ready(()),
            }
            // What goes wrong on a connection is the client's doing, or its network's.
            served.as_mut().poll(context).map(|outcome| {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a connection ended early");
                }
            })
        })
        .await;
    }

    /// What `work` gives, which comes before any request; `None` when the connection is told to end.
    pub async fn before_requests<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if self.order.get() != Order::Serve {
                return Poll::Ready(None);
            }
            self.remember(context);
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    fn remember(&self, context: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        match task.as_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            None => *task = Some(context.waker().clone()),
        }
    }
}

/// Runs the requests of HTTP/2 on the loop's thread.
#[derive(Debug, Clone, Copy)]
pub struct LocalTasks;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalTasks {
    fn execute(&self, request: F) {
        tokio::task::spawn_local(request);
    }
}

/// A stream that notes when the client says something.
struct Listening<I> {
    stream: I,
    connection: Rc<Connection>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Listening<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.heard();
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Listening<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A streamed answer that notes whose turn it is: ours while no data is ready, the client's while
/// data waits to be taken.
pub struct Streaming {
    body: Body,
    connection: Rc<Connection>,
}

impl Streaming {
    /// Streams `body` over `connection`.
    pub fn new(body: Body, connection: Rc<Connection>) -> Self {
        Self { body, connection }
    }
}

impl hyper::body::Body for Streaming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        let connection = &this.connection;
        match &polled {
            Poll::Pending => connection.working(),
            Poll::Ready(Some(Ok(_))) => {
                connection.phase.set(Phase::Reader(connection.clock.get()));
            }
            Poll::Ready(_) => connection.waiting(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(ticks: u32) -> Patience {
        Patience { idle: ticks, head: u32::MAX }
    }

    #[test]
    fn a_head_has_its_own_time_however_many_bytes_come() {
        let clock = Rc::new(Cell::new(0));
        let connection = Connection::new(HERE, Rc::clone(&clock));
        let patience = Patience { idle: 60, head: 3 };
        clock.set(50);
        assert!(!connection.is_stuck(patience));
        for tick in 51..54 {
            connection.heard();
            assert!(!connection.is_stuck(patience) && connection.is_idle());
            clock.set(tick);
        }
        assert!(connection.is_stuck(patience));
        connection.working();
        connection.heard();
        assert!(!connection.is_stuck(patience));
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn only_a_client_that_stands_still_is_stuck() {
        let clock = Rc::new(Cell::new(7));
        let connection = Connection::new(HERE, Rc::clone(&clock));
        assert!(!connection.is_stuck(idle(1)));
        clock.set(8);
        assert!(connection.is_stuck(idle(1)) && !connection.is_stuck(idle(2)));
        connection.working();
        clock.set(100);
        assert!(!connection.is_stuck(idle(1)) && !connection.is_idle());
        connection.waiting();
        assert!(!connection.is_stuck(idle(1)) && connection.is_idle());
    }

    #[test]
    fn a_connection_with_several_requests_is_as_stuck_as_the_worst_of_them() {
        let clock = Rc::new(Cell::new(0));
        let connection = Rc::new(Connection::new(HERE, Rc::clone(&clock)));
        let [first, second] = [connection.request(), connection.request()];
        first.working();
        second.working();
        clock.set(9);
        assert!(!connection.is_stuck(idle(1)) && !connection.is_idle());
        second.phase.set(Phase::Reader(8));
        assert!(connection.is_stuck(idle(1)));
        drop(second);
        assert!(!connection.is_stuck(idle(1)));
        drop(first);
        // The last one has only just ended.
        assert!(!connection.is_stuck(idle(1)) && connection.is_idle());
        clock.set(10);
        assert!(connection.is_stuck(idle(1)));
    }

    #[test]
    fn the_clock_may_wrap() {
        let clock = Rc::new(Cell::new(u32::MAX));
        let connection = Connection::new(HERE, Rc::clone(&clock));
        clock.set(2);
        assert!(connection.is_stuck(idle(3)) && !connection.is_stuck(idle(4)));
    }
}
