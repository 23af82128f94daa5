//! A generator of realistic beacon traffic: one NDJSON line an event.
//!
//! **Guarantees**: the same seed gives the same bytes on every machine and in every version; a
//! change of the output is a change of the pinned checksum in the tests. `message_id` is unique
//! within a seed. Every line is valid at the default limits.
//!
//! **Not guaranteed**: that any distribution matches a particular site. Pages, user agents and
//! words follow Zipf weights; six tenants have 60 to 2 percent of the sessions.
//!
//! **Algorithm**: 256 sessions are alive at a time; each event belongs to a random one, and a
//! finished session makes room for a new one. The clock starts at a fixed instant and advances
//! by 0 to 400 ms an event, so that a million events span a little over two days. Some clients'
//! clocks are behind by minutes to days, some ahead by up to 90 s. Random numbers come from PCG,
//! whose values are part of its definition; all arithmetic is on integers.
//!
//! **Limits**: a line is about 420 bytes on average and under 2 KiB always. A seed has
//! 2^62 events before a `message_id` repeats.

mod draw;
mod parts;
mod tables;
#[cfg(test)]
mod tests;
mod text;

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use self::draw::Zipf;
use self::tables::{
    APPS, BROWSERS, CAMPAIGNS, CLICKS, LOCALES, LOGS, PAGES, PEOPLE, REFERRERS, SCREENS, SEARCHES,
    SERVERS, TENANTS,
};

/// 2026-10-01T06:00:00Z in milliseconds since the epoch: a fixed instant, for equal bytes.
const START_MS: i64 = 1_790_834_400_000;
/// Sessions that are alive at a time; with the clock's pace, one has an event every 50 s or so.
const SESSIONS: u32 = 256;
/// Numbered variants of each page: the table times this many pages make the long tail.
const PAGE_VARIANTS: u32 = 10;
/// No line is longer; reserved before a line is written.
const LINE_MAX: usize = 2048;
const MINUTE_MS: u32 = 60_000;
const DAY_MS: u32 = 24 * 60 * MINUTE_MS;

/// Writes an endless stream of events; see the module's documentation.
#[derive(Clone, Debug)]
pub struct Generator {
    rng: Pcg64Mcg,
    now_ms: i64,
    /// Events written so far; the source of unique message ids.
    events: u64,
    /// Visitors seen so far; a returning one is a number below.
    visitors: u32,
    /// Folded into every identifier, so that two seeds share none.
    salt: u64,
    pages: Zipf,
    browsers: Zipf,
    words: Zipf,
    sessions: Vec<Session>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Browser,
    App,
    Server,
}

/// One visit: what stays the same over its events, and where it is.
#[derive(Clone, Copy, Debug)]
struct Session {
    client: Client,
    tenant: usize,
    visitor: u32,
    known: bool,
    number: u64,
    agent: usize,
    locale: usize,
    /// Added to the true time: negative for a late clock.
    clock_ms: i64,
    page: u32,
    previous: Option<u32>,
    campaign: Option<usize>,
    referrer: Option<usize>,
    first: bool,
    left: u32,
}

