//! LogGuard finds anomalies in log streams: Kafka in, tumbling windows, scores and alarms out.
//!
//! Data flows one way; durable acks to the offset ledger are the only back edge:
//!
//! ```text
//! source ──► decode ──► window ──► features ──► score ──► sinks
//!    ▲                                                      │
//!    └────────────────────── acks ◄─────────────────────────┘
//! ```

pub mod alarms;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decode;
pub mod deploy;
pub mod evaluate;
pub mod event;
pub mod evidence;
pub mod exit;
pub mod exposure;
pub mod features;
pub mod feedback;
pub mod files;
pub mod health;
pub mod learn;
pub mod log;
pub mod maintain;
pub mod metrics;
pub mod model;
pub mod mutes;
pub mod pipeline;
pub mod progress;
pub mod recovery;
pub mod redact;
pub mod replay;
pub mod rescore;
pub mod run;
pub mod secret;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod templates;
pub mod train;
pub mod window;
pub mod worker;
