//! What is written comes back; what is damaged is refused.

use std::{error::Error, fs, ops::ControlFlow, sync::Arc};

use expect_test::{Expect, expect};
use logguard::{
    decode::{MaskRule, Masker},
    model::{BUNDLE_FILE, Bundle, Detector, TrainError, Trainer, WINDOWS_MIN},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::made::{LENGTH_MS, Maker, Random, line, lines, score, trained, trainer};

#[test]
fn a_loaded_bundle_scores_like_the_one_that_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let saved = trained(600);
    let path = saved.save(&dir.path().join("deep/er")).unwrap();
    let loaded = Arc::new(Bundle::load(path.parent().unwrap()).unwrap());
    assert_eq!(loaded.checksum(), saved.checksum());
    assert_eq!(loaded.summary(), saved.summary());
    assert_eq!(loaded.masks(), Masker::default_rules());
    let windows = |rate| {
        let (mut maker, mut random) = (Maker::new(), Random::new(3));
        (1_000..1_100)
            .map(|number| maker.window(number, &lines(&mut random, rate)))
            .collect::<Vec<_>>()
    };
    let one = score(&mut Detector::new(saved, 1.0, 1), windows(9));
    let other = score(&mut Detector::new(loaded, 1.0, 1), windows(9));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.verdict, other.verdict);
        assert_eq!(one.features, other.features);
        assert_eq!(one.explanation, other.explanation);
        assert_eq!(one.baseline, other.baseline);
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |name: &str| {
        let path = trained(500).save(&dir.path().join(name)).unwrap();
        fs::read(path).unwrap()
    };
    assert!(bytes("a") == bytes("b"), "two trainings differ");
}

/// Saves a bundle, lets `damage` loose on its text, and returns what loading says.
fn refusal(damage: impl FnOnce(String) -> String) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = trained(60).save(dir.path()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, damage(text)).unwrap();
    let error = Bundle::load(dir.path()).unwrap_err();
    assert!(error.to_string().contains(BUNDLE_FILE), "{error}");
    error.source().unwrap().to_string()
}

