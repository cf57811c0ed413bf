//! A pipeline that only keeps a journal, and members of a group that drive it.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure is the test's"
)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use logguard::{
    event::{EventTime, NextOffset, TopicPartition, WindowGrid},
    source::{
        CommitMetadata, CommitPoint, KafkaConfig, RawRecord, RecordHandler, SourceError,
        SourceMetrics, SourceReport, StartPoint, spawn,
    },
};

/// Longest wait for anything a test waits for: two cores may be busy with other builds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of the log a failed test shows.
const LOG_LEVEL: tracing::Level = tracing::Level::INFO;

/// What a handler was told, in order; members share one journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Assigned(char, StartPoint),
    Record(char, i32, i64),
    CaughtUp(char, i32),
    Disturbed(char, bool),
    Revoked(char, Vec<i32>, bool),
    Finished(char),
}

/// The journal of all members.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<(Mutex<Vec<Entry>>, Condvar)>);

impl Journal {
    pub(crate) fn write(&self, entry: Entry) {
        self.0.0.lock().unwrap().push(entry);
        self.0.1.notify_all();
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until the entries are as `what` says.
    pub(crate) fn wait(&self, what: &str, until: impl Fn(&[Entry]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut entries = self.0.0.lock().unwrap();
        while !until(&entries) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited too long for {what}: {}",
                tail(&entries)
            );
            entries = self.0.1.wait_timeout(entries, left).unwrap().0;
        }
    }

    /// Returns the offsets each partition's records came with, in order of coming.
    pub(crate) fn offsets(&self) -> BTreeMap<i32, Vec<i64>> {
        let mut offsets: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for entry in self.entries() {
            if let Entry::Record(_, partition, offset) = entry {
                offsets.entry(partition).or_default().push(offset);
            }
        }
        offsets
    }

    /// Returns the start points told to `member`.
    pub(crate) fn starts(&self, member: char) -> Vec<StartPoint> {
        let start = |entry| match entry {
            Entry::Assigned(name, start) if name == member => Some(start),
            _ => None,
        };
        self.entries().into_iter().filter_map(start).collect()
    }
}

fn tail(entries: &[Entry]) -> String {
    let short: Vec<String> = entries
        .iter()
        .filter(|it| !matches!(it, Entry::Record(..)))
        .map(|it| format!("{it:?}"))
        .collect();
    let records = entries.len() - short.len();
    format!("{records} records and {}", short.join("\n"))
}

/// Counts the records of one member.
pub(crate) fn records(entries: &[Entry], member: char) -> usize {
    let own = |it: &&Entry| matches!(it, Entry::Record(name, ..) if *name == member);
    entries.iter().filter(own).count()
}

/// Switches a test holds while a member runs.
#[derive(Clone, Default)]
pub(crate) struct Switches {
    /// There is no room for records.
    pub(crate) full: Arc<AtomicBool>,
    /// The next turn asks for all partitions to be rewound.
    pub(crate) rewind: Arc<AtomicBool>,
    /// Nothing is done: no commit points.
    pub(crate) undone: Arc<AtomicBool>,
}

/// Keeps the journal; everything handed over is done at once.
pub(crate) struct Recorder {
    name: char,
    journal: Journal,
    switches: Switches,
    ready: Vec<TopicPartition>,
    positions: BTreeMap<TopicPartition, NextOffset>,
    moved: BTreeMap<TopicPartition, NextOffset>,
}

/// The metadata a [`Recorder`] commits with a position.
pub(crate) fn metadata_at(next: i64) -> CommitMetadata {
    CommitMetadata {
        max_event_time: EventTime::from_millis(next * 1000),
        done_through: EventTime::from_millis(next * 1000 - 30_000),
        ..CommitMetadata::nothing_done(WindowGrid {
            length_ms: 30_000,
            by_service: false,
        })
    }
}

impl RecordHandler for Recorder {
    fn assigned(&mut self, start: StartPoint) {
        self.ready.push(start.partition.clone());
        self.positions.insert(start.partition.clone(), start.next);
        self.moved.remove(&start.partition);
        self.journal.write(Entry::Assigned(self.name, start));
    }

