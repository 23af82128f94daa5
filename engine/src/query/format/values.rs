//! The JSON text of values that Arrow's JSON writer has no form for, or another one than ours.

use std::io::Write;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, Decimal128Array, PrimitiveArray, UnionArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};

use super::text;

/// Options under which Arrow's writer gives our JSON.
pub(super) fn options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Values))
}

/// The encoder of one column.
pub(super) fn column<'a>(
    field: &'a FieldRef,
    array: &'a dyn Array,
    options: &'a EncoderOptions,
) -> Result<NullableEncoder<'a>, ArrowError> {
    make_encoder(field, array, options)
}

/// Chooses our encoders.
#[derive(Debug)]
struct Values;

impl EncoderFactory for Values {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Timestamp(unit, _) => {
                let (values, unit) = (integers(array)?, *unit);
                quoted(move |row, out| text::timestamp(out, values[row], unit))
            }
            DataType::Date32 => {
                let values = array.as_primitive::<Date32Type>();
                quoted(move |row, out| text::date(out, values.value(row)))
            }
            DataType::Date64 => {
                let values = array.as_primitive::<Date64Type>();
                quoted(move |row, out| {
                    text::timestamp(out, values.value(row), TimeUnit::Millisecond);
                })
            }
            DataType::Time32(unit) | DataType::Time64(unit) => {
                let (values, unit) = (integers(array)?, *unit);
                quoted(move |row, out| text::time(out, values[row], unit))
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let values = array.as_primitive::<IntervalMonthDayNanoType>();
                quoted(move |row, out| {
                    let value = values.value(row);
                    text::interval(out, value.months, value.days, value.nanoseconds);
                })
            }
            DataType::Decimal128(38, 0) => {
                Box::new(HugeInt(array.as_primitive::<Decimal128Type>()))
            }
            DataType::Decimal32(..) => decimal::<Decimal32Type>(array),
            DataType::Decimal64(..) => decimal::<Decimal64Type>(array),
            DataType::Decimal128(..) => decimal::<Decimal128Type>(array),
            DataType::Decimal256(..) => decimal::<Decimal256Type>(array),
            DataType::Map(..) => Box::new(MapValue::new(field, array, options)?),
            DataType::Union(..) => return union_value(field, array, options).map(Some),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

/// The values of a temporal array as 64-bit integers of its own unit.
fn integers(array: &dyn Array) -> Result<ScalarBuffer<i64>, ArrowError> {
    let integers: ArrayRef = match array.data_type() {
        DataType::Time32(_) => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(array, &DataType::Int64)?,
    };
    Ok(integers.as_primitive::<Int64Type>().values().clone())
}

/// An encoder that writes a function's text, which needs no escapes, in quotes.
struct Quoted<F>(F);

fn quoted<'a>(write: impl Fn(usize, &mut Vec<u8>) + 'a) -> Box<dyn Encoder + 'a> {
    Box::new(Quoted(write))
}

impl<F: Fn(usize, &mut Vec<u8>)> Encoder for Quoted<F> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        self.0(row, out);
        out.push(b'"');
    }
}

fn decimal<T: DecimalType + ArrowPrimitiveType>(array: &dyn Array) -> Box<dyn Encoder + '_> {
    let values: &PrimitiveArray<T> = array.as_primitive();
    quoted(move |row, out| out.extend_from_slice(values.value_as_string(row).as_bytes()))
}

/// DuckDB's HUGEINT: a number when 64 bits hold it, because every sum of integers is one.
struct HugeInt<'a>(&'a Decimal128Array);

impl Encoder for HugeInt<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        let fits = i64::try_from(value).is_ok() || u64::try_from(value).is_ok();
        // Writing to a vector cannot fail.
        let _ = if fits { write!(out, "{value}") } else { write!(out, "\"{value}\"") };
    }
}

/// A map as an object; keys that are not text become their JSON text.
struct MapValue<'a> {
    offsets: OffsetBuffer<i32>,
    keys: NullableEncoder<'a>,
    values: NullableEncoder<'a>,
}

impl<'a> MapValue<'a> {
    fn new(
        field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Self, ArrowError> {
        let map = array.as_map();
        Ok(Self {
            offsets: map.offsets().clone(),
            keys: make_encoder(field, map.keys().as_ref(), options)?,
            values: make_encoder(field, map.values().as_ref(), options)?,
        })
    }
}

impl Encoder for MapValue<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let bound = |at: usize| usize::try_from(self.offsets[at]).unwrap_or(0);
        let (start, end) = (bound(row), bound(row + 1));
        out.push(b'{');
        for entry in start..end {
            if entry > start {
                out.push(b',');
            }
            let key_start = out.len();
            encode_or_null(&mut self.keys, entry, out);
            if out.get(key_start) != Some(&b'"') {
                let key = out.split_off(key_start);
                write_string(&String::from_utf8_lossy(&key), out);
            }
            out.push(b':');
            encode_or_null(&mut self.values, entry, out);
        }
        out.push(b'}');
    }
}

/// A union as the value of its active member.
struct UnionValue<'a> {
    array: &'a UnionArray,
    /// By type id.
    members: Vec<Option<NullableEncoder<'a>>>,
}

fn union_value<'a>(
    field: &'a FieldRef,
    array: &'a dyn Array,
    options: &'a EncoderOptions,
) -> Result<NullableEncoder<'a>, ArrowError> {
    let nulls: Option<NullBuffer> = array.logical_nulls();
    let array = array
        .as_any()
        .downcast_ref::<UnionArray>()
        .ok_or_else(|| ArrowError::CastError("a union is not stored as one".into()))?;
    let DataType::Union(fields, _) = array.data_type() else {
        return Err(ArrowError::CastError("a union array has another type".into()));
    };
    let mut members = Vec::new();
    for (id, _) in fields.iter() {
        let at = usize::try_from(id).unwrap_or(0);
        members.resize_with(members.len().max(at + 1), || None);
        members[at] = Some(make_encoder(field, array.child(id).as_ref(), options)?);
    }
    Ok(NullableEncoder::new(Box::new(UnionValue { array, members }), nulls))
}

impl Encoder for UnionValue<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let id = usize::try_from(self.array.type_id(row)).unwrap_or(usize::MAX);
        let at = self.array.value_offset(row);
        match self.members.get_mut(id) {
            Some(Some(member)) => encode_or_null(member, at, out),
            _ => out.extend_from_slice(b"null"),
        }
    }
}

/// Writes a value, or `null`.
pub(super) fn encode_or_null(encoder: &mut NullableEncoder<'_>, row: usize, out: &mut Vec<u8>) {
    if encoder.is_null(row) {
        out.extend_from_slice(b"null");
    } else {
        encoder.encode(row, out);
    }
}

/// Writes a JSON string.
pub(super) fn write_string(value: &str, out: &mut Vec<u8>) {
    // Neither a string nor a vector gives the writer a reason to fail.
    let _ = serde_json::to_writer(out, value);
}
