#![allow(clippy::unwrap_used, reason = "a failed test should panic")]
use super::*;
use crate::cache::GOOD_TIME;
use crate::key::Key;
use crate::record::{Scope, Wanted};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Fixture {
    _directory: tempfile::TempDir,
    keys: Keys,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::open(directory.path()).unwrap();
        Self { _directory: directory, keys }
    }

    fn create(&self, aliases: &[&str]) -> Key {
        let wanted = Wanted {
            scope: Scope::Write,
            tenant: Some("acme".into()),
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
            origins: Vec::new(),
        };
        let (key, _) = self.keys.file().create(wanted).unwrap();
        assert!(self.keys.reload().unwrap());
        key
    }

    fn check(&self, key: &str) -> Result<Arc<Record>, Refused> {
        block_on(self.keys.check(key, HERE))
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// The same id with another secret.
fn forged(key: &Key, number: usize) -> String {
    format!("rl_{}_{number:a>32}", key.id())
}

#[test]
fn open_mode_ends_with_the_first_key_and_does_not_return_with_its_revocation() {
    let fixture = Fixture::new();
    assert!(fixture.keys.is_open_mode());
    let key = fixture.create(&[]);
    assert!(!fixture.keys.is_open_mode());
    fixture.keys.file().revoke(key.id()).unwrap();
    fixture.keys.reload().unwrap();
    assert!(!fixture.keys.is_open_mode());
    assert_eq!(fixture.check(key.reveal()).unwrap_err(), Refused::Unknown);
}

#[test]
fn a_verified_key_is_cached_and_a_revoked_one_is_dropped_at_once() {
    let fixture = Fixture::new();
    let key = fixture.create(&["a.example"]);
    assert!(fixture.keys.cached(key.reveal(), Instant::now()).is_none());
    assert_eq!(fixture.check(key.reveal()).unwrap().tenant, "acme");
    assert_eq!(fixture.keys.cached(key.reveal(), Instant::now()).unwrap().tenant, "acme");
    assert!(fixture.keys.of_alias("a.example").is_ok());
    assert_eq!(fixture.keys.of_alias("b.example").unwrap_err(), Refused::Unknown);

    // Another key changes nothing for this one.
    fixture.create(&[]);
    assert!(fixture.keys.cached(key.reveal(), Instant::now()).is_some());

    let (next, _) = fixture.keys.file().rotate(key.id()).unwrap();
    fixture.keys.reload().unwrap();
    assert!(fixture.keys.cached(key.reveal(), Instant::now()).is_none());
    assert_eq!(fixture.check(key.reveal()).unwrap_err(), Refused::Unknown);
    assert!(fixture.check(next.reveal()).is_ok());
    fixture.keys.file().revoke(key.id()).unwrap();
    fixture.keys.reload().unwrap();
    assert!(fixture.keys.cached(next.reveal(), Instant::now()).is_none());
    assert_eq!(fixture.keys.of_alias("a.example").unwrap_err(), Refused::Unknown);
    assert_eq!(fixture.keys.cache.sizes(), (0, 0));
}

#[test]
fn a_cached_key_is_believed_for_five_minutes() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    fixture.check(key.reveal()).unwrap();
    let (cache, digest) = (&fixture.keys.cache, fixture.keys.cache.digest(key.reveal()));
    let now = Instant::now();
    assert!(cache.good(digest, now + GOOD_TIME - Duration::from_secs(1)).is_some());
    assert!(cache.good(digest, now + GOOD_TIME).is_none());
    cache.sweep(&fixture.keys.set.load(), now + GOOD_TIME);
    assert_eq!(cache.sizes(), (0, 0));
    assert!(fixture.check(key.reveal()).is_ok());
}

#[test]
fn a_wrong_secret_is_hashed_once_and_none_once_the_right_one_is_known() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    assert_eq!(fixture.check(&forged(&key, 0)).unwrap_err(), Refused::Unknown);
    assert_eq!(fixture.keys.cache.sizes(), (0, 1));
    // Many times the limit of an address, but the same key: nothing is hashed for it.
    for _ in 0..10 * FAILURES_PER_MINUTE {
        assert_eq!(fixture.check(&forged(&key, 0)).unwrap_err(), Refused::Unknown);
    }
    fixture.check(key.reveal()).unwrap();
    for number in 1..10_000 {
        assert_eq!(fixture.check(&forged(&key, number)).unwrap_err(), Refused::Unknown);
    }
    assert_eq!(fixture.keys.cache.sizes(), (1, 1));
}

