//! The consumer thread's work under a clock of the test's own: what an idle partition writes and
//! when, what disturbs it, and what a partition that starts twice does.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
#[path = "common/model.rs"]
mod model;
#[path = "common/sinks.rs"]
mod sinks;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::DateTime;
use logguard::{
    clock::Clock,
    event::{NextOffset, TopicPartition},
    health::Health,
    metrics::PipelineMetrics,
    model::Detector,
    pipeline::Shared,
    recovery::RecoveryDesk,
    source::{CommitMetadata, CommitPoint, RawRecord, RecordHandler, StartPoint},
    window::{GroupBy, WindowConfig},
    worker::{Worker, WorkerParts, WorkerSettings},
};
use model::{bundle, partition};
use serde_json::Value;
use sinks::{Harness, PATIENCE, Rest, messages};
use tokio::runtime::Handle;

const IDLE_FINAL: Duration = Duration::from_secs(300);
const BASE_S: i64 = 1_766_534_400;

/// A worker, its clock, and the sinks' harness without its sinks.
struct Bench {
    worker: Worker,
    millis: Arc<AtomicI64>,
    harness: Rest,
    next: i64,
}

impl Bench {
    fn new(length_s: i64, idle_final: Duration) -> Self {
        let window = WindowConfig {
            length_ms: length_s * 1_000,
            lateness_ms: 2_000,
            group_by: GroupBy::Partition,
        };
        let millis = Arc::new(AtomicI64::new(BASE_S * 1_000));
        let read = Arc::clone(&millis);
        let clock = Clock::from_fn(move || {
            DateTime::from_timestamp_millis(read.load(Ordering::SeqCst)).unwrap()
        });
        let (sinks, harness) = Harness::start(None).split();
        let worker = Worker::new(WorkerParts {
            settings: WorkerSettings {
                window,
                max_alert_age: Duration::from_secs(600),
                idle_final,
            },
            shared: Shared::new(Detector::new(bundle(window), 1.0, 1)).unwrap(),
            sinks,
            acks: harness.acks.clone(),
            desk: RecoveryDesk::new(None, Handle::current()),
            health: Arc::new(Health::new(clock.clone())),
            clock,
            metrics: PipelineMetrics::default(),
        });
        let mut bench = Self {
            worker,
            millis,
            harness,
            next: 0,
        };
        bench.assign();
        bench
    }

    fn assign(&mut self) {
        self.assign_with(None);
    }

    fn assign_with(&mut self, metadata: Option<CommitMetadata>) {
        self.worker.assigned(StartPoint {
            partition: partition(),
            next: NextOffset(self.next),
            metadata,
            partial: false,
        });
        self.turn();
        assert_eq!(self.worker.take_ready(), [partition()]);
    }

    /// Sets the clock to this many seconds after the base and lets the worker look at it.
    fn at(&mut self, seconds: i64) {
        self.millis
            .store((BASE_S + seconds) * 1_000, Ordering::SeqCst);
        self.turn();
    }

    fn turn(&mut self) {
        assert!(self.worker.drain(Instant::now() + PATIENCE));
    }

    /// Hands over a line written this many seconds after the base.
    fn line(&mut self, seconds: i64) {
        let payload = format!(
            r#"{{"timestamp":{},"level":"INFO","service":"auth","message":"user 17 signed in"}}"#,
            BASE_S + seconds
        );
        let record = RawRecord {
            offset: self.next,
            record_time: None,
            payload: Some(payload.as_bytes()),
        };
        self.worker.record(&partition(), record);
        self.next += 1;
    }

    fn caught_up(&mut self) {
        self.worker.caught_up(&partition());
        self.turn();
    }

    /// Waits until the sinks have written what is on its way, and returns the commit point if it
    /// moved meanwhile; the last acks may still be under way.
    fn settled(&mut self) -> Option<CommitPoint> {
        self.worker.revoked(&[], false, Instant::now());
        let deadline = Instant::now() + PATIENCE;
        while self.harness.pending() > 0 {
            assert!(Instant::now() < deadline, "the sinks do not finish");
            self.turn();
        }
        self.turn();
        self.commit()
    }

    /// Commits what may be, and returns it if it moved.
    fn commit(&mut self) -> Option<CommitPoint> {
        let point = self.worker.take_commit_points().pop();
        if let Some(point) = &point {
            self.worker.committed(point);
        }
        point
    }

    /// The partition is read by someone else from a commit on, who remembers nothing besides.
    fn restart(&mut self, commit: &CommitPoint) {
        self.worker.revoked(&[partition()], true, Instant::now());
        self.next = commit.next.0;
        self.assign_with(Some(commit.metadata));
    }

    /// Waits until everything before `next` may be committed.
    fn wait_for_commit(&mut self, next: NextOffset) {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while last != Some(next) {
            assert!(Instant::now() < deadline, "{last:?} may be committed");
            self.turn();
            let point = self.commit();
            last = point.map(|point| point.next).or(last);
        }
    }

    /// The results so far: (seconds of the window's start, lines, final by).
    async fn results(&self, count: usize) -> Vec<(i64, i64, String)> {
        let messages = messages(&self.harness.brokers, "anomaly-results", count).await;
        let rows = messages.iter().map(|(_, text)| {
            let row: Value = serde_json::from_str(text).unwrap();
            let start = row["window_start"].as_str().unwrap();
            let start = DateTime::parse_from_rfc3339(start).unwrap().timestamp() - BASE_S;
            let final_by = row["final_by"].as_str().unwrap().to_owned();
            (start, row["log_count"].as_i64().unwrap(), final_by)
        });
        rows.collect()
    }
}

