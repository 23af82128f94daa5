//! The columns of a batch by what they mean, and the event in each of their rows.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use ringlake_event::{DecodeError, ErrorKind, Field, Fields, ObjectCheck, Tenant, write};

use crate::guard::named;
use crate::values::{Texts, Times, TooLong, Writer, is_null};
use crate::{Body, Scratch, quoted};

/// Why a column, or a row, cannot be taken.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: ErrorKind,
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

impl Refusal {
    fn of_field(kind: ErrorKind, field: Field, message: String) -> Self {
        Self { kind, field: Some(field.name().to_owned()), message }
    }

    /// The refusal of the event at `index`, or of the request.
    pub(crate) fn into_error(self, index: Option<usize>, events_seen: usize) -> DecodeError {
        let Self { kind, field, message } = self;
        DecodeError { kind, index, field, message, events_seen }
    }
}

/// The columns of a batch.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    /// The column of each text field, at its place.
    texts: [Option<Texts<'a>>; Field::TEXTS],
    /// The column of each time, in the order of the fields.
    times: [Option<Times<'a>>; Field::TIMES],
    properties: Option<&'a dyn Array>,
    context: Option<&'a dyn Array>,
    /// Columns that are members of `properties`.
    others: Vec<(&'a str, &'a dyn Array)>,
}

impl<'a> Columns<'a> {
    /// The columns of `batch`.
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, Refusal> {
        let mut columns = Self {
            texts: Default::default(),
            times: Default::default(),
            properties: None,
            context: None,
            others: Vec::new(),
        };
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let (name, column) = (field.name().as_str(), column.as_ref());
            match Field::named(name.as_bytes()) {
                Some(field) => columns.set(field, name, column)?,
                // Nothing is said in a column of nulls; there can be many at no cost to the sender.
                None if column.logical_null_count() < column.len() => {
                    columns.others.push((name, column));
                }
                None => {}
            }
        }
        Ok(columns)
    }

    fn set(&mut self, field: Field, name: &str, column: &'a dyn Array) -> Result<(), Refusal> {
        let given_before = match field {
            Field::Properties | Field::Context => {
                if Texts::of(column).is_none()
                    && !matches!(column.data_type(), DataType::Struct(_) | DataType::Map(_, _))
                {
                    return Err(wrong_type(field, column, "texts, structures or maps"));
                }
                let place = match field {
                    Field::Properties => &mut self.properties,
                    _ => &mut self.context,
                };
                place.replace(column).is_some()
            }
            Field::Timestamp | Field::OriginalTimestamp | Field::SentAt => {
                let times = Times::of(column).ok_or_else(|| {
                    wrong_type(field, column, "timestamps, dates, 64-bit numbers or texts")
                })?;
                self.times[field.place() - Field::TEXTS].replace(times).is_some()
            }
            _ => {
                let texts = Texts::of(column).ok_or_else(|| wrong_type(field, column, "texts"))?;
                self.texts[field.place()].replace(texts).is_some()
            }
        };
        if given_before {
            let message =
                format!("the field `{}` is given twice, the second time as `{name}`", field.name());
            return Err(Refusal::of_field(ErrorKind::Duplicate, field, message));
        }
        Ok(())
    }

    /// The event in `row`.
    pub(crate) fn row<'s>(
        &self,
        row: usize,
        body: &Body<'_>,
        scratch: &'s mut Scratch,
    ) -> Result<Fields<'s>, Refusal>
    where
        'a: 's,
    {
        let text =
            |field: Field| self.texts[field.place()].as_ref().and_then(|texts| texts.get(row));
        // An empty owner, type or name says nothing; other empty texts are values.
        let said = |field: Field| text(field).filter(|text| !text.is_empty());
        let (kind, event) = (said(Field::Type), said(Field::Event));
        if kind.is_none() && event.is_none() {
            let message = "an event needs `type` or `event`".into();
            return Err(Refusal { kind: ErrorKind::Shape, field: None, message });
        }
        let tenant = owner(said(Field::Tenant), body)?;
        let Scratch { properties, context, check } = scratch;
        let has_properties = self.write_properties(row, body, properties, check)?;
        let has_context = write_object(self.context, row, body, context)?;
        if has_context {
            checked(Field::Context, context, check, body)?;
        }
        // Both were written from texts.
        let json = |written: bool, text: &'s [u8]| {
            written.then(|| str::from_utf8(text).unwrap_or_default())
        };
        let fields = Fields {
            message_id: text(Field::MessageId),
            tenant,
            kind,
            event,
            user_id: text(Field::UserId),
            anonymous_id: text(Field::AnonymousId),
            session_id: text(Field::SessionId),
            url: text(Field::Url),
            referrer: text(Field::Referrer),
            user_agent: text(Field::UserAgent),
            properties: json(has_properties, properties),
            context: json(has_context, context),
            timestamp: self.time(Field::Timestamp, row)?,
            original_timestamp: self.time(Field::OriginalTimestamp, row)?,
            sent_at: self.time(Field::SentAt, row)?,
        };
        check_size(&fields, body).map(|()| fields)
    }

    fn time(&self, field: Field, row: usize) -> Result<Option<i64>, Refusal> {
        let Some(times) = &self.times[field.place() - Field::TEXTS] else { return Ok(None) };
        times.get(row).map_err(|given| {
            let (name, given) = (field.name(), quoted(&given));
            let message = format!(
                "`{name}` is `{given}`; it has to be a time in the years 1 to 9999, as text in RFC 3339"
            );
            Refusal::of_field(ErrorKind::Timestamp, field, message)
        })
    }

    /// Writes what the row has of `properties`, with the columns that are members of it; tells whether
    /// there is anything.
    fn write_properties(
        &self,
        row: usize,
        body: &Body<'_>,
        out: &mut Vec<u8>,
        check: &mut ObjectCheck,
    ) -> Result<bool, Refusal> {
        let field = Field::Properties;
        let mut written = write_object(self.properties, row, body, out)?;
        let mut others = self.others.iter().filter(|(_, column)| !is_null(*column, row)).peekable();
        if others.peek().is_some() {
            let mut empty = true;
            if written {
                checked(field, out, check, body)?;
                // The closing brace.
                out.truncate(out.trim_ascii_end().len() - 1);
                empty = out.trim_ascii().len() == 1;
            } else {
                out.push(b'{');
            }
            for (name, column) in others {
                if !empty {
                    out.push(b',');
                }
                empty = false;
                write::text(name, out);
                out.push(b':');
                write_value(*column, row, body, out)?;
            }
            out.push(b'}');
            written = true;
        }
        if written {
            checked(field, out, check, body)?;
        }
        Ok(written)
    }
}

