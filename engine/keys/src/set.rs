//! All keys at one moment, found by id and by alias.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::Usage;
use crate::record::Record;

/// The keys of one version of the file.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    /// Live keys.
    by_id: HashMap<String, Arc<Record>>,
    /// Live write keys.
    by_alias: HashMap<String, Arc<Record>>,
    /// What the tenants of live keys have used.
    tenants: HashMap<String, Arc<Usage>>,
    /// Every origin that some live key names.
    origins: Vec<String>,
    /// Whether there is any key, revoked ones included: revoking the last one must not open a
    /// server to everybody.
    any: bool,
}

impl KeySet {
    /// The set of `records`. Those that `before` holds unchanged are taken over as they are, so
    /// that what was verified stays verified; what keys and tenants have used is taken over too.
    pub(crate) fn new(records: Vec<Record>, before: &Self) -> Self {
        let mut set = Self { any: !records.is_empty(), ..Self::default() };
        for mut record in records.into_iter().filter(Record::is_live) {
            let usage = before.tenants.get(&record.tenant).cloned();
            let usage =
                set.tenants.entry(record.tenant.clone()).or_insert(usage.unwrap_or_default());
            record.usages.tenant = Arc::clone(usage);
            let known = before.by_id.get(&record.id);
            if let Some(known) = known {
                record.usages.key = Arc::clone(&known.usages.key);
            }
            let same = known.filter(|known| known.is_same(&record));
            let record = same.map_or_else(|| Arc::new(record), Arc::clone);
            for alias in &record.aliases {
                set.by_alias.insert(alias.clone(), Arc::clone(&record));
            }
            set.origins.extend(record.origins.iter().cloned());
            set.by_id.insert(record.id.clone(), record);
        }
        set.origins.sort();
        set.origins.dedup();
        set
    }

    pub(crate) fn any(&self) -> bool {
        self.any
    }

    pub(crate) fn of_id(&self, id: &str) -> Option<&Arc<Record>> {
        self.by_id.get(id)
    }

    pub(crate) fn of_alias(&self, alias: &str) -> Option<&Arc<Record>> {
        self.by_alias.get(alias)
    }

    /// Whether exactly this record is in the set.
    pub(crate) fn holds(&self, record: &Arc<Record>) -> bool {
        self.of_id(&record.id).is_some_and(|held| Arc::ptr_eq(held, record))
    }

    /// Whether some key may be used by the page behind `origin`.
    pub(crate) fn names_origin(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|one| one == "*" || origin.eq_ignore_ascii_case(one.as_bytes()))
    }
}

/// Whether `text` is `*` or looks like an origin: a scheme and a host, nothing behind it.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let bare = |(scheme, host): (&str, &str)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains('/')
    };
    text == "*" || text.split_once("://").is_some_and(bare)
}
