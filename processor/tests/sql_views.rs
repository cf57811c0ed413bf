//! The views of docs/SQL.md: known rows in, known answers out, and no view that reads a large table
//! from end to end.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{TestDatabase, fresh_database};
use logguard::{
    secret::Secret,
    sink::{
        migrate::{MigrateOptions, migrate},
        store::StoreConfig,
    },
};
use serde_json::Value;
use tokio_postgres::Client;

async fn migrated() -> Option<(TestDatabase, Client)> {
    let database = fresh_database().await?;
    let config = StoreConfig {
        url: Some(Secret::new(&database.url)),
        ..StoreConfig::default()
    };
    migrate(&config, MigrateOptions::default()).await.unwrap();
    let client = database.client().await;
    client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    client.batch_execute(HELPERS).await.unwrap();
    Some((database, client))
}

/// Rows that say only what a view looks at.
const HELPERS: &str = "
CREATE FUNCTION pg_temp.result(
    at timestamptz, anomaly int DEFAULT 0, truth int DEFAULT 0, labelled int DEFAULT 0,
    explanation jsonb DEFAULT '{\"reasons\":[]}', of_service text DEFAULT NULL,
    provisional boolean DEFAULT false, score float8 DEFAULT 0.5
) RETURNS void LANGUAGE sql AS $$
  INSERT INTO anomaly_results (timestamp, window_start, window_end, is_anomaly, anomaly_score,
    cluster_label, log_count, error_count, critical_count, error_rate, critical_rate, ground_truth,
    labelled_count, stream, topic, partition, service, final_by, provisional, severity,
    dbscan_score, model_checksum, explanation, state)
  VALUES (at + interval '30 s', at, at + interval '30 s', anomaly, score, 0, 100, 2, 3, 0.02, 0.03,
    truth, labelled, 'log-events/0' || coalesce('/' || of_service, ''), 'log-events', 0, of_service,
    CASE WHEN provisional THEN 'open' ELSE 'watermark' END, provisional, score * 10, 0.5, 'c0ffee',
    explanation, '{}')
$$;
CREATE FUNCTION pg_temp.features(at timestamptz, features jsonb, templates jsonb)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO window_features (window_start, window_end, stream, model_checksum, features, templates)
  VALUES (at, at + interval '30 s', 'log-events/0', 'c0ffee', features, templates)
$$;
CREATE FUNCTION pg_temp.template(of_stream text, id text, of_service text, at timestamptz, lines int)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO log_templates VALUES
    (of_stream, id, 'text of ' || id, of_service, 'WARN', at, at + interval '1 minute', lines)
$$;
CREATE FUNCTION pg_temp.alarm(id text, at timestamptz, said text) RETURNS void LANGUAGE sql AS $$
  INSERT INTO alarms (alarm_id, raised_at, window_start, window_end, stream, topic, partition,
    provisional, stale, anomaly_score, severity, threshold, log_count, error_count, critical_count,
    reasons, samples, explanation, lateness_ms, model_checksum, feedback)
  VALUES (id, at, at, at + interval '30 s', 'log-events/0', 'log-events', 0, false, false, 0.9, 5,
    1e-5, 100, 2, 3, '{}', '{}', '{}', 2000, 'c0ffee', said)
$$;";

/// Returns each row of a query as JSON text without its braces, keys in the query's order.
async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let sql = format!("SELECT row_to_json(answer)::text FROM ({sql}) AS answer");
    let rows = client.query(&sql, &[]).await.unwrap();
    let text = |row: &tokio_postgres::Row| {
        let json: &str = row.get(0);
        json.trim_matches(['{', '}']).replace('"', "")
    };
    rows.iter().map(text).collect()
}

#[tokio::test]
async fn anomalies_of_the_last_hour_are_counted_by_the_services_they_name() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            r#"SELECT pg_temp.result(now() - interval '5 minutes', 1, score => 0.9, explanation =>
                 '{"services":[{"service":"auth","lines":7},{"service":"cart","lines":2}]}');
               SELECT pg_temp.result(now() - interval '9 minutes', 1, score => 0.8, explanation =>
                 '{"services":[{"service":"auth","lines":3}]}', provisional => true);
               -- Volume alone names no service where windows are not grouped by it.
               SELECT pg_temp.result(now() - interval '7 minutes', 1, score => 0.6);
               SELECT pg_temp.result(now() - interval '7 minutes', 1, score => 0.7, of_service => 'pay');
               SELECT pg_temp.result(now() - interval '6 minutes');
               SELECT pg_temp.result(now() - interval '61 minutes', 1, explanation =>
                 '{"services":[{"service":"old","lines":3}]}')"#,
        )
        .await
        .unwrap();
    let sql = "SELECT service, anomalies, streams, max_severity, lines,
                      last_window > first_window AS lasting FROM anomalies_last_hour";
    assert_eq!(
        rows(&client, sql).await,
        [
            "service:auth,anomalies:2,streams:1,max_severity:9,lines:10,lasting:true",
            "service:cart,anomalies:1,streams:1,max_severity:9,lines:2,lasting:false",
            "service:pay,anomalies:1,streams:1,max_severity:7,lines:null,lasting:false",
            "service:null,anomalies:1,streams:1,max_severity:6,lines:null,lasting:false",
        ]
    );
}

