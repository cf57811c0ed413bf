//! The schema: from nothing, again, and by many at once.

mod common;

use std::collections::BTreeSet;

use common::{TestDatabase, fresh_database, with_database};
use logguard::{
    secret::Secret,
    sink::{
        migrate::{MigrateOptions, MigrateReport, Timescale, check, migrate},
        store::{StoreConfig, StoreError},
    },
};

fn store_config(database: &TestDatabase) -> StoreConfig {
    StoreConfig {
        url: Some(Secret::new(&database.url)),
        ..StoreConfig::default()
    }
}

const MIGRATIONS: [&str; 17] = [
    "V1__anomaly_results",
    "V2__owner",
    "V3__log_events",
    "V4__anomaly_summary_hourly",
    "V5__window_features",
    "V6__log_templates",
    "V7__alarms",
    "V8__models",
    "V9__deploys",
    "V10__anomaly_summary_daily",
    "V11__pipeline_health",
    "V12__view_indices",
    "V13__views",
    "V14__early_alarms",
    "V15__template_decisions",
    "V16__learning",
    "V17__retention",
];
/// The newest of them.
const VERSION: i32 = 17;

async fn run(database: &TestDatabase) -> Result<MigrateReport, StoreError> {
    migrate(&store_config(database), MigrateOptions::default()).await
}

/// Leaves out what TimescaleDB adds where the server has it.
fn plain(report: &MigrateReport) -> Vec<&str> {
    let names = report.applied.iter().map(String::as_str);
    names.filter(|it| !it.starts_with("timescale")).collect()
}

#[tokio::test]
async fn an_empty_database_gets_the_schema_and_a_second_run_nothing() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let first = run(&database).await.unwrap();
    assert_eq!(plain(&first), MIGRATIONS);
    assert_eq!(first.version, VERSION);
    let second = run(&database).await.unwrap();
    assert_eq!(second.applied, Vec::<String>::new());
    assert_eq!(second.version, VERSION);
    check(&store_config(&database)).await.unwrap();
}

#[tokio::test]
async fn plain_postgresql_says_so() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let sql = "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'";
    let offered = database.client().await.query_one(sql, &[]).await.unwrap();
    let timescale = run(&database).await.unwrap().timescale;
    if offered.get::<_, i64>(0) == 0 {
        assert_eq!(timescale, Timescale::Absent);
    } else {
        assert_ne!(timescale, Timescale::Absent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_replicas_migrate_at_once() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let config = store_config(&database);
    let runs: Vec<_> = (0..8)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { migrate(&config, MigrateOptions::default()).await })
        })
        .collect();
    let mut applied = Vec::new();
    for run in runs {
        applied.extend(run.await.unwrap().unwrap().applied);
    }
    let distinct: BTreeSet<_> = applied.iter().collect();
    assert_eq!(distinct.len(), applied.len(), "applied twice: {applied:?}");
    for name in MIGRATIONS {
        assert!(applied.iter().any(|it| it == name), "{name}: {applied:?}");
    }
}

#[tokio::test]
async fn the_named_columns_keep_name_and_type() {
    let Some(database) = fresh_database().await else {
        return;
    };
    run(&database).await.unwrap();
    let rows = database
        .client()
        .await
        .query(
            "SELECT attname || ' ' || format_type(atttypid, atttypmod)
                    || CASE WHEN attname = 'ground_truth' THEN ' default '
                       || pg_get_expr(adbin, adrelid) ELSE '' END
             FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE attrelid = 'anomaly_results'::regclass AND attnum > 0 ORDER BY attnum LIMIT 12",
            &[],
        )
        .await
        .unwrap();
    let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        columns,
        [
            "timestamp timestamp with time zone",
            "window_start timestamp with time zone",
            "window_end timestamp with time zone",
            "is_anomaly integer",
            "anomaly_score double precision",
            "cluster_label integer",
            "log_count integer",
            "error_count integer",
            "critical_count integer",
            "error_rate double precision",
            "critical_rate double precision",
            "ground_truth integer default 0",
        ]
    );
    let client = database.client().await;
    let sql = "SELECT bucket, total_windows, anomaly_count, avg_anomaly_score, max_anomaly_score,
                      avg_error_rate, avg_critical_rate FROM anomaly_summary_hourly";
    assert_eq!(client.query(sql, &[]).await.unwrap().len(), 0);
    let sql = "SELECT timestamp, level, component, message, is_anomaly FROM log_events";
    assert_eq!(client.query(sql, &[]).await.unwrap().len(), 0);
}

