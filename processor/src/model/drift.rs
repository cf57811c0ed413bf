//! Trailing sums: familiar templates that have come more often than usual for minutes or for an
//! hour, though no single window shows it.
//!
//! Per stream and pair of service and template the lines of about the last 5 minutes and the last
//! hour, against its service's lines over the same time and the share that training expects.
//! Evidence of a pair is the saddle point estimate of a negative binomial tail; up to four pairs of a
//! service are judged together, since a changed mix shows a little in each. It counts only in a window
//! that adds to it, and once an alarm told of it the new level is the one to exceed.

use serde::{Deserialize, Serialize};

use super::{signals::draws, sway::SCALES};
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
/// Most pairs of a service that are judged together.
const TOGETHER_MAX: usize = 4;
/// Ways to look at a pair of a window: over each horizon, with so many others.
pub(super) const LOOKS: usize = SCALES.len() * TOGETHER_MAX;
/// Evidence, in nats, from which a pair of the window is judged with others of its service: what hardly
/// says anything does not bring up again what has gone.
const COMPANY_NATS: f64 = 1.0;

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

/// What training makes expect of a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usual {
    /// The model's number of its service; `None` if training never saw that.
    pub(super) service: Option<usize>,
    pub(super) template: u64,
    /// Expected share of the service's lines.
    pub(super) share: f64,
    /// Lines in training.
    pub(super) lines: f64,
    /// Relative variance of that share over each horizon, beyond what chance brings.
    pub(super) variation: [f64; SCALES.len()],
}

/// What a model knows of pairs, in a window or not.
pub(super) trait Usuals {
    /// Returns what is usual of the pair that goes by `key`, if training saw it.
    fn usual(&self, key: u32) -> Option<Usual>;

    /// Returns how many pairs of a service training saw.
    fn pairs_of(&self, service: usize) -> usize;
}

/// What a pair has come to over one horizon.
#[derive(Clone, Copy, Debug, Default)]
struct Over {
    /// Evidence of this one pair; 0 if it has not come more often than usual.
    nats: f64,
    lines: f64,
    expected: f64,
}

/// A pair that has come beyond what is usual.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excess {
    pub(super) template: u64,
    /// Its place in the window; `None` if it is not in it.
    pub(super) place: Option<usize>,
    service: Option<usize>,
    key: u32,
    /// The window adds to it.
    adds: bool,
    over: [Over; SCALES.len()],
    /// How many times the usual rate it has come at over either horizon, at most.
    ratio: f64,
}

/// How many pairs a service has.
#[derive(Clone, Copy, Debug)]
struct Siblings {
    /// In training, or as many as there are to be seen.
    all: f64,
    /// In the window.
    here: f64,
}

/// All pairs that have come beyond what is usual, service by service.
#[derive(Clone, Debug, Default)]
pub(super) struct Excesses {
    pairs: Vec<Excess>,
    /// One per service; `None` if training never saw it.
    siblings: Vec<Option<Siblings>>,
}

/// One of the pairs of a [`Surplus`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub(super) template: u64,
    /// Its place in the window; `None` if it is not in it.
    pub(super) place: Option<usize>,
    /// Lines, and lines to be expected.
    pub(super) lines: f64,
    pub(super) expected: f64,
    nats: f64,
    key: u32,
    ratio: f64,
}

/// Pairs of one service that say most together, over one horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Surplus {
    /// Evidence of all of them, in nats. That each pair of the window is looked at in [`LOOKS`] ways is
    /// left to be corrected for.
    pub(super) nats: f64,
    /// Minutes that the sums cover, about.
    pub(super) minutes: f64,
    /// Most remarkable first; those beyond `count` have no say.
    parts: [Part; TOGETHER_MAX],
    count: usize,
}

impl Drift {
    /// Returns about how many bytes the sums take beside the struct.
    pub(super) fn bytes(&self) -> usize {
        self.services.capacity() * size_of::<(u32, Sums)>()
            + self.pairs.capacity() * size_of::<PairSums>()
    }

