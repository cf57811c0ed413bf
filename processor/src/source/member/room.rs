//! Room in the pipeline, and whether reading is disturbed.

use std::{
    mem,
    time::{Duration, Instant},
};

use super::{Assigned, Member, Phase, log_failure};
use crate::source::{PartitionLabel, RecordHandler, broker::Broker};

/// Slices in which a full pipeline is waited for.
const WAIT_SLICE: Duration = Duration::from_secs(1);
/// How long a full pipeline is waited for before partitions are paused: pausing throws prefetched
/// records away, so it must be worth it.
const WAIT_BEFORE_PAUSE: Duration = Duration::from_secs(5);
/// Slice of waiting while paused: the group is polled in between.
const PAUSED_SLICE: Duration = Duration::from_millis(100);
/// Time in which the lag of every partition that is not fetched is asked for once: as often as
/// librdkafka tells that of the others.
const LAG_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for one such answer.
const LAG_TIMEOUT: Duration = Duration::from_millis(500);

impl<H: RecordHandler> Member<H> {
    /// Notes that reading is disturbed: until each partition gives a sign, silence is no evidence.
    pub(in crate::source) fn disturb(&mut self, broker: &impl Broker) {
        for (partition, assigned) in &mut self.partitions {
            if assigned.phase != Phase::Flowing || assigned.unverified {
                continue;
            }
            assigned.unverified = true;
            // The end of a partition is reported once; going back to it makes the broker say it
            // again (or hand over what came meanwhile).
            if mem::take(&mut assigned.at_end) && !self.throttled {
                log_failure("seek", broker.seek((*partition, assigned.position), false));
            }
        }
        self.tell_disturbance();
    }

    /// Tells whether records cannot be taken at present.
    pub(in crate::source) fn is_throttled(&self) -> bool {
        self.throttled
    }

    pub(super) fn resume(&mut self, broker: &impl Broker, partitions: &[i32]) {
        if partitions.is_empty() {
            return;
        }
        for partition in partitions {
            if let Some(assigned) = self.partitions.get_mut(partition)
                && mem::take(&mut assigned.overread)
            {
                log_failure("seek", broker.seek((*partition, assigned.position), true));
            }
        }
        log_failure("resume", broker.resume(partitions));
    }

    /// Lets the handler work; waits for room, and pauses when that takes long.
    pub(super) fn make_room(&mut self, broker: &impl Broker, stop: &dyn Fn() -> bool) {
        let slice = if self.throttled {
            PAUSED_SLICE
        } else {
            Duration::ZERO
        };
        if self.handler.drain(Instant::now() + slice) {
            self.unthrottle(broker);
            return;
        }
        if self.throttled {
            return;
        }
        let patience = Instant::now() + WAIT_BEFORE_PAUSE;
        while Instant::now() < patience && !stop() {
            if self
                .handler
                .drain(patience.min(Instant::now() + WAIT_SLICE))
            {
                return;
            }
            // Records may have come that nobody looked at.
            self.disturb(broker);
            self.commit_due(broker);
            self.metrics.heartbeat.beat();
        }
        self.throttle(broker);
    }

    pub(super) fn throttle(&mut self, broker: &impl Broker) {
        tracing::warn!(
            seconds = WAIT_BEFORE_PAUSE.as_secs(),
            "the pipeline has no room for so long, pausing all partitions"
        );
        self.throttled = true;
        self.metrics.pauses.inc();
        self.metrics.paused.set(1);
        let flowing = self.ids(|assigned| assigned.phase == Phase::Flowing);
        log_failure("pause", broker.pause(&flowing));
        self.disturb(broker);
    }

    pub(super) fn unthrottle(&mut self, broker: &impl Broker) {
        if !self.throttled {
            return;
        }
        tracing::info!("the pipeline has room again, going on");
        self.throttled = false;
        self.metrics.paused.set(0);
        let flowing = self.ids(|assigned| assigned.phase == Phase::Flowing);
        self.resume(broker, &flowing);
    }

    /// Finds out how far behind a paused partition is: librdkafka learns of new records only by
    /// fetching. One partition at a time, so that no turn takes long.
    pub(super) fn measure_lag(&mut self, broker: &impl Broker) {
        let waiting = self.ids(|it| match it.phase {
            Phase::Flowing => self.throttled,
            Phase::Recovering => true,
            Phase::Unresolved(_) | Phase::Starting(_) => false,
        });
        let (asked_at, turn) = self.lag_asked;
        let Some(count) = u32::try_from(waiting.len()).ok().filter(|it| *it > 0) else {
            return;
        };
        if asked_at.is_some_and(|at| at.elapsed() < LAG_INTERVAL / count) {
            return;
        }
        self.lag_asked = (Some(Instant::now()), turn.wrapping_add(1));
        let partition = waiting[turn % waiting.len()];
        let marks = broker.watermarks(partition, LAG_TIMEOUT);
        if let (Ok(marks), Some(assigned)) = (marks, self.partitions.get(&partition)) {
            let label = PartitionLabel { partition };
            let lag = |next: i64| (marks.high - next).max(0);
            let (read, committed) = (&self.metrics.read_lag, &self.metrics.commit_lag);
            read.get_or_create(&label).set(lag(assigned.position));
            if let Some(point) = &assigned.confirmed {
                committed.get_or_create(&label).set(lag(point.next.0));
            }
        }
    }

    pub(super) fn tell_disturbance(&mut self) {
        let unverified = |it: &Assigned| it.unverified && it.phase == Phase::Flowing;
        let disturbed = self.cut_off || self.partitions.values().any(unverified);
        if disturbed != self.disturbed {
            self.disturbed = disturbed;
            self.metrics.disturbed.set(i64::from(disturbed));
            self.handler.transport_error(disturbed);
        }
    }
}
