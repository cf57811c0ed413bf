//! Trailing sums: familiar templates that have come more often than usual for minutes or for an
//! hour, though no single window shows it.
//!
//! Per stream and pair of service and template the lines of about the last 5 minutes and the last
//! hour, against its service's lines over the same time and the share that training expects.
//! Evidence is the saddle point estimate of a negative binomial tail. It counts only in a window that adds
//! to it, and once an alarm told of it the new level is the one to exceed.

use serde::{Deserialize, Serialize};

use super::{PARTS_MAX, sway::SCALES};
use crate::features::Observed;

/// Most pairs and services whose sums are kept; the least remarkable pair makes room.
pub(super) const PAIRS_MAX: usize = 64;
pub(super) const SERVICES_MAX: usize = 64;
/// Horizons of the sums, in ms of event time.
const HORIZONS_MS: [f64; SCALES.len()] = [300_000.0, 3_600_000.0];
/// Lines below which a sum is forgotten.
const LINES_MIN: f64 = 0.05;
/// A level is forgotten once it is this close to the usual one, and never higher than this: it has to
/// stay a number.
const LEVEL_MIN: f64 = 1.02;
const LEVEL_MAX: f64 = 1e6;
/// Most pairs of a window that are told of: more than an alarm may be about, so that there is a next
/// one when all of those are set aside.
const EXCESSES_MAX: usize = PARTS_MAX + 1;

/// Lines of one service or pair over the two horizons.
type Sums = [f64; SCALES.len()];

/// The sums of one stream; rides in its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Drift {
    /// By key, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<(u32, Sums)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<PairSums>,
}

/// Key, lines, and how many times the usual rate has been told of already.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct PairSums(u32, Sums, f64);

/// A pair that has come beyond what is usual.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Excess {
    /// Evidence, in nats, of this one pair.
    pub(super) nats: f64,
    /// Its place in the window.
    pub(super) place: usize,
    /// Minutes that the sums cover, about.
    pub(super) minutes: f64,
    /// Lines, and lines to be expected.
    pub(super) lines: f64,
    pub(super) expected: f64,
    /// How many times the usual rate it has come at over either horizon, at most.
    ratio: f64,
}

impl Drift {
    /// Returns about how many bytes the sums take beside the struct.
    pub(super) fn bytes(&self) -> usize {
        self.services.capacity() * size_of::<(u32, Sums)>()
            + self.pairs.capacity() * size_of::<PairSums>()
    }

    /// Adds a window that covers `length_ms`; returns the most remarkable of its pairs, most
    /// remarkable first. `clump` is how many lines come as one.
    pub(super) fn observe(
        &mut self,
        observed: &Observed,
        length_ms: i64,
        clump: f64,
    ) -> Vec<Excess> {
        self.fade(length_ms);
        self.add_services(observed);
        let mut excesses: Vec<Excess> = Vec::new();
        let mut fresh: Vec<(f64, PairSums)> = Vec::new();
        let mut kept: Vec<(f64, PairSums)> = Vec::with_capacity(PAIRS_MAX + observed.pairs.len());
        let mut present = vec![false; self.pairs.len()];
        for (place, pair) in observed.pairs.iter().enumerate() {
            if pair.fact.training_lines == 0 {
                continue;
            }
            let key = key(observed.services[pair.service].known, pair.template);
            let known = self.pairs.binary_search_by_key(&key, |sums| sums.0);
            let mut sums = match known {
                Ok(at) => {
                    present[at] = true;
                    self.pairs[at]
                }
                Err(_) => PairSums(key, Sums::default(), 1.0),
            };
            sums.1
                .iter_mut()
                .for_each(|sum| *sum += f64::from(pair.count));
            let excess = self.excess(place, observed, &sums, clump);
            let nats = excess.map_or(0.0, |excess| excess.nats);
            fresh.push((nats, sums));
            excesses.extend(excess.filter(|excess| excess.nats > 0.0));
        }
        // Those that stayed away are no news; they keep their sums while there is room.
        let away = self.pairs.iter().zip(&present).filter(|(_, here)| !**here);
        kept.extend(away.map(|(sums, _)| (if sums.2 > 1.0 { 1.0 } else { 0.0 }, *sums)));
        kept.append(&mut fresh);
        self.keep(kept);
        excesses.sort_unstable_by(|a, b| b.nats.total_cmp(&a.nats).then(a.place.cmp(&b.place)));
        excesses.truncate(EXCESSES_MAX);
        excesses
    }

