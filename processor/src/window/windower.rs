//! The windower: places records into windows and closes them as the watermark passes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use super::{ClosedWindow, FinalBy, GroupBy, WindowBounds, WindowContent};
use crate::{
    decode::Template,
    event::{EventTime, LogEvent, OffsetSpan, Partial, StreamKey, TopicPartition, WindowGrid},
};

/// Empty windows listed one by one in a gap; the rest of the gap is one row.
pub const EMPTY_ROWS_MAX: u32 = 10;
/// A stream without lines for this long is forgotten, and begins anew when it comes back.
pub const FORGET_AFTER_MS: i64 = 24 * 60 * 60 * 1_000;
/// Most streams told apart in one partition; the lines of further services share one stream.
pub const STREAMS_MAX: usize = 10_000;
/// Most windows that the lateness may keep open beside the one being filled: an hour of the usual
/// ones.
pub const LATENESS_WINDOWS_MAX: i64 = 120;
/// Most (service, template) pairs told apart in the windows of one partition that begin at the same
/// time; beyond it lines are counted, but not told apart. What 10,000 services usually write.
pub const SLOT_PAIRS_MAX: usize = 50_000;
/// Name of the stream that services beyond [`STREAMS_MAX`] share.
pub const OTHER_SERVICES: &str = "(other)";

/// How windows are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// Window length in milliseconds, positive.
    pub length_ms: i64,
    /// How far behind the largest event time a record may be, in milliseconds.
    pub lateness_ms: i64,
    /// What makes records one stream.
    pub group_by: GroupBy,
}

impl WindowConfig {
    /// Returns how windows are laid over the records.
    #[must_use]
    pub fn grid(&self) -> WindowGrid {
        WindowGrid {
            length_ms: self.length_ms,
            by_service: self.group_by == GroupBy::Service,
        }
    }
}

/// Where a stream stands after a window; rides in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamProgress {
    /// End of the stream's last row.
    pub row_end: EventTime,
    /// Empty windows in a row up to there.
    pub empty_run: u32,
    /// End of the last window that had lines.
    pub seen_until: EventTime,
}

impl StreamProgress {
    /// Returns where a stream stands after a window with lines that ends at `end`.
    const fn after_lines(end: EventTime) -> Self {
        Self {
            row_end: end,
            empty_run: 0,
            seen_until: end,
        }
    }
}

/// What a restarted partition begins with.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Largest event time before the first record that will be read.
    pub max_event_time: Option<EventTime>,
    /// Start of the last window that is done.
    pub done_through: Option<EventTime>,
    /// Windows that may lack lines.
    pub partial: Partial,
    /// Known streams, by service name (`None` when grouped by partition).
    pub streams: Vec<(Option<Arc<str>>, StreamProgress)>,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Into an open window, which it may have been the first to open.
    Counted {
        /// Start of the window.
        start: EventTime,
        /// The record is the window's first.
        opened: bool,
    },
    /// Nowhere: its window was final.
    Late,
    /// Nowhere: its window was done before the restart and has counted it.
    AlreadyDone,
}

/// The open windows that begin at the same time.
#[derive(Debug, Default)]
struct Slot {
    /// By name of the stream (empty for the whole partition).
    streams: HashMap<Arc<str>, OpenStream, RandomState>,
    /// Pairs of all of them.
    pairs: usize,
}

#[derive(Debug)]
struct OpenStream {
    content: WindowContent,
    span: OffsetSpan,
    /// Largest event time of the partition before its first record.
    max_event_time_before: Option<EventTime>,
}

impl OpenStream {
    /// Returns the stream whose first line stands at `offset`, before it is counted.
    fn from(offset: i64, max_event_time_before: Option<EventTime>) -> Self {
        Self {
            content: WindowContent::default(),
            span: OffsetSpan::of(offset),
            max_event_time_before,
        }
    }
}

/// The windows of one partition.
#[derive(Debug)]
pub struct Windower {
    config: WindowConfig,
    partition: TopicPartition,
    max_event_time: Option<EventTime>,
    closed_through: Option<EventTime>,
    done_before_restart: Option<EventTime>,
    partial: Partial,
    /// By start.
    open: BTreeMap<EventTime, Slot>,
    streams: BTreeMap<Arc<str>, StreamProgress>,
    /// Streams that have an open window and no row yet.
    unborn: HashSet<Arc<str>>,
}

