//! What the guard knows: the disks it follows, and what each tree of a volume owes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blocks::tracking::{Advanced, Follow, Gap, Generation, Owed, Window};
use blocks::{BlockIndex, DirtySet, Geometry, GroupIndex};
use volumes::{Disk, SourceIdentity, SourceVolume, Tracker, TrackerKind};

use crate::transfer::TreeName;

/// Trees remembered; of more than that the one that was asked about least lately goes.
const MAX_TREES: usize = 256;

/// Disks followed at once: each costs a program run for every event of the machine, and up
/// to 64 MiB.
const MAX_DISKS: usize = 16;

/// What nobody has asked about for so long is forgotten: a copy that was deleted, or one
/// that is to be read anew in any case.
const FORGET_AFTER: Duration = Duration::from_secs(21 * 24 * 3600);

/// A busy disk is asked again so often until it was seen to stand still.
const TRIES: usize = 4;

/// See the module's page.
pub(super) struct Book {
    /// Follow disks by this kind of tracker alone.
    only: Option<TrackerKind>,
    disks: Vec<Followed>,
    trees: BTreeMap<TreeName, Tree>,
    /// Passes begun, of all trees.
    passes: u64,
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
    /// The pass that began last, and with which generation.
    pass: Option<(u64, Generation)>,
    asked: Instant,
}

/// A volume and its disk, looked up before the book is taken: an open can hang.
pub(super) struct Found {
    disk: Disk,
    bytes: Range<u64>,
    geometry: Geometry,
    path: PathBuf,
}

impl Found {
    /// Looks up a device, which must be the one of this number and length.
    pub(super) fn find(path: &Path, device: (u64, u64)) -> Result<Self, String> {
        let volume = same_device(path, device)?;
        let (disk, bytes) = Disk::of(&volume).map_err(|error| error.to_string())?;
        Ok(Self {
            disk,
            bytes,
            geometry: volume.geometry(),
            path: path.to_owned(),
        })
    }
}

/// Opens a device, which must be the one of this number and length.
pub(super) fn same_device(
    path: &Path,
    (device, length): (u64, u64),
) -> Result<SourceVolume, String> {
    let volume = SourceVolume::open(path).map_err(|error| error.to_string())?;
    let is_same = volume.identity() == SourceIdentity::Device { number: device };
    if !is_same || volume.length() != length {
        return Err(format!(
            "{} is another device for the guard than for the agent: offer it again under a path that stays",
            path.display()
        ));
    }
    Ok(volume)
}

/// What a pass has to read.
pub(super) struct Begun {
    /// Which pass it is, for [`Book::settled`].
    pub(super) pass: u64,
    /// None of it counts where there is a reason to read all.
    pub(super) dirty: DirtySet,
    pub(super) whole_because: Option<Gap>,
    /// Nothing that was written until now can turn up later as missing.
    pub(super) is_final: bool,
    /// By what the disk is followed.
    pub(super) how: String,
}

impl Book {
    /// Of nothing yet.
    pub(super) fn new(only: Option<TrackerKind>) -> Self {
        Self {
            only,
            disks: vec![],
            trees: BTreeMap::new(),
            passes: 0,
        }
    }

    /// By which kind of tracker alone it follows.
    pub(super) fn only(&self) -> Option<TrackerKind> {
        self.only
    }

    /// Looks at the kernel's figures of all disks, and forgets what is of no use any more.
    pub(super) fn look(&mut self) {
        let Self { disks, trees, .. } = self;
        trees.retain(|_, tree| tree.asked.elapsed() < FORGET_AFTER);
        disks.retain(|disk| trees.values().any(|tree| tree.disk == disk.shown));
        for disk in disks {
            // What does not say anything now says it later.
            let _ = disk.advance(trees);
        }
    }

    /// Follows a disk for a tree, from now on or already.
    pub(super) fn follow(&mut self, name: TreeName, found: Found) -> Result<(), String> {
        let shown = found.disk.path().to_owned();
        self.disks
            .retain(|disk| disk.shown != shown || !disk.is_lost());
        if !self.disks.iter().any(|disk| disk.shown == shown) {
            if self.disks.len() >= MAX_DISKS {
                return Err(format!(
                    "{MAX_DISKS} disks are followed already, which is all that one guard does"
                ));
            }
            let tracker = Tracker::start(found.disk, self.only);
            let tracker = tracker.map_err(|error| error.to_string())?;
            let (path, how) = (found.path.display(), tracker.how());
            let text = format!("what is written to {path} is followed {how}");
            tracing::info!(kind = "disk-followed", "{text}");
            let shown = shown.clone();
            self.disks.push(Followed { shown, tracker });
        }
        let known = self.trees.get_mut(&name).filter(|known| {
            known.disk == shown && known.bytes == found.bytes && known.geometry == found.geometry
        });
        match known {
            Some(known) => known.asked = Instant::now(),
            None => self.remember(name, shown, (found.bytes, found.geometry)),
        }
        Ok(())
    }

