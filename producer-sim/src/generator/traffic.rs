//! Normal traffic: which service writes which family at which level.
//!
//! Holds the compiled families; draws from them but knows neither time nor incidents.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    event::Level,
    messages::{COMMON, Family, LEVEL_WEIGHTS, SERVICES},
    template::{Scene, Template, pick},
};

/// A family's place: service, level, number among that service's families of that level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Index into `SERVICES`.
    pub(super) service: usize,
    /// Level of the line.
    pub(super) level: Level,
    /// Index among the families of that service and level.
    pub(super) family: usize,
}

/// Things drawn with a weight each.
#[derive(Clone, Debug)]
struct Weighted<T> {
    items: Vec<T>,
    /// Running totals of the weights, as long as `items`.
    totals: Vec<u32>,
}

impl<T> Weighted<T> {
    const fn new() -> Self {
        Self {
            items: Vec::new(),
            totals: Vec::new(),
        }
    }

    fn push(&mut self, weight: u32, item: T) {
        let total = self.totals.last().copied().unwrap_or_default() + weight;
        self.items.push(item);
        self.totals.push(total);
    }

    /// Draws a place; 0 if there is nothing to draw from.
    fn draw(&self, rng: &mut ChaCha8Rng) -> usize {
        match self.totals.last() {
            Some(&total) if total > 0 => {
                let ticket = rng.random_range(0..total);
                self.totals.partition_point(|&upto| upto <= ticket)
            }
            _ => 0,
        }
    }
}

/// The compiled families of every service.
#[derive(Clone, Debug)]
pub(super) struct Catalog {
    services: Weighted<[Weighted<Template>; Level::ALL.len()]>,
    levels: Weighted<Level>,
}

impl Catalog {
    pub(super) fn new() -> Self {
        let mut services = Weighted::new();
        for service in SERVICES {
            services.push(service.weight, Self::by_level(service.families));
        }
        let mut levels = Weighted::new();
        for (level, weight) in Level::ALL.into_iter().zip(LEVEL_WEIGHTS) {
            levels.push(weight, level);
        }
        Self { services, levels }
    }

    fn by_level(own: &[Family]) -> [Weighted<Template>; Level::ALL.len()] {
        Level::ALL.map(|level| {
            let mut families = Weighted::new();
            for (_, weight, text) in own.iter().chain(COMMON).filter(|family| family.0 == level) {
                families.push(*weight, Template::compile(text));
            }
            families
        })
    }

    /// Draws the place of one ordinary line.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Place {
        let service = self.services.draw(rng);
        let level = self.levels.items[self.levels.draw(rng)];
        self.draw_family(service, level, rng)
    }

    /// Draws one of the families of `service` at `level`.
    pub(super) fn draw_family(&self, service: usize, level: Level, rng: &mut ChaCha8Rng) -> Place {
        let family = self.services.items[service][level as usize].draw(rng);
        Place {
            service,
            level,
            family,
        }
    }

    /// Returns the template at `place`, which came from this catalog.
    pub(super) fn template(&self, place: Place) -> &Template {
        &self.services.items[place.service][place.level as usize].items[place.family]
    }

    /// Appends one line of the family at `place` to `out`.
    pub(super) fn render(&self, place: Place, out: &mut String, rng: &mut ChaCha8Rng) {
        let scene = Scene {
            progress: 0.0,
            peer: pick_peer(place.service, rng),
        };
        self.template(place).render(out, rng, scene);
    }
}

/// Returns a service that `service` calls; its own name if it calls none.
pub(super) fn pick_peer(service: usize, rng: &mut ChaCha8Rng) -> &'static str {
    let service = &SERVICES[service];
    if service.depends_on.is_empty() {
        return service.name;
    }
    pick(service.depends_on, rng)
}

#[cfg(test)]
impl Catalog {
    /// Returns whether `service` writes `template` at `level` on ordinary days.
    pub(super) fn contains(&self, service: usize, level: Level, template: &Template) -> bool {
        self.services.items[service][level as usize]
            .items
            .contains(template)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_family_renders_without_leftover_braces() {
        let catalog = Catalog::new();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for service in 0..SERVICES.len() {
            for level in Level::ALL {
                let families = catalog.services.items[service][level as usize].items.len();
                assert!(families >= 2, "{service} {level:?}");
                for family in 0..families {
                    let place = Place {
                        service,
                        level,
                        family,
                    };
                    let mut out = String::new();
                    catalog.render(place, &mut out, &mut rng);
                    assert!(!out.contains(['{', '}']) && !out.is_empty(), "{out}");
                }
            }
        }
    }

    #[test]
    fn peers_are_services() {
        for service in SERVICES {
            for peer in service.depends_on {
                assert!(SERVICES.iter().any(|known| known.name == *peer), "{peer}");
                assert_ne!(service.name, *peer);
            }
        }
    }

    #[test]
    fn weights_are_kept() {
        let mut coin = Weighted::new();
        coin.push(1, 'a');
        coin.push(3, 'b');
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let heads = (0..40_000).filter(|_| coin.draw(&mut rng) == 1).count();
        assert!((29_500..30_500).contains(&heads), "{heads}");
    }
}
