//! Made-up windows: seven services that write a few dozen templates at steady rates.

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc};

use logguard::{
    decode::{Masker, TemplateDictionary},
    event::{EventTime, Level, LogEvent, StreamKey, TopicPartition},
    model::{Baseline, Bundle, Detector, ScoredWindow, Trainer},
    window::{ClosedWindow, FinalBy, StreamProgress, WindowBounds, WindowContent},
};

pub(crate) const LENGTH_MS: i64 = 30_000;

const SERVICES: [&str; 7] = [
    "api-gateway",
    "auth-service",
    "user-service",
    "order-service",
    "payment-service",
    "inventory-service",
    "notification-service",
];

/// Level, message (`#` is a number) and relative rate.
const KINDS: [(Level, &str, u32); 16] = [
    (
        Level::Info,
        "Order created successfully - order_id: ord_#",
        160,
    ),
    (
        Level::Info,
        "User session created - session_id: sess_#",
        160,
    ),
    (
        Level::Info,
        "Database query completed - rows: #, duration: #ms",
        160,
    ),
    (Level::Info, "Payment processed - amount: $#", 150),
    (
        Level::Info,
        "Email notification sent to user#@example.com",
        100,
    ),
    (Level::Debug, "Cache miss for key: cache_#", 90),
    (Level::Debug, "Response payload size: # bytes", 60),
    (Level::Debug, "Query plan: index_scan", 40),
    (Level::Warn, "Slow query detected - duration: #ms", 30),
    (Level::Warn, "High memory usage detected: #%", 25),
    (Level::Warn, "Rate limit approaching for user #", 20),
    (Level::Error, "Session expired for user #", 9),
    (
        Level::Error,
        "Payment declined - insufficient funds for user #",
        8,
    ),
    (
        Level::Error,
        "Invalid request - malformed JSON in request body",
        6,
    ),
    (
        Level::Fatal,
        "Unhandled exception in request handler - KeyError",
        4,
    ),
    (
        Level::Fatal,
        "Unhandled exception in request handler - TypeError",
        3,
    ),
];

/// A small generator of its own, so that the windows never change with a library.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(limit)).unwrap()
    }
}

/// One line: level, service, message.
pub(crate) type Line = (Level, &'static str, String);

pub(crate) fn line(random: &mut Random) -> Line {
    let total = KINDS.iter().map(|(_, _, rate)| rate).sum();
    let mut at = random.below(total);
    let (level, message, _) = KINDS
        .into_iter()
        .find(|(_, _, rate)| {
            let found = at < *rate;
            at = at.wrapping_sub(*rate);
            found
        })
        .unwrap();
    let service = SERVICES[random.below(7) as usize];
    let number = random.below(100_000).to_string();
    (level, service, message.replace('#', &number))
}

/// About `rate` normal lines.
pub(crate) fn lines(random: &mut Random, rate: u32) -> Vec<Line> {
    // A sum of many small chances: near a Poisson count.
    let count = (0..rate * 20).filter(|_| random.below(20) == 0).count();
    (0..count).map(|_| line(random)).collect()
}

pub(crate) struct Maker {
    templates: TemplateDictionary,
}

impl Maker {
    pub(crate) fn new() -> Self {
        let masker = Masker::new(&Masker::default_rules()).unwrap();
        Self {
            templates: TemplateDictionary::new(masker, NonZeroUsize::new(10_000).unwrap()),
        }
    }

    pub(crate) fn window(&mut self, number: i64, lines: &[Line]) -> ClosedWindow {
        let at = |number: i64| EventTime::from_millis(number * LENGTH_MS).unwrap();
        let bounds = WindowBounds {
            start: at(number),
            end: at(number + 1),
        };
        let mut content = WindowContent::default();
        for (level, service, message) in lines {
            let event = LogEvent {
                time: bounds.start,
                level: *level,
                service: Cow::Borrowed(service),
                message: Cow::Borrowed(message),
                label: None,
            };
            content.add(&event, self.templates.resolve(message));
        }
        ClosedWindow {
            stream: StreamKey {
                partition: TopicPartition {
                    topic: "made".into(),
                    partition: 0,
                },
                service: None,
            },
            bounds,
            slot: bounds.start,
            content: Arc::new(content),
            span: None,
            final_by: FinalBy::Watermark,
            gap: false,
            first: false,
            partial: false,
            max_event_time_before: None,
            previous: None,
            lateness_ms: 2_000,
            progress: StreamProgress {
                row_end: bounds.end,
                empty_run: 0,
                seen_until: bounds.end,
            },
        }
    }
}

pub(crate) fn trainer() -> Trainer {
    Trainer::new(&Masker::default_rules(), LENGTH_MS).unwrap()
}

/// A model trained on `windows` windows of about five lines.
pub(crate) fn trained(windows: i64) -> Arc<Bundle> {
    let mut maker = Maker::new();
    let mut random = Random::new(1);
    let mut trainer = trainer();
    for number in 0..windows {
        trainer.add(&maker.window(number, &lines(&mut random, 5)));
    }
    Arc::new(trainer.finish(&mut |_| {}).unwrap())
}

/// Scores windows one after the other on one stream.
pub(crate) fn score(
    detector: &mut Detector,
    windows: impl IntoIterator<Item = ClosedWindow>,
) -> Vec<ScoredWindow> {
    let mut baseline = Baseline::default();
    windows
        .into_iter()
        .map(|window| detector.score(window, &mut baseline))
        .collect()
}
