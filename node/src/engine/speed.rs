//! Speed checks: which of them run, with whom, and what they came to.
//!
//! A check takes from the same link as blocks do. So none begins while blocks move at this
//! node, and one that runs ends within a quarter of a second of when they begin to; and as
//! what is measured beside another check is worth little, few run at once.
//!
//! Not here: what the two ends say (`speed`, `blocks::speed`).

#[cfg(test)]
mod tests;

use super::{CallError, Engine, Message};
use crate::api::model::{FlowView, PathView, RoundTripView, SpeedView};
use crate::net::{BlockStream, Carrier, Links, Net, StreamError};
use crate::speed::{self, Measured, Moving, SpeedError};
use crate::views::find_member;
use blocks::speed::{Flow, SpeedRefusal, ToAnswerer};
use keys::{NodeId, PublicKey};
use roles::Note;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Checks that run at once at this node, asked for by whichever end.
const MAX_CHECKS: usize = 2;
/// How long after the last bytes of a session blocks count as moving.
const QUIET_MILLIS: u64 = 1_000;

/// The checks of one node.
#[derive(Debug)]
pub(super) struct Checks {
    running: Arc<Mutex<BTreeSet<PublicKey>>>,
    moving: watch::Sender<bool>,
    /// What all sessions had moved when it was looked at last.
    moved_bytes: u64,
    quiet_from_millis: u64,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            running: Arc::default(),
            moving: watch::Sender::new(false),
            moved_bytes: 0,
            quiet_from_millis: 0,
        }
    }
}

/// The right to run one check with a peer; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    running: Arc<Mutex<BTreeSet<PublicKey>>>,
    peer: PublicKey,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.peer);
    }
}

impl Checks {
    /// A place, unless blocks move here, a check with this peer runs, or too many do.
    fn take(&self, peer: PublicKey) -> Result<Place, SpeedRefusal> {
        if *self.moving.borrow() {
            return Err(SpeedRefusal::MovingBlocks);
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() >= MAX_CHECKS || !running.insert(peer) {
            return Err(SpeedRefusal::Busy);
        }
        let running = self.running.clone();
        Ok(Place { running, peer })
    }

    /// All sessions that are open have moved so many bytes.
    fn moved(&mut self, now_millis: u64, bytes: u64) {
        if bytes > self.moved_bytes {
            self.quiet_from_millis = now_millis + QUIET_MILLIS;
        }
        // It falls when a session ends.
        self.moved_bytes = bytes;
        let moving = now_millis < self.quiet_from_millis;
        let changed = |before: &mut bool| std::mem::replace(before, moving) != moving;
        self.moving.send_if_modified(changed);
    }
}

/// A stream that began as a speed check.
pub(crate) struct Asked {
    pub(super) from: PublicKey,
    pub(super) stream: BlockStream,
    pub(super) open: Result<ToAnswerer, SpeedError>,
}

/// A check that this node is about to make.
pub struct SpeedCheck {
    net: Net,
    id: NodeId,
    name: String,
    peer: PublicKey,
    millis: u32,
    moving: Moving,
    _place: Place,
}

impl Engine {
    /// Looks whether blocks move.
    pub(super) fn watch_sessions(&mut self) {
        let sent = self.agents.values().map(super::AgentSlot::bytes_sent);
        let received = self
            .receiving
            .values()
            .map(super::Receiving::bytes_received);
        let bytes = sent.chain(received).sum();
        let now = self.now().mono_millis;
        self.checks.moved(now, bytes);
    }

    /// A peer asks for a check.
    pub(super) fn speed_asked(&mut self, asked: Asked) {
        let Asked { from, stream, open } = asked;
        let place = match open {
            Ok(open) => self.take_place(from).map(|place| (place, open)),
            Err(error) => {
                self.speed_answered(from, &Err(error));
                Err(SpeedRefusal::BadFrame)
            }
        };
        let name = self.name_of(&from);
        match place {
            Ok((place, open)) => {
                let text = format!("{name} measures the way to this node");
                self.tell_here_of(&from, Note::info("speed-check", text));
                let (inbox, moving) = (self.inbox.clone(), self.checks.moving.subscribe());
                tokio::spawn(async move {
                    let answered = speed::answer(stream, open, moving).await;
                    drop(place);
                    // A closed inbox means the node is stopping.
                    let _ = inbox.send(Message::SpeedAnswered(from, answered)).await;
                });
            }
            Err(code) => {
                tracing::debug!("a speed check of {name} is refused ({code:?})");
                self.measured.traffic.refused_streams += 1;
                tokio::spawn(speed::refuse(stream, code));
            }
        }
    }

    pub(super) fn take_place(&self, peer: PublicKey) -> Result<Place, SpeedRefusal> {
        // Its stream may have been opened before its enrolment ended.
        match self.replica.authority().admits(self.now().wall, &peer) {
            true => self.checks.take(peer),
            false => Err(SpeedRefusal::NotMember),
        }
    }

    /// A check that a peer asked for is over.
    pub(super) fn speed_answered(&mut self, from: PublicKey, ended: &Result<(), SpeedError>) {
        let Err(error) = ended else { return };
        let text = format!("speed check of {}: {error}", self.name_of(&from));
        match error.is_malformed() {
            true => self.offended(from, text),
            false => tracing::debug!("{text}"),
        }
    }

