//! The copy at the replicator: volume, stored tree and notes, opened and
//! brought level with one another after whatever happened before.
//!
//! Not here: writing extents (`desk`) and barriers (`keeper`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use blocks::{Geometry, GroupIndex, RefusalCode};
use volumes::{
    AlignedBuf, IntentError, OpenIntentsError, OpenTargetError, OpenTreeError, READ_BLOCKS,
    ReadError, RehashError, SyncFailed, TargetMoved, TargetVolume, TreeError, TreeFile, VolumeTag,
    WriteError, rehash_group,
};

use super::locks::while_busy;
use super::notes::{Notes, remove};
use super::{Progress, add};

/// Zeroed at once; a device may take a while for each.
const ZERO_STEP: u64 = 1 << 30;

/// Where a copy is, and what it is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) volume: PathBuf,
    pub(super) length: u64,
    pub(super) tree: PathBuf,
    pub(super) notes: PathBuf,
    pub(super) tag: VolumeTag,
    /// Begin with a volume of zeros, whatever it holds.
    pub(super) fresh: bool,
}

/// A copy that is level: the tree says what the volume durably holds.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) volume: TargetVolume,
    pub(super) tree: TreeFile,
    pub(super) notes: Notes,
    /// Groups that had to be hashed again.
    pub(super) recovered_groups: u64,
}

/// Why storage failed: for the peer, and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) code: RefusalCode,
    pub(super) why: String,
}

impl Trouble {
    fn new(full: bool, why: String) -> Self {
        let code = match full {
            true => RefusalCode::StorageFull,
            false => RefusalCode::StorageFailed,
        };
        Self { code, why }
    }

    pub(super) fn failed(why: impl Into<String>) -> Self {
        Self::new(false, why.into())
    }

    pub(super) fn is_full(&self) -> bool {
        self.code == RefusalCode::StorageFull
    }

    pub(super) fn withdrawn(code: RefusalCode) -> Self {
        let why = format!("ended while the copy was being opened: {code}");
        Self { code, why }
    }
}

const CHECK: &str = "; check the disk, then resume";

impl From<WriteError> for Trouble {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::SyncFailed(error) => error.into(),
            WriteError::Full { .. } => Self::new(true, error.to_string()),
            error => Self::failed(format!("{error}{CHECK}")),
        }
    }
}

impl From<SyncFailed> for Trouble {
    fn from(error: SyncFailed) -> Self {
        // Where space is allotted late, only the sync finds out.
        let full = [no_space(), over_quota()].contains(&error.why);
        let advice = match full {
            true => "; free some space, then resume",
            false => CHECK,
        };
        Self::new(full, format!("{error}{advice}"))
    }
}

impl From<TreeError> for Trouble {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Full { .. } => Self::new(true, error.to_string()),
            error => Self::failed(format!("{error}{CHECK}")),
        }
    }
}

impl From<IntentError> for Trouble {
    fn from(error: IntentError) -> Self {
        match error {
            IntentError::Full { .. } => Self::new(true, error.to_string()),
            error => Self::failed(format!("{error}{CHECK}")),
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::failed(format!("{error}{CHECK}"))
    }
}

impl From<TargetMoved> for Trouble {
    fn from(error: TargetMoved) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<RehashError> for Trouble {
    fn from(error: RehashError) -> Self {
        match error {
            RehashError::Read(error) => error.into(),
            RehashError::Tree(error) => error.into(),
        }
    }
}

impl From<OpenTargetError> for Trouble {
    fn from(error: OpenTargetError) -> Self {
        let code = match error {
            OpenTargetError::Missing { .. } => RefusalCode::NotReady,
            OpenTargetError::Busy { .. } => RefusalCode::Busy,
            OpenTargetError::TooSmall { .. }
            | OpenTargetError::TooLong { .. }
            | OpenTargetError::Length { .. } => RefusalCode::SizeMismatch,
            _ => RefusalCode::StorageFailed,
        };
        let why = error.to_string();
        Self { code, why }
    }
}

impl From<OpenTreeError> for Trouble {
    fn from(error: OpenTreeError) -> Self {
        let why = error.to_string();
        let code = match error {
            OpenTreeError::Busy { .. } => RefusalCode::Busy,
            OpenTreeError::Full { .. } => RefusalCode::StorageFull,
            _ => RefusalCode::StorageFailed,
        };
        Self { code, why }
    }
}

impl From<OpenIntentsError> for Trouble {
    fn from(error: OpenIntentsError) -> Self {
        let why = error.to_string();
        let code = match error {
            OpenIntentsError::Busy { .. } => RefusalCode::Busy,
            _ => RefusalCode::StorageFailed,
        };
        Self { code, why }
    }
}

fn no_space() -> String {
    io::Error::from(rustix::io::Errno::NOSPC).to_string()
}

fn over_quota() -> String {
    io::Error::from(rustix::io::Errno::DQUOT).to_string()
}

/// Opens a copy and recovers it. Gives up between two groups as soon as
/// `withdrawn` says why.
///
/// # Errors
/// When volume, tree or notes cannot be used.
pub(super) fn open(
    place: &Place,
    progress: &Progress,
    withdrawn: &dyn Fn() -> Option<RefusalCode>,
) -> Result<Replica, Trouble> {
    let geometry = Geometry::new(place.length).map_err(|error| Trouble {
        code: RefusalCode::SizeMismatch,
        why: error.to_string(),
    })?;
    let open = || TargetVolume::open(&place.volume, place.length);
    let is_busy = |error: &OpenTargetError| matches!(error, OpenTargetError::Busy { .. });
    let volume = match while_busy(open, is_busy) {
        // What is there next may not be what the tree tells of: all of it is read.
        Err(
            error @ (OpenTargetError::Missing { .. }
            | OpenTargetError::NotAVolume { .. }
            | OpenTargetError::TooSmall { .. }
            | OpenTargetError::TooLong { .. }),
        ) => {
            place.remove_tree()?;
            return Err(error.into());
        }
        opened => opened?,
    };
    let mut opening = Opening {
        place,
        geometry,
        volume,
        buf: AlignedBuf::new(READ_BLOCKS),
        rehashed: 0,
        progress,
        withdrawn,
    };
    if place.fresh {
        opening.begin_anew()?;
    }
    let notes = opening.notes()?;
    let mut tree = opening.tree()?;
    opening.recover(&mut tree, &notes)?;
    Ok(Replica {
        volume: opening.volume,
        tree,
        notes,
        recovered_groups: opening.rehashed,
    })
}

struct Opening<'a> {
    place: &'a Place,
    geometry: Geometry,
    volume: TargetVolume,
    buf: AlignedBuf,
    rehashed: u64,
    progress: &'a Progress,
    withdrawn: &'a dyn Fn() -> Option<RefusalCode>,
}

impl Place {
    /// The tree first, durably: without one nothing else is believed.
    pub(super) fn remove_tree(&self) -> Result<(), Trouble> {
        let Self { tree, notes, .. } = self;
        remove(tree)
            .and_then(|()| sync_folder_of(tree))
            .map_err(|error| file_failed("remove hash tree", tree, &error))?;
        Notes::remove(notes).map_err(|error| file_failed("remove write notes", notes, &error))
    }
}

impl Opening<'_> {
    /// Zeros the volume. The old tree goes first: a crash on the way leaves a
    /// volume without a tree, which is read in full.
    fn begin_anew(&self) -> Result<(), Trouble> {
        self.place.remove_tree()?;
        let mut offset = 0;
        while offset < self.place.length {
            self.go_on()?;
            let len = (self.place.length - offset).min(ZERO_STEP);
            self.volume.zero_range(offset, len)?;
            offset += len;
        }
        self.volume.sync()?;
        let Place { tree, tag, .. } = self.place;
        TreeFile::create(tree, *tag, self.geometry)?;
        Ok(())
    }

