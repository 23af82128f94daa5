//! The ids themselves: open addressing in many small parts, in groups with a lock each.
//!
//! **Guarantees.** Of all threads that claim an id which nobody has, exactly one gets it. What
//! happens to an id happens under its group's lock, in one order for all threads.
//!
//! **Layout.** A slot is 128 bits and 0 when empty:
//!
//! ```text
//!   127          118 117 116 115                                    0
//!  ├────────────────┼───────┼────────────────────────────────────────┤
//!  │ place          │ state │ the hash                               │
//!  └────────────────┴───────┴────────────────────────────────────────┘
//!   state  0 empty, 1 pending, 2 pending and awaited, 3 stored
//!   place  the owner while pending; the generation, modulo 1,024, once stored
//! ```
//!
//! The 12 bits of the hash that are not stored have chosen the group and the part in it, so that
//! nothing of it is lost. The next ones choose a cache line of four slots, where the search begins;
//! it goes on until an empty slot.
//!
//! An id is taken out by giving it a generation that has passed: the slot counts as absent, may be
//! taken by another id, and is dropped when the part is rebuilt.
//!
//! **Memory.** A part is rebuilt, without what has passed, when 80 of 100 slots are taken. It keeps
//! its size when 45 to 70 of them then are; else 60 will be. So an id takes 20 to 36 bytes; the empty
//! table takes 100 KiB. Ids fall evenly on all parts, so that these are rebuilt at about the same
//! time: if a full table gave all of them another size, the allocator, which keeps sizes apart, would
//! hold twice its memory meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Key;
use crate::window::Generation;

/// Groups, a power of two: enough that two shards rarely want the same one, few enough that a
/// request of a thousand events has several ids in each.
pub(crate) const GROUPS: usize = 1 << GROUP_BITS;
const GROUP_BITS: u32 = 6;
/// Parts of a group, a power of two. With four million ids a part has a thousand, and rebuilding it
/// takes 10 to 20 µs.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 6;
/// Parts of the table.
pub(crate) const ALL_PARTS: usize = GROUPS * PARTS;

const EMPTY: u128 = 0;
const TAG_SHIFT: u32 = u128::BITS - GROUP_BITS - PART_BITS;
const HASH: u128 = (1 << TAG_SHIFT) - 1;
const STATE: u128 = 0b11 << TAG_SHIFT;
const PENDING: u128 = 1 << TAG_SHIFT;
const AWAITED: u128 = 2 << TAG_SHIFT;
const STORED: u128 = 3 << TAG_SHIFT;
const PLACE_SHIFT: u32 = TAG_SHIFT + 2;

/// Owners and generations that a slot can tell apart.
pub(crate) const PLACES: u32 = 1 << (u128::BITS - PLACE_SHIFT);

/// What claiming an id has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Found {
    /// It was absent; now it is the caller's, pending.
    Absent,
    /// It is stored.
    Stored,
    /// It is pending, and the caller's own.
    Own,
    /// It is pending with another owner, who will tell when it is decided.
    Foreign,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    groups: Box<[Group]>,
}

/// On cache lines of its own, so that neighbours do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
struct Group(Mutex<[Slots; PARTS]>);

impl Key {
    /// The number of its group.
    pub(crate) fn group(self) -> usize {
        self.part() / PARTS
    }

    /// The number of its part among all of the table.
    fn part(self) -> usize {
        usize::try_from(self.0 >> TAG_SHIFT).unwrap_or(0)
    }
}

impl Table {
    pub(crate) fn new() -> Self {
        let group = |_| Group(Mutex::new(std::array::from_fn(|_| Slots::default())));
        Self { groups: (0..GROUPS).map(group).collect() }
    }

