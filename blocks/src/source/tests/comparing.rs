//! The comparison of the two trees, and marks and entries that do not fit.

use super::*;
use crate::mark::BLANK_MARK;

#[test]
fn only_groups_that_differ_are_adopted() {
    let geometry = geometry(3);
    let ours = marks(&[1, 2, 3]);
    let theirs = marks(&[1, 9, 3]);
    let their_mark = tree_mark(geometry, theirs.clone());
    let mut source = Source::new(geometry, 0, tree_mark(geometry, ours.clone()), vec![]);
    step(&mut source, Input::Start);
    let (first, count) = (GroupIndex(0), 3);
    assert_eq!(
        step(&mut source, opened(2, their_mark)),
        [
            Output::Send(ToTarget::AskGroups { first, count }),
            Output::LoadGroups { first, count },
        ]
    );
    let marks = theirs;
    assert!(
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, marks })
        )
        .is_empty()
    );
    let group = GroupIndex(1);
    assert_eq!(
        step(&mut source, Input::OurGroups { first, marks: ours }),
        [Output::Send(ToTarget::AskLeaves { group })]
    );
    let entries = entries(9);
    assert_eq!(
        step(
            &mut source,
            Input::Received(ToSource::Leaves {
                group,
                entries: entries.clone()
            })
        ),
        [
            Output::Adopt { group, entries },
            Output::Ready {
                barrier: 2,
                mark: their_mark,
                adopted_groups: 1
            },
        ]
    );
    assert_eq!(source.durable(), (2, their_mark));
}

#[test]
fn neither_half_of_a_page_alone_decides_and_a_mark_that_was_not_loaded_counts_as_another() {
    let geometry = geometry(2);
    let theirs = marks(&[1, 2]);
    let mut source = Source::new(geometry, 0, MARK, vec![]);
    step(&mut source, Input::Start);
    step(&mut source, opened(0, tree_mark(geometry, theirs.clone())));
    let first = GroupIndex(0);
    let ours = theirs[..1].to_vec();
    assert!(step(&mut source, Input::OurGroups { first, marks: ours }).is_empty());
    let marks = theirs;
    let group = GroupIndex(1);
    assert_eq!(
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, marks })
        ),
        [Output::Send(ToTarget::AskLeaves { group })]
    );
}

#[test]
fn a_page_that_was_not_asked_for_is_refused_whosever_it_is() {
    let geometry = geometry(2 * u64::from(MAX_GROUPS_PER_FRAME));
    let first = GroupIndex(u64::from(MAX_GROUPS_PER_FRAME));
    let marks = vec![Mark([9; 32]); MAX_GROUPS_PER_FRAME as usize];
    let comparing = || {
        let mut source = Source::new(geometry, 0, MARK, vec![]);
        step(&mut source, Input::Start);
        step(&mut source, opened(0, MARK_OF_NOTHING));
        source
    };
    let theirs = Input::Received(ToSource::Groups {
        first,
        marks: marks.clone(),
    });
    assert_eq!(
        step(&mut comparing(), theirs),
        [Output::Fail(SessionError::BadGroups { first })]
    );
    assert!(matches!(
        step(&mut comparing(), Input::OurGroups { first, marks })[..],
        [Output::Fail(SessionError::OutOfTurn { .. })]
    ));
}

