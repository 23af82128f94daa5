//! Reading request bodies: bounded in size, in time, and over all requests together.
//!
//! **Guarantees.** A body above the limit is refused as soon as that is known: by its
//! `Content-Length` before a byte of it is read, else at the first byte too many. One that comes
//! more slowly than [`Pace`] allows is given up. What all requests of a loop hold together stays
//! below the loop's [`Budget`].
//!
//! **Memory.** A body that arrives in one piece, with its head, is used where it lies. One that comes in
//! several is gathered in a buffer that is charged to the budget whole, in steps of [`CHARGE_BYTES`], and
//! has room for [`TRUST`] times what has arrived at most, whatever length is announced. (Room that is not
//! used yet would not be free: with huge pages its first byte takes 2 MiB.)

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, EXPECT};

use super::answer::Problem;
use crate::config::HttpConfig;

/// A body whose length is announced is given room for so many times what has arrived of it: all of it
/// after two or three steps, as its pieces grow as well.
const TRUST: usize = 4;
/// The budget is charged in multiples of a page, and the first buffer is one.
const CHARGE_BYTES: usize = 4 << 10;
/// A body that is slower than it may be is given up after this time at the earliest: losing a few
/// packets takes seconds.
const GRACE: Duration = Duration::from_secs(5);
/// How often a slow body is looked at after that.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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
    /// Takes what is missing to `bytes` in all.
    ///
    /// # Errors
    /// [`Problem::Crowded`] when the budget does not have it.
    pub fn cover(&mut self, bytes: usize) -> Result<(), Problem> {
        let wanted = bytes.next_multiple_of(CHARGE_BYTES);
        let more = wanted.saturating_sub(self.bytes);
        let left = self.budget.0.get().checked_sub(more).ok_or(Problem::Crowded)?;
        self.budget.0.set(left);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
    }
}

/// How fast a body has to come.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// All of it has to have come after this time.
    timeout: Duration,
    /// Nothing is given up for being slow before this time.
    grace: Duration,
    /// Average bytes a second after that; 0 is any.
    rate_min_bytes: u64,
}

impl Pace {
    /// What the configuration says.
    pub fn of(config: &HttpConfig) -> Self {
        Self {
            timeout: config.body_timeout,
            grace: GRACE,
            rate_min_bytes: config.body_rate_min_bytes,
        }
    }

