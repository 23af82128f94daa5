//! The SQL names of Arrow types.

use arrow::datatypes::{DataType, Field, TimeUnit};

/// The DuckDB name of a column's type, such as `BIGINT` or `STRUCT(a INTEGER)`.
///
/// Arrow keeps less than DuckDB knows: UUID, ENUM and JSON columns are VARCHAR here, BIT is
/// BLOB, and a DECIMAL(38,0) is a HUGEINT.
pub(super) fn sql_name(field: &Field) -> String {
    name_of(field.data_type())
}

fn name_of(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "UTINYINT",
        DataType::UInt16 => "USMALLINT",
        DataType::UInt32 => "UINTEGER",
        DataType::UInt64 => "UBIGINT",
        DataType::Float16 | DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Timestamp(TimeUnit::Second, None) => "TIMESTAMP_S",
        DataType::Timestamp(TimeUnit::Millisecond, None) => "TIMESTAMP_MS",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP",
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP_NS",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "BLOB",
        DataType::Decimal128(38, 0) => "HUGEINT",
        _ => return nested_name(data_type),
    };
    name.into()
}

fn nested_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("DECIMAL({precision},{scale})"),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => format!("{}[]", sql_name(item)),
        DataType::FixedSizeList(item, length) => format!("{}[{length}]", sql_name(item)),
        DataType::Struct(fields) => {
            format!("STRUCT({})", members(fields.iter().map(AsRef::as_ref)))
        }
        DataType::Union(fields, _) => {
            format!("UNION({})", members(fields.iter().map(|(_, field)| field.as_ref())))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                format!("MAP({}, {})", sql_name(&pair[0]), sql_name(&pair[1]))
            }
            _ => "MAP".into(),
        },
        DataType::Dictionary(_, values) => name_of(values),
        DataType::RunEndEncoded(_, values) => sql_name(values),
        other => other.to_string(),
    }
}

fn members<'a>(fields: impl Iterator<Item = &'a Field>) -> String {
    let members: Vec<String> =
        fields.map(|field| format!("{} {}", field.name(), sql_name(field))).collect();
    members.join(", ")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

    use super::sql_name;

    #[test]
    fn names_are_those_of_duckdb() {
        let item = |data_type| Field::new("item", data_type, true);
        for (data_type, expected) in [
            (DataType::Int64, "BIGINT"),
            (DataType::Utf8, "VARCHAR"),
            (DataType::Decimal128(38, 0), "HUGEINT"),
            (DataType::Decimal128(10, 2), "DECIMAL(10,2)"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "TIMESTAMP"),
            (DataType::new_list(DataType::Int32, true), "INTEGER[]"),
            (
                DataType::Struct(Fields::from(vec![Field::new("a", DataType::Float64, true)])),
                "STRUCT(a DOUBLE)",
            ),
        ] {
            assert_eq!(sql_name(&item(data_type)), expected);
        }
    }
}
