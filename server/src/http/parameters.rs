//! The query parameters of the routes that read: taken one by one, and none left over.
//!
//! A parameter that nobody knows, or that is given twice, is refused: a filter that is silently not
//! applied shows what was not asked for.

use ringlake_event::QUOTE_MAX_CHARS;
use ringlake_event::time::{parse_epoch, parse_rfc3339};

use super::answer::Problem;

/// What a moment may look like.
pub const MOMENT: &str = "an RFC 3339 time, a day such as 2026-01-31, or an epoch number";

/// The parameters that have not been taken yet.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query string. A key in it is not one of them: it counts for ingest only, and is
    /// ignored everywhere else.
    pub fn new(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().filter(|(name, _)| name != "key").collect())
    }

    /// Takes the value of `name`.
    ///
    /// # Errors
    /// When it is given twice.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(known, _)| known == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.swap_remove(at);
        if self.0.iter().any(|(known, _)| known == name) {
            return Err(Problem::Malformed(format!("query parameter {name} is given twice")));
        }
        Ok(Some(value))
    }

    /// Takes a moment, in microseconds since 1970.
    ///
    /// # Errors
    /// When it is none, or given twice.
    pub fn moment(&mut self, name: &'static str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        moment(&text).map(Some).ok_or_else(|| bad(name, &text, MOMENT))
    }

    /// Takes a number from 1 to `max`; `allowed` says so.
    ///
    /// # Errors
    /// When it is none, or given twice.
    pub fn count(
        &mut self,
        name: &'static str,
        max: usize,
        allowed: &'static str,
    ) -> Result<Option<usize>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.map(Some).ok_or_else(|| bad(name, &text, allowed))
    }

    /// Takes one of `choices`; `allowed` names them.
    ///
    /// # Errors
    /// When it is none of them, or given twice.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        allowed: &'static str,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let chosen = choices.iter().find(|(known, _)| *known == text);
        chosen.map(|(_, chosen)| Some(*chosen)).ok_or_else(|| bad(name, &text, allowed))
    }

    /// Refuses what nobody has taken; `known` are the names of this route.
    ///
    /// # Errors
    /// When there is something.
    pub fn finish(self, known: &str) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let name = quote(name);
        Err(Problem::Malformed(format!("query parameter {name} is not known here; known: {known}")))
    }
}

fn bad(name: &'static str, value: &str, allowed: &'static str) -> Problem {
    Problem::BadParameter { name, value: quote(value), allowed }
}

/// What the client sent is quoted, but not all of it.
fn quote(text: &str) -> String {
    text.chars().take(QUOTE_MAX_CHARS).collect()
}

/// Reads a moment as people write it in a URL.
#[must_use]
pub fn moment(text: &str) -> Option<i64> {
    if text.len() == 10 && text.as_bytes()[4] == b'-' {
        return parse_rfc3339(format!("{text}T00:00:00Z").as_bytes());
    }
    if let Some(moment) = parse_rfc3339(text.as_bytes()) {
        return Some(moment);
    }
    // A + that was not escaped arrives as a space.
    let split = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at))?;
    let (head, offset) = text.split_at(split);
    match offset.strip_prefix(' ') {
        Some(offset) => parse_rfc3339(format!("{head}+{offset}").as_bytes()),
        None => parse_epoch(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn moments_are_times_days_and_epoch_numbers() {
        let expected = Some(1_769_860_800_000_000);
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T13:00:00 01:00",
            "1769860800",
            "1769860800000",
        ] {
            assert_eq!(moment(text), expected, "{text}");
        }
        assert_eq!(moment("2026-01-31"), Some(1_769_817_600_000_000));
        for text in ["", "now", "2026-13-31", "2026-01-31T12:00:00", "12 30", "äöüäöü"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_unknown_or_given_twice_is_named() {
        let mut parameters = Parameters::new(Some("a=1&a=2"));
        assert!(parameters.text("a").unwrap_err().to_string().contains("a is given twice"));
        let mut parameters = Parameters::new(Some("limit=5&limt=6"));
        assert_eq!(parameters.count("limit", 10, "1 to 10").unwrap(), Some(5));
        assert!(parameters.finish("limit").unwrap_err().to_string().contains("limt"));
    }

    #[test]
    fn a_key_is_no_parameter_however_often_it_is_there() {
        let mut parameters = Parameters::new(Some("key=a&limit=5&key=b"));
        assert_eq!(parameters.count("limit", 10, "1 to 10").unwrap(), Some(5));
        parameters.finish("limit").unwrap();
    }
}