/// Writes the object in `row` of a column, which need not be one when it came as text; tells whether
/// there is one.
fn write_object(
    column: Option<&dyn Array>,
    row: usize,
    body: &Body<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, Refusal> {
    out.clear();
    let Some(column) = column.filter(|column| !is_null(*column, row)) else { return Ok(false) };
    let Some(texts) = Texts::of(column) else {
        return write_value(column, row, body, out).map(|()| true);
    };
    let text = texts.get(row).unwrap_or_default();
    if text.len() > body.limits.event_max_bytes {
        return Err(too_large(text.len(), body));
    }
    out.extend_from_slice(text.as_bytes());
    Ok(true)
}

fn write_value(
    column: &dyn Array,
    row: usize,
    body: &Body<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let max = body.limits.event_max_bytes;
    Writer { out, max }.value(column, row).map_err(|TooLong { found }| too_large(found, body))
}

/// Checks that `text` is the JSON text of an object.
fn checked(
    field: Field,
    text: &[u8],
    check: &mut ObjectCheck,
    body: &Body<'_>,
) -> Result<(), Refusal> {
    check.check(text, body.limits).map_err(|error| {
        let message = format!("`{}`: {}", field.name(), error.message);
        Refusal::of_field(error.kind, field, message)
    })
}

/// The owner that a row names, when it may.
fn owner<'a>(named: Option<&'a str>, body: &Body<'_>) -> Result<Option<&'a str>, Refusal> {
    match (named, body.request.tenant) {
        (Some(named), Tenant::Fixed(owner)) if named != owner => {
            let (named, owner) = (quoted(named), quoted(owner));
            let message =
                format!("the key belongs to the tenant `{owner}`, the event names `{named}`");
            Err(Refusal::of_field(ErrorKind::Forbidden, Field::Tenant, message))
        }
        (named, _) => Ok(named),
    }
}

/// Refuses an event of which more would be stored than an event may have.
fn check_size(fields: &Fields<'_>, body: &Body<'_>) -> Result<(), Refusal> {
    let texts = [
        fields.message_id,
        fields.tenant,
        fields.kind,
        fields.event,
        fields.user_id,
        fields.anonymous_id,
        fields.session_id,
        fields.url,
        fields.referrer,
        fields.user_agent,
        fields.properties,
        fields.context,
    ];
    let length = texts.into_iter().flatten().map(str::len).sum::<usize>();
    if length > body.limits.event_max_bytes {
        return Err(too_large(length, body));
    }
    Ok(())
}

fn too_large(length: usize, body: &Body<'_>) -> Refusal {
    let limit = body.limits.event_max_bytes;
    let message = format!("an event of {length} bytes is larger than the limit of {limit} bytes");
    Refusal { kind: ErrorKind::TooLarge, field: None, message }
}

fn wrong_type(field: Field, column: &dyn Array, expected: &str) -> Refusal {
    let (name, found) = (field.name(), named(column.data_type()));
    let message = format!("the column `{name}` has to hold {expected}, not {found}");
    Refusal::of_field(ErrorKind::Type, field, message)
}
