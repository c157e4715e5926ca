//! The agent's machine, transition by transition.
#![allow(clippy::unwrap_used)]

mod checkpoint;
mod hooks;
mod moving;
mod together;

use super::hold::WAITING;
use super::*;
use crate::hooks::Hooks;
use crate::world::{AGENT, JOB, NOW, OPERATOR, REPLICATOR, SPAN, World, proof};
use crdt::report::{PassRead, TargetState};
use keys::MigrationId;
use keys::proof::End;
use keys::{NodeId, UnixSecs};

/// A way to lose the right to send.
type Loss = fn(&mut Bench);

/// One agent, in a mesh that can be changed under it.
struct Bench {
    world: World,
    agent: Agent,
    now: Now,
    connected: bool,
    moment: Moment,
    source: Result<(), String>,
    hooks: Hooks,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        world.grant(9_000);
        Self {
            world,
            agent: Agent::new(JOB, None),
            now: NOW,
            connected: true,
            moment: Moment::Apart,
            source: Ok(()),
            hooks: Hooks::default(),
        }
    }

    /// A bench whose agent has opened its first session and begun its first pass.
    fn passing() -> Self {
        let mut bench = Self::started();
        bench.facts();
        bench.input(Input::SessionReady {
            barrier: 0,
            groups_adopted: 0,
        });
        bench
    }

    fn started() -> Self {
        let mut bench = Self::new();
        bench.world.want(Desired::Started);
        bench.facts();
        bench.world.target_reported(1, 1 << 20, TargetState::Ready);
        bench
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        let mut out = vec![];
        self.agent.step(self.now, input, &mut out);
        out
    }

    fn facts(&mut self) -> Vec<Action> {
        let situation = self.world.situation(AGENT, self.now);
        let connected = self.connected;
        let record = self.agent.record().clone();
        let facts = situation.agent_facts(&record, |_| connected, self.source.clone());
        let mut facts = facts.with_hooks(&self.hooks, &situation, &JOB.migration);
        facts.cutover.moment = self.moment;
        facts.checkpoint = situation.due_checkpoint(&JOB.migration, &[&record]);
        self.input(Input::Facts(facts))
    }

    fn pass_done(&mut self, blocks: u64) -> Vec<Action> {
        self.pass_ended(blocks, true)
    }

    fn pass_ended(&mut self, blocks: u64, is_final: bool) -> Vec<Action> {
        let summary = PassSummary {
            blocks,
            bytes_sent: blocks * 65_536,
            ..self.summary()
        };
        self.input(Input::PassDone {
            summary,
            is_final,
            is_followed: true,
        })
    }

    /// Of the pass that runs.
    fn summary(&self) -> PassSummary {
        let passes = &self.agent.record().passes;
        PassSummary {
            pass: passes.last().map_or(1, |last| last.pass + 1),
            blocks: 0,
            bytes_sent: 0,
            millis: 100,
            since_millis: None,
            read: PassRead::Whole,
        }
    }

    fn later(&mut self, millis: u64) -> Vec<Action> {
        self.now.mono_millis += millis;
        self.facts()
    }

    fn stage(&self) -> Stage {
        self.agent.standing().0
    }

    fn finished(&self) -> Finished {
        Finished {
            root: [5; 32],
            source_proof: proof(&self.world, AGENT, End::Source, [5; 32]),
            target_proof: proof(&self.world, REPLICATOR, End::Target, [5; 32]),
            frozen_millis: None,
        }
    }
}

/// The actions in short, notes by their kind.
fn names(actions: &[Action]) -> Vec<&'static str> {
    let name = |action: &Action| match action {
        Action::Store(_) => "store",
        Action::OpenSession { .. } => "open",
        Action::BeginPass { .. } => "pass",
        Action::Finish { read_back: false } => "finish",
        Action::Finish { read_back: true } => "finish and read back",
        Action::StateRoot => "root",
        Action::CloseSession => "close",
        Action::Forget => "forget",
        Action::Tell(note) => note.kind,
    };
    actions.iter().map(name).collect()
}

#[test]
fn nothing_happens_before_the_plan_is_started() {
    let mut bench = Bench::new();
    assert!(bench.facts().is_empty());
    assert_eq!(bench.stage(), Stage::Enrolled);
}

