//! How well the severity alone separates anomalous from normal windows, whatever the threshold.

use serde::Serialize;

use super::{Confusion, ratio};

/// Most points of the curve, the last one aside.
const CURVE_POINTS: u128 = 400;

/// The threshold with the highest F1, found by trying every one against the labels: what the
/// ranking could give at best, not what a threshold set without labels gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BestThreshold {
    /// Windows of at least this severity would alarm.
    pub severity: f64,
    /// Precision there.
    pub precision: f64,
    /// Recall there.
    pub recall: f64,
    /// F1 there.
    pub f1: f64,
}

/// Windows by severity, strangest first; equal severities are one step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ranking {
    steps: Vec<Step>,
    anomalous: u64,
    normal: u64,
}

/// The windows of one severity.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    severity: f64,
    anomalous: u64,
    normal: u64,
}

impl FromIterator<(f64, bool)> for Ranking {
    fn from_iter<I: IntoIterator<Item = (f64, bool)>>(windows: I) -> Self {
        let mut windows: Vec<(f64, bool)> = windows
            .into_iter()
            .map(|(severity, truth)| {
                let ranked = if severity.is_nan() {
                    f64::NEG_INFINITY
                } else {
                    severity
                };
                // Adding zero makes -0 and 0 the same severity.
                (ranked + 0.0, truth)
            })
            .collect();
        windows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut ranking = Self {
            steps: Vec::new(),
            anomalous: 0,
            normal: 0,
        };
        for equal in windows.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
            let anomalous = equal.iter().filter(|(_, truth)| *truth).count() as u64;
            let normal = equal.len() as u64 - anomalous;
            ranking.anomalous += anomalous;
            ranking.normal += normal;
            ranking.steps.push(Step {
                severity: equal[0].0,
                anomalous,
                normal,
            });
        }
        ranking
    }
}

impl Ranking {
    /// Returns the probability that an anomalous window ranks above a normal one, ties counting
    /// half; `None` if either kind is missing.
    pub(super) fn roc_auc(&self) -> Option<f64> {
        let mut normal_above = 0;
        let mut pairs_won = 0.0;
        for step in &self.steps {
            let normal_below = self.normal - normal_above - step.normal;
            pairs_won += step.anomalous as f64 * (normal_below as f64 + 0.5 * step.normal as f64);
            normal_above += step.normal;
        }
        ratio(pairs_won, self.anomalous as f64 * self.normal as f64)
    }

    /// Returns the average precision: precision at each step, weighted by the recall it adds;
    /// `None` without anomalous windows.
    pub(super) fn average_precision(&self) -> Option<f64> {
        let weighted: f64 = self
            .thresholds()
            .map(|(step, confusion)| {
                step.anomalous as f64 * confusion.precision().unwrap_or_default()
            })
            .sum();
        ratio(weighted, self.anomalous as f64)
    }

    /// Returns the threshold of the highest F1, the highest of equals; `None` without anomalous
    /// windows.
    pub(super) fn best_f1(&self) -> Option<BestThreshold> {
        let mut best: Option<BestThreshold> = None;
        for (step, confusion) in self.thresholds() {
            let (Some(precision), Some(recall), Some(f1)) =
                (confusion.precision(), confusion.recall(), confusion.f1())
            else {
                continue;
            };
            if best.is_none_or(|best| f1 > best.f1) {
                best = Some(BestThreshold {
                    severity: step.severity,
                    precision,
                    recall,
                    f1,
                });
            }
        }
        best
    }

