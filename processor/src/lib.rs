//! LogGuard finds anomalies in log streams: Kafka in, tumbling windows, scores and alarms out.
//!
//! Data flows one way; durable acks to the offset ledger are the only back edge:
//!
//! ```text
//! source ──► decode ──► window ──► features ──► score ──► sinks
//!    ▲                                                      │
//!    └────────────────────── acks ◄─────────────────────────┘
//! ```

pub mod clock;
pub mod decode;
pub mod evaluate;
pub mod event;
pub mod features;
pub mod model;
pub mod secret;
pub mod sink;
pub mod source;
pub mod window;
