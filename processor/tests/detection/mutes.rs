//! What an alarm is about, and what is left of it when that is muted.

use std::sync::Arc;

use logguard::{
    event::{EventTime, Level},
    model::{Detector, Mute, Mutes, Pattern, ScoredWindow},
};

use crate::{
    made::{LENGTH_MS, Line, Maker, Random, lines, score, trainer},
    scores::{TRAINING, alarms, model, windows},
};

const NEW: &str = "Data corruption detected in table orders";
const OTHER: &str = "Kernel panic while mounting the root volume";

fn line(level: Level, message: &str) -> Line {
    (level, "order-service", message.to_owned())
}

/// 100 windows; `change` may alter the lines of windows 60, 70 and 80.
fn scored(mutes: &[Mute], change: impl Fn(i64, &mut Vec<Line>)) -> Vec<ScoredWindow> {
    let mut detector = Detector::new(model(), 1.0, 1);
    detector.set_mutes(Arc::new(Mutes::new(mutes.iter().cloned())));
    let altered = windows(100, 20, |number, lines, _| {
        if [60, 70, 80].contains(&number) {
            change(number, lines);
        }
    });
    score(&mut detector, altered)
}

fn start(number: i64) -> EventTime {
    EventTime::from_millis((TRAINING + number) * LENGTH_MS).unwrap()
}

fn mute(pattern: &Pattern, from: i64, until: i64) -> Mute {
    Mute {
        id: 7,
        stream: "made/0".to_owned(),
        pattern: pattern.clone(),
        active_from: start(from),
        expires_at: start(until),
    }
}

fn only_template(scored: &ScoredWindow) -> Pattern {
    let [pattern] = &scored.explanation.pattern[..] else {
        panic!("{:?}", scored.explanation);
    };
    assert!(matches!(pattern, Pattern::Template { .. }), "{pattern:?}");
    pattern.clone()
}

#[test]
fn a_muted_template_alarms_no_more_until_it_expires_and_others_do() {
    let with_new = |number: i64, lines: &mut Vec<Line>| {
        lines.push(line(Level::Error, NEW));
        if number == 80 {
            lines.push(line(Level::Error, OTHER));
        }
    };
    let full = scored(&[], with_new);
    assert_eq!(alarms(&full), [60, 70, 80]);
    let pattern = only_template(&full[60]);
    assert_eq!(full[80].explanation.pattern.len(), 2);

    let muted = scored(&[mute(&pattern, 65, 100)], with_new);
    assert_eq!(alarms(&muted), [60, 80]);
    let verdict = muted[70].verdict;
    assert!(verdict.muted && !verdict.is_anomaly);
    let reasons = &muted[70].explanation.reasons;
    assert_eq!(reasons.last().unwrap(), &format!("muted (7): `{NEW}`"));
    let about = only_template(&muted[80]);
    assert!(matches!(about, Pattern::Template { text, .. } if text == OTHER));
    assert!(!muted[80].verdict.muted);

    // By event time: the window at which it expires is judged in full.
    assert_eq!(
        alarms(&scored(&[mute(&pattern, 65, 70)], with_new)),
        [60, 70, 80]
    );
    let elsewhere = Mute {
        stream: "made/1".to_owned(),
        ..mute(&pattern, 0, 100)
    };
    assert_eq!(alarms(&scored(&[elsewhere], with_new)), [60, 70, 80]);
}

#[test]
fn windows_without_what_is_muted_are_judged_the_same() {
    let pattern = Pattern::Template {
        template: 1,
        text: "never comes".to_owned(),
    };
    let with_new = |_: i64, lines: &mut Vec<Line>| lines.push(line(Level::Error, NEW));
    let (full, muted) = (
        scored(&[], with_new),
        scored(&[mute(&pattern, 0, 100)], with_new),
    );
    for (one, other) in full.iter().zip(&muted) {
        assert_eq!(one.verdict, other.verdict);
        assert_eq!(one.explanation, other.explanation);
        assert_eq!(one.baseline, other.baseline);
    }
}

#[test]
fn a_flood_of_familiar_lines_is_about_the_volume_and_nothing_else() {
    let flood = |_: i64, more: &mut Vec<Line>| more.extend(lines(&mut Random::new(5), 400));
    let full = scored(&[], flood);
    assert_eq!(alarms(&full), [60, 70, 80]);
    assert_eq!(full[60].explanation.pattern, [Pattern::Volume]);
    let muted = scored(&[mute(&Pattern::Volume, 65, 75)], flood);
    assert_eq!(alarms(&muted), [60, 80]);
    assert!(muted[70].verdict.muted);
}

#[test]
fn a_burst_of_familiar_errors_is_muted_by_its_pattern() {
    let burst = |_: i64, lines: &mut Vec<Line>| {
        let service = |name: &'static str| {
            (
                Level::Error,
                name,
                "Payment declined - insufficient funds for user 5".to_owned(),
            )
        };
        lines.extend(vec![service("payment-service"); 12]);
        lines.extend(vec![service("order-service"); 12]);
    };
    let full = scored(&[], burst);
    assert_eq!(alarms(&full), [60, 70, 80]);
    let pattern = &full[60].explanation.pattern;
    assert!(!pattern.is_empty());
    let mutes: Vec<Mute> = pattern.iter().map(|part| mute(part, 65, 100)).collect();
    assert_eq!(alarms(&scored(&mutes, burst)), [60]);
}

#[test]
fn what_a_false_alarm_in_training_was_about_is_no_news() {
    let alarms_of = |said_false: bool| {
        let (mut maker, mut random) = (Maker::new(), Random::new(1));
        let mut trainer = trainer();
        for number in 0..1_000 {
            let mut of = lines(&mut random, 20);
            if number == 700 {
                of.push(line(Level::Error, NEW));
            }
            let window = maker.window(number, &of);
            if said_false && number == 700 {
                trainer.add_false_alarm(&window);
            } else {
                trainer.add(&window);
            }
        }
        let model = Arc::new(trainer.finish(&mut |_| {}).unwrap());
        let with_new = windows(100, 20, |number, lines, _| {
            if number == 60 {
                lines.push(line(Level::Error, NEW));
            }
        });
        alarms(&score(&mut Detector::new(model, 1.0, 1), with_new))
    };
    assert_eq!(alarms_of(false), [60]);
    assert!(alarms_of(true).is_empty());
}
