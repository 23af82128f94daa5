//! Which events robots have sent, by how their programs name themselves.
//!
//! **Guarantees.** Where it is asked for, an event that a robot has sent has `"bot":true` in its
//! `context`; nothing else of it changes, and none is left out. The column `user_agent` counts, or the
//! request's own `User-Agent` where the event has none. A `bot` that the client has put into `context`
//! stays as it is.
//!
//! **Not guaranteed.** That a robot is known: the list is that of the crate `isbot`, and whoever names
//! himself a browser is taken for one.
//!
//! **Roles.** Shards ask, off the way of the requests. An answer takes about a microsecond; for events
//! that follow one another with the same name it is remembered.

use std::borrow::Cow;

use isbot::Bots;

/// What is put into a `context`.
const MARK: &str = "\"bot\":true";
/// The member of one that says it already.
const NAME: &str = "\"bot\"";

/// Knows robots.
#[derive(Debug)]
pub(crate) struct Robots {
    bots: Bots,
    /// The name that was asked for last, and whether it was a robot's.
    last: (String, bool),
}

impl Robots {
    /// Knows those of the list.
    pub(crate) fn new() -> Self {
        Self { bots: Bots::default(), last: (String::new(), false) }
    }

    /// The `context` of an event that `user_agent` has sent.
    pub(crate) fn context<'a>(
        &mut self,
        user_agent: &str,
        context: Option<&'a str>,
    ) -> Option<Cow<'a, str>> {
        if !self.knows(user_agent) || context.is_some_and(says_it) {
            return context.map(Cow::Borrowed);
        }
        let rest = context.and_then(|context| context.trim_start().strip_prefix('{'));
        Some(match rest.map(str::trim) {
            None | Some("}") => Cow::Owned(format!("{{{MARK}}}")),
            Some(members) => Cow::Owned(format!("{{{MARK},{members}")),
        })
    }

    fn knows(&mut self, user_agent: &str) -> bool {
        let (name, is_bot) = &mut self.last;
        if name != user_agent {
            name.replace_range(.., user_agent);
            *is_bot = self.bots.is_bot(user_agent);
        }
        *is_bot
    }
}

/// Whether the object `context` has a member [`NAME`] of its own.
fn says_it(context: &str) -> bool {
    // Nearly all end here. What is found may also be a value, or a member of a member.
    if !context.contains(NAME) {
        return false;
    }
    let (mut depth, mut rest) = (0, context);
    while let Some(at) = rest.find(['{', '[', ']', '}', '"']) {
        let found = &rest[at..];
        rest = &found[1..];
        match found.as_bytes()[0] {
            b'{' | b'[' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {
                let is_member = found.strip_prefix(NAME).map(str::trim_start);
                if depth == 1 && is_member.is_some_and(|behind| behind.starts_with(':')) {
                    return true;
                }
                rest = behind_string(rest);
            }
        }
    }
    false
}

/// What follows the string that `text` begins inside of.
fn behind_string(mut text: &str) -> &str {
    while let Some(at) = text.find(['"', '\\']) {
        let is_end = text.as_bytes()[at] == b'"';
        // A backslash takes the next byte, which is ASCII, along.
        text = text.get(at + if is_end { 1 } else { 2 }..).unwrap_or("");
        if is_end {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

    #[test]
    fn a_robots_context_says_so_and_keeps_the_rest() {
        let mut robots = Robots::new();
        for (before, after) in [
            (None, r#"{"bot":true}"#),
            (Some("{}"), r#"{"bot":true}"#),
            (Some("{ }"), r#"{"bot":true}"#),
            (Some(r#"{"a":{"b":1}}"#), r#"{"bot":true,"a":{"b":1}}"#),
            (Some(" {\n} \n"), r#"{"bot":true}"#),
            (Some(r#" { "a" : 1 } "#), r#"{"bot":true,"a" : 1 }"#),
            (Some(r#"{"bot":false}"#), r#"{"bot":false}"#),
            (Some(r#"{"a":"\"}","bot" :0}"#), r#"{"a":"\"}","bot" :0}"#),
            // Not about the event: a value, a member of a member, text in a text.
            (Some(r#"{"kind":"bot"}"#), r#"{"bot":true,"kind":"bot"}"#),
            (Some(r#"{"a":[{"bot":1}]}"#), r#"{"bot":true,"a":[{"bot":1}]}"#),
            (Some(r#"{"a":"\"bot\":"}"#), r#"{"bot":true,"a":"\"bot\":"}"#),
        ] {
            assert_eq!(robots.context(ROBOT, before).as_deref(), Some(after));
        }
    }

    #[test]
    fn a_browser_and_somebody_without_a_name_are_none() {
        let mut robots = Robots::new();
        for user_agent in [BROWSER, "", ROBOT, BROWSER] {
            let expected = (user_agent == ROBOT).then_some(r#"{"bot":true}"#);
            assert_eq!(robots.context(user_agent, None).as_deref(), expected, "{user_agent}");
        }
    }
}
