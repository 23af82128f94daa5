//! The plan of a round: what is sent, which fault comes, at which count of acknowledgements.
//!
//! **Guarantees.** The plan is a function of the seed and the number of the round; the same two
//! give the same plan on every machine.
//!
//! **Not guaranteed.** The course of a round: how far each client has come when the fault comes,
//! and what the server was doing then, is up to the machine.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rustix::process::Signal;

/// Clients of a round, each with a stream of its own. More than the server has loops, so that
/// batches hold several requests.
pub const CLIENTS: u32 = 8;
/// Stream of the round itself; clients are numbered from 0.
const ROUND_STREAM: u32 = 255;
/// Largest batch in events.
pub const BATCH_MAX: u32 = 2_000;
/// Events that are acknowledged before the fault comes.
const FAULT_AT: RangeInclusive<u32> = 10_000..=18_000;

/// The smallest table that the server allows: one is being rolled at nearly any time then.
const ROLL_ROWS_MIN: u32 = 1_024;

/// Random numbers of one stream.
#[derive(Debug)]
struct Draw(Pcg64Mcg);

impl Draw {
    /// The stream `stream` of a round. Seeds and rounds below 2^32 and 2^24 never share one.
    fn new(seed: u64, round: u32, stream: u32) -> Draw {
        let stream = u64::from(stream) << 56 | u64::from(round) << 32;
        Draw(Pcg64Mcg::seed_from_u64(seed ^ stream))
    }

    fn between(&mut self, range: RangeInclusive<u32>) -> u32 {
        let width = u64::from(range.end() - range.start()) + 1;
        let below = (u64::from(self.0.next_u32()) * width) >> 32;
        range.start() + u32::try_from(below).expect("a 32-bit number times a share below one")
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.between(1..=100) <= percent
    }

    fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.between(1..=u32::try_from(N).expect("a handful of choices")) as usize - 1]
    }

    fn milliseconds(&mut self, range: RangeInclusive<u32>) -> Duration {
        Duration::from_millis(self.between(range).into())
    }
}

/// What happens in a round besides the requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Round {
    /// How the server of this round is started.
    pub settings: Settings,
    /// What ends it.
    pub fault: Fault,
    /// Acknowledged events after which the fault comes.
    pub fault_at: u64,
    /// What else is asked of the server, and after how many acknowledged events.
    pub chores: Vec<(u64, Chore)>,
}

impl Round {
    /// The plan of round `number` (from 1) of an episode.
    pub fn new(seed: u64, number: u32) -> Round {
        let mut draw = Draw::new(seed, number, ROUND_STREAM);
        let fault_at = draw.between(FAULT_AT);
        let mut chores: Vec<(u64, Chore)> = (0..draw.between(2..=5))
            .map(|_| {
                let chore = match draw.between(1..=10) {
                    1..=4 => Chore::Roll,
                    5..=7 => Chore::Compact,
                    _ => Chore::Look,
                };
                (draw.between(0..=fault_at).into(), chore)
            })
            .collect();
        chores.sort_by_key(|(at, _)| *at);
        Round {
            settings: Settings::new(&mut draw),
            fault: Fault::new(&mut draw),
            fault_at: fault_at.into(),
            chores,
        }
    }
}

/// How a server is started: small tables, segments and rings, so that rolls, new segments and full
/// rings are common; joining files and removing them all the time, or only on request.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    shards: u32,
    ring_bytes: u32,
    segment_bytes: u32,
    queue_bytes: u32,
    flush_ms: u32,
    roll_rows: u32,
    roll_age_ms: u32,
    compaction_ms: u32,
    retain_ms: u32,
}

impl Settings {
    fn new(draw: &mut Draw) -> Settings {
        Settings {
            shards: draw.between(1..=4),
            ring_bytes: draw.pick([1 << 20, 4 << 20, 16 << 20]),
            segment_bytes: draw.pick([1 << 20, 1 << 20, 4 << 20]),
            queue_bytes: draw.pick([1 << 20, 32 << 20]),
            flush_ms: draw.pick([1, 5, 20, 250]),
            roll_rows: if draw.chance(75) { ROLL_ROWS_MIN } else { draw.between(2_000..=20_000) },
            roll_age_ms: draw.between(100..=3_000),
            compaction_ms: draw.pick([0, 10, 100, 60_000]),
            // The second reader needs its files for some seconds.
            retain_ms: draw.pick([10_000, 86_400_000]),
        }
    }

