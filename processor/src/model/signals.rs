//! What speaks for an anomaly in a window, each signal by itself, as raw statistics. What they are
//! worth as p-values is the calibration's to say.

use super::{
    absence::Missing,
    baseline::Baseline,
    counts::CountModel,
    density::Density,
    drift::{Excess, Excesses, LOOKS, Surplus, fine},
    early::Fill,
    profile::Profile,
    rhythm::{Hour, OddHour},
};
use crate::{
    event::Level,
    features::{FeatureRow, Observed, PairFact, ServiceFact},
};

/// Surprising pairs of a window that are looked at together.
pub(super) const SURPRISALS: usize = 4;

/// The raw statistics of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Raw {
    /// Distinct pairs of service and template: the draws that the largest surprisal is one of.
    pub(super) draws: f64,
    /// Largest surprisals of pairs, in nats, largest first; 0 where there are fewer.
    pub(super) surprisals: [f64; SURPRISALS],
    /// -ln p of the most excessive repetition of a template; 0 while the stream is cold.
    pub(super) repetition: f64,
    /// -ln p of the number of `ERROR` and `FATAL` lines.
    pub(super) critical: f64,
    /// -ln p of the number of lines, both ways; 0 while the stream is cold.
    pub(super) volume: f64,
    /// -ln p of the templates of a service that have come most beyond their usual rate for minutes or
    /// for an hour; 0 while the stream is cold.
    pub(super) drift: f64,
    /// -ln p of the most remarkable absence; 0 while the stream is cold.
    pub(super) absence: f64,
    /// Distance to the nearest core point, in eps.
    pub(super) distance: f64,
}

/// The raw statistics of one window, and what they are about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signals {
    pub(super) raw: Raw,
    /// Place of the most surprising pair.
    pub(super) surprising: Option<usize>,
    /// Place of the most repeated pair.
    pub(super) repeated: Option<usize>,
    /// The templates of a service that have come most beyond their usual rate.
    pub(super) surplus: Option<Surplus>,
    /// What is absent.
    pub(super) missing: Option<Missing>,
    /// The level that is not the one of this hour, where that says most of the volume.
    pub(super) odd_hour: Option<OddHour>,
    /// Label of the nearest core point, -1 beyond eps.
    pub(super) cluster_label: i32,
    /// Squared deviations of the template counts, observed and expected.
    pub(super) clump: (f64, f64),
    /// What a full window would hold, while it is open.
    pub(super) fill: Fill,
}

/// Returns the signals of a window. Windows without lines are [`super::silence`]'s.
pub(super) fn signals(
    (profile, density): (&Profile, &Density),
    observed: &Observed,
    row: &FeatureRow,
    baseline: &Baseline,
    trailing: &TrailingFindings,
) -> Signals {
    let lines = f64::from(observed.lines());
    let clump = baseline.clump();
    let mut signals = Signals {
        raw: Raw {
            draws: draws(observed.pairs.len()),
            ..Raw::default()
        },
        clump: clump_squares(profile, observed),
        cluster_label: -1,
        ..Signals::default()
    };
    (signals.raw.surprisals, signals.surprising) = most_surprising(observed);
    let cold = baseline.is_cold();
    if lines > 0.0 {
        signals.raw.critical = critical(profile, observed, clump, signals.fill);
        let ratio = count_ratio(profile, baseline, lines);
        if let Some((label, distance)) = density.nearest(row, ratio) {
            signals.cluster_label = label;
            signals.raw.distance = distance;
        }
        if !cold {
            (signals.raw.repetition, signals.repeated) = repetition(observed, clump, signals.fill);
            let hour = trailing.hour.as_ref();
            signals.raw.volume = baseline.volume(lines, profile.level_variation, hour);
            let odd = trailing.odd_hour;
            signals.odd_hour = odd.filter(|odd| odd.nats > signals.raw.volume);
            signals.raw.volume = odd.map_or(0.0, |odd| odd.nats).max(signals.raw.volume);
            trailing.tell(&mut signals, observed.pairs.len(), |_| true, |_| true);
        }
    }
    signals
}

/// What the stream's trailing sums and absences say of a window, which they hold already; absences
/// most remarkable first.
#[derive(Clone, Debug, Default)]
pub(super) struct TrailingFindings {
    excesses: Excesses,
    missing: Vec<Missing>,
    /// What is usual at this hour, and what is not.
    pub(super) hour: Option<Hour>,
    odd_hour: Option<OddHour>,
}

impl TrailingFindings {
    /// Moves the sums of a stream on by a window that starts at `start_ms`.
    pub(super) fn observe(
        baseline: &mut Baseline,
        profile: &Profile,
        observed: &Observed,
        (start_ms, length_ms): (i64, i64),
    ) -> Self {
        let clump = baseline.clump();
        let hour = baseline.hour(profile.rhythm.as_ref(), start_ms);
        Self {
            odd_hour: baseline.odd_hour(hour.as_ref(), f64::from(observed.lines())),
            hour,
            excesses: baseline.drift.observe(observed, profile, length_ms, clump),
            missing: baseline.absences.observe(profile.watch(), observed, clump),
        }
    }

