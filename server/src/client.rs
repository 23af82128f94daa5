//! The HTTP client of the commands: HTTP/1.1, encrypted or not, one kept-alive connection.
//!
//! **Guarantees.** The server of an `https://` URL has shown a certificate for the name in the URL that
//! is signed by one of those that the system, or the user, trusts. There is no way around that.
//!
//! **Limits.** A request that fails before it was sent is tried once more on a
//! new connection; one that may have arrived never is, because sending it twice could store it twice.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::UsageError;
use crate::cli::SentKey;
use crate::webhooks::is_public;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often [`Client::insist`] sends a request.
const ATTEMPTS_MAX: usize = 120;
/// Its wait before the next attempt when the server does not name one.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
/// Its shortest and longest wait, whatever the server names.
const WAIT_MIN: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Text of an error answer that is shown.
const ERROR_MAX_BYTES: usize = 64 << 10;

/// Where a client may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Wherever the name of the server leads.
    Anywhere,
    /// To addresses that are out on the internet, whatever the name says.
    Internet,
}

/// A server, and perhaps a connection to it.
pub struct Client {
    tls: Option<TlsConnector>,
    reach: Reach,
    host: String,
    port: u16,
    authority: HeaderValue,
    base: String,
    /// `Bearer` and a key, for servers that need one.
    authorization: Option<HeaderValue>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("server", &self.server()).finish_non_exhaustive()
    }
}

/// What a request wants to send.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// Absent: POST with a body, GET without.
    pub method: Option<Method>,
    /// The path with its query string.
    pub path: String,
    /// The body; empty for none.
    pub body: Bytes,
    /// Its type.
    pub content_type: Option<&'static str>,
    /// The answer that is wanted.
    pub accept: Option<&'static str>,
    /// From which byte on the answer is wanted, as long as it has this `ETag`.
    pub from: Option<(u64, String)>,
    /// More headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    /// A client for the server at `url` that sends the key of `sent`, if there is one. Nothing is sent
    /// yet.
    ///
    /// # Errors
    /// A [`UsageError`] for anything but an `http://` or `https://` URL, for a key that no header can
    /// hold, and for certificates that cannot be read.
    pub fn new(url: &str, sent: &SentKey) -> Result<Self> {
        let client = Self::with(url, Reach::Anywhere, || connector(sent.ca()))?;
        Ok(Self { authorization: sent.get().map(bearer).transpose()?, ..client })
    }

    /// A client for the server at `url`, which somebody else has named. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn to_receiver(url: &str, reach: Reach) -> Result<Self> {
        /// What the system trusts takes milliseconds to read, and some 1 MB.
        static TRUSTED: OnceLock<TlsConnector> = OnceLock::new();
        let connector = || match TRUSTED.get() {
            Some(known) => Ok(known.clone()),
            None => connector(None).map(|made| TRUSTED.get_or_init(|| made).clone()),
        };
        Self::with(url, reach, connector)
    }

    fn with(
        url: &str,
        reach: Reach,
        connector: impl FnOnce() -> Result<TlsConnector>,
    ) -> Result<Self> {
        let wrong = |why: &str| UsageError(format!("`{url}` {why}"));
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("is not a URL: {error}")))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            bail!(wrong("is not a URL such as http://127.0.0.1:8080"));
        };
        if uri.query().is_some() {
            bail!(wrong("has a query string; name the server only"));
        }
        let tls = if scheme == "https" { Some(connector()?) } else { None };
        Ok(Self {
            port: authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 }),
            tls,
            reach,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            authority: HeaderValue::from_str(authority.as_str())?,
            authorization: None,
            base: uri.path().trim_end_matches('/').to_owned(),
            connection: None,
        })
    }

    /// Sends one request and waits for the head of its answer.
    ///
    /// # Errors
    /// When the server cannot be reached or breaks off.
    pub async fn send(&mut self, outgoing: &Outgoing) -> Result<Response<Incoming>> {
        let target = self.server();
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            match connection.try_send_request(self.request(outgoing)?).await {
                Ok(response) => {
                    self.connection = Some(connection);
                    return Ok(response);
                }
                Err(mut error) => {
                    // Given back unsent when the server has closed the idle connection.
                    if error.take_message().is_none() {
                        let broken = Err(error.into_error());
                        return broken.with_context(|| format!("{target} broke off"));
                    }
                }
            }
        }
        let mut connection =
            self.connect().await.with_context(|| format!("cannot reach {target}"))?;
        let response = connection.send_request(self.request(outgoing)?).await;
        let response = response.with_context(|| format!("{target} broke off"))?;
        self.connection = Some(connection);
        Ok(response)
    }

    /// Sends one request, and again after the time that the server asks for as long as it cannot
    /// take it (429, 503), [`ATTEMPTS_MAX`] times.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn insist(&mut self, outgoing: &Outgoing) -> Result<Response<Incoming>> {
        let mut attempts = 1;
        loop {
            let response = self.send(outgoing).await?;
            let cannot = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
            if attempts == ATTEMPTS_MAX || !cannot.contains(&response.status()) {
                return Ok(response);
            }
            let wait = retry_after(&response).unwrap_or(DEFAULT_WAIT);
            // Read to its end, so that the connection can be used again.
            read(response, ERROR_MAX_BYTES).await?;
            tokio::time::sleep(wait.clamp(WAIT_MIN, WAIT_MAX)).await;
            attempts += 1;
        }
    }

    fn server(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    fn request(&self, outgoing: &Outgoing) -> Result<Request<Full<Bytes>>> {
        let usual = if outgoing.content_type.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(outgoing.method.clone().unwrap_or(usual))
            .uri(format!("{}{}", self.base, outgoing.path))
            .header(HOST, self.authority.clone());
        if let Some(content_type) = outgoing.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(accept) = outgoing.accept {
            request = request.header(hyper::header::ACCEPT, accept);
        }
        if let Some((from, tag)) = &outgoing.from {
            request = request
                .header(hyper::header::RANGE, format!("bytes={from}-"))
                .header(hyper::header::IF_RANGE, tag);
        }
        for (name, value) in &outgoing.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(outgoing.body.clone()))?)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.reach()).await??;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return speak(stream).await };
        let shaking = tls.connect(ServerName::try_from(self.host.clone())?, stream);
        speak(tokio::time::timeout(CONNECT_TIMEOUT, shaking).await??).await
    }
}

