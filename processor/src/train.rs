//! `logguard train`: log files or a topic to a model bundle.
//!
//! ```text
//! files │ topic ─► Lesson (decode, window, Trainer) ─► Bundle ─► model.json
//!                    ▲
//!   what people said of alarms, if asked
//! ```
//!
//! Labels are not used. The old bundle stays in place until the new one is complete. A topic gives the
//! model that a file with the same lines gives.

mod judgements;
mod lesson;
mod topic;

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use anyhow::Context;
use serde::Serialize;

use self::judgements::FeedbackUsed;
pub use self::topic::TopicError;
pub(crate) use self::{
    judgements::Judgements,
    lesson::Lesson,
    topic::{Watching, check_read, read_topic},
};
use crate::{
    cli::{DetectorArg, TrainArgs},
    clock::Clock,
    config::Config,
    files::{parse_bound, read_events},
    model::{Bundle, BundleSummary},
    progress::CountBar,
    source::{TimeRange, Timeline, file::ReadOptions},
};

/// With fewer windows than this to calibrate on, the tail that the budget rests on is a guess.
const CALIBRATION_WINDOWS_FEW: u64 = 200;

/// Trains on the files or the topic of `args` and prints what was learnt.
///
/// # Errors
/// Returns an error if a file or the topic cannot be read, if there is too little to learn from, or if the
/// bundle cannot be written.
pub fn train(config: &Config, args: &TrainArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let (bundle, feedback) = learn(config, args)?;
    let calibrated = bundle.summary().calibration_windows;
    if calibrated < CALIBRATION_WINDOWS_FEW {
        tracing::warn!(
            windows = calibrated,
            "too few windows to calibrate on: the alarm budget is a guess; train on some days"
        );
    }
    let path = bundle.save(&config.model.dir)?;
    let summary = bundle.summary();
    if args.json {
        serde_json::to_writer(&mut *out, &Report { summary, feedback })?;
        writeln!(out)?;
    } else {
        write_summary(&summary, out)?;
        if let Some(used) = feedback {
            writeln!(
                out,
                "feedback     {} windows of false alarms taken as normal, {} of real ones left out",
                used.false_alarms, used.real
            )?;
        }
        writeln!(out, "written to {}", path.display())?;
    }
    Ok(())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    summary: BundleSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    feedback: Option<FeedbackUsed>,
}

/// Returns what was learnt from, and how much feedback was used.
fn learn(config: &Config, args: &TrainArgs) -> anyhow::Result<(Bundle, Option<FeedbackUsed>)> {
    let now = Clock::system().now().into();
    let bound = |text: &Option<String>| text.as_deref().map(|it| parse_bound(it, now)).transpose();
    let range = TimeRange {
        since: bound(&args.since)?,
        until: bound(&args.until)?,
    };
    let mut lesson = Lesson::begin(config, Judgements::read(config, args)?)?;
    if args.detector == DetectorArg::IsolationForest {
        lesson = lesson.with_second_detector();
    }
    let lesson = if args.from_kafka {
        learn_topic(config, range, lesson)?
    } else {
        learn_files(config, args, range, lesson)?
    };
    let used = lesson.judgements().used();
    let mut bar = None;
    let bundle = lesson.finish(&mut |progress| {
        let bar = bar.get_or_insert_with(|| CountBar::new("calibrating", progress.total));
        bar.set(progress.windows);
    });
    let bundle = if args.from_kafka {
        bundle.with_context(|| format!("cannot learn from topic `{}`", config.kafka.input_topic))?
    } else {
        bundle?
    };
    Ok((bundle, used))
}

fn learn_files(
    config: &Config,
    args: &TrainArgs,
    range: TimeRange,
    mut lesson: Lesson,
) -> anyhow::Result<Lesson> {
    let lateness_ms = config.window.window_config().lateness_ms;
    read_events(
        &args.input,
        &ReadOptions::default(),
        lateness_ms,
        &mut |item| {
            if range.contains(item.event.time) {
                lesson.event(&item.event, item.offset);
            }
            Ok(())
        },
    )?;
    lesson.end(&mut |_| {});
    Ok(lesson)
}