    /// Adds a window that covers `length_ms`; returns the pairs that exceed what is usual, whether it
    /// has them or not. `clump` is how many lines come as one.
    pub(super) fn observe(
        &mut self,
        observed: &Observed,
        model: &impl Usuals,
        length_ms: i64,
        clump: f64,
    ) -> Excesses {
        self.fade(length_ms);
        self.add_services(observed);
        let mut excesses: Vec<Excess> = Vec::new();
        let mut kept: Vec<(f64, PairSums)> =
            Vec::with_capacity(self.pairs.len() + observed.pairs.len());
        let mut present = vec![false; self.pairs.len()];
        for (place, pair) in observed.pairs.iter().enumerate() {
            if pair.fact.training_lines == 0 {
                continue;
            }
            let service = &observed.services[pair.service];
            let key = key(service.known, pair.template);
            let mut sums = match self.pairs.binary_search_by_key(&key, |sums| sums.0) {
                Ok(at) => {
                    present[at] = true;
                    self.pairs[at]
                }
                Err(_) => PairSums(key, Sums::default(), 1.0),
            };
            sums.1
                .iter_mut()
                .for_each(|sum| *sum += f64::from(pair.count));
            let usual = Usual {
                service: service.known,
                template: pair.template,
                share: pair.fact.share,
                lines: pair.fact.pair_lines,
                variation: pair.fact.variation,
            };
            let adds = f64::from(pair.count) > f64::from(service.lines) * usual.share;
            let excess = self.excess(&usual, &sums, adds, clump);
            kept.push((worth(&sums, excess.as_ref()), sums));
            excesses.extend(excess.map(|excess| Excess {
                place: Some(place),
                ..excess
            }));
        }
        // Those that stayed away are no news by themselves; they keep their sums while there is room.
        for (sums, _) in self.pairs.iter().zip(&present).filter(|(_, here)| !**here) {
            let usual = model.usual(sums.0);
            let excess = usual.and_then(|usual| self.excess(&usual, sums, false, clump));
            kept.push((worth(sums, excess.as_ref()), *sums));
            excesses.extend(excess);
        }
        self.keep(kept);
        Excesses::new(excesses, observed, model)
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

    /// Returns how remarkable a pair is; `None` if it has not come more often than usual. If the window
    /// does not add to it, it is wanted for company only, which is not worth much within a deviation.
    fn excess(&self, usual: &Usual, sums: &PairSums, adds: bool, clump: f64) -> Option<Excess> {
        let service = key(usual.service, 0);
        let at = self
            .services
            .binary_search_by_key(&service, |(key, _)| *key)
            .ok()?;
        let of_service = self.services[at].1;
        let mut over = [Over::default(); SCALES.len()];
        let mut ratio = 1.0_f64;
        for (scale, over) in over.iter_mut().enumerate() {
            let lines = sums.1[scale];
            let at_usual = of_service[scale] * usual.share;
            let expected = at_usual * sums.2;
            if lines <= expected {
                continue;
            }
            ratio = ratio.max(lines / at_usual);
            // Training's own share is uncertain where it saw few lines.
            let spread = usual.variation[scale] + 1.0 / (usual.lines + 1.0);
            let beyond = lines - expected;
            if !adds && beyond * beyond < expected * (clump + spread * expected) {
                continue;
            }
            *over = Over {
                nats: tail_nats(lines / clump, expected / clump, spread),
                lines,
                expected,
            };
        }
        let excess = Excess {
            template: usual.template,
            place: None,
            service: usual.service,
            key: sums.0,
            adds,
            over,
            ratio,
        };
        (excess.nats() > 0.0).then_some(excess)
    }

    /// Keeps the most remarkable pairs, by key: where there is nothing to remark, those with most
    /// lines, which are longest to come by again.
    fn keep(&mut self, mut pairs: Vec<(f64, PairSums)>) {
        if pairs.len() > PAIRS_MAX {
            let rank = |(worth, sums): &(f64, PairSums), other: &(f64, PairSums)| {
                let by_worth = other.0.total_cmp(worth);
                let by_lines = other.1.1[1].total_cmp(&sums.1[1]);
                by_worth.then(by_lines).then(sums.0.cmp(&other.1.0))
            };
            pairs.select_nth_unstable_by(PAIRS_MAX, rank);
            pairs.truncate(PAIRS_MAX);
        }
        self.pairs.clear();
        self.pairs.extend(pairs.into_iter().map(|(_, sums)| sums));
        self.pairs.sort_unstable_by_key(|sums| sums.0);
        self.pairs.dedup_by_key(|sums| sums.0);
    }

    /// Takes the present rate of each pair for its level: an alarm told of them, and only what exceeds
    /// that is news.
    pub(super) fn settle(&mut self, surplus: &Surplus) {
        for part in surplus.parts() {
            if let Ok(at) = self.pairs.binary_search_by_key(&part.key, |sums| sums.0) {
                let level = &mut self.pairs[at].2;
                *level = short(level.max(part.ratio.min(LEVEL_MAX)));
            }
        }
    }
}

impl Excess {
    /// Evidence of this one pair.
    fn nats(&self) -> f64 {
        self.over.iter().map(|over| over.nats).fold(0.0, f64::max)
    }

