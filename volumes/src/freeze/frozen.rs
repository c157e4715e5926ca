//! File systems while they are frozen, and the thread that lets them go when their time is
//! over, whatever hangs elsewhere.
//!
//! ```text
//!             thaw, drop ─────────────▶ Thawed
//! Frozen ──┬─ the deadline ───────────▶ Thawed, and `is_thawed` says so
//!          └─ keep ───────────────────▶ Kept: nothing of ours thaws them
//! ```
//!
//! The thread needs no lock that is held while anything waits for a disk, no memory that was
//! not there before, and nothing of a file system.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::left::{Left, thaw_opened};
use super::{Held, Unfrozen, kernel};

/// The thread calls the kernel and little else.
const STACK_BYTES: usize = 128 * 1024;

/// What became of them.
#[derive(Debug)]
pub struct Thawed {
    /// Each, in the order in which they were thawed.
    pub file_systems: Vec<ThawedOne>,
    /// From before the first was frozen to when thawing began.
    pub frozen_for: Duration,
    /// The deadline came first: what was read until now need not be of one moment.
    pub is_by_deadline: bool,
}

impl Thawed {
    /// None of them is frozen any more.
    pub fn is_complete(&self) -> bool {
        self.file_systems.iter().all(|one| one.result.is_ok())
    }
}

/// What became of one.
#[derive(Debug)]
pub struct ThawedOne {
    /// Where it is mounted.
    pub at: PathBuf,
    /// Where that failed it may be frozen still: `fsfreeze -u` may let it go.
    pub result: io::Result<()>,
}

/// Why they do not stay frozen for good.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// Their time was over before.
    #[error("the file systems were thawed at their deadline: freeze them again")]
    Thawed,
    /// It could not be noted, so that who comes after a crash would thaw them.
    #[error("cannot note in {left} that the file systems stay frozen: {source}; they were thawed")]
    Note {
        /// The file.
        left: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Where they are in the diagram above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Frozen { until: Instant },
    Thawed { at: Instant, is_by_deadline: bool },
    Kept,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// Places among those that are held, in the order in which they were frozen.
    frozen: Vec<usize>,
    /// With what came of thawing them.
    thawed: Vec<(usize, io::Result<()>)>,
}

#[derive(Debug)]
struct Shared {
    held: Arc<[Held]>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after each statement that changes it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does.
    fn watch(&self) {
        let mut state = self.state();
        while let Stage::Frozen { until } = state.stage {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.thaw(state, true);
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Thaws those that are frozen, the last one first: to thaw one may write to the one
    /// that it lies within.
    fn thaw<'s>(&'s self, mut state: MutexGuard<'s, State>, is_by_deadline: bool) {
        if let Stage::Frozen { .. } = state.stage {
            let at = Instant::now();
            state.stage = Stage::Thawed { at, is_by_deadline };
            self.changed.notify_all();
        }
        while let Some(place) = state.frozen.pop() {
            drop(state);
            let result = thaw_opened(&self.held[place].file);
            state = self.state();
            state.thawed.push((place, result));
        }
    }
}

/// File systems to which nobody writes: who tries waits until they are thawed. They are when
/// it is dropped.
///
/// Between freezing and thawing nothing may be written to them, logs included, and no memory
/// may have to be read from them ([`super::lock_memory`]).
#[derive(Debug)]
pub struct Frozen {
    shared: Arc<Shared>,
    left: Left,
    began: Instant,
    unfrozen: Vec<Unfrozen>,
    thread: Option<JoinHandle<()>>,
}

/// Why one could not be frozen.
#[derive(Debug)]
pub(super) enum NotFrozen {
    /// It was to be noted first.
    Note(io::Error),
    Refused(io::Error),
    Late,
}

impl Frozen {
    /// Begins with none frozen yet, and the thread that thaws them.
    pub(super) fn begin(held: Arc<[Held]>, deadline: Duration, left: Left) -> io::Result<Self> {
        let began = Instant::now();
        let until = began + deadline;
        let count = held.len();
        let shared = Arc::new(Shared {
            held,
            state: Mutex::new(State {
                stage: Stage::Frozen { until },
                frozen: Vec::with_capacity(count),
                thawed: Vec::with_capacity(count),
            }),
            changed: Condvar::new(),
        });
        let mut frozen = Self {
            shared: Arc::clone(&shared),
            left,
            began,
            unfrozen: Vec::with_capacity(count),
            thread: None,
        };
        let builder = thread::Builder::new().name("thaw".to_owned());
        let builder = builder.stack_size(STACK_BYTES);
        frozen.thread = Some(builder.spawn(move || shared.watch())?);
        Ok(frozen)
    }

