//! Requests that wait for a decision of another shard, as they came from the ring.
//!
//! **Limits.** Beyond [`REQUESTS_MAX`] requests or [`BYTES_MAX`] bytes the shard reads no further
//! request until one is decided: its ring fills, and new requests are refused. To turn a waiting one
//! away instead would take back what `ack=memory` has promised. Another shard decides within one
//! write of its log, so that only a disk that stands still brings so many together.

/// Requests that may wait: a few milliseconds of single events that all repeat what another shard
/// is just writing.
pub(super) const REQUESTS_MAX: usize = 1_024;
/// Bytes of them. The last one may exceed it by its own length, at most half of the ring.
pub(super) const BYTES_MAX: usize = 8 << 20;

/// The waiting requests of a shard, oldest first.
#[derive(Debug, Default)]
pub(super) struct HeldRequests {
    requests: Vec<HeldRequest>,
    bytes: usize,
}

/// One request.
#[derive(Debug)]
pub(super) struct HeldRequest {
    pub ticket: u64,
    pub record: Box<[u8]>,
}

impl HeldRequests {
    pub fn push(&mut self, ticket: u64, record: &[u8]) {
        self.bytes += record.len();
        self.requests.push(HeldRequest { ticket, record: record.into() });
    }

    /// Whether no further request may be read.
    pub fn is_full(&self) -> bool {
        self.requests.len() >= REQUESTS_MAX || self.bytes >= BYTES_MAX
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// The ticket of the one that came first.
    pub fn oldest(&self) -> Option<u64> {
        self.requests.first().map(|request| request.ticket)
    }

    /// Takes out every request of which `is_over` says that it need not wait any more.
    pub fn release(&mut self, mut is_over: impl FnMut(&HeldRequest) -> bool) {
        self.requests.retain(|request| !is_over(request));
        self.bytes = self.requests.iter().map(|request| request.record.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_full_by_number_or_by_bytes() {
        let mut held = HeldRequests::default();
        for ticket in 0..REQUESTS_MAX as u64 {
            assert!(!held.is_full());
            held.push(ticket, b"x");
        }
        assert!(held.is_full());
        held.release(|request| request.ticket < 10);
        assert!(!held.is_full());
        assert_eq!((held.oldest(), held.len()), (Some(10), REQUESTS_MAX - 10));
        held.push(9_999, &vec![0; BYTES_MAX]);
        assert!(held.is_full());
        held.release(|_| true);
        assert!(!held.is_full());
        assert_eq!(held.oldest(), None);
    }
}
