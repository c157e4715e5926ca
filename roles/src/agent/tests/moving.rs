//! When an agent leaves its replicator for the next of the pool, and when it must not.

use super::*;
use crate::world::{LENGTH, OTHER_REPLICATOR, key};
use keys::PublicKey;
use std::collections::BTreeSet;

const POOL: [u8; 2] = [REPLICATOR, OTHER_REPLICATOR];

/// An agent with a pool of two, of which any may be away.
struct Pool {
    bench: Bench,
    away: BTreeSet<PublicKey>,
    /// An operator's node renews the leases.
    renewed: bool,
}

impl Pool {
    /// Its first pass is under way at the first replicator.
    fn passing() -> Self {
        let mut pool = Self::chosen();
        pool.facts();
        pool.ready();
        pool
    }

    fn chosen() -> Self {
        let mut world = World::with(&POOL, OPERATOR);
        world.grant(9_000);
        world.want(Desired::Started);
        let bench = Bench {
            world,
            agent: Agent::new(JOB, None),
            now: NOW,
            connected: true,
            moment: Moment::Apart,
            source: Ok(()),
            hooks: Hooks::default(),
        };
        let away = BTreeSet::new();
        let mut pool = Self {
            bench,
            away,
            renewed: true,
        };
        pool.facts();
        pool.provide(1, REPLICATOR);
        pool
    }

    fn ready(&mut self) {
        self.bench.input(Input::SessionReady {
            barrier: 0,
            groups_adopted: 0,
        });
    }

    fn provide(&mut self, epoch: u64, replicator: u8) {
        let ready = TargetState::Ready;
        self.bench.world.target_of(epoch, replicator, LENGTH, ready);
    }

    fn leave(&mut self, replicator: u8) {
        self.away.insert(key(replicator).public());
    }

    fn facts(&mut self) -> Vec<Action> {
        let bench = &mut self.bench;
        let situation = bench.world.situation(AGENT, bench.now);
        let connected = |key: &PublicKey| !self.away.contains(key);
        let record = bench.agent.record().clone();
        let mut facts = situation.agent_facts(&record, connected, bench.source.clone());
        facts.cutover.moment = bench.moment;
        bench.input(Input::Facts(facts))
    }

    fn later(&mut self, millis: u64) -> Vec<Action> {
        self.bench.now.mono_millis += millis;
        if self.renewed {
            self.bench.world.vouch(self.bench.now);
        }
        self.facts()
    }

    fn lost(&mut self) -> Vec<Action> {
        self.bench.input(Input::SessionLost("gone".into()))
    }

    /// Its session breaks, and another one stands after the longest wait.
    fn break_and_resume(&mut self) {
        self.lost();
        self.facts();
        self.later(LONGEST_RETRY_MILLIS);
        self.ready();
    }

    fn at(&self) -> (u64, NodeId) {
        let record = self.bench.agent.record();
        (record.epoch.0, record.replicator.unwrap())
    }

    fn is_at(&self, epoch: u64, replicator: u8) -> bool {
        self.at() == (epoch, self.bench.world.id(replicator))
    }
}

#[test]
fn a_replicator_that_is_gone_is_left_for_the_next_under_a_higher_epoch() {
    let mut pool = Pool::passing();
    pool.bench.pass_done(5);
    pool.bench.input(Input::BarrierReached(3));
    pool.lost();
    pool.leave(REPLICATOR);
    assert_eq!(names(&pool.facts()), ["replicator-unreachable"]);
    assert!(pool.later(LOST_MILLIS - 1).is_empty());
    let out = pool.later(1);
    assert_eq!(names(&out), ["store", "replicator-replaced"]);
    assert!(pool.is_at(2, OTHER_REPLICATOR));
    let record = pool.bench.agent.record();
    assert_eq!((record.barrier, record.passes.len()), (0, 0));
    assert_eq!(pool.bench.stage(), Stage::InitialSync);
    let Action::Tell(note) = &out[1] else {
        panic!("{out:?}");
    };
    assert!(note.text.contains("not connected"), "{}", note.text);
    assert!(pool.facts().is_empty(), "the old volume is not used");
    pool.provide(2, OTHER_REPLICATOR);
    let out = pool.facts();
    let [Action::OpenSession { permit, epoch }] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(*epoch, Epoch(2));
    assert_eq!(permit.replicator(), key(OTHER_REPLICATOR).public());
}

