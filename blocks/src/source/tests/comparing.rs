//! The comparison of the two trees, and nodes and leaves that do not fit.

use super::*;

#[test]
fn only_groups_that_differ_are_adopted() {
    let geometry = geometry(3);
    let ours = nodes(geometry, &[1, 2, 3]);
    let theirs = nodes(geometry, &[1, 9, 3]);
    let their_root = root(geometry, theirs.clone());
    let mut source = Source::new(geometry, 0, root(geometry, ours.clone()), vec![]);
    step(&mut source, Input::Start);
    let (first, count) = (GroupIndex(0), 3);
    assert_eq!(
        step(&mut source, opened(2, their_root)),
        [
            Output::Send(ToTarget::AskGroups { first, count }),
            Output::LoadGroups { first, count },
        ]
    );
    let nodes = theirs;
    assert!(
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, nodes })
        )
        .is_empty()
    );
    let group = GroupIndex(1);
    assert_eq!(
        step(&mut source, Input::OurGroups { first, nodes: ours }),
        [Output::Send(ToTarget::AskLeaves { group })]
    );
    let leaves = leaves(9);
    assert_eq!(
        step(
            &mut source,
            Input::Received(ToSource::Leaves {
                group,
                leaves: leaves.clone()
            })
        ),
        [
            Output::Adopt { group, leaves },
            Output::Ready {
                barrier: 2,
                root: their_root,
                adopted_groups: 1
            },
        ]
    );
    assert_eq!(source.durable(), (2, their_root));
}

#[test]
fn neither_half_of_a_page_alone_decides_and_a_node_that_was_not_loaded_counts_as_another() {
    let geometry = geometry(2);
    let theirs = nodes(geometry, &[1, 2]);
    let mut source = Source::new(geometry, 0, ROOT, vec![]);
    step(&mut source, Input::Start);
    step(&mut source, opened(0, root(geometry, theirs.clone())));
    let first = GroupIndex(0);
    let ours = theirs[..1].to_vec();
    assert!(step(&mut source, Input::OurGroups { first, nodes: ours }).is_empty());
    let nodes = theirs;
    let group = GroupIndex(1);
    assert_eq!(
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, nodes })
        ),
        [Output::Send(ToTarget::AskLeaves { group })]
    );
}

#[test]
fn a_page_that_was_not_asked_for_is_refused_whosever_it_is() {
    let geometry = geometry(2 * u64::from(MAX_GROUPS_PER_FRAME));
    let first = GroupIndex(u64::from(MAX_GROUPS_PER_FRAME));
    let nodes = vec![Node([9; 32]); MAX_GROUPS_PER_FRAME as usize];
    let comparing = || {
        let mut source = Source::new(geometry, 0, ROOT, vec![]);
        step(&mut source, Input::Start);
        step(&mut source, opened(0, ROOT_OF_NOTHING));
        source
    };
    let theirs = Input::Received(ToSource::Groups {
        first,
        nodes: nodes.clone(),
    });
    assert_eq!(
        step(&mut comparing(), theirs),
        [Output::Fail(SessionError::BadGroups { first })]
    );
    assert!(matches!(
        step(&mut comparing(), Input::OurGroups { first, nodes })[..],
        [Output::Fail(SessionError::OutOfTurn { .. })]
    ));
}

#[test]
fn large_volumes_are_compared_page_by_page_with_few_questions_in_flight() {
    let groups = u64::from(MAX_GROUPS_PER_FRAME) + 100;
    let geometry = geometry(groups);
    let theirs = nodes(geometry, &vec![9; groups as usize]);
    let their_root = root(geometry, theirs.clone());
    let mut source = Source::new(geometry, 0, ROOT, vec![]);
    step(&mut source, Input::Start);
    let mut todo = step(&mut source, opened(0, their_root));
    let (mut pages, mut asked, mut most, mut adopted) = (Vec::new(), 0, 0, 0);
    let mut answers = std::collections::VecDeque::new();
    while adopted < groups {
        for output in std::mem::take(&mut todo) {
            match output {
                Output::Send(ToTarget::AskGroups { first, count }) => {
                    pages.push(count);
                    let range = first.0 as usize..first.0 as usize + count as usize;
                    let nodes = theirs[range].to_vec();
                    answers.push_back(Input::Received(ToSource::Groups { first, nodes }));
                }
                Output::LoadGroups { first, count } => {
                    let nodes = vec![Node([0; 32]); count as usize];
                    answers.push_back(Input::OurGroups { first, nodes });
                }
                Output::Send(ToTarget::AskLeaves { group }) => {
                    asked += 1;
                    let leaves = leaves(9);
                    answers.push_back(Input::Received(ToSource::Leaves { group, leaves }));
                }
                Output::Adopt { .. } => adopted += 1,
                Output::Ready { adopted_groups, .. } => assert_eq!(adopted_groups, groups),
                output => panic!("{output:?}"),
            }
            most = most.max(asked - adopted);
        }
        if let Some(answer) = answers.pop_front() {
            todo = step(&mut source, answer);
        }
    }
    assert_eq!(pages, [MAX_GROUPS_PER_FRAME, 100]);
    assert!(most <= 64, "{most} questions in flight");
}

#[test]
fn nodes_and_leaves_that_do_not_fit_the_root_fail_the_session() {
    let geometry = geometry(2);
    let theirs = nodes(geometry, &[8, 9]);
    let first = GroupIndex(0);
    let comparing = |their_root| {
        let mut source = Source::new(geometry, 0, ROOT, vec![]);
        step(&mut source, Input::Start);
        step(&mut source, opened(0, their_root));
        let nodes = theirs.clone();
        step(&mut source, Input::OurGroups { first, nodes });
        source
    };

    // All nodes equal ours, so nothing is asked, yet they are not the root's.
    let mut source = comparing(ROOT_OF_NOTHING);
    let nodes = theirs.clone();
    assert_eq!(
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, nodes })
        ),
        [Output::Fail(SessionError::BadGroups { first })]
    );

    for (at, nodes) in [(0, vec![]), (0, vec![theirs[0]]), (1, theirs.clone())] {
        let mut source = comparing(ROOT_OF_NOTHING);
        let first = GroupIndex(at);
        assert_eq!(
            step(
                &mut source,
                Input::Received(ToSource::Groups { first, nodes })
            ),
            [Output::Fail(SessionError::BadGroups { first })]
        );
    }

    for (group, leaves) in [
        (0, leaves(7)),
        (1, leaves(9)),
        // What was asked for, as if it were another group's.
        (1, leaves(6)),
        (0, vec![]),
    ] {
        let mut source = comparing(ROOT_OF_NOTHING);
        let nodes = nodes_with(&theirs, geometry);
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, nodes }),
        );
        let group = GroupIndex(group);
        assert_eq!(
            step(
                &mut source,
                Input::Received(ToSource::Leaves { group, leaves })
            ),
            [Output::Fail(SessionError::BadLeaves { group })]
        );
    }
}

const ROOT_OF_NOTHING: Root = Root([0xee; 32]);

/// The same nodes but for the first, whose leaves are then asked for.
fn nodes_with(theirs: &[Node], geometry: Geometry) -> Vec<Node> {
    let mut nodes = theirs.to_vec();
    nodes[0] = group_node(geometry, GroupIndex(0), &leaves(6));
    nodes
}
