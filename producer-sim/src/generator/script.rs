//! The scripts of the standard incidents: what is written when something goes wrong.
//!
//! Words and shapes only; when an incident happens is decided in `incident.rs`.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    event::{
        IncidentKind,
        Level::{self, Debug, Error, Fatal, Info, Warn},
    },
    incident::{Effect, Line, Script, Step},
    messages::{SERVICES, service_index},
    template::{Template, pick},
    traffic::Catalog,
};

/// A line of a script: from, until (progress), weight, level, text.
type Words = (f64, f64, u32, Level, &'static str);

const CASCADE_ROOT: &[Words] = &[
    (
        0.0,
        1.0,
        3,
        Error,
        "Thread pool exhausted, {n} requests queued on {host}",
    ),
    (
        0.0,
        1.0,
        2,
        Error,
        "Health check of {host} failed {attempt} times in a row",
    ),
    (
        0.5,
        1.0,
        1,
        Fatal,
        "Node {host} left the cluster, {small} shards unassigned",
    ),
];
const CASCADE_DEPENDENT: &[Words] = &[
    (
        0.2,
        0.7,
        3,
        Warn,
        "Circuit breaker for {peer} is half open after {small} failures",
    ),
    (
        0.3,
        1.0,
        4,
        Error,
        "Circuit breaker for {peer} opened, {n} calls rejected",
    ),
    (
        0.4,
        1.0,
        2,
        Error,
        "Fallback for {peer} has no data, answering 503 to request {uuid}",
    ),
    (
        0.7,
        1.0,
        1,
        Fatal,
        "Backlog for {peer} at {n} messages, dropping the oldest",
    ),
];

const RESOURCES: [&[Words]; 3] = [
    &[
        (
            0.0,
            0.6,
            4,
            Warn,
            "Memory of {host} at {fill} percent, garbage collector ran {slow_ms} ms",
        ),
        (
            0.4,
            1.0,
            4,
            Error,
            "Allocation of {bytes} bytes failed at {fill} percent memory",
        ),
        (
            0.8,
            1.0,
            1,
            Fatal,
            "Process {n} ended by the kernel: out of memory on {host}",
        ),
    ],
    &[
        (
            0.0,
            0.6,
            4,
            Warn,
            "Volume data-{small} on {host} is {fill} percent full",
        ),
        (
            0.4,
            1.0,
            4,
            Error,
            "Write of {bytes} bytes failed: no space left on volume data-{small}",
        ),
        (
            0.8,
            1.0,
            1,
            Fatal,
            "Volume data-{small} on {host} switched to read-only",
        ),
    ],
    &[
        (
            0.0,
            0.6,
            4,
            Warn,
            "File descriptors at {fill} percent of the limit on {host}",
        ),
        (
            0.4,
            1.0,
            4,
            Error,
            "Cannot accept connection from {ip}: too many open files",
        ),
        (
            0.8,
            1.0,
            1,
            Fatal,
            "Event loop on {host} stopped accepting connections",
        ),
    ],
];

/// Attacks with the service that sees them.
const ATTACKS: [(&str, &[Words]); 4] = [
    (
        "auth-service",
        &[
            (
                0.0,
                1.0,
                5,
                Warn,
                "Sign-in refused for unknown account {email} from {ip}",
            ),
            (
                0.3,
                1.0,
                2,
                Error,
                "Account {user} locked after {small} failures from {ip}",
            ),
        ],
    ),
    (
        "auth-service",
        &[
            (
                0.0,
                1.0,
                4,
                Error,
                "Token {hex} presented twice from different addresses, last {ip}",
            ),
            (
                0.0,
                1.0,
                2,
                Warn,
                "Session {session} revoked, reuse detected",
            ),
        ],
    ),
    (
        "api-gateway",
        &[
            (
                0.0,
                1.0,
                4,
                Warn,
                "Request to {endpoint} blocked by rule sqli-{small}, client {ip}",
            ),
            (
                0.2,
                1.0,
                2,
                Error,
                "Client {ip} banned for {n} s after repeated rule violations",
            ),
        ],
    ),
    (
        "user-service",
        &[
            (
                0.0,
                1.0,
                4,
                Info,
                "Bulk export of {n} profiles requested by operator {user} from {ip}",
            ),
            (
                0.3,
                1.0,
                2,
                Warn,
                "Role admin granted to user {user} outside the change window",
            ),
        ],
    ),
];

const ACTORS: [&str; 24] = [
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
const FINDINGS: [&str; 24] = [
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
const DETAILS: [&str; 8] = [
    "while compacting segment {hex}",
    "at offset {n}",
    "for tenant {user}",
    "on {host}",
    "during handover to {peer}",
    "after {slow_ms} ms",
    "in {region}",
    "near record {uuid}",
];

/// Returns the template of a line that is very unlikely to have been written before.
pub(super) fn novel_template(rng: &mut ChaCha8Rng) -> Template {
    let text = format!(
        "{} {} {}",
        pick(&ACTORS, rng),
        pick(&FINDINGS, rng),
        pick(&DETAILS, rng)
    );
    Template::compile(&text)
}

/// Writes the script of one incident of a standard `kind` in traffic of `rate_per_s` lines.
pub(super) fn script(
    kind: IncidentKind,
    rate_per_s: f64,
    catalog: &Catalog,
    rng: &mut ChaCha8Rng,
) -> Script {
    // Lines per second as a share of normal traffic, and the least that still is an incident.
    let (services, steps, share, least_per_s) = match kind {
        IncidentKind::Cascade => cascade(rng),
        IncidentKind::Resource => resource(rng),
        IncidentKind::Security => security(rng),
        IncidentKind::NewPattern => new_pattern(rng),
        _ => spike(catalog, rng),
    };
    let strength = rng.random_range(0.6..1.4);
    Script {
        kind,
        services,
        seconds: rng.random_range(20.0..120.0),
        lines_per_s: strength * (share * rate_per_s).max(least_per_s),
        ramp: false,
        steps,
        effect: Effect::None,
    }
}

type Parts = (Vec<usize>, Vec<Step>, f64, f64);

fn spike(catalog: &Catalog, rng: &mut ChaCha8Rng) -> Parts {
    let service = rng.random_range(0..SERVICES.len());
    let mut steps: Vec<Step> = (0..2)
        .map(|_| {
            let place = catalog.draw_family(service, Error, rng);
            let line = Line::Of(service, Error, catalog.template(place).clone());
            step((0.0, 1.0, 4), line)
        })
        .collect();
    let words: &[Words] = &[
        (
            0.0,
            1.0,
            3,
            Error,
            "Answered 500 to {n} of the last 5000 requests",
        ),
        (
            0.5,
            1.0,
            1,
            Fatal,
            "Error budget of this hour used up, paging the owner",
        ),
    ];
    steps.extend(steps_of(service, words));
    (vec![service], steps, 0.8, 0.4)
}

fn cascade(rng: &mut ChaCha8Rng) -> Parts {
    const ROOTS: [&str; 4] = [
        "user-service",
        "payment-service",
        "auth-service",
        "order-service",
    ];
    let root = pick(&ROOTS, rng);
    let mut services = vec![service_index(root)];
    let mut steps = steps_of(service_index(root), CASCADE_ROOT);
    for (index, service) in SERVICES.iter().enumerate() {
        if service.depends_on.contains(&root) {
            services.push(index);
            steps.extend(steps_of(index, CASCADE_DEPENDENT));
        }
    }
    (services, steps, 0.6, 0.4)
}

fn resource(rng: &mut ChaCha8Rng) -> Parts {
    let service = rng.random_range(0..SERVICES.len());
    let words = RESOURCES[rng.random_range(0..RESOURCES.len())];
    (vec![service], steps_of(service, words), 0.2, 0.2)
}

fn security(rng: &mut ChaCha8Rng) -> Parts {
    let (name, words) = ATTACKS[rng.random_range(0..ATTACKS.len())];
    let service = service_index(name);
    (vec![service], steps_of(service, words), 0.3, 0.3)
}

fn new_pattern(rng: &mut ChaCha8Rng) -> Parts {
    let service = rng.random_range(0..SERVICES.len());
    let levels = [Debug, Info, Warn, Error];
    let steps = (0..rng.random_range(1..=3))
        .map(|_| {
            let level = levels[rng.random_range(0..levels.len())];
            step((0.0, 1.0, 1), Line::Of(service, level, novel_template(rng)))
        })
        .collect();
    (vec![service], steps, 0.03, 0.08)
}

fn steps_of(service: usize, words: &[Words]) -> Vec<Step> {
    words
        .iter()
        .map(|&(from, until, weight, level, text)| {
            let line = Line::Of(service, level, Template::compile(text));
            step((from, until, weight), line)
        })
        .collect()
}

pub(super) fn step((from, until, weight): (f64, f64, u32), line: Line) -> Step {
    Step {
        from,
        until,
        weight,
        line,
    }
}