#[test]
fn it_chooses_a_replicator_durably_waits_for_its_volume_and_then_opens_a_session() {
    let mut bench = Bench::new();
    bench.world.want(Desired::Started);
    assert_eq!(names(&bench.facts()), ["store", "replicator-chosen"]);
    assert_eq!(bench.agent.record().epoch, Epoch(1));
    assert!(bench.facts().is_empty(), "no volume yet");
    bench
        .world
        .target_reported(1, 1 << 20, TargetState::Failed("no room".into()));
    assert_eq!(names(&bench.facts()), ["target-failed"]);
    assert_eq!(bench.stage(), Stage::Stalled);
    bench.world.target_reported(2, 1 << 20, TargetState::Ready);
    assert!(bench.facts().is_empty(), "the volume is of another epoch");
    bench.world.target_reported(1, 1 << 20, TargetState::Ready);
    let out = bench.facts();
    let [Action::OpenSession { permit, epoch }] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!((permit.volume(), *epoch), (JOB.volume, Epoch(1)));
    assert!(bench.facts().is_empty(), "one session is enough");
}

#[test]
fn passes_follow_one_another_with_a_rest() {
    let mut bench = Bench::started();
    bench.facts();
    let out = bench.input(Input::SessionReady {
        barrier: 0,
        groups_adopted: 0,
    });
    assert_eq!(names(&out), ["store", "session-opened", "pass"]);
    assert_eq!(bench.stage(), Stage::InitialSync);
    let out = bench.input(Input::BarrierReached(3));
    assert!(matches!(&out[..], [Action::Store(record)] if record.barrier == 3));
    assert_eq!(names(&bench.pass_done(10)), ["pass-done", "store"]);
    assert_eq!(bench.stage(), Stage::ReadyForCutover);
    let deadline = bench.agent.deadline_millis().unwrap();
    assert_eq!(deadline, bench.now.mono_millis + MIN_REST_MILLIS);
    assert!(bench.later(MIN_REST_MILLIS - 1).is_empty());
    let out = bench.later(1);
    assert!(matches!(
        out[..],
        [Action::BeginPass {
            pass: 2,
            whole: false
        }]
    ));
}

#[test]
fn after_a_long_pass_it_rests_as_long_unless_the_next_has_only_to_read_what_was_written() {
    let rests = |read, is_followed| {
        let mut bench = Bench::passing();
        let summary = PassSummary {
            millis: 60_000,
            read,
            ..bench.summary()
        };
        bench.input(Input::PassDone {
            summary,
            is_final: true,
            is_followed,
        });
        bench.agent.deadline_millis().unwrap() - bench.now.mono_millis
    };
    assert_eq!(rests(PassRead::Whole, false), 60_000);
    assert_eq!(rests(PassRead::Whole, true), MIN_REST_MILLIS);
    assert_eq!(rests(PassRead::Tracked, true), 60_000);
}

#[test]
fn a_cutover_waits_for_a_pass_after_which_nothing_can_turn_up_as_missing() {
    let mut bench = Bench::passing();
    bench.pass_done(4);
    bench.world.want(Desired::cutover(false));
    bench.facts();
    let out = bench.pass_ended(0, false);
    assert_eq!(names(&out), ["pass-done", "store", "pass"]);
    let all = matches!(out.last(), Some(Action::BeginPass { whole: true, .. }));
    assert!(
        all,
        "where it is never known, comparing all makes up for it"
    );
    assert_eq!(
        names(&bench.pass_ended(0, true)),
        ["pass-done", "store", "finish"]
    );
}

#[test]
fn a_proof_in_full_that_is_asked_for_while_a_pass_runs_takes_another_over_all() {
    let mut bench = Bench::passing();
    bench.pass_done(4);
    for prove_full in [false, true] {
        bench.world.want(Desired::cutover(prove_full));
        bench.facts();
    }
    let done = |bench: &Bench, read| Input::PassDone {
        summary: PassSummary {
            read,
            ..bench.summary()
        },
        is_final: true,
        is_followed: true,
    };
    let out = bench.input(done(&bench, PassRead::Tracked));
    let all = matches!(out.last(), Some(Action::BeginPass { whole: true, .. }));
    assert!(all, "{:?}", names(&out));
    let out = bench.input(done(&bench, PassRead::Whole));
    assert_eq!(names(&out), ["pass-done", "store", "finish and read back"]);
}