/// As [`refusal`], with a checksum that fits the damaged content.
fn refusal_of(damage: impl FnOnce(&mut Value)) -> String {
    refusal(|text| {
        let envelope: Value = serde_json::from_str(&text).unwrap();
        let mut model = envelope["model"].clone();
        damage(&mut model);
        let body = model.to_string();
        let checksum: String = Sha256::digest(body.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(r#"{{"format":3,"checksum":"{checksum}","model":{body}}}"#)
    })
}

fn check(message: &str, expected: Expect) {
    expected.assert_eq(message);
}

#[test]
fn damaged_files_are_refused() {
    check(
        &refusal(|text| text.split_at(text.len() / 2).0.to_owned()),
        expect!["it is cut short or not a model bundle"],
    );
    check(
        &refusal(|_| String::new()),
        expect!["it is cut short or not a model bundle"],
    );
    check(
        &refusal(|text| text.replacen(r#""format":3"#, r#""format":9"#, 1)),
        expect!["its format is 9, this version reads 3; train again"],
    );
    check(
        &refusal(|text| text.replacen("Session expired", "Session retired", 1)),
        expect!["its checksum does not match its content; it was changed or damaged"],
    );
    check(
        &refusal(|text| text + &" ".repeat(21 * 1024 * 1024)),
        expect!["it has more than 20971520 bytes"],
    );
}

#[test]
fn content_that_cannot_be_right_is_refused() {
    let dimensions = |section: &str| format!("its section `{section}` has wrong dimensions");
    assert_eq!(
        refusal_of(|model| model["usual"] = json!([])),
        dimensions("columns")
    );
    assert_eq!(
        refusal_of(|model| model["density"]["labels"] = json!([1])),
        dimensions("density")
    );
    assert_eq!(
        refusal_of(|model| model["profile"]["text"]["idf"] = json!([1.0])),
        dimensions("text")
    );
    assert_eq!(
        refusal_of(|model| model["profile"]["pairs"][0]["template"] = json!(9_999)),
        dimensions("profile")
    );
    assert_eq!(
        refusal_of(
            |model| model["calibration"]["combined"]["knots"] = json!([[2.0, -1.0], [1.0, -2.0]])
        ),
        dimensions("calibration")
    );
    let range = |section: &str| {
        format!("its section `{section}` holds a number that is not finite or out of range")
    };
    assert_eq!(
        refusal_of(|model| model["density"]["eps"] = json!(0.0)),
        range("density")
    );
    assert_eq!(
        refusal_of(|model| model["profile"]["critical_share"] = json!(-0.5)),
        range("profile")
    );
    assert_eq!(
        refusal_of(|model| model["masks"][0]["pattern"] = json!("(")),
        "one of its masks cannot be used"
    );
    let shape = "it is cut short or not a model bundle";
    // JSON has no infinity; what overflows is refused while reading.
    let overflowing = refusal(|text| {
        let (head, body) = text.split_once(r#""eps":"#).unwrap();
        let (_, rest) = body.split_once(',').unwrap();
        let text = format!(r#"{head}"eps":1e999,{rest}"#);
        let (_, model) = text.split_once(r#""model":"#).unwrap();
        let model = model.trim_end().strip_suffix('}').unwrap();
        let checksum: String = Sha256::digest(model.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(r#"{{"format":3,"checksum":"{checksum}","model":{model}}}"#)
    });
    assert_eq!(overflowing, shape);
    assert_eq!(refusal_of(|model| model["more"] = json!(1)), shape);
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Bundle::load(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("cannot read model bundle") && error.contains(BUNDLE_FILE));
}

#[test]
fn training_says_what_it_cannot_use() {
    let message = |error: TrainError| error.to_string();
    check(
        &message(trainer().finish(&mut |_| {}).unwrap_err()),
        expect!["the training data has no log lines; check the input and its time range"],
    );
    check(
        &message(Trainer::new(&[], 0).unwrap_err()),
        expect!["window length is 0 ms, it has to be positive"],
    );
    let broken = MaskRule {
        name: "open".to_owned(),
        pattern: "(".to_owned(),
    };
    check(
        &message(Trainer::new(&[broken], LENGTH_MS).unwrap_err()),
        expect!["cannot use the configured masks"],
    );
}

#[test]
fn training_can_be_broken_off_between_its_steps() {
    let broken_off_after = |calls_max: usize| {
        let (mut trainer, mut maker, mut random) = (trainer(), Maker::new(), Random::new(2));
        for number in 0..100 {
            trainer.add(&maker.window(number, &lines(&mut random, 20)));
        }
        let mut calls = 0;
        let outcome = trainer.finish_or_break(&mut |_| {
            calls += 1;
            match calls > calls_max {
                true => ControlFlow::Break("enough"),
                false => ControlFlow::Continue(()),
            }
        });
        (outcome.unwrap(), calls)
    };
    let (whole, calls) = broken_off_after(usize::MAX);
    assert!(whole.is_continue());
    for calls_max in 0..calls {
        let (outcome, asked) = broken_off_after(calls_max);
        assert_eq!(outcome.break_value(), Some("enough"));
        assert_eq!(asked, calls_max + 1, "it went on");
    }
}

#[test]
fn too_few_windows_with_lines_are_refused_and_just_enough_make_a_model() {
    let mut maker = Maker::new();
    let learn = |maker: &mut Maker, windows: usize| {
        let (mut trainer, mut random) = (trainer(), Random::new(2));
        for number in 0..4 * windows {
            // Windows without lines count for nothing.
            let rate = 5 * u32::from(number % 4 == 0);
            let mut lines = lines(&mut random, rate);
            if rate > 0 && lines.is_empty() {
                lines.push(line(&mut random));
            }
            trainer.add(&maker.window(i64::try_from(number).unwrap(), &lines));
        }
        trainer.finish(&mut |_| {})
    };
    check(
        &learn(&mut maker, WINDOWS_MIN - 1).unwrap_err().to_string(),
        expect![
            "the training data has 19 windows with log lines, at least 20 are needed; train on a longer time"
        ],
    );
    let bundle = learn(&mut maker, WINDOWS_MIN).unwrap();
    assert!(bundle.summary().core_points > 0, "{:?}", bundle.summary());
    let scored = score(
        &mut Detector::new(bundle.into(), 1.0, 1),
        [maker.window(80, &lines(&mut Random::new(3), 500))],
    );
    assert!(scored[0].verdict.severity.is_finite());
}
