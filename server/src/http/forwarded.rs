//! Whose request it is when proxies stand in between, and what may be kept of that.
//!
//! **Guarantees.** A header is believed only as far as trusted proxies have written it: the list is
//! read from its end, and the first address that is no trusted proxy's is the client's. When
//! `X-Forwarded-For` and `Forwarded` are both there and disagree, one of them is forged, and neither
//! is believed. Without configured proxies no header is looked at.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::HeaderMap;
use hyper::header::{FORWARDED, USER_AGENT};
use ringlake_event::Sender;

use crate::config::{HttpConfig, Privacy};

/// Most addresses that are read of a list: nobody has that many proxies.
const HOPS_MAX: usize = 16;

/// A range of addresses, as `10.0.0.0/8` or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(whole);
        if prefix <= whole { Ok(Self { address, prefix }) } else { Err(()) }
    }
}

/// The address of the client behind `peer`.
#[must_use]
pub fn client(peer: IpAddr, headers: &HeaderMap, config: &HttpConfig) -> IpAddr {
    let peer = peer.to_canonical();
    if !config.trusts(peer) {
        return peer;
    }
    let simple = list(headers, "x-forwarded-for");
    let standard = list(headers, FORWARDED.as_str());
    let simple = simple.map(|list| nearest(peer, list.rsplit(',').map(parse_address), config));
    let standard = standard.map(|list| nearest(peer, list.rsplit(',').map(parse_for), config));
    match (simple, standard) {
        (Some(client), None) | (None, Some(client)) => client,
        (Some(simple), Some(standard)) if simple == standard => simple,
        _ => peer,
    }
}

/// What the engine may know of the client behind `peer`, if anything.
#[must_use]
pub fn sender<'a>(
    peer: IpAddr,
    headers: &'a HeaderMap,
    config: &HttpConfig,
    privacy: Privacy,
) -> Option<Sender<'a>> {
    let says_one = |name| headers.get(name).is_some_and(|value| value == "1");
    if privacy.honour_dnt && (says_one("dnt") || says_one("sec-gpc")) {
        return None;
    }
    let user_agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    Some(Sender {
        address: client(peer, headers, config),
        user_agent: user_agent.unwrap_or_default(),
        keep_address: privacy.store_ip,
    })
}

/// All values of a header as one list; `None` when there is none or it is not text.
fn list(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut joined: Option<String> = None;
    for value in headers.get_all(name) {
        let value = value.to_str().ok()?;
        match &mut joined {
            Some(joined) => {
                joined.push(',');
                joined.push_str(value);
            }
            None => joined = Some(value.to_owned()),
        }
    }
    joined
}

/// Follows a list from its end for as long as who wrote an entry is trusted.
fn nearest(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    config: &HttpConfig,
) -> IpAddr {
    let mut client = peer;
    for hop in hops.take(HOPS_MAX) {
        // What cannot be read ends the trust in what stands before it.
        let Some(address) = hop else { break };
        client = address.to_canonical();
        if !config.trusts(client) {
            break;
        }
    }
    client
}

/// An address with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The `for` of an element such as `proto=https;for="[2001:db8::1]:443"`.
fn parse_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| parse_address(value.trim().trim_matches('"')))?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn config(proxies: &[&str]) -> HttpConfig {
        let trusted_proxies = proxies.iter().map(|text| text.parse().unwrap()).collect();
        HttpConfig { trusted_proxies, ..HttpConfig::default() }
    }

    fn seen(peer: &str, headers: &[(&'static str, &str)], proxies: &[&str]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client(peer.parse().unwrap(), &map, &config(proxies)).to_string()
    }

    #[test]
    fn networks_are_ranges_of_addresses() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "203.0.113.9") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "::"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "example.org", "10.0.0/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn headers_of_strangers_are_not_believed() {
        let forged = [("x-forwarded-for", "192.0.2.66")];
        assert_eq!(seen("198.51.100.1", &forged, &[]), "198.51.100.1");
        assert_eq!(seen("198.51.100.1", &forged, &["10.0.0.0/8"]), "198.51.100.1");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let proxies = ["10.0.0.0/8", "::1"];
        let behind = |list: &str| seen("10.0.0.1", &[("x-forwarded-for", list)], &proxies);
        assert_eq!(behind("192.0.2.1"), "192.0.2.1");
        // What the client itself sent stands in front of what the proxy has seen.
        assert_eq!(behind("203.0.113.66, 192.0.2.1"), "192.0.2.1");
        assert_eq!(behind("203.0.113.66, 192.0.2.1:4711, 10.1.1.1"), "192.0.2.1");
        assert_eq!(behind("[2001:db8::7]:80"), "2001:db8::7");
        assert_eq!(behind("192.0.2.1, unknown, 10.1.1.1"), "10.1.1.1");
        assert_eq!(behind(""), "10.0.0.1");
        let two = [("x-forwarded-for", "203.0.113.66"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(seen("::1", &two, &proxies), "192.0.2.1");
        let long = vec!["10.0.0.2"; 1_000].join(",");
        assert_eq!(behind(&long), "10.0.0.2");
    }

    #[test]
    fn the_standard_header_says_the_same() {
        let behind = |list: &str| seen("10.0.0.1", &[("forwarded", list)], &["10.0.0.0/8"]);
        assert_eq!(behind("for=192.0.2.1;proto=https;by=10.0.0.1"), "192.0.2.1");
        assert_eq!(behind("for=203.0.113.66, proto=http;For=\"[2001:db8::7]:443\""), "2001:db8::7");
        assert_eq!(behind("for=_hidden"), "10.0.0.1");
        let both = [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(seen("10.0.0.1", &both, &["10.0.0.0/8"]), "192.0.2.1");
        let forged = [("forwarded", "for=192.0.2.66"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(seen("10.0.0.1", &forged, &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn who_does_not_want_to_be_counted_is_not_when_the_operator_says_so() {
        let peer = "192.0.2.1".parse().unwrap();
        let config = config(&[]);
        for header in ["dnt", "sec-gpc"] {
            let mut headers = HeaderMap::new();
            headers.insert(header, "1".parse().unwrap());
            let honour = Privacy { honour_dnt: true, store_ip: true };
            assert!(sender(peer, &headers, &config, honour).is_none());
            assert!(sender(peer, &headers, &config, Privacy::default()).is_some());
            headers.insert(header, "0".parse().unwrap());
            assert!(sender(peer, &headers, &config, honour).unwrap().keep_address);
        }
    }
}
