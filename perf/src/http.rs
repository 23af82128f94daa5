//! A small HTTP/1.1 client on blocking sockets, which can also do what no decent client does.
//!
//! **Guarantees.** An answer is whole: one that ends early, in its head, its length or its chunks,
//! is an error. No call waits longer than [`PATIENCE`] for bytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

/// Longer than anything here may take, a paused server included.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether the server closes the connection behind it.
    pub last: bool,
}

impl Answer {
    /// The body as text for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { stream: BufReader::new(stream), address })
    }

    /// The bytes of a request: `target` is path and query, `headers` are whole lines.
    pub fn request(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len(),
        );
        [head.as_bytes(), body].concat()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        read_answer(&mut self.stream)
    }
}

/// One query on a connection of its own, whose result goes to `sink` as it comes; the status.
/// `format` is what it is to be in.
pub fn query(
    address: SocketAddr,
    sql: &str,
    format: &str,
    sink: &mut impl Write,
) -> io::Result<u16> {
    let mut connection = Connection::open(address)?;
    let headers = format!("Accept: {format}\r\n");
    let request = connection.request("POST", "/v1/query", &headers, sql.as_bytes());
    connection.send(&request)?;
    Ok(read_into(&mut connection.stream, sink)?.0)
}

/// One request on a connection of its own.
pub fn call(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> io::Result<Answer> {
    let mut connection = Connection::open(address)?;
    let request = connection.request(method, target, headers, body.as_bytes());
    connection.send(&request)?;
    connection.answer()
}

/// `/v1/status` of a server.
pub fn status(address: SocketAddr) -> Result<Value> {
    let answer = call(address, "GET", "/v1/status", "", "")?;
    ensure!(answer.status == 200, "/v1/status was answered {}", answer.status);
    Ok(serde_json::from_slice(&answer.body)?)
}

fn read_answer(stream: &mut impl BufRead) -> io::Result<Answer> {
    let mut body = Vec::new();
    let (status, last) = read_into(stream, &mut body)?;
    Ok(Answer { status, body, last })
}

/// Reads one answer whose body goes to `sink`; its status, and whether the connection is closed
/// behind it.
fn read_into(stream: &mut impl BufRead, sink: &mut impl Write) -> io::Result<(u16, bool)> {
    let status = line(stream)?;
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| broken("no status"))?;
    let (mut length, mut chunked, mut last) = (0, false, false);
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        match header.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => {
                length = value.parse().map_err(|_| broken("a bad length"))?;
            }
            Some(("transfer-encoding", value)) => chunked = value == "chunked",
            Some(("connection", value)) => last = value == "close",
            Some(_) => {}
            None => break,
        }
    }
    if chunked {
        read_chunks(stream, sink)?;
    } else if io::copy(&mut stream.take(length), sink)? != length {
        return Err(broken("a body that ends early"));
    }
    Ok((status, last))
}

fn read_chunks(stream: &mut impl BufRead, sink: &mut impl Write) -> io::Result<()> {
    loop {
        let size = line(stream)?;
        let size = u64::from_str_radix(&size, 16).map_err(|_| broken("a bad chunk"))?;
        if io::copy(&mut stream.take(size), sink)? != size || !line(stream)?.is_empty() {
            return Err(broken("a chunk that ends early"));
        }
        if size == 0 {
            return Ok(());
        }
    }
}

/// The next line without its end.
fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(broken("an answer that ends early"));
    }
    Ok(line.trim_end().to_owned())
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                           3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";

    #[test]
    fn bodies_come_by_length_or_in_chunks() {
        let text = "HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let answer = read_answer(&mut text.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.last), (202, &b"{}"[..], true));
        let answer = read_answer(&mut CHUNKED.as_bytes()).unwrap();
        assert_eq!((answer.text().as_str(), answer.last), ("abc0123456789", false));
    }

    #[test]
    fn an_answer_that_ends_early_is_none() {
        for end in 0..CHUNKED.len() {
            assert!(read_answer(&mut &CHUNKED.as_bytes()[..end]).is_err(), "{end}");
        }
    }
}
