//! The training windows, packed: a few bytes per distinct line, so that millions fit in memory.

use crate::event::Level;

/// Lines of one (service, template) pair; pairs are numbered by the trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PairLines {
    pub(super) pair: u32,
    pub(super) lines: u32,
}

/// One training window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TrainingWindow {
    /// Its number: start divided by the window length.
    pub(super) window: i64,
    /// Number of its stream.
    pub(super) stream: u32,
    /// Lines per level.
    pub(super) levels: [u32; Level::COUNT],
    /// Its pairs, in the order in which float sums run.
    pub(super) pairs: Vec<PairLines>,
    /// `ERROR` and `FATAL` lines of the services that have any.
    pub(super) critical: Vec<(u32, u32)>,
    /// Somebody said that nothing was wrong in it.
    pub(super) normal: bool,
}

impl TrainingWindow {
    pub(super) fn lines(&self) -> u32 {
        self.levels.iter().sum()
    }

    /// A window of `INFO` lines for tests, of pairs with so many lines each.
    #[cfg(test)]
    pub(super) fn made(window: i64, pairs: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let pairs = pairs.into_iter();
        let pairs: Vec<_> = pairs
            .map(|(pair, lines)| PairLines { pair, lines })
            .collect();
        let mut levels = [0; Level::COUNT];
        levels[Level::Info as usize] = pairs.iter().map(|it| it.lines).sum();
        Self {
            window,
            levels,
            pairs,
            ..Self::default()
        }
    }
}

/// Windows in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct History {
    bytes: Vec<u8>,
    windows: usize,
    last_window: i64,
}

impl History {
    pub(super) fn len(&self) -> usize {
        self.windows
    }

    pub(super) fn push(&mut self, window: &TrainingWindow) {
        // Zigzag: several streams may step back a little.
        let step = window.window.wrapping_sub(self.last_window);
        self.put((step.wrapping_shl(1) ^ (step >> 63)).cast_unsigned());
        self.last_window = window.window;
        self.put(u64::from(window.stream));
        for lines in window.levels {
            self.put(u64::from(lines));
        }
        self.put(window.pairs.len() as u64);
        for pair in &window.pairs {
            self.put(u64::from(pair.pair));
            self.put(u64::from(pair.lines));
        }
        self.put(window.critical.len() as u64);
        for &(service, lines) in &window.critical {
            self.put(u64::from(service));
            self.put(u64::from(lines));
        }
        self.put(u64::from(window.normal));
        self.windows += 1;
    }

    /// LEB128.
    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(low_bits(value) | 0x80);
            value >>= 7;
        }
        self.bytes.push(low_bits(value));
    }

    pub(super) fn iter(&self) -> Reader<'_> {
        Reader {
            bytes: self.bytes.iter(),
            left: self.windows,
            last_window: 0,
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "seven bits fit")]
fn low_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// Reads a [`History`] from its beginning.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    left: usize,
    last_window: i64,
}

impl Reader<'_> {
    fn get(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes.next().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    #[allow(clippy::cast_possible_truncation, reason = "written from a u32")]
    fn get_u32(&mut self) -> u32 {
        self.get() as u32
    }
}

impl Iterator for Reader<'_> {
    type Item = TrainingWindow;

    fn next(&mut self) -> Option<TrainingWindow> {
        self.left = self.left.checked_sub(1)?;
        let step = self.get();
        let step = (step >> 1).cast_signed() ^ -(step & 1).cast_signed();
        self.last_window = self.last_window.wrapping_add(step);
        let mut window = TrainingWindow {
            window: self.last_window,
            stream: self.get_u32(),
            ..TrainingWindow::default()
        };
        for lines in &mut window.levels {
            *lines = self.get_u32();
        }
        let pairs = self.get();
        window.pairs = (0..pairs)
            .map(|_| PairLines {
                pair: self.get_u32(),
                lines: self.get_u32(),
            })
            .collect();
        let critical = self.get();
        window.critical = (0..critical)
            .map(|_| (self.get_u32(), self.get_u32()))
            .collect();
        window.normal = self.get() > 0;
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            windows in prop::collection::vec(
                (any::<i64>(), any::<u32>(), any::<[u32; 5]>(),
                 prop::collection::vec(any::<(u32, u32)>(), 0..5),
                 prop::collection::vec(any::<(u32, u32)>(), 0..3), any::<bool>()),
                0..20,
            )
        ) {
            let windows: Vec<_> = windows
                .into_iter()
                .map(|(window, stream, levels, pairs, critical, normal)| TrainingWindow {
                    normal,
                    critical,
                    window,
                    stream,
                    levels,
                    pairs: pairs
                        .into_iter()
                        .map(|(pair, lines)| PairLines { pair, lines })
                        .collect(),
                })
                .collect();
            let mut history = History::default();
            windows.iter().for_each(|window| history.push(window));
            prop_assert_eq!(history.iter().collect::<Vec<_>>(), windows);
        }
    }
}
