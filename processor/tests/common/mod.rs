//! What the service tests share: where PostgreSQL and Kafka are, and a database of one's own.
//!
//! Addresses come from the environment. Without them a test says so on stderr and passes over
//! itself; with `LOGGUARD_TEST_REQUIRE_SERVICES=1` (as in CI) a missing address is a failure, so
//! that nothing is skipped there unnoticed.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::expect_used,
    clippy::string_slice,
    reason = "tests fail by panicking"
)]

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, Config, NoTls};

/// Superuser URL of a PostgreSQL server, `postgres://user@host:port/postgres`.
pub(crate) const DATABASE_URL: &str = "LOGGUARD_TEST_DATABASE_URL";
/// Bootstrap servers of an Apache Kafka broker, `127.0.0.1:9092`.
pub(crate) const KAFKA_BROKERS: &str = "LOGGUARD_TEST_KAFKA_BROKERS";
/// With `1`, a missing address fails the test.
pub(crate) const REQUIRE_SERVICES: &str = "LOGGUARD_TEST_REQUIRE_SERVICES";

/// Returns the superuser URL of the PostgreSQL server to test on, if one was given.
pub(crate) fn database_url() -> Option<String> {
    address(DATABASE_URL)
}

/// Returns the bootstrap servers of the Kafka broker to test on, if any were given.
pub(crate) fn kafka_brokers() -> Option<String> {
    address(KAFKA_BROKERS)
}

fn address(variable: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|it| !it.is_empty());
    if address.is_none() {
        let required = std::env::var(REQUIRE_SERVICES).is_ok_and(|it| it == "1");
        assert!(!required, "{variable} is not set but {REQUIRE_SERVICES}=1");
        skipped(&format!("{variable} is not set"));
    }
    address
}

/// Says that the test passes over itself, and why.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Past the capture of the test runner, which hides the stderr of tests that pass.
    let line = format!("SKIPPED: {test}: {why}\n");
    let mut stderr = std::io::stderr().lock();
    std::io::Write::write_all(&mut stderr, line.as_bytes()).expect("stderr takes a line");
}

/// An empty database, dropped when this value is.
pub(crate) struct TestDatabase {
    /// URL of the database, for the same superuser.
    pub(crate) url: String,
    /// Its name.
    pub(crate) name: String,
    admin_url: String,
}

impl TestDatabase {
    /// Connects to the database.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // On a thread of its own: the test's runtime may be gone or may be this very thread.
        let (url, name) = (self.admin_url.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(async {
                    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    connect(&url).await.batch_execute(&sql).await
                })
        })
        .join();
        if !std::thread::panicking() {
            dropped
                .expect("the dropping thread lives")
                .expect("the database can be dropped");
        }
    }
}

/// Creates an empty database on the server to test on, if one was given.
pub(crate) async fn fresh_database() -> Option<TestDatabase> {
    Some(fresh_database_at(database_url()?).await)
}

/// Creates an empty database on the server of a superuser's URL.
pub(crate) async fn fresh_database_at(admin_url: String) -> TestDatabase {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("logguard_test_{}_{count}", std::process::id());
    let admin = connect(&admin_url).await;
    for sql in [
        format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        format!("CREATE DATABASE {name}"),
    ] {
        admin
            .batch_execute(&sql)
            .await
            .expect("the database can be created");
    }
    let url = with_database(&admin_url, &name);
    TestDatabase {
        url,
        name,
        admin_url,
    }
}

/// Returns whether the server has TimescaleDB, without which a test passes over itself and says so.
pub(crate) async fn offers_timescale(database: &TestDatabase) -> bool {
    let sql = "SELECT FROM pg_available_extensions WHERE name = 'timescaledb'";
    let client = database.client().await;
    let offered = client.query_opt(sql, &[]).await.expect("a catalogue");
    if offered.is_none() {
        skipped("the server has no TimescaleDB");
    }
    offered.is_some()
}

/// Returns `url` with its database replaced by `name`.
pub(crate) fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, None), |(b, q)| (b, Some(q)));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let server = base[authority..]
        .find('/')
        .map_or(base, |at| &base[..authority + at]);
    match query {
        None => format!("{server}/{name}"),
        Some(query) => format!("{server}/{name}?{query}"),
    }
}

async fn connect(url: &str) -> Client {
    let config: Config = url.parse().expect("a PostgreSQL URL");
    let (client, connection) = config.connect(NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}
