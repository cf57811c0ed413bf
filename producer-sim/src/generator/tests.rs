use std::collections::{BTreeMap, HashMap};

use super::*;

const START_US: i64 = 1_736_121_600 * MICROS_PER_SECOND;
const HOUR_US: i64 = 3_600 * MICROS_PER_SECOND;

fn settings() -> Settings {
    Settings {
        seed: 42,
        rate_per_s: 5.0,
        anomaly_prob: 0.02,
        start_us: START_US,
        first_incident_after_us: None,
        scenario: Scenario::Standard,
    }
}

/// Returns all events of the first `span_us`, and the incidents.
fn generate(settings: Settings, span_us: i64) -> (Vec<Event>, Vec<Incident>) {
    let mut generator = Generator::new(settings);
    let mut events = Vec::new();
    let end_us = settings.start_us + span_us;
    while generator.advance().time_us < end_us {
        events.push(generator.event().clone());
    }
    generator.retract();
    (events, generator.finish(end_us))
}

#[test]
fn the_seed_decides_everything() {
    let first = generate(settings(), HOUR_US);
    assert_eq!(first, generate(settings(), HOUR_US));
    let other = Settings {
        seed: 43,
        ..settings()
    };
    assert_ne!(first.0, generate(other, HOUR_US).0);
}

#[test]
fn incidents_do_not_change_normal_traffic() {
    let calm = Settings {
        anomaly_prob: 0.0,
        ..settings()
    };
    let (calm_events, incidents) = generate(calm, 4 * HOUR_US);
    assert!(incidents.is_empty() && calm_events.iter().all(|event| event.anomaly.is_none()));
    let (mut events, incidents) = generate(settings(), 4 * HOUR_US);
    assert!(!incidents.is_empty());
    events.retain(|event| event.anomaly.is_none());
    assert!(events == calm_events, "normal traffic differs");
}

#[test]
fn times_never_go_backwards() {
    for scenario in [
        Scenario::Standard,
        Scenario::Hard {
            span_us: 48 * HOUR_US,
        },
    ] {
        let (events, _) = generate(
            Settings {
                scenario,
                ..settings()
            },
            12 * HOUR_US,
        );
        assert!(events.is_sorted_by_key(|event| event.time_us));
    }
}

#[test]
fn lines_arrive_by_poissons_law_at_the_rate_asked_for() {
    for rate_per_s in [0.1, 3.0, 2_000.0] {
        let calm = Settings {
            rate_per_s,
            anomaly_prob: 0.0,
            ..settings()
        };
        // Slices in which 20 lines are expected; a Poisson count's variance is its mean.
        let slices = 2_000;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "at most 200 s in microseconds"
        )]
        let slice_us = (20e6 / rate_per_s) as i64;
        let (events, _) = generate(calm, slices * slice_us);
        let mut counts: HashMap<i64, f64> = HashMap::new();
        for event in &events {
            *counts
                .entry((event.time_us - START_US) / slice_us)
                .or_default() += 1.0;
        }
        let mean = counts.values().sum::<f64>() / 2_000.0;
        let variance = counts
            .values()
            .map(|count| (count - mean).powi(2))
            .sum::<f64>()
            / 2_000.0;
        assert!((mean - 20.0).abs() < 0.4, "{rate_per_s}: mean {mean}");
        assert!(
            (variance / mean - 1.0).abs() < 0.13,
            "{rate_per_s}: variance {variance}"
        );
    }
}

#[test]
fn levels_and_services_have_their_shares() {
    let calm = Settings {
        rate_per_s: 100.0,
        anomaly_prob: 0.0,
        ..settings()
    };
    let (events, _) = generate(calm, HOUR_US / 2);
    let share = |chosen: &dyn Fn(&Event) -> bool| {
        events.iter().filter(|event| chosen(event)).count() as f64 / events.len() as f64
    };
    for (level, expected) in [
        (Level::Info, 0.65),
        (Level::Debug, 0.20),
        (Level::Warn, 0.10),
        (Level::Error, 0.045),
        (Level::Fatal, 0.005),
    ] {
        let actual = share(&|event| event.level == level);
        assert!((actual - expected).abs() < 0.006, "{level:?}: {actual}");
    }
    for service in SERVICES {
        let actual = share(&|event| event.service == service.name);
        let expected = f64::from(service.weight) / 100.0;
        assert!(
            (actual - expected).abs() < 0.006,
            "{}: {actual}",
            service.name
        );
    }
}

#[test]
fn incidents_start_as_often_as_asked_for() {
    for (anomaly_prob, expected) in [(0.005, 250.0), (0.2, 10_000.0), (1.0, 50_000.0)] {
        let mut plan = Plan::new(7, anomaly_prob, &IncidentKind::STANDARD, None);
        let mut starts = 0.0;
        let mut slots = HashMap::new();
        while plan.next_us() < 50_000 * SLOT_US {
            *slots.entry(plan.next_us() / SLOT_US).or_insert(0) += 1;
            plan.take();
            starts += 1.0;
        }
        assert!(
            slots.values().all(|&starts| starts == 1),
            "two starts in one slot"
        );
        let sigma: f64 = (50_000.0 * anomaly_prob * (1.0 - anomaly_prob)).sqrt();
        assert!(
            f64::abs(starts - expected) <= 4.0 * sigma,
            "{anomaly_prob}: {starts}"
        );
    }
}

