//! What time it is, as rows, reports and the table's log count it.
//!
//! **Guarantees.** A clock before 1970 counts as 1970; nothing here panics or overflows.
//!
//! **Not guaranteed.** That time goes on: somebody may set the clock back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Now, in microseconds since 1970.
pub(crate) fn now_micros() -> i64 {
    i64::try_from(since_1970().as_micros()).unwrap_or(i64::MAX)
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}