    /// Prepares a speed check with a node: data is to flow for so many seconds.
    pub fn speed_check(&mut self, which: &str, seconds: u32) -> Result<SpeedCheck, CallError> {
        let longest = blocks::speed::MAX_SPEED_MILLIS / 1000;
        if !(1..=longest).contains(&seconds) {
            let text = format!("a speed check takes 1 to {longest} seconds, not {seconds}");
            return Err(CallError::Usage(text));
        }
        let member = find_member(self.replica.authority(), which)?;
        let (id, peer, name) = (member.id, member.key, member.name.to_string());
        if Some(id) == self.replica.me() {
            return Err(CallError::Usage(format!(
                "{name} is this node itself: give another, `dunlin node list` shows them"
            )));
        }
        if !self.replica.authority().admits(self.now().wall, &peer) {
            return Err(refused(
                &name,
                "no member of the mesh any more".into(),
                MEMBERS,
            ));
        }
        if !self.connected.contains(&peer) {
            return Err(CallError::Unreachable(format!(
                "cannot measure the way to {name}: it is not connected; start it, or see `dunlin doctor` here and there for why it cannot be reached"
            )));
        }
        let place = self.take_place(peer).map_err(|code| match code {
            SpeedRefusal::MovingBlocks => refused(&name, MOVING_HERE.into(), WHEN_STILL),
            _ => refused(
                &name,
                "one too many: other speed checks run at this node".into(),
                LATER,
            ),
        })?;
        Ok(SpeedCheck {
            net: self.net.clone(),
            id,
            name,
            peer,
            millis: seconds * 1000,
            moving: self.checks.moving.subscribe(),
            _place: place,
        })
    }
}

const MEMBERS: &str = "`dunlin node list` shows who is";
const MOVING_HERE: &str = "in the way of blocks that move at this node";
const WHEN_STILL: &str = "wait until the pass is over, or pause the migration, and try again";
const LATER: &str = "try again in a minute";

fn refused(name: &str, state: String, allowed: &str) -> CallError {
    CallError::Refused(super::calls::Refused {
        action: "measure the way to",
        what: name.to_owned(),
        state,
        allowed: allowed.to_owned(),
    })
}

impl SpeedCheck {
    /// Makes it. It ends with this future.
    pub async fn run(self) -> Result<SpeedView, CallError> {
        let opened = self.net.open_stream(self.peer.0).await;
        let stream = opened.map_err(|error| self.not_opened(&error))?;
        let connections = stream.connections();
        let links = self.net.links(self.peer.0).await;
        let asked = speed::ask(stream, self.millis, self.moving.clone()).await;
        let measured = asked.map_err(|error| self.failed(&error))?;
        Ok(view(
            &self.id,
            &self.name,
            path(connections, &links),
            &measured,
        ))
    }

    fn not_opened(&self, error: &StreamError) -> CallError {
        let name = &self.name;
        match error {
            StreamError::Refused(_) => {
                refused(name, "at its limit of streams from this node".into(), LATER)
            }
            StreamError::NotEnrolled(_) => {
                refused(name, "no member of the mesh any more".into(), MEMBERS)
            }
            _ => CallError::Unreachable(format!(
                "cannot measure the way to {name}: {error}; look whether it runs, and try again"
            )),
        }
    }

    fn failed(&self, error: &SpeedError) -> CallError {
        let name = &self.name;
        match error {
            SpeedError::Refused(SpeedRefusal::MovingBlocks) => refused(
                name,
                format!("in the way of blocks that move at {name}"),
                WHEN_STILL,
            ),
            SpeedError::MovingBlocks => refused(name, MOVING_HERE.into(), WHEN_STILL),
            SpeedError::Refused(code @ SpeedRefusal::Busy) => {
                refused(name, format!("refused: {code}"), LATER)
            }
            SpeedError::Refused(code) => refused(
                name,
                format!("refused: {code}"),
                "look at its events, and use the same version of dunlin on both",
            ),
            SpeedError::Cut(_) | SpeedError::Silent | SpeedError::Garbled(_) => {
                CallError::Failed(format!(
                    "the way to {name} was not measured: {error}; look whether it runs (`dunlin node show {name}`), and try again"
                ))
            }
        }
    }
}

/// Which way a stream took, as far as it is known.
fn path(connections: usize, links: &Links) -> PathView {
    let is_direct = connections > 0;
    let ways = if is_direct { &links.own } else { &links.shared };
    let carriers: Vec<Carrier> = ways.iter().map(Carrier::of).collect();
    // Of several connections any may have carried it.
    let carrier = carriers.first().filter(|first| {
        let alike = |carrier: &Carrier| carrier == *first;
        carriers.iter().all(alike)
    });
    let known = if is_direct {
        Some(&Carrier::Tcp)
    } else {
        carrier
    };
    PathView {
        own_connections: connections,
        transport: known
            .filter(|carrier| **carrier != Carrier::Relay)
            .map(ToString::to_string),
        relayed: known.map(|carrier| *carrier == Carrier::Relay),
        address: match ways.as_slice() {
            [way] => Some(way.to_string()),
            _ => None,
        },
    }
}

fn view(id: &NodeId, name: &str, path: PathView, measured: &Measured) -> SpeedView {
    let trips = &measured.round_trips;
    SpeedView {
        id: id.to_string(),
        node: name.to_owned(),
        path,
        round_trip: RoundTripView {
            count: trips.len(),
            median_micros: trips.get(trips.len() / 2).copied().unwrap_or(0),
            worst_micros: trips.last().copied().unwrap_or(0),
        },
        sent: flow(measured.there),
        received: flow(measured.back),
        clock_ahead_millis: measured.clock_ahead_millis,
    }
}

fn flow(flow: Flow) -> FlowView {
    FlowView {
        bytes_per_sec: flow.bytes_per_sec(),
        bytes: flow.bytes,
        seconds: flow.micros as f64 / 1e6,
        bytes_in_all: flow.bytes_in_all,
    }
}
