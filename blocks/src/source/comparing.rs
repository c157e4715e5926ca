//! The comparison of the stored tree with the target's: marks of groups page by
//! page, then the entries of the groups that differ, checked against the mark of
//! their group, and all marks against that of the tree.
//!
//! Not here: the session around it.

use std::collections::VecDeque;

use super::{Output, SessionError};
use crate::frame::{MAX_GROUPS_PER_FRAME, ToTarget};
use crate::geometry::{Geometry, GroupIndex};
use crate::hash::{Leaf, Mark};
use crate::mark::{MarkBuilder, group_mark};

/// Groups whose entries are asked for at once: hides the link's delay, and is
/// half a megabyte of answers.
const LEAVES_IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(super) struct Comparing {
    pub(super) barrier: u64,
    pub(super) mark: Mark,
    pub(super) first: GroupIndex,
    pub(super) ours: Option<Vec<Mark>>,
    pub(super) theirs: Option<Vec<Mark>>,
    pub(super) builder: MarkBuilder,
    pub(super) differing: VecDeque<(GroupIndex, Mark)>,
    pub(super) asked: VecDeque<(GroupIndex, Mark)>,
    pub(super) adopted: u64,
}

impl Comparing {
    pub(super) fn new(geometry: Geometry, barrier: u64, mark: Mark) -> Self {
        Self {
            barrier,
            mark,
            first: GroupIndex(0),
            ours: None,
            theirs: None,
            builder: MarkBuilder::new(geometry),
            differing: VecDeque::new(),
            asked: VecDeque::new(),
            adopted: 0,
        }
    }

    pub(super) fn ask_page(&self, geometry: Geometry, out: &mut Vec<Output>) {
        let (first, count) = (self.first, page_len(geometry, self.first));
        out.push(Output::Send(ToTarget::AskGroups { first, count }));
        out.push(Output::LoadGroups { first, count });
    }

    pub(super) fn load(&mut self, first: GroupIndex, marks: Vec<Mark>) -> Result<(), SessionError> {
        if first != self.first || self.ours.is_some() {
            let (input, stage) = ("a page of marks", "comparing");
            return Err(SessionError::OutOfTurn { input, stage });
        }
        self.ours = Some(marks);
        Ok(())
    }

    pub(super) fn receive(
        &mut self,
        geometry: Geometry,
        first: GroupIndex,
        marks: Vec<Mark>,
    ) -> Result<(), SessionError> {
        let asked = self.builder.pushed() == self.first.0;
        if first != self.first || !asked || marks.len() != page_len(geometry, first) as usize {
            return Err(SessionError::BadGroups { first });
        }
        for mark in &marks {
            self.builder.push(*mark);
        }
        self.theirs = Some(marks);
        Ok(())
    }

    /// Once both pages are there: what differs is to be asked for.
    pub(super) fn find_differing(&mut self) {
        let (Some(ours), Some(theirs)) = (&self.ours, &self.theirs) else {
            return;
        };
        for (at, mark) in theirs.iter().enumerate() {
            // A mark that our shell failed to load counts as another.
            if ours.get(at) != Some(mark) {
                let group = GroupIndex(self.first.0 + at as u64);
                self.differing.push_back((group, *mark));
            }
        }
        self.theirs = None;
    }

    /// Goes on to the page that begins with `first`.
    pub(super) fn turn_to(&mut self, first: GroupIndex) {
        self.first = first;
        self.ours = None;
    }

    pub(super) fn ask_leaves(&mut self, out: &mut Vec<Output>) {
        while self.asked.len() < LEAVES_IN_FLIGHT {
            let Some((group, mark)) = self.differing.pop_front() else {
                return;
            };
            out.push(Output::Send(ToTarget::AskLeaves { group }));
            self.asked.push_back((group, mark));
        }
    }

    pub(super) fn adopt(
        &mut self,
        geometry: Geometry,
        group: GroupIndex,
        entries: Vec<Leaf>,
        out: &mut Vec<Output>,
    ) -> Result<(), SessionError> {
        let asked = self.asked.pop_front();
        let blocks = geometry.group_blocks(group);
        let fits = asked.is_some_and(|(asked, mark)| {
            asked == group
                && entries.len() as u64 == blocks.end - blocks.start
                && group_mark(&entries) == mark
        });
        if !fits {
            return Err(SessionError::BadLeaves { group });
        }
        self.adopted += 1;
        out.push(Output::Adopt { group, entries });
        Ok(())
    }

    pub(super) fn page_is_done(&self) -> bool {
        self.builder.pushed() > self.first.0
            && self.theirs.is_none()
            && self.differing.is_empty()
            && self.asked.is_empty()
    }
}

fn page_len(geometry: Geometry, first: GroupIndex) -> u32 {
    let left = geometry.groups().saturating_sub(first.0);
    // The limit fits, so the smaller of the two does.
    left.min(u64::from(MAX_GROUPS_PER_FRAME)) as u32
}