    /// Freezes the one at this place; false where it cannot be frozen.
    pub(super) fn freeze(&mut self, place: usize) -> Result<bool, NotFrozen> {
        let one = &self.shared.held[place];
        self.left.note(&one.mounted).map_err(NotFrozen::Note)?;
        match kernel::freeze(&one.file) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(false),
            Err(error) => return Err(NotFrozen::Refused(error)),
        }
        let mut state = self.shared.state();
        state.frozen.push(place);
        match state.stage {
            Stage::Frozen { until } if Instant::now() < until => Ok(true),
            // The thread may have gone through them without this one.
            _ => {
                self.shared.thaw(state, true);
                Err(NotFrozen::Late)
            }
        }
    }

    pub(super) fn tell_unfrozen(&mut self, unfrozen: Unfrozen) {
        self.unfrozen.push(unfrozen);
    }

    /// Those that cannot be frozen, and were written out instead: they may be written to,
    /// and only what is marked as written tells whether they were.
    pub fn unfrozen(&self) -> &[Unfrozen] {
        &self.unfrozen
    }

    /// How many are frozen, or were until the deadline.
    pub fn count(&self) -> usize {
        let state = self.shared.state();
        state.frozen.len() + state.thawed.len()
    }

    /// For how long by now; until the deadline, where it came.
    pub fn frozen_for(&self) -> Duration {
        match self.shared.state().stage {
            Stage::Thawed { at, .. } => at - self.began,
            _ => self.began.elapsed(),
        }
    }

    /// The deadline came, and thawing has at least begun.
    pub fn is_thawed(&self) -> bool {
        matches!(self.shared.state().stage, Stage::Thawed { .. })
    }

    /// From now on they are thawed after so long; false where the deadline came.
    pub fn extend(&self, deadline: Duration) -> bool {
        let mut state = self.shared.state();
        let Stage::Frozen { until } = &mut state.stage else {
            return false;
        };
        *until = Instant::now() + deadline;
        self.shared.changed.notify_all();
        true
    }

    /// Thaws them. Where the deadline came, says what that did.
    pub fn thaw(mut self) -> Thawed {
        self.end();
        let mut state = self.shared.state();
        let (at, is_by_deadline) = match state.stage {
            Stage::Thawed { at, is_by_deadline } => (at, is_by_deadline),
            _ => (Instant::now(), false),
        };
        let thawed = std::mem::take(&mut state.thawed).into_iter();
        Thawed {
            file_systems: thawed
                .map(|(place, result)| ThawedOne {
                    at: self.shared.held[place].mounted.at.clone(),
                    result,
                })
                .collect(),
            frozen_for: at - self.began,
            is_by_deadline,
        }
    }

    /// They stay frozen for good, after this process too, until somebody thaws them with
    /// [`super::LeftBehind`] or the machine ends. There is no deadline any more.
    ///
    /// # Errors
    /// Where the deadline came first, or it cannot be noted: they are thawed then.
    pub fn keep(self) -> Result<(), NotKept> {
        // Before anything is decided: no lock is held while this waits.
        if let Err(source) = self.left.keep() {
            let left = self.left.path().to_owned();
            return Err(NotKept::Note { left, source });
        }
        let mut state = self.shared.state();
        if !matches!(state.stage, Stage::Frozen { .. }) {
            return Err(NotKept::Thawed);
        }
        state.stage = Stage::Kept;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Thaws what is frozen, unless it is kept, and waits for the thread.
    fn end(&mut self) {
        let state = self.shared.state();
        let is_kept = state.stage == Stage::Kept;
        match is_kept {
            true => drop(state),
            false => self.shared.thaw(state, false),
        }
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, what it did not thaw is thawed here.
            let _ = thread.join();
        }
        let thawed = self.shared.state();
        let is_over = thawed.frozen.is_empty() && thawed.thawed.iter().all(|(_, of)| of.is_ok());
        if !is_kept {
            // At worst who comes next thaws what is not frozen.
            let _ = match is_over {
                true => self.left.remove(),
                false => self.left.give_up(),
            };
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}
