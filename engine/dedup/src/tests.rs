//! The table against a model, between threads, and at its bounds.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn dedup(ids: usize, window: Duration) -> Arc<Dedup> {
    let limits = Limits { ids: NonZeroUsize::new(ids).unwrap(), window };
    Arc::new(Dedup::new(&limits, [7; 16], || {}))
}

fn keys(dedup: &Dedup, ids: impl IntoIterator<Item = u32>) -> Vec<(Key, usize)> {
    ids.into_iter().map(|id| dedup.key("t", &id.to_string())).zip(0..).collect()
}

/// Claims one request; gives which events are new, or none when it has to wait.
fn claim(claims: &mut Claims, ids: &[u32]) -> Option<Vec<bool>> {
    let mut keys = keys(claims.dedup(), ids.iter().copied());
    let mut new = vec![true; ids.len()];
    match claims.claim(&mut keys, |index, is_new| new[index] = is_new) {
        Claim::Undecided => None,
        Claim::Decided { duplicates } => {
            assert_eq!(duplicates, new.iter().filter(|new| !**new).count());
            Some(new)
        }
    }
}

/// Stores every id that is new.
fn store(claims: &mut Claims, ids: &[u32], time: i64) -> Vec<bool> {
    claims.dedup().expire(time);
    let new = claim(claims, ids).unwrap();
    claims.store(&(time..=time));
    new
}

#[test]
fn a_key_depends_on_tenant_id_and_where_one_ends() {
    let dedup = dedup(10, DAY);
    let same = dedup.key("ab", "c");
    assert_eq!(dedup.key("ab", "c"), same);
    for (tenant, id) in [("a", "bc"), ("abc", ""), ("", "abc"), ("ab", "C"), ("AB", "c")] {
        assert_ne!(dedup.key(tenant, id), same, "{tenant} {id}");
    }
    let limits = Limits { ids: NonZeroUsize::MIN, window: DAY };
    assert_ne!(Dedup::new(&limits, [8; 16], || {}).key("ab", "c"), same, "the secret counts");
}

#[test]
fn a_repetition_in_the_batch_or_after_it_is_a_duplicate() {
    let mut claims = Claims::new(dedup(100, DAY), 0);
    assert_eq!(claim(&mut claims, &[1, 2, 1]).unwrap(), [true, true, false]);
    assert_eq!(claim(&mut claims, &[2, 3]).unwrap(), [false, true]);
    claims.store(&(0..=0));
    assert_eq!(claim(&mut claims, &[1, 2, 3, 4]).unwrap(), [false, false, false, true]);
}

#[test]
fn a_request_that_has_to_wait_leaves_no_claim() {
    let dedup = dedup(100, DAY);
    let (mut first, mut second) =
        (Claims::new(Arc::clone(&dedup), 0), Claims::new(Arc::clone(&dedup), 1));
    assert!(claim(&mut first, &[5]).is_some());
    assert_eq!(claim(&mut second, &[4, 5, 6]), None);
    assert_eq!(claim(&mut first, &[4, 6]).unwrap(), [true, true], "the other gave 4 back");
    let seen = dedup.decisions();
    first.store(&(0..=0));
    assert_eq!(dedup.decisions(), seen + 1);
    assert_eq!(claim(&mut second, &[4, 5, 6]).unwrap(), [false, false, false]);
}

#[test]
fn when_the_first_fails_the_second_takes_over() {
    let dedup = dedup(100, DAY);
    let mut second = Claims::new(Arc::clone(&dedup), 1);
    for fail in [Claims::forget, drop_claims] {
        let mut first = Claims::new(Arc::clone(&dedup), 0);
        assert!(claim(&mut first, &[1]).is_some());
        assert_eq!(claim(&mut second, &[1]), None);
        let seen = dedup.decisions();
        fail(&mut first);
        assert_eq!(dedup.decisions(), seen + 1);
        assert_eq!(claim(&mut second, &[1]).unwrap(), [true]);
        second.forget();
    }
}

