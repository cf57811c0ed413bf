//! Training, the bundle and the scorer from the outside.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test program"
)]

mod adoption;
mod bundle;
mod columns;
mod early;
mod made;
mod mutes;
mod scores;
mod silence;
mod trailing;
mod young;
