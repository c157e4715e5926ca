//! Whose folder runs twice in a drawn scenario, if one does.
//!
//! It has chance of its own, so that the rest of a scenario does not depend on it.

use crate::rng::{Rng, Stream};
use crate::scenario::{Ending, Migration, Scenario, Twice, Wish};

/// Nodes without which all have something to do that nobody else can.
const MIN_NODES: usize = 5;

/// Lets the folder of a node run twice in some scenarios where nobody else is missing: of
/// an agent, whose migration then stands still; of a replicator, whose place another one
/// takes; or of a node without work.
pub fn draw(scenario: &mut Scenario) {
    let mut rng = Rng::of(scenario.seed, Stream::Twice, &[]);
    let others_are_there = scenario.loss.is_none() && scenario.second_operator.is_none();
    if scenario.nodes < MIN_NODES || !others_are_there || rng.below(2) > 0 {
        return;
    }
    let may = (1..scenario.nodes).filter(|node| may_stand_still(scenario, *node));
    let may: Vec<usize> = may.collect();
    if may.is_empty() {
        return;
    }
    let node = may[rng.index(may.len())];
    for migration in &mut scenario.migrations {
        if migration.agent == node {
            migration.ending = Ending::AgentRunsTwice;
            migration
                .wishes
                .retain(|wish| !matches!(wish.what, Wish::Cutover { .. }));
        }
    }
    let at_millis = rng.between(6_000, scenario.heal_at_millis + 4_000);
    scenario.twice = Some(Twice {
        node,
        copied_at_millis: rng.between(2_000, at_millis),
        at_millis,
    });
}

/// Whether a world ends as it is to while nobody listens to this node.
fn may_stand_still(scenario: &Scenario, node: usize) -> bool {
    match scenario.role_of(node) {
        // What is forged is forged in the name of the last one, where it has no work.
        "member" => node < scenario.nodes - 1,
        "replicator" => scenario.migrations.iter().all(may_move_on),
        "agent" => is_cut_over(scenario, node),
        _ => false,
    }
}

fn may_move_on(migration: &Migration) -> bool {
    let is_kept = [Ending::CutOver, Ending::DeletedAfterwards].contains(&migration.ending);
    is_kept && migration.replicators.len() > 1
}

fn is_cut_over(scenario: &Scenario, agent: usize) -> bool {
    let mut its = scenario.migrations.iter();
    its.all(|migration| migration.agent != agent || migration.ending == Ending::CutOver)
}