    fn fade(&mut self, length_ms: i64) {
        #[allow(
            clippy::cast_precision_loss,
            reason = "window lengths are far below 2^52 ms"
        )]
        let keep = HORIZONS_MS.map(|horizon| (-(length_ms.max(0) as f64) / horizon).exp());
        let fade = |sums: &mut Sums| {
            for (sum, keep) in sums.iter_mut().zip(keep) {
                *sum = faded(*sum, keep);
            }
        };
        let spoken = |sums: &Sums| sums[1] >= LINES_MIN;
        self.services.iter_mut().for_each(|(_, sums)| fade(sums));
        self.services.retain(|(_, sums)| spoken(sums));
        for PairSums(_, sums, level) in &mut self.pairs {
            fade(sums);
            // Only a level that was told of moves; see `settle`.
            if *level > 1.0 {
                *level = 1.0 + faded(*level - 1.0, keep[1]);
            }
            if *level < LEVEL_MIN {
                *level = 1.0;
            }
        }
        self.pairs
            .retain(|PairSums(_, sums, level)| spoken(sums) || *level > 1.0);
    }

    fn add_services(&mut self, observed: &Observed) {
        for service in observed.services.iter().filter(|service| service.lines > 0) {
            let key = key(service.known, 0);
            let lines = f64::from(service.lines);
            match self.services.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(at) => self.services[at].1.iter_mut().for_each(|sum| *sum += lines),
                Err(at) if self.services.len() < SERVICES_MAX => {
                    self.services.insert(at, (key, [lines; SCALES.len()]));
                }
                Err(_) => {}
            }
        }
    }

    /// Returns how remarkable a pair is; `None` if it has not come more often than usual.
    fn excess(
        &self,
        place: usize,
        observed: &Observed,
        sums: &PairSums,
        clump: f64,
    ) -> Option<Excess> {
        let pair = &observed.pairs[place];
        let fact = &pair.fact;
        let service = &observed.services[pair.service];
        if f64::from(pair.count) <= f64::from(service.lines) * fact.share {
            return None;
        }
        let key = key(service.known, 0);
        let of_service = self.services.binary_search_by_key(&key, |(key, _)| *key);
        let of_service = self.services[of_service.ok()?].1;
        let mut worst: Option<Excess> = None;
        let mut ratio = 1.0_f64;
        for scale in 0..SCALES.len() {
            let lines = sums.1[scale];
            let usual = of_service[scale] * fact.share;
            let expected = usual * sums.2;
            if lines <= expected {
                continue;
            }
            ratio = ratio.max(lines / usual);
            // Training's own share is uncertain where it saw few lines.
            let spread = fact.variation[scale] + 1.0 / (fact.pair_lines + 1.0);
            let nats = tail_nats(lines / clump, expected / clump, spread);
            if worst.is_none_or(|worst| nats > worst.nats) {
                worst = Some(Excess {
                    nats,
                    place,
                    minutes: HORIZONS_MS[scale] / 60_000.0,
                    lines,
                    expected,
                    ratio: 1.0,
                });
            }
        }
        worst.map(|worst| Excess { ratio, ..worst })
    }

    /// Keeps the most remarkable pairs, by key.
    fn keep(&mut self, mut pairs: Vec<(f64, PairSums)>) {
        if pairs.len() > PAIRS_MAX {
            let rank = |a: &(f64, PairSums), b: &(f64, PairSums)| {
                b.0.total_cmp(&a.0).then(a.1.0.cmp(&b.1.0))
            };
            pairs.select_nth_unstable_by(PAIRS_MAX, rank);
            pairs.truncate(PAIRS_MAX);
        }
        self.pairs.clear();
        self.pairs.extend(pairs.into_iter().map(|(_, sums)| sums));
        self.pairs.sort_unstable_by_key(|sums| sums.0);
        self.pairs.dedup_by_key(|sums| sums.0);
    }

    /// Takes the present rate of a pair for its level: an alarm told of it, and only what exceeds
    /// that is news.
    pub(super) fn settle(&mut self, observed: &Observed, excess: &Excess) {
        let pair = &observed.pairs[excess.place];
        let key = key(observed.services[pair.service].known, pair.template);
        if let Ok(at) = self.pairs.binary_search_by_key(&key, |sums| sums.0) {
            let level = &mut self.pairs[at].2;
            *level = short(level.max(excess.ratio.min(LEVEL_MAX)));
        }
    }
}

