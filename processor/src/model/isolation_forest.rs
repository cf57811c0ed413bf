//! An isolation forest, after F. T. Liu, K. M. Ting and Z.-H. Zhou, "Isolation Forest" (ICDM 2008).
//!
//! Trees cut random samples of rows at random values of random columns until each row is alone; a row
//! that is alone after few cuts is strange. Random numbers come from a generator of our own with a fixed
//! seed, so that the same rows always make the same forest.

use serde::{Deserialize, Serialize};

use super::bundle::{BundleDefect, is_usable};
use crate::features::{COLUMNS, Column};

/// Trees, and rows that each is grown from: the paper's own.
const TREES: usize = 100;
const SAMPLE_ROWS: usize = 256;
/// The height at which a tree stops: ln2 of the sample.
const HEIGHT_MAX: u32 = 8;
const SEED: u64 = 2008;
const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
/// In the place of a column: the node is a leaf, and its value is the path that goes on below it.
const LEAF: u8 = u8::MAX;

/// Trees, as grown from one set of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forest {
    /// Rows that each tree was grown from.
    sample_rows: u32,
    trees: Vec<Tree>,
}

/// Nodes of a tree, each followed by what is at its cut or below; the rest begins at its `beyond`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    columns: Vec<u8>,
    values: Vec<f64>,
    beyond: Vec<u32>,
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        // The bias is below 2^-50 for any number of rows.
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }

    /// In [0, 1).
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Forest {
    /// Grows a forest from rows of values by column; `None` from fewer than two.
    pub(super) fn fit(rows: &[Vec<f64>]) -> Option<Self> {
        if rows.len() < 2 {
            return None;
        }
        let mut random = Random(SEED);
        let size = rows.len().min(SAMPLE_ROWS);
        let mut places: Vec<usize> = (0..rows.len()).collect();
        let trees = (0..TREES)
            .map(|_| {
                // The first of a shuffle that goes no further.
                for place in 0..size {
                    let other = place + random.below(rows.len() - place);
                    places.swap(place, other);
                }
                let sample: Vec<&[f64]> = places[..size].iter().map(|at| &*rows[*at]).collect();
                let mut tree = Tree::default();
                tree.grow(sample, 0, &mut random);
                tree
            })
            .collect();
        Some(Self {
            sample_rows: u32::try_from(size).unwrap_or(u32::MAX),
            trees,
        })
    }

    /// Returns how strange a row is, in (0, 1): well below 0.5 where it is usual.
    pub(super) fn score(&self, row: &[f64]) -> f64 {
        let paths: f64 = self.trees.iter().map(|tree| tree.path(row)).sum();
        #[allow(clippy::cast_precision_loss, reason = "a hundred trees")]
        let mean = paths / self.trees.len().max(1) as f64;
        (-mean / average_path(f64::from(self.sample_rows)).max(1e-9)).exp2()
    }

    /// Checks what a file may have got wrong: above all, that every path ends.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        let sound = |tree: &Tree| {
            let nodes = tree.columns.len();
            let node = |at: usize| {
                tree.columns[at] == LEAF
                    || (usize::from(tree.columns[at]) < COLUMNS.len()
                        && at + 1 < nodes
                        && (at + 1..nodes).contains(&(tree.beyond[at] as usize)))
            };
            nodes > 0
                && tree.values.len() == nodes
                && tree.beyond.len() == nodes
                && (0..nodes).all(node)
        };
        if self.trees.is_empty() || !self.trees.iter().all(sound) {
            return Err(BundleDefect::Dimensions("forest"));
        }
        let mut values = self.trees.iter().flat_map(|tree| &tree.values);
        if values.any(|value| !is_usable(*value)) {
            return Err(BundleDefect::NotFinite("forest"));
        }
        Ok(())
    }
}

impl Tree {
    fn grow(&mut self, rows: Vec<&[f64]>, height: u32, random: &mut Random) {
        let cut = (height < HEIGHT_MAX && rows.len() > 1)
            .then(|| cut(&rows, random))
            .flatten();
        let at = self.columns.len();
        let Some((column, value)) = cut else {
            #[allow(clippy::cast_precision_loss, reason = "256 rows at most")]
            self.push(LEAF, average_path(rows.len() as f64));
            return;
        };
        self.push(u8::try_from(column).unwrap_or(LEAF), value);
        let (up_to, beyond): (Vec<&[f64]>, Vec<&[f64]>) =
            rows.into_iter().partition(|row| row[column] <= value);
        self.grow(up_to, height + 1, random);
        self.beyond[at] = u32::try_from(self.columns.len()).unwrap_or(u32::MAX);
        self.grow(beyond, height + 1, random);
    }

    fn push(&mut self, column: u8, value: f64) {
        self.columns.push(column);
        self.values.push(value);
        self.beyond.push(0);
    }

