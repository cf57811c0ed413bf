//! What no single window shows: leaks, heartbeats and services that stay away, silence.

use std::sync::{Arc, OnceLock};

use logguard::{
    event::{EventTime, Level},
    model::{AlarmKind, Baseline, Bundle, Detector, Mute, Mutes, Pattern, ScoredWindow},
};

use crate::{
    made::{LENGTH_MS, Line, Maker, Random, lines, score, trainer},
    scores::{TRAINING, alarms},
};

/// Lines of a window, from its number, what is normal in it, and chance.
type Change<'a> = &'a mut dyn FnMut(i64, &mut Vec<Line>, &mut Random);

/// The heartbeat of a service, twice a window.
fn beats(service: &'static str) -> Vec<Line> {
    let text = |n: u32| format!("Heartbeat, {n} tasks running");
    vec![
        (Level::Info, service, text(7)),
        (Level::Info, service, text(8)),
    ]
}

fn model() -> Arc<Bundle> {
    static MODEL: OnceLock<Arc<Bundle>> = OnceLock::new();
    let train = || {
        let (mut maker, mut random) = (Maker::new(), Random::new(1));
        let mut trainer = trainer();
        for number in 0..TRAINING {
            let mut lines = lines(&mut random, 20);
            lines.extend(beats("auth-service"));
            trainer.add(&maker.window(number, &lines));
        }
        Arc::new(trainer.finish(&mut |_| {}).unwrap())
    };
    Arc::clone(MODEL.get_or_init(train))
}

/// Scores `count` windows of about 20 lines and a heartbeat.
fn run(count: i64, change: Change<'_>) -> Vec<ScoredWindow> {
    run_muted(&[], count, change)
}

/// A mute that holds from the first window until window `until`.
fn mute(pattern: &Pattern, until: i64) -> Mute {
    let at = |number: i64| EventTime::from_millis((TRAINING + number) * LENGTH_MS).unwrap();
    Mute {
        id: 3,
        stream: "made/0".to_owned(),
        pattern: pattern.clone(),
        active_from: at(0),
        expires_at: at(until),
    }
}

fn run_muted(mutes: &[Mute], count: i64, change: Change<'_>) -> Vec<ScoredWindow> {
    let (mut maker, mut random) = (Maker::new(), Random::new(77));
    let windows = (0..count).map(|number| {
        let mut lines = lines(&mut random, 20);
        lines.extend(beats("auth-service"));
        change(number, &mut lines, &mut random);
        maker.window(TRAINING + number, &lines)
    });
    let mut detector = Detector::new(model(), 1.0, 1);
    detector.set_mutes(Arc::new(Mutes::new(mutes.iter().cloned())));
    score(&mut detector, windows)
}

fn reasons(scored: &ScoredWindow) -> String {
    scored.explanation.reasons.join("; ")
}

fn is_heartbeat(line: &Line) -> bool {
    line.2.starts_with("Heartbeat")
}

#[test]
fn normal_time_with_a_heartbeat_stays_within_the_budget() {
    let scored = run(2_880, &mut |_, _, _| ());
    assert!(alarms(&scored).len() <= 3, "{:?}", alarms(&scored));
}

#[test]
fn a_heartbeat_that_stays_away_is_found_named_and_told_of_a_few_times() {
    let scored = run(600, &mut |number, lines, _| {
        if (300..360).contains(&number) {
            lines.retain(|line| !is_heartbeat(line));
        }
    });
    let found = alarms(&scored);
    assert!(
        found.iter().any(|number| (300..306).contains(number)),
        "{found:?}"
    );
    assert!(found.len() <= 6, "{found:?}");
    let first = &scored[usize::try_from(found[0]).unwrap()];
    assert!(
        reasons(first).contains("Heartbeat") && reasons(first).contains("auth-service"),
        "{}",
        reasons(first)
    );
}

#[test]
fn what_stays_away_is_muted_by_its_own_pattern_and_by_no_other() {
    let quiet = |number: i64, lines: &mut Vec<Line>, _: &mut Random| {
        if (300..330).contains(&number) {
            lines.retain(|line| !is_heartbeat(line));
        }
        if number >= 400 {
            lines.retain(|line| line.1 != "auth-service");
        }
    };
    let volume = run_muted(&[mute(&Pattern::Volume, 1_000)], 450, &mut |n, l, r| {
        quiet(n, l, r);
    });
    let found = alarms(&volume);
    let first = found.iter().find(|number| (300..306).contains(*number));
    assert!(first.is_some(), "muted with the volume: {found:?}");
    assert!(found.iter().any(|number| *number >= 400), "{found:?}");
    let first = &volume[usize::try_from(*first.unwrap()).unwrap()];
    let [pattern] = &first.explanation.pattern[..] else {
        panic!("{:?}", first.explanation.pattern);
    };
    assert!(matches!(pattern, Pattern::Template { text, .. } if text.starts_with("Heartbeat")));

    let muted = run_muted(&[mute(pattern, 1_000)], 450, &mut |n, l, r| quiet(n, l, r));
    let found = alarms(&muted);
    assert!(
        found.iter().all(|number| *number >= 400) && !found.is_empty(),
        "{found:?}"
    );
    assert!(muted[300..330].iter().any(|scored| scored.verdict.muted));
}

