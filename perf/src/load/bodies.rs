//! What a load sends: some requests in turn, or always the same one with other numbers in it.

use std::net::SocketAddr;

use bytes::Bytes;

/// Digits of a number.
const DIGITS: usize = 10;
/// What a template has where a number is to be.
pub const SLOT: &str = "##########";
/// Takes the numbers out of their order: a prime that is larger than any range of them, so that
/// multiplication by it visits all of a range before it repeats.
const STRIDE: u64 = 1_000_000_000_000_037;

/// The requests of a load, head included.
#[derive(Debug)]
pub enum Bodies {
    /// These in turn.
    InTurn {
        /// Whole requests.
        requests: Vec<Bytes>,
        /// Which is next.
        next: usize,
    },
    /// One, with a number in each slot.
    Numbered {
        /// The whole request.
        template: Vec<u8>,
        /// Where the slots are.
        slots: Vec<usize>,
        /// Numbers are below.
        distinct: u64,
        /// Numbers given so far.
        given: u64,
    },
}

impl Bodies {
    /// Sends `bodies`, of which there is at least one, in turn.
    pub fn in_turn(address: SocketAddr, bodies: &[String]) -> Bodies {
        Bodies::with_keys(address, bodies, &[])
    }

    /// The same with `keys`, each body with the next one.
    pub fn with_keys(address: SocketAddr, bodies: &[String], keys: &[String]) -> Bodies {
        assert!(!bodies.is_empty(), "a load needs bodies");
        let mut keys = keys.iter().cycle();
        let requests = bodies.iter().map(|body| request(address, body, keys.next()).into());
        Bodies::InTurn { requests: requests.collect(), next: 0 }
    }

    /// Sends `body` with a number below `distinct` in each of its slots.
    pub fn numbered(address: SocketAddr, body: &str, distinct: u64) -> Bodies {
        let template = request(address, body, None);
        let slots = template.match_indices(SLOT).map(|(at, _)| at).collect();
        Bodies::Numbered { template: template.into_bytes(), slots, distinct, given: 0 }
    }

    /// The next request.
    pub fn next(&mut self) -> Bytes {
        match self {
            Bodies::InTurn { requests, next } => {
                let request = requests[*next].clone();
                *next = (*next + 1) % requests.len();
                request
            }
            Bodies::Numbered { template, slots, distinct, given } => {
                for at in slots {
                    let number = given.wrapping_mul(STRIDE % *distinct) % *distinct;
                    write(number, &mut template[*at..*at + DIGITS]);
                    *given += 1;
                }
                Bytes::copy_from_slice(template)
            }
        }
    }
}

fn write(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

fn request(address: SocketAddr, body: &str, key: Option<&String>) -> String {
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{key}\
         Content-Length: {}\r\n\r\n",
        body.len(),
    );
    head + body
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_visit_all_of_their_range_before_they_repeat() {
        let address = "127.0.0.1:1".parse().unwrap();
        let mut bodies = Bodies::numbered(address, &format!("{SLOT}\n{SLOT}\n"), 1_000);
        let mut seen = BTreeSet::new();
        for _ in 0..500 {
            let request = bodies.next();
            let text = std::str::from_utf8(&request).unwrap();
            seen.extend(text.lines().rev().take(2).map(|line| line.parse::<u64>().unwrap()));
        }
        assert_eq!(seen.len(), 1_000);
        assert_eq!(seen.last(), Some(&999));
    }
}
