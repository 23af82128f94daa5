//! Decoding, held against serde_json.
//!
//! What is JSON is not a matter of opinion: both read the same bodies. What an event makes of a JSON
//! object is said here once more, in the words of the contract and without regard to speed.

use ringlake_event::{
    DEFAULT_TENANT, DEFAULT_TYPE, DecodeError, Decoded, Decoder, Event, Limits, Mode, Record,
    Request, Source, Tenant, record_bound, time,
};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};

/// Deeper texts are not given to serde_json, which recurses.
const DEPTH_MAX: usize = 400;

pub const REQUEST: Request<'static> = Request {
    received_at: 1_769_860_800_000_000,
    source: Source::Events,
    tenant: Tenant::Open,
    correct_clock: true,
    sender: None,
};

/// The names of each text field, the column's first.
const TEXTS: [&[&str]; 10] = [
    &["message_id", "messageId", "dedup_id"],
    &["tenant"],
    &["type"],
    &["event", "name"],
    &["user_id", "userId"],
    &["anonymous_id", "anonymousId"],
    &["session_id", "sessionId"],
    &["url"],
    &["referrer"],
    &["user_agent", "userAgent"],
];

const TIMES: [&[&str]; 3] =
    [&["timestamp"], &["original_timestamp", "originalTimestamp"], &["sent_at", "sentAt"]];

const OBJECTS: [&[&str]; 2] = [&["properties"], &["context"]];

/// Whether `name` is a name of a field.
pub fn is_known(name: &str) -> bool {
    TEXTS.iter().chain(&TIMES).chain(&OBJECTS).any(|names| names.contains(&name))
}

/// Whether `name` is a name of a field that holds a time.
pub fn is_time(name: &str) -> bool {
    TIMES.iter().any(|names| names.contains(&name))
}

/// A decoded body with its record.
pub struct Outcome {
    pub decoded: Decoded,
    record: Vec<u8>,
}

impl Outcome {
    /// Checks what every record keeps to.
    pub fn new(decoded: Decoded, mut record: Vec<u8>) -> Self {
        record.truncate(decoded.record_len);
        assert_eq!(record.is_empty(), decoded.accepted == 0);
        let outcome = Self { decoded, record };
        assert_eq!(outcome.events().len(), outcome.decoded.accepted);
        outcome
    }

    pub fn events(&self) -> Vec<Event<'_>> {
        if self.record.is_empty() {
            return Vec::new();
        }
        let record = Record::parse(&self.record).unwrap();
        assert_eq!(record.events(), record.iter().len());
        record.iter().collect()
    }

    /// The record's bytes.
    pub fn record(&self) -> &[u8] {
        &self.record
    }
}

/// Decodes `body` into exactly as many bytes as its bound promises.
pub fn decode(body: &[u8], request: &Request<'_>, mode: Mode) -> Result<Outcome, DecodeError> {
    let mut out = vec![0xA5; record_bound(body.len())];
    let decoded = Decoder::new().decode(body, request, &Limits::default(), mode, &mut out)?;
    Ok(Outcome::new(decoded, out))
}

/// The body without its byte order mark, if serde_json can be asked about it.
fn askable(body: &[u8]) -> Option<&[u8]> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let opening = body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    (opening <= DEPTH_MAX).then_some(body)
}

/// Whether serde_json reads one value in `text`; `None` when it cannot be asked.
pub fn is_one_value(text: &[u8]) -> Option<bool> {
    values(text).map(|values| values.is_some_and(|values| values.len() == 1))
}

/// All values that serde_json reads in `text`, or an inner `None` when they are not all JSON.
fn values(text: &[u8]) -> Option<Option<Vec<Value>>> {
    let mut deserializer = Deserializer::from_slice(askable(text)?);
    deserializer.disable_recursion_limit();
    Some(deserializer.into_iter().collect::<Result<_, _>>().ok())
}

/// The objects that an accepted body holds, as serde_json reads them.
pub fn objects(body: &[u8]) -> Option<Vec<Map<String, Value>>> {
    let values = values(body)?.expect("an accepted body is JSON for serde_json too");
    let elements = match values.as_slice() {
        [Value::Array(elements)] => elements,
        lines => lines,
    };
    let object = |value: &Value| value.as_object().cloned().expect("an event is an object");
    Some(elements.iter().map(object).collect())
}

