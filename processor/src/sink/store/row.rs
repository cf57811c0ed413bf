//! A scored window as a row, and the state that rides in it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    columns::ResultRow,
    json::{Json, without_nul},
};
use crate::{
    model::Baseline,
    sink::{WindowJob, results::early_field, summary::Summary},
    window::StreamProgress,
};

/// Where a stream stands after a window: what a new owner of its partition continues from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    /// Where its windows stand.
    pub progress: StreamProgress,
    /// Its rolling baseline.
    pub baseline: Baseline,
}

/// A stream as its newest final row left it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveredStream {
    /// The service, where windows are grouped by service.
    pub service: Option<Arc<str>>,
    /// The checksum of the model that scored the row.
    pub model_checksum: Arc<str>,
    /// Its state after that row.
    pub state: StreamState,
}

impl RecoveredStream {
    /// Returns where the stream continues with the model of this checksum. A baseline made by
    /// another model means nothing to it: the stream keeps its place and starts with the model's own.
    #[must_use]
    pub fn continued_by(self, model_checksum: &str) -> (StreamProgress, Baseline) {
        let StreamState { progress, baseline } = self.state;
        if *self.model_checksum == *model_checksum {
            (progress, baseline)
        } else {
            (progress, Baseline::default())
        }
    }
}

pub(super) fn row(job: &WindowJob) -> ResultRow {
    let scored = &*job.scored;
    let (window, verdict) = (&scored.window, &scored.verdict);
    let partition = &window.stream.partition;
    let counts = Summary::of(scored);
    ResultRow {
        timestamp: window.bounds.end.to_datetime(),
        window_start: window.bounds.start.to_datetime(),
        window_end: window.bounds.end.to_datetime(),
        is_anomaly: i32::from(verdict.is_anomaly),
        anomaly_score: verdict.anomaly_score,
        cluster_label: verdict.cluster_label,
        log_count: counts.log_count,
        error_count: counts.error_count,
        critical_count: counts.critical_count,
        error_rate: counts.error_rate,
        critical_rate: counts.critical_rate,
        ground_truth: counts.ground_truth,
        labelled_count: counts.labelled_count,
        stream: without_nul(&window.stream.to_string()),
        topic: without_nul(&partition.topic),
        partition: partition.partition,
        service: window.stream.service.as_deref().map(without_nul),
        final_by: window.final_by.as_str(),
        provisional: counts.provisional,
        partial: window.partial,
        gap: window.gap,
        stale: job.stale,
        cold: verdict.cold,
        level_shift: verdict.level_shift,
        muted: verdict.muted,
        learning: verdict.learning,
        capped: verdict.capped,
        severity: verdict.severity,
        dbscan_score: verdict.dbscan_score,
        model_checksum: without_nul(&scored.model_checksum),
        first_offset: window.span.map(|span| span.first),
        next_offset: window.span.map(|span| span.next.0),
        explanation: Json::of(&scored.explanation),
        early: early_field(scored).map(|early| Json::of(&early)),
        state: Json::of(&StreamState {
            progress: window.progress,
            baseline: scored.baseline.clone(),
        }),
    }
}
