//! The dashboards under docs/grafana: every query of every panel, variable and annotation is run on a
//! filled database, as Grafana would send it and with the rights it has, and answers what its
//! visualisation needs. And the JSON holds together: ids, places, links, data source.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/grafana.rs"]
mod grafana;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use chrono::{DateTime, TimeDelta, Utc};
use common::{TestDatabase, fresh_database};
use grafana::{Context, Query, Use, panels, queries, variables};
use logguard::{
    secret::Secret,
    sink::{
        migrate::{MigrateOptions, migrate},
        store::StoreConfig,
    },
};
use serde_json::Value;
use tokio_postgres::{Client, types::Type};

/// The version of dashboards that the Grafana named in docker-compose.yml writes.
const SCHEMA_VERSION: u32 = 42;
/// Columns of a dashboard.
const GRID_WIDTH: u64 = 24;

/// Six hours of two partitions and of two services on their own, with all that a dashboard shows.
const FILL: &str = r#"
INSERT INTO owner VALUES ('logguard-processor', 'log-events', 0, 3),
                         ('logguard-processor', 'log-events', 1, 1);
INSERT INTO anomaly_results (timestamp, window_start, window_end, is_anomaly, anomaly_score,
  cluster_label, log_count, error_count, critical_count, error_rate, critical_rate, ground_truth,
  labelled_count, stream, topic, partition, service, final_by, severity, dbscan_score,
  model_checksum, explanation, state)
SELECT t + interval '30 s', t, t + interval '30 s', (n % 40 = 0)::int, CASE WHEN n % 40 = 0 THEN 0.9 ELSE 0.2 END,
  0, 100, 2, 3, 0.02, 0.03, (n % 40 = 0)::int, 100, stream, 'log-events', right(left(stream, 12), 1)::int,
  NULLIF(split_part(stream, '/', 3), ''), 'watermark', 3, 0.5, 'c0ffee',
  '{"reasons":["never seen in training: `disk <NUM> failed` from auth"],
    "services":[{"service":"auth","lines":4}],
    "templates":[{"kind":"new","text":"disk <NUM> failed","service":"auth","level":"ERROR","lines":4,
                  "expected_lines":0,"training_lines":0}]}', '{}'
FROM (SELECT n, date_bin('30 s', now(), 'epoch') - n * interval '30 s' AS t FROM generate_series(1, 720) n) AS grid,
     unnest(ARRAY['log-events/0', 'log-events/1', 'log-events/1/it''s']) AS stream;
INSERT INTO window_features (window_start, window_end, stream, model_checksum, features, templates)
SELECT window_start, window_end, stream, 'c0ffee',
  '{"log_count":100,"debug_count":5,"info_count":80,"warn_count":12,"error_count":2,"fatal_count":1}',
  '[{"template":"a","service":"auth","level":"INFO","count":80},{"template":"b","service":"cart","level":"ERROR","count":20}]'
FROM anomaly_results;
INSERT INTO log_templates
SELECT stream, id, 'text of ' || id, 'auth', 'WARN', now(), now(), 7
FROM unnest(ARRAY['log-events/0', 'log-events/1']) AS stream, unnest(ARRAY['a', 'b']) AS id;
INSERT INTO alarms (alarm_id, raised_at, window_start, window_end, stream, topic, partition, provisional,
  stale, anomaly_score, severity, threshold, log_count, error_count, critical_count, reasons, samples,
  explanation, lateness_ms, model_checksum, feedback)
SELECT md5(stream || window_start), window_end, window_start, window_end, stream, topic, partition, false,
  false, anomaly_score, severity, 1e-5, 100, 2, 3, ARRAY['a reason'], ARRAY['a line'], explanation,
  2000, 'c0ffee', CASE partition WHEN 1 THEN 'real' END
FROM anomaly_results WHERE is_anomaly = 1;
INSERT INTO deploys VALUES ('auth', '1.3', now() - interval '5 hours', 'command'),
                           ('auth', '1.4', now() - interval '1 hour', 'event');
INSERT INTO mutes (stream, kind, template, template_text, alarm_id, active_from, expires_at, created_by)
VALUES ('log-events/0', 'template', 'a', 'text of a', 'x', now(), now() + interval '1 day', 'ann');
INSERT INTO pipeline_health
SELECT date_trunc('minute', now()) - n * interval '1 minute', 'logguard-processor', 'log-events', p, 10 * n,
  now() - (n + 1) * interval '1 minute', 200, 198, 1, 1