    fn is_sibling(&self, other: &Self) -> bool {
        self.service == other.service
    }

    fn part(&self, scale: usize) -> Part {
        let over = self.over[scale];
        Part {
            template: self.template,
            place: self.place,
            lines: over.lines,
            expected: over.expected,
            nats: over.nats,
            key: self.key,
            ratio: self.ratio,
        }
    }
}

impl Excesses {
    fn new(mut pairs: Vec<Excess>, observed: &Observed, model: &impl Usuals) -> Self {
        pairs.sort_unstable_by_key(|pair| (pair.service, pair.template, pair.place));
        let mut here = vec![0_usize; observed.services.len()];
        for pair in &observed.pairs {
            here[pair.service] += usize::from(pair.fact.training_lines > 0);
        }
        let siblings = |pairs: &[Excess]| -> Option<Siblings> {
            let known = model.pairs_of(pairs.first()?.service?);
            // Without one in the window they have no say.
            let place = pairs.iter().find_map(|pair| pair.place);
            let here = place.map_or(1, |place| here[observed.pairs[place].service]);
            Some(Siblings {
                all: draws(known.max(here).max(pairs.len())),
                here: draws(here),
            })
        };
        let siblings = pairs
            .chunk_by(Excess::is_sibling)
            .map(siblings)
            .collect::<Vec<_>>();
        Self { pairs, siblings }
    }

    /// Returns the pairs of a service that say most together, of those that count.
    pub(super) fn most(&self, counts: impl Fn(&Excess) -> bool) -> Option<Surplus> {
        let mut most: Option<Surplus> = None;
        let services = self.pairs.chunk_by(Excess::is_sibling);
        for (pairs, siblings) in services.zip(&self.siblings) {
            for scale in 0..SCALES.len() {
                let next = surplus(pairs, *siblings, scale, &counts);
                if let Some(next) = next
                    && most.is_none_or(|most| next.nats > most.nats)
                {
                    most = Some(next);
                }
            }
        }
        most
    }
}

impl Surplus {
    /// Returns the pairs, most remarkable first.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }

    /// Returns the most remarkable pair.
    pub(super) fn strongest(&self) -> &Part {
        &self.parts[0]
    }

