//! A window scored again, held against what the database says of it: exactly, number by number.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    event::EventTime,
    features::COLUMNS,
    model::ScoredWindow,
    sink::{
        Told,
        results::early_field,
        store::{StoredAlarm, StoredScore},
    },
};

/// Something that is not the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Table and column.
    pub field: String,
    /// What the database says.
    pub stored: Value,
    /// What the records say.
    pub again: Value,
}

/// What was compared, and what came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// How many values are the same.
    pub identical: usize,
    /// Those that are not.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Compares an alarm and the row of its window with the window scored again.
    #[must_use]
    pub fn of(alarm: &StoredAlarm, row: Option<&StoredScore>, scored: &ScoredWindow) -> Self {
        let mut comparison = Self::default();
        let told = Told::of(scored);
        let explanation = json!(scored.explanation);
        let samples: Vec<&str> = told.samples.iter().map(|sample| &**sample).collect();
        for (field, stored, again) in [
            (
                "anomaly_score",
                json!(alarm.anomaly_score),
                json!(told.anomaly_score),
            ),
            ("severity", json!(alarm.severity), json!(told.severity)),
            ("threshold", json!(alarm.threshold), json!(scored.threshold)),
            ("log_count", json!(alarm.log_count), json!(told.log_count)),
            (
                "error_count",
                json!(alarm.error_count),
                json!(told.error_count),
            ),
            (
                "critical_count",
                json!(alarm.critical_count),
                json!(told.critical_count),
            ),
            (
                "reasons",
                json!(alarm.reasons),
                json!(told.explanation.reasons),
            ),
            ("samples", json!(alarm.samples), json!(samples)),
            (
                "explanation",
                alarm.explanation.clone(),
                json!(told.explanation),
            ),
            (
                "early_at",
                json!(alarm.early_at.map(EventTime::from)),
                json!(told.early_at),
            ),
        ] {
            comparison.add(&format!("alarms.{field}"), stored, again);
        }
        if let Some(row) = row {
            comparison.add_row(row, scored, explanation);
        }
        comparison
    }

    fn add_row(&mut self, row: &StoredScore, scored: &ScoredWindow, explanation: Value) {
        let verdict = &scored.verdict;
        for (field, stored, again) in [
            (
                "is_anomaly",
                json!(row.is_anomaly),
                json!(i32::from(verdict.is_anomaly)),
            ),
            (
                "anomaly_score",
                json!(row.anomaly_score),
                json!(verdict.anomaly_score),
            ),
            ("severity", json!(row.severity), json!(verdict.severity)),
            (
                "dbscan_score",
                json!(row.dbscan_score),
                json!(verdict.dbscan_score),
            ),
            (
                "cluster_label",
                json!(row.cluster_label),
                json!(verdict.cluster_label),
            ),
            ("explanation", row.explanation.clone(), explanation),
            (
                "early",
                row.early.clone().unwrap_or_default(),
                json!(early_field(scored)),
            ),
            (
                "model_checksum",
                json!(row.model_checksum),
                json!(*scored.model_checksum),
            ),
        ] {
            self.add(&format!("anomaly_results.{field}"), stored, again);
        }
        let none = Map::new();
        let features = row.features.as_ref().and_then(Value::as_object);
        let features = features.unwrap_or(&none);
        for (name, again) in COLUMNS.iter().zip(&scored.features.values) {
            let stored = features.get(*name).cloned().unwrap_or_default();
            self.add(&format!("window_features.{name}"), stored, json!(again));
        }
    }

    fn add(&mut self, field: &str, stored: Value, again: Value) {
        if same(&stored, &again) {
            self.identical += 1;
        } else {
            self.differences.push(Difference {
                field: field.to_owned(),
                stored,
                again,
            });
        }
    }
}

/// Equal; a number is what it is however it is written (PostgreSQL writes 1 for 1.0), and a NUL is
/// what PostgreSQL has in its place.
fn same(stored: &Value, again: &Value) -> bool {
    match (stored, again) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::String(one), Value::String(other)) => {
            one == other || *one == other.replace('\0', "\u{fffd}")
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && other
                    .iter()
                    .all(|(name, again)| one.get(name).is_some_and(|stored| same(stored, again)))
        }
        _ => stored == again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_to_the_last_bit() {
        let next = f64::from_bits(0.1_f64.to_bits() + 1);
        assert!(same(&json!(0.1), &json!(0.1)) && !same(&json!(0.1), &json!(next)));
        assert!(same(&json!(1), &json!(1.0)));
        assert!(same(
            &json!({"a": [1, "x\u{fffd}"]}),
            &json!({"a": [1.0, "x\0"]})
        ));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": 2})));
        assert!(!same(&json!(null), &json!(0.0)));
    }
}
