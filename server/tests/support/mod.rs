//! What the tests of the whole program share: a server as a child process, and a client that also
//! sends what no decent client would.

#![allow(clippy::unwrap_used, dead_code, reason = "a failed test should panic; not all use all")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Who waits this long hangs: it is far longer than anything here takes on a machine that is slow,
/// shared, and has a slow disk.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The program under test.
pub fn ringlake() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlake"));
    // Nobody's environment but the test's own decides.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGLAKE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    ringlake().args(arguments).output().unwrap()
}

/// Runs the program with `input` on its standard input.
pub fn run_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = ringlake()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // The program may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Makes a key in `data` with the command; gives the last line of its output, which is the key.
pub fn make_key(data: &Path, arguments: &[&str]) -> String {
    let output =
        ringlake().args(["keys", "create", "--data"]).arg(data).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let key = text(&output.stdout).lines().last().unwrap().to_owned();
    assert!(key.starts_with("rl_") && !key.contains(' '), "{key}");
    key
}

/// The id of a key.
pub fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The header `Authorization` of a login without a password.
pub fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:")))
}

/// Says that a test is left out because this machine lacks `what`; a failure where nothing may be.
pub fn skip(what: &str) {
    assert!(std::env::var_os("RINGLAKE_TEST_ALL").is_none(), "lacking: {what}");
    eprintln!("skipped, lacking: {what}");
}

/// The first browser on the path, if there is one.
pub fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

/// A headless browser; killed when dropped.
pub struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// A browser that shows `url`; none when none is installed, which it says.
    pub fn open(url: &str) -> Option<Browser> {
        let Some(program) = chromium() else {
            skip("a browser (apt-get install chromium)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--disable-dev-shm-usage"])
            // Without it the browser leaves when the page has loaded.
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Browser { child, _profile: profile })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder with the SDKs of `tests/clients`; none when the environment names none, which it says.
pub fn clients() -> Option<PathBuf> {
    let folder = std::env::var_os("RINGLAKE_TEST_CLIENTS").map(PathBuf::from);
    if folder.is_none() {
        skip("the SDKs, in a folder that RINGLAKE_TEST_CLIENTS names");
    }
    folder
}

