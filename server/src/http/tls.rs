//! TLS: the certificate that the server shows, and looking for a newer one.
//!
//! **Guarantees.** A pair of files that was read once stays in use until another pair has been read
//! whole: a certificate that does not fit its key, or half of a file, changes nothing and is logged.
//! Connections keep what they began with. No message and no debug text holds a key.
//!
//! **Algorithm.** TLS 1.2 and 1.3 by rustls; HTTP/2 is offered before HTTP/1.1 (ALPN). The files are
//! looked at once a second: another inode, length or time of change means other contents.
//!
//! **Limits.** A handshake has the time that a request's head has, and runs on the serving loop: half a
//! millisecond of it with an RSA key, a tenth of that with an elliptic curve, nothing of either when the
//! client resumes a session.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::App;

/// The protocol that ALPN calls HTTP/2.
pub const HTTP2: &[u8] = b"h2";
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one version of a file from the next: inode, length, time of the last change.
type Stamp = Option<(u64, u64, i64, i64)>;

/// A certificate and its key, in files.
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<ServerConfig>,
    /// The versions that were read last, well or not. Locked by the one task that looks.
    read: Mutex<[Stamp; 2]>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Why a pair of files cannot be used: names the file.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct BadFile {
    file: String,
    reason: String,
}

impl Tls {
    /// Reads the chain of certificates in `cert`, the server's own first, and its key in `key`, both in
    /// PEM.
    ///
    /// # Errors
    /// [`BadFile`] for a file that cannot be read, holds something else, or does not fit the other.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, BadFile> {
        let stamps = [stamp(cert), stamp(key)];
        let config = read(cert, key)?;
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current: ArcSwap::from_pointee(config),
            read: Mutex::new(stamps),
        })
    }

    /// What accepts the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files if they are others than before; whether they were.
    ///
    /// # Errors
    /// As for [`Tls::load`], once for each version of the files; the pair that was in use stays.
    fn reload(&self) -> Result<bool, BadFile> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at before the files are read: what changes in between is read the next time.
        let stamps = [stamp(&self.cert), stamp(&self.key)];
        if stamps == *known {
            return Ok(false);
        }
        *known = stamps;
        self.current.store(Arc::new(read(&self.cert, &self.key)?));
        Ok(true)
    }
}

/// Takes up newer files for as long as the runtime lives.
pub async fn follow(app: Arc<App>) {
    let mut interval = tokio::time::interval(LOOK_EVERY);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let looking = Arc::clone(&app);
        let look = tokio::task::spawn_blocking(move || match &looking.tls {
            Some(tls) => tls.reload(),
            None => Ok(false),
        });
        match look.await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => tracing::info!("the certificate has changed"),
            Ok(Err(error)) => tracing::error!(%error, "the last certificate stays"),
            Err(_) => tracing::error!("looking at the certificate panicked"),
        }
    }
}

fn stamp(file: &Path) -> Stamp {
    let found = fs::metadata(file).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

fn read(cert: &Path, key: &Path) -> Result<ServerConfig, BadFile> {
    let bad = |file: &Path, reason: String| BadFile { file: file.display().to_string(), reason };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(cert).and_then(|certificates| certificates.collect());
    let chain = chain.map_err(|error| bad(cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(bad(cert, "there is no certificate in PEM in it".into()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, secret);
    let mut config = config.map_err(|error| {
        let reason = format!("it cannot be used with the key {}: {error}", key.display());
        bad(cert, reason)
    })?;
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