#[tokio::test]
async fn anomalies_list_the_templates_they_are_about() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            r#"SELECT pg_temp.result('2025-12-24 10:00Z', 1, explanation =>
                 '{"templates":[{"kind":"new","text":"disk <NUM> failed","service":"auth",
                                 "level":"ERROR","lines":4,"expected_lines":0,"training_lines":0}]}');
               SELECT pg_temp.result('2025-12-24 10:01Z', 0, explanation =>
                 '{"templates":[{"kind":"new","text":"no anomaly","service":"auth","lines":4}]}')"#,
        )
        .await
        .unwrap();
    let sql = "SELECT service, kind, level, lines, text FROM anomaly_templates";
    assert_eq!(
        rows(&client, sql).await,
        ["service:auth,kind:new,level:ERROR,lines:4,text:disk <NUM> failed"]
    );
}

#[tokio::test]
async fn quality_is_measured_on_labelled_final_windows_only() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            "-- Hour 10: 3 found, 1 false, 2 missed, 4 rightly quiet.
             SELECT pg_temp.result('2025-12-24 10:00Z'::timestamptz + n * interval '30 s',
               (n < 4)::int, (n < 3 OR n IN (4, 5))::int, 20) FROM generate_series(0, 9) n;
             -- Neither unlabelled nor provisional windows count.
             SELECT pg_temp.result('2025-12-24 10:30Z', 1, 0, 0);
             SELECT pg_temp.result('2025-12-24 10:31Z', 1, 0, 20, provisional => true);
             -- Hour 11: nothing to find, nothing said.
             SELECT pg_temp.result('2025-12-24 11:59:30Z', 0, 0, 20)",
        )
        .await
        .unwrap();
    let sql = "SELECT to_char(bucket, 'HH24:MI') AS hour, labelled_windows AS windows,
                      true_positives AS tp, false_positives AS fp, false_negatives AS fn,
                      true_negatives AS tn, precision, recall, round(f1::numeric, 4) AS f1
               FROM detection_quality_hourly ORDER BY bucket";
    assert_eq!(
        rows(&client, sql).await,
        [
            "hour:10:00,windows:10,tp:3,fp:1,fn:2,tn:4,precision:0.75,recall:0.6,f1:0.6667",
            "hour:11:00,windows:1,tp:0,fp:0,fn:0,tn:1,precision:null,recall:null,f1:null",
        ]
    );
}

#[tokio::test]
async fn a_template_is_new_today_if_no_stream_had_it_before() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            "SELECT pg_temp.template('log-events/0', 'fresh', 'auth', date_trunc('day', now()), 5);
             SELECT pg_temp.template('log-events/1', 'fresh', 'cart',
                                     date_trunc('day', now()) + interval '1 s', 6);
             SELECT pg_temp.template('log-events/0', 'rare', 'auth', date_trunc('day', now()), 2);
             SELECT pg_temp.template('log-events/0', 'moved', 'auth', date_trunc('day', now()), 90);
             SELECT pg_temp.template('log-events/1', 'moved', 'auth', now() - interval '3 days', 1);
             SELECT pg_temp.template('log-events/0', 'old', 'auth', now() - interval '2 days', 70)",
        )
        .await
        .unwrap();
    let sql = "SELECT id, service, level, lines, streams, text FROM new_templates_today";
    assert_eq!(
        rows(&client, sql).await,
        [
            "id:fresh,service:auth,level:WARN,lines:11,streams:2,text:text of fresh",
            "id:rare,service:auth,level:WARN,lines:2,streams:1,text:text of rare",
        ]
    );
}

