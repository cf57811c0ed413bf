//! Security against real servers: what is encrypted and who is trusted, what is masked before it
//! leaves, and where secrets must not show.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../common/broker.rs"]
mod broker;
mod certificates;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../common/program.rs"]
mod program;
mod redaction;
mod secrets;
mod servers;
mod trust;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use events::Stretch;

/// What the model of these tests learns from: three hours of a system that is mostly well.
const TRAINING: Stretch = Stretch {
    seed: 31,
    from_s: 0,
    length_s: 3 * 3_600,
    rate_per_s: 1.0,
    anomaly_prob: 0.005,
};

/// Returns the directory of a model, trained at the first call.
fn model_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("security");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("training.jsonl"), events::text(&TRAINING.lines())).unwrap();
        program::run_well(&dir, ["train", "--input", "training.jsonl"]);
        dir.join("model")
    })
}
