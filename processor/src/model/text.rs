//! The text path: TF-IDF over 1- and 2-grams, reduced to 15 dimensions by a truncated SVD.
//!
//! ```text
//! masked text ──► terms ──► tf · idf, L2 ──► 15-dim vector
//! ```
//!
//! Fitted on distinct templates weighted by their line counts, which equals fitting on the lines
//! one by one: scikit-learn's `TfidfVectorizer` and `TruncatedSVD` give the same numbers.

use std::collections::{BTreeMap, HashMap};

use linfa_linalg::eigh::{EigSort, Eigh};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    bundle::{BundleDefect, is_usable},
    stop_words::STOP_WORDS,
};
use crate::features::TEXT_DIMENSIONS;

/// Most terms in the vocabulary.
pub(super) const TERMS_MAX: usize = 100;
/// Fewest lines a term has to occur in.
const LINES_MIN: u64 = 5;
/// Largest share of the lines a term may occur in.
const SHARE_MAX: f64 = 0.8;
/// Below the smallest inverse line frequency there is, which is 1 but for rounding.
const IDF_MIN: f64 = 0.5;
/// An eigenvalue this much smaller than the largest is rounding noise: its direction is dropped.
const EIGENVALUE_RATIO_MIN: f64 = 1e-12;

/// A template's text vector.
pub(super) type TextVector = [f64; TEXT_DIMENSIONS];

/// The fitted text path.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextModel {
    /// The vocabulary, sorted.
    terms: Vec<String>,
    /// ln((1 + lines) / (1 + lines with the term)) + 1, per term.
    idf: Vec<f64>,
    /// Per term its loadings on the 15 dimensions.
    loadings: Vec<TextVector>,
    #[serde(skip)]
    index: HashMap<String, usize>,
}

impl TextModel {
    /// Fits the path on distinct texts and the number of lines of each.
    pub(super) fn fit(documents: &[(&str, u64)]) -> Self {
        let counted: Vec<_> = documents
            .iter()
            .map(|&(text, lines)| (term_counts(text), lines))
            .collect();
        let total: u64 = documents.iter().map(|(_, lines)| lines).sum();
        let (terms, idf) = vocabulary(&counted, total);
        let mut model = Self {
            loadings: vec![[0.0; TEXT_DIMENSIONS]; terms.len()],
            terms,
            idf,
            index: HashMap::new(),
        };
        model.reindex();
        model.fit_loadings(&counted);
        model
    }

    /// Builds what is not stored.
    pub(super) fn reindex(&mut self) {
        let terms = self.terms.iter().cloned();
        self.index = terms.zip(0..).collect();
    }

    /// Checks what a file may have got wrong.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        let terms = self.terms.len();
        if terms > TERMS_MAX || self.idf.len() != terms || self.loadings.len() != terms {
            return Err(BundleDefect::Dimensions("text"));
        }
        let mut numbers = self.idf.iter().chain(self.loadings.iter().flatten());
        // With weights of nothing a text would have no length to be divided by.
        let weighs = |idf: &f64| *idf >= IDF_MIN;
        if !numbers.all(|value| is_usable(*value)) || !self.idf.iter().all(weighs) {
            return Err(BundleDefect::NotFinite("text"));
        }
        Ok(())
    }

    /// Returns how many terms the vocabulary has.
    pub(super) fn terms(&self) -> usize {
        self.terms.len()
    }

    /// Returns the vector of a masked text, or `None` if none of its terms is known.
    pub(super) fn vector(&self, text: &str) -> Option<TextVector> {
        self.project(&self.weights(&term_counts(text)))
    }

    /// TF-IDF weights of length 1, by term index.
    fn weights(&self, counts: &BTreeMap<String, u32>) -> Vec<(usize, f64)> {
        let mut weights: Vec<_> = counts
            .iter()
            .filter_map(|(term, &count)| {
                let &index = self.index.get(term)?;
                Some((index, f64::from(count) * self.idf[index]))
            })
            .collect();
        let norm = weights.iter().map(|(_, w)| w * w).sum::<f64>().sqrt();
        for (_, weight) in &mut weights {
            *weight /= norm;
        }
        weights
    }

    fn project(&self, weights: &[(usize, f64)]) -> Option<TextVector> {
        if weights.is_empty() {
            return None;
        }
        let mut vector = [0.0; TEXT_DIMENSIONS];
        for &(term, weight) in weights {
            for (sum, loading) in vector.iter_mut().zip(&self.loadings[term]) {
                *sum += weight * loading;
            }
        }
        Some(vector)
    }

    /// The right singular vectors of the lines x terms matrix are the eigenvectors of its Gram
    /// matrix, which is only terms x terms.
    fn fit_loadings(&mut self, counted: &[(BTreeMap<String, u32>, u64)]) {
        let terms = self.terms.len();
        if terms == 0 {
            return;
        }
        let mut gram = Array2::<f64>::zeros((terms, terms));
        for (counts, lines) in counted {
            let weights = self.weights(counts);
            #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
            let lines = *lines as f64;
            for &(row, a) in &weights {
                for &(column, b) in &weights {
                    gram[(row, column)] += lines * a * b;
                }
            }
        }
        let Ok(decomposed) = gram.eigh() else {
            // Only for a matrix that is not square; without directions every vector is zero.
            return;
        };
        let (values, vectors) = decomposed.sort_eig_desc();
        for dimension in 0..TEXT_DIMENSIONS.min(terms) {
            if values[dimension] <= values[0] * EIGENVALUE_RATIO_MIN {
                break;
            }
            let direction = vectors.column(dimension);
            let largest = direction
                .iter()
                .copied()
                .reduce(|a, b| if b.abs() > a.abs() { b } else { a })
                .unwrap_or(1.0);
            for (loadings, value) in self.loadings.iter_mut().zip(direction) {
                loadings[dimension] = value * largest.signum();
            }
        }
    }
}

