//! The formulas of the columns.

use serde::{Deserialize, Serialize};

use super::{COLUMNS, Column, FeatureRow, TEXT_DIMENSIONS};
use crate::{
    decode::Template,
    event::Level,
    window::{TemplateCount, WindowContent},
};

/// What a model knows of a template as it comes from one service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TemplateFact {
    /// Lines of the template in training, or since its stream saw it first if it was adopted; 0
    /// for one that is new.
    pub training_lines: u64,
    /// The template's text vector; `None` if none of its terms is known.
    pub vector: Option<[f64; TEXT_DIMENSIONS]>,
    /// Nearest KMeans centroid; `None` if none of its terms is known.
    pub cluster: Option<usize>,
    /// Distance to that centroid, scaled to [0, 1]; 1 if none of its terms is known.
    pub distance: f64,
    /// -ln p(template | service), smoothed: finite and positive, in nats.
    pub surprisal: f64,
    /// Expected share of the service's lines, smoothed: in (0, 1].
    pub share: f64,
    /// Lines of the template from this service in training.
    pub pair_lines: f64,
    /// Relative variance of that share over 5 minutes and over an hour, beyond what chance brings.
    pub variation: [f64; 2],
    /// How much the template's lines clump within windows: the intraclass correlation, in [0, 1];
    /// 0 if lines come independently.
    pub clumping: f64,
    /// Training never saw it, but the stream has for so long that it is taken for known.
    pub adopted: bool,
}

#[cfg(test)]
impl TemplateFact {
    /// A template for tests that came often, with this share of its service's lines.
    pub(crate) fn familiar(share: f64) -> Self {
        Self {
            training_lines: 1_000,
            vector: None,
            cluster: None,
            distance: 0.0,
            surprisal: 1.0,
            share,
            pair_lines: 1_000.0,
            variation: [0.01; 2],
            clumping: 0.0,
            adopted: false,
        }
    }
}

/// What features need from the model.
pub trait TemplateFacts {
    /// Returns the model's number for `service`, `None` if training never saw it.
    fn service(&self, service: &str) -> Option<usize>;

    /// Returns what is known of `template` as a line of `service`.
    fn fact(&mut self, service: &str, template: &Template) -> TemplateFact;
}

/// Lines of one template from one service, with what is known of the template.
#[derive(Clone, Copy, Debug)]
pub struct PairFact {
    /// Identity of the template.
    pub template: u64,
    /// Number of the service within the window.
    pub service: usize,
    /// Lines.
    pub count: u32,
    /// What the model knows.
    pub fact: TemplateFact,
}

/// Lines of one service that were told apart, with what is known of the service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceFact {
    /// The model's number for it; `None` if training never saw it.
    pub known: Option<usize>,
    /// Lines.
    pub lines: u32,
    /// Lines that are `ERROR` or `FATAL`.
    pub critical: u32,
}

/// A window as the formulas see it.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Lines per level, indexed by `Level as usize`.
    pub levels: [u32; Level::COUNT],
    /// The services, indexed by [`PairFact::service`].
    pub services: Vec<ServiceFact>,
    /// The pairs, ordered by service name, then template hash.
    pub pairs: Vec<PairFact>,
}

impl Observed {
    /// Returns how many lines the window has.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.levels.iter().sum()
    }

    /// Returns the lines that are `ERROR` or `FATAL`.
    #[must_use]
    pub fn critical(&self) -> u32 {
        self.levels[Level::Error as usize] + self.levels[Level::Fatal as usize]
    }
}

/// Returns `content` with the facts about its templates, and the pairs they belong to.
pub fn observe<'a>(
    content: &'a WindowContent,
    facts: &mut impl TemplateFacts,
) -> (Observed, Vec<&'a TemplateCount>) {
    let sorted = content.sorted_pairs();
    let mut services: Vec<_> = content
        .services
        .iter()
        .map(|service| ServiceFact {
            known: facts.service(&service.name),
            lines: 0,
            critical: service.levels[Level::Error as usize] + service.levels[Level::Fatal as usize],
        })
        .collect();
    let pairs = sorted
        .iter()
        .map(|pair| {
            services[pair.service].lines += pair.count;
            PairFact {
                template: pair.template.hash,
                service: pair.service,
                count: pair.count,
                fact: facts.fact(content.service_of(pair), &pair.template),
            }
        })
        .collect();
    let observed = Observed {
        levels: content.levels,
        services,
        pairs,
    };
    (observed, sorted)
}

