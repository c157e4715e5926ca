//! What each stage of a source hears, and that all else ends its session.

use super::*;

fn two() -> Geometry {
    geometry(2)
}

fn ours() -> Vec<Mark> {
    marks(&[1, 2])
}

fn theirs() -> Vec<Mark> {
    marks(&[1, 9])
}

fn after(inputs: impl IntoIterator<Item = Input>) -> Source {
    let mut source = Source::new(two(), 1, MARK, vec![]);
    for input in inputs {
        let out = step(&mut source, input);
        assert!(!matches!(out.last(), Some(Output::Fail(_))), "{out:?}");
    }
    source
}

fn our_marks() -> Input {
    let (first, marks) = (GroupIndex(0), ours());
    Input::OurGroups { first, marks }
}

fn their_marks() -> Input {
    let (first, marks) = (GroupIndex(0), theirs());
    Input::Received(ToSource::Groups { first, marks })
}

fn finish() -> Input {
    let (root, read_back) = (ROOT, true);
    Input::Finish { root, read_back }
}

fn offered() -> Input {
    let (first, leaves) = (BlockIndex(9), vec![Leaf([9; 32])]);
    Input::Offered { first, leaves }
}

fn answer() -> Input {
    let (first, held) = (BlockIndex(9), vec![Held::Made]);
    Input::Received(ToSource::Answer { first, held })
}

/// Each stage by the inputs that lead there, and what it hears.
fn stages() -> Vec<(&'static str, Vec<Input>, Vec<&'static str>)> {
    let compare = || vec![Input::Start, opened(1, tree_mark(two(), theirs()))];
    let ready = || vec![Input::Start, opened(1, MARK)];
    let pass = || [ready(), vec![Input::BeginPass { pass: 5 }]].concat();
    let asked = || [pass(), vec![sent(data(0, 1)), Input::BarrierDue]].concat();
    let and = |mut before: Vec<Input>, then: Input| {
        before.push(then);
        before
    };
    vec![
        ("waiting", vec![], vec!["start"]),
        ("opening", vec![Input::Start], vec!["opened"]),
        ("comparing", compare(), vec!["our marks", "their marks"]),
        (
            "comparing",
            and(compare(), our_marks()),
            vec!["their marks"],
        ),
        (
            "comparing",
            and(compare(), their_marks()),
            vec!["our marks"],
        ),
        (
            "comparing",
            and(and(compare(), their_marks()), our_marks()),
            vec!["leaves"],
        ),
        ("ready", ready(), vec!["pass", "finish"]),
        ("passing", pass(), vec!["extent", "offer", "read"]),
        ("passing", and(pass(), offered()), vec!["extent", "answer"]),
        (
            "passing",
            asked(),
            vec!["extent", "offer", "read", "durable"],
        ),
        (
            "passing",
            and(asked(), durable(2)),
            vec!["extent", "offer", "read", "committed"],
        ),
        (
            "stopping",
            and(and(pass(), offered()), Input::Stop),
            vec!["answer"],
        ),
        ("draining", and(asked(), Input::PassRead), vec!["durable"]),
        ("stopping", and(asked(), Input::Stop), vec!["durable"]),
        ("finishing", and(ready(), finish()), vec!["finished"]),
    ]
}

/// One input of each kind, each in order but for the stage it comes in.
fn one_of_each() -> Vec<(&'static str, Input)> {
    let (group, entries) = (GroupIndex(1), entries(9));
    let (root, read_back, proof) = (ROOT, true, vec![]);
    let finished = ToSource::Finished {
        root,
        read_back,
        proof,
    };
    vec![
        ("start", Input::Start),
        ("opened", opened(1, MARK)),
        ("our marks", our_marks()),
        ("their marks", their_marks()),
        (
            "leaves",
            Input::Received(ToSource::Leaves { group, entries }),
        ),
        ("pass", Input::BeginPass { pass: 6 }),
        ("extent", sent(data(7, 1))),
        ("offer", offered()),
        ("answer", answer()),
        ("read", Input::PassRead),
        ("durable", durable(2)),
        ("committed", committed(2)),
        ("finish", finish()),
        ("finished", Input::Received(finished)),
    ]
}

#[test]
fn each_stage_hears_what_belongs_to_it_and_nothing_else() {
    for (stage, before, heard) in stages() {
        for (name, input) in one_of_each() {
            let mut source = after(before.clone());
            assert_eq!(source.stage(), stage);
            let out = step(&mut source, input);
            let failed = matches!(out[..], [Output::Fail(_)]);
            assert_eq!(failed, !heard.contains(&name), "{name} while {stage}");
        }
    }
}

#[test]
fn a_lost_stream_a_refusal_and_a_stop_are_heard_in_every_stage() {
    for (stage, before, _) in stages() {
        let code = RefusalCode::Busy;
        let reason = CloseReason::Lost;
        for input in [
            Input::Received(ToSource::Refused { code }),
            Input::Closed(reason),
        ] {
            let mut source = after(before.clone());
            let out = step(&mut source, input);
            assert!(source.is_over(), "{stage}: {out:?}");
            assert_eq!(out.len(), 1, "{stage}: {out:?}");
        }
        let mut source = after(before);
        let out = step(&mut source, Input::Stop);
        assert!(!matches!(out.last(), Some(Output::Fail(_))), "{stage}");
    }
}
