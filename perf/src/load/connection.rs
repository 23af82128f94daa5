//! A kept-alive connection on a socket that never blocks.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes};

/// An answer of ours is a status and a short JSON object.
const ANSWER_MAX: usize = 16 << 10;

/// One connection: at most one request under way.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Where it comes from, when that was chosen.
    source: Option<IpAddr>,
    /// What of the request has not been written yet.
    unsent: Bytes,
    intended: Instant,
    /// What has come of the answer.
    received: Vec<u8>,
}

/// A whole answer.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body, for messages.
    pub text: String,
    /// Whether the server closes the connection behind it.
    pub last: bool,
}

impl Connection {
    /// Connects, from the address `source` when that is named.
    pub fn open(peer: SocketAddr, source: Option<IpAddr>) -> Result<Connection> {
        let stream = match source {
            Some(source) => connect_from(source, peer)?,
            None => TcpStream::connect(peer)?,
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (unsent, received) = (Bytes::new(), Vec::with_capacity(ANSWER_MAX));
        Ok(Connection { stream, peer, source, unsent, intended: Instant::now(), received })
    }

    /// To be told when it can be read or written.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// A fresh one between the same two.
    pub fn again(&self) -> Result<Connection> {
        Connection::open(self.peer, self.source)
    }

    /// When the request under way was meant to be sent.
    pub fn intended(&self) -> Instant {
        self.intended
    }

    /// Begins a request; true when all of it has been written.
    pub fn send(&mut self, request: Bytes, intended: Instant) -> Result<bool> {
        self.unsent = request;
        self.intended = intended;
        self.write()
    }

    /// Writes what the socket takes; true when nothing is left.
    pub fn write(&mut self) -> Result<bool> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => self.unsent.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("a request could not be sent"),
            }
        }
        Ok(true)
    }

    /// Reads what is there; the answer when it is whole.
    pub fn read(&mut self) -> Result<Option<Answer>> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the server closed a connection without an answer"),
            Ok(read) => self.received.extend_from_slice(&buffer[..read]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).context("an answer could not be read"),
        }
        let answer = parse(&self.received)?;
        if answer.is_some() {
            self.received.clear();
        }
        ensure!(self.received.len() < ANSWER_MAX, "an answer is longer than {ANSWER_MAX} bytes");
        Ok(answer)
    }
}

/// A connection from one of this machine's addresses, of which the loopback network has 16 million.
pub fn connect_from(source: IpAddr, peer: SocketAddr) -> Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((source, 0).into()).with_context(|| format!("cannot connect from {source}"))?;
        let stream = socket.connect(peer).await?.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    })
}

/// The answer in `received` when all of it is there.
fn parse(received: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&received[..end])?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (mut length, mut last) = (0, false);
    for line in head.split("\r\n").skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("an answer with a bad length")?;
        } else if name.eq_ignore_ascii_case("connection") {
            last = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let body = &received[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    Ok(Some(Answer {
        status: status.with_context(|| format!("an answer without a status: {head}"))?,
        text: String::from_utf8_lossy(&body[..length]).into_owned(),
        last,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn an_answer_is_there_when_its_last_byte_is() {
        let text = b"HTTP/1.1 429 Too Many\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlater";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]).unwrap(), None, "{end}");
        }
        let answer = Answer { status: 429, text: "later".to_owned(), last: true };
        assert_eq!(parse(text).unwrap(), Some(answer));
    }
}
