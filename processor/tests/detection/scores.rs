//! What is found, what is not, and what a score may depend on.

use std::sync::Arc;

use logguard::{
    event::Level,
    model::{Baseline, Bundle, Detector, ScoredWindow, TemplateKind},
    window::ClosedWindow,
};
use proptest::prelude::*;

use crate::made::{Line, Maker, Random, lines, score, trained};

/// Training of a day and a half.
pub(crate) const TRAINING: i64 = 4_300;

pub(crate) fn model() -> Arc<Bundle> {
    static MODEL: std::sync::OnceLock<Arc<Bundle>> = std::sync::OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| trained(TRAINING)))
}

/// `count` normal windows; `change` may alter the lines of each.
pub(crate) fn windows(
    count: i64,
    rate: u32,
    mut change: impl FnMut(i64, &mut Vec<Line>, &mut Random),
) -> Vec<ClosedWindow> {
    let (mut maker, mut random) = (Maker::new(), Random::new(99));
    (0..count)
        .map(|number| {
            let mut lines = lines(&mut random, rate);
            change(number, &mut lines, &mut random);
            maker.window(TRAINING + number, &lines)
        })
        .collect()
}

pub(crate) fn alarms(scored: &[ScoredWindow]) -> Vec<i64> {
    let alarms = scored.iter().filter(|s| s.verdict.is_anomaly);
    let number = |s: &ScoredWindow| s.window.bounds.start.as_millis() / 30_000 - TRAINING;
    alarms.map(number).collect()
}

fn detector() -> Detector {
    Detector::new(model(), 1.0, 1)
}

#[test]
fn normal_time_stays_within_the_budget() {
    let scored = score(&mut detector(), windows(2_880, 5, |_, _, _| ()));
    assert!(alarms(&scored).len() <= 3, "{:?}", alarms(&scored));
}

#[test]
fn other_rates_than_trainings_are_no_anomaly() {
    for rate in [1, 150, 1_000] {
        let scored = score(&mut detector(), windows(300, rate, |_, _, _| ()));
        assert!(alarms(&scored).len() <= 1, "{rate}: {:?}", alarms(&scored));
    }
}

#[test]
fn lines_that_all_come_many_times_over_are_no_anomaly() {
    let scored = score(
        &mut detector(),
        windows(300, 5, |_, lines, _| {
            *lines = lines.iter().flat_map(|l| vec![l.clone(); 30]).collect();
        }),
    );
    assert!(alarms(&scored).len() <= 1, "{:?}", alarms(&scored));
}

#[test]
fn one_new_line_among_many_is_found_and_explained() {
    for rate in [5, 150] {
        let text = "Data corruption detected in table orders".to_owned();
        let scored = score(
            &mut detector(),
            windows(100, rate, |number, lines, _| {
                if number == 60 {
                    lines.push((Level::Info, "order-service", text.clone()));
                }
            }),
        );
        assert_eq!(alarms(&scored), [60], "at {rate} lines a window");
        let explanation = &scored[60].explanation;
        assert!(
            explanation.reasons[0].contains(&text)
                && explanation.reasons[0].contains("never seen in training"),
            "{:?}",
            explanation.reasons
        );
        assert_eq!(explanation.templates[0].kind, TemplateKind::New);
        assert_eq!(explanation.templates[0].lines, 1);
        assert_eq!(&*explanation.services[0].service, "order-service");
    }
}

#[test]
fn a_familiar_line_that_comes_over_and_over_is_found_and_explained() {
    let scored = score(
        &mut detector(),
        windows(100, 5, |number, lines, _| {
            if number == 60 {
                let line = (
                    Level::Info,
                    "auth-service",
                    "User session created - session_id: sess_7".to_owned(),
                );
                lines.extend(vec![line; 12]);
            }
        }),
    );
    assert_eq!(alarms(&scored), [60]);
    let reasons = scored[60].explanation.reasons.join("; ");
    assert!(reasons.contains("User session created"), "{reasons}");
    assert_eq!(
        scored[60].explanation.templates[0].kind,
        TemplateKind::Surging
    );
}

#[test]
fn a_burst_of_familiar_errors_is_found() {
    let scored = score(
        &mut detector(),
        windows(100, 20, |number, lines, _| {
            if number == 60 {
                for (line, text) in lines.iter_mut().zip([
                    "Session expired for user 1",
                    "Payment declined - insufficient funds for user 2",
                    "Invalid request - malformed JSON in request body",
                    "Unhandled exception in request handler - KeyError",
                    "Session expired for user 3",
                    "Invalid request - malformed JSON in request body",
                    "Payment declined - insufficient funds for user 4",
                    "Unhandled exception in request handler - TypeError",
                ]) {
                    *line = (Level::Error, line.1, text.to_owned());
                }
            }
        }),
    );
    assert_eq!(alarms(&scored), [60]);
}

#[test]
fn silence_of_a_busy_stream_and_a_surge_are_found_when_they_come() {
    let scored = score(
        &mut detector(),
        windows(100, 60, |number, lines, random| match number {
            60..64 => lines.clear(),
            80..84 => lines.extend(crate::made::lines(random, 1_000)),
            _ => (),
        }),
    );
    let found = alarms(&scored);
    let silent = found.iter().any(|number| (60..62).contains(number));
    assert!(silent && found.contains(&80), "{found:?}");
}

