//! The header `traceparent` of W3C Trace Context.

use hyper::HeaderMap;

/// The span of a client that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace that goes on.
    pub trace_id: [u8; 16],
    /// The span that the request was sent in.
    pub span_id: [u8; 8],
    /// Whether the client keeps its part of the trace.
    pub is_sampled: bool,
}

impl Parent {
    /// What the head of a request says. A header that is not valid, or is there twice, says nothing.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut found = headers.get_all("traceparent").iter();
        let (first, None) = (found.next()?, found.next()) else { return None };
        Self::parse(first.as_bytes())
    }

    /// Reads `version-trace-span-flags`. Versions to come may have more behind that.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|byte| *byte == b'-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let trace_id: [u8; 16] = hex(parts.next()?)?;
        let span_id: [u8; 8] = hex(parts.next()?)?;
        let flags: [u8; 1] = hex(parts.next()?)?;
        let is_known = version != [0xff] && (version != [0] || parts.next().is_none());
        let is_valid = is_known && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, is_sampled: flags[0] & 1 == 1 })
    }
}

/// `N` bytes as lower-case digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_example_of_the_standard_is_read() {
        let parent = Parent::parse(format!("00-{TRACE}-00f067aa0ba902b7-01").as_bytes()).unwrap();
        assert_eq!(parent.trace_id[..3], [0x4b, 0xf9, 0x2f]);
        assert_eq!(parent.span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert!(parent.is_sampled);
        let other = Parent::parse(format!("00-{TRACE}-00f067aa0ba902b7-02").as_bytes()).unwrap();
        assert!(!other.is_sampled);
    }

    #[test]
    fn versions_to_come_may_say_more() {
        assert!(Parent::parse(format!("01-{TRACE}-00f067aa0ba902b7-01-more").as_bytes()).is_some());
        assert!(Parent::parse(format!("00-{TRACE}-00f067aa0ba902b7-01-more").as_bytes()).is_none());
    }

    #[test]
    fn what_is_not_valid_is_nothing() {
        let upper = TRACE.to_uppercase();
        for text in [
            "",
            "00",
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{upper}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            &format!("00-{TRACE}-00f067aa0ba902b7"),
            &format!("00-{TRACE}-00f067aa0ba902b-01"),
            &format!("00-{TRACE}-00f067aa0ba902b7-1"),
            &format!("00-{TRACE}-00f067aa0ba902bé-01"),
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn two_headers_say_nothing() {
        let mut headers = HeaderMap::new();
        let value = format!("00-{TRACE}-00f067aa0ba902b7-01");
        headers.append("traceparent", value.parse().unwrap());
        assert!(Parent::of(&headers).is_some());
        headers.append("traceparent", value.parse().unwrap());
        assert_eq!(Parent::of(&headers), None);
    }
}
