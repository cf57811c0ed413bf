//! How a generator writes its next line: an ordinary one, an incident's, or a heartbeat.
//!
//! Each function fills the generator's one event and says whether there is a line at all.

use rand::RngExt;

use super::{
    Generator,
    event::Level,
    incident::{Effect, Line},
    messages::SERVICES,
    template::Scene,
    traffic::{Place, pick_peer},
};

impl Generator {
    pub(super) fn write_incident_line(&mut self, index: usize, at_us: i64) -> bool {
        self.active[index].schedule_next(at_us, &mut self.incident_rng);
        self.write_line_of(index, at_us);
        true
    }

    /// Writes one line of the incident at `index`, labelled.
    fn write_line_of(&mut self, index: usize, at_us: i64) {
        let rng = &mut self.incident_rng;
        let active = &mut self.active[index];
        let progress = active.progress(at_us);
        self.event.message.clear();
        match active.draw_line(progress, rng) {
            Line::Normal => {
                let place = self.catalog.draw(rng);
                self.event.level = place.level;
                self.event.service = SERVICES[place.service].name;
                self.catalog.render(place, &mut self.event.message, rng);
            }
            Line::Of(service, level, template) => {
                let root = active.script.services.first().copied().unwrap_or(*service);
                let peer = if root == *service {
                    pick_peer(root, rng)
                } else {
                    SERVICES[root].name
                };
                self.event.level = *level;
                self.event.service = SERVICES[*service].name;
                template.render(&mut self.event.message, rng, Scene { progress, peer });
            }
        }
        self.event.anomaly = Some(active.script.kind);
        active.lines += 1;
        self.counted = Some(index);
    }

    pub(super) fn write_normal_line(&mut self, at_us: i64) -> bool {
        self.next_normal_us = at_us.saturating_add(self.draw_normal_gap_us(at_us));
        let place = self.catalog.draw(&mut self.rng);
        self.event.anomaly = None;
        for index in 0..self.active.len() {
            match self.active[index].script.effect {
                Effect::Silence => return false,
                Effect::Replace(service, share)
                    if service == place.service && self.incident_rng.random_bool(share) =>
                {
                    self.write_line_of(index, at_us);
                    return true;
                }
                Effect::MuteHeartbeat(service) if service == place.service => {
                    self.label_as(index);
                }
                _ => {}
            }
        }
        self.fill_normal(place, at_us);
        true
    }

    fn fill_normal(&mut self, place: Place, at_us: i64) {
        let rng = &mut self.rng;
        let message = &mut self.event.message;
        message.clear();
        self.event.level = place.level;
        self.event.service = SERVICES[place.service].name;
        let world = self.world.as_ref();
        if let Some(Line::Of(_, level, template)) =
            world.and_then(|world| world.released_line(place.service, at_us, rng))
        {
            let peer = pick_peer(place.service, rng);
            self.event.level = *level;
            template.render(
                message,
                rng,
                Scene {
                    progress: 0.0,
                    peer,
                },
            );
        } else {
            self.catalog.render(place, message, rng);
        }
    }

    pub(super) fn write_heartbeat(&mut self, service: usize) -> bool {
        let Some(world) = &mut self.world else {
            return false;
        };
        let template = world.beat(service, &mut self.rng);
        self.event.message.clear();
        let peer = SERVICES[service].name;
        let scene = Scene {
            progress: 0.0,
            peer,
        };
        template.render(&mut self.event.message, &mut self.rng, scene);
        self.event.level = Level::Info;
        self.event.service = SERVICES[service].name;
        self.event.anomaly = None;
        !self.active.iter().any(|active| match active.script.effect {
            Effect::Silence => true,
            Effect::MuteHeartbeat(muted) => muted == service,
            _ => false,
        })
    }

    /// Labels the event at hand with the incident at `index`: what a service without heartbeat
    /// still writes, so that the windows it lies in can be judged.
    fn label_as(&mut self, index: usize) {
        let active = &mut self.active[index];
        active.lines += 1;
        self.event.anomaly = Some(active.script.kind);
        self.counted = Some(index);
    }
}
