//! Runs of wrk and what they say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// What each run of wrk does.
#[derive(Debug)]
pub struct Load {
    /// The Lua script.
    pub script: PathBuf,
    /// The events that it posts in turn.
    pub events: PathBuf,
    /// Kept-alive connections.
    pub connections: u32,
    /// Length of the run.
    pub seconds: u32,
    /// Where wrk runs.
    pub core: usize,
}

/// What one run measured.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// Answered requests.
    pub requests: u64,
    /// Of these, answered with something else than 2xx or 3xx.
    pub refused: u64,
    /// Requests per second.
    pub rate: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
}

/// Says how to install what is missing.
pub fn require(programs: &[&str]) -> Result<()> {
    for program in programs {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null())
            .status()?;
        if !found.success() {
            bail!("{program} is not installed: apt-get install nginx-light wrk util-linux");
        }
    }
    Ok(())
}

impl Load {
    /// Loads one server.
    pub fn run(&self, address: SocketAddr) -> Result<Outcome> {
        let output = Command::new("taskset")
            .args(["-c", &self.core.to_string(), "wrk", "-t1", "--latency"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .arg("-s")
            .arg(&self.script)
            .arg(format!("http://{address}/v1/events"))
            .arg("--")
            .arg(&self.events)
            .stderr(Stdio::inherit())
            .output()
            .context("wrk did not start")?;
        ensure!(output.status.success(), "wrk ended with {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).with_context(|| format!("wrk said:\n{text}"))
    }
}

fn parse(text: &str) -> Result<Outcome> {
    ensure!(!text.contains("Socket errors"), "connections failed");
    let words = |marker: &str| -> Option<Vec<&str>> {
        let line = text.lines().find(|line| line.contains(marker))?;
        Some(line.split_ascii_whitespace().collect())
    };
    let requests = words(" requests in ").context("no count")?[0].parse()?;
    let refused = match words("Non-2xx") {
        Some(line) => line.last().context("no count of refusals")?.parse()?,
        None => 0,
    };
    let rate = words("Requests/sec:").context("no rate")?;
    let percentile = |name: &str| -> Result<f64> {
        let line = words(name).with_context(|| format!("no {name}"))?;
        milliseconds(line.get(1).context("no value")?)
    };
    Ok(Outcome {
        requests,
        refused,
        rate: rate.get(1).context("no rate")?.parse()?,
        p50_ms: percentile(" 50%")?,
        p99_ms: percentile(" 99%")?,
    })
}

fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)] {
        if let Some(value) = text.strip_suffix(unit) {
            return Ok(value.parse::<f64>()? * factor);
        }
    }
    bail!("{text} is not a time");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 10s test @ http://127.0.0.1:1/v1/events
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.23ms  100.00us   9.00ms   99.00%
    Req/Sec    52.00k     1.00k   53.00k    90.00%
  Latency Distribution
     50%    1.25ms
     75%    1.50ms
     90%    2.00ms
     99%  980.00us
  520000 requests in 10.00s, 80.00MB read
  Non-2xx or 3xx responses: 7
Requests/sec:  52000.25
Transfer/sec:      8.00MB
";

    #[test]
    fn the_words_of_wrk_are_understood() {
        let outcome = parse(SAID).ok();
        let expected =
            Outcome { requests: 520_000, refused: 7, rate: 52_000.25, p50_ms: 1.25, p99_ms: 0.98 };
        assert_eq!(outcome, Some(expected));
    }

    #[test]
    fn broken_connections_are_an_error() {
        let text = format!("{SAID}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert!(parse(&text).is_err());
    }
}
