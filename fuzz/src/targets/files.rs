//! Files that this program wrote and something else may have changed.

use crate::chance::Chance;
use crate::mutate;
use crate::sample::Sample;
use crate::target::{Target, Verdict};
use blocks::{BlockIndex, Geometry, GroupIndex};
use crdt::{Document, Snapshot};
use std::cell::RefCell;
use std::path::PathBuf;
use tempfile::TempDir;
use volumes::{Intents, TreeFile, VolumeTag};

const TAG: VolumeTag = VolumeTag([7; 16]);

fn geometry() -> Geometry {
    // Two groups, the second of three blocks.
    Geometry::new(259 * 65_536 - 5).expect("a small volume")
}

/// A folder whose one file is the input.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for files under test"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("file")
    }

    fn put(&self, input: &[u8]) -> Result<PathBuf, String> {
        let path = self.path();
        std::fs::write(&path, input).map_err(|error| error.to_string())?;
        Ok(path)
    }
}

/// The stored tree of a volume.
pub struct Tree {
    folder: Folder,
}

impl Tree {
    pub fn new() -> Self {
        Self {
            folder: Folder::new(),
        }
    }
}

impl Target for Tree {
    fn name(&self) -> &'static str {
        "file-tree"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let path = self.folder.0.path().join("fresh");
        let _ = std::fs::remove_file(&path);
        let mut tree = TreeFile::create(&path, TAG, geometry()).expect("a new tree");
        let blank = std::fs::read(&path).expect("it was just written");
        let leaf = blocks::leaf(geometry(), BlockIndex(3), &[5; 65_536]);
        tree.set(BlockIndex(3), leaf).expect("it is in the volume");
        tree.sync().expect("it is written");
        let written = std::fs::read(&path).expect("it was just written");
        vec![blank, written]
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let path = self.folder.put(input)?;
        let Ok(mut tree) = TreeFile::open(&path, TAG, geometry()) else {
            return Ok(Verdict::Refused);
        };
        let _ = tree.check();
        let _ = tree.mark();
        for group in [0, 1] {
            let _ = tree.entries(GroupIndex(group));
            let _ = tree.marks(GroupIndex(group), 1);
        }
        let _ = tree.warm(1);
        let _ = tree.root();
        let _ = tree.set_zero(BlockIndex(258));
        let _ = tree.sync();
        Ok(Verdict::Accepted)
    }
}

/// The notes of what is about to be written.
pub struct Notes {
    folder: Folder,
}

impl Notes {
    pub fn new() -> Self {
        Self {
            folder: Folder::new(),
        }
    }
}

impl Target for Notes {
    fn name(&self) -> &'static str {
        "file-notes"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let path = self.folder.0.path().join("fresh");
        let _ = std::fs::remove_file(&path);
        let mut notes = Intents::open(&path, TAG).expect("new notes");
        let empty = std::fs::read(&path).expect("it was just written");
        notes
            .note(&[GroupIndex(0), GroupIndex(1), GroupIndex(70)])
            .expect("they are written");
        let some = std::fs::read(&path).expect("it was just written");
        vec![empty, some]
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let path = self.folder.put(input)?;
        let Ok(mut notes) = Intents::open(&path, TAG) else {
            return Ok(Verdict::Refused);
        };
        let before: Vec<GroupIndex> = notes.outstanding().collect();
        let more = GroupIndex(before.last().map_or(0, |last| last.0 / 2));
        if notes.note(&[more]).is_err() {
            return Ok(Verdict::Refused);
        }
        drop(notes);
        let again = Intents::open(&path, TAG);
        let again = again.map_err(|error| format!("notes of its own are refused: {error}"))?;
        let after: Vec<GroupIndex> = again.outstanding().collect();
        let kept = before.iter().all(|group| after.contains(group)) && after.contains(&more);
        if kept {
            Ok(Verdict::Accepted)
        } else {
            Err("a note was lost".into())
        }
    }
}

/// Snapshots of the document: whatever they hold, the document is that of its logs.
pub struct Snapshots {
    sample: Sample,
    seed: RefCell<Option<Vec<u8>>>,
}

impl Snapshots {
    pub fn new() -> Self {
        Self {
            sample: Sample::make(),
            seed: RefCell::new(None),
        }
    }
}

impl Target for Snapshots {
    fn name(&self) -> &'static str {
        "file-snapshot"
    }

    fn weight(&self) -> u64 {
        2
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut document = self.sample.document().clone();
        let whole = codec::encode(&document.save().finish()).expect("a small document");
        vec![whole]
    }

    fn mutate(&self, input: &mut Vec<u8>, chance: &mut Chance) -> bool {
        // Within automerge's own bytes, its checksum set right.
        let Some(at) = find(input, &[0x85, 0x6f, 0x4a, 0x83]) else {
            return false;
        };
        let mut chunk = input.split_off(at);
        let other = self.seed.borrow().clone().unwrap_or_default();
        let mut body = chunk.split_off(8.min(chunk.len()));
        mutate::mutate(&mut body, &other, chance);
        chunk.extend(body);
        super::change::fix_checksum(&mut chunk);
        *self.seed.borrow_mut() = Some(chunk.clone());
        input.extend(chunk);
        true
    }

    fn check(&self, input: &[u8]) -> Result<Verdict, String> {
        let Ok(snapshot) = codec::decode::<Snapshot>(input) else {
            return Ok(Verdict::Refused);
        };
        let (mesh, changes) = (self.sample.ledger().mesh(), self.sample.changes());
        let authority = self.sample.replica.authority();
        let loaded = Document::load(mesh, changes, Some(&snapshot), authority)
            .map_err(|error| error.to_string())?;
        let held = self.sample.document();
        if loaded.digest() != held.digest() || loaded.content_hash() != held.content_hash() {
            return Err("a snapshot made another document".into());
        }
        Ok(if loaded.unsaved() == 0 {
            Verdict::Accepted
        } else {
            Verdict::Refused
        })
    }
}

fn find(input: &[u8], wanted: &[u8]) -> Option<usize> {
    input.windows(wanted.len()).position(|part| part == wanted)
}
