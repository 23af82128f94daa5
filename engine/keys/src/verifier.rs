//! Threads that hash secrets, so that nobody else has to.
//!
//! **Guarantees.** They get what the serving loops leave of the processor: whoever sends wrong keys
//! makes others with new keys wait, and nobody whose key is known. A key that was found good is known
//! from then on, also when whoever has sent it has given up waiting.
//!
//! **Wrong keys** get a [`WRONG_SHARE`]th of a thread's time, and good ones all of it. A thread that always
//! has something to do does harm even if it runs only while nobody else wants the core: in a trace the
//! kernel's thread that flushes the disk, woken for a write of the log, waited 4 ms for it again and again
//! (Linux 6.18; a thread that has just had more than its share is not let in at once). Writes of 0.2 ms
//! took 5 as long as there were wrong keys to hash. All clients then waited together, which left the
//! hashes half of the core, and that did not end by itself.
//!
//! **Memory.** Each thread keeps the 19 MiB of a hash for the next one, until it has had none for
//! [`IDLE`]. They are not given back after each: whoever maps and unmaps memory holds a lock of the whole
//! process, and a thread that gets a core only when nobody else wants it holds it for long. Requests
//! waited 40 to 60 ms for it.
//!
//! **Limits.** [`threads`] hash at the same time, each in 19 MiB of memory for about 20 ms, so one or two
//! wrong keys a second and fifty good ones; [`WAITING_MAX`] secrets wait. More are refused at once, and
//! so is one that has waited for [`WAIT_MAX`] when its turn comes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
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

/// A thread that has had nothing to hash for this long gives the memory of a hash back.
const IDLE: Duration = Duration::from_secs(5);

/// Of how many parts of a thread's time wrong keys get one: few enough that the 99th percentile of
/// answers, of which one in a hundred may be late, does not become a matter of them.
const WRONG_SHARE: u32 = 20;

/// Longest pause after a wrong key: on a busy core a hash takes as long as the core makes it wait.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The parameters that OWASP names: 19 MiB, two passes, one lane.
const KIBIBYTES: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A secret, as it is stored: Argon2id with a random salt, in PHC form.
pub(crate) fn hash(secret: &str) -> Result<String, Error> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let failed = |error: &dyn std::fmt::Display| Error::Hash(error.to_string());
    let parameters = Params::new(KIBIBYTES, PASSES, LANES, None).map_err(|error| failed(&error))?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_with_salt(secret.as_bytes(), &salt)
        .map_err(|error| failed(&error))?;
    Ok(hash.to_string())
}

/// What a hash is computed in.
#[derive(Default)]
pub(crate) struct Memory(Vec<Block>);

impl Memory {
    /// Whether `hash`, in PHC form, was made from `secret`; what is no such hash was made from none.
    pub(crate) fn fits(&mut self, hash: &str, secret: &str) -> bool {
        self.verify(hash, secret).unwrap_or(false)
    }

    fn verify(&mut self, hash: &str, secret: &str) -> Option<bool> {
        let stored = PasswordHash::new(hash).ok()?;
        let (salt, expected) = (stored.salt?, stored.hash?);
        let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok()?;
        let version = Version::try_from(stored.version?).ok()?;
        let parameters = Params::try_from(&stored).ok()?;
        self.0.resize(parameters.block_count(), Block::new());
        let mut room = [0; Output::MAX_LENGTH];
        let output = room.get_mut(..expected.len())?;
        Argon2::new(algorithm, version, parameters)
            .hash_password_into_with_memory(secret.as_bytes(), &salt, output, &mut self.0)
            .ok()?;
        // Outputs are compared in constant time.
        Some(Output::new(output).ok()? == expected)
    }
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
    let mut memory = Memory::default();
    loop {
        let job = match jobs.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                memory = Memory::default();
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                }
            }
        };
        let Job { record, digest, secret, since, answer } = job;
        // Who does not wait any more needs no answer.
        if answer.is_closed() || since.elapsed() >= WAIT_MAX {
            continue;
        }
        let began = Instant::now();
        let is_good = memory.fits(&record.hash, &secret);
        if is_good {
            // Fails when it has been set before, to the same.
            let _ = record.known.set(digest);
        }
        let _ = answer.send(is_good);
        if !is_good {
            thread::sleep(((WRONG_SHARE - 1) * began.elapsed()).min(PAUSE_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn a_hash_fits_its_secret_and_no_other() {
        let mut memory = Memory::default();
        let made = hash("vrxg45pvppmi6svy243ihxd7md8fmmc6").unwrap();
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        // Made by another implementation, as files of earlier versions have it.
        let earlier = "$argon2id$v=19$m=19456,t=2,p=1$WzLl966XlqlEQfHkhTP1jQ\
                       $et4NcyMViVEtoCQoWgdor6GQqoCrK7aXYHBQ2cYY0nQ";
        // With other parameters, of which none needs as much memory.
        let salt = [7; 16];
        let small = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(64, 1, 1, Some(16)).unwrap(),
        );
        let small = small.hash_password_with_salt(b"vrxg45pvppmi6svy243ihxd7md8fmmc6", &salt);
        let small = small.unwrap().to_string();
        for hash in [made.as_str(), earlier, &small, &made] {
            assert!(memory.fits(hash, "vrxg45pvppmi6svy243ihxd7md8fmmc6"), "{hash}");
            assert!(!memory.fits(hash, "vrxg45pvppmi6svy243ihxd7md8fmmc7"), "{hash}");
        }
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        let mut memory = Memory::default();
        for hash in ["", "secret", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ", "$2b$10$abc"] {
            assert!(!memory.fits(hash, "secret"), "{hash}");
            assert!(!memory.fits(hash, ""), "{hash}");
        }
    }
}
