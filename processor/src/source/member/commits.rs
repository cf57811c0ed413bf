//! Commits of what the handler says is done.

use std::time::{Duration, Instant};

use fail::fail_point;
use rdkafka::{consumer::CommitMode, error::KafkaError};

use super::Member;
use crate::source::{CommitPoint, RecordHandler, broker::Broker, error};

/// After this long an asynchronous commit is taken for lost and what it held is sent again;
/// librdkafka's own request timeout.
const COMMIT_REPLY_MAX: Duration = Duration::from_secs(60);

/// How a commit that was waited for went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum CommitOutcome {
    /// Nothing is left to commit.
    Committed,
    /// The group is rebalancing: it may go through later.
    Rebalancing,
    /// It failed.
    Failed,
}

impl<H: RecordHandler> Member<H> {
    /// Takes the answer to an asynchronous commit.
    pub(in crate::source) fn commit_answered(&mut self, result: Result<(), KafkaError>) {
        let Some((_, points)) = self.in_flight.take() else {
            return;
        };
        match result {
            Ok(()) => self.confirm(points),
            Err(error) => self.report_commit(&error),
        }
    }

    /// Commits, and waits for it, what is not known to be committed of all partitions; returns
    /// whether nothing is left.
    pub(in crate::source) fn commit_all(&mut self, broker: &impl Broker) -> CommitOutcome {
        let all = self.ids(|_| true);
        self.commit_now(broker, &all)
    }

    pub(super) fn absorb_commit_points(&mut self) {
        for point in self.handler.take_commit_points() {
            if let Some(assigned) = self.partitions.get_mut(&point.partition.partition) {
                assigned.latest = Some(point);
            }
        }
    }

    /// Commits what moved, without waiting, once per interval and one at a time.
    pub(super) fn commit_due(&mut self, broker: &impl Broker) {
        if self.committed_at.elapsed() < self.commit_interval {
            return;
        }
        self.committed_at = Instant::now();
        self.absorb_commit_points();
        let under_way = |(sent, _): &(Instant, _)| sent.elapsed() < COMMIT_REPLY_MAX;
        if self.in_flight.as_ref().is_some_and(under_way) {
            return;
        }
        let points: Vec<CommitPoint> = self
            .partitions
            .values()
            .filter_map(|assigned| assigned.pending().cloned())
            .collect();
        if points.is_empty() {
            return;
        }
        fail_point!("commit.before", |_| std::process::abort());
        match broker.commit(&points, CommitMode::Async) {
            Ok(()) => self.in_flight = Some((Instant::now(), points)),
            Err(error) => self.report_commit(&error),
        }
    }

    /// Commits, and waits for it, what is not known to be committed.
    pub(super) fn commit_now(&mut self, broker: &impl Broker, partitions: &[i32]) -> CommitOutcome {
        let points: Vec<CommitPoint> = partitions
            .iter()
            .filter_map(|partition| self.partitions.get(partition)?.pending().cloned())
            .collect();
        if points.is_empty() {
            return CommitOutcome::Committed;
        }
        fail_point!("commit.before", |_| std::process::abort());
        match broker.commit(&points, CommitMode::Sync) {
            Ok(()) => {
                self.confirm(points);
                CommitOutcome::Committed
            }
            Err(error) => {
                self.report_commit(&error);
                if error::is_redelivered(&error) {
                    CommitOutcome::Rebalancing
                } else {
                    CommitOutcome::Failed
                }
            }
        }
    }

    pub(super) fn confirm(&mut self, points: Vec<CommitPoint>) {
        self.metrics.count_commit("ok");
        for point in points {
            if let Some(assigned) = self.partitions.get_mut(&point.partition.partition) {
                self.handler.committed(&point);
                assigned.confirmed = Some(point);
            }
        }
    }

    pub(super) fn report_commit(&self, error: &KafkaError) {
        if error::is_redelivered(error) {
            self.metrics.count_commit("redelivered");
            tracing::info!(error = %error, "offsets not committed, records will be redelivered");
        } else {
            self.metrics.count_commit("failed");
            tracing::warn!(error = %error, "failed to commit offsets, trying again");
        }
    }
}
