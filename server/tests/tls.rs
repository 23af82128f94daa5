//! Encrypted connections: HTTP/1.1 and HTTP/2 over them, new certificates while the server runs, and
//! clients that hold on to a handshake or take their requests back.
//!
//! `server/tests/tls` holds an authority and two certificates for localhost, good for a hundred years.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{PATIENCE, Server, ringlake, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// A server whose certificate and key are copies of a pair; also where they lie.
struct Encrypted {
    server: Server,
    directory: tempfile::TempDir,
}

impl Encrypted {
    fn start(variables: &[(&str, &str)]) -> Encrypted {
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = install("first", directory.path());
        let mut all = vec![("RINGLAKE_TLS_CERT", cert.as_str()), ("RINGLAKE_TLS_KEY", &key)];
        all.extend(variables);
        let data = directory.path().join("data");
        let server = Server::starting_on(&data, &all);
        let this = Encrypted { server, directory };
        block_on(async {
            let began = Instant::now();
            while this.ask(HTTP1, "/readyz", b"").await.0 != StatusCode::OK {
                assert!(began.elapsed() < PATIENCE, "the server becomes ready");
            }
        });
        this
    }

    fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// One request on a connection of its own: GET without a body.
    async fn ask(&self, protocol: &'static [u8], path: &str, body: &[u8]) -> (StatusCode, String) {
        let stream = connect(self.address(), protocol).await;
        let method = if body.is_empty() { "GET" } else { "POST" };
        let uri = match protocol {
            HTTP2 => format!("https://localhost{path}"),
            _ => path.to_owned(),
        };
        let request = Request::builder().method(method).uri(uri).header("accept", "text/csv");
        let request = if protocol == HTTP1 { request.header("host", "localhost") } else { request };
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let response = if protocol == HTTP2 {
            let (mut sender, connection) = speak(stream).await;
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, text(&body))
    }
}

type Spoken =
    http2::Connection<TokioIo<TlsStream<tokio::net::TcpStream>>, Full<Bytes>, TokioExecutor>;

async fn speak(
    stream: TlsStream<tokio::net::TcpStream>,
) -> (http2::SendRequest<Full<Bytes>>, Spoken) {
    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap()
}

