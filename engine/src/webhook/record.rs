//! One webhook: what is wanted, and how its deliveries went.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{
    ASKED_PAUSE_MAX, CIRCUIT_FAILURES, DELIVERIES_KEPT, GIVE_UP_AFTER, GIVE_UP_FAILURES, PAUSE_MAX,
    WebhookError,
};
use crate::feed::{FeedRequest, Position};

/// Longest URL in bytes.
const URL_MAX_BYTES: usize = 2_048;
/// Most types and most names of events that a webhook lists.
const LIST_MAX: usize = 32;
/// Longest of each in bytes.
const TEXT_MAX_BYTES: usize = 256;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// How the text of a secret begins, as [Standard Webhooks](https://www.standardwebhooks.com) has it;
/// base64 follows.
const SECRET_PREFIX: &str = "whsec_";

/// The key that messages are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub(super) fn random() -> io::Result<Self> {
        let mut key = [0; SECRET_BYTES];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(format!("{SECRET_PREFIX}{}", STANDARD.encode(key))))
    }

    /// The text that its owner is shown, once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The bytes of the key; none when the file was changed by hand into something else.
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.0.strip_prefix(SECRET_PREFIX)?).ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// A webhook that somebody wants to have.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Whose events; all when absent.
    pub tenant: Option<String>,
    /// Where they are sent, as the sender understands it.
    pub url: String,
    /// Of which types; any when empty.
    pub types: Vec<String>,
    /// With which names; any when empty.
    pub events: Vec<String>,
}

impl Wanted {
    pub(super) fn check(&self) -> Result<(), WebhookError> {
        let invalid = |message: String| Err(WebhookError::Invalid(message));
        if self.url.len() > URL_MAX_BYTES {
            let length = self.url.len();
            return invalid(format!("url has {length} bytes; {URL_MAX_BYTES} are allowed"));
        }
        for (name, list) in [("types", &self.types), ("events", &self.events)] {
            if list.len() > LIST_MAX {
                let count = list.len();
                return invalid(format!("{name} lists {count} texts; {LIST_MAX} are allowed"));
            }
            let is_wrong = |text: &&String| text.is_empty() || text.len() > TEXT_MAX_BYTES;
            if let Some(text) = list.iter().find(is_wrong) {
                let length = text.len();
                return invalid(format!(
                    "{name} has a text of {length} bytes; 1 to {TEXT_MAX_BYTES} are allowed"
                ));
            }
        }
        Ok(())
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It is to be tried again.
    Failed,
    /// It failed once more, and is not tried again.
    GivenUp,
    /// The receiver wants no more messages.
    Gone,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::GivenUp, Self::Gone];

    /// Its name in metrics and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
            Self::Gone => "gone",
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message's id, the same for each attempt.
    pub message: String,
    /// When it began, in microseconds since 1970.
    pub at: i64,
    /// What it took, in milliseconds.
    pub took_ms: u64,
    /// Events in the message.
    pub events: u64,
    /// How it ended. As [`Webhooks::attempted`](super::Webhooks::attempted) is told: delivered, failed or gone.
    pub outcome: Outcome,
    /// The answer's status code; absent when there was none.
    pub status: Option<u16>,
    /// Why it failed; absent when it did not.
    pub error: Option<String>,
}

/// What a webhook is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookState {
    /// The last attempt went through, or none was needed.
    Active,
    /// The last attempts failed; it is tried again soon.
    Retrying,
    /// So many failed in a row that only now and then one is made.
    Broken,
    /// The receiver wants no more messages.
    Gone,
}

impl WebhookState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Retrying, Self::Broken, Self::Gone];

    /// Its name in metrics and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retrying => "retrying",
            Self::Broken => "broken",
            Self::Gone => "gone",
        }
    }
}