/// What a panic does to the claims.
fn drop_claims(claims: &mut Claims) {
    let dedup = Arc::clone(claims.dedup());
    drop(std::mem::replace(claims, Claims::new(dedup, 0)));
}

#[test]
fn what_fails_while_a_request_is_claimed_is_new_to_it_also_when_the_window_moves_on() {
    let dedup = dedup(100, Duration::from_secs(1));
    let (mut first, mut second) =
        (Claims::new(Arc::clone(&dedup), 0), Claims::new(Arc::clone(&dedup), 1));
    store(&mut first, &[0], 0);
    // Two ids, of which the second one's group comes later.
    let mut ids = keys(&dedup, 1..=2);
    ids.sort_by_key(|(key, _)| key.group());
    assert_ne!(ids[0].0.group(), ids[1].0.group());
    assert_eq!(first.claim(&mut [ids[1]], |_, _| ()), Claim::Decided { duplicates: 0 });
    let mut seen = 0;
    let claim = second.claim(&mut ids, |_, is_new| {
        assert!(is_new);
        seen += 1;
        if seen == 1 {
            // Between the two groups.
            dedup.expire(10_000_000);
            first.forget();
        }
    });
    assert_eq!((claim, seen), (Claim::Decided { duplicates: 0 }, 2));
}

