//! Webhooks: events sent to those who want them, by HTTP.
//!
//! ```text
//!  webhook ─▶ feed: the next events ─▶ message, signed ─▶ POST ─▶ how it went, noted
//! ```
//!
//! **Guarantees.** Every event that a webhook wants is sent until its receiver has answered 2xx, also
//! across restarts; what comes twice and what is given up is in
//! [`engine::webhook`](ringlake_engine::webhook). Nothing here is in the way of a request: the thread
//! looks for what is stored. Nothing is sent to an address that is not public unless the configuration
//! allows it, whatever a name resolves to, and no redirect is followed.
//!
//! **Not guaranteed.** An order across shards. An erase does not call back what is on its way, or has
//! failed in the last ten seconds.
//!
//! **Limits.** Of one webhook one message is on its way at a time. [`AT_A_TIME`] webhooks have their turn
//! together, each for [`TURN`] or until its receiver is [`SLOW`]; a receiver has [`ATTEMPT_TIMEOUT`] to begin
//! its answer. A webhook that has everything looks again after [`LOOK_EVERY`].
//!
//! **Cost.** While there are new events, one look a second makes them visible and reads what any webhook
//! wants, for all that have everything before; one that is behind reads for itself. Measured on two cores
//! of an Intel Xeon that took as many events of 370 bytes as they could, 8 s each, three rounds in turn,
//! medians: 908,000 a second without webhooks, 819,000 with one that nothing matched, 820,000 with 16. One
//! that all events matched was sent 25,000 a second. At ten events a second 64 of them take 2 % of a core;
//! when each read for itself it was 21 %, and 539,000 events a second with 16.
//!
//! **Memory.** What a step of the feed gives, about 4 MB, for each of those that have their turn; a message of
//! about 1 MB for each webhook that waits for its receiver, or has failed and tries again soon; what was
//! read for all, at most [`NEWEST_STEPS`] such steps.
//!
//! **Roles.** One thread with a loop of its own, behind those that answer.

mod address;
mod message;
mod target;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use ringlake_engine::feed::{Feed, FeedError, FeedRequest, Part, Position, Step};
use ringlake_engine::metrics::Histogram;
use ringlake_engine::webhook::{ASKED_PAUSE_MAX, Delivery, Outcome, Webhook, WebhookState};
use ringlake_engine::{Engine, Error as EngineError};
use ringlake_niceness::Behind;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

pub use address::is_public;
pub use target::Target;

use crate::client::{Client, Outgoing, Reach, read as read_answer, retry_after};
use crate::http::{App, chain, grace, now_micros};
use message::Message;

/// Webhooks whose events are read or sent at a time.
const AT_A_TIME: usize = 8;
/// How long one of them goes on while others wait.
const TURN: Duration = Duration::from_secs(2);
/// A receiver that takes longer is waited for without a turn; so is the rest of an answer.
const SLOW: Duration = Duration::from_secs(1);
/// How long what was read for all is good for those who have not come for it.
const NEWEST_AGE: Duration = Duration::from_secs(2);
/// Most events that are read once for all: a step of the feed has no more, but there is one a shard.
const NEWEST_EVENTS: usize = 10_000;
/// Most steps of them.
const NEWEST_STEPS: usize = 8;
/// How long it is good to know up to where events are visible.
const END_AGE: Duration = Duration::from_millis(500);
/// Time for an attempt, from the first byte to the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// How soon a webhook that has everything looks again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest pause over which a message that has failed is kept.
const KEPT_MICROS: i64 = 10_000_000;
/// How soon events that could not be read are tried again.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How often a webhook whose receiver is gone looks whether it is back; whoever says so wakes it.
const GONE_LOOK: Duration = Duration::from_hours(1);
/// What is read of an answer, so that its connection can be used again.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// Longest reason of a failure that is kept.
const ERROR_MAX_CHARS: usize = 200;

/// What all deliveries together came to.
#[derive(Debug, Default)]
pub struct Totals {
    /// Attempts, in the order of [`Outcome::ALL`].
    attempts: [AtomicU64; Outcome::ALL.len()],
    /// What they took.
    pub took: Histogram,
}

