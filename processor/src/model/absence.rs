//! What comes regularly and stays away: a heartbeat, a service.
//!
//! ```text
//! training ─► Lulls ─► the entities worth watching (Regular)
//! stream   ─► Absences: how long each has been away, and how it used to be
//! ```
//!
//! Time away is measured in lines that were to be expected, while the service (of a template) or the
//! stream (of a service) goes on writing: what is quiet at night stays away longer then. Only what
//! the stream itself has seen can be missing, and a stream judges by its own past.

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
/// Evidence from which an absence is news and teaches nothing, in nats.
const LOUD_NATS: f64 = 9.0;
/// Windows of an absence that are news; then it has been told often enough.
const LOUD_WINDOWS: u32 = 5;
/// Windows away after which an entity is forgotten: 2 h at 30 s, as for the volume.
const FORGOTTEN_WINDOWS: u32 = super::LEVEL_SHIFT_WINDOWS;
/// Weight of what training says of returns, in expected lines.
const RETURNS_PRIOR: f64 = 10.0;

/// What training saw of one entity: times it stayed away while its service (or the stream) wrote.
#[derive(Clone, Copy, Debug, Default)]
struct Lull {
    /// Windows and lines of its service up to its last line.
    windows_at: u64,
    lines_at: f64,
    first_at: Option<u64>,
    /// Windows it came in.
    came: u64,
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
            let elapsed = &mut self.of_service[service];
            elapsed.windows += 1;
            elapsed.lines += std::mem::take(&mut self.lines[service]);
            self.services[service].come(self.all);
        }
        for pair in &window.pairs {
            let number = pair.pair as usize;
            if self.pairs.len() <= number {
                self.pairs.resize(number + 1, Lull::default());
            }
            let service = keys[number].0 as usize;
            self.pairs[number].come(self.of_service[service]);
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
            // The sort is stable: ties keep the order of the numbers.
            list.sort_by(|a, b| b.1.total_cmp(&a.1));
        }
        services.truncate(REGULARS_MAX / 2);
        let all = services.into_iter().chain(pairs);
        all.map(|(regular, _)| regular).take(REGULARS_MAX).collect()
    }
}

impl Lull {
    fn come(&mut self, now: Elapsed) {
        if self.first_at.is_none() {
            self.first_at = Some(now.windows);
        } else {
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
        (came >= 2.0 * WINDOWS_MIN && since < f64::from(FORGOTTEN_WINDOWS)).then(|| Regular {
            service,
            template,
            share: share.clamp(1e-9, 1.0),
            returns: (self.absences + HABIT_ABSENCES) / (self.lines_away * share + HABIT_ABSENCES),
        })
    }

    /// Evidence that an absence of [`NOTICE_WINDOWS`] brings.
    fn notice(&self, regular: &Regular, now: Elapsed) -> f64 {
        #[allow(
            clippy::cast_precision_loss,
            reason = "window counts are far below 2^52"
        )]
        let (windows, first) = (now.windows as f64, self.first_at.unwrap_or(0) as f64);
        let away = self.windows_away * self.absences / (self.absences + HABIT_ABSENCES);
        let expected = regular.share * now.lines / windows.max(1.0);
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
    /// lines were to be expected.
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
            if here {
                entity.come(expected);
            } else if expected > 0.0 {
                let away = entity.stay_away((*id, regular), expected);
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

    fn stay_away(&mut self, (id, regular): (u64, &Regular), expected: f64) -> Missing {
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
        } else if nats >= LOUD_NATS {
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