#[tokio::test]
async fn a_stream_has_a_timeline() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            r#"SELECT pg_temp.result('2025-12-24 10:00:30Z', 1, score => 0.75, explanation =>
                 '{"reasons":["never seen in training: `x`","volume"]}');
               SELECT pg_temp.result('2025-12-24 10:00Z', of_service => 'auth');
               SELECT pg_temp.result('2025-12-24 10:00Z')"#,
        )
        .await
        .unwrap();
    let sql = "SELECT to_char(window_start, 'MI:SS') AS at, anomaly_score, is_anomaly, log_count,
                      error_rate, reason
               FROM score_timeline WHERE stream = 'log-events/0' ORDER BY window_start";
    assert_eq!(
        rows(&client, sql).await,
        [
            "at:00:00,anomaly_score:0.5,is_anomaly:0,log_count:100,error_rate:0.02,reason:null",
            "at:00:30,anomaly_score:0.75,is_anomaly:1,log_count:100,error_rate:0.02,\
             reason:never seen in training: `x`",
        ]
    );
}

#[tokio::test]
async fn volume_is_told_by_level_and_by_service() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            r#"SELECT pg_temp.features('2025-12-24 10:00Z',
                 '{"log_count":17.0,"debug_count":1.0,"info_count":9.0,"warn_count":4.0,
                   "error_count":2.0,"fatal_count":1.0}',
                 '[{"template":"a","service":"auth","level":"INFO","count":9},
                   {"template":"b","service":"auth","level":"ERROR","count":2},
                   {"template":"c","service":"cart","level":"FATAL","count":1}]')"#,
        )
        .await
        .unwrap();
    let sql = "SELECT debug, info, warn, error, fatal FROM level_volume";
    assert_eq!(
        rows(&client, sql).await,
        ["debug:1,info:9,warn:4,error:2,fatal:1"]
    );
    let sql = "SELECT service, lines, critical_lines FROM service_volume ORDER BY service";
    assert_eq!(
        rows(&client, sql).await,
        [
            "service:auth,lines:11,critical_lines:2",
            "service:cart,lines:1,critical_lines:1",
        ]
    );
}

#[tokio::test]
async fn lag_and_late_events_add_up_by_the_hour() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            "INSERT INTO pipeline_health VALUES
               ('2025-12-24 10:00Z', 'g', 'log-events', 0, 900, NULL, 100, 90, 10, 0),
               ('2025-12-24 10:59Z', 'g', 'log-events', 0, 40, NULL, 300, 295, 0, 5),
               ('2025-12-24 10:59Z', 'g', 'log-events', 1, NULL, NULL, 0, 0, 0, 0),
               ('2025-12-24 11:00Z', 'g', 'log-events', 0, 7, NULL, 50, 50, 0, 0)",
        )
        .await
        .unwrap();
    let sql = "SELECT to_char(bucket, 'HH24') AS hour, partition, max_lag, last_lag, read, scored,
                      late, rejected, late_share
               FROM pipeline_health_hourly ORDER BY bucket, partition";
    assert_eq!(
        rows(&client, sql).await,
        [
            "hour:10,partition:0,max_lag:900,last_lag:40,read:400,scored:385,late:10,rejected:5,\
             late_share:0.025",
            "hour:10,partition:1,max_lag:null,last_lag:null,read:0,scored:0,late:0,rejected:0,\
             late_share:null",
            "hour:11,partition:0,max_lag:7,last_lag:7,read:50,scored:50,late:0,rejected:0,\
             late_share:0",
        ]
    );
}