#[test]
fn a_cutover_that_is_to_prove_it_compares_the_whole_source() {
    for prove_full in [false, true] {
        let mut bench = Bench::passing();
        bench.pass_done(4);
        bench.world.want(Desired::cutover(prove_full));
        let out = bench.facts();
        let Some(Action::BeginPass { whole, .. }) = out.last() else {
            panic!("{out:?}");
        };
        assert_eq!(*whole, prove_full);
    }
}

#[test]
fn a_pause_closes_the_session_and_a_start_opens_another() {
    let mut bench = Bench::passing();
    bench.world.want(Desired::Paused);
    assert_eq!(names(&bench.facts()), ["close", "paused"]);
    assert_eq!(bench.stage(), Stage::Paused);
    assert!(bench.facts().is_empty(), "told once");
    bench.world.want(Desired::Started);
    assert_eq!(names(&bench.facts()), ["open"]);
    assert_eq!(
        bench.agent.record().epoch,
        Epoch(1),
        "a pause costs no epoch"
    );
}

#[test]
fn every_way_to_lose_the_right_closes_the_session_and_says_why() {
    let losses: [(Loss, &str); 5] = [
        (
            |bench| {
                let agent = crate::world::key(AGENT).public();
                bench.world.authority.note_cloned([agent]);
            },
            "two places",
        ),
        (
            |bench| {
                let grant = *bench.world.authority.grants().next().unwrap().0;
                bench.world.revoke(OPERATOR, grant);
            },
            "was revoked",
        ),
        (|bench| bench.now.wall = UnixSecs(9_000), "expired"),
        (
            |bench| {
                let node = bench.world.id(REPLICATOR);
                bench.world.revoke(1, node.into());
            },
            "was revoked",
        ),
        (
            |bench| {
                let node = bench.world.id(AGENT);
                bench.world.revoke(1, node.into());
            },
            "was revoked",
        ),
    ];
    for (lose, why) in losses {
        let mut bench = Bench::passing();
        lose(&mut bench);
        let out = bench.facts();
        assert_eq!(names(&out), ["close", "grant-refused"]);
        let Some(Action::Tell(note)) = out.last() else {
            panic!("nothing is told")
        };
        // Another grant is of no use to a key in two places.
        let advised = note.text.contains("start the migration again");
        assert_eq!(advised, why != "two places", "{}", note.text);
        let (stage, step, detail) = bench.agent.standing();
        assert_eq!((stage, step), (Stage::Stalled, "refused"));
        assert!(detail.unwrap().contains(why));
        assert!(bench.later(60_000).is_empty(), "and stays so");
    }
}

#[test]
fn a_new_grant_lets_it_go_on() {
    let mut bench = Bench::passing();
    let grant = *bench.world.authority.grants().next().unwrap().0;
    bench.world.revoke(OPERATOR, grant);
    bench.facts();
    bench.world.grant(9_500);
    let out = bench.facts();
    assert!(matches!(&out[..], [Action::OpenSession { permit, .. }] if permit.grant() != grant));
}

#[test]
fn a_lost_session_is_tried_again_after_ever_longer_waits() {
    let mut bench = Bench::passing();
    let mut waits = vec![];
    for _ in 0..9 {
        let out = bench.input(Input::SessionLost("gone".into()));
        assert_eq!(names(&out), ["session-lost"]);
        let wait = bench.agent.deadline_millis().unwrap() - bench.now.mono_millis;
        assert!(bench.later(wait - 1).is_empty());
        assert_eq!(names(&bench.later(1)), ["open"]);
        waits.push(wait);
    }
    assert_eq!(waits[..4], [500, 1_000, 2_000, 4_000]);
    assert_eq!(waits[8], LONGEST_RETRY_MILLIS);
    bench.input(Input::SessionReady {
        barrier: 2,
        groups_adopted: 0,
    });
    bench.pass_done(1);
    bench.input(Input::SessionLost("gone".into()));
    let wait = bench.agent.deadline_millis().unwrap() - bench.now.mono_millis;
    assert_eq!(
        wait, FIRST_RETRY_MILLIS,
        "a whole pass makes good for what was lost"
    );
}

