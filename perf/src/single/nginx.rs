//! nginx as the peer: one worker on one core, answering at once or writing bodies to a log.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::server::cpu_seconds;

const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running nginx; gone when dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    empty: SocketAddr,
    logged: SocketAddr,
    log: PathBuf,
}

impl Nginx {
    /// Starts it in `directory`, which is made anew, on one core.
    pub fn start(directory: &Path, core: usize) -> Result<Nginx> {
        fs::create_dir_all(directory)?;
        let (empty, logged) = (free_address()?, free_address()?);
        let path = directory.to_str().context("the temporary directory's name is not text")?;
        let configuration = include_str!("../../cases/single/nginx.conf")
            .replace("DIRECTORY", path)
            .replace("LOG_PORT", &logged.port().to_string())
            .replace("EMPTY_PORT", &empty.port().to_string());
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration)?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string(), "nginx", "-p", path, "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("nginx did not start")?;
        let mut nginx = Nginx { child, empty, logged, log: directory.join("raw.log") };
        nginx.wait_ready()?;
        Ok(nginx)
    }

    /// Where it answers at once.
    #[must_use]
    pub fn empty(&self) -> SocketAddr {
        self.empty
    }

    /// Where it writes the body to the log first.
    #[must_use]
    pub fn logged(&self) -> SocketAddr {
        self.logged
    }

    /// User and system time so far, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.child.id())
    }

    /// Stops it in order, which writes the rest of the buffer, and names the log.
    pub fn stop(mut self) -> Result<PathBuf> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("the process has no id")?, Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "nginx ended with {status}");
        Ok(self.log.clone())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(self.empty).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("nginx ended with {status} before it listened");
            }
            ensure!(Instant::now() < deadline, "nginx does not listen after {START_DEADLINE:?}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail when it has stopped already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log holds a line for every answered request, and each line is one of the events: otherwise
/// nginx did less than it is compared for.
pub fn check(log: &Path, events: &Path, requests: u64) -> Result<()> {
    let sent: HashSet<String> = fs::read_to_string(events)?.lines().map(str::to_owned).collect();
    let mut lines = 0;
    for line in BufReader::new(File::open(log)?).lines() {
        let line = line?;
        ensure!(sent.contains(&line), "line {lines} of nginx' log is not an event: {line}");
        lines += 1;
    }
    ensure!(lines >= requests, "nginx answered {requests} requests and wrote {lines} lines");
    Ok(())
}

/// An address that was free a moment ago; nginx cannot tell which port it was given by itself.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
