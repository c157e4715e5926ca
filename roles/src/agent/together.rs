//! What an agent's machine has to do with the cutover of the whole server: how far that has
//! come, what one disk adds to it, and the moment at which all count.

use super::hold::Hold;
use super::{Action, Agent, Finished, Phase, Record};
use crate::cutover::{Disk, DiskState, Moment};
use crate::note::Note;
use crdt::report::PassRead;

impl Agent {
    /// How far the cutover of the server has come.
    pub(super) fn moment(&self) -> Moment {
        let facts = self.facts.as_ref();
        facts.map_or(Moment::Converging, |facts| facts.cutover.moment)
    }

    /// Whether rests between passes are to be as long as otherwise.
    pub(super) fn is_rooting(&self) -> bool {
        let facts = self.facts.as_ref();
        facts.is_some_and(|facts| facts.cutover.is_rooting)
    }

    /// Why the cutover of the server does not go on.
    pub(super) fn cutover_because(&self) -> Option<String> {
        self.cutover_wanted()?;
        self.facts.as_ref()?.cutover.because.clone()
    }

    /// What one disk adds to the cutover of the server.
    pub fn disk(&self) -> Disk {
        let last = self.record.passes.last();
        Disk {
            passes: last.map_or(0, |last| last.pass),
            rest_millis: last.map(|last| match last.read {
                PassRead::Tracked => last.millis,
                // One that sends, and one that finds nothing.
                PassRead::Whole => last.millis.saturating_mul(2),
            }),
            is_tracked: self.is_followed,
            // Whoever computes it knows.
            is_rooted: true,
            whole_millis: self.longest_whole_pass(),
            state: match &self.phase {
                Phase::CutOver => DiskState::CutOver,
                Phase::Proven { .. } => DiskState::Proven,
                Phase::Reached(_) => DiskState::Reached,
                Phase::Passing { .. } | Phase::Resting { .. } | Phase::Finishing(_) => {
                    DiskState::Moving
                }
                Phase::Held(Hold::Unproven) => DiskState::Unproven,
                Phase::Held(_) | Phase::Connecting | Phase::Gone => DiskState::Held,
            },
        }
    }

    fn longest_whole_pass(&self) -> u64 {
        let whole = self.record.passes.iter();
        let whole = whole.filter(|pass| pass.read == PassRead::Whole);
        whole.map(|pass| pass.millis).max().unwrap_or(0)
    }

    /// Both ends have stated the same root.
    pub(super) fn finished(&mut self, finished: Finished, out: &mut Vec<Action>) {
        if self.finishing().is_none() {
            return;
        }
        match self.moment() {
            Moment::Apart => self.count(finished, out),
            Moment::Still => {
                out.push(Action::CloseSession);
                self.phase = Phase::Proven {
                    finished: Box::new(finished),
                    in_full: self.cutover_wanted() == Some(true),
                };
            }
            // The source runs again, and this was of another moment.
            Moment::Converging => {}
        }
    }

    /// Whether what was proven may still come to count.
    pub(super) fn stays_proven(&self) -> bool {
        let in_full = match &self.phase {
            Phase::Proven { in_full, .. } if self.checkpoint().is_none() => in_full,
            Phase::Reached(point) => {
                return self.checkpoint() == Some(&point.name)
                    && self.moment() != Moment::Converging;
            }
            _ => return false,
        };
        let permit = self.facts.as_ref().and_then(|facts| facts.permit.as_ref());
        let is_enough = |prove_full: bool| *in_full || !prove_full;
        self.cutover_wanted().is_some_and(is_enough)
            && self.moment() == Moment::Still
            && permit.is_some_and(Result::is_ok)
    }

    /// Makes what was proven count. The record is to be made durable together with those of
    /// all other disks of the server, and then the actions carried out; none where this disk
    /// is not proven.
    pub fn commit(&mut self, frozen_millis: u64, out: &mut Vec<Action>) -> Option<Record> {
        let Phase::Proven { finished, .. } = &self.phase else {
            return None;
        };
        let mut finished = Finished::clone(finished);
        finished.frozen_millis = Some(frozen_millis);
        let mut told = vec![];
        self.count(finished, &mut told);
        out.extend(
            told.into_iter()
                .filter(|action| matches!(action, Action::Tell(_))),
        );
        Some(self.record.clone())
    }

    fn count(&mut self, finished: Finished, out: &mut Vec<Action>) {
        let root: String = finished
            .root
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let frozen = finished.frozen_millis.map_or_else(String::new, |millis| {
            format!(", of a source that was frozen for {millis} ms by then")
        });
        self.record.finished = Some(finished);
        self.phase = Phase::CutOver;
        out.push(Action::Store(Box::new(self.record.clone())));
        out.push(Action::CloseSession);
        let text = format!("cut over: both ends have the root {root}{frozen}");
        out.push(Action::Tell(Note::info("cut-over", text)));
    }
}