fn learn_topic(config: &Config, range: TimeRange, mut lesson: Lesson) -> anyhow::Result<Lesson> {
    let topic = &config.kafka.input_topic;
    let timeline = Timeline::open(&config.kafka, topic, range)?;
    let bar = CountBar::new(&format!("reading {topic}"), timeline.records_max());
    let mut watching = Watching {
        closed: &mut |_| {},
        progress: &mut |passed| {
            bar.set(passed);
            ControlFlow::Continue(())
        },
    };
    let read = read_topic(&timeline, range, &mut lesson, &mut watching)?;
    drop(bar);
    check_read(config, &timeline, (range, &read))?;
    let refused = read.rejected + lesson.refused();
    if refused > 0 {
        tracing::warn!(
            refused,
            "records were no log events, or came too late for their window"
        );
    }
    Ok(lesson)
}

/// Writes what a model learnt, for a person.
///
/// # Errors
/// Returns an error if `out` cannot be written.
pub fn write_summary(summary: &BundleSummary, out: &mut impl Write) -> io::Result<()> {
    let BundleSummary {
        from,
        to,
        lines,
        windows,
        templates,
        services,
        ..
    } = summary;
    let BundleSummary {
        terms,
        core_points,
        eps,
        calibration_windows,
        learning,
        ..
    } = summary;
    let incidents = 100.0 * summary.presumed_incidents;
    writeln!(out, "span         {from} to {to}")?;
    writeln!(out, "lines        {lines}")?;
    writeln!(out, "windows      {windows}")?;
    writeln!(out, "templates    {templates} ({terms} terms)")?;
    writeln!(out, "services     {services}")?;
    writeln!(out, "core points  {core_points} (eps {eps:.3})")?;
    writeln!(
        out,
        "calibration  {calibration_windows} windows scored by earlier ones, {incidents:.2} % look \
         like incidents"
    )?;
    if *learning {
        writeln!(
            out,
            "learning     of less than a day, at a first start: thresholds are wide, alarms capped"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{lesson::mask_rules, *};
    use crate::{
        decode::Masker,
        redact::{RedactionConfig, Redactor},
    };

    /// Masks texts as training does.
    fn masker() -> Masker {
        let redactor = Redactor::new(&RedactionConfig::default()).unwrap();
        Masker::new(&mask_rules(&Config::default(), &redactor)).unwrap()
    }

    #[test]
    fn templates_hold_no_secrets_and_do_not_change_with_them() {
        let pairs = [
            (
                "login password=hunter2 ok",
                "login password=Tr0ub4dor&3x/y ok",
            ),
            (
                "at /login/password=hunter2 x",
                "at /login/password=correcthorse x",
            ),
            (r#"cfg {"token":abc1def} x"#, r#"cfg {"token":q9} x"#),
            (
                r#"say "hi password="hunter2" x"#,
                r#"say "hi password="correct horse" x"#,
            ),
            (
                r#"b {\"user\":\"ann\",\"password\":\"hunter2\"} x"#,
                r#"b {\"user\":\"bob\",\"password\":\"a b\"} x"#,
            ),
            (
                "to postgres://u:p)w@h.example/d x",
                "to postgres://u:q@h.example/d x",
            ),
            (
                "Authorization: Bearer abc-1 x",
                "Authorization: Bearer zyx.9-w_1 x",
            ),
            ("key AKIAIOSFODNN7EXAMPLE x", "key AKIAI44QH8DHBEXAMPLE x"),
            (
                "t eyJhbGciOiJIUzI1NiJ9.eyJhIn0.c2ln x",
                "t eyJhbGciOiJIUzI1NiJ9.eyJiIn0.eHl6 x",
            ),
            (
                "paid GB29NWBK60161331926819 x",
                "paid GB94BARC10201530093459 x",
            ),
            (
                "mail ann@example.com card 4111111111111111",
                "mail b@example.org card 5500000000000004",
            ),
            (
                "k -----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY----- x",
                "k -----BEGIN PRIVATE KEY-----\nMIJA\nq\n-----END PRIVATE KEY----- x",
            ),
        ];
        let secrets = [
            "hunter2", "abc1def", "p)w", "abc-1", "AKIA", "eyJ", "NWBK", "ann", "MII",
        ];
        let masker = masker();
        let template = |text: &str| {
            let mut out = String::new();
            masker.mask_into(text, &mut out);
            out
        };
        for (one, other) in pairs {
            let masked = template(one);
            assert_eq!(masked, template(other), "{one}");
            for secret in secrets {
                assert!(!masked.contains(secret), "{one}: {masked}");
            }
        }
        let plain = "payment-service can't reach user-service: invalid token: expired";
        assert_eq!(template(plain), plain);
    }
}