    /// Locks the group of `key`.
    pub(crate) fn lock(&self, key: Key) -> Locked<'_> {
        self.lock_group(key.group())
    }

    /// Rebuilds the part number `part` modulo [`ALL_PARTS`] without what has passed.
    pub(crate) fn sweep(&self, part: usize, oldest: Generation) {
        self.lock_group(part / PARTS % GROUPS).0[part % PARTS].rebuild(oldest);
    }

    /// What the table takes up in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let lines = |group: usize| -> usize {
            self.lock_group(group).0.iter().map(|part| part.lines.len()).sum()
        };
        let lines: usize = (0..GROUPS).map(lines).sum();
        lines * size_of::<Line>() + GROUPS * size_of::<Group>()
    }

    /// A panic in a holder leaves sound slots: each step of a change is one assignment.
    fn lock_group(&self, group: usize) -> Locked<'_> {
        Locked(self.groups[group].0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A group, locked. Every key has to be one of this group.
#[derive(Debug)]
pub(crate) struct Locked<'a>(MutexGuard<'a, [Slots; PARTS]>);

impl Locked<'_> {
    /// Reads where the searches for `keys` will begin. The reads do not depend on each other, so
    /// that the processor waits for many lines at a time; the searches would wait one by one.
    pub(crate) fn warm(&self, keys: impl Iterator<Item = Key>) {
        let first_slots = keys.filter_map(|key| {
            let lines = &self.0[key.part() % PARTS].lines;
            lines.get(home(key.0, lines.len())).map(|line| line.0[0])
        });
        std::hint::black_box(first_slots.fold(0, |sum, slot| sum ^ slot));
    }

    /// Claims `key` for `owner`. Ids of generations before `oldest` are absent.
    pub(crate) fn claim(&mut self, key: Key, owner: u32, oldest: Generation) -> Found {
        self.slots(key).claim(key, owner, oldest)
    }

    /// Makes a pending id a stored one of `generation`; true when somebody awaits that.
    pub(crate) fn store(&mut self, key: Key, generation: Generation, oldest: Generation) -> bool {
        self.slots(key).decide(key, generation, oldest)
    }

    /// Takes a pending id out again; true when somebody awaits that.
    pub(crate) fn forget(&mut self, key: Key, oldest: Generation) -> bool {
        self.slots(key).decide(key, oldest.before(), oldest)
    }

    /// Makes an id, known or not, a stored one of `generation`.
    pub(crate) fn remember(&mut self, key: Key, generation: Generation, oldest: Generation) {
        self.slots(key).remember(key, generation, oldest);
    }

    fn slots(&mut self, key: Key) -> &mut Slots {
        &mut self.0[key.part() % PARTS]
    }
}

/// The slots of one part.
#[derive(Debug, Default)]
struct Slots {
    lines: Box<[Line]>,
    /// How many slots are not empty, those that have passed included.
    used: usize,
}

/// A cache line of slots: where the first one misses the cache, the others come with it.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([u128; LINE]);

const LINE: usize = 4;

/// A line, and a slot in it.
type Index = (usize, usize);

/// Where a key is, or would go.
enum At {
    Taken(Index),
    Vacant(Index),
}

impl Slots {
    fn claim(&mut self, key: Key, owner: u32, oldest: Generation) -> Found {
        self.make_room(oldest);
        let found = match self.locate(key, oldest) {
            At::Vacant(index) => {
                self.put(index, slot(key, PENDING, owner));
                return Found::Absent;
            }
            At::Taken(index) => self.slot(index),
        };
        if *found & STATE == STORED {
            if !has_passed(*found, oldest) {
                return Found::Stored;
            }
            *found = slot(key, PENDING, owner);
            return Found::Absent;
        }
        if place(*found) == owner {
            return Found::Own;
        }
        *found = *found & !STATE | AWAITED;
        Found::Foreign
    }

    fn decide(&mut self, key: Key, generation: Generation, oldest: Generation) -> bool {
        let At::Taken(index) = self.locate(key, oldest) else {
            debug_assert!(false, "who decides an id has claimed it");
            return false;
        };
        let found = self.slot(index);
        debug_assert_ne!(*found & STATE, STORED, "an id is decided once");
        let awaited = *found & STATE == AWAITED;
        *found = slot(key, STORED, generation.place());
        awaited
    }

    fn remember(&mut self, key: Key, generation: Generation, oldest: Generation) {
        self.make_room(oldest);
        let (At::Taken(index) | At::Vacant(index)) = self.locate(key, oldest);
        self.put(index, slot(key, STORED, generation.place()));
    }

