//! What a model knows of templates and services: how often each really comes up, and what its
//! text is like. Fitted once on all of training, and once per block for the calibration.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    absence::{REGULARS_MAX, Regular, Watch},
    bundle::{BundleDefect, is_usable},
    clusters::Clusters,
    drift::{Usual, Usuals, key},
    rhythm::Rhythm,
    sway::UNKNOWN,
    tally::{PairKeys, Tally},
    text::{TextModel, TextVector},
};
use crate::{
    decode::Template,
    features::{TemplateFact, TemplateFacts},
};

/// Occasions of the unseen: what a template that never came counts for.
const UNSEEN_OCCASIONS: f64 = 0.5;
/// Candidates for the weight, in occasions or lines, of all services together when one service is
/// judged: small where services write different templates, large where they all write the same.
const SERVICE_PRIORS: [f64; 9] = [
    10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0,
];

/// A template and what training saw of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownTemplate {
    /// Identity, hexadecimal.
    #[serde(with = "hex_u64")]
    pub(super) hash: u64,
    /// The masked text, cut if it is very long.
    pub(super) text: Arc<str>,
    /// Lines.
    pub(super) lines: u64,
    /// Occasions to be expected on normal time, in windows: bursts and incidents are discounted.
    pub(super) occasions: f64,
    /// How much its lines clump within windows, in [0, 1].
    pub(super) clumping: f64,
}

/// A service and what training saw of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownService {
    pub(super) name: Arc<str>,
    pub(super) lines: f64,
    /// `ERROR` and `FATAL` lines.
    pub(super) critical: f64,
    /// Occasions of all its templates.
    occasions: f64,
    /// Sums over its templates of p², p(1-p) and p(1-p) · clumping, p being the share of its
    /// lines: what the squared deviations of a window's counts are expected to add up to.
    pub(super) mix: [f64; 3],
}

/// A template as one service writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownPair {
    service: u32,
    template: u32,
    lines: u64,
    occasions: f64,
    /// Relative variance of its share over 5 minutes and an hour.
    variation: [f64; 2],
}

/// Names behind the numbers of a [`Tally`].
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) templates: Vec<(u64, Arc<str>)>,
    pub(super) services: Vec<Arc<str>>,
    pub(super) pairs: Vec<(u32, u32)>,
}

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) lines: u64,
    /// Windows, empty ones included.
    pub(super) windows: u64,
    /// Occasions of all templates.
    occasions: f64,
    /// Weight of all services together when one is judged; a service seen less than this is
    /// judged mostly by what the others write.
    service_prior: f64,
    /// Share of `ERROR` and `FATAL` lines.
    pub(super) critical_share: f64,
    /// How much critical lines clump within windows, in [0, 1].
    pub(super) critical_clumping: f64,
    /// How much the number of lines of 10 minutes varies about that of the hour before, squared
    /// and relative, beyond what chance and the rhythm of the day bring.
    pub(super) level_variation: f64,
    /// Known from two days on.
    pub(super) rhythm: Option<Rhythm>,
    pub(super) templates: Vec<KnownTemplate>,
    pub(super) services: Vec<KnownService>,
    pairs: Vec<KnownPair>,
    /// What is worth missing.
    regulars: Vec<Regular>,
    pub(super) text: TextModel,
    pub(super) clusters: Clusters,
    #[serde(skip)]
    index: Index,
}

/// What is built from the rest after loading.
#[derive(Clone, Debug, Default)]
struct Index {
    templates: HashMap<u64, usize>,
    services: HashMap<Arc<str>, usize>,
    pairs: HashMap<(usize, usize), usize>,
    /// Pairs by the key that trailing sums go by; of two with the same key the last.
    keys: HashMap<u32, u32>,
    /// Pairs of each service.
    pairs_of: Vec<usize>,
    texts: Vec<TextFact>,
    watch: Watch,
}

/// Where a text lies among the familiar ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextFact {
    vector: Option<TextVector>,
    cluster: Option<usize>,
    distance: f64,
}