/// The texts of the values in an array, or one after the other.
pub fn elements(body: &[u8]) -> Option<Vec<&str>> {
    let body = askable(body)?;
    // serde_json passes over escapes in raw values; half a surrogate pair is no JSON.
    values(body)??;
    fn texts(values: Vec<&RawValue>) -> Vec<&str> {
        values.into_iter().map(RawValue::get).collect()
    }
    if let Ok(values) = serde_json::from_slice::<Vec<&RawValue>>(body) {
        return Some(texts(values));
    }
    Deserializer::from_slice(body).into_iter().collect::<Result<Vec<_>, _>>().ok().map(texts)
}

/// Checks that `event` is what the contract makes of `object`.
pub fn check(event: &Event<'_>, object: &Map<String, Value>, request: &Request<'_>) {
    let text = |column: &str| given(&TEXTS, column, object).map(|value| value.as_str().unwrap());
    let filled = |column: &str| text(column).filter(|text| !text.is_empty());
    let (Tenant::Open | Tenant::Fixed(_)) = request.tenant;
    let owner = request.tenant.of_request();
    assert!(owner == DEFAULT_TENANT || filled("tenant").is_none_or(|named| named == owner));
    assert_eq!(event.message_id, text("message_id"));
    assert_eq!(event.tenant, filled("tenant").unwrap_or(owner));
    assert_eq!(event.kind, filled("type").unwrap_or(DEFAULT_TYPE));
    assert_eq!(event.event, filled("event"));
    assert_eq!(event.user_id, text("user_id"));
    assert_eq!(event.anonymous_id, text("anonymous_id"));
    assert_eq!(event.session_id, text("session_id"));
    assert_eq!(event.url, text("url"));
    assert_eq!(event.referrer, text("referrer"));
    assert_eq!(event.user_agent, text("user_agent"));
    assert_eq!(parsed(event.context), given(&OBJECTS, "context", object).cloned());
    assert_eq!(parsed(event.properties), properties(object));
    check_times(event, object, request);
}

/// The value of a field under whichever of its names it was given.
fn given<'a>(
    fields: &[&[&str]],
    column: &str,
    object: &'a Map<String, Value>,
) -> Option<&'a Value> {
    let names = fields.iter().find(|names| names[0] == column).unwrap();
    let mut values = names.iter().filter_map(|name| object.get(*name));
    let value = values.next();
    assert!(values.next().is_none(), "two names of one field are a duplicate");
    value.filter(|value| !value.is_null())
}

fn parsed(text: Option<&str>) -> Option<Value> {
    text.map(|text| serde_json::from_str(text).unwrap())
}

/// The client's own properties, and every member that has no column.
fn properties(object: &Map<String, Value>) -> Option<Value> {
    let own = given(&OBJECTS, "properties", object);
    let extra = object.iter().filter(|(name, _)| !is_known(name));
    let extra: Map<_, _> = extra.map(|(name, value)| (name.clone(), value.clone())).collect();
    if own.is_none() && extra.is_empty() {
        return None;
    }
    let mut all = own.map_or_else(Map::new, |own| own.as_object().unwrap().clone());
    for (name, value) in extra {
        assert!(all.insert(name, value).is_none(), "a name in both places is a duplicate");
    }
    Some(Value::Object(all))
}

fn check_times(event: &Event<'_>, object: &Map<String, Value>, request: &Request<'_>) {
    let times = [Some(event.timestamp), event.original_timestamp, event.sent_at];
    let range = time::MIN_MICROS..=time::MAX_MICROS;
    assert!(times.iter().flatten().all(|time| range.contains(time)));
    let expected = |column| match given(&TIMES, column, object) {
        None => Some(None),
        Some(Value::String(text)) => Some(time::parse_rfc3339(text.as_bytes())),
        // How floats are read is the business of the crate's own tests.
        Some(value) => value.as_i64().map(|number| Some(epoch(number))),
    };
    let original = expected("original_timestamp");
    let sent = expected("sent_at");
    assert!(original.is_none_or(|original| original == event.original_timestamp));
    assert!(sent.is_none_or(|sent| sent == event.sent_at));
    let corrected = match (event.sent_at, event.original_timestamp) {
        (Some(sent), Some(original)) if request.correct_clock => {
            Some((request.received_at - (sent - original)).clamp(*range.start(), *range.end()))
        }
        _ => None,
    };
    if let Some(given) = expected("timestamp") {
        let uncorrected = given.or(event.original_timestamp).unwrap_or(request.received_at);
        assert_eq!(event.timestamp, corrected.unwrap_or(uncorrected));
    }
}

/// The microseconds of a whole epoch number, told apart by size.
fn epoch(number: i64) -> i64 {
    match number.unsigned_abs() {
        0..100_000_000_000 => number * 1_000_000,
        100_000_000_000..100_000_000_000_000 => number * 1_000,
        _ => number,
    }
}