impl Totals {
    /// How many attempts ended how.
    pub fn attempts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: statistics.
        let count = |(outcome, count): (Outcome, &AtomicU64)| {
            (outcome.name(), count.load(Ordering::Relaxed))
        };
        Outcome::ALL.into_iter().zip(&self.attempts).map(count)
    }

    fn count(&self, outcome: Outcome) {
        let at = Outcome::ALL.iter().position(|other| *other == outcome).unwrap_or(0);
        // Relaxed: statistics.
        self.attempts[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts the thread that sends; it ends, soon, when the server stops.
///
/// # Errors
/// When the system makes no thread or no loop.
pub fn start(app: Arc<App>) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("webhooks".into()).spawn(move || {
        ringlake_niceness::step(Behind::Answers);
        runtime.block_on(run(app));
        // A name that is being looked up would hold it.
        runtime.shutdown_background();
    })
}

/// Keeps one task for each webhook.
async fn run(app: Arc<App>) {
    let mut changes = app.webhooks.changes();
    let shared = Arc::new(Shared::new());
    let (mut tasks, mut known) = (JoinSet::new(), HashSet::new());
    let Some(end) = app.stopping.run_until_cancelled(replayed(&app)).await else { return };
    app.webhooks.put_back(&end);
    loop {
        let now = app.webhooks.list(None);
        known.retain(|id| now.iter().any(|webhook| webhook.id == *id));
        for webhook in now {
            if known.insert(webhook.id.clone()) {
                tasks.spawn(Sender::new(&app, &shared, &webhook).run());
            }
        }
        let changed = app.stopping.run_until_cancelled(changes.changed()).await;
        if !matches!(changed, Some(Ok(()))) {
            break;
        }
        while tasks.try_join_next().is_some() {}
    }
    // What has been sent is to be noted, or it would be sent again.
    let ending = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(grace(app.config.shutdown_timeout), ending).await.is_err() {
        tracing::info!("deliveries of webhooks are broken off; the next start repeats them");
    }
}

/// Waits until the log has been replayed; gives where its numbers end.
async fn replayed(app: &App) -> Position {
    loop {
        if let Some(end) = app.engine.end_of_feed() {
            return end;
        }
        tokio::time::sleep(LOOK_EVERY / 10).await;
    }
}

/// What the webhooks share.
struct Shared {
    /// They look at whole numbers of [`LOOK_EVERY`] since then, together.
    began: Instant,
    /// A permit for each that may read or send now.
    turns: Semaphore,
    /// Up to where events are visible, and since when that is known.
    end: Mutex<Option<(Position, Instant)>>,
    /// What reads for all, and what it has read last.
    newest: Mutex<(Feed, Option<Newest>)>,
}

/// What came between two looks, read once for all that had everything before.
struct Newest {
    from: Position,
    since: Instant,
    /// For whom, and who has not had it yet.
    of: HashSet<String>,
    /// None when it was too much: each reads for itself.
    steps: Option<Arc<Vec<Step>>>,
}

impl Newest {
    /// Gives it to `webhook`, and to nobody any more once all have had it.
    fn hand_to(&mut self, webhook: &Webhook) -> Option<Arc<Vec<Step>>> {
        self.of.remove(&webhook.id);
        if self.of.is_empty() { self.steps.take() } else { self.steps.clone() }
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            turns: Semaphore::new(AT_A_TIME),
            end: Mutex::default(),
            newest: Mutex::new((Feed::new(Vec::new()), None)),
        }
    }

    /// The time until the next look.
    fn pause(&self) -> Duration {
        let past = self.began.elapsed().as_micros() % LOOK_EVERY.as_micros();
        LOOK_EVERY - Duration::from_micros(u64::try_from(past).unwrap_or(0))
    }

    /// Up to where events are visible. Making them visible costs ingestion something, so that one look
    /// is good for all webhooks.
    async fn end(&self, app: &Arc<App>) -> Result<Position, FeedError> {
        let mut known = self.end.lock().await;
        if let Some((end, since)) = &*known
            // Where nothing has come, nobody is woken to say so.
            && (since.elapsed() < END_AGE || app.engine.end_of_feed().as_ref() == Some(end))
        {
            return Ok(end.clone());
        }
        let since = Instant::now();
        let end = blocking(app, |app| app.engine.visible_end()).await?;
        *known = Some((end.clone(), since));
        Ok(end)
    }

    /// What comes behind the place of `webhook`, up to `end` or an earlier one, if others are there too.
    async fn newest(
        &self,
        app: &Arc<App>,
        webhook: &Webhook,
        end: &Position,
    ) -> Option<Arc<Vec<Step>>> {
        let mut locked = self.newest.lock().await;
        let (reader, newest) = &mut *locked;
        if let Some(known) = newest
            && known.from == webhook.position
            && known.since.elapsed() < NEWEST_AGE
            && known.of.contains(&webhook.id)
        {
            return known.hand_to(webhook);
        }
        // Who comes late reads for itself, and gets nothing that was erased meanwhile.
        *newest = None;
        let is_alike = |other: &Webhook| {
            other.position == webhook.position && other.state() == WebhookState::Active
        };
        let alike = app.webhooks.list(None).into_iter().filter(is_alike);
        let (of, requests): (HashSet<String>, Vec<FeedRequest>) =
            alike.map(|other| (other.id.clone(), other.request())).unzip();
        if of.len() < 2 || !of.contains(&webhook.id) {
            return None;
        }
        let (from, last) = (webhook.position.clone(), end.clone());
        let mut feed = std::mem::replace(reader, Feed::new(Vec::new()));
        let reading = blocking(app, move |app| {
            feed.serve(requests);
            let steps = read_all(&app.engine, &mut feed, from, &last);
            Ok((feed, steps))
        });
        let steps = match reading.await {
            Ok((feed, steps)) => {
                *reader = feed;
                steps
            }
            Err(error) => Err(error),
        };
        // What one of them wants may be what cannot be read; the others shall not suffer for it.
        let steps = steps.unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::debug!(error, "events cannot be read for all webhooks at once");
            None
        });
        let (from, since) = (webhook.position.clone(), Instant::now());
        newest.insert(Newest { from, since, of, steps }).hand_to(webhook)
    }
}

