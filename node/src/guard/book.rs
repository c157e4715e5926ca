//! What the guard knows: the disks it follows, and what each tree of a volume owes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use blocks::tracking::{Advanced, Follow, Gap, Owed, Window};
use blocks::{BlockIndex, DirtySet, Geometry};
use volumes::{Disk, SourceIdentity, SourceVolume, Tracker};

use super::words::{Answer, Ask, MAX_RUNS};
use crate::transfer::TreeName;

/// Trees remembered; of more than that the one that was asked about least lately goes.
const MAX_TREES: usize = 256;

/// A busy disk is asked again so often until it was seen to stand still.
const TRIES: usize = 8;

/// See the module's page.
#[derive(Default)]
pub(super) struct Book {
    disks: Vec<Followed>,
    trees: BTreeMap<TreeName, Tree>,
    /// Counts questions.
    asked: u64,
}

/// A disk with a tracker of its own: others come and go.
struct Followed {
    /// Where the kernel shows it.
    shown: PathBuf,
    tracker: Tracker,
}

struct Tree {
    disk: PathBuf,
    /// Of the disk.
    bytes: Range<u64>,
    geometry: Geometry,
    follow: Follow,
    asked: u64,
}

impl Book {
    pub(super) fn answer(&mut self, ask: Ask) -> Vec<Answer> {
        self.asked += 1;
        let done = match ask {
            Ask::Follow {
                tree,
                path,
                device,
                length,
            } => self.follow(tree, &path, (device, length)),
            Ask::Collect { tree } => match self.collect(&tree) {
                Ok(answers) => return answers,
                Err(why) => Err(why),
            },
            Ask::Settled { tree } => self.with(&tree, Follow::settled),
            Ask::Owe { tree, group } => {
                self.with(&tree, |follow| follow.owe(blocks::GroupIndex(group)))
            }
        };
        match done {
            Ok(()) => vec![Answer::Done],
            Err(why) => vec![Answer::Not(why)],
        }
    }

    /// Looks at the kernel's figures of all disks.
    pub(super) fn look(&mut self) {
        for disk in &mut self.disks {
            // What does not say anything now says it later.
            if let Ok(advanced) = disk.advance() {
                tell_others(&mut self.trees, &disk.shown, advanced.window, None);
            }
        }
    }

    fn with(&mut self, tree: &TreeName, step: impl FnOnce(&mut Follow)) -> Result<(), String> {
        let known = self.trees.get_mut(tree).ok_or_else(forgotten)?;
        known.asked = self.asked;
        step(&mut known.follow);
        Ok(())
    }

    fn follow(
        &mut self,
        tree: TreeName,
        path: &Path,
        (device, length): (u64, u64),
    ) -> Result<(), String> {
        let volume = SourceVolume::open(path).map_err(|error| error.to_string())?;
        let is_same = volume.identity() == SourceIdentity::Device { number: device };
        if !is_same || volume.length() != length {
            return Err(format!(
                "{} is another device here than at the agent",
                path.display()
            ));
        }
        let (disk, bytes) = Disk::of(&volume).map_err(|error| error.to_string())?;
        let shown = disk.path().to_owned();
        let is_lost = |disk: &Followed| disk.tracker.unread().next().is_some();
        self.disks
            .retain(|followed| followed.shown != shown || !is_lost(followed));
        if !self.disks.iter().any(|followed| followed.shown == shown) {
            let (tracker, _) = Tracker::start(vec![disk]).map_err(|error| error.to_string())?;
            tracing::info!(
                kind = "disk-followed",
                "what is written to {} is followed",
                path.display()
            );
            let shown = shown.clone();
            self.disks.push(Followed { shown, tracker });
        }
        self.remember(tree, shown, bytes, volume.geometry());
        Ok(())
    }

    fn remember(&mut self, tree: TreeName, disk: PathBuf, bytes: Range<u64>, geometry: Geometry) {
        let is_known = self.trees.get(&tree).is_some_and(|known| {
            known.disk == disk && known.bytes == bytes && known.geometry == geometry
        });
        if !is_known {
            while self.trees.len() >= MAX_TREES {
                let oldest = self.trees.iter().min_by_key(|(_, known)| known.asked);
                let Some(oldest) = oldest.map(|(name, _)| *name) else {
                    break;
                };
                self.trees.remove(&oldest);
            }
            let fresh = Tree {
                disk,
                bytes,
                geometry,
                follow: Follow::new(),
                asked: self.asked,
            };
            self.trees.insert(tree, fresh);
        }
    }

    fn collect(&mut self, name: &TreeName) -> Result<Vec<Answer>, String> {
        let tree = self.trees.get_mut(name).ok_or_else(forgotten)?;
        tree.asked = self.asked;
        let shown = tree.disk.clone();
        let disk = self.disks.iter_mut().find(|disk| disk.shown == shown);
        let disk = disk.ok_or_else(forgotten)?;
        let (mut advanced, mut windows) = (disk.advance()?, Window::Whole);
        for _ in 1..TRIES {
            if advanced.is_still {
                break;
            }
            windows = windows.and(advanced.window);
            advanced = disk.advance()?;
        }
        advanced.window = advanced.window.and(windows);
        tell_others(&mut self.trees, &shown, advanced.window, Some(name));
        let tree = self.trees.get_mut(name).ok_or_else(forgotten)?;
        Ok(to_read(tree, &disk.tracker, &advanced))
    }
}

impl Followed {
    fn advance(&mut self) -> Result<Advanced, String> {
        let advanced = self.tracker.advance().map_err(|error| error.to_string())?;
        // It was started with one disk.
        advanced.first().copied().ok_or_else(forgotten)
    }
}

/// What was found of a disk is found for all that lies on it.
fn tell_others(
    trees: &mut BTreeMap<TreeName, Tree>,
    disk: &Path,
    window: Window,
    but: Option<&TreeName>,
) {
    for (name, tree) in trees.iter_mut() {
        if tree.disk == disk && Some(name) != but {
            tree.follow.look(window);
        }
    }
}

/// Begins a pass of a tree: what it has to read.
fn to_read(tree: &mut Tree, tracker: &Tracker, advanced: &Advanced) -> Vec<Answer> {
    let mut dirty = DirtySet::new(tree.geometry);
    let because = match tree.follow.collect(advanced) {
        Owed::All(gap) => Some(gap),
        Owed::Since(since) => {
            let slot = tracker.first_slot();
            let is_told = tracker.collect(slot, tree.bytes.clone(), since, &mut dirty);
            (!is_told).then_some(Gap::TooOld)
        }
    };
    let end = Answer::Collected {
        whole_because: because.map(|gap| gap.to_string()),
        is_final: advanced.is_still,
    };
    if because.is_some() {
        return vec![end];
    }
    for group in tree.follow.groups() {
        if tree.geometry.contains_group(group) {
            for block in tree.geometry.group_blocks(group) {
                dirty.mark(BlockIndex(block));
            }
        }
    }
    let runs = runs(&dirty);
    let pages = runs
        .chunks(MAX_RUNS)
        .map(|runs| Answer::Runs(runs.to_vec()));
    pages.chain([end]).collect()
}

fn runs(dirty: &DirtySet) -> Vec<(u64, u64)> {
    let (mut runs, mut from) = (vec![], BlockIndex(0));
    while let Some(run) = dirty.next_run(from, u64::MAX) {
        runs.push((run.start, run.end - run.start));
        from = BlockIndex(run.end);
    }
    runs
}

fn forgotten() -> String {
    "the guard does not know this disk: it was started again".to_owned()
}
