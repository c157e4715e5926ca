//! Requests and answers: ours that wait for a peer, and those of peers that wait for this
//! node.
//!
//! Not here: when anything is asked (the node), and frames (`frame`).

use std::time::Instant;

use futures::FutureExt;
use libp2p::request_response::{self, OutboundRequestId, ResponseChannel};
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::behaviour;
use super::super::event::Refusal;
use super::super::frame::{Frame, FrameError};
use super::super::peer::{PeerKey, id_of, key_of};
use super::super::{Answer, ENROL_LIMIT, Event, Protocol, Reply, RequestError, SYNC_LIMIT};
use super::{Driver, dial_reason};

/// Our requests that wait for an answer.
const MAX_ASKED: usize = 256;
/// Requests of peers that wait for the node to answer.
const MAX_REPLIES: usize = 256;

/// A request of ours.
pub(super) struct Asked {
    pub(super) peer: PeerKey,
    answer: oneshot::Sender<Answer>,
    /// Why dialling came to nothing, when it did.
    pub(super) unreachable: Option<String>,
}

/// A request of a peer's: where its answer goes, once there is one.
pub(super) struct Answered {
    protocol: Protocol,
    channel: ResponseChannel<Frame>,
    bytes: Option<Vec<u8>>,
}

impl Driver {
    pub(super) fn enrol(
        &mut self,
        addresses: Vec<Multiaddr>,
        peer: PeerKey,
        request: Vec<u8>,
        answer: oneshot::Sender<Answer>,
    ) {
        if self.asked.len() >= MAX_ASKED {
            let _ = answer.send(Err(RequestError::Busy));
            return;
        }
        let id = id_of(&peer);
        let mut unreachable = None;
        if !self.swarm.is_connected(&id) {
            match self.dial(&id, addresses) {
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
                Err(error) => unreachable = Some(dial_reason(&error)),
            }
        }
        let behaviour = self.swarm.behaviour_mut();
        behaviour.gated.asking(Instant::now(), &id);
        // Waits for the dial above, whose failure fails it.
        let request = behaviour.enrol.send_request(&id, Frame::Whole(request));
        let asked = Asked {
            peer,
            answer,
            unreachable,
        };
        self.asked.insert((Protocol::Enrol, request), asked);
    }

    pub(super) fn request(
        &mut self,
        peer: PeerKey,
        request: Vec<u8>,
        answer: oneshot::Sender<Answer>,
    ) {
        let gated = &mut self.swarm.behaviour_mut().gated;
        let error = if !gated.is_enrolled(&peer) {
            Some(RequestError::NotEnrolled(peer))
        } else if !gated.is_live(&peer) {
            Some(RequestError::NotConnected(peer))
        } else if self.asked.len() >= MAX_ASKED {
            Some(RequestError::Busy)
        } else {
            None
        };
        if let Some(error) = error {
            // A caller that no longer waits needs no error either.
            let _ = answer.send(Err(error));
            return;
        }
        let sync = &mut gated.inner().sync;
        let request = sync.send_request(&id_of(&peer), Frame::Whole(request));
        let asked = Asked {
            peer,
            answer,
            unreachable: None,
        };
        self.asked.insert((Protocol::Sync, request), asked);
    }

    pub(super) fn on_answered(&mut self, answered: Answered) {
        // Dropping the channel closes the stream: the peer was refused.
        let Some(bytes) = answered.bytes else { return };
        let behaviour = self.swarm.behaviour_mut();
        let requests = match answered.protocol {
            Protocol::Enrol => &mut behaviour.enrol,
            Protocol::Sync => &mut behaviour.gated.inner().sync,
        };
        // The peer may be gone; that is its loss.
        let _ = requests.send_response(answered.channel, Frame::Whole(bytes));
    }

