//! The cutover of a whole server: when its file systems are frozen, for all of its disks the
//! same moment, when that moment counts, and what becomes of the source.
//!
//! ```text
//!  converging ─▶ before-freeze hooks ─▶ syncing ─▶ freezing ─▶ still ─▶ keeping ─▶ committed
//!       ▲                                  │           │         │         │
//!       └── after-thaw hooks ◀── thawing ◀─┴───────────┴─────────┴─────────┘
//! ```
//!
//! *Still*: each disk is brought up to date, and its root stated by both ends, while whoever
//! froze the source thaws it at a deadline whatever happens here. Only when every disk is
//! proven is that deadline given up (*keeping*), and only when it was given up in time do all
//! roots count, by one durable write. So nothing is committed of a source that runs, and what
//! is not committed can be thawed at any time.
//!
//! A *checkpoint* takes the same way as far as *still*: when every disk has come to its root,
//! and the source is found to be frozen yet, all disks stand at it by one durable write, and
//! the source is thawed.
//!
//! Not here: the passes of a disk (`agent`), freezing itself, and who does it (the shell).

mod checkpoint;
mod told;
mod words;

pub use words::{Answer, Ask, Disk, DiskState, Moment, Standing, Stillness, View, Wanted};

use crate::Now;
use crate::hooks::Gate;
use crate::note::Note;
use checkpoint::{is_checkpoint, stand};
use crdt::plan::{Point, SourceEnd};
use told::{late, thawed, too_much};

/// After so long whoever froze a source thaws it, unless it was told otherwise.
pub const DEADLINE_MILLIS: u64 = 30_000;
/// The part of it that the last passes may take by what those before took.
const BUDGET_PART: u64 = 6;
/// Longest that a source is frozen, whatever is to be proven of it.
pub const LONGEST_FREEZE_MILLIS: u64 = 3_600_000;
/// States taken up at once: more than there are.
const MAX_STEPS: usize = 16;
/// Before the deadline it is given up here, so that the two do not meet.
const MARGIN_MILLIS: u64 = 1_000;
/// Writing out what is cached is quick enough when it takes so long.
pub const QUICK_SYNC_MILLIS: u64 = 500;
/// How often it is written out at most.
const MAX_SYNCS: u32 = 4;
/// Wait before a source is frozen again that had to be thawed; doubles up to the longest.
pub const FIRST_RETRY_MILLIS: u64 = 30_000;
/// Longest such wait.
pub const LONGEST_RETRY_MILLIS: u64 = 1_800_000;
/// Between two looks for somebody who could freeze.
pub const LOOK_MILLIS: u64 = 5_000;
/// Between what was committed and the end of the source's power: others are to hear of it.
pub const LINGER_MILLIS: u64 = 15_000;

