//! Importing through the engine: one worker a shard, decoding straight into its ring.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringlake_arrow::Body;
use ringlake_engine::ack::{Acks, Ticket};
use ringlake_engine::{Ingest, IngestError, Readiness};
use ringlake_event::{
    Assembly, Decoder, Limits, Mode, Rejection, Request, Source, Tenant, record_bound,
};

use super::super::{close, open};
use super::{Job, PIECE_BYTES, QUEUE_MAX, Work};
use crate::cli::{ImportFormat, Place};
use crate::config::Config;
use crate::http::now_micros;

/// Pieces of one worker that may wait to be durable.
const WAITING_MAX: usize = 64;
/// Pause when the ring is full and nothing is left to wait for.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Pause while the engine refuses events for lack of room.
const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// A roll may make room, by letting go of the log; after this long it will not.
const ROOM_PATIENCE: Duration = Duration::from_secs(20);

/// Imports into the data directory at `place`; gives a note for the last line.
pub fn run(job: &Job<'_>, place: &Place) -> Result<String> {
    let (engine, ingests, config) = open(Config::for_command(place, None)?)?;
    // A piece is one request to the ring, and a quarter of the ring lets several be on their way.
    let event_max = config.http.limits.event_max_bytes;
    let piece_bytes = PIECE_BYTES.min(config.engine.ring_bytes / 4).max(event_max + 1);
    let limits = Limits { events_max: usize::MAX, ..config.http.limits };
    let imported = import(job, ingests, piece_bytes, &limits);
    let imported = imported.map_err(|error| match engine.readiness() {
        Readiness::NotReady { reason } => error.context(reason),
        Readiness::Ready => error,
    });
    let rolled = imported.and_then(|ingests| {
        let report = engine.roll().context("cannot roll the events into the table");
        // A shard ends when its way in is gone, and the roll needs all of them.
        drop(ingests);
        report
    });
    let closed = close(&engine, &config);
    let report = rolled?;
    closed?;
    Ok(format!(", in version {} of {}", report.version, engine.table_path().display()))
}

fn import(
    job: &Job<'_>,
    ingests: Vec<Ingest>,
    piece_bytes: usize,
    limits: &Limits,
) -> Result<Vec<Ingest>> {
    let (sender, receiver) = sync_channel::<Work>(QUEUE_MAX);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let workers: Vec<_> = ingests
            .into_iter()
            .map(|ingest| {
                let receiver = &receiver;
                scope.spawn(move || Worker::new(job, ingest, *limits, piece_bytes).run(receiver))
            })
            .collect();
        // When all workers have failed, nobody takes pieces any more.
        let read = job.read(piece_bytes, |work| sender.send(work).is_ok());
        drop(sender);
        let outcomes: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let ingests = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()?;
        read.map(|()| ingests)
    })
}

struct Worker<'a> {
    job: &'a Job<'a>,
    ingest: Ingest,
    acks: Acks,
    decoder: Decoder,
    /// For rows of columns, which are put together beside the ring.
    assembly: Assembly,
    limits: Limits,
    piece_bytes: usize,
    /// Pieces in the ring or the log that are not known to be durable, and their events.
    waiting: VecDeque<(Ticket, usize)>,
}

impl<'a> Worker<'a> {
    fn new(job: &'a Job<'a>, ingest: Ingest, limits: Limits, piece_bytes: usize) -> Self {
        Self {
            job,
            acks: ingest.acks(),
            ingest,
            decoder: Decoder::new(),
            assembly: Assembly::new(),
            limits,
            piece_bytes,
            waiting: VecDeque::new(),
        }
    }

    /// Stores pieces until there are no more and all are durable; gives the way in back.
    fn run(mut self, pieces: &Mutex<Receiver<Work>>) -> Result<Ingest> {
        loop {
            let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(work) = next else { break };
            self.store(&work)?;
            if self.waiting.len() >= WAITING_MAX {
                self.settle_one()?;
            }
        }
        while self.settle_one()? {}
        Ok(self.ingest)
    }