#[tokio::test]
async fn a_deploy_is_followed_by_what_it_changed() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            r#"INSERT INTO deploys (service, version, deployed_at, source) VALUES
                 ('auth', '1.0', '2025-12-20 10:00Z', 'command'),
                 ('auth', '2.0', '2025-12-24 10:00:10Z', 'event'),
                 ('auth', '3.0', now() + interval '1 day', 'command'),
                 ('cart', '7', '2025-12-24 10:00Z', 'command');
               SELECT pg_temp.template('log-events/0', 'after', 'auth', '2025-12-24 10:05Z', 4);
               SELECT pg_temp.template('log-events/0', 'within', 'auth', '2025-12-24 10:00:00Z', 3);
               SELECT pg_temp.template('log-events/0', 'before', 'auth', '2025-12-24 09:59:30Z', 9);
               SELECT pg_temp.template('log-events/0', 'known', 'auth', '2025-12-24 10:05Z', 9);
               SELECT pg_temp.template('log-events/1', 'known', 'cart', '2025-12-24 09:00Z', 9);
               SELECT pg_temp.features('2025-12-24 09:00:00Z', '{}',
                 '[{"template":"a","service":"auth","level":"INFO","count":999}]');
               SELECT pg_temp.features('2025-12-24 09:30:00Z', '{}',
                 '[{"template":"a","service":"auth","level":"INFO","count":10},
                   {"template":"a","service":"cart","level":"INFO","count":10}]');
               SELECT pg_temp.features('2025-12-24 10:00:00Z', '{}',
                 '[{"template":"a","service":"auth","level":"INFO","count":6},
                   {"template":"b","service":"auth","level":"ERROR","count":2}]');
               SELECT pg_temp.result('2025-12-24 09:30Z', 1, explanation =>
                 '{"services":[{"service":"cart","lines":1}]}');
               SELECT pg_temp.result('2025-12-24 10:00Z', 1, explanation =>
                 '{"services":[{"service":"auth","lines":2}]}');
               SELECT pg_temp.result('2025-12-24 10:30Z', 1, explanation =>
                 '{"services":[{"service":"auth","lines":2}]}')"#,
        )
        .await
        .unwrap();
    let sql = "SELECT service, version, previous_version AS previous FROM last_deploys";
    assert_eq!(
        rows(&client, sql).await,
        [
            "service:auth,version:2.0,previous:1.0",
            "service:cart,version:7,previous:null",
        ]
    );
    let sql = "SELECT service, version, id, lines FROM new_templates_since_deploy ORDER BY id";
    assert_eq!(
        rows(&client, sql).await,
        [
            "service:auth,version:2.0,id:after,lines:4",
            "service:auth,version:2.0,id:within,lines:3",
        ]
    );
    let sql = "SELECT service, compared::text, lines_before, lines_after, critical_rate_before,
                      critical_rate_after, anomalies_before, anomalies_after, new_templates
               FROM deploy_impact ORDER BY service";
    assert_eq!(
        rows(&client, sql).await,
        [
            "service:auth,compared:01:00:00,lines_before:10,lines_after:8,critical_rate_before:0,\
             critical_rate_after:0.25,anomalies_before:0,anomalies_after:2,new_templates:2",
            "service:cart,compared:01:00:00,lines_before:10,lines_after:0,critical_rate_before:0,\
             critical_rate_after:null,anomalies_before:1,anomalies_after:0,new_templates:0",
        ]
    );
}

#[tokio::test]
async fn feedback_gives_precision_by_week() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            "-- 2025-12-22 is a Monday.
             SELECT pg_temp.alarm('a', '2025-12-22 00:00Z', 'real');
             SELECT pg_temp.alarm('b', '2025-12-24 00:00Z', 'real');
             SELECT pg_temp.alarm('c', '2025-12-28 23:59Z', 'false-alarm');
             SELECT pg_temp.alarm('d', '2025-12-25 00:00Z', 'real');
             SELECT pg_temp.alarm('e', '2025-12-25 01:00Z', NULL);
             SELECT pg_temp.alarm('f', '2025-12-29 00:00Z', NULL)",
        )
        .await
        .unwrap();
    let sql = "SELECT to_char(week, 'MM-DD') AS week, alarms, judged, \"real\", false_alarms,
                      precision FROM feedback_precision_weekly ORDER BY week";
    assert_eq!(
        rows(&client, sql).await,
        [
            "week:12-22,alarms:5,judged:4,real:3,false_alarms:1,precision:0.75",
            "week:12-29,alarms:1,judged:0,real:0,false_alarms:0,precision:null",
        ]
    );
}

#[tokio::test]
async fn open_mutes_are_those_that_have_not_expired() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client
        .batch_execute(
            "INSERT INTO mutes (stream, kind, template, template_text, alarm_id, active_from, expires_at,
                                created_by)
             VALUES
               ('log-events/0', 'template', 'noisy', 'text of noisy', 'a', now() - interval '1 day',
                now() + interval '2 days', 'ann'),
               ('log-events/0', 'volume', NULL, NULL, 'b', now() + interval '1 hour',
                now() + interval '1 day', 'bob'),
               ('log-events/0', 'critical', NULL, NULL, 'c', now() - interval '9 days',
                now() - interval '1 day', 'ann')",
        )
        .await
        .unwrap();
    let sql = "SELECT kind, text, created_by, active, expires_in > interval '25 h' AS later
               FROM open_mutes";
    assert_eq!(
        rows(&client, sql).await,
        [
            "kind:volume,text:null,created_by:bob,active:false,later:false",
            "kind:template,text:text of noisy,created_by:ann,active:true,later:true",
        ]
    );
}

/// Thirty days of four partitions, few of them anomalous or labelled, as they are in use.
const FILL: &str = "
INSERT INTO anomaly_results (timestamp, window_start, window_end, is_anomaly, anomaly_score,
  cluster_label, log_count, error_count, critical_count, error_rate, critical_rate, labelled_count,
  stream, topic, partition, final_by, severity, dbscan_score, model_checksum, explanation, state)
