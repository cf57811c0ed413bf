use expect_test::{Expect, expect};

use super::*;
use crate::event::TopicPartition;

const WINDOW_MS: i64 = 30_000;

fn stream(partition: i32) -> StreamKey {
    StreamKey {
        partition: TopicPartition {
            topic: "logs".into(),
            partition,
        },
        service: None,
    }
}

fn time(millis: i64) -> EventTime {
    EventTime::from_millis(millis).unwrap()
}

/// A window by its number: `lines` of which `labelled` carry a label and `anomalous` are so.
fn window(
    stream: &StreamKey,
    number: i64,
    (lines, labelled, anomalous): (u64, u64, u64),
    (alarmed, severity): (bool, f64),
) -> EvaluatedWindow<'_> {
    EvaluatedWindow {
        stream,
        bounds: WindowBounds {
            start: time(number * WINDOW_MS),
            end: time((number + 1) * WINDOW_MS),
        },
        lines,
        labelled,
        anomalous,
        alarmed,
        capped: false,
        severity,
        early: None,
        first_anomalous: None,
        scored: None,
    }
}

/// Ten windows in five minutes: two found, one missed, one false alarm, one alarm on a window
/// without labels, one empty.
fn mixed() -> Evaluation {
    let stream = stream(0);
    let mut evaluation = Evaluation::new(WINDOW_MS);
    let normal = (10, 10, 0);
    for (number, lines, verdict) in [
        (0, normal, (false, 0.1)),
        (1, (10, 10, 3), (true, 5.0)),
        (2, (10, 1, 1), (true, 4.0)),
        (3, normal, (true, 3.5)),
        (4, normal, (false, 0.3)),
        (5, (0, 0, 0), (false, 0.0)),
        (6, (10, 10, 1), (false, 0.3)),
        (7, (10, 0, 0), (true, 9.0)),
        (8, normal, (false, 0.2)),
        (9, normal, (false, 0.2)),
    ] {
        evaluation.add(window(&stream, number, lines, verdict));
    }
    for (millis, kind) in [
        (31_000, "spike"),
        (32_000, "spike"),
        (59_999, "cascade"),
        (60_000, "spike"),
        (185_000, "security"),
        // No window holds this one.
        (9_000_000, "spike"),
    ] {
        evaluation.add_anomaly_type(time(millis), kind);
    }
    evaluation
}

fn totals() -> RunTotals {
    RunTotals {
        events: 1_234_567,
        rejected: 3,
        late: 2,
        seconds: 2.0,
        alarms_per_day: Some(1.0),
        threshold: Some(1e-3),
        windows_per_day: Some(1_000.0),
    }
}

#[test]
fn counts_and_ratios_are_exact() {
    let report = mixed().report(&totals());
    assert_eq!((report.windows, report.alarms), (10, 4));
    assert_eq!(report.anomalous_windows, Some(3));
    let confusion = [report.tp, report.fp, report.fn_, report.tn];
    assert_eq!(confusion, [Some(2), Some(1), Some(1), Some(5)]);
    assert_eq!(report.precision, Some(2.0 / 3.0));
    assert_eq!(report.recall, Some(2.0 / 3.0));
    assert_eq!(report.f1, Some(4.0 / 6.0));
    // Anomalous 5.0, 4.0 and 0.3 against normal 3.5, 0.3, 0.2, 0.2, 0.1, 0.0: 6 + 6 + 4.5 of 18.
    assert_eq!(report.roc_auc, Some(16.5 / 18.0));
    // 1/1 and 2/2, then 3/5 where the tie at 0.3 is one step.
    assert_eq!(report.pr_auc, Some(2.6 / 3.0));
    let sums = [
        report.labelled_windows,
        report.empty_windows,
        report.unlabelled_windows,
    ];
    assert_eq!(sums, [8, 1, 1]);
    assert_eq!(report.days, 300.0 / 86_400.0);
    // One window of the ten carries no label.
    assert_eq!(report.judged_days, 270.0 / 86_400.0);
    assert_eq!(report.alarms_per_day, Some(4.0 * 288.0));
    assert_eq!(report.episodes, 2);
    let budget = report.budget.unwrap();
    assert_eq!((budget.actual, budget.usual_range), (1, Some((0, 0))));
    assert!(!budget.kept);
}