/// The statements of a list that the engine's tests of the sandbox have: one a line, `⏎` for the end
/// of a line.
pub fn statements(list: &str) -> Vec<String> {
    // Cargo runs tests in the folder of their package.
    let lists = Path::new("../engine/src/query/tests/statements");
    let text = std::fs::read_to_string(lists.join(list)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(|line| line.replace('⏎', "\n")).collect()
}

/// What must hold once nobody sends to a server any more: every event received is stored, known or
/// refused, every event stored has a number, and SQL sees every event stored.
pub fn balanced(before: &Books, after: &Books) -> Result<(), String> {
    let of = |name: &str| after.accounting[name].as_u64().unwrap();
    let refused = after.accounting["refused"].as_object().unwrap().values();
    let refused: u64 = refused.map(|count| count.as_u64().unwrap()).sum();
    let (received, stored) = (of("received"), of("stored"));
    let claim = |what: &str, left: u64, right: u64| match left == right {
        true => Ok(()),
        false => Err(format!("{what}: {left} is not {right} in {after:?}")),
    };
    claim("in flight", of("in_flight"), 0)?;
    claim("received", received, stored + of("duplicate") + refused)?;
    claim("numbered", after.numbered - before.numbered, stored + after.void)?;
    match (before.rows, after.rows) {
        (Some(old), Some(rows)) => {
            let gone = after.gone - before.gone;
            claim("rows", rows + gone - old, stored - after.aside)
        }
        _ => Ok(()),
    }
}

/// The counters of a server at one moment.
#[derive(Debug, Clone)]
pub struct Books {
    /// `accounting` of `/v1/status`.
    pub accounting: Value,
    /// The sum of the shards' last numbers.
    pub numbered: u64,
    /// Numbers that will never exist.
    pub void: u64,
    /// Events set aside because the table cannot take them.
    pub aside: u64,
    /// Events that erasures have found and that retention has taken out.
    pub gone: u64,
    /// Events that SQL sees, where it may be asked and nothing is being erased.
    pub rows: Option<u64>,
}

/// A running server; killed when dropped, after a look at its books.
pub struct Server {
    /// Whether the books are looked at when it stops.
    accountable: AtomicBool,
    books: Option<Books>,
    child: Child,
    pub address: SocketAddr,
    pub data: PathBuf,
    /// What its own requests are sent with.
    key: Option<String>,
    _temporary: Option<tempfile::TempDir>,
    log: std::thread::JoinHandle<()>,
    /// What it has written to standard error.
    said: Arc<Mutex<String>>,
}

impl Server {
    /// A server on an empty directory of its own.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same, with environment variables.
    pub fn with(variables: &[(&str, &str)]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let data = temporary.path().join("data");
        let mut server = Self::on(&data, variables);
        server._temporary = Some(temporary);
        server
    }

    /// A server on an empty directory of its own that needs keys; its own requests have one with
    /// scope admin.
    pub fn with_keys(variables: &[(&str, &str)]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let data = temporary.path().join("data");
        let key = make_key(&data, &["--scope", "admin"]);
        let mut server = Self::starting_on(&data, variables);
        server._temporary = Some(temporary);
        server.key = Some(key);
        server.wait_ready();
        server
    }

    /// A server on `data`, ready to accept events.
    pub fn on(data: &Path, variables: &[(&str, &str)]) -> Self {
        let mut server = Self::starting_on(data, variables);
        server.wait_ready();
        server
    }

    /// A server on `data` that listens; it may still be replaying its log.
    pub fn starting_on(data: &Path, variables: &[(&str, &str)]) -> Self {
        Self::starting_at("127.0.0.1:0", data, variables)
    }

    /// The same on another address.
    pub fn starting_at(listen: &str, data: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn(ringlake().args(["serve", "--listen", listen]), data, variables)
    }

    /// A server on `data` with the configuration file `config`, ready to accept events.
    pub fn configured(data: &Path, config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = ringlake();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        let mut server = Self::spawn(&mut command, data, variables);
        server.wait_ready();
        server
    }

    fn spawn(command: &mut Command, data: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = command
            .arg("--data")
            .arg(data)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, address) = channel();
        let said: Arc<Mutex<String>> = Arc::default();
        let writing = Arc::clone(&said);
        let log = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on http") {
                    let address = rest.trim_start_matches(['s', ':', '/']);
                    let address = address.split_whitespace().next().unwrap().parse().unwrap();
                    let _ = sender.send(address);
                }
                let mut said = writing.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        let address: SocketAddr = address.recv_timeout(PATIENCE).expect("the server starts");
        Self {
            accountable: AtomicBool::new(true),
            books: None,
            child,
            address,
            data: data.to_owned(),
            key: None,
            _temporary: None,
            log,
            said,
        }
    }

    /// Waits until events are accepted.
    pub fn wait_ready(&mut self) {
        self.wait_until("the server becomes ready", || self.get("/readyz").status == 200);
        self.books = self.books();
    }

    /// Looks until `condition` holds; not without a break, because the server needs the cores too.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The counters now, with everything accepted visible to SQL; none where they may not be seen.
    fn books(&self) -> Option<Books> {
        let flushed = self.post("/v1/admin/flush", b"").status == 200;
        let status = self.get("/v1/status");
        if status.status != 200 {
            return None;
        }
        let status = status.json();
        let shards = status["shards"].as_array().unwrap();
        let erasures = self.get("/v1/admin/erase");
        if erasures.status != 200 {
            return None;
        }
        let erasures = erasures.json();
        let erasures = erasures["erasures"].as_array().unwrap();
        let rows = flushed.then(|| self.post("/v1/query", "SELECT count(*) AS n FROM events"));
        let erased: u64 = erasures.iter().map(|job| job["events"].as_u64().unwrap()).sum();
        // What an erasure under way has found may be there or not.
        let settled = erasures.iter().all(|job| job["status"] == "done");
        let rows =
            rows.filter(|answer| answer.status == 200 && answer.complete).filter(|_| settled);
        Some(Books {
            accounting: status["accounting"].clone(),
            numbered: shards.iter().map(|shard| shard["last_sequence"].as_u64().unwrap()).sum(),
            void: status["void"].as_u64().unwrap(),
            aside: status["quarantined"]["rows"].as_u64().unwrap(),
            gone: erased + status["retention"]["rows"].as_u64().unwrap(),
            rows: rows.map(|answer| answer.json()["n"].as_u64().unwrap()),
        })
    }

    /// Checks that no event has been lost on the way; waits for those that are on it.
    pub fn assert_accounted(&self) {
        // Relaxed: the flag is all there is.
        let accountable = self.accountable.load(Ordering::Relaxed);
        let Some(before) = self.books.as_ref().filter(|_| accountable) else { return };
        let until = Instant::now() + PATIENCE;
        loop {
            let Some(after) = self.books() else { return };
            match balanced(before, &after) {
                Ok(()) => return,
                Err(problem) => assert!(Instant::now() < until, "{problem}"),
            }
        }
    }

    /// The directory of a server that was started on one of its own; it goes with the value.
    pub fn take_directory(&mut self) -> tempfile::TempDir {
        self._temporary.take().unwrap()
    }

    /// Its process id.
    /// What the server has written to standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key of the server's own requests.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap()
    }

    /// Sends the server's own requests with `key` from now on.
    pub fn use_key(&mut self, key: &str) {
        self.key = Some(key.to_owned());
    }

    /// A connection of the server's own.
    pub fn connect(&self) -> Connection {
        Connection { key: self.key.clone(), ..Connection::new(self.address) }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.connect().request("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.connect().request("POST", path, &[], body.as_ref())
    }

    /// Makes everything accepted so far visible.
    pub fn flush(&self) {
        assert_eq!(self.post("/v1/admin/flush", b"").status, 200);
    }

    /// Puts everything accepted so far into the table.
    pub fn roll(&self) {
        assert_eq!(self.post("/v1/admin/roll", b"").status, 200);
    }

    /// The rows of a query, over everything accepted so far.
    pub fn query(&self, sql: &str) -> Vec<Value> {
        self.flush();
        let answer = self.post("/v1/query", sql);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.complete);
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The number of stored events.
    pub fn count(&self) -> u64 {
        self.query("SELECT count(*) AS n FROM events")[0]["n"].as_u64().unwrap()
    }

    pub fn status(&self) -> Value {
        self.get("/v1/status").json()
    }

    /// Checks that every event received is accounted for; gives the accounting.
    pub fn accounting(&self) -> Value {
        let accounting = self.status()["accounting"].clone();
        let of = |name: &str| accounting[name].as_u64().unwrap();
        let refused = accounting["refused"].as_object().unwrap().values();
        let refused: u64 = refused.map(|count| count.as_u64().unwrap()).sum();
        let sum = of("stored") + of("duplicate") + refused + of("in_flight");
        assert_eq!(of("received"), sum, "{accounting}");
        accounting
    }

    /// Processor time used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        // A hundred ticks a second, on every Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Peak resident memory in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Resident memory in bytes.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    pub fn signal(&self, signal: Signal) {
        self.leave_unaccounted();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the server has ended; gives how, and what it logged.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "the server ends");
            std::thread::sleep(Duration::from_millis(2));
        };
        let log = std::mem::replace(&mut self.log, std::thread::spawn(|| {}));
        log.join().unwrap();
        (status, self.said())
    }

    /// Stops the server in order.
    pub fn stop(self) -> (ExitStatus, String) {
        self.assert_accounted();
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Kills the server as a crash would.
    pub fn kill(self) {
        self.leave_unaccounted();
    }

    /// Does not look at the books when the server stops: it cannot take in or show events any more.
    pub fn leave_unaccounted(&self) {
        // Relaxed: the flag is all there is.
        self.accountable.store(false, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() && matches!(self.child.try_wait(), Ok(None)) {
            self.assert_accounted();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended as it should: all of its length, or its last chunk.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        text(&self.body)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text()))
    }

    /// The `error` object that every refusal has.
    pub fn error(&self) -> Value {
        let error = self.json()["error"].clone();
        assert!(error["code"].is_string(), "{}", self.text());
        assert!(!error["message"].as_str().unwrap().is_empty(), "{}", self.text());
        error
    }
}

