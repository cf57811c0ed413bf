//! Partitions whose every record has been read: their time goes on by the clock.
//!
//! A window of such a partition is written as a provisional row once the clock has passed its end
//! and the lateness, and becomes final after `idle_final`. A stream that is silent beyond its habit
//! is told of by a provisional row of its own, once: that of the empty window which the next record
//! makes final. One that takes more windows than get rows is told of here as well, and once more by
//! the row of the gap when the stream writes again. Nothing here runs while reading is disturbed: a
//! broken or slow fetch is not silence.
//!
//! A final row made here says so (`final_by = idle`). Its watermark rides in the commits, and what
//! follows from it is written only once that is committed: whoever reads the partition next makes
//! the same move in the same place, and the same rows.

use std::time::Duration;

use super::{Worker, lane::Running};
use crate::{
    event::{EventTime, NextOffset, TopicPartition},
    pipeline::SILENCES_MAX,
};

/// A partition that gave nothing for less than this is busy: between two fetches every partition
/// is read to its end.
const IDLE_MIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Looks after every idle partition.
    pub(super) fn check_idle(&mut self) {
        if self.reading_disturbed {
            return;
        }
        let now = self.clock.instant();
        let lateness_ms = self.settings.window.lateness_ms.unsigned_abs();
        let idle_min = IDLE_MIN.max(Duration::from_millis(lateness_ms));
        let idle: Vec<_> = self
            .lanes
            .iter()
            .filter_map(|(partition, lane)| {
                let since = lane.running.as_ref()?.idle_since?;
                Some((partition.clone(), now.saturating_duration_since(since)))
            })
            .filter(|(_, idle_for)| *idle_for >= idle_min)
            .collect();
        for (partition, idle_for) in idle {
            if idle_for >= self.settings.idle_final {
                self.close_idle(&partition, idle_for);
            }
            self.write_due(&partition, idle_for);
        }
    }

    /// Makes the open windows final that the partition's clock has passed, and moves its watermark
    /// just as far: what comes later than that is not late.
    fn close_idle(&mut self, partition: &TopicPartition, idle_for: Duration) {
        let window = self.settings.window;
        let Some(running) = self.running(partition) else {
            return;
        };
        let Some(end) = running.pipeline.windower().last_open_end() else {
            return;
        };
        let due = end.saturating_add(window.lateness_ms);
        let through = end.saturating_add(-window.length_ms);
        if clock_of(running, idle_for).is_none_or(|time| time < due) {
            return;
        }
        // What a cold start writes is provisional, and nothing of it is committed.
        if !running.cold {
            let Some(mark) = running.ledger.mark_idle(due, through) else {
                return;
            };
            running.hold(mark);
        }
        tracing::info!(%partition, ?idle_for, "idle: its open windows become final");
        self.move_watermark(partition, due);
    }

    /// Makes the move of the watermark that rode in the last commit, once reading has `reached`
    /// its place.
    pub(super) fn make_committed_move(&mut self, partition: &TopicPartition, reached: NextOffset) {
        let mark = self
            .running(partition)
            .and_then(|running| running.mark.take_if(|mark| mark.from <= reached));
        if let Some(mark) = mark {
            tracing::info!(%partition, offset = mark.from.0, "its windows were final here already");
            self.move_watermark(partition, mark.time);
        }
    }

    fn move_watermark(&mut self, partition: &TopicPartition, time: EventTime) {
        let lane = self.lanes.get_mut(partition);
        let Some(running) = lane.and_then(|lane| lane.running.as_mut()) else {
            return;
        };
        running
            .pipeline
            .close_idle(&mut self.shared, time, &mut self.steps);
        self.carry(partition, None);
        if let Some(running) = self.running(partition) {
            // Nothing was read: the position stays, and the ledger never moves it back.
            running.advance(NextOffset(0));
        }
    }

    /// Writes the open windows that the partition's clock has passed, as provisional rows with
    /// their alarms, once each.
    fn write_due(&mut self, partition: &TopicPartition, idle_for: Duration) {
        let lateness_ms = self.settings.window.lateness_ms;
        let Some(lane) = self.lanes.get_mut(partition) else {
            return;
        };
        let Some(running) = &mut lane.running else {
            return;
        };
        let Some(time) = clock_of(running, idle_for) else {
            return;
        };
        let watermark = time.saturating_add(-lateness_ms);
        if running.silence_due(watermark) {
            let told = |service: &_| running.silences_told.contains(service);
            let silent = running
                .pipeline
                .score_silence(&mut self.shared, watermark, told);
            if silent.len() == SILENCES_MAX {
                running.silence_looked_at = None;
            }
            for scored in silent {
                let service = scored.window.stream.service.clone();
                running.silences_told.insert(service);
                running.submit(scored, true, &mut submission!(self));
            }
        }
        let written = running.provisional_through;
        if !running
            .pipeline
            .windower()
            .has_open_between(written, watermark)
        {
            return;
        }
        for scored in running.pipeline.score_open(&mut self.shared) {
            let bounds = scored.window.bounds;
            if bounds.end <= watermark && Some(bounds.start) > written {
                running.provisional_through = running.provisional_through.max(Some(bounds.start));
                running.submit(scored, true, &mut submission!(self));
            }
        }
    }
}

impl Running {
    /// Notes that a record came: the next silence is another one.
    pub(super) fn speaks_again(&mut self) {
        self.silence_looked_at = None;
        if !self.silences_told.is_empty() {
            self.silences_told.clear();
        }
    }

    /// Returns whether a window's length has passed since silence was last looked for.
    fn silence_due(&mut self, watermark: EventTime) -> bool {
        let due = self.silence_looked_at.is_none_or(|at| {
            watermark.as_millis() - at.as_millis() >= self.pipeline.windower().length_ms()
        });
        if due {
            self.silence_looked_at = Some(watermark);
        }
        due
    }
}

/// A partition's own time: its largest event time plus the time since its last record was read.
fn clock_of(running: &Running, idle_for: Duration) -> Option<EventTime> {
    let idle_ms = i64::try_from(idle_for.as_millis()).unwrap_or(i64::MAX);
    Some(
        running
            .pipeline
            .windower()
            .max_event_time()?
            .saturating_add(idle_ms),
    )
}
