//! The corpus is what the targets make of it, and every input in it holds.

use crate::chance::Chance;
use crate::target::Verdict;
use crate::{child, corpus, mutate, targets};

#[test]
fn every_input_of_the_corpus_holds() {
    for target in targets::all() {
        let inputs = corpus::read(target.name()).expect("each target has a corpus");
        assert!(!inputs.is_empty(), "{} has no corpus", target.name());
        for (name, input) in inputs {
            let ended = child::hold(&*target, &input);
            assert!(ended.is_ok(), "{} {name}: {ended:?}", target.name());
        }
    }
}

/// Formats change on purpose only: `cargo run -p fuzz -- seeds` writes them anew.
#[test]
fn the_seeds_in_the_tree_are_those_of_this_program_and_some_are_taken() {
    for target in targets::all() {
        let held = corpus::read(target.name()).expect("each target has a corpus");
        let held: Vec<_> = held
            .into_iter()
            .filter(|(name, _)| name.starts_with("seed-"))
            .collect();
        let made = target.seeds().into_iter().enumerate();
        let made: Vec<_> = made
            .map(|(number, seed)| (corpus::seed_name(number), seed))
            .collect();
        assert!(held == made, "the seeds of {} are others", target.name());
        let mut seeds = made.iter();
        let taken = seeds.any(|(_, seed)| child::hold(&*target, seed) == Ok(Verdict::Accepted));
        assert!(taken, "{} takes none of its seeds", target.name());
    }
}

#[test]
fn mutations_depend_on_their_seed_only_and_change_something() {
    let made = |seed| {
        let mut chance = Chance::new(seed);
        let mut input = vec![7; 40];
        mutate::mutate(&mut input, &[1, 2, 3], &mut chance);
        input
    };
    assert_eq!(made(5), made(5));
    let changed = (0..100).filter(|seed| made(*seed) != [7; 40]).count();
    assert!(changed > 80, "{changed} of 100 changed anything");
}