#[test]
fn sessions_lost_again_and_again_count_as_stalled_and_say_why() {
    let mut bench = Bench::passing();
    for lost in 1..=STALLED_AFTER {
        bench.input(Input::Refused(RefusalCode::StorageFull));
        let stalled = bench.stage() == Stage::Stalled;
        assert_eq!(stalled, lost >= STALLED_AFTER);
        if lost < STALLED_AFTER {
            bench.later(LONGEST_RETRY_MILLIS);
        }
    }
    let detail = bench.agent.standing().2.unwrap();
    assert!(detail.contains("full"), "{detail}");
}

#[test]
fn a_session_is_resumed_from_the_replicators_barrier_and_says_so() {
    let mut bench = Bench::passing();
    bench.input(Input::BarrierReached(7));
    bench.input(Input::SessionLost("gone".into()));
    bench.later(FIRST_RETRY_MILLIS);
    let out = bench.input(Input::SessionReady {
        barrier: 6,
        groups_adopted: 2,
    });
    assert_eq!(names(&out), ["store", "session-resumed", "pass"]);
    assert_eq!(bench.agent.record().barrier, 6);
}

#[test]
fn it_does_not_open_a_session_to_somebody_who_is_not_connected() {
    let mut bench = Bench::started();
    bench.connected = false;
    assert_eq!(names(&bench.facts()), ["replicator-unreachable"]);
    assert_eq!(bench.stage(), Stage::Stalled);
    bench.connected = true;
    assert_eq!(names(&bench.facts()), ["open"]);
    bench.connected = false;
    assert!(
        bench.facts().is_empty(),
        "an open session shows by itself when it breaks"
    );
}

#[test]
fn a_source_that_fails_stops_the_work_until_it_can_be_read() {
    let mut bench = Bench::passing();
    let out = bench.input(Input::SourceFailed("read error".into()));
    assert!(names(&out).contains(&"source-failed"));
    bench.source = Err("read error".into());
    bench.later(FIRST_RETRY_MILLIS);
    assert_eq!(bench.agent.standing().1, "source");
    assert!(bench.later(60_000).is_empty());
    bench.source = Ok(());
    assert_eq!(names(&bench.facts()), ["open"]);
}

#[test]
fn a_cutover_waits_for_a_whole_pass_that_finds_nothing_and_tells_once() {
    for (prove_full, finish) in [(false, "finish"), (true, "finish and read back")] {
        let mut bench = Bench::passing();
        bench.world.want(Desired::cutover(prove_full));
        assert!(bench.facts().is_empty(), "the pass goes on");
        // It began before cutover was wanted: what it found does not count.
        assert_eq!(names(&bench.pass_done(0)), ["pass-done", "store", "pass"]);
        assert_eq!(bench.stage(), Stage::CuttingOver);
        assert_eq!(
            names(&bench.pass_done(1)),
            ["pass-done", "store", "source-not-quiet", "pass"]
        );
        assert_eq!(names(&bench.pass_done(1)), ["pass-done", "store", "pass"]);
        assert_eq!(names(&bench.pass_done(0)), ["pass-done", "store", finish]);
        let finished = bench.finished();
        let out = bench.input(Input::Finished(finished));
        assert_eq!(names(&out), ["store", "close", "cut-over"]);
        assert_eq!(bench.stage(), Stage::CutOver);
    }
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut bench = Bench::passing();
    bench.world.want(Desired::cutover(true));
    bench.facts();
    assert_eq!(bench.agent.finishing(), None, "a pass is under way");
    let ready = || Input::SessionReady {
        barrier: 9,
        groups_adopted: 0,
    };
    assert!(bench.input(ready()).is_empty(), "the session was open");
    let finished = bench.finished();
    assert!(bench.input(Input::Finished(finished)).is_empty());
    bench.pass_done(0);
    bench.pass_done(0);
    assert_eq!(bench.agent.finishing(), Some(true));
    let record = bench.agent.record().clone();
    assert!(bench.pass_done(0).is_empty(), "no pass is under way");
    assert_eq!(*bench.agent.record(), record);
}