/// Exponentially weighted sums over a stream's recent windows, at two horizons. Small enough to
/// ride in every row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailing {
    /// Over about 5 minutes.
    short: TrailingSums,
    /// Over about an hour.
    long: TrailingSums,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrailingSums {
    windows: f64,
    lines: f64,
    critical: f64,
    surprisal: f64,
    unseen: f64,
}

/// Horizons of [`Trailing`], in milliseconds of event time.
const SHORT_MS: f64 = 300_000.0;
const LONG_MS: f64 = 3_600_000.0;

impl Trailing {
    /// Adds a window that covers `length_ms` of event time.
    pub fn add(&mut self, observed: &Observed, length_ms: i64) {
        let mut surprisal = 0.0;
        let mut unseen = Vec::new();
        for pair in &observed.pairs {
            surprisal += f64::from(pair.count) * pair.fact.surprisal;
            if pair.fact.training_lines == 0 {
                unseen.push(pair.template);
            }
        }
        // A template counts once, however many services write it.
        unseen.sort_unstable();
        unseen.dedup();
        #[allow(clippy::cast_precision_loss, reason = "at most 20,000 pairs")]
        let unseen = unseen.len() as f64;
        #[allow(
            clippy::cast_precision_loss,
            reason = "window lengths are far below 2^52 ms"
        )]
        let length = length_ms.max(0) as f64;
        for (sums, horizon) in [(&mut self.short, SHORT_MS), (&mut self.long, LONG_MS)] {
            let keep = (-length / horizon).exp();
            sums.windows = sums.windows * keep + 1.0;
            sums.lines = sums.lines * keep + f64::from(observed.lines());
            sums.critical = sums.critical * keep + f64::from(observed.critical());
            sums.surprisal = sums.surprisal * keep + surprisal;
            sums.unseen = sums.unseen * keep + unseen;
        }
    }
}

fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator > 0.0 {
        numerator / denominator
    } else {
        numerator
    }
}

/// Returns the row of a window; `trailing` already holds the window.
#[must_use]
pub fn row(observed: &Observed, trailing: &Trailing) -> FeatureRow {
    let mut values = vec![0.0; COLUMNS.len()];
    if observed.lines() > 0 {
        level_columns(observed, &mut values);
        text_columns(observed, &mut values);
        novelty_columns(observed, &mut values);
    }
    trailing_columns(trailing, &mut values);
    FeatureRow { values }
}

fn level_columns(observed: &Observed, values: &mut [f64]) {
    let level = |level: Level| f64::from(observed.levels[level as usize]);
    let lines = f64::from(observed.lines());
    let critical = f64::from(observed.critical());
    for (column, value) in [
        (Column::LogCount, lines),
        (Column::ErrorCount, level(Level::Error)),
        (Column::FatalCount, level(Level::Fatal)),
        (Column::WarnCount, level(Level::Warn)),
        (Column::InfoCount, level(Level::Info)),
        (Column::DebugCount, level(Level::Debug)),
        (Column::ErrorRate, ratio(level(Level::Error), lines)),
        (Column::FatalRate, ratio(level(Level::Fatal), lines)),
        (Column::WarnRate, ratio(level(Level::Warn), lines)),
        (
            Column::WarnToInfoRatio,
            ratio(level(Level::Warn), level(Level::Info)),
        ),
        (Column::CriticalCount, critical),
        (Column::CriticalRate, ratio(critical, lines)),
    ] {
        values[column as usize] = value;
    }
}

