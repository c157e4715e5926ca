//! Content that this node holds already: where to look for it, and in which copies a
//! session may.
//!
//! A source learns of a block that it offers whether it was made of bytes that are here.
//! It shows that it has the content, by its leaf, and so learns no byte of anybody's; but
//! it learns that somebody has it. So it is told of the copies in its own scope alone: those
//! of the domain that its grant puts it into (`keys::dedup`), which is its own migration
//! where the grant names no group. The index is one for all, but each domain has keys of
//! its own in it, so that none finds, counts or crowds out what is there of another.
//!
//! Not here: the index itself (`volumes`), and checking and writing (`desk`).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use blocks::{BlockIndex, CheckedExtent, Fingerprint, Geometry, Leaf, check_extent};
use keys::DedupDomain;
use volumes::{AlignedBuf, FingerprintIndex, IndexError, ReadBlocks, SourceVolume, VolumeTag};

/// Places that are read for one block at most: each is a read of 64 KiB, and an index may
/// be wrong as often as it likes.
const TRIES: usize = 2;

/// Copies that sessions of one domain may look into, by their tags. Shared with
/// sessions that run.
#[derive(Debug, Clone, Default)]
pub struct Scope(Arc<RwLock<BTreeMap<[u8; 16], Copy>>>);

/// A copy at this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The volume: a raw image or an attached block device.
    pub path: PathBuf,
    /// The copy's length in bytes.
    pub length: u64,
}

impl Scope {
    /// Whether a session has it.
    pub fn is_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Replaces what is in it.
    pub fn set(&self, copies: BTreeMap<[u8; 16], Copy>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = copies;
    }

    fn has(&self, tag: VolumeTag) -> bool {
        let copies = self.0.read().unwrap_or_else(PoisonError::into_inner);
        copies.contains_key(&tag.0)
    }

    fn copy(&self, tag: VolumeTag) -> Option<Copy> {
        let copies = self.0.read().unwrap_or_else(PoisonError::into_inner);
        copies.get(&tag.0).cloned()
    }
}

/// What a session may refer to.
#[derive(Debug, Clone)]
pub struct References {
    index: Arc<FingerprintIndex>,
    scope: Scope,
    domain: DedupDomain,
}

impl References {
    /// For sessions of a domain: the index of all copies at this node, and where they may
    /// look for content.
    pub fn new(index: Arc<FingerprintIndex>, scope: Scope, domain: DedupDomain) -> Self {
        Self {
            index,
            scope,
            domain,
        }
    }

    fn key(&self, fingerprint: Fingerprint) -> u64 {
        let hash = blake3::keyed_hash(self.domain.key(), &fingerprint.0.to_le_bytes());
        let (first, _) = hash
            .as_bytes()
            .split_first_chunk()
            .expect("a hash of BLAKE3 has 32 bytes");
        u64::from_le_bytes(*first)
    }
}

/// Looks for content on behalf of one session.
pub(super) struct Finder {
    references: References,
    /// The copy that is written.
    own: VolumeTag,
    /// Other copies, once they were looked into; none that cannot be opened.
    opened: HashMap<VolumeTag, (Copy, Option<SourceVolume>)>,
    buf: AlignedBuf,
    /// The index failed, and is not asked again.
    is_lost: bool,
}

impl Finder {
    pub(super) fn new(references: References, own: VolumeTag) -> Self {
        Self {
            references,
            own,
            opened: HashMap::new(),
            buf: AlignedBuf::new(1),
            is_lost: false,
        }
    }

    /// Notes what was written.
    pub(super) fn written(&mut self, first: BlockIndex, fingerprints: &[Fingerprint]) {
        for (block, fingerprint) in (first.0..).map(BlockIndex).zip(fingerprints) {
            if self.is_lost {
                return;
            }
            let key = self.references.key(*fingerprint);
            let noted = self.references.index.insert(key, self.own, block);
            self.is_lost = noted.map_err(|error| lost(&error)).is_err();
        }
    }

    /// Looks for bytes that hash to this leaf in the block's place. They are then
    /// [`Self::bytes`].
    pub(super) fn find(
        &mut self,
        geometry: Geometry,
        (block, leaf): (BlockIndex, Leaf),
        fingerprint: Fingerprint,
        own: &impl ReadBlocks,
    ) -> Option<CheckedExtent> {
        if self.is_lost {
            return None;
        }
        let References { index, scope, .. } = &self.references;
        // What has left the scope is let go of, for others to remove.
        self.opened.retain(|tag, _| scope.has(*tag));
        let places = index.look_up(self.references.key(fingerprint));
        self.is_lost = places.is_err();
        let places = places.map_err(|error| lost(&error)).ok()?;
        let len = geometry.block_len(block);
        let own_tag = self.own;
        let is_ours = |tag| tag == own_tag || scope.has(tag);
        let places = places.into_iter().filter(|place| is_ours(place.volume));
        for place in places.take(TRIES) {
            // What cannot be read is not found.
            let bytes = match place.volume == own_tag {
                true => own.read_blocks(place.block, 1, &mut self.buf).ok(),
                false => {
                    let volume = open(scope, &mut self.opened, place.volume);
                    volume.and_then(|v| v.read_blocks(place.block, 1, &mut self.buf).ok())
                }
            };
            // Whatever was read counts only once it is what it has to be.
            let checked = bytes
                .filter(|bytes| bytes.len() == len)
                .and_then(|bytes| check_extent(geometry, block, vec![leaf], bytes).ok());
            if checked.is_some() {
                return checked;
            }
        }
        None
    }

    /// The first bytes of what was found last.
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        &self.buf.bytes()[..len]
    }
}

/// Another copy, as long as it is in the scope and what it was.
fn open<'v>(
    scope: &Scope,
    opened: &'v mut HashMap<VolumeTag, (Copy, Option<SourceVolume>)>,
    tag: VolumeTag,
) -> Option<&'v SourceVolume> {
    let copy = scope.copy(tag)?;
    if opened.get(&tag).is_none_or(|(had, _)| *had != copy) {
        let volume = SourceVolume::open(&copy.path);
        let volume = volume.and_then(|volume| volume.narrowed(copy.length)).ok();
        opened.insert(tag, (copy, volume));
    }
    opened.get(&tag)?.1.as_ref()
}

fn lost(error: &IndexError) {
    tracing::warn!("nothing is referred to in this session any more: {error}");
}
