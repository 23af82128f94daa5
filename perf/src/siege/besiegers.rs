//! Hostile clients: connections that are held, and attacks that come again and again.
//!
//! **Guarantees**: no attack is answered as a good one would be; an answer that says otherwise is an
//! error. Every event of theirs would be counted if it were stored.
//!
//! **Roles**: one thread holds all connections and looks at each once a second; one thread an attack.
//! All of them are nicer than the generator whose core they share.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::setpriority_process;

use crate::bulk::count_as_f64;
use crate::load::connect_from;

/// Addresses that connections come from: each may have a thousand.
const SOURCES: u8 = 10;
/// How nice besiegers are: a quarter of their core is theirs when it is wanted.
const NICE: i32 = 5;
/// How often all held connections have their turn, in so many parts.
const SWEEP: Duration = Duration::from_secs(1);
const PARTS: usize = 200;
/// Until the siege stands.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// Longest wait for an answer to an attack: a paused server answers later.
const PATIENCE: Duration = Duration::from_secs(60);
/// Size of what a bomb unpacks to.
const BOMB_BYTES: usize = 256 << 20;

const IDLE: &[u8] = b"";
const SERVED: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const HEAD: &[u8] = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
const BODY: &[u8] = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n\
    Content-Length: 4000000\r\n\r\n[{\"event\":\"hostile\"},";
/// What a held connection begins with, and whether more drips.
const KINDS: [(&[u8], bool); 4] = [(IDLE, false), (SERVED, false), (HEAD, true), (BODY, true)];

/// Name, and how many a second.
const ATTACKS: [(Attack, u32); 4] =
    [(Attack::Head, 20), (Attack::Bomb, 5), (Attack::Endless, 2), (Attack::Garbage, 20)];

#[derive(Clone, Copy, Debug)]
enum Attack {
    /// A head that is larger than any may be.
    Head,
    /// A small body that unpacks to a large one.
    Bomb,
    /// A body that does not end until the server has had enough.
    Endless,
    /// Nonsense behind a good request.
    Garbage,
}

/// The besiegers of one server.
#[derive(Debug)]
pub struct Siege {
    address: SocketAddr,
    held: usize,
    over: AtomicBool,
    open: AtomicUsize,
    reopened: AtomicU64,
    attacks: AtomicU64,
}

/// What a siege did.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Connections that the server closed and that were opened again.
    pub reopened: f64,
    /// Attacks of all kinds.
    pub attacks: f64,
}

impl Siege {
    /// A siege of `address` by `held` connections.
    pub fn new(address: SocketAddr, held: usize) -> Siege {
        Siege {
            address,
            held,
            over: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            reopened: AtomicU64::new(0),
            attacks: AtomicU64::new(0),
        }
    }

    /// Starts it.
    pub fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Vec<ScopedJoinHandle<'scope, Result<()>>> {
        let mut threads = vec![scope.spawn(|| self.hold())];
        for (attack, rate) in ATTACKS {
            threads.push(scope.spawn(move || self.repeat(attack, rate)));
        }
        threads
    }

    /// Waits until every connection was opened.
    pub fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        // Relaxed: a count of its own.
        while self.open.load(Ordering::Relaxed) < self.held {
            ensure!(Instant::now() < deadline, "the siege does not stand after {READY_DEADLINE:?}");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it and tells what it did.
    pub fn end(&self, besiegers: Vec<ScopedJoinHandle<'_, Result<()>>>) -> Result<Told> {
        // Relaxed: the flag is all there is; the counts are read behind the joins.
        self.over.store(true, Ordering::Relaxed);
        for besieger in besiegers {
            besieger.join().map_err(|_| anyhow::anyhow!("a besieger panicked"))??;
        }
        let told = |count: &AtomicU64| count_as_f64(count.load(Ordering::Relaxed));
        Ok(Told { reopened: told(&self.reopened), attacks: told(&self.attacks) })
    }

    fn is_over(&self) -> bool {
        // Relaxed: see `end`.
        self.over.load(Ordering::Relaxed)
    }

    fn open(&self, number: usize) -> Result<TcpStream> {
        let last = u8::try_from(number % usize::from(SOURCES))? + 1;
        connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 8, last)), self.address)
    }

    /// Holds all connections, dripping on those that drip.
    fn hold(&self) -> Result<()> {
        // Of this thread alone, as Linux has it.
        setpriority_process(None, NICE)?;
        let mut held = Vec::new();
        for number in 0..self.held {
            if self.is_over() {
                return Ok(());
            }
            held.push(self.begin_holding(number)?);
            // Relaxed: a count of its own.
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        let part = self.held.div_ceil(PARTS);
        for first in (0..self.held).step_by(part).cycle() {
            if self.is_over() {
                return Ok(());
            }
            let all = held.iter_mut().enumerate().skip(first).take(part);
            for (number, stream) in all {
                if !is_alive(stream, KINDS[number % KINDS.len()].1) {
                    *stream = self.begin_holding(number)?;
                    // Relaxed: statistics.
                    self.reopened.fetch_add(1, Ordering::Relaxed);
                }
            }
            thread::sleep(SWEEP / u32::try_from(PARTS)?);
        }
        Ok(())
    }

    fn begin_holding(&self, number: usize) -> Result<TcpStream> {
        let mut stream = self.open(number)?;
        stream.write_all(KINDS[number % KINDS.len()].0)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// One attack after another.
    fn repeat(&self, attack: Attack, rate: u32) -> Result<()> {
        setpriority_process(None, NICE)?;
        let begin = attack.begin()?;
        let distance = Duration::from_secs(1) / rate;
        for number in 0.. {
            let next = Instant::now() + distance;
            if self.is_over() {
                break;
            }
            let mut stream = self.open(number)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            let answer = self.strike(&mut stream, attack, &begin);
            attack.judge(&answer)?;
            // Relaxed: statistics.
            self.attacks.fetch_add(1, Ordering::Relaxed);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Sends an attack; the answers until the connection ends, or the first one of a bomb.
    fn strike(&self, stream: &mut TcpStream, attack: Attack, begin: &[u8]) -> String {
        // The server closes in the middle as a rule.
        let mut writing = stream.write_all(begin);
        if let Attack::Endless = attack {
            let chunk = [&b"10000\r\n"[..], &[b' '; 0x1_0000], b"\r\n"].concat();
            while writing.is_ok() && !self.is_over() {
                writing = stream.write_all(&chunk);
            }
        }
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        let once = matches!(attack, Attack::Bomb);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..read]);
            if once || self.is_over() {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Attack {
    /// What it sends first, or at all.
    fn begin(self) -> Result<Vec<u8>> {
        Ok(match self {
            Attack::Head => {
                [&b"GET /healthz HTTP/1.1\r\nX: "[..], &[b'x'; 64 << 10], b"\r\n\r\n"].concat()
            }
            Attack::Bomb => {
                let mut packed = GzEncoder::new(Vec::new(), Compression::best());
                let zeros = vec![b' '; 1 << 20];
                for _ in 0..BOMB_BYTES / zeros.len() {
                    packed.write_all(&zeros)?;
                }
                let packed = packed.finish()?;
                let head = format!(
                    "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n\
                     Content-Length: {}\r\n\r\n",
                    packed.len(),
                );
                [head.as_bytes(), &packed].concat()
            }
            Attack::Endless => b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n\
                Transfer-Encoding: chunked\r\n\r\n"
                .to_vec(),
            Attack::Garbage => [SERVED, &b"\0\xff%%% / \r\n"[..], &[b'?'; 4 << 10]].concat(),
        })
    }

    /// An answer that is an error; none at all is fine, as from a connection that was reset.
    fn judge(self, answer: &str) -> Result<()> {
        let good = answer.matches("HTTP/1.1 2").count();
        let allowed = usize::from(matches!(self, Attack::Garbage));
        if good > allowed {
            bail!("{self:?} was answered {answer}");
        }
        Ok(())
    }
}

/// Whether a held connection is still open; sends the next byte when it drips.
fn is_alive(stream: &mut TcpStream, drips: bool) -> bool {
    let mut buffer = [0; 1024];
    let waits = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    match stream.read(&mut buffer) {
        Ok(0) => return false,
        Ok(_) => {}
        Err(error) if waits(&error) => {}
        Err(_) => return false,
    }
    !drips || stream.write(b"x").map_or_else(|error| waits(&error), |_| true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn a_bomb_is_small_and_only_garbage_may_follow_a_good_answer() {
        assert!(Attack::Bomb.begin().unwrap().len() < 1 << 20);
        let good = "HTTP/1.1 200 OK\r\n\r\n";
        assert!(Attack::Garbage.judge(good).is_ok() && Attack::Head.judge(good).is_err());
        assert!(Attack::Garbage.judge(&good.repeat(2)).is_err());
        assert!(Attack::Bomb.judge("HTTP/1.1 413 Too Large\r\n\r\n").is_ok());
    }
}