fn text_columns(observed: &Observed, values: &mut [f64]) {
    let mut lines = 0.0;
    let mut rarity = 0.0;
    let mut distance = 0.0;
    let mut text = [0.0; TEXT_DIMENSIONS];
    let mut clusters: Vec<(usize, u64)> = Vec::new();
    for pair in &observed.pairs {
        let count = f64::from(pair.count);
        let fact = &pair.fact;
        lines += count;
        #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
        let training_lines = fact.training_lines.max(1) as f64;
        rarity += count / training_lines;
        distance += count * fact.distance;
        if let Some(vector) = &fact.vector {
            for (sum, value) in text.iter_mut().zip(vector) {
                *sum += count * value;
            }
        }
        if let Some(cluster) = fact.cluster {
            match clusters.iter_mut().find(|(known, _)| *known == cluster) {
                Some((_, lines)) => *lines += u64::from(pair.count),
                None => clusters.push((cluster, u64::from(pair.count))),
            }
        }
    }
    values[Column::MessageRarity as usize] = ratio(rarity, lines);
    values[Column::MessageAnomalyScore as usize] = ratio(distance, lines);
    clusters.sort_unstable_by_key(|&(cluster, lines)| (std::cmp::Reverse(lines), cluster));
    #[allow(clippy::cast_precision_loss, reason = "there are at most 20 centroids")]
    if let Some(&(cluster, _)) = clusters.first() {
        values[Column::MessageCluster as usize] = cluster as f64;
    }
    let first = Column::Tfidf0 as usize;
    for (value, sum) in values[first..].iter_mut().zip(text) {
        *value = ratio(sum, lines);
    }
}

fn novelty_columns(observed: &Observed, values: &mut [f64]) {
    let mut lines = 0.0;
    let mut largest = 0.0_f64;
    let mut sum = 0.0;
    let mut templates: Vec<(u64, bool)> = Vec::with_capacity(observed.pairs.len());
    for pair in &observed.pairs {
        let count = f64::from(pair.count);
        lines += count;
        sum += count * pair.fact.surprisal;
        largest = largest.max(pair.fact.surprisal);
        templates.push((pair.template, pair.fact.training_lines == 0));
    }
    templates.sort_unstable();
    templates.dedup();
    let unseen = templates.iter().filter(|(_, unseen)| *unseen).count();
    let services = observed.services.iter().filter(|s| s.lines > 0).count();
    #[allow(
        clippy::cast_precision_loss,
        reason = "a window has at most 20,000 pairs"
    )]
    let counts = [unseen as f64, templates.len() as f64, services as f64];
    values[Column::UnseenTemplates as usize] = counts[0];
    values[Column::SurprisalMax as usize] = largest;
    values[Column::SurprisalMean as usize] = ratio(sum, lines);
    values[Column::MixDivergence as usize] = mix_divergence(observed, lines);
    values[Column::DistinctTemplates as usize] = counts[1];
    values[Column::DistinctServices as usize] = counts[2];
}

/// Jensen-Shannon divergence between the window's mix of pairs and the one training expects of
/// the same services at the same volumes, so that a partition that holds only some services is
/// not divergent for that.
fn mix_divergence(observed: &Observed, lines: f64) -> f64 {
    let mut divergence = 0.0;
    let mut expected_here = 0.0;
    for pair in &observed.pairs {
        let actual = f64::from(pair.count) / lines;
        let of_service = f64::from(observed.services[pair.service].lines) / lines;
        let expected = of_service * pair.fact.share;
        let middle = f64::midpoint(actual, expected);
        divergence += 0.5 * actual * (actual / middle).ln();
        if expected > 0.0 {
            divergence += 0.5 * expected * (expected / middle).ln();
        }
        expected_here += expected;
    }
    let missing = (1.0 - expected_here).max(0.0);
    (divergence + 0.5 * missing * std::f64::consts::LN_2).clamp(0.0, std::f64::consts::LN_2)
}

fn trailing_columns(trailing: &Trailing, values: &mut [f64]) {
    for (first, sums) in [
        (Column::UnseenTemplates5m, &trailing.short),
        (Column::UnseenTemplates1h, &trailing.long),
    ] {
        let first = first as usize;
        values[first] = ratio(sums.unseen, sums.windows);
        values[first + 1] = ratio(sums.surprisal, sums.lines);
        values[first + 2] = ratio(sums.critical, sums.lines);
    }
}
