//! What the lines of one window add up to: counts per level, service and template, and a few
//! samples. Bounded: past the caps lines are still counted, only no longer told apart.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use crate::{
    decode::Template,
    event::{EventTime, Level, LogEvent},
};

/// Most (service, template) pairs told apart in one window; beyond it lines go to
/// [`WindowContent::overflow`]. A window of 200,000 lines a minute has far fewer.
pub const PAIRS_MAX: usize = 20_000;
/// Most services told apart in one window.
pub const SERVICES_MAX: usize = 4_096;
/// Error lines kept as samples (the alarm shows as many).
pub const SAMPLES_MAX: usize = 3;
/// Longest sample shown, in bytes.
pub const SAMPLE_BYTES_MAX: usize = 512;
/// Longest sample kept in an open window, in bytes: redaction has to see secrets whole, so a
/// sample is cut to [`SAMPLE_BYTES_MAX`] after it.
pub const SAMPLE_BYTES_KEPT_MAX: usize = 2_048;

/// Lines of one template from one service.
#[derive(Clone, Debug)]
pub struct TemplateCount {
    /// The template.
    pub template: Arc<Template>,
    /// Index into [`WindowContent::services`].
    pub service: usize,
    /// Highest level a line of it had.
    pub level: Level,
    /// Lines.
    pub count: u32,
}

/// Lines of one service.
#[derive(Clone, Debug)]
pub struct ServiceCount {
    /// The service's name.
    pub name: Arc<str>,
    /// Lines per level, indexed by `Level as usize`.
    pub levels: [u32; Level::COUNT],
}

/// A line that ground truth calls anomalous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnomalousLine {
    /// When it was written.
    pub time: EventTime,
    /// Its message, cut and redacted as samples are.
    pub message: Box<str>,
}

/// Everything counted in a window.
#[derive(Clone, Debug, Default)]
pub struct WindowContent {
    /// Lines per level, indexed by `Level as usize`.
    pub levels: [u32; Level::COUNT],
    /// Lines that carried a label.
    pub labelled: u32,
    /// Lines labelled anomalous.
    pub anomalous: u32,
    /// Lines not told apart because a cap was reached.
    pub overflow: u32,
    /// Services, in order of first appearance.
    pub services: Vec<ServiceCount>,
    /// Lines per (service, template), in order of first appearance; see [`Self::sorted_pairs`].
    pub pairs: Vec<TemplateCount>,
    /// The first `ERROR` or `FATAL` messages, cut to [`SAMPLE_BYTES_KEPT_MAX`]: as they came in a
    /// window that is counted, redacted and cut to [`SAMPLE_BYTES_MAX`] in one that is scored.
    pub samples: Vec<Box<str>>,
    /// The earliest line labelled anomalous.
    pub first_anomalous: Option<AnomalousLine>,
    service_index: HashMap<Arc<str>, usize, RandomState>,
    pair_index: HashMap<(usize, u64), usize, RandomState>,
}

impl WindowContent {
    /// Adds one line.
    pub fn add(&mut self, event: &LogEvent<'_>, template: &Arc<Template>) {
        self.add_within(event, template, PAIRS_MAX);
    }

    /// Adds one line, telling at most `pairs_max` pairs apart, and never more than [`PAIRS_MAX`].
    pub(super) fn add_within(
        &mut self,
        event: &LogEvent<'_>,
        template: &Arc<Template>,
        pairs_max: usize,
    ) {
        self.levels[event.level as usize] += 1;
        if let Some(label) = event.label {
            self.labelled += 1;
            self.anomalous += u32::from(label);
            if label {
                self.add_anomalous(event);
            }
        }
        if event.level.is_critical() && self.samples.len() < SAMPLES_MAX {
            self.samples.push(kept(&event.message));
        }
        let Some(service) = self.service(&event.service) else {
            self.overflow += 1;
            return;
        };
        self.services[service].levels[event.level as usize] += 1;
        self.add_pair(service, event.level, template, pairs_max.min(PAIRS_MAX));
    }

