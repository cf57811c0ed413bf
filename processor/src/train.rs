//! `logguard train`: log files to a model bundle.
//!
//! ```text
//! files ─► intake (decode, window) ─► Trainer ─► Bundle ─► model.json
//!                                       ▲
//! what people said of alarms, if asked ─┘
//! ```
//!
//! Labels are not used. The old bundle stays in place until the new one is complete.

mod judgements;

use std::{
    io::{self, Write},
    sync::Arc,
};

use serde::Serialize;

use self::judgements::{FeedbackUsed, Judgements};

use crate::{
    cli::{DetectorArg, TrainArgs},
    config::Config,
    decode::{MaskRule, Masker, TemplateDictionary},
    files::{parse_time, read_events},
    model::{Bundle, BundleSummary, Trainer},
    pipeline::{DICTIONARY_TEMPLATES_MAX, Intake, Step},
    progress::CountBar,
    redact::Redactor,
    source::file::ReadOptions,
    window::{ClosedWindow, Recovered},
};

/// With fewer windows than this to calibrate on, the tail that the budget rests on is a guess.
const CALIBRATION_WINDOWS_FEW: u64 = 200;

/// Trains on the files of `args` and prints what was learnt.
///
/// # Errors
/// Returns an error if a file cannot be read, if there is too little to learn from, or if the
/// bundle cannot be written.
pub fn train(config: &Config, args: &TrainArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let mut judgements = Judgements::read(config, args)?;
    let bundle = learn(config, args, &mut judgements)?;
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
        let feedback = judgements.used();
        serde_json::to_writer(&mut *out, &Report { summary, feedback })?;
        writeln!(out)?;
    } else {
        write_summary(&summary, out)?;
        if let Some(used) = judgements.used() {
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

fn learn(config: &Config, args: &TrainArgs, judgements: &mut Judgements) -> anyhow::Result<Bundle> {
    let until = args.until.as_deref().map(parse_time).transpose()?;
    let redactor = Arc::new(Redactor::new(&config.redaction)?);
    let rules = mask_rules(config, &redactor);
    let dictionary = TemplateDictionary::new(Masker::new(&rules)?, DICTIONARY_TEMPLATES_MAX);
    let mut dictionary = dictionary.redacting(redactor);
    let window = config.window.window_config();
    let mut intake = Intake::new(window, config.file_partition(), Recovered::default());
    let mut trainer = Trainer::new(&rules, window.length_ms)?;
    if args.detector == DetectorArg::IsolationForest {
        trainer.with_second_detector();
    }
    let mut steps = Vec::new();
    let options = ReadOptions::default();
    read_events(&args.input, &options, window.lateness_ms, &mut |item| {
        if until.is_none_or(|until| item.event.time < until) {
            intake.event(&mut dictionary, &item.event, item.offset, &mut steps);
            add_closed(&mut trainer, judgements, &mut steps);
        }
        Ok(())
    })?;
    intake.end(&mut steps);
    add_closed(&mut trainer, judgements, &mut steps);
    if trainer.untracked_lines() > 0 {
        tracing::warn!(
            lines = trainer.untracked_lines(),
            "lines of templates or services beyond what is told apart; are all variables masked?"
        );
    }
    let mut bar = None;
    let bundle = trainer.finish(&mut |progress| {
        let bar = bar.get_or_insert_with(|| CountBar::new("calibrating", progress.total));
        bar.set(progress.windows);
    })?;
    Ok(bundle)
}

/// Returns the masks to train with: the user's, then those that take secrets for the variables
/// they are, then the usual ones. The bundle carries them from here.
fn mask_rules(config: &Config, redactor: &Redactor) -> Vec<MaskRule> {
    let secrets = redactor.masks().iter().map(|(name, pattern)| MaskRule {
        name: name.clone(),
        pattern: pattern.clone(),
    });
    let users = config.mask.rules.iter().cloned();
    users
        .chain(secrets)
        .chain(Masker::default_rules())
        .collect()
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
    )
}

fn add_closed(
    trainer: &mut Trainer,
    judgements: &mut Judgements,
    steps: &mut Vec<Step<ClosedWindow>>,
) {
    for step in steps.drain(..) {
        if let Step::Closed(window) = step {
            judgements.add(trainer, &window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::RedactionConfig;

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