    fn remember(&mut self, name: TreeName, disk: PathBuf, part: (Range<u64>, Geometry)) {
        while self.trees.len() >= MAX_TREES {
            let oldest = self.trees.iter().min_by_key(|(_, known)| known.asked);
            let Some(oldest) = oldest.map(|(name, _)| *name) else {
                break;
            };
            self.trees.remove(&oldest);
        }
        let (bytes, geometry) = part;
        let fresh = Tree {
            disk,
            bytes,
            geometry,
            follow: Follow::new(),
            pass: None,
            asked: Instant::now(),
        };
        self.trees.insert(name, fresh);
    }

    /// Begins a pass of a tree.
    pub(super) fn collect(&mut self, name: &TreeName) -> Result<Begun, String> {
        let Self {
            disks,
            trees,
            passes,
            ..
        } = self;
        *passes += 1;
        let tree = trees.get_mut(name).ok_or_else(forgotten)?;
        tree.asked = Instant::now();
        let shown = tree.disk.clone();
        let at = disks.iter().position(|disk| disk.shown == shown);
        let at = at.ok_or_else(forgotten)?;
        let mut advanced = disks[at].advance(trees)?;
        for _ in 1..TRIES {
            if advanced.is_still {
                break;
            }
            advanced = disks[at].advance(trees)?;
        }
        let lost = disks[at].tracker.unread().map(ToString::to_string);
        if let Some(why) = lost {
            // Whoever asks next begins anew with what is there.
            disks.remove(at);
            return Err(why);
        }
        let tree = trees.get_mut(name).ok_or_else(forgotten)?;
        tree.pass = Some((*passes, advanced.begun));
        Ok(tree.begin(*passes, &disks[at], &advanced))
    }

    /// A pass is durable. Not where another has begun since: a question of an agent that is
    /// gone may be answered late.
    pub(super) fn settled(&mut self, name: &TreeName, pass: u64) -> Result<(), String> {
        let tree = self.trees.get_mut(name).ok_or_else(forgotten)?;
        let begun = tree.pass.filter(|(begun, _)| *begun == pass);
        match begun.is_some_and(|(_, begun)| tree.follow.settled(begun)) {
            true => Ok(()),
            false => Err("another pass has begun meanwhile".to_owned()),
        }
    }

    /// A group is taken from the other end.
    pub(super) fn owe(&mut self, name: &TreeName, group: GroupIndex) -> Result<(), String> {
        let tree = self.trees.get_mut(name).ok_or_else(forgotten)?;
        if !tree.geometry.contains_group(group) {
            return Err(format!("the volume has no group {}", group.0));
        }
        tree.follow.owe(group);
        Ok(())
    }
}

impl Followed {
    fn is_lost(&self) -> bool {
        self.tracker.unread().is_some()
    }

    /// Begins the next generation, and tells all that lies on the disk what that found: it is
    /// said once.
    fn advance(&mut self, trees: &mut BTreeMap<TreeName, Tree>) -> Result<Advanced, String> {
        let advanced = self.tracker.advance().map_err(|error| error.to_string())?;
        for tree in trees.values_mut() {
            if tree.disk == self.shown {
                tree.follow.look(advanced.window);
            }
        }
        Ok(Advanced {
            window: Window::Whole,
            ..advanced
        })
    }
}

impl Tree {
    /// Begins a pass: what it has to read. What the advances found was told before.
    fn begin(&mut self, pass: u64, disk: &Followed, advanced: &Advanced) -> Begun {
        let mut dirty = DirtySet::new(self.geometry);
        let whole_because = match self.follow.collect(advanced) {
            Owed::All(gap) => Some(gap),
            Owed::Since(since) => {
                let bytes = self.bytes.clone();
                let is_told = disk.tracker.collect(bytes, since, &mut dirty);
                (!is_told).then_some(Gap::TooOld)
            }
        };
        for group in self.follow.groups() {
            for block in self.geometry.group_blocks(group) {
                dirty.mark(BlockIndex(block));
            }
        }
        Begun {
            pass,
            dirty,
            whole_because,
            is_final: advanced.is_still,
            how: disk.tracker.how().to_owned(),
        }
    }
}

fn forgotten() -> String {
    "the guard does not know this disk any more".to_owned()
}
