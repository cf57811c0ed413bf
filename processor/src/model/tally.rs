//! What training has counted so far: per template, per service, and per pair of the two.

use std::collections::{HashMap, VecDeque};

use super::{
    absence::{Lulls, Regular},
    history::TrainingWindow,
    occasions::{HABIT_OCCASIONS, Occasions},
    rhythm::{HourLevels, Rhythm},
    sway::{SCALES, Sway},
};
use crate::event::Level;

/// Added to the denominator of a clumping estimate, in pairs of lines: a handful of lines says
/// little.
const CLUMPING_PRIOR: f64 = 10.0;

/// Counts of one template, service or pair.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) lines: u64,
    pub(super) occasions: Occasions,
    /// It came in a window in which, somebody said, nothing was wrong.
    recurring: bool,
}

impl Count {
    /// Returns the occasions to be expected on normal time; what people called normal counts as a
    /// habit at least.
    pub(super) fn normal(&self, elapsed: &Occasions) -> f64 {
        let occasions = self.occasions.normal(elapsed);
        if self.recurring {
            occasions.max(HABIT_OCCASIONS)
        } else {
            occasions
        }
    }
}

/// Sums over calm windows from which clumping is estimated, for one pair.
#[derive(Clone, Copy, Debug, Default)]
struct PairMoments {
    /// Lines.
    lines: f64,
    /// Sum of squared lines.
    squares: f64,
    /// Sum of lines times the service's lines.
    cross: f64,
}

/// Sums over windows, for one service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServiceSums {
    /// Lines.
    pub(super) lines: f64,
    /// Squared lines.
    pub(super) squares: f64,
    /// `ERROR` and `FATAL` lines.
    pub(super) critical: f64,
    critical_squares: f64,
    critical_cross: f64,
}

impl ServiceSums {
    fn add_lines(&mut self, lines: f64) {
        self.lines += lines;
        self.squares += lines * lines;
    }

    /// Adds the critical lines of a window in which the service wrote `lines`.
    fn add_critical(&mut self, critical: f64, lines: f64) {
        self.critical += critical;
        self.critical_squares += critical * critical;
        self.critical_cross += critical * lines;
    }
}

/// Windows of a block whose level is compared with that of the six blocks before: 10 minutes and
/// an hour at 30 s.
const LEVEL_WINDOWS: u32 = 20;
const LEVEL_BLOCKS: usize = 6;
/// Fewest lines in those blocks that make a comparison worth anything.
const LEVEL_LINES_MIN: f64 = 20.0;

/// One stream's lines in the block under way and the blocks before.
#[derive(Clone, Debug, Default)]
struct LevelBlocks {
    windows: u32,
    lines: f64,
    before: VecDeque<f64>,
}

impl LevelBlocks {
    /// Adds a window; returns the log ratio of a finished block's level to that of the blocks before,
    /// and the square of it that chance brings.
    fn add(&mut self, lines: f64) -> Option<(f64, f64)> {
        self.windows += 1;
        self.lines += lines;
        if self.windows < LEVEL_WINDOWS {
            return None;
        }
        let block = std::mem::take(&mut self.lines);
        self.windows = 0;
        let mut compared = None;
        if self.before.len() == LEVEL_BLOCKS {
            let before: f64 = self.before.iter().sum();
            self.before.pop_front();
            if before >= LEVEL_LINES_MIN {
                #[allow(clippy::cast_precision_loss, reason = "six")]
                let ratio = LEVEL_BLOCKS as f64 * (block + 0.5) / before;
                compared = Some((ratio.ln(), 1.0 / (block + 0.5) + 1.0 / before));
            }
        }
        self.before.push_back(block);
        compared
    }
}

/// Times of the day at which levels are compared: the blocks of a day at 30 s.
const LEVEL_TIMES: usize = 144;

/// Comparisons at one time of the day.
#[derive(Clone, Copy, Debug, Default)]
struct LevelSums {
    count: f64,
    ratios: f64,
    squares: f64,
    chance: f64,
}

/// All counts up to some moment of training time.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) windows: u64,
    pub(super) lines: u64,
    pub(super) elapsed: Occasions,
    pub(super) templates: Vec<Count>,
    pub(super) pairs: Vec<Count>,
    pub(super) services: Vec<ServiceSums>,
    /// The same over calm windows.
    calm: Vec<ServiceSums>,
    moments: Vec<PairMoments>,
    levels: HashMap<u32, LevelBlocks>,
    /// By time of the day; none or [`LEVEL_TIMES`].
    level_sums: Vec<LevelSums>,
    hour_levels: HourLevels,
    /// Length of a window in ms.
    length_ms: i64,
    service_lines: Vec<f64>,
    sway: Sway,
    lulls: Lulls,
}

