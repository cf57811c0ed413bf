//! The bodies of the fuzz targets, shared with the test that runs the corpus.

#[path = "../bodies.rs"]
pub mod bodies;