#[test]
fn recall_is_given_per_kind_of_anomaly() {
    let types: Vec<(String, u64, u64, Option<f64>)> = mixed()
        .report(&totals())
        .anomaly_types
        .into_iter()
        .map(|kind| (kind.name, kind.windows, kind.alarmed, kind.recall))
        .collect();
    assert_eq!(
        types,
        [
            ("cascade".to_owned(), 1, 1, Some(1.0)),
            ("security".to_owned(), 1, 0, Some(0.0)),
            ("spike".to_owned(), 2, 2, Some(1.0)),
        ]
    );
}

#[test]
fn kinds_beyond_the_cap_are_counted_together() {
    let stream = stream(0);
    let mut evaluation = Evaluation::new(WINDOW_MS);
    evaluation.add(window(&stream, 0, (1, 1, 1), (true, 1.0)));
    for kind in 0..1_000 {
        evaluation.add_anomaly_type(time(0), &format!("kind {kind:04}"));
    }
    let types = evaluation.report(&totals()).anomaly_types;
    assert_eq!(types.len(), ANOMALY_TYPES_MAX + 1);
    assert_eq!((types[0].name.as_str(), types[0].windows), (OTHER_TYPES, 1));
}

#[test]
fn episodes_end_at_gaps_and_at_streams() {
    let (first, second) = (stream(0), stream(1));
    let mut evaluation = Evaluation::new(WINDOW_MS);
    // 3, 4, 5 follow each other, given out of order; 7 stands alone; 8 is of another stream.
    for number in [5, 3, 7, 4] {
        evaluation.add(window(&first, number, (1, 0, 0), (true, 1.0)));
    }
    evaluation.add(window(&first, 6, (1, 0, 0), (false, 0.0)));
    evaluation.add(window(&second, 8, (1, 0, 0), (true, 1.0)));
    let report = evaluation.report(&RunTotals::default());
    assert_eq!((report.alarms, report.episodes, report.streams), (5, 3, 2));
}

fn check_text(evaluation: &Evaluation, totals: &RunTotals, expected: &Expect) {
    let mut text = Vec::new();
    evaluation.report(totals).write_text(&mut text).unwrap();
    expected.assert_eq(std::str::from_utf8(&text).unwrap());
}

fn check_json(evaluation: &Evaluation, totals: &RunTotals, expected: &Expect) {
    let mut text = Vec::new();
    evaluation.report(totals).write_json(&mut text).unwrap();
    expected.assert_eq(std::str::from_utf8(&text).unwrap());
}