    /// The environment variables that say so.
    pub fn variables(&self) -> [(&'static str, String); 9] {
        [
            ("RINGLAKE_SHARDS", self.shards.to_string()),
            ("RINGLAKE_RING_BYTES", self.ring_bytes.to_string()),
            ("RINGLAKE_LOG_SEGMENT_BYTES", self.segment_bytes.to_string()),
            ("RINGLAKE_HOT_QUEUE_BYTES", self.queue_bytes.to_string()),
            ("RINGLAKE_HOT_FLUSH_INTERVAL_MS", self.flush_ms.to_string()),
            ("RINGLAKE_HOT_ROLL_ROWS", self.roll_rows.to_string()),
            ("RINGLAKE_HOT_ROLL_AGE_MS", self.roll_age_ms.to_string()),
            ("RINGLAKE_COMPACTION_INTERVAL_MS", self.compaction_ms.to_string()),
            ("RINGLAKE_COMPACTION_RETAIN_MS", self.retain_ms.to_string()),
        ]
    }
}

/// A request to the server that carries no events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Everything accepted goes to the table.
    Roll,
    /// Small files are joined.
    Compact,
    /// A query and a status: what they say must be consistent at every moment.
    Look,
}

/// How a round ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// What comes before the signal.
    pub lead: Lead,
    /// The signal.
    pub end: End,
    /// Starts that do not come to their end: each is cut off after a time.
    pub interruptions: Vec<(End, Duration)>,
}

/// What comes just before the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Nothing.
    Nothing,
    /// The process stands still for a time (SIGSTOP, SIGCONT).
    Pause(Duration),
    /// A roll is asked for; the signal comes this long after.
    Roll(Duration),
    /// A compaction is asked for; the signal comes this long after.
    Compact(Duration),
}

/// A signal that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
}

impl Fault {
    fn new(draw: &mut Draw) -> Fault {
        let lead = match draw.between(1..=100) {
            1..=35 => Lead::Nothing,
            36..=55 => Lead::Pause(draw.milliseconds(50..=1_500)),
            56..=80 => Lead::Roll(draw.milliseconds(0..=50)),
            _ => Lead::Compact(draw.milliseconds(0..=50)),
        };
        let end = if draw.chance(65) { End::Kill } else { End::Terminate };
        let interrupted = match draw.between(1..=100) {
            1..=60 => 0,
            61..=85 => 1,
            _ => 2,
        };
        let interruptions = (0..interrupted)
            .map(|_| {
                let end = if draw.chance(75) { End::Kill } else { End::Terminate };
                (end, draw.milliseconds(0..=300))
            })
            .collect();
        Fault { lead, end, interruptions }
    }
}

impl End {
    /// The signal itself.
    pub fn signal(self) -> Signal {
        match self {
            End::Kill => Signal::KILL,
            End::Terminate => Signal::TERM,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            End::Kill => "kill -9",
            End::Terminate => "SIGTERM",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lead {
            Lead::Nothing => {}
            Lead::Pause(time) => write!(formatter, "pause {} ms, ", time.as_millis())?,
            Lead::Roll(time) => write!(formatter, "roll + {} ms, ", time.as_millis())?,
            Lead::Compact(time) => write!(formatter, "compact + {} ms, ", time.as_millis())?,
        }
        write!(formatter, "{}", self.end)?;
        for (end, after) in &self.interruptions {
            write!(formatter, "; start + {} ms, {end}", after.as_millis())?;
        }
        Ok(())
    }
}

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Events in it.
    pub events: u32,
    /// Bytes of filling in each event.
    pub padding: u32,
    /// An array instead of lines.
    pub array: bool,
    /// The body is compressed.
    pub gzip: bool,
    /// Acknowledged when it is in the ring, not when it is on the disk.
    pub memory: bool,
    /// Its events carry message ids.
    pub keyed: bool,
    /// What is wrong with the first sending; later ones are in order and ask for `ack=disk`.
    pub trick: Trick,
    /// Whether it is sent again. Only requests with message ids are.
    pub resend: Resend,
}

