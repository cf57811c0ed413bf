//! What comes regularly and stays away: a heartbeat, a service.
//!
//! ```text
//! training ─► Lulls ─► the entities worth watching (Regular)
//! stream   ─► Absences: how long each has been away, and how it used to be
//! ```
//!
//! Time away is measured in lines that were to be expected, while the service (of a template) or the
//! stream (of a service) goes on writing: what is quiet at night stays away longer then. What goes by
//! time and not by traffic, training tells from how seldom it was away; of that each window makes
//! expect its usual lines at least. Only what the stream itself has seen can be missing, and a stream
//! judges by its own past.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    drift::{fine, key, short},
    history::TrainingWindow,
};
use crate::features::Observed;

/// Most templates and services watched; they ride in every row.
pub(super) const REGULARS_MAX: usize = 64;
/// Absences that make a habit of staying away; fewer are discounted as incidents.
const HABIT_ABSENCES: f64 = 20.0;
/// Windows away in which an entity has to become news to be worth watching: 5 minutes at 30 s.
const NOTICE_WINDOWS: f64 = 10.0;
/// Evidence that this has to bring, in nats: less than once a day of 30 s windows.
const NOTICE_NATS: f64 = 8.0;
/// Windows with an entity before it is judged.
const WINDOWS_MIN: f64 = 20.0;
/// Windows over which a stream's own past fades: a day at 30 s.
const MEMORY_WINDOWS: f64 = 2_880.0;
/// Evidence from which an absence is news and teaches nothing, in nats, corrected for all that are watched.
const LOUD_NATS: f64 = 9.0;
/// Windows of an absence that are news; then it has been told often enough.
const LOUD_WINDOWS: u32 = 5;
/// Windows away after which an entity is forgotten: 2 h at 30 s, as for the volume.
const FORGOTTEN_WINDOWS: u32 = super::LEVEL_SHIFT_WINDOWS;
/// Weight of what training says of returns, in expected lines.
const RETURNS_PRIOR: f64 = 10.0;
/// Windows that chance would have to keep an entity away from before it can be told to go by time.
const CHANCE_WINDOWS_MIN: f64 = 10.0;
/// Largest share of those that such an entity is away from: incidents keep it away from some.
const STEADY_SHARE: f64 = 0.5;
/// Windows that it is taken to be away from besides: a few more or less are luck.
const STEADY_PRIOR_WINDOWS: f64 = 3.0;

/// What training saw of one entity: times it stayed away while its service (or the stream) wrote.
#[derive(Clone, Copy, Debug, Default)]
struct Lull {
    /// Windows and lines of its service up to its last line.
    windows_at: u64,
    lines_at: f64,
    /// Those up to the window of its first line.
    first: Option<Elapsed>,
    /// Windows it came in.
    came: u64,
    /// Its own lines, without those of the first window.
    lines: f64,
    absences: f64,
    windows_away: f64,
    /// Lines of its service from its last line to its return, all absences together.
    lines_away: f64,
}

/// Windows and lines so far.
#[derive(Clone, Copy, Debug, Default)]
struct Elapsed {
    windows: u64,
    lines: f64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Lulls {
    pairs: Vec<Lull>,
    services: Vec<Lull>,
    of_service: Vec<Elapsed>,
    all: Elapsed,
    lines: Vec<f64>,
}

/// A service, or a template of it, that comes regularly enough to be missed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Regular {
    /// Number of the service.
    pub(super) service: u32,
    /// Number of the template; the service as a whole if there is none.
    pub(super) template: Option<u32>,
    /// Share of the service's lines, or of all lines.
    pub(super) share: f64,
    /// Chance to come back per line that is to be expected.
    pub(super) returns: f64,
    /// Its usual lines in a window in which its service (or the stream) writes, if it goes by time;
    /// none if it goes by traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) steady: Option<f64>,
}