#[test]
fn a_service_and_a_partition_that_training_never_saw_are_scored_by_the_rest() {
    let scored = score(
        &mut detector(),
        windows(200, 5, |_, lines, _| {
            for line in lines {
                line.1 = "brand-new-service";
            }
        }),
    );
    assert!(alarms(&scored).len() <= 1, "{:?}", alarms(&scored));
    // Only what two of the services write, as on one partition of a keyed topic.
    let scored = score(
        &mut detector(),
        windows(200, 15, |_, lines, _| {
            lines.retain(|line| matches!(line.1, "auth-service" | "user-service"));
        }),
    );
    assert!(alarms(&scored).len() <= 1, "{:?}", alarms(&scored));
}

#[test]
fn the_budget_moves_the_threshold_and_nothing_else() {
    let strict = Detector::new(model(), 0.25, 1);
    let shared = Detector::new(model(), 1.0, 4);
    assert!((strict.threshold() - 0.25 / 2_880.0).abs() < 1e-12);
    assert!((shared.threshold() - strict.threshold()).abs() < 1e-12);
    let scored = |budget| {
        score(
            &mut Detector::new(model(), budget, 1),
            windows(50, 5, |_, _, _| ()),
        )
    };
    for (one, other) in scored(0.01).iter().zip(&scored(100.0)) {
        assert_eq!(one.verdict.severity, other.verdict.severity);
        assert!(one.verdict.anomaly_score < other.verdict.anomaly_score);
    }
    for nonsense in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let threshold = Detector::new(model(), nonsense, 0).threshold();
        assert!(
            threshold > 0.0 && threshold <= 0.5,
            "{nonsense}: {threshold}"
        );
    }
}

#[test]
fn severity_ranks_beyond_everything_seen_and_the_score_follows_it() {
    let text = |n: usize| -> Vec<Line> {
        let line = "User session created - session_id: sess_7".to_owned();
        vec![(Level::Info, "auth-service", line); n]
    };
    let severities: Vec<_> = [0, 10, 30, 100, 1_000, 100_000]
        .into_iter()
        .map(|extra| {
            let scored = score(
                &mut detector(),
                windows(41, 5, |number, lines, _| {
                    if number == 40 {
                        lines.extend(text(extra));
                    }
                }),
            );
            let verdict = scored[40].verdict;
            assert_eq!(verdict.is_anomaly, verdict.anomaly_score > 0.5);
            (verdict.severity, verdict.anomaly_score)
        })
        .collect();
    assert!(
        severities.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
        "{severities:?}"
    );
}

#[test]
fn gap_rows_and_empty_streams_are_scored() {
    let mut detector = detector();
    let mut baseline = Baseline::default();
    for mut window in windows(60, 40, |_, _, _| ()) {
        detector.score(window.clone(), &mut baseline);
        let before = baseline.clone();
        window.gap = true;
        window.content = Arc::default();
        let scored = detector.score(window, &mut baseline);
        assert!(
            !scored.verdict.is_anomaly,
            "a gap is not judged by its volume"
        );
        assert_eq!(baseline.windows, before.windows);
    }
    let scored = score(&mut detector, windows(100, 5, |_, lines, _| lines.clear()));
    assert!(alarms(&scored).is_empty());
}

fn finite(scored: &ScoredWindow) -> bool {
    let verdict = &scored.verdict;
    scored.features.values.iter().all(|v| v.is_finite())
        && verdict.severity.is_finite()
        && verdict.severity >= 0.0
        && (0.0..=1.0).contains(&verdict.anomaly_score)
        && (0.0..=1.0).contains(&verdict.dbscan_score)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn scores_are_finite_and_baselines_survive_json(
        seed in any::<u64>(),
        rates in prop::collection::vec(prop_oneof![0_u32..3, 5_u32..60, 200_u32..600], 1..40),
        odd in prop::collection::vec(("[a-z<>% é]{0,30}", 0_usize..40, 1_usize..300), 0..4),
    ) {
        let mut detector = detector();
        let (mut maker, mut random) = (Maker::new(), Random::new(seed));
        let mut kept = Baseline::default();
        let mut stored = "{}".to_owned();
        for (number, rate) in (0..).zip(rates) {
            let mut lines = lines(&mut random, rate);
            for (text, at, times) in &odd {
                if i64::try_from(*at).unwrap() == number {
                    lines.extend(vec![(Level::Fatal, "odd", text.clone()); *times]);
                }
            }
            let window = maker.window(TRAINING + number, &lines);
            let one = detector.score(window.clone(), &mut kept);
            let mut restored: Baseline = serde_json::from_str(&stored).unwrap();
            let other = detector.score(window, &mut restored);
            prop_assert!(finite(&one), "{:?} {:?}", one.verdict, one.features);
            prop_assert_eq!(&one.verdict, &other.verdict);
            prop_assert_eq!(&one.baseline, &other.baseline);
            stored = serde_json::to_string(&other.baseline).unwrap();
        }
    }
}
