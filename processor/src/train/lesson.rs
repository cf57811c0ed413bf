//! One training under way: log events in, in about the order of their time, a bundle out.

use std::{ops::ControlFlow, sync::Arc};

use super::judgements::Judgements;
use crate::{
    config::Config,
    decode::{MaskRule, Masker, TemplateDictionary},
    event::LogEvent,
    model::{Bundle, TrainError, TrainProgress, Trainer},
    pipeline::{DICTIONARY_TEMPLATES_MAX, Intake, Step},
    redact::Redactor,
    source::RawRecord,
    window::{ClosedWindow, Recovered},
};

/// Windows on their way into a model.
#[derive(Debug)]
pub(crate) struct Lesson {
    dictionary: TemplateDictionary,
    intake: Intake,
    trainer: Trainer,
    judgements: Judgements,
    steps: Vec<Step<ClosedWindow>>,
    refused: u64,
}

impl Lesson {
    /// Begins with the configured masks and windows.
    ///
    /// # Errors
    /// A mask or a redaction rule cannot be used.
    pub(crate) fn begin(config: &Config, judgements: Judgements) -> anyhow::Result<Self> {
        let redactor = Arc::new(Redactor::new(&config.redaction)?);
        let rules = mask_rules(config, &redactor);
        let dictionary = TemplateDictionary::new(Masker::new(&rules)?, DICTIONARY_TEMPLATES_MAX);
        let window = config.window.window_config();
        Ok(Self {
            dictionary: dictionary.redacting(redactor),
            intake: Intake::new(window, config.file_partition(), Recovered::default()),
            trainer: Trainer::new(&rules, window.length_ms)?,
            judgements,
            steps: Vec::new(),
            refused: 0,
        })
    }

    /// Makes a model for a first start, see [`Trainer::for_first_start`].
    pub(crate) fn for_first_start(mut self) -> Self {
        self.trainer = self.trainer.for_first_start();
        self
    }

    /// Fits the second detector as well, see [`Trainer::with_second_detector`].
    pub(crate) fn with_second_detector(mut self) -> Self {
        self.trainer.with_second_detector();
        self
    }

    /// Takes the next event, the one with this number.
    pub(crate) fn event(&mut self, event: &LogEvent<'_>, number: i64) {
        self.intake
            .event(&mut self.dictionary, event, number, &mut self.steps);
        self.take_steps(&mut |_| {});
    }

    /// Takes the next record of a topic; `closed` sees the windows that it brings to their end.
    pub(crate) fn record(&mut self, record: RawRecord<'_>, closed: &mut dyn FnMut(&ClosedWindow)) {
        self.intake
            .record(&mut self.dictionary, record, &mut self.steps);
        self.take_steps(closed);
    }

    /// Closes the windows that are still open: no more comes.
    pub(crate) fn end(&mut self, closed: &mut dyn FnMut(&ClosedWindow)) {
        self.intake.end(&mut self.steps);
        self.take_steps(closed);
    }

    /// Returns how many records were no log events, or came too late to be counted.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns what people said of the windows, as far as it was used.
    pub(crate) fn judgements(&self) -> &Judgements {
        &self.judgements
    }

    /// Fits and calibrates the model on what has come; `progress` is called now and then.
    ///
    /// # Errors
    /// There was too little, or the model is too large to be stored.
    pub(crate) fn finish(
        self,
        progress: &mut dyn FnMut(TrainProgress),
    ) -> Result<Bundle, TrainError> {
        self.warn_of_untracked_lines();
        self.trainer.finish(progress)
    }

    /// Fits and calibrates the model unless `progress` breaks off.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(crate) fn finish_or_break<B>(
        self,
        progress: &mut dyn FnMut(TrainProgress) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B, Bundle>, TrainError> {
        self.warn_of_untracked_lines();
        self.trainer.finish_or_break(progress)
    }

    fn warn_of_untracked_lines(&self) {
        if self.trainer.untracked_lines() > 0 {
            tracing::warn!(
                lines = self.trainer.untracked_lines(),
                "lines of templates or services beyond what is told apart; are all variables masked?"
            );
        }
    }

    fn take_steps(&mut self, closed: &mut dyn FnMut(&ClosedWindow)) {
        for step in self.steps.drain(..) {
            match step {
                Step::Closed(window) => {
                    closed(&window);
                    self.judgements.add(&mut self.trainer, &window);
                }
                Step::Rejected { .. } => self.refused += 1,
                Step::Opened { .. } | Step::Deployed { .. } | Step::Early(_) => {}
            }
        }
    }
}

/// Returns the masks to train with: the user's, then those that take secrets for the variables
/// they are, then the usual ones. The bundle carries them from here.
pub(super) fn mask_rules(config: &Config, redactor: &Redactor) -> Vec<MaskRule> {
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
