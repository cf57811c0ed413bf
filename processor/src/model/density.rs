//! DBSCAN at inference time: the core points of a training fit, and how far a row lies from them.
//!
//! linfa's `Dbscan` only labels the rows it was fitted on, so the core points are found here, with
//! linfa's range queries, and kept. The rows are a deterministic sample, so that the bundle and the
//! cost of a score stay bounded.

use std::collections::HashSet;

use linfa_nn::{CommonNearestNeighbour, NearestNeighbour, NearestNeighbourIndex, distance::L2Dist};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    bundle::{BundleDefect, is_usable},
    nearest::Blocks,
};
use crate::features::{COLUMNS, Column, FeatureRow};

/// The columns distances are taken over: the first 30 but for the cluster's number, which is a
/// name and not a quantity.
pub(super) const SPACE: [usize; 29] = {
    let mut space = [0; 29];
    let mut column = 0;
    let mut next = 0;
    while column < 30 {
        if column != Column::MessageCluster as usize {
            space[next] = column;
            next += 1;
        }
        column += 1;
    }
    space
};
/// The columns of [`SPACE`] that grow with the number of lines.
const COUNTS: [Column; 7] = [
    Column::LogCount,
    Column::ErrorCount,
    Column::FatalCount,
    Column::WarnCount,
    Column::InfoCount,
    Column::DebugCount,
    Column::CriticalCount,
];

/// A scaled row.
pub(super) type Point = [f64; SPACE.len()];

/// Most core points a bundle may have.
const CORE_POINTS_MAX: usize = 5_000;
/// Rows within eps, itself included, that make a row a core point.
const SAMPLES_MIN: usize = 5;
/// Share of the sample whose `SAMPLES_MIN`-th neighbour lies within eps. The rest is what training
/// itself would call noise, true anomalies among it.
const EPS_QUANTILE: f64 = 0.98;
/// A column whose quartiles coincide is scaled by its deviation instead, and one that never
/// changes by this share of its value (or of 1), so that a later jump is still far away.
const CONSTANT_SCALE: f64 = 0.1;
/// Scaled values are cut here: one column may be as far away as it likes, but not overflow.
const SCALED_MAX: f64 = 1e6;

/// The fitted model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Density {
    center: Vec<f64>,
    scale: Vec<f64>,
    pub(super) eps: f64,
    samples_min: usize,
    core: Vec<Point>,
    /// Cluster label per core point.
    labels: Vec<i32>,
    /// Where the core points lie.
    #[serde(skip)]
    blocks: Blocks,
}

impl Density {
    /// Fits scaler, eps and core points to a sample of training rows.
    pub(super) fn fit(rows: &[FeatureRow]) -> Self {
        let (center, scale) = robust_scale(rows);
        let mut model = Self {
            center,
            scale,
            samples_min: SAMPLES_MIN,
            ..Self::default()
        };
        let points: Vec<Point> = rows.iter().map(|row| model.scaled(row, 1.0)).collect();
        model.fit_core(&points);
        model.reindex();
        model
    }

    /// Builds what is not stored.
    pub(super) fn reindex(&mut self) {
        self.blocks = Blocks::new(&self.core);
    }

    /// Returns the row's place among the core points. `count_ratio` brings the columns that grow
    /// with the number of lines to training's volume.
    fn scaled(&self, row: &FeatureRow, count_ratio: f64) -> Point {
        let mut point = [0.0; SPACE.len()];
        for (dimension, &column) in SPACE.iter().enumerate() {
            let grows = COUNTS.iter().any(|count| *count as usize == column);
            let factor = if grows { count_ratio } else { 1.0 };
            let value = row.values[column] * factor;
            point[dimension] = ((value - self.center[dimension]) / self.scale[dimension])
                .clamp(-SCALED_MAX, SCALED_MAX);
        }
        point
    }

    fn fit_core(&mut self, points: &[Point]) {
        if points.is_empty() {
            return;
        }
        let batch = Array2::from(points.to_vec());
        // Only zero dimensions or an empty leaf are refused.
        let Ok(index) = CommonNearestNeighbour::KdTree.from_batch(&batch, L2Dist) else {
            return;
        };
        self.eps = choose_eps(&batch, &*index);
        let neighbours: Vec<Vec<usize>> = batch
            .rows()
            .into_iter()
            .map(|row| match index.within_range(row, self.eps) {
                Ok(found) => found.into_iter().map(|(_, number)| number).collect(),
                Err(_) => Vec::new(),
            })
            .collect();
        let labels = label(&neighbours);
        let mut seen = HashSet::new();
        for (point, label) in points.iter().zip(labels) {
            let bits = point.map(f64::to_bits);
            if let Some(label) = label
                && self.core.len() < CORE_POINTS_MAX
                && seen.insert(bits)
            {
                self.core.push(*point);
                self.labels.push(label);
            }
        }
    }

    /// Returns the label of the nearest core point, -1 if none lies within eps, and the distance
    /// to it in units of eps; `None` without core points.
    pub(super) fn nearest(&self, row: &FeatureRow, count_ratio: f64) -> Option<(i32, f64)> {
        let point = self.scaled(row, count_ratio);
        let (squared, number) = self.blocks.nearest(&self.core, &point);
        let label = self.labels.get(number)?;
        let distance = squared.sqrt() / self.eps;
        Some((if distance <= 1.0 { *label } else { -1 }, distance))
    }

