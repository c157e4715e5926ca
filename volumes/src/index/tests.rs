//! Indexes in real files: what is found, what is lost, and what is begun anew.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// Header and table, before the first bucket.
const BEGIN: u64 = 4096 + 128 * 1024;

/// Room for this many entries, in 512 buckets.
const ROOM: u64 = 512 * 32;

/// An index of that room.
const SMALL: u64 = BEGIN + ROOM * 16;

/// Fingerprints as hashes are: all over the range.
fn fingerprint(of: u64) -> u64 {
    let hash = blake3::hash(&of.to_le_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
}

fn tag(of: u16) -> VolumeTag {
    let mut tag = [7; 16];
    tag[..2].copy_from_slice(&of.to_le_bytes());
    VolumeTag(tag)
}

fn place(volume: u16, block: u64) -> Place {
    Place {
        volume: tag(volume),
        block: BlockIndex(block),
    }
}

fn insert(index: &FingerprintIndex, content: u64, at: Place) {
    index
        .insert(fingerprint(content), at.volume, at.block)
        .unwrap();
}

fn look_up(index: &FingerprintIndex, content: u64) -> Vec<Place> {
    index.look_up(fingerprint(content)).unwrap()
}

/// An index in a folder that goes with it.
fn index(bytes: u64) -> (tempfile::TempDir, PathBuf, FingerprintIndex) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let index = FingerprintIndex::open(&path, bytes).unwrap();
    (folder, path, index)
}

#[test]
fn what_was_put_in_is_found_and_nothing_else_even_when_opened_again() {
    let (_folder, path, index) = index(4 * MIB);
    for content in 0..2000 {
        insert(&index, content, place((content % 5) as u16, content * 3));
    }
    drop(index);
    let index = FingerprintIndex::open(&path, 4 * MIB).unwrap();
    for content in 0..2000 {
        let expected = place((content % 5) as u16, content * 3);
        assert_eq!(look_up(&index, content), [expected]);
    }
    for content in 2000..4000 {
        assert_eq!(look_up(&index, content), []);
    }
    assert_eq!(index.volumes().len(), 5);
}

#[test]
fn an_unused_index_takes_no_room_and_a_full_one_does_not_grow() {
    let (_folder, path, index) = index(1 << 40);
    let metadata = path.metadata().unwrap();
    assert!(metadata.len() <= 1 << 40);
    assert!(
        metadata.blocks() * 512 <= 16 * 1024,
        "{}",
        metadata.blocks()
    );
    insert(&index, 1, place(1, 1));
    assert_eq!(look_up(&index, 1), [place(1, 1)]);
    drop(index);

    let index = FingerprintIndex::open(&path, MIB).unwrap();
    let len = path.metadata().unwrap().len();
    assert!(len <= MIB);
    for content in 0..200_000 {
        insert(&index, content, place(1, content));
    }
    assert_eq!(path.metadata().unwrap().len(), len);
    let kept = (0..200_000).filter(|content| !look_up(&index, *content).is_empty());
    let (kept, room) = (kept.count() as u64, (len - BEGIN) / 16);
    assert_eq!(
        kept, room,
        "no room is lost to the buckets once all are full"
    );
}

#[test]
fn as_many_contents_as_half_fill_it_are_nearly_all_kept() {
    let (_folder, _path, index) = index(SMALL);
    let contents = ROOM / 2;
    for content in 0..contents {
        insert(&index, content, place(1, content));
    }
    let lost = (0..contents).filter(|content| look_up(&index, *content).is_empty());
    let lost = lost.count() as u64;
    assert!(lost * 1000 < contents, "{lost} of {contents} lost");
}

#[test]
fn one_content_has_a_few_places_however_often_it_is_seen() {
    // One bucket, with room for 32.
    let (_folder, _path, index) = index(0);
    for content in 10..30 {
        insert(&index, content, place(1, content));
    }
    for block in 0..1000 {
        insert(&index, 5, place(1, block));
        insert(&index, 5, place(1, block));
    }
    let found = look_up(&index, 5);
    assert_eq!(found.len(), MAX_PLACES);
    assert!(
        found.iter().any(|place| place.block.0 > 900),
        "newer ones too"
    );
    let mut distinct = found.clone();
    distinct.sort_by_key(|place| place.block);
    distinct.dedup();
    assert_eq!(distinct.len(), MAX_PLACES, "none twice");
    for content in 10..30 {
        assert_eq!(look_up(&index, content), [place(1, content)], "still there");
    }
}

