//! Roles: what the reader and the writer may do, and what they may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use common::{TestDatabase, fresh_database};
use logguard::{
    secret::Secret,
    sink::{
        SinksConfig,
        migrate::{MigrateOptions, check, migrate},
        store::StoreConfig,
    },
};
use sinks::{Harness, KEEP_ROWS, store_config};
use tokio_postgres::Client;
use windows::{Spec, job, partition};

const WITH_ROLES: MigrateOptions = MigrateOptions {
    roles: true,
    ..KEEP_ROWS
};

/// A login role that is dropped with what it was granted.
struct Login<'a> {
    name: String,
    database: &'a TestDatabase,
}

impl<'a> Login<'a> {
    async fn of(database: &'a TestDatabase, group: &str) -> Self {
        let name = format!("{group}_of_{}", database.name);
        let sql = format!("DROP ROLE IF EXISTS {name}; CREATE ROLE {name} LOGIN IN ROLE {group}");
        database.client().await.batch_execute(&sql).await.unwrap();
        Self { name, database }
    }

    fn url(&self) -> String {
        let url = &self.database.url;
        let server = url.rsplit_once('@').map_or(url.as_str(), |(_, it)| it);
        format!("postgres://{}@{server}", self.name)
    }

    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    async fn drop(self) {
        let sql = format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name);
        let admin = self.database.client().await;
        admin.batch_execute(&sql).await.unwrap();
    }
}

/// The tables and views of the schema.
async fn relations(client: &Client) -> Vec<String> {
    let sql = "SELECT relname::text FROM pg_class
               WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
                 AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
               ORDER BY 1";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn denied(client: &Client, sql: &str) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let code = error.code().map(|code| code.code().to_owned());
    assert_eq!(code.as_deref(), Some("42501"), "{sql}: {error}");
}

async fn migrated() -> Option<TestDatabase> {
    let database = fresh_database().await?;
    let config = store_config(&database);
    migrate(&config, WITH_ROLES).await.unwrap();
    // Again: everything is there.
    migrate(&config, WITH_ROLES).await.unwrap();
    Some(database)
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one scene, told in order")]
async fn the_writer_does_what_run_does_and_no_more() {
    let Some(database) = migrated().await else {
        return;
    };
    let login = Login::of(&database, "logguard_writer").await;
    let store = StoreConfig {
        url: Some(Secret::new(login.url())),
        ..StoreConfig::default()
    };
    check(&store).await.unwrap();
    let config = SinksConfig {
        store,
        ..SinksConfig::default()
    };
    let mut harness = Harness::start_with(Some(&database), config);
    let spec = Spec {
        is_anomaly: true,
        ..Spec::default()
    };
    let of = partition(&spec);
    let claim = harness.store.as_ref().unwrap().claim(&of, None).await;
    assert_eq!(claim.unwrap().fence, 1);
    // Inserted, then replaced.
    for score in [0.1, 0.2] {
        let spec = Spec {
            score,
            ..spec.clone()
        };
        harness.write(vec![job(&spec)]).await;
    }
    let admin = database.client().await;
    for table in [
        "anomaly_results",
        "window_features",
        "log_templates",
        "alarms",
    ] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(
            admin.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0),
            1
        );
    }
    let client = login.client().await;
    for sql in [
        "INSERT INTO deploys VALUES ('auth-service', '1.2', now(), 'command')",
        "INSERT INTO alarm_actions (alarm_id, action, actor) VALUES ('a', 'evidence', 'me')",
        "INSERT INTO models VALUES ('c', now(), now(), now(), 1, 1, '')",
        "INSERT INTO log_events VALUES (now(), 'INFO', 'auth-service', 'hello')",
    ] {
        client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for relation in relations(&admin).await {
        for sql in [
            format!("TRUNCATE {relation}"),
            format!("DROP TABLE {relation}"),
            format!("ALTER TABLE {relation} ADD COLUMN more int"),
        ] {
            let error = client.batch_execute(&sql).await.expect_err(&sql);
            let code = error.code().unwrap().code().to_owned();
            // Not a table (a view): told before rights are looked at.
            assert!(code == "42501" || code == "42809", "{sql}: {error}");
        }
    }
    for table in [
        "anomaly_results",
        "window_features",
        "alarms",
        "models",
        "owner",
    ] {
        denied(&client, &format!("DELETE FROM {table}")).await;
    }
    denied(&client, "UPDATE refinery_schema_history SET version = 1").await;
    drop((client, harness));
    login.drop().await;
}

#[tokio::test]
async fn the_reader_reads_everything_and_writes_nothing() {
    let Some(database) = migrated().await else {
        return;
    };
    let login = Login::of(&database, "logguard_reader").await;
    let client = login.client().await;
    let relations = relations(&database.client().await).await;
    assert!(relations.iter().any(|it| it == "anomaly_summary_daily"));
    // A table that came later, say: the next migration gives the right without being told to.
    let owner = database.client().await;
    let revoke = "REVOKE SELECT ON retention FROM logguard_reader";
    owner.batch_execute(revoke).await.unwrap();
    denied(&client, "SELECT count(*) FROM retention").await;
    migrate(&store_config(&database), KEEP_ROWS).await.unwrap();
    for relation in &relations {
        let sql = format!("SELECT count(*) FROM {relation}");
        client
            .query_one(&sql, &[])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    for table in [
        "anomaly_results",
        "owner",
        "alarms",
        "log_templates",
        "models",
    ] {
        denied(&client, &format!("DELETE FROM {table}")).await;
        denied(&client, &format!("INSERT INTO {table} DEFAULT VALUES")).await;
        denied(&client, &format!("TRUNCATE {table}")).await;
        denied(&client, &format!("DROP TABLE {table}")).await;
    }
    denied(&client, "UPDATE alarms SET feedback = 'real'").await;
    denied(&client, "UPDATE owner SET epoch = 0").await;
    drop(client);
    login.drop().await;
}
