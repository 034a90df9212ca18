//! What a path template captured of a request's path.

/// Captures that fit without an allocation.
const INLINE: usize = 8;

/// The segments that stood where a template has parameters, and what its tail matched; all borrowed from the path, still
/// percent-encoded.
#[derive(Debug, Default)]
pub struct Captures<'p> {
    inline: [&'p str; INLINE],
    more: Vec<&'p str>,
    count: usize,
    tail: Option<&'p str>,
}

// === impl Captures ===

impl<'p> Captures<'p> {
    /// No captures yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many parameters the template has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the template has no parameter.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The segment at the template's parameter number `at`, counted from 0; see [`super::Parameter::capture`].
    pub fn get(&self, at: usize) -> Option<&'p str> {
        if at >= self.count {
            None
        } else if at < INLINE {
            Some(self.inline[at])
        } else {
            self.more.get(at - INLINE).copied()
        }
    }

    /// The segments in the order of the template's parameters.
    pub fn iter(&self) -> impl Iterator<Item = &'p str> {
        (0..self.count).filter_map(|at| self.get(at))
    }

    /// What the template's final `*` matched, without a slash in front, possibly empty; `None` when it has none.
    pub fn tail(&self) -> Option<&'p str> {
        self.tail
    }

    pub(super) fn clear(&mut self) {
        self.truncate(0);
        self.tail = None;
    }

    pub(super) fn push(&mut self, segment: &'p str) {
        if self.count < INLINE {
            self.inline[self.count] = segment;
        } else {
            self.more.push(segment);
        }
        self.count += 1;
    }

    pub(super) fn truncate(&mut self, count: usize) {
        self.count = count;
        self.more.truncate(count.saturating_sub(INLINE));
    }

    pub(super) fn set_tail(&mut self, tail: &'p str) {
        self.tail = Some(tail);
    }
}
