//! Finds what an alarm is about: the fewest parts without which its window would raise none, and
//! templates rather than counts, which say less and mute more.

use super::{
    calibration::{Evidence, Kind},
    drift::Surplus,
    mute::{Aside, Pattern},
    profile::Profile,
    signals::Signals,
};
use crate::{features::Observed, window::TemplateCount};

/// Most parts of a pattern: an alarm that is about more templates than this is a release.
pub const PARTS_MAX: usize = 32;
/// Evidence, in nats, from which a template is taken for part of it.
const PART_NATS: f64 = 3.0;

/// A window without some of its parts.
pub(super) struct Rest {
    pub(super) signals: Signals,
    pub(super) evidence: Evidence,
    /// ln of the combined p-value.
    pub(super) ln_p: f64,
    pub(super) anomalous: bool,
}

/// Returns the pattern of an anomalous window; `judge` judges it without some parts, beyond those in
/// `muted`. With more than [`PARTS_MAX`] parts, the first ones.
pub(super) fn pattern(
    muted: &Aside,
    (observed, pairs): (&Observed, &[&TemplateCount]),
    profile: &Profile,
    judge: impl Fn(&Aside) -> Rest,
) -> Vec<Pattern> {
    let without = |parts: &[Pattern]| {
        let mut aside = muted.clone();
        parts.iter().for_each(|part| aside.add(part, observed));
        judge(&aside)
    };
    let mut parts = Vec::new();
    while parts.len() < PARTS_MAX {
        let rest = without(&parts);
        if !rest.anomalous {
            return needed(parts, |parts| !without(parts).anomalous);
        }
        let Some(part) = strongest(&rest, pairs, profile).filter(|part| !parts.contains(part))
        else {
            break;
        };
        parts.push(part);
    }
    parts
}

/// The part that speaks loudest for an anomaly; a template, if one has anything to say.
fn strongest(rest: &Rest, pairs: &[&TemplateCount], profile: &Profile) -> Option<Pattern> {
    let [novelty, repetition, critical, volume, drift, absence] = rest.evidence;
    let template = |place: usize| {
        let template = &pairs[place].template;
        Pattern::Template {
            template: template.hash,
            text: template.text.to_string(),
        }
    };
    let exceeding = |surplus: Surplus| {
        let part = surplus.strongest();
        let text = profile.text_of(part.template).unwrap_or_default();
        let away = || Pattern::Template {
            template: part.template,
            text: text.to_owned(),
        };
        part.place.map_or_else(away, template)
    };
    let most = |kind: Kind| match kind {
        Kind::Novelty => rest.signals.surprising.map(template),
        Kind::Repetition => rest.signals.repeated.map(template),
        Kind::Drift => rest.signals.surplus.map(exceeding),
        Kind::Critical => Some(Pattern::Critical),
        Kind::Volume => Some(Pattern::Volume),
        Kind::Absence => rest.signals.missing.map(|missing| {
            let (template, text) = profile.muted_by(&missing.regular);
            let text = text.to_string();
            Pattern::Template { template, text }
        }),
    };
    let loudest = |kinds: &[(f64, Kind)]| {
        let louder = |a: (f64, Kind), b: (f64, Kind)| if b.0 > a.0 { b } else { a };
        kinds.iter().copied().reduce(louder)
    };
    let (nats, kind) = loudest(&[
        (novelty, Kind::Novelty),
        (repetition, Kind::Repetition),
        (drift, Kind::Drift),
        (absence, Kind::Absence),
    ])?;
    if nats >= PART_NATS {
        return most(kind);
    }
    let (nats, kind) = loudest(&[(critical, Kind::Critical), (volume, Kind::Volume)])?;
    (nats > 0.0).then(|| most(kind))?
}

/// Leaves out what turned out to be needless, counts first, then templates from the last.
fn needed(mut parts: Vec<Pattern>, enough: impl Fn(&[Pattern]) -> bool) -> Vec<Pattern> {
    parts.sort_by_key(|part| !matches!(part, Pattern::Template { .. }));
    for place in (0..parts.len()).rev() {
        let part = parts.remove(place);
        if !enough(&parts) {
            parts.insert(place, part);
        }
    }
    parts
}
