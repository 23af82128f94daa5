//! Values of columns: texts and times for the table's own columns, JSON for the others.

use arrow::array::{
    Array, ArrayRef, AsArray, GenericStringArray, OffsetSizeTrait, StringViewArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
    Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::temporal_conversions::{as_date, as_datetime, as_time};
use ringlake_event::{time, write};

/// A column of texts.
#[derive(Debug)]
pub(crate) enum Texts<'a> {
    Small(&'a GenericStringArray<i32>),
    Large(&'a GenericStringArray<i64>),
    Views(&'a StringViewArray),
    /// Numbers of texts.
    Coded(&'a dyn Array, Box<Texts<'a>>),
    /// Nothing but nulls.
    Nothing,
}

impl<'a> Texts<'a> {
    /// The texts of `column`, if it holds texts.
    pub(crate) fn of(column: &'a dyn Array) -> Option<Self> {
        match column.data_type() {
            DataType::Null => Some(Self::Nothing),
            DataType::Utf8 => Some(Self::Small(column.as_string())),
            DataType::LargeUtf8 => Some(Self::Large(column.as_string())),
            DataType::Utf8View => Some(Self::Views(column.as_string_view())),
            DataType::Dictionary(_, _) => {
                let coded = column.as_any_dictionary();
                let values = Self::of(coded.values().as_ref())?;
                Some(Self::Coded(coded.keys(), Box::new(values)))
            }
            _ => None,
        }
    }

    /// The text in `row`; none for null.
    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Small(column) => text_in(column, row),
            Self::Large(column) => text_in(column, row),
            Self::Views(column) => column.is_valid(row).then(|| column.value(row)),
            Self::Coded(keys, values) => values.get(key_in(*keys, row)?),
            Self::Nothing => None,
        }
    }
}

fn text_in<O: OffsetSizeTrait>(column: &GenericStringArray<O>, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// The number that `row` of a dictionary's keys holds.
fn key_in(keys: &dyn Array, row: usize) -> Option<usize> {
    fn key<T: ArrowPrimitiveType>(keys: &dyn Array, row: usize) -> Option<usize>
    where
        T::Native: TryInto<usize>,
    {
        keys.as_primitive::<T>().value(row).try_into().ok()
    }
    if keys.is_null(row) {
        return None;
    }
    match keys.data_type() {
        DataType::Int8 => key::<Int8Type>(keys, row),
        DataType::Int16 => key::<Int16Type>(keys, row),
        DataType::Int32 => key::<Int32Type>(keys, row),
        DataType::Int64 => key::<Int64Type>(keys, row),
        DataType::UInt8 => key::<UInt8Type>(keys, row),
        DataType::UInt16 => key::<UInt16Type>(keys, row),
        DataType::UInt32 => key::<UInt32Type>(keys, row),
        DataType::UInt64 => key::<UInt64Type>(keys, row),
        _ => None,
    }
}

/// Whether `row` of `column` holds no value.
pub(crate) fn is_null(column: &dyn Array, row: usize) -> bool {
    match column.data_type() {
        DataType::Null => true,
        DataType::Dictionary(_, _) => {
            let coded = column.as_any_dictionary();
            key_in(coded.keys(), row).is_none_or(|key| is_null(coded.values().as_ref(), key))
        }
        _ => column.is_null(row),
    }
}

/// A column of times.
#[derive(Debug)]
pub(crate) enum Times<'a> {
    /// Timestamps; without a zone they are UTC.
    Stamps(&'a dyn Array, TimeUnit),
    /// Midnights.
    Days(&'a dyn Array),
    /// Numbers since 1970, whose size tells the unit.
    Whole(&'a dyn Array),
    Fractions(&'a dyn Array),
    /// RFC 3339.
    Texts(Texts<'a>),
}

impl<'a> Times<'a> {
    /// The times of `column`, if it can hold times.
    pub(crate) fn of(column: &'a dyn Array) -> Option<Self> {
        match column.data_type() {
            DataType::Timestamp(unit, _) => Some(Self::Stamps(column, *unit)),
            DataType::Date32 => Some(Self::Days(column)),
            DataType::Int64 => Some(Self::Whole(column)),
            DataType::Float64 => Some(Self::Fractions(column)),
            _ => Texts::of(column).map(Self::Texts),
        }
    }

    /// The time in `row` in microseconds since 1970; none for null.
    ///
    /// # Errors
    ///
    /// The value, when it is no time or not in the years 1 to 9999.
    pub(crate) fn get(&self, row: usize) -> Result<Option<i64>, String> {
        let (micros, given) = match self {
            Self::Texts(texts) => {
                let Some(text) = texts.get(row) else { return Ok(None) };
                (time::parse_rfc3339(text.as_bytes()), text.to_owned())
            }
            Self::Stamps(column, _)
            | Self::Days(column)
            | Self::Whole(column)
            | Self::Fractions(column)
                if column.is_null(row) =>
            {
                return Ok(None);
            }
            Self::Stamps(column, unit) => {
                let (micros, count) = micros_in(*column, *unit, row);
                (micros, count.to_string())
            }
            Self::Days(column) => {
                let days = i64::from(column.as_primitive::<Date32Type>().value(row));
                (days.checked_mul(86_400_000_000), days.to_string())
            }
            Self::Whole(column) => {
                let number = column.as_primitive::<Int64Type>().value(row).to_string();
                (time::parse_epoch(number.as_bytes()), number)
            }
            Self::Fractions(column) => {
                let number = column.as_primitive::<Float64Type>().value(row).to_string();
                (time::parse_epoch(number.as_bytes()), number)
            }
        };
        match micros.filter(|micros| (time::MIN_MICROS..=time::MAX_MICROS).contains(micros)) {
            Some(micros) => Ok(Some(micros)),
            None => Err(given),
        }
    }
}

/// A timestamp in microseconds, if it can be said in them, and as it is.
fn micros_in(column: &dyn Array, unit: TimeUnit, row: usize) -> (Option<i64>, i64) {
    match unit {
        TimeUnit::Second => {
            let count = column.as_primitive::<TimestampSecondType>().value(row);
            (count.checked_mul(1_000_000), count)
        }
        TimeUnit::Millisecond => {
            let count = column.as_primitive::<TimestampMillisecondType>().value(row);
            (count.checked_mul(1_000), count)
        }
        TimeUnit::Microsecond => {
            let count = column.as_primitive::<TimestampMicrosecondType>().value(row);
            (Some(count), count)
        }
        TimeUnit::Nanosecond => {
            let count = column.as_primitive::<TimestampNanosecondType>().value(row);
            (Some(count.div_euclid(1_000)), count)
        }
    }
}

/// A value is longer than it may be.
#[derive(Debug)]
pub(crate) struct TooLong {
    /// How long it is at least.
    pub(crate) found: usize,
}

/// Writes values as JSON, until there are more than `max` bytes.
pub(crate) struct Writer<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) max: usize,
}

impl Writer<'_> {
    /// Appends the value in `row` of `column`, which [`check_schema`](crate::guard::check_schema) has
    /// let pass.
    pub(crate) fn value(&mut self, column: &dyn Array, row: usize) -> Result<(), TooLong> {
        if self.out.len() > self.max {
            return Err(TooLong { found: self.out.len() });
        }
        if is_null(column, row) {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        match column.data_type() {
            DataType::Struct(fields) => {
                let values = column.as_struct().columns();
                let names = fields.iter().map(|field| field.name().as_str());
                self.object(names.zip(values.iter().map(|value| (value.as_ref(), row))))
            }
            DataType::Map(_, _) => {
                let map = column.as_map();
                let offsets = map.value_offsets();
                let (keys, values) = (map.keys(), map.values());
                let names = Texts::of(keys.as_ref()).unwrap_or(Texts::Nothing);
                let entries = range(offsets[row], offsets[row + 1]);
                self.object(
                    entries.map(|at| (names.get(at).unwrap_or_default(), (values.as_ref(), at))),
                )
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                let offsets = list.value_offsets();
                self.array(list.values(), range(offsets[row], offsets[row + 1]))
            }
            DataType::LargeList(_) => {
                let list = column.as_list::<i64>();
                let offsets = list.value_offsets();
                self.array(list.values(), range(offsets[row], offsets[row + 1]))
            }
            DataType::FixedSizeList(_, size) => {
                let size = usize::try_from(*size).unwrap_or_default();
                self.array(column.as_fixed_size_list().values(), row * size..(row + 1) * size)
            }
            DataType::Dictionary(_, _) => {
                let coded = column.as_any_dictionary();
                let key = key_in(coded.keys(), row).unwrap_or_default();
                self.value(coded.values().as_ref(), key)
            }
            DataType::Binary => self.hex(column.as_binary::<i32>().value(row)),
            DataType::LargeBinary => self.hex(column.as_binary::<i64>().value(row)),
            DataType::BinaryView => self.hex(column.as_binary_view().value(row)),
            DataType::FixedSizeBinary(_) => self.hex(column.as_fixed_size_binary().value(row)),
            _ => match Texts::of(column) {
                Some(texts) => self.text(texts.get(row).unwrap_or_default()),
                None => {
                    scalar(column, row, self.out);
                    Ok(())
                }
            },
        }
    }

    fn object<'v>(
        &mut self,
        members: impl Iterator<Item = (&'v str, (&'v dyn Array, usize))>,
    ) -> Result<(), TooLong> {
        self.out.push(b'{');
        for (place, (name, (values, at))) in members.enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            self.text(name)?;
            self.out.push(b':');
            self.value(values, at)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn array(&mut self, values: &ArrayRef, places: std::ops::Range<usize>) -> Result<(), TooLong> {
        let first = places.start;
        self.out.push(b'[');
        for at in places {
            if at > first {
                self.out.push(b',');
            }
            self.value(values.as_ref(), at)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), TooLong> {
        if text.len() > self.max {
            return Err(TooLong { found: text.len() });
        }
        write::text(text, self.out);
        Ok(())
    }

    fn hex(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > self.max {
            return Err(TooLong { found: bytes.len() });
        }
        write::hex(bytes, self.out);
        Ok(())
    }
}

/// The values between two offsets of a list; arrow-rs has checked both.
fn range<O: OffsetSizeTrait>(start: O, end: O) -> std::ops::Range<usize> {
    start.as_usize()..end.as_usize()
}

/// Appends a number, a truth or a time.
fn scalar(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    macro_rules! number {
        ($kind:ty) => {
            write::number(column.as_primitive::<$kind>().value(row), out)
        };
    }
    macro_rules! decimal {
        ($kind:ty) => {
            write::text(&column.as_primitive::<$kind>().value_as_string(row), out)
        };
    }
    match column.data_type() {
        DataType::Boolean => write::number(column.as_boolean().value(row), out),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => {
            write::float(column.as_primitive::<Float16Type>().value(row).to_f32(), out);
        }
        DataType::Float32 => write::float(column.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => write::float(column.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal32(_, _) => decimal!(Decimal32Type),
        DataType::Decimal64(_, _) => decimal!(Decimal64Type),
        DataType::Decimal128(_, _) => decimal!(Decimal128Type),
        DataType::Decimal256(_, _) => decimal!(Decimal256Type),
        DataType::Timestamp(_, _) => moment(column, row, out),
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            part_of_time(column, row, out);
        }
        // No other kind passes the check of the schema.
        _ => out.extend_from_slice(b"null"),
    }
}

/// Appends a timestamp as RFC 3339 in UTC, or its number when it is beyond the calendar.
fn moment(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    let (value, moment) = match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            let value = column.as_primitive::<TimestampSecondType>().value(row);
            (value, as_datetime::<TimestampSecondType>(value))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let value = column.as_primitive::<TimestampMillisecondType>().value(row);
            (value, as_datetime::<TimestampMillisecondType>(value))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let value = column.as_primitive::<TimestampNanosecondType>().value(row);
            (value, as_datetime::<TimestampNanosecondType>(value))
        }
        _ => {
            let value = column.as_primitive::<TimestampMicrosecondType>().value(row);
            (value, as_datetime::<TimestampMicrosecondType>(value))
        }
    };
    match moment {
        Some(moment) => write::text(&format!("{moment:?}Z"), out),
        None => write::number(value, out),
    }
}

/// Appends a date or a time of day, or its number when there is no such one.
fn part_of_time(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    macro_rules! part {
        ($kind:ty, $convert:ident) => {{
            let value = i64::from(column.as_primitive::<$kind>().value(row));
            (value, $convert::<$kind>(value).map(|part| format!("{part:?}")))
        }};
    }
    let (value, text) = match column.data_type() {
        DataType::Date32 => part!(Date32Type, as_date),
        DataType::Date64 => part!(Date64Type, as_date),
        DataType::Time32(TimeUnit::Second) => part!(Time32SecondType, as_time),
        DataType::Time32(_) => part!(Time32MillisecondType, as_time),
        DataType::Time64(TimeUnit::Nanosecond) => part!(Time64NanosecondType, as_time),
        _ => part!(Time64MicrosecondType, as_time),
    };
    match text {
        Some(text) => write::text(&text, out),
        None => write::number(value, out),
    }
}