    /// Tells the signals of a window with `pairs` pairs what is most remarkable of what counts. What
    /// rounding makes of nothing is nothing: a tail of it would differ with the order of the lines.
    pub(super) fn tell(
        &self,
        signals: &mut Signals,
        pairs: usize,
        counts: impl Fn(&Excess) -> bool,
        is_missed: impl Fn(&Missing) -> bool,
    ) {
        signals.surplus = self.excesses.most(counts);
        signals.raw.drift = signals
            .surplus
            .map_or(0.0, |surplus| fine(any_of(surplus.nats, LOOKS * pairs)));
        signals.missing = self.missing.iter().copied().find(is_missed);
        signals.raw.absence = signals
            .missing
            .map_or(0.0, |missing| fine(any_of(missing.nats, missing.watched)));
    }
}

/// Returns the signals of a window as if the pairs at `left_out` had not come, which are in order.
/// The volume stays: a flood of new lines is a signal besides their being new; so do the trailing
/// signals, which [`TrailingFindings::tell`] of. Places are those of `observed`.
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
    let (surprisals, surprising) = most_surprising(&rest);
    let mut signals = Signals {
        surprising: in_all(surprising),
        ..*all
    };
    signals.raw.draws = draws(all.fill.pairs(rest.pairs.len()));
    signals.raw.surprisals = surprisals;
    signals.raw.critical = critical(profile, &rest, clump, all.fill);
    if !baseline.is_cold() {
        let (most, repeated) = repetition(&rest, clump, all.fill);
        (signals.raw.repetition, signals.repeated) = (most, in_all(repeated));
    }
    signals
}

pub(super) fn most_surprising(observed: &Observed) -> ([f64; SURPRISALS], Option<usize>) {
    let (mut most, mut first) = ([0.0; SURPRISALS], None);
    for (place, pair) in observed.pairs.iter().enumerate() {
        let surprisal = pair.fact.surprisal;
        if surprisal > most[0] {
            first = Some(place);
        }
        push_surprisal(&mut most, surprisal);
    }
    (most, first)
}

/// Keeps a surprisal if it is among the largest, which are in order.
pub(super) fn push_surprisal(most: &mut [f64; SURPRISALS], surprisal: f64) {
    if surprisal <= most[SURPRISALS - 1] {
        return;
    }
    let rank = most.partition_point(|larger| *larger >= surprisal);
    most[rank..].rotate_right(1);
    most[rank] = surprisal;
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
pub(super) fn repetition(observed: &Observed, clump: f64, fill: Fill) -> (f64, Option<usize>) {
    let mut worst = (0.0, None);
    for (place, pair) in observed.pairs.iter().enumerate() {
        let count = f64::from(pair.count) / clump;
        if count <= 1.0 {
            continue;
        }
        let lines = fill.lines(service_of(observed, pair).lines) / clump;
        let factor = 1.0 + (lines - 1.0).max(0.0) * pair.fact.clumping;
        let model = CountModel::with_factor(lines * pair.fact.share, factor);
        let ln_p = model.ln_upper(count) - model.ln_upper(1.0);
        if -ln_p > worst.0 {
            worst = (-ln_p, Some(place));
        }
    }
    (any_of(worst.0, fill.pairs(observed.pairs.len())), worst.1)
}

#[allow(clippy::cast_precision_loss, reason = "at most 20,000 pairs")]
pub(super) fn draws(pairs: usize) -> f64 {
    pairs as f64
}

/// -ln(1 - (1 - p)^n): the p-value of the smallest of n.
pub(super) fn any_of(minus_ln_p: f64, n: usize) -> f64 {
    let n = draws(n.max(1));
    let p = (-minus_ln_p).exp();
    if p < 1e-9 {
        return (minus_ln_p - n.ln()).max(0.0);
    }
    let none = n * (-p).ln_1p();
    -(-none.exp_m1()).max(f64::MIN_POSITIVE).ln()
}

pub(super) fn critical(profile: &Profile, observed: &Observed, clump: f64, fill: Fill) -> f64 {
    let count = f64::from(observed.critical()) / clump;
    if count <= 0.0 {
        return 0.0;
    }
    let mut services: Vec<_> = observed
        .services
        .iter()
        .map(|s| (s.known, s.lines))
        .collect();
    // Float sums must not depend on the order in which services came.
    services.sort_unstable();
    let told_apart: u32 = services.iter().map(|(_, lines)| lines).sum();
    let rest = observed.lines().saturating_sub(told_apart);
    let mean: f64 = services
        .into_iter()
        .chain([(None, rest)])
        .map(|(known, lines)| f64::from(lines) * profile.critical_share(known))
        .sum();
    let mean = fill.critical(mean, observed.lines(), profile.critical_share);
    let lines = fill.lines(observed.lines()) / clump;
    let factor = 1.0 + (lines - 1.0).max(0.0) * profile.critical_clumping;
    -CountModel::with_factor(mean / clump, factor).ln_upper(count)
}

/// Squared deviations of the counts of known templates from what their services usually write,
/// observed and expected.
fn clump_squares(profile: &Profile, observed: &Observed) -> (f64, f64) {
    let (mut actual, mut expected) = (0.0, 0.0);
    let services = observed.services.iter();
    let mut services: Vec<_> = services.filter_map(|s| Some((s.known?, s.lines))).collect();
    services.sort_unstable();
    for (number, lines) in services {
        let known = &profile.services[number];
        let lines = f64::from(lines);
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
