//! What an agent's machine has to do with checkpoints of the server: what a disk has at the
//! moment of one, and that nothing is written to its copy until that is kept.

use super::hold::Hold;
use super::{Action, Agent, Phase, Record};
use crate::Now;
use crate::cutover::Moment;
use crate::note::Note;
use crdt::report::ReachedCheckpoint;
use keys::{CheckpointName, Epoch, Signed};
use serde::{Deserialize, Serialize};

/// What a disk has at a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Which checkpoint.
    pub name: CheckpointName,
    /// Epoch of the copy.
    pub epoch: Epoch,
    /// Root, length and method, signed by this agent with the checkpoint's name.
    pub proof: Signed,
    /// How long the source had been frozen by then, in milliseconds; none where it was not.
    pub frozen_millis: Option<u64>,
    /// Nothing is written to the copy until it is kept.
    pub is_held: bool,
}

impl Point {
    /// As it is reported.
    pub fn reported(&self) -> ReachedCheckpoint {
        ReachedCheckpoint {
            proof: self.proof.clone(),
            frozen_millis: self.frozen_millis,
            is_held: self.is_held,
        }
    }
}

impl Record {
    /// The checkpoint that its copy stands at.
    pub fn held(&self) -> Option<&Point> {
        self.checkpoints.iter().find(|point| point.is_held)
    }
}

impl Agent {
    /// The checkpoint that is to be taken now.
    pub(super) fn checkpoint(&self) -> Option<&CheckpointName> {
        self.facts.as_ref()?.checkpoint.as_ref()
    }

    /// The checkpoint whose root was asked for last, while it is still wanted: nothing else
    /// makes this end sign one.
    pub fn rooting(&self) -> Option<&CheckpointName> {
        match &self.phase {
            Phase::Finishing(Some(name)) => self.checkpoint().filter(|due| *due == name),
            _ => None,
        }
    }

    /// Asks for the root of what both ends have now.
    pub(super) fn ask_root(&mut self, read_back: bool, out: &mut Vec<Action>) {
        let checkpoint = self.checkpoint().cloned();
        out.push(match checkpoint {
            // The provisioner compares what it kept with the root that this end signs.
            Some(_) => Action::StateRoot,
            None => Action::Finish { read_back },
        });
        self.phase = Phase::Finishing(checkpoint);
    }

    /// The root was computed, and signed for a checkpoint if that is wanted yet; else passes
    /// go on.
    pub(super) fn rooted(&mut self, now: Now, point: Option<Box<Point>>, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Finishing(Some(_))) {
            return;
        }
        let is_still = self.moment() != Moment::Converging;
        match point {
            Some(point) if is_still && self.rooting() == Some(&point.name) => {
                out.push(Action::CloseSession);
                self.phase = Phase::Reached(point);
            }
            _ => {
                self.phase = Phase::Resting {
                    until_millis: now.mono_millis,
                };
            }
        }
    }

    /// Makes what was reached stand. The record is to be made durable together with those of
    /// all other disks of the server, and then the actions carried out; none where this disk
    /// has not come to it.
    pub fn stand(&mut self, frozen_millis: Option<u64>, out: &mut Vec<Action>) -> Option<Record> {
        let Phase::Reached(point) = &self.phase else {
            return None;
        };
        let mut point = Point::clone(point);
        point.frozen_millis = frozen_millis;
        point.is_held = true;
        let name = point.name.clone();
        let frozen = frozen_millis.map_or_else(String::new, |millis| {
            format!(", of a source that was frozen for {millis} ms by then")
        });
        let text = format!(
            "checkpoint {name}: this disk stands at it{frozen}, and nothing is written to its copy until it is kept"
        );
        out.push(Action::Tell(Note::info("checkpoint-reached", text)));
        self.record.checkpoints.push(point);
        self.phase = Phase::Held(Hold::Checkpoint(name));
        Some(self.record.clone())
    }

    /// Goes on from a checkpoint once it is kept, and forgets those that nobody wants any
    /// more; whether it stands at one.
    pub(super) fn stands(&mut self, out: &mut Vec<Action>) -> bool {
        let Some(facts) = &self.facts else {
            return false;
        };
        let before = self.record.checkpoints.clone();
        let points = &mut self.record.checkpoints;
        let unwanted = &facts.unwanted_checkpoints;
        points.retain(|point| !unwanted.contains(&point.name));
        if facts.is_checkpoint_kept {
            points.iter_mut().for_each(|point| point.is_held = false);
        }
        if *points != before {
            let was_held = before.iter().find(|point| point.is_held);
            out.push(Action::Store(Box::new(self.record.clone())));
            if let Some(point) = was_held {
                let text = format!("goes on from checkpoint {}", point.name);
                out.push(Action::Tell(Note::info("checkpoint-left", text)));
            }
        }
        let Some(held) = self.record.held() else {
            return false;
        };
        let hold = Hold::Checkpoint(held.name.clone());
        if self.in_session() {
            out.push(Action::CloseSession);
        }
        self.phase = Phase::Held(hold);
        true
    }
}
