//! Bad records through a real Kafka to the real program: each ends as a line of its window or as a
//! dead letter with the right reason, the counts add up, nothing is forged in the alarm file, and
//! the good record behind each one still counts.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program"
)]

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/broker.rs"]
mod broker;
#[path = "../common/model.rs"]
mod model;
#[path = "../common/program.rs"]
mod program;

mod check;
mod corpus;
mod scrape;
mod send;
mod shapes;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use logguard::window::{GroupBy, WindowConfig};
use tempfile::TempDir;
use tokio_postgres::Client;

use common::{TestDatabase, fresh_database, kafka_brokers};
use program::{Running, logguard, run_well};
use send::Written;

/// Far longer than anything takes here; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);
const WINDOW: WindowConfig = WindowConfig {
    length_ms: 30_000,
    lateness_ms: 2_000,
    group_by: GroupBy::Partition,
};

/// A database, topics, a group and a directory of one test's own.
struct Pipeline {
    brokers: String,
    database: TestDatabase,
    client: Client,
    dir: TempDir,
}

impl Pipeline {
    /// Prepares everything. `None` without services.
    async fn prepare() -> Option<Self> {
        let (brokers, database) = (kafka_brokers()?, fresh_database().await?);
        let client = database.client().await;
        let dir = tempfile::tempdir().unwrap();
        run_well(dir.path(), ["migrate", "--database-url", &database.url]);
        model::bundle(WINDOW).save(&dir.path().join("model")).unwrap();
        let pipeline = Self {
            brokers,
            database,
            client,
            dir,
        };
        send::create_topic(&pipeline.brokers, &pipeline.own("in")).await;
        for topic in ["out", "dlq"] {
            broker::create_topic(&pipeline.brokers, &pipeline.own(topic), 1).await;
        }
        Some(pipeline)
    }

    /// Returns a name on the broker that only this run of this test has.
    fn own(&self, kind: &str) -> String {
        format!("poison-{}-{kind}", self.database.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, group_by: &str) -> Running {
        let mut command = logguard(self.dir.path());
        command
            .arg("run")
            .args(["--kafka-brokers", &self.brokers])
            .args(["--input-topic", &self.own("in")])
            .args(["--output-topic", &self.own("out")])
            .args(["--dead-letter-topic", &self.own("dlq")])
            .args(["--consumer-group", &self.own("group")])
            .args(["--database-url", &self.database.url])
            .args(["--model-dir", "model", "--anomaly-log", "anomalies.log"])
            .args(["--http-listen", "127.0.0.1:0", "--group-by", group_by])
            .env("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "100")
            // The clock has no say here.
            .env("LOGGUARD_WINDOW__IDLE_FINAL_S", "86400");
        Running::start(command, self.path("processor.log"))
    }

    /// Waits until all that can be is committed: everything before the last record is done.
    async fn wait_for_the_end(&self, processor: &mut Running, written: &Written) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let group = (self.own("group"), self.own("in"));
            let committed = broker::committed(&self.brokers, &group.0, &group.1)[&0];
            if committed == written.last_offset {
                return;
            }
            let ended = processor.exited();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{ended:?}, committed {committed} of {}\n{}",
                written.last_offset,
                processor.log_tail()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// Sends everything, waits for the end of it, and compares.
async fn survives_everything(group_by: &str) {
    let Some(pipeline) = Pipeline::prepare().await else {
        return;
    };
    let written = send::everything(&pipeline.brokers, &pipeline.own("in"));
    let mut processor = pipeline.start(group_by);
    pipeline.wait_for_the_end(&mut processor, &written).await;
    let metrics = scrape::metrics(&pipeline.path("processor.log"));
    processor.terminate();
    processor.ends_well(PATIENCE).await;

    let letters = broker::read_topic(&pipeline.brokers, &pipeline.own("dlq"));
    check::letters(&letters, &written, &pipeline.own("in"));
    check::metrics(&metrics, &written);
    let rows = check::rows(&pipeline.client, &written).await;
    let messages = broker::read_topic(&pipeline.brokers, &pipeline.own("out"));
    check::messages(&messages, &rows);
    check::alarms(&pipeline.path("anomalies.log"), &rows);
}

#[test]
fn there_are_enough_kinds_and_no_name_twice() {
    let mut names: Vec<_> = corpus::kinds().map(|kind| kind.name).collect();
    assert!(names.len() > 100, "{}", names.len());
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), corpus::kinds().count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_record_ends_where_it_should() {
    survives_everything("partition").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_does_where_services_have_windows_of_their_own() {
    survives_everything("service").await;
}