/// What `feed` gives from `from` to `end`; nothing if that is too much.
fn read_all(
    engine: &Engine,
    feed: &mut Feed,
    from: Position,
    end: &Position,
) -> Result<Option<Arc<Vec<Step>>>, FeedError> {
    let (mut steps, mut events, mut at) = (Vec::new(), 0, from);
    while let Some(step) = feed.step(engine, &at, end)? {
        events += step.events();
        if !step.is_whole || events > NEWEST_EVENTS || steps.len() == NEWEST_STEPS {
            return Ok(None);
        }
        at = step.next.clone();
        steps.push(step);
    }
    Ok(Some(Arc::new(steps)))
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> Result<T, FeedError> + Send + 'static,
) -> Result<T, FeedError> {
    let working = Arc::clone(app);
    let outcome = app.control.spawn_blocking(move || work(&working)).await;
    // Else it has panicked, which was logged, or the server ends.
    outcome.unwrap_or_else(|_| Err(FeedError::Hidden(EngineError::Closed)))
}

/// The turn of a webhook, and what was read in it and is still to be sent.
struct Turn<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    since: Instant,
    parts: VecDeque<Part>,
    /// Where the webhook is once these are sent.
    reached: Option<Position>,
}

impl<'a> Turn<'a> {
    async fn begin(shared: &'a Shared) -> Self {
        // It is never closed.
        let permit = shared.turns.acquire().await.ok();
        Self { _permit: permit, since: Instant::now(), parts: VecDeque::new(), reached: None }
    }
}

/// What sends the messages of one webhook.
struct Sender {
    app: Arc<App>,
    shared: Arc<Shared>,
    id: String,
    /// Absent while it is being read.
    feed: Option<Feed>,
    /// What has failed and is in turn.
    message: Option<Message>,
    /// Where it goes, once something was sent.
    client: Option<(Client, Target)>,
}

impl Sender {
    fn new(app: &Arc<App>, shared: &Arc<Shared>, webhook: &Webhook) -> Self {
        Self {
            app: Arc::clone(app),
            shared: Arc::clone(shared),
            id: webhook.id.clone(),
            feed: None,
            message: None,
            client: None,
        }
    }

