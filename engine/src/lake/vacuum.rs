//! Removal of files that nobody needs: those that no version of the table names, or that were
//! replaced long enough ago.
//!
//! **Guarantees.** A live file is never removed, nor one that was replaced within the retention.
//! Files of other nodes, and of other writers, are left alone for [`FOREIGN_AGE`] whatever the log
//! says: their commit may still be under way. What is no Parquet file in a partition's directory is
//! never touched.
//!
//! **Roles.** The directory must be listed before the live files are read, and no roll or
//! compaction of this node that was under way while it was listed may still be: see [`vacuum`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectMeta;

use super::delta::{Table, millis};
use super::error::Result;
use super::location::{Location, is_data_file_of};
use crate::clock::now_ms;
use crate::schema::PARTITION;

/// How old a file of another writer must be before it counts as forgotten. Seven days, as other
/// Delta implementations have it.
pub const FOREIGN_AGE: Duration = Duration::from_hours(7 * 24);

/// What a vacuum has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Files removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is known about the table's files.
pub(super) struct Known<'a> {
    /// Who asks.
    pub(super) node: &'a str,
    /// Files of the table's newest version.
    pub(super) live: HashSet<Arc<str>>,
    /// Files taken out of the table, and when, in milliseconds since 1970.
    pub(super) tombstones: HashMap<Arc<str>, i64>,
    /// How long replaced files stay.
    pub(super) retention: Duration,
    pub(super) now_ms: i64,
}

impl Known<'_> {
    /// Whether `file` may be removed.
    pub(super) fn is_removable(&self, file: &ObjectMeta) -> bool {
        let path = file.location.as_ref();
        if self.live.contains(path) || !is_in_partition(path) {
            return false;
        }
        let old = |since_ms: i64, age: Duration| {
            self.now_ms.checked_sub(since_ms).is_some_and(|passed| passed >= millis(age))
        };
        let replaced = self.tombstones.get(path).copied();
        if is_data_file_of(&file.location, self.node) {
            return replaced.is_none_or(|since| old(since, self.retention));
        }
        let age = FOREIGN_AGE.max(self.retention);
        let written = file.last_modified.timestamp_millis();
        old(written, FOREIGN_AGE) && replaced.is_none_or(|since| old(since, age))
    }
}

/// Whether `path`, relative to the table, is a Parquet file in a partition's directory. Delta keeps
/// names that begin with `_` or `.` for other purposes.
fn is_in_partition(path: &str) -> bool {
    let Some((directory, name)) = path.rsplit_once('/') else { return false };
    let partition = directory.strip_prefix(PARTITION).is_some_and(|rest| rest.starts_with('='));
    partition && name.ends_with(".parquet") && !name.starts_with(['_', '.'])
}