SELECT t, t, t + interval '2 minutes', (n % 200 = 0)::int, 0.5, 0, 100, 0, 0, 0, 0,
       CASE WHEN n % 50 = 0 THEN 10 ELSE 0 END, 'log-events/' || p, 'log-events', p, 'watermark', 1,
       0.5, 'c0ffee', '{\"reasons\":[],\"services\":[{\"service\":\"auth\",\"lines\":1}]}', '{}'
FROM (SELECT n, p, now() - n * interval '2 minutes' AS t
      FROM generate_series(0, 21599) n, generate_series(0, 3) p) AS grid;
INSERT INTO window_features (window_start, window_end, stream, model_checksum, features, templates)
SELECT window_start, window_end, stream, 'c0ffee', '{\"info_count\":100}',
       '[{\"template\":\"a\",\"service\":\"auth\",\"level\":\"INFO\",\"count\":100}]'
FROM anomaly_results;
INSERT INTO log_templates
SELECT 'log-events/' || p, 't' || n, 'text', 'service-' || n % 9, 'INFO',
       now() - n * interval '10 minutes', now(), 1
FROM generate_series(1, 4000) n, generate_series(0, 3) p;
INSERT INTO deploys (service, version, deployed_at, source)
SELECT 'service-' || n % 9, n::text, now() - n * interval '7 hours', 'command'
FROM generate_series(1, 90) n;
ANALYZE;";

/// Tables that no question may read from end to end.
const LARGE: [&str; 3] = ["anomaly_results", "window_features", "log_templates"];

#[tokio::test]
async fn no_view_reads_a_large_table_from_end_to_end() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    client.batch_execute(FILL).await.unwrap();
    for question in [
        "anomalies_last_hour",
        "anomaly_services WHERE window_start >= now() - interval '24 hours'",
        "anomaly_templates WHERE window_start >= now() - interval '24 hours'",
        "detection_quality_hourly WHERE bucket >= now() - interval '24 hours'",
        "new_templates_today",
        "score_timeline WHERE stream = 'log-events/2' AND window_start >= now() - interval '1 day'",
        "level_volume WHERE window_start >= now() - interval '6 hours'",
        "service_volume WHERE window_start >= now() - interval '1 hour'",
        "new_templates_since_deploy WHERE service = 'service-3'",
        "deploy_impact WHERE service = 'service-3'",
    ] {
        let sql = format!("EXPLAIN (FORMAT JSON) SELECT * FROM {question}");
        let plan: Value = client.query_one(&sql, &[]).await.unwrap().get(0);
        let scanned = sequential_scans(&plan[0]["Plan"]);
        assert!(
            scanned.iter().all(|table| !LARGE.contains(&table.as_str())),
            "{question} reads all of {scanned:?}:\n{plan:#}"
        );
    }
}

/// Returns the tables that a plan reads from end to end.
fn sequential_scans(plan: &Value) -> Vec<String> {
    let mut tables = Vec::new();
    if plan["Node Type"] == "Seq Scan" {
        tables.extend(plan["Relation Name"].as_str().map(str::to_owned));
    }
    for part in plan["Plans"].as_array().into_iter().flatten() {
        tables.extend(sequential_scans(part));
    }
    tables
}

#[tokio::test]
async fn every_query_of_the_documentation_runs() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SQL.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<_> = text.split("```sql\n").skip(1).collect();
    assert!(blocks.len() > 20, "{} queries in {path}", blocks.len());
    for block in blocks {
        let sql = block.split("```").next().unwrap();
        let ran = client.batch_execute(sql).await;
        assert!(ran.is_ok(), "{ran:?}:\n{sql}");
    }
    let sql = "SELECT relname::text FROM pg_class
               WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace
                 AND relname NOT LIKE 'refinery%'";
    for row in client.query(sql, &[]).await.unwrap() {
        let name: &str = row.get(0);
        assert!(
            text.contains(&format!("\n### {name}\n")),
            "{name} is not documented"
        );
    }
}

#[tokio::test]
async fn every_view_says_why_it_is_there() {
    let Some((_database, client)) = migrated().await else {
        return;
    };
    let sql = "SELECT relname::text AS view FROM pg_class
               WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace
                 AND relname NOT LIKE 'anomaly\\_summary\\_%' AND obj_description(oid) IS NULL";
    assert_eq!(rows(&client, sql).await, [""; 0]);
}
