//! New templates that keep coming: when they become known to a stream, and when they do not.

use std::sync::Arc;

use logguard::{
    event::{EventTime, Level},
    model::{
        Baseline, CANDIDATES_MAX, Decision, Detector, Mutes, PATIENCE_MS, Pattern, RECURRENCES,
        ScoredWindow,
    },
};

use crate::{
    made::{LENGTH_MS, Line, Maker, Random, lines, score, trainer},
    scores::{TRAINING, alarms, model, windows},
};

const HARMLESS: &str = "Recommendation service warmed up";
/// Windows of [`PATIENCE_MS`].
const PATIENCE: i64 = PATIENCE_MS / LENGTH_MS;

fn detector() -> Detector {
    Detector::new(model(), 0.25, 1)
}

fn new_line(level: Level) -> Line {
    (level, "order-service", HARMLESS.to_owned())
}

/// About every third of `count` windows has the new line at `level`.
fn every_third(count: i64, level: Level) -> Vec<ScoredWindow> {
    let windows = windows(count, 5, |_, lines, random| {
        if random.below(3) == 0 {
            lines.push(new_line(level));
        }
    });
    score(&mut detector(), windows)
}

fn adopted(scored: &[ScoredWindow]) -> Vec<i64> {
    let news = scored.iter().filter(|s| {
        let mut reasons = s.explanation.reasons.iter();
        reasons.any(|reason| reason.starts_with("adopted template"))
    });
    news.map(|s| s.window.bounds.start.as_millis() / LENGTH_MS - TRAINING)
        .collect()
}

#[test]
fn a_harmless_new_line_alarms_a_handful_of_times_and_is_known_then() {
    let scored = every_third(2_880, Level::Info);
    let (alarms, adopted) = (alarms(&scored), adopted(&scored));
    assert_eq!(adopted.len(), 1, "{adopted:?}");
    assert!(alarms.len() <= 10, "{alarms:?}");
    assert!(alarms.len() >= 3, "it alarms while it is new: {alarms:?}");
    assert!(*alarms.last().unwrap() <= adopted[0], "{alarms:?}");
    let place = usize::try_from(adopted[0]).unwrap();
    let reasons = scored[place].explanation.reasons.join("; ");
    assert!(
        reasons.contains(HARMLESS) && reasons.contains(" windows since 1970-01-02T"),
        "{reasons}"
    );
}

#[test]
fn a_new_line_that_comes_with_a_burst_of_errors_goes_on_alarming() {
    let errors = [
        "Session expired for user 1",
        "Invalid request - malformed JSON in request body",
        "Payment declined - insufficient funds for user 2",
    ];
    let with_errors = windows(600, 5, |number, lines, _| {
        if number >= 60 && number % 3 == 0 {
            lines.push(new_line(Level::Info));
            for text in errors.iter().cycle().take(9) {
                lines.push((Level::Error, "api-gateway", (*text).to_owned()));
            }
        }
    });
    let scored = score(&mut detector(), with_errors);
    assert!(adopted(&scored).is_empty());
    assert_eq!(
        alarms(&scored),
        (60..600).step_by(3).collect::<Vec<_>>(),
        "every one of its windows"
    );
}

#[test]
fn a_flood_of_a_new_line_is_a_signal_besides_its_being_new() {
    let flood = windows(200, 5, |number, lines, _| {
        if number >= 60 && number % 20 < 2 {
            lines.extend(vec![new_line(Level::Info); 200]);
        }
    });
    let scored = score(&mut detector(), flood);
    assert!(adopted(&scored).is_empty());
    assert_eq!(alarms(&scored).len(), 14, "{:?}", alarms(&scored));
}

#[test]
fn a_harmless_new_error_alarms_for_six_hours_and_is_known_then() {
    let scored = every_third(2_880, Level::Error);
    let (alarms, adopted) = (alarms(&scored), adopted(&scored));
    assert_eq!(adopted.len(), 1, "{adopted:?}");
    assert!(
        (PATIENCE..PATIENCE + 40).contains(&adopted[0]),
        "{adopted:?}"
    );
    let before = alarms.iter().filter(|number| **number < PATIENCE).count();
    assert!(before > 150, "{before} alarms in the first six hours");
    let after = alarms.iter().filter(|number| **number > adopted[0]).count();
    assert!(after <= 1, "{after} alarms after it was adopted");
}