#[test]
fn decisions_that_nobody_waits_for_are_not_told() {
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let limits = Limits { ids: NonZeroUsize::new(100).unwrap(), window: DAY };
    // Relaxed: one thread.
    let tell = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let dedup = Arc::new(Dedup::new(&limits, [7; 16], tell));
    let mut claims = Claims::new(Arc::clone(&dedup), 0);
    store(&mut claims, &[1, 2], 0);
    assert!(claim(&mut claims, &[3]).is_some());
    assert_eq!(claim(&mut Claims::new(dedup, 1), &[3]), None);
    claims.store(&(0..=0));
    // Relaxed: one thread.
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn an_id_is_forgotten_with_its_generation_by_count() {
    let dedup = dedup(800, DAY);
    let mut claims = Claims::new(Arc::clone(&dedup), 0);
    for id in 0..800 {
        store(&mut claims, &[id], i64::from(id));
    }
    assert_eq!(dedup.look(1_000).ids, 800);
    assert_eq!(dedup.look(1_000).age, Duration::from_micros(1_000));
    store(&mut claims, &[800], 800);
    assert_eq!(dedup.look(1_000), Look { ids: 701, age: Duration::from_micros(900) });
    assert_eq!(store(&mut claims, &[99, 100, 800], 801), [true, false, false]);
}

#[test]
fn an_id_is_forgotten_with_its_generation_by_time() {
    let dedup = dedup(1_000, Duration::from_micros(800));
    let mut claims = Claims::new(Arc::clone(&dedup), 0);
    store(&mut claims, &[1], 0);
    store(&mut claims, &[2], 99);
    store(&mut claims, &[3], 100);
    assert_eq!(store(&mut claims, &[1, 2, 3], 898), [false, false, false]);
    assert_eq!(store(&mut claims, &[1, 2, 3], 899), [true, true, false]);
    // The id that has just come again is as old as its second coming.
    assert_eq!(store(&mut claims, &[1, 3], 1_000), [false, true]);
}

#[test]
fn remembered_ids_are_known_and_their_age_is_told() {
    let dedup = dedup(1_000, DAY);
    let mut known: Vec<Key> = keys(&dedup, 0..10).into_iter().map(|(key, _)| key).collect();
    dedup.lack(5);
    dedup.remember(&mut known, &(0..=9));
    dedup.remember(&mut known, &(0..=9));
    assert_eq!(dedup.look(1_005).age, Duration::from_micros(1_000));
    let mut claims = Claims::new(dedup, 0);
    assert_eq!(claim(&mut claims, &[9, 10]).unwrap(), [false, true]);
}

#[test]
fn generations_may_wrap_around_what_a_slot_can_tell_apart() {
    let dedup = dedup(8, DAY);
    let mut claims = Claims::new(Arc::clone(&dedup), 0);
    store(&mut claims, &[1], 0);
    // An id that nobody claims again stays in its slot until its part is swept.
    for id in 2..5 * PLACES {
        assert_eq!(store(&mut claims, &[id], 0), [true]);
        assert_eq!(store(&mut claims, &[id], 0), [false]);
    }
    assert_eq!(store(&mut claims, &[1], 0), [true]);
}

#[test]
fn a_full_window_of_ids_takes_under_40_bytes_each() {
    let ids = if cfg!(miri) { 10_000 } else { 400_000_u32 };
    let dedup = dedup(ids as usize, DAY);
    let mut claims = Claims::new(Arc::clone(&dedup), 0);
    let mut worst = 0;
    // Into its third window, past every growth and sweep.
    for start in (0..3 * ids).step_by(1_000) {
        let batch: Vec<u32> = (start..start + 1_000).collect();
        store(&mut claims, &batch, 0);
        let known = dedup.look(0).ids;
        if known > ids as usize / 2 {
            worst = worst.max(dedup.memory_bytes() / known);
        }
    }
    assert!(worst < 40, "{worst} bytes an id");
}

/// Threads race for the same ids, each through several requests, with failures.
#[test]
fn of_all_threads_exactly_one_stores_an_id() {
    let (threads, rounds, ids) = if cfg!(miri) { (3, 3, 40) } else { (4, 200, 500_u32) };
    let dedup = dedup(1_000_000, DAY);
    let stored: Arc<Vec<AtomicUsize>> = Arc::new((0..rounds * ids).map(|_| 0.into()).collect());
    let workers: Vec<_> = (0..threads)
        .map(|owner| {
            let (dedup, stored) = (Arc::clone(&dedup), Arc::clone(&stored));
            thread::spawn(move || race(&dedup, &stored, owner, rounds, ids))
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    // Relaxed: the threads have ended.
    assert!(stored.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert_eq!(dedup.look(0).ids, stored.len());
}

/// Each round all owners send the ids of the round, each in an order of its own; some batches are
/// lost and sent again.
fn race(dedup: &Arc<Dedup>, stored: &[AtomicUsize], owner: u32, rounds: u32, ids: u32) {
    let mut claims = Claims::new(Arc::clone(dedup), owner);
    for round in 0..rounds {
        let mut request: Vec<u32> = (round * ids..(round + 1) * ids).collect();
        match owner % 3 {
            0 => {}
            1 => request.reverse(),
            _ => request.rotate_left(ids as usize / 2),
        }
        let mut order = keys(dedup, request.iter().copied());
        let mut lost = (owner + round) % 2;
        loop {
            let seen = dedup.decisions();
            let mut new = vec![false; request.len()];
            match claims.claim(&mut order, |index, is_new| new[index] = is_new) {
                Claim::Undecided => {
                    dedup.wait_for_decision(seen, Duration::from_secs(60));
                    assert_ne!(dedup.decisions(), seen, "no decision is missed");
                }
                Claim::Decided { .. } if lost > 0 => {
                    lost -= 1;
                    claims.forget();
                }
                Claim::Decided { .. } => {
                    for (index, _) in new.iter().enumerate().filter(|(_, new)| **new) {
                        // Relaxed: a count.
                        stored[request[index] as usize].fetch_add(1, Ordering::Relaxed);
                    }
                    claims.store(&(0..=0));
                    break;
                }
            }
        }
    }
}

/// A step of the model.
#[derive(Debug, Clone)]
enum Step {
    /// A request of a shard.
    Claim { shard: usize, ids: Vec<u32> },
    /// A shard's batch is durable.
    Store { shard: usize },
    /// A shard's batch is lost.
    Forget { shard: usize },
    /// Time goes on.
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let shard = 0_usize..3;
    let step = prop_oneof![
        6 => (shard.clone(), prop::collection::vec(0_u32..40, 1..6))
            .prop_map(|(shard, ids)| Step::Claim { shard, ids }),
        3 => shard.clone().prop_map(|shard| Step::Store { shard }),
        1 => shard.prop_map(|shard| Step::Forget { shard }),
        2 => (1_i64..60).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..300)
}

/// What the table should say, from maps and a list.
#[derive(Default)]
struct Model {
    /// Pending ids and their shards.
    pending: HashMap<u32, usize>,
    /// Stored ids and the number of their generation.
    stored: HashMap<u32, usize>,
    /// Ids, first and last time of each generation, forgotten ones included.
    generations: Vec<(usize, i64, i64)>,
    /// The oldest generation that is remembered.
    oldest: usize,
}

const MODEL_IDS: usize = 24;
const MODEL_WINDOW: i64 = 160;

impl Model {
    fn claim(&mut self, shard: usize, ids: &[u32]) -> Option<Vec<bool>> {
        if ids.iter().any(|id| self.pending.get(id).is_some_and(|owner| *owner != shard)) {
            return None;
        }
        let is_new = |id: &u32| {
            let known = self.stored.get(id).is_some_and(|number| *number >= self.oldest);
            !known && self.pending.insert(*id, shard).is_none()
        };
        Some(ids.iter().map(is_new).collect())
    }

    fn take(&mut self, shard: usize) -> Vec<u32> {
        let taken: Vec<u32> =
            self.pending.iter().filter(|(_, owner)| **owner == shard).map(|(id, _)| *id).collect();
        self.pending.retain(|_, owner| *owner != shard);
        taken
    }

    fn store(&mut self, shard: usize, now: i64) {
        let ids = self.take(shard);
        if ids.is_empty() {
            return;
        }
        self.expire(now);
        let full = |&(count, from, _): &(usize, i64, i64)| {
            count >= MODEL_IDS / 8 || now - from >= MODEL_WINDOW / 8
        };
        if self.oldest == self.generations.len() || self.generations.last().is_none_or(full) {
            self.generations.push((0, now, now));
        }
        let remembered = |model: &Self| -> usize {
            model.generations[model.oldest..].iter().map(|(count, ..)| count).sum()
        };
        while remembered(self) + ids.len() > MODEL_IDS && self.oldest + 1 < self.generations.len() {
            self.oldest += 1;
        }
        let number = self.generations.len() - 1;
        let current = self.generations.last_mut().unwrap();
        *current = (current.0 + ids.len(), current.1, now);
        self.stored.extend(ids.into_iter().map(|id| (id, number)));
    }

    fn expire(&mut self, now: i64) {
        while self.generations.get(self.oldest).is_some_and(|(.., to)| now - to >= MODEL_WINDOW) {
            self.oldest += 1;
        }
    }

    fn ids(&self) -> usize {
        self.generations[self.oldest..].iter().map(|(count, ..)| count).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]

    #[test]
    fn the_table_says_what_a_simple_model_says(steps in steps()) {
        let window = Duration::from_micros(MODEL_WINDOW.unsigned_abs());
        let dedup = dedup(MODEL_IDS, window);
        let mut model = Model::default();
        let mut shards: Vec<Claims> =
            (0..3).map(|shard| Claims::new(Arc::clone(&dedup), shard)).collect();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Claim { shard, ids } => {
                    dedup.expire(now);
                    model.expire(now);
                    prop_assert_eq!(claim(&mut shards[shard], &ids), model.claim(shard, &ids));
                }
                Step::Store { shard } => {
                    shards[shard].store(&(now..=now));
                    model.store(shard, now);
                    prop_assert_eq!(dedup.look(now).ids, model.ids());
                }
                Step::Forget { shard } => {
                    shards[shard].forget();
                    model.take(shard);
                }
                Step::Pass(micros) => now += micros,
            }
        }
    }
}
