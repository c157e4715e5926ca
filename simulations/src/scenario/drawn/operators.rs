//! What a drawn scenario asks of operators beside the first: who is one, what they
//! decide while the first decides something else, and whether the first is lost.
//!
//! It has chance of its own, so that the rest of a scenario does not depend on it.

use crate::rng::{Rng, Stream};
use crate::scenario::{At, Ending, Loss, Migration, Scenario, Wish};

/// Nodes without which there is none beside those that move blocks.
const MIN_NODES: usize = 6;

/// Makes half of the scenarios with room for it such of two operators.
pub fn draw(scenario: &mut Scenario) {
    let mut rng = Rng::of(scenario.seed, Stream::Operators, &[]);
    let strands = matches!(scenario.loss, Some(Loss::Others { .. }));
    if scenario.nodes < MIN_NODES || strands || rng.below(2) == 0 {
        return;
    }
    let last = scenario.nodes - 1;
    if last > 5 && needs_no_founder(scenario) && rng.below(2) == 0 {
        recover(scenario, last, &mut rng);
        scenario.second_operator = (rng.below(2) == 0).then_some(5);
        if scenario.second_operator.is_none() {
            return;
        }
    } else {
        let spare = rng.between(5, scenario.nodes as u64);
        scenario.second_operator = usize::try_from(spare).ok();
        lose_the_first(scenario, &mut rng);
    }
    let quiet_at = scenario.quiet_at_millis;
    for migration in &mut scenario.migrations {
        match rng.below(4) {
            0 => second_starts(migration),
            1 if migration.replicators.len() > 1 => {
                name_apart(migration, rng.between(6_000, quiet_at));
            }
            2 => second_stops(migration, &mut rng),
            _ => {}
        }
    }
}

/// The first operator is lost where nobody needs what it alone can do.
fn lose_the_first(scenario: &mut Scenario, rng: &mut Rng) {
    let is_cut = |migration: &Migration| {
        [Ending::CutOver, Ending::DeletedAfterwards].contains(&migration.ending)
    };
    let is_cut = scenario.migrations.iter().all(is_cut);
    if is_cut && needs_no_founder(scenario) && rng.below(2) == 0 {
        let at_millis = rng.between(10_000, scenario.heal_at_millis + 8_000);
        scenario.loss = Some(Loss::Operator {
            at_millis,
            recovered_by: None,
            thief_after_millis: None,
        });
    }
}

/// Whether there is nothing that only the first node can do.
fn needs_no_founder(scenario: &Scenario) -> bool {
    let mut migrations = scenario.migrations.iter();
    scenario.loss != Some(Loss::Revoked) && migrations.all(|all| all.provisioner != 0)
}

/// The first operator is lost, and a new one made with the root key does all that it did.
fn recover(scenario: &mut Scenario, heir: usize, rng: &mut Rng) {
    scenario.loss = Some(Loss::Operator {
        at_millis: rng.between(10_000, scenario.heal_at_millis + 8_000),
        recovered_by: Some(heir),
        thief_after_millis: (rng.below(3) > 0).then(|| rng.between(1, 4_000)),
    });
}

/// The second operator grants, and takes back what it granted.
fn second_starts(migration: &mut Migration) {
    let is_its = |wish: &At<Wish>| matches!(wish.what, Wish::Start | Wish::RevokeGrants);
    let all = std::mem::take(&mut migration.wishes);
    let (its, others) = all.into_iter().partition(is_its);
    migration.wishes = others;
    migration.second_wishes = its;
}

/// Each operator names another replicator at the same time.
fn name_apart(migration: &mut Migration, at_millis: u64) {
    let name = |place| At {
        at_millis,
        what: Wish::NameReplicator {
            place,
            alone: false,
        },
    };
    let next = migration
        .wishes
        .iter()
        .position(|wish| wish.at_millis > at_millis);
    let next = next.unwrap_or(migration.wishes.len());
    migration.wishes.insert(next, name(0));
    migration.second_wishes.push_back(name(1));
}

/// The second operator pauses or deletes when the first asks for the cutover.
fn second_stops(migration: &mut Migration, rng: &mut Rng) {
    let mut wishes = migration.wishes.iter();
    let cutover = wishes.find(|wish| matches!(wish.what, Wish::Cutover { .. }));
    let Some(At { at_millis, what }) = cutover.copied() else {
        return;
    };
    match migration.ending {
        Ending::CutOver | Ending::DeletedAfterwards => {
            let again = at_millis + rng.between(1_000, 12_000);
            let its = [(at_millis, Wish::Pause), (again, what)];
            let its = its.map(|(at_millis, what)| At { at_millis, what });
            migration.second_wishes.extend(its);
        }
        Ending::Deleted => {
            let is_its = |wish: &At<Wish>| wish.what == Wish::Delete;
            migration.wishes.retain(|wish| !is_its(wish));
            let what = Wish::Delete;
            migration.second_wishes.push_back(At { at_millis, what });
        }
        _ => {}
    }
}