impl Generator {
    /// Starts the stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Generator {
        let mut state = seed;
        let high = draw::split_mix(&mut state);
        let low = draw::split_mix(&mut state);
        let salt = draw::split_mix(&mut state);
        let pages = u32::try_from(PAGES.len()).expect("the table is small") * PAGE_VARIANTS;
        let mut generator = Generator {
            rng: Pcg64Mcg::new(u128::from(high) << 64 | u128::from(low)),
            now_ms: START_MS,
            events: 0,
            visitors: 0,
            salt,
            pages: Zipf::new(pages),
            browsers: Zipf::new(u32::try_from(BROWSERS.len()).expect("the table is small")),
            words: Zipf::new(10),
            sessions: Vec::new(),
        };
        for _ in 0..SESSIONS {
            let session = generator.open_session();
            generator.sessions.push(session);
        }
        generator
    }

    /// Appends the next event to `out`: one JSON object and `\n`.
    pub fn write_event(&mut self, out: &mut Vec<u8>) {
        out.reserve(LINE_MAX);
        self.now_ms += i64::from(self.below(401));
        let slot = self.below(SESSIONS) as usize;
        let mut session = self.sessions[slot];
        match session.client {
            Client::Browser => self.browser_event(&mut session, out),
            Client::App => self.app_event(&mut session, out),
            Client::Server => self.server_event(&mut session, out),
        }
        out.extend_from_slice(b"}\n");
        self.events += 1;
        session.first = false;
        session.left -= 1;
        self.sessions[slot] = if session.left == 0 { self.open_session() } else { session };
    }

    fn open_session(&mut self) -> Session {
        let client = match self.below(100) {
            0..64 => Client::Browser,
            64..88 => Client::App,
            _ => Client::Server,
        };
        let mut share = self.below(100);
        let mut tenant = 0;
        while share >= TENANTS[tenant].percent {
            share -= TENANTS[tenant].percent;
            tenant += 1;
        }
        let returning = self.visitors > 0 && self.chance(40);
        let visitor = if returning { self.below(self.visitors) } else { self.visitors };
        self.visitors = self.visitors.max(visitor.saturating_add(1));
        let agent = match client {
            Client::Browser => self.browsers.pick(&mut self.rng),
            Client::App => self.word(APPS.len()),
            Client::Server => self.word(SERVERS.len()),
        };
        let long = if self.chance(25) { self.below(20) } else { 0 };
        Session {
            client,
            tenant,
            visitor,
            known: returning && self.chance(60),
            number: self.rng.next_u64(),
            agent: agent as usize,
            locale: self.word(LOCALES.len()) as usize,
            clock_ms: self.clock_error(),
            page: self.pages.pick(&mut self.rng),
            previous: None,
            campaign: self.chance(20).then(|| self.word(CAMPAIGNS.len()) as usize),
            referrer: self.chance(60).then(|| self.word(REFERRERS.len()) as usize),
            first: true,
            left: 1 + self.below(6) + long,
        }
    }

    /// How far a client's clock is off: mostly right, some late, a few ahead.
    fn clock_error(&mut self) -> i64 {
        match self.below(100) {
            0..4 => -i64::from(MINUTE_MS + self.below(180 * MINUTE_MS)),
            4 => -i64::from(self.below(6 * DAY_MS)),
            5..7 => i64::from(self.below(90_000)),
            _ => -i64::from(self.below(2_000)),
        }
    }

    /// Uniform below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        draw::below(&mut self.rng, bound)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// Zipf-weighted index into a short table.
    fn word(&mut self, len: usize) -> u32 {
        let len = u32::try_from(len).expect("the tables are small");
        let index = self.words.pick(&mut self.rng);
        if index < len { index } else { self.below(len) }
    }
}