#[test]
fn a_cutover_does_not_wait_for_the_end_of_a_rest() {
    let mut bench = Bench::passing();
    bench.pass_done(1);
    bench.world.want(Desired::cutover(false));
    assert_eq!(names(&bench.facts()), ["pass"]);
    assert_eq!(names(&bench.pass_done(0)), ["pass-done", "store", "finish"]);
}

#[test]
fn nothing_is_cut_over_that_was_paused_meanwhile() {
    let mut bench = Bench::passing();
    bench.world.want(Desired::cutover(false));
    bench.facts();
    bench.pass_done(0);
    bench.pass_done(0);
    bench.world.want(Desired::Paused);
    assert_eq!(names(&bench.facts()), ["close", "paused"]);
    let finished = bench.finished();
    assert!(bench.input(Input::Finished(finished)).is_empty());
    assert!(bench.agent.record().finished.is_none());
}

#[test]
fn what_was_cut_over_stays_so_whatever_comes() {
    let mut bench = Bench::passing();
    bench.world.want(Desired::cutover(false));
    bench.facts();
    bench.pass_done(0);
    bench.pass_done(0);
    let finished = bench.finished();
    bench.input(Input::Finished(finished));
    let record = bench.agent.record().clone();
    bench.agent = Agent::new(JOB, Some(record.clone()));
    assert_eq!(bench.stage(), Stage::CutOver);
    for desired in [Desired::Paused, Desired::Started, Desired::Deleted] {
        bench.world.want(desired);
        assert!(bench.facts().is_empty(), "{desired}");
    }
    assert!(bench.input(Input::SessionLost("gone".into())).is_empty());
    assert!(!bench.agent.gone());
    assert_eq!(*bench.agent.record(), record);
}

#[test]
fn a_deleted_migration_is_forgotten_and_its_session_says_no_more() {
    let mut bench = Bench::passing();
    bench.world.want(Desired::Deleted);
    assert_eq!(names(&bench.facts()), ["close", "forget"]);
    assert!(bench.agent.gone());
    assert!(bench.input(Input::BarrierReached(9)).is_empty());
    let refused = Input::Refused(RefusalCode::NotAuthorised);
    assert!(bench.input(refused).is_empty());
    let finished = bench.finished();
    assert!(bench.input(Input::Finished(finished)).is_empty());
}

#[test]
fn after_a_restart_it_goes_on_with_the_same_epoch_and_pass() {
    let mut bench = Bench::passing();
    bench.pass_done(4);
    let stored = bench.agent.record().clone();
    bench.agent = Agent::new(JOB, Some(stored));
    assert_eq!(names(&bench.facts()), ["open"]);
    assert_eq!(bench.agent.record().epoch, Epoch(1));
    let out = bench.input(Input::SessionReady {
        barrier: 1,
        groups_adopted: 0,
    });
    assert!(matches!(
        out.last(),
        Some(Action::BeginPass { pass: 2, .. })
    ));
}

#[test]
fn the_record_keeps_a_bounded_number_of_passes() {
    let mut bench = Bench::passing();
    for _ in 0..MAX_SUMMARIES + 5 {
        bench.pass_done(1);
        bench.later(MIN_REST_MILLIS);
    }
    let passes = &bench.agent.record().passes;
    assert_eq!(passes.len(), MAX_SUMMARIES);
    assert_eq!(passes.last().unwrap().pass as usize, MAX_SUMMARIES + 5);
    assert_eq!(passes.first().unwrap().pass, 1, "what the first one sent");
    assert!(codec::encode(bench.agent.record()).is_ok());
}

#[test]
fn passes_that_send_nothing_are_not_told_and_push_no_others_out() {
    let mut bench = Bench::passing();
    let idle = |bench: &mut Bench, times: usize| {
        for _ in 0..times {
            assert_eq!(names(&bench.pass_done(0)), ["store"]);
            bench.later(MIN_REST_MILLIS);
        }
    };
    let kept = |bench: &Bench| -> Vec<(u32, u64)> {
        let passes = bench.agent.record().passes.iter();
        passes.map(|pass| (pass.pass, pass.blocks)).collect()
    };
    let first = names(&bench.pass_done(0));
    assert_eq!(
        first,
        ["pass-done", "store"],
        "the first is told in any case"
    );
    bench.later(MIN_REST_MILLIS);
    idle(&mut bench, 30);
    assert_eq!(kept(&bench), [(1, 0), (31, 0)]);
    assert_eq!(names(&bench.pass_done(7)), ["pass-done", "store"]);
    bench.later(MIN_REST_MILLIS);
    idle(&mut bench, 3);
    assert_eq!(kept(&bench), [(1, 0), (31, 0), (32, 7), (35, 0)]);
}