/// What the shell is to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Ask whoever freezes; there is one question at a time.
    Ask(Ask),
    /// Have all proven disks count, by one durable write.
    Commit {
        /// How long the source had been frozen.
        frozen_millis: u64,
    },
    /// Have all disks stand at the checkpoint, by one durable write.
    Stand {
        /// How long the source had been frozen; none where nobody freezes it.
        frozen_millis: Option<u64>,
    },
    /// Hooks at these points are run again when they come next.
    Again(&'static [Point]),
    /// Tell people.
    Tell(Note),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Whether it is frozen from before is not known.
    Looking {
        asked: bool,
        retry_millis: u64,
    },
    Converging,
    /// Nobody freezes. Looks again at a time.
    Apart {
        look_millis: u64,
        why: String,
    },
    BeforeFreeze,
    Preparing,
    Syncing {
        round: u32,
    },
    /// Until every disk has come to these passes.
    /// Given up at a time: hooks have stopped what the source serves.
    Draining {
        until_millis: u64,
        round: u32,
        quick: bool,
        passes: Vec<u32>,
    },
    Freezing {
        deadline_millis: u64,
    },
    Still {
        since_millis: u64,
        until_millis: u64,
    },
    Keeping {
        since_millis: u64,
    },
    /// Whether it is frozen yet is asked, before a checkpoint stands.
    Confirming {
        since_millis: u64,
        until_millis: u64,
    },
    /// `kept`: it may be frozen for good.
    Thawing {
        why: Option<String>,
        kept: bool,
        asked: bool,
        retry_millis: u64,
    },
    AfterThaw,
    Committed(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The source is to be thawed or switched off at this time.
    Due {
        at_millis: u64,
        ask: Ask,
    },
    Asked(Ask),
    Over,
}

/// The machine of one migration, at its agent.
#[derive(Debug)]
pub struct Cutover {
    state: State,
    /// Attempts that failed.
    failures: u32,
    /// Before that nothing is frozen again.
    retry_millis: u64,
    /// Why the last attempt failed.
    because: Option<String>,
    /// How long a source is frozen at most before it is proven.
    deadline_millis: u64,
    /// What was to become of the source when this attempt began.
    end: SourceEnd,
    /// Nobody answered who could say how the source stands.
    was_alone: bool,
    /// It waits for roots to be computed.
    is_rooting: bool,
}

impl Default for Cutover {
    fn default() -> Self {
        Self {
            state: State::Looking {
                asked: false,
                retry_millis: 0,
            },
            failures: 0,
            retry_millis: 0,
            because: None,
            deadline_millis: DEADLINE_MILLIS,
            end: SourceEnd::Unsaid,
            was_alone: false,
            is_rooting: false,
        }
    }
}

impl Cutover {
    /// With another deadline than [`DEADLINE_MILLIS`].
    pub fn within(mut self, millis: u64) -> Self {
        self.deadline_millis = millis;
        self
    }

    fn budget(&self) -> u64 {
        self.deadline_millis / BUDGET_PART
    }

    /// How far it has come.
    pub fn standing(&self) -> Standing {
        let (moment, because) = match &self.state {
            State::Apart { why, .. } => (Moment::Apart, Some(why.clone())),
            State::Still { .. } | State::Keeping { .. } | State::Confirming { .. } => {
                (Moment::Still, None)
            }
            State::Committed(_) => (Moment::Still, None),
            _ => (Moment::Converging, self.because.clone()),
        };
        let holds = match self.state {
            State::Looking { .. } => !self.was_alone,
            State::Committed(_) => false,
            _ => !self.is_idle(),
        };
        Standing {
            moment,
            because,
            is_rooting: self.is_rooting,
            holds,
        }
    }

    /// The point whose hooks it waits for.
    pub fn waits_for_hooks(&self) -> Option<Point> {
        match self.state {
            State::BeforeFreeze => Some(Point::BeforeFreeze),
            State::Still { .. } => Some(Point::AfterFreeze),
            State::AfterThaw => Some(Point::AfterThaw),
            _ => None,
        }
    }

    /// Whether a source that is not frozen is told of.
    fn runs_again(view: &View, out: &mut Vec<Action>) {
        let is_meant = view
            .wanted
            .is_some_and(|wanted| wanted.source == SourceEnd::Thaw);
        if view.was_frozen && !is_meant {
            let text = "the source runs, and its copy is cut over: make sure that only one of the two serves, and switch this one off";
            out.push(Action::Tell(Note::error("source-runs-again", text)));
        }
    }

    /// Whether nothing is left of an attempt, so that it may be dropped where no cutover is
    /// wanted.
    pub fn is_idle(&self) -> bool {
        matches!(
            self.state,
            State::Converging | State::Apart { .. } | State::Committed(Ending::Over)
        )
    }

    /// Goes on as far as what there is to know allows. Call when anything changed and on a
    /// tick; `out` is to be carried out in order.
    pub fn settle(&mut self, now: Now, view: &View, out: &mut Vec<Action>) {
        for _ in 0..MAX_STEPS {
            if !self.step(now, view, out) {
                return;
            }
        }
    }

    fn step(&mut self, now: Now, view: &View, out: &mut Vec<Action>) -> bool {
        let (millis, budget) = (now.mono_millis, self.budget());
        let longest = self.deadline_millis;
        let next = match &mut self.state {
            State::Looking {
                asked,
                retry_millis,
            } => {
                // Whether what is kept was committed, an old copy of the data does not say.
                if view.is_heard && !*asked && millis >= *retry_millis {
                    *asked = true;
                    out.push(Action::Ask(Ask::Look));
                }
                return false;
            }
            State::Preparing | State::Syncing { .. } | State::Freezing { .. } => return false,
            State::Keeping { .. } | State::Confirming { .. } => return false,
            State::Thawing {
                asked,
                retry_millis,
                kept,
                ..
            } => {
                if !*asked && millis >= *retry_millis {
                    *asked = true;
                    out.push(Action::Ask(if *kept { Ask::Release } else { Ask::Thaw }));
                }
                return false;
            }
            _ if !view.is_heard => return self.hold_out(millis),
            State::Converging => self.converging(millis, view),
            // What is to become of it was said meanwhile.
            State::Apart { .. } if says_end(view) => Some(State::Converging),
            State::Apart { .. } if is_checkpoint(view) && all_are(view, DiskState::Reached) => {
                let frozen_millis = None;
                out.push(Action::Stand { frozen_millis });
                // What is wanted next shows once that is done.
                self.state = State::Converging;
                return false;
            }
            State::Apart { look_millis, .. } => {
                let is_cutting = view.wanted.is_some() && !is_parted(view);
                (is_cutting && view.unfreezable.is_none() && millis >= *look_millis)
                    .then_some(State::Preparing)
            }
            State::BeforeFreeze => match (&view.before_freeze, view.wanted) {
                (_, None) => Some(State::AfterThaw),
                (Gate::Failed(why), _) => {
                    self.because = Some(why.clone());
                    None
                }
                (Gate::Open, _) => Some(State::Syncing { round: 1 }),
                _ => None,
            },
            State::Draining { until_millis, .. } if millis >= *until_millis => {
                self.failed(
                    millis,
                    "what was written out was not sent in time",
                    view,
                    out,
                );
                Some(State::AfterThaw)
            }
            State::Draining {
                round,
                quick,
                passes,
                ..
            } => match view.wanted {
                None => Some(State::AfterThaw),
                Some(wanted) => {
                    let come = view.disks.iter().zip(passes.iter());
                    let all = come.clone().count() == view.disks.len()
                        && come.clone().all(|(disk, pass)| disk.passes >= *pass);
                    match (all, rest_of(view)) {
                        (false, _) => None,
                        (true, Some(rest)) if rest <= budget => match *quick {
                            true => Some(State::Freezing {
                                deadline_millis: deadline(longest, wanted, view),
                            }),
                            false => Some(State::Syncing { round: *round + 1 }),
                        },
                        (true, _) => {
                            self.because = Some(too_much(budget, rest_of(view)));
                            self.retry_millis = millis + LOOK_MILLIS;
                            Some(State::AfterThaw)
                        }
                    }
                }
            },
            State::Still {
                since_millis,
                until_millis,
            } => {
                let since = *since_millis;
                let is_late = millis >= *until_millis;
                let thaw = |why| thawing(why, false);
                match view.wanted {
                    None => Some(thaw(None)),
                    Some(_) if is_late => Some(thaw(Some(late(view, millis - since)))),
                    Some(wanted)
                        if all_are(view, wanted.goal()) && view.after_freeze == Gate::Open =>
                    {
                        Some(match wanted.is_checkpoint {
                            true => State::Confirming {
                                since_millis: since,
                                until_millis: *until_millis,
                            },
                            false => State::Keeping {
                                since_millis: since,
                            },
                        })
                    }
                    Some(_) => None,
                }
            }
            State::AfterThaw => {
                if let Gate::Failed(why) = &view.after_thaw {
                    self.because = Some(why.clone());
                }
                (view.after_thaw == Gate::Open).then_some(State::Converging)
            }
            State::Committed(Ending::Due { at_millis, ask }) => {
                // What nobody else knows would be lost with its machine.
                let is_known = view.is_known || *ask != Ask::PowerOff;
                if millis < *at_millis || !is_known {
                    return false;
                }
                if *ask == Ask::PowerOff {
                    let text = "switches off the source: it is cut over";
                    out.push(Action::Tell(Note::info("source-powers-off", text)));
                }
                out.push(Action::Ask(*ask));
                Some(State::Committed(Ending::Asked(*ask)))
            }
            State::Committed(_) => None,
        };
        let Some(next) = next else { return false };
        self.enter(next, view, out);
        true
    }

    /// Before this node has heard from anybody it only sees to the deadline.
    fn hold_out(&mut self, millis: u64) -> bool {
        match self.state {
            State::Still { until_millis, .. } if millis >= until_millis => {
                let why = "this node has heard from nobody meanwhile".to_owned();
                self.state = thawing(Some(why), false);
                true
            }
            _ => false,
        }
    }

    fn converging(&mut self, millis: u64, view: &View) -> Option<State> {
        view.wanted?;
        if millis < self.retry_millis {
            return None;
        }
        if let Some(why) = &view.unfreezable {
            return Some(self.apart(millis, view, why.clone()));
        }
        if is_parted(view) {
            let why = "a disk was cut over by itself before".to_owned();
            return Some(self.apart(millis, view, why));
        }
        self.is_rooting = !view.disks.iter().all(|disk| disk.is_rooted);
        if self.is_rooting {
            let text = "waits until the roots of its disks are computed as far as nothing changes, so that the source need not be frozen for that";
            self.because = Some(text.to_owned());
            return None;
        }
        all_are(view, DiskState::Moving).then_some(State::Preparing)
    }

    fn apart(&mut self, millis: u64, view: &View, why: String) -> State {
        if !says_end(view) {
            State::Apart {
                look_millis: millis + LOOK_MILLIS,
                why: format!(
                    "nothing freezes the source ({why}): waits until a whole pass finds nothing new; stop or freeze what writes to it"
                ),
            }
        } else {
            self.unfrozen(millis, &why)
        }
    }

    fn unfrozen(&mut self, millis: u64, why: &str) -> State {
        self.because = Some(format!("the source cannot be frozen: {why}"));
        self.retry_millis = millis + LOOK_MILLIS;
        State::Converging
    }

    /// Takes up a state, with what is asked at its beginning.
    fn enter(&mut self, state: State, view: &View, out: &mut Vec<Action>) {
        match &state {
            State::Preparing => out.push(Action::Ask(Ask::Prepare)),
            State::Syncing { .. } => out.push(Action::Ask(Ask::Sync)),
            State::Freezing { deadline_millis } => {
                let rest = rest_of(view).unwrap_or(0);
                let text = format!(
                    "freezes the source, for about {rest} ms by its last passes, and {deadline_millis} ms at most{}",
                    match is_checkpoint(view) {
                        true => "",
                        false => " unless it is cut over by then",
                    }
                );
                out.push(Action::Tell(Note::info("freezing", text)));
                out.push(Action::Ask(Ask::Freeze {
                    deadline_millis: *deadline_millis,
                }));
            }
            State::Keeping { .. } => out.push(Action::Ask(Ask::Keep)),
            State::Confirming { .. } => out.push(Action::Ask(Ask::Look)),
            State::Converging => {
                if matches!(self.state, State::AfterThaw) {
                    out.push(Action::Again(&[
                        Point::BeforeFreeze,
                        Point::AfterFreeze,
                        Point::AfterThaw,
                    ]));
                }
            }
            _ => {}
        }
        self.state = state;
    }

    /// Takes the answer to what was asked last.
    pub fn answered(&mut self, now: Now, answer: Answer, view: &View, out: &mut Vec<Action>) {
        let millis = now.mono_millis;
        let next = match (self.state.clone(), answer) {
            (State::Looking { .. }, answer) => self.looked(millis, answer, view, out),
            // Frozen it would be for as long as all of it takes to read, twice.
            (State::Preparing, Answer::Done { .. }) if needs_quiet(self.budget(), view) => self
                .apart(
                    millis,
                    view,
                    "what is written to it is not followed, and reading all of it takes too long"
                        .into(),
                ),
            (State::Preparing, Answer::Done { .. }) => match self.obstacle(view) {
                None => {
                    self.because = None;
                    self.end = view
                        .wanted
                        .map_or(SourceEnd::Unsaid, |wanted| wanted.source);
                    State::BeforeFreeze
                }
                Some(why) => {
                    self.because = Some(why);
                    self.retry_millis = millis + LOOK_MILLIS;
                    State::Converging
                }
            },
            (State::Preparing, Answer::Failed { nobody: true, why }) => {
                self.apart(millis, view, why)
            }
            // It may be frozen from before, when nobody was there to tell.
            (State::Preparing, Answer::Failed { why, .. }) => {
                self.unfrozen(millis, &why);
                State::Looking {
                    asked: false,
                    retry_millis: millis,
                }
            }
            (State::Syncing { round }, Answer::Done { millis: took }) => State::Draining {
                until_millis: millis + 2 * self.deadline_millis,
                round,
                quick: took <= QUICK_SYNC_MILLIS || round >= MAX_SYNCS,
                // One that runs began before.
                passes: view.disks.iter().map(|disk| disk.passes + 2).collect(),
            },
            (State::Freezing { deadline_millis }, Answer::Done { millis: took }) => {
                let text = format!("the source is frozen, which took {took} ms");
                out.push(Action::Tell(Note::info("frozen", text)));
                State::Still {
                    since_millis: millis,
                    until_millis: millis + deadline_millis.saturating_sub(took + MARGIN_MILLIS),
                }
            }
            (State::Keeping { since_millis }, Answer::Done { .. }) => {
                self.committed(millis, since_millis, view, out)
            }
            (
                State::Confirming {
                    since_millis,
                    until_millis,
                },
                answer,
            ) => stand(millis, (since_millis, until_millis), &answer, view, out),
            (State::Syncing { .. }, Answer::Failed { why, .. }) => {
                self.failed(millis, &why, view, out);
                State::AfterThaw
            }
            (State::Freezing { .. }, Answer::Failed { why, .. }) => thawing(Some(why), false),
            // It may have been done all the same.
            (State::Keeping { .. }, Answer::Failed { why, .. }) => thawing(Some(why), true),
            (State::Thawing { why, .. }, Answer::Done { millis: frozen }) => {
                out.push(Action::Tell(thawed("the source runs again", frozen)));
                match why {
                    Some(why) => self.failed(millis, &why, view, out),
                    None => self.because = None,
                }
                State::AfterThaw
            }
            (State::Thawing { why, kept, .. }, Answer::Failed { why: not, .. }) => {
                // Whoever froze it thaws it at the deadline.
                if self.because.as_ref() != Some(&not) {
                    let text = format!("it is not known whether the source runs again: {not}");
                    out.push(Action::Tell(Note::error("not-thawed", text)));
                }
                self.because = Some(not);
                State::Thawing {
                    why,
                    kept,
                    asked: false,
                    retry_millis: millis + LOOK_MILLIS,
                }
            }
            (State::Committed(Ending::Asked(asked)), Answer::Done { millis: frozen }) => {
                if asked != Ask::PowerOff {
                    out.push(Action::Tell(thawed(
                        "the source is cut over and runs on",
                        frozen,
                    )));
                }
                State::Committed(Ending::Over)
            }
            (State::Committed(Ending::Asked(_)), Answer::Failed { why, .. }) => {
                let text = format!(
                    "the source is cut over, and what was to become of it did not: {why}; do it by hand"
                );
                out.push(Action::Tell(Note::error("source-end-failed", text)));
                State::Committed(Ending::Over)
            }
            // Nothing was asked.
            (state, _) => state,
        };
        self.state = next;
        self.settle(now, view, out);
    }

    fn looked(&mut self, millis: u64, answer: Answer, view: &View, out: &mut Vec<Action>) -> State {
        let is_over = all_are(view, DiskState::CutOver);
        match answer {
            Answer::Stands(Stillness::Kept) if is_over => {
                let wanted = view.wanted.map(|wanted| wanted.source);
                // Whoever says so now may not know that nothing was stopped.
                let is_safe = |end: &SourceEnd| *end != SourceEnd::Thaw || view.is_prepared;
                ending(wanted.filter(is_safe), millis + LINGER_MILLIS)
            }
            Answer::Stands(Stillness::Running) if is_over => {
                Self::runs_again(view, out);
                State::Committed(Ending::Over)
            }
            Answer::Failed { .. } if is_over && !view.was_frozen => State::Committed(Ending::Over),
            Answer::Stands(Stillness::Frozen) if is_over => State::Committed(Ending::Over),
            Answer::Stands(Stillness::Frozen | Stillness::Kept) if may_count(view) => {
                if self.because.is_none() {
                    let text = "the source is frozen, and this node's data does not say whether its copy counts: it stays so; bring the nodes of the migration back, or let it go by hand (`dunlin guard thaw`) where its copy is not used";
                    out.push(Action::Tell(Note::error("freeze-unknown", text)));
                    self.because = Some(text.to_owned());
                }
                self.looks_again(millis)
            }
            // Of an attempt that did not come to count.
            Answer::Stands(Stillness::Frozen | Stillness::Kept) => {
                thawing(Some("this node was started again meanwhile".into()), true)
            }
            Answer::Failed { nobody: false, why } => {
                if self.because.as_ref() != Some(&why) {
                    let text = format!("it is not known whether the source is frozen: {why}");
                    out.push(Action::Tell(Note::warn("freeze-unknown", text)));
                    self.because = Some(why);
                }
                self.looks_again(millis)
            }
            // What waits for it asks again before anything is frozen.
            Answer::Failed { .. } if is_over || (view.wanted.is_none() && !view.is_begun) => {
                self.was_alone = true;
                self.looks_again(millis)
            }
            _ if view.is_begun => State::AfterThaw,
            _ => State::Converging,
        }
    }

    fn looks_again(&self, millis: u64) -> State {
        State::Looking {
            asked: false,
            retry_millis: millis + LOOK_MILLIS,
        }
    }

    /// Why a source that could be frozen is not to be now.
    fn obstacle(&self, view: &View) -> Option<String> {
        let wanted = view.wanted?;
        if wanted.source == SourceEnd::Thaw && !view.has_stop {
            return Some("the source is to run on, and no hook with `stop` at before-freeze stops what it serves: add one, or cut over with another --source".to_owned());
        }
        let rest = rest_of(view);
        let budget = self.budget();
        (rest.is_none_or(|rest| rest > budget)).then(|| too_much(budget, rest))
    }

    fn committed(
        &mut self,
        millis: u64,
        since_millis: u64,
        view: &View,
        out: &mut Vec<Action>,
    ) -> State {
        let is_proven = |wanted: &Wanted| !wanted.is_checkpoint && all_are(view, wanted.goal());
        let still_wanted = view.wanted.filter(is_proven);
        let Some(wanted) = still_wanted else {
            // Paused, or a disk lost its proof, in the time of the answer.
            let why = view
                .wanted
                .map(|_| "a disk had to be proven again".to_owned());
            return thawing(why, true);
        };
        let is_stopped = wanted.source != SourceEnd::Thaw || view.is_prepared;
        if wanted.source != self.end || !is_stopped {
            let why = "what is to become of the source was changed meanwhile";
            return thawing(Some(why.to_owned()), true);
        }
        out.push(Action::Commit {
            frozen_millis: millis - since_millis,
        });
        self.because = None;
        let linger = match wanted.source {
            SourceEnd::PowerOff => LINGER_MILLIS,
            _ => 0,
        };
        ending(Some(wanted.source), millis + linger)
    }

    fn failed(&mut self, millis: u64, why: &str, view: &View, out: &mut Vec<Action>) {
        // It stands already, or is not wanted any more.
        let Some(wanted) = view.wanted else {
            self.because = None;
            return;
        };
        let wait = FIRST_RETRY_MILLIS << self.failures.min(8);
        let wait = wait.min(LONGEST_RETRY_MILLIS);
        self.failures += 1;
        self.retry_millis = millis + wait;
        let text = format!(
            "the {} did not come about: {why}; nothing was committed, and it is tried again in {} s, at once after `migration pause` and `migration resume`",
            wanted.name(),
            wait / 1000
        );
        out.push(Action::Tell(Note::warn("cutover-put-off", text.clone())));
        self.because = Some(text);
    }
}

fn thawing(why: Option<String>, kept: bool) -> State {
    State::Thawing {
        why,
        kept,
        asked: false,
        retry_millis: 0,
    }
}

/// What is to become of a source that is kept and cut over.
fn ending(source: Option<SourceEnd>, at_millis: u64) -> State {
    let ask = match source {
        Some(SourceEnd::PowerOff) => Ask::PowerOff,
        Some(SourceEnd::Thaw) => Ask::Release,
        Some(SourceEnd::Unsaid | SourceEnd::StayFrozen) | None => {
            return State::Committed(Ending::Over);
        }
    };
    State::Committed(Ending::Due { at_millis, ask })
}

/// Whether it was said what is to become of the source.
fn says_end(view: &View) -> bool {
    let wanted = view.wanted;
    wanted.is_some_and(|wanted| wanted.source != SourceEnd::Unsaid)
}

/// Whether what is frozen may count by what this node does not know.
fn may_count(view: &View) -> bool {
    let mut disks = view.disks.iter();
    disks.any(|disk| matches!(disk.state, DiskState::CutOver | DiskState::Unproven))
}

fn all_are(view: &View, state: DiskState) -> bool {
    !view.disks.is_empty() && view.disks.iter().all(|disk| disk.state == state)
}

/// Some are cut over, and others not: they cannot be of one moment any more.
fn is_parted(view: &View) -> bool {
    view.disks
        .iter()
        .any(|disk| disk.state == DiskState::CutOver)
}

/// A disk takes too long, and will not do with less.
fn needs_quiet(budget: u64, view: &View) -> bool {
    let is_slow = |disk: &Disk| disk.rest_millis.is_none_or(|rest| rest > budget);
    view.disks
        .iter()
        .any(|disk| !disk.is_tracked && is_slow(disk))
}

/// What the passes over the frozen source would take: those of all disks run side by side.
fn rest_of(view: &View) -> Option<u64> {
    let rests = view.disks.iter().map(|disk| disk.rest_millis);
    rests.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

fn deadline(longest: u64, wanted: Wanted, view: &View) -> u64 {
    let whole = view.disks.iter().map(|disk| disk.whole_millis).sum::<u64>();
    match wanted.prove_full {
        // All is read here, and read back there, by who may be slower.
        true => LONGEST_FREEZE_MILLIS.min(longest + whole.saturating_mul(6)),
        false => longest,
    }
}

#[cfg(test)]
mod tests;