fn row(start: i64, lines: i64, final_by: &str) -> (i64, i64, String) {
    (start, lines, final_by.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_window_is_provisional_when_due_and_final_after_a_while() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    bench.line(1);
    bench.line(10);
    bench.caught_up();
    // Its own time is that of its last line plus what has passed since: 10 + 21 s is not 32.
    bench.at(21);
    assert_eq!(bench.harness.delivered("results"), 0);
    bench.at(22);
    bench.at(200);
    assert_eq!(bench.settled(), None, "a provisional row is not done");
    assert_eq!(bench.results(1).await, [row(0, 2, "open")]);
    bench.at(301);
    bench.wait_for_commit(NextOffset(2));
    assert_eq!(
        bench.results(2).await,
        [row(0, 2, "open"), row(0, 2, "idle")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_clock_makes_final_is_written_only_once_its_watermark_is_committed() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    bench.line(10);
    bench.line(20);
    bench.caught_up();
    bench.at(1_000);
    let point = bench.worker.take_commit_points().pop().unwrap();
    assert_eq!(point.next, NextOffset(0));
    assert_eq!(
        point.metadata.idle.map(|mark| mark.from),
        Some(NextOffset(2))
    );
    // A straggler comes while the commit is under way: it is late, and waits as well.
    bench.line(25);
    bench.turn();
    let delivered =
        |bench: &Bench| ["results", "dead_letter"].map(|it| bench.harness.delivered(it));
    assert_eq!((bench.harness.pending(), delivered(&bench)), (0, [0, 0]));
    bench.worker.committed(&point);
    bench.wait_for_commit(NextOffset(3));
    assert_eq!(delivered(&bench), [1, 1]);
    assert_eq!(bench.results(1).await, [row(0, 2, "idle")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_move_of_the_watermark_is_made_again_in_the_same_place() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    bench.line(10);
    bench.line(20);
    bench.caught_up();
    bench.at(1_000);
    let point = bench.worker.take_commit_points().pop().unwrap();
    // It dies before the broker's answer came: nothing was written.
    bench.restart(&point);
    bench.line(10);
    bench.line(20);
    bench.line(25);
    bench.line(40);
    bench.wait_for_commit(NextOffset(3));
    assert_eq!(bench.results(1).await, [row(0, 2, "idle")]);
    assert_eq!(bench.harness.delivered("dead_letter"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_clock_moves_the_watermark_no_further_than_the_open_windows_need() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    bench.line(10);
    bench.caught_up();
    bench.at(1_000);
    bench.settled();
    bench.wait_for_commit(NextOffset(1));
    // A shipper that was away for a quarter of an hour brings what it has.
    bench.line(40);
    bench.line(70);
    bench.line(102);
    bench.settled();
    let rows = bench.results(3).await;
    let expected = [
        row(0, 1, "idle"),
        row(30, 1, "watermark"),
        row(60, 1, "watermark"),
    ];
    assert_eq!(rows, expected);
    assert_eq!(bench.harness.delivered("dead_letter"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_longer_than_the_idle_time_stays_open_to_its_end() {
    let mut bench = Bench::new(3_600, Duration::from_secs(5));
    bench.line(10);
    bench.caught_up();
    for seconds in [6, 7, 8, 1_000, 3_000] {
        bench.at(seconds);
    }
    bench.line(3_100);
    bench.settled();
    assert_eq!(bench.harness.delivered("results"), 0);
    assert_eq!(bench.harness.delivered("dead_letter"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_no_evidence_while_reading_is_disturbed() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    bench.line(10);
    bench.caught_up();
    bench.worker.transport_error(true);
    bench.at(1_000);
    bench.worker.transport_error(false);
    bench.at(2_000);
    assert_eq!(bench.harness.delivered("results"), 0);
    // Only the end of the partition, seen again, starts its clock.
    bench.caught_up();
    bench.at(2_030);
    bench.settled();
    assert_eq!(bench.results(1).await, [row(0, 1, "open")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_before_the_start_is_not_dropped_but_asked_for_again() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    let other = TopicPartition {
        partition: 7,
        ..partition()
    };
    bench.worker.assigned(StartPoint {
        partition: other.clone(),
        next: NextOffset(0),
        metadata: None,
        partial: false,
    });
    let record = RawRecord {
        offset: 0,
        record_time: None,
        payload: Some(b"{}"),
    };
    bench.worker.record(&other, record);
    assert_eq!(bench.worker.take_rewinds(), std::slice::from_ref(&other));
    // Assigned again before the first answer was looked at: ready once, not twice.
    bench.worker.assigned(StartPoint {
        partition: other.clone(),
        next: NextOffset(0),
        metadata: None,
        partial: false,
    });
    bench.turn();
    assert_eq!(bench.worker.take_ready(), [other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_leaving_does_not_begin_any_more() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    let other = TopicPartition {
        partition: 7,
        ..partition()
    };
    bench.worker.assigned(StartPoint {
        partition: other.clone(),
        next: NextOffset(0),
        metadata: None,
        partial: false,
    });
    // The store's answer is there, and nobody has looked at it yet.
    let revoked = std::slice::from_ref(&other);
    bench.worker.revoked(revoked, false, Instant::now());
    bench.worker.take_commit_points();
    bench.turn();
    assert_eq!(bench.worker.take_ready(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_writes_what_is_open_and_commits_what_is_done() {
    let mut bench = Bench::new(30, IDLE_FINAL);
    bench.line(10);
    bench.line(35);
    bench.worker.finish(Instant::now() + PATIENCE);
    let point = bench.worker.take_commit_points().pop().unwrap();
    assert_eq!(point.next, NextOffset(1));
    assert_eq!(
        bench.results(2).await,
        [row(0, 1, "watermark"), row(30, 1, "open")]
    );
}
