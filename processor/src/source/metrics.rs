//! What the consumer thread reports about itself.

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// A partition of the input topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    /// Its number.
    pub partition: i32,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// `ok`, or what went wrong.
    pub outcome: &'static str,
}

/// Counters and gauges of the Kafka source.
#[derive(Clone, Debug, Default)]
pub struct SourceMetrics {
    /// Records handed over.
    pub records: Counter,
    /// Payload bytes handed over.
    pub bytes: Counter,
    /// Records retention deleted before they were read.
    pub deleted_unread: Counter,
    /// Partitions assigned to this process.
    pub partitions_assigned: Gauge,
    /// Records not yet read, by partition.
    pub read_lag: Family<PartitionLabel, Gauge>,
    /// Records not yet committed as done, by partition.
    pub commit_lag: Family<PartitionLabel, Gauge>,
    /// Offset commits, by outcome: `ok`, `redelivered`, `failed`.
    pub commits: Family<OutcomeLabel, Counter>,
    /// Rebalances, by outcome: `assigned`, `revoked`, `lost`.
    pub rebalances: Family<OutcomeLabel, Counter>,
    /// Pauses because the pipeline had no room for long.
    pub pauses: Counter,
    /// 1 while partitions are paused because the pipeline has no room.
    pub paused: Gauge,
    /// 1 while reading is known to be disturbed.
    pub disturbed: Gauge,
    /// Errors librdkafka reported.
    pub errors: Counter,
    /// When the consumer thread last went round.
    pub heartbeat: Heartbeat,
}

impl SourceMetrics {
    /// Registers everything under its name.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("source_records", "Records read", &self.records),
            ("source_bytes", "Payload bytes read", &self.bytes),
            (
                "source_deleted_unread_records",
                "Records retention deleted before they were read",
                &self.deleted_unread,
            ),
            (
                "source_pauses",
                "Pauses for lack of room in the pipeline",
                &self.pauses,
            ),
            (
                "source_errors",
                "Errors reported by the Kafka client",
                &self.errors,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            (
                "source_partitions_assigned",
                "Partitions assigned here",
                &self.partitions_assigned,
            ),
            (
                "source_paused",
                "1 while paused for lack of room in the pipeline",
                &self.paused,
            ),
            (
                "source_disturbed",
                "1 while reading is known to be disturbed",
                &self.disturbed,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        self.register_families(registry);
        registry.register(
            "source_last_turn_milliseconds",
            "Process uptime in ms when the consumer thread last went round",
            self.heartbeat.millis.clone(),
        );
    }

    fn register_families(&self, registry: &mut Registry) {
        registry.register(
            "source_read_lag_records",
            "Records not yet read",
            self.read_lag.clone(),
        );
        registry.register(
            "source_commit_lag_records",
            "Records not yet committed as done",
            self.commit_lag.clone(),
        );
        registry.register(
            "source_commits",
            "Offset commits by outcome",
            self.commits.clone(),
        );
        registry.register(
            "source_rebalances",
            "Rebalances by kind",
            self.rebalances.clone(),
        );
    }

    pub(super) fn count_commit(&self, outcome: &'static str) {
        self.commits.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn count_rebalance(&self, outcome: &'static str) {
        self.rebalances
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    /// Forgets the lag of a partition that is another member's now.
    pub(super) fn forget(&self, partition: i32) {
        self.read_lag.remove(&PartitionLabel { partition });
        self.commit_lag.remove(&PartitionLabel { partition });
    }
}

/// Tells whether a thread still goes round.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    started: Instant,
    millis: Gauge,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            millis: Gauge::default(),
        }
    }
}

impl Heartbeat {
    /// Notes that the thread is here.
    pub fn beat(&self) {
        let millis = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.millis.set(millis);
    }

    /// Returns how long ago the last beat was; before the first one, since this value was made.
    #[must_use]
    pub fn age(&self) -> Duration {
        let last = u64::try_from(self.millis.get()).unwrap_or(0);
        self.started
            .elapsed()
            .saturating_sub(Duration::from_millis(last))
    }
}