impl Regular {
    /// Returns the lines to be expected in `windows` windows of which traffic makes expect `lines`.
    fn expected(&self, lines: f64, windows: f64) -> f64 {
        self.steady
            .map_or(lines, |usual| lines.max(usual * windows))
    }
}

impl Lulls {
    /// Adds a window that has lines.
    pub(super) fn add(&mut self, window: &TrainingWindow, keys: &[(u32, u32)]) {
        self.all.windows += 1;
        self.all.lines += f64::from(window.lines());
        let mut services = Vec::new();
        for pair in &window.pairs {
            let service = keys[pair.pair as usize].0 as usize;
            if self.lines.len() <= service {
                self.lines.resize(service + 1, 0.0);
                self.of_service.resize(service + 1, Elapsed::default());
                self.services.resize(service + 1, Lull::default());
            }
            if self.lines[service] <= 0.0 {
                services.push(service);
            }
            self.lines[service] += f64::from(pair.lines);
        }
        for &service in &services {
            let lines = std::mem::take(&mut self.lines[service]);
            let elapsed = &mut self.of_service[service];
            elapsed.windows += 1;
            elapsed.lines += lines;
            self.services[service].come(self.all, lines);
        }
        for pair in &window.pairs {
            let number = pair.pair as usize;
            if self.pairs.len() <= number {
                self.pairs.resize(number + 1, Lull::default());
            }
            let service = keys[number].0 as usize;
            self.pairs[number].come(self.of_service[service], f64::from(pair.lines));
        }
    }

    /// Returns what is worth watching, services first. `shares` are those of the pairs.
    pub(super) fn regulars(
        &self,
        keys: &[(u32, u32)],
        share: impl Fn(usize, usize) -> f64,
    ) -> Vec<Regular> {
        let mut services: Vec<_> = (0_u32..)
            .zip(&self.services)
            .filter_map(|(service, lull)| {
                let lines = self.of_service[service as usize].lines;
                let share = lines / self.all.lines.max(1.0);
                let regular = lull.regular((service, None), share, self.all)?;
                Some((regular, lull.notice(&regular, self.all)))
            })
            .collect();
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .zip(keys)
            .filter_map(|(lull, &(service, template))| {
                let elapsed = self.of_service[service as usize];
                let share = share(service as usize, template as usize);
                let regular = lull.regular((service, Some(template)), share, elapsed)?;
                Some((regular, lull.notice(&regular, elapsed)))
            })
            .collect();
        for list in [&mut services, &mut pairs] {
            list.retain(|(_, nats)| *nats >= NOTICE_NATS);
            // What goes by the clock has nobody else to miss it, and is rarer than what is told of most
            // surely. The sort is stable: ties keep the order of the numbers.
            list.sort_by(|(a, less), (b, more)| {
                let by_clock = b.steady.is_some().cmp(&a.steady.is_some());
                by_clock.then(more.total_cmp(less))
            });
        }
        services.truncate(REGULARS_MAX / 2);
        let all = services.into_iter().chain(pairs);
        all.map(|(regular, _)| regular).take(REGULARS_MAX).collect()
    }
}