FROM generate_series(0, 359) n, generate_series(0, 1) p;
ANALYZE;"#;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana")
}

/// The dashboards by file name.
fn dashboards() -> BTreeMap<String, Value> {
    let files = fs::read_dir(directory().join("dashboards")).unwrap();
    let dashboards: BTreeMap<_, _> = files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (
                name,
                serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(),
            )
        })
        .collect();
    assert!(dashboards.len() >= 3, "{:?}", dashboards.keys());
    dashboards
}

async fn filled() -> Option<(TestDatabase, Client)> {
    let database = fresh_database().await?;
    let config = StoreConfig {
        url: Some(Secret::new(&database.url)),
        ..StoreConfig::default()
    };
    let options = MigrateOptions {
        roles: true,
        ..MigrateOptions::default()
    };
    migrate(&config, options).await.unwrap();
    let client = database.client().await;
    client.batch_execute(FILL).await.unwrap();
    // Grafana's login has the rights of this role and no others.
    let sql = "SET ROLE logguard_reader";
    client.batch_execute(sql).await.unwrap();
    Some((database, client))
}

#[tokio::test]
async fn every_query_of_every_dashboard_answers_what_it_is_for() {
    let Some((_database, client)) = filled().await else {
        return;
    };
    let now: DateTime<Utc> = client.query_one("SELECT now()", &[]).await.unwrap().get(0);
    for (file, dashboard) in dashboards() {
        // Short and long ranges differ in the interval that Grafana picks.
        for interval_s in [30, 3_600] {
            let mut context = Context {
                from: now - TimeDelta::hours(6),
                to: now,
                interval_s,
                variables: BTreeMap::new(),
            };
            for variable in variables(&dashboard) {
                let rows = ask(&client, &context, &file, &variable.query).await;
                let mut values: Vec<_> = rows.iter().map(first_value).collect();
                if variable.name == "stream" {
                    // The one that has to be escaped.
                    values.reverse();
                }
                if !variable.all {
                    values.truncate(1);
                }
                context.variables.insert(variable.name, values);
            }
            for query in queries(&dashboard) {
                ask(&client, &context, &file, &query).await;
            }
        }
    }
}

/// Runs a query and checks its answer; returns the rows.
async fn ask(client: &Client, context: &Context, file: &str, query: &Query) -> Vec<Value> {
    let place = format!("{file}, {}", query.place);
    let sql = context.expand(&query.sql);
    let statement = client.prepare(&sql).await;
    let statement = statement.unwrap_or_else(|error| panic!("{place}: {error:?}\n{sql}"));
    let columns: Vec<_> = statement
        .columns()
        .iter()
        .map(|column| (column.name().to_owned(), column.type_().clone()))
        .collect();
    let json = format!("SELECT row_to_json(answer) FROM ({sql}) AS answer");
    let rows = client.query(&json, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{place}: {error:?}\n{sql}"));
    let rows: Vec<Value> = rows.iter().map(|row| row.get(0)).collect();
    assert!(!rows.is_empty(), "{place} finds nothing:\n{sql}");
    check(query.purpose, &columns, &rows).unwrap_or_else(|what| panic!("{place}: {what}\n{sql}"));
    rows
}

/// Says what a visualisation would miss in an answer.
fn check(purpose: Use, columns: &[(String, Type)], rows: &[Value]) -> Result<(), String> {
    let numbers: Vec<_> = columns
        .iter()
        .filter(|(name, kind)| is_number(kind) && name != "time")
        .map(|(name, _)| name.as_str())
        .collect();
    let has_value = |name: &str| rows.iter().any(|row| !row[name].is_null());
    let is_time = |(name, kind): &(String, Type)| {
        name == "time" && (*kind == Type::TIMESTAMPTZ || is_number(kind))
    };
    match purpose {
        Use::TimeSeries | Use::Annotation if !columns.iter().any(is_time) => {
            Err(format!("no column `time` in {columns:?}"))
        }
        Use::TimeSeries if !in_order(rows) => Err("not in order of time".to_owned()),
        Use::TimeSeries | Use::Stat if numbers.is_empty() => Err("no number".to_owned()),
        Use::TimeSeries | Use::Stat if !numbers.iter().all(|name| has_value(name)) => {
            Err(format!("no value in one of {numbers:?}"))
        }
        Use::Stat if rows.len() != 1 || columns.len() != 1 => Err("more than one value".to_owned()),
        Use::Annotation if !has_value("text") => Err("no text".to_owned()),
        Use::Variable if columns.len() != 1 => Err("more than one column".to_owned()),
        _ => Ok(()),
    }
}

fn is_number(kind: &Type) -> bool {
    [
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::NUMERIC,
    ]
    .contains(kind)
}

fn in_order(rows: &[Value]) -> bool {
    let times: Vec<_> = rows
        .iter()
        .map(|row| (row["time"].as_f64(), row["time"].as_str()))
        .collect();
    times.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1)
}

