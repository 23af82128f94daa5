//! The values of a statement's parameters: in order, or by name.
//!
//! **Guarantees.** Every parameter of the statement has exactly one value and every value a parameter;
//! otherwise the error names the one that has not.
//!
//! **Limits.** Names are compared without regard to the case of ASCII letters, as DuckDB does. A
//! value is null, a boolean, a number or a string.

use std::collections::HashSet;
use std::fmt;

use duckdb::Statement;
use duckdb::types::Value;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::QueryError;

/// Values for the parameters of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Params {
    /// For `?` or `$1`, `$2`, … in order. In JSON an array.
    Ordered(Vec<Json>),
    /// For `$name`, without the dollar sign. In JSON an object; a name that occurs twice is an error.
    Named(Vec<(String, Json)>),
}

impl Default for Params {
    fn default() -> Self {
        Self::Ordered(Vec::new())
    }
}

impl From<Vec<Json>> for Params {
    fn from(values: Vec<Json>) -> Self {
        Self::Ordered(values)
    }
}

impl Params {
    /// The values in the order in which `statement` numbers its parameters.
    pub(super) fn of(&self, statement: &Statement<'_>) -> Result<Vec<Value>, QueryError> {
        let names = (1..=statement.parameter_count()).map(|index| statement.parameter_name(index));
        let names = names.collect::<Result<Vec<String>, _>>();
        let names = names.map_err(|error| QueryError::from_preparation(&error))?;
        match self {
            Self::Ordered(values) => ordered(values, &names),
            Self::Named(values) => named(values, &names),
        }
    }
}

/// Whether a parameter was written `?` or `$1`.
fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

fn ordered(values: &[Json], names: &[String]) -> Result<Vec<Value>, QueryError> {
    if let Some(name) = names.iter().find(|name| !is_number(name)) {
        return Err(QueryError::sql(format!(
            "the parameter ${name} has a name; its value is to be given in an object, as {{\"{name}\": …}}"
        )));
    }
    if values.len() != names.len() {
        return Err(QueryError::sql(format!(
            "the statement has {} parameters, but {} values were given",
            names.len(),
            values.len()
        )));
    }
    values.iter().map(param).collect()
}

fn named(values: &[(String, Json)], names: &[String]) -> Result<Vec<Value>, QueryError> {
    let has = |wanted: &str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    if let Some((name, _)) = values.iter().find(|(name, _)| !has(name)) {
        return Err(QueryError::sql(format!("the statement has no parameter ${name}")));
    }
    let value_of = |name: &String| {
        let found = values.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        let (_, value) = found.ok_or_else(|| match is_number(name) {
            true => QueryError::sql(format!(
                "the parameter {name} of the statement has no name; values of such are to be given in an array"
            )),
            false => QueryError::sql(format!("there is no value for the parameter ${name}")),
        })?;
        param(value)
    };
    names.iter().map(value_of).collect()
}

/// A JSON value as DuckDB takes it.
fn param(value: &Json) -> Result<Value, QueryError> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Boolean(*value),
        Json::String(value) => Value::Text(value.clone()),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => Value::BigInt(value),
            (_, Some(value), _) => Value::UBigInt(value),
            (_, _, Some(value)) => Value::Double(value),
            _ => return Err(QueryError::sql(format!("the parameter {number} is out of range"))),
        },
        Json::Array(_) | Json::Object(_) => {
            return Err(QueryError::sql(
                "a parameter is an array or an object; null, booleans, numbers and strings are allowed",
            ));
        }
    })
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParamsVisitor)
    }
}

/// Reads an array or an object, and does not let a name occur twice.
struct ParamsVisitor;

impl<'de> Visitor<'de> for ParamsVisitor {
    type Value = Params;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of values, or an object with values by name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Params, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            values.push(value);
        }
        Ok(Params::Ordered(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Params, A::Error> {
        let mut values: Vec<(String, Json)> = Vec::new();
        let mut known = HashSet::new();
        while let Some((name, value)) = entries.next_entry::<String, Json>()? {
            if !known.insert(name.to_ascii_lowercase()) {
                return Err(A::Error::custom(format!("the parameter {name} is given twice")));
            }
            values.push((name, value));
        }
        Ok(Params::Named(values))
    }
}
