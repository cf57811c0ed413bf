//! KMeans over the templates' text vectors: which familiar kind of message a line is nearest to.

use linfa::prelude::*;
use linfa_clustering::{KMeans, KMeansInit};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    bundle::{BundleDefect, is_usable},
    text::TextVector,
};
use crate::features::TEXT_DIMENSIONS;

/// Most centroids.
pub(super) const CENTROIDS_MAX: usize = 20;
/// Squared distance below which two vectors are one point: repeated points only make empty
/// clusters.
const SAME_POINT: f64 = 1e-18;
/// A smaller range of distances is rounding: every template lies on a centroid of its own.
const RANGE_MIN: f64 = 1e-9;

/// The fitted centroids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clusters {
    centroids: Vec<TextVector>,
    /// Smallest and largest distance of a training template to its centroid.
    distance_min: f64,
    distance_max: f64,
}

impl Clusters {
    /// Fits the centroids on vectors given heaviest first. Starts from the heaviest and then, each
    /// time, the vector furthest from those chosen: no randomness, and no two starts alike.
    pub(super) fn fit(vectors: &[TextVector]) -> Self {
        let start = farthest_first(vectors);
        if start.is_empty() {
            return Self::default();
        }
        let centroids = refine(vectors, &start).unwrap_or(start);
        let mut clusters = Self {
            centroids,
            distance_min: f64::INFINITY,
            distance_max: 0.0,
        };
        for vector in vectors {
            if let Some((_, distance)) = clusters.nearest_raw(vector) {
                clusters.distance_min = clusters.distance_min.min(distance);
                clusters.distance_max = clusters.distance_max.max(distance);
            }
        }
        clusters
    }

    /// Checks what a file may have got wrong.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        if self.centroids.len() > CENTROIDS_MAX {
            return Err(BundleDefect::Dimensions("clusters"));
        }
        let ends = [self.distance_min, self.distance_max];
        let mut numbers = self.centroids.iter().flatten().chain(&ends);
        if !numbers.all(|value| is_usable(*value)) {
            return Err(BundleDefect::NotFinite("clusters"));
        }
        Ok(())
    }

    /// Returns the nearest centroid and the distance to it, scaled to [0, 1] by the distances in
    /// training.
    pub(super) fn nearest(&self, vector: &TextVector) -> Option<(usize, f64)> {
        let (index, distance) = self.nearest_raw(vector)?;
        let range = self.distance_max - self.distance_min;
        let range = if range > RANGE_MIN { range } else { 1.0 };
        Some((
            index,
            ((distance - self.distance_min) / range).clamp(0.0, 1.0),
        ))
    }

    fn nearest_raw(&self, vector: &TextVector) -> Option<(usize, f64)> {
        let (index, squared) = self
            .centroids
            .iter()
            .map(|centroid| squared_distance(centroid, vector))
            .enumerate()
            .reduce(|best, next| if next.1 < best.1 { next } else { best })?;
        Some((index, squared.sqrt()))
    }
}

fn squared_distance(a: &TextVector, b: &TextVector) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

fn farthest_first(vectors: &[TextVector]) -> Vec<TextVector> {
    let Some(first) = vectors.first() else {
        return Vec::new();
    };
    let mut chosen = vec![*first];
    let mut distances = vec![f64::INFINITY; vectors.len()];
    while chosen.len() < CENTROIDS_MAX {
        let last = chosen[chosen.len() - 1];
        let mut furthest = (0, SAME_POINT);
        for (index, vector) in vectors.iter().enumerate() {
            distances[index] = distances[index].min(squared_distance(vector, &last));
            if distances[index] > furthest.1 {
                furthest = (index, distances[index]);
            }
        }
        if furthest.1 <= SAME_POINT {
            break;
        }
        chosen.push(vectors[furthest.0]);
    }
    chosen
}

/// Lloyd's iterations by linfa, from `start`; `None` if it refuses.
fn refine(vectors: &[TextVector], start: &[TextVector]) -> Option<Vec<TextVector>> {
    let records = Array2::from(vectors.to_vec());
    let start = Array2::from(start.to_vec());
    let model = KMeans::params(start.nrows())
        .init_method(KMeansInit::Precomputed(start))
        .n_runs(1)
        .max_n_iterations(100)
        .fit(&DatasetBase::from(records))
        .ok()?;
    let centroids = model.centroids();
    let rows = centroids.rows().into_iter().map(|row| {
        let mut centroid = [0.0; TEXT_DIMENSIONS];
        for (to, from) in centroid.iter_mut().zip(row) {
            *to = *from;
        }
        centroid
    });
    Some(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f64, y: f64) -> TextVector {
        let mut vector = [0.0; TEXT_DIMENSIONS];
        vector[0] = x;
        vector[1] = y;
        vector
    }

    #[test]
    fn few_or_repeated_vectors_each_get_a_centroid_of_their_own() {
        let clusters = Clusters::fit(&[at(0.0, 0.0), at(1.0, 0.0), at(0.0, 0.0)]);
        assert_eq!(clusters.centroids, [at(0.0, 0.0), at(1.0, 0.0)]);
        assert_eq!(clusters.nearest(&at(0.9, 0.0)).unwrap().0, 1);
    }

    #[test]
    fn distances_are_scaled_by_those_in_training() {
        let grid: Vec<_> = (0..60)
            .map(|i| at(f64::from(i % 20), f64::from(i / 20) * 0.1))
            .collect();
        let clusters = Clusters::fit(&grid);
        assert_eq!(clusters.centroids.len(), CENTROIDS_MAX);
        let scaled = |v: &TextVector| clusters.nearest(v).unwrap().1;
        assert!(grid.iter().all(|v| (0.0..=1.0).contains(&scaled(v))));
        assert!((scaled(&at(5.0, 50.0)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn no_vectors_give_no_centroids() {
        assert_eq!(Clusters::fit(&[]).nearest(&at(0.0, 0.0)), None);
    }
}