#[test]
fn a_replicator_that_lost_its_right_is_left_at_once() {
    let mut pool = Pool::passing();
    let node = pool.bench.world.id(REPLICATOR);
    pool.bench.world.revoke(1, node.into());
    let out = pool.facts();
    assert_eq!(names(&out), ["close", "store", "replicator-replaced"]);
    assert!(pool.is_at(2, OTHER_REPLICATOR));
    let node = pool.bench.world.id(OTHER_REPLICATOR);
    pool.bench.world.revoke(1, node.into());
    assert_eq!(names(&pool.facts()), ["grant-refused"]);
    assert!(
        pool.is_at(2, OTHER_REPLICATOR),
        "nobody is left who may serve"
    );
}

#[test]
fn with_no_operator_left_it_goes_on_with_the_next_until_the_autonomy_is_over() {
    let mut pool = Pool::passing();
    pool.renewed = false;
    pool.later((SPAN.lease_secs + 60) * 1000);
    pool.lost();
    pool.leave(REPLICATOR);
    pool.facts();
    pool.later(LOST_MILLIS);
    assert!(pool.is_at(2, OTHER_REPLICATOR));
    pool.provide(2, OTHER_REPLICATOR);
    assert_eq!(names(&pool.facts()), ["open"]);
    pool.later(SPAN.autonomy_secs * 1000);
    assert!(
        pool.bench
            .agent
            .standing()
            .2
            .unwrap()
            .contains("autonomy is used up")
    );
    pool.away.clear();
    assert!(pool.later(100 * LOST_MILLIS).is_empty());
    assert!(pool.is_at(2, OTHER_REPLICATOR));
}

#[test]
fn an_agent_wants_leases_for_its_whole_pool_and_a_replicator_for_itself() {
    let pool = Pool::chosen();
    let world = &pool.bench.world;
    let wanted = |seed| {
        let wanted = world.situation(seed, NOW).wanted_leases().into_keys();
        wanted.map(|pair| pair.replicator).collect::<BTreeSet<_>>()
    };
    let (first, other) = (world.id(REPLICATOR), world.id(OTHER_REPLICATOR));
    assert_eq!(wanted(AGENT), [first, other].into());
    assert_eq!(wanted(REPLICATOR), [first].into());
    assert_eq!(wanted(OTHER_REPLICATOR), [other].into());
}