#[tokio::test]
async fn run_refuses_a_database_without_the_schema() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let error = check(&store_config(&database)).await.unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("no logguard schema") && message.contains("run `logguard migrate`"),
        "{message}"
    );
}

#[tokio::test]
async fn a_newer_schema_is_left_alone_and_will_do_for_running() {
    let Some(database) = fresh_database().await else {
        return;
    };
    run(&database).await.unwrap();
    let sql =
        "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')";
    database.client().await.execute(sql, &[]).await.unwrap();
    let error = run(&database).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::SchemaNewer {
                found: 99,
                known: VERSION,
                ..
            }
        ),
        "{error:?}"
    );
    check(&store_config(&database)).await.unwrap();
}

#[tokio::test]
async fn a_schema_of_other_migrations_is_named() {
    let Some(database) = fresh_database().await else {
        return;
    };
    run(&database).await.unwrap();
    let sql = "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 2";
    database.client().await.execute(sql, &[]).await.unwrap();
    let error = run(&database).await.unwrap_err();
    assert!(
        matches!(error, StoreError::SchemaDiverged { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("V2__owner"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_which() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let role = format!("poor_{}", database.name);
    let admin = database.client().await;
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'p'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        ))
        .await
        .unwrap();
    let config = StoreConfig {
        url: Some(Secret::new(as_role(&database.url, &role))),
        ..StoreConfig::default()
    };
    let error = migrate(&config, MigrateOptions::default())
        .await
        .unwrap_err();
    admin
        .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await
        .unwrap();
    let message = error.to_string();
    assert!(message.contains("grant it CREATE"), "{message}");
    assert!(!error.is_unreachable());
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let Some(database) = fresh_database().await else {
        return;
    };
    let name = format!("{}_latin", database.name);
    let admin = database.client().await;
    admin
        .batch_execute(&format!(
            "CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        ))
        .await
        .unwrap();
    let config = StoreConfig {
        url: Some(Secret::new(with_database(&database.url, &name))),
        ..StoreConfig::default()
    };
    let error = migrate(&config, MigrateOptions::default())
        .await
        .unwrap_err();
    admin
        .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
        .await
        .unwrap();
    assert!(error.to_string().contains("encoding LATIN1"), "{error}");
}

/// Returns the URL with another user.
fn as_role(url: &str, role: &str) -> String {
    let server = url.rsplit_once('@').map_or(url, |(_, server)| server);
    format!("postgres://{role}:p@{server}")
}

#[tokio::test]
async fn an_unreachable_server_is_told_from_a_refusal() {
    // Bound but not listening: nothing else can answer there.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let config = StoreConfig {
        url: Some(Secret::new(format!(
            "postgres://me:hunter2@127.0.0.1:{port}/logs"
        ))),
        ..StoreConfig::default()
    };
    let error = migrate(&config, MigrateOptions::default())
        .await
        .unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot reach PostgreSQL as me@127.0.0.1:{port}/logs; check that it runs and accepts \
             connections"
        )
    );

    let Some(database) = fresh_database().await else {
        return;
    };
    let config = StoreConfig {
        url: Some(Secret::new(with_database(
            &database.url,
            "no_such_database",
        ))),
        ..StoreConfig::default()
    };
    let error = migrate(&config, MigrateOptions::default())
        .await
        .unwrap_err();
    assert!(!error.is_unreachable(), "{error:?}");
    assert!(error.to_string().contains("no_such_database"), "{error}");
}