    fn notes(&self) -> Result<Notes, Trouble> {
        let Place { notes, tag, .. } = self.place;
        match Notes::open(notes, *tag) {
            // What was being written is unknown, so all has to be read.
            Err(OpenIntentsError::Corrupt { .. } | OpenIntentsError::OtherVolume { .. }) => {
                self.place.remove_tree()?;
                Ok(Notes::open(notes, *tag)?)
            }
            opened => Ok(opened?),
        }
    }

    fn tree(&mut self) -> Result<TreeFile, Trouble> {
        let Place { tree, tag, .. } = self.place;
        let (geometry, tag) = (self.geometry, *tag);
        let open = || TreeFile::open(tree, tag, geometry);
        let is_busy = |error: &OpenTreeError| matches!(error, OpenTreeError::Busy { .. });
        match while_busy(open, is_busy) {
            Err(
                OpenTreeError::Missing { .. }
                | OpenTreeError::NotATree { .. }
                | OpenTreeError::OtherVolume { .. }
                | OpenTreeError::Corrupt { .. },
            ) => {
                self.build_tree()?;
                Ok(open()?)
            }
            opened => Ok(opened?),
        }
    }

    /// Reads the whole volume. The tree gets its name when it is complete, so
    /// that a crash on the way leaves none.
    fn build_tree(&mut self) -> Result<(), Trouble> {
        let Place {
            tree: path, tag, ..
        } = self.place;
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let failed = |error| file_failed("replace hash tree", path, &error);
        remove(&unfinished).map_err(failed)?;
        let mut tree = TreeFile::create(&unfinished, *tag, self.geometry)?;
        self.volume.sync()?;
        self.volume.drop_cache();
        for group in 0..self.geometry.groups() {
            self.rehash(&mut tree, GroupIndex(group))?;
        }
        tree.sync()?;
        drop(tree);
        fs::rename(&unfinished, path)
            .and_then(|()| sync_folder_of(path))
            .map_err(failed)
    }

    /// Makes the tree say what the volume holds where that is not certain: the
    /// data's fsync comes first, the notes go last.
    fn recover(&mut self, tree: &mut TreeFile, notes: &Notes) -> Result<(), Trouble> {
        let mut uncertain = notes.outstanding();
        uncertain.extend(tree.check()?);
        // Notes of a volume that was longer name groups that are gone.
        uncertain.retain(|group| self.geometry.contains_group(*group));
        if !uncertain.is_empty() {
            self.volume.sync()?;
            // After a sync that failed, memory may hold what the disk does not.
            self.volume.drop_cache();
            for group in uncertain {
                self.rehash(tree, group)?;
            }
            tree.sync()?;
        }
        Ok(notes.forget_all()?)
    }

    fn rehash(&mut self, tree: &mut TreeFile, group: GroupIndex) -> Result<(), Trouble> {
        self.go_on()?;
        rehash_group(&self.volume, tree, group, &mut self.buf)?;
        self.rehashed += 1;
        let blocks = self.geometry.group_blocks(group);
        let range = self
            .geometry
            .run_range(blocks::BlockIndex(blocks.start), blocks.end - blocks.start);
        add(&self.progress.bytes_reread, range.end - range.start);
        Ok(())
    }

    fn go_on(&self) -> Result<(), Trouble> {
        match (self.withdrawn)() {
            Some(code) => Err(Trouble::withdrawn(code)),
            None => Ok(()),
        }
    }
}

fn file_failed(doing: &str, path: &Path, error: &io::Error) -> Trouble {
    Trouble::failed(format!("cannot {doing} {}: {error}{CHECK}", path.display()))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
