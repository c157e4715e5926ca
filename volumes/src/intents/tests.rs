//! Notes on real files, cut and damaged by hand as a crash would.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

const TAG: VolumeTag = VolumeTag(*b"0123456789abcdef");

fn groups(of: impl IntoIterator<Item = u64>) -> Vec<GroupIndex> {
    of.into_iter().map(GroupIndex).collect()
}

fn outstanding(path: &Path) -> Vec<GroupIndex> {
    Intents::open(path, TAG).unwrap().outstanding().collect()
}

fn cut(path: &Path, len: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn noted_groups_are_there_after_a_crash_and_cleared_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    assert_eq!(outstanding(&path), []);
    let mut intents = Intents::open(&path, TAG).unwrap();
    intents.note(&groups([7, 3, 3])).unwrap();
    intents.note(&groups(100..300)).unwrap();
    drop(intents);
    assert_eq!(
        outstanding(&path),
        groups([3, 7].into_iter().chain(100..300))
    );

    let mut intents = Intents::open(&path, TAG).unwrap();
    intents.clear().unwrap();
    assert_eq!(intents.outstanding().count(), 0);
    drop(intents);
    assert_eq!(outstanding(&path), []);

    let mut intents = Intents::open(&path, TAG).unwrap();
    intents.note(&groups([5])).unwrap();
    drop(intents);
    assert_eq!(outstanding(&path), groups([5]));
}

#[test]
fn what_is_noted_already_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    let mut intents = Intents::open(&path, TAG).unwrap();
    intents.note(&groups([1, 2])).unwrap();
    let len = path.metadata().unwrap().len();
    intents.note(&groups([2, 1, 2])).unwrap();
    assert_eq!(path.metadata().unwrap().len(), len);
    intents.note(&groups([2, 4])).unwrap();
    assert_eq!(path.metadata().unwrap().len(), len + RECORD_LEN as u64);
}

#[test]
fn a_torn_last_record_is_ignored_and_later_ones_follow_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    for torn_len in [1, 100, RECORD_LEN as u64 - 1, RECORD_LEN as u64] {
        fs::remove_file(&path).ok();
        let mut intents = Intents::open(&path, TAG).unwrap();
        intents.note(&groups([1])).unwrap();
        intents.note(&groups([2])).unwrap();
        drop(intents);
        let second = 2 * RECORD_LEN as u64;
        cut(&path, second + torn_len);
        overwrite(&path, second, &[0xff]);
        assert_eq!(outstanding(&path), groups([1]), "{torn_len} bytes");
        let mut intents = Intents::open(&path, TAG).unwrap();
        intents.note(&groups([3])).unwrap();
        drop(intents);
        assert_eq!(outstanding(&path), groups([1, 3]));
    }
}

#[test]
fn a_damaged_record_before_others_is_not_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    let mut intents = Intents::open(&path, TAG).unwrap();
    intents.note(&groups([1])).unwrap();
    intents.note(&groups([2])).unwrap();
    drop(intents);
    overwrite(&path, RECORD_LEN as u64 + 8, &[0xff]);
    let damaged = Intents::open(&path, TAG).unwrap_err();
    assert!(matches!(damaged, OpenIntentsError::Corrupt { .. }));
}

#[test]
fn notes_stopped_before_their_header_was_written_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    for begun in [vec![], vec![0; 100], vec![0; RECORD_LEN]] {
        fs::write(&path, begun).unwrap();
        assert_eq!(outstanding(&path), []);
    }
}

#[test]
fn notes_of_others_of_the_future_or_of_nobody_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    let held = Intents::open(&path, TAG).unwrap();
    let busy = Intents::open(&path, TAG).unwrap_err();
    assert!(matches!(busy, OpenIntentsError::Busy { .. }));
    drop(held);
    let other = Intents::open(&path, VolumeTag([0; 16])).unwrap_err();
    assert!(matches!(other, OpenIntentsError::OtherVolume { .. }));
    overwrite(&path, 8, &[2]);
    let newer = Intents::open(&path, TAG).unwrap_err();
    assert!(matches!(
        newer,
        OpenIntentsError::NewerVersion { have: 2, .. }
    ));
    overwrite(&path, 8, &[1]);
    overwrite(&path, 17, b"?");
    let damaged = Intents::open(&path, TAG).unwrap_err();
    assert!(matches!(damaged, OpenIntentsError::Corrupt { .. }));
    fs::write(&path, [7; 4096]).unwrap();
    let foreign = Intents::open(&path, TAG).unwrap_err();
    assert!(matches!(foreign, OpenIntentsError::Corrupt { .. }));
}

#[test]
fn after_a_failure_nothing_can_be_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    let mut intents = Intents::open(&path, TAG).unwrap();
    intents.file = LockedFile(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let full = intents.note(&groups([1])).unwrap_err();
    assert_eq!(full, IntentError::Full { path });
    intents.file = LockedFile(tempfile::tempfile().unwrap());
    assert_eq!(intents.note(&groups([2])), Err(full.clone()));
    assert_eq!(intents.clear(), Err(full));
    assert_eq!(intents.outstanding().count(), 0);
}

#[test]
fn a_record_is_these_bytes() {
    let bytes = encode_record(TAG, 9, &groups([0x0102, 3]));
    assert_eq!(bytes[..8], [2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        bytes[8..24],
        [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    );
    assert!(blocks::is_zero(&bytes[24..SUMMED_RECORD]));
    let mut summed = TAG.0.to_vec();
    summed.extend_from_slice(&9u64.to_le_bytes());
    summed.extend_from_slice(&bytes[..SUMMED_RECORD]);
    assert_eq!(
        bytes[SUMMED_RECORD..],
        blake3::hash(&summed).as_bytes()[..16]
    );
    assert_eq!(decode_record(TAG, 9, &bytes), Some(groups([0x0102, 3])));
    assert_eq!(decode_record(TAG, 8, &bytes), None);
    assert_eq!(decode_record(VolumeTag([0; 16]), 9, &bytes), None);
}
