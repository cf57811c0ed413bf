//! The 30 columns against scikit-learn's numbers; `fixtures/text_path.py` made them.

use logguard::{
    event::Level,
    features::{COLUMNS, Column},
    model::Detector,
};
use serde::Deserialize;

use crate::made::{Line, Maker, score, trainer};

#[derive(Deserialize)]
struct Fixture {
    training: Vec<Vec<(Level, String)>>,
    live: Vec<Vec<(Level, String)>>,
    rows: Vec<Vec<Option<f64>>>,
}

fn lines(window: &[(Level, String)]) -> Vec<Line> {
    window
        .iter()
        .map(|(level, message)| (*level, "one-service", message.clone()))
        .collect()
}

#[test]
fn columns_equal_those_of_scikit_learn() {
    let fixture: Fixture =
        serde_json::from_str(include_str!("../fixtures/text_path.json")).unwrap();
    let mut maker = Maker::new();
    let mut trainer = trainer();
    for (number, window) in (0..).zip(&fixture.training) {
        trainer.add(&maker.window(number, &lines(window)));
    }
    let bundle = trainer.finish(&mut |_| {}).unwrap();
    let mut detector = Detector::new(bundle.into(), 1.0, 1);
    let live: Vec<_> = (1_000..)
        .zip(&fixture.live)
        .map(|(number, window)| maker.window(number, &lines(window)))
        .collect();
    let scored = score(&mut detector, live);
    let mut compared = 0;
    for (window, (scored, expected)) in scored.iter().zip(&fixture.rows).enumerate() {
        assert_eq!(expected.len(), 30);
        for (column, expected) in expected.iter().enumerate() {
            let Some(expected) = expected else {
                assert_eq!(column, Column::MessageCluster as usize);
                continue;
            };
            let actual = scored.features.values[column];
            let name = COLUMNS[column];
            assert!(
                (actual - expected).abs() < 1e-6,
                "window {window}, {name}: {actual} is not {expected}"
            );
            compared += 1;
        }
    }
    // All but the cluster's number, which only the empty window has for sure.
    assert_eq!(compared, 40 * 29 + 1);
}

#[test]
fn places_in_the_row_bear_the_names_of_the_contract() {
    for (column, name) in [
        (Column::LogCount, "log_count"),
        (Column::CriticalRate, "critical_rate"),
        (Column::MessageCluster, "message_cluster"),
        (Column::Tfidf0, "tfidf_0"),
        (Column::UnseenTemplates, "unseen_templates"),
        (Column::DistinctServices, "distinct_services"),
        (Column::CriticalRate1h, "critical_rate_1h"),
    ] {
        assert_eq!(column.name(), name);
    }
    assert_eq!(COLUMNS[29], "tfidf_14");
    assert_eq!(Column::CriticalRate1h as usize, COLUMNS.len() - 1);
}

#[test]
fn an_empty_window_is_all_zeros_and_a_row_does_not_depend_on_order() {
    let mut maker = Maker::new();
    let mut random = crate::made::Random::new(5);
    let forward = crate::made::lines(&mut random, 40);
    let backward: Vec<_> = forward.iter().rev().cloned().collect();
    let mut detector = Detector::new(crate::made::trained(400), 1.0, 1);
    let empty = score(&mut detector, [maker.window(0, &[])]);
    assert!(empty[0].features.values.iter().all(|v| *v == 0.0));
    let one = score(&mut detector, [maker.window(0, &forward)]);
    let other = score(&mut detector, [maker.window(0, &backward)]);
    assert_eq!(one[0].features, other[0].features);
    assert_eq!(one[0].verdict, other[0].verdict);
}