#[test]
fn the_table_is_aligned() {
    check_text(
        &mixed(),
        &totals(),
        &expect![[r#"
            events                1,234,567  in 2.0 s, 617,284 a second
            rejected                      3  rows that could not be decoded
            late                          2  events after their window was final
            windows                      10  1 empty
            days                       0.00  1970-01-01T00:00:00.000Z to 1970-01-01T00:05:00.000Z, 0.00 judged
            alarms                        4  1152.0 a day, in 2 episodes, 576.0 a day
            false alarms                  1  0.00 expected at 1 a day (0 to 0 in 95 of 100 cases): budget exceeded

                                      alarm     no alarm
            anomalous                     2            1
            normal                        1            5

            precision                0.6667  of the alarms were right
            recall                   0.6667  of the anomalous windows alarmed
            f1                       0.6667
            roc auc                  0.9167  of the severity, whatever the threshold
            pr auc                   0.8667  average precision of the severity
            best possible f1         0.8000  at severity 4.00, chosen by the labels: an upper bound, no result
            incidents                     1  of 2 found; told 30 s after their first line (median), 95 of 100 within 30 s
            worst hour                  1.0  times the mean: 00:00 UTC with 1 false alarms

            anomaly type            windows      alarmed       recall    incidents     median s
            cascade                       1            1       1.0000       1 of 1           30
            security                      1            0       0.0000       0 of 1            -
            spike                         2            2       1.0000       1 of 1           30

            budget a day           severity    precision       recall           f1  false a day
                           0.1         4.00       1.0000       0.3333       0.5000         0.00
                          0.25         3.60       1.0000       0.6667       0.8000         0.00
                           0.5         3.30       0.6667       0.6667       0.6667       320.00
                             1         3.00       0.6667       0.6667       0.6667       320.00
                             2         2.70       0.6667       0.6667       0.6667       320.00
                             5         2.30       0.6667       0.6667       0.6667       320.00
                            10         2.00       0.6667       0.6667       0.6667       320.00
                            15         1.82       0.6667       0.6667       0.6667       320.00
                            20         1.70       0.6667       0.6667       0.6667       320.00
                            50         1.30       0.6667       0.6667       0.6667       320.00

            Windows without lines count as normal.
            Windows whose lines carry no label are in no ratio, and their time in no rate of false alarms: 1.
        "#]],
    );
}

#[test]
fn the_json_object_begins_with_the_promised_keys() {
    check_json(
        &mixed(),
        &totals(),
        &expect![[r#"
            {"events":1234567,"windows":10,"anomalous_windows":3,"alarms":4,"tp":2,"fp":1,"fn":1,"tn":5,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"roc_auc":0.9166666666666666,"seconds":2.0,"pr_auc":0.8666666666666667,"rejected":3,"late":2,"labelled_windows":8,"empty_windows":1,"unlabelled_windows":1,"capped_windows":0,"streams":1,"start":"1970-01-01T00:00:00.000Z","end":"1970-01-01T00:05:00.000Z","days":0.003472222222222222,"judged_days":0.003125,"alarms_per_day":1152.0,"episodes":2,"budget":{"alarms_per_day":1.0,"expected":0.003125,"actual":1,"usual_range":[0,0],"kept":false},"anomaly_types":[{"name":"cascade","windows":1,"alarmed":1,"recall":1.0,"incidents":{"count":1,"found":1,"recall":1.0,"median_s":30.0,"p95_s":30.0}},{"name":"security","windows":1,"alarmed":0,"recall":0.0,"incidents":{"count":1,"found":0,"recall":0.0,"median_s":null,"p95_s":null}},{"name":"spike","windows":2,"alarmed":2,"recall":1.0,"incidents":{"count":1,"found":1,"recall":1.0,"median_s":30.0,"p95_s":30.0}}],"best_f1_using_labels":{"severity":4.0,"precision":1.0,"recall":0.6666666666666666,"f1":0.8},"threshold":0.001,"episodes_per_day":576.0,"incidents":{"count":2,"found":1,"recall":0.5,"median_s":30.0,"p95_s":30.0},"alarm_hours":{"per_hour":[1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"windows":[9,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"worst_hour":0,"worst_over_mean":1.0},"sweep":[{"alarms_per_day":0.1,"severity":4.0,"alarms":2,"precision":1.0,"recall":0.3333333333333333,"f1":0.5,"false_alarms_per_day":0.0},{"alarms_per_day":0.25,"severity":3.6020599913279625,"alarms":3,"precision":1.0,"recall":0.6666666666666666,"f1":0.8,"false_alarms_per_day":0.0},{"alarms_per_day":0.5,"severity":3.3010299956639813,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0},{"alarms_per_day":1.0,"severity":3.0,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0},{"alarms_per_day":2.0,"severity":2.6989700043360187,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0},{"alarms_per_day":5.0,"severity":2.3010299956639813,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0},{"alarms_per_day":10.0,"severity":2.0,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0},{"alarms_per_day":15.0,"severity":1.8239087409443189,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0},{"alarms_per_day":20.0,"severity":1.6989700043360187,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0},{"alarms_per_day":50.0,"severity":1.3010299956639813,"alarms":4,"precision":0.6666666666666666,"recall":0.6666666666666666,"f1":0.6666666666666666,"false_alarms_per_day":320.0}],"worst_misses":[],"worst_false_alarms":[],"strongest_unjudged":[]}
        "#]],
    );
}

#[test]
fn unlabelled_input_has_no_precision() {
    let stream = stream(0);
    let mut evaluation = Evaluation::new(WINDOW_MS);
    evaluation.add(window(&stream, 0, (5, 0, 0), (true, 2.0)));
    evaluation.add(window(&stream, 1, (0, 0, 0), (false, 0.0)));
    let totals = RunTotals {
        events: 5,
        alarms_per_day: Some(5760.0),
        threshold: Some(0.5),
        windows_per_day: Some(11_520.0),
        ..RunTotals::default()
    };
    check_text(
        &evaluation,
        &totals,
        &expect![[r#"
            events                        5  in 0.0 s
            windows                       2  1 empty
            days                       0.00  1970-01-01T00:00:00.000Z to 1970-01-01T00:01:00.000Z
            alarms                        1  1440.0 a day, in 1 episode, 1440.0 a day
            if all were false             1  4.00 expected at 5760 a day (1 to 8 in 95 of 100 cases): budget kept
            worst hour                  1.0  times the mean: 00:00 UTC with 1 alarms

            budget a day           severity    precision       recall           f1 alarms a day
                           0.1         5.06            -            -            -         0.00
                          0.25         4.66            -            -            -         0.00
                           0.5         4.36            -            -            -         0.00
                             1         4.06            -            -            -         0.00
                             2         3.76            -            -            -         0.00
                             5         3.36            -            -            -         0.00
                            10         3.06            -            -            -         0.00
                            15         2.89            -            -            -         0.00
                            20         2.76            -            -            -         0.00
                            50         2.36            -            -            -         0.00

            The input carries no labels: alarms are counted, not judged.
        "#]],
    );
    check_json(
        &evaluation,
        &totals,
        &expect![[r#"
            {"events":5,"windows":2,"anomalous_windows":null,"alarms":1,"tp":null,"fp":null,"fn":null,"tn":null,"precision":null,"recall":null,"f1":null,"roc_auc":null,"seconds":0.0,"pr_auc":null,"rejected":0,"late":0,"labelled_windows":0,"empty_windows":1,"unlabelled_windows":1,"capped_windows":0,"streams":1,"start":"1970-01-01T00:00:00.000Z","end":"1970-01-01T00:01:00.000Z","days":0.0006944444444444445,"judged_days":0.0006944444444444445,"alarms_per_day":1440.0,"episodes":1,"budget":{"alarms_per_day":5760.0,"expected":4.0,"actual":1,"usual_range":[1,8],"kept":true},"anomaly_types":[],"best_f1_using_labels":null,"threshold":0.5,"episodes_per_day":1440.0,"incidents":null,"alarm_hours":{"per_hour":[1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"windows":[2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"worst_hour":0,"worst_over_mean":1.0},"sweep":[{"alarms_per_day":0.1,"severity":5.061452479087193,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":0.25,"severity":4.663512470415156,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":0.5,"severity":4.362482474751174,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":1.0,"severity":4.061452479087193,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":2.0,"severity":3.760422483423212,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":5.0,"severity":3.3624824747511743,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":10.0,"severity":3.061452479087193,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":15.0,"severity":2.885361220031512,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":20.0,"severity":2.7604224834232123,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0},{"alarms_per_day":50.0,"severity":2.3624824747511743,"alarms":0,"precision":null,"recall":null,"f1":null,"false_alarms_per_day":0.0}],"worst_misses":[],"worst_false_alarms":[],"strongest_unjudged":[]}
        "#]],
    );
}

#[test]
fn ratios_of_nothing_are_absent() {
    let stream = stream(0);
    let mut evaluation = Evaluation::new(WINDOW_MS);
    evaluation.add(window(&stream, 0, (5, 5, 0), (false, 0.0)));
    check_text(
        &evaluation,
        &RunTotals::default(),
        &expect![[r#"
            events                        0  in 0.0 s
            windows                       1  0 empty
            days                       0.00  1970-01-01T00:00:00.000Z to 1970-01-01T00:00:30.000Z
            alarms                        0  0.0 a day, in 0 episodes, 0.0 a day

                                      alarm     no alarm
            anomalous                     0            0
            normal                        0            1

            precision                     -  of the alarms were right
            recall                        -  of the anomalous windows alarmed
            f1                            -
            roc auc                       -  of the severity, whatever the threshold
            pr auc                        -  average precision of the severity
            incidents                     0  of 0 found
        "#]],
    );
    let nothing = Evaluation::new(WINDOW_MS).report(&RunTotals::default());
    assert_eq!(
        (nothing.windows, nothing.start, nothing.alarms_per_day),
        (0, None, None)
    );
}

#[test]
fn incidents_are_runs_of_a_stream_and_told_of_from_their_first_line() {
    let (one, other) = (stream(0), stream(1));
    let mut evaluation = Evaluation::new(WINDOW_MS);
    let anomalous = (10, 10, 1);
    // Of stream 0: windows 3 to 5, told at the end of the second; of stream 1: window 4, missed; of
    // stream 0 again: window 8, told.
    for (stream, number, alarmed, first_line) in [
        (&one, 4, true, None),
        (&one, 3, false, Some(100_000)),
        (&one, 5, true, None),
        (&other, 4, false, None),
        (&one, 8, true, Some(260_000)),
    ] {
        evaluation.add(EvaluatedWindow {
            // The last one is told of within its window.
            early: (number == 8).then(|| time(265_000)),
            first_anomalous: first_line.map(time),
            ..window(stream, number, anomalous, (alarmed, 1.0))
        });
    }
    evaluation.add_anomaly_type(time(125_000), "leak");
    let report = evaluation.report(&totals());
    let incidents = report.incidents.unwrap();
    assert_eq!((incidents.count, incidents.found), (3, 2));
    // 150 s - 100 s and 265 s - 260 s.
    assert_eq!(
        (incidents.median_s, incidents.p95_s),
        (Some(27.5), Some(50.0))
    );
    // Types are told by time: the window of either stream has it.
    let leak = &report.anomaly_types[0].incidents;
    assert_eq!((leak.count, leak.found, leak.median_s), (2, 1, Some(50.0)));
}

#[test]
fn other_budgets_are_other_thresholds_on_the_same_severities() {
    let report = mixed().report(&totals());
    let row = |budget: f64| {
        let found = report.sweep.iter().find(|row| row.alarms_per_day == budget);
        *found.unwrap()
    };
    // 1e-3 at one a day: severity 3, which 5.0, 4.0, 3.5 and the unlabelled 9.0 exceed.
    let at_one = row(1.0);
    assert!((at_one.severity - 3.0).abs() < 1e-12);
    assert_eq!((at_one.alarms, at_one.precision), (4, Some(2.0 / 3.0)));
    assert_eq!(at_one.false_alarms_per_day, Some(320.0));
    assert_eq!((row(0.1).alarms, row(0.1).precision), (2, Some(1.0)));
    assert_eq!(row(50.0).recall, Some(2.0 / 3.0));
    let unjudged = Evaluation::new(WINDOW_MS).report(&totals());
    assert!(unjudged.sweep.iter().all(|row| row.f1.is_none()));
}

#[test]
fn time_without_labels_is_in_no_rate_of_false_alarms() {
    let stream = stream(0);
    let mut evaluation = Evaluation::new(WINDOW_MS);
    // Four days of ten alarms each; the lines of the first one carry labels.
    for number in 0..4 * 2_880 {
        let labelled = if number < 2_880 { 5 } else { 0 };
        let alarmed = number % 288 == 0;
        let verdict = (alarmed, if alarmed { 9.0 } else { 0.1 });
        evaluation.add(window(&stream, number, (5, labelled, 0), verdict));
    }
    let totals = RunTotals {
        alarms_per_day: Some(10.0),
        ..totals()
    };
    let report = evaluation.report(&totals);
    assert_eq!((report.days, report.judged_days), (4.0, 1.0));
    assert_eq!((report.alarms, report.alarms_per_day), (40, Some(10.0)));
    let budget = report.budget.unwrap();
    assert_eq!((budget.expected, budget.actual), (10.0, 10));
    let mut rates = report.sweep.iter().map(|row| row.false_alarms_per_day);
    assert!(rates.all(|rate| rate == Some(10.0)));
    let figures = Figures::of("signals", "c0ffee", &report);
    assert_eq!(figures.false_alarms_per_day, Some(10.0));
    let judged: u64 = report.alarm_hours.windows.iter().sum();
    assert_eq!(judged, 2_880);
}

#[test]
fn budgets_beyond_the_range_of_thresholds_are_brought_into_it() {
    // Of 10 windows a day half may alarm at most, whatever the budget.
    let totals = RunTotals {
        alarms_per_day: Some(50.0),
        threshold: Some(0.5),
        windows_per_day: Some(10.0),
        ..RunTotals::default()
    };
    let sweep = mixed().report(&totals).sweep;
    let severity = |budget: f64| {
        let found = sweep.iter().find(|row| row.alarms_per_day == budget);
        found.map(|row| row.severity)
    };
    assert_eq!(severity(0.1), Some(2.0));
    assert_eq!(severity(1.0), Some(1.0));
    let largest = Some(0.5_f64.log10().abs());
    for budget in [5.0, 10.0, 20.0, 50.0] {
        assert_eq!(severity(budget), largest, "{budget}");
    }
}

#[test]
fn what_a_young_model_holds_back_is_told_beside_other_budgets() {
    let stream = stream(0);
    let mut evaluation = mixed();
    evaluation.add(EvaluatedWindow {
        capped: true,
        ..window(&stream, 10, (10, 10, 0), (false, 6.0))
    });
    let report = evaluation.report(&totals());
    assert_eq!((report.alarms, report.capped_windows), (4, 1));
    let at_one = report.sweep.iter().find(|row| row.alarms_per_day == 1.0);
    assert_eq!(at_one.unwrap().alarms, 5);
    let mut text = Vec::new();
    report.write_text(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("were spent: 1. Budgets"), "{text}");
}

#[test]
fn the_worst_hour_is_that_with_most_false_alarms_per_window() {
    let stream = stream(0);
    let mut evaluation = Evaluation::new(WINDOW_MS);
    for number in 0..2 * 2_880 {
        let hour = number / 120 % 24;
        let alarmed = (hour == 3 && number % 40 == 0) || number == 10 * 120;
        evaluation.add(window(&stream, number, (5, 5, 0), (alarmed, 1.0)));
    }
    let hours = evaluation.report(&totals()).alarm_hours;
    assert_eq!((hours.per_hour[3], hours.per_hour[10]), (6, 1));
    assert_eq!((hours.windows[0], hours.worst_hour), (240, Some(3)));
    let times = hours.worst_over_mean.unwrap();
    assert!((times - 6.0 / 7.0 * 24.0).abs() < 1e-9, "{times}");
}

#[test]
fn the_picture_of_a_long_run_is_small_and_loses_no_peak() {
    let stream = stream(0);
    let mut evaluation = Evaluation::new(WINDOW_MS);
    let peaks = [7, 100_003, 299_999];
    for number in 0..300_000 {
        let severity = if peaks.contains(&number) { 9.0 } else { 0.5 };
        let truth = (5, 5, u64::from(number == 100_003));
        evaluation.add(window(&stream, number, truth, (severity > 5.0, severity)));
    }
    let span = evaluation.span().unwrap();
    let timeline = Timeline::of(&evaluation.windows, span, WINDOW_MS);
    assert_eq!(timeline.buckets.len(), timeline::BUCKETS);
    let high = timeline.buckets.iter().filter(|it| it.severity == 9.0);
    assert_eq!(high.count(), 3);
    let sum = |of: fn(&timeline::Bucket) -> u64| timeline.buckets.iter().map(of).sum::<u64>();
    assert_eq!((sum(|it| it.found), sum(|it| it.false_alarms)), (1, 2));
    let report = evaluation.report(&totals());
    let mut page = Vec::new();
    let heading = Heading::default();
    evaluation.page(&report, &heading).write(&mut page).unwrap();
    assert!(page.len() < 200_000, "{} bytes", page.len());
}