/// (service, template) of each pair, by number.
pub(super) type PairKeys = [(u32, u32)];

impl Tally {
    /// Returns one without counts, for windows of `length_ms`.
    pub(super) fn new(length_ms: i64) -> Self {
        Self {
            length_ms,
            ..Self::default()
        }
    }

    /// Adds a window. `keys` has every pair it holds; from windows that are not `calm`, presumed to be
    /// incidents, nothing is learnt of how lines clump.
    pub(super) fn add(&mut self, window: &TrainingWindow, keys: &PairKeys, calm: bool) {
        self.windows += 1;
        self.lines += u64::from(window.lines());
        let levels = self.levels.entry(window.stream).or_default();
        let compared = levels.add(f64::from(window.lines()));
        let start_ms = window.window.saturating_mul(self.length_ms);
        self.hour_levels.add(start_ms, f64::from(window.lines()));
        if let Some((ratio, chance)) = compared {
            self.level_sums.resize(LEVEL_TIMES, LevelSums::default());
            let sums = &mut self.level_sums[time_of_day(start_ms)];
            sums.count += 1.0;
            sums.ratios += ratio;
            sums.squares += ratio * ratio;
            sums.chance += chance;
        }
        if window.pairs.is_empty() {
            return;
        }
        self.elapsed.record(window.window);
        self.sway.add(window, keys);
        self.lulls.add(window, keys);
        self.pairs.resize(keys.len(), Count::default());
        self.moments.resize(keys.len(), PairMoments::default());
        for pair in &window.pairs {
            let (service, template) = keys[pair.pair as usize];
            let (service, template) = (service as usize, template as usize);
            grow(&mut self.templates, template);
            self.grow(service);
            let lines = u64::from(pair.lines);
            for count in [
                &mut self.templates[template],
                &mut self.pairs[pair.pair as usize],
            ] {
                count.lines += lines;
                count.recurring |= window.normal;
                count.occasions.record(window.window);
            }
            self.service_lines[service] += f64::from(pair.lines);
        }
        self.add_moments(window, keys, calm);
    }

    /// Makes room for a service.
    fn grow(&mut self, service: usize) {
        grow(&mut self.services, service);
        grow(&mut self.calm, service);
        grow(&mut self.service_lines, service);
    }

    fn add_moments(&mut self, window: &TrainingWindow, keys: &PairKeys, calm: bool) {
        for &(service, critical) in &window.critical {
            let service = service as usize;
            self.grow(service);
            let critical = f64::from(critical);
            let lines = self.service_lines[service];
            self.services[service].add_critical(critical, lines);
            if calm {
                self.calm[service].add_critical(critical, lines);
            }
        }
        for pair in window.pairs.iter().filter(|_| calm) {
            let service = keys[pair.pair as usize].0 as usize;
            let lines = f64::from(pair.lines);
            let moments = &mut self.moments[pair.pair as usize];
            moments.lines += lines;
            moments.squares += lines * lines;
            moments.cross += lines * self.service_lines[service];
        }
        for pair in &window.pairs {
            let service = keys[pair.pair as usize].0 as usize;
            let lines = std::mem::take(&mut self.service_lines[service]);
            self.services[service].add_lines(lines);
            if calm {
                self.calm[service].add_lines(lines);
            }
        }
    }

    /// Returns the occasions of a template to be expected on normal time.
    pub(super) fn template_occasions(&self, template: usize) -> f64 {
        self.templates
            .get(template)
            .map_or(0.0, |count| count.normal(&self.elapsed))
    }

    /// Returns the number of independent occasions at which a template came up.
    pub(super) fn independent_occasions(&self, template: usize) -> f64 {
        self.templates
            .get(template)
            .map_or(0.0, |count| count.occasions.independent(&self.elapsed))
    }

    /// Returns whether a template is a habit of the system.
    pub(super) fn is_habit(&self, template: usize) -> bool {
        self.templates
            .get(template)
            .is_some_and(|count| count.recurring || count.occasions.is_habit(&self.elapsed))
    }

    /// Returns, per template, how much its lines clump within windows (intraclass correlation).
    pub(super) fn clumping(&self, keys: &PairKeys) -> Vec<f64> {
        let mut sums = vec![(0.0, CLUMPING_PRIOR); self.templates.len()];
        for ((moments, count), &(service, template)) in
            self.moments.iter().zip(&self.pairs).zip(keys)
        {
            // Keys may run ahead of the counts: a pair that has not come yet says nothing.
            if count.lines == 0 {
                continue;
            }
            let service = &self.calm[service as usize];
            let excess = excess(moments.lines, moments.squares, moments.cross, service);
            let (numerator, denominator) = &mut sums[template as usize];
            *numerator += excess.0;
            *denominator += excess.1;
        }
        sums.into_iter()
            .map(|(numerator, denominator)| (numerator / denominator).clamp(0.0, 1.0))
            .collect()
    }

