//! What a session does with whoever follows the writes of its source: what a pass has to
//! read, what is owed whatever was written, and when nothing of that is owed any more.
//!
//! A tracker outlives sessions and this process, and remembers what was read of which tree:
//! a stored tree has a name for it, drawn at random, in a file beside it. Whoever changes a
//! tree that nobody hears of takes that file away first, so that what a tracker remembers
//! is of a tree that there is no more.
//!
//! Not here: who follows and how (`guard`, `volumes`).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blocks::{DirtySet, GroupIndex};
use crdt::PassRead;
use volumes::SourceVolume;

/// The name of a stored tree for whoever follows the writes of its source.
pub type TreeName = [u8; 16];

/// Follows the writes of one volume, for one stored tree.
pub trait ChangeTracker: Send {
    /// Begins a pass: puts in every block that may differ from the stored tree. All that was
    /// put in is owed until [`Self::settled`].
    ///
    /// # Errors
    /// Where it follows no more. Nothing is known then.
    fn collect(&mut self, into: &mut DirtySet) -> Result<Collected, TrackerLost>;

    /// These blocks of the tree are about to be taken from the other end: they are owed
    /// until a pass that begins later has read them.
    ///
    /// # Errors
    /// Where it could not be told. They must not be taken then.
    fn owe(&mut self, group: GroupIndex) -> Result<(), TrackerLost>;

    /// All that a pass had to read is durable, in the tree too.
    ///
    /// # Errors
    /// Where it could not be told: all of it stays owed.
    fn settled(&mut self, pass: u64) -> Result<(), TrackerLost>;
}

/// What a tracker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Which pass it is, for [`ChangeTracker::settled`].
    pub pass: u64,
    /// Why every block is in it, where nothing is known of what was written.
    pub whole_because: Option<String>,
    /// Nothing that was written until now can turn up later as missing.
    pub is_final: bool,
    /// The next pass can do with what is written from now on.
    pub is_followed: bool,
    /// By what it is followed, and why by nothing better, for people.
    pub how: String,
}

/// Why a tracker is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what is written to {volume} is followed no more: {why}")]
pub struct TrackerLost {
    /// Of which volume.
    pub volume: PathBuf,
    /// The cause.
    pub why: String,
}

/// Finds a tracker for a volume, or says why there is none.
pub type Find =
    dyn Fn(&SourceVolume, TreeName) -> Result<Box<dyn ChangeTracker>, String> + Send + Sync;

/// Where a session finds whoever follows its source.
#[derive(Clone)]
pub struct Trackers(Arc<Find>);

impl Trackers {
    /// By this.
    pub fn new(
        find: impl Fn(&SourceVolume, TreeName) -> Result<Box<dyn ChangeTracker>, String>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }

    /// The tracker of a volume for its tree, or why there is none.
    ///
    /// # Errors
    /// That, for people.
    pub fn find(
        &self,
        volume: &SourceVolume,
        tree: TreeName,
    ) -> Result<Box<dyn ChangeTracker>, String> {
        (self.0)(volume, tree)
    }
}

impl fmt::Debug for Trackers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trackers")
    }
}

/// How the pass that runs finds what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Of what.
    pub read: PassRead,
    /// Why it reads all, where it could do with less; or by what it is told what changed.
    pub read_by: Option<String>,
    /// See [`Collected::is_final`]; a pass over all is.
    pub is_final: bool,
    /// The next one reads what was written since this one began, and no more.
    pub is_followed: bool,
}

/// The tracker of a session, if it has one.
pub(super) struct Following {
    trackers: Trackers,
    name_file: PathBuf,
    /// What was told of the tree.
    name: Option<TreeName>,
    tracker: Result<Box<dyn ChangeTracker>, String>,
    /// The pass that was begun with it and is not settled.
    collected: Option<u64>,
}

impl Following {
    /// Finds the tracker of a volume before its tree is opened.
    ///
    /// # Errors
    /// When the tree's name cannot be kept or taken away.
    pub(super) fn find(
        trackers: &Trackers,
        volume: &SourceVolume,
        tree: &Path,
    ) -> io::Result<Self> {
        let name_file = beside(tree);
        if !tree.try_exists()? {
            // Whatever was remembered was of another tree.
            forget(&name_file)?;
        }
        let mut following = Self {
            trackers: trackers.clone(),
            name_file,
            name: None,
            tracker: Err(String::new()),
            collected: None,
        };
        following.look(volume)?;
        if following.tracker.is_err() {
            // What is taken from the other end from now on, nobody hears of.
            forget(&following.name_file)?;
        }
        Ok(following)
    }