/// One kept-alive connection.
pub struct Connection {
    pub stream: BufReader<TcpStream>,
    address: SocketAddr,
    /// Sent with requests that say nothing about a key themselves.
    key: Option<String>,
}

impl Connection {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream), address, key: None }
    }

    /// Sends bytes as they are. False when the server does not take them any more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    pub fn shut_down(&mut self, how: Shutdown) {
        self.stream.get_mut().shutdown(how).unwrap();
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.ask(method, path, headers, body);
        self.answer(method == "HEAD")
    }

    /// Sends a request; what is answered is still to be read.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let silent = !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some(key) = self.key.as_ref().filter(|_| silent) {
            head.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes);
    }

    /// Reads one answer.
    pub fn answer(&mut self, is_head: bool) -> Answer {
        let status_line = self.line();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("an answer, not {status_line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if status == 100 {
            return self.answer(is_head);
        }
        let mut answer = Answer { status, headers, body: Vec::new(), complete: true };
        if is_head || [204, 304].contains(&status) {
            return answer;
        }
        if answer.header("transfer-encoding").is_some() {
            answer.complete = self.chunks(&mut answer.body);
        } else {
            let length = answer.header("content-length").unwrap().parse().unwrap();
            answer.body.resize(length, 0);
            answer.complete = self.stream.read_exact(&mut answer.body).is_ok();
        }
        answer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
                return false;
            }
            let Ok(size) = usize::from_str_radix(line.trim(), 16) else { return false };
            let start = body.len();
            body.resize(start + size, 0);
            let mut end = [0; 2];
            if self.stream.read_exact(&mut body[start..]).is_err()
                || self.stream.read_exact(&mut end).is_err()
            {
                return false;
            }
            if size == 0 {
                return true;
            }
        }
    }

    /// Whether the server has closed the connection (waits for it).
    pub fn is_closed(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            // Nothing has come, and the end has not either.
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