#[test]
fn an_address_that_sends_many_wrong_keys_has_to_wait() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    for number in 0..usize::from(FAILURES_PER_MINUTE) {
        assert_eq!(fixture.check(&forged(&key, number)).unwrap_err(), Refused::Unknown);
    }
    assert!(matches!(fixture.check(&forged(&key, 99)), Err(Refused::TooMany(_))));
    // Others do not.
    let elsewhere = IpAddr::V4([192, 0, 2, 1].into());
    assert!(block_on(fixture.keys.check(key.reveal(), elsewhere)).is_ok());
    // And who is known is known from everywhere, also when the cache has forgotten it: it is not
    // hashed again.
    assert!(fixture.check(key.reveal()).is_ok());
    fixture.keys.cache.sweep(&fixture.keys.set.load(), Instant::now() + GOOD_TIME);
    assert!(fixture.keys.cached(key.reveal(), Instant::now()).is_none());
    assert!(fixture.check(key.reveal()).is_ok());
}

#[test]
fn many_who_send_the_same_key_wait_for_one_hash() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    // Far more than may wait for a thread.
    let checks = (0..1_000).map(|_| fixture.keys.check(key.reveal(), HERE));
    let mut checks: Vec<_> = checks.map(Box::pin).collect();
    block_on(async {
        let begin = std::future::poll_fn(|context| {
            let waiting = checks.iter_mut().all(|check| check.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(waiting)
        });
        assert!(begin.await);
        for check in &mut checks {
            assert!(check.await.is_ok());
        }
    });
    drop(checks);
    assert!(fixture.keys.flights.is_empty());
}

#[test]
fn who_gives_up_waiting_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    block_on(async {
        let mut check = Box::pin(fixture.keys.check(key.reveal(), HERE));
        let poll = std::future::poll_fn(|context| {
            std::task::Poll::Ready(check.as_mut().poll(context).is_pending())
        });
        assert!(poll.await);
        assert_eq!(fixture.keys.flights.len(), 1);
        drop(check);
        assert!(fixture.keys.flights.is_empty());
    });
    assert!(fixture.check(key.reveal()).is_ok());
}

#[test]
fn a_key_that_nobody_waits_for_any_more_is_hashed_once_all_the_same() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    let record = fixture.keys.set.load().of_id(key.id()).cloned().unwrap();
    // The thread is at work on it by the time that whoever has sent it goes, or never begins: then it is
    // sent again.
    let began = Instant::now();
    while record.known.get().is_none() {
        assert!(began.elapsed() < Duration::from_secs(120), "nobody finds it good");
        block_on(async {
            let check = fixture.keys.check(key.reveal(), HERE);
            let _ = tokio::time::timeout(Duration::from_millis(5), check).await;
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(record.known.get(), Some(&fixture.keys.cache.digest(key.reveal())));
}

#[test]
fn a_key_that_is_revoked_while_it_is_verified_is_refused() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    block_on(async {
        let mut check = Box::pin(fixture.keys.check(key.reveal(), HERE));
        let begin = std::future::poll_fn(|context| {
            std::task::Poll::Ready(check.as_mut().poll(context).is_pending())
        });
        assert!(begin.await);
        fixture.keys.file().revoke(key.id()).unwrap();
        fixture.keys.reload().unwrap();
        assert_eq!(check.await.unwrap_err(), Refused::Unknown);
    });
    assert!(fixture.keys.cached(key.reveal(), Instant::now()).is_none());
}

#[test]
fn a_file_that_goes_away_or_breaks_leaves_the_keys_as_they_were() {
    let fixture = Fixture::new();
    let key = fixture.create(&[]);
    let path = fixture._directory.path().join("keys.json");
    let good = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(fixture.keys.reload().is_err());
    assert!(!fixture.keys.is_open_mode() && fixture.check(key.reveal()).is_ok());
    std::fs::write(&path, "{").unwrap();
    assert!(fixture.keys.reload().is_err());
    assert!(fixture.check(key.reveal()).is_ok());
    std::fs::write(&path, good).unwrap();
    assert!(fixture.keys.reload().unwrap());
    assert!(fixture.check(key.reveal()).is_ok());
}