#[test]
fn places_in_a_forgotten_volume_are_missed_by_whoever_has_its_slot_next() {
    let (_folder, path, index) = index(MIB);
    insert(&index, 1, place(1, 10));
    insert(&index, 1, place(2, 20));
    index.forget(tag(1)).unwrap();
    assert_eq!(look_up(&index, 1), [place(2, 20)]);
    insert(&index, 3, place(3, 30));
    assert_eq!(look_up(&index, 1), [place(2, 20)], "volume 3 has the slot");
    index.forget(tag(3)).unwrap();
    insert(&index, 3, place(3, 31));
    assert_eq!(
        look_up(&index, 3),
        [place(3, 31)],
        "nor does itself find them"
    );
    drop(index);
    let index = FingerprintIndex::open(&path, MIB).unwrap();
    assert_eq!(look_up(&index, 1), [place(2, 20)]);
    assert_eq!(look_up(&index, 3), [place(3, 31)]);
    let mut volumes = index.volumes();
    volumes.sort_by_key(|volume| volume.0);
    assert_eq!(volumes, [tag(2), tag(3)]);
}

#[test]
fn one_volume_more_than_it_can_know_takes_the_place_of_another() {
    let (_folder, path, index) = index(MIB);
    let most = MAX_INDEXED_VOLUMES as u16;
    for volume in 0..most + 2 {
        insert(&index, volume.into(), place(volume, 1));
    }
    assert_eq!(index.volumes().len(), MAX_INDEXED_VOLUMES);
    for index in [&index, &FingerprintIndex::open(&path, MIB).unwrap()] {
        for (content, is_kept) in [(0, false), (1, false), (2, true), (most, true)] {
            let found = look_up(index, content.into());
            assert_eq!(!found.is_empty(), is_kept, "volume {content}");
        }
    }
}

#[test]
fn what_is_forgotten_gives_its_room_to_what_is_new_first() {
    let (_folder, _path, index) = index(SMALL);
    for content in 0..ROOM {
        insert(&index, content, place((content % 2) as u16, content));
    }
    index.forget(tag(1)).unwrap();
    let kept = || {
        let old = (0..ROOM).filter(|content| !look_up(&index, *content).is_empty());
        old.count() as u64
    };
    let before = kept();
    for content in ROOM..ROOM + ROOM / 4 {
        insert(&index, content, place(0, content));
    }
    let lost = before - kept();
    assert!(
        lost * 20 < ROOM / 4,
        "{lost} lost, though as many were free"
    );
}

#[test]
fn what_is_no_index_or_of_another_size_is_begun_anew() {
    let (_folder, path, index) = index(MIB);
    insert(&index, 1, place(1, 10));
    drop(index);
    let sound = fs::read(&path).unwrap();
    let mut cases: Vec<Vec<u8>> = vec![Vec::new(), sound[..100].to_vec(), vec![0xff; 5000]];
    for at in [0, 8, 16, 24, 60] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        cases.push(damaged);
    }
    // One of another size, cut to this one's.
    let larger = path.with_extension("larger");
    let index = FingerprintIndex::open(&larger, 2 * MIB).unwrap();
    insert(&index, 1, place(1, 10));
    cases.push(fs::read(&larger).unwrap()[..sound.len()].to_vec());
    for bytes in cases {
        fs::write(&path, &bytes).unwrap();
        let index = FingerprintIndex::open(&path, MIB).unwrap();
        assert_eq!(look_up(&index, 1), []);
        assert_eq!(index.volumes(), []);
        insert(&index, 2, place(2, 20));
        drop(index);
        let index = FingerprintIndex::open(&path, MIB).unwrap();
        assert_eq!(look_up(&index, 2), [place(2, 20)]);
    }
    let index = FingerprintIndex::open(&path, 2 * MIB).unwrap();
    assert_eq!(look_up(&index, 2), []);
}