impl Profile {
    /// Fits the profile to the counts so far. Numbers stay those of `names`.
    pub(super) fn fit(tally: &Tally, names: &Names) -> Self {
        let clumping = tally.clumping(&names.pairs);
        let templates: Vec<_> = names
            .templates
            .iter()
            .enumerate()
            .map(|(number, (hash, text))| KnownTemplate {
                hash: *hash,
                text: Arc::clone(text),
                lines: tally.templates.get(number).map_or(0, |count| count.lines),
                occasions: tally.template_occasions(number),
                clumping: clumping.get(number).copied().unwrap_or(0.0),
            })
            .collect();
        let documents: Vec<_> = templates
            .iter()
            .filter(|template| template.lines > 0)
            .map(|template| (&*template.text, template.lines))
            .collect();
        let text = TextModel::fit(&documents);
        #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
        let lines = (tally.lines as f64).max(1.0);
        let rhythm = tally.rhythm();
        let mut profile = Self {
            lines: tally.lines,
            windows: tally.windows,
            occasions: templates.iter().map(|template| template.occasions).sum(),
            service_prior: SERVICE_PRIORS[0],
            critical_share: tally.critical() / lines,
            critical_clumping: tally.critical_clumping(),
            level_variation: tally.level_variation(rhythm.as_ref()),
            rhythm,
            pairs: known_pairs(tally, &names.pairs),
            regulars: Vec::new(),
            services: Vec::new(),
            clusters: fit_clusters(&templates, &text),
            templates,
            text,
            index: Index::default(),
        };
        profile.services = profile.known_services(tally, names);
        profile.service_prior = profile.choose_service_prior();
        profile.reindex();
        profile.regulars = tally.regulars(&names.pairs, |service, template| {
            profile.known_fact(Some(service), template).share
        });
        profile.reindex();
        profile
    }

    /// The candidate under which each occasion is best foretold by all the others.
    fn choose_service_prior(&self) -> f64 {
        let likelihood = |prior: f64| -> f64 {
            let terms = self.pairs.iter().map(|pair| {
                let template = self.templates[pair.template as usize].occasions;
                let overall = (template - 1.0).max(0.0) + UNSEEN_OCCASIONS;
                let overall = overall / (self.occasions + 1.0);
                let others = (pair.occasions - 1.0).max(0.0) + prior * overall;
                let service = self.services[pair.service as usize].occasions;
                pair.occasions * (others / ((service - 1.0).max(0.0) + prior)).ln()
            });
            terms.sum()
        };
        let best = SERVICE_PRIORS
            .into_iter()
            .map(|prior| (prior, likelihood(prior)))
            .reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map_or(SERVICE_PRIORS[0], |(prior, _)| prior)
    }