impl Lull {
    /// It came with `lines` lines in the window up to which its service is `now`.
    fn come(&mut self, now: Elapsed, lines: f64) {
        if self.first.is_none() {
            self.first = Some(now);
        } else {
            self.lines += lines;
            #[allow(
                clippy::cast_precision_loss,
                reason = "window counts are far below 2^52"
            )]
            let away = now.windows.saturating_sub(self.windows_at + 1) as f64;
            if away > 0.0 {
                self.absences += 1.0;
                self.windows_away += away;
                self.lines_away += now.lines - self.lines_at;
            }
        }
        self.came += 1;
        self.windows_at = now.windows;
        self.lines_at = now.lines;
    }

    fn regular(
        &self,
        (service, template): (u32, Option<u32>),
        share: f64,
        now: Elapsed,
    ) -> Option<Regular> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "window counts are far below 2^52"
        )]
        let (came, since) = (
            self.came as f64,
            now.windows.saturating_sub(self.windows_at) as f64,
        );
        // One that training ended without is gone.
        if came < 2.0 * WINDOWS_MIN || since >= f64::from(FORGOTTEN_WINDOWS) {
            return None;
        }
        let mut regular = Regular {
            service,
            template,
            share: share.clamp(1e-9, 1.0),
            returns: 1.0,
            steady: self.steady(now),
        };
        // As in a stream, an absence goes on to the end of the window of the return.
        let windows = self.windows_away + self.absences;
        let expected = regular.expected(self.lines_away * share, windows);
        regular.returns = (self.absences + HABIT_ABSENCES) / (expected + HABIT_ABSENCES);
        Some(regular)
    }

    /// Returns its usual lines a window if it goes by time: if it was away from far fewer windows
    /// than it would have been, were each line of its service one of its own by chance.
    ///
    /// Those are fewest if all windows have as many lines (the chance to be in none of them is convex
    /// in their number), so that what is counted is a lower bound: a rhythm only adds to it. It also
    /// says that absences were rarer than the usual lines by themselves would make them.
    fn steady(&self, now: Elapsed) -> Option<f64> {
        let first = self.first?;
        // After the first window, which it is in by definition.
        let windows = now.windows.saturating_sub(first.windows);
        let away = (windows + 1).saturating_sub(self.came);
        #[allow(
            clippy::cast_precision_loss,
            reason = "window counts are far below 2^52"
        )]
        let (windows, away) = (windows as f64, away as f64);
        let lines = now.lines - first.lines;
        let chance = (1.0 - self.lines / lines.max(1.0)).max(0.0);
        let by_chance = windows * chance.powf(lines / windows.max(1.0));
        let is_steady = by_chance >= CHANCE_WINDOWS_MIN
            && away + STEADY_PRIOR_WINDOWS <= STEADY_SHARE * by_chance;
        is_steady.then_some(self.lines / windows)
    }

    /// Evidence that an absence of [`NOTICE_WINDOWS`] brings.
    fn notice(&self, regular: &Regular, now: Elapsed) -> f64 {
        #[allow(
            clippy::cast_precision_loss,
            reason = "window counts are far below 2^52"
        )]
        let (windows, first) = (
            now.windows as f64,
            self.first.map_or(0, |first| first.windows) as f64,
        );
        let away = self.windows_away * self.absences / (self.absences + HABIT_ABSENCES);
        let expected = regular.expected(regular.share * now.lines / windows.max(1.0), 1.0);
        let first_window = ((windows - first + 1.0) / (away + 0.5)).max(1.0).ln();
        first_window + regular.returns * expected * (NOTICE_WINDOWS - 1.0)
    }
}

/// The entities of a model, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// Key, what it can be muted by, and the entity.
    entries: Vec<(u32, u64, Regular)>,
    places: HashMap<u32, usize>,
}

impl Watch {
    /// `id` gives what an entity can be muted by: a template's is its identity.
    pub(super) fn new(regulars: &[Regular], id: impl Fn(&Regular) -> u64) -> Self {
        let mut entries: Vec<_> = regulars
            .iter()
            .map(|regular| {
                let id = id(regular);
                let template = regular.template.map_or(0, |_| id);
                (key(Some(regular.service as usize), template), id, *regular)
            })
            .collect();
        entries.sort_unstable_by_key(|(key, ..)| *key);
        entries.dedup_by_key(|(key, ..)| *key);
        let places = entries.iter().map(|(key, ..)| *key).zip(0..).collect();
        Self { entries, places }
    }

