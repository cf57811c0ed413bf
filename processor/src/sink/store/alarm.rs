//! An alarm as a row: what was said and the records it rests on, so that it can be proved again.

use super::{
    columns::AlarmRow,
    json::{Json, without_nul},
};
use crate::{
    event::EventTime,
    sink::{WindowJob, alarm_file::has_alarm, alarm_id, told::Told},
};

/// Returns the alarm of a window, if it raises one; the columns that it takes from the window's row
/// are not repeated.
pub(super) fn alarm_row(job: &WindowJob) -> Option<AlarmRow> {
    has_alarm(job).then(|| {
        let scored = &*job.scored;
        let window = &scored.window;
        let told = Told::of(scored);
        let samples: Vec<_> = told.samples.iter().map(|it| &**it).collect();
        AlarmRow {
            alarm_id: without_nul(&alarm_id(scored)),
            kind: scored.alarm_kind().as_str(),
            threshold: scored.threshold,
            samples: Json::of(&samples),
            max_event_time_before: window.max_event_time_before.map(EventTime::to_datetime),
            state_window_start: window.previous.map(|it| it.start.to_datetime()),
            state_window_end: window.previous.map(|it| it.end.to_datetime()),
            lateness_ms: window.lateness_ms,
            provisional: told.provisional,
            early_at: told.early_at.map(EventTime::to_datetime),
            anomaly_score: told.anomaly_score,
            severity: told.severity,
            log_count: told.log_count,
            error_count: told.error_count,
            critical_count: told.critical_count,
            explanation: Json::of(told.explanation),
            next_offset: told.next.map(|next| next.0),
        }
    })
}