    /// Returns how many core points there are.
    pub(super) fn core_points(&self) -> usize {
        self.core.len()
    }

    /// Checks what a file may have got wrong.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        if self.center.len() != SPACE.len()
            || self.scale.len() != SPACE.len()
            || self.core.len() != self.labels.len()
            || self.core.len() > CORE_POINTS_MAX
        {
            return Err(BundleDefect::Dimensions("density"));
        }
        let mut numbers = self.center.iter().chain(self.core.iter().flatten());
        let positive = |value: &f64| is_usable(*value) && *value > 0.0;
        if !numbers.all(|value| is_usable(*value))
            || !self.scale.iter().all(positive)
            || !positive(&self.eps)
        {
            return Err(BundleDefect::NotFinite("density"));
        }
        Ok(())
    }
}

/// Median and interquartile range per dimension.
fn robust_scale(rows: &[FeatureRow]) -> (Vec<f64>, Vec<f64>) {
    SPACE
        .iter()
        .map(|&column| {
            let mut values: Vec<_> = rows.iter().map(|row| row.values[column]).collect();
            values.sort_unstable_by(f64::total_cmp);
            let (center, range) = (
                quantile(&values, 0.5),
                quantile(&values, 0.75) - quantile(&values, 0.25),
            );
            if range > 0.0 {
                return (center, range);
            }
            #[allow(clippy::cast_precision_loss, reason = "a sample of a few thousand")]
            let count = values.len().max(1) as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
            // Below that it is rounding, not variation.
            if variance.sqrt() > 1e-9 * mean.abs().max(1e-6) {
                return (center, variance.sqrt());
            }
            (center, CONSTANT_SCALE * center.abs().max(1.0))
        })
        .unzip()
}

/// Returns the value at share `q` of sorted values; 0 if there are none.
pub(super) fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a slice"
    )]
    let index = (q * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// The distance within which most of the sample has enough neighbours.
fn choose_eps(batch: &Array2<f64>, index: &dyn NearestNeighbourIndex<f64>) -> f64 {
    let mut distances: Vec<f64> = batch
        .rows()
        .into_iter()
        .filter_map(|row| {
            let nearest = index.k_nearest(row, SAMPLES_MIN).ok()?;
            let (furthest, _) = nearest.last()?;
            Some((furthest - &row).mapv(|d| d * d).sum().sqrt())
        })
        .collect();
    distances.sort_unstable_by(f64::total_cmp);
    let eps = quantile(&distances, EPS_QUANTILE);
    if eps > 0.0 { eps } else { 1.0 }
}

/// Labels the core rows by connected component, numbered in row order; `None` for other rows.
fn label(neighbours: &[Vec<usize>]) -> Vec<Option<i32>> {
    let core: Vec<bool> = neighbours.iter().map(|n| n.len() >= SAMPLES_MIN).collect();
    let mut labels = vec![None; neighbours.len()];
    let mut next = 0;
    for start in 0..neighbours.len() {
        if !core[start] || labels[start].is_some() {
            continue;
        }
        labels[start] = Some(next);
        let mut open = vec![start];
        while let Some(row) = open.pop() {
            for &other in &neighbours[row] {
                if core[other] && labels[other].is_none() {
                    labels[other] = Some(next);
                    open.push(other);
                }
            }
        }
        next += 1;
    }
    labels
}

// The space is laid out by hand above; a change of the columns must not shift it unnoticed.
const _: () = assert!(COLUMNS.len() > SPACE[28] && SPACE[28] == 29);

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lines: f64, rate: f64) -> FeatureRow {
        let mut values = vec![0.0; COLUMNS.len()];
        values[Column::LogCount as usize] = lines;
        values[Column::ErrorRate as usize] = rate;
        FeatureRow { values }
    }

    fn two_groups() -> Density {
        let mut rows = Vec::new();
        for i in 0..60 {
            let step = f64::from(i % 10);
            rows.push(row(10.0 + 0.1 * step, 0.0));
            rows.push(row(30.0 + 0.1 * step, 1.0));
        }
        Density::fit(&rows)
    }

    #[test]
    fn rows_near_training_get_its_cluster_and_others_none() {
        let model = two_groups();
        model.check().unwrap();
        let (a, _) = model.nearest(&row(10.2, 0.0), 1.0).unwrap();
        let (b, _) = model.nearest(&row(30.2, 1.0), 1.0).unwrap();
        assert!(a >= 0 && b >= 0 && a != b, "{a} {b}");
        let (label, distance) = model.nearest(&row(500.0, 0.0), 1.0).unwrap();
        assert!(label == -1 && distance > 1.0, "{label} {distance}");
    }

    #[test]
    fn counts_are_compared_at_the_volume_of_training() {
        let (label, distance) = two_groups().nearest(&row(306.0, 0.0), 1.0 / 30.0).unwrap();
        assert!(label >= 0 && distance < 1.0, "{label} {distance}");
    }

    #[test]
    fn a_column_that_never_changed_still_counts_when_it_jumps() {
        let mut jumped = row(10.2, 0.0);
        jumped.values[Column::FatalRate as usize] = 1.0;
        assert_eq!(two_groups().nearest(&jumped, 1.0).unwrap().0, -1);
    }

    #[test]
    fn no_rows_give_no_core_points() {
        assert_eq!(Density::fit(&[]).nearest(&row(1.0, 0.0), 1.0), None);
    }
}