#[test]
fn large_volumes_are_compared_page_by_page_with_few_questions_in_flight() {
    let groups = u64::from(MAX_GROUPS_PER_FRAME) + 100;
    let geometry = geometry(groups);
    let theirs = marks(&vec![9; groups as usize]);
    let their_mark = tree_mark(geometry, theirs.clone());
    let mut source = Source::new(geometry, 0, MARK, vec![]);
    step(&mut source, Input::Start);
    let mut todo = step(&mut source, opened(0, their_mark));
    let (mut pages, mut asked, mut most, mut adopted) = (Vec::new(), 0, 0, 0);
    let mut answers = std::collections::VecDeque::new();
    while adopted < groups {
        for output in std::mem::take(&mut todo) {
            match output {
                Output::Send(ToTarget::AskGroups { first, count }) => {
                    pages.push(count);
                    let range = first.0 as usize..first.0 as usize + count as usize;
                    let marks = theirs[range].to_vec();
                    answers.push_back(Input::Received(ToSource::Groups { first, marks }));
                }
                Output::LoadGroups { first, count } => {
                    let marks = vec![BLANK_MARK; count as usize];
                    answers.push_back(Input::OurGroups { first, marks });
                }
                Output::Send(ToTarget::AskLeaves { group }) => {
                    asked += 1;
                    let entries = entries(9);
                    answers.push_back(Input::Received(ToSource::Leaves { group, entries }));
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
fn marks_and_entries_that_do_not_fit_the_tree_fail_the_session() {
    let geometry = geometry(2);
    let theirs = marks(&[8, 9]);
    let first = GroupIndex(0);
    let comparing = |their_mark| {
        let mut source = Source::new(geometry, 0, MARK, vec![]);
        step(&mut source, Input::Start);
        step(&mut source, opened(0, their_mark));
        let marks = theirs.clone();
        step(&mut source, Input::OurGroups { first, marks });
        source
    };

    // All marks equal ours, so nothing is asked, yet they are not the tree's.
    let mut source = comparing(MARK_OF_NOTHING);
    let marks = theirs.clone();
    assert_eq!(
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, marks })
        ),
        [Output::Fail(SessionError::BadGroups { first })]
    );

    for (at, marks) in [(0, vec![]), (0, vec![theirs[0]]), (1, theirs.clone())] {
        let mut source = comparing(MARK_OF_NOTHING);
        let first = GroupIndex(at);
        assert_eq!(
            step(
                &mut source,
                Input::Received(ToSource::Groups { first, marks })
            ),
            [Output::Fail(SessionError::BadGroups { first })]
        );
    }

    for (group, entries) in [
        (0, entries(7)),
        (1, entries(9)),
        // What was asked for, as if it were another group's.
        (1, entries(6)),
        (0, vec![]),
    ] {
        let mut source = comparing(MARK_OF_NOTHING);
        let marks = marks_with(&theirs);
        step(
            &mut source,
            Input::Received(ToSource::Groups { first, marks }),
        );
        let group = GroupIndex(group);
        assert_eq!(
            step(
                &mut source,
                Input::Received(ToSource::Leaves { group, entries })
            ),
            [Output::Fail(SessionError::BadLeaves { group })]
        );
    }
}

const MARK_OF_NOTHING: Mark = Mark([0xee; 32]);

/// The same marks but for the first, whose entries are then asked for.
fn marks_with(theirs: &[Mark]) -> Vec<Mark> {
    let mut marks = theirs.to_vec();
    marks[0] = group_mark(&entries(6));
    marks
}

#[test]
fn of_a_sparse_tree_blank_groups_are_told_by_their_mark_and_a_false_entry_is_refused() {
    let geometry = geometry(3);
    let mut partly = entries(0);
    partly[200] = Leaf([7; 32]);
    let theirs = vec![BLANK_MARK, group_mark(&partly), BLANK_MARK];
    let their_mark = tree_mark(geometry, theirs.clone());
    let (first, group) = (GroupIndex(0), GroupIndex(1));
    let asking = || {
        // Nothing was ever stored here, but for one group that is zero there.
        let ours = marks(&[0, 0, 5]);
        let mut source = Source::new(geometry, 0, MARK, vec![]);
        step(&mut source, Input::Start);
        step(&mut source, opened(0, their_mark));
        step(&mut source, Input::OurGroups { first, marks: ours });
        let marks = theirs.clone();
        let theirs = Input::Received(ToSource::Groups { first, marks });
        let ask = |group| Output::Send(ToTarget::AskLeaves { group });
        assert_eq!(step(&mut source, theirs), [ask(group), ask(GroupIndex(2))]);
        source
    };
    let leaves = |group, entries| Input::Received(ToSource::Leaves { group, entries });
    let mut source = asking();
    let entries_of_zeros = entries(0);
    step(&mut source, leaves(group, partly.clone()));
    assert_eq!(
        step(&mut source, leaves(GroupIndex(2), entries_of_zeros.clone())),
        [
            Output::Adopt {
                group: GroupIndex(2),
                entries: entries_of_zeros
            },
            Output::Ready {
                barrier: 0,
                mark: their_mark,
                adopted_groups: 2
            },
        ]
    );
    for (at, entry) in [(200, 0), (200, 8), (0, 7)] {
        let mut entries = partly.clone();
        entries[at] = Leaf([entry; 32]);
        assert_eq!(
            step(&mut asking(), leaves(group, entries)),
            [Output::Fail(SessionError::BadLeaves { group })]
        );
    }
}
