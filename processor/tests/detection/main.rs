//! Training, the bundle and the scorer from the outside.
#![allow(missing_docs, reason = "a test program")]

mod bundle;
mod columns;
mod made;
mod scores;