#[test]
fn a_release_is_one_episode_but_for_its_errors() {
    let released = [
        "Recommendation service warmed up",
        "Basket merged after login",
        "Price list swapped for the new one",
        "Search index attached",
        "Telemetry exporter chose a peer",
    ];
    let scored = windows(700, 5, |number, lines, _| {
        // The first comes every third window, the others and the error a few times an hour.
        let turn = if number % 3 == 0 {
            Some(0)
        } else {
            [1, 4, 7, 10]
                .iter()
                .position(|at| number % 15 == *at)
                .map(|at| at + 1)
        };
        if number >= 60
            && let Some(turn) = turn
        {
            lines.push((Level::Info, "order-service", released[turn].to_owned()));
        }
        if number >= 60 && number % 15 == 13 {
            let text = "Cannot reach the price list".to_owned();
            lines.push((Level::Error, "order-service", text));
        }
    });
    let scored = score(&mut detector(), scored);
    assert_eq!(adopted(&scored).len(), 5);
    let (errors, others): (Vec<i64>, Vec<_>) = alarms(&scored)
        .into_iter()
        .partition(|number| number % 15 == 13);
    // Six times the first, twice each of the others, which began with it.
    assert!((10..=16).contains(&others.len()), "{others:?}");
    // An error that began with them is none of them.
    assert!(errors.len() >= 40, "{errors:?}");
}

#[test]
fn a_line_known_as_harmless_is_new_as_an_error() {
    let promoted = windows(900, 5, |number, lines, _| {
        if number % 3 == 0 {
            let level = [Level::Info, Level::Error][usize::from(number >= 600)];
            lines.push(new_line(level));
        }
    });
    let found = alarms(&score(&mut detector(), promoted));
    let since = found.iter().filter(|number| **number >= 600).count();
    assert!(since >= 95, "{since} of its 100 windows");
}

#[test]
fn nothing_is_adopted_in_a_run_of_alarms_that_something_else_opened() {
    // A burst of errors, and from then on the new line in every window: the aftermath.
    let aftermath = |errors: usize| {
        let windows = windows(180, 5, |number, lines, _| {
            if (60..160).contains(&number) {
                lines.push(new_line(Level::Info));
            }
            if number == 60 {
                let text = "Session expired for user 1".to_owned();
                lines.extend(vec![(Level::Error, "auth-service", text); errors]);
            }
        });
        score(&mut detector(), windows)
    };
    let after_burst = aftermath(30);
    assert!(adopted(&after_burst).is_empty());
    assert!(
        alarms(&after_burst).len() >= 95,
        "{:?}",
        alarms(&after_burst)
    );
    // Without the burst the same lines are adopted.
    let calm = aftermath(0);
    assert_eq!(adopted(&calm).len(), 1);
    assert!(alarms(&calm).len() <= 10, "{:?}", alarms(&calm));
}

#[test]
fn an_episode_that_was_adopted_is_news_when_it_comes_back_much_later() {
    let twice = windows(2 * PATIENCE, 5, |number, lines, _| {
        if (60..100).contains(&number) || number >= 100 + PATIENCE + 2 {
            lines.push(new_line(Level::Info));
        }
    });
    let scored = score(&mut detector(), twice);
    let (alarms, adopted) = (alarms(&scored), adopted(&scored));
    assert_eq!(adopted.len(), 2, "{adopted:?}");
    assert_eq!(alarms.len(), 2 * usize::try_from(RECURRENCES).unwrap());
}

#[test]
fn what_rides_in_the_row_is_bounded_and_restores_the_scores_exactly() {
    let (mut maker, mut random) = (Maker::new(), Random::new(5));
    let (mut detector, mut kept) = (detector(), Baseline::default());
    let mut stored = "{}".to_owned();
    for number in 0..400 {
        let mut lines = lines(&mut random, 5);
        for _ in 0..6 {
            // Letters, since numbers are masked: far more new templates than are watched.
            let word: String = (0..3)
                .map(|_| char::from(b'a' + u8::try_from(random.below(9)).unwrap()))
                .collect();
            let level = [Level::Info, Level::Error][usize::from(random.below(9) == 0)];
            lines.push((level, "order-service", format!("Fresh {word} started")));
        }
        if random.below(2) == 0 {
            lines.push(new_line(Level::Info));
        }
        let window = maker.window(TRAINING + number, &lines);
        let one = detector.score(window.clone(), &mut kept);
        let mut restored: Baseline = serde_json::from_str(&stored).unwrap();
        let other = detector.score(window, &mut restored);
        assert_eq!(one.verdict, other.verdict, "window {number}");
        assert_eq!(one.explanation, other.explanation, "window {number}");
        assert_eq!(one.baseline, other.baseline, "window {number}");
        stored = serde_json::to_string(&restored).unwrap();
        assert!(
            stored.len() < 100 * (CANDIDATES_MAX + 20),
            "{}",
            stored.len()
        );
    }
}

