//! What speaks for an anomaly in a window, each signal by itself, as raw statistics. What they are
//! worth as p-values is the calibration's to say.

use super::{baseline::Baseline, counts::CountModel, density::Density, profile::Profile};
use crate::{
    event::Level,
    features::{FeatureRow, Observed, PairFact, ServiceFact},
};

/// The raw statistics of one window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signals {
    /// Distinct pairs of service and template: the draws that the largest surprisal is one of.
    pub(super) draws: f64,
    /// Largest surprisal of a line, in nats.
    pub(super) surprisal: f64,
    /// Place of the most surprising pair.
    pub(super) surprising: Option<usize>,
    /// -ln p of the most excessive repetition of a template; 0 while the stream is cold.
    pub(super) repetition: f64,
    /// Place of the most repeated pair.
    pub(super) repeated: Option<usize>,
    /// -ln p of the number of `ERROR` and `FATAL` lines.
    pub(super) critical: f64,
    /// -ln p of the number of lines, both ways; 0 while the stream is cold.
    pub(super) volume: f64,
    /// Distance to the nearest core point, in eps.
    pub(super) distance: f64,
    /// Label of that core point, -1 beyond eps.
    pub(super) cluster_label: i32,
    /// Squared deviations of the template counts, observed and expected.
    pub(super) clump: (f64, f64),
}

/// Returns the signals of a window; `gap` marks a run of empty windows too long to list, whose
/// volume is not that of one window.
pub(super) fn signals(
    (profile, density): (&Profile, &Density),
    observed: &Observed,
    row: &FeatureRow,
    baseline: &Baseline,
    gap: bool,
) -> Signals {
    let lines = f64::from(observed.lines());
    let clump = baseline.clump();
    let mut signals = Signals {
        draws: draws(observed.pairs.len()),
        clump: clump_squares(profile, observed),
        cluster_label: -1,
        ..Signals::default()
    };
    (signals.surprisal, signals.surprising) = most_surprising(observed);
    let cold = baseline.is_cold();
    if lines > 0.0 {
        signals.critical = critical(profile, observed, clump);
        let ratio = count_ratio(profile, baseline, lines);
        if let Some((label, distance)) = density.nearest(row, ratio) {
            signals.cluster_label = label;
            signals.distance = distance;
        }
        if !cold {
            (signals.repetition, signals.repeated) = repetition(observed, clump);
        }
    }
    if !cold && !gap {
        signals.volume = baseline.volume(lines, profile.level_variation);
    }
    signals
}

/// Returns the signals of a window as if the pairs at `left_out` had not come, which are in order.
/// The volume stays: a flood of new lines is a signal besides their being new. Places are those of
/// `observed`.
pub(super) fn signals_without(
    left_out: &[usize],
    levels: impl Fn(usize) -> Level,
    (profile, baseline): (&Profile, &Baseline),
    observed: &Observed,
    all: &Signals,
) -> Signals {
    let mut rest = observed.clone();
    for &place in left_out {
        let (pair, level) = (&observed.pairs[place], levels(place));
        let of_level = &mut rest.levels[level as usize];
        *of_level = of_level.saturating_sub(pair.count);
        let service = &mut rest.services[pair.service];
        service.lines = service.lines.saturating_sub(pair.count);
    }
    let kept: Vec<usize> = (0..rest.pairs.len())
        .filter(|place| left_out.binary_search(place).is_err())
        .collect();
    rest.pairs = kept.iter().map(|&place| observed.pairs[place]).collect();
    let in_all = |place: Option<usize>| place.map(|place| kept[place]);
    let clump = baseline.clump();
    let (surprisal, surprising) = most_surprising(&rest);
    let mut signals = Signals {
        draws: draws(rest.pairs.len()),
        surprisal,
        surprising: in_all(surprising),
        critical: critical(profile, &rest, clump),
        ..*all
    };
    if !baseline.is_cold() {
        let (most, repeated) = repetition(&rest, clump);
        (signals.repetition, signals.repeated) = (most, in_all(repeated));
    }
    signals
}

