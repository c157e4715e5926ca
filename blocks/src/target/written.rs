//! What was written and is not yet durable, and the groups noted for it.
//!
//! Not here: writing, and the file the notes are kept in.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use crate::extent::Extent;
use crate::geometry::{Geometry, GroupIndex};

/// Groups noted beyond the one that is written when writes come in order: one
/// fsync for each 256 MiB instead of each 16, and at most that much read for
/// nothing after a crash.
const MAX_NOTE_AHEAD: u64 = 16;

/// What was written and is not yet durable.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) pending: Vec<Extent>,
    pub(super) weight: u64,
    pub(super) flushing: VecDeque<u64>,
    pub(super) noted: BTreeSet<GroupIndex>,
    pub(super) note_next: u64,
    pub(super) note_ahead: u64,
}

impl Written {
    /// The groups to note before this extent is written; none when all it
    /// touches are noted. Looks ahead twice as far each time notes follow on
    /// one another, and not at all when they jump about.
    pub(super) fn note(&mut self, geometry: Geometry, extent: &Extent) -> Vec<GroupIndex> {
        let mut missing: Vec<GroupIndex> = extent
            .groups()
            .filter(|group| !self.noted.contains(group))
            .collect();
        let (Some(first), Some(last)) = (missing.first().copied(), missing.last().copied()) else {
            return missing;
        };
        self.note_ahead = if first.0 == self.note_next {
            (self.note_ahead * 2).clamp(1, MAX_NOTE_AHEAD)
        } else {
            0
        };
        self.note_next = (last.0 + 1 + self.note_ahead).min(geometry.groups());
        let ahead = (last.0 + 1..self.note_next).map(GroupIndex);
        missing.extend(ahead.filter(|group| !self.noted.contains(group)));
        self.noted.extend(&missing);
        missing
    }

    /// Hands over what is pending. What is written from here on waits for the
    /// next barrier and is noted for it, though the groups be the same: the
    /// notes for this one are forgotten when it is durable.
    pub(super) fn flush(&mut self, barrier: u64) -> Vec<Extent> {
        self.flushing.push_back(barrier);
        self.noted.clear();
        self.weight = 0;
        mem::take(&mut self.pending)
    }
}
