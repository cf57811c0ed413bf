//! How much the share that a template has of its service's lines varies over minutes and hours,
//! beyond what chance brings: what a trailing sum has to exceed before it is news.
//!
//! Time is cut into cells, hours go round eight groups, and the middle group's estimate is taken:
//! an incident spoils the few groups its hours fall into, a habit shows in all of them.

use super::history::TrainingWindow;

/// Lengths of the cells in windows: 5 minutes and an hour at 30 s.
pub(super) const SCALES: [i64; 2] = [10, 120];
/// Groups that the hours go round.
const GROUPS: usize = 8;
/// Weight of what all pairs together vary, in squared expected lines: one cell with one line.
const PRIOR: f64 = 1.0;
/// Relative variance where training was too short to tell: anything goes.
pub(super) const UNKNOWN: f64 = 1.0;

/// Sums over the cells of a group, for one pair.
#[derive(Clone, Copy, Debug, Default)]
struct PairSums {
    lines: f64,
    squares: f64,
    /// Lines times the service's lines.
    cross: f64,
}

/// Sums over the cells of a group, for one service.
#[derive(Clone, Copy, Debug, Default)]
struct ServiceSums {
    lines: f64,
    squares: f64,
}

/// One length of cells.
#[derive(Clone, Debug, Default)]
struct Scale {
    cell: Option<i64>,
    /// Lines in the cell under way, and which of them are not 0.
    pair_lines: Vec<f64>,
    pairs_touched: Vec<u32>,
    service_lines: Vec<f64>,
    services_touched: Vec<u32>,
    pairs: Vec<[PairSums; GROUPS]>,
    services: Vec<[ServiceSums; GROUPS]>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Sway {
    scales: [Scale; SCALES.len()],
}

impl Sway {
    /// Adds a window; windows come in time order. `keys` has every pair it holds.
    pub(super) fn add(&mut self, window: &TrainingWindow, keys: &[(u32, u32)]) {
        for (scale, length) in self.scales.iter_mut().zip(SCALES) {
            let cell = window.window.div_euclid(length);
            if scale.cell.is_some_and(|under_way| under_way != cell) {
                scale.close(length, keys);
            }
            scale.cell = Some(cell);
            for pair in &window.pairs {
                let lines = f64::from(pair.lines);
                add(
                    &mut scale.pair_lines,
                    &mut scale.pairs_touched,
                    pair.pair,
                    lines,
                );
                let service = keys[pair.pair as usize].0;
                let services = &mut scale.service_lines;
                add(services, &mut scale.services_touched, service, lines);
            }
        }
    }

    /// Returns, per scale and pair, the relative variance of the pair's share.
    pub(super) fn variation(&self, keys: &[(u32, u32)]) -> [Vec<f64>; SCALES.len()] {
        std::array::from_fn(|scale| self.scales[scale].variation(keys))
    }
}

/// Adds lines to the number at `index`, which is noted when it was 0.
fn add(sums: &mut Vec<f64>, touched: &mut Vec<u32>, index: u32, lines: f64) {
    let place = index as usize;
    if sums.len() <= place {
        sums.resize(place + 1, 0.0);
    }
    if sums[place] <= 0.0 {
        touched.push(index);
    }
    sums[place] += lines;
}

impl Scale {
    fn close(&mut self, length: i64, keys: &[(u32, u32)]) {
        let Some(cell) = self.cell else {
            return;
        };
        let hour = cell.saturating_mul(length).div_euclid(SCALES[1]);
        #[allow(clippy::cast_possible_wrap, reason = "eight")]
        let group = usize::try_from(hour.rem_euclid(GROUPS as i64)).unwrap_or(0);
        self.pairs
            .resize(self.pair_lines.len(), [PairSums::default(); GROUPS]);
        self.services
            .resize(self.service_lines.len(), [ServiceSums::default(); GROUPS]);
        for pair in self.pairs_touched.drain(..) {
            let lines = std::mem::take(&mut self.pair_lines[pair as usize]);
            let service = keys[pair as usize].0 as usize;
            let sums = &mut self.pairs[pair as usize][group];
            sums.lines += lines;
            sums.squares += lines * lines;
            sums.cross += lines * self.service_lines[service];
        }
        for service in self.services_touched.drain(..) {
            let lines = std::mem::take(&mut self.service_lines[service as usize]);
            let sums = &mut self.services[service as usize][group];
            sums.lines += lines;
            sums.squares += lines * lines;
        }
    }

    fn variation(&self, keys: &[(u32, u32)]) -> Vec<f64> {
        let excess = |pair: usize, group: usize| -> (f64, f64) {
            let Some(sums) = self.pairs.get(pair).map(|groups| groups[group]) else {
                return (0.0, 0.0);
            };
            let service = self.services[keys[pair].0 as usize][group];
            if service.lines <= 0.0 {
                return (0.0, 0.0);
            }
            let p = sums.lines / service.lines;
            let variance = sums.squares - 2.0 * p * sums.cross + p * p * service.squares;
            (
                variance - p * (1.0 - p) * service.lines,
                p * p * service.squares,
            )
        };
        let all: Vec<Option<f64>> = (0..GROUPS)
            .map(|group| {
                let sums = (0..self.pairs.len())
                    .map(|pair| excess(pair, group))
                    .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                (sums.1 > 0.0).then(|| (sums.0 / sums.1).max(0.0))
            })
            .collect();
        let usual = median(all.iter().flatten().copied().collect()).unwrap_or(UNKNOWN);
        (0..keys.len())
            .map(|pair| {
                let groups = (0..GROUPS).filter(|group| all[*group].is_some());
                let of_group = |group| {
                    let (numerator, denominator) = excess(pair, group);
                    ((numerator + PRIOR * usual) / (denominator + PRIOR)).max(0.0)
                };
                median(groups.map(of_group).collect()).unwrap_or(UNKNOWN)
            })
            .collect()
    }
}

/// Returns the middle value, the lower one of two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variation of two pairs over 40 hours; `lines` says how many lines each has in a window.
    fn variation(lines: impl Fn(i64) -> [u32; 2]) -> [Vec<f64>; 2] {
        let keys = [(0, 0), (0, 1)];
        let mut sway = Sway::default();
        for number in 0..4_800 {
            let pairs = (0..).zip(lines(number));
            sway.add(&TrainingWindow::made(number, pairs), &keys);
        }
        sway.variation(&keys)
    }

    #[test]
    fn steady_shares_do_not_vary_and_waves_do() {
        let steady = variation(|_| [5, 5]);
        assert!(steady.iter().flatten().all(|v| *v < 1e-3), "{steady:?}");
        let waves = variation(|number| if number / 10 % 2 == 0 { [9, 1] } else { [1, 9] });
        assert!(waves[0].iter().all(|v| *v > 0.4), "{waves:?}");
        // Over an hour the waves cancel out.
        assert!(waves[1].iter().all(|v| *v < 0.05), "{waves:?}");
    }

    #[test]
    fn one_incident_does_not_make_a_habit() {
        let incident = variation(|number| {
            [
                5,
                if (3_000..3_060).contains(&number) {
                    90
                } else {
                    5
                },
            ]
        });
        assert!(incident.iter().flatten().all(|v| *v < 0.05), "{incident:?}");
    }
}