fn most_surprising(observed: &Observed) -> (f64, Option<usize>) {
    let mut most = (0.0, None);
    for (place, pair) in observed.pairs.iter().enumerate() {
        if pair.fact.surprisal > most.0 {
            most = (pair.fact.surprisal, Some(place));
        }
    }
    most
}

/// What brings a count of this stream to the volume of training.
fn count_ratio(profile: &Profile, baseline: &Baseline, lines: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let training = profile.lines as f64 / profile.windows.max(1) as f64;
    let usual = if baseline.is_cold() {
        lines
    } else {
        baseline.usual_lines().max(1.0)
    };
    training / usual
}

fn service_of<'a>(observed: &'a Observed, pair: &PairFact) -> &'a ServiceFact {
    &observed.services[pair.service]
}

/// How improbable the most repeated template is, given that it came at all and how many lines its
/// service wrote; corrected for having looked at every pair.
fn repetition(observed: &Observed, clump: f64) -> (f64, Option<usize>) {
    let mut worst = (0.0, None);
    for (place, pair) in observed.pairs.iter().enumerate() {
        let count = f64::from(pair.count) / clump;
        if count <= 1.0 {
            continue;
        }
        let lines = f64::from(service_of(observed, pair).lines) / clump;
        let factor = 1.0 + (lines - 1.0).max(0.0) * pair.fact.clumping;
        let model = CountModel::with_factor(lines * pair.fact.share, factor);
        let ln_p = model.ln_upper(count) - model.ln_upper(1.0);
        if -ln_p > worst.0 {
            worst = (-ln_p, Some(place));
        }
    }
    (any_of(worst.0, observed.pairs.len()), worst.1)
}

#[allow(clippy::cast_precision_loss, reason = "at most 20,000 pairs")]
pub(super) fn draws(pairs: usize) -> f64 {
    pairs as f64
}

/// -ln(1 - (1 - p)^n): the p-value of the smallest of n.
fn any_of(minus_ln_p: f64, n: usize) -> f64 {
    let n = draws(n.max(1));
    let p = (-minus_ln_p).exp();
    if p < 1e-9 {
        return (minus_ln_p - n.ln()).max(0.0);
    }
    let none = n * (-p).ln_1p();
    -(-none.exp_m1()).max(f64::MIN_POSITIVE).ln()
}

fn critical(profile: &Profile, observed: &Observed, clump: f64) -> f64 {
    let count = f64::from(observed.critical()) / clump;
    if count <= 0.0 {
        return 0.0;
    }
    let mean: f64 = observed
        .services
        .iter()
        .map(|service| f64::from(service.lines) * profile.critical_share(service.known))
        .sum();
    let lines = f64::from(observed.lines()) / clump;
    let factor = 1.0 + (lines - 1.0).max(0.0) * profile.critical_clumping;
    -CountModel::with_factor(mean / clump, factor).ln_upper(count)
}

/// Squared deviations of the counts of known templates from what their services usually write,
/// observed and expected.
fn clump_squares(profile: &Profile, observed: &Observed) -> (f64, f64) {
    let (mut actual, mut expected) = (0.0, 0.0);
    for service in &observed.services {
        let Some(known) = service.known.map(|number| &profile.services[number]) else {
            continue;
        };
        let lines = f64::from(service.lines);
        actual += lines * lines * known.mix[0];
        expected += lines * known.mix[1] + lines * (lines - 1.0).max(0.0) * known.mix[2];
    }
    for pair in &observed.pairs {
        let service = service_of(observed, pair);
        if pair.fact.training_lines > 0 && !pair.fact.adopted && service.known.is_some() {
            let count = f64::from(pair.count);
            // The expected square of an absent template was counted above for all templates.
            actual += count * count - 2.0 * count * f64::from(service.lines) * pair.fact.share;
        }
    }
    (actual.max(0.0), expected)
}