/// Somebody to be sent events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Whose events; all when absent.
    pub tenant: Option<String>,
    /// Where they are sent.
    pub url: String,
    /// Of which types; any when empty.
    pub types: Vec<String>,
    /// With which names; any when empty.
    pub events: Vec<String>,
    /// What messages are signed with.
    pub secret: Secret,
    /// When it was created, in microseconds since 1970.
    pub created_at: i64,
    /// The events up to here have been delivered, were not wanted, or were given up.
    pub position: Position,
    /// Attempts that failed since one went through.
    pub failures: u32,
    /// When the message in turn failed first, in microseconds since 1970.
    pub failing_since: Option<i64>,
    /// Nothing is tried before, in microseconds since 1970.
    pub next_attempt_at: i64,
    /// The receiver wants no more messages.
    pub is_gone: bool,
    /// Events delivered.
    pub delivered_events: u64,
    /// Events given up.
    pub given_up_events: u64,
    /// The last attempts, oldest first.
    pub deliveries: VecDeque<Delivery>,
}

impl Webhook {
    pub(super) fn new(wanted: Wanted, secret: Secret, position: Position, now: i64) -> Self {
        let Wanted { tenant, url, types, events } = wanted;
        Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            tenant,
            url,
            types,
            events,
            secret,
            created_at: now,
            position,
            failures: 0,
            failing_since: None,
            next_attempt_at: 0,
            is_gone: false,
            delivered_events: 0,
            given_up_events: 0,
            deliveries: VecDeque::new(),
        }
    }

    /// Which events it wants.
    #[must_use]
    pub fn request(&self) -> FeedRequest {
        let (tenant, types, events) =
            (self.tenant.clone(), self.types.clone(), self.events.clone());
        FeedRequest { tenant, types, events }
    }

    /// What it is at.
    #[must_use]
    pub fn state(&self) -> WebhookState {
        match self.failures {
            _ if self.is_gone => WebhookState::Gone,
            0 => WebhookState::Active,
            failures if failures < CIRCUIT_FAILURES => WebhookState::Retrying,
            _ => WebhookState::Broken,
        }
    }

    pub(super) fn is_visible_to(&self, tenant: Option<&str>) -> bool {
        tenant.is_none() || self.tenant.as_deref() == tenant
    }

    pub(super) fn resume(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.next_attempt_at = 0;
        self.is_gone = false;
    }

    /// Takes in how an attempt to deliver the events up to `next` ended.
    pub(super) fn attempted(
        &mut self,
        mut delivery: Delivery,
        next: &Position,
        asked_pause: Option<Duration>,
        now: i64,
    ) {
        if delivery.outcome == Outcome::Failed {
            let since = *self.failing_since.get_or_insert(delivery.at);
            self.failures = self.failures.saturating_add(1);
            let asked = asked_pause.unwrap_or_default().min(ASKED_PAUSE_MAX);
            self.next_attempt_at = now.saturating_add(micros(pause(self.failures, now).max(asked)));
            let is_old = now.saturating_sub(since) >= micros(GIVE_UP_AFTER);
            if is_old && self.failures >= GIVE_UP_FAILURES {
                delivery.outcome = Outcome::GivenUp;
            }
        }
        match delivery.outcome {
            Outcome::Failed => {}
            Outcome::Gone => {
                self.is_gone = true;
                self.failing_since = None;
            }
            Outcome::Delivered => {
                self.failures = 0;
                self.next_attempt_at = 0;
                self.delivered_events += delivery.events;
            }
            Outcome::GivenUp => self.given_up_events += delivery.events,
        }
        if matches!(delivery.outcome, Outcome::Delivered | Outcome::GivenUp) {
            self.position = next.clone();
            self.failing_since = None;
        }
        if self.deliveries.len() == DELIVERIES_KEPT {
            self.deliveries.pop_front();
        }
        self.deliveries.push_back(delivery);
    }
}

/// The pause after so many failures in a row, give or take a fifth by the last digits of the clock:
/// those who failed together do not come back together.
pub(super) fn pause(failures: u32, now: i64) -> Duration {
    let pause = if failures < CIRCUIT_FAILURES {
        Duration::from_secs(1 << failures.saturating_sub(1))
    } else {
        let doublings = (failures - CIRCUIT_FAILURES).min(10);
        Duration::from_secs(60 << doublings).min(PAUSE_MAX)
    };
    let spread = u32::try_from(now.rem_euclid(401)).unwrap_or(0);
    pause * (800 + spread) / 1_000
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
