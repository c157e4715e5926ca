//! One pass: what was offered and is not yet answered, what was sent and is not
//! yet acknowledged, by barrier, and what was acknowledged and is not yet
//! committed.
//!
//! Not here: the session around it.

use std::collections::VecDeque;
use std::mem;

use super::offering::OpenOffers;
use super::{Offer, Output, SessionError};
use crate::extent::{BARRIER_BLOCKS, Extent, MAX_BARRIERS};
use crate::frame::ToTarget;
use crate::hash::Mark;
use crate::offer::Held;

#[derive(Debug)]
pub(super) struct Passing {
    pub(super) pass: u32,
    pub(super) blocks_sent: u64,
    pub(super) payload_bytes: u64,
    pub(super) pending: Vec<Extent>,
    /// Of what is pending, and of the open offers that were sent since the last
    /// barrier.
    pub(super) weight: u64,
    pub(super) barrier_due: bool,
    pub(super) offers: OpenOffers,
    pub(super) barriers_sent: u64,
    pub(super) outstanding: VecDeque<Vec<Extent>>,
    pub(super) uncommitted: VecDeque<(u64, Mark)>,
    pub(super) end: PassEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PassEnd {
    NotYet,
    Read,
    Stopping { read: bool },
}

impl Passing {
    pub(super) fn new(pass: u32) -> Self {
        Self {
            pass,
            blocks_sent: 0,
            payload_bytes: 0,
            pending: Vec::new(),
            weight: 0,
            barrier_due: false,
            offers: OpenOffers::default(),
            barriers_sent: 0,
            outstanding: VecDeque::new(),
            uncommitted: VecDeque::new(),
            end: PassEnd::NotYet,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.end {
            PassEnd::NotYet => "passing",
            PassEnd::Read => "draining",
            PassEnd::Stopping { .. } => "stopping",
        }
    }

    pub(super) fn sent(&mut self, extent: Extent, payload_bytes: u64) -> Result<(), SessionError> {
        self.check_unoffered("an extent", &extent)?;
        self.blocks_sent += extent.count();
        self.payload_bytes = self.payload_bytes.saturating_add(payload_bytes);
        self.weight += extent.weight();
        self.pending.push(extent);
        Ok(())
    }

    pub(super) fn offered(&mut self, extent: Extent) -> Result<(), SessionError> {
        self.check_unoffered("an offer", &extent)?;
        self.weight += extent.weight();
        if let Extent::Data { first, leaves } = extent {
            let under = self.barriers_sent;
            self.offers.push(Offer {
                first,
                leaves,
                under,
            });
        }
        Ok(())
    }

    /// What is sent of a block before its offer is answered would be committed
    /// in another order than the target writes it.
    fn check_unoffered(&self, input: &'static str, extent: &Extent) -> Result<(), SessionError> {
        let stage = self.name();
        match self.offers.touch(extent) {
            true => Err(SessionError::OutOfTurn { input, stage }),
            false => Ok(()),
        }
    }

    pub(super) fn take_offer(&mut self) -> Result<Offer, SessionError> {
        let (frame, stage) = ("answer", self.name());
        let offer = self.offers.take_oldest();
        offer.ok_or(SessionError::Unexpected { frame, stage })
    }

    /// Adds what was made of an offer to the barrier under which it was sent.
    pub(super) fn answered(&mut self, offer: &Offer, held: &[Held]) {
        let made = offer.made(held);
        self.blocks_sent += made.iter().map(Extent::count).sum::<u64>();
        let behind = offer.under - self.acknowledged_barriers();
        // At most a few barriers are outstanding.
        if let Some(extents) = self.outstanding.get_mut(behind as usize) {
            extents.extend(made);
            return;
        }
        self.weight -= offer.leaves.len() as u64;
        self.weight += made.iter().map(Extent::weight).sum::<u64>();
        self.pending.extend(made);
    }

    fn acknowledged_barriers(&self) -> u64 {
        self.barriers_sent - self.outstanding.len() as u64
    }

    pub(super) fn stop(&mut self) {
        self.end = match self.end {
            PassEnd::NotYet => PassEnd::Stopping { read: false },
            PassEnd::Read => PassEnd::Stopping { read: true },
            stopping @ PassEnd::Stopping { .. } => stopping,
        };
    }

    pub(super) fn committed(&mut self, barrier: u64, ours: Mark) -> Result<(), SessionError> {
        let (input, stage) = ("a commit", self.name());
        let (asked, theirs) = self
            .uncommitted
            .pop_front()
            .filter(|(asked, _)| *asked == barrier)
            .ok_or(SessionError::OutOfTurn { input, stage })?;
        if ours != theirs {
            let barrier = asked;
            return Err(SessionError::MarkMismatch {
                barrier,
                ours,
                theirs,
            });
        }
        Ok(())
    }

    /// Whether the pass is at its end and all that was sent is committed. No offer
    /// is open then: its barrier would be outstanding, since one is sent for it and
    /// is not acknowledged before it is answered.
    pub(super) fn is_settled(&self) -> bool {
        self.end != PassEnd::NotYet
            && self.pending.is_empty()
            && self.outstanding.is_empty()
            && self.uncommitted.is_empty()
    }

    pub(super) fn may_send(&self) -> bool {
        self.end == PassEnd::NotYet && self.weight < BARRIER_BLOCKS
    }

    pub(super) fn may_offer(&self) -> bool {
        self.may_send() && self.offers.has_room()
    }

    /// Takes what the oldest barrier covers, now that it is acknowledged;
    /// `durable` is the barrier before it.
    pub(super) fn acknowledged(
        &mut self,
        durable: u64,
        barrier: u64,
        mark: Mark,
    ) -> Result<Vec<Extent>, SessionError> {
        let (frame, stage) = ("durable", self.name());
        let is_unanswered = self.offers.oldest_under() == Some(self.acknowledged_barriers());
        let extents = self
            .outstanding
            .pop_front()
            .ok_or(SessionError::Unexpected { frame, stage })?;
        // Counted up when it was sent, so there is a number above.
        let expected = durable.saturating_add(1);
        if barrier != expected {
            let got = barrier;
            return Err(SessionError::Barrier { got, expected });
        }
        if is_unanswered {
            return Err(SessionError::Unanswered { barrier });
        }
        self.uncommitted.push_back((barrier, mark));
        Ok(extents)
    }

    /// Sends a barrier when one is due and there is room for it; `durable` is
    /// the last one acknowledged.
    pub(super) fn send_barrier(
        &mut self,
        durable: u64,
        out: &mut Vec<Output>,
    ) -> Result<(), SessionError> {
        let is_offered = self.offers.newest_under() == Some(self.barriers_sent);
        if self.pending.is_empty() && !is_offered {
            self.barrier_due = false;
            return Ok(());
        }
        let due = self.barrier_due || !self.may_send();
        if !due || self.outstanding.len() >= MAX_BARRIERS {
            return Ok(());
        }
        let above = self.outstanding.len() as u64 + 1;
        let barrier = durable
            .checked_add(above)
            .ok_or(SessionError::BarriersExhausted { barrier: durable })?;
        self.outstanding.push_back(mem::take(&mut self.pending));
        self.barriers_sent += 1;
        self.weight = 0;
        self.barrier_due = false;
        out.push(Output::Send(ToTarget::Barrier { barrier }));
        Ok(())
    }
}
