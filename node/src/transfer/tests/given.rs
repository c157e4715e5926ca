//! A tracker that says what a test told it to, and remembers what it is told.

use std::sync::{Arc, Mutex};

use blocks::{DirtySet, GroupIndex};

use crate::transfer::{ChangeTracker, Collected, TrackerLost, Trackers};

/// What a test tells its tracker, and what it was told. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Given(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub struct State {
    /// What the next pass finds; without it nothing is known.
    pub dirty: Option<DirtySet>,
    /// Groups that were owed since the last pass that was settled.
    pub owed: Vec<u64>,
    /// Groups that it was told of.
    pub told: u32,
    /// Passes begun and settled.
    pub collected: u32,
    pub settled: u32,
    /// It is gone.
    pub is_lost: bool,
    /// For which trees it was asked.
    pub trees: Vec<[u8; 16]>,
}

impl Given {
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub fn trackers(&self) -> Trackers {
        let given = self.clone();
        Trackers::new(move |_, tree| {
            given.with(|state| match state.is_lost {
                true => Err("it is lost".to_owned()),
                false => {
                    state.trees.push(tree);
                    Ok(Box::new(given.clone()) as Box<dyn ChangeTracker>)
                }
            })
        })
    }

    fn there<T>(&self, step: impl FnOnce(&mut State) -> T) -> Result<T, TrackerLost> {
        self.with(|state| match state.is_lost {
            true => Err(TrackerLost {
                volume: "source".into(),
                why: "it is lost".into(),
            }),
            false => Ok(step(state)),
        })
    }
}

impl ChangeTracker for Given {
    fn collect(&mut self, into: &mut DirtySet) -> Result<Collected, TrackerLost> {
        self.there(|state| {
            state.collected += 1;
            let dirty = state.dirty.take();
            if let Some(dirty) = &dirty {
                into.merge(dirty);
            }
            Collected {
                pass: state.collected.into(),
                whole_because: dirty.is_none().then(|| "nothing was given".to_owned()),
                is_final: true,
                is_followed: true,
                how: "by the test".to_owned(),
            }
        })
    }

    fn owe(&mut self, group: GroupIndex) -> Result<(), TrackerLost> {
        self.there(|state| {
            state.told += 1;
            state.owed.push(group.0);
        })
    }

    fn settled(&mut self, pass: u64) -> Result<(), TrackerLost> {
        self.there(|state| {
            assert_eq!(pass, u64::from(state.collected));
            state.settled += 1;
            state.owed.clear();
        })
    }
}
