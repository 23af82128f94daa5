//! The check that a statement is one `SELECT` over `events`.
//!
//! **Guarantees.** Nothing is executed: DuckDB's own parser turns the text into a syntax tree
//! (`json_serialize_sql`), and every node of the tree has to be one that is known to be harmless.
//! The text that passed is then given to the same parser again, unchanged.
//!
//! **Not guaranteed.** That the statement binds, ends or fits into memory.
//!
//! **Limits.** A statement has at most 256 KiB and 1,000 open brackets: parsing cannot be
//! interrupted, takes quadratic time in the depth of brackets, and its tree takes memory that
//! DuckDB's limit does not count. The tree is read by a JSON parser that stops at 128 levels, which
//! is about 40 operators inside one another; `AND`, `OR`, `IN` and `UNION` lists do not nest.
//!
//! **Algorithm.** Statements, query nodes, table references and expression classes are
//! allow-lists. A table is `events` or a name that a `WITH` in scope defines; everything else,
//! such as `'file.parquet'` or `information_schema.tables`, is refused before DuckDB looks for it.
//! Table functions are an allow-list, other functions a deny-list of those that read files,
//! settings or the catalog, parse or run SQL text, wait, or leave something behind. A test compares
//! the functions that pass with a list of those that somebody has looked at, so that a new version
//! of DuckDB brings none along.

use duckdb::Connection;
use serde_json::{Map, Value};

use super::QueryError;

/// Longest statement. Its tree is some hundred times as long.
const STATEMENT_MAX_BYTES: usize = 256 << 10;
/// Deepest nesting of brackets, wherever they stand; DuckDB's own limit, but known before parsing.
const BRACKETS_MAX_DEPTH: usize = 1_000;

/// The only table.
const TABLE: &str = "events";

const ONLY_SELECT: &str = "only one SELECT over events is allowed";
const ONLY_EVENTS: &str = "only the table events can be read";

/// Every expression class that the parser makes; none of them reads anything by itself.
const EXPRESSIONS: [&str; 18] = [
    "BETWEEN",
    "CASE",
    "CAST",
    "COLLATE",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "DEFAULT",
    "FUNCTION",
    "LAMBDA",
    "LAMBDA_REF",
    "OPERATOR",
    "PARAMETER",
    "POSITIONAL_REFERENCE",
    "STAR",
    "SUBQUERY",
    "TYPE",
];

