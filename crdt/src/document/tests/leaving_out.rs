//! What a migration leaves out, in the document.

use super::*;
use crate::plan::LeaveOut;

#[test]
fn what_is_left_out_is_planned_with_a_migration_and_what_is_not_known_is_no_plan() {
    let world = World::of(&[1]);
    let mut node = Node::new(&world, 1);
    let swap = Some(LeaveOut::Swap);
    let plan = MigrationPlan {
        leave_out: swap,
        ..migration(M1)
    };
    node.edit(&world, |edit| {
        edit.create_migration(&plan)?;
        edit.create_migration(&migration(M2))
    });
    let loaded = Document::load(world.mesh(), all(&node.document), None, &world.authority());
    let loaded = loaded.unwrap();
    let plans = &loaded.plan().migrations;
    assert_eq!((plans[&M1].leave_out, plans[&M2].leave_out), (swap, None));
    assert_eq!("swap".parse(), Ok(LeaveOut::Swap));
    for bad in ["", "Swap", "free space"] {
        assert!(bad.parse::<LeaveOut>().is_err(), "{bad}");
    }
}
