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

/// One query on a connection of its own: its status, and its result as it comes. `format` is what
/// it is to be in.
pub fn query(
    address: SocketAddr,
    sql: &str,
    format: &str,
) -> io::Result<(u16, Body<BufReader<TcpStream>>)> {
    let mut connection = Connection::open(address)?;
    let headers = format!("Accept: {format}\r\n");
    let request = connection.request("POST", "/v1/query", &headers, sql.as_bytes());
    connection.send(&request)?;
    let head = read_head(&mut connection.stream)?;
    Ok((head.status, Body::new(connection.stream, head.length)))
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
    let head = read_head(stream)?;
    let mut body = Vec::new();
    Body::new(stream, head.length).read_to_end(&mut body)?;
    Ok(Answer { status: head.status, body, last: head.last })
}

struct Head {
    status: u16,
    /// `None` for chunks.
    length: Option<u64>,
    last: bool,
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Head> {
    let status = line(stream)?;
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| broken("no status"))?;
    let mut head = Head { status, length: Some(0), last: false };
    loop {
        let header = line(stream)?.to_ascii_lowercase();
        match header.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => {
                head.length = Some(value.parse().map_err(|_| broken("a bad length"))?);
            }
            Some(("transfer-encoding", "chunked")) => head.length = None,
            Some(("connection", value)) => head.last = value == "close",
            Some(_) => {}
            None => return Ok(head),
        }
    }
}

/// The body of an answer, of a known length or in chunks; one that ends early is an error.
#[derive(Debug)]
pub struct Body<S> {
    stream: S,
    /// Bytes left of the body or of the chunk.
    left: u64,
    /// More chunks follow this one.
    more: bool,
    /// No chunk has been begun yet.
    first: bool,
}

impl<S: BufRead> Body<S> {
    fn new(stream: S, length: Option<u64>) -> Body<S> {
        Body { stream, left: length.unwrap_or(0), more: length.is_none(), first: true }
    }

    /// Reads the size of the next chunk, behind the end of the last one.
    fn begin_chunk(&mut self) -> io::Result<()> {
        if !self.first && !line(&mut self.stream)?.is_empty() {
            return Err(broken("a chunk that is longer than its size"));
        }
        self.first = false;
        let size = line(&mut self.stream)?;
        self.left = u64::from_str_radix(&size, 16).map_err(|_| broken("a bad chunk"))?;
        if self.left == 0 {
            self.more = false;
            if !line(&mut self.stream)?.is_empty() {
                return Err(broken("something behind the last chunk"));
            }
        }
        Ok(())
    }
}

impl<S: BufRead> Read for Body<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.more {
            self.begin_chunk()?;
        }
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.stream.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(broken("a body that ends early"));
        }
        self.left -= read as u64;
        Ok(read)
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
