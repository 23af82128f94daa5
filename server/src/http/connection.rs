//! One connection: what it is doing, and how it is told to end.
//!
//! A timer per request would cost more than many a request. Instead each connection notes what it
//! is doing and since which tick of its loop; once a tick the loop looks at all of them and drops
//! those that have stood still for too long. That covers heads that never end, idle keep-alive,
//! and clients that do not read their answer.
//!
//! **Roles.** Everything here belongs to one serving loop and never leaves its thread.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::answer::ReplyBody;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a request, or for the client to read a whole answer, since a tick.
    Client(u32),
    /// Working on a request; its own limits apply.
    Us,
    /// In the middle of an answer, waiting for the client to read on, since a tick.
    Reader(u32),
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
    phase: Cell<Phase>,
    order: Cell<Order>,
    clock: Rc<Cell<u32>>,
    task: RefCell<Option<Waker>>,
}

impl Connection {
    /// A connection that has just been accepted; `clock` counts the ticks of its loop.
    pub fn new(clock: Rc<Cell<u32>>) -> Self {
        let phase = Cell::new(Phase::Client(clock.get()));
        Self { phase, order: Cell::new(Order::Serve), clock, task: RefCell::default() }
    }

    /// A request has begun.
    pub fn working(&self) {
        self.phase.set(Phase::Us);
    }

    /// It is the client's turn.
    pub fn waiting(&self) {
        self.phase.set(Phase::Client(self.clock.get()));
    }

    /// Whether the client has had its turn for at least `ticks`.
    pub fn is_stuck(&self, ticks: u32) -> bool {
        match self.phase.get() {
            Phase::Client(since) | Phase::Reader(since) => {
                self.clock.get().wrapping_sub(since) >= ticks
            }
            Phase::Us => false,
        }
    }

    /// Whether no request is being answered.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase.get(), Phase::Client(_))
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
    pub async fn serve<S>(self: &Rc<Self>, builder: &http1::Builder, stream: TcpStream, service: S)
    where
        S: HttpService<Incoming, ResBody = ReplyBody>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut finishing = false;
        poll_fn(|context| {
            match self.order.get() {
                Order::Serve => self.remember(context),
                Order::Finish if !finishing => {
                    finishing = true;
                    served.as_mut().graceful_shutdown();
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

    fn remember(&self, context: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        match task.as_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            None => *task = Some(context.waker().clone()),
        }
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

    #[test]
    fn only_a_client_that_stands_still_is_stuck() {
        let clock = Rc::new(Cell::new(7));
        let connection = Connection::new(Rc::clone(&clock));
        assert!(!connection.is_stuck(1));
        clock.set(8);
        assert!(connection.is_stuck(1) && !connection.is_stuck(2));
        connection.working();
        clock.set(100);
        assert!(!connection.is_stuck(1) && !connection.is_idle());
        connection.waiting();
        assert!(!connection.is_stuck(1) && connection.is_idle());
    }

    #[test]
    fn the_clock_may_wrap() {
        let clock = Rc::new(Cell::new(u32::MAX));
        let connection = Connection::new(Rc::clone(&clock));
        clock.set(2);
        assert!(connection.is_stuck(3) && !connection.is_stuck(4));
    }
}
