//! The pictures of the page, as SVG drawn here: nothing is loaded, nothing runs.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::{
    evaluate::{
        AlarmHours,
        timeline::{Bucket, Timeline},
    },
    event::EventTime,
};

const WIDTH: f64 = 1_040.0;
const LEFT: f64 = 40.0;
/// Height of the part of the timeline that shows severities, and of all of it.
const PLOT: f64 = 190.0;
const TIMELINE_HEIGHT: f64 = 236.0;
/// Ticks of the time axis.
const TIME_TICKS: i64 = 6;
/// Side of the square that the precision-recall curve fills, and where it begins.
const SIDE: f64 = 300.0;
const PAD: f64 = 44.0;

/// Severities span orders of magnitude: their root is drawn.
struct Scale {
    most: f64,
}

impl Scale {
    fn y(&self, severity: f64) -> f64 {
        let share = (severity.max(0.0) / self.most).min(1.0).sqrt();
        PLOT - share * (PLOT - 12.0)
    }
}

/// Draws severities over time, the threshold, what was true and what alarmed.
pub(super) fn timeline(timeline: &Timeline, threshold: Option<f64>) -> Markup {
    let buckets = &timeline.buckets;
    let largest = buckets.iter().map(|bucket| bucket.severity);
    let most = largest.fold(threshold.unwrap_or(1.0) * 1.3, f64::max);
    let scale = Scale {
        most: most.clamp(1.0, f64::MAX),
    };
    let step = (WIDTH - LEFT) / buckets.len() as f64;
    let x = |place: usize| LEFT + (place as f64 + 0.5) * step;
    html! {
        svg #timeline viewBox=(format!("0 0 {WIDTH} {TIMELINE_HEIGHT}")) role="img"
            aria-label="Severity over time" {
            @for tick in severity_ticks(scale.most) {
                line.grid x1=(LEFT) x2=(WIDTH) y1=(point(scale.y(tick))) y2=(point(scale.y(tick))) {}
                text x=(LEFT - 6.0) y=(point(scale.y(tick) + 4.0)) text-anchor="end" { (tick) }
            }
            path.area d=(area(buckets, &scale, step)) {}
            @if let Some(threshold) = threshold {
                @let y = point(scale.y(threshold));
                line.threshold x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) {}
            }
            @for (place, bucket) in buckets.iter().enumerate() {
                @if bucket.anomalous > 0 {
                    rect.truth x=(point(x(place) - 0.5 * step.max(2.0))) y=(PLOT + 6.0)
                        width=(point(step.max(2.0))) height="8" {}
                }
                (marks(bucket, x(place), scale.y(bucket.severity)))
            }
            text x=(LEFT - 6.0) y=(PLOT + 14.0) text-anchor="end" { "truth" }
            (time_axis(timeline.start, timeline.end))
        }
    }
}

fn marks(bucket: &Bucket, x: f64, y: f64) -> Markup {
    let (cx, cy) = (point(x), point(y));
    let missed = bucket.anomalous - bucket.found;
    html! {
        @if bucket.unjudged > 0 {
            circle.unjudged cx=(cx) cy=(cy) r="3.5" { title { (bucket.unjudged) " alarms" } }
        }
        @if missed > 0 {
            circle.missed cx=(cx) cy=(point(y - 6.0)) r="4" { title { (missed) " missed" } }
        }
        @if bucket.found > 0 {
            circle.found cx=(cx) cy=(cy) r="3.5" { title { (bucket.found) " found" } }
        }
        @if bucket.false_alarms > 0 {
            path.false d=(format!("M{cx} {}l4.5 8h-9z", point(y - 6.0))) {
                title { (bucket.false_alarms) " false" }
            }
        }
    }
}

fn area(buckets: &[Bucket], scale: &Scale, step: f64) -> String {
    let mut path = format!("M{LEFT} {PLOT}");
    let mut x = LEFT;
    for bucket in buckets {
        let y = point(scale.y(bucket.severity));
        // Writing to a string cannot fail.
        write!(path, "L{} {y}", point(x)).ok();
        x += step;
        write!(path, "L{} {y}", point(x)).ok();
    }
    write!(path, "L{} {PLOT}Z", point(x)).ok();
    path
}

