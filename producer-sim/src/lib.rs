//! A system that writes logs, made up: seven services, everyday traffic, and incidents whose ground
//! truth is known.
//!
//! ```text
//! cli ──► run ─────► generator ──► output::encode ──► Kafka
//!     ├─► generate ► generator ──► output::encode ──► file
//!     └─► broker     librdkafka's mock broker behind a fixed address
//! ```
//!
//! The generator is pure: seeded, without a clock or I/O.

pub mod broker;
pub mod cli;
mod clock;
pub mod failure;
pub mod generate;
pub mod generator;
pub mod output;
pub mod run;
pub mod stop;
