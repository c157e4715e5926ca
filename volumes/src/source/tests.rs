//! Sources as real files, and as loop devices where the test runs as root.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;
use crate::loop_device::LoopDevice;

const BLOCK: u64 = 65_536;

fn pattern(length: u64) -> Vec<u8> {
    (0..length).map(|i| (i % 253) as u8 + 1).collect()
}

fn read_all(source: &SourceVolume, at_once: u64) -> Vec<u8> {
    let mut buf = AlignedBuf::new(at_once);
    let (mut all, mut first) = (Vec::new(), 0);
    while first < source.geometry().blocks() {
        let count = at_once.min(source.geometry().blocks() - first);
        all.extend_from_slice(
            source
                .read_blocks(BlockIndex(first), count, &mut buf)
                .unwrap(),
        );
        first += count;
    }
    all
}

#[test]
fn what_is_read_is_the_file_whatever_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    for length in [1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 40 * BLOCK + 777] {
        let bytes = pattern(length);
        fs::write(&path, &bytes).unwrap();
        let source = SourceVolume::open(&path).unwrap();
        assert_eq!(source.length(), length);
        assert!(read_all(&source, 16) == bytes, "{length} bytes");
        source.check_unchanged().unwrap();
    }
}

#[test]
fn what_is_not_a_volume_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = SourceVolume::open(&folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, OpenSourceError::Missing { .. }));
    for path in [folder.path(), Path::new("/dev/null")] {
        let refused = SourceVolume::open(path).unwrap_err();
        assert!(matches!(refused, OpenSourceError::NotAVolume { .. }));
    }
    let empty = folder.path().join("empty");
    fs::write(&empty, []).unwrap();
    let refused = SourceVolume::open(&empty).unwrap_err();
    let why = GeometryError::Empty;
    assert!(matches!(refused, OpenSourceError::Length { why: found, .. } if found == why));
}

#[test]
fn holes_are_found_and_data_is_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let length = 100 * BLOCK + 10;
    let file = File::create(&path).unwrap();
    file.set_len(length).unwrap();
    let source = SourceVolume::open(&path).unwrap();
    assert_eq!(source.next_data(0, length).unwrap(), None);
    file.write_all_at(&pattern(BLOCK), 50 * BLOCK).unwrap();
    let data = source.next_data(0, length).unwrap().unwrap();
    assert!(data.start <= 50 * BLOCK && data.end >= 51 * BLOCK);
    // Were it all data, this file system had no holes and nothing was shown.
    assert!(data.start > 0 && data.end < length);
    assert_eq!(source.next_data(data.end, length).unwrap(), None);
    assert_eq!(source.next_data(u64::MAX, u64::MAX).unwrap(), None);
    file.write_all_at(&[1], length - 1).unwrap();
    let tail = source.next_data(data.end, length).unwrap().unwrap();
    assert_eq!(tail.end, length);
}

#[test]
fn in_a_short_range_no_hole_is_looked_for_behind_data_and_none_of_what_lies_beyond_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let length = 100 * BLOCK;
    let file = File::create(&path).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(&pattern(BLOCK), 50 * BLOCK).unwrap();
    let source = SourceVolume::open(&path).unwrap();
    let data = |offset, until| source.next_data(offset, until).unwrap();
    let short = 50 * BLOCK..66 * BLOCK;
    assert_eq!(data(short.start, short.end), Some(short.clone()));
    assert_eq!(data(0, short.end), Some(short.clone()));
    assert_eq!(data(0, 50 * BLOCK), Some(50 * BLOCK..50 * BLOCK));
    // In a longer one it is.
    let long = data(short.start, short.end + 1).unwrap();
    assert!(long.end < short.end, "{long:?}");
    // Up to the volume's end, and not beyond it.
    assert_eq!(data(50 * BLOCK, u64::MAX), Some(long));
    file.write_all_at(&[1], length - 1).unwrap();
    assert_eq!(data(99 * BLOCK, 101 * BLOCK).unwrap().end, length);
}

#[test]
fn a_source_that_grows_shrinks_moves_or_goes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, pattern(3 * BLOCK)).unwrap();
    let source = SourceVolume::open(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();

    file.set_len(3 * BLOCK + 1).unwrap();
    let error = source.check_unchanged().unwrap_err();
    assert!(
        matches!(error, SourceChanged::Grown { was, now, .. } if (was, now) == (3 * BLOCK, 3 * BLOCK + 1))
    );
    file.set_len(2 * BLOCK + 5).unwrap();
    let error = source.check_unchanged().unwrap_err();
    assert!(matches!(error, SourceChanged::Shrunk { now, .. } if now == 2 * BLOCK + 5));
    file.set_len(3 * BLOCK).unwrap();
    source.check_unchanged().unwrap();

    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let error = source.check_unchanged().unwrap_err();
    assert!(matches!(error, SourceChanged::Disappeared { .. }));
    fs::write(&path, pattern(3 * BLOCK)).unwrap();
    let error = source.check_unchanged().unwrap_err();
    assert!(matches!(error, SourceChanged::Replaced { .. }));
    fs::rename(&aside, &path).unwrap();
    source.check_unchanged().unwrap();
}