    fn known_services(&self, tally: &Tally, names: &Names) -> Vec<KnownService> {
        let mut services: Vec<_> = names
            .services
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let sums = tally.services.get(number).copied().unwrap_or_default();
                KnownService {
                    name: Arc::clone(name),
                    lines: sums.lines,
                    critical: sums.critical,
                    occasions: 0.0,
                    mix: [0.0; 3],
                }
            })
            .collect();
        for pair in &self.pairs {
            let service = &mut services[pair.service as usize];
            service.occasions += pair.occasions;
            if service.lines > 0.0 {
                #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
                let p = pair.lines as f64 / service.lines;
                let clumping = self.templates[pair.template as usize].clumping;
                for (sum, part) in
                    service
                        .mix
                        .iter_mut()
                        .zip([p * p, p * (1.0 - p), p * (1.0 - p) * clumping])
                {
                    *sum += part;
                }
            }
        }
        services
    }

    /// Builds what is not stored.
    pub(super) fn reindex(&mut self) {
        self.text.reindex();
        let mut pairs_of = vec![0; self.services.len()];
        for pair in &self.pairs {
            pairs_of[pair.service as usize] += 1;
        }
        let texts = self.templates.iter().map(|t| self.text_fact(&t.text));
        self.index = Index {
            texts: texts.collect(),
            watch: Watch::new(&self.regulars, |regular| self.muted_by(regular).0),
            templates: self.templates.iter().map(|t| t.hash).zip(0..).collect(),
            services: self
                .services
                .iter()
                .map(|s| Arc::clone(&s.name))
                .zip(0..)
                .collect(),
            pairs: self
                .pairs
                .iter()
                .map(|p| (p.service as usize, p.template as usize))
                .zip(0..)
                .collect(),
            keys: self
                .pairs
                .iter()
                .map(|p| {
                    let template = self.templates[p.template as usize].hash;
                    key(Some(p.service as usize), template)
                })
                .zip(0..)
                .collect(),
            pairs_of,
        };
    }

    /// Checks what a file may have got wrong; call before [`Self::reindex`].
    pub(super) fn check(&self) -> Result<(), BundleDefect> {
        self.text.check()?;
        self.clusters.check()?;
        self.rhythm.as_ref().map_or(Ok(()), Rhythm::check)?;
        let inside = |pair: &KnownPair| {
            (pair.service as usize) < self.services.len()
                && (pair.template as usize) < self.templates.len()
        };
        let watched = |regular: &Regular| {
            (regular.service as usize) < self.services.len()
                && regular
                    .template
                    .is_none_or(|template| (template as usize) < self.templates.len())
        };
        let too_many = self.regulars.len() > REGULARS_MAX;
        if too_many || !self.pairs.iter().all(inside) || !self.regulars.iter().all(watched) {
            return Err(BundleDefect::Dimensions("profile"));
        }
        let own = [
            self.occasions,
            self.service_prior,
            self.critical_share,
            self.critical_clumping,
            self.level_variation,
        ];
        let templates = self
            .templates
            .iter()
            .flat_map(|t| [t.occasions, t.clumping]);
        let services = self.services.iter().flat_map(|s| {
            [
                s.lines,
                s.critical,
                s.occasions,
                s.mix[0],
                s.mix[1],
                s.mix[2],
            ]
        });
        let pairs = self.pairs.iter();
        let pairs = pairs.flat_map(|p| [p.occasions, p.variation[0], p.variation[1]]);
        let regulars = self.regulars.iter();
        let regulars = regulars.flat_map(|r| [r.share, r.returns, r.steady.unwrap_or(0.0)]);
        let mut numbers = own
            .into_iter()
            .chain(templates)
            .chain(services)
            .chain(pairs)
            .chain(regulars);
        // With less of a prior a share could come near 0, and what is divided by it near infinity.
        if !numbers.all(|value| is_usable(value) && value >= 0.0) || self.service_prior < 1.0 {
            return Err(BundleDefect::NotFinite("profile"));
        }
        Ok(())
    }

    /// Returns where `text` lies among the familiar ones.
    pub(super) fn text_fact(&self, text: &str) -> TextFact {
        let vector = self.text.vector(text);
        let nearest = vector.and_then(|vector| self.clusters.nearest(&vector));
        TextFact {
            vector,
            cluster: nearest.map(|(cluster, _)| cluster),
            distance: nearest.map_or(1.0, |(_, distance)| distance),
        }
    }

    /// Returns the number of a template.
    pub(super) fn template(&self, hash: u64) -> Option<usize> {
        self.index.templates.get(&hash).copied()
    }

    /// Returns the facts of template number `template` as a line of service number `service`.
    pub(super) fn known_fact(&self, service: Option<usize>, template: usize) -> TemplateFact {
        self.fact(service, Some(template), self.index.texts[template])
    }

    fn fact(
        &self,
        service: Option<usize>,
        template: Option<usize>,
        text: TextFact,
    ) -> TemplateFact {
        let known = template.map(|template| &self.templates[template]);
        let occasions = known.map_or(0.0, |t| t.occasions);
        let mut likelihood = (occasions + UNSEEN_OCCASIONS) / (self.occasions + 1.0);
        let mut share = self.share(known.map_or(0, |t| t.lines));
        let (mut pair_lines, mut variation) = (0.0, [UNKNOWN; 2]);
        if let Some(number) = service {
            let of_service = &self.services[number];
            let pair = template.and_then(|t| self.index.pairs.get(&(number, t)));
            let pair = pair.map(|&pair| &self.pairs[pair]);
            #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
            let lines = pair.map_or(0, |pair| pair.lines) as f64;
            let occasions = pair.map_or(0.0, |pair| pair.occasions);
            pair_lines = lines;
            variation = pair.map_or(variation, |pair| pair.variation);
            let prior = self.service_prior;
            likelihood = (occasions + prior * likelihood) / (of_service.occasions + prior);
            share = self.share_of(of_service, lines, share);
        }
        TemplateFact {
            training_lines: known.map_or(0, |t| t.lines),
            vector: text.vector,
            cluster: text.cluster,
            distance: text.distance,
            surprisal: -likelihood.clamp(f64::MIN_POSITIVE, 1.0).ln(),
            share: share.clamp(f64::MIN_POSITIVE, 1.0),
            pair_lines,
            variation,
            clumping: known.map_or(0.0, |t| t.clumping),
            adopted: false,
        }
    }

    /// Returns the expected share of all lines, of a template that had `lines` of them.
    fn share(&self, lines: u64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
        let (lines, all_lines) = (lines as f64, self.lines as f64);
        (lines + UNSEEN_OCCASIONS) / (all_lines + 1.0)
    }

    /// Returns the expected share of a service's lines, of a template that had `lines` of them and has
    /// this share of all.
    fn share_of(&self, service: &KnownService, lines: f64, share: f64) -> f64 {
        let prior = self.service_prior;
        (lines + prior * share) / (service.lines + prior)
    }

    /// Returns the masked text of a template that training saw.
    pub(super) fn text_of(&self, hash: u64) -> Option<&str> {
        let number = self.template(hash)?;
        Some(&self.templates[number].text)
    }

    /// Returns by what the absence of an entity is muted: its template, or a text for all that its
    /// service writes.
    pub(super) fn muted_by(&self, regular: &Regular) -> (u64, Arc<str>) {
        if let Some(template) = regular.template {
            let template = &self.templates[template as usize];
            return (template.hash, Arc::clone(&template.text));
        }
        let name = &self.services[regular.service as usize].name;
        let every = Template::new(&format!("every line of {name}"));
        (every.hash, every.text.into())
    }

    /// Returns what is worth missing.
    pub(super) fn watch(&self) -> &Watch {
        &self.index.watch
    }

    /// Returns the share of critical lines expected of a service.
    pub(super) fn critical_share(&self, service: Option<usize>) -> f64 {
        let Some(service) = service.map(|number| &self.services[number]) else {
            return self.critical_share;
        };
        let prior = self.service_prior;
        (service.critical + prior * self.critical_share) / (service.lines + prior)
    }
}

