//! From raw signals to one p-value.
//!
//! Each signal is turned into evidence, -ln of its p-value on normal time; the evidence is added
//! up so that one screaming signal is enough and several mild ones add up; and the sum is itself
//! calibrated. All distributions come from forward chaining: training time scored by what was
//! fitted on earlier time only.

use serde::{Deserialize, Serialize};

use super::{bundle::BundleDefect, signals::Raw, tail::Tail};

/// Evidence below about this many nats is what chance brings and adds little.
const MILD: f64 = 2.0;

/// The signals, in the order of [`Calibration::evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Novelty,
    Repetition,
    Critical,
    Volume,
    Drift,
    Absence,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Novelty,
        Self::Repetition,
        Self::Critical,
        Self::Volume,
        Self::Drift,
        Self::Absence,
    ];
}

/// Evidence per signal, in nats.
pub(super) type Evidence = [f64; Kind::ALL.len()];

/// The distributions of the signals on normal time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Calibration {
    /// Windows it was learnt from.
    pub(super) windows: u64,
    /// Share of them that looks like incidents and was left out or given less weight.
    pub(super) presumed_incidents: f64,
    /// P(a pair's surprisal >= x).
    pub(super) line_surprisal: Tail,
    /// P(ln(1 - ln p) >= x) of the repetition model's p-values.
    pub(super) repetition: Tail,
    /// P(-ln p >= x) of the critical lines model's p-values.
    pub(super) critical: Tail,
    /// P(ln(1 - ln p) >= x) of the volume model's p-values.
    pub(super) volume: Tail,
    /// P(-ln p >= x) of the trailing sums' p-values.
    pub(super) drift: Tail,
    /// P(-ln p >= x) of the absences' p-values.
    pub(super) absence: Tail,
    /// P(distance to the nearest core point >= x, in eps). It is reported and not added up: it moves
    /// with the other signals and with the number of lines, and drowned the one that mattered.
    pub(super) distance: Tail,
    /// P(added evidence >= x).
    pub(super) combined: Tail,
}

impl Calibration {
    /// Returns what each signal is worth.
    pub(super) fn evidence(&self, signals: &Raw) -> Evidence {
        [
            self.novelty(signals),
            tempered(&self.repetition, signals.repetition, f64::ln_1p),
            tempered(&self.critical, signals.critical, |x| x),
            tempered(&self.volume, signals.volume, f64::ln_1p),
            tempered(&self.drift, signals.drift, |x| x),
            tempered(&self.absence, signals.absence, |x| x),
        ]
    }

    /// The largest of n draws: 1 - (1 - P)^n, so that a long and varied window is no reason by itself.
    /// Two or more surprising lines are independent on normal time and come together in incidents: the
    /// k-th largest is judged by the chance that k draws get as far.
    fn novelty(&self, signals: &Raw) -> f64 {
        if signals.draws <= 0.0 {
            return 0.0;
        }
        let ln_draws = signals.draws.max(1.0).ln();
        let mut most = 0.0_f64;
        for (order, surprisal) in (1..).zip(signals.surprisals) {
            if surprisal <= 0.0 {
                break;
            }
            let ln_expected = self.line_surprisal.ln_survival(surprisal) + ln_draws;
            // Having looked at several is paid for by all but the first.
            let paid = if order > 1 { std::f64::consts::LN_2 } else { 0.0 };
            most = most.max(-ln_at_least(order, ln_expected) - paid);
        }
        most
    }

    /// Returns ln of the combined p-value.
    pub(super) fn ln_p(&self, evidence: &Evidence) -> f64 {
        self.combined.ln_survival(added(evidence))
    }

    /// Checks what a file may have got wrong.
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        let share = self.presumed_incidents;
        if !(0.0..=1.0).contains(&share) {
            return Err(BundleDefect::NotFinite("calibration"));
        }
        [
            &self.line_surprisal,
            &self.repetition,
            &self.critical,
            &self.volume,
            &self.drift,
            &self.absence,
            &self.distance,
            &self.combined,
        ]
        .into_iter()
        .try_for_each(Tail::check)
    }
}

/// ln P(X >= k) of a Poisson count whose mean is given as a logarithm.
fn ln_at_least(k: u32, ln_mean: f64) -> f64 {
    let (mean, k) = (ln_mean.exp(), f64::from(k));
    if mean < 0.1 {
        // The first terms of the series from k on.
        let factorial: f64 = (1..=8).map(f64::from).filter(|i| *i <= k).product();
        return k * ln_mean - factorial.ln() - mean + (mean / (k + 1.0)).ln_1p();
    }
    let (mut term, mut below, mut i) = ((-mean).exp(), 0.0, 0.0);
    while i < k {
        below += term;
        i += 1.0;
        term *= mean / i;
    }
    (1.0 - below).max(1e-12).ln()
}

/// What a model's p-value is worth, given how such p-values were distributed on normal time, on the
/// scale that `scale` makes: with a logarithm the tail is a power law, for what comes in bursts of
/// all sizes. Training may only weaken what the model claims: where it was too cautious at
/// training's few lines it need not be so at many.
fn tempered(tail: &Tail, minus_ln_p: f64, scale: fn(f64) -> f64) -> f64 {
    (-tail.ln_survival(scale(minus_ln_p))).min(minus_ln_p)
}

/// Adds up evidence; strong signals count almost in full, mild ones little.
pub(super) fn added(evidence: &Evidence) -> f64 {
    evidence
        .iter()
        .map(|e| e.max(0.0))
        .map(|e| e * e / (e + MILD))
        .sum()
}