impl Client {
    /// Connects to the first address of the server that takes it.
    async fn reach(&self) -> Result<TcpStream> {
        let server = (self.host.as_str(), self.port);
        if self.reach == Reach::Anywhere {
            return Ok(TcpStream::connect(server).await?);
        }
        // What was looked at is what is connected to: a second look could find another address.
        // Nor does anybody learn which names there are on this side.
        let mut failed = anyhow!("its name leads to no address on the internet");
        let addresses = match lookup_host(server).await {
            Ok(addresses) => addresses,
            Err(error) => {
                tracing::debug!(host = self.host, %error, "a name leads nowhere");
                return Err(failed);
            }
        };
        for address in addresses {
            if !is_public(address.ip()) {
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the sender; its errors reach the request that they concern.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// What believes the certificates in `ca`, or those that the system trusts.
fn connector(ca: Option<&Path>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            let wrong = |why: String| UsageError(format!("--ca {}: {why}", file.display()));
            let found = CertificateDer::pem_file_iter(file);
            for root in found.map_err(|error| wrong(error.to_string()))? {
                let root = root.map_err(|error| wrong(error.to_string()))?;
                roots.add(root).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                bail!(wrong("there is no certificate in PEM in it".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A key as a header that no debug text shows.
fn bearer(key: &str) -> Result<HeaderValue, UsageError> {
    let value = HeaderValue::from_str(&format!("Bearer {key}"));
    let mut value = value.map_err(|_| UsageError("the key is not one line of text".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// How long the server asks to wait before the same request is sent again.
#[must_use]
pub fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads a whole answer of at most `limit` bytes.
///
/// # Errors
/// When it breaks off or is longer.
pub async fn read(response: Response<Incoming>, limit: usize) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), limit);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => bail!("the answer could not be read: {error}"),
    }
}

/// The message of an answer that is not a 2xx.
pub async fn refusal(response: Response<Incoming>) -> String {
    let status = response.status();
    let text = read(response, ERROR_MAX_BYTES).await.unwrap_or_default();
    let message = serde_json::from_slice::<serde_json::Value>(&text)
        .ok()
        .and_then(|answer| answer["error"]["message"].as_str().map(str::to_owned));
    match message {
        Some(message) => format!("the server answered {}: {message}", status.as_u16()),
        None => format!("the server answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let new = |url| Client::new(url, &SentKey::default()).unwrap();
        let client = new("http://127.0.0.1:8080");
        assert_eq!((client.host.as_str(), client.port), ("127.0.0.1", 8080));
        let client = new("http://[::1]/lake/");
        assert_eq!((client.host.as_str(), client.port), ("::1", 80));
        assert_eq!(client.base, "/lake");
        let client = new("HTTPS://lake.example");
        assert_eq!((client.server().as_str(), client.port), ("https://lake.example:443", 443));
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = |key: &str| SentKey::of(key);
        let client = Client::new("http://localhost", &key("rl_secret")).unwrap();
        assert!(!format!("{client:?}").contains("rl_secret"));
        assert!(Client::new("http://localhost", &key("a\nb")).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn other_urls_are_wrong_usage() {
        for url in ["127.0.0.1:8080", "ftp://x", "", "/x"] {
            let error = Client::new(url, &SentKey::default()).unwrap_err();
            assert!(error.is::<UsageError>(), "{url}: {error}");
        }
    }
}