impl Windower {
    /// Returns the windows of `partition` as they stand after `recovered`.
    #[must_use]
    pub fn new(config: WindowConfig, partition: TopicPartition, recovered: Recovered) -> Self {
        let streams = recovered.streams.into_iter();
        Self {
            config,
            partition,
            max_event_time: recovered.max_event_time,
            closed_through: recovered.done_through,
            done_before_restart: recovered.done_through,
            partial: recovered.partial,
            open: BTreeMap::new(),
            unborn: HashSet::new(),
            streams: streams
                .map(|(service, progress)| (service.unwrap_or_else(|| "".into()), progress))
                .collect(),
        }
    }

    /// Returns the largest event time seen.
    #[must_use]
    pub fn max_event_time(&self) -> Option<EventTime> {
        self.max_event_time
    }

    /// Returns the start of the last window that is closed; all before it are.
    #[must_use]
    pub fn closed_through(&self) -> Option<EventTime> {
        self.closed_through
    }

    /// Returns the time up to which windows are final.
    #[must_use]
    pub fn watermark(&self) -> Option<EventTime> {
        self.max_event_time
            .map(|time| time.saturating_add(-self.config.lateness_ms))
    }

    /// Returns which windows may lack lines.
    #[must_use]
    pub fn partial(&self) -> Partial {
        self.partial
    }

    /// Returns the end of the last window that is open.
    #[must_use]
    pub fn last_open_end(&self) -> Option<EventTime> {
        self.open
            .keys()
            .next_back()
            .map(|start| self.end_of(*start))
    }

    /// Returns whether each service has windows of its own.
    #[must_use]
    pub fn by_service(&self) -> bool {
        self.config.group_by == GroupBy::Service
    }