    /// Returns (recall, precision) at every threshold that finds one anomalous window more, of which
    /// at most [`CURVE_POINTS`] are kept: those in between say nothing that a picture shows.
    pub(super) fn curve(&self) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        let mut last_slot = None;
        for (step, confusion) in self.thresholds() {
            let (Some(precision), Some(recall)) = (confusion.precision(), confusion.recall())
            else {
                continue;
            };
            let slot = u128::from(confusion.tp) * CURVE_POINTS / u128::from(self.anomalous.max(1));
            let last = confusion.tp == self.anomalous;
            if step.anomalous > 0 && (last || last_slot != Some(slot)) {
                last_slot = Some(slot);
                points.push((recall, precision));
            }
        }
        points
    }

    /// Every threshold with what it would give: alarms down to and with that step.
    fn thresholds(&self) -> impl Iterator<Item = (Step, Confusion)> {
        let mut confusion = Confusion {
            tp: 0,
            fp: 0,
            fn_: self.anomalous,
            tn: self.normal,
        };
        self.steps.iter().map(move |step| {
            confusion.tp += step.anomalous;
            confusion.fn_ -= step.anomalous;
            confusion.fp += step.normal;
            confusion.tn -= step.normal;
            (*step, confusion)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(windows: &[(f64, bool)]) -> Ranking {
        windows.iter().copied().collect()
    }

    #[track_caller]
    fn check(actual: Option<f64>, expected: f64) {
        let actual = actual.unwrap();
        assert!((actual - expected).abs() < 1e-15, "{actual} {expected}");
    }

    /// 40 windows with many ties; the expected values are scikit-learn 1.9's.
    #[test]
    fn agrees_with_scikit_learn() {
        const ANOMALOUS: [usize; 11] = [0, 7, 8, 13, 14, 16, 19, 22, 25, 30, 39];
        const SEVERITIES: [f64; 40] = [
            3.3, 1.4, 2.6, 1.5, 1.8, 2.9, 1.7, 5.1, 2.2, 3.0, 1.7, 1.7, 2.5, 3.6, 3.2, 0.0, 1.9,
            2.8, 2.1, 4.3, 3.8, 2.7, 1.7, 1.2, 2.4, 2.4, 3.9, 3.8, 3.4, 1.9, 4.9, 0.5, 1.2, 1.9,
            3.0, 1.9, 0.5, 1.4, 1.3, 2.7,
        ];
        let windows = SEVERITIES.iter().enumerate();
        let ranking: Ranking = windows
            .map(|(index, severity)| (*severity, ANOMALOUS.contains(&index)))
            .collect();
        check(ranking.roc_auc(), 0.761_755_485_893_416_9);
        check(ranking.average_precision(), 0.612_046_331_804_396_3);
        let best = ranking.best_f1().unwrap();
        assert_eq!(best.severity, 3.2);
        check(Some(best.f1), 0.571_428_571_428_571_4);
        check(Some(best.precision), 6.0 / 10.0);
        check(Some(best.recall), 6.0 / 11.0);
    }

    #[test]
    fn a_perfect_ranking_has_no_loss() {
        let ranking = ranking(&[(0.1, false), (3.0, true), (0.2, false), (2.0, true)]);
        check(ranking.roc_auc(), 1.0);
        check(ranking.average_precision(), 1.0);
        let best = ranking.best_f1().unwrap();
        assert_eq!((best.severity, best.f1), (2.0, 1.0));
    }

    #[test]
    fn equal_severities_separate_nothing() {
        let ranking = ranking(&[(0.0, true), (-0.0, false), (0.0, false), (-0.0, false)]);
        check(ranking.roc_auc(), 0.5);
        check(ranking.average_precision(), 0.25);
    }

    /// Descending: normal, anomalous, normal, anomalous. Won pairs 1 of 4; average precision
    /// (1/2 + 2/4) / 2.
    #[test]
    fn hand_computed() {
        let ranking = ranking(&[(4.0, false), (3.0, true), (2.0, false), (1.0, true)]);
        check(ranking.roc_auc(), 0.25);
        check(ranking.average_precision(), 0.5);
    }

    #[test]
    fn nan_ranks_lowest() {
        let ranking = ranking(&[(f64::NAN, true), (-5.0, false), (f64::INFINITY, true)]);
        check(ranking.roc_auc(), 0.5);
    }

    #[test]
    fn nothing_is_undefined_rather_than_nan() {
        assert_eq!(ranking(&[]).roc_auc(), None);
        assert_eq!(ranking(&[(1.0, true)]).roc_auc(), None);
        assert_eq!(ranking(&[(1.0, false)]).roc_auc(), None);
        assert_eq!(ranking(&[(1.0, false)]).average_precision(), None);
        assert_eq!(ranking(&[(1.0, false)]).best_f1(), None);
    }
}