#[test]
fn a_release_in_training_does_not_make_news_normal() {
    let (mut maker, mut random) = (Maker::new(), Random::new(7));
    let mut learn = trainer();
    for number in 0..TRAINING {
        let mut lines = lines(&mut random, 5);
        if number > TRAINING / 2 && random.below(3) == 0 {
            lines.push(new_line(Level::Info));
        }
        learn.add(&maker.window(number, &lines));
    }
    let released = Arc::new(learn.finish(&mut |_| {}).unwrap());
    let text = "Data corruption detected in table orders";
    let with_news = windows(100, 5, |number, lines, random| {
        if random.below(3) == 0 {
            lines.push(new_line(Level::Info));
        }
        if number == 60 {
            lines.push((Level::Info, "order-service", text.to_owned()));
        }
    });
    let scored = score(&mut Detector::new(released, 0.25, 1), with_news);
    assert_eq!(alarms(&scored), [60]);
}

/// The new line in every third of 400 windows, with what people decide: `(adopt, from window)`.
fn decided(level: Level, decisions: &[(bool, i64)]) -> Vec<ScoredWindow> {
    let windows = || {
        windows(400, 5, |number, lines, _| {
            if number % 3 == 0 {
                lines.push(new_line(level));
            }
        })
    };
    let first = score(&mut detector(), windows());
    let mut patterns = first.iter().flat_map(|scored| &scored.explanation.pattern);
    let Some(Pattern::Template { template, .. }) = patterns.next() else {
        panic!("the new line is no news");
    };
    let decisions = (0..).zip(decisions).map(|(id, (adopt, from))| Decision {
        id,
        stream: "made/0".to_owned(),
        template: *template,
        adopt: *adopt,
        active_from: EventTime::from_millis((TRAINING + from) * LENGTH_MS).unwrap(),
    });
    let mut detector = detector();
    detector.set_mutes(Arc::new(Mutes::default().with_decisions(decisions)));
    score(&mut detector, windows())
}

#[test]
fn a_template_is_adopted_by_hand_at_any_level_from_a_window_on() {
    for level in [Level::Info, Level::Error] {
        let found = alarms(&decided(level, &[(true, 9)]));
        assert_eq!(found, [0, 3, 6], "{level:?}");
    }
    // By itself an error is not adopted for hours.
    let by_itself = alarms(&decided(Level::Error, &[]));
    assert!(by_itself.len() > 100, "{by_itself:?}");
}

#[test]
fn a_template_forgotten_by_hand_stays_new_until_it_is_adopted() {
    // One line never seen before is about as strange as an alarm has to be: some stay just below.
    let nearly_all = |found: &[i64], expected: Vec<i64>| {
        let there = found.iter().filter(|n| expected.contains(n)).count();
        assert_eq!(there, found.len(), "{found:?}");
        assert!(10 * there >= 9 * expected.len(), "{found:?}");
    };
    let every_third = |from, to| (from..to).filter(|n| n % 3 == 0).collect::<Vec<i64>>();
    let forgotten = alarms(&decided(Level::Info, &[(false, 0)]));
    nearly_all(&forgotten, every_third(0, 400));
    // Adopted by itself after six windows, forgotten, and adopted again.
    let found = alarms(&decided(Level::Info, &[(false, 100), (true, 200)]));
    let (first, second): (Vec<i64>, Vec<i64>) = found.into_iter().partition(|n| *n < 100);
    assert!(
        first.len() >= 3 && first.iter().all(|n| n % 3 == 0 && *n < 40),
        "{first:?}"
    );
    nearly_all(&second, every_third(100, 200));
}

#[test]
fn what_was_decided_rides_in_the_row_like_everything_else() {
    let scored = decided(Level::Error, &[(true, 9)]);
    let known = scored[12].baseline.templates();
    assert_eq!(known.len(), 1);
    let adopted = known[0].adopted.unwrap();
    assert_eq!(adopted.as_millis() / LENGTH_MS - TRAINING, 9);
    let json = serde_json::to_string(&scored[12].baseline).unwrap();
    let back: Baseline = serde_json::from_str(&json).unwrap();
    assert_eq!(back, scored[12].baseline);
    let elsewhere = decided(Level::Error, &[]);
    for (one, other) in scored.iter().zip(&elsewhere).take(9) {
        assert_eq!(
            one.baseline, other.baseline,
            "nothing changes before it begins"
        );
    }
}