/// The terms that are frequent but not everywhere, sorted, with their inverse line frequencies.
fn vocabulary(counted: &[(BTreeMap<String, u32>, u64)], total: u64) -> (Vec<String>, Vec<f64>) {
    let mut frequency: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (counts, lines) in counted {
        for (term, &count) in counts {
            let (occurrences, with_term) = frequency.entry(term).or_default();
            *occurrences += u64::from(count) * lines;
            *with_term += lines;
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
    let float = |lines: u64| lines as f64;
    let mut kept: Vec<_> = frequency
        .into_iter()
        .filter(|(_, (_, lines))| *lines >= LINES_MIN && float(*lines) <= SHARE_MAX * float(total))
        .collect();
    // The sort is stable, so ties keep alphabetical order.
    kept.sort_by_key(|&(_, (occurrences, _))| std::cmp::Reverse(occurrences));
    kept.truncate(TERMS_MAX);
    kept.sort_unstable();
    let idf = kept
        .iter()
        .map(|(_, (_, lines))| ((1.0 + float(total)) / (1.0 + float(*lines))).ln() + 1.0)
        .collect();
    let terms = kept.into_iter().map(|(term, _)| term.to_owned());
    (terms.collect(), idf)
}

/// Counts a text's 1- and 2-grams: lower-case words of two or more letters, digits or `_`, stop
/// words left out before words are paired.
fn term_counts(text: &str) -> BTreeMap<String, u32> {
    let lower = text.to_lowercase();
    let words: Vec<_> = lower
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| word.chars().nth(1).is_some() && STOP_WORDS.binary_search(word).is_err())
        .collect();
    let mut counts = BTreeMap::new();
    for word in &words {
        *counts.entry((*word).to_owned()).or_default() += 1;
    }
    for pair in words.windows(2) {
        *counts.entry(pair.join(" ")).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_sorted() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn terms_are_words_and_their_pairs() {
        let counts = term_counts("The cache_70 of a User-Session: CACHE_70 <num>");
        let terms: Vec<_> = counts.iter().map(|(t, n)| format!("{t}*{n}")).collect();
        assert_eq!(
            terms.join(", "),
            "cache_70*2, cache_70 num*1, cache_70 user*1, num*1, session*1, session cache_70*1, \
             user*1, user session*1"
        );
    }

    #[test]
    fn rare_and_ubiquitous_terms_are_left_out() {
        let model = TextModel::fit(&[
            ("common alpha", 50),
            ("common beta", 46),
            ("common gamma", 4),
        ]);
        assert_eq!(
            model.terms,
            ["alpha", "beta", "common alpha", "common beta"]
        );
        assert_eq!(model.vector("common gamma"), None);
    }

    #[test]
    fn no_lines_give_an_empty_vocabulary() {
        let model = TextModel::fit(&[]);
        assert_eq!((model.terms(), model.vector("any")), (0, None));
    }

    #[test]
    fn lengths_are_kept_when_fifteen_dimensions_suffice() {
        let model = TextModel::fit(&[("alpha beta", 10), ("gamma", 7), ("beta delta", 9)]);
        let vector = model.vector("beta delta").unwrap();
        let length = vector.iter().map(|v| v * v).sum::<f64>();
        assert!((length - 1.0).abs() < 1e-9, "{length}");
    }
}
