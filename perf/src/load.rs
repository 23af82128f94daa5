//! The load generator: one thread that keeps many connections busy, by a fixed schedule or as fast
//! as answers come.
//!
//! **Guarantees**: a latency is counted from the moment at which the request was meant to be sent,
//! not from when a connection was free: a server that stops for a second is charged for everything
//! that would have been sent meanwhile. Every answer is either 2xx or counted as refused; anything
//! else than 2xx, 429 and 503 is an error, unless the load was made for being refused.
//!
//! **Not guaranteed**: an even load when the thread itself does not get its core. It sleeps until
//! 60 µs before a request is due and then spins, because a sleep of the kernel may end that late.
//!
//! **Limits**: latencies up to a minute, three digits of precision. A schedule that is behind by
//! more than a minute at its end is an error.
//!
//! | module | is |
//! |---|---|
//! | [`bodies`] | what is sent: some requests in turn, or one with numbers filled in |
//! | [`connection`] | a socket that never blocks: a request out, an answer in |
//! | [`schedule`] | when requests are due |

mod bodies;
mod connection;
mod schedule;

use std::collections::VecDeque;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

pub use self::bodies::{Bodies, SLOT};
use self::connection::Connection;
pub use self::connection::connect_from;
pub use self::schedule::Pace;
use self::schedule::Schedule;
use crate::bulk::count_as_f64;

/// How late a sleep of the kernel may end by default; what is left of a wait is spun.
const SPIN: Duration = Duration::from_micros(60);
/// Longest wait without a look at the clock.
const LOOK: Duration = Duration::from_secs(1);
/// How far behind its schedule a load may be at its end.
const BEHIND_MAX: Duration = Duration::from_secs(60);
const LATENCY_MAX_NS: u64 = 60_000_000_000;
const LATENCY_DIGITS: u8 = 3;
/// Sockets that are looked at in one go.
const READY_MAX: usize = 256;

/// Connections and what they send in turn.
pub struct Client {
    poll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request under way, the one that has waited longest first.
    idle: VecDeque<usize>,
    bodies: Bodies,
    ready: Vec<Event>,
    /// Statuses that count as refused.
    refusals: &'static [u16],
    /// How long before a request is due it stops sleeping.
    spin: Duration,
}

/// What one run brought.
#[derive(Debug)]
pub struct Outcome {
    /// Requests answered with 2xx.
    pub answered: u64,
    /// Requests answered with 429 or 503.
    pub refused: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Nanoseconds from the intended start to the end of the answer, of those answered with 2xx.
    pub latencies: Histogram<u64>,
}

impl Outcome {
    /// Nothing yet.
    pub fn new() -> Result<Outcome> {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS)?;
        Ok(Outcome { answered: 0, refused: 0, seconds: 0.0, latencies })
    }

    /// Adds another run of the same kind.
    pub fn add(&mut self, other: &Outcome) -> Result<()> {
        self.answered += other.answered;
        self.refused += other.refused;
        self.seconds += other.seconds;
        Ok(self.latencies.add(&other.latencies)?)
    }

    /// Requests answered with 2xx a second.
    pub fn rate(&self) -> f64 {
        count_as_f64(self.answered) / self.seconds
    }

    /// The latency below which this percentage of requests was answered, in milliseconds.
    pub fn milliseconds(&self, percentile: f64) -> f64 {
        count_as_f64(self.latencies.value_at_percentile(percentile)) / 1e6
    }
}

impl Client {
    /// Opens the connections; what they post goes to `/v1/events`.
    pub fn connect(address: SocketAddr, bodies: Bodies, connections: usize) -> Result<Client> {
        Client::from(vec![None; connections], address, bodies)
    }