#[test]
fn a_pass_tells_how_long_ago_the_one_before_began_unless_it_was_broken_off() {
    let mut bench = Bench::passing();
    let since = |bench: &Bench| bench.agent.record().passes.last().unwrap().since_millis;
    bench.pass_done(9);
    assert_eq!(since(&bench), None, "a first pass finds what there is");
    bench.later(MIN_REST_MILLIS);
    bench.pass_done(1);
    assert_eq!(since(&bench), Some(MIN_REST_MILLIS));
    // Of passes in a row that sent nothing one is kept, with the time of all.
    for _ in 0..3 {
        bench.later(MIN_REST_MILLIS);
        bench.pass_done(0);
    }
    assert_eq!(since(&bench), Some(3 * MIN_REST_MILLIS));
    bench.later(MIN_REST_MILLIS);
    bench.input(Input::SessionLost("gone".into()));
    bench.later(FIRST_RETRY_MILLIS);
    bench.input(Input::SessionReady {
        barrier: 0,
        groups_adopted: 0,
    });
    bench.pass_done(1);
    assert_eq!(since(&bench), None, "what went before the cut is missing");
}

/// The lease and the autonomy of the grants here.
const LEASE_MILLIS: u64 = SPAN.lease_secs * 1000;
const EXPOSURE_MILLIS: u64 = (SPAN.lease_secs + SPAN.autonomy_secs) * 1000;

#[test]
fn without_an_operators_word_nothing_begins_and_people_are_told_when_it_stays_away() {
    let mut bench = Bench::started();
    bench.world.leases = keys::Leases::new();
    assert_eq!(names(&bench.facts()), Vec::<&str>::new());
    let waiting = (Stage::InitialSync, WAITING, None);
    assert_eq!(bench.agent.standing(), waiting);
    let until = bench.now.mono_millis + UNVOUCHED_MILLIS;
    assert_eq!(bench.agent.deadline_millis(), Some(until));
    assert_eq!(
        names(&bench.later(UNVOUCHED_MILLIS - 1)),
        Vec::<&str>::new()
    );
    assert_eq!(names(&bench.later(1)), ["no-lease"]);
    assert_eq!(names(&bench.later(1)), Vec::<&str>::new(), "told once");
    let (stage, step, detail) = bench.agent.standing();
    assert_eq!((stage, step), (Stage::Stalled, WAITING));
    assert!(detail.unwrap().contains("no operator's node has confirmed"));
    bench.world.vouch(bench.now);
    assert_eq!(names(&bench.facts()), ["open"]);
}

#[test]
fn a_lease_that_is_not_renewed_gives_way_to_autonomy_which_is_told_once_and_shown() {
    let mut bench = Bench::passing();
    assert_eq!(names(&bench.later(LEASE_MILLIS - 1)), Vec::<&str>::new());
    assert_eq!(bench.agent.standing().2, None);
    assert_eq!(names(&bench.later(1)), ["on-autonomy"]);
    assert_eq!(names(&bench.later(1)), Vec::<&str>::new());
    assert_eq!(bench.agent.standing().2.as_deref(), Some(ON_AUTONOMY));
    bench.world.vouch(bench.now);
    assert_eq!(names(&bench.facts()), ["lease-renewed"]);
    assert_eq!(bench.agent.standing().2, None);
}

#[test]
fn work_stops_when_lease_and_autonomy_are_over_and_goes_on_when_an_operator_is_back() {
    let mut bench = Bench::passing();
    bench.later(EXPOSURE_MILLIS - 1);
    assert_eq!(names(&bench.later(1)), ["close", "no-lease"]);
    let (stage, step, detail) = bench.agent.standing();
    assert_eq!((stage, step), (Stage::Stalled, WAITING));
    assert!(detail.unwrap().contains("start an operator's node"));
    assert_eq!(names(&bench.later(60_000)), Vec::<&str>::new());
    bench.world.vouch(bench.now);
    assert_eq!(names(&bench.facts()), ["lease-renewed", "open"]);
}