/// -ln of about P(X >= lines | X >= 1), X being negative binomial with mean `expected` and relative
/// variance `spread` beyond Poisson.
fn tail_nats(lines: f64, expected: f64, spread: f64) -> f64 {
    let size = 1.0 / spread.max(1e-6);
    let expected = expected.max(1e-6);
    let exponent = lines * (lines / expected).ln()
        - (lines + size) * ((lines + size) / (expected + size)).ln();
    // What the exponent leaves out of a Poisson tail: its first mass, and how fast the next ones fall.
    let mass = 0.5 * (std::f64::consts::TAU * lines.max(1.0)).ln();
    let nats = exponent + (mass + (1.0 - expected / lines).max(0.05).ln()).max(0.0);
    // That it came at all is the surprisal's to judge.
    let absent = -size * (expected / size).ln_1p();
    (nats + (-absent.exp_m1()).max(f64::MIN_POSITIVE).ln()).max(0.0)
}

/// A number that keeps what matters and is short in JSON.
pub(super) fn short(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Returns a sum that fades by `keep`, rounded as [`short`] does; it reaches 0, where rounding alone
/// would hold it up on the way.
fn faded(sum: f64, keep: f64) -> f64 {
    let next = short(sum * keep);
    if next < sum {
        next
    } else {
        short(sum - 0.001).max(0.0)
    }
}

/// As [`short`], for what fades by a few ten-thousandths.
pub(super) fn fine(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Identity of a pair of service and template, or of a service (template 0), within one model.
pub(super) fn key(service: Option<usize>, template: u64) -> u32 {
    let service = service.map_or(0, |number| number as u64 + 1);
    let mixed = (template ^ service.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_mul(0xd6e8_feb8_6659_fd93);
    #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
    let key = (mixed >> 32) as u32;
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{PairFact, ServiceFact, TemplateFact};

    /// A window of one service with these counts per template, each of which has this share.
    fn window(counts: &[u32], share: f64) -> Observed {
        let fact = TemplateFact {
            training_lines: 1_000,
            vector: None,
            cluster: None,
            distance: 0.0,
            surprisal: 1.0,
            share,
            pair_lines: 1_000.0,
            variation: [0.01; SCALES.len()],
            clumping: 0.0,
            adopted: false,
        };
        let pair = |(template, count): (u64, &u32)| PairFact {
            template,
            service: 0,
            count: *count,
            fact,
        };
        Observed {
            services: vec![ServiceFact {
                known: Some(0),
                lines: counts.iter().sum(),
                critical: 0,
            }],
            pairs: (1..).zip(counts).map(pair).collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn excesses_come_most_remarkable_first_and_the_next_one_is_known() {
        let excesses = Drift::default().observe(&window(&[60, 1, 40, 50], 0.01), 30_000, 1.0);
        let places: Vec<_> = excesses.iter().map(|excess| excess.place).collect();
        assert_eq!(places, [0, 3, 2]);
        let many = Drift::default().observe(&window(&[9; 100], 0.001), 30_000, 1.0);
        assert_eq!(many.len(), EXCESSES_MAX);
    }

    #[test]
    fn a_level_stays_a_number_whatever_was_expected() {
        let (mut drift, observed) = (Drift::default(), window(&[4_000_000_000], 1e-300));
        let excesses = drift.observe(&observed, 30_000, 1.0);
        drift.settle(&observed, &excesses[0]);
        let json = serde_json::to_string(&drift).unwrap();
        assert_eq!(serde_json::from_str::<Drift>(&json).unwrap(), drift);
        assert!(drift.pairs[0].2 <= LEVEL_MAX);
    }
}
