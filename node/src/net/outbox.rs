//! Events that wait for the node to take them. Bounded without ever losing
//! count of who is connected; everything else is refused when it is full.

use std::collections::VecDeque;

use super::event::Event;
use super::peer::PeerKey;

/// Events waiting beyond the channel's own room. Payloads among them are what
/// makes this a limit on memory.
const MAX_WAITING: usize = 256;

/// The queue between the swarm and the channel of events.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Event>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether gossip is taken: it leaves room for those who wait for an answer.
    pub(super) fn takes_gossip(&self) -> bool {
        self.waiting.len() < MAX_WAITING / 4
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }

    /// Puts an event last, or drops it when there is no room. Dropping one
    /// refuses what it carries: its reply, verdict or stream goes with it.
    pub(super) fn push(&mut self, event: Event) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(event);
        }
    }

    /// A peer came. Never dropped.
    pub(super) fn connected(&mut self, peer: PeerKey) {
        self.waiting.push_back(Event::Connected(peer));
    }

    /// A peer went. A coming that nobody heard of yet is taken back instead, so
    /// that at most a going and a coming wait for each peer.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        let unheard = |event: &Event| matches!(event, Event::Connected(p) if *p == peer);
        match self.waiting.iter().rposition(unheard) {
            Some(at) => drop(self.waiting.remove(at)),
            None => self.waiting.push_back(Event::Disconnected(peer)),
        }
    }

    /// An address to be reached at; few, and never dropped.
    pub(super) fn listening(&mut self, address: libp2p::Multiaddr) {
        self.waiting.push_back(Event::Listening(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{FrameError, Protocol, event::Refusal};

    fn refused() -> Event {
        let what = Refusal::Frame {
            protocol: Protocol::Sync,
            error: FrameError::Empty,
        };
        Event::Refused {
            peer: [9; 32],
            what,
        }
    }

    #[test]
    fn a_full_outbox_drops_payloads_but_not_comings_and_goings() {
        let mut outbox = Outbox::default();
        for _ in 0..2 * MAX_WAITING {
            outbox.push(refused());
        }
        outbox.connected([1; 32]);
        assert_eq!(outbox.waiting.len(), MAX_WAITING + 1);
    }

    #[test]
    fn gossip_leaves_room_for_requests() {
        let mut outbox = Outbox::default();
        let gossip = || Event::Gossip {
            peer: [1; 32],
            bytes: vec![],
        };
        while outbox.takes_gossip() {
            outbox.push(gossip());
        }
        assert!(outbox.waiting.len() < MAX_WAITING / 2);
        outbox.pop();
        assert!(outbox.takes_gossip());
    }

    #[test]
    fn a_flapping_peer_takes_one_place() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.connected([1; 32]);
            outbox.disconnected([1; 32]);
        }
        outbox.connected([1; 32]);
        assert!(matches!(outbox.pop(), Some(Event::Connected(_))));
        assert!(outbox.is_empty());
    }
}
