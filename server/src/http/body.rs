//! Reading request bodies: bounded in size, in time, and over all requests together.
//!
//! **Guarantees.** A body above the limit is refused as soon as that is known: by its
//! `Content-Length` before a byte of it is read, else at the first byte too many. What all requests
//! of a loop hold together stays below the loop's [`Budget`].
//!
//! **Memory.** A body that arrives in one piece is used where it lies. One that comes in several is
//! gathered in a buffer that grows by doubling and is charged to the budget as it grows.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, EXPECT};

use super::answer::Problem;

/// A body whose length is announced is given this much room at most before it has arrived.
const TRUSTED_BYTES: usize = 1 << 20;
/// The first buffer of a body of unknown length.
const FIRST_BYTES: usize = 64 << 10;
/// After an early answer this much is still read, so that the client gets to see the answer …
pub const DRAIN_BYTES: usize = 16 << 20;
/// … but not for longer than this.
pub const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Bytes that the bodies of one loop may hold together.
#[derive(Debug, Clone)]
pub struct Budget(Rc<Cell<usize>>);

impl Budget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    /// Takes nothing yet; what is charged later comes back when the value is dropped.
    #[must_use]
    pub fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

/// What one body has taken from the budget.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// [`Problem::Crowded`] when the budget does not have them.
    pub fn add(&mut self, bytes: usize) -> Result<(), Problem> {
        let left = self.budget.0.get().checked_sub(bytes).ok_or(Problem::Crowded)?;
        self.budget.0.set(left);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
    }
}

/// Refuses by the announced length, before anything is read.
///
/// # Errors
/// [`Problem::BodyTooLarge`].
pub fn check_length(headers: &HeaderMap, limit: usize) -> Result<(), Problem> {
    match announced(headers) {
        Some(length) if length > limit => Err(Problem::BodyTooLarge { limit }),
        _ => Ok(()),
    }
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads the whole of `body`.
///
/// # Errors
/// [`Problem::BodyTooLarge`] above `limit`, [`Problem::BodyTimeout`], [`Problem::BodyBroken`] and
/// [`Problem::Crowded`]; the rest of the body is unread then.
pub async fn collect(
    body: &mut Incoming,
    limit: usize,
    timeout: Duration,
    charge: &mut Charge,
) -> Result<Bytes, Problem> {
    let mut gathered = Gathered { first: Bytes::new(), all: Vec::new() };
    // Most bodies have arrived with their head: no timer is needed for them.
    let outcome = match gathered.read(body, limit, charge).now_or_never() {
        Some(outcome) => outcome,
        None => tokio::time::timeout(timeout, gathered.read(body, limit, charge))
            .await
            .unwrap_or(Err(Problem::BodyTimeout(timeout))),
    };
    outcome.map(|()| gathered.into_bytes())
}

/// What has arrived of a body; survives a reader that is dropped half-way.
struct Gathered {
    /// The only piece so far, …
    first: Bytes,
    /// … or all pieces, once there is more than one.
    all: Vec<u8>,
}

impl Gathered {
    async fn read(
        &mut self,
        body: &mut Incoming,
        limit: usize,
        charge: &mut Charge,
    ) -> Result<(), Problem> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::BodyBroken(reason(&error)))?;
            // Trailers mean nothing to us.
            let Ok(piece) = frame.into_data() else { continue };
            if self.len() + piece.len() > limit {
                return Err(Problem::BodyTooLarge { limit });
            }
            let expected = body.size_hint().exact().and_then(|rest| usize::try_from(rest).ok());
            self.add(piece, expected.unwrap_or(0), limit, charge)?;
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn add(
        &mut self,
        piece: Bytes,
        expected: usize,
        limit: usize,
        charge: &mut Charge,
    ) -> Result<(), Problem> {
        if self.len() == 0 {
            self.first = piece;
            return Ok(());
        }
        let needed = self.len() + piece.len();
        if needed > self.all.capacity() {
            let trusted = (needed + expected).min(TRUSTED_BYTES);
            let room = needed.max(trusted).max(2 * self.all.capacity()).max(FIRST_BYTES);
            let room = room.min(limit.max(needed));
            charge.add(room - self.all.capacity())?;
            self.all.reserve_exact(room - self.all.len());
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        self.all.extend_from_slice(&piece);
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}

/// hyper's errors say what happened only in their source.
fn reason(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection ended before the body did".into();
    }
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// Whether the rest of `body` has to be read before the connection may be closed.
///
/// A client that waits for `100 Continue` has not sent anything and reads our answer instead.
pub fn needs_draining(body: &impl Body, headers: &HeaderMap) -> bool {
    !body.is_end_stream() && !headers.contains_key(EXPECT)
}

/// Reads and discards `body` up to [`DRAIN_BYTES`] and [`DRAIN_TIME`].
///
/// Closing a connection with unread bytes resets it, and the reset can overtake the answer.
pub async fn drain(mut body: impl Body<Data = Bytes> + Unpin) {
    let discard = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // When the time is up the connection is closed as it is.
    let _ = tokio::time::timeout(DRAIN_TIME, discard).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    const LIMIT: usize = 4 << 20;

    fn gather(pieces: &[&'static [u8]], budget: &Budget) -> Result<(Bytes, usize), Problem> {
        let mut charge = budget.charge();
        let mut gathered = Gathered { first: Bytes::new(), all: Vec::new() };
        for piece in pieces {
            gathered.add(Bytes::from_static(piece), 0, LIMIT, &mut charge)?;
        }
        Ok((gathered.into_bytes(), charge.bytes))
    }

    #[test]
    fn one_piece_is_used_where_it_lies() {
        static PIECE: &[u8] = b"{}";
        let (bytes, charged) = gather(&[PIECE], &Budget::new(0)).unwrap();
        assert_eq!(bytes.as_ptr(), PIECE.as_ptr());
        assert_eq!(charged, 0);
    }

    #[test]
    fn pieces_are_joined_in_order_and_charged() {
        let budget = Budget::new(LIMIT);
        let (bytes, charged) = gather(&[b"{\"a\"", b":", b"1}"], &budget).unwrap();
        assert_eq!(&bytes[..], b"{\"a\":1}");
        assert_eq!(charged, FIRST_BYTES);
        assert_eq!(budget.0.get(), LIMIT, "what was charged comes back");
    }

    #[test]
    fn a_budget_that_is_used_up_refuses() {
        let budget = Budget::new(FIRST_BYTES - 1);
        assert!(matches!(gather(&[b"a", b"b"], &budget), Err(Problem::Crowded)));
        assert_eq!(budget.0.get(), FIRST_BYTES - 1);
    }

    #[test]
    fn an_announced_length_above_the_limit_is_refused_unread() {
        let mut headers = HeaderMap::new();
        assert!(check_length(&headers, 10).is_ok());
        headers.insert(CONTENT_LENGTH, "10".parse().unwrap());
        assert!(check_length(&headers, 10).is_ok());
        headers.insert(CONTENT_LENGTH, "11".parse().unwrap());
        assert!(check_length(&headers, 10).is_err());
    }
}
