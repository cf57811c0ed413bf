//! False alarms against the number a day that the threshold was set for.

use serde::Serialize;

/// Expected counts below this are so small that chance alone moves them a lot: then the range is
/// given in which the count lies 95 times out of 100 if the budget is kept exactly.
const FEW: f64 = 20.0;
/// Share of the probability left out at each end of that range.
const TAIL: f64 = 0.025;

/// The budget of false alarms, and what came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// False alarms a day that the threshold allows.
    pub alarms_per_day: f64,
    /// False alarms that allows over the days judged.
    pub expected: f64,
    /// False alarms that came; all alarms if the input carries no labels.
    pub actual: u64,
    /// Where the count lies in 95 of 100 cases, both ends included; only if few are expected.
    pub usual_range: Option<(u64, u64)>,
    /// No more came than the budget allows, chance considered.
    pub kept: bool,
}

impl Budget {
    pub(super) fn new(alarms_per_day: f64, days: f64, actual: u64) -> Self {
        let expected = alarms_per_day * days;
        let usual_range = (expected < FEW).then(|| {
            (
                poisson_quantile(TAIL, expected),
                poisson_quantile(1.0 - TAIL, expected),
            )
        });
        Self {
            alarms_per_day,
            expected,
            actual,
            usual_range,
            kept: match usual_range {
                Some((_, most)) => actual <= most,
                None => actual as f64 <= expected,
            },
        }
    }
}

/// Returns the smallest count that a Poisson variable of the given mean (below [`FEW`]) does not
/// exceed with probability `share`.
fn poisson_quantile(share: f64, mean: f64) -> u64 {
    /// Beyond it the probabilities of a mean below [`FEW`] no longer add up to anything.
    const COUNT_MAX: u64 = 200;
    let mut term = (-mean.max(0.0)).exp();
    let mut sum = term;
    let mut count = 0;
    while sum < share && count < COUNT_MAX {
        count += 1;
        term *= mean / count as f64;
        sum += term;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected ranges are SciPy's `poisson.ppf([.025, .975], mean)`.
    #[test]
    fn few_expected_alarms_get_a_range() {
        for (mean, range) in [
            (0.5, (0, 2)),
            (4.0, (1, 8)),
            (9.0, (4, 15)),
            (19.9, (12, 29)),
        ] {
            assert_eq!(Budget::new(mean, 1.0, 0).usual_range, Some(range), "{mean}");
        }
        assert_eq!(Budget::new(0.0, 1.0, 0).usual_range, Some((0, 0)));
        assert_eq!(Budget::new(1.0, 0.0, 0).usual_range, Some((0, 0)));
    }

    #[test]
    fn chance_is_considered_where_few_are_expected() {
        let budget = Budget::new(1.0, 9.0, 15);
        assert_eq!(budget.expected, 9.0);
        assert!(budget.kept);
        assert!(!Budget::new(1.0, 9.0, 16).kept);
    }

    #[test]
    fn many_expected_alarms_are_compared_as_they_are() {
        let budget = Budget::new(2.0, 10.0, 20);
        assert_eq!(budget.usual_range, None);
        assert!(budget.kept);
        assert!(!Budget::new(2.0, 10.0, 21).kept);
    }
}
