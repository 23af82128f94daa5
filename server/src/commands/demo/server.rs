//! The server of a demonstration: this very program as a child process, on a free loopback port.
//!
//! **Failure.** However the demonstration ends, the child does not outlive it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Time for the server to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// Last lines of its log that are kept for the case that it fails.
const LOG_LINES: usize = 20;
/// What stands before its address in its first line.
const GREETING: &str = "listening on ";

/// A running child.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Option<JoinHandle<VecDeque<String>>>,
    /// Where it listens.
    pub url: String,
}

impl Server {
    /// Starts the server on `data` and waits until it says where it listens.
    ///
    /// # Errors
    /// When it does not start; with the last lines that it logged.
    pub fn start(data: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let (sender, address) = channel();
        let stderr = child.stderr.take();
        let log =
            thread::spawn(move || stderr.map_or_else(VecDeque::new, |it| follow(it, &sender)));
        let mut server = Self { child, log: Some(log), url: String::new() };
        match server.wait_for(&address) {
            Some(url) => {
                server.url = url;
                Ok(server)
            }
            None => {
                // It says nothing more once it is gone.
                let _ = server.child.kill();
                let _ = server.child.wait();
                bail!("the server did not start: {}", server.log_text());
            }
        }
    }

    fn wait_for(&self, address: &Receiver<String>) -> Option<String> {
        address.recv_timeout(PATIENCE).ok()
    }

    /// Asks the server to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not stop in time, or with another exit code than 0.
    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .context("cannot signal the server")?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the server")? {
                if status.success() {
                    return Ok(());
                }
                bail!("the server ended with {status}: {}", self.log_text());
            }
            if Instant::now() >= until {
                bail!("the server did not stop within {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_text(&mut self) -> String {
        let lines = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
        lines.into_iter().collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do when it has ended already, as it has after `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log to its end, so that the server never waits for a full pipe.
fn follow(stderr: ChildStderr, address: &Sender<String>) -> VecDeque<String> {
    let mut last = VecDeque::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once(GREETING) {
            let url = rest.split_whitespace().next().unwrap_or_default();
            // Nobody waits any more when it was found before.
            let _ = address.send(url.to_owned());
        }
        if last.len() == LOG_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}