    /// Returns whether a template is one of theirs.
    pub(super) fn holds(&self, template: u64) -> bool {
        self.parts().iter().any(|part| part.template == template)
    }
}

/// How much the sums of a pair are worth keeping; a level that was told of is, whatever came since.
fn worth(sums: &PairSums, excess: Option<&Excess>) -> f64 {
    let nats = excess.map_or(0.0, Excess::nats);
    if sums.2 > 1.0 { nats.max(1.0) } else { nats }
}

/// Returns what pairs of one service say most together over one horizon: the one that says most of
/// those the window adds to, and those that say most beside it.
fn surplus(
    pairs: &[Excess],
    siblings: Option<Siblings>,
    scale: usize,
    counts: &impl Fn(&Excess) -> bool,
) -> Option<Surplus> {
    // The first one leads, the others come in order.
    let mut parts = [Part::default(); TOGETHER_MAX];
    for excess in pairs.iter().filter(|excess| counts(excess)) {
        let nats = excess.over[scale].nats;
        let leads = excess.adds && nats > parts[0].nats;
        if !leads && nats <= parts[TOGETHER_MAX - 1].nats {
            continue;
        }
        let mut part = excess.part(scale);
        if leads {
            std::mem::swap(&mut part, &mut parts[0]);
        }
        let beside = &mut parts[1..];
        let rank = beside.partition_point(|louder| louder.nats >= part.nats);
        if rank < beside.len() {
            beside[rank..].rotate_right(1);
            beside[rank] = part;
        }
    }
    let mut sum = parts[0].nats;
    if sum <= 0.0 {
        return None;
    }
    let (mut nats, mut count, leads) = (sum, 1, sum);
    if let Some(siblings) = siblings.filter(|_| sum >= COMPANY_NATS) {
        let beside = parts.iter().enumerate().skip(1);
        for (others, part) in beside.take_while(|(_, part)| part.nats > 0.0) {
            // What was loud before is no news because something faint came.
            sum += part.nats.min(leads);
            let together = together(sum, others, siblings);
            if together > nats {
                (nats, count) = (together, others + 1);
            }
        }
    }
    parts[..count]
        .sort_unstable_by(|a, b| b.nats.total_cmp(&a.nats).then(a.template.cmp(&b.template)));
    Some(Surplus {
        nats,
        minutes: HORIZONS_MS[scale] / 60_000.0,
        parts,
        count,
    })
}

/// Evidence of `k` pairs of a service, one of the window and `others`, whose evidence adds up to `nats`.
///
/// Of its `K` pairs `n` are in the window: for each of those there are `min(C(K, k), n C(K - 1, k - 1)) / n`
/// such sets to choose from. By chance the evidence of a pair is exponential at most. A sum of several
/// goes as far in more ways than one: the tail of a gamma distribution, of what is beyond the `ln K`
/// that the largest of `K` bring anyway. The pairs share the lines of their service, so that one's
/// excess is the others' lack: taking them for independent overstates nothing.
fn together(nats: f64, others: usize, siblings: Siblings) -> f64 {
    let Siblings { all, here } = siblings;
    let k = draws(others + 1);
    let beyond = (nats - k * all.ln()).max(0.0);
    let mut ways = (all / (k * here)).ln().min(0.0);
    let (mut term, mut tail) = (1.0_f64, 1.0_f64);
    for number in (1_u32..).map(f64::from).take(others) {
        ways += ((all - number) / number).ln();
        term *= beyond / number;
        tail += term;
    }
    nats - ways - tail.ln()
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
    use crate::{
        features::{PairFact, ServiceFact, TemplateFact},
        model::signals::any_of,
    };

    /// Relative variance of every share, and what few lines in training add to it.
    const VARIATION: f64 = 0.01;
    const SPREAD: f64 = VARIATION + 1.0 / 1_001.0;

    /// A model that knows twenty pairs of one service: these, which are templates 1, 2 and so on with
    /// these shares, and some that never come.
    struct Known<'a>(&'a [f64]);

    impl Usuals for Known<'_> {
        fn usual(&self, of: u32) -> Option<Usual> {
            let mut shares = (1..).zip(self.0);
            let (template, share) = shares.find(|(template, _)| key(Some(0), *template) == of)?;
            Some(Usual {
                service: Some(0),
                template,
                share: *share,
                lines: 1_000.0,
                variation: [VARIATION; SCALES.len()],
            })
        }