    /// Returns per entity, in the order of the keys, whether it is in a window and how many of its
    /// lines were to be expected by traffic.
    fn look(&self, observed: &Observed, clump: f64) -> Vec<(bool, f64)> {
        let mut seen = vec![(false, 0.0); self.entries.len()];
        let mut lines: Vec<(usize, f64)> = Vec::with_capacity(observed.services.len());
        for service in &observed.services {
            let Some(number) = service.known.filter(|_| service.lines > 0) else {
                continue;
            };
            lines.push((number, f64::from(service.lines)));
            if let Some(&place) = self.places.get(&key(Some(number), 0)) {
                seen[place].0 = true;
            }
        }
        for pair in &observed.pairs {
            let service = observed.services[pair.service].known;
            if service.is_some()
                && let Some(&place) = self.places.get(&key(service, pair.template))
            {
                seen[place].0 = true;
            }
        }
        let all = f64::from(observed.lines());
        for (seen, (.., regular)) in seen.iter_mut().zip(&self.entries) {
            let of = match regular.template {
                None => all,
                Some(_) => lines
                    .iter()
                    .find(|(number, _)| *number == regular.service as usize)
                    .map_or(0.0, |(_, lines)| *lines),
            };
            seen.1 = of * regular.share / clump;
        }
        seen
    }
}

/// How the entities of one stream come and go; rides in its rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Absences(Vec<Entity>);

/// One entity that the stream has seen. Stored as a list, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
struct Entity {
    key: u32,
    /// Windows, those in which it stayed away, times it did, and lines expected until it was back.
    windows: f64,
    windows_away: f64,
    absences: f64,
    lines_away: f64,
    /// The absence under way: windows, lines expected, those of the first window, loud windows.
    away: u32,
    expected: f64,
    first_expected: f64,
    loud: u32,
}

type Packed = (u32, f64, f64, f64, f64, u32, f64, f64, u32);

impl From<Entity> for Packed {
    fn from(e: Entity) -> Self {
        (
            e.key,
            e.windows,
            e.windows_away,
            e.absences,
            e.lines_away,
            e.away,
            e.expected,
            e.first_expected,
            e.loud,
        )
    }
}

impl From<Packed> for Entity {
    fn from(packed: Packed) -> Self {
        let (key, windows, windows_away, absences, lines_away, ..) = packed;
        let (.., away, expected, first_expected, loud) = packed;
        Self {
            key,
            windows,
            windows_away,
            absences,
            lines_away,
            away,
            expected,
            first_expected,
            loud,
        }
    }
}

/// An entity that is away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Missing {
    /// By what it can be muted: a template's identity, or that of the text a service goes by.
    pub(super) id: u64,
    /// Evidence, in nats, of this one entity.
    pub(super) nats: f64,
    pub(super) regular: Regular,
    /// Windows that it has been away.
    pub(super) windows: u32,
    /// Share of the stream's windows that it came in before.
    pub(super) presence: f64,
    /// Lines that were to be expected.
    pub(super) expected: f64,
    /// Entities looked at.
    pub(super) watched: usize,
}

impl Absences {
    /// Returns about how many bytes the entities take beside the struct.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Entity>()
    }

    /// Adds a window; returns the remarkable absences, most remarkable first.
    pub(super) fn observe(
        &mut self,
        watch: &Watch,
        observed: &Observed,
        clump: f64,
    ) -> Vec<Missing> {
        let mut missing: Vec<Missing> = Vec::new();
        let seen = watch.look(observed, clump);
        #[allow(clippy::cast_precision_loss, reason = "at most 64")]
        let loud_nats = LOUD_NATS + (watch.entries.len().max(1) as f64).ln();
        let mut known = std::mem::take(&mut self.0).into_iter().peekable();
        for ((key, id, regular), (here, expected)) in watch.entries.iter().zip(seen) {
            while known.next_if(|entity| entity.key < *key).is_some() {}
            let entity = known.next_if(|entity| entity.key == *key);
            let Some(mut entity) = entity.or_else(|| {
                here.then(|| Entity {
                    key: *key,
                    ..Entity::default()
                })
            }) else {
                continue;
            };
            let expected = entity.expected(regular, expected);
            if here {
                entity.come(expected);
            } else if expected > 0.0 {
                let away = entity.stay_away((*id, regular), expected, loud_nats);
                missing.extend((away.nats > 0.0).then_some(away));
            }
            if entity.away < FORGOTTEN_WINDOWS {
                self.0.push(entity);
            }
        }
        let watched = self.0.len();
        missing.iter_mut().for_each(|away| away.watched = watched);
        // The sort is stable: ties keep the order of the keys.
        missing.sort_by(|a, b| b.nats.total_cmp(&a.nats));
        missing
    }
}