    pub(super) fn on_enrol(&mut self, now: Instant, event: request_response::Event<Frame, Frame>) {
        use request_response::{Event, Message};
        let gated = &mut self.swarm.behaviour_mut().gated;
        match &event {
            Event::Message {
                connection_id,
                message: Message::Request { .. },
                ..
            } => gated.serving(now, *connection_id),
            Event::ResponseSent { connection_id, .. }
            | Event::InboundFailure { connection_id, .. } => gated.served(now, *connection_id),
            _ => {}
        }
        self.on_request_event(Protocol::Enrol, event);
    }

    pub(super) fn on_request_event(
        &mut self,
        protocol: Protocol,
        event: request_response::Event<Frame, Frame>,
    ) {
        use request_response::{Event, Message, OutboundFailure};
        match event {
            Event::Message {
                peer,
                message:
                    Message::Request {
                        request, channel, ..
                    },
                ..
            } => self.on_request(protocol, &peer, request, channel),
            Event::Message {
                message:
                    Message::Response {
                        request_id,
                        response,
                    },
                ..
            } => self.answer(protocol, request_id, |asked| match response {
                Frame::Whole(bytes) => Ok(bytes),
                Frame::Refused(FrameError::Empty) => Err(RequestError::Refused(asked.peer)),
                Frame::Refused(error) => Err(RequestError::Malformed {
                    peer: asked.peer,
                    error,
                }),
            }),
            Event::OutboundFailure {
                request_id, error, ..
            } => self.answer(protocol, request_id, |asked| {
                let peer = asked.peer;
                Err(match error {
                    OutboundFailure::DialFailure => RequestError::Unreachable {
                        peer,
                        reason: asked.unreachable.take().unwrap_or("no address".into()),
                    },
                    OutboundFailure::Timeout => RequestError::Timeout(peer),
                    OutboundFailure::UnsupportedProtocols => RequestError::Unsupported(peer),
                    OutboundFailure::ConnectionClosed | OutboundFailure::Io(_) => {
                        let reason = error.to_string();
                        RequestError::Broken { peer, reason }
                    }
                })
            }),
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    fn answer(
        &mut self,
        protocol: Protocol,
        request: OutboundRequestId,
        make: impl FnOnce(&mut Asked) -> Answer,
    ) {
        if let Some(mut asked) = self.asked.remove(&(protocol, request)) {
            let answer = make(&mut asked);
            // A caller that no longer waits has dropped its end.
            let _ = asked.answer.send(answer);
        }
    }

    fn on_request(
        &mut self,
        protocol: Protocol,
        peer: &PeerId,
        request: Frame,
        channel: ResponseChannel<Frame>,
    ) {
        let Some(peer) = key_of(peer) else { return };
        // Its connection may outlive its enrolment by a moment.
        let gated = &self.swarm.behaviour().gated;
        if protocol == Protocol::Sync && !gated.is_enrolled(&peer) {
            return;
        }
        let request = match request {
            Frame::Whole(request) => request,
            Frame::Refused(error) => {
                let what = Refusal::Frame { protocol, error };
                return self.outbox.push(Event::Refused { peer, what });
            }
        };
        if self.replies.len() >= MAX_REPLIES {
            return;
        }
        let (limit, longest) = match protocol {
            Protocol::Enrol => (ENROL_LIMIT, behaviour::ENROL),
            Protocol::Sync => (SYNC_LIMIT, behaviour::SYNC),
        };
        let (answer, answered) = oneshot::channel();
        let reply = Reply { limit, answer };
        let wait = async move {
            let bytes = timeout(longest, answered).await;
            Answered {
                protocol,
                channel,
                bytes: bytes.ok().and_then(Result::ok),
            }
        };
        self.replies.push(wait.boxed());
        self.outbox.push(match protocol {
            Protocol::Enrol => Event::EnrolRequest {
                peer,
                request,
                reply,
            },
            Protocol::Sync => Event::SyncRequest {
                peer,
                request,
                reply,
            },
        });
    }
}
