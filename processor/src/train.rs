//! `logguard train`: log files to a model bundle.
//!
//! ```text
//! files ─► intake (decode, window) ─► Trainer ─► Bundle ─► model.json
//! ```
//!
//! Labels are not used. The old bundle stays in place until the new one is complete.

use std::io::Write;

use crate::{
    cli::TrainArgs,
    config::Config,
    decode::{Masker, TemplateDictionary},
    files::{parse_time, read_events},
    model::{Bundle, Trainer, TrainerConfig},
    pipeline::{DICTIONARY_TEMPLATES_MAX, Intake, Step},
    source::file::ReadOptions,
    window::{ClosedWindow, Recovered},
};

/// Trains on the files of `args` and prints what was learnt.
///
/// # Errors
/// Returns an error if a file cannot be read, if there is too little to learn from, or if the
/// bundle cannot be written.
pub fn train(config: &Config, args: &TrainArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let bundle = learn(config, args)?;
    let path = bundle.save(&config.model.dir)?;
    let summary = bundle.summary();
    if args.json {
        serde_json::to_writer(&mut *out, &summary)?;
        writeln!(out)?;
    } else {
        write!(out, "{summary}")?;
        writeln!(out, "written to {}", path.display())?;
    }
    Ok(())
}

fn learn(config: &Config, args: &TrainArgs) -> anyhow::Result<Bundle> {
    let until = args.until.as_deref().map(parse_time).transpose()?;
    let rules = [config.mask.rules.clone(), Masker::default_rules()].concat();
    let mut dictionary = TemplateDictionary::new(Masker::new(&rules)?, DICTIONARY_TEMPLATES_MAX);
    let window = config.window.window_config();
    let mut intake = Intake::new(window, config.file_partition(), Recovered::default());
    let mut trainer = Trainer::new(TrainerConfig { mask_rules: rules, window });
    let mut steps = Vec::new();
    let options = ReadOptions::default();
    read_events(&args.input, &options, window.lateness_ms, &mut |item| {
        if until.is_none_or(|until| item.event.time < until) {
            intake.event(&mut dictionary, &item.event, item.offset, &mut steps);
            add_closed(&mut trainer, &mut steps);
        }
        Ok(())
    })?;
    intake.end(&mut steps);
    add_closed(&mut trainer, &mut steps);
    Ok(trainer.finish()?)
}

fn add_closed(trainer: &mut Trainer, steps: &mut Vec<Step<ClosedWindow>>) {
    for step in steps.drain(..) {
        if let Step::Closed(window) = step {
            trainer.add(&window);
        }
    }
}