/// What is wrong with the first sending of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// Nothing.
    None,
    /// The event of this index is not valid: the whole request must be refused.
    Spoiled(u32),
    /// The connection is cut after this share of the request, in thousandths.
    Cut(u32),
    /// The connection is closed behind the last byte, and the answer never read.
    Unread,
}

/// When a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resend {
    /// Never: what became of it is for the oracle to find out.
    Never,
    /// At once, and after the restart when that brought no acknowledgement either.
    WhenUnacknowledged {
        /// Only after the restart.
        late: bool,
    },
    /// Even when it was acknowledged, as a client does that has lost its notes.
    Always {
        /// Only after the restart.
        late: bool,
    },
}

/// The endless requests of one client.
#[derive(Debug)]
pub struct Requests(Draw);

impl Requests {
    /// Those of client `client` in round `round`.
    pub fn new(seed: u64, round: u32, client: u32) -> Requests {
        Requests(Draw::new(seed, round, client))
    }
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let draw = &mut self.0;
        let events = match draw.between(1..=100) {
            1..=70 => 1,
            71..=92 => draw.between(2..=20),
            93..=99 => draw.between(21..=200),
            _ => draw.between(201..=BATCH_MAX),
        };
        let keyed = draw.chance(60);
        let trick = match draw.between(1..=100) {
            1..=91 => Trick::None,
            92..=94 => Trick::Spoiled(draw.between(0..=events - 1)),
            95..=97 => Trick::Cut(draw.between(0..=999)),
            _ => Trick::Unread,
        };
        let resend = match (keyed, draw.between(1..=100)) {
            (false, _) | (true, 1..=25) => Resend::Never,
            (true, 26..=94) => Resend::WhenUnacknowledged { late: draw.chance(40) },
            (true, _) => Resend::Always { late: draw.chance(40) },
        };
        Some(Request {
            events,
            padding: draw.pick([0, 40, 400, 1_000]),
            array: draw.chance(50),
            gzip: draw.chance(25),
            memory: draw.chance(20),
            keyed,
            trick,
            resend,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_a_function_of_seed_and_round() {
        assert_eq!(Round::new(7, 3), Round::new(7, 3));
        assert_ne!(Round::new(7, 3), Round::new(7, 4));
        assert_ne!(Round::new(7, 3), Round::new(8, 3));
        let requests = |seed, round, client| -> Vec<Request> {
            Requests::new(seed, round, client).take(50).collect()
        };
        assert_eq!(requests(7, 3, 0), requests(7, 3, 0));
        assert_ne!(requests(7, 3, 0), requests(7, 3, 1));
        assert_ne!(requests(7, 3, 0), requests(7, 4, 0));
    }

    #[test]
    fn twenty_rounds_hold_every_kind_of_fault() {
        let rounds: Vec<Round> = (1..=20).map(|number| Round::new(1, number)).collect();
        let any = |holds: &dyn Fn(&Fault) -> bool| rounds.iter().any(|round| holds(&round.fault));
        assert!(any(&|fault| fault.lead == Lead::Nothing));
        assert!(any(&|fault| matches!(fault.lead, Lead::Pause(_))));
        assert!(any(&|fault| matches!(fault.lead, Lead::Roll(_))));
        assert!(any(&|fault| matches!(fault.lead, Lead::Compact(_))));
        assert!(any(&|fault| fault.end == End::Kill));
        assert!(any(&|fault| fault.end == End::Terminate));
        assert!(any(&|fault| fault.interruptions.len() == 2));
    }

    #[test]
    fn a_client_sends_every_kind_of_request() {
        let requests: Vec<Request> = Requests::new(1, 1, 0).take(1_000).collect();
        let any = |holds: &dyn Fn(&Request) -> bool| requests.iter().any(holds);
        assert!(requests.iter().all(|request| (1..=BATCH_MAX).contains(&request.events)));
        assert!(requests.iter().all(|request| request.keyed || request.resend == Resend::Never));
        assert!(any(&|request| matches!(request.trick, Trick::Spoiled(at) if at > 0)));
        assert!(any(&|request| matches!(request.trick, Trick::Cut(_))));
        assert!(any(&|request| request.trick == Trick::Unread));
        assert!(any(&|request| request.resend == Resend::Always { late: false }));
        assert!(any(&|request| request.resend == Resend::WhenUnacknowledged { late: true }));
        assert!(any(&|request| request.memory && request.keyed));
    }
}
