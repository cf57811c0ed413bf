//! Processors that are killed, stopped, paused, or robbed of their offsets while lines go on
//! coming: what is left behind in the end is what `replay` says of the same topic.
//!
//! One file per family of mishaps. Moments are drawn from fixed seeds; every drill ends with the
//! oracle (see `common/oracle.rs`) and prints its figures. `LOGGUARD_DRILL_KILLS=300` makes the
//! drills that kill, stop and shuffle processors as long as that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

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

mod gate;
mod idle;
mod kills;
mod offsets;
mod rebalances;
mod store;
mod zombies;

use std::io::Write;

use fleet::Figures;

/// Returns how often something is to be done, `usual` where the environment does not say.
fn times(usual: usize) -> usize {
    let asked = std::env::var("LOGGUARD_DRILL_KILLS").ok();
    asked.map_or(usual, |it| it.parse().unwrap())
}

/// Prints what a drill has done, past the capture of the test runner.
fn report(drill: &str, what: &str, figures: Figures) {
    let line = format!("{drill}: {what}, {figures}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
