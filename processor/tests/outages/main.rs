//! What processors live through: brokers and databases that stop, answer slowly or hang up in the
//! midst of a word, alarm files that are full, moved or gone, clocks that are wrong, and deaths
//! between any two steps. What is left behind in the end is what `replay` says of the same topic.
//!
//! One file per family of mishaps. Services that are to be stopped are started by the drill itself
//! (see `services.rs`), with the scripts that start those of all other tests; they run wherever
//! those are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "drills print their figures")]

#[path = "../common/broker.rs"]
mod broker;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../common/fleet.rs"]
mod fleet;
#[path = "../common/flow.rs"]
mod flow;
#[path = "../common/oracle.rs"]
mod oracle;
#[path = "../common/program.rs"]
mod program;

use flow::Load;

/// Fewer lines than usual, and something wrong in every other window: these drills wait for windows
/// and alarms, not for lines.
const LOAD: Load = Load {
    seed: 12,
    from_s: 86_400,
    rate_per_s: 4.0,
    anomaly_prob: 0.5,
    speed: 120,
    disorder: false,
};

mod probe;
mod proxy;
mod services;

mod alarm_file;
mod clock;
mod failpoints;
mod kafka;
mod store;