/// Clauses that only contain expressions.
const MODIFIERS: [&str; 4] =
    ["DISTINCT_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "ORDER_MODIFIER"];

/// Table functions that make rows from their arguments alone.
const TABLE_FUNCTIONS: [&str; 3] = ["generate_series", "range", "unnest"];

/// Functions that read files, settings, variables or the catalog, parse or run SQL text, wait, have
/// effects that outlive the query, or take the insides of DuckDB's own values for granted: the raw
/// state of an aggregate, the bytes of a variant, a type as a value.
const DENIED_FUNCTIONS: [&str; 83] = [
    "add_parquet_key",
    "arrow_scan",
    "arrow_scan_dumb",
    "bitstring_byte_comparable",
    "can_cast_implicitly",
    "cast_to_type",
    "checkpoint",
    "col_description",
    "combine",
    "combine_aggr",
    "constant_or_null",
    "create_external_resource",
    "create_sort_key",
    "current_catalog",
    "current_connection_id",
    "current_database",
    "current_query",
    "current_query_id",
    "current_schema",
    "current_schemas",
    "current_setting",
    "current_transaction_id",
    "currval",
    "deregister_external_resource",
    "destroy_external_resource",
    "explain",
    "finalize",
    "force_checkpoint",
    "format_pg_type",
    "format_type",
    "get_block_size",
    "get_type",
    "getenv",
    "getvariable",
    "glob",
    "hive_partition_component",
    "import_database",
    "in_search_path",
    "index_key",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "invoke",
    "is_histogram_other_bin",
    "json_deserialize_sql",
    "json_execute_serialized_sql",
    "json_serialize_plan",
    "json_serialize_sql",
    "make_type",
    "map_to_pg_oid",
    "nextval",
    "obj_description",
    "parse_duckdb_log_message",
    "query",
    "query_table",
    "register_external_resource",
    "register_external_resource_type",
    "remap_struct",
    "replace_type",
    "seq_scan",
    "session_user",
    "set_config",
    "setseed",
    "setval",
    "shobj_description",
    "sleep",
    "sleep_ms",
    "stats",
    "storage_info",
    "summary",
    "timetz_byte_comparable",
    "to_aggregate_state",
    "txid_current",
    "variant_bytes_to_variant",
    "variant_comparator",
    "variant_group_object",
    "variant_normalize",
    "variant_to_parquet_variant",
    "vector_type",
    "vertex_extract",
    "which_secret",
    "write_log",
];

/// Beginnings of the names of whole families of such functions.
const DENIED_PREFIXES: [&str; 15] = [
    "__internal_",
    "database_",
    "disable_",
    "duckdb_",
    "enable_",
    "has_",
    "parquet_",
    "pg_",
    "pragma_",
    "python_",
    "read_",
    "sniff_",
    "test_",
    "truncate_",
    "write_",
];

/// Members of those families that only compute.
const ALLOWED_FUNCTIONS: [&str; 2] = ["pg_size_pretty", "pg_typeof"];

/// Names that mean a catalog function when they are not a column.
const DENIED_COLUMNS: [&str; 3] = ["current_catalog", "current_database", "current_schema"];

/// Refuses everything but one `SELECT` over `events`.
///
/// # Errors
///
/// [`QueryError::Sql`] when the text is not SQL or holds no statement, [`QueryError::Forbidden`]
/// when it is SQL but not such a `SELECT`.
pub(super) fn check(connection: &Connection, sql: &str) -> Result<(), QueryError> {
    check_text(sql)?;
    let tree: String = connection
        .prepare_cached("SELECT json_serialize_sql(?::VARCHAR)")
        .and_then(|mut statement| statement.query_row([sql], |row| row.get(0)))
        .map_err(|error| QueryError::from_duckdb(&error, sql))?;
    let tree: Value = serde_json::from_str(&tree)
        .map_err(|_| QueryError::sql("the statement nests more than about 40 levels deep"))?;
    if tree["error"] == Value::Bool(true) {
        return Err(refused_by_parser(&tree));
    }
    match tree["statements"].as_array().map(Vec::as_slice) {
        Some([]) => Err(QueryError::sql("the statement is empty")),
        Some([statement]) => walk(statement, &Scope { names: Vec::new(), outer: None }),
        _ => Err(QueryError::forbidden(ONLY_SELECT)),
    }
}

/// Refuses text that the parser should not see.
fn check_text(sql: &str) -> Result<(), QueryError> {
    if sql.contains('\0') {
        return Err(QueryError::sql("the statement contains a NUL character"));
    }
    if sql.len() > STATEMENT_MAX_BYTES {
        return Err(QueryError::sql(format!(
            "the statement has {} bytes; at most {STATEMENT_MAX_BYTES} are allowed",
            sql.len()
        )));
    }
    // Brackets inside strings and comments count as well: telling them apart would take a parser.
    let mut depth = 0_usize;
    for byte in sql.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > BRACKETS_MAX_DEPTH {
            return Err(QueryError::sql(format!(
                "the statement nests more than {BRACKETS_MAX_DEPTH} brackets"
            )));
        }
    }
    Ok(())
}

/// What the parser said instead of a tree.
fn refused_by_parser(answer: &Value) -> QueryError {
    let message = answer["error_message"].as_str().unwrap_or("the statement is not SQL");
    // One kind of parameters beside another is wrong, and no other statement than a SELECT.
    if answer["error_type"] == "not implemented" && !message.starts_with("Mixing named") {
        return QueryError::forbidden(ONLY_SELECT);
    }
    let position = answer["position"].as_str().and_then(|position| position.parse().ok());
    QueryError::Sql { message: format!("Parser Error: {message}"), position }
}

/// The names that `WITH` clauses define at one place of the tree.
struct Scope<'a> {
    names: Vec<String>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn defines(&self, name: &str) -> bool {
        self.names.iter().any(|defined| defined == name)
            || self.outer.is_some_and(|outer| outer.defines(name))
    }
}

/// Checks a value of the tree and all below it. The recursion is bounded by the JSON parser.
fn walk(value: &Value, scope: &Scope<'_>) -> Result<(), QueryError> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| walk(item, scope)),
        Value::Object(object) => walk_object(object, scope),
        _ => Ok(()),
    }
}

