//! Exporting from a running server: a job there, then its files one by one.
//!
//! **Guarantees.** A file has the checksum that the job says before it gets its name. A job whose
//! files are all here is removed from the server.
//!
//! **Failure.** A connection that breaks is made again; a file goes on where it ended, also in the
//! next run of the command. After [`ATTEMPTS_MAX`] attempts in a row without a byte more the command
//! gives up.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use indicatif::ProgressBar;
use ringlake_engine::export::{ExportFile, Job, Status};
use sha2::{Digest, Sha256};

use super::output::Output;
use super::{LOOK_EVERY, show};
use crate::client::{self, Client, Outgoing};

/// How often a file is asked for before the command gives up.
const ATTEMPTS_MAX: usize = 5;
/// Time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest description of a job: some thousand files.
const DESCRIPTION_MAX_BYTES: usize = 8 << 20;
/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Makes an export on the server of `client` and fetches its files.
///
/// # Errors
/// What the server or the output says.
pub async fn run(mut client: Client, output: &Output, progress: &ProgressBar) -> Result<Job> {
    let id = begin(&mut client, output).await?;
    let job = loop {
        let job = look(&mut client, &id).await?.context("the export was removed")?;
        if show(&job, progress)? {
            break job;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    progress.set_message("fetching");
    progress.set_length(job.files.iter().map(|file| file.bytes).sum());
    progress.set_position(0);
    for file in &job.files {
        let fetched = fetch(&mut client, &id, file, output, progress).await;
        fetched.with_context(|| {
            format!("cannot fetch {}; the same command goes on with it", file.name)
        })?;
    }
    output.finish(&job)?;
    let path = format!("/v1/exports/{id}");
    let removal = Outgoing { path, method: Some(Method::DELETE), ..Outgoing::default() };
    // It goes by itself in a day.
    let _ = client.send(&removal).await;
    Ok(job)
}

/// Goes on with the job of an earlier run, or creates one.
async fn begin(client: &mut Client, output: &Output) -> Result<String> {
    if let Some(known) = output.known()
        && let Some(job) = look(client, &known).await?
        && job.status != Status::Failed
    {
        return Ok(known);
    }
    let outgoing = Outgoing {
        path: "/v1/exports".into(),
        body: output.request().to_string().into(),
        content_type: Some("application/json"),
        ..Outgoing::default()
    };
    let response = client.insist(&outgoing).await?;
    if response.status() != StatusCode::ACCEPTED {
        bail!(client::refusal(response).await);
    }
    let body = client::read(response, DESCRIPTION_MAX_BYTES).await?;
    let job: Job = serde_json::from_slice(&body).context("the answer describes no export")?;
    output.begin(&job.id)?;
    Ok(job.id)
}

/// The job as it stands; nothing when there is none.
async fn look(client: &mut Client, id: &str) -> Result<Option<Job>> {
    let path = format!("/v1/exports/{id}");
    let response = client.insist(&Outgoing { path, ..Outgoing::default() }).await?;
    if response.status() == StatusCode::NOT_FOUND {
        client::read(response, DESCRIPTION_MAX_BYTES).await?;
        return Ok(None);
    }
    if !response.status().is_success() {
        bail!(client::refusal(response).await);
    }
    let body = client::read(response, DESCRIPTION_MAX_BYTES).await?;
    Ok(Some(serde_json::from_slice(&body).context("the answer describes no export")?))
}

/// Fetches one file, from where an earlier attempt ended.
async fn fetch(
    client: &mut Client,
    id: &str,
    file: &ExportFile,
    output: &Output,
    progress: &ProgressBar,
) -> Result<()> {
    let (partial, target) = output.places(file)?;
    let before = progress.position();
    let is_there = length(&target) == file.bytes && checksum(&target)? == file.sha256;
    if is_there {
        progress.set_position(before + file.bytes);
        return Ok(());
    }
    let mut attempts = 0;
    loop {
        let held = length(&partial);
        let Err(error) = go_on(client, id, file, &partial, progress, before).await else { break };
        attempts = if length(&partial) > held { 0 } else { attempts + 1 };
        if attempts == ATTEMPTS_MAX || error.is::<Refused>() {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
    if checksum(&partial)? != file.sha256 {
        fs::remove_file(&partial)?;
        bail!("it arrived with other bytes than the server has");
    }
    let done = File::open(&partial).and_then(|it| it.sync_all());
    done.and_then(|()| fs::rename(&partial, &target))
        .with_context(|| format!("cannot write {}", target.display()))
}

/// An answer that another attempt would not change.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Appends to `partial` what is missing.
async fn go_on(
    client: &mut Client,
    id: &str,
    file: &ExportFile,
    partial: &Path,
    progress: &ProgressBar,
    before: u64,
) -> Result<()> {
    let mut held = length(partial);
    if held > file.bytes {
        fs::remove_file(partial)?;
        held = 0;
    }
    if held == file.bytes && held > 0 {
        return Ok(());
    }
    let outgoing = Outgoing {
        path: format!("/v1/exports/{id}/files/{}", file.name),
        from: (held > 0).then(|| (held, format!("\"{}\"", file.sha256))),
        ..Outgoing::default()
    };
    let response = client.insist(&outgoing).await?;
    let mut options = File::options();
    options.create(true);
    let mut out = match response.status() {
        StatusCode::PARTIAL_CONTENT => options.append(true).open(partial)?,
        StatusCode::OK => {
            held = 0;
            options.write(true).truncate(true).open(partial)?
        }
        _ => return Err(Refused(client::refusal(response).await).into()),
    };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame.context("the server broke off")?.into_data() {
            out.write_all(&bytes)?;
            held += bytes.len() as u64;
            progress.set_position(before + held);
        }
    }
    if held != file.bytes {
        bail!("the server broke off");
    }
    Ok(())
}

/// The length of a file; 0 when there is none.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// SHA-256 of a file, in hexadecimal digits.
fn checksum(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => hash.update(&piece[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