fn first_value(row: &Value) -> String {
    match row.as_object().unwrap().values().next().unwrap() {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn dashboards_hold_together() {
    let dashboards = dashboards();
    let uids: BTreeSet<_> = dashboards
        .values()
        .map(|it| it["uid"].as_str().unwrap())
        .collect();
    assert_eq!(uids.len(), dashboards.len(), "two have the same uid");
    let mut linked = BTreeSet::new();
    for (file, dashboard) in &dashboards {
        assert_eq!(dashboard["schemaVersion"], SCHEMA_VERSION, "{file}");
        assert_eq!(
            dashboard["tags"][0], "logguard",
            "{file}: the links between them go by it"
        );
        let names: BTreeSet<_> = variables(dashboard).into_iter().map(|it| it.name).collect();
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{file}: {}",
                panel["id"]
            );
            for cell in cells(&panel["gridPos"]) {
                assert!(
                    cell.0 < GRID_WIDTH,
                    "{file}: {} is too wide",
                    panel["title"]
                );
                assert!(taken.insert(cell), "{file}: {} overlaps", panel["title"]);
            }
        }
        for panel in panels(dashboard) {
            let title = panel["title"].as_str().unwrap();
            let said = panel["description"].as_str().unwrap();
            assert!(!said.is_empty(), "{file}: {title} says nothing");
            if panel["type"] != "table" {
                let unit = &panel["fieldConfig"]["defaults"]["unit"];
                assert!(unit.is_string(), "{file}: {title} has no unit");
            }
        }
        let text = dashboard.to_string();
        for link in text.split("\"/d/").skip(1) {
            let uid = link.split(['?', '"']).next().unwrap();
            assert!(uids.contains(uid), "{file}: links to `{uid}`");
            linked.insert((file.clone(), uid.to_owned()));
        }
        for used in text
            .split(":sqlstring")
            .collect::<Vec<_>>()
            .split_last()
            .unwrap()
            .1
        {
            let name = used.rsplit("${").next().unwrap();
            assert!(names.contains(name), "{file}: uses `{name}`");
        }
    }
    let drill_down = ("overview.json".to_owned(), "logguard-stream".to_owned());
    assert!(linked.contains(&drill_down), "{linked:?}");
}

/// The cells of the grid that a panel covers.
fn cells(place: &Value) -> Vec<(u64, u64)> {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap());
    (x..x + w)
        .flat_map(|column| (y..y + h).map(move |row| (column, row)))
        .collect()
}

#[test]
fn dashboards_ask_the_data_source_that_is_provisioned() {
    let provisioning = directory().join("provisioning/datasources/logguard.yaml");
    let provisioned = fs::read_to_string(provisioning).unwrap();
    let mut sources = BTreeSet::new();
    for dashboard in dashboards().values() {
        collect(dashboard, &mut sources);
    }
    assert_eq!(sources.len(), 1, "{sources:?}");
    for (kind, uid) in sources {
        for line in [format!("type: {kind}"), format!("uid: {uid}")] {
            assert!(provisioned.contains(&line), "`{line}` is not provisioned");
        }
    }
}

/// Collects type and uid of every data source that a dashboard names.
fn collect(value: &Value, sources: &mut BTreeSet<(String, String)>) {
    if let Some(source) = value.get("datasource") {
        let text = |key: &str| source[key].as_str().unwrap().to_owned();
        sources.insert((text("type"), text("uid")));
    }
    match value {
        Value::Object(members) => members.values().for_each(|it| collect(it, sources)),
        Value::Array(items) => items.iter().for_each(|it| collect(it, sources)),
        _ => {}
    }
}
