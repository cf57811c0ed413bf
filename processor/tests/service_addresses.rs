//! The test databases themselves.

mod common;

use common::{fresh_database, with_database};

#[test]
fn the_database_of_a_url_is_replaced() {
    for (url, expected) in [
        (
            "postgres://u:p@h:5433/postgres",
            "postgres://u:p@h:5433/mine",
        ),
        ("postgres://h", "postgres://h/mine"),
        (
            "postgres:///postgres?host=/tmp/pg",
            "postgres:///mine?host=/tmp/pg",
        ),
    ] {
        assert_eq!(with_database(url, "mine"), expected);
    }
}

#[tokio::test]
async fn two_databases_are_apart() {
    let (Some(one), Some(other)) = (fresh_database().await, fresh_database().await) else {
        return;
    };
    let first = one.client().await;
    first.batch_execute("CREATE TABLE t ()").await.unwrap();
    let sql = "SELECT to_regclass('t') IS NULL";
    let row = other.client().await.query_one(sql, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}