#[test]
fn a_short_read_is_an_error_and_never_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, pattern(3 * BLOCK)).unwrap();
    let source = SourceVolume::open(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(BLOCK + 100).unwrap();
    let mut buf = AlignedBuf::new(3);
    source.read_blocks(BlockIndex(0), 1, &mut buf).unwrap();
    let error = source.read_blocks(BlockIndex(0), 3, &mut buf).unwrap_err();
    assert!(
        matches!(error, ReadError::Short { offset, length, .. } if offset == BLOCK + 100 && length == 3 * BLOCK)
    );
}

#[test]
fn blocks_outside_the_volume_or_the_buffer_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, pattern(3 * BLOCK)).unwrap();
    let source = SourceVolume::open(&path).unwrap();
    let mut buf = AlignedBuf::new(2);
    for (first, count) in [(3, 1), (2, 2), (0, 3), (0, 0), (u64::MAX, 2)] {
        let refused = source.read_blocks(BlockIndex(first), count, &mut buf);
        assert!(
            matches!(refused, Err(ReadError::Outside { .. })),
            "{first} {count}"
        );
    }
}

#[test]
fn a_read_error_names_where_it_happened() {
    // Nothing is mapped at the beginning of an address space, so reading it
    // fails as a broken disk does.
    let path = Path::new("/proc/self/mem");
    let source = SourceVolume {
        path: path.to_owned(),
        file: File::open(path).unwrap(),
        geometry: Geometry::new(3 * BLOCK).unwrap(),
        identity: SourceIdentity::Other,
        left_out: vec![],
    };
    let mut buf = AlignedBuf::new(1);
    let error = source.read_blocks(BlockIndex(0), 1, &mut buf).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read /proc/self/mem at offset 0: Input/output error (os error 5)"
    );
}

#[test]
fn a_block_device_is_read_past_the_cache_whatever_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let bytes = pattern(20 * BLOCK + 3 * 512);
    fs::write(&path, &bytes).unwrap();
    let Some(device) = LoopDevice::attach(&path) else {
        return;
    };
    let source = SourceVolume::open(device.path()).unwrap();
    assert!(source.identity().is_device());
    assert_eq!(source.length(), bytes.len() as u64);
    assert!(read_all(&source, 16) == bytes);
    let all = 0..source.length();
    assert_eq!(source.next_data(0, all.end).unwrap(), Some(all));
    source.check_unchanged().unwrap();
}

#[test]
fn a_block_device_that_is_resized_or_fails_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, pattern(20 * BLOCK)).unwrap();
    let Some(device) = LoopDevice::attach(&path) else {
        return;
    };
    let source = SourceVolume::open(device.path()).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();

    // The device keeps its length while what is below it is gone.
    file.set_len(10 * BLOCK).unwrap();
    let mut buf = AlignedBuf::new(16);
    let error = source.read_blocks(BlockIndex(4), 16, &mut buf).unwrap_err();
    assert!(matches!(error, ReadError::Io { offset, .. } if offset >= 4 * BLOCK));
    let error = source.read_blocks(BlockIndex(12), 1, &mut buf).unwrap_err();
    assert!(matches!(error, ReadError::Io { offset, .. } if offset == 12 * BLOCK));

    device.resize();
    let error = source.check_unchanged().unwrap_err();
    assert!(matches!(error, SourceChanged::Shrunk { now, .. } if now == 10 * BLOCK));
    file.set_len(30 * BLOCK).unwrap();
    device.resize();
    let error = source.check_unchanged().unwrap_err();
    assert!(matches!(error, SourceChanged::Grown { now, .. } if now == 30 * BLOCK));
}

#[test]
fn a_narrowed_volume_is_its_first_bytes_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let narrow = SourceVolume::open(&path).unwrap().narrowed(70_000).unwrap();
    let mut reader = crate::RootReader::new(&narrow);
    let root = loop {
        if let Some(root) = reader.step(&narrow).unwrap() {
            break root;
        }
    };
    assert_eq!(root.0, *blake3::hash(&bytes[..70_000]).as_bytes());
    let refused = SourceVolume::open(&path).unwrap().narrowed(200_001);
    assert!(matches!(
        refused,
        Err(OpenSourceError::TooShort {
            have: 200_000,
            need: 200_001,
            ..
        })
    ));
}

#[test]
fn a_source_cannot_be_written_through() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    fs::write(&path, pattern(BLOCK)).unwrap();
    let source = SourceVolume::open(&path).unwrap();
    let refused = source.file.write_all_at(&[0; 16], 0).unwrap_err();
    assert_eq!(
        refused.raw_os_error(),
        Some(rustix::io::Errno::BADF.raw_os_error())
    );
    assert_eq!(fs::read(&path).unwrap(), pattern(BLOCK));
}
