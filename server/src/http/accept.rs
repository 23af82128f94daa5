//! Accepting connections and handing each to the serving loop with the fewest.
//!
//! Letting the kernel spread connections over listeners (`SO_REUSEPORT`) gives lopsided loops when
//! connections are few, and lets two servers share a port by accident. So one task accepts.
//!
//! **Limits.** At the configured number of connections accepting waits; the kernel's queue of new
//! connections is the bound then. The channel to a loop is bounded as well; a full one makes
//! accepting wait. An address that has its number of connections open gets no other: it is closed
//! at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::serving_loop::LoopShared;
use crate::UsageError;
use crate::config::HttpConfig;

/// Connections that a loop has been given and not taken up yet.
pub const HANDOVER_MAX: usize = 64;
/// Pause after an error that only time can mend, such as no file descriptors left.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection on its way to a loop; dropping it closes it and frees its place.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, not bound to any runtime.
    pub stream: std::net::TcpStream,
    /// Where it comes from.
    pub peer: IpAddr,
    /// Its place among the open connections.
    pub place: OwnedSemaphorePermit,
    /// Its place among those of its address; a trusted proxy needs none.
    pub seat: Option<Seat>,
}

/// Open connections by address.
#[derive(Debug)]
struct Addresses {
    max: usize,
    /// Locked once when a connection comes and once when it goes.
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place among those of its address; dropping it frees it.
#[derive(Debug)]
pub struct Seat {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Addresses {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default() })
    }

    /// A place for a connection from `address`, if there is one.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let network = ringlake_keys::network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Seat { addresses: Arc::clone(self), network })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Turns `text` into an address to listen on; in `open_mode` only a loopback one will do.
///
/// # Errors
/// A [`UsageError`] when it is none, or when it is not loopback while no key exists.
pub fn parse_listen(text: &str, open_mode: bool) -> Result<SocketAddr, UsageError> {
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|error| UsageError(format!("`{text}` is not an address to listen on: {error}")))?;
    let address = addresses
        .next()
        .ok_or_else(|| UsageError(format!("`{text}` names no address to listen on")))?;
    if open_mode && !address.ip().is_loopback() {
        return Err(UsageError(format!(
            "refusing to listen on {address}: no keys exist, and without them the server listens \
             on loopback addresses only; `ringlake keys create --scope admin` makes one"
        )));
    }
    Ok(address)
}

/// Binds `address`; the port must be free.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    // std sets SO_REUSEADDR, so that a restart need not wait for old connections to time out.
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// One loop as the acceptor sees it.
#[derive(Debug)]
pub struct Target {
    /// Where its connections go.
    pub sender: mpsc::Sender<Accepted>,
    /// How many it has.
    pub shared: Arc<LoopShared>,
}

/// Accepts until `stopping` is cancelled, and counts whom it turned away. The listener is closed on return.
pub async fn run(
    listener: TcpListener,
    targets: Vec<Target>,
    http: &HttpConfig,
    turned_away: &AtomicU64,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(http.connections_max.min(Semaphore::MAX_PERMITS)));
    let addresses = Addresses::new(http.connections_per_address_max);
    stopping
        .run_until_cancelled(async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let peer = peer.ip();
                        let seat = addresses.enter(peer);
                        if seat.is_some() || http.trusts(peer) {
                            hand_over(stream, peer, place, seat, &targets).await;
                        } else {
                            // Relaxed: statistics.
                            turned_away.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Err(error) => pause_after(&error).await,
                }
            }
        })
        .await;
}

async fn hand_over(
    stream: TcpStream,
    peer: IpAddr,
    place: OwnedSemaphorePermit,
    seat: Option<Seat>,
    targets: &[Target],
) {
    // Answers are small and should not wait for more to come.
    let detached = stream.set_nodelay(true).and_then(|()| stream.into_std());
    // A connection that cannot be set up is one that its client has given up already.
    let Ok(stream) = detached else { return };
    // Relaxed: a hint for balance; a stale count costs nothing but a little of it.
    let count = |target: &&Target| target.shared.connections.load(Ordering::Relaxed);
    let Some(target) = targets.iter().min_by_key(count) else { return };
    // Relaxed: statistics. Counted here and not in the loop, so that a burst is spread evenly.
    target.shared.connections.fetch_add(1, Ordering::Relaxed);
    // The loop is gone only when the server stops.
    let _ = target.sender.send(Accepted { stream, peer, place, seat }).await;
}

async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(%error, "cannot accept connections at the moment");
        tokio::time::sleep(ERROR_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn loopback_addresses_are_taken() {
        for open_mode in [true, false] {
            assert!(parse_listen("127.0.0.1:8080", open_mode).is_ok());
            assert!(parse_listen("127.3.2.1:0", open_mode).is_ok());
            assert!(parse_listen("[::1]:8080", open_mode).is_ok());
        }
    }

    #[test]
    fn other_addresses_are_refused_with_the_reason_while_no_key_exists() {
        for text in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80"] {
            assert!(parse_listen(text, false).is_ok());
            let error = parse_listen(text, true).unwrap_err().to_string();
            assert!(error.contains("no keys exist"), "{error}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["8080", "127.0.0.1", "127.0.0.1:http8", ""] {
            let error = parse_listen(text, true).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")));
        }
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let addresses = Addresses::new(2);
        let [first, second]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().unwrap());
        let seats = [addresses.enter(first).unwrap(), addresses.enter(first).unwrap()];
        assert!(addresses.enter(first).is_none());
        assert!(addresses.enter(second).is_some());
        drop(seats);
        assert!(addresses.open.lock().unwrap().is_empty());
        assert!(addresses.enter(first).is_some());
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