    fn slot(&mut self, (line, slot): Index) -> &mut u128 {
        &mut self.lines[line].0[slot]
    }

    fn put(&mut self, index: Index, content: u128) {
        self.used += usize::from(*self.slot(index) == EMPTY);
        *self.slot(index) = content;
    }

    /// Leaves at least one slot for a new id and one that ends every search.
    fn make_room(&mut self, oldest: Generation) {
        if (self.used + 1) * 100 > self.lines.len() * LINE * 80 {
            self.rebuild(oldest);
        }
    }

    /// Looks from the key's home on; there is always an empty slot that ends the search.
    fn locate(&self, key: Key, oldest: Generation) -> At {
        let mut vacant = None;
        let mut line = home(key.0, self.lines.len());
        loop {
            for (index, found) in self.lines[line].0.iter().enumerate() {
                if *found == EMPTY {
                    return At::Vacant(vacant.unwrap_or((line, index)));
                }
                if (found ^ key.0) & HASH == 0 {
                    return At::Taken((line, index));
                }
                if vacant.is_none() && has_passed(*found, oldest) {
                    vacant = Some((line, index));
                }
            }
            line += 1;
            if line == self.lines.len() {
                line = 0;
            }
        }
    }

    /// Moves what has not passed into as many slots as it needs.
    fn rebuild(&mut self, oldest: Generation) {
        let stays = |slot: &u128| *slot != EMPTY && !has_passed(*slot, oldest);
        let slots = self.lines.iter().flat_map(|line| &line.0);
        let kept = slots.filter(|slot| stays(slot)).count();
        let empty = vec![Line([EMPTY; LINE]); lines(kept, self.lines.len())].into();
        let old = std::mem::replace(&mut self.lines, empty);
        for slot in old.iter().flat_map(|line| line.0).filter(stays) {
            let mut line = home(slot, self.lines.len());
            loop {
                if let Some(vacant) = self.lines[line].0.iter_mut().find(|other| **other == EMPTY) {
                    *vacant = slot;
                    break;
                }
                line = if line + 1 == self.lines.len() { 0 } else { line + 1 };
            }
        }
        self.used = kept;
    }
}

/// Lines for `kept` ids and some new ones in a part that has `current` lines.
fn lines(kept: usize, current: usize) -> usize {
    let percent = (kept * 100).checked_div(current * LINE);
    match percent {
        Some(45..=70) => current,
        _ => (kept + 1) * 100 / (60 * LINE) + 1,
    }
}

fn slot(key: Key, state: u128, place: u32) -> u128 {
    debug_assert!(place < PLACES);
    key.0 & HASH | u128::from(place) << PLACE_SHIFT | state
}

fn place(slot: u128) -> u32 {
    u32::try_from(slot >> PLACE_SHIFT).unwrap_or(0)
}

/// Whether a slot that is not empty counts as absent.
fn has_passed(slot: u128, oldest: Generation) -> bool {
    slot & STATE == STORED && !oldest.is_at_or_before(place(slot))
}

