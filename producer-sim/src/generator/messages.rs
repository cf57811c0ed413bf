//! What the seven services write on an ordinary day: families of messages per service and level.
//!
//! Data only. A weight is the family's share among its service's lines of that level; `{name}` is a
//! variable of `template.rs`. Words of incidents are in `words.rs`, never here.

use super::event::Level::{self, Debug, Error, Fatal, Info, Warn};

/// A family of messages: level, weight, text.
pub(super) type Family = (Level, u32, &'static str);

/// A service and what it writes beside [`COMMON`].
pub(super) struct Service {
    /// Its name in events.
    pub(super) name: &'static str,
    /// Its share of all normal lines, in percent.
    pub(super) weight: u32,
    /// Services it calls, whose failure it feels.
    pub(super) depends_on: &'static [&'static str],
    /// Its families of messages.
    pub(super) families: &'static [Family],
}

/// Share of each level in normal traffic, in thousandths, in the order of [`Level::ALL`].
pub(super) const LEVEL_WEIGHTS: [u32; 5] = [200, 650, 100, 45, 5];

/// Families that every service writes.
#[rustfmt::skip]
pub(super) const COMMON: &[Family] = &[
    (Info, 12, "{method} {endpoint} answered 200 in {ms} ms"),
    (Info, 3, "Configuration reloaded, {small} keys unchanged"),
    (Info, 4, "Connection pool holds {small} of 64 connections"),
    (Debug, 10, "cache hit for key {table}:{n}"),
    (Debug, 6, "cache miss for key {table}:{n}, reading from store"),
    (Debug, 8, "query on {table} took {ms} ms and returned {small} rows"),
    (Debug, 3, "request {uuid} carries {bytes} bytes"),
    (Warn, 5, "Slow query on {table}: {slow_ms} ms"),
    (Warn, 4, "Retrying call to {peer}, attempt {attempt} of 5"),
    (Warn, 3, "Heap use at {pct} percent on {host}"),
    (Error, 4, "Call to {peer} failed after {slow_ms} ms: deadline exceeded"),
    (Error, 3, "Could not acquire database connection within {slow_ms} ms"),
    (Fatal, 2, "Worker {small} stopped by unhandled exception, restarting"),
];