/// A bench whose agent remembers nothing, in a world where it had said `epoch` and
/// `proofs` before.
fn restored(bench: Bench, epoch: u64, proofs: Vec<Signed>) -> Bench {
    let mut bench = bench;
    bench.world.agent_reports(epoch, proofs);
    bench.agent = Agent::new(JOB, None);
    bench
}

#[test]
fn nothing_is_begun_or_forgotten_before_it_is_known_what_was_said_last() {
    for desired in [Desired::Started, Desired::Deleted] {
        let mut bench = Bench::started();
        bench.world.want(desired);
        bench.world.is_heard = false;
        bench.agent = Agent::new(JOB, None);
        assert!(bench.facts().is_empty());
        let (stage, step, why) = bench.agent.standing();
        assert_eq!((stage, step), (Stage::Stalled, "waiting for a peer"));
        assert!(why.is_some_and(|why| why.contains("start a node")));
        bench.world.is_heard = true;
        assert!(!bench.facts().is_empty());
    }
}

#[test]
fn a_record_from_an_old_copy_takes_up_the_epoch_that_was_reported() {
    let mut bench = restored(Bench::started(), 3, vec![]);
    assert_eq!(names(&bench.facts()), ["store", "record-caught-up"]);
    let record = bench.agent.record();
    assert_eq!((record.epoch, record.barrier), (Epoch(3), 0));
    assert_eq!(record.replicator, Some(bench.world.id(REPLICATOR)));
    // And keeps it: what comes next is no lower epoch.
    assert!(bench.facts().is_empty());
}

#[test]
fn a_record_from_an_old_copy_takes_up_the_cutover_that_was_reported_even_if_it_was_deleted_since() {
    for desired in [Desired::Started, Desired::Deleted] {
        let bench = Bench::started();
        let finished = bench.finished();
        let proofs = vec![finished.source_proof.clone(), finished.target_proof.clone()];
        let mut bench = restored(bench, 1, proofs);
        bench.world.want(desired);
        assert_eq!(names(&bench.facts()), ["store", "record-caught-up"]);
        assert_eq!(bench.agent.record().finished, Some(finished));
        assert_eq!(bench.stage(), Stage::CutOver);
        assert!(bench.facts().is_empty());
    }
}

#[test]
fn a_cutover_of_which_only_half_is_known_holds_all_until_the_other_half_is_here() {
    let bench = Bench::started();
    let finished = bench.finished();
    let mut bench = restored(bench, 1, vec![finished.source_proof.clone()]);
    bench.world.want(Desired::Deleted);
    assert_eq!(names(&bench.facts()), ["record-lost"]);
    assert!(bench.facts().is_empty(), "told once, and nothing forgotten");
    assert_eq!(bench.stage(), Stage::Stalled);
    let stated = finished.target_proof.clone();
    bench
        .world
        .report(REPLICATOR, |report| report.proofs = vec![stated]);
    assert_eq!(names(&bench.facts()), ["store", "record-caught-up"]);
    assert_eq!(bench.agent.record().finished, Some(finished));
}

#[test]
fn a_job_that_was_cut_over_and_deleted_has_its_record_made_again_and_others_do_not() {
    let mut bench = Bench::started();
    let needs = |bench: &Bench| bench.world.situation(AGENT, NOW).needs_record(&JOB);
    assert!(needs(&bench));
    bench.world.is_heard = false;
    assert!(!needs(&bench), "the plan may be old");
    bench.world.is_heard = true;
    bench.world.want(Desired::Deleted);
    assert!(!needs(&bench));
    let none = |_: &MigrationId| false;
    let situation = bench.world.situation(AGENT, NOW);
    assert_eq!(situation.let_go(none), [JOB.migration]);
    let stated = bench.finished().source_proof;
    bench.world.agent_reports(1, vec![stated]);
    assert!(needs(&bench));
    let situation = bench.world.situation(AGENT, NOW);
    assert!(situation.let_go(none).is_empty(), "it is a server's disk");
}