#[test]
fn a_lease_that_is_missing_is_no_reason_to_leave_a_replicator() {
    let mut pool = Pool::passing();
    pool.renewed = false;
    pool.bench.world.vouch_for(NOW, &[OTHER_REPLICATOR]);
    assert_eq!(names(&pool.facts()), ["close"]);
    assert_eq!(names(&pool.later(UNVOUCHED_MILLIS)), ["no-lease"]);
    assert!(pool.later(10 * LOST_MILLIS).is_empty());
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn a_grant_that_the_ledger_has_yet_to_bring_is_no_reason_to_leave_a_replicator() {
    let mut pool = Pool::passing();
    let world = &mut pool.bench.world;
    let old = *world.authority.grants().next().unwrap().0;
    let other = world.id(OTHER_REPLICATOR);
    let to_other = world.grant_to(vec![other]);
    world.edit(|edit| edit.add_grant(JOB.migration, to_other));
    let to_come = keys::StatementId([0xff; 32]);
    world.edit(|edit| edit.add_grant(JOB.migration, to_come));
    world.revoke(OPERATOR, old);
    world.vouch(NOW);
    assert_eq!(names(&pool.facts()), ["close", "grant-refused"]);
    assert!(pool.later(10 * LOST_MILLIS).is_empty());
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn a_replicator_is_kept_while_its_session_stands_whatever_else_is_not_connected() {
    let mut pool = Pool::passing();
    pool.leave(REPLICATOR);
    assert!(pool.facts().is_empty());
    assert!(pool.later(10 * LOST_MILLIS).is_empty());
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn a_grant_that_is_over_moves_nobody_anywhere() {
    let mut pool = Pool::passing();
    let grant = *pool.bench.world.authority.grants().next().unwrap().0;
    pool.bench.world.revoke(OPERATOR, grant);
    assert_eq!(names(&pool.facts()), ["close", "grant-refused"]);
    assert!(pool.later(10 * LOST_MILLIS).is_empty());
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn sessions_that_break_again_and_again_with_nothing_durable_count_as_lost() {
    let mut pool = Pool::passing();
    let began = pool.bench.now.mono_millis;
    while pool.is_at(1, REPLICATOR) {
        pool.break_and_resume();
        assert!(pool.bench.now.mono_millis < began + 2 * LOST_MILLIS);
    }
    assert!(pool.bench.now.mono_millis >= began + LOST_MILLIS);
    assert!(pool.is_at(2, OTHER_REPLICATOR));
}

#[test]
fn a_replicator_that_makes_something_durable_is_kept_however_often_it_breaks() {
    let mut pool = Pool::passing();
    for barrier in 1..60 {
        pool.bench.input(Input::BarrierReached(barrier));
        pool.break_and_resume();
    }
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn a_session_that_stood_long_served_whatever_broke_it() {
    let mut pool = Pool::passing();
    for _ in 0..20 {
        pool.later(LONG_SESSION_MILLIS);
        pool.break_and_resume();
    }
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn an_agent_that_reaches_nobody_leaves_nobody() {
    let mut pool = Pool::chosen();
    pool.leave(REPLICATOR);
    pool.leave(OTHER_REPLICATOR);
    pool.facts();
    assert!(pool.later(100 * LOST_MILLIS).is_empty());
    // Whichever comes back first, the other gets its time too.
    pool.away.remove(&key(OTHER_REPLICATOR).public());
    assert!(pool.facts().is_empty());
    assert!(pool.later(LOST_MILLIS - 1).is_empty());
    pool.away.clear();
    assert_eq!(names(&pool.facts()), ["open"]);
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn nothing_is_left_while_people_or_the_source_or_the_volume_hold_the_work() {
    let holds: [fn(&mut Pool); 3] = [
        |pool| pool.bench.world.want(Desired::Paused),
        |pool| pool.bench.source = Err("unplugged".into()),
        |pool| {
            let failed = TargetState::Failed("no room".into());
            pool.bench.world.target_of(1, REPLICATOR, LENGTH, failed);
        },
    ];
    for (at, hold) in holds.into_iter().enumerate() {
        let mut pool = Pool::chosen();
        hold(&mut pool);
        if at < 2 {
            pool.leave(REPLICATOR);
        }
        pool.facts();
        pool.later(10 * LOST_MILLIS);
        assert!(pool.later(10 * LOST_MILLIS).is_empty());
        assert!(pool.is_at(1, REPLICATOR), "hold {at}");
    }
}

#[test]
fn after_a_time_in_which_nobody_was_reached_the_wait_begins_anew() {
    let mut pool = Pool::chosen();
    pool.leave(REPLICATOR);
    pool.facts();
    assert!(pool.later(LOST_MILLIS - 1).is_empty());
    pool.leave(OTHER_REPLICATOR);
    pool.later(LOST_MILLIS);
    pool.away.remove(&key(OTHER_REPLICATOR).public());
    assert!(pool.facts().is_empty());
    assert!(pool.later(LOST_MILLIS - 1).is_empty());
    assert_eq!(
        names(&pool.later(1)),
        ["store", "replicator-replaced"],
        "and ends"
    );
}

#[test]
fn the_only_usable_replicator_is_not_left_for_itself() {
    let mut pool = Pool::passing();
    let node = pool.bench.world.id(OTHER_REPLICATOR);
    pool.bench.world.revoke(1, node.into());
    for _ in 0..20 {
        pool.break_and_resume();
    }
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn with_one_usable_replicator_it_waits() {
    let mut pool = Pool::chosen();
    let node = pool.bench.world.id(OTHER_REPLICATOR);
    pool.bench.world.revoke(1, node.into());
    pool.leave(REPLICATOR);
    pool.facts();
    assert!(pool.later(100 * LOST_MILLIS).is_empty());
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn the_wait_doubles_with_each_move_until_a_pass_is_completed() {
    let mut pool = Pool::chosen();
    let mut waits = vec![];
    for epoch in 2..9 {
        // Whoever has the epoch is away, and the other is there.
        let (holder, other) = match epoch % 2 {
            0 => (REPLICATOR, OTHER_REPLICATOR),
            _ => (OTHER_REPLICATOR, REPLICATOR),
        };
        pool.away.clear();
        pool.leave(holder);
        pool.facts();
        let began = pool.bench.now.mono_millis;
        let until = pool.bench.agent.deadline_millis().unwrap();
        assert!(pool.later(until - began - 1).is_empty());
        pool.later(1);
        assert!(pool.is_at(epoch, other));
        waits.push((until - began) / LOST_MILLIS);
        // Not forgotten by a restart.
        let stored = pool.bench.agent.record().clone();
        pool.bench.agent = Agent::new(JOB, Some(stored));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
    pool.away.clear();
    pool.provide(8, OTHER_REPLICATOR);
    pool.facts();
    pool.ready();
    pool.bench.pass_done(1);
    assert_eq!(pool.bench.agent.record().moves, 0);
}

#[test]
fn a_root_of_an_epoch_that_is_over_cuts_nothing_over() {
    let mut pool = Pool::passing();
    pool.bench.world.want(Desired::cutover(false));
    pool.facts();
    pool.bench.pass_done(0);
    assert_eq!(
        names(&pool.bench.pass_done(0)),
        ["pass-done", "store", "finish"]
    );
    // The replicator has signed its root, and dies before anybody hears it.
    pool.lost();
    pool.leave(REPLICATOR);
    pool.facts();
    pool.later(LOST_MILLIS);
    assert!(pool.is_at(2, OTHER_REPLICATOR));
    let finished = pool.bench.finished();
    assert!(pool.bench.input(Input::Finished(finished)).is_empty());
    assert!(pool.bench.input(Input::BarrierReached(9)).is_empty());
    let record = pool.bench.agent.record();
    assert_eq!((record.finished.is_some(), record.barrier), (false, 0));
    assert_eq!(pool.bench.stage(), Stage::CuttingOver);
}

#[test]
fn what_was_cut_over_moves_nowhere() {
    let mut pool = Pool::passing();
    pool.bench.world.want(Desired::cutover(false));
    pool.facts();
    pool.bench.pass_done(0);
    pool.bench.pass_done(0);
    let finished = pool.bench.finished();
    pool.bench.input(Input::Finished(finished));
    pool.leave(REPLICATOR);
    let node = pool.bench.world.id(REPLICATOR);
    pool.bench.world.revoke(1, node.into());
    assert!(pool.facts().is_empty());
    assert!(pool.later(100 * LOST_MILLIS).is_empty());
    assert!(pool.is_at(1, REPLICATOR));
}

#[test]
fn what_is_left_out_is_stored_for_the_copy_of_an_epoch_and_sought_anew_for_the_next() {
    let mut pool = Pool::chosen();
    let swap = |uuid| {
        let (offset, length, uuid) = (1 << 20, 1 << 20, [uuid; 16]);
        vec![blocks::SwapArea {
            offset,
            length,
            uuid,
        }]
    };
    let found = |pool: &mut Pool, areas| pool.bench.input(Input::LeftOut(areas));
    assert!(found(&mut pool, swap(1)).is_empty(), "no session found it");
    pool.facts();
    assert_eq!(names(&found(&mut pool, swap(2))), ["store"]);
    pool.ready();
    pool.bench.pass_done(5);
    assert_eq!(pool.bench.agent.record().swap, Some(swap(2)));
    pool.lost();
    pool.leave(REPLICATOR);
    pool.facts();
    pool.later(LOST_MILLIS);
    assert!(pool.is_at(2, OTHER_REPLICATOR));
    assert_eq!(pool.bench.agent.record().swap, None);
}