    /// A load that is there to be refused, with `refusals`, from each of `sources`. It does not spin,
    /// so that it leaves its core to a load that is measured.
    pub fn refused(
        sources: &[IpAddr],
        address: SocketAddr,
        bodies: Bodies,
        refusals: &'static [u16],
    ) -> Result<Client> {
        let sources = sources.iter().copied().map(Some).collect();
        let client = Client::from(sources, address, bodies)?;
        Ok(Client { refusals, spin: Duration::ZERO, ..client })
    }

    fn from(sources: Vec<Option<IpAddr>>, address: SocketAddr, bodies: Bodies) -> Result<Client> {
        ensure!(!sources.is_empty(), "a load needs connections");
        let mut client = Client {
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            idle: (0..sources.len()).collect(),
            bodies,
            ready: Vec::with_capacity(READY_MAX),
            refusals: &[429, 503],
            spin: SPIN,
        };
        for (slot, source) in sources.into_iter().enumerate() {
            let connection = Connection::open(address, source)?;
            let data = EventData::new_u64(slot as u64);
            epoll::add(&client.poll, connection.socket(), data, EventFlags::IN)?;
            client.connections.push(connection);
        }
        Ok(client)
    }

    /// Sends for `length`, then waits for the answers that are still under way.
    pub fn run(&mut self, pace: Pace, length: Duration) -> Result<Outcome> {
        let start = Instant::now();
        let mut schedule = Schedule::new(pace, start, length);
        let mut outcome = Outcome::new()?;
        loop {
            let mut now = Instant::now();
            let mut due = schedule.due(now);
            while let Some(intended) = due
                && intended <= now
                && let Some(slot) = self.idle.pop_front()
            {
                self.send(slot, intended)?;
                schedule.take();
                now = Instant::now();
                due = schedule.due(now);
            }
            if due.is_none() && self.idle.len() == self.connections.len() {
                outcome.seconds = start.elapsed().as_secs_f64();
                return Ok(outcome);
            }
            if now > start + length + BEHIND_MAX {
                let under_way = self.connections.len() - self.idle.len();
                bail!("a minute after its end the load still waits for {under_way} answers");
            }
            let until = if self.idle.is_empty() { None } else { due };
            self.wait(until)?;
            self.collect(&mut outcome)?;
        }
    }