    /// Returns the length of a window in milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> i64 {
        self.config.length_ms
    }

    /// Returns what the stream of this name (empty for the whole partition) goes by.
    #[must_use]
    pub fn stream_key(&self, name: &Arc<str>) -> StreamKey {
        StreamKey {
            partition: self.partition.clone(),
            service: self.by_service().then(|| Arc::clone(name)),
        }
    }

    /// Returns how many windows are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Returns how many (service, template) pairs the open windows tell apart.
    #[must_use]
    pub fn open_pairs(&self) -> usize {
        self.open.values().map(|slot| slot.pairs).sum()
    }

    /// Returns whether a window that starts after `start` and ends by `end` is open.
    #[must_use]
    pub fn has_open_between(&self, start: Option<EventTime>, end: EventTime) -> bool {
        let starts = self.open.keys();
        starts
            .copied()
            .any(|open| Some(open) > start && self.end_of(open) <= end)
    }

    /// Returns whether the stream of `service` is known (`None` when grouped by partition).
    #[must_use]
    pub fn knows(&self, service: Option<&str>) -> bool {
        self.streams.contains_key(service.unwrap_or_default())
    }

    /// Returns how many streams are known.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Places one event and moves the watermark; closing is [`Self::close_final`]'s.
    pub fn add(
        &mut self,
        event: &LogEvent<'_>,
        template: &Arc<Template>,
        offset: i64,
    ) -> Placement {
        let start = event.time.window_start(self.config.length_ms);
        if self
            .watermark()
            .is_some_and(|watermark| self.end_of(start) <= watermark)
        {
            return Placement::Late;
        }
        let max_event_time_before = self.max_event_time;
        self.max_event_time = self.max_event_time.max(Some(event.time));
        if self.done_before_restart.is_some_and(|done| start <= done) {
            return Placement::AlreadyDone;
        }
        if self.partial == Partial::FromFirstRecord {
            // This record's window was open when it was written, so the records before it were
            // at most the rest of that window and the lateness ahead.
            let reach = self
                .end_of(start)
                .saturating_add(self.config.lateness_ms - 1);
            self.partial = Partial::Through(reach.window_start(self.config.length_ms));
        }
        let opened = !self.open.contains_key(&start);
        let name = self.stream_name(&event.service);
        let slot = self.open.entry(start).or_default();
        let stream = match slot.streams.get_mut(name) {
            Some(stream) => stream,
            None => {
                let name: Arc<str> = name.into();
                if !self.streams.contains_key(&name) {
                    self.unborn.insert(Arc::clone(&name));
                }
                let fresh = OpenStream::from(offset, max_event_time_before);
                slot.streams.entry(name).or_insert(fresh)
            }
        };
        stream.span.extend(offset);
        let before = stream.content.pairs.len();
        let pairs_max = before + SLOT_PAIRS_MAX.saturating_sub(slot.pairs);
        stream.content.add_within(event, template, pairs_max);
        slot.pairs += stream.content.pairs.len() - before;
        Placement::Counted { start, opened }
    }

    /// Returns the name of the stream that the lines of `service` go to.
    fn stream_name<'a>(&self, service: &'a str) -> &'a str {
        match self.config.group_by {
            GroupBy::Partition => "",
            GroupBy::Service if self.has_room_for(service) => service,
            GroupBy::Service => OTHER_SERVICES,
        }
    }

    fn has_room_for(&self, service: &str) -> bool {
        self.streams.len() + self.unborn.len() < STREAMS_MAX
            || self.streams.contains_key(service)
            || self.unborn.contains(service)
    }

    /// Moves the largest event time forward to `time`, for a partition whose clock goes on while
    /// no record comes; never back.
    pub fn advance(&mut self, time: EventTime) {
        self.max_event_time = self.max_event_time.max(Some(time));
    }

    /// Returns the row that the stream of `service` would have if it wrote nothing for `windows`
    /// windows after its last row, open ones with lines of its own included, and the clock had
    /// passed them. `None` where the stream is unknown or forgotten by then. Beyond the windows that
    /// a gap lists it is a row that records never make. Nothing changes.
    #[must_use]
    pub fn silent_row(&self, service: Option<&str>, windows: u32) -> Option<ClosedWindow> {
        let (name, progress) = self.streams.get_key_value(service.unwrap_or_default())?;
        let open = self.open.iter().rev();
        let mut own = open.filter(|(_, slot)| slot.streams.contains_key(name));
        let before = own.next().map_or(*progress, |(&start, _)| {
            StreamProgress::after_lines(self.end_of(start))
        });
        let windows = windows.max(1);
        let past_ms = i64::from(windows - 1) * self.config.length_ms;
        let start = before.row_end.saturating_add(past_ms);
        let bounds = WindowBounds {
            start,
            end: self.end_of(start),
        };
        let after = StreamProgress {
            row_end: bounds.end,
            empty_run: before.empty_run.saturating_add(windows).min(EMPTY_ROWS_MAX),
            ..before
        };
        if is_forgotten(&before, start) {
            return None;
        }
        let mut row = self.row(name, bounds, start, FinalBy::Open);
        // Not the empty windows between: they have no rows yet, and follow from that one.
        row.previous = Some(self.last_row(before));
        row.progress = after;
        Some(row)
    }

    /// Closes, in window order, every window that the watermark has passed, and appends its rows:
    /// per slot the streams by name, a gap row before the row that ends the gap.
    pub fn close_final(&mut self, final_by: FinalBy, rows: &mut Vec<ClosedWindow>) {
        if let Some(time) = self.max_event_time {
            self.close_passed(time, final_by, rows);
        }
    }

    /// Moves the largest event time forward to `time`, for a partition whose clock goes on while no
    /// record comes, and closes every window that this makes the watermark pass.
    pub fn close_idle(&mut self, time: EventTime, rows: &mut Vec<ClosedWindow>) {
        self.advance(time);
        self.close_passed(time, FinalBy::Idle, rows);
    }

    /// Closes every window that the watermark passes with a record of this time.
    fn close_passed(&mut self, time: EventTime, final_by: FinalBy, rows: &mut Vec<ClosedWindow>) {
        let (length_ms, lateness_ms) = (self.config.length_ms, self.config.lateness_ms);
        let last = time.saturating_add(-lateness_ms - length_ms);
        self.close_through(last.window_start(length_ms), final_by, rows);
    }

    /// Closes every window there is: the input has ended.
    pub fn close_all(&mut self, rows: &mut Vec<ClosedWindow>) {
        if let Some(&last) = self.open.keys().next_back() {
            self.close_through(last, FinalBy::End, rows);
        }
    }

    /// Returns the start of the one window that is next to become final if it is open: all before it are.
    #[must_use]
    pub fn next_final(&self) -> Option<EventTime> {
        let start = self.watermark()?.window_start(self.config.length_ms);
        self.open.contains_key(&start).then_some(start)
    }

    /// Returns what the windows that start at `start` hold so far, by the name of their stream (empty for
    /// the whole partition), in no order.
    pub fn open_at(&self, start: EventTime) -> impl Iterator<Item = (&Arc<str>, &WindowContent)> {
        let slot = self.open.get(&start).into_iter();
        let streams = slot.flat_map(|slot| &slot.streams);
        streams.map(|(name, stream)| (name, &stream.content))
    }

    /// Returns the row of such a window as it stands, `None` if it is not open; nothing changes.
    #[must_use]
    pub fn open_row(&self, start: EventTime, name: &Arc<str>) -> Option<ClosedWindow> {
        let stream = self.open.get(&start)?.streams.get(name)?;
        let bounds = WindowBounds {
            start,
            end: self.end_of(start),
        };
        let mut row = self.row(name, bounds, start, FinalBy::Open);
        row.content = Arc::new(stream.content.clone());
        row.span = Some(stream.span);
        row.max_event_time_before = stream.max_event_time_before;
        row.progress = StreamProgress::after_lines(bounds.end);
        Some(row)
    }

    /// Returns whether the window of a stream that starts at `start` is its first, or the first since it was
    /// forgotten.
    #[must_use]
    pub fn is_first(&self, start: EventTime, name: &str) -> bool {
        let known = self.streams.get(name);
        known.is_none_or(|progress| is_forgotten(progress, start))
    }

    /// Returns the rows of the windows still open, as they stand, changing nothing.
    #[must_use]
    pub fn open_rows(&self) -> Vec<ClosedWindow> {
        let mut rows = Vec::new();
        let mut open_before = HashMap::new();
        for (&start, slot) in &self.open {
            let mut names: Vec<_> = slot.streams.keys().collect();
            names.sort_unstable();
            for name in names {
                let Some(mut row) = self.open_row(start, name) else {
                    continue;
                };
                row.previous = open_before.insert(name, row.bounds).or(row.previous);
                rows.push(row);
            }
        }
        rows
    }

    fn close_through(&mut self, last: EventTime, final_by: FinalBy, rows: &mut Vec<ClosedWindow>) {
        while let Some(slot) = self.next_slot().filter(|slot| *slot <= last) {
            let has_rows = self.open.contains_key(&slot)
                || self
                    .streams
                    .values()
                    .any(|stream| stream.empty_run < EMPTY_ROWS_MAX);
            if has_rows {
                self.close_slot(slot, final_by, rows);
                self.closed_through = Some(slot);
            } else {
                // Every stream is deep in a gap: go straight to the next window with lines.
                let next = self.open.keys().next().filter(|start| **start <= last);
                self.closed_through =
                    Some(next.map_or(last, |start| start.saturating_add(-self.config.length_ms)));
            }
        }
    }

    fn next_slot(&self) -> Option<EventTime> {
        match self.closed_through {
            Some(closed) => Some(self.end_of(closed)),
            None => self.open.keys().next().copied(),
        }
    }

    fn close_slot(&mut self, slot: EventTime, final_by: FinalBy, rows: &mut Vec<ClosedWindow>) {
        let mut with_lines = self.open.remove(&slot).unwrap_or_default().streams;
        self.streams
            .retain(|_, progress| !is_forgotten(progress, slot));
        let mut names: Vec<Arc<str>> = self
            .streams
            .keys()
            .chain(with_lines.keys())
            .map(Arc::clone)
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            match with_lines.remove(&name) {
                Some(stream) => self.close_with_lines(&name, slot, stream, (final_by, rows)),
                None => self.close_empty(&name, slot, final_by, rows),
            }
        }
    }

    fn close_with_lines(
        &mut self,
        name: &Arc<str>,
        slot: EventTime,
        stream: OpenStream,
        (final_by, rows): (FinalBy, &mut Vec<ClosedWindow>),
    ) {
        let bounds = WindowBounds {
            start: slot,
            end: self.end_of(slot),
        };
        let before = self.streams.get(name).copied();
        if let Some(progress) = before.filter(|progress| progress.row_end < slot) {
            let gap = WindowBounds {
                start: progress.row_end,
                end: slot,
            };
            let mut row = self.row(name, gap, slot, final_by);
            row.gap = true;
            row.progress.row_end = slot;
            rows.push(row);
        }
        self.unborn.remove(name);
        let progress = StreamProgress::after_lines(bounds.end);
        self.streams.insert(Arc::clone(name), progress);
        let mut row = self.row(name, bounds, slot, final_by);
        row.content = Arc::new(stream.content);
        row.span = Some(stream.span);
        row.max_event_time_before = stream.max_event_time_before;
        row.previous = before.map(|progress| self.last_row(progress));
        row.first = before.is_none();
        rows.push(row);
    }

    fn close_empty(
        &mut self,
        name: &Arc<str>,
        slot: EventTime,
        final_by: FinalBy,
        rows: &mut Vec<ClosedWindow>,
    ) {
        let end = self.end_of(slot);
        let Some(progress) = self.streams.get_mut(name) else {
            return;
        };
        if progress.empty_run < EMPTY_ROWS_MAX {
            let before = *progress;
            progress.empty_run += 1;
            progress.row_end = end;
            let mut row = self.row(name, WindowBounds { start: slot, end }, slot, final_by);
            row.previous = Some(self.last_row(before));
            rows.push(row);
        }
    }

    /// Returns the window of the row that left the stream at `progress`: gap rows leave none.
    fn last_row(&self, progress: StreamProgress) -> WindowBounds {
        WindowBounds {
            start: progress.row_end.saturating_add(-self.config.length_ms),
            end: progress.row_end,
        }
    }

    /// A row without lines, with the stream's progress as it is and its last row as the one before.
    fn row(
        &self,
        name: &Arc<str>,
        bounds: WindowBounds,
        slot: EventTime,
        final_by: FinalBy,
    ) -> ClosedWindow {
        let known = self.streams.get(name).copied();
        ClosedWindow {
            stream: self.stream_key(name),
            bounds,
            slot,
            content: Arc::default(),
            span: None,
            final_by,
            gap: false,
            first: false,
            partial: matches!(self.partial, Partial::Through(last) if slot <= last),
            max_event_time_before: None,
            previous: known.map(|progress| self.last_row(progress)),
            lateness_ms: self.config.lateness_ms,
            progress: known.unwrap_or(StreamProgress::after_lines(bounds.end)),
        }
    }

    fn end_of(&self, start: EventTime) -> EventTime {
        start.saturating_add(self.config.length_ms)
    }
}

