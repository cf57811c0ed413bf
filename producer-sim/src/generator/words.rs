//! What is written when something goes wrong, and only then.
//!
//! Data only. A line's first two numbers say between which points of its incident (0 to 1) it is
//! written, the third its share among the lines open at the same time.

use super::event::Level::{self, Error, Fatal, Info, Warn};

/// A line of a script: from, until (progress), weight, level, text.
pub(super) type Words = (f64, f64, u32, Level, &'static str);

/// What a failing service writes beside its everyday errors.
#[rustfmt::skip]
pub(super) const SPIKE: &[Words] = &[
    (0.0, 1.0, 3, Error, "Answered 500 to {n} of the last 5000 requests"),
    (0.5, 1.0, 1, Fatal, "Error budget of this hour used up, paging the owner"),
];

/// What the service writes in which a cascade begins.
#[rustfmt::skip]
pub(super) const CASCADE_ROOT: &[Words] = &[
    (0.0, 1.0, 3, Error, "Thread pool exhausted, {n} requests queued on {host}"),
    (0.0, 1.0, 2, Error, "Health check of {host} failed {attempt} times in a row"),
    (0.5, 1.0, 1, Fatal, "Node {host} left the cluster, {small} shards unassigned"),
];
/// What the services write that call it, which they know as `{peer}`.
#[rustfmt::skip]
pub(super) const CASCADE_DEPENDENT: &[Words] = &[
    (0.2, 0.7, 3, Warn, "Circuit breaker for {peer} is half open after {small} failures"),
    (0.3, 1.0, 4, Error, "Circuit breaker for {peer} opened, {n} calls rejected"),
    (0.4, 1.0, 2, Error, "Fallback for {peer} has no data, answering 503 to request {uuid}"),
    (0.7, 1.0, 1, Fatal, "Backlog for {peer} at {n} messages, dropping the oldest"),
];

/// Resources that run out: memory, disk, file descriptors.
#[rustfmt::skip]
pub(super) const RESOURCES: [&[Words]; 3] = [
    &[
        (0.0, 0.6, 4, Warn, "Memory of {host} at {fill} percent, garbage collector ran {slow_ms} ms"),
        (0.4, 1.0, 4, Error, "Allocation of {bytes} bytes failed at {fill} percent memory"),
        (0.8, 1.0, 1, Fatal, "Process {n} ended by the kernel: out of memory on {host}"),
    ],
    &[
        (0.0, 0.6, 4, Warn, "Volume data-{small} on {host} is {fill} percent full"),
        (0.4, 1.0, 4, Error, "Write of {bytes} bytes failed: no space left on volume data-{small}"),
        (0.8, 1.0, 1, Fatal, "Volume data-{small} on {host} switched to read-only"),
    ],
    &[
        (0.0, 0.6, 4, Warn, "File descriptors at {fill} percent of the limit on {host}"),
        (0.4, 1.0, 4, Error, "Cannot accept connection from {ip}: too many open files"),
        (0.8, 1.0, 1, Fatal, "Event loop on {host} stopped accepting connections"),
    ],
];

/// Attacks with the service that sees them.
#[rustfmt::skip]
pub(super) const ATTACKS: [(&str, &[Words]); 4] = [
    (
        "auth-service",
        &[
            (0.0, 1.0, 5, Warn, "Sign-in refused for unknown account {email} from {ip}"),
            (0.3, 1.0, 2, Error, "Account {user} locked after {small} failures from {ip}"),
        ],
    ),
    (
        "auth-service",
        &[
            (0.0, 1.0, 4, Error, "Token {hex} presented twice from different addresses, last {ip}"),
            (0.0, 1.0, 2, Warn, "Session {session} revoked, reuse detected"),
        ],
    ),
    (
        "api-gateway",
        &[
            (0.0, 1.0, 4, Warn, "Request to {endpoint} blocked by rule sqli-{small}, client {ip}"),
            (0.2, 1.0, 2, Error, "Client {ip} banned for {n} s after repeated rule violations"),
        ],
    ),
    (
        "user-service",
        &[
            (0.0, 1.0, 4, Info, "Bulk export of {n} profiles requested by operator {user} from {ip}"),
            (0.3, 1.0, 2, Warn, "Role admin granted to user {user} outside the change window"),
        ],
    ),
];

/// Who does something never seen before; with [`FINDINGS`] and [`DETAILS`] 4,608 sentences.
pub(super) const ACTORS: [&str; 24] = [
    "Scheduler",
    "Lease keeper",
    "Schema registry",
    "Feature flag",
    "Rollup job",
    "Snapshot reader",
    "Partition mover",
    "Price feed",
    "Consent ledger",
    "Geo index",
    "Quota meter",
    "Cursor pool",
    "Change stream",
    "Voucher engine",
    "Label printer",
    "Archive sweeper",
    "Clock monitor",
    "Key rotation",
    "Bloom filter",
    "Shadow writer",
    "Tax table",
    "Webhook relay",
    "Batch planner",
    "Locale bundle",
];
/// What it does.
pub(super) const FINDINGS: [&str; 24] = [
    "diverged from its checkpoint",
    "returned a negative balance",
    "saw epoch move backwards",
    "skipped a generation",
    "holds two owners",
    "lost its fencing token",
    "decoded an empty frame",
    "rejected its own signature",
    "rewound past the horizon",
    "exceeded its recursion guard",
    "found an orphaned tombstone",
    "observed a split quorum",
    "merged conflicting vectors",
    "overflowed its ring",
    "received an unsolicited grant",
    "dropped a trailing delimiter",
    "computed a checksum of zero",
    "reused a retired identifier",
    "met an unmapped enumeration",
    "ignored a stale barrier",
    "inverted its comparator",
    "unpacked a nested archive",
    "resolved to a loopback peer",
    "crossed a leap boundary",
];
/// Where or when it does it.
pub(super) const DETAILS: [&str; 8] = [
    "while compacting segment {hex}",
    "at offset {n}",
    "for tenant {user}",
    "on {host}",
    "during handover to {peer}",
    "after {slow_ms} ms",
    "in {region}",
    "near record {uuid}",
];