    fn send(&mut self, slot: usize, intended: Instant) -> Result<()> {
        let request = self.bodies.next();
        let connection = &mut self.connections[slot];
        if !connection.send(request, intended)? {
            // The socket is full: the rest goes when it has room.
            self.listen(slot, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    fn listen(&self, slot: usize, flags: EventFlags) -> Result<()> {
        let data = EventData::new_u64(slot as u64);
        Ok(epoll::modify(&self.poll, self.connections[slot].socket(), data, flags)?)
    }

    /// Sleeps until a socket has something, or until shortly before `until`.
    fn wait(&self, until: Option<Instant>) -> Result<()> {
        let left = match until {
            Some(until) => {
                until.saturating_duration_since(Instant::now()).saturating_sub(self.spin)
            }
            None => LOOK,
        };
        if !left.is_zero() {
            let mut sockets = [PollFd::new(&self.poll, PollFlags::IN)];
            let timeout = Timespec::try_from(left.min(LOOK))?;
            retry_on_intr(|| poll(&mut sockets, Some(&timeout)))?;
        }
        Ok(())
    }

    /// Moves on what is ready, without waiting.
    fn collect(&mut self, outcome: &mut Outcome) -> Result<()> {
        let mut ready = mem::take(&mut self.ready);
        ready.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let buffer = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.poll, buffer, Some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &ready {
            let slot = usize::try_from(event.data.u64())?;
            self.advance(slot, event.flags, outcome)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn advance(&mut self, slot: usize, flags: EventFlags, outcome: &mut Outcome) -> Result<()> {
        let connection = &mut self.connections[slot];
        if flags.contains(EventFlags::OUT) && connection.write()? {
            self.listen(slot, EventFlags::IN)?;
        }
        let connection = &mut self.connections[slot];
        let Some(answer) = connection.read()? else { return Ok(()) };
        let latency = connection.intended().elapsed();
        match answer.status {
            200..300 => {
                outcome.answered += 1;
                outcome.latencies.saturating_record(u64::try_from(latency.as_nanos())?);
            }
            status if self.refusals.contains(&status) => outcome.refused += 1,
            status => bail!("a request was answered {status}: {}", answer.text),
        }
        if answer.last {
            // Refusals close now and then; the schedule goes on.
            let fresh = connection.again()?;
            let data = EventData::new_u64(slot as u64);
            epoll::add(&self.poll, fresh.socket(), data, EventFlags::IN)?;
            self.connections[slot] = fresh;
        }
        self.idle.push_back(slot);
        Ok(())
    }
}

/// A positive number of seconds from a command line.
pub fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is not a number of seconds"))?;
    let sensible = seconds.is_finite() && (0.01..=86_400.0).contains(&seconds);
    sensible.then_some(seconds).ok_or_else(|| format!("{text} is not between 0.01 and 86400"))
}

/// Pins this process, and the threads it will start, to one core.
pub fn pin(core: usize) -> Result<()> {
    let status = std::process::Command::new("taskset")
        .args(["-cp", &core.to_string(), &std::process::id().to_string()])
        .stdout(std::process::Stdio::null())
        .status()
        .context("taskset did not start: apt-get install util-linux")?;
    ensure!(status.success(), "taskset ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers every whole request of one connection with `answers` in turn.
    fn server(requests: usize, pause: Duration, answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            for _ in 0..requests {
                while !text.ends_with(b"}\n") {
                    let read = stream.read(&mut buffer).unwrap();
                    text.extend_from_slice(&buffer[..read]);
                }
                text.clear();
                thread::sleep(pause);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            let _ = stream.read(&mut buffer);
        });
        address
    }

    fn client(address: SocketAddr, body: &str) -> Client {
        Client::connect(address, Bodies::in_turn(address, &[body.to_owned()]), 1).unwrap()
    }

    const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 14\r\n\r\n{\"accepted\":1}";

    #[test]
    fn a_slow_server_is_charged_for_the_requests_that_it_kept_from_being_sent() {
        let address = server(10, Duration::from_millis(20), ACCEPTED);
        let mut client = client(address, "{}\n");
        let outcome = client.run(Pace::PerSecond(100.0), Duration::from_millis(100)).unwrap();
        assert_eq!((outcome.answered, outcome.refused), (10, 0));
        // The tenth was due after 90 ms and could not be answered before 200 ms.
        assert!(outcome.milliseconds(100.0) >= 109.0, "{} ms", outcome.milliseconds(100.0));
        assert!(outcome.milliseconds(0.0) >= 19.9);
    }

    #[test]
    fn refusals_are_counted_apart() {
        let refusal = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}";
        let address = server(3, Duration::ZERO, refusal);
        let mut client = client(address, "{}\n");
        let outcome = client.run(Pace::PerSecond(300.0), Duration::from_millis(10)).unwrap();
        assert_eq!((outcome.answered, outcome.refused, outcome.latencies.len()), (0, 3, 0));
    }

    #[test]
    fn what_the_socket_does_not_take_at_once_is_sent_later() {
        let address = server(1, Duration::from_millis(20), ACCEPTED);
        let body = format!("{{\"a\":\"{}\"}}\n", "x".repeat(20 << 20));
        let mut client = client(address, &body);
        let outcome = client.run(Pace::PerSecond(100.0), Duration::from_millis(10)).unwrap();
        assert_eq!(outcome.answered, 1);
    }

    #[test]
    fn an_answer_that_says_what_is_wrong_ends_the_run() {
        let address = server(1, Duration::ZERO, "HTTP/1.1 400 Bad\r\ncontent-length: 3\r\n\r\nbad");
        let mut client = client(address, "{}\n");
        let error = client.run(Pace::PerSecond(100.0), Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().contains("400: bad"), "{error}");
    }
}
