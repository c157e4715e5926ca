//! Scenario files: those of the project are run, and what cannot be is refused.

use crate::context::Seen;
use crate::scenario::Scenario;
use crate::world;
use std::path::PathBuf;

const SMALL: &str = r#"
seed = 1
nodes = 3
quiet_at_millis = 1000
heal_at_millis = 2000

[[migration]]
agent = 1
replicators = [2]
volume_bytes = [65536]
ending = "cut-over"
wish = [{ at_millis = 1000, want = "create" }]

[[fault]]
at_millis = 1500
kind = "dies"
node = 2
death = "power"
down_millis = 500
"#;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// One of the project's own files.
pub fn named(name: &str) -> Scenario {
    Scenario::read(&folder().join(name).with_extension("toml")).unwrap()
}

fn refused(text: &str) -> String {
    Scenario::parse(text).unwrap_err().to_string()
}

#[test]
fn every_scenario_in_the_folder_holds_and_reaches_what_it_is_about() {
    let mut files = 0;
    for entry in folder().read_dir().unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::read(&path).unwrap_or_else(|why| panic!("{path:?} {why}"));
        let mut seen = Seen::default();
        for seed in [scenario.seed, 1, 2] {
            let outcome = world::run(&scenario.with_seed(seed), None, None);
            assert_eq!(outcome.violation, None, "{path:?} with seed {seed}");
            seen.add(&outcome.seen);
        }
        assert!(!scenario.reaches.is_empty(), "{path:?} reaches nothing");
        for (name, count) in seen.table() {
            let is_wanted = scenario.reaches.iter().any(|wanted| wanted == name);
            assert!(count > 0 || !is_wanted, "{path:?}: no {name}");
        }
        files += 1;
    }
    assert!(files >= 8, "only {files} scenarios were found");
}

#[test]
fn a_drawn_scenario_is_the_same_when_it_was_written_down_and_read_again() {
    for seed in 0..40 {
        let drawn = Scenario::draw(seed, 7);
        let read = Scenario::parse(&drawn.text()).unwrap_or_else(|why| panic!("seed {seed} {why}"));
        assert_eq!(read, drawn);
    }
    let drawn = Scenario::draw(3, 5);
    let read = Scenario::parse(&drawn.text()).unwrap();
    let hash = |scenario| world::run(scenario, None, None).hash;
    assert_eq!(hash(&read), hash(&drawn));
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    assert!(Scenario::parse(SMALL).is_ok());
    let why = refused(&SMALL.replace("quiet_at_millis", "quiet_millis"));
    assert!(
        why.contains("quiet_millis") && why.contains("line 4"),
        "{why}"
    );
    let why = refused(&SMALL.replace("agent = 1", "agent = 1\nsender = 2"));
    assert!(why.contains("sender") && why.contains("line 9"), "{why}");
    let why = refused(&SMALL.replace("node = 2", "node = 2\nfor_millis = 9"));
    assert!(
        why.contains("for_millis") && why.contains("line 14"),
        "{why}"
    );
    let why = refused(&SMALL.replace("want = \"create\"", "want = \"everything\""));
    assert!(
        why.contains("everything") && why.contains("line 12"),
        "{why}"
    );
    let why = refused(&SMALL.replace("death = \"power\"", "death = \"boredom\""));
    assert!(why.contains("boredom"), "{why}");
}

#[test]
fn what_is_beyond_a_limit_is_refused_and_says_what_may_be() {
    for (from, to, said) in [
        ("nodes = 3", "nodes = 2", "nodes is 2; it may be 3 to 32"),
        (
            "agent = 1",
            "agent = 3",
            "migration 1: agent is 3; it may be 1 to 2",
        ),
        ("[2]", "[1]", "node 1 is named twice"),
        ("[65536]", "[65537]", "no multiple of 512"),
        (
            "node = 2",
            "node = 3",
            "fault 1: node is 3; it may be 0 to 2",
        ),
        (
            "at_millis = 1500",
            "at_millis = 2500",
            "fault 1: at_millis is 2500",
        ),
        ("down_millis = 500", "down_millis = 0", "down_millis is 0"),
        (
            "seed = 1",
            "seed = 1\nclock_secs = [0, 86401, 0]",
            "clock_secs is 86401",
        ),
        (
            "seed = 1",
            "seed = 1\nboot_clock_secs = 86401",
            "boot_clock_secs is 86401",
        ),
        (
            "agent = 1",
            "agent = 1\nlease_secs = 1",
            "migration 1: lease_secs is 1; it may be 2 to 604800",
        ),
        (
            "seed = 1",
            "seed = 1\nclock_secs = [0]",
            "one for each of the 3 nodes",
        ),
        (
            "seed = 1",
            "seed = 1\nreaches = [\"tea\"]",
            "nothing is counted under that name",
        ),
        (
            "[[fault]]",
            "[chance]\nlost = 1001\n[[fault]]",
            "chance.lost is 1001",
        ),
    ] {
        let why = refused(&SMALL.replacen(from, to, 1));
        assert!(why.contains(said), "{to}: {why}");
    }
}
