//! The parts that events are made of: identity, place, properties, context.

use rand_core::Rng;

use super::tables::{
    APPS, BROWSERS, CAMPAIGNS, CURRENCIES, LOCALES, PAGES, REFERRERS, TENANTS, WINDOWS, ZONES,
};
use super::{Client, Generator, Session, draw, text};

impl Generator {
    /// The fields that every event has, without the closing brace.
    pub(super) fn head(
        &mut self,
        session: &Session,
        kind: &str,
        event: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(br#"{"message_id":""#);
        text::uuid(out, self.rng.next_u64(), draw::scramble62(self.events ^ self.salt));
        text::push(out, br#"","tenant":""#, TENANTS[session.tenant].name.as_bytes());
        text::push(out, br#"","type":""#, kind.as_bytes());
        if let Some(event) = event {
            text::push(out, br#"","event":""#, event.as_bytes());
        }
        out.extend_from_slice(br#"","timestamp":""#);
        text::timestamp(out, self.now_ms + session.clock_ms);
        out.push(b'"');
        if session.known || session.client == Client::Server {
            out.extend_from_slice(br#","user_id":"u"#);
            text::decimal(out, u64::from(session.visitor));
            out.push(b'"');
        } else if session.client == Client::App {
            out.extend_from_slice(br#","user_id":null"#);
        }
        if session.client != Client::Server {
            out.extend_from_slice(br#","anonymous_id":""#);
            text::hex(out, self.anonymous_id(session));
            out.extend_from_slice(br#"","session_id":"s"#);
            text::decimal(out, session.number >> 30);
            out.push(b'"');
        }
    }

    /// One visitor has another identity at each tenant, as cookies do.
    pub(super) fn anonymous_id(&self, session: &Session) -> u64 {
        draw::mix(self.salt ^ (session.tenant as u64) << 32 ^ u64::from(session.visitor))
    }

    /// The referrer goes with the first event and with page views, as browsers' trackers send it.
    pub(super) fn web_fields(&mut self, session: &mut Session, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","url":""#);
        Self::page_url(session, session.page, out);
        if session.first
            && let Some(campaign) = session.campaign
        {
            out.extend_from_slice(CAMPAIGNS[campaign].as_bytes());
        }
        out.push(b'"');
        match (session.previous.take(), session.referrer.filter(|_| session.first)) {
            (Some(previous), _) => {
                out.extend_from_slice(br#","referrer":""#);
                Self::page_url(session, previous, out);
                out.push(b'"');
            }
            (None, Some(referrer)) => {
                text::push(out, br#","referrer":""#, REFERRERS[referrer].as_bytes());
                out.push(b'"');
            }
            (None, None) if session.first => {
                out.extend_from_slice(br#","referrer":null"#);
            }
            (None, None) => {}
        }
        text::push(out, br#","user_agent":""#, BROWSERS[session.agent].as_bytes());
        out.push(b'"');
    }

    pub(super) fn app_fields(&mut self, session: &Session, out: &mut Vec<u8>) {
        text::push(out, br#","user_agent":""#, APPS[session.agent].as_bytes());
        out.push(b'"');
    }

    fn page_url(session: &Session, page: u32, out: &mut Vec<u8>) {
        let (path, _) = PAGES[page as usize % PAGES.len()];
        text::push(out, TENANTS[session.tenant].origin.as_bytes(), path.as_bytes());
        let variant = page as usize / PAGES.len();
        if variant > 0 {
            out.extend_from_slice(b"/");
            text::decimal(out, variant as u64);
        }
    }

    pub(super) fn page_properties(&mut self, page: u32, out: &mut Vec<u8>) {
        let (_, title) = PAGES[page as usize % PAGES.len()];
        text::push(out, br#","properties":{"title":""#, title.as_bytes());
        out.extend_from_slice(br#"","load_ms":"#);
        text::decimal(out, u64::from(80 + self.below(2_400)));
        out.push(b'}');
    }

    pub(super) fn product_properties(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","properties":{"product":"#);
        self.product(out);
        out.extend_from_slice(br#","position":"#);
        text::decimal(out, u64::from(self.below(40)));
        out.push(b'}');
    }

    fn product(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"sku":"K-"#);
        text::decimal(out, u64::from(1_000 + self.pages.pick(&mut self.rng)));
        out.extend_from_slice(br#"","price":"#);
        text::cents(out, u64::from(99 + self.below(30_000)));
        out.push(b'}');
    }

    pub(super) fn order_properties(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","properties":{"order_id":"o-"#);
        text::decimal(out, self.rng.next_u64() >> 36);
        text::push(
            out,
            br#"","currency":""#,
            CURRENCIES[self.word(CURRENCIES.len()) as usize].as_bytes(),
        );
        out.extend_from_slice(br#"","total":"#);
        text::cents(out, u64::from(499 + self.below(90_000)));
        out.extend_from_slice(br#","items":["#);
        self.product(out);
        for _ in 0..self.below(3) {
            out.push(b',');
            self.product(out);
        }
        out.extend_from_slice(br#"],"coupon":null}"#);
    }

    /// What a client says about itself: absent more often than not, as beacons are kept small.
    pub(super) fn context(&mut self, session: &Session, out: &mut Vec<u8>) {
        match session.number % 16 {
            0 => {
                let (width, height) = WINDOWS[self.word(WINDOWS.len()) as usize];
                text::push(out, br#","context":{"locale":""#, LOCALES[session.locale].as_bytes());
                text::push(
                    out,
                    br#"","timezone":""#,
                    ZONES[session.locale % ZONES.len()].as_bytes(),
                );
                out.extend_from_slice(br#"","screen":{"width":"#);
                text::decimal(out, u64::from(width));
                out.extend_from_slice(br#","height":"#);
                text::decimal(out, u64::from(height));
                out.extend_from_slice(b"}}");
            }
            1..5 => {
                text::push(out, br#","context":{"locale":""#, LOCALES[session.locale].as_bytes());
                out.extend_from_slice(br#""}"#);
            }
            5 => out.extend_from_slice(br#","context":null"#),
            _ => {}
        }
    }
}
