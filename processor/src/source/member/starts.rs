//! Where partitions begin, begin again, and when their records flow.

use std::{
    collections::BTreeMap,
    mem,
    time::{Duration, Instant},
};

use super::{Member, Phase, QUERY_TIMEOUT, log_failure};
use crate::source::{
    RecordHandler, StartPoint,
    broker::{Broker, Position},
    start::{self, Finding},
};

/// Most time the assign callback spends asking where to start; what is not known by then is asked
/// again from the loop, so that a slow broker does not cost us our membership.
const RESOLVE_BUDGET: Duration = Duration::from_secs(5);
/// Time between such attempts from the loop.
pub(super) const RESOLVE_RETRY: Duration = Duration::from_secs(1);
/// Least time between two searches for positions the broker does not have: a broker that
/// contradicts itself is not to be asked without end.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);

/// Where the partitions stand, with offsets that exist.
#[derive(Default)]
struct Surveyed {
    /// What comes next was deleted.
    gone: Vec<Position>,
    /// They stand beyond the end: it is another topic, what we know of them is void.
    void: Vec<Position>,
    /// Their position exists, as far as we know.
    there: Vec<Position>,
}

fn ids(positions: &[Position]) -> Vec<i32> {
    positions.iter().map(|(partition, _)| *partition).collect()
}

impl<H: RecordHandler> Member<H> {
    /// Notes that the broker does not have a position that was asked for; which, it does not say.
    pub(in crate::source) fn out_of_range(&mut self) {
        self.restart_due
            .get_or_insert_with(|| Instant::now().max(self.restarted_at + RESTART_INTERVAL));
    }

    /// Finds the positions the broker does not have: finishes what was read, starts anew.
    pub(super) fn restart_out_of_range(&mut self, broker: &impl Broker) {
        if self.restart_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.restart_due = None;
        self.restarted_at = Instant::now();
        let Surveyed { gone, void, there } = self.survey(broker);
        if !gone.is_empty() {
            let deadline = Instant::now() + self.drain_timeout;
            self.handler
                .revoked(&self.owned(&ids(&gone)), false, deadline);
            self.absorb_commit_points();
            self.commit_now(broker, &ids(&gone));
        }
        if !void.is_empty() {
            let deadline = Instant::now();
            self.handler
                .revoked(&self.owned(&ids(&void)), true, deadline);
        }
        let moved: Vec<Position> = gone.into_iter().chain(void).collect();
        for (partition, _) in &moved {
            if let Some(assigned) = self.partitions.get_mut(partition) {
                assigned.phase = Phase::Unresolved(Instant::now());
            }
        }
        let all: Vec<Position> = moved.iter().chain(&there).copied().collect();
        // If all of them are there after all, any may have stopped.
        let restarted = if moved.is_empty() { &all } else { &moved };
        log_failure("restart", broker.restart(restarted, &all));
        let throttled = self.throttled;
        let paused = self.ids(|assigned| throttled || assigned.phase != Phase::Flowing);
        log_failure("pause", broker.pause(&paused));
        self.disturb(broker);
    }

    /// Asks which positions the broker has.
    fn survey(&self, broker: &impl Broker) -> Surveyed {
        let mut surveyed = Surveyed::default();
        for (partition, assigned) in &self.partitions {
            let position = assigned.position;
            let Ok(marks) = broker.watermarks(*partition, QUERY_TIMEOUT) else {
                surveyed.there.push((*partition, position));
                continue;
            };
            if !matches!(assigned.phase, Phase::Recovering | Phase::Flowing) {
                // Its start is still to be found: anything that exists will do.
                surveyed.there.push((*partition, marks.low));
            } else if position < marks.low {
                surveyed.gone.push((*partition, marks.low));
            } else if position > marks.high {
                surveyed.void.push((*partition, marks.low));
            } else {
                surveyed.there.push((*partition, position));
            }
        }
        surveyed
    }