#[test]
fn a_muted_silence_is_told_when_the_mute_ends() {
    let mute = mute(&Pattern::Volume, 320);
    let scored = run_muted(&[mute], 330, &mut |number, lines, _| {
        if (200..201).contains(&number) || number >= 300 {
            lines.clear();
        }
    });
    assert_eq!(alarms(&scored), [320]);
    let felt = |number: usize| reasons(&scored[number]).contains("muted (3)");
    // One empty window is nothing that a mute would have to hold back.
    assert!(!felt(200) && felt(305) && scored[305].verdict.muted && !felt(325));
}

#[test]
fn a_heartbeat_that_the_stream_never_had_is_not_missed() {
    let scored = run(600, &mut |_, lines, _| {
        lines.retain(|line| !is_heartbeat(line));
    });
    let found = alarms(&scored);
    let told: Vec<_> = found
        .iter()
        .map(|number| reasons(&scored[usize::try_from(*number).unwrap()]))
        .collect();
    assert!(told.iter().all(|it| !it.contains("Heartbeat")), "{told:?}");
    // What the service writes besides has the beats' share, which may be told of until it is the level.
    assert!(found.len() <= 2, "{found:?}: {told:?}");
}

#[test]
fn a_service_that_falls_silent_alone_is_found_and_named() {
    let scored = run(600, &mut |number, lines, _| {
        if number >= 300 {
            lines.retain(|line| line.1 != "auth-service");
        }
    });
    let found = alarms(&scored);
    assert!(
        found.iter().any(|number| (300..306).contains(number)),
        "{found:?}"
    );
    let named = scored
        .iter()
        .any(|s| s.verdict.is_anomaly && reasons(s).contains("auth-service fell silent"));
    assert!(named, "{found:?}");
}

#[test]
fn a_slow_leak_is_found_before_any_window_shows_it() {
    // Usually once in ten windows; from 300 on in most windows, once each.
    let scored = run(500, &mut |number, lines, random| {
        if number >= 300 && random.below(3) > 0 {
            let text = "Rate limit approaching for user 7".to_owned();
            lines.push((Level::Warn, "order-service", text));
        }
    });
    let found = alarms(&scored);
    let first = *found.iter().find(|number| **number >= 300).unwrap();
    assert!(first < 400, "{found:?}");
    assert!(found.iter().all(|number| *number >= 300), "{found:?}");
    // Once told, it is the level.
    assert!(found.len() < 15, "{found:?}");
    let first = &scored[usize::try_from(first).unwrap()];
    assert!(
        reasons(first).contains("Rate limit approaching")
            && reasons(first).contains(" min, about "),
        "{}",
        reasons(first)
    );
}

/// The pairs whose present level an alarm told of.
fn settled(scored: &ScoredWindow) -> Vec<u64> {
    let baseline = serde_json::to_value(&scored.baseline).unwrap();
    let pairs = baseline["drift"]["pairs"].as_array().unwrap();
    let told = pairs.iter().filter(|pair| pair[2].as_f64() > Some(1.0));
    told.map(|pair| pair[0].as_u64().unwrap()).collect()
}

#[test]
fn an_alarm_beside_a_muted_leak_settles_what_it_told_of() {
    const MUTED: &str = "High memory usage detected";
    const TOLD: &str = "Rate limit approaching";
    let leak = |number: i64, lines: &mut Vec<Line>, random: &mut Random| {
        if number >= 300 && random.below(3) > 0 {
            lines.push((Level::Warn, "order-service", format!("{TOLD} for user 7")));
        }
    };
    // Far stronger than the other.
    let both = |number: i64, lines: &mut Vec<Line>, random: &mut Random| {
        leak(number, lines, random);
        if number >= 300 {
            let line = (Level::Warn, "user-service", format!("{MUTED}: 93%"));
            lines.extend([line.clone(), line]);
        }
    };
    let first = |scored: &[ScoredWindow]| {
        let told = |it: &&ScoredWindow| it.verdict.is_anomaly && reasons(it).contains(TOLD);
        scored.iter().find(told).cloned().unwrap()
    };
    let alone = first(&run(500, &mut |n, l, r| leak(n, l, r)));
    let unmuted = run(500, &mut |n, l, r| both(n, l, r));
    let mut patterns = unmuted.iter().flat_map(|it| &it.explanation.pattern);
    let is_muted =
        |it: &&Pattern| matches!(it, Pattern::Template { text, .. } if text.starts_with(MUTED));
    let pattern = patterns.find(is_muted).unwrap();

    let beside = first(&run_muted(&[mute(pattern, 1_000)], 500, &mut |n, l, r| {
        both(n, l, r);
    }));
    let [told] = settled(&alone)[..] else {
        panic!("{:?}", settled(&alone));
    };
    assert_eq!(settled(&beside), [told]);
}

