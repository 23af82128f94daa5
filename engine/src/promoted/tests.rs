#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};

use super::*;
use crate::hot::{logged, rows_of};

fn column(name: &str, path: &str, kind: Kind) -> ColumnConfig {
    ColumnConfig { name: name.into(), path: path.into(), kind }
}

/// One of each kind, from both objects.
fn columns() -> Vec<ColumnConfig> {
    vec![
        column("plan", "properties.plan", Kind::Text),
        column("items", "properties.cart.items", Kind::Long),
        column("total", "/properties/cart/total", Kind::Double),
        column("paid", "properties.paid", Kind::Boolean),
        column("due", "context.due.at", Kind::Timestamp),
    ]
}

fn promoter(configured: &[ColumnConfig], table: Vec<PromotedColumn>) -> Promoter {
    let promotion = Promotion::new(configured).unwrap();
    Promoter::new(Arc::new(TableColumns::new(table)), &promotion)
}

fn in_table(configured: &[ColumnConfig]) -> Vec<PromotedColumn> {
    Promotion::new(configured).unwrap().columns().cloned().collect()
}

fn completed(promoter: &mut Promoter, lines: &[&str]) -> RecordBatch {
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    let rows = rows_of("0123456789ab", &[logged(0, 1, &lines)]).unwrap();
    let mut completed = promoter.complete(rows).unwrap();
    assert_eq!(completed.len(), 1);
    completed.remove(0)
}

fn problem(columns: &[ColumnConfig]) -> String {
    Promotion::new(columns).unwrap_err().to_string()
}

#[test]
fn each_kind_gets_its_values_and_counts_the_others() {
    let configured = columns();
    let mut promoter = promoter(&configured, in_table(&configured));
    let rows = completed(
        &mut promoter,
        &[
            r#"{"event":"e","properties":{"plan":"pro","cart":{"items":3,"total":9.5},"paid":true},
                "context":{"due":{"at":"1970-01-01T00:00:01Z"}}}"#,
            r#"{"event":"e","properties":{"plan":7,"cart":{"items":"3","total":"9.5"},"paid":1},
                "context":{"due":{"at":true}}}"#,
            r#"{"event":"e","properties":{"plan":null,"cart":[]}}"#,
            r#"{"event":"e","plan":"free","paid":false}"#,
        ],
    );
    let promoted = |name: &str| Arc::clone(rows.column_by_name(name).unwrap());
    let plans: Vec<_> =
        promoted("plan").as_string::<i32>().iter().map(|it| it.map(str::to_owned)).collect();
    assert_eq!(plans, [Some("pro".to_owned()), None, None, Some("free".to_owned())]);
    let items = promoted("items").as_primitive::<Int64Type>().clone();
    assert_eq!(items.iter().collect::<Vec<_>>(), [Some(3), None, None, None]);
    let totals = promoted("total").as_primitive::<Float64Type>().clone();
    assert_eq!(totals.iter().collect::<Vec<_>>(), [Some(9.5), None, None, None]);
    let paid = promoted("paid").as_boolean().clone();
    assert_eq!(paid.iter().collect::<Vec<_>>(), [Some(true), None, None, Some(false)]);
    let due = promoted("due").as_primitive::<TimestampMicrosecondType>().clone();
    assert_eq!(due.iter().collect::<Vec<_>>(), [Some(1_000_000), None, None, None]);

    let counts = |promoter: &Promoter| -> Vec<u64> {
        promoter.total().counts().into_iter().map(|(_, count)| count).collect()
    };
    assert_eq!(counts(&promoter), [0; 5], "nothing is counted before it is stored");
    // An append that failed is tried again.
    let _ = completed(&mut promoter, &[r#"{"event":"e","plan":7}"#]);
    let _ = completed(&mut promoter, &[r#"{"event":"e","plan":7}"#]);
    promoter.stored();
    promoter.stored();
    assert_eq!(counts(&promoter), [1, 0, 0, 0, 0]);
}

#[test]
fn columns_stand_as_in_the_table_and_those_not_configured_are_null() {
    let configured = [column("plan", "properties.plan", Kind::Text)];
    let other = |name: &str, kind| PromotedColumn { name: name.into(), kind };
    let mut table = vec![other("old", Kind::Double)];
    table.extend(in_table(&configured));
    table.push(other("older", Kind::Boolean));
    let mut promoter = promoter(&configured, table);
    let rows = completed(&mut promoter, &[r#"{"event":"e","plan":"pro","old":1.5,"older":true}"#]);
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names[COLUMNS.len()..], ["date", "old", "plan", "older"]);
    assert_eq!(rows.column_by_name("plan").unwrap().as_string::<i32>().value(0), "pro");
    for name in ["old", "older"] {
        assert_eq!(rows.column_by_name(name).unwrap().null_count(), 1, "{name}");
    }
    assert_eq!(promoter.total().counts(), [("plan".to_owned(), 0)]);
}

#[test]
fn without_promoted_columns_rows_stay_as_they_are() {
    let mut promoter = Promoter::default();
    let rows = completed(&mut promoter, &[r#"{"event":"e","plan":"pro"}"#]);
    assert_eq!(rows.schema(), hot_schema());
    assert_eq!(TableColumns::default().list(), column_list());
    assert_eq!(TableColumns::default().definitions(), hot_table_columns());
}

#[test]
fn what_cannot_be_a_column_is_refused_with_its_key() {
    for name in
        ["", "Plan", "1st", "_x", "a-b", "ä", "tenant", "date", "id", "rowid", &"a".repeat(64)]
    {
        let fine = column("fine", "properties.a", Kind::Text);
        let message = problem(&[fine, column(name, "properties.a", Kind::Text)]);
        assert!(message.starts_with("columns[2].name is "), "{message}");
    }
    let twice = [column("a", "properties.a", Kind::Text), column("a", "properties.b", Kind::Text)];
    assert!(problem(&twice).starts_with("columns[2].name is a; "), "{}", problem(&twice));
    let message = problem(&[column("a", "user_id", Kind::Text)]);
    assert!(message.starts_with("columns[1].path is user_id; it must be a path"), "{message}");
    let message = problem(&[column("a", "properties.a", Kind::Int)]);
    assert_eq!(
        message,
        "columns[1].type is int32; it must be one of string, int64, double, boolean, timestamp"
    );
    let many: Vec<_> = (0..=COLUMNS_MAX)
        .map(|number| column(&format!("c{number}"), "properties.a", Kind::Text))
        .collect();
    assert!(problem(&many).contains("it must be at most 64"), "{}", problem(&many));
    assert!(Promotion::new(&many[..COLUMNS_MAX]).is_ok());
}