    /// Asks where to start; leaves out what the broker did not say in time.
    pub(super) fn resolve(
        &self,
        broker: &impl Broker,
        partitions: &[i32],
    ) -> BTreeMap<i32, StartPoint> {
        let deadline = Instant::now() + RESOLVE_BUDGET;
        let mut starts = BTreeMap::new();
        let committed = match broker.committed(partitions, QUERY_TIMEOUT) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::warn!(error = %error, "failed to read committed offsets, trying again");
                return starts;
            }
        };
        for (partition, committed) in committed {
            let left = deadline.saturating_duration_since(Instant::now());
            let known = committed.and_then(|committed| {
                let marks = broker.watermarks(partition, left.min(QUERY_TIMEOUT))?;
                Ok(start::decide(self.named(partition), committed, marks))
            });
            match known {
                Ok((start, finding)) => {
                    self.report_start(&start, finding);
                    starts.insert(partition, start);
                }
                Err(error) => tracing::warn!(
                    partition, error = %error,
                    "failed to find where to start reading, trying again"
                ),
            }
        }
        starts
    }

    pub(super) fn report_start(&self, start: &StartPoint, finding: Finding) {
        start::log(start, finding);
        self.metrics.deleted_unread.inc_by(finding.deleted());
    }

    /// Tells the handler of a partition whose start is known.
    pub(super) fn begin(&mut self, partition: i32) {
        let Some(assigned) = self.partitions.get_mut(&partition) else {
            return;
        };
        if let Phase::Starting(start) = mem::replace(&mut assigned.phase, Phase::Recovering) {
            assigned.position = start.next.0;
            (assigned.latest, assigned.confirmed) = (None, None);
            self.handler.assigned(start);
        } else {
            assigned.phase = Phase::Unresolved(Instant::now());
        }
    }

    /// Asks again where to start the partitions that are due, and goes there.
    pub(super) fn resolve_due(&mut self, broker: &impl Broker) {
        let now = Instant::now();
        let due = self.ids(|it| matches!(it.phase, Phase::Unresolved(at) if at <= now));
        if due.is_empty() {
            return;
        }
        let mut starts = self.resolve(broker, &due);
        for partition in due {
            let sought = starts.remove(&partition).filter(|start| {
                let sought = broker.seek((partition, start.next.0), true);
                log_failure("seek", sought)
            });
            let Some(assigned) = self.partitions.get_mut(&partition) else {
                continue;
            };
            if let Some(start) = sought {
                assigned.phase = Phase::Starting(start);
                assigned.overread = false;
                self.begin(partition);
            } else {
                assigned.phase = Phase::Unresolved(Instant::now() + RESOLVE_RETRY);
            }
        }
    }

    /// Takes partitions back to their committed offset where the handler asks for it.
    pub(super) fn rewind(&mut self, broker: &impl Broker) {
        let rewinds = self.handler.take_rewinds();
        if rewinds.is_empty() {
            return;
        }
        // What is done is committed first, or a commit under way could overtake the question
        // where to go back to, and a later one take it back.
        let ids: Vec<i32> = rewinds.iter().map(|it| it.partition).collect();
        self.absorb_commit_points();
        self.commit_now(broker, &ids);
        log_failure("pause", broker.pause(&ids));
        for partition in rewinds {
            if let Some(assigned) = self.partitions.get_mut(&partition.partition) {
                tracing::info!(%partition, "going back to the committed offset");
                assigned.phase = Phase::Unresolved(Instant::now());
                assigned.at_end = false;
                assigned.unverified = false;
            }
        }
        self.tell_disturbance();
    }

    /// Lets records of recovered partitions flow.
    pub(super) fn start_ready(&mut self, broker: &impl Broker) {
        let mut ready = Vec::new();
        for partition in self.handler.take_ready() {
            let Some(assigned) = self.partitions.get_mut(&partition.partition) else {
                continue;
            };
            if assigned.phase == Phase::Recovering {
                assigned.phase = Phase::Flowing;
                ready.push(partition.partition);
            }
        }
        if !self.throttled {
            self.resume(broker, &ready);
        }
    }
}