/// The kinds of clients.
impl Generator {
    fn browser_event(&mut self, session: &mut Session, out: &mut Vec<u8>) {
        let roll = if session.first { 0 } else { self.below(100) };
        match roll {
            0..52 => {
                if !session.first {
                    session.previous = Some(session.page);
                    session.page = self.pages.pick(&mut self.rng);
                }
                self.head(session, "page", None, out);
                self.web_fields(session, out);
                self.page_properties(session.page, out);
            }
            52..70 => {
                let (event, label) = CLICKS[self.word(CLICKS.len()) as usize];
                self.head(session, "track", Some(event), out);
                self.web_fields(session, out);
                text::push(out, br#","properties":{"label":""#, label.as_bytes());
                out.extend_from_slice(br#"","position":"#);
                text::decimal(out, u64::from(self.below(12)));
                out.push(b'}');
            }
            70..80 => self.search(session, out),
            80..90 => {
                self.head(session, "track", Some("Product Viewed"), out);
                self.web_fields(session, out);
                self.product_properties(out);
            }
            90..94 => {
                self.head(session, "track", Some("Order Completed"), out);
                self.web_fields(session, out);
                self.order_properties(out);
            }
            94..98 => self.identify(session, out),
            98 => {
                self.head(session, "group", None, out);
                self.web_fields(session, out);
                out.extend_from_slice(br#","properties":{"group_id":"g"#);
                text::decimal(out, u64::from(session.visitor % 97));
                out.extend_from_slice(br#"","plan":"team","seats":"#);
                text::decimal(out, u64::from(2 + self.below(60)));
                out.push(b'}');
            }
            _ => {
                self.head(session, "track", Some("Page Left"), out);
                self.web_fields(session, out);
            }
        }
        self.context(session, out);
    }

    fn app_event(&mut self, session: &mut Session, out: &mut Vec<u8>) {
        match if session.first { 0 } else { self.below(100) } {
            0..50 => {
                let screen = SCREENS[self.word(SCREENS.len()) as usize];
                self.head(session, "screen", Some(screen), out);
                self.app_fields(session, out);
                out.extend_from_slice(br#","properties":{"duration_ms":"#);
                text::decimal(out, u64::from(self.below(60_000)));
                let dark: &[u8] = if self.chance(30) { b"true" } else { b"false" };
                text::push(out, br#","dark_mode":"#, dark);
                out.extend_from_slice(br#","battery":0."#);
                text::decimal(out, u64::from(10 + self.below(90)));
                out.push(b'}');
            }
            50..85 => {
                self.head(session, "track", Some("Product Viewed"), out);
                self.app_fields(session, out);
                self.product_properties(out);
            }
            85..95 => {
                self.head(session, "track", Some("Order Completed"), out);
                self.app_fields(session, out);
                self.order_properties(out);
            }
            _ => self.identify(session, out),
        }
        self.context(session, out);
    }

    fn server_event(&mut self, session: &mut Session, out: &mut Vec<u8>) {
        match self.below(100) {
            0..60 => {
                self.head(session, "track", Some("Order Completed"), out);
                self.order_properties(out);
            }
            60..90 => {
                let (level, message) = LOGS[self.word(LOGS.len()) as usize];
                self.head(session, "log", None, out);
                text::push(out, br#","properties":{"level":""#, level.as_bytes());
                text::push(out, br#"","message":""#, message.as_bytes());
                out.extend_from_slice(br#"","job":{"id":"#);
                text::decimal(out, self.rng.next_u64() >> 20);
                out.extend_from_slice(br#","tags":["nightly",null,"eu-1"]}}"#);
            }
            90..96 => {
                self.head(session, "alias", None, out);
                out.extend_from_slice(br#","properties":{"previous_id":""#);
                text::hex(out, draw::mix(self.anonymous_id(session)));
                out.extend_from_slice(br#""}"#);
            }
            _ => self.identify(session, out),
        }
        text::push(out, br#","user_agent":""#, SERVERS[session.agent].as_bytes());
        out.push(b'"');
    }

    fn search(&mut self, session: &Session, out: &mut Vec<u8>) {
        let (query, words) = SEARCHES[self.word(SEARCHES.len()) as usize];
        self.head(session, "track", Some("Products Searched"), out);
        text::push(out, br#","url":""#, TENANTS[session.tenant].origin.as_bytes());
        text::push(out, b"/search?q=", query.as_bytes());
        out.extend_from_slice(b"&page=");
        text::decimal(out, u64::from(1 + self.below(4)));
        text::push(out, br#"","user_agent":""#, BROWSERS[session.agent].as_bytes());
        text::push(out, br#"","properties":{"query":""#, words.as_bytes());
        out.extend_from_slice(br#"","hits":"#);
        text::decimal(out, u64::from(self.below(240)));
        out.extend_from_slice(br#","filters":{}}"#);
    }

    fn identify(&mut self, session: &mut Session, out: &mut Vec<u8>) {
        session.known = true;
        let (name, city) = PEOPLE[session.visitor as usize % PEOPLE.len()];
        self.head(session, "identify", None, out);
        text::push(out, br#","properties":{"name":""#, name.as_bytes());
        out.extend_from_slice(br#"","email":"user"#);
        text::decimal(out, u64::from(session.visitor));
        text::push(out, br#"@mail.example","address":{"city":""#, city.as_bytes());
        out.extend_from_slice(br#"","zip":null}}"#);
    }
}
