//! Threads that hash secrets, so that nobody else has to.
//!
//! **Guarantees.** They get what the serving loops leave of the processor: whoever sends wrong keys
//! makes others with new keys wait, and nobody whose key is known. A key that was found good is known
//! from then on, also when whoever has sent it has given up waiting.
//!
//! **Limits.** [`threads`] hash at the same time, each in 19 MiB of memory for about 20 ms;
//! [`WAITING_MAX`] secrets wait. More are refused at once, and so is one that has waited for
//! [`WAIT_MAX`] when its turn comes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use argon2::{Config, Variant, Version};
use crossbeam_channel::{Receiver, Sender};
use ringlake_niceness::Behind;
use tokio::sync::oneshot;

use crate::cache::Digest;
use crate::file::Error;
use crate::record::Record;

/// Secrets that wait for a thread: a start with that many keys in use at once is over in a second.
const WAITING_MAX: usize = 64;

/// Clients wait that long for an answer; behind it their key would be hashed for nobody.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// One thread for four cores: hashing is rare, and the serving loops need the cores.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get() / 4).clamp(1, 4)
}

/// The parameters that OWASP names: 19 MiB, two passes, one lane.
fn parameters() -> Config<'static> {
    Config {
        variant: Variant::Argon2id,
        version: Version::Version13,
        mem_cost: 19_456,
        time_cost: 2,
        lanes: 1,
        hash_length: 32,
        ..Config::default()
    }
}

/// A secret, as it is stored: Argon2id with a random salt, in PHC form.
pub(crate) fn hash(secret: &str) -> Result<String, Error> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    argon2::hash_encoded(secret.as_bytes(), &salt, &parameters())
        .map_err(|error| Error::Hash(error.to_string()))
}

/// Whether `hash` was made from `secret`. Compares in constant time.
pub(crate) fn is_secret_of(hash: &str, secret: &str) -> bool {
    argon2::verify_encoded(hash, secret.as_bytes()).unwrap_or(false)
}

struct Job {
    record: Arc<Record>,
    digest: Digest,
    secret: String,
    since: Instant,
    answer: oneshot::Sender<bool>,
}

/// The threads; they end when it is dropped.
pub(crate) struct Verifier(Sender<Job>);

impl Verifier {
    /// Starts the threads.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        for index in 0..threads() {
            let receiver = receiver.clone();
            thread::Builder::new().name(format!("keys-{index}")).spawn(move || work(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// Whether `secret` is the one of `record`; the answer comes later, or is broken off when it comes
    /// too late. `None` when too many wait.
    pub(crate) fn verify(
        &self,
        record: &Arc<Record>,
        digest: Digest,
        secret: &str,
    ) -> Option<oneshot::Receiver<bool>> {
        let (answer, waiting) = oneshot::channel();
        let (record, since) = (Arc::clone(record), Instant::now());
        let job = Job { record, digest, secret: secret.to_owned(), since, answer };
        self.0.try_send(job).ok().map(|()| waiting)
    }
}

fn work(jobs: &Receiver<Job>) {
    ringlake_niceness::step(Behind::Everybody);
    for Job { record, digest, secret, since, answer } in jobs {
        // Who does not wait any more needs no answer.
        if answer.is_closed() || since.elapsed() >= WAIT_MAX {
            continue;
        }
        let is_good = is_secret_of(&record.hash, &secret);
        if is_good {
            // Fails when it has been set before, to the same.
            let _ = record.known.set(digest);
        }
        let _ = answer.send(is_good);
    }
}
