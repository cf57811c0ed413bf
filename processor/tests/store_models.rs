//! The registry of models: a bundle goes in once and comes out as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;
#[path = "common/model.rs"]
mod model;

use std::{error::Error, sync::Arc};

use common::{TestDatabase, fresh_database};
use logguard::{
    event::EventTime,
    model::Bundle,
    secret::Secret,
    sink::{
        migrate::{MigrateOptions, migrate},
        store::{Store, StoreConfig, StoreError},
    },
    window::{GroupBy, WindowConfig},
};

fn bundle() -> Arc<Bundle> {
    model::bundle(WindowConfig {
        length_ms: 30_000,
        lateness_ms: 2_000,
        group_by: GroupBy::Partition,
    })
}

async fn store() -> Option<(TestDatabase, Store)> {
    let database = fresh_database().await?;
    let config = StoreConfig {
        url: Some(Secret::new(&database.url)),
        ..StoreConfig::default()
    };
    migrate(&config, MigrateOptions::default()).await.unwrap();
    let store = Store::new(&config, "group").unwrap();
    Some((database, store))
}

#[tokio::test]
async fn a_model_comes_out_as_it_went_in() {
    let Some((database, store)) = store().await else {
        return;
    };
    let bundle = bundle();
    assert!(store.register_model(&bundle).await.unwrap());
    assert!(
        !store.register_model(&bundle).await.unwrap(),
        "known by now"
    );
    let loaded = store.model(bundle.checksum()).await.unwrap().unwrap();
    assert_eq!(loaded.checksum(), bundle.checksum());
    assert_eq!(loaded.to_bytes().unwrap(), bundle.to_bytes().unwrap());
    assert!(store.model("another").await.unwrap().is_none());
    let summary = bundle.summary();
    let sql = "SELECT lines, windows, training_from, training_until, length(bundle) FROM models";
    let row = database.client().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0).unsigned_abs(), summary.lines);
    assert_eq!(row.get::<_, i64>(1).unsigned_abs(), summary.windows);
    let span: [chrono::DateTime<chrono::Utc>; 2] = [row.get(2), row.get(3)];
    assert_eq!(span, [summary.from, summary.to].map(EventTime::to_datetime));
    let packed = usize::try_from(row.get::<_, i32>(4)).unwrap();
    assert!(packed < bundle.to_bytes().unwrap().len(), "{packed}");
}

#[tokio::test]
async fn many_replicas_register_their_model_at_once() {
    let Some((_database, store)) = store().await else {
        return;
    };
    let bundle = bundle();
    let registering: Vec<_> = (0..8)
        .map(|_| {
            let (store, bundle) = (store.clone(), Arc::clone(&bundle));
            tokio::spawn(async move { store.register_model(&bundle).await })
        })
        .collect();
    let mut new = 0;
    for one in registering {
        new += usize::from(one.await.unwrap().unwrap());
    }
    assert_eq!(new, 1);
}

#[tokio::test]
async fn what_is_not_that_model_is_refused() {
    let Some((database, store)) = store().await else {
        return;
    };
    let bundle = bundle();
    store.register_model(&bundle).await.unwrap();
    let client = database.client().await;
    for (change, checksum) in [
        ("checksum = 'another'", "another"),
        ("bundle = substr(bundle, 1, 100)", "another"),
        ("bundle = 'no zstd'", "another"),
    ] {
        let sql = format!("UPDATE models SET {change}");
        client.execute(&sql, &[]).await.unwrap();
        let error = store.model(checksum).await.unwrap_err();
        assert!(matches!(error, StoreError::Model { .. }), "{error:?}");
        assert!(error.to_string().contains(checksum), "{error}");
        assert!(error.source().is_some());
    }
}