fn walk_object(object: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), QueryError> {
    if let Some(class) = text(object, "class") {
        check_expression(class, object)?;
    } else if let Some(kind) = text(object, "type") {
        match kind {
            "SELECT_NODE" | "SET_OPERATION_NODE" | "RECURSIVE_CTE_NODE" => {
                return walk_query(object, scope);
            }
            "BASE_TABLE" => check_table(object, scope)?,
            "TABLE_FUNCTION" => check_table_function(object)?,
            "PIVOT" if text(object, "pivot_enum").is_some_and(|name| !name.is_empty()) => {
                return Err(QueryError::forbidden("PIVOT over an enum type is not allowed"));
            }
            "SUBQUERY" | "JOIN" | "EMPTY" | "EXPRESSION_LIST" | "PIVOT" => {}
            "SHOW_REF" => {
                return Err(QueryError::forbidden("DESCRIBE, SHOW and SUMMARIZE are not allowed"));
            }
            _ if MODIFIERS.contains(&kind) || kind.ends_with("_TYPE_INFO") => {}
            // An item of ORDER BY; its type is the direction.
            _ if object.contains_key("null_order") => {}
            _ => return Err(QueryError::forbidden(ONLY_SELECT)),
        }
    }
    object.values().try_for_each(|child| walk(child, scope))
}

/// Checks a query with the names that its own `WITH` clause adds, each from its definition on.
fn walk_query(query: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), QueryError> {
    let mut scope = Scope { names: Vec::new(), outer: Some(scope) };
    if let Some(name) = text(query, "cte_name") {
        scope.names.push(name.to_lowercase());
    }
    let entries = query.get("cte_map").and_then(|map| map["map"].as_array());
    for entry in entries.into_iter().flatten() {
        walk(&entry["value"], &scope)?;
        scope.names.push(entry["key"].as_str().unwrap_or_default().to_lowercase());
    }
    query.iter().filter(|(key, _)| *key != "cte_map").try_for_each(|(_, child)| walk(child, &scope))
}

fn check_expression(class: &str, object: &Map<String, Value>) -> Result<(), QueryError> {
    if class == "WINDOW" || class == "FUNCTION" {
        return check_function(object);
    }
    if class == "COLUMN_REF"
        && let Some([Value::String(name)]) =
            object.get("column_names").and_then(Value::as_array).map(Vec::as_slice)
        && DENIED_COLUMNS.contains(&name.to_lowercase().as_str())
    {
        return Err(QueryError::forbidden(format!("{name} is not allowed in queries")));
    }
    if EXPRESSIONS.contains(&class) {
        return Ok(());
    }
    Err(QueryError::forbidden(ONLY_SELECT))
}

fn check_function(function: &Map<String, Value>) -> Result<(), QueryError> {
    let name = text(function, "function_name").unwrap_or_default().to_lowercase();
    if is_qualified(function) {
        return Err(QueryError::forbidden(format!(
            "the function {name} must be written without a schema or a leading argument"
        )));
    }
    let denied = DENIED_FUNCTIONS.contains(&name.as_str())
        || (DENIED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !ALLOWED_FUNCTIONS.contains(&name.as_str()));
    if denied {
        return Err(QueryError::forbidden(format!(
            "the function {name} is not allowed in queries"
        )));
    }
    if function.get("export_state") == Some(&Value::Bool(true)) {
        return Err(QueryError::forbidden("EXPORT_STATE is not allowed in queries"));
    }
    Ok(())
}

fn check_table(table: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), QueryError> {
    let name = text(table, "table_name").unwrap_or_default().to_lowercase();
    let plain = !is_qualified(table) && table.get("at_clause").is_none_or(Value::is_null);
    if plain && (name == TABLE || scope.defines(&name)) {
        return Ok(());
    }
    Err(QueryError::forbidden(ONLY_EVENTS))
}

fn check_table_function(table: &Map<String, Value>) -> Result<(), QueryError> {
    let function = table.get("function").and_then(Value::as_object);
    let name = function.and_then(|function| text(function, "function_name")).unwrap_or_default();
    if function.is_none_or(is_qualified) || !TABLE_FUNCTIONS.contains(&name.to_lowercase().as_str())
    {
        return Err(QueryError::forbidden(format!(
            "the table function {name} is not allowed; range, generate_series and unnest are"
        )));
    }
    Ok(())
}

/// Whether a table or function is named with a schema or a catalog.
fn is_qualified(object: &Map<String, Value>) -> bool {
    let given = |key| text(object, key).is_some_and(|name| !name.is_empty());
    let path = object.get("qualified_name").and_then(|name| name["path"].as_array());
    ["schema", "schema_name", "catalog", "catalog_name"].into_iter().any(given)
        || path.is_some_and(|path| path.len() > 1)
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}
