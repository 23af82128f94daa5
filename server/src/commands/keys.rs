//! `ringlake keys`: who may do what with a server.
//!
//! The file of keys is changed where it lies, whether a server runs or not; a server sees the change
//! within a second. With `--url` the server changes it.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::Method;
use ringlake_keys::{Error, KeyFile, Scope, Wanted, public_part};
use serde::Deserialize;
use serde_json::Value;

use super::{must_exist, runtime};
use crate::cli::{CreateKey, KeyScope, KeysAction, KeysPlace, Place};
use crate::client::{self, Client, Outgoing};
use crate::config::Config;
use crate::{EXIT_FINE, UsageError};

/// The path of all keys.
const PATH: &str = "/v1/admin/keys";
/// Longest answer: as many keys as there can be, with aliases and origins of usual length.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A key as a list shows it.
#[derive(Debug, Deserialize)]
struct Described {
    id: String,
    scope: Scope,
    tenant: Option<String>,
    aliases: Vec<String>,
    origins: Vec<String>,
    created_at: String,
    rotated_at: Option<String>,
    revoked_at: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// What the file or the server says; a [`UsageError`] for a key that makes no sense.
pub fn run(action: &KeysAction) -> Result<u8> {
    let mut out = io::stdout().lock();
    match action {
        KeysAction::Create(arguments) => {
            let (id, key) = create(arguments)?;
            writeln!(out, "made the key {id}; it is shown this once:\n{key}")?;
        }
        KeysAction::Rotate(arguments) => {
            let key = rotate(&arguments.place, &arguments.id)?;
            let id = &arguments.id;
            writeln!(out, "the key {id} has a new secret; it is shown this once:\n{key}")?;
        }
        KeysAction::Revoke(arguments) => {
            revoke(&arguments.place, &arguments.id)?;
            writeln!(out, "the key {} is refused from now on", arguments.id)?;
        }
        KeysAction::List(place) => print(&list(place)?, &mut out)?,
    }
    Ok(EXIT_FINE)
}

/// Makes a key; gives its id and itself.
fn create(arguments: &CreateKey) -> Result<(String, String)> {
    let wanted = Wanted {
        scope: match arguments.scope {
            KeyScope::Write => Scope::Write,
            KeyScope::Read => Scope::Read,
            KeyScope::Admin => Scope::Admin,
        },
        tenant: arguments.tenant.clone(),
        aliases: arguments.aliases.clone(),
        origins: arguments.origins.clone(),
    };
    if let Some(url) = &arguments.place.url {
        let body = serde_json::to_vec(&wanted)?;
        let answer = ask(url, &arguments.place, Method::POST, PATH, Some(body.into()))?;
        return Ok((text(&answer, "id")?, text(&answer, "key")?));
    }
    let config = config_of(&arguments.place)?;
    let data = &config.engine.data;
    // The first key is made before the first start.
    std::fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
    let (key, record) = KeyFile::of(data).create(wanted).map_err(usage)?;
    Ok((record.id, key.reveal().to_owned()))
}

fn rotate(place: &KeysPlace, id: &str) -> Result<String> {
    if let Some(url) = &place.url {
        let path = format!("{PATH}/{}/rotate", in_path(id)?);
        return text(&ask(url, place, Method::POST, &path, None)?, "key");
    }
    let (key, _) = existing(place)?.rotate(id).map_err(usage)?;
    Ok(key.reveal().to_owned())
}

fn revoke(place: &KeysPlace, id: &str) -> Result<()> {
    if let Some(url) = &place.url {
        ask(url, place, Method::DELETE, &format!("{PATH}/{}", in_path(id)?), None)?;
        return Ok(());
    }
    existing(place)?.revoke(id).map_err(usage)?;
    Ok(())
}

fn list(place: &KeysPlace) -> Result<Vec<Described>> {
    if let Some(url) = &place.url {
        let mut answer = ask(url, place, Method::GET, PATH, None)?;
        return serde_json::from_value(answer["keys"].take()).context("the answer is no list");
    }
    let records = existing(place)?.read()?;
    let described = records.into_iter().map(|record| Described {
        tenant: record.is_of_tenant().then_some(record.tenant),
        id: record.id,
        scope: record.scope,
        aliases: record.aliases,
        origins: record.origins,
        created_at: record.created_at,
        rotated_at: record.rotated_at,
        revoked_at: record.revoked_at,
    });
    Ok(described.collect())
}

fn config_of(place: &KeysPlace) -> Result<Config> {
    let place = Place { data: place.data.clone(), lake: None, config: place.config.clone() };
    Ok(Config::for_command(&place, None)?)
}

fn existing(place: &KeysPlace) -> Result<KeyFile> {
    let config = config_of(place)?;
    must_exist(&config)?;
    Ok(KeyFile::of(&config.engine.data))
}

/// What makes no sense is a mistake of the command line.
fn usage(error: Error) -> anyhow::Error {
    match error {
        Error::Invalid(message) => UsageError(message).into(),
        other => other.into(),
    }
}

/// An id as a part of a path; what is no id would change the path, and may be a whole key.
fn in_path(id: &str) -> Result<&str, UsageError> {
    match id.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !id.is_empty() {
        true => Ok(id),
        false => {
            let shown = public_part(id);
            Err(UsageError(format!("not the id of a key, which is the part behind rl_: {shown}…")))
        }
    }
}

fn ask(
    url: &str,
    place: &KeysPlace,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Value> {
    let outgoing = Outgoing {
        method: Some(method),
        path: path.into(),
        content_type: body.is_some().then_some("application/json"),
        body: body.unwrap_or_default(),
        ..Outgoing::default()
    };
    runtime()?.block_on(async {
        let response = Client::new(url, &place.key)?.send(&outgoing).await?;
        if !response.status().is_success() {
            bail!(client::refusal(response).await);
        }
        let answer = client::read(response, ANSWER_MAX_BYTES).await?;
        serde_json::from_slice(&answer).context("the answer is not JSON")
    })
}

fn text(answer: &Value, field: &str) -> Result<String> {
    let text = answer[field].as_str().map(str::to_owned);
    text.with_context(|| format!("the answer has no {field}"))
}

fn print(keys: &[Described], out: &mut impl Write) -> io::Result<()> {
    for key in keys {
        let tenant = key.tenant.as_deref().unwrap_or("-");
        write!(out, "{}  {:<5}  {tenant}  made {}", key.id, key.scope.name(), key.created_at)?;
        let times = [("rotated", &key.rotated_at), ("REVOKED", &key.revoked_at)];
        for (what, time) in times {
            if let Some(time) = time {
                write!(out, ", {what} {time}")?;
            }
        }
        for (what, list) in [("alias", &key.aliases), ("origin", &key.origins)] {
            for one in list {
                write!(out, ", {what} {one}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
