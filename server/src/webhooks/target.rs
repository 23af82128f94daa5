//! Where a webhook's messages go: a URL that may be asked for.

use url::{Host, Url};

use super::address::is_public;

/// The parts of a URL that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Scheme, host and port, if it is not the usual one.
    pub origin: String,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads the URL of a webhook. Only where `is_private_allowed` may it be `http`, or name an
    /// address that is not public; what a name stands for is looked at when it is connected to.
    ///
    /// # Errors
    /// What is wrong with it, as a verb phrase.
    pub fn parse(text: &str, is_private_allowed: bool) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        match url.scheme() {
            "https" => {}
            "http" if is_private_allowed => {}
            "http" => {
                return Err("must be an https:// URL; `webhooks.allow_private` allows http".into());
            }
            _ => return Err("must be an https:// URL".into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user name; messages are signed instead".into());
        }
        if url.fragment().is_some() {
            return Err("has a fragment, which no server ever sees".into());
        }
        let address = match url.host() {
            None => return Err("names no host".into()),
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) => None,
        };
        if !is_private_allowed && address.is_some_and(|address| !is_public(address)) {
            return Err("names an address that is not on the internet; `webhooks.allow_private` \
                        allows it"
                .into());
        }
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let origin = url.origin().ascii_serialization();
        Ok(Self { origin, path: format!("{}{query}", url.path()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn a_url_becomes_origin_and_path() {
        let target = Target::parse("https://Example.com:8443/a/b?c=d", false).unwrap();
        assert_eq!(target.origin, "https://example.com:8443");
        assert_eq!(target.path, "/a/b?c=d");
        let target = Target::parse("https://bücher.example", false).unwrap();
        assert_eq!(target.origin, "https://xn--bcher-kva.example");
        assert_eq!(target.path, "/");
        let target = Target::parse("http://127.0.0.1:9/x", true).unwrap();
        assert_eq!(target.origin, "http://127.0.0.1:9");
    }

    #[test]
    fn what_may_not_be_asked_for_is_refused_however_it_is_written() {
        for url in [
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "example.com",
            "",
            "https://",
            "https://user@example.com/",
            "https://user:word@example.com/",
            "https://example.com/#there",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://017700000001/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[fd00::1]/",
        ] {
            assert!(Target::parse(url, false).is_err(), "{url}");
        }
    }
}
