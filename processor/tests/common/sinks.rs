//! Running sinks: a mock broker, an alarm file of one's own, and the acks that come back.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use chrono::{TimeZone, Utc};
use crossbeam_channel::Receiver;
use logguard::{
    clock::Clock,
    secret::Secret,
    sink::{
        ACKS_QUEUE_MAX, Ack, CloseReport, RunningSinks, SinkMetrics, Sinks, SinksConfig,
        SinksSetup, WindowJob,
        migrate::{MigrateOptions, Retention},
        store::{Store, StoreConfig},
    },
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};

use crate::common::TestDatabase;

/// Far longer than anything here takes: reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How tests migrate whose rows are old: TimescaleDB would drop them in the background.
pub(crate) const KEEP_ROWS: MigrateOptions = MigrateOptions {
    retention: Some(Retention::Off),
    roles: false,
};

/// Sinks under test.
pub(crate) struct Harness {
    pub(crate) sinks: Sinks,
    pub(crate) running: RunningSinks,
    pub(crate) acks: Receiver<Ack>,
    pub(crate) metrics: SinkMetrics,
    pub(crate) alarm_file: PathBuf,
    pub(crate) store: Option<Store>,
    brokers: String,
    pub(crate) cluster: MockCluster<'static, DefaultProducerContext>,
    _dir: tempfile::TempDir,
}

/// Returns the settings of a store on a test database.
pub(crate) fn store_config(database: &TestDatabase) -> StoreConfig {
    StoreConfig {
        url: Some(Secret::new(&database.url)),
        ..StoreConfig::default()
    }
}

impl Harness {
    /// Starts sinks, with a store if a migrated database is given.
    pub(crate) fn start(database: Option<&TestDatabase>) -> Self {
        let config = SinksConfig {
            store: database.map_or_else(StoreConfig::default, store_config),
            ..SinksConfig::default()
        };
        Self::start_with(database, config)
    }

    /// Starts sinks with these settings; an alarm file that is not absolute lies in a directory of
    /// the test.
    pub(crate) fn start_with(database: Option<&TestDatabase>, mut config: SinksConfig) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for topic in [&config.results.topic, &config.dead_letter.topic] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let brokers = cluster.bootstrap_servers();
        let dir = tempfile::tempdir().unwrap();
        config.alarm_file.path = dir.path().join(&config.alarm_file.path);
        let store = database.map(|_| Store::new(&config.store, "group").unwrap());
        let (sender, acks) = crossbeam_channel::bounded(ACKS_QUEUE_MAX);
        let metrics = SinkMetrics::default();
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", &brokers);
        let started = Sinks::start(SinksSetup {
            config: &config,
            store: store.clone(),
            kafka: &kafka,
            clock: Clock::from_fn(|| Utc.with_ymd_and_hms(2025, 12, 27, 10, 30, 31).unwrap()),
            acks: sender,
            metrics: metrics.clone(),
            runtime: tokio::runtime::Handle::current(),
        });
        let (sinks, running) = started.unwrap();
        Self {
            sinks,
            running,
            acks,
            metrics,
            alarm_file: config.alarm_file.path,
            store,
            brokers,
            cluster,
            _dir: dir,
        }
    }

    /// Submits windows and returns once all their acks have come, in no order.
    pub(crate) async fn write(&mut self, jobs: Vec<WindowJob>) -> Vec<Ack> {
        let due: u32 = jobs.iter().map(|it| self.sinks.acks_per_window(it)).sum();
        for job in jobs {
            self.sinks.try_submit(job).unwrap();
        }
        self.acks(due).await
    }

    /// Waits for this many acks.
    pub(crate) async fn acks(&self, due: u32) -> Vec<Ack> {
        let acks = self.acks.clone();
        tokio::task::spawn_blocking(move || {
            (0..due)
                .map(|it| {
                    acks.recv_timeout(PATIENCE)
                        .unwrap_or_else(|_| panic!("ack {it} of {due} does not come"))
                })
                .collect()
        })
        .await
        .unwrap()
    }

    /// Reads this many messages of a topic: key and value.
    pub(crate) async fn messages(&self, topic: &str, count: usize) -> Vec<(String, String)> {
        messages(&self.brokers, topic, count).await
    }

    /// Gives the sinks away, to whatever is to feed them.
    pub(crate) fn split(self) -> (Sinks, Rest) {
        let Self {
            sinks,
            running,
            acks,
            metrics,
            brokers,
            cluster,
            _dir,
            ..
        } = self;
        let rest = Rest {
            acks,
            metrics,
            brokers,
            _running: running,
            _cluster: cluster,
            _dir,
        };
        (sinks, rest)
    }

    /// Closes the sinks, with all the time they need.
    pub(crate) async fn close(self) -> CloseReport {
        self.close_by(Instant::now() + PATIENCE).await
    }

    /// Closes the sinks.
    pub(crate) async fn close_by(self, deadline: Instant) -> CloseReport {
        drop(self.sinks);
        self.running.close(deadline).await
    }
}

/// Waits until something holds, looking again and again.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "does not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A harness whose sinks are fed by something else.
pub(crate) struct Rest {
    pub(crate) acks: Receiver<Ack>,
    metrics: SinkMetrics,
    pub(crate) brokers: String,
    _running: RunningSinks,
    _cluster: MockCluster<'static, DefaultProducerContext>,
    _dir: tempfile::TempDir,
}

impl Rest {
    /// Returns how many windows or letters a sink has made durable.
    pub(crate) fn delivered(&self, sink: &'static str) -> u64 {
        self.metrics.meter(sink).delivered.get()
    }

    /// Returns how many rounds of health notes were dropped.
    pub(crate) fn health_notes_dropped(&self) -> u64 {
        self.metrics.health_notes_dropped.get()
    }

    /// Returns how many windows and letters are on their way.
    pub(crate) fn pending(&self) -> i64 {
        let sinks = ["store", "results", "alarm_file", "dead_letter"];
        sinks
            .map(|sink| self.metrics.meter(sink).pending.get())
            .iter()
            .sum()
    }
}

/// Reads this many messages of a topic: key and value.
pub(crate) async fn messages(brokers: &str, topic: &str, count: usize) -> Vec<(String, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .create()
        .unwrap();
    let mut partitions = rdkafka::TopicPartitionList::new();
    partitions
        .add_partition_offset(topic, 0, rdkafka::Offset::Beginning)
        .unwrap();
    consumer.assign(&partitions).unwrap();
    tokio::task::spawn_blocking(move || {
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        while messages.len() < count {
            assert!(Instant::now() < deadline, "{} of {count}", messages.len());
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.unwrap();
                messages.push((text(message.key()), text(message.payload())));
            }
        }
        messages
    })
    .await
    .unwrap()
}
