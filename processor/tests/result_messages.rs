//! Result messages and dead letters, through a broker.

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use expect_test::expect;
use logguard::{
    decode::{RejectReason, Rejected},
    event::{Level, OffsetSpan},
    features::COLUMNS,
    sink::{Ack, DeadLetter, SinkLabel, SinksConfig, dead_letter::DeadLetterConfig, results},
};
use sinks::Harness;
use windows::{Spec, job, partition, window_start};

fn spec() -> Spec {
    Spec {
        service: Some("auth-service"),
        is_anomaly: true,
        reasons: vec!["template never seen"],
        lines: vec![
            (Level::Error, "broken", Some(true)),
            (Level::Fatal, "dead", Some(false)),
        ],
        ..Spec::default()
    }
}

#[test]
fn fields_stand_in_the_order_of_the_contract() {
    let job = job(&spec());
    let message = serde_json::to_string(&results::result_message(&job.scored, job.stale)).unwrap();
    // What the model explains is its own affair.
    let (before, after) = message.split_once(r#","explanation":"#).unwrap();
    expect![[r#"{"timestamp":"2025-12-27T10:30:30.000Z","window_start":"2025-12-27T10:30:00.000Z","window_end":"2025-12-27T10:30:30.000Z","is_anomaly":1,"anomaly_score":0.25,"cluster_label":-1,"log_count":2,"error_count":1,"critical_count":2,"ground_truth":1,"stream":"log-events/0/auth-service","topic":"log-events","partition":0,"service":"auth-service","final_by":"watermark","provisional":false,"partial":false,"stale":false,"gap":false,"cold":false,"severity":4.5,"dbscan_score":0.75,"error_rate":0.5,"critical_rate":1.0,"labelled_count":2,"model_checksum":"c0ffee","first_offset":100,"next_offset":102"#]]
        .assert_eq(before);
    let features: String = COLUMNS.map(|name| format!(r#""{name}":0.5"#)).join(",");
    assert!(
        after.ends_with(&format!(r#""features":{{{features}}}}}"#)),
        "{after}"
    );
    assert!(after.contains("template never seen"), "{after}");
}

#[test]
fn windows_without_lines_have_no_offsets_and_no_rates() {
    let job = job(&Spec {
        lines: vec![],
        gap: true,
        ..Spec::default()
    });
    let message = serde_json::to_value(results::result_message(&job.scored, false)).unwrap();
    for (field, expected) in [
        ("first_offset", serde_json::Value::Null),
        ("service", serde_json::Value::Null),
        ("error_rate", 0.0.into()),
        ("critical_rate", 0.0.into()),
        ("labelled_count", 0.into()),
        ("gap", true.into()),
        ("window_end", "2025-12-27T10:35:00.000Z".into()),
    ] {
        assert_eq!(message[field], expected, "{field}");
    }
}

#[tokio::test]
async fn messages_reach_the_topic_and_are_acknowledged() {
    let mut harness = Harness::start(None);
    let normal = Spec::default();
    let gap = Spec {
        window: 1,
        gap: true,
        lines: vec![],
        ..Spec::default()
    };
    let acks = harness.write(vec![job(&normal), job(&gap)]).await;
    let ack = |window| Ack::Window {
        partition: partition(&normal),
        assignment: 7,
        window_start: window_start(window),
    };
    // A gap counts for the window after it.
    assert_eq!(acks, [ack(0), ack(11)]);
    let messages = harness.messages("anomaly-results", 2).await;
    assert_eq!(messages[0].0, "log-events/0@2025-12-27T10:30:00.000Z");
    let job = job(&normal);
    let expected = serde_json::to_string(&results::result_message(&job.scored, false)).unwrap();
    assert_eq!(messages[0].1, expected);
    assert!(harness.close().await.is_complete());
}

fn letter(offset: i64, reason: RejectReason, payload: &[u8]) -> DeadLetter {
    DeadLetter {
        partition: partition(&Spec::default()),
        span: OffsetSpan::of(offset),
        rejected: Rejected {
            reason,
            detail: String::new(),
        },
        payload: payload.to_vec(),
        payload_bytes: payload.len(),
        assignment: 7,
    }
}

#[tokio::test]
async fn dead_letters_reach_their_topic_and_late_ones_up_to_the_limit() {
    let config = SinksConfig {
        dead_letter: DeadLetterConfig {
            late_per_minute_max: 1,
            ..DeadLetterConfig::default()
        },
        ..SinksConfig::default()
    };
    let mut harness = Harness::start_with(None, config);
    let reasons = [
        RejectReason::NotJson,
        RejectReason::Late,
        RejectReason::Late,
        RejectReason::NotUtf8,
    ];
    for (offset, reason) in (40..).zip(reasons) {
        harness
            .sinks
            .try_submit_letter(letter(offset, reason, b"x\xff"))
            .unwrap();
    }
    let mut acked: Vec<i64> = harness
        .acks(4)
        .await
        .into_iter()
        .map(|ack| match ack {
            Ack::Letter {
                offset,
                assignment: 7,
                ..
            } => offset,
            other => panic!("{other:?}"),
        })
        .collect();
    acked.sort_unstable();
    assert_eq!(acked, [40, 41, 42, 43]);
    assert_eq!(harness.metrics.late_not_copied.get(), 1);
    let letters = harness.messages("log-events.dlq", 3).await;
    let keys: Vec<_> = letters.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        ["log-events/0/40", "log-events/0/41", "log-events/0/43"]
    );
    expect![[r#"{"topic":"log-events","partition":0,"offset":40,"reason":"not_json","detail":"","payload_bytes":2,"payload_encoding":"base64","payload":"eP8="}"#]]
        .assert_eq(&letters[0].1);
    let label = SinkLabel {
        sink: "dead_letter",
    };
    assert_eq!(
        harness.metrics.delivered.get_or_create_owned(&label).get(),
        3
    );
    assert!(harness.close().await.is_complete());
}