    /// Waits for `reading`, which counts in `arrived`.
    async fn keep(
        self,
        reading: impl Future<Output = Result<(), Problem>>,
        arrived: &Cell<usize>,
    ) -> Result<(), Problem> {
        let mut reading = pin!(reading);
        let began = tokio::time::Instant::now();
        let mut look = self.grace;
        loop {
            let until = look.min(self.timeout);
            if let Ok(outcome) = tokio::time::timeout_at(began + until, reading.as_mut()).await {
                return outcome;
            }
            if until >= self.timeout {
                return Err(Problem::BodyTimeout(self.timeout));
            }
            let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            if (arrived.get() as u64) < self.rate_min_bytes.saturating_mul(millis) / 1_000 {
                return Err(Problem::BodyTooSlow(self.rate_min_bytes));
            }
            look += LOOK_EVERY;
        }
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
/// [`Problem::BodyTooLarge`] above `limit`, [`Problem::BodyTimeout`] and [`Problem::BodyTooSlow`] by
/// `pace`, [`Problem::BodyBroken`] and [`Problem::Crowded`]; the rest of the body is unread then.
pub async fn collect(
    body: &mut Incoming,
    limit: usize,
    pace: Pace,
    charge: &mut Charge,
) -> Result<Bytes, Problem> {
    let mut gathered = Gathered::default();
    let arrived = Cell::new(0);
    // Most bodies have arrived with their head: no timer is needed for them.
    match gathered.read(body, limit, charge, &arrived).now_or_never() {
        Some(outcome) => outcome?,
        None => {
            // What lies in the connection's buffer is memory too, now that it has to wait.
            charge.cover(gathered.len())?;
            gathered.has_waited = true;
            pace.keep(gathered.read(body, limit, charge, &arrived), &arrived).await?;
        }
    }
    Ok(gathered.into_bytes())
}

/// What has arrived of a body; survives a reader that is dropped half-way.
#[derive(Default)]
struct Gathered {
    /// The only piece so far, …
    first: Bytes,
    /// … or all pieces, once there is more than one.
    all: Vec<u8>,
    /// It did not come with its head: its first piece may have to wait for others.
    has_waited: bool,
}

impl Gathered {
    async fn read(
        &mut self,
        body: &mut Incoming,
        limit: usize,
        charge: &mut Charge,
        arrived: &Cell<usize>,
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
            arrived.set(self.len());
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
            if self.has_waited {
                charge.cover(piece.len())?;
            }
            self.first = piece;
            return Ok(());
        }
        let needed = self.len() + piece.len();
        if needed > self.all.capacity() {
            let trusted = (needed + expected).min(TRUST * needed);
            let room = trusted.max(2 * self.all.capacity()).max(CHARGE_BYTES);
            let room = room.min(limit.max(needed));
            charge.cover(room)?;
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
        let mut gathered = Gathered::default();
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
        assert_eq!(charged, CHARGE_BYTES);
        assert_eq!(budget.0.get(), LIMIT, "what was charged comes back");
    }

    #[test]
    fn room_is_for_some_times_what_has_come_whatever_is_announced() {
        let mut gathered = Gathered::default();
        let budget = Budget::new(LIMIT);
        let mut charge = budget.charge();
        let piece = Bytes::from_static(&[b' '; 1 << 10]);
        let mut left = LIMIT;
        while left > 0 {
            left -= piece.len();
            gathered.add(piece.clone(), left, LIMIT, &mut charge).unwrap();
            let room = gathered.all.capacity();
            assert!(room <= (TRUST * gathered.len()).max(CHARGE_BYTES), "{room}");
            assert!(room <= charge.bytes, "{room} of {} charged bytes", charge.bytes);
        }
        assert_eq!(gathered.into_bytes().len(), LIMIT);
    }

    #[test]
    fn a_piece_that_came_after_its_head_is_charged_also_when_it_is_the_first() {
        let budget = Budget::new(CHARGE_BYTES);
        let mut charge = budget.charge();
        let mut gathered = Gathered { has_waited: true, ..Gathered::default() };
        gathered.add(Bytes::from_static(b"{"), 0, LIMIT, &mut charge).unwrap();
        assert_eq!((charge.bytes, budget.0.get()), (CHARGE_BYTES, 0));
        let mut next = Gathered { has_waited: true, ..Gathered::default() };
        let refused = next.add(Bytes::from_static(b"{"), 0, LIMIT, &mut budget.charge());
        assert!(matches!(refused, Err(Problem::Crowded)));
    }

    #[test]
    fn a_budget_that_is_used_up_refuses() {
        let budget = Budget::new(CHARGE_BYTES - 1);
        assert!(matches!(gather(&[b"a", b"b"], &budget), Err(Problem::Crowded)));
        assert_eq!(budget.0.get(), CHARGE_BYTES - 1);
    }

    /// A body of which so many bytes come every 10 ms, for half a second.
    fn arriving(bytes_each: usize, pace: Pace) -> Result<(), Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let arrived = Cell::new(0);
            let reading = async {
                for _ in 0..50 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    arrived.set(arrived.get() + bytes_each);
                }
                Ok(())
            };
            pace.keep(reading, &arrived).await
        })
    }

    #[test]
    fn a_body_that_drips_is_given_up_and_a_steady_one_is_not() {
        let grace = Duration::from_millis(100);
        let pace = Pace { timeout: Duration::from_secs(30), grace, rate_min_bytes: 1_000 };
        assert!(matches!(arriving(1, pace), Err(Problem::BodyTooSlow(1_000))));
        assert!(arriving(1_000_000, pace).is_ok());
        assert!(arriving(0, Pace { rate_min_bytes: 0, ..pace }).is_ok());
        let hurried = Pace { timeout: Duration::from_millis(50), ..pace };
        assert!(matches!(arriving(1_000_000, hurried), Err(Problem::BodyTimeout(_))));
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