    /// Returns, per scale and pair, how much the pair's share varies.
    pub(super) fn variation(&self, keys: &PairKeys) -> [Vec<f64>; SCALES.len()] {
        self.sway.variation(keys)
    }

    /// Returns what is worth missing; `share` gives the share of a template among the lines of a
    /// service.
    pub(super) fn regulars(
        &self,
        keys: &PairKeys,
        share: impl Fn(usize, usize) -> f64,
    ) -> Vec<Regular> {
        self.lulls.regulars(keys, share)
    }

    /// Returns how much critical lines clump within windows (intraclass correlation).
    pub(super) fn critical_clumping(&self) -> f64 {
        let (mut numerator, mut denominator) = (0.0, CLUMPING_PRIOR);
        for service in &self.calm {
            let excess = excess(
                service.critical,
                service.critical_squares,
                service.critical_cross,
                service,
            );
            numerator += excess.0;
            denominator += excess.1;
        }
        (numerator / denominator).clamp(0.0, 1.0)
    }

    /// Returns how much the lines of 10 minutes vary about those of the hour before, squared and
    /// relative, beyond what chance and the rhythm of the day bring; 0 while there is nothing to compare.
    pub(super) fn level_variation(&self, rhythm: Option<&Rhythm>) -> f64 {
        let (mut squares, mut count) = (0.0, 0.0);
        for sums in self.level_sums.iter().filter(|sums| sums.count > 0.0) {
            let (mut square, mut freedoms) = (sums.squares, sums.count);
            if rhythm.is_some() {
                square -= sums.ratios * sums.ratios / sums.count;
                freedoms -= 1.0;
            }
            squares += square - sums.chance * freedoms / sums.count;
            count += freedoms;
        }
        (squares / count.max(1.0)).max(0.0)
    }

    /// Returns the rhythm of the day, if training had two days.
    pub(super) fn rhythm(&self) -> Option<Rhythm> {
        self.hour_levels.rhythm()
    }

    /// Returns the critical lines of all services.
    pub(super) fn critical(&self) -> f64 {
        self.services.iter().map(|service| service.critical).sum()
    }
}

/// Variance beyond the binomial one, and what it would be if all lines of a window went together.
fn excess(lines: f64, squares: f64, cross: f64, service: &ServiceSums) -> (f64, f64) {
    if service.lines <= 0.0 {
        return (0.0, 0.0);
    }
    let p = lines / service.lines;
    let variance = squares - 2.0 * p * cross + p * p * service.squares;
    let binomial = p * (1.0 - p);
    (
        variance - binomial * service.lines,
        binomial * (service.squares - service.lines),
    )
}

fn time_of_day(start_ms: i64) -> usize {
    const DAY_MS: i64 = 86_400_000;
    #[allow(clippy::cast_possible_wrap, reason = "144")]
    let time = start_ms.rem_euclid(DAY_MS) * LEVEL_TIMES as i64 / DAY_MS;
    usize::try_from(time).unwrap_or(0)
}

fn grow<T: Clone + Default>(list: &mut Vec<T>, index: usize) {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
}

/// Returns the `ERROR` and `FATAL` lines of a count per level.
pub(super) fn critical_lines(levels: &[u32; Level::COUNT]) -> u32 {
    levels[Level::Error as usize] + levels[Level::Fatal as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(windows: impl Iterator<Item = Vec<(u32, u32)>>) -> Tally {
        let keys = [(0, 0), (0, 1)];
        let mut tally = Tally::default();
        for (number, pairs) in (0..).zip(windows) {
            tally.add(&TrainingWindow::made(number, pairs), &keys, true);
        }
        tally
    }

    #[test]
    fn lines_that_come_together_clump_and_independent_ones_do_not() {
        let together = tally((0..200).map(|i| vec![(i % 2, 10)]));
        let clumping = together.clumping(&[(0, 0), (0, 1)]);
        assert!(clumping.iter().all(|c| *c > 0.9), "{clumping:?}");
        let even = tally((0..200).map(|_| vec![(0, 5), (1, 5)]));
        assert!(even.clumping(&[(0, 0), (0, 1)]).iter().all(|c| *c < 0.01));
    }
}
