//! What each partition has read, scored and refused, noted once a minute and when it goes. The notes
//! are handed to the sinks without waiting; if they have no room, the counts go on to the next note.

use std::time::Duration;

use super::{Worker, lane::Lane};
use crate::{event::TopicPartition, metrics::PipelineMetrics, sink::store::PartitionHealth};

/// How often health is noted: finer than a person looks, coarse enough to cost nothing.
pub(super) const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Counts of one partition since its last note.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) read: i64,
    pub(super) scored: i64,
    pub(super) late: i64,
    pub(super) rejected: i64,
}

impl Worker {
    /// Notes the health of every partition if that is due.
    pub(super) fn note_health_due(&mut self) {
        let now = self.clock.instant();
        if now.saturating_duration_since(self.noted) < NOTE_EVERY {
            return;
        }
        self.noted = now;
        self.note_health(|_| true);
    }

    /// Notes the health of the partitions that `which` picks.
    pub(super) fn note_health(&mut self, which: impl Fn(&TopicPartition) -> bool) {
        let lanes = self.lanes.iter_mut();
        let picked = lanes.filter(|(partition, _)| which(partition));
        let mut noted: Vec<_> = picked
            .filter_map(|(partition, lane)| {
                let note = note(partition, lane, &self.metrics)?;
                Some((note, lane))
            })
            .collect();
        let round = noted.iter().map(|(note, _)| note.clone()).collect();
        if !self.sinks.try_note_health(round) {
            return;
        }
        for (_, lane) in &mut noted {
            if let Some(running) = &mut lane.running {
                running.tally = Tally::default();
            }
        }
    }
}

/// The note of a partition whose records flow.
fn note(
    partition: &TopicPartition,
    lane: &Lane,
    metrics: &PipelineMetrics,
) -> Option<PartitionHealth> {
    let running = lane.running.as_ref()?;
    let Tally {
        read,
        scored,
        late,
        rejected,
    } = running.tally;
    Some(PartitionHealth {
        partition: partition.clone(),
        lag: metrics.read_lag(partition.partition),
        newest_event: running.pipeline.windower().max_event_time(),
        read,
        scored,
        late,
        rejected,
    })
}
