//! What is known about a key: its scope, its tenant, and how its secret is recognised.

use std::fmt;
use std::sync::OnceLock;

use ringlake_event::{DEFAULT_TENANT, TENANT_MAX_BYTES};
use serde::{Deserialize, Serialize};

use crate::cache::Digest;
use crate::file::Error;
use crate::limits::Usages;
use crate::set::is_origin;

/// Longest alias in bytes: domain names have 253 at most.
pub const ALIAS_MAX_BYTES: usize = 255;
/// Most aliases and most origins that a key may have: requests compare with each of them.
pub const LIST_MAX: usize = 32;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send events of its tenant. May be public: it sits in web pages.
    Write,
    /// Read the events of its tenant. Secret.
    Read,
    /// Everything, for every tenant. Secret.
    Admin,
}

impl Scope {
    /// Its name in files, answers and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    /// How the ids of such keys begin.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Write => 'w',
            Self::Read => 'r',
            Self::Admin => 'a',
        }
    }
}

/// A key that somebody wants to have.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// What it is for.
    pub scope: Scope,
    /// Whose events; [`DEFAULT_TENANT`] when absent. Never for an admin key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Other names under which SDKs may send with it: domains, website ids. Write keys only.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Origins of the pages that may send with it; none means those of the server's configuration.
    /// Write keys only.
    #[serde(default)]
    pub origins: Vec<String>,
}

impl Wanted {
    /// Checks what can be checked without the other keys.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::Invalid(message));
        let scope = self.scope.name();
        match (&self.tenant, self.scope) {
            (Some(_), Scope::Admin) => {
                return invalid("an admin key is for all tenants; it has none of its own".into());
            }
            (Some(tenant), _) => check_text("tenant", tenant, TENANT_MAX_BYTES)?,
            (None, _) => {}
        }
        let lists = [("aliases", &self.aliases), ("origins", &self.origins)];
        for (name, list) in lists {
            if self.scope != Scope::Write && !list.is_empty() {
                return invalid(format!("{name} are for write keys; this one has scope {scope}"));
            }
            if list.len() > LIST_MAX {
                return invalid(format!("{} {name}; at most {LIST_MAX} are allowed", list.len()));
            }
        }
        for alias in &self.aliases {
            check_text("alias", alias, ALIAS_MAX_BYTES)?;
        }
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => invalid(format!("origin `{origin}` does not look like https://host")),
            None => Ok(()),
        }
    }

    /// The tenant that the key belongs to; empty for an admin key.
    pub(crate) fn into_record(self, id: &str, hash: String, now: String) -> Record {
        let tenant = match self.scope {
            Scope::Admin => String::new(),
            _ => self.tenant.unwrap_or_else(|| DEFAULT_TENANT.into()),
        };
        Record {
            id: id.into(),
            scope: self.scope,
            tenant,
            aliases: self.aliases,
            origins: self.origins,
            created_at: now,
            rotated_at: None,
            revoked_at: None,
            hash,
            known: OnceLock::new(),
            usages: Usages::default(),
        }
    }
}

fn check_text(name: &str, text: &str, limit: usize) -> Result<(), Error> {
    if text.is_empty() || text.len() > limit {
        let length = text.len();
        return Err(Error::Invalid(format!("{name} has {length} bytes; 1 to {limit} are allowed")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("{name} contains a control character")));
    }
    Ok(())
}

/// A key as it is stored. Its `Debug` text and its JSON for clients leave the hash out.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The public part of the key.
    pub id: String,
    /// What it is for.
    pub scope: Scope,
    /// Whose events; empty for an admin key.
    #[serde(default)]
    pub tenant: String,
    /// Other names of a write key.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Origins of the pages that may use a write key; none means the server's own list.
    #[serde(default)]
    pub origins: Vec<String>,
    /// When it was made, RFC 3339 in UTC.
    pub created_at: String,
    /// When it last got a new secret.
    #[serde(default)]
    pub rotated_at: Option<String>,
    /// Since when it is refused.
    #[serde(default)]
    pub revoked_at: Option<String>,
    /// The secret as Argon2id, in PHC form.
    pub(crate) hash: String,
    /// The digest of the key, once it has been verified: from then on every other secret for this
    /// id is known to be wrong without hashing it. Written once, by the first thread that finds it good.
    #[serde(skip)]
    pub(crate) known: OnceLock<Digest>,
    /// What the key and its tenant have used of their quotas. The tenant's is shared by its keys.
    #[serde(skip)]
    pub(crate) usages: Usages,
}

impl Record {
    /// Whether the key is still good.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.revoked_at.is_none()
    }

    /// Whether the key belongs to one tenant: every key but an admin's does.
    #[must_use]
    pub fn is_of_tenant(&self) -> bool {
        self.scope != Scope::Admin
    }

    /// Whether the page behind `origin` may use the key; `None` when the key does not say.
    #[must_use]
    pub fn allows_origin(&self, origin: &[u8]) -> Option<bool> {
        let same = |one: &String| one == "*" || origin.eq_ignore_ascii_case(one.as_bytes());
        (!self.origins.is_empty()).then(|| self.origins.iter().any(same))
    }

    /// Whether both stand for the same key with the same secret and rights.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.scope == other.scope
            && self.tenant == other.tenant
            && self.aliases == other.aliases
            && self.origins == other.origins
            && self.revoked_at == other.revoked_at
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Record");
        debug.field("id", &self.id).field("scope", &self.scope).field("tenant", &self.tenant);
        debug.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn wanted(scope: Scope) -> Wanted {
        Wanted { scope, tenant: None, aliases: Vec::new(), origins: Vec::new() }
    }

    #[test]
    fn rights_that_make_no_sense_are_refused_with_the_reason() {
        let tenant = Some("acme".to_owned());
        let admin = Wanted { tenant, ..wanted(Scope::Admin) };
        assert!(admin.validate().unwrap_err().to_string().contains("all tenants"));
        let read = Wanted { aliases: vec!["a.example".into()], ..wanted(Scope::Read) };
        assert!(read.validate().unwrap_err().to_string().contains("aliases"));
        let write = Wanted { origins: vec!["a.example".into()], ..wanted(Scope::Write) };
        assert!(write.validate().unwrap_err().to_string().contains("`a.example`"));
        for tenant in ["", "a\nb", "\0", &"x".repeat(TENANT_MAX_BYTES + 1)] {
            let write = Wanted { tenant: Some(tenant.to_owned()), ..wanted(Scope::Write) };
            assert!(write.validate().unwrap_err().to_string().contains("tenant"), "{tenant:?}");
        }
        let many = vec!["a".to_owned(); LIST_MAX + 1];
        assert!(Wanted { aliases: many, ..wanted(Scope::Write) }.validate().is_err());
    }

    #[test]
    fn origins_are_compared_without_case_and_a_star_is_any() {
        let mut write = wanted(Scope::Write);
        write.origins = vec!["https://Shop.example".into()];
        assert!(write.validate().is_ok());
        let mut record = write.into_record("w", String::new(), String::new());
        assert_eq!(record.allows_origin(b"https://shop.example"), Some(true));
        assert_eq!(record.allows_origin(b"https://shop.example.evil"), Some(false));
        record.origins = vec!["*".into()];
        assert_eq!(record.allows_origin(b"null"), Some(true));
        record.origins.clear();
        assert_eq!(record.allows_origin(b"https://shop.example"), None);
    }

    #[test]
    fn a_debug_text_holds_no_hash() {
        let record = wanted(Scope::Write).into_record("w1", "$argon2id$secret".into(), "t".into());
        assert!(!format!("{record:?}").contains("argon2"));
    }
}