impl Usuals for Profile {
    fn usual(&self, key: u32) -> Option<Usual> {
        let pair = &self.pairs[*self.index.keys.get(&key)? as usize];
        let service = &self.services[pair.service as usize];
        let template = &self.templates[pair.template as usize];
        #[allow(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
        let lines = pair.lines as f64;
        let share = self.share_of(service, lines, self.share(template.lines));
        Some(Usual {
            service: Some(pair.service as usize),
            template: template.hash,
            share: share.clamp(f64::MIN_POSITIVE, 1.0),
            lines,
            variation: pair.variation,
        })
    }

    fn pairs_of(&self, service: usize) -> usize {
        self.index.pairs_of.get(service).copied().unwrap_or(0)
    }
}

fn known_pairs(tally: &Tally, keys: &PairKeys) -> Vec<KnownPair> {
    let [minutes, hour] = tally.variation(keys);
    let variation = |number: usize| {
        [&minutes, &hour].map(|scale| scale.get(number).copied().unwrap_or(UNKNOWN))
    };
    tally
        .pairs
        .iter()
        .zip(keys)
        .enumerate()
        .filter(|(_, (count, _))| count.lines > 0)
        .map(|(number, (count, &(service, template)))| KnownPair {
            service,
            template,
            lines: count.lines,
            occasions: count.normal(&tally.elapsed),
            variation: variation(number),
        })
        .collect()
}

fn fit_clusters(templates: &[KnownTemplate], text: &TextModel) -> Clusters {
    let mut heaviest_first: Vec<_> = templates.iter().filter(|t| t.lines > 0).collect();
    heaviest_first.sort_by_key(|t| (std::cmp::Reverse(t.lines), t.hash));
    let vectors: Vec<_> = heaviest_first
        .iter()
        .filter_map(|template| text.vector(&template.text))
        .collect();
    Clusters::fit(&vectors)
}

/// Texts of unseen templates that have been looked at, least recently used forgotten first.
pub(super) type TextCache = lru::LruCache<u64, TextFact>;

/// A profile as the features ask it.
pub(super) struct Facts<'a> {
    pub(super) profile: &'a Profile,
    pub(super) unseen: &'a mut TextCache,
}

impl TemplateFacts for Facts<'_> {
    fn service(&self, service: &str) -> Option<usize> {
        self.profile.index.services.get(service).copied()
    }

    fn fact(&mut self, service: &str, template: &Template) -> TemplateFact {
        let service = self.service(service);
        if let Some(number) = self.profile.template(template.hash) {
            return self.profile.known_fact(service, number);
        }
        let profile = self.profile;
        let text = *self
            .unseen
            .get_or_insert(template.hash, || profile.text_fact(cut(&template.text)));
        profile.fact(service, None, text)
    }
}

/// Longest text kept of a template, in bytes: keeps the bundle small; the identity is the hash.
const TEXT_BYTES_MAX: usize = 512;

/// Cuts a masked text to what is kept of it.
pub(super) fn cut(text: &str) -> &str {
    text.split_at(text.floor_char_boundary(TEXT_BYTES_MAX)).0
}

pub(super) mod hex_u64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(in crate::model) fn serialize<S: Serializer>(
        value: &u64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:016x}"))
    }

    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