/// The services.
#[rustfmt::skip]
pub(super) const SERVICES: &[Service] = &[
    Service {
        name: "api-gateway",
        weight: 26,
        depends_on: &["auth-service", "order-service", "user-service"],
        families: &[
            (Info, 40, "Routed {method} {endpoint} to {peer} in {ms} ms"),
            (Info, 10, "Client {ip} opened keep-alive connection on port {port}"),
            (Info, 6, "Response compressed from {bytes} bytes, request {uuid}"),
            (Info, 2, "TLS session resumed for client {ip}"),
            (Debug, 8, "route table lookup for {endpoint} matched rule {small}"),
            (Debug, 4, "header budget {bytes} bytes left for request {uuid}"),
            (Warn, 6, "Client {ip} is close to its rate limit, {n} requests this minute"),
            (Warn, 3, "Upstream {peer} answered slowly: {slow_ms} ms"),
            (Error, 6, "Upstream {peer} closed the connection, request {uuid}"),
            (Error, 3, "Bad request from {ip}: body of {bytes} bytes is not valid JSON"),
            (Fatal, 2, "Listener on port {port} lost, rebinding"),
        ],
    },
    Service {
        name: "auth-service",
        weight: 14,
        depends_on: &["user-service"],
        families: &[
            (Info, 30, "User {user} signed in from {ip}"),
            (Info, 14, "Access token issued for user {user}, session {session}"),
            (Info, 8, "Session {session} closed by user {user}"),
            (Info, 3, "Second factor confirmed for user {user}"),
            (Debug, 8, "password hash verified in {ms} ms"),
            (Debug, 5, "token {hex} decoded, expires in {n} s"),
            (Warn, 6, "Wrong password for user {user}, attempt {attempt}"),
            (Warn, 3, "Token of session {session} has expired, asking for renewal"),
            (Error, 4, "Sign-in of user {user} failed: directory did not answer"),
            (Error, 2, "Signature of token {hex} does not verify"),
            (Fatal, 1, "Signing key store could not be opened, retrying"),
        ],
    },
    Service {
        name: "user-service",
        weight: 14,
        depends_on: &[],
        families: &[
            (Info, 24, "Profile of user {user} loaded in {ms} ms"),
            (Info, 8, "User {user} changed delivery address"),
            (Info, 5, "New account {user} registered with {email}"),
            (Info, 3, "Preferences of user {user} saved"),
            (Debug, 7, "profile {user} served from replica {host}"),
            (Debug, 4, "avatar of user {user} has {bytes} bytes"),
            (Warn, 4, "Profile of user {user} is incomplete: no postal code"),
            (Warn, 3, "Replica {host} is {slow_ms} ms behind"),
            (Error, 4, "Profile of user {user} could not be saved: version conflict"),
            (Error, 3, "No such user: {user}"),
            (Fatal, 1, "Replica set without primary in {region}, waiting for election"),
        ],
    },
    Service {
        name: "order-service",
        weight: 14,
        depends_on: &["payment-service", "inventory-service"],
        families: &[
            (Info, 22, "Order {order} placed by user {user}, {small} items, {money}"),
            (Info, 14, "Order {order} moved to state packed"),
            (Info, 8, "Order {order} handed to carrier in {region}"),
            (Info, 4, "Basket of user {user} priced at {money}"),
            (Debug, 7, "state machine of {order}: {small} transitions so far"),
            (Debug, 5, "price rules evaluated for {sku} in {ms} ms"),
            (Warn, 4, "Order {order} waits for stock of {sku}"),
            (Warn, 3, "Order {order} touched twice within {slow_ms} ms, second write ignored"),
            (Error, 5, "Order {order} could not be placed: payment refused"),
            (Error, 3, "Order {order} not found"),
            (Fatal, 1, "Order journal segment {hex} unreadable, rebuilding from store"),
        ],
    },
    Service {
        name: "payment-service",
        weight: 12,
        depends_on: &["user-service"],
        families: &[
            (Info, 24, "Payment {txn} of {money} authorised for user {user}"),
            (Info, 16, "Payment {txn} captured in {ms} ms"),
            (Info, 4, "Refund {txn} of {money} sent"),
            (Info, 2, "Settlement file for {region} written, {n} payments"),
            (Debug, 7, "risk score {small} for payment {txn}"),
            (Debug, 5, "acquirer handshake took {ms} ms"),
            (Warn, 5, "Payment {txn} needs manual review, amount {money}"),
            (Warn, 3, "Acquirer answered after {slow_ms} ms"),
            (Error, 6, "Payment {txn} declined by issuer"),
            (Error, 3, "Acquirer connection reset during payment {txn}"),
            (Fatal, 1, "Ledger write of payment {txn} failed twice, stopping worker {small}"),
        ],
    },
    Service {
        name: "inventory-service",
        weight: 12,
        depends_on: &["user-service"],
        families: &[
            (Info, 24, "Stock of {sku} is now {n}"),
            (Info, 14, "Reserved {small} of {sku} for {order}"),
            (Info, 5, "Delivery of {n} pieces of {sku} booked in {region}"),
            (Info, 2, "Stock count of {region} finished, {n} articles"),
            (Debug, 8, "reservation {uuid} valid for {n} s"),
            (Debug, 5, "shelf index refreshed in {ms} ms"),
            (Warn, 6, "Stock of {sku} low: {small} left"),
            (Warn, 3, "Reservation {uuid} ran out before payment"),
            (Error, 5, "Cannot reserve {small} of {sku}: out of stock"),
            (Error, 3, "Stock update for {sku} rejected: negative quantity"),
            (Fatal, 1, "Warehouse link to {region} down, switching to journal"),
        ],
    },
    Service {
        name: "notification-service",
        weight: 8,
        depends_on: &["user-service"],
        families: &[
            (Info, 24, "Mail about {order} sent to {email}"),
            (Info, 12, "Push message delivered to user {user} in {ms} ms"),
            (Info, 3, "Newsletter batch {small} sent to {n} receivers"),
            (Debug, 7, "template rendered in {ms} ms, {bytes} bytes"),
            (Debug, 4, "outbox holds {small} messages"),
            (Warn, 5, "Mail to {email} deferred by receiving server"),
            (Warn, 3, "Push token of user {user} is outdated"),
            (Error, 5, "Mail to {email} bounced"),
            (Error, 3, "Push gateway refused message {uuid}"),
            (Fatal, 1, "Outbox volume on {host} is read-only, sending paused"),
        ],
    },
];

/// Returns the place of the service called `name` in [`SERVICES`]; 0 if there is none.
pub(super) fn service_index(name: &str) -> usize {
    SERVICES
        .iter()
        .position(|service| service.name == name)
        .unwrap_or_default()
}
