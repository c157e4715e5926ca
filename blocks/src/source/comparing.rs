//! The comparison of the stored tree with the target's: group nodes page by
//! page, then the leaves of the groups that differ, each checked against the
//! node, and all nodes against the root.
//!
//! Not here: the session around it.

use std::collections::VecDeque;

use super::{Output, SessionError};
use crate::frame::{MAX_GROUPS_PER_FRAME, ToTarget};
use crate::geometry::{Geometry, GroupIndex};
use crate::hash::{Leaf, Node, Root};
use crate::tree::{RootBuilder, group_node};

/// Groups whose leaves are asked for at once: hides the link's delay, and is
/// half a megabyte of answers.
const LEAVES_IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(super) struct Comparing {
    pub(super) barrier: u64,
    pub(super) root: Root,
    pub(super) first: GroupIndex,
    pub(super) ours: Option<Vec<Node>>,
    pub(super) theirs: Option<Vec<Node>>,
    pub(super) builder: RootBuilder,
    pub(super) differing: VecDeque<(GroupIndex, Node)>,
    pub(super) asked: VecDeque<(GroupIndex, Node)>,
    pub(super) adopted: u64,
}

impl Comparing {
    pub(super) fn new(geometry: Geometry, barrier: u64, root: Root) -> Self {
        Self {
            barrier,
            root,
            first: GroupIndex(0),
            ours: None,
            theirs: None,
            builder: RootBuilder::new(geometry),
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

    pub(super) fn load(&mut self, first: GroupIndex, nodes: Vec<Node>) -> Result<(), SessionError> {
        if first != self.first || self.ours.is_some() {
            let (input, stage) = ("a page of nodes", "comparing");
            return Err(SessionError::OutOfTurn { input, stage });
        }
        self.ours = Some(nodes);
        Ok(())
    }

    pub(super) fn receive(
        &mut self,
        geometry: Geometry,
        first: GroupIndex,
        nodes: Vec<Node>,
    ) -> Result<(), SessionError> {
        let asked = self.builder.pushed() == self.first.0;
        if first != self.first || !asked || nodes.len() != page_len(geometry, first) as usize {
            return Err(SessionError::BadGroups { first });
        }
        for node in &nodes {
            self.builder.push(*node);
        }
        self.theirs = Some(nodes);
        Ok(())
    }

    /// Once both pages are there: what differs is to be asked for.
    pub(super) fn find_differing(&mut self) {
        let (Some(ours), Some(theirs)) = (&self.ours, &self.theirs) else {
            return;
        };
        for (at, node) in theirs.iter().enumerate() {
            // A node that our shell failed to load counts as another.
            if ours.get(at) != Some(node) {
                let group = GroupIndex(self.first.0 + at as u64);
                self.differing.push_back((group, *node));
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
            let Some((group, node)) = self.differing.pop_front() else {
                return;
            };
            out.push(Output::Send(ToTarget::AskLeaves { group }));
            self.asked.push_back((group, node));
        }
    }

    pub(super) fn adopt(
        &mut self,
        geometry: Geometry,
        group: GroupIndex,
        leaves: Vec<Leaf>,
        out: &mut Vec<Output>,
    ) -> Result<(), SessionError> {
        let asked = self.asked.pop_front();
        let blocks = geometry.group_blocks(group);
        let fits = asked.is_some_and(|(asked, node)| {
            asked == group
                && leaves.len() as u64 == blocks.end - blocks.start
                && group_node(geometry, group, &leaves) == node
        });
        if !fits {
            return Err(SessionError::BadLeaves { group });
        }
        self.adopted += 1;
        out.push(Output::Adopt { group, leaves });
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