/// Copies the pair `name` to where a server reads its own.
fn install(name: &str, directory: &Path) -> [String; 2] {
    [("pem", "server.pem"), ("key", "server.key")].map(|(kind, target)| {
        let target = directory.join(target);
        // As tools that renew certificates do: a new file takes the place of the old one.
        let fresh = target.with_extension("new");
        fs::copy(fixture(&format!("{name}.{kind}")), &fresh).unwrap();
        fs::rename(&fresh, &target).unwrap();
        target.to_str().unwrap().to_owned()
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

async fn connect(address: SocketAddr, protocol: &'static [u8]) -> TlsStream<tokio::net::TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture("ca.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}

/// The certificate that the server shows now.
fn shown(address: SocketAddr) -> Vec<u8> {
    block_on(async {
        let stream = connect(address, HTTP1).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    })
}

#[test]
fn both_versions_of_http_are_spoken_over_tls() {
    let encrypted = Encrypted::start(&[]);
    let large = format!("[{}]", vec![r#"{"event":"large"}"#; 50_000].join(","));
    block_on(async {
        let event = br#"{"event":"small"}"#;
        for protocol in [HTTP1, HTTP2] {
            let answer = encrypted.ask(protocol, "/v1/events", event).await;
            assert_eq!(answer, (StatusCode::ACCEPTED, "{\"accepted\":1}".to_owned()));
            let answer = encrypted.ask(protocol, "/v1/events", large.as_bytes()).await;
            assert_eq!(answer, (StatusCode::ACCEPTED, "{\"accepted\":50000}".to_owned()));
            assert_eq!(encrypted.ask(protocol, "/nowhere", b"").await.0, StatusCode::NOT_FOUND);
        }
        assert_eq!(encrypted.ask(HTTP2, "/v1/admin/flush", b" ").await.0, StatusCode::OK);
        let sql = b"SELECT event, count(*) AS n FROM events GROUP BY event ORDER BY event";
        let (status, rows) = encrypted.ask(HTTP2, "/v1/query", sql).await;
        assert_eq!((status, rows.trim()), (StatusCode::OK, "event,n\r\nlarge,100000\r\nsmall,2"));
    });
}

#[test]
fn requests_share_a_connection_and_its_limits_hold() {
    let encrypted = Encrypted::start(&[("RINGLAKE_HTTP_BODY_MAX_BYTES", "300000")]);
    block_on(async {
        let (sender, connection) = speak(connect(encrypted.address(), HTTP2).await).await;
        tokio::spawn(connection);
        let send = |head: hyper::http::request::Builder, body: Vec<u8>| {
            let mut sender = sender.clone();
            let request = head.method("POST").uri("https://localhost/v1/events");
            let request = request.body(Full::new(Bytes::from(body))).unwrap();
            async move { sender.send_request(request).await }
        };
        // Far more than a connection has at a time.
        let event = || send(Request::builder(), br#"{"event":"shared"}"#.to_vec());
        let all = futures_util::future::join_all((0..300).map(|_| event())).await;
        assert!(all.into_iter().all(|answer| answer.unwrap().status() == StatusCode::ACCEPTED));
        let answer = send(Request::builder(), vec![b' '; 300_001]).await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let head = Request::builder().header("x-large", "x".repeat(20_000));
        let answer = send(head, b"{}".to_vec()).await.map(|answer| answer.status());
        assert!(answer.is_err() || answer.unwrap() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        // None of that has cost the others their connection.
        assert_eq!(event().await.unwrap().status(), StatusCode::ACCEPTED);
    });
}

#[test]
fn a_client_that_takes_its_requests_back_is_cut_off() {
    // Standing still is not what ends it.
    let encrypted = Encrypted::start(&[("RINGLAKE_HTTP_IDLE_TIMEOUT_MS", "86400000")]);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1_u32..2_000).step_by(2) {
        // POST, https, /, :authority localhost; then a reset because it is not wanted any more.
        let block = b"\x83\x87\x84\x41\x09localhost";
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(block);
        bytes.extend(b"\0\0\x04\x03\0");
        bytes.extend(stream.to_be_bytes());
        bytes.extend(8_u32.to_be_bytes());
    }
    block_on(async {
        let mut stream = connect(encrypted.address(), HTTP2).await;
        // The server may close before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(encrypted.ask(HTTP2, "/healthz", b"").await.0, StatusCode::OK);
    });
}

#[test]
fn clients_that_say_nothing_are_cut_off() {
    let encrypted = Encrypted::start(&[
        ("RINGLAKE_HTTP_HEAD_TIMEOUT_MS", "1000"),
        ("RINGLAKE_HTTP_IDLE_TIMEOUT_MS", "1000"),
    ]);
    // No handshake at all, half of one, and another protocol.
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(encrypted.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(start).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.unwrap_err().kind() != std::io::ErrorKind::WouldBlock);
        assert!(!answer.starts_with(b"HTTP"), "{}", text(&answer));
        let _ = stream.shutdown(Shutdown::Both);
    }
    block_on(async {
        let (mut sender, connection) = speak(connect(encrypted.address(), HTTP2).await).await;
        let request = Request::get("https://localhost/healthz").body(Full::default()).unwrap();
        let answer = async { sender.send_request(request).await.unwrap().status() };
        let (ended, status) = tokio::join!(connection, answer);
        assert_eq!(status, StatusCode::OK);
        // It ended by itself, well or not.
        drop(ended);
    });
}

#[test]
fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let encrypted = Encrypted::start(&[]);
    let first = shown(encrypted.address());
    install("second", encrypted.directory.path());
    encrypted.server.wait_until("the new one is shown", || shown(encrypted.address()) != first);
    let second = shown(encrypted.address());
    let server = &encrypted.server;
    // A certificate without its key, then no certificate at all.
    let cert = encrypted.directory.path().join("server.pem");
    fs::copy(fixture("first.pem"), &cert).unwrap();
    server.wait_until("the pair is refused", || server.said().contains("cannot be used with"));
    assert_eq!(shown(encrypted.address()), second);
    fs::write(&cert, "nothing").unwrap();
    server.wait_until("the file is refused", || server.said().contains("no certificate"));
    assert_eq!(shown(encrypted.address()), second);
    install("first", encrypted.directory.path());
    server.wait_until("the first one is back", || shown(encrypted.address()) == first);
    let (status, log) = encrypted.server.stop();
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("the certificate has changed").count(), 2, "{log}");
    assert!(log.contains("the last certificate stays"), "{log}");
    for name in ["first.key", "second.key"] {
        let key = fs::read_to_string(fixture(name)).unwrap();
        assert!(key.lines().all(|line| !log.contains(line)), "{log}");
    }
}

#[test]
fn a_wrong_file_at_the_start_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let start = |cert: &Path, key: Option<&Path>| {
        let mut command = ringlake();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(scratch.path().join("d"));
        command.arg("--tls-cert").arg(cert);
        if let Some(key) = key {
            command.arg("--tls-key").arg(key);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let (cert, key, other) = (fixture("first.pem"), fixture("first.key"), fixture("second.key"));
    let missing = scratch.path().join("missing.pem");
    assert!(start(&missing, Some(&key)).contains("missing.pem"));
    assert!(start(&key, Some(&key)).contains("first.key"));
    assert!(start(&cert, Some(&cert)).contains("first.pem"));
    let said = start(&cert, Some(&other));
    assert!(said.contains("first.pem") && said.contains("second.key"), "{said}");
    assert!(start(&cert, None).contains("tls.key"));
}

#[test]
fn the_commands_speak_to_servers_whose_certificate_they_can_check() {
    let encrypted = Encrypted::start(&[]);
    let url = format!("https://localhost:{}", encrypted.address().port());
    let query = |more: &[&str]| {
        let sql = "SELECT count(*) AS n FROM events";
        ringlake().args(["query", sql, "--format", "csv", "--url", &url]).args(more).output()
    };
    let ca = fixture("ca.pem");
    let output = query(&["--ca", ca.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim(), "n\r\n0");
    // The system trusts others; a file without certificates is a mistake.
    let output = query(&[]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("certificate"), "{}", text(&output.stderr));
    let output = query(&["--ca", fixture("first.key").to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("first.key"), "{}", text(&output.stderr));
    // Without a URL they find the server of the directory, which is an encrypted one.
    let output = ringlake()
        .args(["compact", "--ca", ca.to_str().unwrap(), "--data"])
        .arg(encrypted.directory.path().join("data"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}
