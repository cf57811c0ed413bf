//! Learning from a topic: its partitions as one log, read outside any group.
//!
//! What `train --from-kafka` and the first start of `run --learn` have in common.

use std::ops::ControlFlow;

use super::lesson::Lesson;
use crate::{
    config::Config,
    event::EventTime,
    source::{TimeRange, Timeline, TimelineEvent},
    window::ClosedWindow,
};

/// Why a topic gave nothing to learn from.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// It is empty.
    #[error(
        "topic `{topic}` at `{brokers}` holds no records; write log events to it first, or check \
         --input-topic"
    )]
    Empty {
        /// The topic.
        topic: String,
        /// The bootstrap servers.
        brokers: String,
    },
    /// It has records, but none in the range.
    #[error(
        "topic `{topic}` at `{brokers}` has no log events {range}; {found}; choose another --since or \
         --until"
    )]
    NothingInRange {
        /// The topic.
        topic: String,
        /// The bootstrap servers.
        brokers: String,
        /// The range, in words.
        range: String,
        /// What there is instead.
        found: String,
    },
}

/// What was read of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicRead {
    /// Log events in the range.
    pub(crate) events: u64,
    /// Records that are no log events.
    pub(crate) rejected: u64,
    /// Event times of what was read, around the range too.
    pub(crate) seen: Option<(EventTime, EventTime)>,
    /// Reading was broken off.
    pub(crate) stopped: bool,
}

/// Who looks on while a topic is read.
pub(crate) struct Watching<'a> {
    /// Called with every window that closes.
    pub(crate) closed: &'a mut dyn FnMut(&ClosedWindow),
    /// Called now and then with the records passed; reading ends when it breaks off.
    pub(crate) progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

/// Has a lesson take the events of a stretch of a topic, to the end.
///
/// # Errors
/// Kafka cannot be read.
pub(crate) fn read_topic(
    timeline: &Timeline,
    range: TimeRange,
    lesson: &mut Lesson,
    watching: &mut Watching<'_>,
) -> anyhow::Result<TopicRead> {
    let mut read = TopicRead::default();
    let stopped = timeline.read(&mut |event| match event {
        TimelineEvent::Record { time: None, .. } => {
            read.rejected += 1;
            ControlFlow::Continue(())
        }
        TimelineEvent::Record {
            time: Some(time),
            record,
        } => {
            let (first, last) = read.seen.unwrap_or((time, time));
            read.seen = Some((first.min(time), last.max(time)));
            if range.contains(time) {
                read.events += 1;
                lesson.record(record, watching.closed);
            }
            ControlFlow::Continue(())
        }
        TimelineEvent::Progress { passed } => (watching.progress)(passed),
    })?;
    read.stopped = stopped;
    lesson.end(watching.closed);
    Ok(read)
}

/// Says why there was nothing to learn from, if so.
///
/// # Errors
/// There was nothing.
pub(crate) fn check_read(
    config: &Config,
    timeline: &Timeline,
    (range, read): (TimeRange, &TopicRead),
) -> Result<(), TopicError> {
    if read.events > 0 {
        return Ok(());
    }
    let (topic, brokers) = (
        config.kafka.input_topic.clone(),
        config.kafka.brokers.clone(),
    );
    if timeline.is_topic_empty() {
        return Err(TopicError::Empty { topic, brokers });
    }
    let found = match (read.seen, read.rejected) {
        (Some((first, last)), _) => format!("those nearest to it are from {first} to {last}"),
        (None, 0) => "its records were all written before".to_owned(),
        (None, rejected) => {
            format!(
                "it has {rejected} records that are no log events (`logguard replay` counts them)"
            )
        }
    };
    let range = match (range.since, range.until) {
        (Some(since), Some(until)) => format!("between {since} and {until}"),
        (Some(since), None) => format!("since {since}"),
        (None, Some(until)) => format!("before {until}"),
        (None, None) => "at all".to_owned(),
    };
    Err(TopicError::NothingInRange {
        topic,
        brokers,
        range,
        found,
    })
}
