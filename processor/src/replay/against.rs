//! Two models on one input: A, that there is, and B, that may take its place.

use std::{collections::HashMap, io::Write, sync::Arc, time::Instant};

use super::{
    Observer, Side,
    input::Input,
    overlay::{Ground, Grounds},
    read_mutes,
};
use crate::{
    cli::ReplayArgs,
    config::Config,
    evaluate::{Agreement, Comparison, EvaluatedWindow, Evaluation, Figures},
    event::{EventTime, StreamKey},
    model::{Baseline, Bundle},
};

/// B is worse than A by more than the tolerance. Its text is all there is to say: the report is out.
#[derive(Debug, thiserror::Error)]
#[error("model B (`{model}`) is worse: {why}; --tolerance is {tolerance}")]
struct Worse {
    model: String,
    why: String,
    tolerance: f64,
}

/// Compares the model of the configuration, A, with the one `--against` names, B.
///
/// # Errors
/// B is worse by more than the tolerance; or as [`super::replay`].
pub(super) fn against(
    config: &Config,
    args: &ReplayArgs,
    other: &std::path::Path,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let bundles = [Bundle::load(&config.model.dir)?, Bundle::load(other)?].map(Arc::new);
    let names = [&*config.model.dir, other].map(|dir| dir.display().to_string());
    let checksums = bundles
        .each_ref()
        .map(|bundle| Arc::clone(bundle.checksum()));
    let input = Input::open(config, args)?;
    let (partitions, mutes) = (input.partitions(), read_mutes(config, args)?);
    let mut sides = Vec::new();
    for bundle in bundles {
        sides.push(Side::new(config, bundle, partitions, mutes.clone())?);
    }
    let length_ms = config.window.window_config().length_ms;
    let mut both = Both {
        evaluations: [Evaluation::new(length_ms), Evaluation::new(length_ms)],
        agreement: Agreement::default(),
        before: HashMap::new(),
        grounds: Grounds::default(),
    };
    let mut totals = input.read(config, &mut sides, &mut both)?;
    totals.seconds = started.elapsed().as_secs_f64();
    let reports = both.evaluations.each_ref().map(|it| it.report(&totals));
    let figures = |side: usize| Figures::of(&names[side], &checksums[side], &reports[side]);
    let mut comparison = Comparison {
        a: figures(0),
        b: figures(1),
        windows: reports[0].windows,
        anomalous_windows: reports[0].anomalous_windows,
        agreement: both.agreement,
        overlays: both.grounds.try_all(&mut sides),
        overlay_recall: None,
        tolerance: args.tolerance,
        worse: None,
    };
    comparison.decide();
    let written = if args.json {
        comparison.write_json(out)
    } else {
        comparison.write_text(out)
    };
    // What came of it counts, even if nobody reads it to its end.
    match comparison.worse {
        None => Ok(written?),
        Some(why) => Err(Worse {
            model: other.display().to_string(),
            why,
            tolerance: args.tolerance,
        }
        .into()),
    }
}

/// Watches both.
struct Both {
    evaluations: [Evaluation; 2],
    agreement: Agreement,
    /// The state of each stream after its last window, on each side.
    before: HashMap<StreamKey, [Baseline; 2]>,
    grounds: Grounds,
}

impl Observer for Both {
    fn closed(&mut self, sides: &mut [Side<'_>]) -> anyhow::Result<()> {
        let [a, b] = sides else {
            return Ok(());
        };
        for (a, b) in a.closed.drain(..).zip(b.closed.drain(..)) {
            self.evaluations[0].add(EvaluatedWindow::from(&a));
            self.evaluations[1].add(EvaluatedWindow::from(&b));
            self.agreement.add(&a, &b);
            let before = self.before.remove(&a.window.stream);
            if let Some([before_a, before_b]) = before
                && let Some(place) = self.grounds.place([&a, &b])
            {
                let ground = |window, before| Ground { window, before };
                let grounds = [
                    ground(a.window.clone(), before_a),
                    ground(b.window.clone(), before_b),
                ];
                self.grounds.keep(place, grounds);
            }
            self.before
                .insert(a.window.stream.clone(), [a.baseline, b.baseline]);
        }
        Ok(())
    }

    fn anomaly_type(&mut self, time: EventTime, name: &str) {
        for evaluation in &mut self.evaluations {
            evaluation.add_anomaly_type(time, name);
        }
    }
}
