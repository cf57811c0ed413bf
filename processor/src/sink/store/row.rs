//! A scored window as a row, and the state that rides in it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::columns::Row;
use crate::{
    features::COLUMNS,
    model::{Baseline, ScoredWindow},
    sink::{WindowJob, summary::Summary},
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

pub(super) fn row(job: &WindowJob) -> Row {
    let scored = &*job.scored;
    let (window, verdict) = (&scored.window, &scored.verdict);
    let partition = &window.stream.partition;
    let counts = Summary::of(scored);
    Row {
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
        severity: verdict.severity,
        dbscan_score: verdict.dbscan_score,
        model_checksum: without_nul(&scored.model_checksum),
        first_offset: window.span.map(|span| span.first),
        next_offset: window.span.map(|span| span.next.0),
        features: features(scored),
        explanation: json(&scored.explanation),
        state: json(&StreamState {
            progress: window.progress,
            baseline: scored.baseline.clone(),
        }),
    }
}

fn features(scored: &ScoredWindow) -> Value {
    let values = COLUMNS.iter().zip(&scored.features.values);
    Value::Object(Map::from_iter(values.map(|(name, value)| {
        let number = Number::from_f64(*value).map_or(Value::Null, Value::Number);
        ((*name).to_owned(), number)
    })))
}

/// Returns the value as JSON that PostgreSQL takes.
fn json(value: &impl Serialize) -> Value {
    // Plain structs of strings and numbers have no map with keys that are not strings, the only
    // thing that cannot be JSON; were it so, null says that it is missing.
    let mut value = serde_json::to_value(value).unwrap_or_default();
    replace_nul(&mut value);
    value
}

/// `jsonb` has no NUL character: it becomes the replacement character, in keys as well.
fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = without_nul(text),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(members) => {
            members.values_mut().for_each(replace_nul);
            if members.keys().any(|key| key.contains('\0')) {
                let taken = std::mem::take(members);
                members.extend(taken.into_iter().map(|(key, it)| (without_nul(&key), it)));
            }
        }
        _ => {}
    }
}

/// Neither has `text`.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nul_is_replaced_wherever_it_hides() {
        let mut value = json!({"a\0": ["x\0y", {"b": "\0"}], "c": 1});
        replace_nul(&mut value);
        assert_eq!(
            value,
            json!({"a\u{fffd}": ["x\u{fffd}y", {"b": "\u{fffd}"}], "c": 1})
        );
    }
}
