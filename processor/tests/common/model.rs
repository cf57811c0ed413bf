//! A small model, trained in the test: of 120 uneventful windows of 30 lines.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{borrow::Cow, sync::Arc};

use logguard::{
    decode::{Masker, TemplateDictionary},
    event::{EventTime, Level, LogEvent, TopicPartition},
    model::{Bundle, Trainer},
    pipeline::{DICTIONARY_TEMPLATES_MAX, Intake, Step},
    window::{GroupBy, Recovered, WindowConfig},
};

/// Services of the lines.
pub(crate) const SERVICES: [&str; 3] = ["auth", "cart", "pay"];
/// Messages; the model has seen the first four.
pub(crate) const MESSAGES: [&str; 5] = [
    "user 17 signed in",
    "cart 4 has 3 items",
    "payment of 12 EUR captured",
    "cannot reach database",
    "out of memory in worker 9",
];

/// Returns the first partition of the usual topic.
pub(crate) fn partition() -> TopicPartition {
    TopicPartition {
        topic: "log-events".into(),
        partition: 0,
    }
}

/// A model of uneventful windows.
pub(crate) fn bundle(window: WindowConfig) -> Arc<Bundle> {
    let rules = Masker::default_rules();
    let masker = Masker::new(&rules).unwrap();
    let mut dictionary = TemplateDictionary::new(masker, DICTIONARY_TEMPLATES_MAX);
    let mut intake = Intake::new(
        WindowConfig {
            group_by: GroupBy::Partition,
            ..window
        },
        partition(),
        Recovered::default(),
    );
    let mut trainer = Trainer::new(&rules, window.length_ms).unwrap();
    let mut steps = Vec::new();
    for line in 0..3_600 {
        let index = usize::try_from(line % 4).unwrap();
        let event = LogEvent {
            time: EventTime::from_millis(line * window.length_ms / 30).unwrap(),
            level: Level::Info,
            service: Cow::Borrowed(SERVICES[index % SERVICES.len()]),
            message: Cow::Borrowed(MESSAGES[index]),
            label: None,
        };
        intake.event(&mut dictionary, &event, line, &mut steps);
        for step in steps.drain(..) {
            if let Step::Closed(window) = step {
                trainer.add(&window);
            }
        }
    }
    Arc::new(trainer.finish(&mut |_| {}).unwrap())
}
