//! How often a template really comes up: occasions, not lines.
//!
//! An incident repeats its lines for minutes, so that counting lines makes it look usual and
//! blinds the model to the next one. Time is cut at three scales; the cells of a scale that hold
//! the template tell how many occasions there were if they came independently, and the smallest
//! of the three estimates is taken: bursts shrink to one occasion, steady lines keep their rate. The more occasions
//! there are, the less it shrinks: what comes up every day in bursts is a habit.

/// Cell lengths in windows: one window, about 5 minutes, about an hour (at 30 s windows).
const CELLS: [i64; 3] = [1, 10, 120];
/// Fewest cells of a scale that make its estimate worth using.
const CELLS_MIN: u32 = 10;
/// A scale is used while at most this share of its cells is taken; fuller ones say little.
const TAKEN_MAX: f64 = 0.5;
/// Occasions from which a template is more a habit of the system than an incident.
pub(super) const HABIT_OCCASIONS: f64 = 20.0;

/// Cells taken so far, per scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasions {
    taken: [u32; CELLS.len()],
    last: [i64; CELLS.len()],
}

impl Default for Occasions {
    fn default() -> Self {
        Self {
            taken: [0; CELLS.len()],
            last: [i64::MIN; CELLS.len()],
        }
    }
}

impl Occasions {
    /// Records that it came up in `window`, a window number; windows come in time order.
    pub(super) fn record(&mut self, window: i64) {
        for (scale, length) in CELLS.iter().enumerate() {
            let cell = window.div_euclid(*length);
            if cell > self.last[scale] {
                self.last[scale] = cell;
                self.taken[scale] += 1;
            }
        }
    }

    /// Returns the estimated number of independent occasions within `elapsed`, the cells in which
    /// there was anything at all; at most the number of windows it came up in.
    pub(super) fn independent(&self, elapsed: &Self) -> f64 {
        let mut smallest = f64::from(self.taken[0]);
        for scale in 1..CELLS.len() {
            let cells = f64::from(elapsed.taken[scale]);
            let taken = f64::from(self.taken[scale]);
            if elapsed.taken[scale] >= CELLS_MIN && taken <= TAKEN_MAX * cells {
                // Poisson: a share exp(-occasions / cells) of the cells stays empty.
                smallest = smallest.min(-cells * (-taken / cells).ln_1p());
            }
        }
        smallest
    }

    /// Returns whether it is a habit of the system.
    pub(super) fn is_habit(&self, elapsed: &Self) -> bool {
        self.independent(elapsed) >= HABIT_OCCASIONS
    }

    /// Returns the occasions to be expected on normal time: few occasions are discounted by the
    /// odds that they were incidents, and the windows of a habit count in full.
    pub(super) fn normal(&self, elapsed: &Self) -> f64 {
        let independent = self.independent(elapsed);
        if independent <= 0.0 {
            return 0.0;
        }
        let odds = independent / (independent + HABIT_OCCASIONS);
        let bursts = f64::from(self.taken[0]) / independent;
        odds * independent * bursts.powf(odds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(windows: impl IntoIterator<Item = i64>) -> Occasions {
        let mut occasions = Occasions::default();
        windows.into_iter().for_each(|w| occasions.record(w));
        occasions
    }

    #[test]
    fn a_burst_is_one_occasion_and_steady_lines_keep_their_rate() {
        let elapsed = of(0..12_000);
        let burst = of(5_000..5_040).independent(&elapsed);
        assert!((1.0..1.1).contains(&burst), "{burst}");
        let steady = of((0..12_000).step_by(400)).independent(&elapsed);
        assert!((29.0..=30.0).contains(&steady), "{steady}");
        let common = of(0..12_000).independent(&elapsed);
        assert!((common - 12_000.0).abs() < 1e-9, "{common}");
    }

    #[test]
    fn on_normal_time_incidents_are_discounted_and_habits_are_not() {
        let elapsed = of(0..12_000);
        let incident = of(5_000..5_040);
        assert!(!incident.is_habit(&elapsed) && incident.normal(&elapsed) < 0.1);
        // Forty windows again, but each on a day of its own.
        let habit = of((0..12_000).step_by(300));
        assert!(habit.is_habit(&elapsed) && habit.normal(&elapsed) > 25.0);
        let frequent = of(0..12_000).normal(&elapsed);
        assert!(frequent > 0.99 * 12_000.0, "{frequent}");
        assert!(of([]).normal(&elapsed).abs() < 1e-12);
    }

    #[test]
    fn short_histories_count_windows() {
        let elapsed = of(0..50);
        assert!((of([3, 4, 5]).independent(&elapsed) - 3.0).abs() < 1e-9);
    }
}