impl Entity {
    /// Returns the lines to be expected in a window of which traffic makes expect `lines`. Training sees all
    /// of a topic as one stream: one of many that share its beats is away for longer than their clock says,
    /// and goes by traffic.
    fn expected(&self, regular: &Regular, lines: f64) -> f64 {
        let agrees = |usual: f64| {
            let by_chance = self.windows * (-usual).exp();
            self.windows_away <= by_chance + STEADY_PRIOR_WINDOWS
        };
        if lines > 0.0 && regular.steady.is_some_and(agrees) {
            regular.expected(lines, 1.0)
        } else {
            lines
        }
    }

    /// It is there. An absence that was news is no habit.
    fn come(&mut self, expected: f64) {
        if self.away > 0 && self.loud == 0 {
            self.windows += f64::from(self.away);
            self.windows_away += f64::from(self.away);
            self.absences += 1.0;
            self.lines_away = short(self.lines_away + self.expected + expected);
        }
        self.windows += 1.0;
        if self.windows > MEMORY_WINDOWS {
            let keep = MEMORY_WINDOWS / self.windows;
            self.windows = MEMORY_WINDOWS;
            for sum in [
                &mut self.windows_away,
                &mut self.absences,
                &mut self.lines_away,
            ] {
                *sum = fine(*sum * keep);
            }
        }
        (self.away, self.loud) = (0, 0);
        (self.expected, self.first_expected) = (0.0, 0.0);
    }