        fn pairs_of(&self, _: usize) -> usize {
            20
        }
    }

    /// A window of that service with these counts per template.
    fn window(counts: &[u32], shares: &[f64]) -> Observed {
        let pair = |(template, (count, share)): (u64, (&u32, &f64))| PairFact {
            template,
            service: 0,
            count: *count,
            fact: TemplateFact::familiar(*share),
        };
        let pairs = (1..).zip(counts.iter().zip(shares)).map(pair);
        Observed {
            services: vec![ServiceFact {
                known: Some(0),
                lines: counts.iter().sum(),
                critical: 0,
            }],
            pairs: pairs.filter(|pair| pair.count > 0).collect(),
            ..Observed::default()
        }
    }

    /// Most of the lines, and three templates that come once in a hundred.
    const SHARES: [f64; 4] = [0.9, 0.01, 0.01, 0.01];

    fn observe(drift: &mut Drift, counts: &[u32]) -> Excesses {
        drift.observe(&window(counts, &SHARES), &Known(&SHARES), 30_000, 1.0)
    }

    fn templates(surplus: &Surplus) -> Vec<u64> {
        surplus.parts().iter().map(|part| part.template).collect()
    }

    #[test]
    fn pairs_of_a_service_that_each_say_little_add_up() {
        let three = observe(&mut Drift::default(), &[200, 9, 9, 9]);
        let three = three.most(|_| true).unwrap();
        assert_eq!(templates(&three), [2, 3, 4]);
        assert!(three.parts().iter().all(|part| part.nats < 7.5));
        let one = observe(&mut Drift::default(), &[200, 9, 2, 2]);
        let one = one.most(|_| true).unwrap();
        assert_eq!(templates(&one), [2]);
        assert!(three.nats > one.nats + 3.0, "{three:?} {one:?}");
    }

    #[test]
    fn a_pair_that_says_it_all_counts_by_itself_and_nearly_as_it_would_alone() {
        let excesses = observe(&mut Drift::default(), &[200, 40, 5, 0]);
        let surplus = excesses.most(|_| true).unwrap();
        assert_eq!(templates(&surplus), [2]);
        let alone = tail_nats(40.0, 2.45, SPREAD);
        assert!((surplus.nats - alone).abs() < 1e-6, "{surplus:?} {alone}");
        // Up to four pairs are looked at where it was one.
        let (now, before) = (any_of(alone, LOOKS * 3), any_of(alone, 2 * 3));
        assert!(before - now < 1.4, "{now} {before}");
    }

    #[test]
    fn what_stays_away_counts_beside_one_that_came_and_not_without() {
        let mut drift = Drift::default();
        observe(&mut drift, &[200, 30, 30, 0]);
        let excesses = observe(&mut drift, &[200, 0, 0, 30]);
        let surplus = excesses.most(|_| true).unwrap();
        assert_eq!(templates(&surplus), [4, 2, 3]);
        let places: Vec<_> = surplus.parts().iter().map(|part| part.place).collect();
        assert_eq!(places, [Some(1), None, None]);
        let muted = |template: u64| excesses.most(|excess| excess.template != template);
        assert_eq!(templates(&muted(3).unwrap()), [4, 2]);
        assert_eq!(muted(4), None);
        assert_eq!(observe(&mut drift, &[200, 0, 0, 0]).most(|_| true), None);
    }

    #[test]
    fn what_was_loud_is_no_news_because_something_faint_came() {
        let mut drift = Drift::default();
        observe(&mut drift, &[200, 90, 0, 0]);
        let faint = observe(&mut drift, &[200, 0, 9, 0]);
        let faint = faint.most(|_| true).unwrap();
        let mut parts = faint.parts().iter();
        let came = parts.find(|part| part.place.is_some()).unwrap();
        assert!(faint.nats <= 2.0 * came.nats, "{faint:?}");
    }

    #[test]
    fn what_was_told_of_is_the_level_of_all_of_them() {
        let mut told = Drift::default();
        let excesses = observe(&mut told, &[200, 9, 9, 9]);
        let surplus = excesses.most(|_| true).unwrap();
        let mut untold = told.clone();
        told.settle(&surplus);
        assert_eq!(told.pairs.iter().filter(|sums| sums.2 > 1.0).count(), 3);
        for _ in 0..10 {
            let more = observe(&mut told, &[200, 9, 9, 9]);
            let more = more.most(|_| true).map_or(0.0, |surplus| surplus.nats);
            assert!(more < 1.0, "{more}");
        }
        let again = observe(&mut untold, &[200, 9, 9, 9]).most(|_| true);
        assert!(again.unwrap().nats > surplus.nats);
    }

    /// Windows of twenty lines of twenty templates, the next common by a fifth less; the same each time.
    fn ordinary(count: usize) -> (Vec<f64>, Vec<Vec<u32>>) {
        let weights: Vec<f64> = (0..20).map(|template| 0.8_f64.powi(template)).collect();
        let total: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let mut state = 7_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(1_u32 << 31)
        };
        let mut line = || {
            let mut at = random();
            let drawn = shares.iter().position(|share| {
                at -= share;
                at < 0.0
            });
            drawn.unwrap_or(0)
        };
        let windows = (0..count).map(|_| {
            let mut counts = vec![0; shares.len()];
            (0..20).for_each(|_| counts[line()] += 1);
            counts
        });
        let windows = windows.collect();
        (shares, windows)
    }

    #[test]
    fn chance_does_not_add_up() {
        let (shares, windows) = ordinary(400);
        let mut drift = Drift::default();
        for (number, counts) in windows.iter().enumerate() {
            let observed = window(counts, &shares);
            let excesses = drift.observe(&observed, &Known(&shares), 30_000, 1.0);
            if let Some(surplus) = excesses.most(|_| true) {
                let nats = any_of(surplus.nats, LOOKS * observed.pairs.len());
                assert!(nats < 2.0, "window {number}: {surplus:?}");
            }
        }
    }

    #[test]
    fn what_was_stored_says_the_same_bit_for_bit() {
        let (shares, windows) = ordinary(100);
        let mut drift = Drift::default();
        for counts in &windows {
            let observed = window(counts, &shares);
            let json = serde_json::to_string(&drift).unwrap();
            let mut restored: Drift = serde_json::from_str(&json).unwrap();
            let [one, other] = [&mut drift, &mut restored].map(|drift| {
                let excesses = drift.observe(&observed, &Known(&shares), 30_000, 1.0);
                let surplus = excesses.most(|_| true);
                surplus.inspect(|surplus| drift.settle(surplus))
            });
            assert_eq!(one, other);
            assert_eq!(drift, restored);
        }
        // As rows had it before pairs were judged together.
        let old =
            r#"{"services":[[1,[20.0,30.5]]],"pairs":[[7,[1.0,2.5],1.0],[9,[0.5,0.75],3.2]]}"#;
        let read: Drift = serde_json::from_str(old).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        assert_eq!(
            serde_json::from_str::<Drift>("{}").unwrap(),
            Drift::default()
        );
    }

    #[test]
    fn where_there_are_too_many_pairs_those_with_most_lines_are_kept() {
        let mut shares = vec![0.7 / 99.0; 99];
        shares.push(0.3);
        let mut counts = vec![1; 99];
        counts.push(42);
        let mut drift = Drift::default();
        drift.observe(&window(&counts, &shares), &Known(&shares), 30_000, 1.0);
        assert_eq!(drift.pairs.len(), PAIRS_MAX);
        let common = key(Some(0), 100);
        assert!(drift.pairs.iter().any(|sums| sums.0 == common));
    }

    #[test]
    fn a_level_stays_a_number_whatever_was_expected() {
        let (mut drift, shares) = (Drift::default(), [1e-300]);
        let observed = window(&[4_000_000_000], &shares);
        let excesses = drift.observe(&observed, &Known(&shares), 30_000, 1.0);
        drift.settle(&excesses.most(|_| true).unwrap());
        let json = serde_json::to_string(&drift).unwrap();
        assert_eq!(serde_json::from_str::<Drift>(&json).unwrap(), drift);
        assert!(drift.pairs[0].2 <= LEVEL_MAX);
    }
}
