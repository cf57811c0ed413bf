//! A survival function learnt from a sample: empirical in the body, exponential beyond.

use serde::{Deserialize, Serialize};

use super::bundle::{BundleDefect, is_usable};

/// Most knots kept.
const KNOTS_MAX: usize = 128;
/// The exponential tail's slope is read off the sample between the share where the tail begins
/// and this many times that share.
const SLOPE_SPAN: f64 = 20.0;
/// Slope where the sample cannot tell (all values equal).
const SLOPE_DEFAULT: f64 = 1.0;
/// Flattest slope: the survival function has to fall strictly, or scores would tie.
const SLOPE_MIN: f64 = 0.01;

/// Length of a spell in windows: an hour at 30 s. Incidents are shorter.
const SPELL_WINDOWS: usize = 120;
/// Fewest spells that tell incidents from habits. Where there are fewer, single windows are believed,
/// as far as there are [`TAIL_DRAWS`] of them beyond and [`WINDOW_TAIL_SHARE`] of all.
const SPELLS_MIN: usize = 24;
const TAIL_DRAWS: f64 = 10.0;
const WINDOW_TAIL_SHARE: f64 = 0.01;
/// Share of the spells that is believed to be free of incidents. With 14 incidents a day, 10 hours of
/// the 24 have one.
const SPELLS_BELIEVED: f64 = 0.6;
/// Shares of the spells at which the tail is read off.
const SPELL_QUANTILES: [f64; 4] = [0.15, 0.3, 0.45, SPELLS_BELIEVED];
/// The body ends where this many windows of a spell are beyond.
const BODY_EXTREMES: f64 = 5.0;

/// ln P(X >= x), strictly falling and continuous in x.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tail {
    /// (x, ln P(X >= x)), x rising.
    knots: Vec<(f64, f64)>,
    /// Fall of ln P per unit of x beyond the last knot.
    slope: f64,
}

/// A value and how often it was seen.
pub(super) type Weighted = (f64, f64);

impl Tail {
    /// Fits a sample of `total` draws, of which those in `sample` have a value and the others lie
    /// below all of them. Ties count half, so that discrete values still get a continuous
    /// probability. Beyond survival `trusted` the sample is not believed: the tail goes on as it
    /// fell before.
    pub(super) fn fit(mut sample: Vec<Weighted>, total: f64, trusted: f64) -> Self {
        // -0 and 0 are one value.
        sample.iter_mut().for_each(|(value, _)| *value += 0.0);
        sample.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut above = 0.0;
        let mut knots: Vec<(f64, f64)> = Vec::new();
        for group in sample.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
            let weight: f64 = group.iter().map(|(_, w)| w).sum();
            let survival = (above + 0.5 * weight) / (total + 1.0);
            above += weight;
            if survival > 0.0 {
                knots.push((group[0].0, survival.min(1.0).ln()));
            }
        }
        // Now x falls and ln P rises.
        let ln_trusted = trusted.ln();
        let first = knots.partition_point(|(_, ln_p)| *ln_p < ln_trusted);
        let first = first.min(knots.len().saturating_sub(1));
        let slope = slope(&knots[first.min(knots.len())..]);
        let mut kept = thin(&knots[first..]);
        kept.reverse();
        Self { knots: kept, slope }
    }

    /// Fits the values of windows in time order. Incidents come in spells of time: the tail is read off the
    /// largest value of each spell of time, and the share of spells with the largest ones is not
    /// believed; the body is that of the other spells.
    pub(super) fn of_windows(values: &[f64]) -> Self {
        let spell = SPELL_WINDOWS;
        if !Self::knows_spells(values.len()) {
            let sample: Vec<Weighted> = values.iter().map(|value| (*value, 1.0)).collect();
            #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
            let total = sample.len() as f64;
            return Self::fit(sample, total, trusted_share(total));
        }
        let mut maxima: Vec<f64> = values
            .chunks(spell)
            .filter(|chunk| 2 * chunk.len() >= spell)
            .map(|chunk| chunk.iter().fold(f64::NEG_INFINITY, |max, v| max.max(*v)))
            .collect();
        maxima.sort_unstable_by(f64::total_cmp);
        let Some(&believed) = maxima.get(rank(maxima.len(), SPELLS_BELIEVED)) else {
            return Self::fit(Vec::new(), 0.0, 0.5);
        };
        let calm = values
            .chunks(spell)
            .filter(|chunk| chunk.iter().all(|value| *value <= believed));
        let body: Vec<Weighted> = calm.flatten().map(|value| (*value, 1.0)).collect();
        #[allow(
            clippy::cast_precision_loss,
            reason = "window counts are far below 2^52"
        )]
        let (total, length) = (body.len() as f64, spell as f64);
        let mut tail = Self::fit(body, total, (BODY_EXTREMES / length).min(0.5));
        let anchors = SPELL_QUANTILES.map(|q| {
            let x = maxima[rank(maxima.len(), q)] + 0.0;
            // P(no window of a spell >= x) = exp(-length · P(X >= x)).
            (x, (-q.ln() / length).ln())
        });
        let (first, last) = (anchors[0], anchors[anchors.len() - 1]);
        if last.0 > first.0 {
            tail.slope = ((first.1 - last.1) / (last.0 - first.0)).max(SLOPE_MIN);
        }
        for anchor in anchors {
            let end = tail.knots.last().copied();
            if end.is_none_or(|end| anchor.0 > end.0 && anchor.1 < end.1) {
                tail.knots.push(anchor);
            }
        }
        tail
    }

    /// Returns whether so many windows have enough spells to tell incidents from habits.
    pub(super) fn knows_spells(windows: usize) -> bool {
        windows >= SPELLS_MIN * SPELL_WINDOWS
    }

    /// Lets the tail fall by at least `slope` per unit beyond the last knot.
    pub(super) fn at_least(mut self, slope: f64) -> Self {
        self.slope = self.slope.max(slope);
        self
    }

    /// Returns ln P(X >= x); 0 at most, and finite for finite x.
    pub(super) fn ln_survival(&self, x: f64) -> f64 {
        let (Some(first), Some(last)) = (self.knots.first(), self.knots.last()) else {
            return -SLOPE_DEFAULT * x.max(0.0);
        };
        if x <= first.0 {
            return first.1 / (1.0 + first.0 - x);
        }
        if x >= last.0 {
            return last.1 - self.slope * (x - last.0);
        }
        let after = self.knots.partition_point(|(knot, _)| *knot <= x);
        let (left, right) = (self.knots[after - 1], self.knots[after]);
        left.1 + (right.1 - left.1) * (x - left.0) / (right.0 - left.0)
    }

    /// Checks what a file may have got wrong.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        let finite = self
            .knots
            .iter()
            .all(|(x, p)| is_usable(*x) && is_usable(*p));
        if !finite || !is_usable(self.slope) {
            return Err(BundleDefect::NotFinite("calibration"));
        }
        let ordered = self.knots.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1);
        if !ordered || self.slope < SLOPE_MIN || self.knots.iter().any(|(_, p)| *p > 0.0) {
            return Err(BundleDefect::Dimensions("calibration"));
        }
        Ok(())
    }
}