    fn stay_away(
        &mut self,
        (id, regular): (u64, &Regular),
        expected: f64,
        loud_nats: f64,
    ) -> Missing {
        if self.away == 0 {
            self.first_expected = short(expected);
        }
        self.away = self.away.saturating_add(1);
        self.expected = short(self.expected + expected);
        let returns =
            (self.absences + RETURNS_PRIOR * regular.returns) / (self.lines_away + RETURNS_PRIOR);
        let first = ((self.windows + 1.0) / (self.windows_away + 0.5))
            .max(1.0)
            .ln();
        let mut nats = first + returns * (self.expected - self.first_expected);
        if self.windows < WINDOWS_MIN || self.loud >= LOUD_WINDOWS {
            nats = 0.0;
        } else if nats >= loud_nats {
            self.loud += 1;
        }
        Missing {
            id,
            nats,
            regular: *regular,
            windows: self.away,
            presence: 1.0 - self.windows_away / self.windows.max(1.0),
            expected: self.expected,
            watched: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Level,
        features::{PairFact, ServiceFact, TemplateFact},
    };

    /// Windows of a day at 30 s.
    const DAY: i64 = 2_880;

    fn is_night(number: i64) -> bool {
        number % DAY >= DAY / 2
    }

    /// What two days of training make of pairs, which are templates 0, 1 …; `lines` says how many lines each
    /// has in a window.
    fn trained<const N: usize>(
        keys: [(u32, u32); N],
        mut lines: impl FnMut(i64) -> [u32; N],
    ) -> (Lulls, Vec<Regular>) {
        let mut lulls = Lulls::default();
        for number in 0..2 * DAY {
            let pairs = (0..).zip(lines(number)).filter(|(_, lines)| *lines > 0);
            lulls.add(&TrainingWindow::made(number, pairs), &keys);
        }
        let share = |service: usize, template: usize| {
            lulls.pairs[template].lines / lulls.of_service[service].lines
        };
        let regulars = lulls.regulars(&keys, share);
        (lulls, regulars)
    }

    fn of(regulars: &[Regular], service: u32, template: Option<u32>) -> Regular {
        let mut found = regulars.iter();
        let is_it = |r: &&Regular| r.service == service && r.template == template;
        found.find(is_it).copied().unwrap()
    }

    /// Template 0 comes twice a window unless it is `away`; template 1 is loud by day and nearly
    /// silent by night.
    fn beats(away: impl Fn(i64) -> bool) -> impl Fn(i64) -> [u32; 2] {
        move |number| {
            let beats = if away(number) { 0 } else { 2 };
            [beats, if is_night(number) { 1 } else { 40 }]
        }
    }

    fn watch(regular: Regular) -> Watch {
        Watch::new(&[regular], |regular| {
            regular
                .template
                .map_or(0, |template| u64::from(template) + 1)
        })
    }

    /// A window of service 0 with so many lines of its templates 0 and 1.
    fn window(counts: [u32; 2]) -> Observed {
        let fact = TemplateFact::familiar(0.5);
        let pairs = (1..).zip(counts).filter(|(_, count)| *count > 0);
        let pairs = pairs.map(|(template, count)| PairFact {
            template,
            service: 0,
            count,
            fact,
        });
        let lines = counts.iter().sum();
        let mut observed = Observed {
            services: vec![ServiceFact {
                known: Some(0),
                lines,
                critical: 0,
            }],
            pairs: pairs.collect(),
            ..Observed::default()
        };
        observed.levels[Level::Info as usize] = lines;
        observed
    }

    /// Evidence in each of ten windows of a night without template 0, after a hundred with it.
    fn evidence(regular: Regular) -> Vec<f64> {
        let (watch, mut absences) = (watch(regular), Absences::default());
        for _ in 0..100 {
            let missing = absences.observe(&watch, &window([2, 40]), 1.0);
            assert!(missing.is_empty(), "{missing:?}");
        }
        let nights = (0..10).map(|_| absences.observe(&watch, &window([0, 1]), 1.0));
        nights
            .map(|missing| missing.first().map_or(0.0, |missing| missing.nats))
            .collect()
    }

    #[test]
    fn a_beat_is_missed_at_night_although_its_service_hardly_writes() {
        let (_, regulars) = trained([(0, 0), (0, 1)], beats(|_| false));
        let beat = of(&regulars, 0, Some(0));
        assert_eq!(beat.steady, Some(2.0));
        assert_eq!(of(&regulars, 0, Some(1)).steady, None);
        // By traffic ten windows are worth little more than one.
        let by_traffic = evidence(Regular {
            steady: None,
            ..beat
        });
        let is_faint = |nats: &f64| *nats < LOUD_NATS - 2.0;
        assert!(by_traffic.iter().all(is_faint), "{by_traffic:?}");
        let by_time = evidence(beat);
        assert!(
            by_time[1] < LOUD_NATS && by_time[2] >= LOUD_NATS,
            "{by_time:?}"
        );
    }

    #[test]
    fn incidents_leave_a_beat_steady_and_its_returns_are_measured_by_time() {
        let away = |number: i64| (2_000..2_030).contains(&(number % DAY));
        let (lulls, regulars) = trained([(0, 0), (0, 1)], beats(away));
        let beat = of(&regulars, 0, Some(0));
        let usual = beat.steady.unwrap();
        assert!((1.9..2.0).contains(&usual), "{usual}");
        // Two absences of thirty windows and that of the return.
        let returns = (2.0 + HABIT_ABSENCES) / (62.0 * usual + HABIT_ABSENCES);
        assert!((beat.returns - returns).abs() < 1e-9, "{beat:?}");
        assert!(lulls.pairs[0].lines_away * beat.share < 10.0);
    }

    #[test]
    fn a_service_may_be_steady_as_well() {
        let (_, regulars) = trained([(0, 0), (1, 1)], beats(|_| false));
        assert_eq!(of(&regulars, 0, None).steady, Some(2.0));
        assert_eq!(of(&regulars, 1, None).steady, None);
        // Where it is all that its service writes, the service's lines are its clock.
        assert_eq!(of(&regulars, 0, Some(0)).steady, None);
    }

    #[test]
    fn a_beat_among_many_busy_templates_is_watched() {
        const MANY: usize = REGULARS_MAX + 10;
        let keys =
            std::array::from_fn::<_, MANY, _>(|template| (0, u32::try_from(template).unwrap()));
        let (_, regulars) = trained(keys, |number| {
            let mut lines = [if is_night(number) { 10 } else { 40 }; MANY];
            lines[0] = 2;
            lines
        });
        assert_eq!(regulars.len(), REGULARS_MAX);
        assert_eq!(of(&regulars, 0, Some(0)).steady, Some(2.0));
    }

    #[test]
    fn what_goes_by_traffic_is_judged_by_traffic() {
        let mut state = 1_u64;
        // Each line of the service is one of template 0 with a chance of a fifth.
        let mut drawn = |lines: u32| -> u32 {
            let lines = (0..lines).map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                u32::from((state >> 33).is_multiple_of(5))
            });
            lines.sum()
        };
        let (lulls, regulars) = trained([(0, 0), (0, 1)], |number| {
            let lines = if is_night(number) { 4 } else { 40 };
            let own = drawn(lines);
            [own, lines - own]
        });
        let regular = of(&regulars, 0, Some(0));
        assert_eq!(regular.steady, None);
        let lull = &lulls.pairs[0];
        let returns =
            (lull.absences + HABIT_ABSENCES) / (lull.lines_away * regular.share + HABIT_ABSENCES);
        assert!((regular.returns - returns).abs() < 1e-9, "{regular:?}");
        let seen = watch(regular).look(&window([0, 4]), 1.0);
        assert!(!seen[0].0 && (seen[0].1 - 4.0 * regular.share).abs() < 1e-9);
    }

    #[test]
    fn a_stream_that_has_one_beat_of_many_goes_by_traffic() {
        let (_, regulars) = trained([(0, 0), (0, 1)], beats(|_| false));
        let beat = of(&regulars, 0, Some(0));
        let by_traffic = Regular {
            steady: None,
            ..beat
        };
        let ends = [beat, by_traffic].map(|regular| {
            let (watch, mut absences) = (watch(regular), Absences::default());
            // Every sixth beat of the topic comes here.
            for number in 0..600 {
                let beats = u32::from(number % 6 == 0);
                absences.observe(&watch, &window([beats, 7]), 1.0);
            }
            let missing = (0..12).map(|_| absences.observe(&watch, &window([0, 7]), 1.0));
            let nats = missing.map(|all| all.first().map_or(0.0, |missing| missing.nats));
            nats.fold(0.0, f64::max)
        });
        assert!(
            ends[0] < LOUD_NATS && ends[0] <= 2.0 * ends[1] + 1.0,
            "{ends:?}"
        );
    }

    #[test]
    fn nothing_is_expected_while_the_service_is_silent() {
        let (_, regulars) = trained([(0, 0), (0, 1)], beats(|_| false));
        let seen = watch(of(&regulars, 0, Some(0))).look(&window([0, 0]), 1.0);
        assert_eq!(seen, [(false, 0.0)]);
    }

    #[test]
    fn what_earlier_bundles_hold_goes_by_traffic() {
        let old = r#"{"service":0,"template":1,"share":0.1,"returns":0.5}"#;
        let regular: Regular = serde_json::from_str(old).unwrap();
        assert_eq!(regular.steady, None);
        assert_eq!(serde_json::to_string(&regular).unwrap(), old);
        let steady = Regular {
            steady: Some(2.0),
            ..regular
        };
        let json = serde_json::to_string(&steady).unwrap();
        assert_eq!(serde_json::from_str::<Regular>(&json).unwrap(), steady);
    }
}
