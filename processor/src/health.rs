//! `/metrics`, `/livez` and `/readyz` on one port.
//!
//! Live: the consumer thread still takes its turns. Ready: the model is loaded, the broker and the
//! store were reached, and nothing asked to stop. Nothing here decides anything else.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::clock::Clock;

/// A consumer thread that took no turn for this long is stuck: every wait in it is shorter.
const STUCK_AFTER_MS: i64 = 60_000;

/// What the process knows of its own condition. Cheap to update from any thread.
#[derive(Debug)]
pub struct Health {
    clock: Clock,
    last_turn_ms: AtomicI64,
    model: AtomicBool,
    reading: AtomicBool,
    store_up: AtomicBool,
    stopping: AtomicBool,
}

/// The condition as `/readyz` prints it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Condition {
    /// All below is well.
    ready: bool,
    /// The consumer thread takes its turns.
    live: bool,
    /// There is a model to judge with.
    model: bool,
    /// Reading from the broker is undisturbed.
    reading: bool,
    /// The store answers, or none is used.
    store: bool,
    /// A signal asked to stop.
    stopping: bool,
}

impl Health {
    /// Returns the condition of a process that has reached nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let last_turn_ms = AtomicI64::new(clock.now().timestamp_millis());
        Self {
            clock,
            last_turn_ms,
            model: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            store_up: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Notes that the consumer thread took a turn.
    pub fn turn(&self) {
        self.last_turn_ms
            .store(self.clock.now().timestamp_millis(), Ordering::Relaxed);
    }

    /// Notes that there is a model to judge with.
    pub fn set_model(&self) {
        self.model.store(true, Ordering::Relaxed);
    }

    /// Notes whether reading from the broker is undisturbed.
    pub fn set_reading(&self, undisturbed: bool) {
        self.reading.store(undisturbed, Ordering::Relaxed);
    }

    /// Notes whether the store answers, or that none is used.
    pub fn set_store_up(&self, up: bool) {
        self.store_up.store(up, Ordering::Relaxed);
    }

    /// Notes that a signal asked to stop.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn condition(&self) -> Condition {
        let idle_ms =
            self.clock.now().timestamp_millis() - self.last_turn_ms.load(Ordering::Relaxed);
        let live = idle_ms < STUCK_AFTER_MS;
        let model = self.model.load(Ordering::Relaxed);
        let reading = self.reading.load(Ordering::Relaxed);
        let store = self.store_up.load(Ordering::Relaxed);
        let stopping = self.stopping.load(Ordering::Relaxed);
        Condition {
            ready: live && model && reading && store && !stopping,
            live,
            model,
            reading,
            store,
            stopping,
        }
    }
}

#[derive(Clone)]
struct Served {
    health: Arc<Health>,
    registry: Arc<Registry>,
}

/// Serves until the runtime ends.
///
/// # Errors
/// Returns an error if `listener` fails for good.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    registry: Registry,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Served {
            health,
            registry: Arc::new(registry),
        });
    axum::serve(listener, app).await
}

/// Binds the port that [`serve`] answers on.
///
/// # Errors
/// Returns an error if the address is taken or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &served.registry) {
        Ok(()) => (
            StatusCode::OK,
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn livez(State(served): State<Served>) -> impl IntoResponse {
    let condition = served.health.condition();
    (status(condition.live), Json(condition))
}

async fn readyz(State(served): State<Served>) -> impl IntoResponse {
    let condition = served.health.condition();
    (status(condition.ready), Json(condition))
}

fn status(well: bool) -> StatusCode {
    if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