#[test]
fn each_index_has_a_seed_of_its_own_so_that_nobody_can_aim_at_a_bucket() {
    let (_one, path, index) = index(SMALL);
    let seed = index.seed;
    drop(index);
    let kept = FingerprintIndex::open(&path, SMALL).unwrap();
    assert_eq!(kept.seed, seed);
    fs::remove_file(&path).unwrap();
    let other = FingerprintIndex::open(&path, SMALL).unwrap();
    assert_ne!(other.seed, seed);
    // Contents that share a bucket in one lie all over the other.
    let (layout, first) = (kept.layout, kept.layout.locate(&seed, 0).0);
    let aimed: Vec<u64> = (0..200_000)
        .filter(|of| layout.locate(&seed, *of).0 == first)
        .take(100)
        .collect();
    let buckets = aimed.iter().map(|of| layout.locate(&other.seed, *of).0);
    let distinct: std::collections::HashSet<u64> = buckets.collect();
    assert!(distinct.len() > 70, "{} buckets of 100", distinct.len());
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = FingerprintIndex::open(folder.path(), MIB).unwrap_err();
    let path = folder.path().display().to_string();
    assert!(error.to_string().contains(&path), "{error}");

    let path = folder.path().join("index");
    let index = FingerprintIndex::open(&path, MIB).unwrap();
    insert(&index, 1, place(1, 1));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    assert!(index.look_up(1).is_err());
}

#[test]
fn threads_that_insert_at_once_find_what_each_put_in() {
    let (_folder, _path, index) = index(16 * MIB);
    thread::scope(|scope| {
        for thread in 0..4 {
            let index = &index;
            scope.spawn(move || {
                for content in (thread..4000).step_by(4) {
                    insert(index, content, place(thread as u16, content));
                    look_up(index, content / 2);
                }
            });
        }
    });
    let lost = (0..4000).filter(|content| look_up(&index, *content).is_empty());
    // Two at once in one bucket may take the same spot.
    assert!(lost.count() < 40);
}

#[test]
fn an_index_is_these_bytes() {
    let header = Header {
        layout: Layout::new(MIB),
        seed: [3; 32],
    };
    let mut expected = b"DUNLFPIX\x01\0\0\0\0\0\0\0".to_vec();
    expected.extend_from_slice(&1784_u64.to_le_bytes());
    expected.extend_from_slice(&[3; 32]);
    let sum = blake3::hash(&expected);
    expected.extend_from_slice(sum.as_bytes());
    expected.resize(4096, 0);
    assert!(header.encode() == expected);
    let entry = Entry {
        key: 0x0807_0605_0403_0201,
        slot: 0x0a09,
        turn: 0x0c0b,
        block: 0x100f_0e0d,
    };
    assert_eq!(entry.encode(), std::array::from_fn(|i| i as u8 + 1));
    assert_eq!(
        layout::entry(header.layout.locate(&[3; 32], 9).0, 2),
        379_424
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn whatever_is_done_what_is_found_was_put_in(
        steps in prop::collection::vec((0..40_u64, 0..4_u16, 0..2_u64, 0..20_u8), 0..300),
        garbage in prop::collection::vec((0..1_000_000_usize, any::<u8>()), 0..4),
    ) {
        let (_folder, path, index) = index(MIB);
        let mut model: HashMap<u64, Vec<Place>> = HashMap::new();
        for (content, volume, block, what) in steps {
            if what == 0 {
                index.forget(tag(volume)).unwrap();
                for places in model.values_mut() {
                    places.retain(|place| place.volume != tag(volume));
                }
                continue;
            }
            let at = place(volume, block);
            insert(&index, content, at);
            let places = model.entry(content).or_default();
            if !places.contains(&at) {
                places.push(at);
            }
        }
        for content in 0..40 {
            let found = look_up(&index, content);
            let expected = model.get(&content).map_or(&[][..], Vec::as_slice);
            prop_assert!(found.iter().all(|place| expected.contains(place)));
            prop_assert_eq!(found.len(), expected.len(), "eight at most, so all are kept");
        }
        drop(index);
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in garbage {
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).unwrap();
        let index = FingerprintIndex::open(&path, MIB).unwrap();
        for content in 0..40 {
            prop_assert!(look_up(&index, content).len() <= MAX_PLACES);
        }
    }
}
