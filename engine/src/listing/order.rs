//! The order of a listing: the key of a row, places between rows, and the nearest rows so far.
//!
//! A listing goes through the events by `received_at`, then node, shard and sequence, in one
//! direction. That key is unique and never changes, so a place named by it stays where it is while
//! rows move from hot tables to files and from file to file.

use std::cmp::Ordering;
use std::sync::Arc;

/// The direction of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    #[default]
    Descending,
}

impl Order {
    /// How two values follow each other in this direction.
    pub(crate) fn compare<T: Ord + ?Sized>(self, one: &T, other: &T) -> Ordering {
        match self {
            Self::Ascending => one.cmp(other),
            Self::Descending => other.cmp(one),
        }
    }

    /// The end of a range that the listing comes to first.
    pub(crate) fn near(self, (first, last): (i64, i64)) -> i64 {
        match self {
            Self::Ascending => first,
            Self::Descending => last,
        }
    }
}

/// What a row is listed by. The order of the fields is the order of rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Microseconds since 1970.
    pub received_at: i64,
    pub node: Arc<str>,
    pub shard: i32,
    pub sequence: i64,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Position {
    /// Behind this row.
    After(Key),
    /// At the rows of this `received_at`, all of them.
    At(i64),
}

impl Position {
    pub(crate) fn received_at(&self) -> i64 {
        match self {
            Self::After(key) => key.received_at,
            Self::At(received_at) => *received_at,
        }
    }
}

/// The values of `received_at` that a page may have, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub first: i64,
    pub last: i64,
}

impl Window {
    /// From `from` on and before `to`, and not before `position` in the direction of `order`.
    pub(crate) fn new(
        from: Option<i64>,
        to: Option<i64>,
        position: Option<&Position>,
        order: Order,
    ) -> Self {
        let mut window = Self {
            first: from.unwrap_or(i64::MIN),
            last: to.map_or(i64::MAX, |to| to.saturating_sub(1)),
        };
        match (position.map(Position::received_at), order) {
            (Some(at), Order::Ascending) => window.first = window.first.max(at),
            (Some(at), Order::Descending) => window.last = window.last.min(at),
            (None, _) => {}
        }
        window
    }

    /// The part of a range that lies inside, if any does.
    pub(crate) fn part_of(self, (first, last): (i64, i64)) -> Option<(i64, i64)> {
        let part = (first.max(self.first), last.min(self.last));
        (part.0 <= part.1).then_some(part)
    }

    pub(crate) fn holds(self, received_at: i64) -> bool {
        (self.first..=self.last).contains(&received_at)
    }

    /// The end at which the listing begins.
    pub(crate) fn start(self, order: Order) -> i64 {
        order.near((self.first, self.last))
    }
}

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A row of a row group of a file, all counted from 0.
    File { file: usize, group: usize, row: usize },
    /// A row of a hot table by DuckDB's number.
    Hot { table: usize, row: i64 },
}

/// The nearest rows so far.
#[derive(Debug)]
pub(crate) struct Nearest {
    order: Order,
    limit: usize,
    /// At most twice the limit.
    rows: Vec<(Key, Place)>,
    /// The farthest of `limit` rows that have been seen: what lies beyond it is not wanted.
    farthest: Option<Key>,
}

impl Nearest {
    /// Keeps the nearest `limit` rows.
    pub(crate) fn new(order: Order, limit: usize) -> Self {
        Self { order, limit: limit.max(1), rows: Vec::new(), farthest: None }
    }

    /// Whether rows of this `received_at` can be among the nearest.
    pub(crate) fn wants(&self, received_at: i64) -> bool {
        self.farthest.as_ref().is_none_or(|farthest| {
            self.order.compare(&received_at, &farthest.received_at) != Ordering::Greater
        })
    }

    pub(crate) fn push(&mut self, key: Key, place: Place) {
        let is_nearer = |farthest: &Key| self.order.compare(&key, farthest) == Ordering::Less;
        if !self.farthest.as_ref().is_none_or(is_nearer) {
            return;
        }
        self.rows.push((key, place));
        if self.rows.len() >= 2 * self.limit {
            self.settle();
        }
    }

    /// Sorts and drops what is too far.
    pub(crate) fn settle(&mut self) {
        let order = self.order;
        self.rows.sort_unstable_by(|one, other| order.compare(&one.0, &other.0));
        self.rows.truncate(self.limit);
        if self.rows.len() == self.limit {
            self.farthest = self.rows.last().map(|(key, _)| key.clone());
        }
    }

    /// The rows, nearest first.
    pub(crate) fn into_rows(mut self) -> Vec<(Key, Place)> {
        self.settle();
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(received_at: i64, sequence: i64) -> Key {
        Key { received_at, node: "n".into(), shard: 0, sequence }
    }

    proptest! {
        #[test]
        fn the_nearest_are_those_of_a_full_sort(
            times in proptest::collection::vec(0_i64..50, 0..300),
            limit in 1_usize..40,
            descending: bool,
        ) {
            let order = if descending { Order::Descending } else { Order::Ascending };
            let mut all: Vec<Key> = times.iter().zip(0..).map(|(at, n)| key(*at, n)).collect();
            let mut nearest = Nearest::new(order, limit);
            for key in &all {
                let wanted = nearest.wants(key.received_at);
                nearest.push(key.clone(), Place::Hot { table: 0, row: key.sequence });
                // What is not wanted would not have been kept.
                prop_assert!(wanted || nearest.rows.iter().all(|(kept, _)| kept != key));
            }
            all.sort_by(|one, other| order.compare(one, other));
            all.truncate(limit);
            let kept: Vec<Key> = nearest.into_rows().into_iter().map(|(key, _)| key).collect();
            prop_assert_eq!(kept, all);
        }
    }

    #[test]
    fn a_window_ends_at_the_position_in_its_direction() {
        let at = Position::At(50);
        let window = |order| Window::new(Some(10), Some(100), Some(&at), order);
        assert_eq!(window(Order::Ascending), Window { first: 50, last: 99 });
        assert_eq!(window(Order::Descending), Window { first: 10, last: 50 });
        assert_eq!(window(Order::Descending).part_of((40, 200)), Some((40, 50)));
        assert_eq!(window(Order::Descending).part_of((51, 200)), None);
    }
}