/// Removes what nobody needs of the files `listed`.
///
/// `listed` is what [`Location::list_all`] said before the caller made sure that no roll and no
/// compaction of this node was under way; so a file that it names is in the table by now or never
/// will be. `in_use` are replaced files that readers of this process may still open.
///
/// # Errors
///
/// [`super::LakeError`] when the table cannot be read or a file not removed; what is left is removed
/// the next time.
pub fn vacuum(
    location: &Location,
    node: &str,
    listed: &[ObjectMeta],
    in_use: &[Arc<str>],
    retention: Duration,
) -> Result<Vacuumed> {
    let table = Table::open(location, node)?;
    let live = table.live_files()?;
    let live = live.iter().map(|file| Arc::clone(&file.path)).chain(in_use.iter().cloned());
    let known = Known {
        node,
        live: live.collect(),
        tombstones: table.tombstones()?,
        retention,
        now_ms: now_ms(),
    };
    let mut vacuumed = Vacuumed::default();
    for file in listed.iter().filter(|file| known.is_removable(file)) {
        location.remove(&file.location)?;
        vacuumed.files += 1;
        vacuumed.bytes += file.size;
    }
    Ok(vacuumed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs::{self, FileTimes};
    use std::time::SystemTime;

    use super::*;
    use crate::lake::delta::ShardSequence;
    use crate::lake::testing::{DAY, NODE, made_up, scratch};

    const HOUR: Duration = Duration::from_hours(1);

    /// A file of the table's directory, written `age` ago.
    fn put(location: &Location, path: &str, age: Duration) {
        let local = location.root().join(path);
        fs::create_dir_all(local.parent().unwrap()).unwrap();
        fs::write(&local, "rows").unwrap();
        let file = fs::File::options().write(true).open(&local).unwrap();
        file.set_times(FileTimes::new().set_modified(SystemTime::now() - age)).unwrap();
    }

    fn left(location: &Location) -> Vec<String> {
        let mut left: Vec<String> = location
            .list_all()
            .unwrap()
            .into_iter()
            .map(|file| file.location.to_string())
            .filter(|path| !path.starts_with("_delta_log"))
            .collect();
        left.sort();
        left
    }

    fn vacuumed(location: &Location, in_use: &[Arc<str>], retention: Duration) -> u64 {
        let listed = location.list_all().unwrap();
        let vacuumed = vacuum(location, NODE, &listed, in_use, retention).unwrap();
        assert_eq!(vacuumed.bytes, vacuumed.files * 4);
        vacuumed.files
    }

    #[test]
    fn orphans_go_at_once_and_foreign_files_after_a_week() {
        let (_data, location) = scratch();
        drop(Table::open_or_create(&location, NODE).unwrap());
        let name = |node| made_up(&location, node, 1).path.to_string();
        let (young, old) = (name("node-b"), name("node-b"));
        put(&location, &name(NODE), Duration::ZERO);
        put(&location, &young, FOREIGN_AGE - HOUR);
        put(&location, &old, FOREIGN_AGE + HOUR);
        put(&location, &format!("date={DAY}/part-0.zstd.parquet"), FOREIGN_AGE + HOUR);
        let kept = [
            young,
            format!("date={DAY}/.part-0.parquet.crc"),
            format!("date={DAY}/_tmp.parquet"),
            format!("date={DAY}/notes.txt"),
            "other.parquet".to_owned(),
            "sub/other.parquet".to_owned(),
        ];
        for path in &kept[1..] {
            put(&location, path, FOREIGN_AGE * 2);
        }
        assert_eq!(vacuumed(&location, &[], FOREIGN_AGE), 3);
        let mut kept = kept.to_vec();
        kept.sort();
        assert_eq!(left(&location), kept);
    }

    #[test]
    fn live_and_replaced_files_stay_as_long_as_they_are_needed() {
        let (_data, location) = scratch();
        let mut table = Table::open_or_create(&location, NODE).unwrap();
        let (old, new) = (made_up(&location, NODE, 1), made_up(&location, NODE, 1));
        // A name that a URL has to escape, as another writer may choose it.
        let mut foreign = made_up(&location, "node-b", 1);
        foreign.path =
            object_store::path::Path::parse(format!("date={DAY}/a b+c.parquet")).unwrap();
        let step = |last| [ShardSequence { shard: 0, previous: last - 1, last }];
        let _ = table.commit(std::slice::from_ref(&old), &step(1)).unwrap();
        let removed = table.live_files().unwrap();
        let _ = table.commit(std::slice::from_ref(&foreign), &step(2)).unwrap();
        let _ = table.replace(&removed, std::slice::from_ref(&new)).unwrap();
        for file in [&old, &new, &foreign] {
            put(&location, file.path.as_ref(), FOREIGN_AGE * 2);
        }
        assert_eq!(vacuumed(&location, &[], HOUR), 0);
        let in_use = [Arc::<str>::from(old.path.as_ref())];
        assert_eq!(vacuumed(&location, &in_use, Duration::ZERO), 0);
        assert_eq!(vacuumed(&location, &[], Duration::ZERO), 1);
        let mut kept = [new.path.to_string(), foreign.path.to_string()];
        kept.sort();
        assert_eq!(left(&location), kept);
    }

    /// Another node's file is left for a week after its removal, however old it is itself.
    #[test]
    fn what_another_node_has_replaced_is_left_for_a_week() {
        let (_data, location) = scratch();
        let mut table = Table::open_or_create(&location, "node-b").unwrap();
        let (old, new) = (made_up(&location, "node-b", 1), made_up(&location, "node-b", 1));
        let step = [ShardSequence { shard: 0, previous: 0, last: 1 }];
        let _ = table.commit(std::slice::from_ref(&old), &step).unwrap();
        let removed = table.live_files().unwrap();
        let _ = table.replace(&removed, std::slice::from_ref(&new)).unwrap();
        put(&location, old.path.as_ref(), FOREIGN_AGE * 2);
        put(&location, new.path.as_ref(), Duration::ZERO);
        assert_eq!(vacuumed(&location, &[], Duration::ZERO), 0);
    }
}