/// Returns whether a stream has been silent for so long, by the window that starts at `slot`, that it is
/// forgotten.
fn is_forgotten(progress: &StreamProgress, slot: EventTime) -> bool {
    slot.as_millis() - progress.seen_until.as_millis() >= FORGET_AFTER_MS
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::event::Level;

    const LENGTH: i64 = 30_000;

    fn at(seconds: i64) -> EventTime {
        EventTime::from_millis(seconds * 1_000).unwrap()
    }

    fn event(seconds: i64, service: &str) -> LogEvent<'_> {
        LogEvent {
            time: at(seconds),
            level: Level::Info,
            service: Cow::Borrowed(service),
            message: Cow::Borrowed("m"),
            label: None,
        }
    }

    fn windower(group_by: GroupBy, recovered: Recovered) -> Windower {
        let config = WindowConfig {
            length_ms: LENGTH,
            lateness_ms: 2_000,
            group_by,
        };
        let partition = TopicPartition {
            topic: "t".into(),
            partition: 0,
        };
        Windower::new(config, partition, recovered)
    }

    /// Feeds (seconds, service) records and returns a line per row as it closes.
    fn feed(windower: &mut Windower, records: &[(i64, &str)]) -> Vec<String> {
        let template = Arc::new(Template::new("m"));
        let mut rows = Vec::new();
        for (offset, (seconds, service)) in (0..).zip(records) {
            windower.add(&event(*seconds, service), &template, offset);
            windower.close_final(FinalBy::Watermark, &mut rows);
        }
        rows.iter().map(show).collect()
    }

    fn show(row: &ClosedWindow) -> String {
        let seconds = |time: EventTime| time.as_millis() / 1_000;
        format!(
            "{} {}..{} lines {}{}{}",
            row.stream,
            seconds(row.bounds.start),
            seconds(row.bounds.end),
            row.content.lines(),
            if row.gap { " gap" } else { "" },
            if row.partial { " partial" } else { "" },
        )
    }

    fn rest(windower: &mut Windower) -> Vec<String> {
        let mut rows = Vec::new();
        windower.close_all(&mut rows);
        rows.iter().map(show).collect()
    }

    #[test]
    fn a_window_closes_when_the_watermark_reaches_its_end() {
        let mut windower = windower(GroupBy::Partition, Recovered::default());
        assert!(feed(&mut windower, &[(0, "a"), (29, "a"), (31, "a")]).is_empty());
        assert_eq!(feed(&mut windower, &[(32, "a")]), ["t/0 0..30 lines 2"]);
        assert_eq!(rest(&mut windower), ["t/0 30..60 lines 2"]);
    }

    #[test]
    fn lateness_is_counted_and_late_records_are_not() {
        let mut windower = windower(GroupBy::Partition, Recovered::default());
        let template = Arc::new(Template::new("m"));
        feed(&mut windower, &[(31, "a")]);
        let early = windower.add(&event(29, "a"), &template, 7);
        assert_eq!(
            early,
            Placement::Counted {
                start: at(0),
                opened: true
            }
        );
        feed(&mut windower, &[(32, "a")]);
        assert_eq!(windower.add(&event(29, "a"), &template, 9), Placement::Late);
    }

    #[test]
    fn a_gap_has_ten_empty_rows_and_one_for_the_rest() {
        let mut windower = windower(GroupBy::Partition, Recovered::default());
        let rows = feed(&mut windower, &[(0, "a"), (3_000, "a"), (3_032, "a")]);
        assert_eq!(rows.len(), 1 + 10 + 1 + 1);
        assert_eq!(rows[10], "t/0 300..330 lines 0");
        assert_eq!(rows[11], "t/0 330..3000 lines 0 gap");
        assert_eq!(rows[12], "t/0 3000..3030 lines 1");
    }

    #[test]
    fn a_jump_over_decades_costs_no_walk_and_forgets_the_stream() {
        let mut windower = windower(GroupBy::Partition, Recovered::default());
        let rows = feed(
            &mut windower,
            &[(0, "a"), (2_000_000_010, "a"), (2_000_000_050, "a")],
        );
        assert_eq!(rows.len(), 1 + 10 + 1);
        assert_eq!(rows[11], "t/0 2000000010..2000000040 lines 1");
    }

    #[test]
    fn services_have_streams_of_their_own() {
        let mut windower = windower(GroupBy::Service, Recovered::default());
        let rows = feed(&mut windower, &[(0, "b"), (1, "a"), (31, "b"), (65, "b")]);
        assert_eq!(
            rows,
            [
                "t/0/a 0..30 lines 1",
                "t/0/b 0..30 lines 1",
                "t/0/a 30..60 lines 0",
                "t/0/b 30..60 lines 1"
            ]
        );
    }

    #[test]
    fn services_beyond_the_cap_share_a_stream_however_windows_overlap() {
        let mut windower = windower(GroupBy::Service, Recovered::default());
        let template = Arc::new(Template::new("m"));
        let mut rows = Vec::new();
        let names: Vec<_> = (0..STREAMS_MAX + 500).map(|it| format!("s{it}")).collect();
        for (offset, name) in (0..).zip(&names) {
            // Two windows are open at the same time, each with half of the services.
            windower.add(&event(29 + offset % 2, name), &template, offset);
        }
        windower.close_all(&mut rows);
        let lines: u32 = rows.iter().map(|row| row.content.lines()).sum();
        assert_eq!(lines as usize, names.len());
        assert_eq!(windower.stream_count(), STREAMS_MAX + 1);
        let others = rows
            .iter()
            .filter(|row| row.stream.service.as_deref() == Some(OTHER_SERVICES));
        assert_eq!(others.map(|row| row.content.lines()).sum::<u32>(), 500);
    }

    #[test]
    fn pairs_beyond_the_cap_of_a_slot_are_counted_but_not_told_apart() {
        let mut windower = windower(GroupBy::Service, Recovered::default());
        for offset in 0..i64::try_from(SLOT_PAIRS_MAX).unwrap() + 300 {
            let template = Arc::new(Template::new(&offset.to_string()));
            let service = format!("s{}", offset % 100);
            windower.add(&event(0, &service), &template, offset);
        }
        let mut rows = Vec::new();
        windower.close_all(&mut rows);
        let sum = |of: fn(&WindowContent) -> usize| rows.iter().map(|row| of(&row.content)).sum();
        let (pairs, lines): (usize, usize) =
            (sum(|it| it.pairs.len()), sum(|it| it.lines() as usize));
        assert_eq!((pairs, lines), (SLOT_PAIRS_MAX, SLOT_PAIRS_MAX + 300));
        assert_eq!(sum(|it| it.overflow as usize), 300usize);
    }

    #[test]
    fn windows_done_before_the_restart_are_not_counted_again() {
        let progress = StreamProgress {
            row_end: at(60),
            empty_run: 0,
            seen_until: at(60),
        };
        let recovered = Recovered {
            max_event_time: Some(at(61)),
            done_through: Some(at(30)),
            partial: Partial::No,
            streams: vec![(None, progress)],
        };
        let mut windower = windower(GroupBy::Partition, recovered);
        let template = Arc::new(Template::new("m"));
        assert_eq!(windower.add(&event(29, "a"), &template, 1), Placement::Late);
        assert_eq!(
            windower.add(&event(59, "a"), &template, 2),
            Placement::AlreadyDone
        );
        assert_eq!(
            feed(&mut windower, &[(61, "a"), (92, "a")]),
            ["t/0 60..90 lines 1"]
        );
    }

    #[test]
    fn windows_around_a_partial_start_say_so() {
        let recovered = Recovered {
            partial: Partial::FromFirstRecord,
            ..Recovered::default()
        };
        let mut windower = windower(GroupBy::Partition, recovered);
        let rows = feed(
            &mut windower,
            &[(29, "a"), (31, "a"), (61, "a"), (100, "a")],
        );
        assert_eq!(
            rows,
            [
                "t/0 0..30 lines 1 partial",
                "t/0 30..60 lines 1 partial",
                "t/0 60..90 lines 1"
            ]
        );
    }

    fn provenance(rows: &[ClosedWindow]) -> Vec<String> {
        let seconds = |time: EventTime| (time.as_millis() / 1_000).to_string();
        let some = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        let line = |row: &ClosedWindow| {
            format!(
                "{} after {} from {}",
                show(row),
                some(row.previous.map(|it| seconds(it.start))),
                some(row.max_event_time_before.map(seconds)),
            )
        };
        rows.iter().map(line).collect()
    }

    #[test]
    fn rows_tell_where_reading_them_again_begins() {
        let mut windower = windower(GroupBy::Service, Recovered::default());
        let template = Arc::new(Template::new("m"));
        let mut rows = Vec::new();
        // The first line of window 30..60 comes before the last one of 0..30, service `b` joins
        // its window late, and a gap follows.
        let records = [(0, "a"), (31, "a"), (29, "b"), (45, "b"), (500, "a")];
        for (offset, (seconds, service)) in (0..).zip(records) {
            windower.add(&event(seconds, service), &template, offset);
            windower.close_final(FinalBy::Watermark, &mut rows);
        }
        let open = provenance(&windower.open_rows());
        assert_eq!(open, ["t/0/a 480..510 lines 1 after 330 from 45"]);
        windower.close_all(&mut rows);
        let rows = provenance(&rows);
        assert_eq!(
            rows.first().unwrap(),
            "t/0/a 0..30 lines 1 after none from none"
        );
        assert_eq!(rows[1], "t/0/b 0..30 lines 1 after none from 31");
        assert_eq!(rows[2], "t/0/a 30..60 lines 1 after 0 from 0");
        assert_eq!(rows[3], "t/0/b 30..60 lines 1 after 0 from 31");
        assert_eq!(rows[4], "t/0/a 60..90 lines 0 after 30 from none");
        let (last, gap) = (&rows[rows.len() - 1], &rows[rows.len() - 2]);
        assert_eq!(gap, "t/0/a 360..480 lines 0 gap after 330 from none");
        assert_eq!(last, "t/0/a 480..510 lines 1 after 330 from 45");
    }

    #[test]
    fn the_row_before_is_known_after_a_restart() {
        let progress = StreamProgress {
            row_end: at(90),
            empty_run: 1,
            seen_until: at(60),
        };
        let recovered = Recovered {
            max_event_time: Some(at(93)),
            done_through: Some(at(60)),
            streams: vec![(None, progress)],
            ..Recovered::default()
        };
        let mut windower = windower(GroupBy::Partition, recovered);
        feed(&mut windower, &[(95, "a")]);
        let mut rows = windower.open_rows();
        windower.close_all(&mut rows);
        let line = "t/0 90..120 lines 1 after 60 from 93";
        assert_eq!(provenance(&rows), [line, line]);
    }

    #[test]
    fn windows_open_at_once_follow_each_other() {
        let mut windower = windower(GroupBy::Partition, Recovered::default());
        feed(&mut windower, &[(29, "a"), (31, "a")]);
        assert_eq!(
            provenance(&windower.open_rows()),
            [
                "t/0 0..30 lines 1 after none from none",
                "t/0 30..60 lines 1 after 0 from 29"
            ]
        );
    }

    #[test]
    fn silence_has_the_rows_that_the_next_record_makes_final() {
        let mut windower = windower(GroupBy::Partition, Recovered::default());
        feed(&mut windower, &[(0, "a"), (45, "a")]);
        let place = |row: &ClosedWindow| (row.bounds, row.progress);
        let silent = |windows| windower.silent_row(None, windows);
        let ahead: Vec<_> = (1..=EMPTY_ROWS_MAX).filter_map(silent).collect();
        // The stream's own window that is open is the last row before all of them.
        let open = windower.open_rows();
        let last = open.last().map(|row| row.bounds);
        assert!(ahead.iter().all(|row| row.previous == last));
        windower.add(&event(1_000, "a"), &Arc::new(Template::new("m")), 9);
        let mut rows = Vec::new();
        windower.close_final(FinalBy::Watermark, &mut rows);
        let made: Vec<_> = rows.iter().map(place).collect();
        let said: Vec<_> = open.iter().chain(&ahead).map(place).collect();
        assert_eq!(made, said);
    }

    #[test]
    fn a_forgotten_stream_has_no_row_of_silence() {
        let mut windower = windower(GroupBy::Service, Recovered::default());
        feed(&mut windower, &[(0, "a"), (1, "b"), (250, "b")]);
        let row = |service, windows| {
            let row = windower.silent_row(Some(service), windows);
            row.map(|row| row.bounds.start)
        };
        // `a` has seven rows without lines already; `b` has a window open.
        assert_eq!(row("a", 3), Some(at(300)));
        assert_eq!(row("b", 1), Some(at(270)));
        assert_eq!((row("a", 3_000), row("never", 1)), (None, None));
    }

    proptest! {
        /// Whatever the order of arrival within the lateness, the same rows come out.
        #[test]
        fn order_within_the_lateness_does_not_matter(
            mut steps in prop::collection::vec((0_i64..9_000, 0_usize..3, 0_i64..2_000), 1..200)
        ) {
            const SERVICES: [&str; 3] = ["a", "b", "c"];
            let mut time = 0;
            let records: Vec<_> = steps.drain(..).map(|(step, service, jitter)| {
                time += step;
                (time, SERVICES[service], time + jitter)
            }).collect();
            let mut shuffled = records.clone();
            shuffled.sort_by_key(|record| record.2);
            let rows = |records: &[(i64, &str, i64)]| {
                let template = Arc::new(Template::new("m"));
                let mut windower = windower(GroupBy::Service, Recovered::default());
                let mut rows = Vec::new();
                for (offset, (millis, service, _)) in (0..).zip(records) {
                    let event = LogEvent {
                        time: EventTime::from_millis(*millis).unwrap(), ..event(0, service)
                    };
                    let placed = windower.add(&event, &template, offset);
                    assert!(matches!(placed, Placement::Counted { .. }), "{event:?} {placed:?}");
                    windower.close_final(FinalBy::Watermark, &mut rows);
                }
                windower.close_all(&mut rows);
                rows.iter().map(show).collect::<Vec<_>>()
            };
            prop_assert_eq!(rows(&records), rows(&shuffled));
        }
    }
}