/// Checks that truth and labels tell the same story; returns the number of incidents by kind.
fn check_truth(events: &[Event], incidents: &[Incident]) -> BTreeMap<IncidentKind, usize> {
    let mut kinds = BTreeMap::new();
    for incident in incidents {
        *kinds.entry(incident.kind).or_default() += 1;
        assert!(incident.start_us < incident.end_us, "{incident:?}");
        if incident.kind.is_anomaly() {
            let labelled = events.iter().filter(|event| {
                event.anomaly == Some(incident.kind)
                    && (incident.start_us..incident.end_us).contains(&event.time_us)
                    && (incident.services.is_empty() || incident.services.contains(&event.service))
            });
            assert!(labelled.count() as u64 >= incident.lines, "{incident:?}");
        }
    }
    let labelled = events
        .iter()
        .filter(|event| event.anomaly.is_some())
        .count() as u64;
    let counted: u64 = incidents.iter().map(|incident| incident.lines).sum();
    assert_eq!(labelled, counted);
    kinds
}

#[test]
fn every_standard_kind_appears_with_its_truth() {
    let (events, incidents) = generate(settings(), 12 * HOUR_US);
    let kinds = check_truth(&events, &incidents);
    assert_eq!(
        kinds.keys().copied().collect::<Vec<_>>(),
        IncidentKind::STANDARD
    );
    for incident in incidents {
        let seconds = (incident.end_us - incident.start_us) / MICROS_PER_SECOND;
        assert!(
            (20..=120).contains(&seconds) && incident.lines >= 1,
            "{incident:?}"
        );
        assert!(!incident.services.is_empty(), "{incident:?}");
    }
}

#[test]
fn every_hard_kind_appears_with_its_truth() {
    let span_us = 3 * 24 * HOUR_US;
    let hard = Settings {
        rate_per_s: 0.5,
        scenario: Scenario::Hard { span_us },
        ..settings()
    };
    let (events, incidents) = generate(hard, span_us);
    let kinds = check_truth(&events, &incidents);
    let mut expected = IncidentKind::HARD.to_vec();
    expected.extend([IncidentKind::Release, IncidentKind::Promotion]);
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), expected);
    for incident in &incidents {
        let inside = || {
            events
                .iter()
                .filter(|event| (incident.start_us..incident.end_us).contains(&event.time_us))
        };
        match incident.kind {
            IncidentKind::Silence => assert_eq!(inside().count(), 0, "{incident:?}"),
            IncidentKind::NewLine => assert_eq!(incident.lines, 1, "{incident:?}"),
            IncidentKind::MissingHeartbeat => {
                let beats = |service: &str| {
                    inside()
                        .filter(|event| event.service == service)
                        .filter(|event| event.message.starts_with("Heartbeat"))
                        .count()
                };
                assert_eq!(beats(incident.services[0]), 0, "{incident:?}");
                let others = SERVICES
                    .iter()
                    .filter(|other| other.name != incident.services[0]);
                assert!(
                    others.map(|other| beats(other.name)).min() > Some(0),
                    "{incident:?}"
                );
            }
            _ => {}
        }
    }
}

#[test]
fn an_incident_can_be_forced() {
    let forced = Settings {
        anomaly_prob: 0.0,
        first_incident_after_us: Some(20 * MICROS_PER_SECOND),
        ..settings()
    };
    let (events, incidents) = generate(forced, HOUR_US);
    assert_eq!(incidents.len(), 1);
    assert_eq!(incidents[0].start_us, START_US + 20 * MICROS_PER_SECOND);
    let first = events.iter().find(|event| event.anomaly.is_some()).unwrap();
    assert_eq!(first.time_us, incidents[0].start_us);
}

#[test]
fn what_is_cut_off_ends_when_it_was_cut() {
    let forced = Settings {
        anomaly_prob: 0.0,
        first_incident_after_us: Some(0),
        ..settings()
    };
    let (_, incidents) = generate(forced, 5 * MICROS_PER_SECOND);
    assert_eq!(incidents[0].end_us, START_US + 5 * MICROS_PER_SECOND);
}

#[test]
fn an_event_taken_back_is_not_counted() {
    let forced = Settings {
        anomaly_prob: 0.0,
        first_incident_after_us: Some(0),
        ..settings()
    };
    let mut generator = Generator::new(forced);
    while generator.advance().anomaly.is_none() {}
    generator.retract();
    generator.retract();
    let incidents = generator.finish(START_US + HOUR_US);
    assert_eq!(incidents[0].lines, 0);
}

#[test]
fn a_delay_moves_the_event_at_hand_and_what_is_still_to_come() {
    let mut on_time = Generator::new(settings());
    let mut delayed = Generator::new(settings());
    delayed.advance();
    on_time.advance();
    delayed.delay(7_000_000);
    assert_eq!(delayed.event().time_us, on_time.event().time_us + 7_000_000);
    for _ in 0..100 {
        let expected_us = on_time.advance().time_us + 7_000_000;
        assert_eq!(delayed.advance().time_us, expected_us);
        assert_eq!(delayed.event().message, on_time.event().message);
    }
}