/// The highest 32 bits that a slot keeps, as a fraction of `lines`.
fn home(hash: u128, lines: usize) -> usize {
    let fraction = (hash & HASH) >> (TAG_SHIFT - 32);
    // Parts have far fewer than 2^32 lines, so that neither step can lose anything.
    usize::try_from((u64::try_from(fraction).unwrap_or(0) * lines as u64) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Generation = Generation::FIRST;

    /// A key of part 0 whose search starts at `home` in 2^32.
    fn key(home: u32, rest: u64) -> Key {
        Key(u128::from(home) << (TAG_SHIFT - 32) | u128::from(rest))
    }

    fn claim(table: &Table, key: Key, owner: u32) -> Found {
        table.lock(key).claim(key, owner, FIRST)
    }

    #[test]
    fn an_id_goes_from_absent_to_pending_to_stored() {
        let table = Table::new();
        let id = key(7, 7);
        assert_eq!(claim(&table, id, 3), Found::Absent);
        assert_eq!(claim(&table, id, 3), Found::Own);
        assert!(!table.lock(id).store(id, FIRST, FIRST), "nobody awaits it");
        assert_eq!(claim(&table, id, 3), Found::Stored);
        assert_eq!(claim(&table, id, 4), Found::Stored);
    }

    #[test]
    fn a_foreign_id_is_awaited_until_it_is_decided() {
        let table = Table::new();
        let id = key(0, 1);
        assert_eq!(claim(&table, id, 0), Found::Absent);
        assert_eq!(claim(&table, id, 1), Found::Foreign);
        assert_eq!(claim(&table, id, 0), Found::Own, "it stays its owner's");
        assert!(table.lock(id).forget(id, FIRST), "its owner learns that somebody waits");
        assert_eq!(claim(&table, id, 1), Found::Absent);
        assert!(!table.lock(id).store(id, FIRST, FIRST), "the waiter is forgotten with the id");
    }

    #[test]
    fn keys_that_differ_in_one_bit_are_different_ids() {
        let table = Table::new();
        for bit in 0..u128::BITS {
            assert_eq!(claim(&table, Key(1 << bit), 0), Found::Absent, "bit {bit}");
        }
        assert_eq!(claim(&table, Key(0), 0), Found::Absent);
    }

    #[test]
    fn owners_and_generations_do_not_touch_the_hash() {
        let table = Table::new();
        let id = Key(u128::MAX);
        assert_eq!(claim(&table, id, PLACES - 1), Found::Absent);
        assert_eq!(claim(&table, id, PLACES - 1), Found::Own);
        let last = Generation::from_number(PLACES - 1);
        let mut locked = table.lock(id);
        assert!(!locked.store(id, last, FIRST));
        assert_eq!(locked.claim(id, 0, last), Found::Stored);
        assert_eq!(locked.claim(id, 0, last.after()), Found::Absent);
    }

    #[test]
    fn a_search_goes_around_the_end_of_a_part() {
        let table = Table::new();
        for rest in 0..1_000 {
            assert_eq!(claim(&table, key(u32::MAX, rest), 0), Found::Absent);
        }
        for rest in 0..1_000 {
            assert_eq!(claim(&table, key(u32::MAX, rest), 0), Found::Own);
        }
    }

    #[test]
    fn a_full_table_keeps_its_size_while_old_ids_go_and_new_ones_come() {
        let table = Table::new();
        let mut sizes = Vec::new();
        let mut generation = FIRST;
        // Eight generations are remembered, each of a hundred ids.
        for number in 0..100 {
            let oldest = Generation::from_number(generation.number().saturating_sub(7).max(1));
            for id in 0..100_u32 {
                let id = key((number * 100 + id).wrapping_mul(0x9E37_79B9), id.into());
                table.lock(id).remember(id, generation, oldest);
            }
            table.sweep(0, oldest);
            sizes.push(table.memory_bytes());
            generation = generation.after();
        }
        assert!(sizes[16..].iter().all(|size| *size == sizes[16]), "{sizes:?}");
        assert!(sizes[16] - Table::new().memory_bytes() <= 800 * 36);
    }

    #[test]
    fn what_has_passed_is_absent_and_makes_room() {
        let table = Table::new();
        let ids: Vec<Key> = (0..1_000).map(|id| key(id << 22, id.into())).collect();
        for id in &ids {
            table.lock(*id).remember(*id, FIRST, FIRST);
        }
        let size = |table: &Table| table.memory_bytes() - Table::new().memory_bytes();
        let full = size(&table);
        let later = FIRST.after();
        assert_eq!(table.lock(ids[0]).claim(ids[0], 0, later), Found::Absent);
        assert_eq!(claim(&table, ids[1], 0), Found::Stored, "not passed yet");
        // New ids take the slots of those that have passed.
        for id in 1_000..1_500 {
            let id = key(id << 22, id.into());
            assert_eq!(table.lock(id).claim(id, 0, later), Found::Absent);
        }
        assert!(size(&table) <= full);
        table.sweep(0, later);
        assert!(size(&table) < full * 3 / 4, "{} of {full}", size(&table));
        assert_eq!(table.lock(ids[0]).claim(ids[0], 0, later), Found::Own, "pending ones stay");
    }
}