/// Share of so many single windows beyond which they are not believed.
fn trusted_share(windows: f64) -> f64 {
    (TAIL_DRAWS / (windows + 1.0)).clamp(WINDOW_TAIL_SHARE, 0.5)
}

/// Returns how many of so many single windows lie beyond the point up to which they are believed.
pub(super) fn draws_beyond(windows: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "windows of a day")]
    let windows = windows as f64;
    windows * trusted_share(windows)
}

/// Place of a quantile among sorted values; the first of none.
fn rank(values: usize, share: f64) -> usize {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    let place = (share * values.saturating_sub(1) as f64).round() as usize;
    place
}

/// Reads the slope off knots whose x falls and whose ln P rises.
fn slope(knots: &[(f64, f64)]) -> f64 {
    let Some(&(x, ln_p)) = knots.first() else {
        return SLOPE_DEFAULT;
    };
    let end = knots.partition_point(|(_, p)| *p < ln_p + SLOPE_SPAN.ln());
    match knots.get(end.max(1).min(knots.len() - 1)) {
        Some(&(from, ln_from)) if from < x => ((ln_from - ln_p) / (x - from)).max(SLOPE_MIN),
        _ => SLOPE_DEFAULT,
    }
}

/// Keeps the ends and knots evenly spread over ln P.
fn thin(knots: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if knots.len() <= KNOTS_MAX {
        return knots.to_vec();
    }
    let (first, last) = (knots[0], knots[knots.len() - 1]);
    #[allow(clippy::cast_precision_loss, reason = "at most 128")]
    let step = (last.1 - first.1) / (KNOTS_MAX - 1) as f64;
    let mut kept = vec![first];
    for &knot in &knots[1..knots.len() - 1] {
        if knot.1 >= kept[kept.len() - 1].1 + step {
            kept.push(knot);
        }
    }
    kept.push(last);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(n: u32) -> Vec<Weighted> {
        (1..=n)
            .map(|rank| (-(f64::from(rank) / f64::from(n + 1)).ln(), 1.0))
            .collect()
    }

    #[test]
    fn an_exponential_sample_gives_its_own_tail() {
        let tail = Tail::fit(exponential(5_000), 5_000.0, 0.002);
        for x in [0.5, 1.0, 3.0, 6.0, 12.0, 50.0] {
            let ln_p = tail.ln_survival(x);
            assert!((ln_p + x).abs() < 0.05 * x.max(1.0), "{x}: {ln_p}");
        }
        tail.check().unwrap();
    }

    #[test]
    fn a_few_huge_values_do_not_move_the_tail() {
        let mut dirty = exponential(5_000);
        dirty.extend((0..10).map(|i| (30.0 + f64::from(i), 1.0)));
        let tail = Tail::fit(dirty, 5_010.0, 0.01);
        assert!(tail.ln_survival(12.0) < -9.0, "{}", tail.ln_survival(12.0));
    }

    #[test]
    fn survival_falls_strictly_even_on_ties() {
        for sample in [
            vec![],
            vec![(2.0, 10.0)],
            vec![(0.0, 5.0), (1.0, 3.0), (4.0, 1.0)],
        ] {
            let tail = Tail::fit(sample, 10.0, 0.01);
            tail.check().unwrap();
            let mut last = f64::INFINITY;
            for step in 1..200 {
                let next = tail.ln_survival(f64::from(step) * 0.1);
                assert!(next < last && next <= 0.0, "{step}: {next} after {last}");
                last = next;
            }
        }
    }
}