/// Returns a few round severities up to `most`.
fn severity_ticks(most: f64) -> Vec<f64> {
    const ROUND: [f64; 12] = [
        1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 120.0, 250.0, 500.0, 1_000.0, 2_000.0,
    ];
    let below: Vec<f64> = ROUND.into_iter().filter(|tick| *tick <= most).collect();
    let skip = below.len().saturating_sub(5);
    std::iter::once(0.0)
        .chain(below.into_iter().skip(skip))
        .collect()
}

fn time_axis(start: EventTime, end: EventTime) -> Markup {
    let span = end.as_millis() - start.as_millis();
    let ticks = (0..=TIME_TICKS).map(|tick| {
        let share = tick as f64 / TIME_TICKS as f64;
        let time = start.saturating_add(span / TIME_TICKS * tick);
        let anchor = match tick {
            0 => "start",
            TIME_TICKS => "end",
            _ => "middle",
        };
        (LEFT + share * (WIDTH - LEFT), time, anchor)
    });
    html! {
        @for (x, time, anchor) in ticks {
            text x=(point(x)) y=(TIMELINE_HEIGHT - 4.0) text-anchor=(anchor) {
                (time.to_datetime().format("%m-%d %H:%M"))
            }
        }
    }
}

/// Draws precision over recall, and where the threshold stands.
pub(super) fn curve(points: &[(f64, f64)], here: Option<(f64, f64)>) -> Markup {
    let size = SIDE + PAD + 12.0;
    let x = |recall: f64| PAD + recall * SIDE;
    let y = |precision: f64| 10.0 + (1.0 - precision) * SIDE;
    let mut path = String::new();
    for (number, (recall, precision)) in points.iter().enumerate() {
        let command = if number == 0 { 'M' } else { 'L' };
        if number == 0 {
            write!(path, "M{} {}L", point(x(0.0)), point(y(*precision))).ok();
        } else {
            path.push(command);
        }
        write!(path, "{} {}", point(x(*recall)), point(y(*precision))).ok();
    }
    html! {
        svg #pr-curve viewBox=(format!("0 0 {} {size}", size + 60.0)) role="img"
            aria-label="Precision over recall" {
            @for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
                line.grid x1=(x(0.0)) x2=(x(1.0)) y1=(y(tick)) y2=(y(tick)) {}
                line.grid x1=(x(tick)) x2=(x(tick)) y1=(y(0.0)) y2=(y(1.0)) {}
                text x=(PAD - 8.0) y=(y(tick) + 4.0) text-anchor="end" { (tick) }
                text x=(x(tick)) y=(SIDE + 26.0) text-anchor="middle" { (tick) }
            }
            text x=(x(0.5)) y=(SIDE + 44.0) text-anchor="middle" { "recall" }
            text x="12" y=(y(0.5)) text-anchor="middle"
                transform=(format!("rotate(-90 12 {})", y(0.5))) { "precision" }
            path.curve d=(path) {}
            @if let Some((recall, precision)) = here {
                circle.here cx=(point(x(recall))) cy=(point(y(precision))) r="5" {
                    title { "at the threshold" }
                }
            }
        }
    }
}

/// Draws alarms by hour of day.
pub(super) fn hours(hours: &AlarmHours) -> Markup {
    let most = hours.per_hour.iter().copied().max().unwrap_or(0).max(1);
    let (width, base, step) = (480.0, 150.0, 19.0);
    html! {
        svg #hours viewBox=(format!("0 0 {width} 176")) role="img" aria-label="Alarms by hour of day" {
            @for (hour, count) in hours.per_hour.iter().enumerate() {
                @let x = 12.0 + hour as f64 * step;
                @let height = *count as f64 / most as f64 * (base - 24.0);
                rect.bar-none x=(x) y=(base) width=(step - 4.0) height="3" {}
                rect.bar x=(x) y=(point(base - height)) width=(step - 4.0) height=(point(height)) {
                    title { (format!("{hour:02}:00: {count}")) }
                }
                @if *count > 0 {
                    text x=(x + 7.5) y=(point(base - height - 5.0)) text-anchor="middle" { (count) }
                }
                @if hour % 6 == 0 {
                    text x=(x + 7.5) y=(base + 20.0) text-anchor="middle" { (format!("{hour:02}")) }
                }
            }
        }
    }
}

/// A coordinate to a tenth of a pixel.
fn point(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