    /// Puts one piece into the ring, waiting for room when there is none.
    fn store(&mut self, work: &Work) -> Result<()> {
        let bound = record_bound(work.piece.text.len());
        let began = Instant::now();
        while let Err(error) = self.try_store(work, bound) {
            if error != IngestError::Full || !self.settle_one()? {
                pause(error, began)?;
            }
        }
        Ok(())
    }

    fn try_store(&mut self, work: &Work, bound: usize) -> Result<(), IngestError> {
        let request = Request {
            received_at: now_micros(),
            source: Source::Import,
            tenant: Tenant::Open,
            correct_clock: false,
            sender: None,
        };
        if self.job.format == ImportFormat::Arrow {
            return self.try_store_rows(work, &request);
        }
        let text = &work.piece.text;
        let mut room = self.ingest.reserve(bound)?;
        let decoded = self.decoder.decode(text, &request, &self.limits, Mode::Partial, &mut room);
        match decoded {
            Ok(decoded) => {
                room.tally().receive(decoded.accepted);
                if decoded.record_len > 0 {
                    self.waiting.push_back((room.commit(decoded.record_len), decoded.accepted));
                }
                self.left_out(work, decoded.rejected);
            }
            Err(error) => {
                self.refused(work, &error.message)?;
            }
        }
        Ok(())
    }

    /// Puts a piece that is an Arrow stream into the ring.
    fn try_store_rows(&mut self, work: &Work, request: &Request<'_>) -> Result<(), IngestError> {
        let body = Body {
            request,
            limits: &self.limits,
            mode: Mode::Partial,
            unpacked_max_bytes: usize::MAX,
            record_max_bytes: record_bound(self.piece_bytes),
        };
        self.assembly.clear();
        let rejected = match ringlake_arrow::decode(&work.piece.text, &body, &mut self.assembly) {
            Ok(rejected) => rejected,
            Err(error) => return self.refused(work, &error.message),
        };
        let mut room = self.ingest.reserve(self.assembly.record_len(request))?;
        let events = self.assembly.events();
        room.tally().receive(events);
        let length = self.assembly.write(request, &mut room);
        if length > 0 {
            self.waiting.push_back((room.commit(length), events));
        }
        self.left_out(work, rejected);
        Ok(())
    }

    fn left_out(&self, work: &Work, rejected: Vec<Rejection>) {
        for bad in rejected {
            let number = self.job.number_of(work, bad.index);
            self.job.rejected(&work.file, number, bad.error.message);
        }
    }

    /// A piece that was refused as a whole is tried in halves, so that only what is bad is lost.
    fn refused(&mut self, work: &Work, reason: &str) -> Result<(), IngestError> {
        let blank = work.piece.text.iter().all(u8::is_ascii_whitespace);
        match self.job.halves(work) {
            _ if blank => {}
            None => self.job.rejected(&work.file, self.job.number_of(work, 0), reason),
            Some((left, right)) => {
                for half in [left, right] {
                    let bound = record_bound(half.piece.text.len());
                    let began = Instant::now();
                    while let Err(error) = self.try_store(&half, bound) {
                        pause(error, began)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits for the oldest piece; false when there is none.
    fn settle_one(&mut self) -> Result<bool> {
        let Some((ticket, events)) = self.waiting.pop_front() else { return Ok(false) };
        let durable = self.acks.wait_blocking(ticket)?;
        self.job.accepted(events, durable.duplicates);
        Ok(true)
    }
}

/// Lets a moment pass in which the engine, which has refused since `began`, may make room.
///
/// # Errors
/// `error`, when it is not one that passes, or has not passed for too long.
fn pause(error: IngestError, began: Instant) -> Result<(), IngestError> {
    match error {
        IngestError::Full => thread::sleep(FULL_PAUSE),
        IngestError::DiskFull | IngestError::LogFull | IngestError::Backlog
            if began.elapsed() < ROOM_PATIENCE =>
        {
            thread::sleep(ROOM_PAUSE);
        }
        lasting => return Err(lasting),
    }
    Ok(())
}