#[test]
fn silence_of_a_busy_stream_is_told_once_within_two_windows() {
    let scored = run(400, &mut |number, lines, _| {
        if (300..310).contains(&number) || (350..354).contains(&number) {
            lines.clear();
        }
    });
    let told: Vec<_> = scored
        .iter()
        .zip(0_i64..)
        .filter(|(s, _)| s.verdict.is_anomaly && s.alarm_kind() == AlarmKind::Silence)
        .map(|(_, number)| number)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!((300..302).contains(&told[0]) && (350..352).contains(&told[1]));
    let silent = &scored[usize::try_from(told[0]).unwrap()];
    assert!(
        reasons(silent).starts_with("silent for "),
        "{}",
        reasons(silent)
    );
    // The clock sees it coming.
    let detector = Detector::new(model(), 1.0, 1);
    let before = &scored[299].baseline;
    let after = detector.silent_after(before, 100);
    assert_eq!(after.map(i64::from), Some(told[0] - 299));
    assert_eq!(detector.silent_after(&silent.baseline, 100), None, "told");
}

#[test]
fn a_sparse_stream_may_pause_as_it_always_has() {
    let (mut maker, mut random) = (Maker::new(), Random::new(5));
    let windows = (0..2_880).map(|number| {
        // A line in every fifth window or so; pauses of dozens of windows.
        let line = (random.below(5) == 0).then(|| crate::made::line(&mut random));
        maker.window(TRAINING + number, &line.into_iter().collect::<Vec<_>>())
    });
    let scored = score(&mut Detector::new(model(), 1.0, 1), windows);
    let silences = scored
        .iter()
        .filter(|s| s.verdict.is_anomaly && s.alarm_kind() == AlarmKind::Silence);
    assert_eq!(silences.count(), 0);
}

#[test]
fn an_incident_in_the_first_hour_is_found() {
    let text = "Data corruption detected in table orders".to_owned();
    let scored = run(120, &mut |number, lines, _| match number {
        5 => lines.push((Level::Info, "order-service", text.clone())),
        60 => lines.extend(vec![
            (
                Level::Error,
                "auth-service",
                "Session expired for user 1".to_owned()
            );
            12
        ]),
        _ => (),
    });
    assert_eq!(alarms(&scored), [5, 60]);
}

#[test]
fn what_rides_in_the_row_is_small_and_restores_the_scores_exactly() {
    let (mut maker, mut random) = (Maker::new(), Random::new(3));
    let mut detector = Detector::new(model(), 1.0, 1);
    let (mut kept, mut stored) = (Baseline::default(), "{}".to_owned());
    for number in 0..600 {
        let mut lines = lines(
            &mut random,
            [3, 40, 200][usize::try_from(number).unwrap() / 200],
        );
        if number % 50 < 45 {
            lines.extend(beats("auth-service"));
        }
        let window = maker.window(TRAINING + number, &lines);
        let one = detector.score(window.clone(), &mut kept);
        let mut restored: Baseline = serde_json::from_str(&stored).unwrap();
        let other = detector.score(window, &mut restored);
        assert_eq!(one.verdict, other.verdict, "window {number}");
        assert_eq!(one.explanation, other.explanation, "window {number}");
        assert_eq!(one.baseline, other.baseline, "window {number}");
        stored = serde_json::to_string(&restored).unwrap();
        assert!(stored.len() < 8_000, "{}", stored.len());
    }
    // Rows written before there were trailing sums are still read.
    let old = r#"{"windows":50,"mean":5.0,"variance":5.0,"recent":5.0,"clump_observed":1.0,
        "clump_expected":1.0,"frozen":0}"#;
    assert_eq!(serde_json::from_str::<Baseline>(old).unwrap().windows, 50);
    assert_eq!(LENGTH_MS, 30_000);
}
