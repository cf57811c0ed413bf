//! Tail probabilities of over-dispersed counts, in logarithms, so that a count a thousand times
//! too large still ranks above one a hundred times too large.

use statrs::function::{beta::beta_reg, gamma::ln_gamma};

/// Size parameter from which a negative binomial is taken for a Poisson distribution.
const SIZE_MAX: f64 = 1e6;
/// Below this the regularised beta function has lost its digits and the series takes over.
const BETA_MIN: f64 = 1e-12;
/// Most terms of the series; each is smaller than the one before by at least [`RATIO_MAX`].
const TERMS_MAX: u32 = 400;
const RATIO_MAX: f64 = 0.9999;
/// Terms of a bound.
const BOUND_TERMS: u32 = 8;
/// Counts and means are kept in this range, where the functions are known to behave.
const MEAN_RANGE: (f64, f64) = (1e-9, 1e12);

/// A count with mean `mean` and variance `mean + mean² / size` (negative binomial).
#[derive(Clone, Copy, Debug)]
pub(super) struct CountModel {
    mean: f64,
    size: f64,
}

impl CountModel {
    /// Makes a model from a mean and the factor, at least 1, by which the variance exceeds it.
    pub(super) fn with_factor(mean: f64, factor: f64) -> Self {
        let mean = mean.clamp(MEAN_RANGE.0, MEAN_RANGE.1);
        Self::with_size(mean, mean / (factor - 1.0).max(1e-9))
    }

    /// Makes a model from a mean and the size parameter.
    pub(super) fn with_size(mean: f64, size: f64) -> Self {
        Self {
            mean: mean.clamp(MEAN_RANGE.0, MEAN_RANGE.1),
            size: size.clamp(1e-6, SIZE_MAX),
        }
    }

    /// Returns ln P(X >= count); `count` may be fractional (an effective count).
    pub(super) fn ln_upper(&self, count: f64) -> f64 {
        if count <= 0.0 {
            return 0.0;
        }
        let count = count.min(MEAN_RANGE.1);
        let probability = self.mean / (self.mean + self.size);
        let upper = beta_reg(count, self.size, probability);
        if upper > BETA_MIN || count <= self.mean {
            return upper.clamp(BETA_MIN, 1.0).ln();
        }
        self.ln_series(count, probability)
    }

    /// Returns a bound that ln P(X >= count) does not fall below, much cheaper and close where it matters,
    /// far above the mean.
    pub(super) fn ln_upper_least(&self, count: f64) -> f64 {
        if count <= 0.0 {
            return 0.0;
        }
        // So many as the mean or more are no likelier than fewer or more, and below it few terms say nothing.
        let count = count.max(self.mean).min(MEAN_RANGE.1).ceil();
        let probability = self.mean / (self.mean + self.size);
        let (mut term, mut sum, mut at) = (1.0, 1.0, count);
        for _ in 0..BOUND_TERMS {
            term *= (at + self.size) / (at + 1.0) * probability;
            sum += term;
            at += 1.0;
        }
        (self.ln_mass(count, probability) + sum.ln()).min(0.0)
    }

    /// Returns ln P(X >= 1).
    pub(super) fn ln_any(&self) -> f64 {
        let ln_none = -self.size * (self.mean / self.size).ln_1p();
        (-ln_none.exp_m1()).max(f64::MIN_POSITIVE).ln()
    }

    /// Returns ln P(X <= count).
    pub(super) fn ln_lower(&self, count: f64) -> f64 {
        let probability = self.mean / (self.mean + self.size);
        let count = count.clamp(0.0, MEAN_RANGE.1);
        let lower = beta_reg(self.size, count + 1.0, 1.0 - probability);
        if lower > BETA_MIN || count >= self.mean {
            return lower.clamp(BETA_MIN, 1.0).ln();
        }
        // The term at `count` is the largest of the sum.
        self.ln_mass(count, probability)
    }

    fn ln_mass(&self, count: f64, probability: f64) -> f64 {
        ln_gamma(count + self.size) - ln_gamma(self.size) - ln_gamma(count + 1.0)
            + count * probability.ln()
            + self.size * (-probability).ln_1p()
    }

    /// Sums the masses from `count` on, each from the one before.
    fn ln_series(&self, count: f64, probability: f64) -> f64 {
        let mut term = 1.0;
        let mut sum = 1.0;
        let mut at = count;
        for _ in 0..TERMS_MAX {
            term *= ((at + self.size) / (at + 1.0) * probability).min(RATIO_MAX);
            sum += term;
            at += 1.0;
            if term < sum * 1e-9 {
                break;
            }
        }
        (self.ln_mass(count, probability) + sum.ln()).min(BETA_MIN.ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(actual: f64, expected: f64) {
        assert!(
            (actual - expected).abs() < 1e-6 * expected.abs().max(1e-3),
            "{actual} is not {expected}"
        );
    }

    #[test]
    fn tails_agree_with_known_values() {
        // Poisson(2): P(X >= 5) = 0.052653, P(X <= 1) = 0.406006.
        let poisson = CountModel::with_factor(2.0, 1.0);
        assert!((poisson.ln_upper(5.0).exp() - 0.052_653).abs() < 1e-5);
        assert!((poisson.ln_lower(1.0).exp() - 0.406_006).abs() < 1e-5);
        // Geometric, mean 1: P(X >= n) = 2^-n, far beyond where the beta function underflows.
        let geometric = CountModel::with_size(1.0, 1.0);
        close(geometric.ln_upper(7.0), -7.0 * std::f64::consts::LN_2);
        close(
            geometric.ln_upper(2_000.0),
            -2_000.0 * std::f64::consts::LN_2,
        );
    }

    #[test]
    fn the_cheap_bound_is_one() {
        for mean in [1e-6, 0.01, 0.7, 5.0, 300.0, 1e5] {
            for factor in [1.0, 1.5, 40.0, 1e4] {
                let model = CountModel::with_factor(mean, factor);
                close(model.ln_any(), model.ln_upper(1.0));
                for count in [0.4, 1.0, 2.0, 3.7, 10.0, 57.0, 400.0, 3e4] {
                    let (bound, exact) = (model.ln_upper_least(count), model.ln_upper(count));
                    assert!(
                        bound <= exact + 1e-6 * exact.abs() + 1e-6,
                        "{mean} {factor} {count}"
                    );
                    let whole = count == count.ceil();
                    if whole && factor < 2.0 && count > 3.0 * mean && count > 3.0 {
                        assert!(
                            bound > exact - 0.5,
                            "{mean} {factor} {count}: {bound} {exact}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn tails_are_monotone_and_finite_everywhere() {
        for mean in [0.0, 1e-6, 0.01, 5.0, 300.0, 1e7] {
            for factor in [1.0, 1.5, 40.0, 1e4] {
                let model = CountModel::with_factor(mean, factor);
                let mut last = 0.0;
                for step in 0..300 {
                    let count = 1.07_f64.powi(step) - 1.0;
                    let upper = model.ln_upper(count);
                    assert!(
                        upper.is_finite() && upper <= last + 1e-9,
                        "{mean} {factor} {count}"
                    );
                    assert!(model.ln_lower(count).is_finite());
                    last = upper;
                }
            }
        }
    }
}