    fn look(&mut self, volume: &SourceVolume) -> io::Result<()> {
        let name = name_of(&self.name_file)?;
        self.name = Some(name);
        self.tracker = self.trackers.find(volume, name);
        Ok(())
    }

    /// The tree is open, and nobody else's: whoever had it open when this began may have
    /// made it anew, or taken its name away.
    ///
    /// # Errors
    /// When the tree's name cannot be kept.
    pub(super) fn tree_is_ours(&mut self, volume: &SourceVolume) -> io::Result<()> {
        let is_named = self.name.is_some() && kept(&self.name_file) == self.name;
        match &self.tracker {
            Ok(_) if !is_named => self.look(volume),
            Ok(_) => Ok(()),
            Err(_) => forget(&self.name_file),
        }
    }

    /// The tree is to be made anew: what is remembered of it counts no more.
    ///
    /// # Errors
    /// When its name cannot be taken away.
    pub(super) fn forget_tree(&mut self) -> io::Result<()> {
        self.tracker = Err("its stored tree does not say any more what was read".to_owned());
        forget(&self.name_file)
    }

    /// Begins a pass. The set has what to read, where that is not all.
    pub(super) fn begin_pass(&mut self, volume: &SourceVolume, dirty: &mut DirtySet) -> Reading {
        self.collected = None;
        if self.tracker.is_err()
            && let Err(error) = self.look(volume)
        {
            self.tracker = Err(format!("its hash tree cannot be given a name: {error}"));
        }
        let collected = match &mut self.tracker {
            Ok(tracker) => tracker.collect(dirty).map_err(|lost| lost.to_string()),
            Err(why) => Err(why.clone()),
        };
        match collected {
            Ok(Collected {
                pass,
                whole_because,
                is_final,
                is_followed,
                how,
            }) => {
                self.collected = Some(pass);
                let read = match whole_because {
                    Some(_) => PassRead::Whole,
                    None => PassRead::Tracked,
                };
                Reading {
                    read,
                    // What is read after it was asked is in the pass in any case.
                    is_final: is_final || read == PassRead::Whole,
                    is_followed,
                    read_by: whole_because.or(Some(how)),
                }
            }
            Err(why) => {
                self.tracker = Err(why.clone());
                Reading {
                    read: PassRead::Whole,
                    read_by: Some(why),
                    is_final: true,
                    is_followed: false,
                }
            }
        }
    }

    /// See [`ChangeTracker::owe`]. A tracker that cannot be told may remember what is not so
    /// any more: its tree is not changed.
    pub(super) fn owe(&mut self, group: GroupIndex) -> Result<(), TrackerLost> {
        match &mut self.tracker {
            Ok(tracker) => tracker.owe(group),
            Err(_) => Ok(()),
        }
    }

    /// The pass is complete, and tree and copy are durable.
    pub(super) fn settled(&mut self) {
        if let Some(pass) = self.collected.take()
            && let Ok(tracker) = &mut self.tracker
            && let Err(lost) = tracker.settled(pass)
        {
            // What it had to read stays owed, or the tracker is gone with all it knew.
            tracing::warn!("{lost}");
            self.tracker = Err(lost.to_string());
        }
    }
}

fn beside(tree: &Path) -> PathBuf {
    let mut name = tree.as_os_str().to_owned();
    name.push(".followed");
    PathBuf::from(name)
}

/// The name that is kept, or a new one, durable before it is told to anybody.
fn name_of(file: &Path) -> io::Result<TreeName> {
    if let Some(name) = kept(file) {
        return Ok(name);
    }
    let mut name = TreeName::default();
    getrandom::fill(&mut name).map_err(|error| io::Error::other(error.to_string()))?;
    let mut kept = File::create(file)?;
    kept.write_all(&name)?;
    kept.sync_all()?;
    sync_folder(file)?;
    Ok(name)
}

fn kept(file: &Path) -> Option<TreeName> {
    TreeName::try_from(fs::read(file).ok()?).ok()
}

fn forget(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(file),
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