    /// Returns how many cuts it takes until the row is alone.
    fn path(&self, row: &[f64]) -> f64 {
        let (mut at, mut cuts) = (0, 0.0);
        while let (Some(&column), Some(&value)) = (self.columns.get(at), self.values.get(at)) {
            if column == LEAF {
                return cuts + value;
            }
            cuts += 1.0;
            let here = row.get(usize::from(column)).copied().unwrap_or(0.0);
            at = if here <= value {
                at + 1
            } else {
                self.beyond[at] as usize
            };
        }
        cuts
    }
}

/// Returns a column in which the rows differ and a value between its smallest and largest, both at
/// random; nothing if they are all alike. The cluster's label is no quantity, and is passed over.
fn cut(rows: &[&[f64]], random: &mut Random) -> Option<(usize, f64)> {
    let width = rows.first()?.len().min(usize::from(LEAF));
    let mut columns: Vec<usize> = (0..width)
        .filter(|column| *column != Column::MessageCluster as usize)
        .collect();
    while !columns.is_empty() {
        let column = columns.swap_remove(random.below(columns.len()));
        let values = rows.iter().map(|row| row[column]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let value = low + random.share() * (high - low);
        // Rounding may reach the largest, and then nothing would be beyond.
        if low < high && value < high {
            return Some((column, value));
        }
    }
    None
}

/// Mean number of cuts of an unsuccessful search in a binary tree of `rows` rows: the paper's c(n).
fn average_path(rows: f64) -> f64 {
    if rows <= 1.0 {
        0.0
    } else if rows <= 2.0 {
        1.0
    } else {
        2.0 * ((rows - 1.0).ln() + EULER_GAMMA) - 2.0 * (rows - 1.0) / rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trees that scikit-learn grew, rows, and the scores it gave them.
    #[derive(Deserialize)]
    struct Fixture {
        sample_rows: u32,
        trees: Vec<SklearnTree>,
        rows: Vec<Vec<f64>>,
        scores: Vec<f64>,
        training: Vec<Vec<f64>>,
        /// Of a hundred trees of 256 rows, grown from `training`.
        large_scores: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct SklearnTree {
        feature: Vec<i32>,
        threshold: Vec<f64>,
        left: Vec<i32>,
        right: Vec<i32>,
        samples: Vec<f64>,
    }

    fn fixture() -> Fixture {
        serde_json::from_str(include_str!("../../tests/fixtures/isolation_forest.json")).unwrap()
    }

    impl SklearnTree {
        fn tree(&self, at: usize, tree: &mut Tree) {
            let place = tree.columns.len();
            if self.feature[at] < 0 {
                tree.push(LEAF, average_path(self.samples[at]));
                return;
            }
            tree.push(u8::try_from(self.feature[at]).unwrap(), self.threshold[at]);
            self.tree(usize::try_from(self.left[at]).unwrap(), tree);
            tree.beyond[place] = u32::try_from(tree.columns.len()).unwrap();
            self.tree(usize::try_from(self.right[at]).unwrap(), tree);
        }
    }

    #[test]
    fn the_trees_of_scikit_learn_give_its_scores() {
        let fixture = fixture();
        let grown = fixture.trees.iter().map(|known| {
            let mut tree = Tree::default();
            known.tree(0, &mut tree);
            tree
        });
        let forest = Forest {
            sample_rows: fixture.sample_rows,
            trees: grown.collect(),
        };
        forest.check().unwrap();
        for (row, expected) in fixture.rows.iter().zip(&fixture.scores) {
            let score = forest.score(row);
            assert!((score - expected).abs() < 1e-6, "{score} {expected}");
        }
    }

    #[test]
    fn our_own_trees_give_about_the_same_scores() {
        let fixture = fixture();
        let forest = Forest::fit(&fixture.training).unwrap();
        forest.check().unwrap();
        // Two forests of a hundred trees from other random numbers differ by about 0.02.
        for (row, expected) in fixture.rows.iter().zip(&fixture.large_scores) {
            let score = forest.score(row);
            assert!((score - expected).abs() < 0.06, "{score} {expected}");
        }
        assert_eq!(Forest::fit(&fixture.training).unwrap(), forest);
    }

    #[test]
    fn rows_that_are_all_alike_are_all_usual() {
        let forest = Forest::fit(&vec![vec![1.0, 2.0]; 300]).unwrap();
        assert!((forest.score(&[1.0, 2.0]) - 0.5).abs() < 1e-9);
        assert!(Forest::fit(&[vec![1.0]]).is_none());
    }

    #[test]
    fn a_tree_whose_paths_do_not_end_is_refused() {
        let mut forest = Forest::fit(&fixture().training).unwrap();
        forest.trees[3].beyond[0] = 0;
        assert!(forest.check().is_err());
        forest.trees[3] = Tree::default();
        assert!(forest.check().is_err());
    }
}