    fn take_ready(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.ready)
    }

    fn take_rewinds(&mut self) -> Vec<TopicPartition> {
        if self.switches.rewind.swap(false, Ordering::SeqCst) {
            return self.positions.keys().cloned().collect();
        }
        Vec::new()
    }

    fn record(&mut self, partition: &TopicPartition, record: RawRecord<'_>) {
        let expected = self.positions[partition];
        assert!(
            record.offset >= expected.0,
            "{partition} gave {} again",
            record.offset
        );
        let next = NextOffset::after(record.offset);
        self.positions.insert(partition.clone(), next);
        self.moved.insert(partition.clone(), next);
        let entry = Entry::Record(self.name, partition.partition, record.offset);
        self.journal.write(entry);
    }

    fn caught_up(&mut self, partition: &TopicPartition) {
        let entry = Entry::CaughtUp(self.name, partition.partition);
        self.journal.write(entry);
    }

    fn transport_error(&mut self, broken: bool) {
        self.journal.write(Entry::Disturbed(self.name, broken));
    }

    fn drain(&mut self, deadline: Instant) -> bool {
        while self.switches.full.load(Ordering::SeqCst) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // As the real one does: waiting for an ack that does not come.
            std::thread::park_timeout(left.min(Duration::from_millis(20)));
        }
        true
    }

    fn take_commit_points(&mut self) -> Vec<CommitPoint> {
        if self.switches.undone.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let point = |(partition, next): (TopicPartition, NextOffset)| CommitPoint {
            partition,
            next,
            metadata: metadata_at(next.0),
        };
        std::mem::take(&mut self.moved)
            .into_iter()
            .map(point)
            .collect()
    }

    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool, _deadline: Instant) {
        let ids = partitions.iter().map(|it| it.partition).collect();
        self.journal.write(Entry::Revoked(self.name, ids, lost));
        for partition in partitions {
            self.positions.remove(partition);
        }
    }

    fn finish(&mut self, _deadline: Instant) {
        self.journal.write(Entry::Finished(self.name));
    }
}

/// A member of the group, on its thread.
pub(crate) struct Running {
    pub(crate) metrics: SourceMetrics,
    pub(crate) switches: Switches,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<SourceReport, SourceError>>,
}

impl Running {
    pub(crate) fn start(config: &KafkaConfig, name: char, journal: &Journal) -> Self {
        Self::with(config, name, journal, Switches::default())
    }

    pub(crate) fn with(
        config: &KafkaConfig,
        name: char,
        journal: &Journal,
        switches: Switches,
    ) -> Self {
        // Shown with the test that fails; a second call finds it done.
        let log = tracing_subscriber::fmt()
            .with_test_writer()
            .with_max_level(LOG_LEVEL);
        drop(log.try_init());
        let recorder = Recorder {
            name,
            journal: journal.clone(),
            switches: switches.clone(),
            ready: Vec::new(),
            positions: BTreeMap::new(),
            moved: BTreeMap::new(),
        };
        let (metrics, stop) = (SourceMetrics::default(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = spawn(config, metrics.clone(), recorder, move || {
            stopped.load(Ordering::SeqCst)
        });
        let thread = thread.expect("the consumer starts");
        Self {
            metrics,
            switches,
            stop,
            thread,
        }
    }

    /// Stops the member and returns its report.
    pub(crate) fn stop(self) -> SourceReport {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("no panic").expect("a clean end")
    }

    /// Waits for the member to end by itself.
    pub(crate) fn join(self) -> Result<SourceReport, SourceError> {
        self.thread.join().expect("no panic")
    }
}

/// Returns a name no other test and no other run uses.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let stamp = std::time::UNIX_EPOCH
        .elapsed()
        .expect("after 1970")
        .as_nanos();
    format!("{name}-{}-{stamp}-{count}", std::process::id())
}

/// Returns a configuration with topics and a group of its own and quick timeouts.
pub(crate) fn config(brokers: &str) -> KafkaConfig {
    let name = unique("source");
    KafkaConfig {
        brokers: brokers.to_owned(),
        input_topic: name.clone(),
        output_topic: format!("{name}.out"),
        dead_letter_topic: format!("{name}.dlq"),
        consumer_group: name,
        session_timeout_ms: 2_000,
        max_poll_interval_ms: 10_000,
        commit_interval_ms: 100,
        drain_timeout_ms: 1_000,
        shutdown_timeout_ms: 2_000,
        ..KafkaConfig::default()
    }
}
