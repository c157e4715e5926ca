//! What each stage of a target hears, and what becomes of all that is out of turn.

use super::*;

/// A target after one pass began, with something written for barrier 5.
fn pending() -> Target {
    let mut target = passing();
    step(&mut target, zero(0, 1));
    target
}

/// A target that was asked for barrier 4 and has not flushed it.
fn flushing() -> Target {
    let mut target = Target::new(geometry(), 3, MARK);
    for input in [
        open(geometry().length()),
        frame(ToTarget::BeginPass { pass: 3 }),
        zero(0, 1),
        barrier(4),
    ] {
        step(&mut target, input);
    }
    target
}

fn offer() -> ToTarget {
    let Extent::Data { first, leaves } = checked(300).into_extent() else {
        unreachable!("made as data")
    };
    ToTarget::Offer {
        first,
        leaves,
        fingerprints: vec![],
    }
}

/// A target that looks for what was offered, while a barrier is flushed.
fn consulting() -> Target {
    let mut target = flushing();
    step(&mut target, frame(offer()));
    target
}

fn finishing(read_back: bool) -> Target {
    let mut target = serving();
    step(&mut target, finish(4, ROOT, read_back));
    target
}

fn proving() -> Target {
    let mut target = finishing(true);
    step(&mut target, Input::ReadBack { root: ROOT });
    target
}

/// One input of each kind, each in order but for the stage it comes in.
fn one_of_each(target: &Target) -> Vec<(&'static str, Input)> {
    let (durable, mark) = target.durable();
    let root = ROOT;
    let group = GroupIndex(0);
    let (first, count) = (group, 1);
    vec![
        ("open", open(geometry().length())),
        ("groups?", frame(ToTarget::AskGroups { first, count })),
        ("leaves?", frame(ToTarget::AskLeaves { group })),
        ("pass", frame(ToTarget::BeginPass { pass: 4 })),
        ("zero", zero(300, 1)),
        ("data", Input::ExtentChecked(checked(300))),
        ("offer", frame(offer())),
        ("consulted", {
            let (first, held) = (BlockIndex(300), vec![Held::Nothing]);
            Input::Consulted { first, held }
        }),
        ("barrier", barrier(5)),
        ("finish", finish(durable, root, false)),
        ("flushed", Input::Flushed { barrier: 4, mark }),
        ("root", Input::RootComputed { root }),
        ("read back", Input::ReadBack { root }),
        ("proved", Input::Proved { proof: vec![] }),
    ]
}

/// A target at some stage, and the names of what it hears there.
type Heard = (fn() -> Target, Vec<&'static str>);

#[test]
fn each_stage_hears_what_belongs_to_it_and_nothing_else() {
    let waiting = || Target::new(geometry(), 4, MARK);
    let level = ["groups?", "leaves?", "pass", "finish"];
    let writing = ["zero", "data", "offer", "barrier"];
    let stages: [Heard; 9] = [
        (waiting, vec!["open"]),
        (serving, level.to_vec()),
        (passing, [&level[..], &writing].concat()),
        (pending, writing.to_vec()),
        (flushing, [&writing[..], &["flushed"]].concat()),
        (consulting, vec!["data", "consulted", "flushed"]),
        (|| finishing(true), vec!["read back"]),
        (|| finishing(false), vec!["root"]),
        (proving, vec!["proved"]),
    ];
    for (make, heard) in stages {
        for (name, input) in one_of_each(&make()) {
            let mut target = make();
            let stage = target.stage();
            let out = step(&mut target, input);
            let is_over = target.is_over();
            assert_eq!(is_over, !heard.contains(&name), "{name} while {stage}");
            if !is_over {
                continue;
            }
            let Some(Output::Fail(error)) = out.last() else {
                panic!("{name} while {stage}: {out:?}");
            };
            let told = error.to_string();
            assert!(
                told.contains(stage) || (stage == "serving" && told.contains("no pass")),
                "{name} while {stage}: {told}"
            );
        }
    }
}

#[test]
fn a_source_out_of_turn_voids_nothing_and_a_shell_out_of_turn_all_that_is_not_durable() {
    for (name, input) in one_of_each(&pending()) {
        let mut target = pending();
        let out = step(&mut target, input);
        let settled = matches!(out[0], Output::Settle { .. });
        match name {
            "open" | "groups?" | "leaves?" | "pass" | "finish" => {
                assert_eq!((refused(&out), settled), (RefusalCode::BadFrame, true));
            }
            "consulted" | "flushed" | "root" | "read back" | "proved" => {
                assert_eq!(
                    (refused(&out), settled),
                    (RefusalCode::StorageFailed, false)
                );
            }
            _ => assert!(!target.is_over(), "{name}"),
        }
    }
}

#[test]
fn a_page_of_more_groups_than_a_frame_holds_is_refused_in_any_volume() {
    let geometry = Geometry::new(2000 * GROUP_BLOCKS * 65536).unwrap();
    for (count, fits) in [
        (MAX_GROUPS_PER_FRAME, true),
        (MAX_GROUPS_PER_FRAME + 1, false),
    ] {
        let mut target = Target::new(geometry, 4, MARK);
        step(&mut target, open(geometry.length()));
        let first = GroupIndex(0);
        step(&mut target, frame(ToTarget::AskGroups { first, count }));
        assert_eq!(!target.is_over(), fits, "{count} groups");
    }
}
