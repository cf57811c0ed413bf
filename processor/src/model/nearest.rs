//! The nearest of a few thousand points, exactly, at a fraction of the cost of comparing with each.
//!
//! Points lie in blocks of sixteen, dimension by dimension, rounded to 32 bits, so that a processor
//! compares with several at once; dimensions that tell points apart come first. A point is compared
//! in full precision only if rounding could hide that it is nearer than the best so far. The result
//! is that of comparing with each point in turn, bit for bit.

use super::density::{Point, SPACE};

/// Points of a block.
const LANES: usize = 16;
/// Dimensions between two looks at whether a block can be left.
const STRIDE: usize = 8;
/// What rounding to 32 bits may add to or take from a distance, per unit of the lengths of both
/// points: two roundings and the difference, with room to spare.
const ROUNDING: f64 = 1e-6;
/// What adding up in 32 bits may change, relatively.
const ADDING: f64 = 1e-4;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    /// Dimensions, those first that vary most.
    order: Vec<usize>,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
struct Block {
    /// By dimension, in their order; what is beyond the last point is infinitely far away.
    values: [[f32; LANES]; SPACE.len()],
    /// Largest length of its points.
    length: f64,
}

impl Blocks {
    /// Arranges `points`.
    pub(super) fn new(points: &[Point]) -> Self {
        let order = by_spread(points);
        let block = |points: &[Point]| {
            let mut block = Block {
                values: [[f32::INFINITY; LANES]; SPACE.len()],
                length: points.iter().map(length).fold(0.0, f64::max),
            };
            for (lane, point) in points.iter().enumerate() {
                for (values, &dimension) in block.values.iter_mut().zip(&order) {
                    values[lane] = narrow(point[dimension]);
                }
            }
            block
        };
        Self {
            blocks: points.chunks(LANES).map(block).collect(),
            order,
        }
    }

    /// Returns the squared distance and the number of the nearest of `points`, which it was made of;
    /// of several the first. Infinity without points.
    pub(super) fn nearest(&self, points: &[Point], point: &Point) -> (f64, usize) {
        let rounded: Vec<f32> = self.order.iter().map(|&d| narrow(point[d])).collect();
        let length = length(point);
        let mut best = (f64::INFINITY, 0);
        for (number, block) in self.blocks.iter().enumerate() {
            let limit = limit(best.0, length + block.length);
            let Some(sums) = block.squares(&rounded, limit) else {
                continue;
            };
            for (lane, sum) in sums.into_iter().enumerate() {
                let number = number * LANES + lane;
                if sum <= limit
                    && let Some(candidate) = points.get(number)
                {
                    let squared = squared(candidate, point);
                    if squared < best.0 {
                        best = (squared, number);
                    }
                }
            }
        }
        best
    }
}

impl Block {
    /// Returns the rounded squared distances; nothing once all are beyond `limit`.
    fn squares(&self, point: &[f32], limit: f32) -> Option<[f32; LANES]> {
        let mut sums = [0.0_f32; LANES];
        for (values, point) in self.values.chunks(STRIDE).zip(point.chunks(STRIDE)) {
            for (values, point) in values.iter().zip(point) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    let difference = value - point;
                    *sum += difference * difference;
                }
            }
            if sums.iter().all(|sum| *sum > limit) {
                return None;
            }
        }
        Some(sums)
    }
}

/// The rounded squared distance beyond which a point cannot be nearer than `squared`.
fn limit(squared: f64, lengths: f64) -> f32 {
    let distance = squared.sqrt() + ROUNDING * lengths;
    let limit = distance * distance * (1.0 + ADDING) + f64::from(f32::MIN_POSITIVE);
    narrow(limit)
}

#[allow(clippy::cast_possible_truncation, reason = "rounding is accounted for")]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn length(point: &Point) -> f64 {
    point.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// In slices of eight: the order of the sum is part of the score.
fn squared(a: &Point, b: &Point) -> f64 {
    let slices = a.chunks(8).zip(b.chunks(8));
    slices.fold(0.0, |sum, (a, b)| {
        sum + a.iter().zip(b).map(|(a, b)| (b - a) * (b - a)).sum::<f64>()
    })
}

/// Returns the dimensions, those first along which the points lie furthest apart.
fn by_spread(points: &[Point]) -> Vec<usize> {
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = points.len().max(1) as f64;
    let spread = |dimension: usize| -> f64 {
        let values = points.iter().map(|point| point[dimension]);
        let mean = values.clone().sum::<f64>() / count;
        values.map(|value| (value - mean) * (value - mean)).sum()
    };
    let mut order: Vec<_> = (0..SPACE.len()).map(|d| (spread(d), d)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order.into_iter().map(|(_, dimension)| dimension).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One after the other.
    fn plainly(points: &[Point], point: &Point) -> (f64, usize) {
        let distances = points.iter().map(|other| squared(other, point)).zip(0..);
        distances.fold((f64::INFINITY, 0), |best, next| {
            if next.0 < best.0 { next } else { best }
        })
    }

    fn point() -> impl Strategy<Value = Point> {
        let value = prop_oneof![
            -3.0..3.0,
            Just(0.0),
            -1e6..1e6,
            (0..4_u8).prop_map(|n| f64::from(n) + 1e-9),
        ];
        prop::collection::vec(value, SPACE.len())
            .prop_map(|values| std::array::from_fn(|dimension| values[dimension]))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_one_that_comparing_with_each_finds(
            points in prop::collection::vec(point(), 0..60),
            asked in prop::collection::vec(point(), 1..8),
        ) {
            let blocks = Blocks::new(&points);
            for point in asked.iter().chain(&points) {
                prop_assert_eq!(blocks.nearest(&points, point), plainly(&points, point));
            }
        }
    }
}
