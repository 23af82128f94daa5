//! The same values in each shape of body: an event is good or bad in all shapes or in none, and its
//! record is the same.

use ringlake_event::{Event, Mode};

use crate::events::{Outcome, REQUEST, decode, elements};

/// Values beyond these show nothing new.
const ELEMENTS_MAX: usize = 32;

/// Checks the values of `body` alone, in an array and in lines.
pub fn check(body: &[u8]) {
    let Some(mut elements) = elements(body) else { return };
    elements.truncate(ELEMENTS_MAX);
    let alone: Vec<Option<Outcome>> = elements.iter().map(|element| accepted(element)).collect();
    same(&format!("[{}]", elements.join(" , ")), &alone);
    let is_line = |element: &&str| element.starts_with('{') && !element.contains('\n');
    if !elements.is_empty() && elements.iter().all(is_line) {
        same(&elements.join("\n"), &alone);
    }
}

/// What becomes of `element` as a body of its own.
fn accepted(element: &str) -> Option<Outcome> {
    // An array of events is a body, but no event.
    if !element.starts_with('{') {
        return None;
    }
    let outcome = decode(element.as_bytes(), &REQUEST, Mode::Partial).ok()?;
    (outcome.decoded.accepted == 1).then_some(outcome)
}

/// Checks that `body` accepts the events that are accepted alone, and refuses the others.
fn same(body: &str, alone: &[Option<Outcome>]) {
    let good: Vec<Event<'_>> = alone.iter().flatten().flat_map(Outcome::events).collect();
    let is_bad = |index: &usize| alone[*index].is_none();
    let bad: Vec<usize> = (0..alone.len()).filter(is_bad).collect();
    let partial = decode(body.as_bytes(), &REQUEST, Mode::Partial).unwrap();
    assert_eq!(partial.events(), good);
    let rejected: Vec<usize> = partial.decoded.rejected.iter().map(|one| one.index).collect();
    assert_eq!(rejected, bad);
    match decode(body.as_bytes(), &REQUEST, Mode::Whole) {
        Ok(whole) => assert_eq!((whole.events(), bad.len()), (good, 0)),
        Err(error) => assert_eq!(error.index, bad.first().copied(), "{error}"),
    }
}
