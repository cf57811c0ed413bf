//! A model learnt of half an hour: how much it is believed, and how often it may alarm.

use std::sync::{Arc, OnceLock};

use logguard::{
    event::Level,
    model::{Baseline, Bundle, Detector, ScoredWindow},
    window::ClosedWindow,
};

use crate::made::{Line, Maker, Random, lines, score, trainer};

const LEARNT: i64 = 60;
const RATE: u32 = 12;
const NEW: &str = "Kernel panic while mounting the root volume";

/// A model of half an hour, made for a first start or not.
fn model(first_start: bool) -> Arc<Bundle> {
    static MODELS: [OnceLock<Arc<Bundle>>; 2] = [const { OnceLock::new() }; 2];
    let model = &MODELS[usize::from(first_start)];
    Arc::clone(model.get_or_init(|| learnt(first_start)))
}

fn learnt(first_start: bool) -> Arc<Bundle> {
    let (mut maker, mut random) = (Maker::new(), Random::new(5));
    let mut trainer = trainer();
    if first_start {
        trainer = trainer.for_first_start();
    }
    for number in 0..LEARNT {
        trainer.add(&maker.window(number, &lines(&mut random, RATE)));
    }
    Arc::new(trainer.finish(&mut |_| {}).unwrap())
}

/// Windows from `from` on, and a panic in one of them in `every`.
fn windows(from: i64, count: i64, every: i64) -> Vec<ClosedWindow> {
    windows_of(RATE, (from, count, every))
}

/// The same, of about `rate` lines.
fn windows_of(rate: u32, (from, count, every): (i64, i64, i64)) -> Vec<ClosedWindow> {
    let (mut maker, mut random) = (Maker::new(), Random::new(6));
    (from..from + count)
        .map(|number| {
            let mut lines = lines(&mut random, rate);
            if number % every == 0 {
                let panic: Line = (Level::Fatal, "kernel", NEW.to_owned());
                lines.extend(vec![panic; 20]);
            }
            maker.window(number, &lines)
        })
        .collect()
}

fn alarms(scored: &[ScoredWindow]) -> usize {
    scored.iter().filter(|it| it.verdict.is_anomaly).count()
}

#[test]
fn only_a_model_for_a_first_start_of_less_than_a_day_is_young() {
    assert!(model(true).summary().learning);
    let old = model(false);
    assert!(!old.summary().learning);
    let scored = score(&mut Detector::new(old, 1.0, 1), windows(LEARNT, 100, 10));
    let young = scored
        .iter()
        .any(|it| it.verdict.learning || it.verdict.capped);
    assert!(!young && alarms(&scored) > 5, "{} alarms", alarms(&scored));
}

#[test]
fn a_young_model_is_believed_less_and_ranks_the_same() {
    // Nothing alarms, so that both have the same past.
    let windows = windows(LEARNT, 100, 3_000);
    let scored = |first_start| {
        let mut detector = Detector::with_threshold(model(first_start), 1e-12);
        score(&mut detector, windows.clone())
    };
    let (old, young) = (scored(false), scored(true));
    assert_eq!(alarms(&old) + alarms(&young), 0);
    let mut differ = 0;
    for (old, young) in old.iter().zip(&young) {
        assert!(young.verdict.learning);
        assert!(young.verdict.severity <= old.verdict.severity);
        differ += u32::from(young.verdict.severity < old.verdict.severity);
    }
    assert!(differ > 90, "{differ}");
}

#[test]
fn alarms_beyond_the_budget_of_a_day_are_held_back_and_say_so() {
    let mut detector = Detector::new(model(true), 3.0, 1);
    let scored = score(&mut detector, windows(LEARNT, 100, 10));
    assert_eq!(alarms(&scored), 3);
    let held: Vec<_> = scored.iter().filter(|it| it.verdict.capped).collect();
    assert!(held.len() > 5, "{}", held.len());
    for window in &held {
        assert!(!window.verdict.is_anomaly && window.verdict.anomaly_score > 0.5);
        let reasons = window.explanation.reasons.join("; ");
        assert!(reasons.contains("held back"), "{reasons}");
    }
    let told = |it: &&ScoredWindow| it.explanation.reasons.iter().any(|why| why.contains(NEW));
    assert!(held.into_iter().any(|it| told(&it)));
    // The share of a stream among forty: one, not none.
    let mut detector = Detector::new(model(true), 3.0, 40);
    assert_eq!(alarms(&score(&mut detector, windows(LEARNT, 100, 10))), 1);
}

/// A restart in the midst reads the baseline back from the row.
#[test]
fn a_restart_neither_forgets_nor_repeats_the_alarms_of_the_day() {
    let model = model(true);
    let windows = windows(LEARNT, 60, 10);
    let all = score(
        &mut Detector::new(Arc::clone(&model), 2.0, 1),
        windows.clone(),
    );
    let mut baseline = Baseline::default();
    for (window, expected) in windows.into_iter().zip(&all) {
        let mut detector = Detector::new(Arc::clone(&model), 2.0, 1);
        let scored = detector.score(window, &mut baseline);
        assert_eq!(scored.verdict, expected.verdict);
        let json = serde_json::to_string(&baseline).unwrap();
        baseline = serde_json::from_str(&json).unwrap();
    }
    // Evidence scores a window again by its threshold alone.
    let threshold = all[0].threshold;
    let again = score(
        &mut Detector::with_threshold(model, threshold),
        self::windows(LEARNT, 60, 10),
    );
    assert!(
        again
            .iter()
            .zip(&all)
            .all(|(one, other)| one.verdict == other.verdict)
    );
}

#[test]
fn a_stream_grows_up_when_a_day_was_learnt_and_seen() {
    let model = model(true);
    let learnt = i64::try_from(model.summary().calibration_windows).unwrap();
    let scored = score(
        &mut Detector::new(model, 1.0, 1),
        windows_of(2, (LEARNT, 2_880, 3_000)),
    );
    let young = scored.iter().filter(|it| it.verdict.learning).count();
    assert_eq!(i64::try_from(young).unwrap(), 2_880 - learnt);
    assert!(!scored.last().unwrap().verdict.learning);
}
