//! `GET /v1/stats`: how many events and visitors, by time and by what; and `GET /v1/schema`.
//!
//! One SQL statement a request, through the same workers and limits as `/v1/query`. `from`, `to` and
//! the buckets mean `timestamp`, when the events happened.
//!
//! A visitor is who the event says: its `user_id`, else its `anonymous_id`, else its `visitor_id`.
//! Events without any of them count as events and as nobody.
//!
//! **Limits.** [`ROWS_MAX`] rows; a question with a longer answer is refused. With `group_by` the
//! [`TOP`] largest groups (of each bucket) are given.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::StreamExt;
use ringlake_engine::promoted::TableColumns;
use ringlake_engine::query::QueryRequest;
use ringlake_engine::query::format::{Encoder, Format};
use ringlake_engine::schema::{COLUMNS, PARTITION};
use serde_json::{Value, json};

use super::answer::Problem;
use super::parameters::Parameters;
use super::{App, access, listing, query};

/// Rows of an answer: a week of minutes.
const ROWS_MAX: usize = 10_080;
/// Groups of a bucket.
const TOP: usize = 20;
const KNOWN: &str = "from, to, interval, group_by";

/// A question.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Wanted {
    tenant: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    interval: Option<&'static str>,
    group_by: Option<&'static str>,
}

/// Answers a question.
pub async fn answer(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let wanted = wanted(head.uri.query(), access::reader(&head)?)?;
    let (asked, planning) = (wanted.query(), Arc::clone(&app));
    let mut rows =
        planning.blocking(move |app| app.engine.query(asked).map_err(query::failed)).await?;
    // Here, so that the query ends when the client goes away.
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        batches.push(batch.map_err(query::failed)?);
    }
    let count: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    if count > ROWS_MAX {
        return Err(Problem::Malformed(format!(
            "the answer would have more than {ROWS_MAX} rows; ask for a longer interval or a \
             shorter time"
        )));
    }
    let encoder = Encoder::new(Format::Ndjson, rows.schema()).map_err(query::failed)?;
    app.blocking(move |_| {
        let about = json!({ "interval": wanted.interval, "group_by": wanted.group_by });
        let mut body = about.to_string().into_bytes();
        body.pop();
        body.extend_from_slice(b",\"buckets\":");
        listing::objects(encoder, &batches, &mut body).map_err(query::failed)?;
        body.push(b'}');
        listing::whole(&head.headers, body)
    })
    .await
}

fn wanted(query: Option<&str>, tenant: Option<String>) -> Result<Wanted, Problem> {
    let mut parameters = Parameters::new(query);
    let same = |name: &'static str| (name, name);
    let wanted = Wanted {
        tenant,
        from: parameters.moment("from")?,
        to: parameters.moment("to")?,
        interval: parameters.choice(
            "interval",
            &[same("minute"), same("hour"), same("day")],
            "minute, hour or day",
        )?,
        group_by: parameters.choice(
            "group_by",
            &[same("type"), same("event"), same("url")],
            "type, event or url",
        )?,
    };
    parameters.finish(KNOWN)?;
    Ok(wanted)
}

impl Wanted {
    /// The statement. Names in it are ours; values are parameters.
    fn query(&self) -> QueryRequest {
        let (mut columns, mut groups, mut order) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(interval) = self.interval {
            let bucket = format!("date_trunc('{interval}', \"timestamp\")::TIMESTAMP");
            columns.push(format!("{bucket} AS bucket"));
            groups.push(bucket);
            order.push("bucket");
        }
        if let Some(group) = self.group_by {
            columns.push(format!("\"{group}\""));
            groups.push(format!("\"{group}\""));
        }
        columns.push("count(*) AS count".into());
        columns.push(
            "count(DISTINCT coalesce(user_id, anonymous_id, visitor_id::VARCHAR)) AS visitors"
                .into(),
        );
        let (mut conditions, mut params) = (Vec::<String>::new(), Vec::new());
        let bounds = [(self.from, ">="), (self.to, "<")];
        for (moment, relation) in bounds.into_iter().filter_map(|(at, is)| Some((at?, is))) {
            conditions.push(format!("\"timestamp\" {relation} make_timestamp(?::BIGINT)"));
            params.push(Value::from(moment));
        }
        let mut sql = format!("SELECT {} FROM events", columns.join(", "));
        if !conditions.is_empty() {
            sql.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
        }
        if !groups.is_empty() {
            sql.push_str(&format!(" GROUP BY {}", groups.join(", ")));
        }
        if let Some(group) = self.group_by {
            let bucket = groups.first().filter(|_| self.interval.is_some());
            let partition =
                bucket.map_or(String::new(), |bucket| format!("PARTITION BY {bucket} "));
            // The name breaks ties, so that the same question has the same answer.
            sql.push_str(&format!(
                " QUALIFY row_number() OVER ({partition}ORDER BY count(*) DESC, \"{group}\") \
                 <= {TOP}"
            ));
            order.extend(["count DESC", group]);
        }
        if !order.is_empty() {
            sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
        }
        sql.push_str(&format!(" LIMIT {}", ROWS_MAX + 1));
        let tenant = self.tenant.clone();
        QueryRequest { sql, params: params.into(), tenant, ..QueryRequest::default() }
    }
}

/// `GET /v1/schema`: the columns of `events`.
pub async fn schema(State(app): State<Arc<App>>) -> Json<Value> {
    described(app.engine.columns())
}

fn described(columns: &TableColumns) -> Json<Value> {
    let stored = COLUMNS.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind.sql(),
            "nullable": column.nullable,
            "meaning": column.meaning,
        })
    });
    let date = json!({
        "name": PARTITION,
        "type": "DATE",
        "nullable": false,
        "meaning": "UTC day of received_at; the partition of the table",
    });
    let promoted = columns.promoted().iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind.sql(),
            "nullable": true,
            "meaning": "promoted from properties or context",
        })
    });
    let all: Vec<Value> = stored.chain([date]).chain(promoted).collect();
    Json(json!({ "table": "events", "columns": all }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn values_are_parameters_and_names_are_ours() {
        let query = "from=2026-11-21&to=2026-11-22&interval=hour&group_by=url";
        let request = wanted(Some(query), Some("t'--".into())).unwrap().query();
        assert_eq!(request.tenant.as_deref(), Some("t'--"));
        let days = [1_795_219_200_000_000_i64, 1_795_305_600_000_000];
        assert_eq!(request.params, days.map(Value::from).to_vec().into());
        assert!(!request.sql.contains("t'--"), "{}", request.sql);
        for query in ["interval=week", "group_by=tenant", "group_by=url;", "limit=3"] {
            assert!(wanted(Some(query), None).is_err(), "{query}");
        }
    }
}
