//! A `ringlake` process under test: start it, read what it uses, stop it.
//!
//! **Guarantees**: the process is gone when the value is dropped. The port is one that the kernel
//! chose, so that two runs never meet.
//!
//! **Failure**: what the process wrote to standard error is part of every error.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const START_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
/// What the kernel counts processor time in for user space, on every Linux architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Names the server to use instead of the one beside this program.
pub const BINARY: &str = "PERF_LAB_SERVER";

/// Holds the options of Linux' `perf` with which every server is sampled, …
pub const SAMPLED: &str = "PERF_LAB_SAMPLED";
/// … and the folder for what it finds.
pub const SAMPLES: &str = "PERF_LAB_SAMPLES";

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    /// Ends when the server does.
    sampler: Option<Child>,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most there ever was.
    pub peak: u64,
}

/// The `ringlake` binary beside this one, brought up to date first when cargo started us:
/// otherwise a run would name a commit that it did not measure.
pub fn binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os(BINARY) {
        return Ok(binary.into());
    }
    if let Some(cargo) = std::env::var_os("CARGO") {
        let status = Command::new(cargo)
            .args(["build", "--release", "--locked", "--package", "ringlake"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .context("cargo build did not start")?;
        if !status.success() {
            bail!("building ringlake failed");
        }
    }
    let binary = std::env::current_exe()?.with_file_name("ringlake");
    if !binary.exists() {
        bail!("{} is missing: run `cargo build --release` first", binary.display());
    }
    Ok(binary)
}

/// What starts `serve` on `data`, on a port that the kernel chooses. `core` pins the process.
pub fn command(binary: &Path, data: &Path, core: Option<usize>) -> Command {
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).arg(binary);
            command
        }
        None => Command::new(binary),
    };
    command.arg("serve").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Server {
    /// Runs `command` and returns once `/readyz` says yes.
    pub fn start(command: Command) -> Result<Server> {
        let server = Self::spawn(command)?;
        server.wait_ready(START_DEADLINE)?;
        Ok(server)
    }

    /// Runs `command` and returns once it listens: it may still be replaying its log
    /// ([`Server::wait_ready`]).
    pub fn spawn(mut command: Command) -> Result<Server> {
        let mut child =
            command.stderr(Stdio::piped()).spawn().context("the server did not start")?;
        let stderr = child.stderr.take().expect("standard error was piped above");
        let log = Arc::new(Mutex::new(String::new()));
        match listening(stderr, Arc::clone(&log)) {
            Ok(address) => {
                let sampler = sampler(child.id())?;
                Ok(Server { child, address, log, sampler })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// User and system time of all its threads so far, in seconds (steps of 10 ms).
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.child.id())
    }

    /// Resident memory, now and at most.
    pub fn memory(&self) -> Result<Memory> {
        memory(&fs::read_to_string(format!("/proc/{}/status", self.child.id()))?)
    }

    /// Begins a new [`Memory::peak`].
    pub fn forget_peak(&self) -> Result<()> {
        let file = format!("/proc/{}/clear_refs", self.child.id());
        fs::write(&file, "5").with_context(|| format!("cannot write {file}"))
    }

    /// Asks it to stop in order and waits for it.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal the server")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        match wait(&mut self.child)? {
            Some(status) => Ok(status),
            None => {
                bail!("the server did not stop within {STOP_DEADLINE:?}:\n{}", self.said());
            }
        }
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// Waits until `/readyz` says yes, at most for `limit`.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if ready(self.address).unwrap_or(false) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("the server was not ready within {limit:?}:\n{}", self.said());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(sampler) = &mut self.sampler {
            let _ = sampler.wait();
        }
    }
}

/// Samples a process when the environment asks for it.
fn sampler(process: u32) -> Result<Option<Child>> {
    let (Ok(options), Some(folder)) = (std::env::var(SAMPLED), std::env::var_os(SAMPLES)) else {
        return Ok(None);
    };
    let sampler = Command::new("perf")
        .args(["record", "--quiet", "--call-graph", "dwarf,16384"])
        .args(options.split(' '))
        .args(["--pid", &process.to_string(), "--output"])
        .arg(Path::new(&folder).join(format!("{process}.data")))
        .stdout(Stdio::null())
        .spawn();
    sampler.map(Some).context("perf did not start: apt-get install linux-perf")
}

/// How a process ended; `None` when it has not within [`STOP_DEADLINE`].
pub fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + STOP_DEADLINE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(POLL);
    }
    Ok(None)
}

/// Reads standard error until the address appears, then goes on reading on a thread of its own:
/// a full pipe would stop the server.
fn listening(stderr: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> Result<SocketAddr> {
    let (found, address) = mpsc::channel();
    let shared = Arc::clone(&log);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(address) = address_in(&line) {
                let _ = found.send(address);
            }
            if let Ok(mut log) = shared.lock() {
                log.push_str(&line);
                log.push('\n');
            }
        }
    });
    address.recv_timeout(START_DEADLINE).map_err(|_| {
        let said = log.lock().map(|log| log.clone()).unwrap_or_default();
        anyhow::anyhow!("the server did not say where it listens:\n{said}")
    })
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http://")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

fn ready(address: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    Ok(&start == b"HTTP/1.1 200")
}

/// User and system time of a process so far, in seconds (steps of 10 ms).
pub fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    cpu_seconds_in(&stat).with_context(|| format!("/proc/{process}/stat holds {stat:?}"))
}

/// The same from the file's text, whose second field may hold spaces.
fn cpu_seconds_in(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// `VmRSS` and `VmHWM` from the text of `/proc/<pid>/status`.
pub fn memory(status: &str) -> Result<Memory> {
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {name} in /proc/…/status"))? * 1024)
    };
    Ok(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_servers_words() {
        let line = "ringlake 0.1.0 listening on http://127.0.0.1:43251 (open mode)";
        assert_eq!(address_in(line), "127.0.0.1:43251".parse().ok());
        assert_eq!(address_in("nothing here"), None);
    }

    #[test]
    fn processor_time_is_read_behind_a_name_with_spaces() {
        let stat = "7 (ring ) lake) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0";
        assert_eq!(cpu_seconds_in(stat), Some(3.0));
    }
}