    /// Sends until the webhook is removed or the server stops.
    async fn run(mut self) {
        let mut changes = self.app.webhooks.changes();
        let stopping = self.app.stopping.clone();
        while let Ok(webhook) = self.app.webhooks.find(None, &self.id) {
            if stopping.is_cancelled() {
                return;
            }
            let early = webhook.next_attempt_at.saturating_sub(now_micros());
            let pause = match u64::try_from(early) {
                _ if webhook.state() == WebhookState::Gone => GONE_LOOK,
                // The clock may have been set back since.
                Ok(early) if early > 0 => Duration::from_micros(early).min(ASKED_PAUSE_MAX),
                _ => match self.take_turn(webhook).await {
                    Ok(pause) => pause,
                    // It starts, or stops.
                    Err(FeedError::Hidden(EngineError::Closed)) => LOOK_EVERY,
                    Err(error) => {
                        let (webhook, error) = (&self.id, chain(&error));
                        tracing::warn!(webhook, error, "events cannot be read for a webhook");
                        READ_AGAIN
                    }
                },
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Sends what there is, for a while; gives the time until there may be more.
    async fn take_turn(&mut self, mut webhook: Webhook) -> Result<Duration, FeedError> {
        let shared = Arc::clone(&self.shared);
        let request = webhook.request();
        let mut turn = Some(Turn::begin(&shared).await);
        let mut kept = self.message.take();
        loop {
            // What was read and not sent is read again.
            let Some(held) = turn.as_mut().filter(|held| held.since.elapsed() < TURN) else {
                return Ok(Duration::ZERO);
            };
            let message = match kept.take() {
                Some(message) => Some(message),
                None => held.parts.pop_front().map(|it| Message::new(&self.id, it)).transpose()?,
            };
            if let Some(message) = message {
                match self.attempt(webhook, message, &mut turn).await {
                    Some(moved) => webhook = moved,
                    None => return Ok(Duration::ZERO),
                }
                continue;
            }
            if let Some(reached) = held.reached.take().filter(|it| *it != webhook.position) {
                webhook.position = reached.clone();
                let id = self.id.clone();
                blocking(&self.app, move |app| {
                    app.webhooks.passed(&id, reached);
                    Ok(())
                })
                .await?;
            }
            let end = shared.end(&self.app).await?;
            if webhook.position.behind(&end) == 0 {
                return Ok(shared.pause());
            }
            let steps = match shared.newest(&self.app, &webhook, &end).await {
                Some(newest) => newest,
                None => Arc::new(self.step(&webhook, &end).await?),
            };
            for step in &*steps {
                held.parts.extend(step.parts(&request)?);
                held.reached = Some(step.next.clone());
            }
        }
    }

    /// The next events that the webhook alone wants.
    async fn step(&mut self, webhook: &Webhook, end: &Position) -> Result<Vec<Step>, FeedError> {
        let mut feed = self.feed.take().unwrap_or_else(|| Feed::new(vec![webhook.request()]));
        let (from, end) = (webhook.position.clone(), end.clone());
        let step = blocking(&self.app, move |app| {
            let step = feed.step(&app.engine, &from, &end);
            Ok((feed, step))
        });
        let (feed, step) = step.await?;
        self.feed = Some(feed);
        Ok(step?.into_iter().collect())
    }

    /// Sends `message` once, and notes how that went. Gives the webhook as it is behind the message;
    /// none when it is not behind it, or nothing more is to be sent now.
    /// The `turn` ends when the receiver is slow: others do not wait for it.
    async fn attempt(
        &mut self,
        webhook: Webhook,
        message: Message,
        turn: &mut Option<Turn<'_>>,
    ) -> Option<Webhook> {
        let (at, began) = (now_micros(), Instant::now());
        let answer = {
            let mut posting = pin!(self.post(&webhook, &message, at));
            match tokio::time::timeout(SLOW, &mut posting).await {
                Ok(answer) => answer,
                Err(_) => {
                    *turn = None;
                    posting.await
                }
            }
        };
        let (status, error, asked_pause) = match answer {
            Ok(answer) if answer.status.is_success() => (Some(answer.status), None, None),
            Ok(answer) => {
                let error = format!("the receiver answered {}", answer.status);
                (Some(answer.status), Some(error), answer.asked_pause)
            }
            Err(error) => (None, Some(format!("{error:#}")), None),
        };
        if status.is_none() {
            self.client = None;
        }
        let outcome = match status {
            Some(StatusCode::GONE) => Outcome::Gone,
            _ if error.is_none() => Outcome::Delivered,
            _ => Outcome::Failed,
        };
        let took = began.elapsed();
        self.app.deliveries.took.observe(took);
        let delivery = Delivery {
            message: message.id.clone(),
            at,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            events: message.events,
            outcome,
            status: status.map(|status| status.as_u16()),
            error: error.map(|error| error.chars().take(ERROR_MAX_CHARS).collect()),
        };
        let (app, id, next) = (Arc::clone(&self.app), self.id.clone(), message.next.clone());
        let noting = self
            .app
            .control
            .spawn_blocking(move || app.webhooks.attempted(&id, delivery, &next, asked_pause));
        let noted = noting.await.ok().flatten()?;
        self.app.deliveries.count(noted.deliveries.back().map_or(outcome, |last| last.outcome));
        self.say(&webhook, &noted);
        // A message that fails stays as it is for a while. Later it is read again: it takes no memory
        // meanwhile, and lacks what was erased.
        let is_in_turn = noted.position != message.next && !noted.is_gone;
        if is_in_turn && noted.next_attempt_at - now_micros() < KEPT_MICROS {
            self.message = Some(message);
        }
        let goes_on = noted.state() == WebhookState::Active && !self.app.stopping.is_cancelled();
        goes_on.then_some(noted)
    }

    /// The log hears of a receiver that stops to work and of one that works again, not of each attempt.
    fn say(&self, before: &Webhook, now: &Webhook) {
        let (webhook, failures) = (&self.id, now.failures);
        let error = now.deliveries.back().and_then(|last| last.error.as_deref());
        match (before.state(), now.state()) {
            (WebhookState::Broken, WebhookState::Active) => {
                tracing::info!(webhook, "a webhook is delivered again");
            }
            (WebhookState::Active | WebhookState::Retrying, WebhookState::Broken) => {
                tracing::warn!(webhook, failures, error, "a webhook cannot be delivered");
            }
            (_, WebhookState::Gone) => {
                tracing::warn!(webhook, "the receiver of a webhook wants no more messages");
            }
            _ => {}
        }
        if now.given_up_events > before.given_up_events {
            let events = now.given_up_events - before.given_up_events;
            tracing::error!(webhook, events, error, "a message of a webhook is given up");
        }
    }

    /// Sends `message` and reads the answer.
    async fn post(&mut self, webhook: &Webhook, message: &Message, at: i64) -> Result<Answer> {
        let key = webhook.secret.key().context("the secret in the webhook's file is none")?;
        let timestamp = at / 1_000_000;
        let (client, target) = match &mut self.client {
            Some(known) => known,
            none => none.insert(self.app.connect_to(webhook)?),
        };
        let header = |name: &'static str, value: String| {
            Ok::<_, anyhow::Error>((HeaderName::from_static(name), HeaderValue::try_from(value)?))
        };
        let outgoing = Outgoing {
            path: target.path.clone(),
            body: message.body.clone(),
            content_type: Some("application/json"),
            headers: vec![
                header("user-agent", concat!("ringlake/", env!("CARGO_PKG_VERSION")).into())?,
                header("webhook-id", message.id.clone())?,
                header("webhook-timestamp", timestamp.to_string())?,
                header("webhook-signature", message.signature(&key, timestamp))?,
            ],
            ..Outgoing::default()
        };
        let sending = tokio::time::timeout(ATTEMPT_TIMEOUT, client.send(&outgoing));
        let response = sending.await.map_err(|_| {
            let seconds = ATTEMPT_TIMEOUT.as_secs();
            anyhow!("the receiver did not answer within {seconds} s")
        })??;
        let (status, asked_pause) = (response.status(), retry_after(&response));
        // What it says is nobody's business. Without its end the connection is of no more use.
        let reading = tokio::time::timeout(SLOW, read_answer(response, ANSWER_MAX_BYTES));
        if !matches!(reading.await, Ok(Ok(_))) {
            self.client = None;
        }
        Ok(Answer { status, asked_pause })
    }
}

/// How a receiver answered.
struct Answer {
    status: StatusCode,
    asked_pause: Option<Duration>,
}

impl App {
    /// A client for the receiver of `webhook`; nothing is sent yet.
    fn connect_to(&self, webhook: &Webhook) -> Result<(Client, Target)> {
        let is_private_allowed = self.config.webhooks.allow_private;
        let target = Target::parse(&webhook.url, is_private_allowed);
        let target = target.map_err(|why| anyhow!("the URL {why}"))?;
        let reach = if is_private_allowed { Reach::Anywhere } else { Reach::Internet };
        Ok((Client::to_receiver(&target.origin, reach)?, target))
    }
}
