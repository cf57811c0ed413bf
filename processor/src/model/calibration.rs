//! From raw signals to one p-value.
//!
//! Each signal is turned into evidence, -ln of its p-value on normal time; the evidence is added
//! up so that one screaming signal is enough and several mild ones add up; and the sum is itself
//! calibrated. All distributions come from forward chaining: training time scored by what was
//! fitted on earlier time only.

use serde::{Deserialize, Serialize};

use super::{
    bundle::BundleDefect,
    signals::{Raw, SURPRISALS},
    tail::Tail,
};

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
    /// P(-ln p >= x) of several surprising pairs in one window.
    pub(super) company: Tail,
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
    /// Training was long enough to know what hours are like.
    pub(super) knows_hours: bool,
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
            self.trailing(&self.drift, signals.drift),
            self.trailing(&self.absence, signals.absence),
        ]
    }

    /// The largest of n draws: 1 - (1 - P)^n, so that a long and varied window is no reason by itself;
    /// or several of them, at the price of having looked at both.
    fn novelty(&self, signals: &Raw) -> f64 {
        let several = tempered(&self.company, self.company(signals), |x| x);
        self.order(signals, 1).max(several - std::f64::consts::LN_2)
    }

    /// Rare lines are independent on normal time and come together in incidents: the k-th largest of n
    /// draws is judged by the chance that k of them get as far.
    pub(super) fn company(&self, signals: &Raw) -> f64 {
        (2..=SURPRISALS)
            .map(|order| self.order(signals, order))
            .fold(0.0, f64::max)
    }

    /// -ln of the chance that `order` of the draws are as surprising as that many are.
    fn order(&self, signals: &Raw, order: usize) -> f64 {
        let surprisal = signals.surprisals[order - 1];
        if surprisal <= 0.0 {
            return 0.0;
        }
        let ln_p = self.line_surprisal.ln_survival(surprisal);
        -ln_at_least(order, ln_p + signals.draws.max(1.0).ln())
    }

    /// What a signal over minutes and hours is worth: nothing if training had less than a day of them.
    fn trailing(&self, tail: &Tail, minus_ln_p: f64) -> f64 {
        if self.knows_hours {
            tempered(tail, minus_ln_p, |x| x)
        } else {
            0.0
        }
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
            &self.company,
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
fn ln_at_least(k: usize, ln_mean: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "four at most")]
    let (mean, order) = (ln_mean.exp(), k as f64);
    if mean < 0.1 {
        // The first terms of the series from k on.
        let factorial: f64 = (1..=4_u8).map(f64::from).filter(|i| *i <= order).product();
        return order * ln_mean - factorial.ln() - mean + (mean / (order + 1.0)).ln_1p();
    }
    let (mut term, mut below, mut i) = ((-mean).exp(), 0.0, 0.0);
    while i < order {
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