    /// Makes of each line so many.
    pub fn multiply(&mut self, factor: u32) {
        let services = self.services.iter_mut().flat_map(|it| &mut it.levels);
        let pairs = self.pairs.iter_mut().map(|it| &mut it.count);
        let counts = self.levels.iter_mut().chain(services).chain(pairs);
        for count in counts.chain([&mut self.overflow]) {
            *count = count.saturating_mul(factor);
        }
    }

    fn add_anomalous(&mut self, event: &LogEvent<'_>) {
        let earlier = |known: &AnomalousLine| known.time <= event.time;
        if !self.first_anomalous.as_ref().is_some_and(earlier) {
            self.first_anomalous = Some(AnomalousLine {
                time: event.time,
                message: kept(&event.message),
            });
        }
    }

    fn service(&mut self, name: &str) -> Option<usize> {
        if let Some(&index) = self.service_index.get(name) {
            return Some(index);
        }
        if self.services.len() == SERVICES_MAX {
            return None;
        }
        let name: Arc<str> = name.into();
        let index = self.services.len();
        self.service_index.insert(Arc::clone(&name), index);
        self.services.push(ServiceCount {
            name,
            levels: [0; Level::COUNT],
        });
        Some(index)
    }

    fn add_pair(
        &mut self,
        service: usize,
        level: Level,
        template: &Arc<Template>,
        pairs_max: usize,
    ) {
        if let Some(&index) = self.pair_index.get(&(service, template.hash)) {
            let pair = &mut self.pairs[index];
            pair.count += 1;
            pair.level = pair.level.max(level);
        } else if self.pairs.len() < pairs_max {
            self.pair_index
                .insert((service, template.hash), self.pairs.len());
            let template = Arc::clone(template);
            self.pairs.push(TemplateCount {
                template,
                service,
                level,
                count: 1,
            });
        } else {
            self.overflow += 1;
        }
    }

    /// Returns about how many bytes the content takes, texts of templates included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // An entry of an index takes about as much again as its key and value.
        const PAIR: usize = size_of::<TemplateCount>() + 2 * size_of::<((usize, u64), usize)>();
        const SERVICE: usize = size_of::<ServiceCount>() + 2 * size_of::<(Arc<str>, usize)>();
        let texts = self.pairs.iter().map(|pair| pair.template.text.len());
        let names = self.services.iter().map(|service| service.name.len());
        let first = self.first_anomalous.iter().map(|line| &line.message);
        let samples = self.samples.iter().chain(first).map(|text| text.len());
        self.pairs.len() * (PAIR + size_of::<Template>())
            + self.services.len() * SERVICE
            + texts.chain(names).chain(samples).sum::<usize>()
    }

    /// Returns how many lines the window has.
    #[must_use]
    pub fn lines(&self) -> u32 {
        self.levels.iter().sum()
    }

    /// Returns how many lines of `level` the window has.
    #[must_use]
    pub fn level(&self, level: Level) -> u32 {
        self.levels[level as usize]
    }

    /// Returns the lines that are `ERROR` or `FATAL`.
    #[must_use]
    pub fn critical(&self) -> u32 {
        self.level(Level::Error) + self.level(Level::Fatal)
    }

    /// Returns the name of the service of a pair.
    #[must_use]
    pub fn service_of(&self, pair: &TemplateCount) -> &str {
        &self.services[pair.service].name
    }

    /// Returns the pairs ordered by service name, then template hash: the order in which every
    /// float sum runs, so that results do not depend on the order of arrival.
    #[must_use]
    pub fn sorted_pairs(&self) -> Vec<&TemplateCount> {
        let mut pairs: Vec<_> = self.pairs.iter().collect();
        pairs.sort_unstable_by(|a, b| {
            (self.service_of(a), a.template.hash).cmp(&(self.service_of(b), b.template.hash))
        });
        pairs
    }
}

fn kept(message: &str) -> Box<str> {
    let end = message.floor_char_boundary(SAMPLE_BYTES_KEPT_MAX);
    message.split_at(end).0.into()
}
