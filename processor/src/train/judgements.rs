//! What people said of alarms, as training uses it: windows of false alarms are normal, those of
//! real ones are left out.

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    alarms,
    cli::TrainArgs,
    config::Config,
    model::Trainer,
    run,
    sink::store::JudgedWindow,
    window::{ClosedWindow, WindowBounds},
};

/// How much of the feedback met a window of the training data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FeedbackUsed {
    /// Windows of false alarms, taken as normal.
    pub(super) false_alarms: u64,
    /// Windows of real ones, left out.
    pub(super) real: u64,
}

/// The windows that people judged, by their time.
#[derive(Debug, Default)]
pub(crate) struct Judgements {
    asked: bool,
    windows: HashMap<WindowBounds, Vec<JudgedWindow>>,
    used: FeedbackUsed,
}

impl Judgements {
    /// Reads them from the database, if there is one to ask.
    ///
    /// # Errors
    /// The database cannot be reached or refuses, or its schema is too old.
    pub(super) fn read(config: &Config, args: &TrainArgs) -> anyhow::Result<Self> {
        if args.database_url.is_none() {
            return Ok(Self::default());
        }
        let judged = run::runtime()?.block_on(async {
            let store = alarms::open_store(config).await?;
            anyhow::Ok(store.judged_windows().await?)
        })?;
        Ok(Self::of(judged, &config.kafka.input_topic))
    }

    fn of(judged: Vec<JudgedWindow>, topic: &str) -> Self {
        let mut windows: HashMap<WindowBounds, Vec<JudgedWindow>> = HashMap::new();
        for window in judged.into_iter().filter(|window| window.topic == topic) {
            windows.entry(window.bounds).or_default().push(window);
        }
        Self {
            asked: true,
            windows,
            used: FeedbackUsed::default(),
        }
    }

    /// Hands a window to the trainer as what people said it is.
    pub(super) fn add(&mut self, trainer: &mut Trainer, window: &ClosedWindow) {
        match self.judgement(window) {
            None => trainer.add(window),
            Some(Judgement::FalseAlarm) => {
                self.used.false_alarms += 1;
                trainer.add_false_alarm(window);
            }
            Some(Judgement::Real) => self.used.real += 1,
        }
    }

    /// Returns how much was used, `None` if none was asked for.
    pub(super) fn used(&self) -> Option<FeedbackUsed> {
        self.asked.then_some(self.used)
    }

    /// Training data knows no partitions: a window stands for all of its time, or for all of its
    /// service's. One real alarm among them outweighs false ones.
    fn judgement(&self, window: &ClosedWindow) -> Option<Judgement> {
        let service = window.stream.service.as_deref();
        let same_service = |judged: &&JudgedWindow| {
            let of = judged.service.as_deref();
            of.zip(service).is_none_or(|(one, other)| one == other)
        };
        let judged = self.windows.get(&window.bounds)?;
        let mut judged = judged.iter().filter(same_service).peekable();
        judged.peek()?;
        Some(if judged.all(|window| window.false_alarm) {
            Judgement::FalseAlarm
        } else {
            Judgement::Real
        })
    }
}

/// What people said of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    FalseAlarm,
    Real,
}
