//! A second reader of the table, which knows nothing of the server: the Delta log's commits read as
//! JSON, the Parquet files read by DuckDB.
//!
//! **Limits.** It reads every commit from version 0, without checkpoints: the server keeps log
//! files for a day, an episode takes a minute. A gap is an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use duckdb::Connection;
use serde_json::Value;

use super::event::EventId;
use super::oracle::Found;

/// The files that the commits speak of, relative to the table.
#[derive(Debug, Default)]
pub struct Table {
    root: PathBuf,
    /// Those of the newest version.
    live: BTreeSet<String>,
    /// All that ever were.
    named: BTreeSet<String>,
    /// Commits that took files out.
    pub compactions: u64,
}

impl Table {
    /// Reads the log of the table of a data directory.
    pub fn read(data: &Path) -> Result<Table> {
        let root = data.join("events");
        let mut table = Table { root: root.clone(), ..Table::default() };
        let log = root.join("_delta_log");
        let mut commits: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(&log).with_context(|| format!("no log in {}", log.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") && is_commit(&path) {
                commits.push(path);
            }
        }
        commits.sort();
        for (version, path) in commits.iter().enumerate() {
            let name = format!("{version:020}.json");
            ensure!(path.ends_with(&name), "{} is there, {name} is not", path.display());
            let mut removes = false;
            for line in fs::read_to_string(path)?.lines() {
                let action = serde_json::from_str(line);
                let action = action.with_context(|| format!("in {}", path.display()))?;
                removes |= table.apply(&action)?;
            }
            table.compactions += u64::from(removes);
        }
        Ok(table)
    }

    /// True when the action takes a file out.
    fn apply(&mut self, action: &Value) -> Result<bool> {
        let path = |action: &Value| -> Result<Option<String>> {
            let Some(path) = action["path"].as_str() else { return Ok(None) };
            ensure!(!path.contains('%'), "{path} is encoded, which is not expected of our names");
            Ok(Some(path.to_owned()))
        };
        if let Some(path) = path(&action["add"])? {
            ensure!(self.live.insert(path.clone()), "{path} is added twice");
            self.named.insert(path);
        }
        let removed = path(&action["remove"])?;
        if let Some(path) = &removed {
            ensure!(self.live.remove(path), "{path} is removed and was not there");
        }
        Ok(removed.is_some())
    }

    /// Data files that no commit names: what a roll or a compaction leaves that did not come to its
    /// commit.
    pub fn orphans(&self) -> Result<usize> {
        let mut orphans = 0;
        for partition in fs::read_dir(&self.root)? {
            let partition = partition?;
            let date = partition.file_name();
            if !date.to_string_lossy().starts_with("date=") {
                continue;
            }
            for file in fs::read_dir(partition.path())? {
                let name = file?.file_name();
                let path = format!("{}/{}", date.to_string_lossy(), name.to_string_lossy());
                orphans += usize::from(!self.named.contains(&path));
            }
        }
        Ok(orphans)
    }

    /// The live files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.live.iter().map(|path| self.root.join(path)).collect()
    }

    /// The ids of all events in the live files.
    pub fn ids(&self) -> Result<Found> {
        if self.live.is_empty() {
            return Ok(Found::default());
        }
        let quoted =
            |file: &PathBuf| format!("'{}'", file.display().to_string().replace('\'', "''"));
        let files: Vec<String> = self.files().iter().map(quoted).collect();
        let sql = format!(
            "SELECT json_extract_string(properties, '$.id') FROM read_parquet([{}])",
            files.join(", "),
        );
        let connection = Connection::open_in_memory()?;
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut ids: Vec<EventId> = Vec::new();
        while let Some(row) = rows.next()? {
            ids.push(row.get::<_, String>(0)?.parse()?);
        }
        Ok(ids.into_iter().collect())
    }
}

fn is_commit(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn table(commits: &[&str]) -> (tempfile::TempDir, Result<Table>) {
        let data = tempfile::tempdir().unwrap();
        let log = data.path().join("events/_delta_log");
        fs::create_dir_all(&log).unwrap();
        for (version, commit) in commits.iter().enumerate() {
            fs::write(log.join(format!("{version:020}.json")), commit).unwrap();
        }
        let table = Table::read(data.path());
        (data, table)
    }

    #[test]
    fn a_removed_file_is_neither_live_nor_an_orphan() {
        let (data, table) = table(&[
            r#"{"protocol":{}}"#,
            "{\"add\":{\"path\":\"date=2026-01-01/a.parquet\"}}\n\
             {\"add\":{\"path\":\"date=2026-01-01/b.parquet\"}}",
            "{\"remove\":{\"path\":\"date=2026-01-01/a.parquet\"}}\n\
             {\"add\":{\"path\":\"date=2026-01-01/c.parquet\"}}",
        ]);
        let table = table.unwrap();
        let live: Vec<&str> = table.live.iter().map(String::as_str).collect();
        assert_eq!(live, ["date=2026-01-01/b.parquet", "date=2026-01-01/c.parquet"]);
        let partition = data.path().join("events/date=2026-01-01");
        fs::create_dir(&partition).unwrap();
        for name in ["a.parquet", "b.parquet", "c.parquet", "d.parquet"] {
            fs::write(partition.join(name), "").unwrap();
        }
        assert_eq!((table.orphans().unwrap(), table.compactions), (1, 1));
    }

    #[test]
    fn a_file_that_is_added_twice_is_an_error() {
        let add = r#"{"add":{"path":"date=2026-01-01/a.parquet"}}"#;
        assert!(table(&[add, add]).1.is_err());
    }

    #[test]
    fn a_missing_commit_is_an_error() {
        let (data, _) = table(&["{}", "{}", "{}"]);
        fs::remove_file(data.path().join("events/_delta_log/00000000000000000001.json")).unwrap();
        assert!(Table::read(data.path()).is_err());
    }
}
