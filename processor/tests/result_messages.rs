//! Result messages and dead letters, through a broker.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

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
    sink::{self, Ack, DeadLetter, SinkLabel, SinksConfig, dead_letter::DeadLetterConfig, results},
};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use sinks::{Harness, until};
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
    expect![[r#"{"timestamp":"2025-12-27T10:30:30.000Z","window_start":"2025-12-27T10:30:00.000Z","window_end":"2025-12-27T10:30:30.000Z","is_anomaly":1,"anomaly_score":0.25,"cluster_label":-1,"log_count":2,"error_count":1,"critical_count":2,"ground_truth":1,"stream":"log-events/0/auth-service","topic":"log-events","partition":0,"service":"auth-service","final_by":"watermark","provisional":false,"partial":false,"stale":false,"gap":false,"cold":false,"level_shift":false,"muted":false,"learning":false,"capped":false,"severity":4.5,"dbscan_score":0.75,"error_rate":0.5,"critical_rate":1.0,"labelled_count":2,"model_checksum":"c0ffee","first_offset":100,"next_offset":102"#]]
        .assert_eq(before);
    let features: String = COLUMNS.map(|name| format!(r#""{name}":0.5"#)).join(",");
    let alarm = sink::alarm_id(&job.scored);
    assert!(
        after.ends_with(&format!(
            r#""features":{{{features}}},"alarm_id":"{alarm}","early":null}}"#
        )),
        "{after}"
    );
    assert!(after.contains("template never seen"), "{after}");
}

#[test]
fn an_alarm_is_called_after_its_stream_and_window() {
    let id = |spec: &Spec| sink::alarm_id(&job(spec).scored);
    let ids = [
        id(&spec()),
        id(&Spec {
            window: 1,
            ..spec()
        }),
        id(&Spec {
            partition: 1,
            ..spec()
        }),
        id(&Spec {
            service: None,
            ..spec()
        }),
        id(&Spec {
            gap: true,
            ..spec()
        }),
    ];
    expect!["a0bdda510a8a41fd"].assert_eq(&ids[0]);
    for (place, one) in ids.iter().enumerate() {
        assert!(!ids[..place].contains(one), "{ids:?}");
    }
    // What it holds does not matter: a provisional row and the final one have the same.
    let other = Spec {
        lines: vec![],
        score: 0.5,
        ..spec()
    };
    assert_eq!(id(&other), ids[0]);
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
        ("alarm_id", serde_json::Value::Null),
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
        provisional: false,
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

fn outcomes(harness: &Harness, sink: &'static str) -> [u64; 3] {
    let label = SinkLabel { sink };
    let metrics = &harness.metrics;
    [&metrics.delivered, &metrics.refused, &metrics.retries]
        .map(|family| family.get_or_create_owned(&label).get())
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for() {
    let mut harness = Harness::start(None);
    harness.cluster.broker_down(1).unwrap();
    for window in 0..3 {
        let spec = Spec {
            window,
            ..Spec::default()
        };
        harness.sinks.try_submit(job(&spec)).unwrap();
    }
    // Nothing is acknowledged that no broker has.
    assert!(
        harness
            .acks
            .recv_timeout(std::time::Duration::from_millis(300))
            .is_err()
    );
    harness.cluster.broker_up(1).unwrap();
    harness.acks(3).await;
    assert_eq!(harness.messages("anomaly-results", 3).await.len(), 3);
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_retried() {
    let mut harness = Harness::start(None);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    harness
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &[denied, denied]);
    harness.write(vec![job(&Spec::default())]).await;
    let [delivered, refused, retries] = outcomes(&harness, "results");
    assert_eq!((delivered, refused), (1, 0));
    assert!(retries >= 1);
}

#[tokio::test]
async fn what_the_broker_refuses_for_what_it_is_is_counted_and_acknowledged() {
    let mut harness = Harness::start(None);
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    harness
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &[too_large]);
    harness
        .sinks
        .try_submit_letter(letter(1, RejectReason::NotJson, b"x"))
        .unwrap();
    harness.acks(1).await;
    assert_eq!(outcomes(&harness, "dead_letter"), [0, 1, 0]);
    // And the next goes through.
    harness
        .sinks
        .try_submit_letter(letter(2, RejectReason::NotJson, b"y"))
        .unwrap();
    harness.acks(1).await;
    assert_eq!(outcomes(&harness, "dead_letter"), [1, 1, 0]);
    assert!(harness.close().await.is_complete());
}

/// An idempotent producer gives up for good on some errors: it has to be replaced.
#[tokio::test]
async fn a_producer_that_met_a_fatal_error_is_replaced() {
    let mut harness = Harness::start(None);
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    // One for each of the two producers, which ask for their identity when they start.
    let errors = [fatal, fatal, fatal, fatal];
    harness
        .cluster
        .request_errors(RDKafkaApiKey::InitProducerId, &errors);
    harness
        .write(
            (0..5)
                .map(|window| {
                    job(&Spec {
                        window,
                        ..Spec::default()
                    })
                })
                .collect(),
        )
        .await;
    harness
        .sinks
        .try_submit_letter(letter(1, RejectReason::NotJson, b"x"))
        .unwrap();
    harness.acks(1).await;
    assert_eq!(outcomes(&harness, "results")[..2], [5, 0]);
    assert_eq!(harness.messages("anomaly-results", 5).await.len(), 5);
    until("nothing is pending", async || {
        let label = SinkLabel { sink: "results" };
        harness.metrics.pending.get_or_create_owned(&label).get() == 0
    })
    .await;
}
