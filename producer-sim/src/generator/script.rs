//! The scripts of the standard incidents: what is written when something goes wrong.
//!
//! Shapes only: the words are in `words.rs`, and when an incident happens is decided in
//! `incident.rs`.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    event::{
        IncidentKind,
        Level::{Debug, Error, Info, Warn},
    },
    incident::{Effect, Line, Script, Step},
    messages::{SERVICES, service_index},
    template::{Template, pick},
    traffic::Catalog,
    words::{
        ACTORS, ATTACKS, CASCADE_DEPENDENT, CASCADE_ROOT, DETAILS, FINDINGS, RESOURCES, SPIKE,
        Words,
    },
};

/// Returns the template of a line that is very unlikely to have been written before.
pub(super) fn novel_template(rng: &mut ChaCha8Rng) -> Template {
    let text = format!(
        "{} {} {}",
        pick(&ACTORS, rng),
        pick(&FINDINGS, rng),
        pick(&DETAILS, rng)
    );
    Template::compile(&text)
}

/// Writes the script of one incident of a standard `kind` in traffic of `rate_per_s` lines.
pub(super) fn script(
    kind: IncidentKind,
    rate_per_s: f64,
    catalog: &Catalog,
    rng: &mut ChaCha8Rng,
) -> Script {
    // Lines per second as a share of normal traffic, and the least that still is an incident.
    let (services, steps, share, least_per_s) = match kind {
        IncidentKind::Cascade => cascade(rng),
        IncidentKind::Resource => resource(rng),
        IncidentKind::Security => security(rng),
        IncidentKind::NewPattern => new_pattern(rng),
        _ => spike(catalog, rng),
    };
    let strength = rng.random_range(0.6..1.4);
    Script {
        kind,
        services,
        seconds: rng.random_range(20.0..120.0),
        lines_per_s: strength * (share * rate_per_s).max(least_per_s),
        ramp: false,
        steps,
        effect: Effect::None,
    }
}

type Parts = (Vec<usize>, Vec<Step>, f64, f64);

fn spike(catalog: &Catalog, rng: &mut ChaCha8Rng) -> Parts {
    let service = rng.random_range(0..SERVICES.len());
    let mut steps: Vec<Step> = (0..2)
        .map(|_| {
            let place = catalog.draw_family(service, Error, rng);
            let line = Line::Of(service, Error, catalog.template(place).clone());
            step((0.0, 1.0, 4), line)
        })
        .collect();
    steps.extend(steps_of(service, SPIKE));
    (vec![service], steps, 0.8, 0.4)
}

fn cascade(rng: &mut ChaCha8Rng) -> Parts {
    const ROOTS: [&str; 4] = [
        "user-service",
        "payment-service",
        "auth-service",
        "order-service",
    ];
    let root = pick(&ROOTS, rng);
    let mut services = vec![service_index(root)];
    let mut steps = steps_of(service_index(root), CASCADE_ROOT);
    for (index, service) in SERVICES.iter().enumerate() {
        if service.depends_on.contains(&root) {
            services.push(index);
            steps.extend(steps_of(index, CASCADE_DEPENDENT));
        }
    }
    (services, steps, 0.6, 0.4)
}

fn resource(rng: &mut ChaCha8Rng) -> Parts {
    let service = rng.random_range(0..SERVICES.len());
    let words = RESOURCES[rng.random_range(0..RESOURCES.len())];
    (vec![service], steps_of(service, words), 0.2, 0.2)
}

fn security(rng: &mut ChaCha8Rng) -> Parts {
    let (name, words) = ATTACKS[rng.random_range(0..ATTACKS.len())];
    let service = service_index(name);
    (vec![service], steps_of(service, words), 0.3, 0.3)
}

fn new_pattern(rng: &mut ChaCha8Rng) -> Parts {
    let service = rng.random_range(0..SERVICES.len());
    let levels = [Debug, Info, Warn, Error];
    let steps = (0..rng.random_range(1..=3))
        .map(|_| {
            let level = levels[rng.random_range(0..levels.len())];
            step((0.0, 1.0, 1), Line::Of(service, level, novel_template(rng)))
        })
        .collect();
    (vec![service], steps, 0.03, 0.08)
}

fn steps_of(service: usize, words: &[Words]) -> Vec<Step> {
    words
        .iter()
        .map(|&(from, until, weight, level, text)| {
            let line = Line::Of(service, level, Template::compile(text));
            step((from, until, weight), line)
        })
        .collect()
}

pub(super) fn step((from, until, weight): (f64, f64, u32), line: Line) -> Step {
    Step {
        from,
        until,
        weight,
        line,
    }
}
